"""`verbale demo` as a newcomer runs it: one process that starts four, does everything, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from app.demo.author import Author
from app.keyfiles import load_private
from app.tlog.note import VerifierKey
from tests import pg

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

READY_S = 180
COMMAND = [sys.executable, "-m", "app.cli", "demo"]


def await_true(what: str, condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        threading.Event().wait(0.1)


def node_pids(folder: Path) -> set[int]:
    """Processes whose command line names a settings file of this demo."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if entry.name.isdigit() and any(
            w.startswith(f"{folder}/") and w.endswith("node.toml") for w in words
        ):
            found.add(int(entry.name))
    return found


@dataclass
class Running:
    process: subprocess.Popen[str]
    folder: Path

    @property
    def federation(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "federation.json").read_text("utf-8"))
        return value

    def node(self, state: str) -> dict[str, Any]:
        return next(node for node in self.federation["nodes"] if node["state"] == state)

    def get(self, state: str, path: str, *, token: bool = True) -> httpx.Response:
        node = self.node(state)
        headers = {"authorization": f"Bearer {node['token']}"} if token else {}
        return httpx.get(node["url"] + path, headers=headers, trust_env=False, timeout=60)


def start(folder: Path, *options: str) -> Running:
    """Start a demo that keeps running, and wait until it says that it is ready."""
    output = (folder.parent / f"{folder.name}.txt").open("a", encoding="utf-8")
    with output:
        process = subprocess.Popen(
            [*COMMAND, "--dir", str(folder), *options], stdout=output, stderr=output, text=True
        )

    def ready() -> bool:
        assert process.poll() is None, Path(output.name).read_text("utf-8")
        return (folder / "federation.json").exists()

    try:
        await_true("federation.json", ready, READY_S)
    except BaseException:
        process.kill()
        raise
    return Running(process, folder)


def end(running: Running, number: int = signal.SIGTERM) -> int:
    running.process.send_signal(number)
    return running.process.wait(60)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    demo = start(tmp_path_factory.mktemp("demo") / "federation", "--records", "40")
    yield demo
    if demo.process.poll() is None:
        end(demo)


def test_once_does_everything_ends_with_0_and_leaves_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [*COMMAND, "--once", "--records", "40", "--json"],
        capture_output=True,
        text=True,
        timeout=READY_S,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert [step["number"] for step in printed["steps"]] == list(range(1, 9))
    assert [node["state"] for node in printed["nodes"]] == ["US", "EE", "NL", "JP"]
    assert list(tmp_path.iterdir()) == []
    assert node_pids(tmp_path) == set()


def test_the_description_has_what_programs_need(running: Running) -> None:
    federation = running.federation
    assert federation.keys() == {"roster_root", "nodes"}
    root = json.loads(Path(federation["roster_root"]).read_bytes())
    assert root["signed"]["_type"] == "root"
    assert [node["state"] for node in federation["nodes"]] == ["US", "EE", "NL", "JP"]
    for node in federation["nodes"]:
        assert node.keys() == {
            "state", "url", "token", "origin", "log_key", "contact_key", "contact_kid", "settings",
        }  # fmt: skip
        assert node["contact_kid"] == f"{node['state']}/cp/1"
        assert Path(node["settings"]).is_file()
        load_private(Path(node["contact_key"]))  # a key that only its owner can read
        assert VerifierKey.parse(node["log_key"]).name == node["origin"]


def test_files_with_tokens_are_the_owners_alone(running: Running) -> None:
    for name in ("federation.json", "demo.json"):
        assert (running.folder / name).stat().st_mode & 0o777 == 0o600


def test_each_token_reads_what_its_state_may_read(running: Running) -> None:
    totals = {
        s: running.get(s, "/v1/notices?issuer=EE&status=all").json()["total"]
        for s in ("US", "EE", "NL", "JP")
    }
    assert totals["EE"] == totals["NL"] == totals["JP"] == totals["US"] + 1
    assert running.get("NL", "/v1/notices?tlp=RED").json()["total"] == 1
    assert running.get("US", "/v1/notices?tlp=RED").json()["total"] == 0
    assert running.get("NL", "/v1/notices?tlp=RED", token=False).json()["total"] == 0


