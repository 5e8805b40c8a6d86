"""`verbale screen file`: a node's own database, a file of applications, one answer a line."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from app.cli.screen import app
from tests.federation.world import World
from tests.screening.asking import application, denial


def test_a_file_of_applications_is_answered_line_by_line(tmp_path: Path, templates: Path) -> None:
    world = World(tmp_path / "world", templates, codes=("EE",))
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    settings = ee.settings.data_dir / "node.toml"
    world.close()
    file = tmp_path / "applications.ndjson"
    lines = [json.dumps(application(id="a")), "rubbish", json.dumps({"party": "Somebody Else"})]
    file.write_text("\n".join(lines))

    def run(*options: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, ["file", str(file), "--settings", str(settings), *options])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    first, second, third, end = run()
    assert (first["id"], first["status"], second["status"], third["status"]) == ("a", 200, 422, 200)
    assert first["screening"]["undercut"]["findings"]  # type: ignore[index]
    assert (end["end"], end["screened"], end["failed"]) == (True, 2, 1)
    assert [line.get("line") for line in run("--from", "3")] == [3, None]
