"""Fan-out: rows of `events` become one row of `deliveries` for each subscription that is to be told.

One transaction per subscription and run of events: the new rows and the subscription's place in the outbox move together,
so a crash repeats nothing and skips nothing. Two workers never fan out one subscription at a time, and if they did the
unique key on (subscription, event) would keep the rows single.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, or_, select

from app.domain.errors import InvalidFilter
from app.gate import event_visible, visible
from app.models import ApiTokenRow, DeliveryRow, EventRow, LogRow, NoticeRow, SubscriptionRow
from app.notify import matching
from app.notify.matching import Cause

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.notify.setup import WebhookSetup

log: Final = logging.getLogger("verbale.notify")

EVENTS_PER_RUN: Final = 500
SUBSCRIPTIONS_PER_STEP: Final = 100


def new_id(at_ms: int) -> str:
    """A UUIDv7 (RFC 9562): ids made later sort later, so that indexes grow at one end. It has no full stop in it."""
    value = (
        (at_ms & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def newest_event(session: Session) -> int:
    """Number of the newest event, 0 if there is none. Everything below it is visible too (`Database.next_values`)."""
    return session.scalar(select(func.max(EventRow.seq))) or 0


def fan_out_step(
    db: Database, clock: Clock, setup: WebhookSetup, *, events_per_run: int = EVENTS_PER_RUN
) -> int:
    """Take every active subscription one run of events further.

    Returns:
        How many events were looked at, over all subscriptions; 0 when all of them are up to date.
    """
    with db.read() as session:
        newest = newest_event(session)
        behind = session.scalars(
            select(SubscriptionRow.id)
            .where(SubscriptionRow.status == "active", SubscriptionRow.fanned_seq < newest)
            .order_by(SubscriptionRow.fanned_seq)
            .limit(SUBSCRIPTIONS_PER_STEP)
        ).all()
    looked_at = 0
    for subscription_id in behind:
        try:
            with db.write() as session:
                looked_at += _fan_out(db, session, subscription_id, setup, clock(), events_per_run)
        except InvalidFilter as error:  # an older version took it; it must not hold up the others
            with db.write() as session:
                subscription = session.get(SubscriptionRow, subscription_id, with_for_update=True)
                if subscription is not None:
                    disable(subscription, f"Its filter is not understood any more: {error}"[:500])
    return looked_at


def _fan_out(
    db: Database, session: Session, subscription_id: str, setup: WebhookSetup, now: int, events_per_run: int
) -> int:
    row = session.execute(
        select(SubscriptionRow, ApiTokenRow)
        .join(ApiTokenRow, ApiTokenRow.id == SubscriptionRow.token_id)
        .where(SubscriptionRow.id == subscription_id, SubscriptionRow.status == "active")
        .with_for_update(of=SubscriptionRow, **db.skip_locked())
    ).one_or_none()
    if row is None:
        return 0
    subscription, token = row
    ended = matching.why_token_ended(token, now)
    if ended is not None:
        disable(subscription, ended)
        return 0
    run = (
        select(EventRow.seq)
        .where(EventRow.seq > subscription.fanned_seq)
        .order_by(EventRow.seq)
        .limit(events_per_run)
        .subquery()
    )
    last, count = session.execute(select(func.max(run.c.seq), func.count())).one()
    if last is None:
        return 0
    selected = _selected(session, subscription, token, setup, last, now)
    if selected:
        session.execute(
            db.insert_ignore(DeliveryRow.__table__),
            [
                {
                    "id": new_id(now),
                    "subscription_id": subscription_id,
                    "event_seq": seq,
                    "state": "pending",
                    "due_at": now,
                    "leased_until": 0,
                    "attempts": 0,
                    "created_at": now,
                }
                for seq in selected
            ],
        )
    subscription.fanned_seq = last
    return int(count)


def _selected(
    session: Session,
    subscription: SubscriptionRow,
    token: ApiTokenRow,
    setup: WebhookSetup,
    last: int,
    now: int,
) -> list[int]:
    """The events up to `last` that this subscription is to be told of."""
    principal = matching.token_principal(token, setup.state)
    types: list[str] = json.loads(subscription.event_types)
    filters = matching.selects(json.loads(subscription.filter), principal, now)
    told = matching.told_before(subscription.id)
    statement = matching.with_notice(
        select(
            EventRow.seq,
            EventRow.type,
            visible(principal).label("seen"),
            told.label("told"),
            NoticeRow.content_state,
            LogRow.state,
            Cause.tlp_rank,
            Cause.audience,
        ).select_from(EventRow)
    ).where(
        EventRow.seq > subscription.fanned_seq,
        EventRow.seq <= last,
        EventRow.live,
        event_visible(principal),
        or_(and_(*filters), told),
    )
    if types:
        statement = statement.where(EventRow.type.in_(types))
    return [
        seq
        for seq, type_, seen, was_told, content_state, log_state, rank, audience in session.execute(
            statement.order_by(EventRow.seq)
        )
        if matching.may_be_told(
            principal,
            event_type=type_,
            seen=seen,
            told=was_told,
            content_state=content_state,
            log_state=log_state,
            cause_rank=rank,
            cause_audience=audience,
        )
    ]


def disable(subscription: SubscriptionRow, reason: str) -> None:
    """End an active subscription's deliveries and say why. What is pending stays, for when its owner resumes it."""
    if subscription.status == "disabled":
        return
    subscription.status, subscription.status_reason = "disabled", reason
    log.warning(
        "a webhook subscription was disabled",
        extra={"action": "webhook.disabled", "subscription": subscription.id, "reason": reason},
    )
