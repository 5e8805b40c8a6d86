"""A token's own subscriptions: made, changed, ended, tried, looked at.

Guarantees that a token meets only its own subscriptions, that a secret leaves this module once, when it is made, and that
URL, filter, headers and certificates were checked when they were saved. Whether the caller may subscribe at all is checked
by `subscriber`.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, select, update

from app.domain.errors import Conflict, InvalidCursor, MalformedRequest, NotAllowed, NotFound
from app.models import AttemptRow, DeliveryRow, EventRow, SubscriptionRow
from app.models.service import ENDED, PENDING
from app.notify import claims, endpoint, health, matching, outbox, results, signing
from app.notify.claims import Claimed, Ready
from app.notify.endpoint import Endpoint
from app.notify.guard import check_url
from app.notify.outbox import new_id, newest_event
from app.notify.payload import trial_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Principal
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup

MAX_PER_TOKEN: Final = 50
"""A member system has a handful of endpoints; each costs a query per run of events."""

MAX_PER_CALL: Final = 10_000
"""Deliveries that one call replays or discards: one transaction, during which others wait."""

HOUR_MS: Final = 3_600_000
OVERLAP_HOURS: Final = 24
MAX_OVERLAP_HOURS: Final = 30 * 24


class TooManySubscriptions(Conflict):
    """The token has as many subscriptions as this node lets one have."""

    code = "too-many-subscriptions"


class NotDeliverable(Conflict):
    """The delivery must not be sent any more: its notice is no longer this token's to see."""

    code = "not-deliverable"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One line of the delivery log: the row and the type of its event. Times in unix ms."""

    row: DeliveryRow
    event_type: str


def subscriber(principal: Principal) -> str:
    """The id of the caller's token.

    Raises:
        NotAuthenticated, NotAllowed: no token, or one without the scope `subscribe`.
    """
    principal.require("subscribe")
    if principal.kind != "token" or principal.id is None:
        raise NotAllowed("Subscriptions belong to an API token. Ask this node's operator for one.")
    return principal.id


def create(
    session: Session,
    setup: WebhookSetup,
    token_id: str,
    wanted: Mapping[str, Any],
    *,
    since: int | None,
    after: int | None = None,
    now: int,
) -> tuple[SubscriptionRow, str | None]:
    """Make a subscription; the second value is its secret, which cannot be shown again (None for `v1a`).

    Args:
        wanted: `url` and `scheme`, and whatever else `change` takes.
        since: unix ms; live events recorded here from then on are sent too. None: from now on.
        after: number of an event; live events after it are sent too.
        now: unix ms.

    Raises:
        UnsafeUrl, InvalidFilter, UnsafeEndpoint, TooManySubscriptions
    """
    owned = session.scalar(select(func.count()).where(SubscriptionRow.token_id == token_id)) or 0
    if owned >= MAX_PER_TOKEN:
        raise TooManySubscriptions(
            f"This token has {owned} subscriptions, the most a token may have. Delete one first."
        )
    id_ = new_id(now)
    scheme = wanted["scheme"]
    secret = None if scheme == "v1a" else signing.new_secret()
    newest = newest_event(session)
    row = SubscriptionRow(
        id=id_,
        token_id=token_id,
        event_types="[]",
        filter="{}",
        scheme=scheme,
        secret=None if secret is None else setup.keys.seal(secret, id_),
        status="active",
        fanned_seq=newest,
        top_seq=0,
        told=0,
        created_at=now,
        not_before=0,
        failures=0,
    )
    _set(setup, row, {"tags": [], **wanted})
    if since is not None:
        row.fanned_seq = _last_before(session, since)
    if after is not None:
        row.fanned_seq = min(newest, after)
    session.add(row)
    session.flush()
    return row, None if secret is None else signing.secret_text(secret)


def _set(setup: WebhookSetup, row: SubscriptionRow, values: Mapping[str, Any]) -> None:
    """Check and write what is named.

    Raises:
        UnsafeUrl, InvalidFilter, UnsafeEndpoint
    """
    if "url" in values and values["url"] != row.url:
        row.url, row.verified_at = check_url(values["url"], setup.policy), None
    if "filter" in values:
        row.filter = json.dumps(matching.filter_json(*matching.read_filter(dict(values["filter"]))))
    if "event_types" in values:
        row.event_types = json.dumps(sorted(set(values["event_types"])))
    if "tags" in values:
        row.tags = json.dumps(sorted(set(values["tags"])), ensure_ascii=False)
    for name in ("description", "payload", "ordered", "max_in_flight", "per_minute"):
        if name in values:
            setattr(row, name, values[name])
    if "headers" in values:
        headers = endpoint.check_headers(values["headers"] or {})
        row.headers = setup.keys.seal(json.dumps(headers).encode(), row.id) if headers else None
    if "ca" in values:
        row.ca = endpoint.check_ca(values["ca"]) if values["ca"] else None
    if "client_cert" in values:
        given = values["client_cert"]
        pem = endpoint.check_client_cert(given["certificate"], given["key"]) if given else None
        row.client_cert = None if pem is None else setup.keys.seal(pem, row.id)


def _last_before(session: Session, since: int) -> int:
    """Number of the last event recorded before `since` (unix ms); walks back from the newest."""
    return (
        session.scalar(select(EventRow.seq).where(EventRow.at < since).order_by(EventRow.seq.desc()).limit(1))
        or 0
    )


def listed(session: Session, token_id: str) -> Sequence[SubscriptionRow]:
    """The token's subscriptions, oldest first."""
    return session.scalars(
        select(SubscriptionRow).where(SubscriptionRow.token_id == token_id).order_by(SubscriptionRow.id)
    ).all()


