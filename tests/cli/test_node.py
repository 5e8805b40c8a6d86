"""A node's beginning, its processes, keys, tokens and store as an operator types them."""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import Database
from app.models import LeafRow
from app.settings import load
from tests.cli.conftest import Result, Served, free_port

Verbale = Callable[..., Result]


def init(verbale: Verbale, directory: Path, *more: object, port: int = 8480) -> Result:
    return verbale(
        *("node", "init", "--dir", directory, "--state", "EE", "--origin", "ee.example/log/1"),
        *("--public-url", f"http://127.0.0.1:{port}", "--listen-port", port, *more),
    )


def test_a_node_begins_once(verbale: Verbale, tmp_path: Path) -> None:
    made = init(
        verbale,
        tmp_path / "ee",
        "--roster-source",
        "https://nl.example/roster",
        "--set",
        "peer_timeout_s=2.5",
    )
    assert made.code == 0, made.err
    assert "verbale roster state-document --state EE" in made.out
    written = tomllib.loads((tmp_path / "ee" / "node.toml").read_text())
    assert (written["roster_sources"], written["peer_timeout_s"]) == (["https://nl.example/roster"], 2.5)
    assert sorted(p.name for p in (tmp_path / "ee" / "keys").glob("*.key")) == [
        "encryption.key",
        "log.key",
        "node.key",
        "transport.key",
        "witness.key",
    ]
    again = init(verbale, tmp_path / "ee", "--json")
    assert (again.code, again.json["error"]["code"]) == (3, "node-exists")
    shown = verbale("node", "show", "--settings", tmp_path / "ee" / "node.toml", "--json").json
    assert shown["settings"]["origin"] == "ee.example/log/1"
    assert [card["kid"] for card in shown["cards"]] == [
        "EE/log/1",
        "EE/witness/1",
        "EE/transport/1",
        "EE/node/1",
        "EE/encryption/1",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--state", "XX"),
        ("--origin", "EE"),
        ("--public-url", "ee.example"),
        ("--set", "colour=1"),
        ("--set", "colour"),
    ],
)
def test_unsafe_values_make_no_node(verbale: Verbale, tmp_path: Path, wrong: tuple[str, str]) -> None:
    result = init(verbale, tmp_path / "ee", *wrong)
    assert result.code == 3
    assert not (tmp_path / "ee" / "node.toml").exists()


def test_a_passwords_place_is_hidden_when_settings_are_shown(verbale: Verbale, tmp_path: Path) -> None:
    init(verbale, tmp_path / "ee")
    file = tmp_path / "ee" / "node.toml"
    file.write_text(file.read_text() + 'database_url = "postgresql+psycopg://u:secret@db/x"\n')
    assert "secret" not in verbale("node", "show", "--settings", file).out


def test_an_empty_database_is_not_served(verbale: Verbale, tmp_path: Path) -> None:
    init(verbale, tmp_path / "ee", port=free_port())
    (tmp_path / "ee" / "verbale.db").unlink()
    served = serve(tmp_path / "ee" / "node.toml")
    assert served.wait(60) == 3
    assert served.stderr is not None
    assert "a second tree under one origin is a fork" in served.stderr.read()
    served.stderr.close()


