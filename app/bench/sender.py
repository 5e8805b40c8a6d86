"""The sending side of `verbale bench webhooks`, a process of its own: the node's delivery loop, or a bare HTTP client.

    python -m app.bench.sender deliver DATABASE_URL KEYS_DIR     the loop, as a node runs it
    python -m app.bench.sender bare URLS IN_FLIGHT COUNT BODY    the same POSTs on the same event loop, by aiohttp's session
    python -m app.bench.sender wire URLS IN_FLIGHT COUNT BODY    and by the node's own `wire.post`, with nothing behind them

`deliver` prints `ready`, waits for a line `go`, and takes `pace RATE SECONDS` lines meanwhile: it then commits events itself
and wakes the loop, as the node's sequencer does. `mark` starts its count of CPU seconds anew. It ends when standard input ends, with its CPU seconds and memory.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import uvloop

from app.bench import outbox_rows
from app.clock import system_clock
from app.db import Database
from app.notify import signing, wire
from app.notify.deliver import DeliveryLoop
from app.notify.guard import UrlPolicy
from app.notify.keys import WebhookKeys
from app.notify.send import TOTAL_SECONDS
from app.notify.setup import WebhookSetup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TICK_S: Final = 0.01
LOOPBACK: Final = ("127.0.0.0/8",)


def setup_of(keys: Path) -> WebhookSetup:
    """A node that may send to this machine."""
    return WebhookSetup(
        "EE", "https://ee.verbale.example", UrlPolicy.of(LOOPBACK, http=True), WebhookKeys.open(keys, "EE")
    )


def deliver(database_url: str, keys: str) -> None:
    """Run the loop as told on standard input."""
    database = Database(database_url)
    loop = DeliveryLoop(database, system_clock, setup_of(Path(keys)))
    before = time.process_time()
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "go":
            loop.start()
            print("done", flush=True)
        elif command == "mark":
            before = time.process_time()
            print("done", flush=True)
        elif command == "pace":
            print(json.dumps(pace(database, float(arguments[0]), float(arguments[1]), loop.wake)), flush=True)
    loop.stop()
    database.dispose()
    print(json.dumps({"cpu_s": time.process_time() - before, "memory_mb": _peak_mb()}), flush=True)


def _peak_mb() -> float:
    """The most memory that this process has held.

    Not `ru_maxrss` where there is better: Linux counts in it what the process held that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pace(database: Database, rate: float, seconds: float, wake: Callable[[], None]) -> dict[int, float]:
    """Commit events at `rate` a second for so long; returns when each was durable (unix seconds), by its index.

    Args:
        wake: called after each commit, as the node's sequencer does.
    """
    committed: dict[int, float] = {}
    began, made = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate) + 1 - made
        if due > 0:
            first = outbox_rows.add_events(database, due)
            now = time.time()
            wake()
            committed |= dict.fromkeys(range(first, first + due), now)
            made += due
        time.sleep(max(TICK_S / 2, min(1 / rate, TICK_S)))
    return committed


async def bare(urls: list[str], in_flight: int, count: int, body: bytes) -> tuple[float, float]:
    """POST `count` times, `in_flight` at once; returns the seconds that it took, and those of CPU."""
    headers = signing.headers("0190-0000", 0, ["v1," + "A" * 43 + "="])
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json"},
    ) as session:

        async def post(url: str) -> None:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()

        return await _timed(post, urls, in_flight, count)


async def own(urls: list[str], in_flight: int, count: int, body: bytes) -> tuple[float, float]:
    """The same through the node's own way to POST."""
    headers = signing.headers("0190-0000", 0, ["v1," + "A" * 43 + "="])
    prepared = {url: wire.prepare(url, {"Content-Type": "application/json"}, None) for url in urls}
    limits = aiohttp.ClientTimeout(total=TOTAL_SECONDS)
    async with aiohttp.TCPConnector(limit=0) as connector:

        async def post(url: str) -> None:
            await wire.post(connector, limits, prepared[url], headers, body)

        return await _timed(post, urls, in_flight, count)


async def _timed(
    post: Callable[[str], Awaitable[None]], urls: list[str], in_flight: int, count: int
) -> tuple[float, float]:
    """Connections are open and everything has run once before it counts, as it is for the fan-out."""
    left = count

    async def one(url: str) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await post(url)

    places = [urls[n % len(urls)] for n in range(in_flight)]
    await asyncio.gather(*(post(url) for url in places))
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(one(url) for url in places))
    return time.monotonic() - began, time.process_time() - cpu


def main() -> None:
    """Read the command line."""
    kind, *arguments = sys.argv[1:]
    if kind == "deliver":
        deliver(*arguments)
        return
    urls, in_flight, count, body = arguments
    client = bare if kind == "bare" else own
    took, cpu_s = uvloop.run(client(urls.split(","), int(in_flight), int(count), body.encode()))
    print(json.dumps({"seconds": took, "cpu_s": cpu_s}), flush=True)


if __name__ == "__main__":
    main()
