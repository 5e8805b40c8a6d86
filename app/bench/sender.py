"""The sending side of `verbale bench webhooks`, a process of its own: the node's delivery loop, or a bare HTTP client.

    python -m app.bench.sender deliver DATABASE_URL KEYS_DIR     the loop, as a node runs it
    python -m app.bench.sender bare URLS IN_FLIGHT COUNT BODY    the same POSTs on the same event loop, with nothing behind them

`deliver` prints `ready`, waits for a line `go`, and takes `pace RATE SECONDS` lines meanwhile: it then commits events itself
and wakes the loop, as the node's sequencer does. It ends when standard input ends, with its CPU seconds and memory.
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
from app.notify import signing
from app.notify.deliver import DeliveryLoop
from app.notify.guard import UrlPolicy
from app.notify.keys import WebhookKeys
from app.notify.setup import WebhookSetup

if TYPE_CHECKING:
    from collections.abc import Callable

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


async def bare(urls: list[str], in_flight: int, count: int, body: bytes) -> float:
    """POST `count` times, `in_flight` at once; returns the seconds it took."""
    headers = signing.headers("0190-0000", 0, ["v1," + "A" * 43 + "="])
    connector = aiohttp.TCPConnector(limit=0)
    left = count

    async def one(session: aiohttp.ClientSession, url: str) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()

    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"Content-Type": "application/json"}
    ) as session:
        began = time.monotonic()
        await asyncio.gather(*(one(session, urls[n % len(urls)]) for n in range(in_flight)))
        return time.monotonic() - began


def main() -> None:
    """Read the command line."""
    kind, *arguments = sys.argv[1:]
    if kind == "deliver":
        deliver(*arguments)
        return
    urls, in_flight, count, body = arguments
    before = time.process_time()  # imports are not what is measured
    took = uvloop.run(bare(urls.split(","), int(in_flight), int(count), body.encode()))
    print(json.dumps({"seconds": took, "cpu_s": time.process_time() - before}), flush=True)


if __name__ == "__main__":
    main()
