"""A new roster changes verdicts: what it changes is what a rebuild of everything would change, and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from app import bodies
from app.domain.errors import KeyNotActive
from app.domain.roster import RosterKey
from app.domain.signed import SignedNotice
from app.judging import Context, judge_posted
from app.models import EventRow
from app.projections.rebuild import rebuild_log
from app.record import record_own
from tests import examples
from tests.db.test_rebuild import LIVE, amendment, everything, live_through_much, withdrawal
from tests.federation.test_bodies import ask_as
from tests.federation.world import NOW, Peer, Signed, World, seeded

SECOND = "NL/cp/2"


def second_key(**changes: Any) -> RosterKey:
    return replace(RosterKey(SECOND, "notices", seeded(SECOND).public, NOW - 1000), **changes)


def by_second(peer: Peer, main: dict[str, Any] | None, kind: Any = "issue", **options: Any) -> Signed:
    return peer.officer.sign(main, kind, kid=SECOND, signer=seeded(SECOND), **options)


def change_key(world: World, code: str, kid: str, **changes: Any) -> None:
    keys = world.roster.states[code].keys
    world.change_state(code, keys=tuple(replace(k, **changes) if k.kid == kid else k for k in keys))


def with_a_body(peer: Peer, code: str) -> list[int]:
    """The leaves of a log of which a body lies in the tables of a node."""
    with peer.db.read() as session:
        return sorted(bodies.opened(session, peer.log(code).id, range(100)))


def is_a_fixed_point(peer: Peer) -> None:
    """Folding everything from zero under the roster in force changes nothing."""
    before = everything(peer.db)
    for log_id in {row[0] for row in before["logs"]}:
        rebuild_log(peer.db, log_id, live=LIVE, roster=peer.world.roster, now=peer.world.clock())
    after = everything(peer.db)
    differing = [
        (table, old, new)
        for table, rows in before.items()
        for old, new in zip_longest(rows, after[table])
        if old != new
    ]
    assert not differing, "\n".join(map(str, differing))


def events_of(peer: Peer) -> list[tuple[Any, ...]]:
    with peer.db.read() as session:
        return [tuple(r) for r in session.execute(select(EventRow.type, EventRow.idx).order_by(EventRow.seq))]


def test_a_key_that_reaches_the_roster_late_counts_from_its_first_leaf_on(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    first = nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="Before")))
    late = by_second(nl, examples.best_practice(issuer="NL", title="Late"))
    amended = nl.officer.sign(
        amendment(late, examples.best_practice(issuer="NL", title="Late, amended")), "amend", ref=late.hash
    )
    erased = by_second(nl, None, "erase", ref=first.hash)
    for each in (late, amended, erased):
        nl.smuggle((each.leaf, each.parts))
    us.sync(nl)
    assert us.faults("NL") == {1: "unknown-key", 2: "unknown-reference", 3: "unknown-key"}
    world.add_key("NL", second_key())
    us.judge(nl)
    assert us.faults("NL") == {}
    assert us.titles() == ["Late, amended"]
    told = events_of(us)
    assert told.count(("notice.issued", 0)) == 1
    assert ("notice.erased", 3) in told
    is_a_fixed_point(us)


def test_a_key_revoked_at_an_index_loses_what_stands_there_and_what_hangs_on_it(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    world.add_key("NL", second_key())
    kept = nl.must_post(by_second(nl, examples.best_practice(issuer="NL", title="Before the theft")))
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="By the other key")))
    forged = nl.must_post(by_second(nl, examples.best_practice(issuer="NL", title="Forged")))
    nl.must_post(by_second(nl, withdrawal_of_nl(kept), "withdraw", ref=kept.hash))
    nl.must_post(nl.officer.sign(withdrawal_of_nl(forged), "withdraw", ref=forged.hash))
    us.sync(nl)
    assert us.statuses() == {
        "Before the theft": "withdrawn",
        "By the other key": "active",
        "Forged": "withdrawn",
    }
    change_key(world, "NL", SECOND, revoked_at_index=2)
    us.judge(nl)
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    for peer in (us, nl):
        assert peer.statuses() == {"Before the theft": "active", "By the other key": "active"}
        assert peer.faults("NL") == {2: "key-not-active", 3: "key-not-active", 4: "unknown-reference"}
        is_a_fixed_point(peer)
    # What does not count is not kept, but by its issuer.
    assert with_a_body(us, "NL") == [0, 1]
    assert with_a_body(nl, "NL") == [0, 1, 2, 3, 4]
    # It was a mistake, and the majority says later: from 4 on. A revocation is never moved later by a ceremony; here the
    # verdicts alone are at stake.
    change_key(world, "NL", SECOND, revoked_at_index=4)
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    us.sync(nl)
    assert us.statuses()["Forged"] == "withdrawn"
    assert with_a_body(us, "NL") == [0, 1, 2, 3, 4]
    is_a_fixed_point(us)


def test_an_issuer_that_comes_late_to_a_roster_says_that_it_cannot_give_the_body_yet(world: World) -> None:
    """Until then it gives no body of a leaf that does not count there, and that must not stand for "not for you"."""
    us, nl = world.make("US"), world.make("NL")
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="In between")))
    us.sync(nl)
    world.change_state("NL", status="suspended", ends=((nl.node.origin, 0),))
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    us.judge(nl)
    assert with_a_body(us, "NL") == []
    world.change_state("NL", status="member", ends=())
    us.judge(nl)
    us.judge(nl)
    assert us.entry("NL", 0).body_state == "wanted"
    us.close()
    us.open()  # what it waits for does not depend on what a process remembers
    us.judge(nl)
    assert us.entry("NL", 0).body_state == "wanted"
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    us.judge(nl)
    assert us.titles() == ["In between"]
    is_a_fixed_point(us)


def test_only_the_logs_own_node_says_later_of_a_body(world: World) -> None:
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="For all")))
    us.sync(nl)
    world.change_state("NL", status="suspended", ends=((nl.node.origin, 0),))
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    us.judge(nl)
    assert orjson.loads(ask_as(ee, nl, 0)) == {"origin": nl.node.origin, "index": 0, "later": True}
    assert ask_as(ee, us, 0, origin=nl.node.origin) == b""


def test_a_mirror_that_never_held_the_roster_under_which_a_leaf_did_not_count_gets_its_body(
    world: World,
) -> None:
    """It asked under an older roster than the issuer's, and adopts one after it, in which nothing is other than before."""
    us, nl, ee = world.make("US"), world.make("NL"), world.make("EE")
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="For all")))
    nl.must_post(
        nl.officer.sign(
            examples.best_practice(issuer="NL", title="For two", tlp="TLP:RED", audience=["NL", "US"])
        )
    )
    before = world.roster
    world.change_state("NL", status="suspended", ends=((nl.node.origin, 0),))
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    world.shared_roster.roster = before
    for mirror in (us, ee):
        mirror.sync(nl)
        assert [mirror.entry("NL", index).body_state for index in (0, 1)] == ["wanted", "wanted"]
    nl.node.mirrors.rejudge(nl.node.log_id, world.roster)
    for mirror in (us, ee):
        mirror.judge(nl)
    assert set(us.titles()) == {"For all", "For two"}
    assert [ee.entry("NL", index).body_state for index in (0, 1)] == ["held", "absent"]


