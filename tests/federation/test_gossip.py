"""Gossip: what others show is held against what is proven here, and what convicts somebody goes round by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, text

from app.domain.errors import PeerFault
from app.models import EventRow, LogRow
from app.replication import witness as witnessing
from app.replication.gossip import WITHHELD_MS, anchor, anchored_heads
from app.tlog.evidence import Evidence, verify
from tests.federation.test_evidence import keys, post, two_histories
from tests.federation.world import Peer, Rule, World, answer, everything, origin_of, url_of

if TYPE_CHECKING:
    from collections.abc import Callable


def hear(peer: Peer, of: Peer | str) -> None:
    """One look of a node at what another State's witness and anchors show; it also brings it evidence."""
    state = of if isinstance(of, str) else of.state
    endpoints = witnessing.witness_endpoints(peer.world.roster, peer.state)
    peer.node.vigil.hear_from(next(e for e in endpoints if e.state == state))


def events(peer: Peer) -> list[str]:
    with peer.db.read() as session:
        return [t for t in session.scalars(select(EventRow.type).order_by(EventRow.seq)) if t == "log.fault"]


def split(world: World, second: int = 1) -> tuple[Peer, Peer]:
    """US has shown one history to EE and another to NL, and is gone. Both are cosigned."""
    nl, ee = world.make("NL"), world.make("EE")
    _, other = two_histories(world, ee, second=second)
    nl.sync(other)
    del world.network.apps[url_of("US").removeprefix("http://")]
    assert (ee.log("US").status, nl.log("US").status) == ("ok", "ok")
    return ee, nl


@pytest.mark.parametrize("second", [1, 2])
def test_two_halves_that_were_shown_different_histories_find_out_by_gossip_alone(
    world: World, second: int
) -> None:
    ee, nl = split(world, second)
    hear(ee, nl)
    assert ee.log("US").status == "frozen"
    (record,) = ee.records()
    assert record["seen"][0]["where"] in ("witness NL", "mirror NL")
    assert ee.log("US").error_code == "checkpoint-fork"
    assert events(ee) == ["log.fault"]
    # EE brings it to NL, which has not looked itself.
    hear(ee, nl)
    assert nl.log("US").status == "frozen"
    assert nl.records() == [record]
    raw = nl.request("GET", f"/evidence/{nl.get('/evidence')['items'][0]['id']}").content
    assert verify(Evidence.parse(raw), keys(world)).convicts
    # It is told once, and said in the own log.
    asked = len(ee.line.asked)
    hear(ee, nl)
    assert not any("/evidence" in url for url in ee.line.asked[asked:])
    for peer, other in ((ee, nl), (nl, ee)):
        peer.node.vigil.look_after()
        peer.node.vigil.look_after()
        assert peer.log().size == 1
        other.sync(peer)
        entry = other.entry(peer, 0)
        assert (entry.kind, entry.fault_code, entry.body_state) == ("evidence", None, "held")
        assert peer.federation("US")["frozen_size"] is not None


def test_an_anchor_shows_a_fork_to_whoever_reads_it(world: World) -> None:
    ee, nl = split(world)
    ee.node.vigil._since -= 3_600_000
    ee.node.vigil.look_after()
    assert [ee.entry(ee, index).kind for index in range(ee.log().size)] == ["anchor", "roster"]
    ee.node.vigil.look_after()
    assert ee.log().size == 2  # one anchor an hour, and the roster once
    nl.sync(ee)
    nl.line.rules = [lambda r: answer(404) if "/witness/" in str(r.url) else None]
    hear(nl, ee)
    assert nl.log("US").status == "frozen"
    (record,) = nl.records()
    assert record["seen"][0]["where"] == "anchor EE"


