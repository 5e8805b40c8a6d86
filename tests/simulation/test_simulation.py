"""The simulator itself: seeds replay, no seed breaks an invariant, and every planted bug is found by one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from app.simulation.command import play, simulate
from app.simulation.faults import Extent
from app.simulation.world import World
from tests.simulation.mutations import MUTATIONS, ROOT, Mutation, find

STATES, STEPS = 5, 30
"""Few, so that fifty seeds cost little; the nightly command plays 25 States and 200 steps."""

WITH_EVERYTHING = 20
"""So many of the fifty also have gates, lost disks, gossip, accusers and other node keys, which cost half as much again."""
WITH_MEMBERS = 30
"""And those up to here have States that are suspended and taken back, and keys of nodes that are revoked."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tenth", range(5))
def test_no_seed_breaks_an_invariant(tenth: int) -> None:
    for seed in range(10 * tenth + 1, 10 * tenth + 11):
        outcome = play(seed, STATES, STEPS, extent=_extent(seed))
        assert outcome.broken is None, f"seed {seed} in step {outcome.at}: {outcome.broken}: {outcome.what}"


def _extent(seed: int) -> Extent:
    if seed <= WITH_EVERYTHING:
        return "usual"
    return "members" if seed <= WITH_MEMBERS else "mild"


def _trace(hash_seed: str) -> str:
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "simulate",
        "--seed",
        "7",
        "--states",
        "4",
        "--steps",
        "20",
        "--trace",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_a_seed_replays_to_the_last_byte_in_another_process() -> None:
    first, second = _trace("1"), _trace("2")
    assert "trace " in first
    assert first == second


@pytest.mark.timeout(600)
def test_what_spares_work_in_the_sessions_changes_nothing() -> None:
    quick, usual = (World(12, 4, 40, quick=quick).play() for quick in (True, False))
    assert quick.broken is None
    assert quick == usual


def test_a_run_is_mild_or_has_changing_members_and_not_both() -> None:
    with pytest.raises(typer.BadParameter, match="--members"):
        simulate(mild=True, members=True)


def test_another_seed_is_another_run() -> None:
    assert play(8, 4, 10).trace != play(9, 4, 10).trace


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_planted_bug_is_found_by_its_seed(mutation: Mutation) -> None:
    found = find(mutation)
    assert found is not None, f"seed {mutation.seed} does not notice: {mutation.name}"
    assert found["broken"] == mutation.invariant, found["what"]


@pytest.mark.timeout(600)
def test_nothing_of_a_run_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    play(1, 4, 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(600)
def test_how_long_the_machine_takes_decides_nothing() -> None:
    """On a machine that stood still a request once took longer than a peer may: a seed broke, and played again it held."""
    world = World(1, 4, 0)
    try:
        world.begin()
        assert len(world.sites) == 4
        for site in world.sites.values():
            world.schedule.now += 90_000
            assert site.node.client.timer() == world.schedule.now / 1000
    finally:
        world.close()


def test_a_log_that_is_down_is_looked_for_at_a_few_mirrors_in_turn() -> None:
    world = World(1, 12, 0)
    try:
        world.begin()
        site, other = (world.sites[code] for code in world.codes[:2])
        followed = site.node.mirrors.followed(other.origin)
        assert followed is not None
        asked: set[str] = set()
        for look in range(4):
            followed.looks = look
            origin, *mirrors = site.node.mirrors.sources(followed)
            assert origin.startswith("https://" + other.origin.split("/")[0])
            assert len(mirrors) == 3
            asked |= set(mirrors)
        assert len(asked) == 10
    finally:
        world.close()
