"""Projections: what the logs say, arranged for reading. `verbale rebuild` drops and refolds all of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base

UNKNOWN_TLP = 99
"""Rank of a notice whose body this node does not hold: above every ceiling, so nobody may read it."""


class EntryRow(Base):
    """One leaf, judged. `fault_*` flags a leaf that failed judgement; it stands in the log all the same."""

    __tablename__ = "entries"
    __table_args__ = (
        # One valid statement per id and log: the constraint behind `lifecycle.check_fresh`, and how ids are looked up.
        Index(
            "uq_entries_id_log_id",
            "id",
            "log_id",
            unique=True,
            sqlite_where=text("fault_code IS NULL"),
            postgresql_where=text("fault_code IS NULL"),
        ),
        Index("ix_entries_leaf_hash", "leaf_hash"),
        Index("ix_entries_log_id_root_idx", "log_id", "root_idx"),
        Index(
            "ix_entries_wanted",
            "log_id",
            "idx",
            sqlite_where=text("body_state = 'wanted'"),
            postgresql_where=text("body_state = 'wanted'"),
        ),
        Index(
            "ix_entries_faults",
            "log_id",
            "idx",
            sqlite_where=text("fault_code IS NOT NULL OR body_fault_code IS NOT NULL"),
            postgresql_where=text("fault_code IS NOT NULL OR body_fault_code IS NOT NULL"),
        ),
        # Of a million leaves a few are anchors, and they are looked for every few seconds.
        Index(
            "ix_entries_anchors",
            "log_id",
            "idx",
            sqlite_where=text("kind = 'anchor'"),
            postgresql_where=text("kind = 'anchor'"),
        ),
        Index(
            "ix_entries_ref", "ref", sqlite_where=text("kind = 'ack'"), postgresql_where=text("kind = 'ack'")
        ),
    )

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    leaf_hash: Mapped[bytes] = mapped_column(LargeBinary)
    id: Mapped[str | None] = mapped_column(String(36))  # None: the leaf could not be read
    kind: Mapped[str | None] = mapped_column(String(10))
    kid: Mapped[str | None] = mapped_column(String(32))
    iat: Mapped[int | None] = mapped_column(BigInteger)
    exp: Mapped[int | None] = mapped_column(BigInteger)
    ref: Mapped[bytes | None] = mapped_column(LargeBinary)
    fault_code: Mapped[str | None] = mapped_column(String(64))
    fault_detail: Mapped[str | None] = mapped_column(String(1000))
    root_idx: Mapped[int | None] = mapped_column(BigInteger)  # the notice this is a version of
    version: Mapped[int | None] = mapped_column(Integer)
    received_at: Mapped[int] = mapped_column(BigInteger)
    body_state: Mapped[str] = mapped_column(String(8))  # none | wanted | held | absent | erased
    body_type: Mapped[str | None] = mapped_column(String(40))
    body_fault_code: Mapped[str | None] = mapped_column(String(64))
    body_fault_detail: Mapped[str | None] = mapped_column(String(1000))
    tlp_rank: Mapped[int] = mapped_column(SmallInteger, default=UNKNOWN_TLP)  # this version's own handling
    audience: Mapped[str | None] = mapped_column(Text)  # "ALL", or codes joined by a space; "" is nobody


class NoticeRow(Base):
    """One notice in its newest version that this node holds.

    Key: the log and the index of the issuing statement; of a notice that was issued in an ended log and changed in the one
    that continues it, the first statement about it there (`app.projections.lineage`).
    """

    __tablename__ = "notices"
    __table_args__ = (
        # All that the gate and the filters of a list read, in list order. A row with its document fills a page of the
        # table, and fifty rows of this index do: counting 100,000 notices takes 30 ms instead of 600.
        Index(
            "ix_notices_reading",
            "seq",
            "status",
            "content_state",
            "tlp_rank",
            "audience_all",
            "issuer",
            "type",
            "exp",
            "valid_until",
            "denied_on",
            "review_due",
            "iat",
            "received_at",
            "log_id",
            "idx",
        ),
        # What a notice that stands in an ended log has become.
        Index(
            "ix_notices_from",
            "from_log_id",
            "from_idx",
            sqlite_where=text("from_log_id IS NOT NULL"),
            postgresql_where=text("from_log_id IS NOT NULL"),
        ),
        # What has expired since a moment ago.
        Index(
            "ix_notices_exp",
            "exp",
            sqlite_where=text("exp IS NOT NULL"),
            postgresql_where=text("exp IS NOT NULL"),
        ),
    )

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, unique=True)  # order of arrival at this node
    id: Mapped[str] = mapped_column(String(36), index=True)
    issuer: Mapped[str] = mapped_column(String(2))
    status: Mapped[str] = mapped_column(String(10))  # active | withdrawn | erased
    version: Mapped[int] = mapped_column(Integer)
    current_idx: Mapped[int] = mapped_column(BigInteger)  # newest version
    current_hash: Mapped[bytes] = mapped_column(LargeBinary)
    document_idx: Mapped[int] = mapped_column(
        BigInteger
    )  # newest version that carries a document (issue, amend)
    content_idx: Mapped[int | None] = mapped_column(BigInteger)  # version whose document is below
    content_state: Mapped[str] = mapped_column(
        String(8)
    )  # none | current | stale | recalled | invalid | erased | moved: its row is in the log that continues this one
    from_log_id: Mapped[int | None] = mapped_column(Integer)  # key of its row in the log before
    from_idx: Mapped[int | None] = mapped_column(BigInteger)
    iat: Mapped[int] = mapped_column(BigInteger)  # when issued, as claimed
    exp: Mapped[int | None] = mapped_column(BigInteger)
    changed_iat: Mapped[int] = mapped_column(BigInteger)  # of the newest version
    received_at: Mapped[int] = mapped_column(BigInteger)
    changed_at: Mapped[int] = mapped_column(BigInteger)  # when this node recorded the newest version
    tlp_rank: Mapped[int] = mapped_column(SmallInteger, default=UNKNOWN_TLP)
    audience_all: Mapped[bool] = mapped_column(Boolean, default=False)
    type: Mapped[str | None] = mapped_column(String(40))
    title: Mapped[str | None] = mapped_column(String(500))
    denied_on: Mapped[str | None] = mapped_column(String(10))
    effective_from: Mapped[str | None] = mapped_column(String(10))
    valid_until: Mapped[str | None] = mapped_column(String(10))
    review_due: Mapped[str | None] = mapped_column(String(10))
    withdrawn_on: Mapped[str | None] = mapped_column(String(10))
    search_text: Mapped[str | None] = mapped_column(Text)  # folded
    document: Mapped[str | None] = mapped_column(Text)  # JSON of the effective main part


class NoticeTermRow(Base):
    """One searchable term of a notice.

    No index by notice: this is the table with the most rows, and the terms of an old version follow from its document.

    Kinds: `n` name token (`pos` numbers the name it belongs to), `c` control code or an ancestor of one, `l` country,
    `h` human-rights concern, `a` addressee State.
    """

    __tablename__ = "notice_terms"
    __table_args__ = ({"sqlite_with_rowid": False},)

    kind: Mapped[str] = mapped_column(String(1), primary_key=True)
    term: Mapped[str] = mapped_column(String(120), primary_key=True)
    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    pos: Mapped[int] = mapped_column(Integer, primary_key=True)


class ErasureSaidRow(Base):
    """That a State's node says, in a leaf of its log, that it has carried out every erasure of a log below an index."""

    __tablename__ = "erasures_said"
    __table_args__ = (Index("ix_erasures_said_origin_below", "origin", "below"),)

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)  # of the State that says it
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    origin: Mapped[str] = mapped_column(String(300), primary_key=True)  # of the log whose erasures are meant
    below: Mapped[int] = mapped_column(BigInteger)
    iat: Mapped[int] = mapped_column(BigInteger)


class RosterSaidRow(Base):
    """Which roster a State's node says, in a leaf of its log, that it follows."""

    __tablename__ = "rosters_said"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    iat: Mapped[int] = mapped_column(BigInteger)


class ScreenedRow(Base):
    """What parties are screened against: the parties of one notice, on a narrow row of its own.

    There is one row for each notice, of whatever type, so that dropping and refolding makes the same rows. `seq` numbers
    changes at this node, of content or of status: an index in memory reads what came after the last it has seen.
    """

    __tablename__ = "screened_notices"

    log_id: Mapped[int] = mapped_column(ForeignKey("logs.id"), primary_key=True)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, unique=True)
    audience: Mapped[str | None] = mapped_column(Text)  # "ALL", or codes joined by a space; None: no content
    parties: Mapped[str | None] = mapped_column(
        Text
    )  # JSON, see `app.projections.screened`; None: nothing to find
