"""From a claim to an answer, with receivers of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from standardwebhooks import Webhook

from app.clock import system_clock
from app.db import Database
from app.models import ApiTokenRow, DeliveryRow, SubscriptionRow
from app.notify import claims, deliver, health, metrics, outbox, results, retry, signing, subscriptions, wire
from app.notify.claims import Busy, Claimed, Ready
from app.notify.deliver import DeliveryLoop
from app.notify.endpoint import Endpoint
from app.notify.send import MAX_EXCERPT, Sender
from tests.federation.world import wait_until
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

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from app.clock import Clock
    from app.notify.setup import WebhookSetup

ROOT = Path(__file__).resolve().parents[2]


def step(db: Database, clock: Clock, setup: WebhookSetup, **options: Any) -> int:
    """One whole round, without jitter."""

    async def run() -> int:
        async with Sender(setup, clock, **options) as sender:
            return await deliver.deliver_step(db, clock, setup, sender, fraction=lambda: 0.5)

    return asyncio.run(run())


def delivery(db: Database, subscription_id: str) -> DeliveryRow:
    with db.read() as session:
        return session.scalars(
            select(DeliveryRow).where(DeliveryRow.subscription_id == subscription_id)
        ).one()


def scripted(*replies: bytes) -> Any:
    left = list(replies)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


# ── what arrives ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_receiver_with_the_public_library_verifies_what_arrives(
    db: Database, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, secret = subscribe(db, setup, add_token(db, expires_at=system_clock() + DAY), receiver.url)
    assert secret is not None
    log.issue()
    assert step(db, system_clock, setup) == 1
    (request,) = receiver.received
    event = Webhook(signing.secret_text(secret)).verify(request.body, request.headers)
    assert event["type"] == "notice.issued"
    assert request.headers["content-type"] == "application/json"
    row = delivery(db, id_)
    assert (row.state, row.attempts, row.last_status, row.last_error) == ("delivered", 1, 204, None)
    assert row.id == request.headers["webhook-id"]
    assert b"title" not in request.body
    assert step(db, system_clock, setup) == 0


def test_v1a_arrives_signed_by_the_nodes_key(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    _, secret = subscribe(db, setup, add_token(db), receiver.url, scheme="v1a")
    log.issue()
    step(db, clock, setup)
    assert secret is None
    (request,) = receiver.received
    published = signing.public_text(setup.keys.signer.public)
    version, _, signature = request.headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = (
        f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    )
    Ed25519PublicKey.from_public_bytes(b64decode(published.removeprefix("whpk_"))).verify(
        b64decode(signature), signed
    )


# ── receivers that are not well ───────────────────────────────────────────────────────────────────────────────────


def hangs(_request: Received, _connection: socket.socket, closing: threading.Event) -> None:
    closing.wait()


def resets(_request: Received, connection: socket.socket, _closing: threading.Event) -> None:
    import socket as s
    import struct

    connection.setsockopt(s.SOL_SOCKET, s.SO_LINGER, struct.pack("ii", 1, 0))


def never_ends(_request: Received, connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not closing.is_set():
        connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")


def endless_header(_request: Received, connection: socket.socket, closing: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not closing.is_set():
        connection.sendall(b"X-Y: " + b"x" * 1024 + b"\r\n")


def byte_by_byte(_request: Received, connection: socket.socket, closing: threading.Event) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        connection.sendall(bytes([byte]))
        if closing.wait(0.1):
            return


@pytest.mark.parametrize(
    ("behave", "status", "error"),
    [
        (hangs, None, "timeout"),
        (resets, None, "disconnected"),
        (never_ends, 500, "status"),
        (endless_header, None, "invalid-response"),
        (byte_by_byte, None, "timeout"),
        (lambda *_: b"garbage\r\n\r\n", None, "invalid-response"),
        (lambda *_: answer("500 Oops"), 500, "status"),
        (lambda *_: answer("302 Found", "Location: http://127.0.0.1:1/"), 302, "redirect"),
        (lambda *_: answer("302 Found", "Location: /hook"), 302, "redirect"),
        (lambda *_: answer("404 Not Found", body=b"x" * 100_000), 404, "status"),
    ],
)
def test_a_receiver_that_is_not_well_is_tried_again(
    db: Database, clock: SettableClock, setup: WebhookSetup, behave: Any, status: int | None, error: str
) -> None:
    log = Log(db)
    with Receiver(behave) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        # Only who is waited for in vain is waited for briefly: a busy machine must not make a timeout of another failure.
        step(db, clock, setup, total_seconds=2 if error == "timeout" else 60)
        assert len(receiver.received) == 1
    row = delivery(db, id_)
    assert (row.state, row.last_status, row.last_error) == ("pending", status, error)
    assert row.due_at == NOW + 5_000
    assert subscription(db, id_).failing_since == NOW


def test_a_success_whose_body_never_ends_is_a_success(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    def accepts_and_talks(_r: Received, connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not closing.is_set():
            connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")

    log = Log(db)
    with Receiver(accepts_and_talks) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        step(db, clock, setup)
    assert delivery(db, id_).state == "delivered"


def test_of_an_answer_so_much_is_read_and_no_more(setup: WebhookSetup) -> None:
    """A long body is left where it is, and its connection with it; after a short one the connection is used again."""
    ports: list[int] = []

    def refuses(length: int) -> Callable[..., bytes]:
        def refuse(_request: Received, connection: socket.socket, _closing: threading.Event) -> bytes:
            ports.append(connection.getpeername()[1])
            return answer("404 Not Found", body=b"x" * length)

        return refuse

    async def twice(url: str) -> list[results.Attempt]:
        ready = Ready(Claimed("0190", "s", 1, 0), Endpoint("s", url, "v1a", None), b"{}")
        async with Sender(setup, system_clock) as sender:
            return [await sender.send(ready) for _ in range(2)]

    for length in (wire.MAX_ANSWER_BYTES - 1, 2**22):  # more than the sockets hold by themselves
        with Receiver(refuses(length)) as receiver:
            for attempt in asyncio.run(twice(receiver.url)):
                assert attempt.status == 404
                assert attempt.exchange is not None
                assert attempt.exchange.excerpt == "x" * MAX_EXCERPT
    assert [ports[0] == ports[1], ports[2] == ports[3]] == [True, False]


def test_nobody_listening_is_tried_again(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    log = Log(db)
    with Receiver() as gone:
        url = gone.url
    id_, _ = subscribe(db, setup, add_token(db), url)
    log.issue()
    step(db, clock, setup)
    assert (delivery(db, id_).state, delivery(db, id_).last_error) == ("pending", "connect")


# ── retries ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_is_retried_on_schedule_under_one_id_until_it_arrives(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(scripted(answer("500 Oops"), answer("500 Oops"), answer())) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        step(db, clock, setup)
        clock.now += 4_999
        assert step(db, clock, setup) == 0
        clock.now += 1
        assert step(db, clock, setup) == 1
        clock.now += retry.SCHEDULE_MS[1]
        assert step(db, clock, setup) == 1
        assert len(receiver.received) == 3
        assert len(set(receiver.ids())) == 1
        assert len({r.headers["webhook-signature"] for r in receiver.received}) == 3
        assert {r.body for r in receiver.received} == {receiver.received[0].body}
    row = delivery(db, id_)
    assert (row.state, row.attempts, row.finished_at) == ("delivered", 3, clock.now)
    assert subscription(db, id_).failing_since is None


def test_after_the_last_attempt_a_delivery_has_failed_and_its_subscription_goes_on(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(lambda *_: answer("500 Oops")) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        for wait in (0, *retry.SCHEDULE_MS):
            clock.now += wait
            assert step(db, clock, setup) == 1
    row = delivery(db, id_)
    assert (row.state, row.attempts, row.finished_at) == ("failed", 10, clock.now)
    assert subscription(db, id_).status == "active"


def test_retry_after_is_honoured_and_the_whole_endpoint_rests(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(scripted(answer("429 Too Many Requests", "Retry-After: 8"), answer())) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        step(db, clock, setup)
        assert delivery(db, id_).due_at == NOW + 8_000
        log.issue()
        clock.now += 7_999
        assert step(db, clock, setup) == 0
        clock.now += 1
        assert (
            step(db, clock, setup) == 1
        )  # one delivery tries the endpoint; that it arrives lets the others go
        assert step(db, clock, setup) == 1


def test_gone_disables_at_once_and_what_is_pending_waits(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(scripted(answer("410 Gone"), answer())) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        step(db, clock, setup)
        row = subscription(db, id_)
        assert (row.status, delivery(db, id_).state) == ("disabled", "failed")
        assert row.status_reason is not None
        assert "410" in row.status_reason
        log.issue()
        assert step(db, clock, setup) == 0
        with db.write() as session:
            health.resume(db, session, session.get_one(SubscriptionRow, id_), NOW)
        assert step(db, clock, setup) == 1
        assert len(receiver.received) == 2


def test_five_days_without_a_success_disable_a_subscription(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    with Receiver(lambda *_: answer("500 Oops")) as receiver:
        id_, _ = subscribe(db, setup, add_token(db), receiver.url)
        for day in range(6):
            clock.now = NOW + day * DAY
            log.issue()
            assert subscription(db, id_).status == "active"
            step(db, clock, setup)
    row = subscription(db, id_)
    assert (row.status, row.failing_since) == ("disabled", NOW)


# ── the gate, again, when it is sent ──────────────────────────────────────────────────────────────────────────────


def test_a_token_that_loses_its_scope_with_deliveries_pending_is_sent_nothing_more(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    id_, _ = subscribe(db, setup, token, receiver.url)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    with db.write() as session:
        session.get_one(ApiTokenRow, token).scopes = "read"
    step(db, clock, setup)
    assert receiver.received == []
    assert subscription(db, id_).status == "disabled"
    with db.write() as session:
        session.get_one(ApiTokenRow, token).scopes = "subscribe"
        health.resume(db, session, session.get_one(SubscriptionRow, id_), NOW)
    step(db, clock, setup)
    assert len(receiver.received) == 1
    assert delivery(db, id_).attempts == 1


@pytest.mark.parametrize(
    "change", [{"tlp_rank": 4}, {"audience_all": False}, {"content_state": "recalled"}, {"tlp_rank": 99}]
)
def test_a_notice_that_became_invisible_is_not_sent(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, change: dict[str, Any]
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db, ceiling=3), receiver.url)
    idx = log.issue()
    outbox.fan_out_step(db, clock, setup)
    log.set(idx, **change)
    step(db, clock, setup)
    assert receiver.received == []
    row = delivery(db, id_)
    assert (row.state, row.finished_at) == ("dropped", NOW)


def test_a_lowered_ceiling_holds_at_once(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db, ceiling=2)
    id_, _ = subscribe(db, setup, token, receiver.url)
    log.issue(tlp=2)
    outbox.fan_out_step(db, clock, setup)
    with db.write() as session:
        session.get_one(ApiTokenRow, token).ceiling = 1
    step(db, clock, setup)
    assert (receiver.received, delivery(db, id_).state) == ([], "dropped")


# ── workers that die, and several at once ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dies", ["after the claim", "after the post"])
def test_a_worker_that_dies_leaves_its_rows_to_the_next_under_the_same_id(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, dies: str
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), receiver.url)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    ready, _ = claims.prepare(db, clock(), setup, claims.claim(db, clock(), 10))
    if dies == "after the post":
        asyncio.run(deliver.send_once(setup, clock, ready[0]))
    clock.now += claims.LEASE_MS - 1
    assert step(db, clock, setup) == 0
    clock.now += 1
    assert step(db, clock, setup) == 1
    assert set(receiver.ids()) == {ready[0].claimed.id}
    assert len(receiver.received) == (2 if dies == "after the post" else 1)
    assert delivery(db, id_).state == "delivered"


def test_a_slow_workers_failure_does_not_undo_anothers_success(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), receiver.url)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    (slow,) = claims.claim(db, clock(), 10)
    clock.now += claims.LEASE_MS
    step(db, clock, setup)
    failure = results.Attempt(slow, clock(), 500, "status", 1)
    results.record(db, clock(), [failure], fraction=lambda: 0.5)
    assert delivery(db, id_).state == "delivered"


def test_workers_that_claim_at_once_never_get_the_same_row(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    for _ in range(3):
        subscribe(db, setup, token, "http://127.0.0.1:9999/")
    for _ in range(10):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claims.claim(db, NOW, 5), range(12)))
    ids = [c.id for claim in found for c in claim]
    assert len(ids) == len(set(ids))
    rest = [c.id for _ in range(10) for c in claims.claim(db, NOW, 30)]
    assert len(set(ids + rest)) == 30


def test_a_claim_is_spread_over_the_endpoints(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    busy, _ = subscribe(db, setup, token, "http://127.0.0.1:9999/")
    for _ in range(20):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    clock.now += 1
    quiet, _ = subscribe(db, setup, token, "http://127.0.0.1:9999/")
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    owners = [c.subscription_id for c in claims.claim(db, clock(), 6)]
    assert owners.count(quiet) == 1
    assert owners.count(busy) == 3
    assert claims.claim(db, clock(), 6, busy={busy: Busy(4)}) == []
    assert len(claims.claim(db, clock(), 100, busy={busy: Busy(3)})) == 1


def test_a_subscription_deleted_with_a_delivery_in_flight_takes_its_result_with_it(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    id_, _ = subscribe(db, setup, token, receiver.url)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    claimed = claims.claim(db, clock(), 10)
    with db.write() as session:
        subscriptions.remove(session, token, id_)
    assert claims.prepare(db, clock(), setup, claimed) == ([], [])
    results.record(
        db, clock(), [results.Attempt(claimed[0], clock(), 500, "status", 1)], fraction=lambda: 0.5
    )
    with db.read() as session:
        assert session.scalars(select(DeliveryRow.id)).all() == []


KILLED = """
import sys
from pathlib import Path
from app.clock import system_clock
from app.db import Database
from app.notify.claims import Busy
from app.notify.deliver import DeliveryLoop
from tests.notify.receivers import loopback_setup
DeliveryLoop(Database(sys.argv[1]), system_clock, loopback_setup(Path(sys.argv[2]))).run()
"""


def test_kill_9_while_the_receiver_holds_the_request_loses_nothing(
    db: Database, database_url: str, setup: WebhookSetup, tmp_path: Path
) -> None:
    log = Log(db)

    def first_hangs(request: Received, _c: socket.socket, closing: threading.Event) -> bytes:
        if len(receiver.received) == 1:
            closing.wait(30)
        return answer()

    with Receiver(first_hangs) as receiver:
        id_, secret = subscribe(db, setup, add_token(db, expires_at=system_clock() + DAY), receiver.url)
        log.issue()
        worker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                KILLED,
                db.url.render_as_string(hide_password=False),
                str(tmp_path / "keys"),
            ],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            assert receiver.arrived.acquire(timeout=60)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        assert delivery(db, id_).state == "pending"
        later = SettableClock(system_clock() + claims.LEASE_MS)
        assert step(db, later, setup) == 1
        assert len(receiver.received) == 2
        assert len(set(receiver.ids())) == 1
        assert secret is not None
        Webhook(signing.secret_text(secret)).verify(receiver.received[1].body, receiver.received[1].headers)
    assert delivery(db, id_).state == "delivered"


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loop_delivers_when_it_is_woken_and_stops_when_it_is_told(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), receiver.url)
    loop = DeliveryLoop(db, clock, setup, poll_seconds=30)
    loop.start()
    try:
        for n in range(20):
            log.issue()
            loop.wake()
            assert receiver.arrived.acquire(timeout=60), n
    finally:
        loop.stop()
    with db.read() as session:
        states = session.scalars(select(DeliveryRow.state).where(DeliveryRow.subscription_id == id_)).all()
    assert states == ["delivered"] * 20
    assert len(set(receiver.ids())) == 20


def test_the_loop_sees_what_another_process_commits_without_being_woken(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), receiver.url)
    # On SQLite its count of commits tells, without a look at the tables.
    watch = 3_600 if db.is_sqlite else 0.01
    loop = DeliveryLoop(db, clock, setup, poll_seconds=3_600, watch_seconds=watch)
    loop.start()
    try:
        for _ in range(2):  # the loop may not have looked for the first time when the first one came
            log.issue()
            assert receiver.arrived.acquire(timeout=60)
    finally:
        loop.stop()


@pytest.mark.parametrize("hinted", [True, False])
def test_the_loop_looks_at_no_events_while_nobody_subscribes_and_then_at_all(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, hinted: bool
) -> None:
    looks: list[int] = []
    asked: list[bool] = []

    class Counting(DeliveryLoop):
        def _look(self, *arguments: Any) -> Any:
            looks.append(1)
            return super()._look(*arguments)

        async def _has_news(self, thread: ThreadPoolExecutor) -> bool:
            asked.append(await super()._has_news(thread))
            return asked[-1]

    log = Log(db)
    loop = Counting(db, clock, setup, poll_seconds=3_600, watch_seconds=0.01)
    loop.start()
    try:
        log.issue()
        wait_until(lambda: asked)
        log.issue()
        before, done = len(looks), len(asked)
        loop.wake()
        wait_until(lambda: len(asked) > done)
        assert (len(looks), any(asked)) == (before, False)
        subscribe(db, setup, add_token(db), receiver.url)
        log.issue()
        if hinted:
            loop.wake()
        assert receiver.arrived.acquire(timeout=60)
    finally:
        loop.stop()


class Late(Database):
    """Its mark is taken as late as can be: something is committed just before, once."""

    just_before: Callable[[], object] | None = None

    def mark(self) -> object | None:
        just_before, self.just_before = self.just_before, None
        if just_before is not None:
            just_before()
        return super().mark()


def test_what_is_committed_between_a_look_and_the_glance_after_it_is_seen(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    late = Late(db.url.render_as_string(hide_password=False))
    late.just_before = Log(db).issue
    subscribe(db, setup, add_token(db), receiver.url)
    watch = 3_600 if db.is_sqlite else 0.01
    loop = DeliveryLoop(late, clock, setup, poll_seconds=3_600, watch_seconds=watch)
    loop.start()
    try:
        assert receiver.arrived.acquire(timeout=60)
    finally:
        loop.stop()
        late.dispose()


def test_attempts_are_counted_together_whichever_process_made_them(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), "http://127.0.0.1:9999/")
    for _ in range(2):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    here, there = claims.claim(db, clock(), 2)
    other = Database(db.url.render_as_string(hide_password=False))
    results.record(db, clock(), [results.Attempt(here, clock(), 204, None, 40)], fraction=lambda: 0.5)
    failure = results.Attempt(there, clock(), 500, "status", 20_000)
    results.record(other, clock(), [failure], fraction=lambda: 0.5)
    other.dispose()
    with db.read() as session:
        told = {(s.name, *s.labels.values()): s.value for m in metrics.read(session) for s in m.samples}
    assert told["verbale_webhook_attempts_total", "delivered"] == 1
    assert told["verbale_webhook_attempts_total", "status"] == 1
    seconds = "verbale_webhook_attempt_seconds"
    assert [told[f"{seconds}_bucket", le] for le in ("0.01", "0.05", "15.0", "+Inf")] == [0, 1, 1, 2]
    assert (told[f"{seconds}_count",], told[f"{seconds}_sum",]) == (2, 20.04)


def test_an_endpoint_that_hangs_does_not_hold_up_another(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, token = Log(db), add_token(db)
    with Receiver(hangs) as stuck:
        subscribe(db, setup, token, stuck.url)
        subscribe(db, setup, token, receiver.url)
        loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
        loop.start()
        try:
            for _ in range(2 * claims.PER_SUBSCRIPTION):
                log.issue()
                loop.wake()
                assert receiver.arrived.acquire(timeout=60)
            assert len(stuck.received) <= claims.PER_SUBSCRIPTION
        finally:
            stuck.closing.set()
            loop.stop()


def test_a_loop_that_meets_a_failing_database_goes_on_when_it_works_again(
    db: Database, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), receiver.url)
    log.issue()
    failures = iter([OSError("disk gone")] * 2)

    def clock() -> int:
        for failure in failures:
            raise failure
        return NOW

    loop = DeliveryLoop(db, clock, setup, poll_seconds=0.05)
    loop.start()
    try:
        assert receiver.arrived.acquire(timeout=60)
    finally:
        loop.stop()
    assert json.loads(receiver.received[0].body)["type"] == "notice.issued"
