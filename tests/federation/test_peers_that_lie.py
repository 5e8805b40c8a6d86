"""Peers that lie, cheat or say nothing: one log is shown to be in trouble and why; everything else goes on."""

from __future__ import annotations

import gc
import itertools
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update

from app.clock import system_clock
from app.domain.errors import NotAllowed, PeerFault
from app.domain.roster import LogStatus
from app.models import CosignatureRow, HeadRow, LogRow
from app.replication import witness as witnessing
from app.replication.client import PeerAnswerRefused, PeerClient, PeerUnreachable
from app.replication.follow import CorruptLeaves, StaleHead, follow_step
from app.replication.forks import CheckpointFork
from app.replication.promised import MAX_GROWTH
from app.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from app.tlog.fsck import Keys, check_log
from app.tlog.note import VerifierKey
from app.tlog.witness import CheckpointForked, Submission
from tests import examples
from tests.federation.world import Peer, Rule, World, answer, origin_of, seeded, url_of

Answer = Callable[[Peer, httpx.Request], httpx.Response]


def post(peer: Peer, title: str) -> None:
    peer.must_post(peer.officer.sign(examples.denied_end_user(issuer=peer.state, title=title)))


def offer(peer: Peer, endpoint: witnessing.WitnessEndpoint) -> bool:
    """One offer of a log's newest head to one witness."""
    node, world = peer.node, peer.world
    return witnessing.offer_step(peer.db, node.client, endpoint, node.log_id, world.roster, now=world.clock())


def instead(peer: Peer, pattern: str, give: Answer) -> Rule:
    """Answer requests whose URL matches with something else."""

    def rule(request: httpx.Request) -> httpx.Response | None:
        return give(peer, request) if re.search(pattern, str(request.url)) else None

    return rule


def honest(peer: Peer, request: httpx.Request) -> bytes:
    return peer.line.honest(request).read()


def raising(error: type[httpx.TransportError]) -> Answer:
    def give(peer: Peer, request: httpx.Request) -> httpx.Response:
        raise error("as if", request=request)

    return give


def cut_off(peer: Peer, request: httpx.Request) -> httpx.Response:
    def pieces() -> Iterator[bytes]:
        yield honest(peer, request)[:20]
        raise httpx.ReadError("connection lost", request=request)

    return answer(200, pieces())


def endless(peer: Peer, request: httpx.Request) -> httpx.Response:
    return answer(200, itertools.repeat(b"\x00" * 65_536))


def flipped(at: int) -> Answer:
    def give(peer: Peer, request: httpx.Request) -> httpx.Response:
        body = bytearray(honest(peer, request))
        body[at] ^= 1
        return answer(200, bytes(body))

    return give


def cut_short(peer: Peer, request: httpx.Request) -> httpx.Response:
    return answer(200, honest(peer, request)[:-5])


def longer(peer: Peer, request: httpx.Request) -> httpx.Response:
    return answer(200, honest(peer, request) + b"\x00\x01x")


def another_logs_checkpoint(peer: Peer, request: httpx.Request) -> httpx.Response:
    return answer(200, honest(peer, httpx.Request("GET", f"{url_of('EE')}/log/1/checkpoint")))


def signed_by_another_key(peer: Peer, request: httpx.Request) -> httpx.Response:
    head = Checkpoint(origin_of("US"), 2, b"\x07" * 32)
    return answer(200, sign_checkpoint(head, seeded("an impostor")).encode())


