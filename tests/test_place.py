"""The folder in which a node's loops run: one process at a time, and what its file proves of those before it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.place import MAX_RUNS, Place, boot_id


def run_once(folder: Path, boot: str = "this boot") -> Place:
    place = Place.take(folder, boot=lambda: boot)
    place.leave()
    return place


def test_all_that_are_in_a_folder_at_once_are_one_run(tmp_path: Path) -> None:
    first = Place.take(tmp_path)
    second = Place.take(tmp_path)
    first.leave()
    third = Place.take(tmp_path)  # as a worker that was killed and comes back beside another
    assert first.run == second.run == third.run
    second.leave()
    third.leave()
    fourth = Place.take(tmp_path)
    fourth.leave()
    assert (fourth.run != third.run, fourth.over) == (True, (third.run,) if boot_id() else ())


def test_who_leaves_twice_closes_nobody_elses_file(tmp_path: Path) -> None:
    place = Place.take(tmp_path)
    place.leave()
    with (tmp_path / "another").open("wb") as file:  # it may have got the number that was free
        place.leave()
        file.write(b"whole")
    assert (tmp_path / "another").read_bytes() == b"whole"


def test_they_are_one_run_on_a_machine_that_has_no_boot_id_too(tmp_path: Path) -> None:
    first = Place.take(tmp_path, boot=lambda: "")
    second = Place.take(tmp_path, boot=lambda: "")
    assert (first.run, first.over) == (second.run, second.over) == (first.run, ())
    first.leave()
    second.leave()


def test_the_runs_before_are_over_in_the_same_file_and_boot(tmp_path: Path) -> None:
    runs = [run_once(tmp_path) for _ in range(MAX_RUNS + 3)]
    last = run_once(tmp_path)
    assert last.over == tuple(place.run for place in runs)[-(MAX_RUNS - 1) :]
    assert len({place.run for place in runs}) == len(runs)
    assert (tmp_path / "running").stat().st_mode & 0o777 == 0o600


def test_nothing_is_known_after_another_boot_or_where_there_is_none(tmp_path: Path) -> None:
    run_once(tmp_path)
    assert run_once(tmp_path, "the next boot").over == ()
    run_once(tmp_path, "")
    assert run_once(tmp_path, "").over == ()


def test_nothing_is_known_in_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    run_once(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert run_once(tmp_path / "b").over == ()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"7", b'{"runs": 1}', b"\xff" * 5000])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "running").write_bytes(raw)
    assert run_once(tmp_path).over == ()


def test_what_else_a_file_may_say_of_its_runs_says_nothing(tmp_path: Path) -> None:
    run_once(tmp_path)
    file = tmp_path / "running"
    said = json.loads(file.read_bytes())
    file.write_bytes(json.dumps(said | {"runs": "abc"}).encode())  # in place: the same file
    assert run_once(tmp_path).over == ()


def test_the_kernel_ends_the_hold_of_a_process_that_is_killed(tmp_path: Path) -> None:
    held = "import sys; from pathlib import Path; from app.place import Place; p = Place.take(Path(sys.argv[1])); print(p.run, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with process:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        beside = Place.take(tmp_path)
        beside.leave()
        assert beside.run == run
        process.kill()
        process.wait(60)
    after = Place.take(tmp_path)
    after.leave()
    assert after.over == ((run,) if boot_id() else ())
