"""The lease of a log: of two processes on one key, on copies of one disk, never more than one signs."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import pytest

from app.domain.errors import MalformedRequest
from app.domain.lease import MAX_LEASE_S, MAX_OVER, Claim
from app.place import Place
from app.replication import lease as leases
from app.replication.forks import watch_log
from app.replication.lease import LogHeld
from app.replication.signatures import sign_request
from tests.federation import test_evidence
from tests.federation.test_startup import _main, _serve, heads, is_open, start_gate
from tests.federation.world import Peer, World, answer, url_of

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def run_at(peer: Peer) -> Peer:
    """What a start does with its folder and gate, without the loops."""
    peer.node.gate.lease.place = Place.take(peer.settings.data_dir)
    start_gate(peer)
    return peer


def post(peer: Peer, title: str) -> None:
    """Post at this very process: a copy has the same address."""
    _serve(peer)
    test_evidence.post(peer, title)


def titles(peer: Peer) -> list[str]:
    """What this very process shows."""
    _serve(peer)
    return peer.titles()


def end(peer: Peer) -> None:
    """The process is gone; nobody is told."""
    place = peer.node.gate.lease.place
    assert place is not None
    place.leave()
    peer.node.gate.lease.place = None


@dataclass
class Twins:
    """US in a federation, and a process on a copy of its disk, with the others."""

    us: Peer
    twin: Peer
    others: tuple[Peer, ...]
    world: World

    def signed_one_root_for_each_size(self) -> bool:
        here, there = heads(self.us), heads(self.twin)
        return all(there[size] == root for size, root in here.items() if size in there)


def twins(world: World, *others: str) -> Twins:
    """US has one notice that everybody has; its disk was copied since. Neither runs."""
    us, rest = world.make("US"), tuple(world.make(code) for code in others)
    post(us, "one")
    for peer in rest:
        peer.sync(us)
    copy = world.back_up("US")
    return Twins(us, copy(), rest, world)


def test_a_copy_of_a_running_node_signs_and_takes_nothing(world: World) -> None:
    t = twins(world, "EE", "NL")
    assert is_open(run_at(t.us))
    run_at(t.twin)
    assert not is_open(t.twin)
    assert "runs twice" in t.twin.node.gate.why
    assert "EE, NL" in t.twin.node.gate.why
    _serve(t.twin)
    refused = t.twin.post(t.twin.officer.sign(_main("from the copy")))
    assert (refused.status_code, refused.json()["type"].split("#")[1]) == (503, "node-starting")
    post(t.us, "two")
    assert t.us.node.gate.may_sign()
    t.us.publish()
    t.twin.publish()
    assert set(heads(t.us)) == {1, 2}
    assert set(heads(t.twin)) == {1}


def test_heads_are_asked_for_after_the_lease_was_given(world: World) -> None:
    """Or another process could sign between what was shown and the lease, and this one would not know."""
    t = twins(world, "EE", "NL")
    t.us.line.asked.clear()
    run_at(t.us)
    asked = [url.rsplit("/", 1)[1] for url in t.us.line.asked if "/witness/" in url]
    assert asked[:2] == ["lease", "lease"]
    assert sorted(set(asked[2:])) == ["checkpoint", "seen"]


def test_the_copy_follows_once_nothing_is_heard_of_the_other_and_goes_on_where_that_was(world: World) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    post(t.us, "two")
    for peer in t.others:
        peer.sync(t.us)
    run_at(t.twin)
    end(t.us)
    t.us.close()
    world.clock.tick(59)
    t.twin.node.gate.step()
    assert not is_open(t.twin)
    world.clock.tick(1)
    t.twin.node.gate.step()
    assert is_open(t.twin)
    assert titles(t.twin) == ["two", "one"]
    assert t.signed_one_root_for_each_size()


def test_a_process_that_slept_while_another_followed_signs_nothing_and_comes_back_when_that_is_gone(
    world: World,
) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    world.clock.tick(61)  # it sleeps, as a machine that was suspended does, and renews nothing
    assert is_open(run_at(t.twin))
    post(t.twin, "two, by the copy")
    for peer in t.others:
        peer.sync(t.twin)
    assert not t.us.node.gate.may_sign()  # what `Node.publish` asks first
    t.us.node.publish()
    assert set(heads(t.us)) == {1}
    assert not is_open(t.us)
    assert _fault(t.us) == "log-held"

    end(t.twin)
    world.clock.tick(61)
    t.us.node.gate.step()
    assert is_open(t.us)
    assert _fault(t.us) is None
    assert titles(t.us) == ["two, by the copy", "one"]
    assert t.signed_one_root_for_each_size()


def test_what_was_taken_before_a_process_slept_is_not_signed_once_another_has_followed(world: World) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    post(t.us, "two, not signed yet")
    world.clock.tick(61)
    assert is_open(run_at(t.twin))
    t.us.node.publish()
    assert set(heads(t.us)) == {1}


def test_the_one_that_renews_keeps_it(world: World) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    for _ in range(10):
        world.clock.tick(20)
        t.us.node.gate.hold()
        t.twin.node.gate.step() if t.twin.node.gate.lease.place else run_at(t.twin)
        assert is_open(t.us)
        assert not is_open(t.twin)


def test_a_node_that_nobody_answers_goes_on(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    run_at(us)
    us.line.rules = [_cut_off]
    world.clock.tick(3600)
    us.node.gate.hold()
    us.line.asked.clear()
    assert us.node.gate.may_sign()
    assert us.line.asked == []  # not at every head: to be answered by nobody takes seconds
    post(us, "two")
    us.publish()
    assert set(heads(us)) == {1, 2}
    world.clock.tick(21)
    assert us.node.gate.may_sign()
    assert len(us.line.asked) == 2


def _cut_off(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route", request=request)


def test_one_state_that_refuses_for_no_reason_stops_nobody(five: World) -> None:
    t = twins(five, "EE", "NL", "JP", "FI")
    t.us.line.rules = [_liar("FI")]
    assert is_open(run_at(t.us))
    five.clock.tick(20)
    t.us.node.gate.hold()
    assert t.us.node.gate.may_sign()


def _liar(code: str) -> Any:
    def rule(request: httpx.Request) -> httpx.Response | None:
        url = str(request.url)
        return answer(409) if url.startswith(url_of(code)) and url.endswith("/lease") else None

    return rule


def test_a_node_that_too_few_let_sign_stays_closed_and_says_what_they_said(world: World) -> None:
    t = twins(world, "EE", "NL")
    t.us.line.rules = [lambda request: answer(401, b"clock") if str(request.url).endswith("/lease") else None]
    run_at(t.us)
    assert not is_open(t.us)
    assert "EE: status 401 clock" in t.us.node.gate.why
    t.us.line.rules = [  # a node of a version that knows no leases
        lambda request: answer(404) if str(request.url).endswith("/lease") else None
    ]
    t.us.node.gate.step()
    assert is_open(t.us)


def test_the_operator_vouches_for_those_that_do_not_answer_and_not_against_one_that_refuses(
    world: World,
) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    t.twin.line.rules = [_silent("NL")]
    run_at(t.twin)
    with t.twin.db.write() as session:
        watch_log(t.twin.db, session, t.twin.log().id, vouched_size=1)
    t.twin.node.gate.step()
    assert not is_open(t.twin)
    world.clock.tick(61)
    t.twin.node.gate.step()
    assert is_open(t.twin)


def _silent(code: str) -> Any:
    def rule(request: httpx.Request) -> httpx.Response | None:
        if str(request.url).startswith(url_of(code)):
            raise httpx.ConnectError("no route", request=request)
        return None

    return rule


@pytest.mark.parametrize("seed", range(6))
def test_of_two_copies_that_start_at_once_at_most_one_signs(five: World, seed: int) -> None:
    """Whatever order their questions arrive in, whoever is not answered, and however often both try."""
    rng = random.Random(seed)  # noqa: S311 - a test's
    t = twins(five, "EE", "NL", "JP", "FI")
    five.clock.tick(61)
    pair = [t.us, t.twin]
    for peer in pair:
        peer.line.rules = [_rough(rng)]
        peer.node.gate.lease.place = Place.take(peer.settings.data_dir)
        peer.node.gate.close()
        (peer.settings.data_dir / "first-start").unlink(missing_ok=True)
    for turn in range(40):
        peer = rng.choice(pair)
        rng.choice((peer.node.gate.step, peer.node.gate.hold))()
        if is_open(peer) and rng.randrange(2) and peer.node.gate.may_sign():
            post(peer, f"{turn} by {peer.settings.data_dir.name}")
            peer.publish()
            for other in rng.sample(t.others, 3):
                other.sync(peer)
        five.clock.tick(rng.choice((1, 5, 19)))
        assert t.signed_one_root_for_each_size()


def _rough(rng: random.Random) -> Any:
    """One answer in eight is lost, of a State drawn each time; that is fewer than a quorum can lack."""

    def rule(request: httpx.Request) -> httpx.Response | None:
        if str(request.url).endswith("/lease") and rng.randrange(8) == 0:
            raise httpx.ReadTimeout("lost", request=request)
        return None

    return rule


def test_a_second_worker_on_the_same_database_disturbs_nobody(world: World) -> None:
    """It runs in another folder, as on another machine: another run, which the others refuse."""
    t = twins(world, "EE", "NL")
    run_at(t.us)
    elsewhere = t.us.settings.data_dir.parent / "elsewhere"
    elsewhere.mkdir()
    first, gate = t.us.node.gate.lease, t.us.node.gate
    second = Peer(world, t.us.settings)
    second.node.gate.lease.place = Place.take(elsewhere)
    second.node.gate.close()
    for _ in range(3):
        second.node.gate.step()
        gate.step()
        assert is_open(t.us)
        second.node.gate.hold()
        assert is_open(t.us)
        world.clock.tick(20)
        gate.hold()
    assert first.is_current()
    assert _fault(t.us) is None
    second.node.stop()


def test_a_suspended_state_whom_nobody_answers_keeps_its_log(world: World) -> None:
    t = twins(world, "EE", "NL")
    world.change_state("US", status="suspended")
    assert is_open(run_at(t.us))
    assert t.us.node.gate.may_sign()


# ── giving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def give(peer: Peer, run: str, *over: str, at: int, for_s: int = 60) -> None:
    leases.give(peer.db, peer.log("US").id, Claim(run, over, for_s), now=at * 1000)


def test_a_lease_is_given_renewed_and_ended(world_on_both: World) -> None:
    us, ee = world_on_both.make("US"), world_on_both.make("EE")
    post(us, "one")
    ee.sync(us)
    give(ee, A, at=100)
    give(ee, A, at=150)
    with pytest.raises(LogHeld, match=r"heard of 59 s ago.*in 1 s"):
        give(ee, B, at=209)
    with pytest.raises(LogHeld):
        give(ee, B, C, at=209)  # it knows that another run is over
    give(ee, B, A, at=209)  # and now that this one is
    with pytest.raises(LogHeld):
        give(ee, A, at=210)
    give(ee, C, at=269)  # its time is over


def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_the_lease(world: World) -> None:
    us, ee = world.make("US"), world.make("EE")
    post(us, "one")
    ee.sync(us)
    give(ee, A, at=100_000)
    with pytest.raises(LogHeld):
        give(ee, B, at=1_000)
    with pytest.raises(LogHeld):
        give(ee, B, at=1_059)
    give(ee, B, at=1_060)


def ask(at: Peer, state: str, *, of: str = "US", body: bytes | None = None, signed: bool = True) -> Any:
    """A request for the lease of a State's log, signed by the node of a State."""
    world = at.world
    path = f"/witness/{sha256(world.peers[of].node.origin.encode()).hexdigest()}/lease"
    body = Claim(A, (), 60).encode() if body is None else body
    node = world.peers[state].node
    headers = {"content-type": "application/json"}
    if signed:
        kid = node.kid("transport", node.keys.transport)
        url = f"{at.settings.public_url}{path}"
        now = world.clock() // 1000
        headers |= sign_request("POST", url, body, signer=node.keys.transport, kid=kid, at=now)
    return at.request("POST", path, content=body, headers=headers)


