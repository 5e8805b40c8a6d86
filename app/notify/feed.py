"""The feed: the outbox in its order, from any place in it, for whoever asks, through the gate as it stands now.

Guarantees: a reader that goes on from the cursor it was given meets every event that it may see, once, in order. None is
skipped because it committed late (`app.events`). A place that this node cannot vouch for, since what followed it was
pruned or the database was restored from an older copy, is answered `resync-needed`, never silently moved. A cursor says
nothing: it is sealed, so that nobody reads from it how many events there are that are not for them.
Leaves to others: waiting and sharing (`app.notify.hub`), and the wire (`app.routers.feed`).

A reader without memory is told a little more than the notice itself allows, never more than it could read before: that a
notice it could read was erased, or has a newer version above what it may see (`notice.recalled`, the id and nothing else).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, false, func, not_, or_, select
from sqlalchemy.orm import aliased

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidCursor, Malformed, Refused, UnsafeKeyFile
from app.events import COUNTER
from app.gate import event_visible, may_see_event, visible
from app.models import CounterRow, EntryRow, EventRow, NoticeRow
from app.notify import matching, payload
from app.notify.matching import Cause
from app.notify.payload import rfc3339
from app.queries.filters import SHOWN, NoticeFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.notify.payload import Told
    from app.notify.setup import WebhookSetup

SCANNED: Final = 2_000
"""Events that one look passes over at most: a reader who may see few of them must not hold the database for the rest."""

PRUNED: Final = "events.pruned"
PRUNED_CHECK: Final = "events.pruned.check"
"""Counters: the newest event that is forgotten, and its check."""

RECALLED: Final = "notice.recalled"
AMENDED: Final = "notice.amended"

_CURSOR: Final = struct.Struct(">QQ")
_SEALED_FOR: Final = "feed-cursor"

Before: Final = aliased(EntryRow, name="before")
"""The version that the leaf of an event replaced."""


class ResyncNeeded(Refused):
    """What followed the cursor is not there any more, or never was: go over the notices anew, then follow from now."""

    code = "resync-needed"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the outbox: just after the event `seq`. `check` tells whether that event is still the same one."""

    seq: int
    check: int


START: Final = Position(0, 0)


@dataclass(frozen=True, slots=True)
class View:
    """What is asked, by whom. All who see alike and ask alike have equal views, and share a look.

    Attributes:
        principal: without its id; see `shared`.
        filters: over notices.
        types: of events; empty is all.
        live_only: leave out the history that first catch-ups brought.
        owner: id of a token whose private events are asked for, and nothing else; None: all but private events.
    """

    principal: Principal
    filters: NoticeFilter = field(default_factory=NoticeFilter)
    types: frozenset[str] = frozenset()
    live_only: bool = False
    owner: str | None = None

    @classmethod
    def shared(
        cls, principal: Principal, filters: NoticeFilter, types: frozenset[str], *, live_only: bool
    ) -> View:
        """The view for everybody who sees what `principal` sees."""
        return cls(replace(principal, id=None), filters, types, live_only)

    def private(self, owner: str) -> View:
        """The view of the same caller's private events."""
        return replace(self, principal=replace(self.principal, id=owner), owner=owner)


@dataclass(frozen=True, slots=True)
class Item:
    """One event as it is told.

    Attributes:
        position: just after it.
        json: the members of the object but the cursor: `id`, `type`, `timestamp`, `live`, `data`.
    """

    position: Position
    type: str
    json: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """What a look found.

    Attributes:
        items: in order.
        upto: everything up to here was looked at.
        private: there are private events in it, of whomever; they are looked for by `View.private`.
    """

    items: tuple[Item, ...]
    upto: Position
    private: bool = False


# ── places ────────────────────────────────────────────────────────────────────────────────────────────────────────


def newest_seq(session: Session) -> int:
    """Number of the newest event that is committed, 0 if there never was one."""
    return session.scalar(select(CounterRow.value).where(CounterRow.name == COUNTER)) or 0


