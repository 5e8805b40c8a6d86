"""The start-up gate: a node that lost part of its log, or is not alone with its key, never signs two roots for a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, select

from app.backup import mark_restored
from app.domain.errors import PeerFault
from app.keyfiles import card_path, create_key, read_card
from app.models import ConfirmationRow, EventRow, HeadRow, LogRow, WatchRow
from app.replication import witness as witnessing
from app.replication.follow import follow_step
from app.replication.forks import CheckpointFork, watch_log
from app.replication.witness import WitnessAhead
from app.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from app.tlog.note import NoKnownSignature
from app.tlog.note import parse as parse_note
from app.tlog.witness import origin_hash
from tests.federation.test_evidence import offer, post, two_histories
from tests.federation.test_times import cosigned_by
from tests.federation.world import NOW, Peer, World, answer, dump, origin_of, url_of


def heads(peer: Peer, of: str = "US") -> dict[int, bytes]:
    """Size → root of every head this node has signed or proven of a log."""
    with peer.db.read() as session:
        rows = session.execute(
            select(HeadRow.size, HeadRow.root)
            .join(LogRow, LogRow.id == HeadRow.log_id)
            .where(LogRow.origin == origin_of(of), HeadRow.note.is_not(None))
        )
        return {size: bytes(root) for size, root in rows}


def endpoint(world: World, state: str, of: str = "US") -> Any:
    return next(e for e in witnessing.witness_endpoints(world.roster, of) if e.state == state)


def is_open(peer: Peer) -> bool:
    return peer.node.gate.is_open


def start_gate(peer: Peer) -> bool:
    """What a start does, without the loops."""
    peer.node.gate.close()
    (peer.settings.data_dir / "first-start").unlink(missing_ok=True)
    peer.node.gate.step()
    return peer.node.gate.is_open


def behind(world: World, title: str = "two") -> tuple[Peer, Peer, Peer, Peer]:
    """US restored from before its second notice, which the others have; with EE and NL, and the node it was before."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    restore = world.back_up("US")
    post(us, title)
    main = {"tlp": "TLP:RED", "audience": ["EE"]}
    from tests import examples

    us.must_post(us.officer.sign(examples.denied_end_user(issuer="US", title="for EE alone", **main)))
    for peer in (ee, nl):
        peer.sync(us)
    return us, restore(), ee, nl


def test_a_restored_node_gets_its_leaves_and_bodies_back_and_signs_the_same_roots(world: World) -> None:
    before, us, ee, nl = behind(world)
    assert us.log().size == 1
    us.node.gate.close()
    assert us.post(us.officer.sign(_main("too early"))).json()["type"].endswith("#node-starting")
    assert us.get("/v1/federation")["accepting"] is False

    assert start_gate(us)
    assert us.get("/v1/federation")["accepting"] is True
    assert (us.log().size, us.log().judged, us.log().head_size) == (3, 3, 3)
    assert us.titles() == ["for EE alone", "two", "one"]
    assert dump(us.db, log_id=us.log().id) == dump(before.db, log_id=before.log().id)

    post(us, "four")
    us.publish()
    for peer in (ee, nl):
        peer.sync(us)
        assert peer.titles(issuer="US")[0] == "four"
        assert peer.log(us).status == "ok"
    assert us.request("GET", "/log/1/checkpoint").status_code == 200
    both = heads(us).items() & heads(before).items()
    assert {size for size, _ in both} == heads(us).keys() & heads(before).keys()


def _main(title: str) -> dict[str, Any]:
    from tests import examples

    return examples.denied_end_user(issuer="US", title=title)