def test_only_the_logs_own_state_is_given_it(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    ee.sync(us)
    assert ask(ee, "NL").status_code == 403
    assert ask(ee, "US", signed=False).status_code == 403
    assert ask(nl, "US").status_code == 404  # it does not follow that log yet
    assert ask(ee, "US").json() == {"held": True}
    refused = ask(ee, "US", body=Claim(B, (), 60).encode())
    assert (refused.status_code, refused.json()["type"].split("#")[1]) == (409, "log-held")


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"run": A, "over": []},
        {"run": A, "over": [], "for_s": 60, "more": 1},
        {"run": A[:-1], "over": [], "for_s": 60},
        {"run": A.upper(), "over": [], "for_s": 60},
        {"run": 7, "over": [], "for_s": 60},
        {"run": A, "over": A, "for_s": 60},
        {"run": A, "over": [None], "for_s": 60},
        {"run": A, "over": [B] * (MAX_OVER + 1), "for_s": 60},
        {"run": A, "over": [], "for_s": True},
        {"run": A, "over": [], "for_s": "60"},
        {"run": A, "over": [], "for_s": MAX_LEASE_S + 1},
        {"run": A, "over": [], "for_s": 0},
    ],
)
def test_what_is_no_request_for_a_lease_is_refused(value: Any) -> None:
    with pytest.raises(MalformedRequest):
        Claim.parse(json.dumps(value).encode())


def test_a_request_for_a_lease_is_bounded(world: World) -> None:
    us, ee = world.make("US"), world.make("EE")
    post(us, "one")
    ee.sync(us)
    assert ask(ee, "US", body=b" " * 3000).status_code == 413
    assert ask(ee, "US", body=b"{").status_code == 422


def _fault(peer: Peer) -> str | None:
    return peer.log().error_code


# ── the folder ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_process_is_followed_at_once_in_its_own_folder_and_not_in_a_copy(world: World) -> None:
    t = twins(world, "EE", "NL")
    run_at(t.us)
    shutil.copy2(t.us.settings.data_dir / "running", t.twin.settings.data_dir / "running")
    end(t.us)
    run_at(t.twin)
    assert not is_open(t.twin)
    end(t.twin)
    assert is_open(run_at(t.us))
