"""What holds for every command: help, exit codes, errors as sentences, no module loaded in vain."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from app import __version__
from app.cli import COMMANDS, _is_installed, exit_code, run
from app.domain.errors import InvalidSignature, LogCorrupt, PeerFault, UnsafeSettings
from tests.cli.conftest import Result

Verbale = Callable[..., Result]


def test_the_version_is_printed(verbale: Verbale) -> None:
    assert verbale("--version") == Result(0, f"verbale {__version__}\n", "")


@pytest.mark.parametrize("name", [name for name, (where, _) in COMMANDS.items() if _is_installed(where)])
def test_every_command_says_how_it_is_used(verbale: Verbale, name: str) -> None:
    result = verbale(name, "--help")
    assert result.code == 0
    assert result.out.lstrip().startswith(f"Usage: verbale {name}")
    assert name in verbale("--help").out


def test_without_a_command_the_help_is_the_answer(verbale: Verbale) -> None:
    result = verbale()
    assert result.code == 2
    assert "Usage: verbale" in result.out + result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["token", "create"],
        ["notice", "post"],
        ["health", "--nosuch"],
        ["notice", "list", "--limit", "x"],
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_code_2(verbale: Verbale, arguments: list[str]) -> None:
    result = verbale(*arguments)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_with_json_an_error_is_an_object_too(verbale: Verbale, tmp_path: Path) -> None:
    result = verbale("fsck", "--settings", tmp_path / "none.toml", "--json")
    assert result.code == 3
    assert result.json["error"]["code"] == "unsafe-settings"
    assert result.err == f"error: {result.json['error']['detail']}\n"


def test_settings_may_be_named_before_or_after_the_command(verbale: Verbale, tmp_path: Path) -> None:
    before = verbale("--settings", tmp_path / "a.toml", "token", "list")
    after = verbale("token", "list", "--settings", tmp_path / "b.toml")
    assert "a.toml" in before.err
    assert "b.toml" in after.err
    assert (before.code, after.code) == (3, 3)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidSignature("x"), 1),
        (UnsafeSettings("x"), 3),
        (LogCorrupt("x"), 3),
        (PeerFault("x"), 4),
        (ValueError(), 70),
    ],
)
def test_families_of_errors_have_their_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_help_loads_neither_database_nor_web_server() -> None:
    program = (
        "import sys, json\nfrom app.cli import run\nrun(['--help'])\n"
        # A name without a module is one that may not be imported: see `app`.
        "print(json.dumps(sorted({name.partition('.')[0] for name, loaded in sys.modules.items() if loaded})))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(out.splitlines()[-1]))
    assert not loaded & {
        "sqlalchemy",
        "fastapi",
        "uvicorn",
        "httpx",
        "pydantic",
        "tuf",
        "cryptography",
        "rich",
    }


@pytest.mark.parametrize("lines", [10, 100_000])
def test_a_reader_that_has_seen_enough_is_no_error(lines: int) -> None:
    program = (
        "import sys, types, app.cli as cli\n"
        f"def talk() -> None:\n    for n in range({lines}): print(n)\n"
        "sys.modules['talking'] = types.SimpleNamespace(talk=talk)\n"
        "cli.COMMANDS['health'] = ('talking:talk', '')\nsys.stdin.readline()\nsys.exit(cli.run(['health']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before the first line is printed
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_an_error_nobody_foresaw_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "federation", ("broken:broken", "Breaks."))
    broken = ModuleType("broken")
    monkeypatch.setitem(sys.modules, "broken", broken)
    monkeypatch.setattr(broken, "broken", _break, raising=False)
    assert run(["federation"]) == 70
    assert capsys.readouterr().err.startswith("error: ZeroDivisionError: this should not happen")
    assert run(["--traceback", "federation"]) == 70
    assert "Traceback" in capsys.readouterr().err


def _break() -> None:
    1 / 0  # noqa: B018 - it is what breaks
