"""Counters of this process's attempts. State that stands in the database is read by `app.routers.health` instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from app.notify.results import Attempt

REGISTRY: Final = CollectorRegistry()
"""One for the process: however many loops run in it, they send through one network."""

ATTEMPTS: Final = Counter(
    "verbale_webhook_attempts", "Webhook attempts by outcome", ("outcome",), registry=REGISTRY
)
SECONDS: Final = Histogram(
    "verbale_webhook_attempt_seconds",
    "Time of one webhook attempt",
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0),
    registry=REGISTRY,
)


def count(attempt: Attempt) -> None:
    """Count one attempt."""
    ATTEMPTS.labels(attempt.error or "delivered").inc()
    SECONDS.observe(attempt.ms / 1000)