def position_at(session: Session, seq: int) -> Position:
    """The place just after event `seq`.

    Raises:
        ResyncNeeded: there is no such event any more, or yet.
    """
    pruned = _pruned(session)
    if seq == pruned.seq:
        return pruned
    row = session.execute(
        select(EventRow.seq, EventRow.at, EventRow.type, EventRow.log_id, EventRow.idx).where(
            EventRow.seq == seq
        )
    ).one_or_none()
    if row is None or seq < pruned.seq:
        raise ResyncNeeded(_RESYNC)
    return _position(row)


def oldest(session: Session) -> Position:
    """Before the oldest event that is kept."""
    return _pruned(session)


def check(session: Session, position: Position) -> None:
    """Check that a place is one of this outbox.

    Raises:
        ResyncNeeded: what followed it is pruned; or the database is an older copy, in which the number means another event.
    """
    if position_at(session, position.seq) != position:
        raise ResyncNeeded(_RESYNC)


_RESYNC: Final = (
    "This node cannot go on from this cursor without leaving something out: what followed it is no longer kept, or the node "
    "was restored from an older copy. Take a new cursor with cursor=newest, then read GET /v1/notices anew, then follow."
)


def _pruned(session: Session) -> Position:
    rows = session.execute(
        select(CounterRow.name, CounterRow.value).where(CounterRow.name.in_((PRUNED, PRUNED_CHECK)))
    )
    values = {name: value for name, value in rows}  # noqa: C416 - a row is a tuple only to the eye
    return Position(values.get(PRUNED, 0), values.get(PRUNED_CHECK, 0))


def _position(row: Any) -> Position:  # noqa: ANN401 - a row with seq, at, type, log_id, idx
    facts = orjson.dumps([row.seq, row.at, row.type, row.log_id, row.idx])
    return Position(row.seq, int.from_bytes(sha256(facts).digest()[:6]))


def cursor_of(setup: WebhookSetup, position: Position) -> str:
    """The text of a place; another one each time."""
    return b64u_encode(setup.keys.seal(_CURSOR.pack(position.seq, position.check), _SEALED_FOR))


def read_cursor(setup: WebhookSetup, text: str) -> Position:
    """The place that a cursor stands for.

    Raises:
        InvalidCursor: this node did not make it, or made it under a key that is lost.
    """
    try:
        return Position(*_CURSOR.unpack(setup.keys.unseal(b64u_decode(text), _SEALED_FOR)))
    except (Malformed, UnsafeKeyFile, struct.error) as error:
        raise InvalidCursor(
            "This is not a cursor of this node's feed. Pass `next`, or the cursor of an item, exactly as it was given."
        ) from error


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def look(
    session: Session, setup: WebhookSetup, view: View, after: Position, upto: int, *, limit: int, now: int
) -> Span:
    """The events after a place, up to the event `upto`, `SCANNED` events or `limit` items, whichever comes first.

    Args:
        now: unix ms, for what is expired.

    Raises:
        ResyncNeeded: what followed `after` was pruned meanwhile.
    """
    if after.seq < _pruned(session).seq:
        raise ResyncNeeded(_RESYNC)
    end = min(upto, after.seq + SCANNED)
    rows = session.execute(
        matching.with_notice(select(*_columns(view.principal, now)).select_from(EventRow))
        .outerjoin(
            Before,
            and_(
                EventRow.type == AMENDED,
                Before.log_id == EventRow.log_id,
                Before.root_idx == EventRow.root_idx,
                Before.version == Cause.version - 1,
                Before.fault_code.is_(None),
            ),
        )
        .where(EventRow.seq > after.seq, EventRow.seq <= end, *_asked(view, now))
        .order_by(EventRow.seq)
        .limit(limit)
    ).all()
    upto_here = _position(rows[-1]) if len(rows) == limit else position_at(session, end)
    private = (
        view.owner is None
        and session.scalar(
            select(EventRow.seq)
            .where(EventRow.owner.is_not(None), EventRow.seq > after.seq, EventRow.seq <= upto_here.seq)
            .limit(1)
        )
        is not None
    )
    items = [_item(setup, view, row) for row in rows]
    return Span(tuple(item for item in items if item is not None), upto_here, private)


