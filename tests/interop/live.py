"""Three nodes over real sockets, what stands between them and a verifier, and a witness that is none of ours.

`founded` runs the nodes we ship, founded as the demo founds them, on loopback ports the system chose. EE's log is large
enough for a full tile and partial ones, and holds leaves of every kind a contact point signs, under both algorithms.
`bent` is the tampering twin's tool: the same files, but for one.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.demo.author import Author
from app.demo.found import GOVERNANCE, Federation, Member, found
from app.demo.scenario import make_token
from app.keyfiles import create_key, load_private
from app.node import Node
from app.roster import ceremony
from app.roster.documents import StateKey
from app.server import make_server
from tests import examples
from tests.interop.served import raw, read_submission, vkey

STATES = ("EE", "US", "NL")
STAGES = (1, 255, 44, 394, 6)
"""Leaves posted to EE's log, stage by stage; each stage ends at a signed head. 700 leaves: two full tiles and a partial."""
DEADLINE_S = 60.0

client = partial(httpx.Client, trust_env=False, timeout=60)
"""Loopback is asked directly, whatever proxy this machine has."""


@dataclass
class Live:
    """The federation while it runs.

    Attributes:
        root: the roster root that everybody pins.
        urls: State → base URL of its node.
        origins: State → origin of its log.
        sizes: the sizes of EE's log at which a head was kept, ascending; the last is the size it stays at.
        foreign: a witness of EE's log that the roster does not list.
        token: an API token of EE's node that reads all that EE may.
    """

    root: bytes
    urls: dict[str, str]
    origins: dict[str, str]
    foreign: ForeignWitness
    token: str
    sizes: list[int] = field(default_factory=list)

    @property
    def log(self) -> str:
        """The address of EE's log."""
        return f"{self.urls['EE']}/log/1"

    def mirror(self, at: str) -> str:
        """The address of a State's mirror of EE's log."""
        return f"{self.urls[at]}/mirror/{sha256(self.origins['EE'].encode()).hexdigest()}"


@contextlib.contextmanager
def founded(directory: Path) -> Iterator[Live]:
    """Found, serve, fill, wait until everybody has cosigned everything; stop at the end."""
    with contextlib.ExitStack() as stack:
        foreign = stack.enter_context(foreign_witness())
        sockets = {state: stack.enter_context(contextlib.closing(_listen())) for state in STATES}
        members = [
            Member(
                state,
                sockets[state].getsockname()[1],
                {"witnesses": [f"{foreign.vkey} {foreign.url}"]} if state == "EE" else {},
            )
            for state in STATES
        ]
        at = int(time.time())
        federation = found(directory / "federation", members, central="NL", at=at)
        second_key = _list_an_es256_key(federation, at)
        for node in reversed(federation.nodes):  # EE last: nobody is absent when it makes its first offer
            server = make_server(Node(node.settings).open())
            stack.enter_context(_running(server, sockets[node.member.state]))
            _wait_until(partial(_has_a_roster, node.member.url), f"{node.member.state} to verify the roster")
        live = Live(
            federation.root.read_bytes(),
            {m.state: m.url for m in members},
            {m.state: m.origin for m in members},
            foreign,
            make_token(federation.node("EE").settings.database),
        )
        fill(live, Author.of(federation.node("EE")), second_key)
        yield live


def _listen() -> socket.socket:
    """A socket on a free port, before anybody is told of the port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


@contextlib.contextmanager
def _running(server: uvicorn.Server, listening: socket.socket) -> Iterator[None]:
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        _wait_until(lambda: server.started, "a node to start")
        yield
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)


def _has_a_roster(url: str) -> bool:
    with client(base_url=url) as node:
        return node.get("/roster/metadata/timestamp.json").status_code == httpx.codes.OK


def _list_an_es256_key(federation: Federation, at: int) -> Author:
    """EE's contact point gets a second key, on P-256, as a State publishes one: its authority signs a new document."""
    directory, repository = federation.directory, federation.repository
    signer, card = create_key(directory / "second.key", "EE/cp/2", "notices", alg="ES256")
    roster = ceremony.current(repository)
    assert roster is not None
    document = roster.states["EE"]
    listed = replace(document, keys=(*document.keys, StateKey.of_card(card, active_from=at - 3600)))
    ceremony.propose_state_document(repository, "second-key", listed, at=at)
    for key in (load_private(directory / GOVERNANCE / "ee-authority.key"), *federation.online):
        ceremony.sign(repository, "second-key", key, at=at)
    ceremony.publish(repository, "second-key", at=at)
    return Author("EE", federation.node("EE").member.origin, card.kid, signer)


