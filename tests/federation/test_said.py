"""What nodes say of themselves in their own logs: erasures carried out, rosters followed; and what they say of others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from app.domain.encoding import b64u_encode
from app.keyfiles import load_private
from app.models import EntryRow, ErasureSaidRow
from app.replication.follow import StaleHead
from app.replication.gossip import ANCHOR_S
from app.tlog.evidence import Evidence, verify
from tests import examples
from tests.db.test_rebuild import rebuild
from tests.federation.test_evidence import keys, post
from tests.federation.test_gossip import hear
from tests.federation.test_recalls import board
from tests.federation.test_replication import issue
from tests.federation.world import NOW, Officer, Peer, Signed, World, answer, origin_of


def erase(peer: Peer, of: Signed) -> Signed:
    return peer.must_post(peer.officer.sign(None, "erase", ref=of.hash))


def said(peer: Peer) -> list[tuple[int, str, int]]:
    """(index, origin, below) of what a node has said in its own log."""
    with peer.db.read() as session:
        rows = session.execute(
            select(ErasureSaidRow.idx, ErasureSaidRow.origin, ErasureSaidRow.below)
            .where(ErasureSaidRow.log_id == peer.node.log_id)
            .order_by(ErasureSaidRow.idx)
        )
        return [(row.idx, row.origin, row.below) for row in rows]


def kinds(peer: Peer) -> list[str]:
    with peer.db.read() as session:
        rows = session.scalars(
            select(EntryRow.kind).where(EntryRow.log_id == peer.node.log_id).order_by(EntryRow.idx)
        )
        return [kind or "" for kind in rows]


def look_after(peer: Peer) -> None:
    peer.node.keep_house()
    peer.node.vigil.look_after()


# ── erasures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_addressee_says_in_its_own_log_that_it_has_erased_and_every_board_shows_it(
    world_on_both: World,
) -> None:
    world = world_on_both
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    first = issue(ee, "names the wrong person")
    issue(ee, "stands")
    for peer in (us, nl):
        peer.sync(ee)
        look_after(peer)
    assert kinds(nl) == []
    erase(ee, first)
    nl.sync(ee)
    nl.node.vigil.look_after()
    assert said(nl) == []  # erased, and not yet gone from the files
    world.clock.tick(60)
    look_after(nl)
    look_after(nl)
    assert (said(nl), kinds(nl)) == ([(0, origin_of("EE"), 3)], ["anchor"])

    for peer in (ee, us):
        peer.sync(nl)
    us.sync(ee)
    (shown,) = board(us)
    assert shown["newest"]["kind"] == "erase"
    assert shown["newest"]["erased_by"] == [
        {"state": "NL", "at": "2026-09-21T14:14:20Z", "origin": origin_of("NL"), "index": 0}
    ]
    assert shown["newest"]["erasure_unsaid"] == ["EE", "US"]
    # Its issuer says so too.
    look_after(ee)
    us.sync(ee)
    nl.sync(ee)
    for peer in (us, nl, ee):
        (shown,) = board(peer)
        assert [one["state"] for one in shown["newest"]["erased_by"]] == ["EE", "NL"]
        assert shown["newest"]["erasure_unsaid"] == ["US"]
    before = board(us)
    rebuild(us)
    assert board(us) == before


def test_each_erasure_is_said_once_also_over_a_restart(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    one, other = issue(ee, "one"), issue(ee, "other")
    nl.sync(ee)
    erase(ee, one)
    nl.sync(ee)
    look_after(nl)
    nl.close()
    nl.open()
    nl.followed(ee)
    look_after(nl)
    assert said(nl) == [(0, origin_of("EE"), 3)]
    erase(ee, other)
    nl.sync(ee)
    look_after(nl)
    assert said(nl) == [(0, origin_of("EE"), 3), (1, origin_of("EE"), 4)]


BAD: tuple[Any, ...] = (
    {"origin": origin_of("EE"), "below": 1},
    [{"origin": origin_of("EE"), "below": "1"}],
    [{"origin": origin_of("EE"), "below": 0}],
    [{"origin": origin_of("EE"), "below": True}],
    [{"origin": origin_of("EE"), "below": 2**53}],
    [{"origin": "no origin", "below": 1}],
    [{"origin": origin_of("EE"), "below": 1, "more": 1}],
    [{"origin": origin_of("EE"), "below": 1}] * 257,
    [1],
)


def test_what_cannot_be_read_says_nothing_and_stops_nothing(world: World) -> None:
    nl, us = world.make("NL"), world.make("US")
    for n, erased in enumerate(BAD):
        main = json.dumps({"v": 1, "logs": [], "erased": erased}).encode()
        nl.must_post(
            Officer("NL", load_private(nl.settings.keys_dir / "node.key"), "NL/node/1").sign(main, "anchor")
        )
        assert kinds(nl)[n:] == ["anchor"]
    issue(nl, "after")
    us.sync(nl)
    with us.db.read() as session:
        assert not session.scalar(select(func.count()).select_from(ErasureSaidRow))
    assert us.titles() == ["after"]
    assert us.faults(nl) == {}


def test_a_body_that_comes_late_is_heard_as_well(world: World) -> None:
    ee, nl, us = world.make("EE"), world.make("NL"), world.make("US")
    first = issue(ee, "gone")
    nl.sync(ee)
    erase(ee, first)
    nl.sync(ee)
    look_after(nl)
    us.sync(ee)
    us.line.rules.append(_refused)
    us.sync(nl)
    assert board(us)[0]["newest"]["erased_by"] == []
    us.line.rules.clear()
    us.judge(nl)
    assert [one["state"] for one in board(us)[0]["newest"]["erased_by"]] == ["NL"]


def _refused(request: Any) -> Any:
    return answer(503) if request.url.path == "/bodies" else None


# ── rosters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_says_which_roster_it_follows_and_two_of_one_version_are_a_contradiction(
    world_on_both: World,
) -> None:
    world = world_on_both
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    nl.node.vigil.look_after()
    assert kinds(nl) == []
    world.clock.tick(ANCHOR_S)
    nl.node.vigil.look_after()
    nl.node.vigil.look_after()
    assert [kind for kind in kinds(nl) if kind == "roster"] == ["roster"]
    ee.sync(nl)
    shown = ee.federation(nl)["follows"]
    assert (shown["version"], shown["sha256"]) == (1, "ab" * 32)
    assert ee.get("/v1/federation")["roster"]["contradictions"] == []
    # Version 2 is one thing at NL and another at the US.
    honest = world.roster
    world.shared_roster.roster = replace(honest, version=2, sha256="cd" * 32)
    nl.node.vigil.look_after()
    world.shared_roster.roster = replace(honest, version=2, sha256="ef" * 32)
    us.node.vigil.look_after()
    for peer in (nl, us):
        ee.sync(peer)
    world.shared_roster.roster = honest
    (found,) = ee.get("/v1/federation")["roster"]["contradictions"]
    assert found["version"] == 2
    assert {one["sha256"]: [leaf["state"] for leaf in one["leaves"]] for one in found["rosters"]} == {
        "cd" * 32: ["NL"],
        "ef" * 32: ["US"],
    }
    codes = [warning["code"] for warning in ee.get("/v1/federation")["roster"]["warnings"]]
    assert "roster-contradiction" in codes
    before = ee.get("/v1/federation")["roster"]["contradictions"]
    rebuild(ee)
    assert ee.get("/v1/federation")["roster"]["contradictions"] == before


def test_a_roster_other_than_the_one_in_force_here_is_a_contradiction_too(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    assert nl.node.say("roster", {"v": 1, "version": 1, "sha256": "00" * 32}) == 0
    assert nl.node.say("roster", {"v": 1, "version": -1, "sha256": "00" * 32}) == 1
    assert nl.node.say("roster", {"v": 1, "version": 1, "sha256": "00"}) == 2
    ee.sync(nl)
    (found,) = ee.get("/v1/federation")["roster"]["contradictions"]
    assert [(one["sha256"][:2], len(one["leaves"])) for one in found["rosters"]] == [("00", 1), ("ab", 0)]


# ── evidence of other kinds ───────────────────────────────────────────────────────────────────────────────────────


def test_a_leaf_that_is_none_is_evidence_that_goes_to_the_others(world_on_both: World) -> None:
    world = world_on_both
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    post(us, "good")
    foreign = us.officer.sign(examples.denied_end_user(issuer="US"), log=origin_of("NL"))
    us.smuggle((b"x" * 300, {}), (foreign.leaf, foreign.parts))
    nl.sync(us)
    nl.node.vigil.look_after()
    nl.node.vigil.look_after()
    records = sorted(nl.records(), key=lambda one: one["index"])
    assert [(one["type"], one["index"]) for one in records] == [("badleaf", 1), ("badleaf", 2)]
    assert records[0]["leaf"] == b64u_encode(b"x" * 300)
    for item in nl.get("/evidence")["items"]:
        raw = nl.request("GET", f"/evidence/{item['id']}").content
        verdict = verify(Evidence.parse(raw), keys(world))
        assert (verdict.convicts, verdict.accused) == (True, origin_of("US"))
    assert (nl.log("US").status, kinds(nl)) == ("ok", ["evidence", "evidence"])
    # They are brought to the others, who need not have seen the leaf.
    ee.followed(us)
    hear(nl, ee)
    assert {one["index"] for one in ee.records()} == {1, 2}
    assert ee.log("US").status == "ok"
    # And no more than a few, also after a restart.
    us.smuggle(*((b"y" * (300 + n), {}) for n in range(5)))
    nl.sync(us)
    nl.node.vigil.look_after()
    nl.close()
    nl.open()
    nl.followed(us)
    nl.node.vigil.look_after()
    assert len(nl.records()) == 4


def test_a_log_that_serves_an_older_head_than_before_is_recorded_and_convicted_of_nothing(
    world: World,
) -> None:
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    post(us, "one")
    us.publish()
    restore = world.back_up("US")
    post(us, "two")
    nl.sync(us)
    restore()
    for _ in "12":
        with pytest.raises(StaleHead):
            nl.follow(us)
    (item,) = nl.get("/evidence")["items"]
    raw = nl.request("GET", f"/evidence/{item['id']}").content
    record = Evidence.parse(raw)
    verdict = verify(record, keys(world))
    assert (record.type, verdict.convicts, verdict.older and verdict.older.size) == ("rollback", False, 1)
    assert (verdict.newer.size, record.seen[0].where, record.seen[0].by) == (2, "origin", "NL")
    assert record.seen[0].at == NOW
    assert nl.log("US").status == "ok"
    hear(nl, ee)
    assert ee.records() == []
    # Whoever brings it to another is refused: what was served when is for each node to see.
    assert ee.request("POST", "/evidence", content=raw).status_code == 422
