"""A worker that is killed at every step, a database that goes away, and what is told of a notice that is hidden later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, make_url, select, text, update
from standardwebhooks import Webhook

from app.clock import system_clock
from app.db import Database
from app.models import ApiTokenRow, AttemptRow, DeliveryRow, SubscriptionRow
from app.notify import claims, outbox, results, signing, subscriptions
from app.notify.deliver import DeliveryLoop
from app.notify.prune import BATCH, Pruner
from app.notify.subscriptions import Chosen
from tests.notify.receivers import (
    DAY,
    NOW,
    Log,
    Received,
    Receiver,
    SettableClock,
    add_token,
    answer,
    subscribe,
    subscription,
)
from tests.notify.test_deliver import ROOT, delivery, scripted, step

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from app.notify.setup import WebhookSetup

# ── kill -9 ───────────────────────────────────────────────────────────────────────────────────────────────────────

KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from app.clock import system_clock
from app.db import Database
from app.notify.deliver import DeliveryLoop
from tests.notify.receivers import loopback_setup

url, keys, number, when = sys.argv[1:]

class Killing(Database):
    writes = 0

    @contextmanager
    def write(self):
        with super().write() as session:
            yield session
            self.writes += 1
            if self.writes == int(number) and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        if self.writes == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

DeliveryLoop(Killing(url), system_clock, loopback_setup(Path(keys))).run()
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("first", ["make and lease", "lease"])  # then, in both, the result
def test_kill_9_around_every_commit_loses_nothing_and_repeats_under_one_id(
    db: Database, setup: WebhookSetup, tmp_path: Path, first: str, number: int, when: str
) -> None:
    log = Log(db)
    with Receiver() as receiver:
        id_, secret = subscribe(db, setup, add_token(db, expires_at=system_clock() + DAY), receiver.url)
        log.issue()
        if first == "lease":  # the row was made by a worker that had no room for it
            outbox.fan_out_step(db, system_clock, setup)
            assert delivery(db, id_).state == "pending"
        url = db.url.render_as_string(hide_password=False)
        worker = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(tmp_path / "keys"), str(number), when],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
            check=False,
        )
        assert worker.returncode == -signal.SIGKILL
        assert len(receiver.received) == (1 if number == 2 else 0)
        later = SettableClock(system_clock() + claims.LEASE_MS)
        step(db, later, setup)
        recorded = number == 2 and when == "after"
        assert len(receiver.received) == (2 if number == 2 and not recorded else 1)
        assert len(set(receiver.ids())) == 1
        assert secret is not None
        for request in receiver.received:
            Webhook(signing.secret_text(secret)).verify(request.body, request.headers)
    assert delivery(db, id_).state == "delivered"


# ── the database goes away ────────────────────────────────────────────────────────────────────────────────────────


def test_a_database_that_fails_over_while_a_delivery_is_under_way_loses_nothing(
    fresh_pg_database: Callable[[str | None], str], migrated_postgresql: str, setup: WebhookSetup
) -> None:
    url = fresh_pg_database(migrated_postgresql)
    db, name = Database(url), make_url(url).database
    admin = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    log, gone = Log(db), threading.Event()

    def waits(_request: Received, _c: socket.socket, _closing: threading.Event) -> bytes:
        gone.wait(20)
        return answer()

    def connections(allowed: bool) -> None:
        with admin.connect() as connection:
            connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(allowed).lower()}'))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )

    with Receiver(waits) as receiver:
        expires = system_clock() + DAY
        id_, _ = subscribe(db, setup, add_token(db, expires_at=expires), receiver.url, now=system_clock())
        log.issue()
        theirs = Database(url)
        loop = DeliveryLoop(theirs, system_clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            assert receiver.arrived.acquire(timeout=60)
            connections(allowed=False)
            gone.set()
            connections(allowed=True)
            db.dispose()
            log.issue()
            loop.wake()
            assert receiver.arrived.acquire(timeout=60)
        finally:
            loop.stop()
            theirs.dispose()
    with db.read() as session:
        rows = session.execute(
            select(DeliveryRow.id, DeliveryRow.state).where(DeliveryRow.subscription_id == id_)
        ).all()
    assert [state for _, state in rows] == ["delivered", "delivered"]
    assert set(receiver.ids()) == {id_ for id_, _ in rows}
    db.dispose()
    admin.dispose()


# ── acknowledgements in any order, clocks that jump ───────────────────────────────────────────────────────────────


def test_results_that_come_twice_or_late_change_nothing_more(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), "http://127.0.0.1:9999/")
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    (first,) = claims.claim(db, clock(), 1)
    clock.now += claims.LEASE_MS
    (second,) = claims.claim(db, clock(), 1)
    assert first.id == second.id
    arrived = [results.Attempt(c, clock(), 204, None, 1) for c in (second, first)]
    failed = [results.Attempt(c, clock(), 500, "status", 1) for c in (first, second)]
    for outcome in (*arrived, *arrived, *failed):
        results.record(db, clock(), [outcome], fraction=lambda: 0.5)
    assert (delivery(db, id_).state, delivery(db, id_).last_status) == ("delivered", 204)


def test_a_failure_of_a_lost_lease_does_not_take_the_row_from_whom_it_was_given(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), "http://127.0.0.1:9999/")
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    (first,) = claims.claim(db, clock(), 1)
    clock.now += claims.LEASE_MS
    (second,) = claims.claim(db, clock(), 1)
    failure = results.Attempt(first, clock(), 500, "status", 1)
    results.record(db, clock(), [failure], fraction=lambda: 0.5)
    assert delivery(db, id_).leased_until == second.leased_until


def test_a_renewed_lease_holds_and_one_that_was_lost_stays_anothers(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), "http://127.0.0.1:9999/")
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    (first,) = claims.claim(db, clock(), 1)
    clock.now += claims.LEASE_MS - 1
    claims.renew(db, clock(), [first])
    clock.now += claims.LEASE_MS - 1
    assert claims.claim(db, clock(), 1) == []
    clock.now += 1
    (second,) = claims.claim(db, clock(), 1)
    lost = first.leased_until
    claims.renew(db, clock() + 1, [first])
    assert (first.leased_until, delivery(db, id_).leased_until) == (lost, second.leased_until)
    claims.renew(db, clock() + 1, [second])
    failure = results.Attempt(second, clock(), 500, "status", 1)
    results.record(db, clock(), [failure], fraction=lambda: 0.5)
    assert (delivery(db, id_).last_status, delivery(db, id_).leased_until) == (500, 0)


def test_the_loop_renews_what_it_is_sending_and_gives_back_what_only_waits(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, held = Log(db), threading.Event()

    def holds_the_second(request: Received, _c: socket.socket, _closing: threading.Event) -> bytes:
        if json.loads(request.body)["data"]["index"] == 1:
            held.wait(60)
        return answer()

    with Receiver(holds_the_second) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url, ordered=True)
        for _ in range(4):
            log.issue()
        outbox.fan_out_step(db, clock, setup)
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.01)
        loop.start()
        try:
            for _ in range(2):
                assert receiver.arrived.acquire(timeout=60)
            # The first was quick, so that what follows was claimed ahead of its turn.
            _until(lambda: _leases(db, id_) == [0] + [NOW + claims.LEASE_MS] * 3)
            clock.now += claims.LEASE_MS - claims.RENEW_MS + 1
            _until(lambda: _leases(db, id_) == [0, clock.now + claims.LEASE_MS, 0, 0])
            held.set()
            for _ in range(2):
                assert receiver.arrived.acquire(timeout=60)
        finally:
            held.set()
            loop.stop()
    assert [json.loads(r.body)["data"]["index"] for r in receiver.received] == [0, 1, 2, 3]
    assert _leases(db, id_) == [0] * 4


def _leases(db: Database, id_: str) -> list[int]:
    """Until when each of a subscription's deliveries is leased, in order."""
    with db.read() as session:
        return list(
            session.scalars(
                select(DeliveryRow.leased_until)
                .where(DeliveryRow.subscription_id == id_)
                .order_by(DeliveryRow.event_seq)
            )
        )


