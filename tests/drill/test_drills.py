"""Each drill as an operator runs it: exit code 0 only if the promise held, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.drill.command import DRILLS

COMMAND = [sys.executable, "-m", "app.cli", "drill"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DRILLS)
def test_the_promise_holds(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [*COMMAND, name, "--json", "--notices", "1500"],
        capture_output=True,
        text=True,
        timeout=890,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert (printed["drill"], printed["held"], printed["error"]) == (name, True, None)
    assert printed["kept"]
    assert all(step["lines"] for step in printed["steps"])
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_drill_is_refused_with_the_names_of_those_there_are() -> None:
    ended = CliRunner().invoke(app, ["drill", "flood"])
    assert ended.exit_code == 2
    assert "fork" in ended.output