CHECKPOINT, BUNDLE, TILE = r"/checkpoint$", r"/tile/entries/", r"/tile/\d/"
LIES: dict[str, tuple[str, Answer, str]] = {
    "nothing_at_all": (CHECKPOINT, raising(httpx.ConnectError), "peer-unreachable"),
    "an_answer_that_never_comes": (CHECKPOINT, raising(httpx.ReadTimeout), "peer-unreachable"),
    "a_broken_protocol": (CHECKPOINT, raising(httpx.RemoteProtocolError), "peer-unreachable"),
    "an_answer_cut_off": (CHECKPOINT, cut_off, "peer-unreachable"),
    "a_bundle_cut_off": (BUNDLE, cut_off, "peer-unreachable"),
    "an_error": (CHECKPOINT, lambda *_: answer(500, b"oops"), "peer-answer-refused"),
    "no_log": (CHECKPOINT, lambda *_: answer(404), "log-not-served"),
    "a_redirect": (
        CHECKPOINT,
        lambda *_: answer(302, location="http://evil.example/"),
        "peer-answer-refused",
    ),
    "a_redirected_bundle": (BUNDLE, lambda *_: answer(307, location=url_of("EE")), "peer-answer-refused"),
    "an_empty_answer": (CHECKPOINT, lambda *_: answer(200), "peer-answer-refused"),
    "garbage": (CHECKPOINT, lambda *_: answer(200, bytes(range(256))), "peer-answer-refused"),
    "a_page": (CHECKPOINT, lambda *_: answer(200, b"<html>Sign in to the hotel"), "peer-answer-refused"),
    "an_endless_checkpoint": (CHECKPOINT, endless, "peer-answer-refused"),
    "an_endless_bundle": (BUNDLE, endless, "peer-answer-refused"),
    "a_wrong_signature": (CHECKPOINT, flipped(-10), "peer-answer-refused"),
    "a_changed_root": (CHECKPOINT, flipped(35), "peer-answer-refused"),
    "another_logs_checkpoint": (CHECKPOINT, another_logs_checkpoint, "peer-answer-refused"),
    "a_checkpoint_by_another_key": (CHECKPOINT, signed_by_another_key, "peer-answer-refused"),
    "a_wrong_bundle": (BUNDLE, flipped(-1), "corrupt-leaves"),
    "a_short_bundle": (BUNDLE, cut_short, "corrupt-leaves"),
    "a_long_bundle": (BUNDLE, longer, "corrupt-leaves"),
    "a_bundle_of_garbage": (BUNDLE, lambda *_: answer(200, b"\xff" * 999), "corrupt-leaves"),
    "no_bundle": (BUNDLE, lambda *_: answer(404), "peer-answer-refused"),
    "wrong_bundles_and_tiles": (rf"{BUNDLE}|{TILE}", flipped(-1), "corrupt-leaves"),
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[tuple[Peer, Peer, Peer]]:
    """US, whose log will lie to NL; EE, whose log will not; NL. Each test leaves NL in step with both."""
    world = World(tmp_path_factory.mktemp("three"), templates)
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "the very first")
    nl.sync(us)
    yield us, ee, nl
    world.close()


@pytest.mark.parametrize("name", LIES)
def test_a_log_that_lies_is_left_as_it_was_and_the_others_go_on(
    three: tuple[Peer, Peer, Peer], name: str
) -> None:
    pattern, give, code = LIES[name]
    us, ee, nl = three
    size = nl.log(us).size
    post(us, f"{name}: hidden by the lie")
    post(ee, f"{name}: elsewhere")
    us.publish()
    nl.line.rules = [instead(nl, rf"{re.escape(url_of('US'))}.*({pattern})", give)]

    with pytest.raises(PeerFault) as caught:
        nl.follow(us)
    nl.judge(us)
    assert caught.value.code == code

    seen = nl.federation(us)
    assert (seen["size"], seen["status"], seen["in_step"]) == (size, "ok", False)
    assert seen["error"]["code"] == code
    assert seen["error"]["detail"]
    assert nl.records() == []
    nl.sync(ee)
    assert nl.titles(limit="1") == [f"{name}: elsewhere"]

    nl.line.rules = []
    nl.sync(us)
    assert nl.titles(limit="1") == [f"{name}: hidden by the lie"]
    seen = nl.federation(us)
    assert (seen["size"], seen["in_step"], seen["error"]) == (size + 1, True, None)


# ── other sources ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def four(tmp_path: Path, templates: Path) -> Iterator[World]:
    """The mirror that is asked first, of JP, can be made to lie; NL's, which is asked next, is honest."""
    world = World(tmp_path / "world", templates, codes=("EE", "US", "JP", "NL"))
    yield world
    world.close()


