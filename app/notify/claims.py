"""From pending rows to bodies ready for signing: a lease on each row, then the gate again.

A claim marks rows with a lease and counts the attempt before it is made. A worker that dies leaves its rows to the next
one when the lease is over; what it may have sent is then sent again under the same `webhook-id`. Claims are taken
endpoint by endpoint, so that the backlog of one never stands before another's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, select, update

from app.gate import visible
from app.models import ApiTokenRow, DeliveryRow, EventRow, LogRow, NoticeRow, SubscriptionRow
from app.notify import matching
from app.notify.matching import Cause
from app.notify.payload import Told
from app.queries.filters import is_active

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Principal
    from app.notify.setup import WebhookSetup
    from app.notify.signing import Scheme

LEASE_MS: Final = 60_000
"""Four times the longest attempt (15 s): a lease that ends early only costs a duplicate."""

PER_SUBSCRIPTION: Final = 8
"""Deliveries in flight to one endpoint from one worker. An endpoint that hangs holds so many places and no more."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row leased to this worker. `attempts` counts the attempt that is about to be made."""

    id: str
    subscription_id: str
    attempts: int
    leased_until: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A delivery that passed the gate just now, with what is needed to sign and send it."""

    claimed: Claimed
    url: str
    scheme: Scheme
    sealed: bytes | None = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Withheld:
    """A delivery that must not be sent: now (`ended`: the token), or ever (the notice is no longer this caller's to see)."""

    claimed: Claimed
    reason: str
    ended: bool = False


_DUE: Final = and_(
    DeliveryRow.state == "pending",
    DeliveryRow.due_at <= bindparam("now"),
    DeliveryRow.leased_until <= bindparam("now"),
)


def claim(
    db: Database,
    now: int,
    limit: int,
    *,
    busy: Mapping[str, int] | None = None,
    per_subscription: int = PER_SUBSCRIPTION,
    lease_ms: int = LEASE_MS,
) -> list[Claimed]:
    """Lease up to `limit` due deliveries, spread over the endpoints that have any.

    Args:
        now: unix ms.
        busy: deliveries that this worker has in flight, by subscription; they count against `per_subscription`.
    """
    busy = busy or {}
    with db.read() as session:  # most looks find nothing, and must not queue behind the writer
        waiting = session.scalars(_waiting(), {"now": now}).all()
    room = {id_: per_subscription - busy.get(id_, 0) for id_ in waiting}
    room = dict([(id_, free) for id_, free in room.items() if free > 0][:limit])
    if not room:
        return []
    claimed: list[Claimed] = []
    due = _due_of_one().with_for_update(**db.skip_locked())
    with db.write() as session:
        for n, (subscription_id, free) in enumerate(room.items()):
            share = -(-(limit - len(claimed)) // (len(room) - n))  # of what is left, rounded up
            rows = session.execute(
                due, {"now": now, "subscription": subscription_id, "share": min(free, share)}
            )
            claimed.extend(
                Claimed(id_, subscription_id, attempts + 1, now + lease_ms) for id_, attempts in rows
            )
        if claimed:
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.id.in_([c.id for c in claimed]))
                .values(leased_until=now + lease_ms, attempts=DeliveryRow.attempts + 1)
                .execution_options(synchronize_session=False)
            )
    return claimed


def _waiting() -> Select[str]:
    """Active endpoints that have something due, the one that waits longest first: one index probe for each."""
    oldest = (
        select(func.min(DeliveryRow.due_at))
        .where(DeliveryRow.subscription_id == SubscriptionRow.id, _DUE)
        .correlate(SubscriptionRow)
        .scalar_subquery()
    )
    active = (
        select(SubscriptionRow.id, oldest.label("oldest"))
        .where(SubscriptionRow.status == "active", SubscriptionRow.not_before <= bindparam("now"))
        .subquery()
    )
    return select(active.c.id).where(active.c.oldest.is_not(None)).order_by(active.c.oldest)


def _due_of_one() -> Select[str, int]:
    return (
        select(DeliveryRow.id, DeliveryRow.attempts)
        .where(DeliveryRow.subscription_id == bindparam("subscription"), _DUE)
        .order_by(DeliveryRow.due_at, DeliveryRow.event_seq)
        .limit(bindparam("share"))
    )


