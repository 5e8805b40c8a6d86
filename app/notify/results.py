"""What became of attempts, written in batches: delivered, to be tried again, given up, or withheld.

A result counts only while its row is still pending. A success counts whoever reports it, since it did arrive; a failure
only from the worker that still holds the lease, so that a worker that was slow cannot put back what another has done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import bindparam, select, update

from app.models import DeliveryRow, SubscriptionRow
from app.notify import retry
from app.notify.outbox import disable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.notify.claims import Claimed, Withheld

ErrorClass = Literal[
    "status", "redirect", "timeout", "address-refused", "dns", "connect", "tls", "disconnected", "invalid-response",
    "invalid-url", "unsealable-secret",
]  # fmt: skip
"""Why an attempt failed, in words that say nothing of what the answer held."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that was made.

    Attributes:
        at: unix ms, when it was over.
        status: of the answer, or None if there was none.
        error: None for a success.
        ms: how long it took.
        retry_after_ms: what the receiver asked for.
    """

    claimed: Claimed
    at: int
    status: int | None
    error: ErrorClass | None
    ms: int
    retry_after_ms: int | None = None

    @property
    def verdict(self) -> retry.Verdict:
        """What is to follow."""
        return retry.verdict(self.status)


_STILL_PENDING: Final = (DeliveryRow.id == bindparam("row")) & (DeliveryRow.state == "pending")
_HELD: Final = _STILL_PENDING & (DeliveryRow.leased_until == bindparam("lease"))


def record(
    db: Database,
    now: int,
    attempts: Sequence[Attempt],
    withheld: Sequence[Withheld] = (),
    *,
    fraction: Callable[[], float],
) -> None:
    """Write results in one transaction.

    Args:
        now: unix ms.
        fraction: random numbers in [0, 1) for the jitter.
    """
    if not attempts and not withheld:
        return
    with db.write() as session:
        # Subscriptions before deliveries, in every transaction: otherwise two could wait for each other.
        _health(session, attempts)
        _end(session, [w for w in withheld if w.ended])
        delivered = [a for a in attempts if a.verdict == "delivered"]
        failures = [a for a in attempts if a.verdict != "delivered"]
        _write(session, _STILL_PENDING, [_final(a, "delivered") | {"row": a.claimed.id} for a in delivered])
        _write(session, _HELD, [_failed(a, fraction()) | _key(a.claimed) for a in failures])
        _write(session, _HELD, [_dropped(w, now) | _key(w.claimed) for w in withheld if not w.ended])
        # Not attempted: the row goes back as it was, for the case that the token is given its scope again.
        _write(
            session,
            _HELD,
            [
                {"leased_until": 0, "attempts": w.claimed.attempts - 1} | _key(w.claimed)
                for w in withheld
                if w.ended
            ],
        )


def _key(claimed: Claimed) -> dict[str, Any]:
    return {"row": claimed.id, "lease": claimed.leased_until}


def _write(session: Session, where: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401 - an SQL expression
    if rows:
        names = [name for name in rows[0] if name not in ("row", "lease")]
        statement = (
            update(DeliveryRow).where(where).values({name: bindparam(f"new_{name}") for name in names})
        )
        session.connection().execute(
            statement,
            [{(n if n in ("row", "lease") else f"new_{n}"): v for n, v in row.items()} for row in rows],
        )


def _final(attempt: Attempt, state: str) -> dict[str, Any]:
    return {
        "state": state,
        "leased_until": 0,
        "due_at": attempt.at,
        "finished_at": attempt.at,
        "last_status": attempt.status,
        "last_error": attempt.error,
        "last_ms": attempt.ms,
    }


def _failed(attempt: Attempt, fraction: float) -> dict[str, Any]:
    delay = None
    if attempt.verdict == "retry":
        delay = retry.next_delay(attempt.claimed.attempts, fraction, attempt.retry_after_ms)
    if delay is None:
        return _final(attempt, "failed")
    return _final(attempt, "pending") | {"finished_at": None, "due_at": attempt.at + delay}


def _dropped(withheld: Withheld, now: int) -> dict[str, Any]:
    return {"state": "dropped", "leased_until": 0, "finished_at": now, "last_error": withheld.reason}


def _end(session: Session, withheld: Sequence[Withheld]) -> None:
    for subscription_id, reason in sorted({w.claimed.subscription_id: w.reason for w in withheld}.items()):
        row = session.get(SubscriptionRow, subscription_id, with_for_update=True)
        if row is not None:
            disable(row, reason)


def _health(session: Session, attempts: Sequence[Attempt]) -> None:
    """Move each endpoint's health by its attempts, in the order in which they ended."""
    well = {a.claimed.subscription_id for a in attempts if a.verdict == "delivered"}
    ill = {a.claimed.subscription_id for a in attempts if a.verdict != "delivered"}
    if well - ill:
        session.execute(
            update(SubscriptionRow)
            .where(SubscriptionRow.id.in_(well - ill), SubscriptionRow.failing_since.is_not(None))
            .values(failing_since=None)
            .execution_options(synchronize_session=False)
        )
    if not ill:
        return
    rows = {
        row.id: row
        for row in session.scalars(
            # In the order of ids: two workers that write about the same endpoints must not wait for each other in a ring.
            select(SubscriptionRow)
            .where(SubscriptionRow.id.in_(ill))
            .order_by(SubscriptionRow.id)
            .with_for_update()
        )
    }
    for attempt in sorted(attempts, key=lambda a: a.at):
        row = rows.get(attempt.claimed.subscription_id)
        if row is None:
            continue
        if attempt.verdict == "delivered":
            row.failing_since = None
            continue
        row.failing_since = row.failing_since if row.failing_since is not None else attempt.at
        row.not_before = max(
            row.not_before, attempt.at + retry.pause_after(attempt.status, attempt.retry_after_ms)
        )
        if attempt.verdict == "gone":
            disable(
                row, "The endpoint answered 410 Gone. Resume the subscription when it takes deliveries again."
            )
        elif retry.must_disable(row.failing_since, attempt.at):
            disable(
                row,
                "Every delivery of the last five days failed. Resume the subscription when the endpoint works.",
            )
