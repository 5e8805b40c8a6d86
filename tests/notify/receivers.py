"""Receivers on loopback, good and bad, and rows that stand for what the log said."""

from __future__ import annotations

import hashlib
import socket
import socketserver
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import select

from app.models import (
    ApiTokenRow,
    EntryRow,
    EventRow,
    LogRow,
    NoticeRow,
    NoticeTermRow,
    SubscriptionRow,
)
from app.notify import subscriptions
from app.notify.guard import UrlPolicy
from app.notify.keys import WebhookKeys
from app.notify.setup import WebhookSetup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.db import Database

DAY = 86_400_000
NOW = 1_800_000_000_000


@dataclass
class SettableClock:
    """A clock that moves when told to."""

    now: int = NOW

    def __call__(self) -> int:
        return self.now


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    headers: dict[str, str]
    body: bytes


def answer(status: str = "204 No Content", *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Receiver:
    """An HTTP server that does with each request what `behave` says; a context manager."""

    behave: Callable[[Received, socket.socket, threading.Event], bytes | None] = lambda *_: answer()
    received: list[Received] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    headers = {}
                    while line := self.rfile.readline().strip():
                        name, _, value = line.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    request = Received(headers, self.rfile.read(int(headers.get("content-length", "0"))))
                    outer.received.append(request)
                    outer.arrived.release()
                    try:
                        reply = outer.behave(request, self.connection, outer.closing)
                        if reply is None:
                            return
                        self.wfile.write(reply)
                    except OSError:
                        return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A sender that hangs up is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def ids(self) -> list[str]:
        return [r.headers["webhook-id"] for r in self.received]


def loopback_setup(
    directory: Path, *, networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
) -> WebhookSetup:
    """A node of Estonia that allows webhooks to this machine."""
    return WebhookSetup(
        "EE", "https://ee.example", UrlPolicy.of(networks, http=True), WebhookKeys.open(directory, "EE")
    )


def add_token(
    db: Database, *, ceiling: int = 4, scopes: str = "read subscribe", expires_at: int = NOW * 2
) -> str:
    with db.write() as session:
        count = len(session.scalars(select(ApiTokenRow.id)).all())
        token_id = f"token{count}"
        session.add(
            ApiTokenRow(
                id=token_id, name="licensing", secret_hash=b"x", scopes=scopes, ceiling=ceiling, created_at=NOW,
                expires_at=expires_at,
            )
        )  # fmt: skip
    return token_id


def subscribe(
    db: Database, setup: WebhookSetup, token_id: str, url: str, **changes: Any
) -> tuple[str, bytes | None]:
    """A subscription made as the route makes it; its id and its secret."""
    wanted: dict[str, Any] = {"url": url, "scheme": "v1"} | changes
    times = {"since": wanted.pop("since", None), "now": wanted.pop("now", NOW)}
    with db.write() as session:
        row, secret = subscriptions.create(session, setup, token_id, wanted, **times)
        return row.id, None if secret is None else b64decode(secret.removeprefix("whsec_"))


def subscription(db: Database, id_: str) -> SubscriptionRow:
    with db.read() as session:
        return session.get_one(SubscriptionRow, id_)


class Log:
    """Writes what the fold would have written about notices of one State."""

    def __init__(self, db: Database, state: str = "US") -> None:
        self.db, self.state, self.size = db, state, 0
        with db.write() as session:
            row = LogRow(
                origin=f"{state.lower()}.verbale.example/log/1", state=state, epoch=1, is_own=state == "EE"
            )
            session.add(row)
            session.flush()
            self.id = row.id
            self.origin = row.origin

    def issue(
        self,
        *,
        tlp: int = 0,
        audience: str = "ALL",
        type_: str = "denied_end_user",
        event: bool = True,
        live: bool = True,
    ) -> int:
        """Issue a notice; return its index."""
        idx = self._entry("issue", None, tlp, audience, 1)
        with self.db.write() as session:
            session.add(
                NoticeRow(
                    log_id=self.id, idx=idx, seq=self.db.next_values(session, "notices", 1), id=f"notice-{self.state}-{idx}",
                    issuer=self.state, status="active", version=1, current_idx=idx, current_hash=self.hash(idx),
                    document_idx=idx, content_idx=idx, content_state="current", iat=NOW // 1000, changed_iat=NOW // 1000,
                    received_at=NOW, changed_at=NOW, tlp_rank=tlp, audience_all=audience == "ALL", type=type_,
                    title="A title that must not travel",
                )
            )  # fmt: skip
            if audience != "ALL":
                session.add_all(
                    NoticeTermRow(kind="a", term=s, log_id=self.id, idx=idx, pos=0) for s in audience.split()
                )
        if event:
            self.event("notice.issued", idx, idx, live=live)
        return idx

    def follow(
        self,
        kind: str,
        root: int,
        event_type: str,
        *,
        tlp: int = 0,
        audience: str = "ALL",
        event: bool = True,
        **values: Any,
    ) -> int:
        """A later statement about the notice `root`, with what it changes in the notice's row."""
        with self.db.write() as session:
            notice = session.get_one(NoticeRow, (self.id, root))
            version = notice.version + (kind != "erase")
            notice.version = version
            for name, value in values.items():
                setattr(notice, name, value)
        idx = self._entry(kind, root, tlp, audience, version)
        if event:
            self.event(event_type, idx, root)
        return idx

    def acknowledge(self, leaf_hash: bytes, *, tlp: int = 1, audience: str = "ALL") -> int:
        idx = self._entry("ack", None, tlp, audience, None, ref=leaf_hash)
        self.event("acknowledgement.received", idx, None)
        return idx

    def set(self, idx: int, **values: Any) -> None:
        with self.db.write() as session:
            notice = session.get_one(NoticeRow, (self.id, idx))
            for name, value in values.items():
                setattr(notice, name, value)

    def hash(self, idx: int) -> bytes:
        return hashlib.sha256(f"{self.state}{idx}".encode()).digest()

    def event(
        self,
        type_: str,
        idx: int | None,
        root: int | None,
        *,
        live: bool = True,
        at: int = NOW,
        **values: Any,
    ) -> int:
        with self.db.write() as session:
            seq = self.db.next_values(session, "events", 1)
            session.add(
                EventRow(
                    seq=seq, type=type_, log_id=self.id, idx=idx, root_idx=root, at=at, live=live, **values
                )
            )
        return seq

    def _entry(
        self,
        kind: str,
        root: int | None,
        tlp: int,
        audience: str,
        version: int | None,
        ref: bytes | None = None,
    ) -> int:
        idx, self.size = self.size, self.size + 1
        with self.db.write() as session:
            session.add(
                EntryRow(
                    log_id=self.id, idx=idx, leaf_hash=self.hash(idx), id=f"statement-{self.state}-{idx}", kind=kind,
                    kid="US/cp/1", iat=NOW // 1000, root_idx=idx if kind == "issue" else root,
                    version=version, ref=ref, received_at=NOW, body_state="held", tlp_rank=tlp, audience=audience,
                )
            )  # fmt: skip
        return idx
