"""A signed head that was seen and whose leaves nobody gave: it is not forgotten, and what comes later is held against it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.domain.errors import PeerFault
from app.domain.roster import RosterKey
from app.models import LogRow, WatchRow
from app.replication.forks import CheckpointFork
from tests.federation.test_evidence import offer, post
from tests.federation.test_startup import _serve, is_open, start_gate
from tests.federation.world import DAY, NOW, Peer, World, answer, origin_of, seeded


def no_leaves(request: httpx.Request) -> Any:
    return answer(503) if "/tile/" in str(request.url) else None


def claimed(peer: Peer, of: str = "US") -> bytes | None:
    with peer.db.read() as session:
        return session.execute(
            select(WatchRow.claimed_note)
            .join(LogRow, LogRow.id == WatchRow.log_id)
            .where(LogRow.origin == origin_of(of))
        ).scalar_one_or_none()


def seen_size(peer: Peer) -> str:
    path = f"/witness/{sha256(origin_of('US').encode()).hexdigest()}/seen"
    return peer.request("GET", path).text.splitlines()[1]


def offered_alone(world: World) -> tuple[Peer, Peer, Peer]:
    """Two nodes of US that differ in their second leaf, and EE, which was offered the second's head and given no leaves."""
    us, ee = world.make("US"), world.make("EE")
    post(us, "one")
    ee.sync(us)
    restore = world.back_up("US")
    other = restore()
    post(other, "two, elsewhere")
    other.publish()
    ee.line.rules = [no_leaves]
    with pytest.raises(PeerFault):
        offer(other, ee)
    ee.line.rules = []
    return us, other, ee


def one_ahead(world: World) -> tuple[Peer, Peer]:
    """US, which has signed two leaves, and EE, which has the first of them."""
    us, ee = world.make("US"), world.make("EE")
    post(us, "one")
    ee.sync(us)
    post(us, "two")
    us.publish()
    return us, ee


def test_an_offered_head_whose_leaves_did_not_come_is_shown_to_a_node_that_starts(world: World) -> None:
    us, _, ee = offered_alone(world)
    assert seen_size(ee) == "2"
    _serve(us)
    assert not start_gate(us)
    assert "has seen a head of 2 leaves" in us.node.gate.why
    assert not is_open(us)


def test_an_offered_head_that_is_refused_for_its_old_size_is_remembered_too(world: World) -> None:
    """Its log is told from where to prove it, and may never come back."""
    us, ee = one_ahead(world)
    answers = iter((None, answer(503)))
    us.line.rules = [lambda request: next(answers) if "add-checkpoint" in str(request.url) else None]
    with pytest.raises(PeerFault):
        offer(us, ee)
    assert next(answers, "both were asked for") == "both were asked for"
    assert ee.log("US").size == 1
    assert claimed(ee) is not None
    assert seen_size(ee) == "2"


def test_another_root_for_that_size_convicts_its_log(world: World) -> None:
    us, _, ee = offered_alone(world)
    _serve(us)
    post(us, "two, here")
    us.publish()
    with pytest.raises(CheckpointFork):
        ee.follow(us)
    assert ee.log("US").status == "frozen"
    assert [record["type"] for record in ee.records()] == ["fork"]


def test_a_longer_history_that_does_not_go_through_that_head_convicts_its_log(world: World) -> None:
    us, _, ee = offered_alone(world)
    _serve(us)
    post(us, "two, here")
    post(us, "three")
    us.publish()
    with pytest.raises(CheckpointFork):
        ee.follow(us)
    assert ee.log("US").status == "frozen"


def test_two_heads_of_one_size_convict_without_any_leaf(world: World) -> None:
    us, _, ee = offered_alone(world)
    _serve(us)
    post(us, "two, here")
    us.publish()
    ee.line.rules = [no_leaves]
    with pytest.raises(CheckpointFork):
        ee.follow(us)
    assert [record["type"] for record in ee.records()] == ["fork"]


def test_a_head_whose_leaves_come_later_is_nothing_to_remember(world: World) -> None:
    _, other, ee = offered_alone(world)
    assert claimed(ee) is not None
    _serve(other)
    ee.follow(other)
    assert claimed(ee) is None
    assert ee.log("US").size == 2
    assert ee.log("US").status == "ok"


def test_a_head_beyond_what_came_is_kept_until_it_is_reached(world: World) -> None:
    us, ee = one_ahead(world)
    at_two = us.request("GET", "/log/1/checkpoint")
    post(us, "three")
    us.publish()
    ee.line.rules = [no_leaves]
    with pytest.raises(PeerFault):
        ee.follow(us)
    ee.line.rules = [
        lambda request: (
            answer(200, at_two.content) if str(request.url).endswith("/log/1/checkpoint") else None
        )
    ]
    ee.follow(us)
    assert (ee.log("US").size, seen_size(ee)) == (2, "3")
    assert claimed(ee) is not None
    ee.line.rules = []
    ee.follow(us)
    assert (ee.log("US").size, claimed(ee)) == (3, None)


def test_a_head_of_a_key_that_counts_no_more_convicts_nobody(world: World) -> None:
    """Whoever stole it can sign any head; by itself it proves nothing."""
    us, _, ee = offered_alone(world)
    (stolen,) = world.roster.keys_of("US", "log")
    others = tuple(key for key in world.roster.states["US"].keys if key.use != "log")
    fresh = seeded("US/log/2")
    new = RosterKey("US/log/2", "log", fresh.public, NOW - DAY)
    world.change_state("US", keys=(*others, new, replace(stolen, revoked_at_index=1)))
    _serve(us)
    us.node.keys = replace(us.node.keys, log=fresh)
    post(us, "two, here")
    us.publish()
    ee.follow(us)
    assert (ee.log("US").size, ee.log("US").status, claimed(ee)) == (2, "ok", None)
