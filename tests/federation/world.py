"""A federation in one process: the nodes we ship, their real routes, and a network that tests can bend.

Requests between nodes go through `Network`, httpx's transport seam, straight into the other node's ASGI application. Nothing
runs by itself: a test says who publishes, who looks at whose log and who judges, so every interleaving is written down.
The roster is a value that all nodes share (`tests/roster` is about where it comes from), the clock is one that tests set.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from app import bodies
from app.db import Database
from app.domain.at_rest import seal_parts
from app.domain.commitment import commit
from app.domain.encoding import b64u_encode
from app.domain.json import canonical
from app.domain.keys import Ed25519Signer, Signer
from app.domain.roster import CentralContactTerm, Roster, RosterKey, RosterLog, RosterState
from app.domain.statement import Kind, Part, PartCommitment, Statement, hash_leaf, sign
from app.keyfiles import read_card
from app.main import create_app
from app.mirrors import Followed
from app.models import Base, BodyRow, EntryRow, LogRow
from app.node import Node
from app.replication import witness as witnessing
from app.settings import Settings, load
from app.setup import NODE_KEYS, begin_log, init_node
from app.tlog.publish import publish_step
from app.tlog.store import append_leaves, lock_log

NOW = 1_790_000_000
"""2026-09-21T13:33:20Z, when these tests begin, by the clock of every node."""
DAY = 86_400

Wire = dict[str, Any]
Rule = Callable[[httpx.Request], httpx.Response | None]


@dataclass
class SetClock:
    """A clock that stands until it is moved. Unix ms."""

    ms: int = NOW * 1000

    def __call__(self) -> int:
        return self.ms

    def tick(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


def seeded(label: str) -> Ed25519Signer:
    """A key that is the same in every run."""
    return Ed25519Signer(
        Ed25519PrivateKey.from_private_bytes(sha256(f"verbale test: {label}".encode()).digest())
    )


def uuid7(label: str | None = None) -> str:
    """A UUIDv7; the same for the same label."""
    tail = os.urandom(10) if label is None else sha256(label.encode()).digest()[:10]
    raw = bytearray((NOW * 1000).to_bytes(6, "big") + tail)
    raw[6], raw[8] = raw[6] & 15 | 0x70, raw[8] & 63 | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def wait_until(condition: Callable[[], object], deadline_s: float = 60.0) -> None:
    """Wait for what other threads do. Fails, naming the condition's last answer, when it takes too long."""
    end = time.monotonic() + deadline_s
    seen: object = None
    while time.monotonic() < end:
        seen = condition()
        if seen:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"still {seen!r} after {deadline_s} s")


# ── making notices ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Signed:
    """One signed notice: the statement and its opened parts."""

    statement: Statement
    parts: dict[str, Part]

    @property
    def leaf(self) -> bytes:
        return self.statement.leaf

    @property
    def id(self) -> str:
        return self.statement.id

    @property
    def hash(self) -> bytes:
        return self.statement.leaf_hash

    @property
    def ref(self) -> str:
        """The leaf hash as bodies spell it."""
        return b64u_encode(self.statement.leaf_hash)

    def wire(self) -> Wire:
        return wire(self.leaf, self.parts)


def wire(leaf: bytes, parts: dict[str, Part]) -> Wire:
    return {
        "statement": leaf.decode(),
        "parts": {
            n: {"salt": b64u_encode(p.salt), "content": b64u_encode(p.content)} for n, p in parts.items()
        },
    }


