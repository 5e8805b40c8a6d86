"""A witness that nobody here wrote and the roster does not list: aics-witness, as a process, over HTTP.

It needs a newer Python than our nodes do; `scripts/aics_tlog.sh` installs it where there is one.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from app.domain.errors import PeerFault
from app.replication import witness as witnessing
from app.tlog.cosignature import CosignerKey, verify_cosignatures
from app.tlog.note import VerifierKey
from app.tlog.note import parse as parse_note
from app.tlog.policy import Policy
from tests.federation.test_confirmed import confirmed, standings
from tests.federation.test_replication import issue
from tests.federation.world import Peer, World, answer, origin_of, wait_until

PROGRAM = Path(__file__).parents[2] / ".venv/aics-tlog/bin/aics-witness"
NAME = "aics.example/w1"


@dataclass(frozen=True)
class Foreign:
    """The running witness."""

    vkey: str
    url: str
    config: Path

    @property
    def setting(self) -> str:
        """The line of the setting `witnesses`."""
        return f"{self.vkey} {self.url}"

    def evidence(self, origin: str) -> list[dict[str, object]]:
        """What it kept of requests that the log signed and that contradict what it cosigned."""
        found: list[dict[str, object]] = json.loads(
            command("evidence", "--config", self.config, "--origin", origin) or "[]"
        )
        return found


def command(*arguments: object) -> str:
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def foreign(world: World, tmp_path: Path) -> Iterator[Foreign]:
    """aics-witness, told of EE's log."""
    if not PROGRAM.exists():
        pytest.skip(
            "NOT CHECKED by aics-witness: with Python 3.12 or newer, scripts/aics_tlog.sh installs it"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "witness.json"
    said = command("init", "--config", config, "--name", NAME, "--listen", address)
    vkey = next(word for word in said.split() if word.startswith(f"{NAME}+"))
    (key,) = world.roster.keys_of("EE", "log")
    origin = origin_of("EE")
    command(
        "add-log", "--config", config, "--origin", origin, "--vkey", VerifierKey(origin, key.key).encode()
    )
    with running(config, f"http://{address}") as url:
        yield Foreign(vkey, url, config)


@contextmanager
def running(config: Path, url: str) -> Iterator[str]:
    process = subprocess.Popen(
        [PROGRAM, "serve", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def answers() -> bool:
        assert process.poll() is None, "aics-witness has ended"
        try:
            httpx.get(url, trust_env=False, timeout=60)
        except httpx.TransportError:
            return False
        return True

    try:
        wait_until(answers)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def make(world: World, foreign: Foreign) -> Peer:
    """EE's node with the foreign witness in its settings; its requests to it go over the wire."""
    settings = replace(world.settings("EE"), witnesses=(foreign.setting,))
    world.peers["EE"] = ee = Peer(world, settings)
    ee.line.rules.append(lambda request: over_the_wire(foreign, request))
    return ee


def over_the_wire(foreign: Foreign, request: httpx.Request) -> httpx.Response | None:
    if not str(request.url).startswith(foreign.url):
        return None
    with httpx.Client(trust_env=False, timeout=60) as client:
        response = client.send(
            httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        )
        return answer(response.status_code, response.content, content_type=response.headers["content-type"])


def offer(peer: Peer, foreign: Foreign) -> bool:
    node, roster = peer.node, peer.world.roster
    endpoints = witnessing.witness_endpoints(roster, "EE", (foreign.setting,))
    endpoint = next(e for e in endpoints if e.state is None)
    return witnessing.offer_step(peer.db, node.client, endpoint, node.log_id, roster, now=peer.world.clock())


def test_a_foreign_witness_cosigns_is_shown_apart_and_counts_for_nothing(
    world: World, foreign: Foreign
) -> None:
    ee, us = make(world, foreign), world.make("US")
    issue(ee, "first")
    ee.publish()
    assert offer(ee, foreign)
    assert not offer(ee, foreign)  # nothing is new
    for n in range(5):
        issue(ee, f"notice {n}")
    ee.witnessed(us)
    assert offer(ee, foreign)  # from size 1 to 6, with our consistency proof

    key = CosignerKey.parse(foreign.vkey)
    served = parse_note(ee.request("GET", "/log/1/checkpoint/6").content)
    assert [c.name for c in verify_cosignatures(served, [key])] == [NAME]
    assert key in [w.key for w in Policy.parse(ee.request("GET", "/log/1/policy").content).witnesses]
    assert [(w["name"], w["size"]) for w in ee.federation(ee)["foreign_witnesses"]] == [(NAME, 6)]
    # US and the stranger have cosigned; US and NL are needed.
    assert confirmed(ee, ee) == (0, 6)
    assert set(standings(ee).values()) == {"provisional"}


def test_a_foreign_witness_refuses_a_fork_and_keeps_the_proof(world: World, foreign: Foreign) -> None:
    ee = make(world, foreign)
    issue(ee, "before")
    restore = world.back_up("EE")
    issue(ee, "one history")
    ee.publish()
    offer(ee, foreign)
    twin = restore()
    twin.line.rules.append(lambda request: over_the_wire(foreign, request))
    issue(twin, "another history")
    twin.publish()
    with pytest.raises(PeerFault, match="status 422"):
        offer(twin, foreign)
    assert foreign.evidence(origin_of("EE"))
    assert twin.federation(twin)["foreign_witnesses"] == []
