"""A flood judged by worker processes has the same outcomes as a trickle judged by threads."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from app.domain.at_rest import unseal
from app.domain.errors import InvalidNotice, StaleReference, VerbaleError
from app.domain.notices import KIND_OF_TYPE
from app.domain.roster import Roster, RosterState
from app.domain.statement import hash_leaf
from app.judging import FLOOD, Context, Judged, Judges, MirroredLeaf, judge_posts
from app.projections.plain import plain_rows
from tests import examples
from tests.db.own_log import EE, ORIGIN, ROSTER
from tests.federation.world import NOW, Officer, seeded

CONTEXT = Context(ORIGIN, ROSTER, NOW)


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    made = Judges(processes=1)
    yield made
    made.close()


def every_type() -> list[dict[str, Any]]:
    """One of each type that needs no other notice to be judged, and one that names one."""
    made = [
        getattr(examples, type_)(issuer="EE", attachments=...)
        for type_, kind in KIND_OF_TYPE.items()
        if kind == "issue"
    ]
    return [*made, examples.acknowledgement(issuer="EE")]


def posts() -> list[bytes]:
    """Good ones and bad ones, enough for several pieces."""
    good = [EE.sign(examples.best_practice(issuer="EE", title=f"Practice {n}")) for n in range(140)]
    stranger = Officer("EE", seeded("a stranger"))
    bad = stranger.sign(examples.best_practice(issuer="EE"))
    wrong = EE.sign(examples.denied_end_user(issuer="EE", body={"reasons": ["NO SUCH REASON"]}))
    others = [
        EE.sign(main, "ack", ref=b"\0" * 32) if main["type"] == "acknowledgement" else EE.sign(main)
        for main in every_type()
    ]
    lines = [orjson.dumps(one.wire()) for one in (*good, bad, wrong, *others)]
    return [*lines[:70], b"{not json", *lines[70:]]


def outcome(one: Judged | VerbaleError) -> Any:
    if isinstance(one, VerbaleError):
        return one.code, str(one), getattr(one, "errors", None)
    return one.statement, one.issuer, dict(one.parts), one.content


def test_processes_and_threads_judge_posts_alike(judges: Judges) -> None:
    lines = posts()
    by_threads = judges.posts(lines, CONTEXT)
    by_processes = judges.posts(lines, CONTEXT, flood=True)
    assert judges._workers is not None
    assert [outcome(one) for one in by_processes] == [outcome(one) for one in by_threads]
    codes = {one.code for one in by_threads if isinstance(one, VerbaleError)}
    assert codes == {"invalid-signature", "invalid-notice", "malformed-json"}


def test_processes_and_threads_judge_leaves_alike(judges: Judges) -> None:
    leaves = []
    for index, raw in enumerate(posts()):
        if index == 70:
            leaves.append(MirroredLeaf(index, b"\0" * 32, b"no leaf", NOW * 1000))
            continue
        wire = orjson.loads(raw)
        given = orjson.dumps({"origin": ORIGIN, "index": index, "parts": wire["parts"]})
        body = (given, None, b"rubbish")[index % 3]
        leaves.append(
            MirroredLeaf(
                index, b"\0" * 32, wire["statement"].encode(), NOW * 1000, body, withheld=index % 6 == 1
            )
        )
    by_threads = judges.leaves(leaves, CONTEXT)
    by_processes = judges.leaves(leaves, CONTEXT, flood=True)
    plain = [
        [(a.index, a.statement, a.fault and a.fault.code, a.parts, a.content, a.body_state) for a in some]
        for some in (by_threads, by_processes)
    ]
    assert plain[0] == plain[1]
    assert {a.body_state for a in by_threads} == {"held", "absent", "wanted", "none"}


def test_what_a_worker_prepares_is_what_the_fold_would_have_made(judges: Judges) -> None:
    leaves = []
    for index, raw in enumerate(line for n, line in enumerate(posts()) if n != 70):
        wire = orjson.loads(raw)
        leaf = wire["statement"].encode()
        given = orjson.dumps({"origin": ORIGIN, "index": index, "parts": wire["parts"]})
        leaves.append(MirroredLeaf(index, hash_leaf(leaf), leaf, NOW * 1000, given))
    opened = judges.leaves(leaves, CONTEXT)
    prepared = judges.leaves(leaves, replace(CONTEXT, place=(7, "EE")), flood=True)
    seen: set[bool] = set()
    for whole, ready in zip(opened, prepared, strict=True):
        rows = plain_rows(whole, 7, "EE")
        seen.add(rows is not None)
        assert ready.rows == rows
        assert (ready.statement, ready.body_state) == (whole.statement, whole.body_state)
        if rows is None:
            assert (ready.parts, ready.content, ready.sealed) == (whole.parts, whole.content, None)
            continue
        assert rows.content() == whole.content
        assert ready.parts is ready.content is None
        assert ready.sealed is not None
        assert whole.parts is not None
        key, sealed = ready.sealed
        assert {name: unseal(key, ready.index, name, part) for name, part in sealed} == whole.parts
    assert seen == {True, False}
    keys = [one.sealed.key for one in prepared if one.sealed is not None]
    assert len(set(keys)) == len(keys)


def test_judged_together_or_one_by_one_the_outcome_is_the_same() -> None:
    lines = posts()
    together = [outcome(one) for one in judge_posts(lines, CONTEXT)]
    assert together == [outcome(*judge_posts([line], CONTEXT)) for line in lines]


def test_a_worker_that_is_killed_costs_nothing_but_time(judges: Judges) -> None:
    lines = posts()
    judges.posts(lines[:1], CONTEXT, flood=True)
    workers = judges._workers
    assert workers is not None
    for process in list(workers._processes.values()):
        process.kill()
    again = judges.posts(lines, CONTEXT, flood=True)
    assert [outcome(one) for one in again] == [outcome(one) for one in judges.posts(lines, CONTEXT)]


def test_refusals_travel_between_processes_as_what_they_are() -> None:
    for error in (InvalidNotice([("/body", "wrong")]), StaleReference("newer", "ab" * 32)):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)


def test_every_part_of_a_roster_travels_to_the_worker_processes() -> None:
    empty = MappingProxyType[str, Any]({})
    roster = Roster(3, "ab" * 32, 9, MappingProxyType({"EE": RosterState("EE", "Estonia")}), expiries=empty)
    assert pickle.loads(pickle.dumps(roster)) == roster  # noqa: S301 - made one line above


def test_workers_are_there_before_a_flood_that_is_expected() -> None:
    early = Judges(processes=1)

    def expecting(count: int) -> bool:
        early.expect(count)
        return early._workers is not None

    assert not expecting(FLOOD), "a trickle needs none"
    assert expecting(FLOOD + 1)
    early.close()
    assert not expecting(FLOOD + 1), "a node that ends starts nothing"
