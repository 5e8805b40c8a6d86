"""Sending: sign, POST through the guard, and the loop that keeps doing it.

`Sender` makes one attempt and never raises for what a receiver does. `deliver_step` is one whole round, for tests and for
whoever wants to wait for it. `DeliveryLoop` is the running form: rounds overlap, so that an endpoint that hangs for its
fifteen seconds holds its own few places and nobody else's.

The database is spoken to from one thread, the network from one asyncio loop. Killed at any line, the loop has lost
nothing: a row it had claimed becomes due again when its lease ends, and goes out under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import aiohttp

from app.domain.errors import UnsafeKeyFile
from app.notify import claims, outbox, results, retry, signing
from app.notify.guard import REFUSED_ADDRESS
from app.notify.results import Attempt, ErrorClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from app.clock import Clock
    from app.db import Database
    from app.notify.claims import Ready, Withheld
    from app.notify.setup import WebhookSetup

T = TypeVar("T")
log: Final = logging.getLogger("verbale.notify")

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
MAX_ANSWER_BYTES: Final = 20_000
"""How much of an answer's body is read, so that the connection can be used again; none of it is kept."""

DRAIN_SECONDS: Final = 1.0
"""How long an answer's body is waited for. Its status has been read by then, and counts whatever the body does."""

CONCURRENCY: Final = 128
POLL_SECONDS: Final = 1.0
LONGEST_BACK_OFF_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 120.0
"""Without a turn that went well for so long, the loop is reported as stopped."""

LEAVE_SECONDS: Final = 5.0
"""How long a stopping loop waits for attempts in flight; what is cut off is sent again after its lease."""

USER_AGENT: Final = "Verbale-Webhook/1"


