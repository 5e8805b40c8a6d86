"""`verbale pouch` as an operator runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import run
from app.settings import to_toml
from tests.pouch.conftest import State, Three


def settings_file(state: State) -> Path:
    """The settings of a copied node, under its copied folder."""
    path = state.settings.data_dir / "node.toml"
    listed = state.settings
    path.write_text(
        to_toml(
            {
                "data_dir": ".",
                "state": listed.state,
                "origin": listed.origin,
                "public_url": listed.public_url,
                "roster_sources": list(listed.roster_sources),
                "insecure_demo": True,
            }
        )
    )
    return path


def test_a_pouch_is_packed_inspected_and_unpacked_from_the_command_line(
    three: Three, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def verbale(*arguments: object) -> tuple[int, Any]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, json.loads(out) if out.startswith("{") else out + err

    three.ee.post(["One", "Two"], tlp="TLP:CLEAR", audience="ALL")
    ee, nl = settings_file(three.ee), settings_file(three.nl)
    file = tmp_path / "nl.pouch"
    root = three.federation.root

    code, packed = verbale("pouch", "pack", file, "--for", "NL", "--settings", ee, "--json")
    assert (code, packed["unsealed"], [log["to"] for log in packed["logs"]]) == (0, 0, [2])
    code, found = verbale("pouch", "inspect", file, "--roster-root", root, "--json")
    assert (code, found["proven"], found["logs"][0]["open_bodies"]) == (0, True, 2)
    code, text = verbale("pouch", "inspect", file, "--settings", nl)
    assert code == 0
    assert "Proven" in text

    code, took = verbale("pouch", "unpack", file, "--settings", nl, "--json")
    assert (code, took["taken"], took["logs"][0]["after"], took["logs"][0]["bodies"]) == (0, True, 2, 2)
    code, sizes = verbale("pouch", "sizes", "--settings", nl)
    assert sizes[three.ee.origin] == 2
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    options = ("--for", "NL", "--sizes", tmp_path / "sizes.json", "--settings", ee, "--json")
    code, nothing = verbale("pouch", "pack", tmp_path / "none.pouch", *options)
    assert (code, nothing["logs"][0]["from"], nothing["logs"][0]["to"]) == (0, 2, 2)

    assert verbale("pouch", "pack", file, "--for", "NL", "--settings", ee)[0] == 1  # never overwritten
    assert verbale("pouch", "pack", tmp_path / "x", "--for", "JP", "--settings", ee)[0] == 1
    (tmp_path / "sizes.json").write_text("[1]")
    assert verbale("pouch", "pack", tmp_path / "x", *options)[0] == 1
    file.write_bytes(file.read_bytes()[:-1])
    for command in ("inspect", "unpack"):
        code, text = verbale("pouch", command, file, "--settings", nl)
        assert code == 1
        assert "cut off or altered" in text