def down(peer: Peer, state: str) -> None:
    peer.line.rules.append(instead(peer, rf"^{re.escape(url_of(state))}/", raising(httpx.ConnectError)))


@pytest.mark.parametrize("pattern", [BUNDLE, rf"{BUNDLE}|{TILE}", CHECKPOINT])
def test_a_corrupt_mirror_accuses_nobody_and_another_is_used(four: World, pattern: str) -> None:
    ee, us, jp, nl = (four.make(code) for code in ("EE", "US", "JP", "NL"))
    post(ee, "first")
    us.sync(ee)
    post(ee, "second")
    jp.sync(ee)
    nl.sync(ee)
    down(us, "EE")
    us.line.rules.append(instead(us, rf"^{re.escape(url_of('JP'))}/mirror/.*({pattern})", flipped(-1)))

    us.follow(ee)

    seen = us.federation(ee)
    assert (seen["size"], seen["status"], seen["error"]["code"]) == (2, "ok", "peer-unreachable")
    assert us.records() == []
    assert any(url.startswith(f"{url_of('NL')}/mirror/") for url in us.line.asked)


def test_leaves_and_bodies_come_from_another_holder_while_the_origin_is_down(four: World) -> None:
    ee, us, jp = four.make("EE"), four.make("US"), four.make("JP")
    post(ee, "first")
    jp.sync(ee)
    down(us, "EE")
    us.follow(ee)
    us.judge(ee)
    assert us.titles() == ["first"]


def test_a_body_that_only_the_origin_may_give_waits_until_it_is_back(four: World) -> None:
    """The other node mirrors the leaf and is no addressee: that it says nothing of the body says nothing."""
    ee, us, jp = four.make("EE"), four.make("US"), four.make("JP")
    main = examples.denied_end_user(issuer="EE", title="for US", tlp="TLP:RED", audience=["US"])
    ee.must_post(ee.officer.sign(main))
    jp.sync(ee)
    down(us, "EE")
    us.follow(ee)
    us.judge(ee)
    assert us.entry(ee, 0).body_state == "wanted"
    us.line.rules = []
    us.judge(ee)
    assert us.titles() == ["for US"]


def test_a_mirror_that_lags_is_no_fault(four: World) -> None:
    ee, us, jp = four.make("EE"), four.make("US"), four.make("JP")
    post(ee, "first")
    jp.sync(ee)
    post(ee, "second")
    us.sync(ee)
    down(us, "EE")
    with pytest.raises(PeerUnreachable):
        us.follow(ee)
    assert us.federation(ee)["error"]["code"] == "peer-unreachable"
    assert us.log(ee).status == "ok"


# ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def heads_of(record: dict[str, str], world: World) -> list[Checkpoint]:
    """The two heads of a record of evidence, each with a signature that holds."""
    keys = [VerifierKey(record["origin"], k.key) for k in world.roster.keys_of("US", "log")]
    return [
        open_checkpoint(record[which].encode(), keys, record["origin"])[0] for which in ("older", "newer")
    ]


def cosigned(peer: Peer, of: Peer) -> int:
    with peer.db.read() as session:
        return session.execute(
            select(func.count()).select_from(CosignatureRow).where(CosignatureRow.log_id == peer.log(of).id)
        ).scalar_one()