def prepare(
    db: Database, now: int, setup: WebhookSetup, claimed: Iterable[Claimed]
) -> tuple[list[Ready], list[Withheld]]:
    """Pass claimed deliveries through the gate as it stands now, and make the bodies of those that may go.

    Deliveries whose subscription was deleted meanwhile are in neither list: they are gone.
    """
    rows = {row.id: row for row in claimed}
    withheld: list[Withheld] = []
    subscribed: dict[str, SubscriptionRow] = {}
    by_principal: dict[Principal, list[str]] = defaultdict(list)
    with db.read() as session:
        owners = _owners(session, {row.subscription_id for row in rows.values()})
        for row in rows.values():
            if (owner := owners.get(row.subscription_id)) is None:
                continue
            subscription, token = owner
            if (ended := matching.why_token_ended(token, now)) is not None:
                withheld.append(Withheld(row, ended, ended=True))
                continue
            subscribed[row.id] = subscription
            by_principal[replace(matching.token_principal(token, setup.state), id=None)].append(row.id)
        bodies: dict[str, bytes] = {}
        for principal, ids in by_principal.items():  # one statement for all who see alike
            bodies |= told_bodies(session, principal, setup, ids, now)
    ready: list[Ready] = []
    for id_, subscription in subscribed.items():
        if id_ in bodies:
            scheme: Scheme = "v1a" if subscription.scheme == "v1a" else "v1"
            ready.append(Ready(rows[id_], subscription.url, scheme, subscription.secret, bodies[id_]))
        else:
            withheld.append(
                Withheld(rows[id_], "The notice is no longer visible to this subscription's token.")
            )
    return ready, withheld


def _owners(session: Session, ids: Iterable[str]) -> dict[str, tuple[SubscriptionRow, ApiTokenRow]]:
    rows = session.execute(
        select(SubscriptionRow, ApiTokenRow)
        .join(ApiTokenRow, ApiTokenRow.id == SubscriptionRow.token_id)
        .where(SubscriptionRow.id.in_(ids))
    )
    return {subscription.id: (subscription, token) for subscription, token in rows}


def told_bodies(
    session: Session, principal: Principal, setup: WebhookSetup, ids: Sequence[str], now: int
) -> dict[str, bytes]:
    """The bodies of those deliveries that may be sent to `principal` now (unix ms), by delivery id."""
    told = matching.told_before(DeliveryRow.subscription_id, in_hand=ids)
    rows = session.execute(
        matching.with_notice(
            select(
                DeliveryRow.id.label("delivery"),
                EventRow.type,
                EventRow.at,
                EventRow.idx,
                LogRow.origin,
                LogRow.state,
                Cause.id.label("cause_id"),
                Cause.version,
                Cause.leaf_hash,
                Cause.tlp_rank.label("cause_rank"),
                Cause.audience.label("cause_audience"),
                matching.Acked.version.label("acked_version"),
                NoticeRow.id.label("notice_id"),
                NoticeRow.issuer,
                NoticeRow.type.label("notice_type"),
                NoticeRow.tlp_rank,
                NoticeRow.status,
                is_active(now).label("is_active"),
                NoticeRow.version.label("notice_version"),
                NoticeRow.content_state,
                visible(principal).label("seen"),
                told.label("told"),
            )
            .select_from(DeliveryRow)
            .join(EventRow, EventRow.seq == DeliveryRow.event_seq)
        ).where(DeliveryRow.id.in_(ids))
    )
    return {
        row.delivery: _told(row).body(setup.public_url)
        for row in rows
        if row.notice_id is not None
        and matching.may_be_told(
            principal,
            event_type=row.type,
            seen=row.seen,
            told=row.told,
            content_state=row.content_state,
            log_state=row.state,
            cause_rank=row.cause_rank,
            cause_audience=row.cause_audience,
        )
    }


def _told(row: Any) -> Told:  # noqa: ANN401 - a row of the statement above
    acknowledged = row.type == matching.ACKNOWLEDGED
    erased = row.type == matching.ERASED
    return Told(
        event_type=row.type,
        at=row.at,
        notice_id=row.notice_id,
        version=row.acked_version if acknowledged else (row.version or row.notice_version),
        issuer=row.issuer,
        notice_type=None if erased else row.notice_type,
        tlp_rank=None if erased else row.tlp_rank,
        status="expired" if row.status == "active" and not row.is_active else row.status,
        origin=row.origin,
        index=row.idx,
        leaf_hash=None if row.leaf_hash is None else bytes(row.leaf_hash),
        acknowledgement=(row.cause_id, row.state) if acknowledged else None,
    )
