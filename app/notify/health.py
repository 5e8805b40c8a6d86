"""An endpoint's health: its row of failures, its circuit, and the end of a subscription that failed for days.

What happens to a subscription is told to its owner by an event of its own (`subscription.failing`, `.disabled`,
`.recovered`), which other subscriptions of the token, its feed and its mail carry, and to the operator by a line in the log.
Events are written last in a transaction: their counter is a lock.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from app.events import Event, emit
from app.models import SubscriptionRow
from app.notify import retry
from app.notify.payload import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.events import EventType
    from app.notify.results import Attempt

log: Final = logging.getLogger("verbale.notify")

GONE: Final = "The endpoint answered 410 Gone. Resume the subscription when it takes deliveries again."
FAILED_FOR_DAYS: Final = (
    "Every delivery of the last five days failed. Resume the subscription when the endpoint works."
)


def after(
    db: Database,
    session: Session,
    row: SubscriptionRow,
    attempt: Attempt,
    delay: int | None,
    fraction: Callable[[], float],
) -> None:
    """Count one attempt. `delay` is what its delivery waits now, or None if it is over."""
    if attempt.verdict == "delivered":
        recover(db, session, row, attempt.at)
        return
    row.failing_since = row.failing_since if row.failing_since is not None else attempt.at
    # Nothing is sent while the circuit is open: what fails now was on its way when it opened. It says of the same moment
    # what is known already, and must not double the rest as often as there were places.
    rest = 0
    if not retry.is_open(row.failures) or attempt.at >= row.not_before:
        row.failures += 1
        rest = retry.rest_after(row.failures, fraction())
    rest = max(
        rest,
        retry.pause_after(attempt.status, attempt.retry_after_ms),
        (delay or 0) if row.ordered else 0,
    )
    row.not_before = max(row.not_before, attempt.at + rest)
    if attempt.verdict == "gone":
        disable(db, session, row, GONE, attempt.at)
    elif retry.must_disable(row.failing_since, attempt.at):
        disable(db, session, row, FAILED_FOR_DAYS, attempt.at)
    elif row.warned_at is None and attempt.at - row.failing_since >= retry.WARN_AFTER_MS:
        row.warned_at = attempt.at
        tell(
            db,
            session,
            row,
            "subscription.failing",
            attempt.at,
            {"failing_since": rfc3339(row.failing_since)},
        )


def recover(db: Database, session: Session, row: SubscriptionRow, now: int) -> None:
    """A success: whatever was wrong is forgotten, and told if its owner had been told that it was."""
    if row.warned_at is not None:
        tell(db, session, row, "subscription.recovered", now, {})
    row.failing_since, row.failures, row.warned_at = None, 0, None


def end(db: Database, session: Session, reasons: Mapping[str, str], now: int) -> None:
    """Disable subscriptions whose token ended."""
    for subscription_id, reason in sorted(reasons.items()):
        row = session.get(SubscriptionRow, subscription_id, with_for_update=True)
        if row is not None:
            disable(db, session, row, reason, now)


def disable(db: Database, session: Session, row: SubscriptionRow, reason: str, now: int) -> None:
    """End an active subscription's deliveries and say why. What is pending stays, for when its owner resumes it."""
    if row.status == "disabled":
        return
    row.status, row.status_reason, row.warned_at = "disabled", reason, now
    log.warning(
        "a webhook subscription was disabled",
        extra={"action": "webhook.disabled", "subscription": row.id, "reason": reason},
    )
    tell(db, session, row, "subscription.disabled", now, {"reason": reason})


def resume(db: Database, session: Session, row: SubscriptionRow, now: int) -> None:
    """Start sending again."""
    if row.status == "disabled":
        tell(db, session, row, "subscription.recovered", now, {})
    row.status, row.status_reason, row.not_before = "active", None, 0
    row.failing_since, row.failures, row.warned_at = None, 0, None


def tell(
    db: Database,
    session: Session,
    row: SubscriptionRow,
    event_type: EventType,
    now: int,
    detail: Mapping[str, object],
) -> None:
    """Write an event that is for the subscription's owner alone."""
    session.flush()
    about = {"subscription": row.id, "url": row.url, "description": row.description, **detail}
    emit(db, session, [Event(event_type, detail=about, owner=row.token_id)], now=now)