def test_a_rebuild_keeps_no_body_that_does_not_count_either(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    world.add_key("NL", second_key())
    nl.must_post(by_second(nl, examples.best_practice(issuer="NL", title="Forged")))
    us.sync(nl)
    assert with_a_body(us, "NL") == [0]
    change_key(world, "NL", SECOND, revoked_at_index=0)
    rebuild_log(us.db, us.log("NL").id, live=LIVE, roster=world.roster, now=world.clock())
    assert with_a_body(us, "NL") == []


def withdrawal_of_nl(of: Signed) -> dict[str, Any]:
    return withdrawal(of) | {"issuer": "NL"}


def test_a_suspended_state_stays_provable_and_says_nothing_new(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="As a member")))
    us.sync(nl)
    world.change_state("NL", status="suspended", ends=((nl.node.origin, 1),))
    refused = nl.post(nl.officer.sign(examples.best_practice(issuer="NL", title="Suspended")))
    assert refused.status_code == 403
    signed = nl.officer.sign(examples.best_practice(issuer="NL", title="Suspended"))
    nl.smuggle((signed.leaf, signed.parts))
    us.sync(nl)
    assert us.titles() == ["As a member"]
    assert us.faults("NL") == {1: "not-allowed"}
    world.change_state("NL", status="member", ends=())
    us.judge(nl)
    us.judge(nl)
    assert us.titles() == ["Suspended", "As a member"]
    is_a_fixed_point(us)