def serve(settings: Path, command: str = "serve") -> subprocess.Popen[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("VERBALE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app", command, "--settings", settings],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


SETTLED = """
import gc, os, signal, sys, threading, time
from pathlib import Path
from app.cli import node

def tell():
    end = time.monotonic() + 60
    while gc.get_threshold()[0] < 10_000 and time.monotonic() < end:
        threading.Event().wait(0.05)
    print(gc.get_threshold()[0] >= 10_000, gc.get_freeze_count() > 10_000, sys.getswitchinterval() < 0.005, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=tell, daemon=True).start()
getattr(node, sys.argv[1])(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_running_node_has_its_collector_and_its_threads_settled(
    verbale: Verbale, estonia: Served, tmp_path: Path, command: str
) -> None:
    """A third of the time of a long catch-up, and of a notice's way to people: nothing else would show that it is left out."""
    init(verbale, tmp_path / "ee", "--set", "background=false", port=free_port())
    (tmp_path / "ee" / "root.json").write_bytes(estonia.root.read_bytes())
    ended = subprocess.run(
        [sys.executable, "-c", SETTLED, command, tmp_path / "ee" / "node.toml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert ended.stdout == "True True True\n", ended.stderr


def test_a_schema_of_a_newer_version_is_left_alone(verbale: Verbale, tmp_path: Path) -> None:
    init(verbale, tmp_path / "ee", port=free_port())
    database = Database(load(tmp_path / "ee" / "node.toml", environment={}).database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.dispose()
    served = serve(tmp_path / "ee" / "node.toml")
    assert served.wait(60) == 3
    assert served.stderr is not None
    assert "which this version does not know" in served.stderr.read()
    served.stderr.close()
    assert verbale("fsck", "--settings", tmp_path / "ee" / "node.toml").code == 3


def test_a_node_and_a_worker_end_at_sigterm_with_code_0(
    verbale: Verbale, estonia: Served, tmp_path: Path
) -> None:
    port = free_port()
    init(verbale, tmp_path / "ee", "--set", "background=false", port=port)
    settings = tmp_path / "ee" / "node.toml"
    (tmp_path / "ee" / "root.json").write_bytes(estonia.root.read_bytes())
    for command, ready in (("serve", "startup complete"), ("worker", "worker runs")):
        process = serve(settings, command)
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if ready in line:
                break
        assert ready in seen[-1], seen
        if command == "serve":
            assert verbale("health", "--settings", settings).out == "live\n"
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(60) == 0
        process.stderr.close()


def test_a_worker_beside_a_server_that_runs_the_loops_is_refused(verbale: Verbale, estonia: Served) -> None:
    refused = verbale("worker", "--settings", estonia.settings)
    assert refused.code == 3
    assert "Set background = false" in refused.err


def test_two_servers_do_not_share_an_address(estonia: Served) -> None:
    served = serve(estonia.settings)
    assert served.wait(60) == 3
    assert served.stderr is not None
    assert "Cannot listen on 127.0.0.1" in served.stderr.read()
    served.stderr.close()


def test_health_asks_the_configured_node(verbale: Verbale, estonia: Served, tmp_path: Path) -> None:
    assert verbale("health", "--settings", estonia.settings) == Result(0, "live\n", "")
    assert verbale("health", "--ready", "--settings", estonia.settings, "--json").json == {"status": "ready"}
    init(verbale, tmp_path / "ee", port=free_port())
    dead = verbale("health", "--settings", tmp_path / "ee" / "node.toml", "--json")
    assert (dead.code, dead.json["error"]["code"]) == (4, "not-alive")


def test_keys_are_made_shown_and_checked(verbale: Verbale, tmp_path: Path) -> None:
    key = tmp_path / "cp.key"
    made = verbale(
        "keys", "new", key, "--kid", "EE/cp/1", "--use", "notices", "--alg", "ES256", "--json"
    ).json
    assert (made["kid"], made["alg"], key.stat().st_mode & 0o777) == ("EE/cp/1", "ES256", 0o600)
    assert verbale("keys", "show", key, "--json").json["fingerprint"] == made["fingerprint"]
    assert verbale("keys", "show", f"{key}.pub", "--json").json["public"] == made["public"]
    assert verbale("keys", "check", key).code == 0
    assert verbale("keys", "new", key, "--kid", "EE/cp/1").code != 0
    assert verbale("keys", "new", tmp_path / "x.key", "--kid", "EE/log/1", "--use", "notices").code == 1
    verbale("keys", "new", tmp_path / "other.key", "--kid", "EE/cp/2")
    key.write_bytes((tmp_path / "other.key").read_bytes())
    assert verbale("keys", "check", key).code == 1
    key.chmod(0o640)
    assert verbale("keys", "check", key).code == 3


def test_an_encryption_key_is_made_and_checked_like_any_other_and_signs_nothing(
    verbale: Verbale, tmp_path: Path
) -> None:
    for alg, length in (("X-Wing", 1622), ("X25519", 43)):
        key = tmp_path / f"{alg}.key"
        options = ("--kid", "EE/encryption/2", "--use", "encryption", "--alg", alg, "--json")
        made = verbale("keys", "new", key, *options).json
        assert (made["alg"], len(made["public"]), made["proof"]) == (alg, length, "")
        assert key.stat().st_mode & 0o777 == 0o600
        assert verbale("keys", "check", key).code == 0
        key.chmod(0o644)
        assert verbale("keys", "check", key).code == 3
    key = tmp_path / "X25519.key"
    key.chmod(0o600)
    key.write_text('{"alg":"X25519","seed":"AAAA"}')
    assert verbale("keys", "check", key).code == 3
    signing = ("--kid", "EE/cp/9", "--use", "notices", "--alg", "X-Wing")
    assert verbale("keys", "new", tmp_path / "no.key", *signing).code == 1
    sealing = ("--kid", "EE/encryption/9", "--use", "encryption", "--alg", "ES256")
    assert verbale("keys", "new", tmp_path / "no.key", *sealing).code == 1
    assert not (tmp_path / "no.key").exists()


def test_the_nodes_keys_are_looked_up_in_its_roster(verbale: Verbale, estonia: Served) -> None:
    checked = verbale("keys", "check", "--settings", estonia.settings, "--json").json
    assert [key["kid"] for key in checked] == [
        "EE/log/1",
        "EE/witness/1",
        "EE/transport/1",
        "EE/node/1",
        "EE/encryption/1",
    ]
    assert {key["roster"] for key in checked} == {"roster version 1 lists it"}


def test_a_token_is_shown_once_and_revoked(verbale: Verbale, estonia: Served) -> None:
    at = ("--settings", estonia.settings)
    made = verbale(
        "token", "create", "--name", "cli", "--scope", "read", "--scope", "screen", "--days", 3, *at
    )
    assert made.code == 0
    token = made.out.strip()
    listed = verbale("token", "list", "--json", *at)
    assert token not in listed.out
    assert [t["scopes"] for t in listed.json if t["name"] == "cli"] == [["read", "screen"]]
    assert verbale("notice", "list", "--url", estonia.url, "--token", token).code == 0
    assert verbale("token", "revoke", token, *at).code == 0
    refused = verbale("notice", "list", "--url", estonia.url, "--token", token, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (1, "not-authenticated")
    assert verbale("token", "revoke", "nosuch", *at).code == 1


@pytest.mark.parametrize(
    "wrong", [("--scope", "all"), ("--ceiling", "SECRET"), ("--days", "0"), ("--days", "9999")]
)
def test_a_token_that_must_not_be_is_refused(
    verbale: Verbale, estonia: Served, wrong: tuple[str, str]
) -> None:
    result = verbale(
        "token", "create", "--name", "x", "--scope", "read", *wrong, "--settings", estonia.settings
    )
    assert (result.code, result.out) == (1, "")


def test_fsck_tells_clean_from_damaged_by_its_exit_code(verbale: Verbale, estonia: Served) -> None:
    clean = verbale("fsck", "--settings", estonia.settings)
    assert (clean.code, clean.err) == (0, "")
    assert clean.out.startswith(f"clean   {estonia.origin}: ")
    assert verbale("fsck", "--settings", estonia.settings, "--json").json["clean"] is True


def test_fsck_names_what_is_damaged(verbale: Verbale, tmp_path: Path) -> None:
    init(verbale, tmp_path / "ee")
    settings = tmp_path / "ee" / "node.toml"
    database = Database(load(settings, environment={}).database)
    with database.write() as session:
        session.add(LeafRow(log_id=1, idx=0, leaf_hash=b"\0" * 32, leaf=b"x", received_at=0))
    database.dispose()
    dirty = verbale("fsck", "--settings", settings)
    assert dirty.code == 1
    assert "DIFFERS ee.example/log/1: leaf 0\n" in dirty.out
    told = verbale("fsck", "--settings", settings, "--json")
    assert (told.code, told.json["clean"], told.json["logs"][0]["difference"]["what"]) == (1, False, "leaf 0")


def test_a_rebuild_is_refused_while_the_server_answers(verbale: Verbale, estonia: Served) -> None:
    refused = verbale("rebuild", "--settings", estonia.settings, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (3, "server-runs")
    done = verbale("rebuild", "--online", "--settings", estonia.settings)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{estonia.origin}: ")


def test_models_and_migrations_agree(verbale: Verbale, empty_url: str) -> None:
    result = verbale("db", "check", "--database-url", empty_url)
    assert (result.code, result.err) == (0, "")
    assert verbale("db", "check", "--json").json["differences"] == []


def test_a_schema_is_taken_back_and_built_again(verbale: Verbale, tmp_path: Path) -> None:
    init(verbale, tmp_path / "ee")
    settings = ("--settings", tmp_path / "ee" / "node.toml")
    assert verbale("db", "upgrade", *settings).code == 0
    assert verbale("db", "downgrade", "base", *settings).out == "The database is at schema none.\n"
    assert verbale("db", "upgrade", *settings).out.startswith("Upgraded from schema none to ")
    assert verbale("db", "downgrade", "nosuch", *settings).code != 0
