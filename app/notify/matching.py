"""Which events a subscriber is told of: its token, its filter, and the gate, in one SQL statement.

The rules:

* a token that is expired, revoked or without the scope `subscribe` is told nothing more;
* the gate (`app.gate`) decides on the notice as it stands now, when the event is fanned out and again when it is sent;
* the filter selects notices by what `GET /v1/notices` calls them, whatever their status unless the filter names one;
* whoever was told of a notice is told what becomes of it, also when an amendment took it out of the filter;
* `notice.erased` goes to those who were told before: nothing is left that a filter could match. Where the delivery log does
  not reach back to the notice, it goes to all who could read it;
* whoever was told of a notice that they may no longer see is told so once, by a `notice.recalled` that names it and says
  nothing else (ADR on recalls): `GET` would answer that there is none, and acting on the old copy is the harm.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import and_, func
from sqlalchemy.orm import aliased

from app.domain.errors import InvalidFilter
from app.domain.events import EVENT_TYPES, WITHOUT_NOTICE
from app.gate import Principal, may_read
from app.models import EntryRow, EventRow, LogRow, NoticeRow
from app.queries.filters import NoticeFilter

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from app.models import ApiTokenRow, SubscriptionRow

Statement = TypeVar("Statement", bound="Select[*tuple[Any, ...]]")

TEST_EVENT: Final = "webhook.test"
BY_DEFAULT: Final[frozenset[str]] = frozenset(EVENT_TYPES) - WITHOUT_NOTICE
"""What a subscription that names no types is told: everything about notices. What concerns none has to be named."""

MAX_WATCHLISTS: Final = 20
_WATCHLIST: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

MATCHED: Final = "watchlist.matched"
ISSUED: Final = "notice.issued"
RECALLED: Final = "notice.recalled"
ERASED: Final = "notice.erased"
ACKNOWLEDGED: Final = "acknowledgement.received"
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


def read_filter(value: object) -> tuple[NoticeFilter, tuple[str, ...]]:
    """A subscription's filter: parameters over notices, and the watch-lists it names.

    Raises:
        InvalidFilter: see `NoticeFilter.from_json`; or a watch-list's id is none.
    """
    if not isinstance(value, dict) or "watchlist" not in value:
        return NoticeFilter.from_json(value), ()
    named = value["watchlist"]
    lists = named if isinstance(named, list) else [named]
    if not 1 <= len(lists) <= MAX_WATCHLISTS or not all(
        isinstance(one, str) and _WATCHLIST.fullmatch(one) for one in lists
    ):
        raise InvalidFilter(f"watchlist: give the ids of 1 to {MAX_WATCHLISTS} watch-lists of this token.")
    rest = {name: given for name, given in value.items() if name != "watchlist"}
    return NoticeFilter.from_json(rest), tuple(sorted(set(lists)))


def filter_json(filters: NoticeFilter, watchlists: tuple[str, ...]) -> dict[str, list[str]]:
    """The canonical form that `read_filter` reads."""
    return filters.to_json() | ({"watchlist": list(watchlists)} if watchlists else {})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscription asks for; equal for all that ask alike.

    Attributes:
        types: of events; empty is all that are about notices.
        filters: over notices.
        watchlists: ids of saved lists. Given, only their matches are told, and what becomes of those notices.
    """

    types: frozenset[str]
    filters: NoticeFilter
    watchlists: frozenset[str] = frozenset()

    @classmethod
    def of(cls, row: SubscriptionRow) -> Wanted:
        """Read a subscription.

        Raises:
            InvalidFilter: this version does not know the filter.
        """
        filters, watchlists = read_filter(json.loads(row.filter))
        return cls(frozenset(json.loads(row.event_types)), filters, frozenset(watchlists))

    def wants_match(self, watchlist: str | None) -> bool:
        """Whether an event of this list's (None: of no list's) may be selected by its own right."""
        return not self.watchlists or watchlist in self.watchlists

    def takes(self, event_type: str) -> bool:
        """Whether events of this type are asked for."""
        return event_type in (self.types or BY_DEFAULT)

    def conditions(self, principal: Principal, now: int) -> list[ColumnElement[bool]]:
        """What a notice must satisfy to be selected, the gate included.

        Unlike a list, an alert is about notices of any status, unless the filter names one. `now` in unix ms.
        """
        names = {name for name, _ in self.filters.values}
        return self.filters.conditions(principal, now, any_status="status" not in names)


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


def could_read(principal: Principal, state: str | None, tlp_rank: int | None, audience: str | None) -> bool:
    """Whether a version of a notice of `state` was this caller's to read, by the handling it had; None: that is not known."""
    return tlp_rank is not None and may_read(
        principal, issuer=state or "", tlp_rank=tlp_rank, audience=audience
    )


def may_be_told(
    principal: Principal,
    *,
    event_type: str,
    seen: bool | None,
    told: bool = False,
    content_state: str | None,
    log_state: str | None,
    cause_rank: int | None,
    cause_audience: str | None,
) -> bool:
    """The gate for one event: whether it may be told by its own right. Whose private it is, `gate.event_visible` says.

    Args:
        seen: what `gate.visible` says of the notice; None if this node has no such notice.
        told: whether the caller was told of the notice before; only for an erasure.
        content_state: of the notice.
        log_state: State whose log carries the leaf that caused the event.
        cause_rank: TLP rank of the acknowledgement; only for that event type.
        cause_audience: audience of the acknowledgement, as `entries` stores it.
    """
    if event_type in WITHOUT_NOTICE:
        return True
    if event_type == ERASED:
        return told
    if not seen:
        return False
    if event_type == ACKNOWLEDGED:
        return cause_rank is not None and may_read(
            principal, issuer=log_state or "", tlp_rank=cause_rank, audience=cause_audience
        )
    return event_type in _AFTERWARDS or content_state in _SHOWN
