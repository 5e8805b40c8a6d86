"""What became of attempts, written in batches: delivered, to be tried again, given up, or withheld.

A result counts only while its row is still pending. A success counts whoever reports it, since it did arrive; a failure
only from the worker that still holds the lease, so that a worker that was slow cannot put back what another has done.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import or_, select

from app.db import execute
from app.models import AttemptRow, DeliveryRow, SubscriptionRow
from app.notify import health, metrics, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.notify.claims import Claimed, Withheld
    from app.notify.setup import WebhookSetup

ErrorClass = Literal[
    "status", "redirect", "timeout", "address-refused", "dns", "connect", "tls", "disconnected", "invalid-response",
    "invalid-url", "unsealable-secret",
]  # fmt: skip
"""Why an attempt failed, in words that say nothing of what the answer held."""


class Exchange(NamedTuple):
    """What went out and came back, for the delivery log: no secret, no body of ours.

    Attributes:
        timestamp: unix seconds, as signed.
        signatures: how many stood in the header.
        head: header of the answer, cut.
        excerpt: beginning of the body of a refusal.
    """

    url: str
    timestamp: int
    signatures: int
    body_bytes: int
    head: str | None = None
    excerpt: str | None = None

    def __repr__(self) -> str:
        """Show nothing of what the receiver said."""
        return f"Exchange(url={self.url!r}, timestamp={self.timestamp}, body_bytes={self.body_bytes})"


class Attempt(NamedTuple):
    """One attempt that was made.

    Attributes:
        at: unix ms, when it was over.
        status: of the answer, or None if there was none.
        error: None for a success.
        ms: how long it took.
        retry_after_ms: what the receiver asked for.
        recalled: it was sent as a recall without content.
    """

    claimed: Claimed
    at: int
    status: int | None
    error: ErrorClass | None
    ms: int
    retry_after_ms: int | None = None
    recalled: bool = False
    exchange: Exchange | None = None

    @property
    def verdict(self) -> retry.Verdict:
        """What is to follow."""
        return retry.verdict(self.status)


@dataclass(frozen=True, slots=True)
class Unsent:
    """A claimed delivery that was not attempted after all: the one before it failed, or it waited too long."""

    claimed: Claimed


def record(
    db: Database,
    now: int,
    attempts: Sequence[Attempt],
    withheld: Sequence[Withheld] = (),
    unsent: Sequence[Unsent] = (),
    *,
    setup: WebhookSetup | None = None,
    fraction: Callable[[], float],
) -> None:
    """Write results in one transaction.

    Args:
        now: unix ms.
        setup: whose schedule of retries; None for the usual one.
        fraction: random numbers in [0, 1) for the jitter.
    """
    if not attempts and not withheld and not unsent:
        return
    schedule = retry.SCHEDULE_MS if setup is None else setup.schedule_ms
    with db.write() as session:
        # Subscriptions before deliveries, in every transaction: otherwise two could wait for each other.
        missed = [a for a in attempts if a.verdict != "delivered"]
        arrived = attempts if not missed else [a for a in attempts if a.verdict == "delivered"]
        delays = {
            a.claimed.id: retry.next_delay(
                a.claimed.attempts, fraction(), a.retry_after_ms, schedule_ms=schedule
            )
            for a in missed
            if a.verdict == "retry"
        }
        ordered = _health(db, session, attempts, missed, delays, fraction)
        health.end(db, session, {w.claimed.subscription_id: w.reason for w in withheld if w.ended}, now)
        _write(db, session, [_final(a, "delivered") for a in arrived])
        _write(
            db,
            session,
            [
                _failed(a, delays.get(a.claimed.id), ordered=a.claimed.subscription_id in ordered)
                for a in missed
            ],
        )
        _drop(db, session, [w for w in withheld if not w.ended], now)
        # Not attempted: the row goes back as it was.
        back = [u.claimed for u in unsent] + [w.claimed for w in withheld if w.ended]
        db.bulk_update(
            session,
            DeliveryRow.__table__,
            ("_id", "_leased_until", "attempts", "leased_until"),
            [(c.id, c.leased_until, c.attempts - 1, 0) for c in back],
            HELD,
        )
        log_attempts(db, session, attempts)
        metrics.count(db, session, attempts)


# PostgreSQL must not go by the state: its statistics are of a quiet hour, when nothing waits, and then it would go through all
# that waits now for each of these rows. It has no statistics of `coalesce`.
_PENDING: Final = "coalesce(old.state, '') = 'pending'"
HELD: Final = f"old.id = new._id AND {_PENDING} AND old.leased_until = new._leased_until"
"""For `Database.bulk_update`: the row is this worker's still."""

