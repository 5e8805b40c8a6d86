"""Forgetting finished deliveries: a walk through the delivery log, a little at a time.

A delivery is forgotten `keep_ms` after its *end*, with its attempts; one that waits or was given up (a dead letter) is not,
however old. Ids are made in order of time, so the walk goes through the oldest by key, and no index serves only this.
Kept attempts of a dead letter go when they are old themselves. A crash leaves whole batches, and the walk begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from app.models import AttemptRow, DeliveryRow

if TYPE_CHECKING:
    from app.clock import Clock
    from app.db import Database

BATCH: Final = 1_000
"""Rows looked at in one transaction: on SQLite others wait for it."""


class Pruner:
    """Remembers how far its walk is. `step` says whether there is more to do at once."""

    def __init__(self, db: Database, clock: Clock, keep_ms: int) -> None:
        """Begin at the oldest."""
        self._db, self._clock, self._keep_ms = db, clock, keep_ms
        self._deliveries = self._attempts = ""

    def step(self) -> bool:
        """Look at one batch of each table; False when both walks are through, and will begin anew."""
        before = self._clock() - self._keep_ms
        newest = f"{max(0, before):012x}"
        newest = f"{newest[:8]}-{newest[8:]}"  # made before: an id of later begins with more than this
        more = self._prune_deliveries(before, newest)
        return self._prune_attempts(before, newest) or more

    def _prune_deliveries(self, before: int, newest: str) -> bool:
        """Whoever was finished before then was made before then."""
        with self._db.read() as session:
            seen = session.execute(
                select(DeliveryRow.id, DeliveryRow.state, DeliveryRow.finished_at)
                .where(DeliveryRow.id > self._deliveries, DeliveryRow.id < newest)
                .order_by(DeliveryRow.id)
                .limit(BATCH)
            ).all()
        gone = [
            id_
            for id_, state, finished in seen
            if _is_over(state) and (finished is None or finished < before)
        ]
        if gone:
            with self._db.write() as session:
                for statement in (
                    # Asked again: it may have been replayed meanwhile.
                    delete(DeliveryRow).where(
                        self._db.any_of(DeliveryRow.id, gone), DeliveryRow.state.in_(("delivered", "dropped"))
                    ),
                    delete(AttemptRow).where(self._db.any_of(AttemptRow.delivery_id, gone)),
                ):
                    session.execute(statement.execution_options(synchronize_session=False))
        self._deliveries = seen[-1][0] if len(seen) == BATCH else ""
        return len(seen) == BATCH

    def _prune_attempts(self, before: int, newest: str) -> bool:
        """What is old of deliveries that still stand, and of those that a deleted subscription took with it."""
        with self._db.read() as session:
            seen = session.execute(
                select(AttemptRow.delivery_id, AttemptRow.at)
                .where(AttemptRow.delivery_id > self._attempts, AttemptRow.delivery_id < newest)
                .order_by(AttemptRow.delivery_id)
                .limit(BATCH)
            ).all()
        if any(at < before for _, at in seen):
            with self._db.write() as session:
                session.execute(
                    delete(AttemptRow)
                    .where(
                        AttemptRow.delivery_id > self._attempts,
                        AttemptRow.delivery_id <= seen[-1][0],
                        AttemptRow.at < before,
                    )
                    .execution_options(synchronize_session=False)
                )
        self._attempts = seen[-1][0] if len(seen) == BATCH else ""
        return len(seen) == BATCH


def _is_over(state: str) -> bool:
    return state in ("delivered", "dropped")
