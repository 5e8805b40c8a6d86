"""A node that is only its HTTP edge: real routes, middleware and database; no log, no keys, no loops.

Rows are put where the projections would put them, so that these tests say what reading does, whoever wrote the rows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI, Request

from app import edge, problems, tokens
from app.db import Database
from app.domain.at_rest import fresh_key, seal
from app.domain.control_codes import ancestors
from app.domain.errors import NotAuthenticated, RosterMissing, VerbaleError
from app.domain.handling import Tlp
from app.domain.names import fold
from app.domain.names import tokens as name_tokens
from app.domain.roster import CentralContactTerm, ContactPoint, Roster, RosterLog, RosterState
from app.domain.signed import SignedNotice, read_signed
from app.domain.statement import Part
from app.gate import Principal, peer
from app.models import BodyKeyRow, BodyRow, EntryRow, LeafRow, LogRow, NoticeRow, NoticeTermRow
from app.record import Receipt
from app.routers import federation, health, notices, states, syndication
from app.settings import Settings

T = TypeVar("T")

NOW_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z
NOW_S = NOW_MS // 1000
TODAY = date(2026, 9, 21)
URL = "https://ee.example"
LOGS = {"EE": 1, "US": 2, "NL": 3}


def origin_of(state: str) -> str:
    return f"{state.lower()}.example/log/1"


def make_roster(expires: int = NOW_S + 90 * 86_400) -> Roster:
    def listed(code: str, name: str) -> RosterState:
        return RosterState(
            code,
            name,
            url=f"https://{code.lower()}.example",
            joined="2023-03-30",
            contact_point=ContactPoint("Export Control Unit", f"contact@{code.lower()}.example"),
            logs=(RosterLog(origin_of(code), 1, f"https://{code.lower()}.example/log/1"),),
            witness_name=f"{code.lower()}.example/witness",
        )

    known = {
        code: listed(code, name)
        for code, name in (("EE", "Estonia"), ("US", "United States"), ("NL", "Netherlands"))
    }
    terms = (CentralContactTerm("NL", "2026-01-01", "2027-01-01"),)
    return Roster(7, "ab" * 32, expires, MappingProxyType(known), terms)


@dataclass
class EdgeNode:
    """Implements `app.deps.Node`."""

    settings: Settings
    db: Database
    now_ms: int = NOW_MS
    the_roster: Roster | None = field(default_factory=make_roster)
    stopped: list[str] = field(default_factory=list)
    posted: list[list[SignedNotice]] = field(default_factory=list)
    answer: Callable[[SignedNotice], Receipt | VerbaleError] | None = None
    state: str = "EE"
    origin: str = origin_of("EE")
    is_warming: bool = False

    def clock(self) -> int:
        return self.now_ms

    def roster(self) -> Roster:
        if self.the_roster is None:
            raise RosterMissing("No roster yet.")
        return self.the_roster

    async def submit(self, signed: SignedNotice) -> Receipt:
        (outcome,) = await self.record_posts(await self.judge_posts([signed]))
        if isinstance(outcome, VerbaleError):
            raise outcome
        return outcome

    async def judge_posts(self, notices: Sequence[SignedNotice | bytes], *, flood: bool = False) -> list[Any]:
        """Reads what came as bytes, and judges nothing."""
        del flood
        outcomes: list[SignedNotice | VerbaleError] = []
        for notice in notices:
            try:
                outcomes.append(read_signed(notice) if isinstance(notice, bytes) else notice)
            except VerbaleError as refusal:
                outcomes.append(refusal)
        return outcomes

    async def record_posts(self, outcomes: Sequence[Any]) -> list[Receipt | VerbaleError]:
        good = [outcome for outcome in outcomes if isinstance(outcome, SignedNotice)]
        if good:
            self.posted.append(good)
        assert self.answer is not None or not good
        return [
            self.answer(outcome) if self.answer and isinstance(outcome, SignedNotice) else outcome
            for outcome in outcomes
        ]

    async def authenticate_peer(self, request: Request) -> Principal:
        state = request.headers["signature-input"]
        if state not in LOGS:
            raise NotAuthenticated("The signature names no key of the roster.")
        return peer(state, f"{state}/transport/1")

    def stopped_loops(self) -> list[str]:
        return self.stopped


def open_node(database_url: str, **settings: Any) -> EdgeNode:
    db = Database(database_url)
    with db.write() as session:
        for state, log_id in LOGS.items():
            session.add(
                LogRow(
                    id=log_id,
                    origin=origin_of(state),
                    state=state,
                    epoch=1,
                    is_own=state == "EE",
                    size=100,
                    judged=100,
                )
            )
    values: dict[str, Any] = {
        "state": "EE",
        "origin": origin_of("EE"),
        "data_dir": Path("unused"),
        "public_url": URL,
    }
    return EdgeNode(Settings(**(values | settings)), db)


def make_app(node: EdgeNode) -> FastAPI:
    app = FastAPI()
    app.state.node = node
    problems.install(app)
    for router in (notices.router, states.router, federation.router, health.router, syndication.router):
        app.include_router(router)
    edge.install(app, node.settings.public_url)
    return app


class Client:
    """Synchronous requests to an app in this process."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
                return await client.request(method, path, **options)

        return run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def run(awaitable: Awaitable[T]) -> T:
    async def awaited() -> T:
        return await awaitable

    return asyncio.run(awaited())


