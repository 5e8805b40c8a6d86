"""A token's own subscriptions: made, changed, ended, tried, looked at.

Guarantees that a token meets only its own subscriptions, that a secret leaves this module once, when it is made, and that
URL and filter were checked when they were saved. Whether the caller may subscribe at all is checked by `subscriber`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, select

from app.domain.errors import Conflict, InvalidCursor, NotAllowed, NotFound
from app.models import ApiTokenRow, DeliveryRow, EventRow, SubscriptionRow
from app.notify import claims, matching, signing
from app.notify.claims import Claimed, Ready
from app.notify.guard import check_url
from app.notify.outbox import new_id, newest_event
from app.notify.payload import trial_body
from app.queries.filters import NoticeFilter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup
    from app.notify.signing import Scheme

MAX_PER_TOKEN: Final = 50
"""A member system has a handful of endpoints; each costs a query per run of events."""


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
    *,
    url: str,
    description: str | None,
    event_types: Sequence[str],
    filters: Mapping[str, Any],
    scheme: Scheme,
    since: int | None,
    now: int,
) -> tuple[SubscriptionRow, str | None]:
    """Make a subscription; the second value is its secret, which cannot be shown again (None for `v1a`).

    Args:
        since: unix ms; live events recorded here from then on are sent too. None: from now on.
        now: unix ms.

    Raises:
        UnsafeUrl, InvalidFilter, TooManySubscriptions
    """
    check_url(url, setup.policy)
    stored = json.dumps(NoticeFilter.from_json(dict(filters)).to_json())
    owned = session.scalar(select(func.count()).where(SubscriptionRow.token_id == token_id)) or 0
    if owned >= MAX_PER_TOKEN:
        raise TooManySubscriptions(
            f"This token has {owned} subscriptions, the most a token may have. Delete one first."
        )
    id_ = new_id(now)
    secret = signing.new_secret() if scheme == "v1" else None
    row = SubscriptionRow(
        id=id_,
        token_id=token_id,
        url=url,
        description=description,
        event_types=json.dumps(sorted(set(event_types))),
        filter=stored,
        scheme=scheme,
        secret=None if secret is None else setup.keys.seal(secret, id_),
        status="active",
        fanned_seq=newest_event(session) if since is None else _last_before(session, since),
        created_at=now,
        not_before=0,
    )
    session.add(row)
    session.flush()
    return row, None if secret is None else signing.secret_text(secret)


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


def change(setup: WebhookSetup, row: SubscriptionRow, changes: Mapping[str, Any]) -> None:
    """Change what is named: url, description, event_types, filter, status (`active` or `paused`).

    A subscription that is resumed is sent what happened meanwhile, and starts with a clean health.

    Raises:
        UnsafeUrl, InvalidFilter
    """
    if "url" in changes:
        row.url = check_url(changes["url"], setup.policy)
    if "filter" in changes:
        row.filter = json.dumps(NoticeFilter.from_json(changes["filter"]).to_json())
    if "event_types" in changes:
        row.event_types = json.dumps(sorted(set(changes["event_types"])))
    if "description" in changes:
        row.description = changes["description"]
    if changes.get("status") == "active":
        resume(row)
    elif changes.get("status") == "paused":
        row.status, row.status_reason = "paused", None


def resume(row: SubscriptionRow) -> None:
    """Start sending again."""
    row.status, row.status_reason, row.failing_since, row.not_before = "active", None, None, 0


def remove(session: Session, token_id: str, subscription_id: str) -> None:
    """Delete a subscription with its deliveries. What is in flight may still arrive; nothing else does.

    Raises:
        NotFound
    """
    row = owned(session, token_id, subscription_id, lock=True)
    session.execute(
        delete(DeliveryRow)
        .where(DeliveryRow.subscription_id == subscription_id)
        .execution_options(synchronize_session=False)
    )
    session.delete(row)


def deliveries(
    session: Session, subscription: SubscriptionRow, *, cursor: str | None, limit: int
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
    if cursor is not None:
        last = session.get(DeliveryRow, cursor)
        if last is None or last.subscription_id != subscription.id:
            raise InvalidCursor("This cursor is not one of this subscription's. Start again without it.")
        statement = statement.where(DeliveryRow.event_seq < last.event_seq)
    found = [Delivery(row, event_type) for row, event_type in session.execute(statement)]
    return found[:limit], found[limit - 1].row.id if len(found) > limit else None


# ── one attempt that somebody waits for ───────────────────────────────────────────────────────────────────────────


def trial(subscription: SubscriptionRow, now: int) -> Ready:
    """A test delivery, which concerns no notice and stands in no table."""
    body = trial_body(matching.TEST_EVENT, now, subscription.id)
    return _ready(subscription, Claimed(new_id(now), subscription.id, 1, now), body)


def after_trial(session: Session, token_id: str, attempt: Attempt) -> None:
    """A test delivery that arrived makes a disabled subscription active again; one that failed changes nothing."""
    if attempt.verdict == "delivered":
        row = owned(session, token_id, attempt.claimed.subscription_id, lock=True)
        if row.status == "disabled":
            resume(row)


def replay(
    session: Session, setup: WebhookSetup, subscription: SubscriptionRow, delivery_id: str, now: int
) -> Ready:
    """A delivery once more, under its own id and today's secret, through today's gate.

    Raises:
        NotFound: the subscription has no such delivery.
        NotDeliverable: its token may no longer see what it tells.
    """
    row = _delivery(session, subscription.id, delivery_id)
    token = session.get_one(ApiTokenRow, subscription.token_id)
    principal = matching.token_principal(token, setup.state)
    body = claims.told_bodies(session, principal, setup, [row.id], now).get(row.id)
    if body is None:
        raise NotDeliverable("The notice is no longer visible to this token. Nothing was sent.")
    return _ready(subscription, Claimed(row.id, subscription.id, row.attempts + 1, row.leased_until), body)


def after_replay(session: Session, attempt: Attempt) -> None:
    """Write what became of a replay. A failure leaves the delivery where it was; neither counts for the endpoint's health."""
    row = session.get(DeliveryRow, attempt.claimed.id, with_for_update=True)
    if row is None:
        return
    row.attempts += 1
    row.last_status, row.last_error, row.last_ms = attempt.status, attempt.error, attempt.ms
    if attempt.verdict == "delivered":
        row.state, row.finished_at, row.leased_until = "delivered", attempt.at, 0


def _delivery(session: Session, subscription_id: str, delivery_id: str) -> DeliveryRow:
    row = session.get(DeliveryRow, delivery_id)
    if row is None or row.subscription_id != subscription_id:
        raise NotFound("This subscription has no such delivery.")
    return row


def _ready(subscription: SubscriptionRow, claimed: Claimed, body: bytes) -> Ready:
    scheme: Scheme = "v1a" if subscription.scheme == "v1a" else "v1"
    return Ready(claimed, subscription.url, scheme, subscription.secret, body)
