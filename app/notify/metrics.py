"""Counts of attempts, right however many processes send: they stand in the database, in rows of `counters`.

They are written in the transaction that records the attempts, last in it: workers wait for each other at these rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from sqlalchemy import select

from app.models import CounterRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.notify.results import Attempt

_OUTCOME: Final = "attempts."
_MS: Final = "attempt-ms."
_SUM: Final = f"{_MS}sum"
_BUCKETS_MS: Final = (10, 50, 100, 500, 1_000, 5_000, 15_000)
_NAMES: Final = tuple(f"{_MS}{most}" for most in (*_BUCKETS_MS, "more"))


def count(db: Database, session: Session, attempts: Sequence[Attempt]) -> None:
    """Add attempts, in the caller's write transaction."""
    took = [attempt.ms for attempt in attempts]
    added = Counter(_OUTCOME + (attempt.error or "delivered") for attempt in attempts)
    for bucket, count in Counter(map(_bucket, took)).items():
        added[bucket] += count
    added[_SUM] += sum(took)
    db.count(session, added)


def _bucket(ms: int) -> str:
    return _NAMES[bisect_left(_BUCKETS_MS, ms)]


def read(session: Session) -> Iterator[Metric]:
    """The counts, as Prometheus names them."""
    rows = session.execute(
        select(CounterRow.name, CounterRow.value).where(CounterRow.name.startswith("attempt"))
    )
    found = {row.name: row.value for row in rows}
    attempts = CounterMetricFamily(
        "verbale_webhook_attempts", "Webhook attempts by outcome, of all processes", labels=("outcome",)
    )
    for name, value in sorted(found.items()):
        if name.startswith(_OUTCOME):
            attempts.add_metric((name.removeprefix(_OUTCOME),), value)
    yield attempts
    each = [found.get(name, 0) for name in _NAMES]
    ends = [*(str(most / 1000) for most in _BUCKETS_MS), "+Inf"]
    yield HistogramMetricFamily(
        "verbale_webhook_attempt_seconds",
        "Time of one webhook attempt, of all processes",
        buckets=list(zip(ends, map(float, accumulate(each)), strict=True)),
        sum_value=found.get(_SUM, 0) / 1000,
    )
