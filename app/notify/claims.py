"""From pending rows to bodies ready for signing: a lease on each row, then the gate again.

A claim marks rows with a lease and counts the attempt before it is made. A worker that dies leaves its rows to the next
one when the lease is over; what it may have sent is then sent again under the same `webhook-id`. Claims are taken
endpoint by endpoint, so that the backlog of one never stands before another's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, select, update

from app.gate import visible
from app.models import ApiTokenRow, DeliveryRow, EventRow, LogRow, NoticeRow, SubscriptionRow
from app.notify import matching
from app.notify.matching import Cause
from app.notify.payload import Told
from app.queries.filters import is_active

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.db import Database
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


def _due(now: int) -> ColumnElement[bool]:
    return and_(DeliveryRow.state == "pending", DeliveryRow.due_at <= now, DeliveryRow.leased_until <= now)


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
        oldest = (
            select(func.min(DeliveryRow.due_at))
            .where(DeliveryRow.subscription_id == SubscriptionRow.id, _due(now))
            .correlate(SubscriptionRow)
            .scalar_subquery()
        )
        waiting = session.execute(
            select(SubscriptionRow.id, oldest.label("oldest"))
            .where(SubscriptionRow.status == "active", SubscriptionRow.not_before <= now, oldest.is_not(None))
            .order_by("oldest")
        ).all()
    room = {id_: per_subscription - busy.get(id_, 0) for id_, _ in waiting}
    room = dict([(id_, free) for id_, free in room.items() if free > 0][:limit])
    if not room:
        return []
    claimed: list[Claimed] = []
    with db.write() as session:
        for n, (subscription_id, free) in enumerate(room.items()):
            share = -(-(limit - len(claimed)) // (len(room) - n))  # of what is left, rounded up
            rows = session.execute(
                select(DeliveryRow.id, DeliveryRow.attempts)
                .where(DeliveryRow.subscription_id == subscription_id, _due(now))
                .order_by(DeliveryRow.due_at, DeliveryRow.event_seq)
                .limit(min(free, share))
                .with_for_update(**db.skip_locked())
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


def prepare(
    db: Database, now: int, setup: WebhookSetup, claimed: Iterable[Claimed]
) -> tuple[list[Ready], list[Withheld]]:
    """Pass claimed deliveries through the gate as it stands now, and make the bodies of those that may go."""
    by_subscription: dict[str, dict[str, Claimed]] = defaultdict(dict)
    for row in claimed:
        by_subscription[row.subscription_id][row.id] = row
    ready: list[Ready] = []
    withheld: list[Withheld] = []
    with db.read() as session:
        for subscription_id, rows in by_subscription.items():
            found = session.execute(
                select(SubscriptionRow, ApiTokenRow)
                .join(ApiTokenRow, ApiTokenRow.id == SubscriptionRow.token_id)
                .where(SubscriptionRow.id == subscription_id)
            ).one_or_none()
            if found is None:
                continue  # deleted since, and its deliveries with it
            subscription, token = found
            ended = matching.why_token_ended(token, now)
            if ended is not None:
                withheld.extend(Withheld(c, ended, ended=True) for c in rows.values())
                continue
            bodies = told_bodies(session, subscription, token, setup, list(rows), now)
            for id_, row in rows.items():
                body = bodies.get(id_)
                if body is None:
                    withheld.append(
                        Withheld(row, "The notice is no longer visible to this subscription's token.")
                    )
                else:
                    ready.append(Ready(row, subscription.url, subscription.scheme, subscription.secret, body))  # type: ignore[arg-type]  # the column holds a Scheme
    return ready, withheld


def told_bodies(
    session: Session,
    subscription: SubscriptionRow,
    token: ApiTokenRow,
    setup: WebhookSetup,
    ids: Sequence[str],
    now: int,
) -> dict[str, bytes]:
    """The bodies of those deliveries of one subscription that its token may be sent now (unix ms), by delivery id."""
    principal = matching.token_principal(token, setup.state)
    told = matching.told_before(subscription.id, in_hand=ids)
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
        )
        .join(DeliveryRow, DeliveryRow.event_seq == EventRow.seq)
        .where(DeliveryRow.id.in_(ids))
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
