"""The outermost layer of the HTTP server: what every request passes before and after any route.

Guarantees a request id on every answer, a header limit, a measured time, and that an error nobody foresaw becomes a problem
document. `HttpProtocol` does the same for requests too malformed or too slow to reach the application at all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from app import problems
from app.limits import MAX_HEADER_BYTES, HeadersTooLarge, header_bytes
from app.observability import RequestMetrics, begin_request, end_request, log

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """Outermost ASGI middleware: request id, header limit, time measured, nothing unforeseen gets out.

    Add it as the first (outermost) middleware. It sets `X-Request-Id`, the id that problem documents and log lines carry.
    """

    def __init__(
        self, app: ASGIApp, metrics: RequestMetrics, base_url: str, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        """Wrap `app`; `base_url` is the node's public address, for problem types."""
        self._app, self._metrics, self._base_url = app, metrics, base_url.rstrip("/")
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope; all but HTTP pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        this, token = begin_request()
        began = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", this.encode())]
            await send(message)

        try:
            await self._serve(scope, receive, sending)
        except Exception:
            log.exception("a request met an error nobody foresaw", extra={"action": "http.crash"})
            if status:
                raise  # the answer has begun: only breaking the connection tells the caller that it is not whole
            await problems.internal(self._base_url)(scope, receive, sending)
        finally:
            self._measure(scope, status, time.perf_counter() - began)
            end_request(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if header_bytes(scope) > self._max_header_bytes:
            error = HeadersTooLarge(
                f"The request's header has more than {self._max_header_bytes} bytes. Leave out what is not needed."
            )
            await problems.response(error, self._base_url)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        # Only routes we know become labels: a scanner must not be able to make a new time series with every address.
        route = getattr(scope.get("route"), "path", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.seconds.labels(method, route).observe(seconds)
        self._metrics.answers.labels(method, route, f"{status // 100}xx").inc()
        if route.startswith("/health") or route == "/metrics":
            return
        log.info(
            "request",
            extra={
                "action": "http.request",
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
            },
        )


def install(app: FastAPI, base_url: str, *, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
    """Put `Edge` around `app` and its metrics at `app.state.metrics`. Call after every other `add_middleware`."""
    app.state.metrics = RequestMetrics()
    app.add_middleware(Edge, metrics=app.state.metrics, base_url=base_url, max_header_bytes=max_header_bytes)
