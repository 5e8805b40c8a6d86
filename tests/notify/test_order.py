"""Ordered subscriptions, urgent events, circuits, limits: what is claimed when, and by whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select, update

from app.models import DeliveryRow, EventRow, SubscriptionRow
from app.notify import claims, health, outbox, payload, results, retry, subscriptions
from app.notify.claims import Busy, Claimed
from app.notify.deliver import AHEAD_IN_ALL, AHEAD_SECONDS, DeliveryLoop, Lane, held_at_most
from tests.notify.receivers import (
    DAY,
    NOW,
    Log,
    Receiver,
    SettableClock,
    add_token,
    answer,
    subscribe,
    subscription,
)
from tests.notify.test_deliver import hangs, scripted, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.db import Database
    from app.notify.setup import WebhookSetup

URL = "http://127.0.0.1:9999/hook"


def indices(receiver: Receiver) -> list[int]:
    import json

    return [json.loads(r.body)["data"]["index"] for r in receiver.received]


def fail(db: Database, clock: SettableClock, *claimed: Claimed, status: int = 500) -> None:
    attempts = [results.Attempt(c, clock(), status, "status", 1) for c in claimed]
    results.record(db, clock(), attempts, fraction=lambda: 0.5)


def events_of(db: Database, claimed: list[Claimed]) -> list[int | None]:
    with db.read() as session:
        found = dict(
            session.execute(
                select(DeliveryRow.id, EventRow.idx).join(EventRow, EventRow.seq == DeliveryRow.event_seq)
            ).all()
        )
    return [found[c.id] for c in claimed]


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_ordered_subscription_stops_at_the_one_that_fails_and_goes_on_with_it(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(scripted(answer(), answer("500 Oops"), answer())) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url, ordered=True)
        issued = [log.issue() for _ in range(4)]
        step(db, clock, setup)
        step(db, clock, setup)
        assert indices(receiver) == issued[:2]
        assert step(db, clock, setup) == 0  # the second failed, and the others wait behind it
        assert subscription(db, id_).not_before == NOW + retry.SCHEDULE_MS[0]
        clock.now += retry.SCHEDULE_MS[0]
        while step(db, clock, setup):
            pass
        assert indices(receiver) == [issued[0], issued[1], issued[1], issued[2], issued[3]]
        assert receiver.ids()[1] == receiver.ids()[2]


def test_the_loop_keeps_the_order_though_it_claims_ahead(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver() as receiver:
        subscribe(db, setup, add_token(db), receiver.url, ordered=True)
        issued = [log.issue() for _ in range(40)]
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            for n in range(40):
                assert receiver.arrived.acquire(timeout=60), n
        finally:
            loop.stop()
        assert indices(receiver) == issued


def test_the_more_an_ordered_endpoint_takes_the_fewer_looks_it_costs(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    """Each look waits twenty milliseconds for company: one for every two or three deliveries would cost more than they do."""
    log, leases = Log(db), list[str]()

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("UPDATE deliveries SET leased_until"):
            leases.append(statement)

    with Receiver() as receiver:
        subscribe(db, setup, add_token(db), receiver.url, ordered=True)
        issued = [log.issue() for _ in range(300)]
        outbox.fan_out_step(db, clock, setup)
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        event.listen(db.write_engine, "before_cursor_execute", note)
        loop.start()
        try:
            for n in range(len(issued)):
                assert receiver.arrived.acquire(timeout=60), n
        finally:
            loop.stop()
            event.remove(db.write_engine, "before_cursor_execute", note)
        assert indices(receiver) == issued
    assert 0 < len(leases) <= 20, len(leases)


def test_an_ordered_endpoint_of_which_something_is_held_is_not_asked_for(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    """Nothing is free behind it: a look would wait for the writer to find that out."""
    id_, _ = subscribe(db, setup, add_token(db), URL, ordered=True)
    log, locked = Log(db), list[str]()
    for _ in range(3):
        log.issue()
    outbox.fan_out_step(db, clock, setup)

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "not_before" in statement and "deliveries" not in statement:
            locked.append(statement)

    event.listen(db.write_engine, "before_cursor_execute", note)
    assert claims.claim(db, clock(), 10, busy={id_: Busy(1, 5)}) == []
    assert locked == []
    assert len(claims.claim(db, clock(), 10, busy={id_: Busy(0, 5)})) == 3
    assert len(locked) == 1
    event.remove(db.write_engine, "before_cursor_execute", note)


def test_of_an_ordered_subscription_two_workers_never_hold_a_part_each(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL, ordered=True)
    for _ in range(6):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: claims.claim(db, NOW, 10), range(8)))
    assert sum(map(len, found)) == 1
    assert claims.claim(db, NOW + claims.LEASE_MS - 1, 10) == []
    # Nor one that would claim ahead: what follows a row that another holds is not to be had.
    assert claims.claim(db, NOW, 10, busy={id_: Busy(0, 5)}) == []
    (again,) = claims.claim(db, NOW + claims.LEASE_MS, 10)
    assert events_of(db, [again]) == [0]


def test_a_subscription_that_becomes_ordered_puts_what_waits_into_order(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    first = log.issue()
    second = log.follow("withdraw", first, "notice.withdrawn", status="withdrawn")
    outbox.fan_out_step(db, clock, setup)
    with db.write() as session:
        row = session.get_one(SubscriptionRow, id_)
        subscriptions.change(db, session, setup, row, {"ordered": True}, now=NOW)
    third = log.issue()
    outbox.fan_out_step(db, clock, setup)
    seen: list[int | None] = []
    for _ in range(3):
        claimed = claims.claim(db, clock(), 10)
        seen += events_of(db, claimed)
        results.record(
            db, clock(), [results.Attempt(c, clock(), 204, None, 1) for c in claimed], fraction=lambda: 0.5
        )
    assert seen == [first, second, third]


def test_sequence_numbers_have_no_gap_and_are_those_of_the_subscription(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    one, _ = subscribe(db, setup, token, URL)
    log.issue(type_="technology_threat")
    outbox.fan_out_step(db, clock, setup)
    two, _ = subscribe(db, setup, token, URL)
    for _ in range(3):
        log.issue()
    while outbox.fan_out_step(db, clock, setup, events_per_run=1):
        pass
    with db.read() as session:
        numbers = {
            id_: session.scalars(
                select(DeliveryRow.number)
                .where(DeliveryRow.subscription_id == id_)
                .order_by(DeliveryRow.event_seq)
            ).all()
            for id_ in (one, two)
        }
    assert numbers == {one: [1, 2, 3, 4], two: [1, 2, 3]}


# ── what a worker takes as it is made ─────────────────────────────────────────────────────────────────────────────


def take(
    db: Database, clock: SettableClock, setup: WebhookSetup, left: int = 100, **busy: Busy
) -> list[Claimed]:
    room = outbox.Room(left, busy)
    outbox.fan_out_step(db, clock, setup, room=room)
    assert room.left == left - len(room.claimed)
    return room.claimed


def test_what_a_worker_has_room_for_is_leased_as_it_is_made(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    issued = [log.issue() for _ in range(6)]
    taken = take(db, clock, setup)
    assert events_of(db, taken) == issued[: claims.PER_SUBSCRIPTION]
    assert [c.attempts for c in taken] == [1] * claims.PER_SUBSCRIPTION
    assert [c.number for c in taken] == [1, 2, 3, 4]
    ready, withheld = claims.prepare(db, clock(), setup, taken)
    assert [r.claimed for r in ready] == taken
    assert withheld == []
    # Nobody else has them while the lease holds, and whoever comes after it does, for a second attempt.
    outbox.fan_out_step(db, clock, setup)
    clock.now += claims.LEASE_MS - 1
    assert events_of(db, claims.claim(db, clock(), 10, busy={id_: Busy(0, 50)})) == issued[4:]
    clock.now += 1
    again = claims.claim(db, clock(), 10, busy={id_: Busy(0, 50)})
    assert {c.id for c in again} == {c.id for c in taken}
    assert {c.attempts for c in again} == {2}


def test_a_result_of_what_was_taken_as_it_was_made_counts(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    log.issue()
    log.issue()
    good, bad = take(db, clock, setup)
    results.record(db, clock(), [results.Attempt(good, clock(), 204, None, 1)], fraction=lambda: 0.5)
    fail(db, clock, bad)
    with db.read() as session:
        rows = {r.id: r for r in session.scalars(select(DeliveryRow))}
    assert (rows[good.id].state, rows[bad.id].state) == ("delivered", "pending")
    assert rows[bad.id].due_at == clock() + retry.SCHEDULE_MS[0]
    assert subscription(db, id_).failures == 1


def test_of_what_is_made_the_urgent_is_taken_first(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL)
    issued = [log.issue() for _ in range(9)]
    withdrawal = log.follow("withdraw", issued[0], "notice.withdrawn", status="withdrawn")
    assert events_of(db, take(db, clock, setup)) == [withdrawal, *issued[:3]]


def test_a_worker_takes_no_more_than_its_places_and_its_memory_have_room_for(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    one, _ = subscribe(db, setup, token, URL)
    two, _ = subscribe(db, setup, token, URL + "/2")
    three, _ = subscribe(db, setup, token, URL + "/3")
    for _ in range(20):
        log.issue()
    taken = take(db, clock, setup, 9, **{one: Busy(3, 0), two: Busy(4, 8), three: Busy(4, 0)})
    assert [c.subscription_id for c in taken].count(one) == 1
    assert [c.subscription_id for c in taken].count(two) == 8
    assert [c.subscription_id for c in taken].count(three) == 0
    with db.read() as session:  # made for the others as far as for the one that took most
        assert session.scalar(select(func.count()).select_from(DeliveryRow)) == 8 * 3


def test_what_nobody_takes_as_it_is_made_stays_in_the_outbox(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    """Made for nobody, a row has to be claimed later, which costs as much again."""
    log, token = Log(db), add_token(db)
    one, _ = subscribe(db, setup, token, URL)
    two, _ = subscribe(db, setup, token, URL + "/2")
    issued = [log.issue() for _ in range(30)]
    taken: dict[str, list[int | None]] = {one: [], two: []}
    for ahead, looked_at, enough in (
        (0, 4, True),
        (0, 0, False),
        (3, 3, True),
        (20, 20, True),
        (9, 3, False),
    ):
        busy = {} if not taken[one] else {one: Busy(4, ahead), two: Busy(4, ahead)}
        room = outbox.Room(100, busy)
        assert outbox.fan_out_step(db, clock, setup, room=room) == looked_at
        assert room.enough is enough
        for id_ in taken:
            taken[id_] += events_of(db, [c for c in room.claimed if c.subscription_id == id_])
        with db.read() as session:
            made = session.scalar(select(func.count()).select_from(DeliveryRow)) or 0
        assert made == sum(map(len, taken.values()))
    assert taken == {one: issued, two: issued}


def test_what_is_made_for_another_is_taken_as_well_within_bounds(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    one, _ = subscribe(db, setup, token, URL)
    two, _ = subscribe(db, setup, token, URL + "/2")
    three, _ = subscribe(db, setup, token, URL + "/3")
    for _ in range(20):
        log.issue()
    # Two wants one more and takes up to eleven; three wants none, and takes three.
    taken = take(db, clock, setup, 100, **{one: Busy(4, 9), two: Busy(8, 5), three: Busy(13, 4)})
    assert [[c.subscription_id for c in taken].count(id_) for id_ in (one, two, three)] == [9, 9, 3]


def test_who_is_told_of_little_is_not_held_up_by_what_others_take(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    """A run goes on until there is enough for everybody, or it is over."""
    log, token = Log(db), add_token(db)
    all_of_it, _ = subscribe(db, setup, token, URL)
    little, _ = subscribe(db, setup, token, URL + "/2", filter={"type": ["technology_threat"]})
    issued = [log.issue() for _ in range(30)]
    wanted = log.issue(type_="technology_threat")
    room = outbox.Room(100, {})
    assert outbox.fan_out_step(db, clock, setup, room=room) == 31
    assert not room.enough
    of = {id_: [c for c in room.claimed if c.subscription_id == id_] for id_ in (all_of_it, little)}
    assert events_of(db, of[all_of_it]) == issued[: claims.PER_SUBSCRIPTION]
    assert events_of(db, of[little]) == [wanted]


def test_who_is_far_behind_is_not_put_off(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    log, token = Log(db), add_token(db)
    far, _ = subscribe(db, setup, token, URL)
    for _ in range(30):
        log.issue()
    with db.write() as session:
        session.get_one(SubscriptionRow, far).status = "paused"
    near, _ = subscribe(db, setup, token, URL + "/2")
    with db.write() as session:
        session.get_one(SubscriptionRow, far).status = "active"
    for _ in range(9):
        log.issue()
    room = outbox.Room(100, {})
    assert outbox.fan_out_step(db, clock, setup, events_per_run=5, room=room) == 4 + 5
    assert not room.enough
    assert {c.subscription_id for c in room.claimed} == {near}


def test_what_is_urgent_is_found_behind_a_backlog_that_nobody_has_room_for(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    issued = [log.issue() for _ in range(30)]
    assert len(take(db, clock, setup)) == claims.PER_SUBSCRIPTION
    full = {id_: Busy(claims.PER_SUBSCRIPTION)}
    assert outbox.fan_out_step(db, clock, setup, room=outbox.Room(100, full)) == 0
    withdrawal = log.follow("withdraw", issued[0], "notice.withdrawn", status="withdrawn")
    room = outbox.Room(100, full)
    while outbox.fan_out_step(db, clock, setup, events_per_run=7, room=room):
        assert not room.enough
    assert events_of(db, claims.claim(db, clock(), 1)) == [withdrawal]


@pytest.mark.parametrize("state", [{"ordered": True}, {"per_minute": 60}, {"failures": 1}], ids=str)
def test_who_takes_nothing_as_it_is_made_always_has_something_due(
    db: Database, clock: SettableClock, setup: WebhookSetup, state: dict[str, Any]
) -> None:
    """While another endpoint's queue is full as well; but no more than a run of it."""
    log, token = Log(db), add_token(db)
    quick, _ = subscribe(db, setup, token, URL)
    id_, _ = subscribe(db, setup, token, URL + "/2")
    with db.write() as session:
        for name, value in state.items():
            setattr(session.get_one(SubscriptionRow, id_), name, value)
    for _ in range(9):
        log.issue()
    full = {quick: Busy(claims.PER_SUBSCRIPTION)}
    assert len(take(db, clock, setup)) == claims.PER_SUBSCRIPTION
    found = claims.claim(db, clock(), 100, busy=full)
    with db.write() as session:  # all that waits for it is on its way, or put off
        session.execute(
            update(DeliveryRow).where(DeliveryRow.subscription_id == id_).values(due_at=clock() + 1)
        )
    step = partial(outbox.fan_out_step, db, clock, setup, events_per_run=3)
    assert [step(room=outbox.Room(100, full)) for _ in range(3)] == [3, 0, 0]
    assert {c.subscription_id for c in found} == {id_}


