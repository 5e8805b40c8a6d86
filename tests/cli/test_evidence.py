"""`verbale evidence verify`: offline, with the log's key alone, and with every exit code it may have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import run
from tests.tlog.keys import LOG_KEY, WITNESS_KEYS
from tests.tlog.test_evidence import fork


@pytest.fixture
def record(tmp_path: Path) -> Path:
    made = fork()
    file = tmp_path / f"{made.id}.json"
    file.write_bytes(made.encode())
    return file


def test_a_record_is_checked_with_the_logs_key_alone(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evidence", "verify", str(record), "--log-key", LOG_KEY.encode(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["proven"], said["convicts"], said["accused"]) == (True, True, LOG_KEY.name)
    assert said["id"] == record.stem
    assert run(["evidence", "verify", str(record), "--log-key", LOG_KEY.encode()]) == 0
    assert "which does not extend it" in capsys.readouterr().out


def test_a_changed_record_is_refused_even_where_nothing_is_proven(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write_bytes(record.read_bytes().replace(b'"by":"NL"', b'"by":"EE"'))
    assert run(["evidence", "verify", str(record), "--log-key", LOG_KEY.encode(), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == "id"


def test_another_key_proves_nothing(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = WITNESS_KEYS[0].encode()
    assert run(["evidence", "verify", str(record), "--log-key", key]) == 1  # of another kind
    assert run(["evidence", "verify", str(record), "--json"]) == 1  # none at all
    assert "--log-key" in capsys.readouterr().out
