"""A receiver for `verbale bench webhooks`: as little HTTP as there is, in a process of its own, on loopback.

    python -m app.bench.receiver          prints its port, then answers commands on standard input, one line each

`reset` forgets what came; `wait N SECONDS` answers when N requests came; `report` gives the time of each arrival by path
and event. Paths that begin with /dead are read and never answered.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Final, cast

import uvloop

ANSWER: Final = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EVENT: Final = re.compile(rb'"index":(\d+)')


class State:
    """What came."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.arrivals: list[tuple[str, int, float]] = []  # path, event, unix seconds
        self.alive = 0
        self.wanted = 0
        self.enough = asyncio.Event()

    def reset(self) -> None:
        """Forget."""
        self.arrivals, self.alive, self.wanted = [], 0, 0
        self.enough.clear()

    def came(self, path: str, event: int) -> None:
        """Note an arrival that is answered."""
        self.arrivals.append((path, event, time.time()))
        self.alive += 1
        if self.wanted and self.alive >= self.wanted:
            self.enough.set()


class Receiver(asyncio.Protocol):
    """One connection."""

    def __init__(self, state: State) -> None:
        """Nothing was read yet."""
        self._state, self._held = state, b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it to answer on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that is there."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._held) < whole:
                return
            path = self._held[: self._held.find(b" ", 5)].partition(b" ")[2].decode("latin-1")
            event = _EVENT.search(self._held, end, whole)
            self._held = self._held[whole:]
            if path.startswith("/dead"):
                continue
            self._state.came(path, int(event[1]) if event else -1)
            self._transport.write(ANSWER)


async def main() -> None:
    """Serve until standard input ends."""
    loop, state = asyncio.get_running_loop(), State()
    server = await loop.create_server(lambda: Receiver(state), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = line.split()
        if command == "reset":
            state.reset()
            print("done", flush=True)
        elif command == "wait":
            state.wanted = int(arguments[0])
            if state.alive >= state.wanted:
                state.enough.set()
            try:
                async with asyncio.timeout(float(arguments[1])):
                    await state.enough.wait()
            except TimeoutError:
                pass
            print(state.alive, flush=True)
        elif command == "report":
            print(json.dumps(state.arrivals), flush=True)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
