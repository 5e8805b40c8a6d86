"""What is over for long enough is erased by the clock, by its State's own node, and everywhere; nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.errors import UnsafeSettings
from app.domain.retention import parse_rules
from app.retention import LOOK_MS, Housekeeper
from tests import examples
from tests.db.test_rejudge import withdrawal_of_nl
from tests.federation.world import DAY, NOW, Peer, Signed, World


def keep_house(peer: Peer, *rules: str) -> None:
    node = peer.node
    keeper = Housekeeper(
        peer.db,
        log_id=node.log_id,
        origin=node.origin,
        clock=peer.world.clock,
        roster=node.roster,
        rules=parse_rules(rules),
        signer=node._node_key,
    )
    while keeper.step():
        pass


def say(nl: Peer, title: str, **options: Any) -> Signed:
    return nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title=title), **options))


def test_what_is_over_is_erased_after_its_days_and_what_is_in_force_never(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    say(nl, "In force")
    say(nl, "Expired", exp=NOW + 10 * DAY)
    withdrawn = say(nl, "Withdrawn")
    nl.must_post(nl.officer.sign(withdrawal_of_nl(withdrawn), "withdraw", ref=withdrawn.hash))
    threat = nl.must_post(nl.officer.sign(examples.technology_threat(issuer="NL", title="Other rule")))
    nl.must_post(nl.officer.sign(withdrawal_of_nl(threat), "withdraw", ref=threat.hash))
    us.sync(nl)
    rules = ("*=30", "technology_threat=60")
    world.clock.tick(30 * DAY - 1)
    keep_house(nl, *rules)
    assert len(nl.statuses()) == 4
    world.clock.tick(1)
    keep_house(nl, *rules)
    us.sync(nl)
    for peer in (us, nl):
        assert peer.statuses() == {"In force": "active", "Expired": "expired", "Other rule": "withdrawn"}
    world.clock.tick(10 * DAY)
    keep_house(nl, *rules)
    world.clock.tick(20 * DAY)
    keep_house(nl, *rules)
    keep_house(nl, *rules)
    us.sync(nl)
    for peer in (us, nl):
        assert peer.statuses() == {"In force": "active"}
        assert peer.faults("NL") == {}
    assert nl.log().size == 9
    assert nl.entry(nl, 8).kid == "NL/node/1"


def test_a_node_looks_once_an_hour(world: World) -> None:
    nl = world.make("NL")
    say(nl, "Expired", exp=NOW + 1)
    world.clock.tick(31 * DAY)
    nl.node.housekeeper._rules = parse_rules(["*=31"])
    nl.node.keep_house()
    assert nl.log().size == 1
    world.clock.tick(LOOK_MS / 1000 - 1)
    nl.node.keep_house()
    assert nl.log().size == 1
    world.clock.tick(1)
    nl.node.keep_house()
    assert nl.log().size == 2


def test_without_rules_nothing_is_erased(world: World) -> None:
    nl = world.make("NL")
    say(nl, "Expired", exp=NOW + 1)
    world.clock.tick(9000 * DAY)
    keep_house(nl)
    assert nl.log().size == 1


@pytest.mark.parametrize(
    "text", ["", "*", "*=", "*=29", "*=x", "question", "nosuch=300", "*=٣٠٠", "question=-40"]
)
def test_a_rule_that_is_none_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(UnsafeSettings, match="retention: "):
        parse_rules([text])
    with pytest.raises(UnsafeSettings):
        parse_rules(["*=300", "*=400"])
