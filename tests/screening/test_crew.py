"""Long batches on several processes, and what is read of the tables for an answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from app.gate import operator
from app.problems import document
from app.screening.answering import FORESEEN, Answering, Options
from app.screening.batch import LONG, Answered, Asking, Batch, Line, answer_lines, numbered
from app.screening.crew import Crew
from app.screening.find import Screener
from app.screening.finder import ScreenerFinder
from app.screening.party import Query
from tests.federation.world import Peer, World, wait_until
from tests.screening.asking import denial, screen, token

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.screening.application import Asked

NAMES = ["Borealis Signals Ltd", "Meridian Optics GmbH", "Qaanaaq Dynamics"]


def answered(peer: Peer, lines: list[bytes], crew: Crew | None) -> list[dict[str, Any]]:
    answering = Answering(ScreenerFinder(peer.node.screener), "EE", None)
    asking = Asking(operator("EE"), Options(), partial(document, base_url="https://ee.example"))
    batch = Batch(peer.db, asking, lambda: answering, peer.node.roster, peer.world.clock)
    windows = list(batch.windows(numbered(io.BytesIO(b"\n".join(lines) + b"\n")), crew))
    assert [window.over for window in windows] == [False] * (len(windows) - 1) + [True]
    found = [json.loads(line) for window in windows for line in window.answer.splitlines()]
    assert sum(len(window.screened) for window in windows) == found[-1]["screened"]
    for line in found:
        line.get("problem", {}).pop("instance", None)  # a number of its own for each
    return found


def lines_of(count: int) -> list[bytes]:
    lines = [json.dumps({"id": str(n), "party": NAMES[n % 3][: 8 + n % 7]}).encode() for n in range(count)]
    lines[5] = b'{"party": ""}'
    lines[-3] = b"not JSON"
    return lines


@pytest.mark.timeout(300)
def test_a_long_batch_is_answered_by_workers_as_by_one_process_also_what_came_since_their_start(
    world: World,
) -> None:
    ee = world.make("EE")
    for name in NAMES[:2]:
        ee.must_post(ee.officer.sign(denial(name)))
    lines = lines_of(LONG + 20)
    crew = Eager(ee.db.url.render_as_string(hide_password=False), ee.node.screener, processes=2)
    try:
        first = answered(ee, lines, crew)
        assert first == answered(ee, lines, None)
        assert (first[-1]["lines"], first[-1]["failed"]) == (len(lines), 2)
        assert [line["line"] for line in first[:-1]] == list(range(1, len(lines) + 1))
        ee.must_post(ee.officer.sign(denial(NAMES[2])))
        second = answered(ee, lines, crew)
        assert second == answered(ee, lines, None)
        assert second != first
    finally:
        crew.close()


class Eager(Crew):
    """Every line goes to a worker, however long the first takes to begin."""

    @property
    def has_begun(self) -> bool:
        return True


class Telling(ScreenerFinder):
    """Keeps what it is told of before it is asked."""

    told: list[list[str]]

    def foresee(self, principal: Principal, parties: Sequence[Asked], session: Session) -> None:
        self.told.append([asked.caption for asked in parties])
        super().foresee(principal, parties, session)


def test_parties_that_are_answered_together_are_told_of_together(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial(NAMES[0])))
    finder = Telling(ee.node.screener)
    finder.told = []
    asking = Asking(operator("EE"), Options(), partial(document, base_url="https://ee.example"))
    answering = Answering(finder, "EE", None)
    one = [json.dumps({"party": name}).encode() for name in NAMES]
    many = json.dumps({"parties": [f"Borealis {n:02}" for n in range(FORESEEN + 2)]}).encode()
    lines = [(n, raw, False) for n, raw in enumerate([one[0], many, b"not JSON", one[1]], 1)]
    answered = answer_lines(ee.db, answering, asking, lines, None, now_ms=world.clock())
    assert (answered.screened, answered.failed) == (3, 1)
    assert finder.told == [
        NAMES[:2],
        [f"Borealis {n:02}" for n in range(FORESEEN)],
        [f"Borealis {n:02}" for n in range(FORESEEN, FORESEEN + 2)],
    ]


class Late(Crew):
    """Its workers never begin."""

    @property
    def has_begun(self) -> bool:
        return False

    def answer(self, asking: Asking, lines: Sequence[Line], *, now_ms: int) -> Callable[[], Answered]:
        raise AssertionError("no worker is there")


@pytest.mark.timeout(300)
def test_nobody_waits_for_workers_to_begin(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial(NAMES[0])))
    lines = lines_of(LONG)
    crew = Late(ee.db.url.render_as_string(hide_password=False), ee.node.screener, processes=2)
    try:
        assert answered(ee, lines, crew) == answered(ee, lines, None)
    finally:
        crew.close()


@pytest.mark.timeout(300)
def test_workers_that_have_begun_say_so(world: World) -> None:
    ee = world.make("EE")
    crew = Crew(ee.db.url.render_as_string(hide_password=False), ee.node.screener, processes=2)
    try:
        with crew.at_work(Answering(ee.node.finder, "EE", None), None):
            wait_until(lambda: crew.has_begun, 120)
    finally:
        crew.close()


class Torn(Screener):
    def dump(self, file: IO[bytes]) -> None:
        file.write(b"torn")


@pytest.mark.timeout(300)
def test_lines_of_workers_that_are_lost_are_answered_all_the_same(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial(NAMES[0])))
    lines = lines_of(LONG)
    crew = Eager(ee.db.url.render_as_string(hide_password=False), Torn(ee.db), processes=2)
    try:
        assert answered(ee, lines, crew) == answered(ee, lines, None)
    finally:
        crew.close()


def test_parties_and_notices_are_read_by_their_keys_and_never_by_reading_a_whole_table(world: World) -> None:
    ee = world.make("EE")
    for name in NAMES:
        ee.must_post(ee.officer.sign(denial(name)))
    if not ee.db.is_sqlite:
        pytest.skip("the planner of PostgreSQL rightly reads a table of three rows")
    headers = token(ee)
    screen(ee, {"parties": NAMES}, headers)
    said: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        said.append((statement, parameters))

    event.listen(ee.db.engine, "before_cursor_execute", note)
    answer = screen(ee, {"parties": NAMES}, headers).json()
    event.remove(ee.db.engine, "before_cursor_execute", note)
    assert [bool(party["hits"]) for party in answer["parties"]] == [True] * 3
    looked = [one for one in said if "screened_notices" in one[0] or "FROM notices" in one[0]]
    assert looked
    with ee.db.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        for statement, parameters in looked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert not [row for row in plan if row[3].startswith(("SCAN notices", "SCAN screened"))], plan


def test_the_best_are_the_same_however_many_are_asked_for_and_all_matches_are_counted(world: World) -> None:
    ee = world.make("EE")
    for number in range(30):
        ee.must_post(ee.officer.sign(denial(f"Borealis Signals {'Northern Works Group'[: number % 20]}")))
    query = Query.parse(
        {"schema": "Company", "properties": {"name": ["Borealis Signals Northern"], "country": ["ZM"]}}
    )
    whole = ee.node.screener.screen(operator("EE"), query, now=world.clock(), limit=500)
    assert len(whole.hits) == 30
    for limit in (1, 3, 17):
        some = ee.node.screener.screen(operator("EE"), query, now=world.clock(), limit=limit)
        assert some.hits == whole.hits[:limit]
        assert some.matches == whole.matches > 0
    # As many when none reaches the threshold, and more are asked for than are read at once.
    for limit in (1, 17, 29):
        none = ee.node.screener.screen(operator("EE"), query, now=world.clock(), limit=limit, threshold=1.0)
        assert (len(none.hits), none.matches) == (limit, 0)
        assert [hit.caption for hit in none.hits] == [hit.caption for hit in whole.hits[:limit]]
