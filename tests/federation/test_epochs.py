"""After a fork: the States end the log, its State goes on in the next epoch, and what both histories share goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app import proofs
from app.backup import mark_restored
from app.domain.errors import PeerFault
from app.domain.retention import EVERY
from app.domain.roster import RosterLog
from app.gate import operator
from app.mirrors import Followed
from app.models import BodyRow, BranchLeafRow, EntryRow, LogRow
from app.replication.anew import NotToBeginAnew, begin_anew
from app.replication.forks import root_here
from app.retention import due
from app.setup import NotEnded, begin_next_epoch
from tests import examples
from tests.db.test_rebuild import rebuild
from tests.federation.test_gossip import hear
from tests.federation.test_replication import amend, issue
from tests.federation.test_retention import keep_house
from tests.federation.world import (
    DAY,
    NOW,
    Peer,
    Signed,
    World,
    answer,
    dump,
    origin_of,
    seeded,
    url_of,
    with_one_database,
)

OLD = origin_of("US")
NEW = OLD.replace("/log/1", "/log/2")
LAPSE = NOW + 20 * DAY
"""When a notice lapses that nobody touches in the next epoch, and one that is amended there would have."""


@pytest.fixture
def world_with_nl(tmp_path: Path, templates: Path, database_url: str) -> Iterator[World]:
    """Three States; the node of NL is on the engine under test."""
    with closing(with_one_database(tmp_path / "world", templates, "NL", database_url)) as made:
        yield made


def mirror(peer: Peer, origin: str = NEW) -> Followed:
    """What a node keeps of one epoch of the US."""
    return peer.node.mirrors.mirror(origin, int(origin.rpartition("/")[2]), "US")


def row(peer: Peer, origin: str) -> LogRow:
    with peer.db.read() as session:
        return session.execute(select(LogRow).where(LogRow.origin == origin)).scalar_one()


def take(peer: Peer, origin: str = NEW) -> None:
    """Look at a log of the US and judge it, and what continues it."""
    followed = mirror(peer, origin)
    peer.node.mirrors.follow(followed)
    followed.wanted_after = -1
    while peer.node.mirrors.judge(followed):
        pass


def fork(world: World) -> tuple[Peer, Peer, Peer, Peer, list[Signed]]:
    """US says three things that NL and EE confirm; then one thing to NL and another to EE, who find out."""
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    said = [
        issue(us, "kept"),
        us.must_post(
            us.officer.sign(
                examples.denied_end_user(issuer="US", title="mended", tlp="TLP:AMBER", audience=["NL", "US"]),
                exp=LAPSE,
            )
        ),
        issue(us, "gone"),
        us.must_post(us.officer.sign(examples.denied_end_user(issuer="US", title="let be"), exp=LAPSE)),
    ]
    us.witnessed(nl, ee)
    for peer in (nl, ee):
        peer.sync(us)
    restore = world.back_up("US")
    first = amend(us, said[1], "told to NL", "TLP:AMBER", ["NL", "US"])
    us.witnessed(nl)
    nl.sync(us)
    other = restore()
    issue(other, "told to EE")
    issue(other, "and this")
    other.publish()
    ee.sync(other)
    with suppress(PeerFault):
        ee.offer(nl)
    hear(ee, nl)
    hear(nl, ee)
    assert [peer.log("US").status for peer in (nl, ee)] == ["frozen", "frozen"]
    return us, other, nl, ee, [*said, first]


def end(world: World, *, size: int, root: bytes, successor: bool = True) -> None:
    """By threshold, the States end the log; the US lists its next epoch."""
    logs = [RosterLog(OLD, 1, f"{url_of('US')}/log/1", "frozen", size, root)]
    if successor:
        logs.append(RosterLog(NEW, 2, f"{url_of('US')}/log/2"))
    world.change_state("US", logs=tuple(logs))


def agree(world: World, *peers: Peer) -> None:
    """What the loops do when a roster is adopted: judge again, settle what was ended."""
    for peer in peers:
        for log_id in [row(peer, OLD).id]:
            peer.node.mirrors.rejudge(log_id, world.roster)
        peer.node.vigil.look_after()


def go_on(world: World, us: Peer) -> Peer:
    """The US goes on in its own folder: `verbale node next-epoch`."""
    us.close()
    origin = begin_next_epoch(us.settings, world.roster, now=world.clock())
    assert origin == NEW
    us.settings = replace(us.settings, origin=origin)
    us.open()
    us.node.mirrors.rejudge(us.node.log_id, world.roster)
    us.node.mirrors.rejudge(row(us, OLD).id, world.roster)
    mirror(us, OLD)
    return us


def sign(us: Peer, main: dict[str, Any] | None, kind: Any = "issue", ref: bytes | None = None) -> Signed:
    return us.officer.sign(main, kind, ref=ref, log=NEW)


def frozen_root(peer: Peer, size: int) -> bytes:
    with peer.db.read() as session:
        root = root_here(session, row(peer, OLD).id, size)
    assert root is not None
    return root


def shown(peer: Peer) -> dict[str, tuple[str, str]]:
    """Title → status and standing of what the node shows."""
    every = [("status", status) for status in ("active", "withdrawn", "expired", "erased")]
    items = peer.get("/v1/notices", params=every, headers=peer.token())["items"]
    return {item["title"]: (item["status"], item["standing"]) for item in items}


def settled(world: World) -> tuple[Peer, Peer, Peer, list[Signed]]:
    """All of it up to the first leaf of the new epoch, which NL and EE have."""
    us, _, nl, ee, said = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    end(world, size=4, root=frozen_root(nl, 4))
    agree(world, nl, ee)
    go_on(world, us)
    us.node.vigil.look_after()
    us.publish()
    for peer in (nl, ee):
        take(peer)
    return us, nl, ee, said


def recovered(world: World) -> tuple[Peer, Peer, Peer, list[Signed]]:
    """A whole recovery, and a statement of every kind about what the old log said."""
    us, nl, ee, said = settled(world)
    kept, mended, gone, _, _ = said
    new = examples.denied_end_user(issuer="US", title="mended twice", tlp="TLP:AMBER", audience=["NL", "US"])
    amendment = examples.amendment(
        mended.id, mended.ref, replacement=new, issuer="US", tlp="TLP:AMBER", audience=["NL", "US"]
    )
    us.must_post(sign(us, amendment, "amend", mended.hash))
    us.must_post(sign(us, examples.withdrawal(kept.id, kept.ref, issuer="US"), "withdraw", kept.hash))
    us.must_post(sign(us, None, "erase", gone.hash))
    us.must_post(sign(us, examples.denied_end_user(issuer="US", title="new")))
    us.publish()
    for peer in (nl, ee):
        take(peer)
    return us, nl, ee, said


# ── frozen ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_fork_does_not_share_is_not_confirmed_any_more_and_shown_as_unproven(
    world_with_nl: World,
) -> None:
    world = world_with_nl
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    issue(us, "shared")
    us.witnessed(nl, ee)
    nl.sync(us)
    ee.sync(us)
    restore = world.back_up("US")
    issue(us, "confirmed")
    issue(us, "and more")
    us.witnessed(nl, ee)
    nl.sync(us)
    ee.sync(us)
    nl.sync(us)
    assert nl.log("US").confirmed_size == 3
    assert shown(nl)["confirmed"] == ("active", "confirmed")
    # An old copy signs another second leaf, which nobody cosigned.
    other = restore()
    issue(other, "otherwise")
    other.publish()
    with pytest.raises(PeerFault):
        nl.follow(other)
    nl.node.vigil.look_after()
    assert nl.federation("US")["frozen_size"] == 1
    assert nl.federation("US")["confirmed"]["size"] == 1
    assert shown(nl) == {
        "shared": ("active", "confirmed"),
        "confirmed": ("active", "unproven"),
        "and more": ("active", "unproven"),
    }
    assert nl.titles(standing="unproven") == ["and more", "confirmed"]
    assert nl.titles(standing="provisional") == []


def test_an_ended_log_ends_at_the_same_leaf_everywhere(world_with_nl: World) -> None:
    world = world_with_nl
    _, _, nl, ee, said = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
        assert peer.federation("US")["frozen_size"] == 4
    assert shown(nl)["told to NL"] == ("active", "unproven")
    assert shown(ee)["told to EE"] == ("active", "unproven")
    assert nl.federation("US")["frozen_root"] == ee.federation("US")["frozen_root"] is not None
    end(world, size=4, root=frozen_root(nl, 4), successor=False)
    agree(world, nl, ee)
    assert nl.faults("US") == {4: "log-ended"}
    assert ee.faults("US") == {4: "log-ended", 5: "log-ended"}
    common = {
        "kept": ("active", "confirmed"),
        "gone": ("active", "confirmed"),
        "let be": ("active", "confirmed"),
    }
    assert shown(nl) == common | {"mended": ("active", "confirmed")}
    assert shown(ee) == common
    assert [peer.log("US").confirmed_size for peer in (nl, ee)] == [4, 4]
    assert nl.get(f"/v1/notices/{said[1].id}", headers=nl.token())["version"] == 1


def test_an_end_with_another_root_than_what_is_held_is_said(world: World) -> None:
    _, _, nl, ee, _ = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    end(world, size=5, root=frozen_root(nl, 5))
    agree(world, nl, ee)
    assert (nl.log("US").error_code, nl.log("US").confirmed_size) == (None, 5)
    assert (ee.log("US").error_code, ee.log("US").confirmed_size) == ("end-differs", 4)


def test_a_mirror_that_holds_another_history_is_begun_anew_with_the_chosen_one(
    world_with_nl: World,
) -> None:
    world = world_with_nl
    us, other, nl, ee, said = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    end(world, size=6, root=frozen_root(ee, 6))  # so NL holds the wrong one
    agree(world, nl, ee)
    assert (nl.log("US").error_code, ee.log("US").error_code) == ("end-differs", None)
    us.close()
    go_on(world, other)
    other.node.vigil.look_after()
    other.must_post(
        sign(other, examples.withdrawal(said[0].id, said[0].ref, issuer="US"), "withdraw", said[0].hash)
    )
    other.publish()
    for peer in (nl, ee):
        take(peer)
    told_to_nl = said[-1]
    assert begin_anew(nl.db, OLD, world.roster) == 5
    agree(world, nl)
    assert (nl.log("US").error_code, nl.log("US").size, nl.log("US").confirmed_size) == (None, 6, 6)
    take(nl, OLD)
    take(nl)
    assert {title: status for title, (status, _) in shown(nl).items()} == {
        "kept": "withdrawn",
        "mended": "active",
        "gone": "active",
        "let be": "active",
        "told to EE": "active",
        "and this": "active",
    }
    assert {origin: shown(nl)[origin] for origin in shown(ee)} == shown(ee)  # who sees one more
    # What the other history said is kept as evidence, and the log stays frozen.
    with nl.db.read() as session:
        branches = {bytes(leaf) for leaf in session.scalars(select(BranchLeafRow.leaf))}
    assert told_to_nl.leaf in branches
    assert nl.log("US").status == "frozen"
    rebuild(nl)
    assert shown(nl)["told to EE"][0] == "active"


@pytest.mark.parametrize("which", ["own", "unknown", "alive", "chosen"])
def test_no_other_mirror_is_begun_anew(world: World, which: str) -> None:
    _, _, nl, ee, _ = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    if which == "chosen":
        end(world, size=4, root=frozen_root(nl, 4))
        agree(world, nl)
    origin = {"own": nl.node.origin, "unknown": "jp.verbale.example/log/9"}.get(which, OLD)
    before = dump(nl.db, log_id=row(nl, OLD).id)
    with pytest.raises(NotToBeginAnew) as refused:
        begin_anew(nl.db, origin, world.roster)
    assert {"own": "own State", "unknown": "keeps no", "alive": "not ended", "chosen": "chose"}[which] in str(
        refused.value
    )
    assert dump(nl.db, log_id=row(nl, OLD).id) == before


def test_a_node_that_lacks_the_end_of_an_ended_log_fetches_it_from_the_others(world: World) -> None:
    _, _, nl, ee, _ = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    del world.network.apps[url_of("US").removeprefix("http://")]
    late = world.make("EE", "late")
    end(world, size=4, root=frozen_root(nl, 4), successor=False)
    mirror(late, OLD)
    agree(world, late)
    assert (late.log("US").size, late.log("US").status, late.log("US").confirmed_size) == (4, "frozen", 4)


# ── going on ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_goes_on_in_the_next_epoch_with_what_both_histories_share(world_with_nl: World) -> None:
    us, nl, ee, said = recovered(world_with_nl)
    kept, mended, gone, _, _ = said
    assert shown(us) == shown(nl)
    assert shown(nl) == {
        "kept": ("withdrawn", "provisional"),
        "mended twice": ("active", "provisional"),
        "let be": ("active", "confirmed"),
        "new": ("active", "provisional"),
    }
    assert set(shown(ee)) == {"kept", "let be", "new"}
    for peer in (us, nl):
        notice = peer.get(f"/v1/notices/{mended.id}", headers=peer.token())
        assert (notice["origin"], notice["version"], notice["id"]) == (NEW, 2, mended.id)
        versions = peer.get(f"/v1/notices/{mended.id}/versions", headers=peer.token())["items"]
        assert [(v["origin"], v["index"], v["version"], v["standing"]) for v in versions] == [
            (OLD, 1, 1, "confirmed"),
            (NEW, 1, 2, "provisional"),
        ]
        assert [v["document"]["type"] for v in versions] == ["denied_end_user", "amendment"]
    # Every body of the notice that was erased is gone, also of the old log.
    for peer in (us, nl, ee):
        with peer.db.read() as session:
            old = row(peer, OLD).id
            assert (
                session.scalar(select(EntryRow.body_state).where(EntryRow.log_id == old, EntryRow.idx == 2))
                == "erased"
            )
            assert not session.scalar(
                select(func.count()).select_from(BodyRow).where(BodyRow.log_id == old, BodyRow.idx == 2)
            )
    assert gone.id in {item["id"] for item in nl.get("/v1/recall-board", headers=nl.token())["items"]}
    assert kept.id in {item["id"] for item in nl.get("/v1/recall-board", headers=nl.token())["items"]}
    # The same leaves, the same rows, whichever history a node had been shown.
    assert dump(nl.db, log_id=row(nl, NEW).id)["entries"] == dump(us.db, log_id=us.node.log_id)["entries"]


def test_the_first_leaf_names_what_it_continues(world: World) -> None:
    us, nl, ee, _ = settled(world)
    for peer in (nl, ee):
        log = next(log for log in peer.get("/v1/federation")["logs"] if log["origin"] == NEW)
        assert log["continues"] == {"origin": OLD, "size": 4, "stated": True}
    assert us.request("GET", "/log/1/checkpoint").status_code == 200
    assert us.request("GET", "/log/2/checkpoint").status_code == 200
    assert us.request("GET", "/log/3/checkpoint").status_code == 404


def test_nothing_is_taken_before_the_first_leaf_has_named_what_is_continued(world: World) -> None:
    us, _, nl, ee, _ = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    end(world, size=4, root=frozen_root(nl, 4))
    agree(world, nl, ee)
    go_on(world, us)
    notice = sign(us, examples.denied_end_user(issuer="US", title="too soon"))
    assert us.post(notice).status_code == 503
    us.node.vigil.look_after()
    assert us.post(notice).json()["index"] == 1


def test_a_first_leaf_that_names_something_else_is_flagged_and_changes_nothing(world: World) -> None:
    _, nl, _, _ = recovered(world)
    assert nl.faults("US").get(0) is None
    listed = world.roster.log(OLD)
    assert listed is not None
    # The States say size 3: what the US wrote in its first leaf is not what they say.
    world.change_state(
        "US",
        logs=(
            replace(listed, end=3, end_root=frozen_root(nl, 3)),
            RosterLog(NEW, 2, f"{url_of('US')}/log/2"),
        ),
    )
    rebuild(nl)
    log = next(log for log in nl.get("/v1/federation")["logs"] if log["origin"] == NEW)
    assert log["continues"] == {"origin": OLD, "size": 3, "stated": False}


def test_nothing_that_the_other_history_said_can_be_acted_on(world: World) -> None:
    us, _, _, said = settled(world)
    kept, mended, _, _, first = said
    main = examples.withdrawal(mended.id, first.ref, issuer="US")
    refused = us.post(sign(us, main, "withdraw", first.hash))
    assert (refused.status_code, refused.json()["type"].rpartition("#")[2]) == (409, "unknown-reference")
    # Twice is refused as well, in one log and over two.
    us.must_post(sign(us, examples.withdrawal(kept.id, kept.ref, issuer="US"), "withdraw", kept.hash))
    again = us.post(sign(us, examples.withdrawal(kept.id, kept.ref, issuer="US"), "withdraw", kept.hash))
    assert again.json()["type"].rpartition("#")[2] == "notice-closed"


def test_nothing_that_the_other_history_said_can_be_proven_below_the_end(world: World) -> None:
    _, other, nl, ee, said = fork(world)
    told_to_nl = said[-1]
    everything = operator("US")

    def tell(peer: Peer, idx: int) -> dict[str, Any]:
        with peer.db.read() as session:
            root = session.scalar(
                select(EntryRow.root_idx).where(EntryRow.log_id == row(peer, OLD).id, EntryRow.idx == idx)
            )
            assert root is not None
            return proofs._tell(session, everything, (row(peer, OLD).id, root), world.roster, recalled=False)

    before = tell(nl, 4)
    assert before["statements"][-1]["statement"].encode() == told_to_nl.leaf
    assert proofs._verify_told(before, world.roster, proofs._Chain()).size == 5
    end(world, size=6, root=frozen_root(other, 6))  # leaf 4 is another one there
    with pytest.raises(proofs.ProofRefused, match="ended") as refused:
        proofs._verify_told(before, world.roster, proofs._Chain())
    assert refused.value.step == "checkpoint"
    after = tell(ee, 4)
    assert proofs._verify_told(after, world.roster, proofs._Chain()).size == 6


def test_a_log_that_continues_nothing_by_the_roster_cannot_act_on_another(world: World) -> None:
    _, nl, _, _ = recovered(world)
    listed = world.roster.log(OLD)
    assert listed is not None
    before = shown(nl)
    world.change_state(
        "US",
        logs=(replace(listed, end=None, end_root=None), RosterLog(NEW, 2, f"{url_of('US')}/log/2")),
    )
    nl.node.mirrors.rejudge(row(nl, NEW).id, world.roster)
    nl.node.mirrors.rejudge(row(nl, OLD).id, world.roster)
    log = next(log for log in nl.get("/v1/federation")["logs"] if log["origin"] == NEW)
    assert log["continues"] is None
    assert shown(nl)["new"] == ("active", "provisional")
    assert shown(nl)["kept"][0] == "active"
    assert "mended twice" not in shown(nl)
    # And back: the same rows as before, by whatever way.
    end(world, size=4, root=frozen_root(nl, 4))
    nl.node.mirrors.rejudge(row(nl, OLD).id, world.roster)
    nl.node.mirrors.rejudge(row(nl, NEW).id, world.roster)
    take(nl, NEW)  # the bodies of what counts again are asked for again
    assert shown(nl) == before


def test_a_late_joiner_and_a_rebuild_have_the_same_rows(world_with_nl: World) -> None:
    world = world_with_nl
    _, nl, ee, _ = recovered(world)
    before = {origin: dump(nl.db, log_id=row(nl, origin).id) for origin in (OLD, NEW)}
    rebuild(nl)
    assert {origin: dump(nl.db, log_id=row(nl, origin).id) for origin in (OLD, NEW)} == before

    # One that begins now hears of the new log first, and waits with it for the old one.
    ee.close()
    late = world.make("EE", "late")
    mirror(late, OLD)
    late.node.mirrors.rejudge(row(late, OLD).id, world.roster)
    take(late, NEW)
    assert (row(late, NEW).size, row(late, NEW).judged) == (5, 0)
    take(late, OLD)
    agree(world, late)
    take(late, NEW)
    assert row(late, NEW).judged == 5
    assert shown(late) == {
        "kept": ("withdrawn", "provisional"),
        "let be": ("active", "confirmed"),
        "new": ("active", "provisional"),
    }


def test_a_body_of_the_old_log_that_comes_late_is_shown_in_the_new_one(world: World) -> None:
    us, _, nl, ee, said = fork(world)
    for peer in (nl, ee):
        peer.node.vigil.look_after()
    end(world, size=4, root=frozen_root(nl, 4))
    agree(world, nl, ee)
    go_on(world, us)
    us.node.vigil.look_after()
    kept = said[0]
    us.must_post(sign(us, examples.withdrawal(kept.id, kept.ref, issuer="US"), "withdraw", kept.hash))
    us.publish()
    ee.close()
    late = world.make("EE", "late")
    mirror(late, OLD)
    late.node.mirrors.rejudge(row(late, OLD).id, world.roster)
    late.line.rules.append(_refuse)
    take(late, OLD)
    agree(world, late)
    take(late, NEW)
    assert "kept" not in shown(late)
    late.line.rules.clear()
    take(late, OLD)
    take(late, NEW)
    assert shown(late)["kept"] == ("withdrawn", "provisional")


def _refuse(request: Any) -> Any:
    return answer(503) if request.url.path == "/bodies" else None


def test_the_next_epoch_begins_only_where_the_roster_says_so(world: World) -> None:
    us, other, _, ee, _ = fork(world)
    us.close()
    with pytest.raises(NotEnded, match="no log continues"):
        begin_next_epoch(us.settings, world.roster, now=world.clock())
    end(world, size=5, root=frozen_root(ee, 5))
    with pytest.raises(NotEnded, match="does not hold"):
        begin_next_epoch(us.settings, world.roster, now=world.clock())
    us.open()
    other.close()
    assert begin_next_epoch(other.settings, world.roster, now=world.clock()) == NEW
    # Killed after the database and before the settings: it is run again.
    assert begin_next_epoch(other.settings, world.roster, now=world.clock()) == NEW
    other.settings = replace(other.settings, origin=NEW)
    other.open()


def test_a_log_that_lost_leaves_of_a_signed_head_goes_on_in_the_next_epoch(world_with_nl: World) -> None:
    """Restored from a backup; one other State has seen a larger head, and nobody has its leaves."""
    from tests.federation.test_startup import seen_only, start_gate

    world = world_with_nl
    us, ee, nl, signed = seen_only(world)
    with us.db.write() as session:
        mark_restored(us.db, session, world.clock())
    assert not start_gate(us)
    end(world, size=1, root=signed[1])
    agree(world, ee, nl)
    us = go_on(world, us)
    us.node.gate.close()
    us.node.gate.step()
    us.node.gate.step()
    assert us.node.gate.is_open
    assert us.request("GET", "/v1/notices").status_code == 200  # level again: what it holds is shown
    us.node.vigil.look_after()
    us.must_post(sign(us, examples.denied_end_user(issuer="US", title="after all")))
    us.publish()
    for peer in (ee, nl):
        take(peer)
        assert peer.titles(issuer="US") == ["after all", "one"]


def test_what_an_ended_log_holds_is_proven_after_its_key_was_revoked(world_with_nl: World) -> None:
    """The key was stolen, which is why there were two histories. What the States let stand is proven all the same."""
    world = world_with_nl
    _, nl, _, _ = recovered(world)
    (stolen,) = (key for key in world.roster.states["US"].keys if key.use == "log")
    others = tuple(key for key in world.roster.states["US"].keys if key.use != "log")
    fresh = replace(stolen, kid="US/log/2", key=seeded("US/log/2").public)

    def prove(index: int) -> int:
        world.change_state("US", keys=(*others, fresh, replace(stolen, revoked_at_index=index)))
        log_id = row(nl, OLD).id
        with nl.db.read() as session:
            told = proofs._tell(session, operator("NL"), (log_id, 3), world.roster, recalled=False)
        return proofs._verify_told(told, world.roster, proofs._Chain()).size

    assert prove(4) == 4  # where the log was ended
    with pytest.raises(proofs.ProofRefused) as refused:
        prove(3)
    assert refused.value.step == "checkpoint"


def test_what_is_over_in_an_earlier_epoch_is_erased_by_the_clock_too(world: World) -> None:
    us, nl, ee, _ = recovered(world)
    keep_house(us, "*=60")
    assert shown(us)["let be"] == ("active", "confirmed")
    world.clock.tick(80 * DAY)
    size = us.log().size
    with us.db.read() as session:  # what goes on in the new log is due there or not at all
        assert len(due(session, us.node.log_id, {EVERY: 60}, now_s=world.clock() // 1000)) == 2
    keep_house(us, "*=60")
    keep_house(us, "*=60")
    us.publish()
    for peer in (nl, ee):
        take(peer)
    # "kept" was withdrawn and "gone" erased in the new log; "let be" was said in the old one alone.
    assert us.log().size == size + 2
    for peer in (us, nl, ee):
        assert {"let be", "kept"}.isdisjoint(shown(peer))
        assert ("mended twice" in shown(peer)) == (peer is not ee)  # its time was prolonged in the new log
        assert row(peer, NEW).judged == size + 2
    assert nl.faults("US") == {4: "log-ended"}
