"""Evidence against logs and witnesses, whom it was told, and what is watched of each log to find it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class EvidenceRow(Base):
    """One record that was verified here, byte for byte. Never changed."""

    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_origin", "origin"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of the record, hex
    origin: Mapped[str] = mapped_column(String(300))
    type: Mapped[str] = mapped_column(String(10))
    accused: Mapped[str] = mapped_column(String(300))  # the origin, or a witness's name
    convicts: Mapped[bool] = mapped_column(Boolean)
    record: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str | None] = mapped_column(String(2))  # the State that gave it; None: found here
    leaf_idx: Mapped[int | None] = mapped_column(BigInteger)  # of the `evidence` leaf in the own log


class EvidenceToldRow(Base):
    """A record that a State's node has taken, or refused for good: it is not told again."""

    __tablename__ = "evidence_told"

    evidence_id: Mapped[str] = mapped_column(ForeignKey("evidence.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(2), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)


class BranchLeafRow(Base):
    """One leaf of the other history of a frozen log, exactly as it was served and proven; bounded."""

    __tablename__ = "branch_leaves"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    root: Mapped[str] = mapped_column(String(64), primary_key=True)  # root of that history's head, hex
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    leaf: Mapped[bytes] = mapped_column(LargeBinary)


class WatchRow(Base):
    """What this node keeps in mind of one log besides the log itself. A missing row is one with its defaults.

    `frozen_size` is the largest size that a quorum confirmed and that both histories of a frozen log share; None until that
    is found out. `shown_*` is the largest head that others have shown and the log itself does not serve.
    """

    __tablename__ = "log_watch"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    pending_note: Mapped[bytes | None] = mapped_column(LargeBinary)  # signed head of a catch-up under way
    frozen_at: Mapped[int | None] = mapped_column(BigInteger)
    frozen_size: Mapped[int | None] = mapped_column(BigInteger)
    claimed_note: Mapped[bytes | None] = mapped_column(
        LargeBinary
    )  # largest signed head whose leaves nobody gave
    served_size: Mapped[int] = mapped_column(
        BigInteger, default=0
    )  # largest the log's own node served or offered
    served_note: Mapped[bytes | None] = mapped_column(LargeBinary)
    shown_size: Mapped[int] = mapped_column(BigInteger, default=0)
    shown_note: Mapped[bytes | None] = mapped_column(LargeBinary)
    shown_by: Mapped[str | None] = mapped_column(String(100))
    shown_at: Mapped[int | None] = mapped_column(BigInteger)
    withheld_at: Mapped[int | None] = mapped_column(BigInteger)  # when the alarm was given
    restored_at: Mapped[int | None] = mapped_column(
        BigInteger
    )  # from a backup, and not yet level with the others
    closed_at: Mapped[int | None] = mapped_column(BigInteger)  # own log: nothing is signed or taken
    vouched_size: Mapped[int | None] = mapped_column(BigInteger)  # own log: its operator says nobody has more
    held_by: Mapped[str | None] = mapped_column(String(32))  # the run of its State's node that signs for it
    held_at: Mapped[int | None] = mapped_column(BigInteger)  # when that run was last heard of
    held_s: Mapped[int | None] = mapped_column(Integer)  # how long it holds the log without a word