@pytest.mark.parametrize(
    ("first", "second"), [(3, 3), (3, 4), (4, 3)], ids=["same size", "larger", "smaller"]
)
def test_a_log_with_two_histories_is_frozen_with_evidence(world: World, first: int, second: int) -> None:
    """A backup is restored, and the State goes on from it as if nothing had happened: the commonest fork."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    post(us, "two")
    restore = world.back_up("US")
    for n in range(2, first):
        post(us, f"first history {n}")
    nl.sync(us)
    other = restore()
    for n in range(2, second):
        post(other, f"second history {n}")
    other.publish()
    before = cosigned(nl, us)

    with pytest.raises(CheckpointFork):
        nl.follow(other)

    seen = nl.federation("US")
    assert (seen["status"], seen["size"], seen["error"]["code"]) == ("frozen", first, "checkpoint-fork")
    (record,) = nl.records()
    older, newer = heads_of(record, world)
    assert {older.size, newer.size} == {first, second}
    assert older.root != newer.root

    assert check_log(nl.db, nl.log(us).id, Keys.of(world.roster)).difference is None

    # Never cosigned again, whatever is offered, and not asked again.
    post(other, "goes on")
    other.publish()
    asked = len(nl.line.asked)
    nl.follow(other)
    endpoint = next(e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises((PeerFault, witnessing.WitnessAhead)):
        offer(other, endpoint)
    assert (
        witnessing.cosign_head(nl.db, nl.log(other).id, nl.node.witness, world.roster, now=world.clock())
        is None
    )
    assert cosigned(nl, other) == before
    assert nl.log("US").size == first
    assert len(nl.line.asked) == asked

    # What was had before stays, and the others' logs go on.
    post(ee, "elsewhere")
    nl.sync(ee)
    assert nl.titles()[0] == "elsewhere"
    assert nl.titles(issuer="US") == [f"first history {n}" for n in range(first - 1, 1, -1)] + ["two", "one"]


def test_a_log_that_goes_back_in_time_is_stale_and_no_fork(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    us.publish()
    restore = world.back_up("US")
    post(us, "two")
    nl.sync(us)
    other = restore()
    with pytest.raises(StaleHead):
        nl.follow(other)
    seen = nl.federation("US")
    assert (seen["status"], seen["size"], seen["error"]["code"]) == ("ok", 2, "stale-head")
    (item,) = nl.get("/evidence")["items"]
    assert (item["type"], item["convicts"]) == ("rollback", False)


def test_a_node_restored_from_a_backup_learns_from_a_witness_that_it_is_behind(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    us.publish()
    restore = world.back_up("US")
    post(us, "two")
    nl.sync(us)
    other = restore()
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises(witnessing.WitnessAhead):
        offer(other, endpoint)


def test_a_forked_checkpoint_that_is_offered_is_not_cosigned(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    restore = world.back_up("US")
    post(us, "two")
    nl.sync(us)
    before = cosigned(nl, us)
    other = restore()
    post(other, "not two")
    post(other, "three")
    other.publish()
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises(PeerFault):
        offer(other, endpoint)
    assert cosigned(nl, other) == before
    assert nl.log("US").size == 2


def test_a_fork_that_is_offered_at_the_same_size_is_kept_and_freezes_the_log(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    restore = world.back_up("US")
    post(us, "two")
    nl.sync(us)
    other = restore()
    post(other, "not two")
    other.publish()
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises(PeerFault, match="status 422"):
        offer(other, endpoint)
    submission = Submission(2, (), head_note(other))
    with pytest.raises((CheckpointForked, NotAllowed)):
        nl.node.take_submission(submission)
    assert nl.log("US").status == "frozen"
    (record,) = nl.records()
    assert record["older"].splitlines()[1] == record["newer"].splitlines()[1] == "2"
    assert record["older"].splitlines()[2] != record["newer"].splitlines()[2]


def head_note(peer: Peer) -> bytes:
    with peer.db.read() as session:
        note = session.execute(select(LogRow.head_note).where(LogRow.is_own)).scalar_one()
    assert note is not None
    return bytes(note)


@pytest.mark.parametrize("status", ["frozen", "closed"])
def test_a_log_the_roster_lists_as_ended_is_mirrored_and_confirmed_no_more(
    world: World, status: LogStatus
) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    nl.sync(us)
    before = cosigned(nl, us)
    (listed,) = world.roster.states["US"].logs
    world.change_state("US", logs=(replace(listed, status=status),))
    post(us, "two")
    nl.sync(us)
    assert (nl.log(us).head_size, cosigned(nl, us)) == (2, before)
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises(PeerFault, match="status 403"):
        offer(us, endpoint)
    assert cosigned(nl, us) == before


def test_a_log_that_signs_an_absurd_size_costs_a_mirror_nothing(world: World) -> None:
    """Tiles to match could be made up for ever; none is asked for."""
    us, nl = world.make("US"), world.make("NL")
    nl.sync(us)
    absurd = Checkpoint(us.node.origin, MAX_GROWTH + 1_000, b"\x01" * 32)
    note = sign_checkpoint(absurd, us.node.keys.log).encode()
    asked: list[str] = []

    def lie(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return answer(200, note if request.url.path.endswith("/checkpoint") else b"\x02" * 8_192)

    (listed,) = world.roster.states["US"].logs
    with peer_that(lie) as client, pytest.raises(PeerAnswerRefused, match="at most"):
        follow_step(nl.db, client, nl.log(us).id, listed.url, world.roster, clock=world.clock)
    assert [path for path in asked if "/tile/" in path] == []


@contextmanager
def peer_that(lie: Callable[[httpx.Request], httpx.Response]) -> Iterator[PeerClient]:
    client = PeerClient(system_clock, transport=httpx.MockTransport(lie))
    yield client
    client.close()


def test_an_offer_is_cosigned_only_when_its_leaves_are_stored(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    nl.followed(us)
    post(us, "one")
    us.publish()
    nl.line.rules = [instead(nl, BUNDLE, lambda *_: answer(404))]
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, "US") if e.state == "NL")
    with pytest.raises(PeerFault):
        offer(us, endpoint)
    assert (nl.log(us).size, cosigned(nl, us), cosigned(us, us)) == (0, 0, 0)
    nl.line.rules = []
    assert offer(us, endpoint)
    assert (nl.log(us).size, cosigned(nl, us), cosigned(us, us)) == (1, 1, 1)


def test_an_expired_roster_goes_on_mirroring_and_confirms_nothing(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    world.clock.ms = world.roster.expires * 1000 + 1
    nl.sync(us)
    assert (nl.log(us).size, cosigned(nl, us)) == (1, 0)
    warnings = nl.get("/v1/federation")["roster"]["warnings"]
    assert "roster-expired" in [w["code"] for w in warnings]


def test_a_submission_for_a_log_nobody_listed_is_refused(world: World) -> None:
    nl = world.make("NL")
    head = Checkpoint("evil.example/log/1", 1, b"\x01" * 32)
    submission = Submission(0, (), sign_checkpoint(head, seeded("evil")).encode())
    response = nl.request("POST", "/witness/add-checkpoint", content=submission.encode())
    assert response.status_code == 404
    with nl.db.read() as session:
        assert session.execute(select(func.count()).select_from(HeadRow)).scalar_one() == 0


def test_a_mirror_whose_store_was_damaged_does_not_accuse_the_origin(world: World) -> None:
    """Our own frontier changed: what the origin serves proves itself, so there is no fork."""
    us, nl = world.make("US"), world.make("NL")
    post(us, "one")
    nl.sync(us)
    with nl.db.write() as session:
        frontier = bytearray(nl.log(us).frontier)
        frontier[-1] ^= 1
        session.execute(
            update(LogRow).where(LogRow.origin == origin_of("US")).values(frontier=bytes(frontier))
        )
    post(us, "two")
    us.publish()
    with pytest.raises(CorruptLeaves):
        nl.follow(us)
    assert (nl.log(us).status, nl.log(us).size) == ("ok", 1)
    assert nl.records() == []


# ── on the wire itself ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def talking(behaviour: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server on a real socket that does `behaviour` with its first connection. Yields its URL."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                try:
                    connection.recv(65_536)
                    behaviour(connection, over)
                except OSError:
                    pass  # the client went away: that is what is tested

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/checkpoint"
        finally:
            over.set()
            thread.join(60)


def _says(*pieces: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return behave


def _hangs(connection: socket.socket, over: threading.Event) -> None:
    over.wait(10)


def _trickles(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
    while not over.wait(0.02):
        connection.sendall(b"x")


def _floods(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not over.is_set():
        connection.sendall(b"x" * 65_536)


def _floods_the_header(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.is_set():
        connection.sendall(b"x-more: " + b"x" * 4000 + b"\r\n")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (_hangs, PeerUnreachable),
        (_trickles, PeerUnreachable),
        (_floods, PeerAnswerRefused),
        (_floods_the_header, PeerUnreachable),
        (_says(b"220 mail.example ESMTP\r\n"), PeerUnreachable),
        (_says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"), PeerUnreachable),
        (
            _says(b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
            PeerAnswerRefused,
        ),
        (_says(b""), PeerUnreachable),
    ],
    ids=[
        "hangs",
        "trickles",
        "floods",
        "floods the header",
        "is no web server",
        "breaks off",
        "redirects",
        "hangs up",
    ],
)
def test_a_peer_on_the_wire_that(
    behaviour: Callable[[socket.socket, threading.Event], None], error: type[PeerFault]
) -> None:
    client = PeerClient(system_clock, timeout_s=0.2)
    try:
        with talking(behaviour) as url, pytest.raises(error):
            client.get(url, limit=65_536)
    finally:
        client.close()


def test_what_was_asked_does_not_stay_until_the_collector_comes_by() -> None:
    """It comes seldom in a process that runs a node; twenty megabytes lay there after a catch-up of 100,000 notices."""
    asked: list[weakref.ref[httpx.Request]] = []

    def give(request: httpx.Request) -> httpx.Response:
        asked.append(weakref.ref(request))
        return answer(200, iter([b"a", b"b"]))

    client = PeerClient(system_clock, transport=httpx.MockTransport(give))
    gc.disable()
    try:
        client.post("http://ee.example/bodies", b"which", limit=100)
        client.get("http://ee.example/checkpoint", limit=100)
    finally:
        gc.enable()
    assert [request() for request in asked] == [None, None]
    client.close()


def test_nobody_listening_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client = PeerClient(system_clock, timeout_s=0.5)
    with pytest.raises(PeerUnreachable):
        client.get(f"http://127.0.0.1:{port}/checkpoint", limit=100)
    client.close()


def test_an_answer_that_claims_to_be_compressed_is_not_unpacked() -> None:
    bomb = b"\x1f\x8b\x08\x00"
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n"
    client = PeerClient(system_clock, timeout_s=1)
    with talking(_says(head + bomb)) as url:
        assert client.get(url, limit=100) == bomb
    client.close()


def test_a_whole_answer_has_its_time_however_quick_each_piece_comes() -> None:
    seconds = itertools.count(0, 40)  # of its clock, between two looks at it
    pieces = httpx.MockTransport(lambda _: answer(200, iter([b"a", b"b"])))
    client = PeerClient(system_clock, timeout_s=10, transport=pieces, timer=lambda: float(next(seconds)))
    with pytest.raises(PeerUnreachable, match="longer than 60 seconds"):
        client.get("https://ee.example/checkpoint", limit=10)
    client.close()


@pytest.mark.parametrize(
    ("off_ms", "head_s", "body_s", "shown_ms"),
    [
        (0, 0, 0, 0),
        (-1_900, 0, 0, 0),  # within what the header leaves open
        (0, 30, 0, 0),  # it was written at any moment since we asked
        (0, 0, 30, 0),  # a long body says nothing of a clock
        (90_000, 5, 30, 90_000),
        (-90_000, 5, 30, -83_000),  # two seconds of the header, five until it came
    ],
)
def test_a_clock_is_off_by_the_least_that_explains_its_date(
    off_ms: int, head_s: int, body_s: int, shown_ms: int
) -> None:
    now = 1_790_000_000_000

    def wait(seconds: int) -> None:
        nonlocal now
        now += seconds * 1000

    def give(_request: httpx.Request) -> httpx.Response:
        wait(head_s)
        date = format_datetime(datetime.fromtimestamp((now + off_ms) // 1000, UTC), usegmt=True)

        def body() -> Iterator[bytes]:
            wait(body_s)
            yield b"a"

        return httpx.Response(200, headers={"date": date}, content=body())

    client = PeerClient(lambda: now, transport=httpx.MockTransport(give), timer=lambda: 0.0)
    client.get("https://ee.example/checkpoint", limit=10)
    assert client.skew_ms == shown_ms
    client.close()