_OUTCOME: Final = (
    "_id", "_leased_until", "state", "leased_until", "due_at", "finished_at", "recalled", "last_status", "last_error", "last_ms",
)  # fmt: skip
ARRIVED: Final = f"old.id = new._id AND {_PENDING} AND new.state = 'delivered'"
"""The same for a success, which counts whoever reports it."""


def _write(db: Database, session: Session, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        where = ARRIVED if rows[0][2] == "delivered" else HELD
        db.bulk_update(session, DeliveryRow.__table__, _OUTCOME, rows, where)


def _final(attempt: Attempt, state: str) -> tuple[Any, ...]:
    claimed = attempt.claimed
    return (
        claimed.id, claimed.leased_until, state, 0, attempt.at, attempt.at, attempt.recalled, attempt.status, attempt.error,
        attempt.ms,
    )  # fmt: skip


def _failed(attempt: Attempt, delay: int | None, *, ordered: bool) -> tuple[Any, ...]:
    if delay is None:
        return _final(attempt, "failed")
    claimed = attempt.claimed
    due = 0 if ordered else attempt.at + delay  # in an ordered subscription the endpoint rests instead
    return (
        claimed.id, claimed.leased_until, "pending", 0, due, None, attempt.recalled, attempt.status, attempt.error, attempt.ms,
    )  # fmt: skip


def _drop(db: Database, session: Session, withheld: Sequence[Withheld], now: int) -> None:
    db.bulk_update(
        session,
        DeliveryRow.__table__,
        ("_id", "_leased_until", "state", "leased_until", "finished_at", "last_error"),
        [(w.claimed.id, w.claimed.leased_until, "dropped", 0, now, w.reason) for w in withheld],
        HELD,
    )


_ATTEMPT: Final = (
    "delivery_id", "at", "nonce", "ms", "url", "timestamp", "signatures", "body_bytes", "status", "error", "head", "excerpt",
)  # fmt: skip


def log_attempts(db: Database, session: Session, attempts: Sequence[Attempt]) -> None:
    """Write what went out and came back."""
    rows = [  # the number only tells apart two that end in one millisecond
        (
            a.claimed.id, a.at, random.getrandbits(31), a.ms, a.exchange.url, a.exchange.timestamp, a.exchange.signatures,
            a.exchange.body_bytes, a.status, a.error, a.exchange.head, a.exchange.excerpt,
        )
        for a in attempts
        if a.exchange is not None
    ]  # fmt: skip
    db.bulk_insert(session, AttemptRow.__table__, _ATTEMPT, rows)


_SUBSCRIPTIONS: Final = SubscriptionRow.__table__.c


def _not_well(db: Database) -> Select[Any]:
    remembered = or_(_SUBSCRIPTIONS.failures > 0, _SUBSCRIPTIONS.failing_since.is_not(None))
    return select(_SUBSCRIPTIONS.id).where(db.any_bound(_SUBSCRIPTIONS.id, "ids"), remembered)


def _health(
    db: Database,
    session: Session,
    attempts: Sequence[Attempt],
    missed: Sequence[Attempt],
    delays: Mapping[str, int | None],
    fraction: Callable[[], float],
) -> set[str]:
    """Move each endpoint's health by its attempts, in the order in which they ended.

    Args:
        missed: those that did not arrive.

    Returns:
        The ordered subscriptions among those with a failure.
    """
    ill = {a.claimed.subscription_id for a in missed}
    well = {a.claimed.subscription_id for a in attempts} - ill
    if well:
        # Most have nothing to forget; the few that have are read and told.
        ill |= set(execute(session, db.once(_not_well), ids=db.bound(sorted(well))).scalars())
    if not ill:
        return set()
    by_endpoint: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda a: a.at):
        by_endpoint[attempt.claimed.subscription_id].append(attempt)
    rows = session.scalars(
        # In the order of ids: two workers that write about the same endpoints must not wait for each other in a ring.
        select(SubscriptionRow)
        .where(SubscriptionRow.id.in_(ill))
        .order_by(SubscriptionRow.id)
        .with_for_update()
    ).all()
    for row in rows:
        for attempt in by_endpoint[row.id]:
            health.after(db, session, row, attempt, delays.get(attempt.claimed.id), fraction)
    return {row.id for row in rows if row.ordered}
