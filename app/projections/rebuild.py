"""Folding the projections again: `entries`, `notices`, `notice_terms` and `screened_notices` are
dropped and made anew from the stored logs.

It goes through the functions that record live, so it makes what they made, whatever the batches and the order in which
bodies came. Given the roster that is in force now: a leaf that was flagged because a key reached the roster late is
judged again, and may now hold. Three things are no consequence of the log and are carried over: `notices.seq` (order of
arrival here, which cursors point into), that a body is not for this State (`absent`), and bodies themselves, which are
not touched. No event is emitted: everything has happened before.

One log is one transaction. A crash leaves every log either as it was or wholly refolded, and running it again does the
rest. The transaction holds the log's lock, so a node that runs meanwhile reads on and its writes wait; that is why the
command refuses while the node's server answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, select, update

from app import bodies
from app.domain.errors import LogCorrupt
from app.judging import Context, MirroredLeaf
from app.models import (
    CounterRow,
    EntryRow,
    ErasureSaidRow,
    LeafRow,
    LogRow,
    NoticeRow,
    NoticeTermRow,
    RosterSaidRow,
    ScreenedRow,
)
from app.projections import lineage
from app.projections.fold import SCREENED_EPOCH
from app.projections.late import give_back
from app.tlog.store import lock_log

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster
    from app.projections.arrival import Arrival

WINDOW: Final = 256
"""Leaves folded at once; with their bodies some megabytes, seldom more."""


@dataclass(frozen=True, slots=True)
class Live:
    """The functions by which both doors record. They are given, because they stand above the projections.

    Attributes:
        judge: `app.judging.Judges.leaves`.
        record: `app.record.record_mirrored`.
    """

    judge: Callable[[Sequence[MirroredLeaf], Context], list[Arrival]]
    record: Callable[..., None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was made of one log: rows, and how many differ in their verdict from before."""

    origin: str
    leaves: int
    notices: int
    flagged: int
    flagged_before: int


def rebuild_log(
    db: Database,
    log_id: int,
    *,
    live: Live,
    roster: Roster,
    now: int,
    progress: Callable[[int], None] = lambda _done: None,
) -> Rebuilt:
    """Refold one log, in one transaction.

    Args:
        now: unix ms; nothing of it is stored.
        progress: called with the number of leaves folded so far.

    Raises:
        LogCorrupt, BodyUnreadable: a leaf is missing, or a stored body does not open its commitment or with its key. Nothing
            was changed.
    """
    with db.write() as session:
        lineage.lock(session, log_id)
        result = _rebuild(db, session, log_id, live, roster, now, progress)
        after = lineage.later(session, log_id)
        while after is not None:  # what continues it says things of notices that were just made anew
            _rebuild(db, session, after, live, roster, now, lambda _done: None)
            after = lineage.later(session, after)
    return result


def _rebuild(
    db: Database,
    session: Session,
    log_id: int,
    live: Live,
    roster: Roster,
    now: int,
    progress: Callable[[int], None],
) -> Rebuilt:
    log = lock_log(session, log_id)
    lineage.link(session, log_id, log.origin, roster)
    judged = session.execute(select(LogRow.judged).where(LogRow.id == log_id)).scalar_one()
    moved = session.execute(
        select(NoticeRow.from_log_id, NoticeRow.from_idx).where(
            NoticeRow.log_id == log_id, NoticeRow.from_log_id.is_not(None)
        )
    ).all()
    kept = _drop(session, log_id)
    give_back(db, session, [(row.from_log_id, row.from_idx) for row in moved])
    session.execute(update(LogRow).where(LogRow.id == log_id).values(judged=0))
    for start in range(0, judged, WINDOW):
        end = min(start + WINDOW, judged)
        arrivals = _arrivals(session, log_id, log.origin, start, end, kept, live, roster)
        live.record(db, session, log_id, arrivals, now=now, live=False, events=False)
        _restore_seq(session, log_id, start, end, kept.seq)
        progress(end)
    _settle_counter(session, kept.counter)
    # Whoever holds an index of what is screened against reads all of it again: a row may be gone for good.
    db.next_values(session, SCREENED_EPOCH, 1)
    notices = _count(session, NoticeRow, log_id)
    flagged = _flagged(session, log_id)
    return Rebuilt(log.origin, judged, notices, flagged, kept.flagged)


