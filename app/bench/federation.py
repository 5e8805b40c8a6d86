"""What a federation of two nodes on this machine does, as separate processes over real sockets.

    verify        bare Ed25519 verifications a second on one core: the yardstick, taken before, between and after
    posting       a batch of signed notices over HTTP, judged, durable, projected and answered
    catch-up      a second node that starts empty and comes to hold, judge and show all of them
    live          from a 201 at A to the notice answered by B
    memory        resident size of an idle node, and the most a node took while catching up

The notices name invented parties.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from app.demo.found import Federation, FoundedNode, Member, found
from app.demo.processes import NodeProcess, stop
from app.domain.errors import NodeFault
from app.domain.keys import Ed25519Signer
from app.keyfiles import load_private
from app.statements import sign_notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.domain.keys import Signer

START_S: Final = 60.0
CATCH_UP_S: Final = 1_800.0
IDLE_S: Final = 35.0
"""After its start, before a node is called idle: what it does now and then it has done by then."""
VERIFICATIONS: Final = 4_000
MESSAGE_BYTES: Final = 700
"""About the size of a leaf."""

_SYLLABLES: Final = "ka lo mi ne ru sa to vi dra fen gor hul".split()
_BASE: Final[dict[str, Any]] = {
    "schema_version": "1.0.0",
    "type": "denied_end_user",
    "issuer": "EE",
    "tlp": "TLP:CLEAR",
    "audience": "ALL",
    "language": "en",
    "summary": "An invented denial, made to measure with.",
    "contact": {"role": "contact point", "office": "Bench", "email": "bench@ee.verbale.example"},
}


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar: what is done, and how much of it there is."""


class BenchFailed(NodeFault):
    """A node of the benchmark did not do what is measured."""

    code = "bench-failed"


@dataclass(slots=True)
class Result:
    """All figures of one run. Rates per second, times in ms, memory in MB; ratios against `verify`."""

    notices: int
    database: str
    verify: list[float] = field(default_factory=list)
    posting: float = 0.0
    mirrored: float = 0.0
    catch_up: float = 0.0
    live_ms: list[float] = field(default_factory=list)
    idle_mb: float | None = None
    catch_up_mb: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The figures with their ratios."""
        verify = statistics.median(self.verify)
        live = sorted(self.live_ms)
        return {
            "notices": self.notices,
            "database": self.database,
            "verify_per_s": round(verify),
            "posting_per_s": round(self.posting),
            "posting_ratio": round(self.posting / verify, 3),
            "mirrored_per_s": round(self.mirrored),
            "mirrored_ratio": round(self.mirrored / verify, 3),
            "catch_up_per_s": round(self.catch_up),
            "catch_up_ratio": round(self.catch_up / verify, 3),
            "live_ms_median": round(statistics.median(live), 1) if live else None,
            "live_ms_max": round(live[-1], 1) if live else None,
            "idle_mb": self.idle_mb,
            "catch_up_mb": self.catch_up_mb,
        }


def verify_rate() -> float:
    """Bare verifications a second of CPU time on one core, the best of three."""
    signer = Ed25519Signer.generate()
    message = os.urandom(MESSAGE_BYTES)
    signature, public = signer.sign(message), signer.private.public_key()
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        for _ in range(VERIFICATIONS):
            public.verify(signature, message)
        best = max(best, VERIFICATIONS / (time.process_time() - began))
    return best


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_lines(node: FoundedNode, signer: Signer, count: int, progress: Callable[[int], None]) -> list[bytes]:
    """Signed notices about invented parties, one JSON line each."""
    lines = []
    for number in range(count):
        name = " ".join("".join(secrets.choice(_SYLLABLES) for _ in range(3)).title() for _ in range(2))
        main = _BASE | {
            "title": f"Denial {number}: {name}",
            "body": {
                "action": "refused",
                "denied_on": "2026-01-15",
                "legal_basis": ["Invented Act, section 1"],
                "parties": [
                    {
                        "ftm": {
                            "schema": "Company",
                            "properties": {
                                "name": [f"{name} Ltd."],
                                "alias": [f"{name} Trading"],
                                "country": ["KP"],
                            },
                        },
                        "role": "end_user",
                    }
                ],
                "items_scope": "all",
                "destination": "KP",
                "reasons": ["END_USER_CONCERN"],
                "concerns": [],
                "status": "active",
            },
        }
        wire = sign_notice(main, signer, node.contact_kid, node.member.origin)
        lines.append(orjson.dumps(wire))
        progress(number + 1)
    return lines


@contextmanager
def running(federation: Federation, *states: str) -> Iterator[dict[str, NodeProcess]]:
    """Serve the nodes of these States until the block ends."""
    processes: dict[str, NodeProcess] = {}
    try:
        for state in states:
            processes[state] = NodeProcess(federation.node(state))
        for state in states:
            until(lambda s=state: _is_live(federation.node(s)), START_S, f"{state} does not answer")  # type: ignore[misc]
        yield processes
    finally:
        stop(list(processes.values()))


def _is_live(node: FoundedNode) -> bool:
    try:
        return httpx.get(f"{node.member.url}/health/live", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def until(condition: Callable[[], bool], seconds: float, failing: str) -> None:
    """Poll until `condition` holds.

    Raises:
        BenchFailed: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{failing} within {seconds:.0f} seconds.")
        time.sleep(0.02 if seconds <= START_S else 0.25)


def log_at(client: httpx.Client, node: FoundedNode, origin: str) -> dict[str, Any]:
    """What a node says of one log in `GET /v1/federation`; empty while it has no roster."""
    answer = client.get(f"{node.member.url}/v1/federation").json()
    found_log: dict[str, Any] = next((one for one in answer.get("logs", ()) if one["origin"] == origin), {})
    return found_log


