"""Epochs of one State's log: which continues which, and where a notice is by now.

A log that signed two histories is ended by the States at a size (`app.domain.roster.RosterLog.end`). The State's next log
continues it: statements there may act on what stands below the end. Such a notice then has its row in the new log, keyed by
the first statement about it there, and its row in the old one is `moved`: empty, and shown by nobody. So every notice is
shown once, in the log that can still change it, and everything that is keyed by one log goes on as it was.

Locks are taken from the newest epoch to the oldest, everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from app.models import EntryRow, LogRow, NoticeRow
from app.tlog.store import lock_log

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.domain.roster import Roster
    from app.tlog.store import StoredLog

MOVED: Final = "moved"
"""`notices.content_state` of a row whose notice goes on in the next epoch."""
REFERENCE_FAULTS: Final = ("unknown-reference", "stale-reference", "notice-closed")
"""Faults that follow from what a log, or one that it continues, said before."""

Key = tuple[int, int]
"""Log and index of a row of `notices`."""


def earlier(session: Session, log_id: int) -> list[int]:
    """The logs that a log continues, newest first."""
    found: list[int] = []
    while (
        before := session.execute(select(LogRow.continues_id).where(LogRow.id == log_id)).scalar_one()
    ) is not None:
        found.append(before)
        log_id = before
    return found


def later(session: Session, log_id: int) -> int | None:
    """The log that continues this one, or None."""
    return session.execute(select(LogRow.id).where(LogRow.continues_id == log_id)).scalar_one_or_none()


def lock(session: Session, log_id: int) -> StoredLog:
    """Lock a log and all that continue it, the newest first; the log's state."""
    chain = [log_id]
    while (after := later(session, chain[-1])) is not None:
        chain.append(after)
    return [lock_log(session, one) for one in reversed(chain)][-1]


def is_waiting(session: Session, log_id: int) -> bool:
    """Whether a log that this one continues is not judged up to its end yet: until then nothing here can be judged."""
    before = earlier(session, log_id)
    if not before:
        return False
    judged, end = session.execute(select(LogRow.judged, LogRow.end_size).where(LogRow.id == before[0])).one()
    return bool(judged < (end or 0)) or is_waiting(session, before[0])


def newest(session: Session, key: Key) -> Key:
    """Where the notice of a row is by now."""
    while True:
        row = session.execute(
            select(NoticeRow.log_id, NoticeRow.idx).where(
                NoticeRow.from_log_id == key[0], NoticeRow.from_idx == key[1]
            )
        ).one_or_none()
        if row is None:
            return key
        key = (row.log_id, row.idx)


def line(session: Session, key: Key) -> list[Key]:
    """The rows of one notice, from the log that issued it to `key`."""
    found = [key]
    while True:
        row = session.execute(
            select(NoticeRow.from_log_id, NoticeRow.from_idx).where(
                NoticeRow.log_id == found[-1][0], NoticeRow.idx == found[-1][1]
            )
        ).one_or_none()
        if row is None or row.from_log_id is None:
            return found[::-1]
        found.append((row.from_log_id, row.from_idx))


def link(session: Session, log_id: int, origin: str, roster: Roster) -> bool:
    """Write down where the States have ended this log and which it continues. True if what it continues changed."""
    listed, before = roster.log(origin), roster.continued(origin)
    before_id = None
    if before is not None:
        before_id = session.execute(
            select(LogRow.id).where(LogRow.origin == before.origin)
        ).scalar_one_or_none()
    was = session.execute(select(LogRow.continues_id).where(LogRow.id == log_id)).scalar_one()
    end = None if listed is None else listed.end
    session.execute(update(LogRow).where(LogRow.id == log_id).values(continues_id=before_id, end_size=end))
    if before is not None:
        session.execute(update(LogRow).where(LogRow.id == before_id).values(end_size=before.end))
    return bool(was != before_id)


def is_linked(session: Session, log_id: int, origin: str, roster: Roster) -> bool:
    """Whether what this log continues is written down, as far as this node keeps it."""
    before = roster.continued(origin)
    if before is None:
        return True
    known = session.execute(select(LogRow.id).where(LogRow.origin == before.origin)).scalar_one_or_none()
    linked = session.execute(select(LogRow.continues_id).where(LogRow.id == log_id)).scalar_one()
    return bool(known == linked)


def hanging_on(session: Session, log_id: int) -> set[int]:
    """Leaves of a log whose verdict or effect depends on what the logs that it continues say."""
    moved = select(NoticeRow.idx).where(NoticeRow.log_id == log_id, NoticeRow.from_log_id.is_not(None))
    return set(
        session.scalars(
            select(EntryRow.idx).where(
                EntryRow.log_id == log_id,
                EntryRow.root_idx.in_(moved) | EntryRow.fault_code.in_(REFERENCE_FAULTS),
            )
        )
    )
