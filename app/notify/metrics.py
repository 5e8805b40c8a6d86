"""Counts of attempts, right however many processes send: they stand in the database, in rows of `counters`.

They are written in the transaction that records the attempts, last in it: workers wait for each other at these rows.
"""

from __future__ import annotations

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


def count(db: Database, session: Session, attempts: Sequence[Attempt]) -> None:
    """Add attempts, in the caller's write transaction."""
    added: Counter[str] = Counter()
    for attempt in attempts:
        added[_OUTCOME + (attempt.error or "delivered")] += 1
        added[_bucket(attempt.ms)] += 1
        added[_SUM] += attempt.ms
    db.count(session, added)


def _bucket(ms: int) -> str:
    return _MS + next((str(most) for most in _BUCKETS_MS if ms <= most), "more")


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
    each = [found.get(f"{_MS}{most}", 0) for most in (*_BUCKETS_MS, "more")]
    ends = [*(str(most / 1000) for most in _BUCKETS_MS), "+Inf"]
    yield HistogramMetricFamily(
        "verbale_webhook_attempt_seconds",
        "Time of one webhook attempt, of all processes",
        buckets=list(zip(ends, map(float, accumulate(each)), strict=True)),
        sum_value=found.get(_SUM, 0) / 1000,
    )