def _until(holds: Callable[[], bool]) -> None:
    """Ask the database again and again: nobody tells what another thread has written."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline


def test_a_clock_that_was_set_back_sends_nothing_twice_and_goes_on(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), receiver.url)
    log.issue()
    step(db, clock, setup)
    clock.now -= DAY
    log.issue()
    assert step(db, clock, setup) == 1
    assert len(set(receiver.ids())) == len(receiver.received) == 2


@pytest.mark.parametrize("filters", [{"issuer": "JP"}, {}])
def test_a_filter_that_matches_nothing_or_everything(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, filters: dict[str, str]
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), receiver.url, filter=filters)
    for _ in range(5):
        log.issue()
    while step(db, clock, setup):
        pass
    assert len(receiver.received) == (0 if filters else 5)
    assert outbox.fan_out_step(db, clock, setup) == 0


# ── a notice that is hidden later ─────────────────────────────────────────────────────────────────────────────────


def data(request: Received) -> tuple[str, dict[str, Any]]:
    event = json.loads(request.body)
    return event["type"], event["data"]


def test_whoever_was_told_is_told_once_without_content_that_it_is_theirs_no_more(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db, ceiling=1), receiver.url)
    idx = log.issue(tlp=1)
    step(db, clock, setup)
    for _ in range(2):
        log.follow("amend", idx, "notice.amended", tlp=4, tlp_rank=4, title="secret")
        step(db, clock, setup)
    assert [data(r)[0] for r in receiver.received] == ["notice.issued", "notice.recalled"]
    assert data(receiver.received[1])[1] == {
        "id": f"notice-US-{idx}", "version": None, "issuer": "US", "type": None, "tlp": None, "status": "recalled",
        "origin": "us.verbale.example/log/1", "index": None, "leaf_hash": None,
        "url": f"https://ee.example/v1/notices/notice-US-{idx}", "sequence": 2,
    }  # fmt: skip
    again = log.follow("amend", idx, "notice.amended", tlp=0, tlp_rank=0)
    step(db, clock, setup)
    assert data(receiver.received[2])[0] == "notice.amended"
    assert data(receiver.received[2])[1]["index"] == again
    log.follow("amend", idx, "notice.amended", tlp=4, tlp_rank=4)
    step(db, clock, setup)
    assert data(receiver.received[3])[0] == "notice.recalled"
    with db.read() as session:
        states = session.execute(
            select(DeliveryRow.state, DeliveryRow.recalled)
            .where(DeliveryRow.subscription_id == id_)
            .order_by(DeliveryRow.number)
        ).all()
    assert [tuple(s) for s in states] == [
        ("delivered", False), ("delivered", True), ("dropped", False), ("delivered", False), ("delivered", True),
    ]  # fmt: skip


def test_whoever_was_never_really_told_is_told_nothing_of_a_notice_that_is_hidden(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db, ceiling=1), receiver.url)
    idx = log.issue(tlp=1)
    outbox.fan_out_step(db, clock, setup)  # queued, and never sent
    log.follow("amend", idx, "notice.amended", tlp=4, tlp_rank=4)
    step(db, clock, setup)
    late, _ = subscribe(db, setup, add_token(db, ceiling=1), receiver.url)
    log.follow("amend", idx, "notice.amended", tlp=4, tlp_rank=4)
    step(db, clock, setup)
    assert receiver.received == []
    assert subscription(db, late).told == 0


# ── replaying, discarding, forgetting ─────────────────────────────────────────────────────────────────────────────


def test_everything_that_failed_is_replayed_under_its_own_ids(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(scripted(*[answer("410 Gone")] * 1, answer())) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        step(db, clock, setup)
        with db.write() as session:
            row = session.get_one(SubscriptionRow, id_)
            assert subscriptions.replay_many(session, row, Chosen(failed=True), NOW) == (1, False)
            subscriptions.change(db, session, setup, row, {"status": "active"}, now=NOW)
        step(db, clock, setup)
        assert len(receiver.received) == 2
        assert len(set(receiver.ids())) == 1
    assert (delivery(db, id_).state, delivery(db, id_).attempts) == ("delivered", 1)


def test_a_place_in_the_outbox_is_gone_back_to_and_nothing_gets_a_second_id(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    early = log.issue()
    id_, _ = subscribe(db, setup, token, receiver.url)
    for _ in range(3):
        log.issue()
    while step(db, clock, setup):
        pass
    with db.write() as session:
        row = session.get_one(SubscriptionRow, id_)
        count, _ = subscriptions.replay_many(session, row, Chosen(after=0), NOW)
    assert count == 3
    while step(db, clock, setup):
        pass
    assert len(receiver.received) == 3 + 3 + 1
    assert len(set(receiver.ids())) == 4
    assert sum(data(r)[1]["index"] == early for r in receiver.received) == 1


def test_a_call_replays_a_bounded_number_and_says_that_there_are_more(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), "http://127.0.0.1:9999/")
    seq = log.event("notice.issued", log.issue(event=False), 0)
    with db.write() as session:
        ids = outbox.new_ids(NOW, subscriptions.MAX_PER_CALL + 5)
        first = db.next_values(session, "events", len(ids))
        from app.models import EventRow

        db.bulk_insert(
            session,
            EventRow.__table__,
            ("seq", "type", "log_id", "idx", "root_idx", "at", "live"),
            [(first + n, "notice.issued", log.id, 0, 0, NOW, True) for n in range(len(ids))],
        )
        db.bulk_insert(
            session,
            DeliveryRow.__table__,
            ("id", "subscription_id", "event_seq", "number", "lane", "state", "due_at", "leased_until", "attempts",
             "created_at", "finished_at", "recalled"),
            [(i, id_, first + n, n, 1, "failed", NOW, 0, 10, NOW, NOW, False) for n, i in enumerate(ids)],
        )  # fmt: skip
    assert seq < first
    with db.write() as session:
        row = session.get_one(SubscriptionRow, id_)
        chosen = Chosen(failed=True, since=NOW, until=NOW + 1)
        assert subscriptions.replay_many(session, row, chosen, NOW) == (subscriptions.MAX_PER_CALL, True)
        assert subscriptions.discard(session, row, chosen, NOW) == (5, False)
    with db.read() as session:
        assert subscriptions.counts(session, row).pending == subscriptions.MAX_PER_CALL
        assert subscriptions.counts(session, row).dropped == 5


def test_finished_deliveries_are_forgotten_by_their_end_and_dead_letters_are_not(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, keep = Log(db), 30 * DAY
    id_, _ = subscribe(db, setup, add_token(db), receiver.url)
    for _ in range(4):
        log.issue()
    step(db, clock, setup)
    with db.write() as session:
        ids = session.scalars(select(DeliveryRow.id).order_by(DeliveryRow.number)).all()
        changes: list[dict[str, Any]] = [
            {}, {"finished_at": NOW + 20 * DAY}, {"state": "failed"}, {"state": "pending", "finished_at": None},
        ]  # fmt: skip
        for id_, values in zip(
            ids,
            changes,
            strict=True,
        ):
            if values:
                session.execute(update(DeliveryRow).where(DeliveryRow.id == id_).values(**values))
    pruner = Pruner(db, clock, keep)
    assert not pruner.step()
    clock.now += keep + 1
    assert not pruner.step()
    with db.read() as session:
        assert session.scalars(select(DeliveryRow.id).order_by(DeliveryRow.number)).all() == ids[1:]
        assert session.scalars(select(AttemptRow.delivery_id)).all() == []
    assert BATCH >= 100


def test_a_subscription_that_is_deleted_takes_its_log_with_it(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    id_, _ = subscribe(db, setup, token, receiver.url)
    log.issue()
    step(db, clock, setup)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    with db.write() as session:
        subscriptions.remove(session, token, id_)
    step(db, clock, setup)
    with db.read() as session:
        assert session.scalars(select(DeliveryRow.id)).all() == []
        assert session.scalars(select(AttemptRow.delivery_id)).all() == []
    assert len(receiver.received) == 1


def test_a_token_that_loses_its_scope_while_the_loop_runs_is_sent_nothing_more(
    db: Database, setup: WebhookSetup
) -> None:
    log, clock = Log(db), SettableClock()
    lost = threading.Event()

    def first_waits(_request: Received, _c: socket.socket, _closing: threading.Event) -> bytes:
        lost.wait(20)
        return answer()

    with Receiver(first_waits) as receiver:
        token = add_token(db)
        id_, _ = subscribe(db, setup, token, receiver.url, ordered=True)
        for _ in range(30):
            log.issue()
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            assert receiver.arrived.acquire(timeout=60)
            with db.write() as session:
                session.get_one(ApiTokenRow, token).scopes = "read"
            log.issue()
            loop.wake()
            while subscription(db, id_).status != "disabled":
                loop.wake()
            lost.set()
        finally:
            loop.stop()
    assert len(receiver.received) == 1