def fill(live: Live, author: Author, second: Author) -> None:
    """Post the stages to EE, and wait after each until its head is signed and cosigned by all."""
    with client(base_url=live.urls["EE"]) as ee:
        receipts: list[dict[str, str]] = []
        for count in STAGES[:-1]:
            receipts += _post(ee, [_notice(author, len(receipts) + i) for i in range(count)])
            _wait_for_witnesses(live, ee, len(receipts))
        # One more of each kind, and one under the other key; each acts on what the notice it names is now.
        first, withdrawn = receipts[0], receipts[300]
        amendment = examples.amendment(first["id"], first["leaf_hash"])
        withdrawal = examples.withdrawal(withdrawn["id"], withdrawn["leaf_hash"])
        last = [
            author.sign(amendment, ref=raw(first["leaf_hash"])),
            author.sign(withdrawal, ref=raw(withdrawn["leaf_hash"])),
            *(_notice(second, 1000 + i) for i in range(STAGES[-1] - 2)),
        ]
        size = len(receipts) + len(_post(ee, last))
        _wait_for_witnesses(live, ee, size)
        for state in STATES[1:]:
            url = f"{live.mirror(state)}/history/{size}"
            _wait_until(lambda url=url: ee.get(url).content != b"", f"{state} to have the log's history")  # type: ignore[misc]


def _notice(author: Author, number: int) -> bytes:
    return author.sign(examples.denied_end_user(title=f"Denied: example {number}"))


def _post(ee: httpx.Client, lines: list[bytes]) -> list[dict[str, str]]:
    headers = {"content-type": "application/x-ndjson"}
    response = ee.post("/v1/notices/batch", content=b"\n".join(lines) + b"\n", headers=headers)
    answers = [httpx.Response(200, content=line).json() for line in response.content.splitlines()]
    assert len(answers) == len(lines), response.text
    for answer in answers:
        assert "receipt" in answer, answer
    return [answer["receipt"] for answer in answers]


def _wait_for_witnesses(live: Live, ee: httpx.Client, size: int) -> None:
    """Until the head of this size carries four lines: EE's own, US's, NL's and the foreign witness's."""

    def lines() -> bool:
        response = ee.get(f"/log/1/checkpoint/{size}")
        return (
            response.status_code == httpx.codes.OK
            and response.content.count("\n— ".encode()) == len(STATES) + 1
        )

    _wait_until(lines, f"all witnesses to cosign size {size}")
    live.sizes.append(size)


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain for {what}"
        threading.Event().wait(0.02)


# ── servers that are none of ours ─────────────────────────────────────────────────────────────────────────────────


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def answer(self, status: int, body: bytes, media_type: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _serving(handler: type[_Handler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def bent(url: str, where: str, change: Callable[[bytes], bytes]) -> Iterator[str]:
    """The address of a server that passes on what `url` serves, except where a path matches: that it changes.

    Fails at the end if nobody asked for what was changed, since then the test has shown nothing.
    """
    changed: list[str] = []

    with client(base_url=url) as upstream:

        class Passing(_Handler):
            def do_GET(self) -> None:
                response = upstream.get(self.path)
                body = response.content
                if response.status_code == httpx.codes.OK and re.search(where, self.path):
                    body, before = change(body), body
                    assert body != before
                    changed.append(self.path)
                self.answer(response.status_code, body, response.headers["content-type"])

        with _serving(Passing) as address:
            yield address
    assert changed, f"nobody asked for {where}"


def flip(at: int) -> Callable[[bytes], bytes]:
    """Change one bit of the byte at this offset."""

    def change(raw: bytes) -> bytes:
        place = at % len(raw)
        return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]

    return change


@dataclass
class ForeignWitness:
    """A witness written from C2SP tlog-witness alone. It cosigns without checking: its tests check what it was sent.

    Attributes:
        taken: the submissions that were cosigned, in order, as they came.
    """

    name: str
    key: Ed25519PrivateKey
    url: str = ""
    taken: list[bytes] = field(default_factory=list)

    @property
    def vkey(self) -> str:
        """The verifier key of a cosigner."""
        return vkey(self.name, self.key.public_key().public_bytes_raw(), kind=4)

    @property
    def _key_id(self) -> bytes:
        return bytes.fromhex(self.vkey.split("+")[1])

    def add_checkpoint(self, raw: bytes) -> tuple[int, bytes]:
        """Answer a submission: status and body."""
        old, _, head = read_submission(raw)
        known = read_submission(self.taken[-1])[2].size if self.taken else 0
        if old != known:
            return 409, b"%d\n" % known
        self.taken.append(raw)
        now = int(time.time())
        signature = self.key.sign(b"cosignature/v1\ntime %d\n" % now + head.text)
        line = b64encode(self._key_id + now.to_bytes(8, "big") + signature).decode()
        return 200, f"— {self.name} {line}\n".encode()


@contextlib.contextmanager
def foreign_witness() -> Iterator[ForeignWitness]:
    """Serve a fresh foreign witness."""
    witness = ForeignWitness("foreign.example/witness", Ed25519PrivateKey.generate())

    class Witnessing(_Handler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            status, body = witness.add_checkpoint(raw) if self.path == "/add-checkpoint" else (404, b"")
            self.answer(status, body, "text/x.tlog.size" if status == 409 else "text/plain")

    with _serving(Witnessing) as url:
        witness.url = url
        yield witness