@pytest.mark.parametrize(
    "state",
    [
        {"ordered": True},
        {"per_minute": 60},
        {"failures": 1},
        {"not_before": NOW + 1},
        {"payload": "full"},
    ],
    ids=lambda state: next(iter(state)),
)
def test_where_there_is_more_to_decide_than_how_many_a_claim_decides(
    db: Database, clock: SettableClock, setup: WebhookSetup, state: dict[str, Any]
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    with db.write() as session:
        for name, value in state.items():
            setattr(session.get_one(SubscriptionRow, id_), name, value)
    log.issue()
    assert take(db, clock, setup) == []
    with db.read() as session:
        (row,) = session.scalars(select(DeliveryRow))
    assert (row.state, row.leased_until, row.attempts) == ("pending", 0, 0)


def test_what_waits_goes_before_what_is_new(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL)
    first = log.issue()
    outbox.fan_out_step(db, clock, setup)
    second = log.issue()
    assert take(db, clock, setup) == []
    assert events_of(db, claims.claim(db, clock(), 10)) == [first]
    assert events_of(db, take(db, clock, setup)) == [second]


# ── what goes first ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_withdrawal_goes_before_a_backlog(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL)
    issued = [log.issue() for _ in range(20)]
    outbox.fan_out_step(db, clock, setup)
    clock.now += 1
    withdrawal = log.follow("withdraw", issued[0], "notice.withdrawn", status="withdrawn")
    outbox.fan_out_step(db, clock, setup)
    assert events_of(db, claims.claim(db, clock(), 4)) == [withdrawal, *issued[:3]]


# ── circuits and limits ───────────────────────────────────────────────────────────────────────────────────────────


def test_five_failures_open_the_circuit_and_one_success_closes_it(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    for _ in range(30):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    fail(db, clock, *claims.claim(db, clock(), 30))
    for _ in range(retry.OPEN_AFTER - claims.PER_SUBSCRIPTION):
        (one,) = claims.claim(db, clock(), 30)  # after a failure one at a time
        fail(db, clock, one)
    row = subscription(db, id_)
    assert (row.failures, row.not_before) == (retry.OPEN_AFTER, NOW + retry.REST_SHORTEST_MS)
    assert claims.claim(db, clock(), 30) == []
    clock.now += retry.REST_SHORTEST_MS
    (probe,) = claims.claim(db, clock(), 30)
    fail(db, clock, probe)
    assert claims.claim(db, clock() + 2 * retry.REST_SHORTEST_MS - 1, 30) == []
    clock.now += 2 * retry.REST_SHORTEST_MS
    (probe,) = claims.claim(db, clock(), 30)
    results.record(db, clock(), [results.Attempt(probe, clock(), 204, None, 1)], fraction=lambda: 0.5)
    assert len(claims.claim(db, clock(), 30)) == claims.PER_SUBSCRIPTION
    with db.read() as session:  # those that waited for the circuit have all their attempts left
        waited = session.scalar(
            select(func.count()).where(DeliveryRow.state == "pending", DeliveryRow.attempts == 0)
        )
    assert waited == 30 - (4 + 1 + 2) - 4


def test_a_running_loop_claims_nothing_more_of_an_endpoint_before_its_failures_are_written(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    """Results are written while more is claimed, but only what arrived: else a dead endpoint would be sent another handful."""
    log = Log(db)
    with Receiver(lambda *_: answer("500 Oops")) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        for _ in range(30):
            log.issue()
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            for n in range(retry.OPEN_AFTER):
                assert receiver.arrived.acquire(timeout=60), n
        finally:
            loop.stop()
        assert len(receiver.received) == retry.OPEN_AFTER  # four places, then one to try it
    assert subscription(db, id_).failures == retry.OPEN_AFTER


def test_what_was_on_its_way_when_the_circuit_opened_does_not_lengthen_the_rest(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    for _ in range(30):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    under_way = [*claims.claim(db, clock(), 30), *claims.claim(db, clock(), 30)]  # two workers
    assert len(under_way) == 2 * claims.PER_SUBSCRIPTION > retry.OPEN_AFTER
    for one in under_way:  # one short outage
        clock.now += 1
        fail(db, clock, one)
    opened = NOW + retry.OPEN_AFTER
    row = subscription(db, id_)
    assert (row.failures, row.not_before) == (retry.OPEN_AFTER, opened + retry.REST_SHORTEST_MS)
    clock.now = row.not_before
    (probe,) = claims.claim(db, clock(), 30)
    fail(db, clock, probe)
    row = subscription(db, id_)
    assert (row.failures, row.not_before) == (retry.OPEN_AFTER + 1, clock() + 2 * retry.REST_SHORTEST_MS)


@pytest.mark.parametrize(("failures", "rest"), [(4, 0), (5, 30), (6, 60), (9, 480), (10, 600), (10_000, 600)])
def test_rests_double_up_to_ten_minutes(failures: int, rest: int) -> None:
    assert retry.rest_after(failures, 0.5) == rest * 1000
    assert retry.rest_after(failures, 0.0) == round(rest * 800)
    assert retry.rest_after(failures, 0.999_999) <= rest * 1200


def test_endpoints_that_fail_hold_a_quarter_of_the_places_however_many_they_are(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    for _ in range(20):
        subscribe(db, setup, token, URL)
    with db.write() as session:
        for row in session.scalars(select(SubscriptionRow)):
            row.failures = 1
    well, _ = subscribe(db, setup, token, URL)
    for _ in range(8):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    claimed = claims.claim(db, clock(), 16)
    owners = [c.subscription_id for c in claimed]
    assert owners.count(well) == claims.PER_SUBSCRIPTION
    assert len(owners) - owners.count(well) == 16 // claims.SUSPECTS_SHARE
    assert len(set(owners)) == 1 + 16 // claims.SUSPECTS_SHARE


def test_two_endpoints_with_a_backlog_share_the_last_place(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    came: list[int] = []

    def noting(number: int) -> Callable[..., bytes]:
        def note(*_: object) -> bytes:
            came.append(number)
            return answer()

        return note

    with Receiver(noting(0)) as first, Receiver(noting(1)) as second:
        for receiver in (first, second):
            subscribe(db, setup, token, receiver.url, max_in_flight=12)
        for _ in range(12):
            log.issue()
        loop = DeliveryLoop(db, clock, setup, concurrency=1, poll_seconds=0.05)
        loop.start()
        try:
            for receiver in (first, second):
                for n in range(12):
                    assert receiver.arrived.acquire(timeout=60), n
        finally:
            loop.stop()
    assert len(came) == 24
    assert max(came[:6].count(0), came[:6].count(1)) < 6, "one had to wait for the whole backlog of the other"


def test_an_endpoint_has_the_places_its_subscription_says(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL, max_in_flight=2)
    for _ in range(9):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    assert len(claims.claim(db, clock(), 100)) == 2
    assert claims.claim(db, clock(), 100, busy={id_: Busy(held=2)}) == []
    assert len(claims.claim(db, clock(), 100, busy={id_: Busy(held=1)})) == 1
    assert len(claims.claim(db, clock(), 100, busy={id_: Busy(held=2, ahead=4)})) == 4


def test_a_rate_is_kept_by_all_workers_together(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL, per_minute=120)
    for _ in range(30):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    claimed = 0
    for _ in range(100):  # ten seconds, looked at every tenth
        claimed += len(claims.claim(db, clock(), 10))
        clock.now += 100
    assert claimed == 20


def test_a_paused_and_a_resting_endpoint_are_not_claimed(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    paused, _ = subscribe(db, setup, token, URL)
    resting, _ = subscribe(db, setup, token, URL)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    with db.write() as session:
        session.get_one(SubscriptionRow, paused).status = "paused"
        session.get_one(SubscriptionRow, resting).not_before = NOW + 1
    assert claims.claim(db, NOW, 10) == []
    assert [c.subscription_id for c in claims.claim(db, NOW + 1, 10)] == [resting]


def test_a_backlog_of_one_that_fails_stops_growing_and_loses_nothing(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    down, _ = subscribe(db, setup, token, URL)
    well, _ = subscribe(db, setup, token, URL)
    for _ in range(5):
        log.issue()
    outbox.fan_out_step(db, clock, setup, max_pending=5)
    with db.write() as session:
        session.get_one(SubscriptionRow, down).failing_since = NOW
    log.issue()

    def made(id_: str) -> int:
        with db.read() as session:
            return session.scalar(select(func.count()).where(DeliveryRow.subscription_id == id_)) or 0

    for _ in range(3):
        outbox.fan_out_step(db, clock, setup, max_pending=5)
    assert (made(down), made(well)) == (5, 6)
    with db.write() as session:
        health.recover(db, session, session.get_one(SubscriptionRow, down), NOW)
    outbox.fan_out_step(db, clock, setup, max_pending=5)
    assert made(down) == 6


def test_one_that_is_far_behind_does_not_hold_up_the_others(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    far, _ = subscribe(db, setup, token, URL)
    for _ in range(10):
        log.issue()
    near, _ = subscribe(db, setup, token, URL)
    newest = log.issue()
    outbox.fan_out_step(db, clock, setup, events_per_run=2)
    with db.read() as session:
        told = {
            id_: session.scalars(
                select(EventRow.idx)
                .join(DeliveryRow, DeliveryRow.event_seq == EventRow.seq)
                .where(DeliveryRow.subscription_id == id_)
                .order_by(EventRow.seq)
            ).all()
            for id_ in (far, near)
        }
    assert told[near] == [newest]
    assert told[far] == [0, 1]


# ── health, and who is told of it ─────────────────────────────────────────────────────────────────────────────────


def told_types(db: Database) -> list[tuple[str, str | None]]:
    with db.read() as session:
        rows = session.execute(
            select(EventRow.type, EventRow.owner).where(EventRow.idx.is_(None)).order_by(EventRow.seq)
        )
        return [(t, o) for t, o in rows]


def test_the_owner_is_told_after_a_day_of_failures_at_the_end_and_when_it_works_again(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    with Receiver(lambda *_: answer("500 Oops")) as receiver:
        id_, _ = subscribe(db, setup, token, receiver.url)
        for day in range(6):
            clock.now = NOW + day * DAY
            log.issue()
            step(db, clock, setup)
            if day == 1:
                assert told_types(db) == [("subscription.failing", token)]
    assert told_types(db)[1:] == [("subscription.disabled", token)]
    with db.write() as session:
        health.resume(db, session, session.get_one(SubscriptionRow, id_), clock())
    assert told_types(db)[2:] == [("subscription.recovered", token)]


def test_another_endpoint_of_the_token_carries_the_news_if_it_asks_for_it(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token, other = Log(db), add_token(db), add_token(db)
    with Receiver(lambda *_: answer("410 Gone")) as gone:
        id_, _ = subscribe(db, setup, token, gone.url)
        types: dict[str, Any] = {"event_types": ["subscription.disabled"]}
        subscribe(db, setup, token, receiver.url, **types)
        subscribe(db, setup, other, receiver.url, **types)
        subscribe(db, setup, token, f"{receiver.url}/silent")
        log.issue()
        step(db, clock, setup)
        receiver.received.clear()
        step(db, clock, setup)
    import json

    (request,) = receiver.received
    event = json.loads(request.body)
    assert (event["type"], event["data"]["subscription"]) == ("subscription.disabled", id_)
    assert event["data"]["reason"] == health.GONE


def test_a_dead_endpoint_in_the_loop_holds_only_its_own_places(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    with Receiver(hangs) as stuck:
        for _ in range(3):
            subscribe(db, setup, token, stuck.url)
        subscribe(db, setup, token, receiver.url)
        for _ in range(60):
            log.issue()
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            for n in range(60):
                assert receiver.arrived.acquire(timeout=60), n
            assert len(stuck.received) <= 3 * claims.PER_SUBSCRIPTION
        finally:
            stuck.closing.set()
            loop.stop()


# ── what a result costs ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("where", [results.ARRIVED, results.HELD])
def test_a_result_is_written_by_its_id_however_much_waits(
    db: Database, setup: WebhookSetup, where: str
) -> None:
    """PostgreSQL knows of a quiet hour, in which nothing waited, and would go through all that waits now for each result."""
    id_, _ = subscribe(db, setup, add_token(db), URL)
    add_rows(db, id_, 0, 2_000, "delivered")
    if not db.is_sqlite:
        with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("ANALYZE")
    add_rows(db, id_, 2_000, 2_000, "pending")
    with db.write() as session:
        connection = session.connection()
        if db.is_sqlite:
            place = {"_id": "'d2000'", "_leased_until": "0", "state": "'delivered'"}
            for name, value in place.items():
                where = where.replace(f"new.{name}", value)
            text = f"EXPLAIN QUERY PLAN UPDATE deliveries AS old SET state = 'delivered' WHERE {where}"  # noqa: S608 - our own text
            plan = "\n".join(row[3] for row in connection.exec_driver_sql(text))
        else:
            text = (
                "EXPLAIN UPDATE deliveries AS old SET state = new.state"  # noqa: S608 - our own text
                " FROM unnest(%s::varchar[], %s::bigint[], %s::varchar[])"
                f' AS new("_id", "_leased_until", "state") WHERE {where}'
            )
            values = ([f"d{2_000 + n}" for n in range(300)], [0] * 300, ["delivered"] * 300)
            plan = "\n".join(row[0] for row in connection.exec_driver_sql(text, values))
    assert "deliveries" in plan
    assert "ix_deliveries_due" not in plan, plan


def add_rows(db: Database, subscription_id: str, first: int, count: int, state: str) -> None:
    columns = (
        "id", "subscription_id", "event_seq", "state", "due_at", "leased_until", "attempts", "created_at",
    )  # fmt: skip
    rows = [(f"d{first + n}", subscription_id, first + n, state, 0, 0, 0, 0) for n in range(count)]
    with db.write() as session:
        db.bulk_insert(session, DeliveryRow.__table__, columns, rows)


# ── how much waits in memory ──────────────────────────────────────────────────────────────────────────────────────


def test_what_waits_ahead_follows_an_endpoints_pace() -> None:
    lane = Lane(100.0)
    assert lane.ahead(100.0) == 0
    for _ in range(10):
        lane.finished()
    assert lane.ahead(100 + 1 / 128) == 20  # too soon to tell its pace: twice what it has just taken
    assert lane.ahead(100 + 1 / 16) == 160 * AHEAD_SECONDS
    lane.quick = 0  # it got some
    assert lane.ahead(100 + 9 / 128) == 160 * AHEAD_SECONDS
    # Nothing was there to be taken: that says little of it, at first.
    assert lane.ahead(100 + 2 / 16) == 80 * AHEAD_SECONDS
    assert lane.ahead(100 + 4 / 16) == 40 * AHEAD_SECONDS
    for _ in range(100):
        lane.finished()
    lane.quick = 0
    assert lane.ahead(100 + 6 / 16) == 800 * AHEAD_SECONDS


def test_of_large_bodies_fewer_are_held() -> None:
    assert held_at_most(1_000) == AHEAD_IN_ALL
    assert held_at_most(payload.MAX_PAYLOAD) == 512
