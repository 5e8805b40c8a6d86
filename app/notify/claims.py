"""From pending rows to bodies ready for signing: a lease on each row, then the gate again.

A claim marks rows with a lease and counts the attempt before it is made. A worker that dies leaves its rows to the next
one when the lease is over; what it may have sent is then sent again under the same `webhook-id`. Claims are taken endpoint
by endpoint, each from the beginning of its own part of one index: the backlog of one never stands before another's, and a
claim costs the same before a thousand waiting rows as before a million.

An endpoint whose last attempt failed has one place until one succeeds, and all such endpoints together have a quarter of
the worker's places: however many hang, the others keep theirs. In an ordered subscription only the first row that waits may
be claimed, with those behind it, and only while no other worker holds it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, and_, bindparam, func, or_, select, true, update
from sqlalchemy.orm import aliased

from app.db import execute, fetch
from app.domain.events import WITHOUT_NOTICE
from app.gate import event_visible, visible
from app.models import ApiTokenRow, DeliveryRow, EventRow, NoticeRow, SubscriptionRow
from app.models.service import PENDING
from app.notify import matching, payload
from app.notify.endpoint import Endpoint
from app.notify.matching import Cause
from app.queries.filters import then

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Select, Update
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Principal
    from app.notify.setup import WebhookSetup

LEASE_MS: Final = 10_000
"""So long a killed worker holds up what it had claimed, and an ordered subscription with it. A worker that lives renews its
leases; one that ends early only costs a duplicate."""

RENEW_MS: Final = 5_000
"""What is being sent when so little is left of its lease is renewed; what still waits for a place goes back."""

PER_SUBSCRIPTION: Final = 4
"""Deliveries in flight to one endpoint from one worker, unless its subscription says otherwise."""

SUSPECTS_SHARE: Final = 4
"""One place in so many may be held by endpoints whose last attempt failed."""

MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Claimed:
    """A row leased to this worker. `attempts` counts the attempt that is about to be made; `renew` moves `leased_until`."""

    id: str
    subscription_id: str
    attempts: int
    leased_until: int
    event_seq: int = 0
    number: int = 0


def at_birth(id_: str, subscription_id: str, now: int, event_seq: int, number: int) -> Claimed:
    """A row that is made with a lease, for its first attempt, at `now` (unix ms)."""
    return Claimed(id_, subscription_id, 1, now + LEASE_MS, event_seq, number)


class Ready(NamedTuple):
    """A delivery that passed the gate just now, with what is needed to sign and send it.

    Attributes:
        recalled: it is sent as a recall without content, whatever its event says.
    """

    claimed: Claimed
    endpoint: Endpoint
    body: bytes
    recalled: bool = False

    def __repr__(self) -> str:
        """Show nothing of the body."""
        return f"Ready(claimed={self.claimed!r}, recalled={self.recalled})"


@dataclass(frozen=True, slots=True)
class Withheld:
    """A delivery that must not be sent: now (`ended`: the token), or ever (the notice is no longer this caller's to see)."""

    claimed: Claimed
    reason: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Busy:
    """What this worker has of one endpoint, and how much may wait there for a place: what it sends of it in a moment."""

    held: int = 0
    ahead: int = 0


AHEAD: Final = 800
"""Rows of one endpoint that may wait in a worker's memory, leased, for a place, however quick it is."""

MADE_ANYWAY: Final = 3
"""So many times what it wants a worker takes of what is made for another endpoint that wants more."""


# ── which endpoints, and how much of each ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An endpoint with something due."""

    id: str
    ordered: bool
    max_in_flight: int
    per_minute: int | None
    failures: int
    lanes: tuple[int, ...] = (0, 1)


def _waiting(require_proof: bool) -> Select[Any]:
    """Active endpoints that have something due and free, the one that waits longest first: two index probes for each."""

    def first(lane: int) -> Any:  # noqa: ANN401 - a scalar subquery
        return (
            select(DeliveryRow.due_at)
            .where(
                DeliveryRow.subscription_id == SubscriptionRow.id,
                DeliveryRow.state == PENDING,
                DeliveryRow.lane == lane,
                DeliveryRow.due_at <= bindparam("now"),
                DeliveryRow.leased_until <= bindparam("now"),
            )
            .order_by(DeliveryRow.due_at, DeliveryRow.event_seq)
            .limit(1)
            .correlate(SubscriptionRow)
            .scalar_subquery()
        )

    proven = SubscriptionRow.verified_at.is_not(None)  # as `WebhookSetup.may_send_to`
    active = (
        select(
            SubscriptionRow.id,
            SubscriptionRow.ordered,
            SubscriptionRow.max_in_flight,
            SubscriptionRow.per_minute,
            SubscriptionRow.failures,
            first(0).label("urgent"),
            first(1).label("oldest"),
        )
        .where(
            SubscriptionRow.status == "active",
            SubscriptionRow.not_before <= bindparam("now"),
            proven if require_proof else or_(proven, SubscriptionRow.payload == "thin"),
        )
        .subquery()
    )
    columns = (
        active.c.id,
        active.c.ordered,
        active.c.max_in_flight,
        active.c.per_minute,
        active.c.failures,
        active.c.urgent,
        active.c.oldest,
    )
    due = func.coalesce(active.c.urgent, active.c.oldest)
    return select(*columns).where(due.is_not(None)).order_by(due, active.c.id)


_WAITING: Final = {False: _waiting(require_proof=False), True: _waiting(require_proof=True)}


def room(places: int, mine: Busy | None) -> int:
    """How many more deliveries a worker wants of an endpoint that is well, by what it has of it; not above 0: none."""
    return places if mine is None else places + min(mine.ahead, AHEAD) - mine.held


def most(places: int, mine: Busy | None) -> int:
    """How many more it takes if they are made anyway: claimed later, they would cost twice as much."""
    return places if mine is None else places + min(MADE_ANYWAY * mine.ahead, AHEAD) - mine.held


def spread(wanted: Mapping[str, int], limit: int) -> dict[str, int]:
    """Give each endpoint what it wants, or its even part of `limit`; those that come first if there are more than that."""
    some = dict(list(wanted.items())[: max(limit, 0)])
    shares: dict[str, int] = {}
    left = limit
    for n, (id_, most) in enumerate(sorted(some.items(), key=lambda item: item[1])):
        shares[id_] = min(most, -(-left // (len(some) - n)))  # of what is left, rounded up
        left -= shares[id_]
    return {id_: shares[id_] for id_ in some if shares[id_] > 0}


def _shares(waiting: Iterable[_Waiting], limit: int, busy: Mapping[str, Busy]) -> dict[str, int]:
    """How many rows of each endpoint may be claimed, `limit` in all, spread evenly."""
    suspects_left = max(1, limit // SUSPECTS_SHARE)
    wanted: dict[str, int] = {}
    for one in waiting:
        mine = busy.get(one.id)
        if one.failures:
            if suspects_left > 0 and (mine is None or mine.held == 0):
                wanted[one.id] = 1
                suspects_left -= 1
            continue
        if one.ordered and mine is not None and mine.held > 0:
            continue  # nothing is free behind what is held: see `_in_order`
        free = room(1 if one.ordered else one.max_in_flight, mine)
        if one.per_minute is not None:
            free = min(free, max(1, one.per_minute // 60))
        if free > 0:
            wanted[one.id] = free
    return spread(wanted, limit)


# ── claiming ──────────────────────────────────────────────────────────────────────────────────────────────────────

_DELIVERIES: Final = DeliveryRow.__table__.c
_OF_ONE: Final = and_(
    _DELIVERIES.subscription_id == bindparam("subscription"),
    _DELIVERIES.state == PENDING,
    _DELIVERIES.lane == bindparam("lane"),
    _DELIVERIES.due_at <= bindparam("now"),
)
_COLUMNS: Final = (_DELIVERIES.id, _DELIVERIES.attempts, _DELIVERIES.event_seq, _DELIVERIES.number)
_IN_TURN: Final = (_DELIVERIES.due_at, _DELIVERIES.event_seq)
_HEAD: Final = (
    select(*_COLUMNS, _DELIVERIES.leased_until).where(_OF_ONE).order_by(*_IN_TURN).limit(bindparam("share"))
)


def _due_of_one(db: Database) -> Select[Any]:
    free = _DELIVERIES.leased_until <= bindparam("now")
    due = select(*_COLUMNS).where(_OF_ONE, free).order_by(*_IN_TURN).limit(bindparam("share"))
    return due.with_for_update(**db.skip_locked())


def _lease(db: Database) -> Update:
    return (
        update(DeliveryRow.__table__)  # type: ignore[arg-type]  # a mapped class's __table__
        .where(db.any_bound(_DELIVERIES.id, "ids"))
        .values(leased_until=bindparam("until"), attempts=_DELIVERIES.attempts + 1)
    )


def claim(
    db: Database,
    now: int,
    limit: int,
    *,
    busy: Mapping[str, Busy] | None = None,
    lease_ms: int = LEASE_MS,
    require_proof: bool = False,
) -> list[Claimed]:
    """Lease up to `limit` due deliveries, spread over the endpoints that have any.

    Args:
        now: unix ms.
        busy: what this worker has of each endpoint already.
        require_proof: leave endpoints out that have not been proven; with full bodies they always are.
    """
    with db.read() as session:  # most looks find nothing, and must not queue behind the writer
        shares = _look(session, now, limit, busy or {}, require_proof)
    if not shares:
        return []
    with db.write() as session:
        return take(db, session, now, shares, lease_ms=lease_ms)


def _look(
    session: Session, now: int, limit: int, busy: Mapping[str, Busy], require_proof: bool
) -> dict[_Waiting, int]:
    rows = fetch(session, _WAITING[require_proof], now=now)
    waiting = [
        _Waiting(
            row.id,
            row.ordered,
            row.max_in_flight,
            row.per_minute,
            row.failures,
            tuple(lane for lane, due in enumerate((row.urgent, row.oldest)) if due is not None),
        )
        for row in rows
    ]
    by_id = {one.id: one for one in waiting}
    return {by_id[id_]: share for id_, share in _shares(waiting, limit, busy).items()}


def take(
    db: Database, session: Session, now: int, shares: Mapping[_Waiting, int], *, lease_ms: int = LEASE_MS
) -> list[Claimed]:
    """Lease rows in the caller's write transaction."""
    claimed: list[Claimed] = []
    # In the order of ids: two workers that lock several endpoints must not wait for each other in a ring.
    for one, share in sorted(shares.items(), key=lambda item: item[0].id):
        rows = _in_order(db, session, one, now, share) if one.ordered else _due(db, session, one, now, share)
        if rows and one.per_minute is not None:
            rests = now + round(len(rows) * MINUTE_MS / one.per_minute)
            _values(session, SubscriptionRow.id == one.id, not_before=rests)
        claimed.extend(
            Claimed(id_, one.id, attempts + 1, now + lease_ms, seq, number)
            for id_, attempts, seq, number in rows
        )
    if claimed:
        ids = db.bound([c.id for c in claimed])
        execute(session, db.once(_lease), ids=ids, until=now + lease_ms)
    return claimed


def renew(db: Database, now: int, held: Iterable[Claimed], *, lease_ms: int = LEASE_MS) -> None:
    """Lengthen leases that this worker still holds. One that ended and was taken by another worker stays as it is there."""
    by_end: dict[int, list[Claimed]] = defaultdict(list)
    for one in held:
        by_end[one.leased_until].append(one)
    with db.write() as session:
        for leased_until, some in by_end.items():
            renewed = set(
                session.scalars(
                    update(DeliveryRow)
                    .where(
                        db.any_of(DeliveryRow.id, [one.id for one in some]),
                        func.coalesce(DeliveryRow.state, "") == PENDING,  # as in `results`: by the ids alone
                        DeliveryRow.leased_until == leased_until,
                    )
                    .values(leased_until=now + lease_ms)
                    .returning(DeliveryRow.id)
                    .execution_options(synchronize_session=False)
                )
            )
            for one in some:
                if one.id in renewed:
                    one.leased_until = now + lease_ms


def _due(db: Database, session: Session, one: _Waiting, now: int, share: int) -> list[Any]:
    """The first rows that are due and free: what is urgent before the rest."""
    due = db.once(_due_of_one)
    found: list[Any] = []
    for lane in one.lanes:
        if share > len(found):
            left = share - len(found)
            found += fetch(session, due, now=now, subscription=one.id, lane=lane, share=left)
    return found


def _in_order(db: Database, session: Session, one: _Waiting, now: int, share: int) -> list[Any]:
    """The first rows of all, if nobody holds them. The subscription's row is the lock: one worker at a time decides."""
    locked = session.scalar(
        select(SubscriptionRow.not_before)
        .where(SubscriptionRow.id == one.id)
        .with_for_update(**db.skip_locked())
    )
    if locked is None or locked > now:
        return []
    rows = fetch(session, _HEAD, now=now, subscription=one.id, lane=1, share=share)
    found = []
    for *row, leased_until in rows:
        if leased_until > now:
            break
        found.append(row)
    return found


def _values(session: Session, where: Any, **values: Any) -> None:  # noqa: ANN401 - an SQL expression
    session.execute(
        update(SubscriptionRow).where(where).values(**values).execution_options(synchronize_session=False)
    )


# ── the gate, and the bodies ──────────────────────────────────────────────────────────────────────────────────────


def prepare(
    db: Database, now: int, setup: WebhookSetup, claimed: Iterable[Claimed]
) -> tuple[list[Ready], list[Withheld]]:
    """Pass claimed deliveries through the gate as it stands now, and make the bodies of those that may go.

    Deliveries whose subscription was deleted meanwhile are in neither list: they are gone.
    """
    with db.read() as session:
        return pass_gate(db, session, now, setup, list(claimed))


def pass_gate(
    db: Database, session: Session, now: int, setup: WebhookSetup, claimed: Sequence[Claimed]
) -> tuple[list[Ready], list[Withheld]]:
    """`prepare`, in the caller's snapshot."""
    ready: list[Ready] = []
    withheld: list[Withheld] = []
    alike: dict[tuple[Principal, bool], list[tuple[Claimed, Endpoint]]] = defaultdict(list)
    owners = _owners(session, {row.subscription_id for row in claimed})
    ended = {id_: matching.why_token_ended(token, now) for id_, (_, token) in owners.items()}
    of_endpoint: dict[str, tuple[Endpoint, list[tuple[Claimed, Endpoint]]]] = {}
    for id_, (subscription, token) in owners.items():
        principal = matching.token_principal(token, setup.state)
        full = subscription.payload == "full" and subscription.verified_at is not None
        of_endpoint[id_] = Endpoint.of(subscription), alike[principal, full]
    for row in claimed:
        if row.subscription_id not in owners:
            continue
        if (reason := ended[row.subscription_id]) is not None:
            withheld.append(Withheld(row, reason, ended=True))
            continue
        endpoint, those_alike = of_endpoint[row.subscription_id]
        those_alike.append((row, endpoint))
    for (principal, full), rows in alike.items():
        _prepare(db, session, principal, setup, rows, now, full, ready, withheld)
    return ready, withheld


def _prepare(
    db: Database,
    session: Session,
    principal: Principal,
    setup: WebhookSetup,
    rows: Sequence[tuple[Claimed, Endpoint]],
    now: int,
    full: bool,
    ready: list[Ready],
    withheld: list[Withheld],
) -> None:
    """One event has one body for all who see alike, but for the number in their subscription."""
    if not rows:
        return
    bodies = told_bodies(db, session, principal, setup, {row.event_seq for row, _ in rows}, now, full=full)
    unclear = [row for row, _ in rows if row.event_seq not in bodies]
    before = _told_before(session, unclear) if unclear else {}
    recalls = _recalls(session, principal, setup, {row.event_seq for row in unclear}, now) if unclear else {}
    for row, endpoint in rows:
        body = bodies.get(row.event_seq)
        if body is not None:
            ready.append(Ready(row, endpoint, payload.numbered(body, row.number)))
            continue
        erased, body, could_read = recalls.get(row.event_seq, (False, b"", False))
        # Whoever knows that it is gone need not be told twice; an erasure is told all the same: it asks for more.
        if body and ((erased and (row.id in before or could_read)) or before.get(row.id) is False):
            ready.append(Ready(row, endpoint, payload.numbered(body, row.number), recalled=not erased))
        else:
            withheld.append(Withheld(row, "The notice is no longer visible to this subscription's token."))


_OWNERS: Final = (
    select(SubscriptionRow, ApiTokenRow)
    .join(ApiTokenRow, ApiTokenRow.id == SubscriptionRow.token_id)
    .where(SubscriptionRow.id.in_(bindparam("ids", expanding=True)))
)


def _owners(session: Session, ids: Iterable[str]) -> dict[str, tuple[SubscriptionRow, ApiTokenRow]]:
    rows = session.execute(_OWNERS, {"ids": sorted(ids)}).all()
    return {subscription.id: (subscription, token) for subscription, token in rows}


def _told_before(session: Session, rows: Sequence[Claimed]) -> dict[str, bool]:
    """Of these deliveries, those whose subscription was really sent an earlier event of the same notice.

    Returns:
        By delivery id: whether the newest of those earlier events was sent as a recall. An attempt that is only about to be
        made is none: what was claimed just now counts from its second attempt on.
    """
    event, earlier, sent = aliased(EventRow), aliased(EventRow), aliased(DeliveryRow)
    in_hand = [row.id for row in rows]
    found = session.execute(
        select(DeliveryRow.id, sent.recalled)
        .join(event, event.seq == DeliveryRow.event_seq)
        .join(
            earlier,
            and_(
                earlier.live,
                earlier.log_id == event.log_id,
                earlier.root_idx == event.root_idx,
                earlier.seq < event.seq,
            ),
        )
        .join(sent, and_(sent.subscription_id == DeliveryRow.subscription_id, sent.event_seq == earlier.seq))
        .where(
            DeliveryRow.id.in_(in_hand),
            sent.state != "dropped",
            or_(sent.attempts > 1, and_(sent.attempts > 0, sent.id.not_in(in_hand))),
        )
        .order_by(earlier.seq)
    )
    return {id_: bool(recalled) for id_, recalled in found}  # the last one of each stays


def _recalls(
    session: Session, principal: Principal, setup: WebhookSetup, seqs: set[int], now: int
) -> dict[int, tuple[bool, bytes, bool]]:
    """What is said of notices that the caller may not see any more.

    Returns:
        By event: whether it is an erasure, the body, and whether the caller could read what was erased.
    """
    handling = (EventRow.tlp_rank.label("event_rank"), EventRow.audience.label("event_audience"))
    rows = session.execute(
        matching.with_notice(select(*payload.columns(now), *handling).select_from(EventRow)).where(
            EventRow.seq.in_(seqs), NoticeRow.id.is_not(None)
        )
    )
    found = {}
    for row in rows:
        erased = row.type == matching.ERASED
        told = payload.told(row) if erased else payload.recall(row)
        could_read = erased and matching.could_read(principal, row.state, row.event_rank, row.event_audience)
        found[row.seq] = erased, told.body(setup.public_url), could_read
    return found


_JUDGED: Final = (
    Cause.tlp_rank.label("cause_rank"),
    Cause.audience.label("cause_audience"),
    NoticeRow.content_state,
)


def _told(db: Database, principal: Principal, *, full: bool) -> Select[Any]:
    document = NoticeRow.document if full else true()
    columns = (*payload.columns(None), *_JUDGED, visible(principal).label("seen"), document.label("document"))
    return matching.with_notice(select(*columns).select_from(EventRow)).where(
        db.any_bound(EventRow.seq, "seqs", BigInteger), event_visible(principal)
    )


def told_bodies(
    db: Database,
    session: Session,
    principal: Principal,
    setup: WebhookSetup,
    seqs: Iterable[int],
    now: int,
    *,
    full: bool = False,
) -> dict[int, bytes]:
    """The bodies, without their number, of those events that may be told to `principal` now (unix ms), by number.

    Args:
        full: with the notice's document, unless that would be too long.
    """
    rows = fetch(session, db.once(_told, principal, full=full), seqs=db.bound(sorted(seqs)), **then(now))
    return {
        row.seq: payload.told(row, row.document if full else None).body(setup.public_url)
        for row in rows
        if (row.notice_id is not None or row.type in WITHOUT_NOTICE)
        and matching.may_be_told(
            principal,
            event_type=row.type,
            seen=row.seen,
            content_state=row.content_state,
            log_state=row.state,
            cause_rank=row.cause_rank,
            cause_audience=row.cause_audience,
        )
    }
