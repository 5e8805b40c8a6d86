"""Forgetting events: after a time set by the operator, in bounded steps, and never silently.

First the mark moves (`feed.PRUNED`): from then on a cursor before it is answered `resync-needed`. Then rows are deleted,
as far as nobody needs them: a subscription that has not been told of an event yet, be it paused or disabled, keeps it and
all after it, and so does a delivery that is still in the log. The newest event always stays, since cursors of those who
have seen everything point at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select

from app.models import CounterRow, DeliveryRow, EventRow, SubscriptionRow
from app.notify import feed

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database

RUN: Final = 5_000
"""Events of one step: a transaction of some tens of milliseconds."""

DAY_MS: Final = 86_400_000


def retention_step(db: Database, clock: Clock, days: int, *, run: int = RUN) -> bool:
    """Forget what is older than `days`; True if there may be more at once."""
    until = clock() - days * DAY_MS
    with db.read() as session:  # most looks find nothing, and must not queue behind the writer
        last = _last_to_forget(session, until, run)
        gone = _deletable(session, run)
    if last is None and not gone:
        return False
    with db.write() as session:
        if last is not None:
            position = feed.position_at(session, last)
            for name, value in ((feed.PRUNED, position.seq), (feed.PRUNED_CHECK, position.check)):
                session.execute(
                    db.upsert(CounterRow.__table__, ["name"], ["value"]).values(name=name, value=value)
                )
        gone = _deletable(session, run)
        if gone:
            session.execute(
                delete(EventRow)
                .where(EventRow.seq >= gone[0], EventRow.seq <= gone[-1])
                .execution_options(synchronize_session=False)
            )
    return True


def _last_to_forget(session: Session, until: int, run: int) -> int | None:
    """The last of the next events that are all older than `until` (unix ms); the newest of all is never among them."""
    pruned, newest = feed.oldest(session).seq, feed.newest_seq(session)
    last: int | None = None
    rows = session.execute(
        select(EventRow.seq, EventRow.at)
        .where(EventRow.seq > pruned, EventRow.seq < newest)
        .order_by(EventRow.seq)
        .limit(run)
    )
    for seq, at in rows:
        if at >= until:
            break
        last = seq
    return last


def _deletable(session: Session, run: int) -> list[int]:
    """Numbers of the oldest rows that are forgotten and that nobody needs, at most `run`, in order."""
    oldest_told = (
        select(func.min(DeliveryRow.event_seq))
        .where(DeliveryRow.subscription_id == SubscriptionRow.id)
        .correlate(SubscriptionRow)
        .scalar_subquery()
    )
    floor = feed.oldest(session).seq
    for fanned, told in session.execute(select(SubscriptionRow.fanned_seq, oldest_told)):
        floor = min(floor, fanned, floor if told is None else told - 1)
    return list(
        session.scalars(select(EventRow.seq).where(EventRow.seq <= floor).order_by(EventRow.seq).limit(run))
    )