class Sender:
    """Signs and sends. Use as an async context manager, on one loop."""

    def __init__(
        self,
        setup: WebhookSetup,
        clock: Clock,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        """Connect to nothing yet."""
        self._setup, self._clock = setup, clock
        self._timeout = aiohttp.ClientTimeout(
            total=total_seconds, sock_connect=connect_seconds, connect=total_seconds
        )
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        connector = aiohttp.TCPConnector(
            socket_factory=self._setup.policy.socket,  # the guard: sees every address that is really connected to
            ssl=self._setup.tls or True,
            limit=0,  # claims set the concurrency, per endpoint and in all
            ttl_dns_cache=10,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy would connect for us, past the guard
            auto_decompress=False,  # nobody reads the answer: no bomb goes off
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json", "Accept": "*/*"},
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    def signed(self, ready: Ready, timestamp: int) -> dict[str, str]:
        """The headers that carry the signature over exactly `ready.body`. `timestamp` in unix seconds.

        Raises:
            UnsafeKeyFile: the subscription's secret does not open.
        """
        message_id, keys = ready.claimed.id, self._setup.keys
        if ready.scheme == "v1a":
            signature = signing.sign_v1a(keys.signer, message_id, timestamp, ready.body)
        else:
            secret = keys.unseal(ready.sealed or b"", ready.claimed.subscription_id)
            signature = signing.sign_v1(secret, message_id, timestamp, ready.body)
        return signing.headers(message_id, timestamp, [signature])

    async def send(self, ready: Ready) -> Attempt:
        """Make one attempt. Whatever the receiver does becomes an `Attempt`."""
        assert self._session is not None  # noqa: S101 - entered
        began = time.monotonic()
        status: int | None = None
        error: ErrorClass | None = None
        retry_after: int | None = None
        try:
            headers = self.signed(ready, self._clock() // 1000)
            async with self._session.post(
                ready.url, data=ready.body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
                retry_after = retry.parse_retry_after(answer.headers.get("Retry-After"), self._clock())
                await _drain(answer)
        except UnsafeKeyFile:
            error = "unsealable-secret"
            log.exception(
                "a webhook secret does not open",
                extra={"action": "webhook.unsealable", "subscription": ready.claimed.subscription_id},
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
            error = _class_of(failure)
        if status is not None and retry.verdict(status) != "delivered":
            error = "redirect" if 300 <= status < 400 else "status"  # noqa: PLR2004 - the class of redirects
        elapsed = round((time.monotonic() - began) * 1000)
        return Attempt(ready.claimed, self._clock(), status, error, elapsed, retry_after)


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again; leave a long, slow or broken one."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            left = MAX_ANSWER_BYTES
            while left > 0 and (piece := await answer.content.read(left)):
                left -= len(piece)
        if left > 0:
            return
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass  # the status was read, and says all that counts
    answer.close()


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


async def send_once(setup: WebhookSetup, clock: Clock, ready: Ready) -> Attempt:
    """One attempt with a connection of its own, for tests and replays that somebody waits for."""
    async with Sender(setup, clock) as sender:
        return await sender.send(ready)


async def deliver_step(
    db: Database,
    clock: Clock,
    setup: WebhookSetup,
    sender: Sender,
    *,
    limit: int = CONCURRENCY,
    fraction: Callable[[], float] = random.random,
) -> int:
    """Fan out, claim, send and record one round; return how many deliveries were dealt with."""
    outbox.fan_out_step(db, clock, setup)
    claimed = claims.claim(db, clock(), limit)
    ready, withheld = claims.prepare(db, clock(), setup, claimed)
    attempts = await asyncio.gather(*(sender.send(r) for r in ready))
    results.record(db, clock(), attempts, withheld, fraction=fraction)
    return len(claimed)


class DeliveryLoop:
    """Delivers until it is stopped: inside the server (`start`, `stop`) or as a process of its own (`run`).

    Speaks the same words as `app.loops.Loop`, so that a node can hold it among its loops.
    """

    name = "webhooks"

    def __init__(
        self,
        db: Database,
        clock: Clock,
        setup: WebhookSetup,
        *,
        concurrency: int = CONCURRENCY,
        poll_seconds: float = POLL_SECONDS,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        """Start nothing yet."""
        self._db, self._clock, self._setup = db, clock, setup
        self._concurrency, self._poll, self._fraction = concurrency, poll_seconds, fraction
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hint: asyncio.Event | None = None
        self._running: dict[asyncio.Task[Attempt], str] = {}
        self._finished: list[Attempt] = []
        self._withheld: list[Withheld] = []
        self._beat = time.monotonic()

    # ── from any thread ───────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = LEAVE_SECONDS + 5) -> None:
        """Ask the loop to end and wait for it. Attempts in flight are given a few seconds."""
        self._stop.set()
        self.wake()
        self.join(timeout_s)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of its thread."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def is_stuck(self) -> bool:
        """Whether its thread ended unasked, or no turn went well for too long."""
        ended = self._thread is not None and not self._thread.is_alive()
        return not self._stop.is_set() and (ended or time.monotonic() - self._beat > PATIENCE_SECONDS)

    def wake(self) -> None:
        """Hint that there may be something to do. Losing it costs a second: the loop polls."""
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop has just been closed: nobody is left to be woken
            return

    def run(self, stop: threading.Event | None = None) -> None:
        """Deliver in this thread until `stop` (by default: until `stop()` is called)."""
        if stop is not None:
            self._stop = stop
        asyncio.run(self._main())

    # ── inside the loop ───────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        if self._hint is not None:
            self._hint.set()

    async def _main(self) -> None:
        self._hint = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        crashes = 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhooks-db") as thread:
            async with Sender(self._setup, self._clock) as sender:
                while not self._stop.is_set():
                    try:
                        busy = await self._turn(sender, thread)
                        crashes, self._beat = 0, time.monotonic()
                        pause = 0.0 if busy else self._poll
                    except (
                        Exception
                    ):  # the loop outlives everything: what it was doing stands in the database
                        crashes += 1
                        pause = min(2.0 ** (crashes - 1), LONGEST_BACK_OFF_SECONDS)
                        log.exception(
                            "delivering webhooks failed",
                            extra={"action": "webhook.loop_failed", "crashes": crashes},
                        )
                    await self._wait(pause)
                await self._leave(thread)
        self._loop = None

    async def _wait(self, seconds: float) -> None:
        assert self._hint is not None  # noqa: S101 - set before the first turn
        if seconds > 0 and not self._stop.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._hint.wait()
            except TimeoutError:
                pass
        self._hint.clear()

    async def _turn(self, sender: Sender, thread: ThreadPoolExecutor) -> bool:
        """Record what is over, fan out, claim and start what there is room for. True: look again at once."""
        await self._record(thread)
        looked_at = await self._in(thread, outbox.fan_out_step, self._db, self._clock, self._setup)
        room = self._concurrency - len(self._running) - len(self._finished)
        if room <= 0:
            return False  # an attempt that ends wakes the loop
        busy = Counter(self._running.values())
        claimed = await self._in(thread, lambda: claims.claim(self._db, self._clock(), room, busy=busy))
        if claimed:
            ready, withheld = await self._in(
                thread, claims.prepare, self._db, self._clock(), self._setup, claimed
            )
            self._withheld.extend(withheld)
            self._begin(sender, ready)
        return bool(looked_at or claimed or self._finished or self._withheld)

    def _begin(self, sender: Sender, ready: Iterable[Ready]) -> None:
        for one in ready:
            task = asyncio.get_running_loop().create_task(sender.send(one))
            self._running[task] = one.claimed.subscription_id
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Attempt]) -> None:
        self._running.pop(task, None)
        if not task.cancelled():
            if (error := task.exception()) is not None:
                log.error(
                    "an attempt failed in this node",
                    extra={"action": "webhook.attempt_failed"},
                    exc_info=error,
                )
            else:
                self._finished.append(task.result())
        if self._hint is not None:
            self._hint.set()

    async def _record(self, thread: ThreadPoolExecutor) -> None:
        attempts, withheld = self._finished, self._withheld
        if not attempts and not withheld:
            return
        self._finished, self._withheld = [], []
        try:
            await self._in(
                thread,
                lambda: results.record(self._db, self._clock(), attempts, withheld, fraction=self._fraction),
            )
        except Exception:
            # Kept for the next turn. Were they lost, their leases would end and the deliveries be made again.
            self._finished[:0], self._withheld[:0] = attempts, withheld
            raise

    async def _leave(self, thread: ThreadPoolExecutor) -> None:
        if self._running:
            await asyncio.wait(list(self._running), timeout=LEAVE_SECONDS)
        for task in list(self._running):
            task.cancel()
        try:
            await self._record(thread)
        except Exception:
            log.exception(
                "results of the last webhooks were not recorded", extra={"action": "webhook.loop_failed"}
            )

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - passed on
        return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)
