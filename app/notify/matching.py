"""Which events a subscriber is told of: its token, its filter, and the gate, in one SQL statement.

The rules:

* a token that is expired, revoked or without the scope `subscribe` is told nothing more;
* the gate (`app.gate`) decides on the notice as it stands now, when the event is fanned out and again when it is sent;
* the filter selects notices by what `GET /v1/notices` calls them, whatever their status unless the filter names one;
* whoever was told of a notice is told what becomes of it, also when an amendment took it out of the filter;
* `notice.erased` goes to those who were told before, and to nobody else: nothing is left that a filter could match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import and_, exists, func, or_, select, true
from sqlalchemy.orm import aliased

from app.gate import Principal, may_read
from app.models import DeliveryRow, EntryRow, EventRow, LogRow, NoticeRow
from app.queries.filters import NoticeFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select, SQLColumnExpression

    from app.models import ApiTokenRow

Statement = TypeVar("Statement", bound="Select[*tuple[Any, ...]]")

TEST_EVENT: Final = "webhook.test"

ACKNOWLEDGED: Final = "acknowledgement.received"
ERASED: Final = "notice.erased"
_AFTERWARDS: Final = frozenset({"notice.withdrawn", "notice.recalled"})
"""Told of a notice whose newest body this State does not hold; the gate then judges the last body it did hold."""

_SHOWN: Final = frozenset({"current", "stale"})

Cause: Final = aliased(EntryRow, name="cause")  # the leaf that caused the event
Acked: Final = aliased(EntryRow, name="acked")  # the leaf that an acknowledgement acknowledges


def token_principal(token: ApiTokenRow, state: str) -> Principal:
    """Whoever holds this token, as the gate sees them."""
    return Principal("token", state, token.ceiling, frozenset(token.scopes.split()), token.id)


def why_token_ended(token: ApiTokenRow, now: int) -> str | None:
    """Why nothing more may be sent under this token, or None. `now` in unix ms."""
    if token.revoked_at is not None:
        return "The token of this subscription was revoked."
    if token.expires_at <= now:
        return "The token of this subscription has expired."
    if "subscribe" not in token.scopes.split():
        return "The token of this subscription lost the scope 'subscribe'."
    return None


def selects(filters: object, principal: Principal, now: int) -> list[ColumnElement[bool]]:
    """What a notice must satisfy to be selected by a subscription's stored filter, the gate included.

    Unlike a list, an alert is about notices of any status, unless the filter names one. `now` in unix ms.

    Raises:
        InvalidFilter: this version does not know the filter.
    """
    wanted = NoticeFilter.from_json(filters)
    return wanted.conditions(principal, now, any_status="status" not in wanted.to_json())


def with_notice(statement: Statement) -> Statement:
    """Join to `events` the leaf that caused each, and the notice it concerns: its own, or the acknowledged one.

    `statement` selects from `events` already. Whatever narrows it must be joined before: SQLite keeps the order of outer
    joins, and would read all of `events` first.
    """
    return (
        statement.outerjoin(LogRow, LogRow.id == EventRow.log_id)
        .outerjoin(Cause, and_(Cause.log_id == EventRow.log_id, Cause.idx == EventRow.idx))
        .outerjoin(
            Acked,
            and_(
                EventRow.type == ACKNOWLEDGED,
                Acked.leaf_hash == Cause.ref,
                Acked.fault_code.is_(None),
                Acked.root_idx.is_not(None),
            ),
        )
        .outerjoin(
            NoticeRow,
            and_(
                NoticeRow.log_id == func.coalesce(Acked.log_id, EventRow.log_id),
                NoticeRow.idx == func.coalesce(Acked.root_idx, EventRow.root_idx),
            ),
        )
    )


def told_before(
    subscription_id: str | SQLColumnExpression[str], *, in_hand: Sequence[str] | None = None
) -> ColumnElement[bool]:
    """Whether an earlier event of the same notice went, or is to go, to the subscription.

    Args:
        subscription_id: its id, or the column of the outer statement's `deliveries` that holds it.
        in_hand: ids of deliveries claimed just now. Given, only what was really attempted before counts, and the attempt
            that is about to be made does not.
    """
    event, sent = aliased(EventRow, name="earlier"), aliased(DeliveryRow, name="sent")
    condition = and_(
        event.live,
        event.log_id == EventRow.log_id,
        event.root_idx == EventRow.root_idx,
        event.seq < EventRow.seq,
        sent.subscription_id == subscription_id,
        sent.event_seq == event.seq,
        sent.state != "dropped",
    )
    if in_hand is not None:
        condition = and_(condition, or_(sent.attempts > 1, and_(sent.attempts > 0, sent.id.not_in(in_hand))))
    return exists(select(true()).select_from(event).where(condition).correlate(EventRow, DeliveryRow))


def may_be_told(
    principal: Principal,
    *,
    event_type: str,
    seen: bool | None,
    told: bool,
    content_state: str | None,
    log_state: str,
    cause_rank: int | None,
    cause_audience: str | None,
) -> bool:
    """The gate for one event.

    Args:
        seen: what `gate.visible` says of the notice; None if this node has no such notice.
        told: see `told_before`.
        content_state: of the notice.
        log_state: State whose log carries the leaf that caused the event.
        cause_rank: TLP rank of the acknowledgement; only for that event type.
        cause_audience: audience of the acknowledgement, as `entries` stores it.
    """
    if event_type == ERASED:
        return told
    if not seen:
        return False
    if event_type == ACKNOWLEDGED:
        return cause_rank is not None and may_read(
            principal, issuer=log_state, tlp_rank=cause_rank, audience=cause_audience
        )
    return event_type in _AFTERWARDS or content_state in _SHOWN
