"""Evidence between nodes: what is brought is checked and acted on, and nobody can frame a State."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.domain.errors import PeerFault
from app.models import BranchLeafRow, EvidenceRow, LogRow
from app.replication import witness as witnessing
from app.replication.forks import CheckpointFork, settle_frozen
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.cosignature import Cosignature, cosign
from app.tlog.evidence import Evidence, verify
from app.tlog.note import VerifierKey
from tests import examples
from tests.federation.world import Peer, World, everything, origin_of, seeded, url_of


def post(peer: Peer, title: str) -> None:
    peer.must_post(peer.officer.sign(examples.denied_end_user(issuer=peer.state, title=title)))


def offer(of: Peer, to: Peer) -> None:
    """One offer of a node's newest head to another's witness."""
    world = of.world
    (endpoint,) = (e for e in witnessing.witness_endpoints(world.roster, of.state) if e.state == to.state)
    witnessing.offer_step(of.db, of.node.client, endpoint, of.node.log_id, world.roster, now=world.clock())


def two_histories(world: World, *readers: Peer, first: int = 1, second: int = 2) -> tuple[Peer, Peer]:
    """US signs two histories after two common leaves; the readers have the first. Returns both nodes of US."""
    us = world.make("US")
    post(us, "one")
    post(us, "two")
    for reader in readers:
        reader.sync(us)
        offer(us, reader)
    for reader in readers:  # once more: now the head carries everybody's receipts
        reader.sync(us)
    restore = world.back_up("US")
    for n in range(first):
        post(us, f"first {n}")
    for reader in readers:
        reader.sync(us)
    other = restore()
    for n in range(second):
        post(other, f"second {n}")
    other.publish()
    return us, other


def keys(world: World, state: str = "US") -> list[VerifierKey]:
    return [VerifierKey(origin_of(state), k.key) for k in world.roster.keys_of(state, "log")]


def bring(peer: Peer, raw: bytes) -> Any:
    return peer.request("POST", "/evidence", content=raw)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 3), (3, 1)])
def test_evidence_that_one_node_finds_freezes_the_log_at_another(
    world_on_both: World, first: int, second: int
) -> None:
    world = world_on_both
    nl, ee = world.make("NL"), world.make("EE")
    _, other = two_histories(world, nl, ee, first=first, second=second)
    with pytest.raises(CheckpointFork):
        nl.follow(other)
    (item,) = nl.get("/evidence")["items"]
    raw = nl.request("GET", f"/evidence/{item['id']}").content
    verdict = verify(Evidence.parse(raw), keys(world))
    assert (verdict.accused, verdict.convicts, item["accused"]) == (origin_of("US"), True, origin_of("US"))
    assert item["id"] == Evidence.parse(raw).id

    answers = [bring(ee, raw) for _ in "12"]
    assert [a.status_code for a in answers] == [201, 200]
    assert answers[0].json() == {"id": item["id"]}
    assert ee.log("US").status == "frozen"
    assert ee.request("GET", f"/evidence/{item['id']}").content == raw
    assert ee.federation("US")["evidence"] == [item["id"]]
    with pytest.raises((PeerFault, witnessing.WitnessAhead)):
        offer(other, ee)


def test_a_false_or_malformed_accusation_changes_nothing(world: World) -> None:
    nl, ee = world.make("NL"), world.make("EE")
    post(ee, "one")
    nl.sync(ee)
    post(ee, "two")
    nl.sync(ee)
    origin = origin_of("EE")
    honest = ee.request("GET", "/log/1/checkpoint/1").content, ee.request("GET", "/log/1/checkpoint").content
    forged = sign_checkpoint(Checkpoint(origin, 2, b"\x07" * 32), seeded("an impostor")).encode()
    strip = [b"\n".join(raw.split(b"\n")[:5]) + b"\n" for raw in honest]  # without cosignatures
    made = Evidence("fork", origin, strip[0], strip[1], b"\x07" * 32)
    before = everything(nl.db)
    accusations = [
        b"",
        b"{}",
        b"US is lying",
        made.encode(),
        replace(made, newer=forged, root=b"\x07" * 32).encode(),
        replace(made, older=strip[1]).encode(),
        replace(made, origin="evil.example/log/1").encode(),
        replace(made, type="withheld", root=None).encode(),
        made.encode() + b" " * 300_000,
    ]
    for raw in accusations:
        answer = bring(nl, raw)
        assert answer.status_code in (413, 422), raw[:100]
    assert everything(nl.db) == before
    assert nl.log("EE").status == "ok"


def test_a_log_is_frozen_at_what_a_quorum_confirmed_and_both_histories_share(
    tmp_path: Path, templates: Path
) -> None:
    world = World(
        tmp_path / "world", templates, codes=("EE", "US", "NL")
    )  # two witnesses, and both are a quorum
    try:
        nl, ee = world.make("NL"), world.make("EE")
        _, other = two_histories(world, nl, ee)
        with pytest.raises(CheckpointFork):
            nl.follow(other)
        log = nl.log("US")
        assert log.size == 3
        assert nl.federation("US")["frozen_size"] is None
        # Nobody serves the other history: it is not known yet, and asked again.
        other.close()
        assert (
            settle_frozen(nl.db, nl.node.client, log.id, sources=nl.node.mirrors.sources(nl.followed("US")))
            is None
        )
        other.open()
        settle_frozen(nl.db, nl.node.client, log.id, sources=nl.node.mirrors.sources(nl.followed("US")))
        assert nl.federation("US")["frozen_size"] == 2
        with nl.db.read() as session:
            branch = session.execute(
                select(BranchLeafRow.idx, BranchLeafRow.leaf).order_by(BranchLeafRow.idx)
            ).all()
        assert [idx for idx, _ in branch] == [2, 3]
    finally:
        world.close()


def test_a_witness_that_cosigned_both_histories_is_named(world: World) -> None:
    """EE's witness cosigns whatever it is shown; the receipts in the two heads convict it."""
    nl, ee = world.make("NL"), world.make("EE")
    us, other = two_histories(world, nl, first=1, second=1)
    for node in (us, other):
        row = node.log()
        checkpoint = Checkpoint(row.origin, row.head_size, bytes(row.head_root or b""))
        line = cosign(checkpoint, ee.node.witness.name, ee.node.keys.witness, world.clock() // 1000)
        with node.db.write() as session:
            given = Cosignature(line.name, line.key_id, world.clock() // 1000, line)
            witnessing.store_cosignatures(
                node.db, session, row.id, row.head_size, [(given, "EE")], world.roster
            )
    world.network.apps[url_of("US").removeprefix("http://")] = _app(us)
    nl.follow(us)
    world.network.apps[url_of("US").removeprefix("http://")] = _app(other)
    with pytest.raises(CheckpointFork):
        nl.follow(other)
    found = {(i["type"], i["accused"]) for i in nl.get("/evidence")["items"]}
    assert found == {("fork", origin_of("US")), ("cosigner", ee.node.witness.name)}
    record = next(i["id"] for i in nl.get("/evidence")["items"] if i["type"] == "cosigner")
    raw = nl.request("GET", f"/evidence/{record}").content
    assert bring(ee, raw).status_code == 422  # EE does not follow that log yet
    ee.follow(other)
    assert bring(ee, raw).status_code == 201


def _app(peer: Peer) -> Any:
    from app.main import create_app

    return create_app(peer.node)


def test_a_log_that_forks_without_end_costs_a_mirror_little(world: World) -> None:
    nl = world.make("NL")
    us, _ = two_histories(world, nl)
    with us.db.read() as session:
        head = session.execute(select(LogRow.head_note).where(LogRow.is_own)).scalar_one()
    assert head is not None
    for n in range(8):
        other = sign_checkpoint(Checkpoint(origin_of("US"), 3, bytes([n]) * 32), us.node.keys.log).encode()
        older, newer = sorted((head, other))
        root = Checkpoint.parse(newer.split(b"\n\n")[0] + b"\n").root
        raw = Evidence("fork", origin_of("US"), older, newer, root).encode()
        assert bring(nl, raw).status_code in (200, 201)
    with nl.db.read() as session:
        assert session.execute(select(func.count()).select_from(EvidenceRow)).scalar_one() == 4