def signed_after_backup(world: World) -> tuple[Peer, Peer, Peer, Callable[[], Peer]]:
    """US, whose first notice is confirmed and whose second came after a backup and is signed; EE; NL; starts the backup."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.sync(us)
    restore = world.back_up("US")
    world.clock.tick(60)
    post(us, "two")
    us.publish()
    return us, ee, nl, restore


def test_a_mirror_that_stored_leaves_and_died_before_it_cosigned_counts_too(world: World) -> None:
    us, ee, _, restore = signed_after_backup(world)
    signed = heads(us)
    read(ee, us)
    ee.judge(us)
    assert cosigned(ee, us) == 1
    assert ee.log(us).size == 2
    again = restore()
    assert start_gate(again)
    assert heads(again)[2] == signed[2]
    assert again.titles() == ["two", "one"]


def read(peer: Peer, of: Peer) -> None:
    """One look at another's log, up to where the process dies: nothing is cosigned."""
    source = f"{url_of(of.state)}/log/1"
    log_id, world = peer.followed(of).log_id, peer.world
    follow_step(peer.db, peer.node.client, log_id, source, world.roster, clock=world.clock)


def cosigned(peer: Peer, of: Peer) -> int:
    """Size of the newest head of a log that this node's witness cosigned."""
    with peer.db.read() as session:
        found = witnessing.last_cosigned(session, peer.log(of).id, peer.node.witness.name, of.node.origin)
    return 0 if found is None else found.size


def test_a_restored_node_gets_the_history_of_its_log_back(world: World) -> None:
    """Or it would tell other times of its own notices than everybody else does."""
    us, ee, nl, restore = signed_after_backup(world)
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.follow(us)
    told = history(us)
    assert {size for size, _, _ in told} >= {1, 2}
    again = restore()
    with again.db.write() as session:
        mark_restored(again.db, session, world.clock())
    assert start_gate(again)
    assert history(again) == told


def test_mirrors_that_know_other_times_of_one_size_do_not_keep_a_restored_node_busy_for_ever(
    world: World,
) -> None:
    """Of each size the earliest and the latest are kept: one between them is new each time that it is served."""
    us, ee, nl, restore = signed_after_backup(world)
    us.witnessed(ee, nl)
    head = parse_note(us.log().head_note or b"")
    first, between, last = (
        (2, NOW + minutes * 60, cosigned_by(world, head, ("EE", "NL"), NOW + minutes * 60))
        for minutes in (2, 3, 4)
    )
    for peer, some in ((ee, (first, last)), (nl, (between,))):
        peer.follow(us)
        log_id = peer.log(us).id
        with peer.db.write() as session:
            session.execute(delete(ConfirmationRow).where(ConfirmationRow.log_id == log_id))
            for size, at, note in some:
                session.add(ConfirmationRow(log_id=log_id, size=size, at=at, note=note))
    again = restore()
    with again.db.write() as session:
        mark_restored(again.db, session, world.clock())
    assert start_gate(again)
    assert [one for one in history(again) if one[0] == 2] == [first, last]


def test_a_fork_of_another_log_does_not_keep_a_restored_node_closed(world: World) -> None:
    nl, ee = world.make("NL"), world.make("EE")
    _, other = two_histories(world, nl, first=3, second=1)
    ee.sync(other)  # the history that NL was not shown; neither has heard of the other
    post(ee, "mine")
    for peer in (nl, other):
        peer.sync(ee)
        offer(ee, peer)
    restore = world.back_up("EE")
    ee.close()
    ee = restore()
    with ee.db.write() as session:
        mark_restored(ee.db, session, world.clock())
    assert ee.request("GET", "/v1/notices").status_code == 503
    for of in (nl, other):
        ee.followed(of)
    assert start_gate(ee)
    assert ee.log("US").status == "frozen"
    assert ee.request("GET", "/v1/notices").status_code == 200
    assert [title for title in ee.titles() if title == "mine"] == ["mine"]


def history(peer: Peer, of: str = "US") -> list[tuple[int, int, bytes]]:
    """The confirmed checkpoints of a log that a node holds: (size, time, note)."""
    with peer.db.read() as session:
        rows = session.execute(
            select(ConfirmationRow.size, ConfirmationRow.at, ConfirmationRow.note)
            .join(LogRow, LogRow.id == ConfirmationRow.log_id)
            .where(LogRow.origin == origin_of(of))
            .order_by(ConfirmationRow.size, ConfirmationRow.at)
        )
        return [(size, at, bytes(note)) for size, at, note in rows]