def owned(session: Session, token_id: str, subscription_id: str, *, lock: bool = False) -> SubscriptionRow:
    """One subscription of the token.

    Raises:
        NotFound: there is none, or it is another token's.
    """
    row = session.get(SubscriptionRow, subscription_id, with_for_update=True if lock else None)
    if row is None or row.token_id != token_id:
        raise NotFound("This token has no such subscription.")
    return row


def change(
    db: Database,
    session: Session,
    setup: WebhookSetup,
    row: SubscriptionRow,
    changes: Mapping[str, Any],
    *,
    now: int,
) -> None:
    """Change what is named: any member of a subscription but its signing, and `status` (`active` or `paused`).

    A subscription that is resumed is sent what happened meanwhile, and starts with a clean health. A new URL has to be
    proven anew.

    Raises:
        UnsafeUrl, InvalidFilter, UnsafeEndpoint
    """
    was_ordered = row.ordered
    _set(setup, row, changes)
    if row.ordered and not was_ordered:
        # What waits is put into the order of events; the other way round nothing needs to be done.
        session.execute(
            update(DeliveryRow)
            .where(DeliveryRow.subscription_id == row.id, DeliveryRow.state == PENDING)
            .values(due_at=0, lane=1)
            .execution_options(synchronize_session=False)
        )
    if changes.get("status") == "active":
        health.resume(db, session, row, now)
    elif changes.get("status") == "paused":
        row.status, row.status_reason = "paused", None


def any_one(session: Session, subscription_id: str) -> SubscriptionRow:
    """A subscription of whichever token, for the node's operator.

    Raises:
        NotFound
    """
    row = session.get(SubscriptionRow, subscription_id)
    if row is None:
        raise NotFound(f"There is no subscription {subscription_id}. `verbale webhook list` shows all.")
    return row


def rotate(
    setup: WebhookSetup, row: SubscriptionRow, *, scheme: str | None, overlap_hours: int, now: int
) -> str | None:
    """Give a subscription a new secret; the one before signs on, beside it, for so many hours.

    Args:
        scheme: the signing from now on; None leaves it.
        overlap_hours: 0 ends all earlier secrets at once.

    Returns:
        The new secret, which cannot be shown again; None if the new signing has none.
    """
    until = now + overlap_hours * HOUR_MS
    old = [(min(end, until), sealed) for end, sealed in endpoint.read_old(row.old_secrets) if end > now]
    if row.secret is not None:
        old.append((until, row.secret))
    row.old_secrets = endpoint.write_old(tuple(old[-endpoint.MAX_OLD_SECRETS :]) if overlap_hours > 0 else ())
    row.scheme = row.scheme if scheme is None else scheme
    if row.scheme == "v1a":
        row.secret = None
        return None
    secret = signing.new_secret()
    row.secret = setup.keys.seal(secret, row.id)
    return signing.secret_text(secret)