@dataclass(frozen=True)
class Officer:
    """A contact point: a State, its log and a key."""

    state: str
    signer: Signer
    kid: str = ""

    @property
    def origin(self) -> str:
        return origin_of(self.state)

    def sign(
        self,
        main: dict[str, Any] | bytes | None,
        kind: Kind = "issue",
        *,
        ref: bytes | None = None,
        iat: int = NOW,
        exp: int | None = None,
        log: str | None = None,
        statement_id: str | None = None,
        attachments: dict[str, tuple[str, bytes]] | None = None,
        kid: str | None = None,
        signer: Signer | None = None,
        salt: bytes | None = None,
    ) -> Signed:
        """Sign a main part (as given, if bytes) with fresh salts."""
        statement_id = statement_id or uuid7()
        contents: dict[str, tuple[str, bytes]] = {}
        if main is not None:
            contents["main"] = ("application/json", main if isinstance(main, bytes) else canonical(main))
        contents |= attachments or {}
        parts = {name: Part(salt or os.urandom(32), content) for name, (_, content) in contents.items()}
        named = [
            PartCommitment(name, contents[name][0], commit(part.salt, statement_id, name, part.content))
            for name, part in parts.items()
        ]
        statement = sign(
            signer or self.signer,
            kid=kid or self.kid or f"{self.state}/cp/1",
            log=log or self.origin,
            statement_id=statement_id,
            kind=kind,
            iat=iat,
            parts=named,
            exp=exp,
            ref=ref,
        )
        return Signed(statement, parts)


def origin_of(state: str) -> str:
    return f"{state.lower()}.verbale.example/log/1"


# ── the network ───────────────────────────────────────────────────────────────────────────────────────────────────


class Bytes(httpx.SyncByteStream):
    """A body that is still to be read, as a network's is."""

    def __init__(self, pieces: bytes | Iterator[bytes]) -> None:
        self._pieces = iter([pieces]) if isinstance(pieces, bytes) else pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


def answer(status: int = 200, body: bytes | Iterator[bytes] = b"", **headers: str) -> httpx.Response:
    """An answer as a peer gives it."""
    return httpx.Response(
        status, headers={n.replace("_", "-"): v for n, v in headers.items()}, stream=Bytes(body)
    )


HANGS_S: Final = 120
"""A request that takes so long hangs. No test waits for it, and no limit on speed: a busy machine may be slow."""


class Network:
    """Every node's address → its application. One event loop in a thread serves all of them."""

    def __init__(self) -> None:
        self.apps: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def send(self, request: httpx.Request) -> httpx.Response:
        """One request, honestly delivered."""
        app = self.apps.get(request.url.netloc.decode())
        if app is None:
            raise httpx.ConnectError("connection refused", request=request)
        request.read()
        asked = asyncio.run_coroutine_threadsafe(self._call(app, request), self._loop)
        status, headers, body = asked.result(HANGS_S)
        return httpx.Response(status, headers=headers, stream=Bytes(body))

    def gather(self, requests: Sequence[httpx.Request]) -> list[httpx.Response]:
        """Many requests at the same time; the answers in order."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self._call(self.apps[r.url.netloc.decode()], r) for r in requests))

        answers = asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result(HANGS_S)
        return [httpx.Response(status, headers=headers, content=body) for status, headers, body in answers]

    async def _call(self, app: Any, request: httpx.Request) -> tuple[int, Any, bytes]:
        transport = httpx.ASGITransport(app)
        again = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = await transport.handle_async_request(again)
        return response.status_code, response.headers.raw, await response.aread()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class Line(httpx.BaseTransport):
    """One node's line into the network. `rules` are asked first: an answer of theirs is what the node gets to see."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.rules: list[Rule] = []
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        for rule in self.rules:
            given = rule(request)
            if given is not None:
                return given
        return self._network.send(request)

    def honest(self, request: httpx.Request) -> httpx.Response:
        """What the peer itself would answer."""
        return self._network.send(request)


# ── nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Peer:
    """One State's node with its officer, driven step by step."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world, self.settings = world, settings
        self.state = settings.state
        self.officer = Officer(self.state, world.officer_key(self.state))
        self.line = Line(world.network)
        self.open()

    def open(self) -> None:
        """Start the node; also again, on the same folder, after `close`."""
        self.node = Node(self.settings, clock=self.world.clock, peer_transport=self.line)
        self.node.open()
        # The roster's own client is tested with the roster; here membership is a value of the test.
        self.node.roster_client = self.world.shared_roster  # type: ignore[assignment]
        # Nor is it followed by itself whom the roster lists: `followed` says whom, and when.
        self.node._adopted = self.world.roster.sha256
        self.node.start()
        self.db = self.node.db
        self.world.network.apps[self.settings.public_url.removeprefix("http://")] = create_app(self.node)

    def close(self) -> None:
        """Stop it, as SIGTERM would."""
        self.world.network.apps.pop(self.settings.public_url.removeprefix("http://"), None)
        self.node.stop()

    # HTTP, as a client of this node.

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with httpx.Client(transport=_Plain(self.world.network), base_url=self.settings.public_url) as client:
            return client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options).json()

    def post(self, signed: Signed | Wire) -> httpx.Response:
        return self.request(
            "POST", "/v1/notices", json=signed.wire() if isinstance(signed, Signed) else signed
        )

    def must_post(self, signed: Signed) -> Signed:
        response = self.post(signed)
        assert response.status_code == 201, response.text
        return signed

    # Steps.

    def publish(self) -> None:
        roster = self.world.roster
        publish_step(
            self.db,
            self.node.log_id,
            self.node.keys.log,
            now=self.world.clock(),
            revoked=witnessing.revoked_log_keys(roster, self.node.origin),
        )

    def offer(self, to: Peer) -> bool:
        """Offer the own newest head to another State's witness, which then follows; keep its cosignature."""
        to.followed(self)
        node, roster = self.node, self.world.roster
        endpoints = witnessing.witness_endpoints(roster, self.state, node.settings.witnesses)
        endpoint = next(e for e in endpoints if e.state == to.state)
        return witnessing.offer_step(
            self.db, node.client, endpoint, node.log_id, roster, now=self.world.clock()
        )

    def witnessed(self, *by: Peer) -> None:
        """Publish, and let others cosign."""
        self.publish()
        for peer in by:
            self.offer(peer)

    def followed(self, of: Peer | str) -> Followed:
        """What the node keeps of another's log; begun without the loops that would act by themselves."""
        state = of if isinstance(of, str) else of.state
        return self.node.mirrors.mirror(origin_of(state), 1, state)

    def follow(self, of: Peer) -> None:
        """One look at another's log; raises what the look found."""
        self.node.mirrors.follow(self.followed(of))

    def judge(self, of: Peer) -> None:
        """Judge all that is new, and ask once for bodies that are missing."""
        followed = self.followed(of)
        followed.wanted_after = -1
        while self.node.mirrors.judge(followed):
            pass

    def sync(self, of: Peer) -> None:
        """Publish there, look, judge."""
        of.publish()
        self.follow(of)
        self.judge(of)

    # What it holds.

    def log(self, of: Peer | str | None = None) -> LogRow:
        """The row of a log: its own, or its mirror of another's."""
        origin = self.node.origin if of is None else origin_of(of if isinstance(of, str) else of.state)
        with self.db.read() as session:
            return session.execute(select(LogRow).where(LogRow.origin == origin)).scalar_one()

    def entry(self, of: Peer | str, index: int) -> EntryRow:
        with self.db.read() as session:
            return session.execute(
                select(EntryRow).where(EntryRow.log_id == self.log(of).id, EntryRow.idx == index)
            ).scalar_one()

    def statuses(self) -> dict[str, str]:
        """Title → status of everything this node's own State may see, over or not."""
        every = [("status", status) for status in ("active", "withdrawn", "expired", "erased")]
        items = self.get("/v1/notices", params=every, headers=self.token())["items"]
        return {item["title"]: item["status"] for item in items}

    def titles(self, **filters: str) -> list[str]:
        """Titles that this node's own State may see, newest first."""
        return [n["title"] for n in self.find(**filters)["items"]]

    def find(self, **filters: str) -> Any:
        return self.get("/v1/notices", params=filters, headers=self.token())

    def token(self) -> dict[str, str]:
        """An API token that may read all that this State may."""
        if not hasattr(self, "_token"):
            from app import tokens
            from app.domain.handling import Tlp

            with self.db.write() as session:
                _, text = tokens.create(
                    session,
                    name="test",
                    scopes=("read",),
                    ceiling=Tlp.RED,
                    expires_at=self.world.clock() + 100 * DAY * 1000,
                    now_ms=self.world.clock(),
                )
            self._token = {"authorization": f"Bearer {text}"}
        return self._token

    def federation(self, of: Peer | str) -> Any:
        """What /v1/federation says here about another State's log."""
        state = of if isinstance(of, str) else of.state
        logs = self.get("/v1/federation", headers=self.token())["logs"]
        return next(log for log in logs if log["state"] == state)

    def faults(self, of: Peer | str) -> dict[int, str]:
        """Index → code, as this node shows them to its own State."""
        state = of if isinstance(of, str) else of.state
        shown = self.get(
            "/v1/federation/faults", params={"state": state, "limit": "200"}, headers=self.token()
        )
        return {item["index"]: item["code"] for item in shown["items"]}

    def records(self) -> list[Any]:
        """The records of evidence that this node serves, oldest first."""
        found = [self.get(f"/evidence/{item['id']}") for item in self.get("/evidence")["items"]]
        return found[::-1]

    # Malice.

    def smuggle(self, *entries: tuple[bytes, dict[str, Part]], audience: str = "ALL") -> list[int]:
        """Put leaves and bodies into the own log past the local door, as a malicious State would. Returns indexes."""
        now = self.world.clock()
        with self.db.write() as session:
            log = lock_log(session, self.node.log_id)
            append_leaves(self.db, session, log, [(hash_leaf(leaf), leaf) for leaf, _ in entries], at=now)
            for index, (leaf, parts) in enumerate(entries, log.size):
                session.add(
                    EntryRow(
                        log_id=log.id,
                        idx=index,
                        leaf_hash=hash_leaf(leaf),
                        received_at=now,
                        body_state="held" if parts else "none",
                        tlp_rank=0,
                        audience=audience,
                    )
                )
                session.flush()
                if parts:
                    bodies.store(self.db, session, log.id, [(index, seal_parts(index, parts), now)])
            session.execute(update(LogRow).where(LogRow.id == log.id).values(judged=LogRow.size))
        return list(range(log.size, log.size + len(entries)))


