"""The five minutes of docs/webhooks.md, walked as they stand there: from an empty folder, against a node that really runs.

What a reader puts in by hand is put in here: the address, the token, the secret, the id. All else is the page's own text.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.demo.api import Api, wait_until
from app.demo.author import Author
from app.demo.found import Member, found
from app.demo.processes import NodeProcess, environment, stop
from app.demo.scenario import free_ports
from tests import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.demo.found import FoundedNode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/webhooks.md").read_text("utf-8").partition("\n## What arrives\n")[0]
ADDRESS = "https://licensing.example.org/hooks/verbale"
NPM = ROOT / ".venv/npm-verifiers/node_modules"
"""What `npm install standardwebhooks` puts into the reader's folder; `scripts/npm_verifiers.sh` fetches it."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FoundedNode, str]]:
    """A node, and the token that its operator made."""
    (port,) = free_ports(1)
    allowed: dict[str, object] = {"webhook_allow_http": True, "webhook_allow_networks": ["127.0.0.0/8"]}
    folder = tmp_path_factory.mktemp("page") / "federation"
    federation = found(folder, [Member("EE", port, allowed)], central="EE", at=int(time.time()))
    (founded,) = federation.nodes
    token = shell(blocks("sh")[0], VERBALE_SETTINGS=str(founded.settings_file))
    process = NodeProcess(founded)
    asked = Api(founded, token)
    try:
        wait_until("the node is ready", asked.alive, seconds=240, watch=process.check)
        yield founded, token
    finally:
        asked.close()
        stop([process])


def shell(text: str, **variables: str) -> str:
    """Run a block as a reader's shell does, with this installation's `verbale` on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", text],
        env=environment() | {"PATH": path, "no_proxy": "127.0.0.1"} | variables,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def walk(
    running: tuple[FoundedNode, str], folder: Path, name: str, source: str, started_by: int, command: str
) -> None:
    """The page's steps with one of its receivers.

    Args:
        started_by: which of the page's shell blocks starts it.
        command: what stands there for the interpreter, put in for the one that is here.
    """
    node, token = running
    _, _, subscribe, *starts, test = blocks("sh")
    known = {"NODE": node.member.url, "TOKEN": token}

    (folder / name).write_text(source, "utf-8")
    (port,) = free_ports(1)
    assert subscribe.count(ADDRESS) == 1
    made: dict[str, Any] = json.loads(
        shell(subscribe.replace(ADDRESS, f"http://127.0.0.1:{port}/hooks"), **known)
    )
    start = starts[started_by].replace("whsec_…", made["secret"])
    assert made["secret"] in start
    interpreter, script = start.split()[1:]
    receiver = subprocess.Popen(
        ["/bin/sh", "-c", f"exec env {start.replace(interpreter, command)}"],
        cwd=folder, env=os.environ | {"PORT": str(port)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    api = Api(node, token)
    try:
        assert script == name
        assert test.count("ID=01937f3a-…\n") == 1
        trial = test.replace("01937f3a-…", made["id"])

        def tried() -> bool:  # until it listens
            assert receiver.poll() is None
            return bool(json.loads(shell(trial, **known))["delivered"])

        wait_until("the receiver takes the test event", tried, seconds=60, watch=lambda: None)
        assert receiver.stdout is not None
        assert receiver.stdout.readline().split()[0] == "webhook.test"
        posted = api.post_batch([Author.of(node).sign(examples.denied_end_user())])[0]
        line = receiver.stdout.readline().split()
        assert line == ["notice.issued", f"{node.settings.public_url}/v1/notices/{posted.id}"]
        assert api.json(f"/v1/notices/{posted.id}")["id"] == posted.id
    finally:
        api.close()
        receiver.kill()
        receiver.communicate()


def test_a_reader_of_the_page_builds_a_verified_receiver_in_python(
    running: tuple[FoundedNode, str], tmp_path: Path
) -> None:
    walk(running, tmp_path, "receiver.py", blocks("python")[0], 0, f"{sys.executable} -u")


def test_a_reader_of_the_page_builds_a_verified_receiver_in_node(
    running: tuple[FoundedNode, str], tmp_path: Path
) -> None:
    if shutil.which("node") is None or not NPM.is_dir():
        pytest.skip(
            "NOT CHECKED in Node: with node and npm, scripts/npm_verifiers.sh installs what the page does"
        )
    (tmp_path / "node_modules").symlink_to(NPM)
    walk(running, tmp_path, "receiver.mjs", blocks("js")[0], 1, "node")