def seen_only(world: World) -> tuple[Peer, Peer, Peer, dict[int, bytes]]:
    """US restored from before its second notice, of which EE has seen the signed head alone; and what US had signed."""
    us, ee, nl, restore = signed_after_backup(world)
    signed = heads(us)
    ee.line.rules = [lambda request: answer(503) if "/tile/" in str(request.url) else None]
    with pytest.raises(PeerFault):
        read(ee, us)
    ee.line.rules = []
    assert ee.log(us).size == 1
    return restore(), ee, nl, signed


def test_a_head_whose_leaves_nobody_has_any_more_keeps_the_log_closed_for_good(world: World) -> None:
    """A key that signed another root for that size would have signed two; and EE could show both."""
    us, _, nl, signed = seen_only(world)
    assert not start_gate(us)
    assert "has seen a head of 2 leaves" in us.node.gate.why
    with us.db.write() as session:
        watch_log(us.db, session, us.log().id, vouched_size=1)
    us.node.gate.step()
    assert not is_open(us)
    assert us.post(us.officer.sign(_main("never"))).json()["type"].endswith("#node-starting")
    assert heads(us) == {1: signed[1]}
    shown = nl.request("GET", f"/witness/{sha256(us.node.origin.encode()).hexdigest()}/seen")
    assert shown.text.splitlines()[:2] == [us.node.origin, "1"]
    assert nl.request("GET", f"/witness/{'0' * 64}/seen").status_code == 404