def test_an_officers_key_of_the_description_signs_notices_that_are_taken(running: Running) -> None:
    from app.demo.fiction import practice

    node = running.node("JP")
    author = Author("JP", node["origin"], node["contact_kid"], load_private(Path(node["contact_key"])))
    line = author.sign(practice("JP"))
    headers = {"content-type": "application/json"}
    answers = [
        httpx.post(f"{node['url']}/v1/notices", content=line, headers=headers, trust_env=False, timeout=60)
        for _ in "12"
    ]
    assert [answer.status_code for answer in answers] == [201, 200]


def test_nodes_serve_the_roster_to_others(running: Running) -> None:
    for state in ("US", "JP"):
        served = running.get(state, "/roster/metadata/1.root.json", token=False)
        assert served.content == Path(running.federation["roster_root"]).read_bytes()


def kill_and_restart_by_hand(running: Running, state: str) -> subprocess.Popen[bytes]:
    """Kill -9 a node, then start it as an operator would."""
    settings = running.node(state)["settings"]
    before = node_pids(running.folder)
    for pid in before:
        if settings in Path(f"/proc/{pid}/cmdline").read_text("utf-8"):
            os.kill(pid, signal.SIGKILL)
    await_true("the node is gone", lambda: len(node_pids(running.folder)) == len(before) - 1, 10)
    log = Path(settings).with_name("by-hand.log").open("ab")
    with log:
        return subprocess.Popen([*COMMAND[:-1], "serve", "--settings", settings], stdout=log, stderr=log)


def answers(running: Running, state: str) -> bool:
    try:
        return running.get(state, "/health/ready", token=False).status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_ends_all_and_the_folder_starts_again_as_it_was(tmp_path: Path) -> None:
    first = start(tmp_path / "kept", "--records", "3")
    before = first.federation
    assert len(node_pids(first.folder)) == 4
    assert end(first) == 0
    assert node_pids(first.folder) == set()
    # The description stays; whoever waits for the next one removes it, as the demo itself does when it begins.
    (first.folder / "federation.json").unlink()
    second = start(tmp_path / "kept")
    try:
        assert second.federation == before
        assert second.get("JP", "/v1/notices?issuer=US").json()["total"] == 3
        restarted = kill_and_restart_by_hand(second, "JP")
        try:
            await_true("JP answers again", lambda: answers(second, "JP"), READY_S)
            assert second.get("JP", "/v1/notices?issuer=US").json()["total"] == 3
            assert second.process.poll() is None
        finally:
            restarted.terminate()
            restarted.wait(60)
    finally:
        second.process.kill()
        second.process.wait(60)
    if sys.platform == "linux":
        await_true("the nodes of a killed demo end", lambda: not node_pids(second.folder), 30)


def test_the_same_on_postgresql(postgres_dsn: str, tmp_path: Path) -> None:
    prefix = f"demo_{uuid.uuid4().hex[:12]}"
    names = [f"{prefix}_{code}" for code in ("us", "ee", "nl", "jp")]
    with pg._connect(postgres_dsn) as server:
        for name in names:
            server.execute(f'CREATE DATABASE "{name}"'.encode())
    template = (
        make_url(postgres_dsn).set(database=f"{prefix}_{{state}}").render_as_string(hide_password=False)
    )
    options = [
        "--once",
        "--records",
        "20",
        "--dir",
        str(tmp_path / "d"),
        "--database-url",
        template.replace("%7B", "{").replace("%7D", "}"),
    ]
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=READY_S, check=False)
    try:
        assert ended.returncode == 0, ended.stdout
        assert "All 8 steps held." in ended.stdout
        assert not list((tmp_path / "d").glob("*/*.db"))  # nothing went into SQLite
    finally:
        with pg._connect(postgres_dsn) as server:
            for name in names:
                server.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch", "utf-8")
    ended = subprocess.run(
        [*COMMAND, "--dir", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "holds other files" in ended.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failure_names_the_step_and_ends_with_1(tmp_path: Path) -> None:
    # A port that somebody else listens on: no node can start there.
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = subprocess.run(
            [*COMMAND, "--once", "--records", "1", "--dir", str(tmp_path / "d"), "--port-base",
             str(min(taken.getsockname()[1], 65531))],
            capture_output=True, text=True, timeout=READY_S, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "Step 1. Four States found a federation: failed." in ended.stdout
    assert node_pids(tmp_path) == set()
