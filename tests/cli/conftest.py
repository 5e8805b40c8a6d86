"""One node of Estonia, founded and served as its operator would, and the command line run in this process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import run
from app.demo.found import FoundedNode, Member, found
from app.node import Node
from app.server import make_server


@dataclass(frozen=True)
class Result:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def verbale(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command line."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return call


@dataclass(frozen=True)
class Served:
    """A node that answers."""

    node: FoundedNode
    root: Path
    running: Node

    @property
    def url(self) -> str:
        return self.node.member.url

    @property
    def settings(self) -> Path:
        return self.node.settings_file

    @property
    def signing(self) -> tuple[object, ...]:
        """The options by which Estonia's officer signs."""
        return ("--key", self.node.contact_key, "--kid", self.node.contact_kid)

    @property
    def origin(self) -> str:
        return self.node.member.origin


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def estonia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Served on loopback until the session ends."""
    directory = tmp_path_factory.mktemp("cli") / "federation"
    webhooks = {"webhook_allow_http": True, "webhook_allow_networks": ["127.0.0.0/8"]}
    federation = found(directory, [Member("EE", free_port(), webhooks)], central="EE", at=int(time.time()))
    node = federation.node("EE")
    running = Node(node.settings).open()
    server = make_server(running)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    _until_it_knows_the_roster(node.member.url)
    yield Served(node, federation.root, running)
    server.should_exit = True
    thread.join(60)


def _until_it_knows_the_roster(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/v1/federation", trust_env=False, timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(0.05)
    raise AssertionError("the node did not come up")