class _Plain(httpx.BaseTransport):
    def __init__(self, network: Network) -> None:
        self._network = network

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._network.send(request)


class SharedRoster:
    """Stands where `app.roster.RosterClient` does."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.outcomes = ()

    def refresh(self, at: int) -> Roster:
        return self.roster

    def load_local(self, at: int) -> Roster:
        return self.roster

    def read(self, path: str) -> bytes | None:
        return None


class World:
    """The States of one test. `make(code, …)` gives its nodes; the roster lists all of `codes`, running or not."""

    def __init__(
        self,
        directory: Path,
        templates: Path,
        codes: Sequence[str] = ("EE", "US", "NL"),
        database: Callable[[str], str] | None = None,
    ) -> None:
        self.directory, self.templates, self.codes, self._database = (
            directory,
            templates,
            tuple(codes),
            database,
        )
        self.clock = SetClock()
        self.network = Network()
        self.peers: dict[str, Peer] = {}
        states = {code: self._listed(code) for code in codes}
        terms = (CentralContactTerm("NL", "2026-01-01", "2027-01-01"),)
        self.shared_roster = SharedRoster(
            Roster(1, "ab" * 32, NOW + 300 * DAY, MappingProxyType(states), terms)
        )

    @property
    def roster(self) -> Roster:
        return self.shared_roster.roster

    def officer_key(self, state: str) -> Ed25519Signer:
        return seeded(f"{state}/cp/1")

    def _listed(self, code: str) -> RosterState:
        cards = [read_card(self.templates / code / "keys" / f"{use}.key.pub") for use in NODE_KEYS]
        keys = [RosterKey(card.kid, card.use, card.key, NOW - DAY) for card in cards]  # type: ignore[arg-type]
        keys.append(RosterKey(f"{code}/cp/1", "notices", self.officer_key(code).public, NOW - DAY))
        return RosterState(
            code,
            code,
            joined="2023-03-30",
            url=url_of(code),
            logs=(RosterLog(origin_of(code), 1, f"{url_of(code)}/log/1"),),
            keys=tuple(keys),
            witness_name=f"{code.lower()}.verbale.example/witness",
        )

    def change_state(self, code: str, **changes: Any) -> None:
        """Adopt, everywhere and at once, a roster in which one State differs."""
        states = dict(self.roster.states)
        states[code] = replace(states[code], **changes)
        version = self.roster.version + 1
        self.shared_roster.roster = replace(
            self.roster, version=version, sha256=f"{version:064x}", states=MappingProxyType(states)
        )

    def add_key(self, code: str, key: RosterKey) -> None:
        self.change_state(code, keys=(*self.roster.states[code].keys, key))

    def settings(self, code: str, folder: str | None = None) -> Settings:
        """The settings of a State's node on its own copy of the template."""
        target = self.directory / (folder or code)
        shutil.copytree(self.templates / code, target)
        settings = load(target / "node.toml", environment={})
        return settings if self._database is None else replace(settings, database_url=self._database(code))

    def make(self, code: str, folder: str | None = None) -> Peer:
        """Start a State's node."""
        self.peers[folder or code] = peer = Peer(self, self.settings(code, folder))
        return peer

    def back_up(self, code: str) -> Callable[[], Peer]:
        """Copy a running node's folder, as a backup would. Call the result to start a node on the copy."""
        peer = self.peers[code]
        peer.close()
        copy = self.directory / f"{code}-{len(self.peers)}-backup"
        shutil.copytree(peer.settings.data_dir, copy)
        peer.open()

        def restore() -> Peer:
            self.peers[copy.name] = restored = Peer(self, load(copy / "node.toml", environment={}))
            return restored

        return restore

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        self.network.close()