def merged(shared: Span, private: Span) -> Span:
    """Both kinds of events of one caller, in order, as far as both were looked at."""
    upto = min(shared.upto, private.upto, key=lambda position: position.seq)
    items = sorted((*shared.items, *private.items), key=lambda item: item.position.seq)
    return Span(tuple(item for item in items if item.position.seq <= upto.seq), upto)


def _columns(principal: Principal, now: int) -> Sequence[Any]:
    return (
        *payload.columns(now),
        EventRow.log_id,
        EventRow.root_idx,
        EventRow.live,
        EventRow.owner,
        EventRow.tlp_rank.label("event_rank"),
        EventRow.audience.label("event_audience"),
        Cause.tlp_rank.label("cause_rank"),
        Cause.audience.label("cause_audience"),
        Before.tlp_rank.label("before_rank"),
        Before.audience.label("before_audience"),
        NoticeRow.content_state,
        visible(principal).label("seen"),
    )


def _asked(view: View, now: int) -> list[ColumnElement[bool]]:
    """What narrows the events by index and statement; `_item` then decides on each, and may still leave one out."""
    conditions: list[ColumnElement[bool]] = [
        EventRow.owner.is_(None) if view.owner is None else EventRow.owner == view.owner,
        event_visible(view.principal),
    ]
    if view.live_only:
        conditions.append(and_(EventRow.live))
    if view.types:
        wanted = set(view.types)
        if RECALLED in wanted:
            wanted.add(AMENDED)  # which may turn out to be one; see `_item`
        conditions.append(EventRow.type.in_(wanted))
    matches = and_(
        visible(view.principal),
        NoticeRow.content_state.in_((*SHOWN, "recalled")),
        *view.filters.named(now),
    )
    taken_away = or_(
        EventRow.type == matching.ERASED,
        and_(EventRow.type == AMENDED, not_(func.coalesce(visible(view.principal), false()))),
    )
    of_the_node = EventRow.idx.is_(None)
    conditions.append(or_(matches, taken_away, of_the_node))
    return conditions


def _item(setup: WebhookSetup, view: View, row: Row[Any]) -> Item | None:
    """One event as the caller may be told it, or None."""
    told = _told(view.principal, row)
    if told is None or (view.types and told.event_type not in view.types):
        return None
    position = _position(row)
    json = orjson.dumps(
        {
            "id": _id(row),
            "type": told.event_type,
            "timestamp": rfc3339(row.at),
            "live": row.live,
            "data": told.data(setup.public_url),
        }
    )
    return Item(position, told.event_type, json)


def _id(row: Row[Any]) -> str:
    """The same for one event whoever asks and whenever; made of nothing but what the event tells."""
    facts = [row.type, row.origin, row.idx, row.root_idx, row.at, row.detail, row.owner]
    return b64u_encode(sha256(orjson.dumps(facts)).digest()[:16])


def _told(principal: Principal, row: Row[Any]) -> Told | None:
    """What an event says to this caller; None: it is not told."""
    if not may_see_event(principal, owner=row.owner, of_notice=row.idx is not None):
        return None
    if row.idx is None:
        return payload.told(row)
    if row.notice_id is None:
        return None
    if row.type == matching.ERASED:
        known = matching.could_read(principal, row.state, row.event_rank, row.event_audience)
        return payload.told(row) if known else None
    if row.seen and _is_shown(principal, row):
        return payload.told(row)
    replaced = (
        row.type == AMENDED
        and not row.seen
        and row.status != "erased"
        and matching.could_read(principal, row.state, row.before_rank, row.before_audience)
    )
    return payload.recall(row) if replaced else None


def _is_shown(principal: Principal, row: Row[Any]) -> bool:
    return matching.may_be_told(
        principal,
        event_type=row.type,
        seen=row.seen,
        told=False,
        content_state=row.content_state,
        log_state=row.state,
        cause_rank=row.cause_rank,
        cause_audience=row.cause_audience,
    )