def remove(session: Session, token_id: str, subscription_id: str) -> None:
    """Delete a subscription with its deliveries. What is in flight may still arrive; nothing else does.

    Raises:
        NotFound
    """
    row = owned(session, token_id, subscription_id, lock=True)
    mine = select(DeliveryRow.id).where(DeliveryRow.subscription_id == subscription_id)
    for statement in (
        delete(AttemptRow).where(AttemptRow.delivery_id.in_(mine)),
        delete(DeliveryRow).where(DeliveryRow.subscription_id == subscription_id),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    session.delete(row)


# ── the delivery log ──────────────────────────────────────────────────────────────────────────────────────────────


def deliveries(
    session: Session,
    subscription: SubscriptionRow,
    *,
    cursor: str | None,
    limit: int,
    state: str | None = None,
) -> tuple[list[Delivery], str | None]:
    """The delivery log, newest event first, and the cursor of the next page.

    Raises:
        InvalidCursor: the cursor names no delivery of this subscription.
    """
    statement = (
        select(DeliveryRow, EventRow.type)
        .join(EventRow, EventRow.seq == DeliveryRow.event_seq)
        .where(DeliveryRow.subscription_id == subscription.id)
        .order_by(DeliveryRow.event_seq.desc())
        .limit(limit + 1)
    )
    if state is not None:
        statement = statement.where(DeliveryRow.state == state)
        if state in ("failed", "dropped"):
            statement = statement.where(ENDED)
    if cursor is not None:
        last = session.get(DeliveryRow, cursor)
        if last is None or last.subscription_id != subscription.id:
            raise InvalidCursor("This cursor is not one of this subscription's. Start again without it.")
        statement = statement.where(DeliveryRow.event_seq < last.event_seq)
    found = [Delivery(row, event_type) for row, event_type in session.execute(statement)]
    return found[:limit], found[limit - 1].row.id if len(found) > limit else None


def delivery(
    session: Session, subscription: SubscriptionRow, delivery_id: str
) -> tuple[Delivery, Sequence[AttemptRow]]:
    """One delivery and every attempt at it that is kept, oldest first.

    Raises:
        NotFound: the subscription has no such delivery.
    """
    row = _delivery(session, subscription.id, delivery_id)
    event_type = session.scalars(select(EventRow.type).where(EventRow.seq == row.event_seq)).one()
    attempts = session.scalars(
        select(AttemptRow).where(AttemptRow.delivery_id == row.id).order_by(AttemptRow.at, AttemptRow.nonce)
    ).all()
    return Delivery(row, event_type), attempts


LOOK_BACK: Final = 1_000
"""Deliveries over which an endpoint's speed is given."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How an endpoint stands. Times in unix ms.

    Attributes:
        told: deliveries ever made for it; the newest one's `sequence`.
        events_ahead: events that it has not come to yet.
        of_last: over the newest deliveries: how many arrived, and how long the receiver took.
    """

    told: int
    pending: int
    failed: int
    dropped: int
    events_ahead: int
    oldest_pending_at: int | None
    looked_at: int
    arrived: int
    median_ms: int | None
    slowest_ms: int | None


def counts(session: Session, subscription: SubscriptionRow) -> Counts:
    """Count what waits and what failed, and look over the newest deliveries."""
    of = DeliveryRow.subscription_id == subscription.id
    pending, oldest = session.execute(
        select(func.count(), func.min(DeliveryRow.created_at)).where(of, DeliveryRow.state == PENDING)
    ).one()
    ended = dict(
        session.execute(
            select(DeliveryRow.state, func.count()).where(of, ENDED).group_by(DeliveryRow.state)
        ).all()
    )
    newest = session.execute(
        select(DeliveryRow.state, DeliveryRow.last_ms)
        .where(of)
        .order_by(DeliveryRow.event_seq.desc())
        .limit(LOOK_BACK)
    ).all()
    took = [ms for state, ms in newest if state == "delivered" and ms is not None]
    return Counts(
        told=subscription.told,
        pending=pending,
        failed=ended.get("failed", 0),
        dropped=ended.get("dropped", 0),
        events_ahead=max(0, outbox.newest_event(session) - subscription.fanned_seq),
        oldest_pending_at=oldest,
        looked_at=len(newest),
        arrived=sum(state == "delivered" for state, _ in newest),
        median_ms=round(statistics.median(took)) if took else None,
        slowest_ms=max(took, default=None),
    )


# ── many at once ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which deliveries a call concerns; all that is given must hold. Times in unix ms.

    Attributes:
        failed: only those that were given up.
        since, until: made from, made before.
        after: of events after this number.
    """

    failed: bool = False
    since: int | None = None
    until: int | None = None
    after: int | None = None

    def conditions(self, subscription_id: str) -> list[ColumnElement[bool]]:
        """As SQL over `deliveries`.

        Raises:
            MalformedRequest: nothing is given: everything there ever was is never meant.
        """
        if self == Chosen():
            raise MalformedRequest("Say which deliveries: failed, since, until or after.")
        found: list[ColumnElement[bool]] = [DeliveryRow.subscription_id == subscription_id]
        if self.failed:
            found += [ENDED, DeliveryRow.state == "failed"]
        else:
            found.append(DeliveryRow.state.in_(("delivered", "failed")))
        if self.since is not None:
            found.append(DeliveryRow.created_at >= self.since)
        if self.until is not None:
            found.append(DeliveryRow.created_at < self.until)
        if self.after is not None:
            found.append(DeliveryRow.event_seq > self.after)
        return found


def replay_many(
    session: Session, subscription: SubscriptionRow, chosen: Chosen, now: int
) -> tuple[int, bool]:
    """Queue deliveries again, each under its own id, with a new schedule of attempts and through the gate of the moment.

    With `after`, events that were never told (the subscription was made later, or asked for less) are told as well.

    Returns:
        How many were queued, and whether more are left for another call.

    Raises:
        MalformedRequest: see `Chosen.conditions`.
    """
    ids, more = _some(session, subscription, chosen)
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(ids))
        .values(
            state="pending",
            due_at=0 if subscription.ordered else now,
            lane=1,
            leased_until=0,
            attempts=0,
            finished_at=None,
        )
        .execution_options(synchronize_session=False)
    )
    if chosen.after is not None and not chosen.failed:
        subscription.fanned_seq = min(subscription.fanned_seq, chosen.after)
    return len(ids), more


def discard(session: Session, subscription: SubscriptionRow, chosen: Chosen, now: int) -> tuple[int, bool]:
    """Drop dead letters: they are pruned with the rest of the log, and never sent.

    Returns:
        As `replay_many`.
    """
    ids, more = _some(session, subscription, Chosen(True, chosen.since, chosen.until, chosen.after))
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(ids))
        .values(state="dropped", finished_at=now, last_error="Discarded by the subscription's owner.")
        .execution_options(synchronize_session=False)
    )
    return len(ids), more


def _some(session: Session, subscription: SubscriptionRow, chosen: Chosen) -> tuple[Sequence[str], bool]:
    ids = session.scalars(
        select(DeliveryRow.id)
        .where(*chosen.conditions(subscription.id))
        .order_by(DeliveryRow.event_seq)
        .limit(MAX_PER_CALL + 1)
    ).all()
    return ids[:MAX_PER_CALL], len(ids) > MAX_PER_CALL


# ── one attempt that somebody waits for ───────────────────────────────────────────────────────────────────────────


def trial(subscription: SubscriptionRow, now: int) -> Ready:
    """A test delivery, which concerns no notice and stands in no table."""
    body = trial_body(matching.TEST_EVENT, now, subscription.id)
    return Ready(Claimed(new_id(now), subscription.id, 1, now), Endpoint.of(subscription), body)


def after_trial(db: Database, session: Session, token_id: str, attempt: Attempt) -> None:
    """A test delivery that arrived makes a disabled subscription active again; one that failed changes nothing."""
    if attempt.verdict == "delivered":
        row = owned(session, token_id, attempt.claimed.subscription_id, lock=True)
        if row.status == "disabled":
            health.resume(db, session, row, attempt.at)


def is_proof(forged: Attempt, genuine: Attempt) -> bool:
    """Whether an endpoint refused what was forged, by an answer of 400 or above, and took what was genuine."""
    refused = forged.status is not None and 400 <= forged.status < 500  # noqa: PLR2004 - the class of refusals
    return refused and genuine.verdict == "delivered"


def after_proof(
    db: Database, session: Session, token_id: str, url: str, forged: Attempt, genuine: Attempt
) -> bool:
    """Write whether the endpoint has proven itself. A URL that was changed meanwhile has not."""
    row = owned(session, token_id, genuine.claimed.subscription_id, lock=True)
    proven = is_proof(forged, genuine) and row.url == url
    if proven:
        row.verified_at = genuine.at
        if row.status == "disabled":
            health.resume(db, session, row, genuine.at)
    return proven


def replay(
    db: Database,
    session: Session,
    setup: WebhookSetup,
    subscription: SubscriptionRow,
    delivery_id: str,
    now: int,
) -> Ready:
    """A delivery once more, under its own id and today's secret, through today's gate.

    Raises:
        NotFound: the subscription has no such delivery.
        NotDeliverable: its token may no longer see what it tells.
    """
    row = _delivery(session, subscription.id, delivery_id)
    claimed = Claimed(row.id, subscription.id, row.attempts + 1, row.leased_until, row.event_seq, row.number)
    ready, _ = claims.pass_gate(db, session, now, setup, [claimed])
    if not ready:
        raise NotDeliverable("The notice is no longer visible to this token. Nothing was sent.")
    return ready[0]


def after_replay(db: Database, session: Session, attempt: Attempt) -> None:
    """Write what became of a replay. A failure leaves the delivery where it was; neither counts for the endpoint's health."""
    row = session.get(DeliveryRow, attempt.claimed.id, with_for_update=True)
    if row is None:
        return
    row.attempts += 1
    row.last_status, row.last_error, row.last_ms = attempt.status, attempt.error, attempt.ms
    if attempt.verdict == "delivered":
        row.state, row.finished_at, row.leased_until = "delivered", attempt.at, 0
        row.recalled = attempt.recalled
    results.log_attempts(db, session, [attempt])


def _delivery(session: Session, subscription_id: str, delivery_id: str) -> DeliveryRow:
    row = session.get(DeliveryRow, delivery_id)
    if row is None or row.subscription_id != subscription_id:
        raise NotFound("This subscription has no such delivery.")
    return row
