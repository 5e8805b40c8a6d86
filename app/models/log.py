"""The logs this node keeps: its own, and a mirror of every other State's."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKey, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class LogRow(Base):
    """One log and how far this node is with it. For the own log, `size` is what is committed, `head_size` what is signed."""

    __tablename__ = "logs"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    origin: Mapped[str] = mapped_column(String(300), unique=True)
    state: Mapped[str] = mapped_column(String(2), index=True)
    epoch: Mapped[int] = mapped_column(Integer)
    is_own: Mapped[bool] = mapped_column(Boolean)
    status: Mapped[str] = mapped_column(String(10), default="ok")  # ok | frozen
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    frontier: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    judged: Mapped[int] = mapped_column(BigInteger, default=0)  # leaves below this index are projected
    judged_under: Mapped[str | None] = mapped_column(
        String(64)
    )  # Roster.judges_by when they were judged last
    confirmed_under: Mapped[str | None] = mapped_column(
        String(64)
    )  # Roster.confirms_by when its history was counted last
    end_size: Mapped[int | None] = mapped_column(BigInteger)  # where the States have ended it
    continues_id: Mapped[int | None] = mapped_column(
        Integer
    )  # row of the State's ended log, whose notices this one continues
    head_size: Mapped[int] = mapped_column(BigInteger, default=0)
    head_root: Mapped[bytes | None] = mapped_column(LargeBinary)
    head_note: Mapped[bytes | None] = mapped_column(LargeBinary)  # newest checkpoint: the log's own lines
    head_at: Mapped[int | None] = mapped_column(BigInteger)  # when this node signed or verified it
    confirmed_size: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # leaves below are confirmed: a quorum of witnesses cosigned one checkpoint above them. See `app.tlog.confirm`
    confirmed_told: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # up to here subscribers were told so
    backfilled: Mapped[bool] = mapped_column(
        Boolean, default=False
    )  # the first catch-up is over: events are live
    claimed_size: Mapped[int] = mapped_column(
        BigInteger, default=0
    )  # largest size the origin signed, verified or not
    contact_at: Mapped[int | None] = mapped_column(BigInteger)  # last answer of the origin that verified
    skew_ms: Mapped[int | None] = mapped_column(BigInteger)  # origin's clock minus ours
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(String(1000))
    error_at: Mapped[int | None] = mapped_column(BigInteger)


class LeafRow(Base):
    """One leaf, exactly as it was logged. Never updated, never deleted."""

    __tablename__ = "leaves"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    leaf_hash: Mapped[bytes] = mapped_column(LargeBinary)
    leaf: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[int] = mapped_column(BigInteger)


class TileRow(Base):
    """One hash tile (C2SP tlog-tiles): up to 256 hashes of 32 bytes; the rightmost of a level grows."""

    __tablename__ = "tree_tiles"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    level: Mapped[int] = mapped_column(Integer, primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hashes: Mapped[bytes] = mapped_column(LargeBinary)


class HeadRow(Base):
    """One signed head per size, by primary key: a second root for a size cannot be stored, so it cannot be signed."""

    __tablename__ = "heads"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    root: Mapped[bytes] = mapped_column(LargeBinary)
    note: Mapped[bytes | None] = mapped_column(LargeBinary)  # None between the decision and the signature
    at: Mapped[int] = mapped_column(BigInteger)


class CosignatureRow(Base):
    """One witness's cosignature/v1 over one head: the receipt for everything up to its size."""

    __tablename__ = "cosignatures"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    witness: Mapped[str] = mapped_column(String(300), primary_key=True)  # key name, C2SP tlog-cosignature
    state: Mapped[str | None] = mapped_column(String(2))  # None: a witness outside the roster
    timestamp: Mapped[int] = mapped_column(BigInteger)  # unix seconds, the witness's clock
    line: Mapped[bytes] = mapped_column(LargeBinary)  # the note signature line with its newline
    fresh_at: Mapped[int | None] = mapped_column(
        BigInteger
    )  # the same head cosigned again later: the newest time
    fresh_line: Mapped[bytes | None] = mapped_column(LargeBinary)


class ConfirmationRow(Base):
    """One checkpoint as it stood when a quorum had cosigned it: the history by which everybody tells the time of a leaf.

    The log's own node makes it, mirrors copy it; it never changes. A size has a second row if its quorum cosigned it
    again later, while the log stood still.
    """

    __tablename__ = "confirmations"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[int] = mapped_column(
        BigInteger, primary_key=True
    )  # unix seconds: median of the cosignatures' times
    note: Mapped[bytes] = mapped_column(LargeBinary)


class BodyRow(Base):
    """One opened body part, sealed (`app.domain.at_rest`). Only `app.bodies` reads and writes it."""

    __tablename__ = "bodies"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    part: Mapped[str] = mapped_column(String(32), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)  # salt and content under the leaf's key
    held_at: Mapped[int] = mapped_column(BigInteger)


class BodyKeyRow(Base):
    """The key of one leaf's body. Deleting the row is the erasure, in every copy of `bodies` that was ever made."""

    __tablename__ = "body_keys"
    __table_args__ = ({"sqlite_with_rowid": False},)

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)


class CarriedRow(Base):
    """A body of one leaf, sealed to one State: made by the issuer, carried by any node, opened by the addressee alone.

    For a State that is no addressee it is a sealing that nobody can open; only the issuer knows which is which.
    """

    __tablename__ = "carried_bodies"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    recipient: Mapped[str] = mapped_column(String(2), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)  # JSON {"id", "kid", "parts"}
    size: Mapped[int] = mapped_column(Integer)  # bytes of `sealed`
    at: Mapped[int] = mapped_column(BigInteger)
