"""The outermost layer of the HTTP server: what every request passes before and after any route.

Guarantees a request id on every answer, limits on header, body and time, a measured duration, and that an error nobody
foresaw becomes a problem document. `HttpProtocol` refuses in the same form what never becomes a request: a header without
end, a caller who says nothing, bytes that are not HTTP.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import problems
from app.domain.errors import MalformedRequest
from app.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES, HeadersTooLarge, Inflow, TooSlow, check_headers
from app.observability import RequestMetrics, begin_request, end_request, log

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.domain.errors import VerbaleError

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

STREAMED: Final = frozenset({"/v1/notices/batch", "/v1/screenings/batch"})
"""Paths whose routes read their body as it comes and limit it themselves."""

ABORT: Final = "verbale.abort"
"""In the scope of a request: breaks its connection at once. Closing it would wait for a caller who takes nothing."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 2**20
"""How long, and how much, a refused caller may still send before the connection is closed under it."""

HEADER_SECONDS: Final = 20.0
"""How long a header may take to arrive, and how long a new connection may say nothing."""


class Edge:
    """Outermost ASGI middleware. `X-Request-Id` of an answer is the id in its problem document and in the log."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: RequestMetrics,
        base_url: str,
        *,
        max_header_bytes: int = MAX_HEADER_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Wrap `app`; `base_url` is the node's public address, for problem types."""
        self._app, self._metrics, self._base_url = app, metrics, base_url.rstrip("/")
        self._max_header_bytes, self._max_body_bytes = max_header_bytes, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope; all but HTTP pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        this, token = begin_request()
        began = time.perf_counter()
        status = 0
        inflow = Inflow(scope, receive, 2**62 if scope["path"] in STREAMED else self._max_body_bytes)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    await inflow.drain()
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", this.encode())]
            await send(message)

        try:
            check_headers(scope, self._max_header_bytes)
            await self._app(scope, inflow, sending)
        except HeadersTooLarge as refusal:
            await problems.response(refusal, self._base_url)(scope, inflow, sending)
        except Exception:
            log.exception("a request met an error nobody foresaw", extra={"action": "http.crash"})
            if status:
                raise  # the answer has begun: only breaking the connection tells the caller that it is not whole
            await problems.internal(self._base_url)(scope, inflow, sending)
        finally:
            self._measure(scope, status, time.perf_counter() - began)
            end_request(token)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        # Only routes we know become labels: a scanner must not be able to make a new time series with every address.
        route = getattr(scope.get("route"), "path", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.seconds.labels(method, route).observe(seconds)
        self._metrics.answers.labels(method, route, f"{status // 100}xx").inc()
        if route.startswith("/health") or route == "/metrics":
            return
        extra = {
            "action": "http.request",
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        log.info("request", extra=extra)


def install(app: FastAPI, base_url: str, **limits: int) -> None:
    """Put `Edge` around `app` and its metrics at `app.state.metrics`. Call after every other `add_middleware`."""
    app.state.metrics = RequestMetrics()
    app.add_middleware(Edge, metrics=app.state.metrics, base_url=base_url, **limits)


def protocol_for(max_header_bytes: int) -> type[HttpProtocol]:
    """The protocol for a node with this limit, to be given to uvicorn as `http`."""
    return type("HttpProtocol", (HttpProtocol,), {"max_header_bytes": 2 * max_header_bytes})


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's fast HTTP/1.1 protocol, with the limits that it lacks before a request reaches the application.

    httptools keeps a header of any size and waits for one for ever. Here it is refused once it is larger than the
    application's own limit, which refuses what is just above it with the request's id.
    """

    header_seconds = HEADER_SECONDS
    max_header_bytes = 2 * MAX_HEADER_BYTES

    _turns = 0  # how often a header or a body has ended
    _header_bytes = 0
    _in_header = True
    _deadline: asyncio.TimerHandle | None = None
    _refused = False
    _lingered = 0  # bytes that came after a refusal

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a first request."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it to a Transport
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; refuse a header that has too many before it is complete."""
        if self._refused:
            # Not closed at once: what is still on its way would then be answered by a reset, which can overtake the
            # refusal, and the caller would never read why.
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.close()
            return
        if self._in_header and self._deadline is None:
            self._expect_header()  # a kept connection that was idle: uvicorn timed that, the new header is ours
        turns = self._turns
        super().data_received(data)
        if (
            self._in_header and turns == self._turns
        ):  # otherwise most of the data was a request or body that is over
            self._header_bytes += len(data)
            if self._header_bytes > self.max_header_bytes:
                self._refuse(
                    HeadersTooLarge(f"The request's header has more than {self.max_header_bytes} bytes.")
                )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field; trailers behind a body come here too."""
        if not self._in_header:
            return  # trailers: nothing here reads them, and their number has no limit
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request begins; its body is the application's to limit."""
        self._turns += 1
        self._in_header = False
        self._header_bytes = 0
        self._stop_waiting()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]  # a scope may hold more
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is over; the next bytes are a header again."""
        super().on_message_complete()
        self._turns += 1
        self._in_header = True

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, in the form of every other refusal."""
        del msg
        self._refuse(MalformedRequest("This is not an HTTP/1.1 request."), HTTPStatus.BAD_REQUEST)

    def _expect_header(self) -> None:
        self._deadline = self.loop.call_later(
            self.header_seconds, self._refuse, TooSlow("No request came in time.")
        )

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, refusal: VerbaleError, status: int | None = None) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._stop_waiting()
        base_url = f"{self.scheme}://{self.server[0]}:{self.server[1]}" if self.server else ""
        body, answered = problems.encode(refusal, base_url, status)
        head = f"HTTP/1.1 {answered} {HTTPStatus(answered).phrase}\r\ncontent-type: {problems.MEDIA_TYPE}\r\n"
        self.transport.write(
            f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
        )
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)