@dataclass(slots=True)
class _Kept:
    """What is no consequence of the log. About a hundred bytes for each notice."""

    seq: dict[int, int]
    absent: set[int]
    counter: int
    flagged: int


def _drop(session: Session, log_id: int) -> _Kept:
    kept = _Kept(
        seq={
            row.idx: row.seq
            for row in session.execute(select(NoticeRow.idx, NoticeRow.seq).where(NoticeRow.log_id == log_id))
        },
        absent=set(
            session.scalars(
                select(EntryRow.idx).where(EntryRow.log_id == log_id, EntryRow.body_state == "absent")
            )
        ),
        counter=_lock_counter(session),
        flagged=_flagged(session, log_id),
    )
    for table in (ScreenedRow, NoticeTermRow, NoticeRow, ErasureSaidRow, RosterSaidRow, EntryRow):
        session.execute(delete(table).where(table.log_id == log_id))
    return kept


def _lock_counter(session: Session) -> int:
    """The last `seq` given out. Its row stays locked: nobody else takes numbers that would be given back."""
    value = session.execute(
        update(CounterRow)
        .where(CounterRow.name == "notices")
        .values(value=CounterRow.value)
        .returning(CounterRow.value)
    ).scalar_one_or_none()
    return value or 0


def _settle_counter(session: Session, before: int) -> None:
    """The fold took numbers for notices that had one. Give back all but those that are in use."""
    highest = (
        session.execute(select(NoticeRow.seq).order_by(NoticeRow.seq.desc()).limit(1)).scalar_one_or_none()
        or 0
    )
    session.execute(update(CounterRow).where(CounterRow.name == "notices").values(value=max(before, highest)))


def _restore_seq(session: Session, log_id: int, start: int, end: int, seq: dict[int, int]) -> None:
    for index in range(start, end):
        if index in seq:
            session.execute(
                update(NoticeRow)
                .where(NoticeRow.log_id == log_id, NoticeRow.idx == index)
                .values(seq=seq[index])
            )


def _flagged(session: Session, log_id: int) -> int:
    return _count(
        session, EntryRow, log_id, EntryRow.fault_code.is_not(None) | EntryRow.body_fault_code.is_not(None)
    )


def _count(session: Session, table: Any, log_id: int, *where: Any) -> int:  # noqa: ANN401 - a mapped class, conditions
    found: int = session.execute(
        select(func.count()).select_from(table).where(table.log_id == log_id, *where)
    ).scalar_one()
    return found


def _arrivals(
    session: Session,
    log_id: int,
    origin: str,
    start: int,
    end: int,
    kept: _Kept,
    live: Live,
    roster: Roster,
) -> list[Arrival]:
    """The leaves [start, end) as they would arrive now, each with the body that is held."""
    rows = session.execute(
        select(LeafRow.idx, LeafRow.leaf_hash, LeafRow.leaf, LeafRow.received_at)
        .where(LeafRow.log_id == log_id, LeafRow.idx >= start, LeafRow.idx < end)
        .order_by(LeafRow.idx)
    ).all()
    if [row.idx for row in rows] != list(range(start, end)):
        raise LogCorrupt(f"{origin} lacks leaves between {start} and {end}. Run: verbale fsck")
    held = bodies.opened(session, log_id, range(start, end))
    # An erased body has no rows: its leaf is wanted until the fold comes to the erasure.
    leaves = [
        MirroredLeaf(
            row.idx,
            bytes(row.leaf_hash),
            bytes(row.leaf),
            row.received_at,
            held.get(row.idx),
            withheld=row.idx in kept.absent,
        )
        for row in rows
    ]
    arrivals = live.judge(leaves, Context(origin, roster))
    for arrival in arrivals:
        if arrival.fault is None and arrival.index in held and arrival.body_state != "held":
            raise LogCorrupt(
                f"The body of leaf {arrival.index} of {origin} does not open its commitment. Run: verbale fsck"
            )
        arrival.stored = True
    return arrivals