def test_an_anchor_is_said_once_an_hour(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    post(ee, "one")
    nl.sync(ee)

    def anchors() -> int:
        nl.node.vigil.look_after()
        return [nl.entry(nl, index).kind for index in range(nl.log().size)].count("anchor")

    said = [anchors()]
    for _ in range(4):
        world.clock.tick(30 * 60)
        said += [anchors(), anchors()]
    assert said == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_anchors_are_looked_for_by_their_index(world_on_both: World) -> None:
    """They are looked for every few seconds, in logs of any length."""
    ee, nl = world_on_both.make("EE"), world_on_both.make("NL")
    post(ee, "one")
    nl.sync(ee)
    asked: list[tuple[Peer, str, Any]] = []

    def of(peer: Peer) -> Callable[..., None]:
        return lambda _c, _cursor, said, values, _context, _many: asked.append((peer, said, values))

    for peer in (ee, nl):
        event.listen(peer.db.engine, "before_cursor_execute", of(peer))
    ee.node.vigil.look_after()
    hear(nl, ee)
    looked = [one for one in asked if "kind = 'anchor'" in one[1]]
    assert {peer.state for peer, _, _ in looked} == {"EE", "NL"}
    for peer, said, values in looked:
        with peer.db.engine.connect() as connection:
            if not peer.db.is_sqlite:  # it would rightly read a table of three rows
                connection.execute(text("SET enable_seqscan = off"))
            how = "EXPLAIN QUERY PLAN" if peer.db.is_sqlite else "EXPLAIN"
            plan = connection.exec_driver_sql(f"{how} {said}", values).all()
            connection.rollback()
        assert "ix_entries_anchors" in str(plan)


def test_an_anchor_of_garbage_harms_nobody(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    post(ee, "one")
    nl.sync(ee)
    before = everything(nl.db)
    note = ee.request("GET", "/log/1/checkpoint").content
    bad: list[Any] = [
        b"",
        b"[]",
        b'{"logs":3}',
        b'{"logs":[{"origin":1,"checkpoint":2},null]}',
        b'{"logs":[{"origin":"ee.verbale.example/log/1","checkpoint":"x"}]}',
        b'{"logs":[{"origin":"evil.example/log/1","checkpoint":"x"}]}',
    ]
    from app.domain.json import canonical

    flipped = bytearray(note)
    flipped[40] ^= 1
    bad.append(
        canonical(anchor([(origin_of("EE"), 1, bytes(32), note)])).replace(b"/log/1\\n1", b"/log/1\\n2")
    )
    for main in bad:
        nl.node.vigil.take_anchor(main, "US", world.roster)
    assert everything(nl.db) == before
    assert anchored_heads(canonical(anchor([(origin_of("EE"), 1, bytes(32), note)]))) == [
        (origin_of("EE"), note)
    ]


def test_a_head_that_only_others_are_shown_is_fetched_from_them_and_reported_after_half_an_hour(
    world: World,
) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    old = us.request("GET", "/log/1/checkpoint").content
    post(us, "two")
    ee.sync(us)
    # To NL the origin goes on serving what it served before.
    nl.line.rules = [lambda r: answer(200, old) if str(r.url) == f"{url_of('US')}/log/1/checkpoint" else None]
    nl.follow(us)
    assert nl.log(us).size == 1
    hear(nl, ee)
    nl.judge(us)
    assert nl.log(us).size == 2
    assert nl.titles(limit="1") == ["two"]
    nl.node.vigil.look_after()
    assert nl.federation(us)["withheld"] is False
    world.clock.ms += WITHHELD_MS
    nl.node.vigil.look_after()
    nl.node.vigil.look_after()
    assert nl.federation(us)["withheld"] is True
    assert events(nl) == ["log.fault"]
    (record,) = nl.records()
    assert record["type"] == "withheld"
    assert not verify(
        Evidence.parse(nl.request("GET", f"/evidence/{nl.get('/evidence')['items'][0]['id']}").content),
        keys(world),
    ).convicts
    assert nl.log(us).status == "ok"
    hear(nl, ee)
    assert ee.records() == []  # a report is nobody else's business
    nl.line.rules = []
    nl.follow(us)
    nl.node.vigil.look_after()
    assert nl.federation(us)["withheld"] is False


def test_a_log_that_serves_what_others_show_is_never_reported(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    hear(nl, ee)
    world.clock.ms += 2 * WITHHELD_MS
    nl.node.vigil.look_after()
    assert nl.federation(us)["withheld"] is False


def _shows(status: int, body: bytes) -> Rule:
    return lambda request: answer(status, body) if "/witness/" in str(request.url) else None


def test_a_witness_that_shows_rubbish_accuses_nobody_and_the_rest_is_heard(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    for status, body in ((500, b""), (200, b"x"), (200, b"\xff" * 100), (302, b"")):
        nl.line.rules = [_shows(status, body)]
        with pytest.raises(PeerFault):
            hear(nl, ee)
    assert nl.records() == []
    assert nl.log(us).status == "ok"


def test_receipts_of_others_arrive_by_gossip(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    hear(nl, ee)
    assert {r["state"] for r in nl.federation(us)["receipts"]} == {"EE", "NL"}


def test_a_relay_that_serves_corrupt_bundles_is_no_evidence(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    ee.sync(us)
    del world.network.apps[url_of("US").removeprefix("http://")]
    nl.followed(us)

    def corrupt(request: Any) -> Any:
        if "/tile/entries/" not in str(request.url):
            return None
        body = bytearray(nl.line.honest(request).read())
        body[-1] ^= 1
        return answer(200, bytes(body))

    nl.line.rules = [corrupt]
    hear(nl, ee)
    assert (nl.log(us).size, nl.log(us).status, nl.records()) == (0, "ok", [])
    nl.line.rules = []
    hear(nl, ee)
    assert nl.log(us).size == 1


def test_a_node_that_is_shown_its_own_other_history_stops(world: World) -> None:
    ee = world.make("EE")
    _, other = two_histories(world, ee, second=1)
    with other.db.read() as session:
        assert session.execute(select(LogRow.status).where(LogRow.is_own)).scalar_one() == "ok"
    hear(other, ee)
    assert other.log().status == "frozen"
    assert not other.node.gate.is_open
