"""`verbale bench screening`: that it measures what it says, at a size where that takes no time."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from app.bench import invented
from app.bench.federation import BenchFailed
from app.bench.peer import own_times
from app.bench.screening import Result, measure_peer, run
from app.cli.common import progress
from app.db import Database
from app.models import Base
from app.screening.party import Query

if TYPE_CHECKING:
    from pathlib import Path


def test_invented_parties_are_the_same_whatever_the_size_and_can_be_screened() -> None:
    first = [invented.entity(number) for number in range(500)]
    assert [invented.entity(number) for number in range(500)] == first
    assert {party["schema"] for party in first} == {"Person", "Company", "Vessel"}
    assert any(not name.isascii() for party in first for name in party["names"])
    for asked in islice(invented.queries(300, 500), 300):
        Query.parse(asked)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_run_gives_every_figure(tmp_path: Path) -> None:
    result = run(
        tmp_path / "federation",
        300,
        database_url="",
        asked=20,
        peer="",
        say=lambda _: None,
        progress=progress,
    ).as_dict()
    assert result["entities"] == 300
    assert result["names"] > 300
    assert result["batch_parties"] == 80
    assert 10 <= result["queries_with_hits"] <= 20
    for figure in ("index_per_s", "delta_ms_median", "one_p50_ms", "one_p99_ms", "batch_per_s", "disk_mb"):
        assert result[figure] > 0
    assert set(result["ratios"]) == {
        "index_per_s",
        "delta_ms_median",
        "one_p50_ms",
        "one_p99_ms",
        "batch_per_s",
    }


def test_a_ratio_is_one_or_less_within_the_limit() -> None:
    result = Result(
        100_000, 150_000, "sqlite", 1.0, 1.0, index_per_s=10_000, one_ms=[5.0] * 100, batch_per_s=250
    )
    ratios = result.as_dict()["ratios"]
    assert (ratios["index_per_s"], ratios["one_p50_ms"], ratios["batch_per_s"]) == (0.5, 0.5, 2.0)


def test_what_the_peer_scores_is_scored_here_too() -> None:
    listed = [
        {"query": party, "candidates": [{"schema": party["schema"], "properties": party["properties"]}] * 3}
        for party in islice(invented.queries(30, 500), 30)
    ]
    times = own_times(listed)
    assert len(times) == len(listed)
    assert min(times) > 0
    result = Result(100, 150, "sqlite", 1.0, 1.0, one_ms=[4.0] * 100)
    result.peer = {"scoring_p50_ms": 0.5, "scoring_p99_ms": 2.0, "peer_p50_ms": 1.0, "peer_p99_ms": 4.0}
    ratios = result.as_dict()["ratios"]
    assert (ratios["scoring_p50_to_peer"], ratios["scoring_p99_to_peer"]) == (0.5, 0.5)
    assert (ratios["one_p50_to_peer"], ratios["one_p99_to_peer"]) == (4.0, 1.0)


def test_a_python_without_the_peer_is_named(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'node.db'}")
    Base.metadata.create_all(db.engine)
    with pytest.raises(BenchFailed, match="has no nomenklatura that works: No module named"):
        measure_peer(sys.executable, str(db.url), [])