def url_of(code: str) -> str:
    first, second = code.encode()
    return f"http://127.0.0.1:{1000 + 26 * (first - 65) + second - 65}"


CODES = ("EE", "US", "NL", "JP", "FI")
"""The States of which there are templates."""


def make_template(directory: Path, code: str, schema: Path) -> Settings:
    """A node's folder with keys and an empty log, to be copied; `schema` is a database file with the schema."""
    (directory / code).mkdir(mode=0o700, parents=True)
    shutil.copyfile(schema, directory / code / "verbale.db")
    settings = init_node(
        directory / code,
        {
            "state": code,
            "origin": origin_of(code),
            "public_url": url_of(code),
            "background": False,
            "insecure_demo": True,
            "peer_timeout_s": 20.0,
        },
    )
    settings.pinned_root.write_bytes(b"{}")
    return settings


def with_one_database(directory: Path, templates: Path, state: str, url: str) -> World:
    """Three States; the database of `state` is the one under test, the others are on SQLite."""

    def database(code: str) -> str:
        if code != state:
            return ""
        begin_log(replace(load(templates / code / "node.toml", environment={}), database_url=url))
        return url

    return World(directory, templates, database=database)


# ── comparing what nodes hold ─────────────────────────────────────────────────────────────────────────────────────

LOCAL = frozenset({"log_id", "seq", "received_at", "changed_at", "held_at", "at", "live"})
"""What may differ between nodes: local numbers, order and times of arrival."""
SHARED_TABLES = ("leaves", "entries", "notices", "notice_terms", "tree_tiles")


def dump(db: Database, *, log_id: int, but: frozenset[str] = LOCAL) -> dict[str, list[tuple[Any, ...]]]:
    """What a node holds of one log, as sorted rows of every table that should be the same everywhere."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with db.read() as session:
        for name in SHARED_TABLES:
            table = Base.metadata.tables[name]
            columns = [c for c in table.columns if c.name not in but]
            rows = session.execute(select(*columns).where(table.c.log_id == log_id)).all()
            found[name] = sorted((tuple(row) for row in rows), key=repr)
        indexes = {row[0] for row in session.execute(select(BodyRow.idx).where(BodyRow.log_id == log_id))}
        held = bodies.opened(session, log_id, sorted(indexes))
        found["bodies"] = [
            (idx, n, p.salt, p.content) for idx, parts in held.items() for n, p in parts.items()
        ]
    return found


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table: what a refusal must not change."""
    with db.read() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table)).all()), key=repr)
            for table in Base.metadata.sorted_tables
        }
