"""What the clock makes happen: `notice.expired` and `notice.review_overdue`.

Guarantees: each version of a notice that this node shows gives one event of a kind when its time has passed, exactly one
per node however many workers there are and whenever they are killed: the events and the place up to which time was
looked at move in one transaction. A version that arrives when its time has passed already gives its event on arrival;
history that a first catch-up brings gives none. After a long stop what is due comes in runs of `RUN`, each a transaction
of its own, so that nobody waits long for the lock that orders events.
Leaves to others: who is told (`app.gate`, `app.notify.matching`).

The rule, for a condition `passed(t)` on a notice that stays true once it is true:

    by the clock:   passed(to) and not passed(since)         for a span of time (since, to] that is walked by key
    by arrival:     passed(since), and its event is newer than the newest that was looked at

The counter of events is locked first. So the second question has seen exactly the notices that the first has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, false, func, not_, or_, select, true, tuple_

from app.events import COUNTER, Event, emit
from app.models import DeadlineRow, EventRow, NoticeRow
from app.queries.filters import day_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.events import EventType

RUN: Final = 500
"""Events of one transaction."""

LOOKED_AT: Final = 5_000
"""Arrivals looked at in one transaction; nearly all of them are of notices whose time has not come."""

BEHIND: Final = 1_000
"""So many arrivals behind, the mark is moved though nothing was found: looking at them again costs more than a write."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A kind of deadline.

    Attributes:
        passed: whether it has passed at a time (unix ms) for a row of `notices`; null counts as not.
        in_span: a condition that holds wherever `passed(to) and not passed(since)` does, and that an index answers.
    """

    type: EventType
    passed: Callable[[int], ColumnElement[bool]]
    in_span: Callable[[int, int], ColumnElement[bool]]


def _ended(at: int) -> ColumnElement[bool]:
    return or_(
        func.coalesce(NoticeRow.exp <= at // 1000, false()),
        func.coalesce(NoticeRow.valid_until < day_of(at).isoformat(), false()),
    )


def _ends_within(since: int, to: int) -> ColumnElement[bool]:
    by_second = and_(NoticeRow.exp > since // 1000, NoticeRow.exp <= to // 1000)
    first, last = day_of(since).isoformat(), day_of(to).isoformat()
    if first == last:
        return by_second
    return or_(by_second, and_(NoticeRow.valid_until >= first, NoticeRow.valid_until < last))


def _review_passed(at: int) -> ColumnElement[bool]:
    return func.coalesce(NoticeRow.review_due < day_of(at).isoformat(), false())


def _review_within(since: int, to: int) -> ColumnElement[bool]:
    first, last = day_of(since).isoformat(), day_of(to).isoformat()
    return false() if first == last else and_(NoticeRow.review_due >= first, NoticeRow.review_due < last)


EXPIRY: Final = Deadline("notice.expired", _ended, _ends_within)
REVIEW: Final = Deadline("notice.review_overdue", _review_passed, _review_within)
DEADLINES: Final = (EXPIRY, REVIEW)


def deadlines_step(db: Database, clock: Clock, *, run: int = RUN) -> bool:
    """Emit what has become due; True if there may be more at once."""
    now = clock()
    more = False
    for deadline in DEADLINES:
        if _has_work(db, deadline, now):
            with db.write() as session:
                more |= _advance(db, session, deadline, now, run)
    return more


def _has_work(db: Database, deadline: Deadline, now: int) -> bool:
    """Most looks find nothing, and must not queue behind the writer."""
    with db.read() as session:
        mark = session.get(DeadlineRow, deadline.type)
        if mark is None or mark.since < mark.to or day_of(mark.to) != day_of(now):
            return True
        newest = session.scalar(select(func.max(EventRow.seq))) or 0
        if newest - mark.seq > BEHIND:
            return True
        arrived = _arrivals(deadline, mark, newest).limit(1)
        due = _due(deadline, mark.to, now, (-1, -1)).limit(1)
        return session.execute(arrived).first() is not None or session.execute(due).first() is not None


def _advance(db: Database, session: Session, deadline: Deadline, now: int, run: int) -> bool:
    """One transaction; a crash before its commit leaves everything as it was."""
    newest = db.next_values(session, COUNTER, 0) - 1  # nobody else commits an event until this has
    mark = session.get(DeadlineRow, deadline.type)
    if mark is None:  # a new database, or one of an earlier version: what has passed before is history
        session.add(DeadlineRow(type=deadline.type, since=now, to=now, log_id=-1, idx=-1, seq=newest))
        return False
    if mark.seq < newest:
        last = min(newest, mark.seq + LOOKED_AT)
        found = session.execute(_arrivals(deadline, mark, last).limit(run + 1)).all()
        if len(found) > run:
            last = found[run - 1].seq
        _emit(db, session, deadline, found[:run], now)
        mark.seq = last
        if last < newest or found:
            return True
    if mark.since >= mark.to:
        if now <= mark.to:
            return False  # a clock that was set back: wait until it is there again
        mark.to, mark.log_id, mark.idx = now, -1, -1
    due = session.execute(_due(deadline, mark.since, mark.to, (mark.log_id, mark.idx)).limit(run)).all()
    _emit(db, session, deadline, due, now)
    if len(due) == run:
        mark.log_id, mark.idx = due[-1].log_id, due[-1].idx
        return True
    mark.since, mark.log_id, mark.idx = mark.to, -1, -1
    return bool(due)


_SHOWN: Final = and_(NoticeRow.status == "active", NoticeRow.content_state == "current")
"""A version without its content is told when that comes; one that no reader is shown, never."""


def _due(deadline: Deadline, since: int, to: int, after: tuple[int, int]) -> Select[int, int, int]:
    key = tuple_(NoticeRow.log_id, NoticeRow.idx)
    return (
        select(NoticeRow.log_id, NoticeRow.idx, NoticeRow.current_idx)
        .where(_SHOWN, deadline.in_span(since, to), not_(deadline.passed(since)), deadline.passed(to))
        .where(key > tuple_(*after), _still_of_interest(deadline, to))
        .order_by(NoticeRow.log_id, NoticeRow.idx)
    )


def _arrivals(deadline: Deadline, mark: DeadlineRow, last: int) -> Select[int, int, int, int]:
    """Versions whose content came, or changed, after the mark, and whose time the mark has passed already."""
    walked = and_(
        deadline.passed(mark.to),
        tuple_(NoticeRow.log_id, NoticeRow.idx) <= tuple_(mark.log_id, mark.idx),
    )
    return (
        select(NoticeRow.log_id, NoticeRow.idx, NoticeRow.current_idx, EventRow.seq)
        .join(
            NoticeRow,
            and_(
                NoticeRow.log_id == EventRow.log_id,
                NoticeRow.idx == EventRow.root_idx,
                NoticeRow.document_idx == EventRow.idx,
            ),
        )
        .where(EventRow.seq > mark.seq, EventRow.seq <= last, EventRow.live)
        .where(EventRow.type.in_(("notice.issued", "notice.amended")))
        .where(_SHOWN, or_(deadline.passed(mark.since), walked), _still_of_interest(deadline, mark.to))
        .order_by(EventRow.seq)
    )


def _still_of_interest(deadline: Deadline, at: int) -> ColumnElement[bool]:
    """Nobody reviews what has ended."""
    return not_(_ended(at)) if deadline is REVIEW else true()


def _emit(
    db: Database,
    session: Session,
    deadline: Deadline,
    rows: Sequence[Row[int, int, int] | Row[int, int, int, int]],
    now: int,
) -> None:
    # No detail: when a notice ends is part of its content, and an erasure would not reach it here.
    emit(
        db,
        session,
        [Event(deadline.type, row.log_id, row.current_idx, row.idx) for row in rows],
        now=now,
    )