def test_a_roster_that_changes_no_verdict_writes_nothing_again(world: World) -> None:
    us = live_through_much(world)
    before = everything(us.db)
    world.change_state("EE", url="http://127.0.0.1:9")
    us.node.mirrors.rejudge(us.log("EE").id, world.roster)
    assert everything(us.db) == before


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_history_the_result_is_a_rebuilds(world: World, seed: int) -> None:
    """Random lives under two keys, one of which comes, goes and is revoked at random; after each roster, a fixed point."""
    chance = random.Random(seed)  # noqa: S311 - a history that is the same in every run
    us, nl = world.make("US"), world.make("NL")
    leaves: list[Signed] = []
    for _ in range(24):
        with_second = chance.random() < 0.5
        sign: Any = partial(by_second, nl) if with_second else nl.officer.sign
        kind: Any = chance.choice(["issue", "issue", "amend", "withdraw", "erase"])
        if kind == "issue" or not leaves:
            made = sign(examples.best_practice(issuer="NL", title=f"{len(leaves)}"))
            if leaves and chance.random() < 0.2:
                made = sign(examples.best_practice(issuer="NL"), statement_id=chance.choice(leaves).id)
        else:
            of = chance.choice(leaves[-4:])
            amended = amendment(of, examples.best_practice(issuer="NL", title=f"{len(leaves)}"))
            main = {"amend": amended, "withdraw": withdrawal_of_nl(of), "erase": None}[kind]
            made = sign(main, kind, ref=of.hash)
        leaves.append(made)
    for made in leaves:
        nl.smuggle((made.leaf, made.parts))
    us.sync(nl)
    world.add_key("NL", second_key())
    for _ in range(4):
        us.judge(nl)
        is_a_fixed_point(us)
        change_key(world, "NL", SECOND, revoked_at_index=chance.randrange(len(leaves)))
        if chance.random() < 0.5:
            change_key(world, "NL", "NL/cp/1", revoked_at_index=chance.choice([None, *range(len(leaves))]))


def test_a_node_that_was_away_during_a_theft_and_two_rotations_agrees_with_the_others(world: World) -> None:
    """It sees all leaves under the roster it left with, then the new roster: revocation and late keys in one step."""
    us, nl = world.make("US"), world.make("NL")
    true = nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="True")))
    us.sync(nl)
    forged = nl.officer.sign(examples.best_practice(issuer="NL", title="Forged"))
    hidden = nl.officer.sign(withdrawal_of_nl(true), "withdraw", ref=true.hash)
    second = by_second(nl, examples.best_practice(issuer="NL", title="Second"))
    for each in (forged, hidden, second):
        nl.smuggle((each.leaf, each.parts))
    us.sync(nl)
    assert us.statuses() == {"True": "withdrawn", "Forged": "active"}
    change_key(world, "NL", "NL/cp/1", revoked_at_index=1, active_to=NOW + 1)
    world.add_key("NL", second_key())
    us.judge(nl)
    assert us.statuses() == {"True": "active", "Second": "active"}
    assert us.faults("NL") == {1: "key-not-active", 2: "key-not-active"}
    is_a_fixed_point(us)


def test_a_key_that_was_ended_signs_nothing_new_whatever_time_it_claims(world: World) -> None:
    nl = world.make("NL")
    world.add_key("NL", second_key(active_to=NOW + 100))
    nl.must_post(by_second(nl, examples.best_practice(issuer="NL", title="In time"), iat=NOW))
    world.clock.tick(100)
    refused = nl.post(by_second(nl, examples.best_practice(issuer="NL", title="Back-dated"), iat=NOW))
    assert (refused.status_code, refused.json()["type"].rpartition("#")[2]) == (403, "key-not-active")
    assert nl.log().size == 1


def test_a_key_that_is_revoked_between_judging_and_appending_appends_nothing(world: World) -> None:
    nl = world.make("NL")
    world.add_key("NL", second_key())
    signed = by_second(nl, examples.best_practice(issuer="NL", title="Too late"))
    context = Context(nl.node.origin, world.roster, NOW)
    judged = judge_posted(SignedNotice(signed.leaf, signed.parts), context)
    change_key(world, "NL", SECOND, revoked_at_index=0)
    with nl.db.write() as session:
        (answer,) = record_own(
            nl.db, session, nl.node.log_id, [judged], now=NOW * 1000, roster=lambda: world.roster
        )
    assert isinstance(answer, KeyNotActive)
    assert nl.log().size == 0