def token(node: EdgeNode, ceiling: Tlp = Tlp.RED, scopes: Sequence[str] = ("read",)) -> dict[str, str]:
    """The header of a new token."""
    with node.db.write() as session:
        _, text = tokens.create(
            session,
            name="licensing",
            scopes=scopes,
            ceiling=ceiling,
            expires_at=NOW_MS + 1_000_000,
            now_ms=NOW_MS,
        )
    return {"Authorization": f"Bearer {text}"}


_serial = itertools.count(1)


def notice_id(n: int) -> str:
    return f"01990000-0000-7000-8000-{n:012x}"


def put(
    node: EdgeNode,
    *,
    issuer: str = "US",
    tlp: Tlp | int = Tlp.CLEAR,
    audience: str = "ALL",
    type_: str = "denied_end_user",
    title: str = "A denial",
    names: Sequence[str] = ("Acme Surveillance Ltd",),
    codes: Sequence[str] = (),
    countries: Sequence[str] = (),
    concerns: Sequence[str] = (),
    text: str = "",
    status: str = "active",
    content_state: str = "current",
    id_: str | None = None,
    iat: int = NOW_S - 1000,
    received_at: int = NOW_MS - 500,
    **columns: Any,
) -> str:
    """Insert one notice of one version; returns its id."""
    n = next(_serial)
    log_id, statement_id = LOGS[issuer], id_ or notice_id(n)
    document = {"type": type_, "issuer": issuer, "title": title, "tlp": Tlp(min(tlp, 4)).label}
    document["audience"] = audience if audience == "ALL" else audience.split()  # type: ignore[assignment]
    leaf_hash = sha256(b"leaf %d" % n).digest()
    with node.db.write() as session:
        session.add(
            NoticeRow(
                log_id=log_id,
                idx=n,
                seq=n,
                id=statement_id,
                issuer=issuer,
                status=status,
                version=1,
                current_idx=n,
                current_hash=leaf_hash,
                document_idx=n,
                content_idx=n,
                content_state=content_state,
                iat=iat,
                changed_iat=iat,
                received_at=received_at,
                changed_at=received_at,
                tlp_rank=int(tlp),
                audience_all=audience == "ALL",
                type=type_,
                title=title,
                search_text=fold(f"{title} {text} {' '.join(names)}"),
                document=json.dumps(document),
                **columns,
            )
        )
        put_version(
            session,
            log_id,
            n,
            n,
            statement_id,
            "issue",
            leaf_hash,
            tlp=int(tlp),
            audience=audience,
            body=document,
        )
        terms = {("n", token_, pos) for pos, name in enumerate(names) for token_ in name_tokens(name)}
        terms |= {("c", prefix, 0) for code in codes for prefix in ancestors(code)}
        terms |= {("l", c, 0) for c in countries} | {("h", c, 0) for c in concerns}
        if audience != "ALL":
            terms |= {("a", state, 0) for state in audience.split()}
        session.add_all(NoticeTermRow(kind=k, term=t, log_id=log_id, idx=n, pos=p) for k, t, p in terms)
    return statement_id


def put_version(
    session: Any,
    log_id: int,
    idx: int,
    root: int | None,
    statement_id: str,
    kind: str,
    leaf_hash: bytes,
    *,
    tlp: int,
    audience: str | None,
    body: dict[str, Any] | None,
    version: int | None = 1,
    **columns: Any,
) -> None:
    session.add(
        LeafRow(log_id=log_id, idx=idx, leaf_hash=leaf_hash, leaf=b"header.payload.sig", received_at=NOW_MS)
    )
    session.flush()
    session.add(
        EntryRow(
            log_id=log_id,
            idx=idx,
            leaf_hash=leaf_hash,
            id=statement_id,
            kind=kind,
            kid="US/cp/1",
            iat=NOW_S - 1000,
            root_idx=root,
            version=version,
            received_at=NOW_MS,
            body_state="held" if body is not None else "absent",
            tlp_rank=tlp,
            audience=audience,
            **columns,
        )
    )
    if body is not None:
        key = fresh_key()
        sealed = seal(key, idx, "main", Part(b"s" * 32, json.dumps(body).encode()))
        session.add(BodyKeyRow(log_id=log_id, idx=idx, key=key))
        session.add(BodyRow(log_id=log_id, idx=idx, part="main", sealed=sealed, held_at=NOW_MS))