def resident_mb(process: NodeProcess) -> float | None:
    """Resident memory of a node's process and its children, MB (Linux); None where it cannot be told."""
    pages = 0
    try:
        for pid in _family(process.pid):
            pages += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def cpu_ms(process: NodeProcess) -> float | None:
    """Time of a core that a node's process and its children have had, in ms (Linux); None where it cannot be told."""
    ticks = 0
    try:
        for pid in _family(process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
            ticks += sum(
                map(int, fields[11:15])
            )  # of its own and of children that have ended, in user and system mode
    except (OSError, ValueError, IndexError):
        return None
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found_pids = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = task / "children"
        if children.exists():
            for child in children.read_text("ascii").split():
                found_pids += _family(int(child))
    return found_pids


def run(
    directory: Path,
    notices: int,
    *,
    database_url: str,
    live: int,
    say: Callable[[str], None],
    progress: Progress,
) -> Result:
    """Measure everything once, in `directory`, which must be empty."""
    overrides: dict[str, dict[str, object]] = {"EE": {}, "NL": {}}
    if database_url:
        overrides = {s: {"database_url": database_url.format(state=s.lower())} for s in overrides}
    federation = found(
        directory,
        [Member(s, free_port(), values) for s, values in overrides.items()],
        central="NL",
        at=int(time.time()),
    )
    ee, nl = federation.node("EE"), federation.node("NL")
    signer = load_private(ee.contact_key)
    result = Result(notices, database_url.split(":", 1)[0] or "sqlite")
    with progress("Signing", notices) as show:
        lines = make_lines(ee, signer, notices, show)
    body = b"\n".join(lines) + b"\n"
    result.verify.append(verify_rate())
    with running(federation, "EE"), httpx.Client(timeout=CATCH_UP_S) as client:
        until(
            lambda: client.get(f"{ee.member.url}/health/ready").status_code == httpx.codes.OK,
            START_S,
            "EE is not ready",
        )
        client.post(f"{ee.member.url}/v1/notices", content=orjson.dumps(_warm(ee, signer)))
        say(f"Posting {notices} notices in one batch")
        began = time.perf_counter()
        answer = client.post(f"{ee.member.url}/v1/notices/batch", content=body)
        result.posting = notices / (time.perf_counter() - began)
        refused = [
            line for line in answer.text.splitlines() if json.loads(line)["status"] != httpx.codes.CREATED
        ]
        if answer.status_code != httpx.codes.OK or refused:
            raise BenchFailed(f"{len(refused)} notices were refused: {refused[:1]}")
        result.verify.append(verify_rate())
        say("A second node starts empty and catches up")
        with running(federation, "NL") as nodes:
            _measure_catch_up(result, client, nl, ee, nodes["NL"], notices, progress)
            result.verify.append(verify_rate())
            say(f"Posting {live} notices one by one")
            result.live_ms = [_live(client, ee, nl, signer) for _ in range(live)]
    say("An idle node")
    with running(federation, "NL") as nodes, httpx.Client() as client:
        until(lambda: log_at(client, nl, nl.member.origin) != {}, START_S, "NL does not answer")
        time.sleep(IDLE_S)  # idle is a state one has to wait for
        result.idle_mb = resident_mb(nodes["NL"])
    return result


def _warm(node: FoundedNode, signer: Signer) -> dict[str, Any]:
    return orjson.loads(make_lines(node, signer, 1, lambda _: None)[0])  # type: ignore[no-any-return]


def _measure_catch_up(
    result: Result,
    client: httpx.Client,
    node: FoundedNode,
    origin_node: FoundedNode,
    process: NodeProcess,
    notices: int,
    progress: Progress,
) -> None:
    """From the moment the node answers until all is proven, and until all is judged and shown."""
    began = time.perf_counter()
    origin, wanted = origin_node.member.origin, notices + 1
    proven: float | None = None
    most = 0.0
    deadline = time.monotonic() + CATCH_UP_S
    with progress("Catching up", notices) as show:
        while True:
            log = log_at(client, node, origin)
            now = time.perf_counter()
            if proven is None and log.get("head_size", 0) >= wanted:
                proven = now - began
            most = max(most, resident_mb(process) or 0.0)
            show(min(log.get("judged", 0), notices))
            if log.get("judged", 0) >= wanted:
                break
            if time.monotonic() > deadline:
                raise BenchFailed(f"The mirror is at {log.get('judged', 0)} of {wanted}.")
            time.sleep(0.25)
    result.catch_up = notices / (now - began)
    result.mirrored = notices / (proven or now - began)
    result.catch_up_mb = most or None
    shown = client.get(f"{node.member.url}/v1/notices?limit=1").json()["total"]
    if shown != wanted:
        raise BenchFailed(f"{wanted} notices were judged and {shown} are shown: bodies are missing.")


def _live(client: httpx.Client, at: FoundedNode, to: FoundedNode, signer: Signer) -> float:
    wire = _warm(at, signer)
    answer = client.post(f"{at.member.url}/v1/notices", content=orjson.dumps(wire))
    began = time.perf_counter()
    if answer.status_code != httpx.codes.CREATED:
        raise BenchFailed(f"A notice was refused: {answer.text[:300]}")
    url = f"{to.member.url}/v1/notices/{answer.json()['id']}"
    while client.get(url).status_code != httpx.codes.OK:
        if time.perf_counter() - began > START_S:
            raise BenchFailed("A notice did not reach the other node.")
        time.sleep(0.005)
    return (time.perf_counter() - began) * 1000
