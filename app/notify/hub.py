"""Waiting for events, and one look shared by all who see alike: what the feed's routes and streams stand on.

One task polls the newest number while anybody waits, and is hinted by this process's own commits. Those who wake up and
see alike, ask alike and stand at the same place share one look at the database; the gate is part of what "alike" means
(`feed.View`). A look is shared for a second at most, and only up to the event it was made for.

Guarantees that a token that is revoked, expires or loses its scope is noticed within a poll, whoever waits under it; that
memory is bounded, since everybody pulls: who reads slowly holds one page; and that one caller cannot take all places.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.domain.errors import NotAuthenticated, Refused
from app.models import ApiTokenRow
from app.notify import feed
from app.notify.feed import Position, Span, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.clock import Clock
    from app.db import Database
    from app.gate import Principal
    from app.notify.setup import WebhookSetup

log: Final = logging.getLogger("verbale.notify")


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds.

    Attributes:
        poll: how late an event of another process is noticed; one of this process is hinted.
        heartbeat: between two signs of life on a stream: proxies keep the connection, and either end notices when the other
            is gone.
        send: a consumer that takes nothing for so long is cut off. It comes back with its cursor, and has lost nothing.
        life: how long a stream may last; a token is looked at all the time, a peer's standing when it asks again.
        peer_life: the same of a peer.
    """

    poll: float = 0.5
    heartbeat: float = 15.0
    send: float = 60.0
    life: float = 3_600.0
    peer_life: float = 300.0


REST_SECONDS: Final = 0.02
"""Between two polls, however many hints come: a flood of commits costs fifty small reads a second."""

SHARED_SECONDS: Final = 1.0
SHARED_LOOKS: Final = 64

OLDEST: Final = "oldest"
NEWEST: Final = "newest"

MOST_WAITING: Final = 1_000
"""Streams and long polls of one process. Each holds a connection and one page."""
MOST_OF_ONE: Final = 50
"""Of one token, of one peer, or of all who send no token."""


class TooManyStreams(Refused):
    """The caller, or all callers together, wait on as many connections as this node lets them."""

    code = "too-many-streams"


class Closing(Exception):
    """The process is going to end; streams end first, and their consumers come back with their cursors."""


@dataclass(slots=True)
class Seat:
    """One who waits. `principal` is kept as the token stands now; None: it no longer holds."""

    principal: Principal | None

    def now(self) -> Principal:
        """The caller as it may read now.

        Raises:
            NotAuthenticated: the token was revoked, has expired or lost its scope.
        """
        if self.principal is None:
            raise NotAuthenticated("The token was revoked, has expired, or lost the scope 'read'.")
        return self.principal