def test_a_seen_head_counts_only_with_the_logs_signature(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    us.line.rules = [
        lambda request: answer(200, b"x\n9\nAAAA\n\n") if str(request.url).endswith("/seen") else None
    ]
    assert not start_gate(us)  # they have not answered, which is not the same as having nothing
    us.line.rules = [lambda request: answer(404) if str(request.url).endswith("/seen") else None]
    us.node.gate.step()
    assert is_open(us)


def test_without_a_quorum_of_answers_nothing_is_taken_or_signed(world: World) -> None:
    _, us, _, nl = behind(world)
    nl.close()
    assert not start_gate(us)
    assert "NL" in us.node.gate.why
    assert us.post(us.officer.sign(_main("too early"))).status_code == 503
    signed = heads(us)
    us.publish()
    assert heads(us) == signed
    nl.open()
    us.node.gate.step()
    assert is_open(us)


def test_the_operator_may_vouch_for_witnesses_that_cannot_be_reached(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    ee.sync(us)
    nl.close()
    assert not start_gate(us)
    with us.db.write() as session:
        watch_log(us.db, session, us.log().id, vouched_size=2)
    us.node.gate.step()
    assert not is_open(us)  # he was told of another size
    with us.db.write() as session:
        watch_log(us.db, session, us.log().id, vouched_size=1)
    us.node.gate.step()
    assert is_open(us)
    with us.db.read() as session:  # once: the next start asks again
        row = session.execute(select(WatchRow.vouched_size)).scalar_one()
    assert row is None


def test_hearing_of_its_own_missing_leaves_while_it_starts_does_not_stop_a_node(world: World) -> None:
    """Gossip runs beside the gate. What it hears first is what the gate is about to fetch."""
    _, us, _, _ = behind(world)
    us.node.gate.close()
    us.node.gate.look(endpoint(world, "NL"))
    us.node.gate.step()
    assert is_open(us)
    assert us.log().size == 3


def test_a_leaf_that_was_taken_before_the_gate_closed_is_signed_only_when_it_opens(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    post(us, "two")
    us.node.gate.close()
    us.publish()
    assert set(heads(us)) == {1}
    assert start_gate(us)
    us.publish()
    assert set(heads(us)) == {1, 2}


def test_vouching_does_not_outweigh_a_witness_that_has_more(world: World) -> None:
    _, us, ee, nl = behind(world)
    nl.close()
    world.network.apps.pop(url_of("EE").removeprefix("http://"))
    us.node.gate.close()
    (us.settings.data_dir / "first-start").unlink(missing_ok=True)
    with us.db.write() as session:
        watch_log(us.db, session, us.log().id, vouched_size=1)
    ee.line.rules = []
    _serve(ee)
    us.line.rules = [_no_mirror]
    us.node.gate.step()
    assert not is_open(us)
    assert "no mirror" in us.node.gate.why
    us.line.rules = []
    us.node.gate.step()
    assert us.log().size == 3


def _serve(peer: Peer) -> None:
    from app.main import create_app

    peer.world.network.apps[peer.settings.public_url.removeprefix("http://")] = create_app(peer.node)


def _no_mirror(request: Any) -> Any:
    return answer(404) if "/mirror/" in str(request.url) else None


def test_a_first_start_needs_nobody_and_a_second_one_asks(world: World) -> None:
    us = world.make("US")
    us.node.gate.close()
    us.node.gate.step()
    assert is_open(us)
    post(us, "one")
    us.node._publisher = _Wakes()  # type: ignore[assignment]
    us.node.publish()
    us.node.gate.close()
    us.node.gate.step()
    assert not is_open(us)


class _Wakes:
    def wake(self) -> None:
        """Nothing waits here."""


def test_a_node_whose_signed_leaves_differ_never_signs_again(world: World) -> None:
    """It went on from an old copy without asking: now its key has signed two histories, and it says so itself."""
    _, us, _, _ = behind(world)
    post(us, "another second")
    us.publish()
    us.node.gate.close()
    with pytest.raises(CheckpointFork):
        us.node.gate.step()
    assert us.log().status == "frozen"
    assert [r["type"] for r in us.records()] == ["fork"]
    answer = us.post(us.officer.sign(_main("never")))
    assert (answer.status_code, answer.json()["type"].split("#")[1]) == (503, "log-stopped")
    signed = heads(us)
    us.publish()
    assert heads(us) == signed
    with us.db.read() as session:
        faults = session.execute(select(LogRow.error_code).where(LogRow.is_own)).scalar_one()
    assert faults == "checkpoint-fork"


def test_a_witness_that_lies_cannot_stop_a_node(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    us.line.rules = [
        lambda request: (
            answer(409, b"99\n", content_type="text/x.tlog.size")
            if "add-checkpoint" in str(request.url)
            else None
        )
    ]
    post(us, "two")
    us.publish()
    with pytest.raises(WitnessAhead):
        offer(us, nl)
    us.node.gate.look(endpoint(world, "NL"))
    assert is_open(us)
    us.line.rules = [
        lambda request: answer(200, b"x\n1\nAAAA\n\n") if str(request.url).endswith("/checkpoint") else None
    ]
    with pytest.raises(PeerFault):
        us.node.gate.look(endpoint(world, "NL"))
    assert is_open(us)


@pytest.mark.parametrize("order", [("EE", "NL"), ("NL", "EE")])
def test_twins_on_one_key_never_get_two_roots_for_a_size_confirmed_and_both_stop(
    world: World, order: tuple[str, str]
) -> None:
    """The same log key, two databases, both past the gate: each takes a notice for the same place."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    restore = world.back_up("US")
    twin = restore()
    assert start_gate(us)
    assert start_gate(twin)
    peers = {"EE": ee, "NL": nl}
    _serve(us)
    post(us, "two of the first")
    us.publish()
    offer(us, peers[order[0]])
    _serve(twin)
    post(twin, "two of the second")
    twin.publish()
    offer(twin, peers[order[1]])

    confirmed = [peer.log(us).confirmed_size for peer in (us, twin)]
    assert confirmed == [1, 1] or max(confirmed) < 2
    for one, other in ((us, order[1]), (twin, order[0])):
        _serve(one)
        with pytest.raises((PeerFault, WitnessAhead)):
            offer(one, peers[other])
        with pytest.raises(CheckpointFork):
            one.node.gate.look(endpoint(world, other))
        assert not is_open(one)
        assert one.post(one.officer.sign(_main("three"))).status_code == 503
        signed = heads(one)
        one.publish()
        assert heads(one) == signed


def test_a_twin_that_is_ahead_stops_the_one_that_is_behind(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    for peer in (ee, nl):
        peer.sync(us)
    twin = world.back_up("US")()
    post(twin, "two")
    for peer in (ee, nl):
        peer.sync(twin)
    us.node.gate.look(endpoint(world, "NL"))
    assert not is_open(us)
    assert us.log().error_code == "witness-ahead"
    us.node.gate.step()  # not by itself: somebody has to look whose process the other is
    assert not is_open(us)
    us.close()
    us.open()
    _serve(twin)
    assert start_gate(us)
    assert us.log().size == 2


def test_what_was_confirmed_of_a_leaf_whose_head_the_backup_has_not_comes_back(world: World) -> None:
    """The backup was made between the leaf and the head over it; the head was signed, and confirmed, before the disk was lost."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    restore = world.back_up("US")
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.sync(us)
        peer.follow(us)
    us.close()
    us = restore()
    assert us.log().head_size < us.log().size == 1
    with us.db.write() as session:
        mark_restored(us.db, session, world.clock())
    assert start_gate(us), us.node.gate.why

    def confirmed(peer: Peer) -> list[tuple[int, int]]:
        kept = select(ConfirmationRow.size, ConfirmationRow.at).where(
            ConfirmationRow.log_id == peer.log("US").id
        )
        with peer.db.read() as session:
            return [(size, at) for size, at in session.execute(kept.order_by(ConfirmationRow.size))]

    assert confirmed(ee) == [(1, NOW)]
    assert confirmed(us) == confirmed(ee)


# ── a log key that was revoked while its node was down ────────────────────────────────────────────────────────────


def revoke_log_key(world: World, peer: Peer, *, at_index: int) -> Path:
    """The States revoke a log key and list its successor, whose file this returns; the node is down."""
    state, file = peer.state, peer.settings.keys_dir / "log-2.key"
    create_key(file, f"{state}/log/2", "log")
    (old,) = world.roster.keys_of(state, "log")
    others = tuple(key for key in world.roster.states[state].keys if key is not old)
    fresh = replace(old, kid=f"{state}/log/2", key=read_card(card_path(file)).key)
    world.change_state(state, keys=(*others, replace(old, revoked_at_index=at_index), fresh))
    return file


def test_a_node_whose_log_key_was_revoked_while_it_was_down_goes_on_with_the_next(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.sync(us)
    us.close()
    revoke_log_key(world, us, at_index=us_size(ee))
    for peer in (ee, nl):
        peer.node.adopt(world.roster)
    us.open()
    us.node._adopted = None
    us.node.adopt(world.roster)
    assert us.node.keys.log.public == world.roster.keys_of("US", "log")[-1].key
    assert start_gate(us), us.node.gate.why
    post(us, "two")
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.sync(us)
        assert peer.titles(issuer="US") == ["two", "one"]
    assert us.log().confirmed_size == 2


def test_a_head_under_a_revoked_key_is_signed_again_and_whoever_comes_finds_one_that_verifies(
    world: World,
) -> None:
    """Without it a newcomer would find nothing of the log that verifies until its next leaf."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    us.witnessed(ee)
    ee.sync(us)
    us.close()
    revoke_log_key(world, us, at_index=1)
    us.open()
    for peer in (us, ee, nl):
        peer.node._adopted = None
        peer.node.adopt(world.roster)
    assert start_gate(us), us.node.gate.why
    counting = witnessing.log_keys(world.roster, us.node.origin)

    def head(peer: Peer) -> Checkpoint:
        return open_checkpoint(peer.log("US").head_note or b"", counting, us.node.origin)[0]

    before = us.log().head_root
    with pytest.raises(NoKnownSignature):
        head(us)
    assert us.node.publish()
    assert (head(us).size, head(us).root) == (1, before)
    assert not us.node.publish()
    nl.sync(us)
    assert nl.titles(issuer="US") == ["one"]
    with pytest.raises(NoKnownSignature):
        head(ee)
    ee.follow(us)
    assert head(ee) == head(us)
    for tail in ("", "/1"):
        url = f"/mirror/{origin_hash(us.node.origin)}/checkpoint{tail}"
        served = ee.request("GET", url).content
        assert open_checkpoint(served, counting, us.node.origin)[0] == head(us)


@pytest.mark.parametrize("noticed", ["at the next look", "when a head is to be signed"])
def test_a_node_that_has_only_a_revoked_key_says_so_and_takes_nothing_until_it_has_another(
    world: World, noticed: str
) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    us.witnessed(ee, nl)
    assert start_gate(us)
    file = revoke_log_key(world, us, at_index=1)
    hidden = file.rename(file.with_name("elsewhere"))
    for peer in (us, ee, nl):
        peer.node._adopted = None
        peer.node.adopt(world.roster)
    signed = heads(us)
    if noticed == "at the next look":
        us.node.gate.hold()
        assert not is_open(us)
    us.node.publish()
    us.node.publish()
    assert heads(us) == signed
    assert not is_open(us)
    refused = us.post(us.officer.sign(_main("too early"))).json()
    assert refused["type"].endswith("#node-starting")
    assert "keys rotate log" in refused["detail"]
    assert us.federation("US")["error"]["code"] == "key-not-active"
    assert faults_told(us) == ["key-not-active"]
    assert not start_gate(us)
    assert "revoked" in us.node.gate.why

    hidden.rename(file)
    us.node._adopted = None
    us.node.adopt(world.roster)
    us.node.gate.step()
    assert is_open(us), us.node.gate.why
    assert us.federation("US")["error"] is None
    us.must_post(us.officer.sign(_main("two")))
    us.witnessed(ee, nl)
    assert us.log().confirmed_size == 2


def test_a_key_revoked_before_anything_was_signed_keeps_the_log_closed_and_is_told_once(world: World) -> None:
    us = world.make("US")
    assert (us.settings.data_dir / "first-start").exists()
    revoke_log_key(world, us, at_index=0).unlink()
    us.node.gate.hold()
    for _ in range(3):
        us.node.gate.step()
        us.node.gate.hold()
        assert not is_open(us)
    assert faults_told(us) == ["key-not-active"]


def faults_told(peer: Peer) -> list[str]:
    with peer.db.read() as session:
        told = session.scalars(select(EventRow.detail).where(EventRow.type == "log.fault")).all()
    return [orjson.loads(one)["code"] for one in told if one is not None]


def test_a_thief_shows_a_head_under_the_revoked_key_and_stops_nobody(world: World) -> None:
    """A mirror remembers a head that it was once offered and whose leaves never came; the key was stolen, and is revoked."""
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    post(us, "two")
    us.witnessed(ee, nl)
    for peer in (ee, nl):
        peer.sync(us)
    forged = sign_checkpoint(Checkpoint(origin_of("US"), 2, bytes(32)), us.node.keys.log).encode()
    url = f"/witness/{origin_hash(origin_of('US'))}/seen"
    us.close()
    revoke_log_key(world, us, at_index=2)
    us.open()
    us.line.rules = [lambda request: answer(200, forged) if request.url.path == url else None]
    for peer in (us, ee, nl):
        peer.node._adopted = None
        peer.node.adopt(world.roster)
    assert start_gate(us), us.node.gate.why


def test_what_the_thief_had_cosigned_keeps_the_log_closed_and_the_reason_is_told(world: World) -> None:
    us, ee, nl = world.make("US"), world.make("EE"), world.make("NL")
    post(us, "one")
    restore = world.back_up("US")
    post(us, "the thief's")
    us.witnessed(ee, nl)
    us.close()
    us = restore()
    revoke_log_key(world, us, at_index=1)
    us.close()
    us.open()
    for peer in (us, ee, nl):
        peer.node._adopted = None
        peer.node.adopt(world.roster)
    assert not start_gate(us)
    assert "EE: " in us.node.gate.why
    assert "does not verify" in us.node.gate.why


def us_size(peer: Peer) -> int:
    return peer.log("US").size
