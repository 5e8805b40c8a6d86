"""Fan-out: rows of `events` become one row of `deliveries` for each subscription that is to be told.

One transaction takes every subscription that is behind over one run of events: the new rows and the places in the outbox
move together, so a crash repeats nothing and skips nothing. Subscriptions that see alike and ask alike are answered by one
statement. Workers never fan out one subscription at a time (its row is locked), and if they did the unique key on
(subscription, event) would keep the rows single.

A subscription with so many deliveries waiting that more would only fill the table (`MAX_PENDING`) stays where it is: its
place in the outbox is its backlog, and costs nothing.

A worker that has room for an endpoint takes the rows with it as it makes them (`Room`): they are leased from the start, as a
claim would lease them, and need none. It makes no more than the quickest takes: what it made for nobody would have to be
claimed, which costs as much again, and what stays in the outbox costs nothing. But when something urgent stands further on,
whole runs are made until it is found, since it goes before what waits.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, exists, func, select, text, true
from sqlalchemy.orm import aliased

from app.db import execute, fetch
from app.domain.errors import InvalidFilter
from app.domain.events import URGENT, WITHOUT_NOTICE
from app.gate import event_visible, visible
from app.models import ApiTokenRow, DeliveryRow, EventRow, LogRow, NoticeRow, SubscriptionRow
from app.models.service import PENDING, URGENT_EVENT
from app.notify import claims, health, matching
from app.notify.claims import Claimed
from app.notify.matching import Cause, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.gate import Principal
    from app.notify.claims import Busy
    from app.notify.setup import WebhookSetup

EVENTS_PER_RUN: Final = 500
SUBSCRIPTIONS_PER_STEP: Final = 1_000
ROWS_PER_STEP: Final = 20_000
"""Deliveries made in one transaction, about: a run gets shorter when many subscriptions take part in it."""

MAX_PENDING: Final = 100_000
"""Deliveries that wait for one subscription before its place in the outbox stands still. Nothing is lost by it."""


def new_id(at_ms: int) -> str:
    """A UUIDv7 (RFC 9562): ids made later sort later, so that indexes grow at one end. It has no full stop in it."""
    (made,) = new_ids(at_ms, 1)
    return made


def new_ids(at_ms: int, count: int) -> list[str]:
    """Many of them, made at one moment."""
    time = f"{at_ms & (1 << 48) - 1:012x}"
    start = f"{time[:8]}-{time[8:]}-7"
    chance = secrets.token_hex(10 * count)
    return [
        f"{start}{chance[n : n + 3]}-{'89ab'[int(chance[n + 3], 16) & 3]}{chance[n + 4 : n + 7]}-{chance[n + 7 : n + 19]}"
        for n in range(0, 20 * count, 20)
    ]


_NEWEST: Final = select(func.max(EventRow.__table__.c.seq))
_SUBSCRIPTIONS: Final = SubscriptionRow.__table__.c
_ANYBODY: Final = select(_SUBSCRIPTIONS.id).where(_SUBSCRIPTIONS.status == "active").limit(1)
_BEHIND: Final = (
    select(_SUBSCRIPTIONS.fanned_seq)
    .where(_SUBSCRIPTIONS.status == "active", _SUBSCRIPTIONS.fanned_seq < bindparam("newest"))
    .distinct()
)


_DUE: Final = DeliveryRow.__table__.c
_SOMETHING_DUE: Final = select(_SUBSCRIPTIONS.id).where(
    _SUBSCRIPTIONS.status == "active",
    _SUBSCRIPTIONS.failures == 0,
    exists().where(
        _DUE.subscription_id == _SUBSCRIPTIONS.id,
        _DUE.state == PENDING,
        _DUE.due_at <= bindparam("now"),
        _DUE.leased_until <= bindparam("now"),
    ),
)


_NOTHING_WAITS: Final = (
    select(_SUBSCRIPTIONS.id)
    .where(
        _SUBSCRIPTIONS.status == "active",
        _SUBSCRIPTIONS.fanned_seq < select(func.max(EventRow.__table__.c.seq)).scalar_subquery(),
        ~exists().where(
            _DUE.subscription_id == _SUBSCRIPTIONS.id,
            _DUE.state == PENDING,
            _DUE.due_at <= bindparam("now"),
        ),
    )
    .limit(1)
)
"""One that is behind and has nothing due, leased or not: a claim that came for it would find nothing to try it with."""

_URGENT_BEYOND: Final = (
    select(EventRow.__table__.c.seq)
    .where(EventRow.__table__.c.seq > bindparam("after"), text(URGENT_EVENT))
    .limit(1)
)


def newest_event(session: Session) -> int:
    """Number of the newest event, 0 if there is none. Everything below it is visible too (`Database.next_values`)."""
    return execute(session, _NEWEST).scalar_one() or 0


def has_subscriber(session: Session) -> bool:
    """Whether anybody is to be told of events."""
    return bool(fetch(session, _ANYBODY))


@dataclass(slots=True)
class Room:
    """What a worker can take of what a step makes, and what it took.

    Attributes:
        left: deliveries in all.
        busy: what it has of each endpoint already.
        claimed: what it took. The rows are leased once the step's transaction is committed, not before: when the step
            raises, they count for nothing.
        enough: every endpoint that had room has what it had room for. There is no hurry to look again.
    """

    left: int
    busy: Mapping[str, Busy]
    claimed: list[Claimed] = field(default_factory=list)
    enough: bool = False

    def wanted(self, row: SubscriptionRow) -> int:
        """How many of one endpoint are to be made for it; not above 0: none."""
        return claims.room(row.max_in_flight, self.busy.get(row.id))

    def most(self, row: SubscriptionRow) -> int:
        """How many of one endpoint it takes if they are made anyway; not above 0: none."""
        return claims.most(row.max_in_flight, self.busy.get(row.id))


def fan_out_step(
    db: Database,
    clock: Clock,
    setup: WebhookSetup,
    *,
    events_per_run: int = EVENTS_PER_RUN,
    max_pending: int = MAX_PENDING,
    room: Room | None = None,
) -> int:
    """Take every active subscription one run of events further.

    Those close to the newest event go first, together; whoever is far behind (resumed after a month) has a run of its own
    afterwards and holds nobody up.

    Args:
        room: of the worker that asks: it takes what it has room for with it.

    Returns:
        How many events were looked at; 0 when every subscription is up to date or waits for its endpoint.
    """
    with db.read() as session:  # most looks find nothing, and must not queue behind the writer
        newest = newest_event(session)
        behind = sorted(execute(session, _BEHIND, newest=newest).scalars())
    if not behind:
        return 0
    lowest, highest = behind[0], behind[-1]
    looked_at = _run(
        db, clock(), setup, max(lowest, highest - events_per_run), events_per_run, max_pending, room
    )
    if lowest < highest - events_per_run:
        looked_at += _run(db, clock(), setup, lowest, events_per_run, max_pending, far=True)
        if room is not None:
            room.enough = False  # for who is far behind
    return looked_at


def _run(
    db: Database,
    now: int,
    setup: WebhookSetup,
    after: int,
    events_per_run: int,
    max_pending: int,
    room: Room | None = None,
    *,
    far: bool = False,
) -> int:
    """One transaction: the subscriptions at `after` or beyond (`far`: exactly the one that is furthest behind)."""
    made = _Made()
    with db.write() as session:
        taking = _lock(db, session, after, now, max_pending, far=far)
        if not taking:
            return 0
        after = min(one.row.fanned_seq for one in taking)
        shares = _Shares({}, {}) if room is None else _shares(session, setup, taking, room, now)
        ahead = room is None or execute(session, _URGENT_BEYOND, after=after).first() is not None
        if not ahead and not shares.wanted and execute(session, _NOTHING_WAITS, now=now).first() is None:
            return 0
        events = max(1, min(events_per_run, ROWS_PER_STEP // len(taking)))
        live, last = _next_live(session, after, events)
        if last == after:
            return 0
        taking = [one for one in taking if one.row.fanned_seq < last]
        if live:
            made = _make(db, session, setup, taking, last, now, shares, whole=ahead)
            last = made.last
        for one in taking:
            one.row.fanned_seq = max(one.row.fanned_seq, last)
    if room is not None:
        room.claimed += made.claimed
        room.left -= len(made.claimed)
        room.enough = made.enough
    return last - after


class _Shares(NamedTuple):
    """How many of its new rows a worker takes of each subscription as they are made.

    Attributes:
        wanted: so many are to be made.
        most: and so many are taken, if more are made since another wants them; no less than `wanted`.
    """

    wanted: Mapping[str, int]
    most: Mapping[str, int]


def _shares(
    session: Session, setup: WebhookSetup, taking: Sequence[_Taking], room: Room, now: int
) -> _Shares:
    """None where older ones wait that could be sent, and where a claim has more to decide than how many: an endpoint that fails
    or rests, one with an order or a rate.
    """
    rows = {
        one.row.id: one.row
        for one in taking
        if one.row.not_before <= now
        and setup.may_send_to(one.row)
        and not (one.row.ordered or one.row.failures or one.row.per_minute is not None)
        and room.most(one.row) > 0
    }
    if rows:
        for id_ in execute(session, _SOMETHING_DUE, now=now).scalars():
            rows.pop(id_, None)
    wants = {id_: room.wanted(row) for id_, row in rows.items()}
    wanted = claims.spread({id_: n for id_, n in wants.items() if n > 0}, room.left)
    if not wanted:
        return _Shares({}, {})
    left = room.left - sum(wanted.values())
    more = claims.spread({id_: room.most(row) - wanted.get(id_, 0) for id_, row in rows.items()}, left)
    return _Shares(wanted, {id_: wanted.get(id_, 0) + more.get(id_, 0) for id_ in rows})


@dataclass(frozen=True, slots=True)
class _Taking:
    """A subscription of this run: its row, locked, and what it wants."""

    row: SubscriptionRow
    token: ApiTokenRow
    wanted: Wanted


def _lock(
    db: Database, session: Session, after: int, now: int, max_pending: int, *, far: bool
) -> list[_Taking]:
    rows = session.execute(
        select(SubscriptionRow, ApiTokenRow)
        .join(ApiTokenRow, ApiTokenRow.id == SubscriptionRow.token_id)
        .where(
            SubscriptionRow.status == "active",
            SubscriptionRow.fanned_seq >= after,
            SubscriptionRow.fanned_seq < select(func.max(EventRow.seq)).scalar_subquery(),
        )
        .order_by(SubscriptionRow.fanned_seq, SubscriptionRow.id)
        .limit(1 if far else SUBSCRIPTIONS_PER_STEP)
        .with_for_update(of=SubscriptionRow, **db.skip_locked())
    ).all()
    taking: list[_Taking] = []
    for row, token in rows:
        if (ended := matching.why_token_ended(token, now)) is not None:
            health.disable(db, session, row, ended, now)
            continue
        try:
            wanted = Wanted.of(row)
        except InvalidFilter as error:  # an older version took it; it must not hold up the others
            why = f"Its filter is not understood any more: {error}"[:500]
            health.disable(db, session, row, why, now)
            continue
        if row.failing_since is not None and _pending(session, row.id, max_pending) >= max_pending:
            continue
        taking.append(_Taking(row, token, wanted))
    return taking


def _pending(session: Session, subscription_id: str, most: int) -> int:
    """How many deliveries wait for a subscription; counted no further than `most`."""
    some = (
        select(DeliveryRow.id)
        .where(DeliveryRow.subscription_id == subscription_id, DeliveryRow.state == PENDING)
        .limit(most)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(some)) or 0


def _next_live(session: Session, after: int, most: int) -> tuple[bool, int]:
    """Whether live events follow `after`, and the number up to which a run of `most` of them goes.

    History that a first catch-up brought is passed over in one go: nobody is alerted of it.
    """
    run = session.scalars(
        select(EventRow.seq).where(EventRow.seq > after, EventRow.live).order_by(EventRow.seq).limit(most)
    ).all()
    if len(run) == most:
        return True, run[-1]
    return bool(run), max(newest_event(session), after)


# ── one run ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Event:
    """A live event as the callers of one kind see it."""

    seq: int
    type: str
    notice: tuple[int, int] | None
    may: bool  # be told by its own right
    known: bool  # may be told to whoever was told of the notice before
    erased: int | None = (
        None  # of an erasure of what they could read: since when this node had the notice, unix ms
    )
    watchlist: str | None = None  # whose match it is


@dataclass(frozen=True, slots=True)
class _Made:
    """What came of a run.

    Attributes:
        last: number of the event up to which it went.
        claimed: of the new rows, those that are leased from the start.
        enough: every endpoint that had room has what it had room for.
    """

    last: int = 0
    claimed: list[Claimed] = field(default_factory=list)
    enough: bool = False


def _make(
    db: Database,
    session: Session,
    setup: WebhookSetup,
    taking: Sequence[_Taking],
    last: int,
    now: int,
    shares: _Shares,
    *,
    whole: bool,
) -> _Made:
    """Insert the deliveries of one run.

    Args:
        shares: how many of each subscription's are leased from the start.
        whole: go through all of the run; otherwise only to where everybody has what is wanted.
    """
    after = min(one.row.fanned_seq for one in taking)
    alike: dict[tuple[Principal, Wanted], list[_Taking]] = defaultdict(list)
    for one in taking:
        alike[(matching.token_principal(one.token, setup.state), one.wanted)].append(one)
    seen: dict[Principal, list[_Event]] = {}
    told: dict[str, set[tuple[int, int]]] | None = None
    kept_since = now - setup.keep_ms
    chosen: list[tuple[_Taking, list[_Event]]] = []
    for (principal, wanted), subscribed in alike.items():
        if principal not in seen:
            seen[principal] = _events(db, session, principal, after, last)
        events = [e for e in seen[principal] if wanted.takes(e.type)]
        if not events:
            continue
        selected = _selected(session, principal, wanted, after, last, now)
        if told is None and any(e.known and e.seq not in selected for e in events):
            told = _told(session, [one.row.id for one in taking], after, last)
        for one in subscribed:
            before = (told or {}).get(one.row.id, set())
            forgotten = kept_since if one.row.created_at < kept_since else 0
            chosen.append(
                (one, list(_chosen(events, wanted, selected, before, one.row.fanned_seq, forgotten)))
            )
    if not whole and shares.wanted:
        last = _where_full(chosen, shares.wanted, last)
    rows: list[tuple[Any, ...]] = []
    claimed: list[Claimed] = []
    full = 0
    for one, these in chosen:
        made = _rows(session, one.row, [event for event in these if event.seq <= last], now)
        if (share := shares.most.get(one.row.id, 0)) > 0:
            made.sort(key=lambda row: row[_LANE])  # what is urgent before the rest
            claimed += [claims.at_birth(row[0], one.row.id, now, row[2], row[3]) for row in made[:share]]
            full += one.row.id in shares.wanted and len(made) >= shares.wanted[one.row.id]
            made[:share] = [
                (*row[:_LEASED_UNTIL], now + claims.LEASE_MS, 1, *row[_LEASED_UNTIL + 2 :])
                for row in made[:share]
            ]
        rows += made
    db.bulk_insert(session, DeliveryRow.__table__, _COLUMNS, rows)
    return _Made(last, claimed, enough=not whole and full == len(shares.wanted))


def _where_full(
    chosen: Sequence[tuple[_Taking, Sequence[_Event]]], shares: Mapping[str, int], last: int
) -> int:
    """Number of the event with which every subscription has its share; `last` if the run is over before."""
    ends = {
        one.row.id: events[share - 1].seq
        for one, events in chosen
        if 0 < (share := shares.get(one.row.id, 0)) <= len(events)
    }
    return max(ends.values()) if len(ends) == len(shares) else last


def _live(_db: Database, principal: Principal) -> Select[*tuple[Any, ...]]:
    statement = matching.with_notice(
        select(
            EventRow.seq,
            EventRow.type,
            EventRow.log_id,
            EventRow.root_idx,
            EventRow.detail,
            visible(principal).label("seen"),
            NoticeRow.content_state,
            LogRow.state,
            Cause.tlp_rank,
            Cause.audience,
            EventRow.tlp_rank.label("erased_rank"),
            EventRow.audience.label("erased_audience"),
            NoticeRow.received_at,
        ).select_from(EventRow)
    ).where(
        EventRow.seq > bindparam("after"),
        EventRow.seq <= bindparam("last"),
        EventRow.live,
        event_visible(principal),
    )
    return statement.order_by(EventRow.seq)


def _events(db: Database, session: Session, principal: Principal, after: int, last: int) -> list[_Event]:
    """The live events of a run, with what the gate says of each for `principal`."""
    found = []
    for row in fetch(session, db.once(_live, principal), after=after, last=last):
        may = matching.may_be_told(
            principal,
            event_type=row.type,
            seen=row.seen,
            content_state=row.content_state,
            log_state=row.state,
            cause_rank=row.tlp_rank,
            cause_audience=row.audience,
        )
        notice = None if row.root_idx is None or row.log_id is None else (row.log_id, row.root_idx)
        known = notice is not None and row.type != matching.ISSUED
        readable = row.type == matching.ERASED and matching.could_read(
            principal, row.state, row.erased_rank, row.erased_audience
        )
        watchlist = json.loads(row.detail or "{}").get("watchlist") if row.type == matching.MATCHED else None
        found.append(
            _Event(row.seq, row.type, notice, may, known, row.received_at if readable else None, watchlist)
        )
    return found


def _selected(
    session: Session, principal: Principal, wanted: Wanted, after: int, last: int, now: int
) -> set[int]:
    """Numbers of the live events of a run whose notice the filter selects."""
    statement = matching.with_notice(select(EventRow.seq).select_from(EventRow)).where(
        EventRow.seq > after, EventRow.seq <= last, EventRow.live, *wanted.conditions(principal, now)
    )
    return set(session.scalars(statement))


def _told(session: Session, ids: Sequence[str], after: int, last: int) -> dict[str, set[tuple[int, int]]]:
    """Of the notices that the run concerns, those that each subscription was told of before, or is to be told of."""
    event, earlier = aliased(EventRow, name="event"), aliased(EventRow, name="earlier")
    notices = (
        select(event.log_id, event.root_idx)
        .where(event.seq > after, event.seq <= last, event.live, event.type != matching.ISSUED)
        .where(event.root_idx.is_not(None))
        .distinct()
        .subquery()
    )
    sent = session.execute(
        select(SubscriptionRow.id, notices.c.log_id, notices.c.root_idx)
        .select_from(notices)
        .join(
            earlier,
            and_(earlier.live, earlier.log_id == notices.c.log_id, earlier.root_idx == notices.c.root_idx),
        )
        .join(SubscriptionRow, true())
        .join(
            DeliveryRow,
            and_(
                DeliveryRow.subscription_id == SubscriptionRow.id,
                DeliveryRow.event_seq == earlier.seq,
                DeliveryRow.state != "dropped",
            ),
        )
        .where(SubscriptionRow.id.in_(ids), earlier.seq <= last)
    )
    told: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for id_, log_id, root in sent:
        told[id_].add((log_id or 0, root or 0))  # never NULL: they join
    return told


def _chosen(
    events: Iterable[_Event],
    wanted: Wanted,
    selected: set[int],
    told: set[tuple[int, int]],
    after: int,
    forgotten: int,
) -> Iterable[_Event]:
    """What one subscription is to be told, in order. Whoever is told of a notice is told what becomes of it.

    Args:
        forgotten: what was told before then (unix ms) is not in the delivery log any more. Of an older notice that is
            erased whoever could read it is told: to tell one too many costs little, a copy that stays is the harm.
    """
    told = set(told)  # a copy: within one run the one follows from the other
    for event in events:
        if event.seq <= after:
            continue
        knows = event.known and (
            event.notice in told or (event.erased is not None and event.erased < forgotten)
        )
        chosen = event.seq in selected and wanted.wants_match(event.watchlist)
        if (event.may and (chosen or event.type in WITHOUT_NOTICE)) or knows:
            if event.notice is not None:
                told.add(event.notice)
            yield event


_COLUMNS: Final = (
    "id", "subscription_id", "event_seq", "number", "lane", "state", "due_at", "leased_until", "attempts", "created_at",
    "recalled",
)  # fmt: skip
_LANE: Final = _COLUMNS.index("lane")
_LEASED_UNTIL: Final = _COLUMNS.index("leased_until")  # and `attempts` after it


def _rows(
    session: Session, row: SubscriptionRow, chosen: Sequence[_Event], now: int
) -> list[tuple[Any, ...]]:
    """New rows for one subscription, numbered on; events that it has a delivery of already are left out."""
    if chosen and row.top_seq >= chosen[0].seq:  # its place in the outbox was set back
        have = set(
            session.scalars(
                select(DeliveryRow.event_seq).where(
                    DeliveryRow.subscription_id == row.id,
                    DeliveryRow.event_seq >= chosen[0].seq,
                    DeliveryRow.event_seq <= chosen[-1].seq,
                )
            )
        )
        chosen = [event for event in chosen if event.seq not in have]
    if not chosen:
        return []
    made = [
        (
            id_, row.id, event.seq, row.told + n,
            0 if event.type in URGENT and not row.ordered else 1,
            "pending", 0 if row.ordered else now, 0, 0, now, False,
        )
        for n, (id_, event) in enumerate(zip(new_ids(now, len(chosen)), chosen, strict=True), 1)
    ]  # fmt: skip
    row.told += len(made)
    row.top_seq = max(row.top_seq, chosen[-1].seq)
    return made
