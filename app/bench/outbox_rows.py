"""Rows as the fold writes them, made in bulk: a log, its notices and their events. The notices name nobody at all."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from app.clock import system_clock
from app.models import EntryRow, EventRow, LogRow, NoticeRow

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db import Database

ORIGIN: Final = "us.verbale.example/log/1"
_ENTRY: Final = ("log_id", "idx", "leaf_hash", "id", "kind", "root_idx", "version", "received_at", "body_state", "tlp_rank", "audience")  # fmt: skip
_NOTICE: Final = (
    "log_id", "idx", "seq", "id", "issuer", "status", "version", "current_idx", "current_hash", "document_idx", "content_idx",
    "content_state", "iat", "changed_iat", "received_at", "changed_at", "tlp_rank", "audience_all", "type", "document",
)  # fmt: skip
_EVENT: Final = ("seq", "type", "log_id", "idx", "root_idx", "at", "live")


def add_log(database: Database) -> None:
    """The log that the events are about."""
    with database.write() as session:
        session.add(LogRow(origin=ORIGIN, state="US", epoch=1, is_own=False))


def add_events(database: Database, count: int) -> int:
    """Issue `count` notices in one transaction; returns the index of the first."""
    with database.write() as session:
        return _add(database, session, count)


def _add(database: Database, session: Session, count: int) -> int:
    log_id = session.scalars(select(LogRow.id).where(LogRow.origin == ORIGIN)).one()
    newest = session.scalar(select(func.max(NoticeRow.idx)).where(NoticeRow.log_id == log_id))
    first, now = 0 if newest is None else newest + 1, system_clock()
    indices = range(first, first + count)
    hashes = [sha256(b"%d" % n).digest() for n in indices]
    ids = [f"{n:08x}-0000-7000-8000-000000000000" for n in indices]
    database.bulk_insert(
        session,
        EntryRow.__table__,
        _ENTRY,
        [
            (log_id, n, h, id_, "issue", n, 1, now, "held", 0, "ALL")
            for n, h, id_ in zip(indices, hashes, ids, strict=True)
        ],
    )
    seq = database.next_values(session, "notices", count)
    database.bulk_insert(
        session,
        NoticeRow.__table__,
        _NOTICE,
        [
            (
                log_id, n, seq + n - first, id_, "US", "active", 1, n, h, n, n, "current", now // 1000, now // 1000, now, now,
                0, True, "denied_end_user", "{}",
            )
            for n, h, id_ in zip(indices, hashes, ids, strict=True)
        ],
    )  # fmt: skip
    number = database.next_values(session, "events", count)
    database.bulk_insert(
        session,
        EventRow.__table__,
        _EVENT,
        [(number + n - first, "notice.issued", log_id, n, n, now, True) for n in indices],
    )
    return first
