"""kill -9 of real node processes at random moments: nothing acknowledged is lost, everybody converges, every log is sound."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.demo.api import Posted
from app.demo.author import Author
from app.demo.fiction import practice
from app.demo.processes import NodeProcess
from app.demo.report import Report
from app.demo.scenario import STATES, Scenario
from app.interop.bis import main_part, records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = 5
BATCH = 40


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Scenario]:
    made = Scenario(tmp_path / "federation", Report(as_json=True))
    made.found(None, None)
    try:
        made.start()
        yield made
    finally:
        made.close()


class Poster(threading.Thread):
    """Posts batch after batch to one node, sending each again until it is answered, and keeps the receipts."""

    def __init__(self, scenario: Scenario, state: str, limit: int) -> None:
        super().__init__(name=f"poster {state}")
        self.author, self.api = Author.of(scenario.federation.node(state)), scenario.apis[state]
        self.state, self.limit = state, limit
        self.enough = threading.Event()
        self.receipts: list[Posted] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            listed = records()
            while not self.enough.is_set() and len(self.receipts) < self.limit:
                mains = (
                    [main_part(next(listed)) for _ in range(BATCH)]
                    if self.state == "US"
                    else [practice(self.state) for _ in range(BATCH)]
                )
                self.receipts += self.api.post_batch([self.author.sign(main) for main in mains])
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.failure = error


@pytest.mark.parametrize("seed", [20261125])
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(scenario: Scenario, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a failure can be repeated
    posters = [Poster(scenario, "US", 2200), Poster(scenario, "JP", 2200)]
    for poster in posters:
        poster.start()
    moment = threading.Event()  # never set: what is waited for is a random moment, not a condition
    for _ in range(KILLS):
        moment.wait(chance.uniform(0.0, 1.5))
        victims = chance.sample(STATES, chance.choice([1, 1, 2]))
        for state in victims:
            scenario.nodes[state].kill()
        moment.wait(chance.uniform(0.0, 0.5))
        for state in victims:
            scenario.nodes[state] = NodeProcess(scenario.federation.node(state))
    for poster in posters:
        poster.enough.set()
        poster.join(90)
        assert poster.failure is None
        assert poster.receipts, f"nothing was acknowledged by {poster.state}"

    listed = len(posters[0].receipts)
    scenario.kept.listed = listed
    scenario.converge()  # same sizes, same roots, all judged, all cosigned, no faults, as many notices everywhere

    for poster in posters:
        # Each batch was sent again until it was answered, and still every notice stands once, where its receipt says.
        assert sorted(r.index for r in poster.receipts) == list(range(len(poster.receipts)))
        for receipt in chance.sample(poster.receipts, 10):
            for state in STATES:
                shown = scenario.apis[state].json(f"/v1/notices/{receipt.id}")
                assert (shown["index"], shown["leaf_hash"]) == (receipt.index, receipt.hash_text)
        leaves = scenario.apis[poster.state].json("/v1/federation")["logs"]
        size = next(log["size"] for log in leaves if log["own"])
        assert size == len(poster.receipts)
    with pytest.raises(httpx.HTTPStatusError):  # and ids that were never posted are unknown
        httpx.get(
            f"{scenario.apis['NL'].url}/v1/notices/{'0' * 8}", trust_env=False, timeout=60
        ).raise_for_status()

    scenario.close()
    for state in STATES:
        checked = subprocess.run(
            [sys.executable, "-m", "app.cli", "fsck", "--settings", str(scenario.federation.node(state).settings_file)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, f"{state}: {checked.stdout}{checked.stderr}"
