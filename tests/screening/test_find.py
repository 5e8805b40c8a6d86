"""Screening at a node: from a post to a hit with reasons, on both engines' tables, through the gate."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from app.domain.handling import Tlp
from app.gate import ANONYMOUS, Principal, operator
from app.screening.denials import by_log
from app.screening.find import Screener, Screening
from app.screening.party import NothingToCompare, Query, UnreadableParty
from app.screening.watch import stored_query
from tests import examples
from tests.db.test_rebuild import amendment, rebuild, withdrawal
from tests.federation.world import Peer, World
from tests.screening.asking import token

OPERATOR = operator("EE")


def person(name: str, **properties: list[str]) -> Query:
    return Query.parse({"schema": "Person", "properties": {"name": [name], **properties}})


def company(name: str, **properties: list[str]) -> Query:
    return Query.parse({"schema": "Company", "properties": {"name": [name], **properties}})


def denial(*names: str, schema: str = "Company", role: str = "end_user", **more: Any) -> dict[str, Any]:
    properties = {"name": list(names), **more.pop("properties", {})}
    parties = [{"ftm": {"schema": schema, "properties": properties}, "role": role}]
    return examples.denied_end_user(body={"parties": parties}, **more)


def ask(peer: Peer, query: Query, caller: Principal = OPERATOR, **options: Any) -> Screening:
    return peer.node.screener.screen(caller, query, now=peer.world.clock(), **options)


def captions(found: Screening) -> list[str]:
    return [hit.caption for hit in found.hits if hit.is_match]


def test_a_denial_is_found_as_soon_as_it_is_acknowledged_and_no_longer_when_it_is_withdrawn(
    world: World,
) -> None:
    ee = world.make("EE")
    assert ask(ee, company("Borealis Signal")).hits == ()
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    assert captions(ask(ee, company("BOREALIS SIGNAL LLC"))) == ["Borealis Signals Ltd"]
    amended = ee.must_post(
        ee.officer.sign(amendment(issued, denial("Meridian Optics Ltd")), "amend", ref=issued.hash)
    )
    assert captions(ask(ee, company("Borealis Signal"))) == []
    assert captions(ask(ee, company("Meridian Optics"))) == ["Meridian Optics Ltd"]
    withdrawn = ee.must_post(ee.officer.sign(withdrawal(amended), "withdraw", ref=amended.hash))
    assert ask(ee, company("Meridian Optics")).hits == ()
    past = ask(ee, company("Meridian Optics"), include_inactive=True)
    assert [hit.status for hit in past.hits] == ["withdrawn"]
    ee.must_post(ee.officer.sign(None, "erase", ref=withdrawn.hash))
    assert ask(ee, company("Meridian Optics"), include_inactive=True).hits == ()


def test_a_mirror_finds_it_when_it_has_the_body(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    us.sync(ee)
    found = us.node.screener.screen(operator("US"), company("Borealis Signals"), now=world.clock())
    assert [(hit.issuer, hit.caption) for hit in found.hits] == [("EE", "Borealis Signals Ltd")]


def test_suppliers_and_users_of_a_threat_are_screened_against_and_parties_of_a_consultation_are_not(
    world: World,
) -> None:
    ee = world.make("EE")
    supplier = examples.party("Cobalt Lantern Technologies", "supplier")
    ee.must_post(ee.officer.sign(examples.technology_threat(body={"suppliers": [supplier]})))
    asked = examples.party("Quiet Harbour Trading", "end_user")
    ee.must_post(ee.officer.sign(examples.consultation_request(body={"parties": [asked]})))
    assert captions(ask(ee, company("Cobalt Lantern Technologies"))) == ["Cobalt Lantern Technologies"]
    assert ask(ee, company("Quiet Harbour Trading")).hits == ()


def test_a_rebuilt_node_answers_the_same_from_an_index_it_had_before(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    before = ask(ee, company("Borealis")).to_json()
    rebuild(ee)
    assert ask(ee, company("Borealis")).to_json() == before
    assert Screener(ee.db).screen(OPERATOR, company("Borealis"), now=world.clock()).to_json() == before


def test_a_node_without_the_index_in_memory_answers_the_same_and_follows_the_same(
    world: World, tmp_path: Path
) -> None:
    ee = world.make("EE")
    folder = tmp_path / "index"
    folder.mkdir()
    disk = Screener(ee.db, folder)
    asked = [company(name) for name in ("Borealis", "Meridian Optik", "Cobalt Lantern")]
    caller = Principal("token", "EE", int(Tlp.GREEN), frozenset({"screen"}))

    def same() -> list[Any]:
        found = []
        for query in asked:
            for who in (OPERATOR, caller):
                for also in (False, True):
                    here, there = (
                        one.screen(who, query, now=world.clock(), include_inactive=also)
                        for one in (ee.node.screener, disk)
                    )
                    assert here == there
                    found.append(here.to_json())
        return found

    empty = same()
    for name in ("Borealis Signals Ltd", "Meridian Optics GmbH"):
        ee.must_post(ee.officer.sign(denial(name)))
    restricted = ee.must_post(ee.officer.sign(denial("Cobalt Lantern Works", tlp="TLP:RED", audience=["US"])))
    two = same()
    ee.must_post(ee.officer.sign(withdrawal(restricted), "withdraw", ref=restricted.hash))
    one = same()
    assert len({json.dumps(found) for found in (empty, two, one)}) == 3
    disk = Screener(ee.db, folder)  # as after a start
    assert same() == one
    assert list(folder.iterdir()) == []


def test_an_expired_denial_is_found_on_request_only(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd"), exp=world.clock() // 1000 + 3600))
    assert len(ask(ee, company("Borealis Signals")).hits) == 1
    world.clock.tick(7200)
    assert ask(ee, company("Borealis Signals")).hits == ()
    assert [h.status for h in ask(ee, company("Borealis Signals"), include_inactive=True).hits] == ["expired"]


def test_a_node_that_may_be_asked_to_screen_is_warm_before_it_is_asked(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    ee.node.is_warming = True
    ee.node.warm_screening()
    assert (ee.node.is_warming, ee.node.screener.held) == (False, 0)  # nobody may ask: nothing is read
    token(ee)
    ee.node.warm_screening()
    assert ee.node.screener.held == 1


# ── what is beside the name ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_beside_the_name_moves_the_score_and_the_explanation_says_by_how_much(world: World) -> None:
    ee = world.make("EE")
    beside = {"birthDate": ["1970-05-01"], "nationality": ["ZM"], "passportNumber": ["ZM-123456"]}
    ee.must_post(ee.officer.sign(denial("Ivo Karelin", schema="Person", properties=beside)))
    alone = ask(ee, person("Ivo Karelin")).hits[0]
    agreeing = ask(ee, person("Ivo Karelin", birthDate=["1970-05-01"], nationality=["zm"])).hits[0]
    other = ask(ee, person("Ivo Karelin", birthDate=["1991-02-03"], nationality=["FJ"])).hits[0]
    assert other.score < alone.score
    assert agreeing.explanation.without("birth_date") < agreeing.score
    states = {f.name: f.state for f in other.explanation.features}
    assert (states["birth_date"], states["country"], states["address"]) == (
        "contradicts",
        "contradicts",
        "absent",
    )
    assert other.explanation.without("birth_date") > other.score


def test_an_equal_identifier_decides_whatever_the_name(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd", properties={"taxNumber": ["77-0812-345"]})))
    found = ask(ee, company("Wholly Different Name", taxNumber=["770812345"]))
    assert captions(found) == ["Borealis Signals Ltd"]
    assert "identifier" in " ".join(found.hits[0].explanation.sentences())


# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def readings(peer: Peer) -> Iterator[list[str]]:
    """The statements that read parties meanwhile, but for those that bring an index up to date."""
    said: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: Any) -> None:
        if "screened_notices.parties" in statement and "screened_notices.seq" not in statement:
            said.append(statement)

    event.listen(peer.db.engine, "before_cursor_execute", note)
    yield said
    event.remove(peer.db.engine, "before_cursor_execute", note)


def test_reading_ends_where_no_further_party_can_be_a_hit(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals")))
    for number in range(12):
        ee.must_post(
            ee.officer.sign(denial(f"Borealis Cobalt Lantern {'Works' if number % 2 else 'Optics'}"))
        )
    lantern = "Borealis Cobalt Lantern Optics"
    for query, best, statements in (
        (company("Borealis Signals"), "Borealis Signals", 1),
        (company("Borealis Meridian"), "Borealis Signals", 1),  # none matches, the nearest is shown
        (company("Cobalt Harbour"), lantern, 1),  # of as near ones the oldest
        (company("Cobalt Harbour", country=["ZM"]), lantern, 4),  # each may have that country: 1, 2, 4, 5
    ):
        everything = ask(ee, query, limit=500)
        assert len(everything.hits) >= 12
        with readings(ee) as said:
            found = ask(ee, query, limit=1)
        assert len(said) == statements
        assert found.hits == everything.hits[:1]
        assert (found.hits[0].caption, found.matches) == (best, everything.matches)


def test_a_party_that_another_name_hides_is_read_as_long_as_what_is_beside_its_name_may_lift_it(
    world: World,
) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Works")))
    for _ in range(20):
        ee.must_post(ee.officer.sign(denial("Borealis Signals Optics")))
    lifted = {"country": ["ZM"], "incorporationDate": ["2001-02-03"]}
    ee.must_post(ee.officer.sign(denial("Borealis Signal Research Group", properties=lifted)))
    found = ask(ee, company("Borealis Signals Works", **lifted), limit=1)
    assert found.matches == ask(ee, company("Borealis Signals Works", **lifted), limit=500).matches
    assert {h.caption for h in ask(ee, company("Borealis Signals Works", **lifted), limit=2).hits} == {
        "Borealis Signals Works",
        "Borealis Signal Research Group",
    }


# ── the gate ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_gate_hides_changes_no_byte_of_an_answer(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    green = Principal("token", "EE", int(Tlp.GREEN), frozenset({"screen"}))
    for peer in (ee, us):
        for name in ("Borealis Signals Ltd", "Borealis Signalling Works", "Northern Boreal Signs"):
            peer.must_post(peer.officer.sign(denial(name, issuer=peer.state)))
    queries = [company(n) for n in ("Borealis Signals", "Boreal Sign", "Qaanaaq Dynamics")]
    before = [ask(ee, query, green).to_json() for query in queries]
    for number in range(20):
        hidden = denial(f"Borealis Signals {number} Qaanaaq", tlp="TLP:RED", audience=["EE"])
        ee.must_post(ee.officer.sign(hidden))
    assert [ask(ee, query, green).to_json() for query in queries] == before
    assert len(ask(ee, queries[2], OPERATOR).hits) == 10
    assert ask(ee, queries[0], ANONYMOUS).hits == ()


# ── what cannot be understood ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["", " ", "🙂🙂", "\u200b\u202e", "…—", "A", "Co. Ltd.", "L.L.C.", "The", "A. B."]
)
def test_a_name_that_says_nothing_is_refused_and_not_answered_with_no_match(name: str) -> None:
    with pytest.raises(NothingToCompare):
        company(name)


def test_a_stored_party_with_a_day_that_the_calendar_has_not_goes_on_being_screened() -> None:
    stored = {"schema": "Person", "properties": {"name": ["Ann Lee"], "birthDate": ["1970-02-31"]}}
    query = stored_query(1, json.dumps(stored))
    assert query is not None
    assert query.birth_dates == ("1970-02-31",)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "an object"),
        ({"schema": "Dog", "properties": {"name": ["Rex"]}}, "'Dog' is not one of"),
        ({"schema": "Person", "properties": {"nom": ["X Y"]}}, "properties.nom"),
        ({"schema": "Person", "properties": {"name": [1]}}, "a list of texts"),
        (
            {"schema": "Person", "properties": {"name": ["Ann Lee"], "birthDate": ["1970-02-31"]}},
            "birthDate: the calendar has no such day",
        ),
        (
            {"schema": "Company", "properties": {"name": ["Ann Lee"], "incorporationDate": ["1900-02-29"]}},
            "incorporationDate: the calendar has no such day",
        ),
        ({"schema": "Person", "properties": {"name": ["Ann Lee"], "birthDate": ["1.5.1970"]}}, "1970-05-01"),
        (
            {"schema": "Person", "properties": {"name": ["Ann Lee"], "country": ["Zambia"]}},
            "not a country code",
        ),
        ({"schema": "Person", "properties": {"name": ["x" * 10_000]}}, "at most 1000 characters"),
        ({"schema": "Person", "names": ["Ann Lee"]}, "'names' is no member"),
    ],
)
def test_what_is_no_party_is_refused_with_the_place(document: Any, why: str) -> None:
    with pytest.raises(UnreadableParty, match=why):
        Query.parse(document)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 99)), min_size=1, max_size=40, unique=True),
    st.randoms(),
)
def test_a_statement_by_keys_asks_for_those_keys_and_has_one_shape_for_them_in_any_order(
    keys: list[tuple[int, int]], chance: random.Random
) -> None:
    shape, values = by_log(keys)
    asked = {
        (values[f"log_{n}"], values[f"idx_{n}_{at}"]) for n, room in enumerate(shape) for at in range(room)
    }
    assert asked == set(keys)
    # The same when other logs have them, and in another order.
    other = [(7 - log_id, idx) for log_id, idx in keys]
    chance.shuffle(other)
    assert by_log(other)[0] == shape
