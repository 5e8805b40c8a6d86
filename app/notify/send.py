"""One attempt at a delivery: sign, POST through the guard, and say what became of it.

`Sender` never raises for what a receiver does. It is apart from the loop that keeps sending, as the HTTP client takes seven
megabytes: a node does without until something is to be sent.
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from app.domain.errors import UnsafeKeyFile
from app.notify import retry, signing, wire
from app.notify.endpoint import Opener
from app.notify.guard import REFUSED_ADDRESS
from app.notify.results import Attempt, ErrorClass, Exchange

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.abc import AbstractResolver

    from app.clock import Clock
    from app.notify.claims import Ready
    from app.notify.endpoint import Endpoint
    from app.notify.setup import WebhookSetup

log: Final = logging.getLogger("verbale.notify")

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
MAX_HEAD: Final = 1_000
MAX_EXCERPT: Final = 2_000
"""Characters of an answer that the delivery log keeps: of its header, and of the body of a refusal."""

_SILENT: Final = frozenset({b"set-cookie", b"www-authenticate", b"authorization"})
"""Headers of an answer that are not kept: they may hold a secret of the receiver."""

USER_AGENT: Final = "Verbale-Webhook/1"
MOST_PREPARED: Final = 1_024
"""Endpoints whose requests are kept half made; with more than that all are made anew."""


class Sender:
    """Signs and sends. Use as an async context manager, on one loop."""

    def __init__(
        self,
        setup: WebhookSetup,
        clock: Clock,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Connect to nothing yet. `resolver` looks names up; by default the system does."""
        self._setup, self._clock, self._resolver = setup, clock, resolver
        self._opener = Opener(setup.keys)
        self._timeout = aiohttp.ClientTimeout(
            total=total_seconds, sock_connect=connect_seconds, connect=total_seconds
        )
        self.total_seconds = total_seconds
        self._connector: aiohttp.TCPConnector | None = None
        self._prepared: dict[Endpoint, wire.Prepared] = {}

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._connector = aiohttp.TCPConnector(
            socket_factory=self._setup.policy.socket,  # the guard: sees every address that is really connected to
            ssl=self._setup.tls or True,
            limit=0,  # claims set the concurrency, per endpoint and in all
            ttl_dns_cache=10,
            resolver=self._resolver,
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close the connection pool."""
        if self._connector is not None:
            await self._connector.close()

    async def send(self, ready: Ready, *, forged: bool = False) -> Attempt:
        """Make one attempt. Whatever the receiver does becomes an `Attempt`.

        Args:
            forged: with signatures of nobody, to see that the endpoint refuses them.
        """
        assert self._connector is not None  # noqa: S101 - entered
        began = time.monotonic()
        endpoint, body = ready.endpoint, ready.body
        status: int | None = None
        error: ErrorClass | None = None
        retry_after: int | None = None
        head = excerpt = None
        timestamp = self._clock() // 1000
        signatures: list[str] = []
        try:
            signatures = self._opener.signatures(endpoint, ready.claimed.id, timestamp, body)
            if forged:
                signatures = [signing.forged(one) for one in signatures]
            headers = signing.headers(ready.claimed.id, timestamp, signatures)
            answer = await wire.post(self._connector, self._timeout, self._prepare(endpoint), headers, body)
            status = answer.status
            head = _head(answer)
            if (asked := answer.headers.get("Retry-After")) is not None:
                retry_after = retry.parse_retry_after(asked, self._clock())
            if answer.beginning and retry.verdict(status) != "delivered":
                excerpt = answer.beginning[:MAX_EXCERPT].decode("utf-8", "replace").replace("\0", "\ufffd")
        except UnsafeKeyFile:
            error = "unsealable-secret"
            log.exception(
                "a webhook secret does not open",
                extra={"action": "webhook.unsealable", "subscription": endpoint.subscription_id},
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
            error = _class_of(failure)
        if status is not None and retry.verdict(status) != "delivered":
            error = "redirect" if 300 <= status < 400 else "status"  # noqa: PLR2004 - the class of redirects
        elapsed = round((time.monotonic() - began) * 1000)
        exchange = Exchange(endpoint.url, timestamp, len(signatures), len(body), head, excerpt)
        return Attempt(
            ready.claimed, self._clock(), status, error, elapsed, retry_after, ready.recalled, exchange
        )

    def _prepare(self, endpoint: Endpoint) -> wire.Prepared:
        """What all deliveries to an endpoint share. A subscription that is changed is another endpoint here.

        Raises:
            UnsafeKeyFile: its headers or its certificate do not open.
            ValueError: its address cannot be called.
        """
        prepared = self._prepared.get(endpoint)
        if prepared is None:
            if len(self._prepared) >= MOST_PREPARED:
                self._prepared.clear()
            headers = {"User-Agent": USER_AGENT, "Content-Type": "application/json", "Accept": "*/*"}
            headers |= self._opener.headers(endpoint)
            prepared = wire.prepare(endpoint.url, headers, self._opener.tls(endpoint))
            self._prepared[endpoint] = prepared
        return prepared


def _head(answer: wire.Answer) -> str:
    """The answer's header as it came, cut, without what may be a secret of the receiver."""
    lines = [name + b": " + value for name, value in answer.raw_headers if name.lower() not in _SILENT]
    return b"\n".join(lines)[:MAX_HEAD].decode("latin-1").replace("\0", "\ufffd")


def _class_of(failure: Exception) -> ErrorClass:
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(failure, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "tls"
    if isinstance(failure, TimeoutError):
        return "timeout"
    if REFUSED_ADDRESS in str(failure):
        return "address-refused"
    if isinstance(failure, aiohttp.ClientConnectorError):
        return "connect"
    if isinstance(failure, (aiohttp.InvalidURL, ValueError)):
        return "invalid-url"
    if isinstance(failure, (aiohttp.ClientConnectionError, OSError)):
        return "disconnected"
    return "invalid-response"
