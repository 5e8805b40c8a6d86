"""The feed's routes on a real server and a real socket, over rows that the tests write."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx
import uvicorn
from fastapi import FastAPI

from app import edge, problems, tokens
from app.domain.handling import Tlp
from app.edge import protocol_for
from app.limits import MAX_HEADER_BYTES
from app.notify.hub import FeedHub, Patience
from app.routers import feed
from app.server import Server
from app.settings import Settings
from tests.http.edge_node import EdgeNode
from tests.notify.receivers import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.db import Database
    from app.notify.setup import WebhookSetup

QUICK = Patience(poll=0.05, heartbeat=0.3, send=0.5)


def bearer(
    db: Database, *, ceiling: Tlp = Tlp.RED, scopes: tuple[str, ...] = ("read",)
) -> tuple[str, dict[str, str]]:
    """A new token: its id, and the header that carries it."""
    with db.write() as session:
        made, text = tokens.create(
            session, name="system", scopes=scopes, ceiling=ceiling, expires_at=NOW + 1_000_000, now_ms=NOW
        )
    return made.id, {"Authorization": f"Bearer {text}"}


@dataclass
class LiveFeed:
    """A server with the feed's routes; a context manager. Its clock stands still at NOW."""

    db: Database
    setup: WebhookSetup
    folder: Path
    patience: Patience = QUICK
    send_buffer: int | None = None
    hub: FeedHub = field(init=False)
    url: str = field(init=False)

    def __enter__(self) -> Self:
        settings = Settings(
            state="EE", origin="ee.example/log/1", data_dir=self.folder, public_url="https://ee.example"
        )
        node = EdgeNode(settings, self.db, now_ms=NOW)
        self.hub = FeedHub(self.db, node.clock, self.setup, patience=self.patience)
        app = FastAPI()
        app.state.node, app.state.feed = node, self.hub
        problems.install(app)
        app.include_router(feed.router)
        edge.install(app, settings.public_url)
        listening = socket.create_server(("127.0.0.1", 0))
        if self.send_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            app, http=protocol_for(MAX_HEADER_BYTES), log_config=None, access_log=False, lifespan="off"
        )
        self.server = Server(config, app)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()

    def get(self, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
        return httpx.get(f"{self.url}/v1/feed{query}", headers=headers, timeout=60)

    def events(self, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self.get(query, headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @contextmanager
    def stream(
        self, query: str = "", headers: dict[str, str] | None = None, *, receive_buffer: int | None = None
    ) -> Iterator[Stream]:
        """A connection on which the stream was asked for and has begun."""
        host, port = self.url.removeprefix("http://").split(":")
        with closing(socket.socket()) as connection:
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.settimeout(30)
            connection.connect((host, int(port)))
            lines = [f"{k}: {v}" for k, v in (headers or {}).items()]
            head = "\r\n".join([f"GET /v1/feed/stream{query} HTTP/1.1", "Host: x", *lines, "", ""])
            connection.sendall(head.encode())
            stream = Stream(connection)
            stream.begin()
            yield stream


@dataclass
class Stream:
    """Reads server-sent events; chunked framing is undone by hand, so that nothing is read ahead."""

    connection: socket.socket
    rest: bytes = b""
    text: bytes = b""
    last_id: str = ""
    status: int = 0

    def begin(self) -> None:
        head = self._until(b"\r\n\r\n")
        self.status = int(head.split()[1])

    def _until(self, end: bytes) -> bytes:
        while end not in self.rest:
            piece = self.connection.recv(65_536)
            if not piece:
                raise EOFError
            self.rest += piece
        found, _, self.rest = self.rest.partition(end)
        return found

    def _chunk(self) -> bytes:
        size = int(self._until(b"\r\n"), 16)
        while len(self.rest) < size + 2:
            piece = self.connection.recv(65_536)
            if not piece:
                raise EOFError
            self.rest += piece
        chunk, self.rest = self.rest[:size], self.rest[size + 2 :]
        if not chunk:
            raise EOFError
        return chunk

    def block(self) -> dict[str, str]:
        """The next block, comments left out; raises EOFError when the stream is over."""
        while b"\n\n" not in self.text:
            self.text += self._chunk()
        block, _, self.text = self.text.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if not line.startswith(":"))
        self.last_id = fields.get("id", self.last_id)
        return fields

    def event(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and data; what says nothing is passed over."""
        while "data" not in (block := self.block()):
            pass
        return block["event"], json.loads(block["data"])

    def to_end(self) -> list[tuple[str, dict[str, Any]]]:
        """All events until the stream is over, one way or the other."""
        met = []
        try:
            while True:
                met.append(self.event())
        except (EOFError, ConnectionResetError):
            return met