class FeedHub:
    """See the module. All but `hint` is called on the event loop."""

    def __init__(
        self, db: Database, clock: Clock, setup: WebhookSetup, *, patience: Patience | None = None
    ) -> None:
        """Poll nothing until somebody waits."""
        self.setup = setup
        self.patience = patience or Patience()
        self._db, self._clock, self._poll_seconds = db, clock, self.patience.poll
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hinted = asyncio.Event()
        self._changed = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._seats: dict[int, Seat] = {}
        self._of_one: Counter[str | None] = Counter()
        self._newest = 0
        self._closing = False
        self._looks: OrderedDict[object, tuple[float, asyncio.Task[Span]]] = OrderedDict()
        self.looked = 0

    # ── from any thread ───────────────────────────────────────────────────────────────────────────────────────────

    def hint(self) -> None:
        """There may be new events. Losing it costs a poll."""
        if (loop := self._loop) is not None:
            try:
                loop.call_soon_threadsafe(self._hinted.set)
            except RuntimeError:  # the loop has just been closed: nobody waits any more
                return

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def seat(self, principal: Principal) -> Iterator[Seat]:
        """A place among those who wait.

        Raises:
            TooManyStreams: there is none, for this caller or at all.
        """
        if len(self._seats) >= MOST_WAITING or self._of_one[principal.id] >= MOST_OF_ONE:
            raise TooManyStreams(
                f"One caller may wait on {MOST_OF_ONE} connections, all together on {MOST_WAITING}. Close some, or ask later."
            )
        seat = Seat(principal)
        self._seats[id(seat)] = seat
        self._of_one[principal.id] += 1
        try:
            yield seat
        finally:
            del self._seats[id(seat)]
            self._of_one[principal.id] -= 1
            if not self._of_one[principal.id]:
                del self._of_one[principal.id]

    @property
    def waiting(self) -> int:
        """How many wait, for the metrics."""
        return len(self._seats)

    def close(self) -> None:
        """Let all who wait go: the process ends."""
        self._closing = True
        self._tell()

    async def beyond(self, seq: int, seconds: float) -> int | None:
        """The newest event as soon as it is beyond `seq`; None when that took too long. A seat must be held.

        Raises:
            Closing: the process ends.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._newest <= seq and not self._closing:
                    self._poll()
                    await self._changed.wait()
        except TimeoutError:
            return None
        if self._closing:
            raise Closing
        return self._newest

    async def changed(self, seconds: float) -> None:
        """Wait until something has changed, or so long."""
        self._poll()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _poll(self) -> None:
        if self._polling is None or self._polling.done():
            self._loop = asyncio.get_running_loop()
            self._polling = self._loop.create_task(self._poll_while_awaited())

    async def _poll_while_awaited(self) -> None:
        failures = 0
        while self._seats and not self._closing:
            self._hinted.clear()
            callers = [seat.principal for seat in self._seats.values()]
            tokens = {caller.id for caller in callers if caller is not None and caller.kind == "token"}
            try:
                newest, holding = await run_in_threadpool(self._read, tokens)
                failures = 0
            except Exception:  # the database is away for a while: whoever waits goes on waiting
                failures += 1
                log.exception(
                    "looking for new events failed",
                    extra={"action": "feed.poll_failed", "failures": failures},
                )
                await asyncio.sleep(min(self._poll_seconds * 2**failures, 10.0))
                continue
            if self._renew(tokens, holding) or newest != self._newest:
                self._newest = newest
                self._tell()
            await asyncio.sleep(REST_SECONDS)
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._hinted.wait()
            except TimeoutError:
                pass

    def _read(self, tokens: set[str | None]) -> tuple[int, dict[str, tuple[int, frozenset[str]]]]:
        now = self._clock()
        with self._db.read() as session:
            newest = feed.newest_seq(session)
            rows = session.execute(
                select(ApiTokenRow.id, ApiTokenRow.ceiling, ApiTokenRow.scopes).where(
                    ApiTokenRow.id.in_(tokens), ApiTokenRow.revoked_at.is_(None), ApiTokenRow.expires_at > now
                )
            )
            holding = {id_: (ceiling, frozenset(scopes.split())) for id_, ceiling, scopes in rows}
        return newest, {id_: held for id_, held in holding.items() if "read" in held[1]}

    def _renew(self, asked: set[str | None], holding: dict[str, tuple[int, frozenset[str]]]) -> bool:
        """Bring every seat whose token was asked about to what that may do now; whether any changed."""
        changed = False
        for seat in self._seats.values():
            was = seat.principal
            if was is None or was.kind != "token" or was.id is None or was.id not in asked:
                continue
            held = holding.get(was.id)
            if held is None:
                seat.principal = None
            elif held != (was.ceiling, was.scopes):
                seat.principal = replace(was, ceiling=held[0], scopes=held[1])
            changed |= seat.principal is not was
        return changed

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def span(
        self, principal: Principal, view: View, after: Position, newest: int, *, limit: int
    ) -> Span:
        """The events after a place for one caller: what all see who see alike, and its own private ones.

        Args:
            view: made by `View.shared` of this caller.
            newest: as `beyond` gave it.

        Raises:
            ResyncNeeded: see `feed.look`.
        """
        shared = await self._look(view, after, newest, limit)
        if not shared.private or principal.kind != "token" or principal.id is None:
            return shared
        return feed.merged(
            shared, await self._look(view.private(principal.id), after, shared.upto.seq, limit)
        )

    async def _look(self, view: View, after: Position, upto: int, limit: int) -> Span:
        key = (view, after, upto, limit)
        at = time.monotonic()
        while self._looks and next(iter(self._looks.values()))[0] < at - SHARED_SECONDS:
            self._looks.popitem(last=False)
        if key not in self._looks:
            self._looks[key] = at, asyncio.ensure_future(self._looked(view, after, upto, limit))
            while len(self._looks) > SHARED_LOOKS:
                self._looks.popitem(last=False)
        return await asyncio.shield(self._looks[key][1])  # one who goes away must not end it for the others

    async def _looked(self, view: View, after: Position, upto: int, limit: int) -> Span:
        self.looked += 1

        def look() -> Span:
            with self._db.read() as session:
                return feed.look(session, self.setup, view, after, upto, limit=limit, now=self._clock())

        return await run_in_threadpool(look)

    async def begin(self, cursor: str | None) -> tuple[Position, int]:
        """Where a reader begins, and the newest event.

        Args:
            cursor: of this feed; `oldest`, which None means too, or `newest`.

        Raises:
            InvalidCursor, ResyncNeeded: see `feed.read_cursor`, `feed.check`.
        """

        def read() -> tuple[Position, int]:
            with self._db.read() as session:
                newest = feed.newest_seq(session)
                if cursor in (None, OLDEST):
                    return feed.oldest(session), newest
                if cursor == NEWEST:
                    return feed.position_at(session, newest), newest
                position = feed.read_cursor(self.setup, cursor or "")
                feed.check(session, position)
                return position, newest

        return await run_in_threadpool(read)
