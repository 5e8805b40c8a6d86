"""The loop that keeps sending.

`deliver_step` is one whole round, for tests and for whoever wants to wait for it. `DeliveryLoop` is the running form: each
endpoint has a queue of its own and its own few places, so one that hangs for its fifteen seconds holds these and nobody
else's; a place that falls free is taken by the endpoint's next delivery at once, and the database is asked in batches
meanwhile.

The database is spoken to from one thread, and from a second that writes results while the first looks for more; the network
from one asyncio loop. Killed at any line, the loop has lost
nothing: a row it had claimed becomes due again when its lease ends, and goes out under the same `webhook-id`. Leases are
short; a running loop renews those of its attempts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import uvloop

from app.notify import claims, outbox, results
from app.notify.claims import Busy
from app.notify.results import Unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.clock import Clock
    from app.db import Database
    from app.notify.claims import Claimed, Ready, Withheld
    from app.notify.results import Attempt
    from app.notify.send import Sender
    from app.notify.setup import WebhookSetup

T = TypeVar("T")
log: Final = logging.getLogger("verbale.notify")

CONCURRENCY: Final = 128
AHEAD_IN_ALL: Final = 8_000
"""Deliveries that a worker holds in memory, however many wait."""

AHEAD_BYTES: Final = 32 * 2**20
"""So much of bodies, about: full ones are up to 64 KiB."""

AHEAD_SECONDS: Final = 0.5
"""For so long an endpoint's queue is to last, at the pace at which it takes deliveries: longer than a look at the database."""

PACE_SECONDS: Final = 0.02
"""An endpoint's pace is measured over no less."""

RESTING_PACE: Final = 1.0
"""Deliveries a second below which an endpoint that has none is forgotten."""

POLL_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.02
"""Between two looks at the database: a first event is seen at once, and whoever comes second waits for company."""

WATCH_SECONDS: Final = 0.05
"""Between two looks at the number of the newest event, where the database has no mark: a commit of this process is hinted, one of
another is seen so. It is one small read; a notification by the database would cost every commit more than that costs a second."""

GLANCE_SECONDS: Final = 0.01
"""Between two glances at SQLite's count of commits, which shows one of another process without a read: some microseconds each."""

QUIET_SECONDS: Final = 0.25
"""Between two glances while nobody subscribes: all there is to be noticed then is that somebody of another process does."""

RECORD_SECONDS: Final = 0.1
"""Within which an attempt's result is written. Under load a look is made when some endpoint has half of its queue left, which
makes large batches: a look costs some milliseconds however much it finds."""

RESOLVER_THREADS: Final = 64
"""Names are looked up in threads. Names of dead servers take long, and must not keep others from being looked up."""

LONGEST_BACK_OFF_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 120.0
"""Without a turn that went well for so long, the loop is reported as stopped."""

LEAVE_SECONDS: Final = 5.0
"""How long a stopping loop waits for attempts in flight; what is cut off is sent again after its lease."""


def make_sender(setup: WebhookSetup, clock: Clock) -> Sender:
    """What makes attempts, to be entered."""
    from app.notify.send import Sender  # noqa: PLC0415 - see there: only when something is to be sent

    return Sender(setup, clock)


async def send_once(setup: WebhookSetup, clock: Clock, ready: Ready) -> Attempt:
    """One attempt with a connection of its own, for tests and replays that somebody waits for."""
    async with make_sender(setup, clock) as sender:
        return await sender.send(ready)


async def prove(setup: WebhookSetup, clock: Clock, ready: Ready) -> tuple[Attempt, Attempt]:
    """A delivery with a forged signature, then one that is genuine: an endpoint that is whose it should be tells them apart."""
    async with make_sender(setup, clock) as sender:
        return await sender.send(ready, forged=True), await sender.send(ready)


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
    claimed = claims.claim(db, clock(), limit, require_proof=setup.require_proof)
    ready, withheld = claims.prepare(db, clock(), setup, claimed)
    attempts = await asyncio.gather(*(sender.send(r) for r in ready))
    results.record(db, clock(), attempts, withheld, setup=setup, fraction=fraction)
    return len(claimed)


class Lane:
    """One endpoint in a worker: what waits for a place, what is under way, how quick it is.

    Attributes:
        low: with no more than so many waiting it is time for the next look.
        quick: how many it finished since it last got some.
        pace: deliveries a second that it has taken of late. A queue that ran dry says little of it, so it falls slowly.
        stopped: an attempt failed; nothing more until the database was asked again.
    """

    __slots__ = ("done", "low", "most", "pace", "quick", "running", "since", "stopped", "waiting")

    def __init__(self, now: float) -> None:
        """`now`: seconds from any beginning."""
        self.waiting: deque[Ready] = deque()
        self.low = 0
        self.running = 0
        self.most = 1
        self.quick = self.done = 0
        self.pace, self.since = 0.0, now
        self.stopped = False

    def finished(self) -> None:
        """A delivery arrived."""
        self.quick += 1
        self.done += 1

    def ahead(self, now: float) -> int:
        """How many may wait for a place: what it takes in a moment, and at first twice what it has just taken."""
        if (took := now - self.since) >= PACE_SECONDS:
            measured = self.done / took
            self.pace = max(measured, (self.pace + measured) / 2)
            self.done, self.since = 0, now
        return max(2 * self.quick, int(self.pace * AHEAD_SECONDS))


def held_at_most(body_bytes: int) -> int:
    """How many deliveries a worker holds in memory whose bodies have so many bytes on the average."""
    return min(AHEAD_IN_ALL, AHEAD_BYTES // body_bytes)


class _Over(NamedTuple):
    """What became of deliveries, to be recorded."""

    attempts: list[Attempt]
    withheld: list[Withheld]
    unsent: list[Unsent]


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
        watch_seconds: float = WATCH_SECONDS,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        """Start nothing yet."""
        self._db, self._clock, self._setup = db, clock, setup
        self._concurrency, self._fraction = concurrency, fraction
        self._poll, self._watch = poll_seconds, watch_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hint: asyncio.Event | None = None
        self._sender: Sender | None = None
        self._opened = AsyncExitStack()
        self._beside: ThreadPoolExecutor | None = None  # writes results while others look
        self._lanes: dict[str, Lane] = defaultdict(lambda: Lane(time.monotonic()))
        self._places: set[asyncio.Task[None]] = set()
        self._under_way: dict[str, Claimed] = {}  # by delivery id: whose leases are renewed
        self._hungry: dict[str, Lane] = {}  # by endpoint: what waits though its endpoint has room
        self._finished: list[Attempt] = []
        self._withheld: list[Withheld] = []
        self._unsent: list[Unsent] = []
        self._body_bytes = 1_024  # of a delivery, on the average of the last ones
        self._news = False  # hinted at since the last look began: not by a queue that runs low
        self._newest = 0  # event that `_has_news` saw
        self._alone = False  # nobody subscribed when it last looked
        self._looked = 0.0  # when the last look at the database began
        # Taken before each look, never after: what is committed while a look is on its way must call for the next one.
        self._mark: object | None = None
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
            loop.call_soon_threadsafe(self._hinted)
        except RuntimeError:  # the loop has just been closed: nobody is left to be woken
            return

    def run(self, stop: threading.Event | None = None) -> None:
        """Deliver in this thread until `stop` (by default: until `stop()` is called)."""
        if stop is not None:
            self._stop = stop
        uvloop.run(self._main())

    # ── inside the loop ───────────────────────────────────────────────────────────────────────────────────────────

    def _hinted(self) -> None:
        self._news = True
        if self._hint is not None:
            self._hint.set()

    def _runs_low(self) -> None:
        """Some queue wants more. The look that is on its way may bring it; then there is no reason for another."""
        if self._hint is not None:
            self._hint.set()

    async def _main(self) -> None:
        self._hint = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        names = ThreadPoolExecutor(max_workers=RESOLVER_THREADS, thread_name_prefix="webhooks-dns")
        self._loop.set_default_executor(names)
        crashes = 0
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhooks-db") as thread,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhooks-results") as self._beside,
        ):
            async with AsyncExitStack() as self._opened:
                while not self._stop.is_set():
                    try:
                        pause = await self._turn(thread)
                        crashes, self._beat = 0, time.monotonic()
                        await self._wait(pause, thread)
                    except (
                        Exception
                    ):  # the loop outlives everything: what it was doing stands in the database
                        crashes += 1
                        log.exception(
                            "delivering webhooks failed",
                            extra={"action": "webhook.loop_failed", "crashes": crashes},
                        )
                        await self._wait(min(2.0 ** (crashes - 1), LONGEST_BACK_OFF_SECONDS))
                await self._leave(thread)
        names.shutdown(wait=False, cancel_futures=True)  # a look-up that hangs must not hold up the end
        self._loop = None

    async def _wait(self, seconds: float, thread: ThreadPoolExecutor | None = None) -> None:
        """Until something calls for a look; with `thread`, also an event of another process. Looks are a moment apart: whoever
        comes second waits for company. While nobody subscribes events are no reason for one.
        """
        assert self._hint is not None  # noqa: S101 - set before the first turn
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
            try:
                async with asyncio.timeout(min(left, self._glance())):
                    await self._hint.wait()
                if not self._alone or thread is None:
                    break
                self._hint.clear()
                if await self._has_news(thread):
                    break
            except TimeoutError:
                mark = self._db.mark()
                # A mark tells of every commit; where none can be had, the database is asked now and then.
                if (
                    thread is not None
                    and (mark is None or mark != self._mark)
                    and await self._has_news(thread)
                ):
                    break
        early = self._looked + GATHER_SECONDS - time.monotonic()
        if early > 0 and not self._stop.is_set():
            await asyncio.sleep(early)
        self._looked = time.monotonic()
        self._hint.clear()
        self._news = False

    def _glance(self) -> float:
        """Seconds until the next glance at what others have committed."""
        if self._alone:
            return QUIET_SECONDS
        return self._watch if self._mark is None else GLANCE_SECONDS

    async def _has_news(self, thread: ThreadPoolExecutor) -> bool:
        """Whether somebody subscribes, and there are events that this loop has not seen."""

        def newest() -> int | None:
            with self._db.read() as session:
                return outbox.newest_event(session) if outbox.has_subscriber(session) else None

        self._mark = self._db.mark()
        found = await self._in(thread, newest)
        self._alone = found is None
        if found is None:
            return False
        before, self._newest = self._newest, found
        return found > before

    async def _turn(self, thread: ThreadPoolExecutor) -> float:
        """Record what is over, fan out, claim and start what there is room for; the seconds until the next look."""
        recording = None
        if self._may_record_beside():
            assert self._beside is not None  # noqa: S101 - set before the first turn
            recording = asyncio.ensure_future(self._write(self._over(), self._beside))
        else:
            await self._write(self._over(), thread)
        try:
            await self._renew(thread)
            hurry = await self._take(thread, max(0, self._room()))
            for id_, lane in self._lanes.items():  # places that others held are free now
                self._fill(id_, lane)
        finally:
            if recording is not None:
                await recording
        if hurry:
            return 0.0
        pending = self._places or self._finished or self._withheld or self._unsent
        return min(self._poll, RECORD_SECONDS) if pending else self._poll

    def _may_record_beside(self) -> bool:
        """Whether results may be written while more is claimed: nothing failed, which a claim has to know of, and no endpoint
        waits for this one result before its next delivery may be claimed.
        """
        if not self._finished or self._withheld or self._unsent:
            return False
        lanes = (self._lanes.get(id_) for id_ in {a.claimed.subscription_id for a in self._finished})
        return all(lane is not None and lane.most > 1 for lane in lanes) and all(
            attempt.verdict == "delivered" for attempt in self._finished
        )

    async def _renew(self, thread: ThreadPoolExecutor) -> None:
        """Keep what is being sent. What only waits is not kept: see `_fill`."""
        soon = self._clock() + claims.RENEW_MS
        ending = [claimed for claimed in self._under_way.values() if claimed.leased_until < soon]
        if ending:
            await self._in(thread, claims.renew, self._db, self._clock(), ending)

    async def _take(self, thread: ThreadPoolExecutor, room: int) -> bool:
        """Claim what waits, fan out what is new, and begin both; whether there is more to be had at once."""
        now = time.monotonic()
        busy = {id_: Busy(self._held(id_, lane), lane.ahead(now)) for id_, lane in self._lanes.items()}
        for id_, one in busy.items():
            if one.held == 0 and self._lanes[id_].pace < RESTING_PACE:
                del self._lanes[id_]  # endpoints come and go; nothing is remembered of those that rest
        self._mark = self._db.mark()
        counted = {id_: lane.quick for id_, lane in self._lanes.items()}
        hurry, ready, withheld = await self._in(thread, self._look, busy, room)
        # Not at every look: in order there is nothing to be had while one is held, and the queue would never grow.
        for id_ in {one.claimed.subscription_id for one in ready} & self._lanes.keys():
            self._lanes[id_].quick -= counted.get(id_, 0)
        self._withheld.extend(withheld)
        self._begin(ready)
        if ready and not self._news and self._hint is not None:
            self._hint.clear()
        return hurry

    def _held(self, id_: str, lane: Lane) -> int:
        """How much this worker has of an endpoint; of one with a single place also what is over and not written yet, since
        nothing behind that is free.
        """
        unwritten = sum(one.claimed.subscription_id == id_ for one in self._finished) if lane.most == 1 else 0
        return lane.running + len(lane.waiting) + unwritten

    def _look(self, busy: dict[str, Busy], room: int) -> tuple[bool, list[Ready], list[Withheld]]:
        """One look at the database, in its thread. What is claimed here and then lost to an error comes again when its lease
        ends.

        Returns:
            Whether to look again at once: so that what is urgent in a long backlog is found, and what few are told of.
        """
        claimed: list[Claimed] = []
        if room > 0:
            claimed = claims.claim(
                self._db, self._clock(), room, busy=busy, require_proof=self._setup.require_proof
            )
        for one in claimed:
            mine = busy.get(one.subscription_id, Busy())
            busy[one.subscription_id] = Busy(mine.held + 1, mine.ahead)
        made = outbox.Room(room - len(claimed), busy)
        looked_at = outbox.fan_out_step(self._db, self._clock, self._setup, room=made)
        hurry = looked_at > 0 and not made.enough
        claimed += made.claimed
        if not claimed:
            return hurry, [], []
        ready, withheld = claims.prepare(self._db, self._clock(), self._setup, claimed)
        return hurry, ready, withheld

    def _room(self) -> int:
        """How many deliveries more this worker takes into memory."""
        waiting = sum(len(lane.waiting) for lane in self._lanes.values())
        held = len(self._under_way) + len(self._finished) + waiting
        return held_at_most(self._body_bytes) - held

    def _begin(self, ready: Iterable[Ready]) -> None:
        """Put what was claimed into the endpoints' queues."""
        for one in ready:
            lane = self._lanes[one.claimed.subscription_id]
            lane.waiting.append(one)
            lane.stopped = False
            lane.most = one.endpoint.places
            self._body_bytes += (len(one.body) - self._body_bytes) // 16
        for lane in self._lanes.values():
            lane.low = len(lane.waiting) // 2

    def _fill(self, id_: str, lane: Lane) -> None:
        """Open places of one endpoint for what waits, as far as there are any."""
        self._hungry.pop(id_, None)
        while self._has_next(lane) and lane.running < lane.most:
            if len(self._places) >= self._concurrency:
                self._hungry[id_] = lane
                return
            lane.running += 1
            place = asyncio.get_running_loop().create_task(self._place(id_, lane))
            self._places.add(place)
            place.add_done_callback(self._places.discard)

    def _has_next(self, lane: Lane) -> bool:
        """Whether something may be sent. What waits behind a failure goes back, and so does what has waited too long: the
        gate was asked when it was claimed, and another worker may have room.
        """
        soon = self._clock() + claims.RENEW_MS
        while lane.waiting and (lane.stopped or lane.waiting[0].claimed.leased_until < soon):
            self._unsent.append(Unsent(lane.waiting.popleft().claimed))
        return bool(lane.waiting) and not self._stop.is_set()

    async def _place(self, id_: str, lane: Lane) -> None:
        """One place of an endpoint: sends what waits, one after another. It ends when nothing does, or others wait for it."""
        try:
            while self._has_next(lane):
                await self._send(lane, lane.waiting.popleft())
                if self._hungry:
                    break
        finally:
            lane.running -= 1
            self._places.discard(asyncio.current_task())
            for other, hungry in [*self._hungry.items(), (id_, lane)]:  # itself comes last
                self._fill(other, hungry)

    async def _send(self, lane: Lane, ready: Ready) -> None:
        claimed = ready.claimed
        self._under_way[claimed.id] = claimed
        try:
            if self._sender is None:
                self._sender = await self._opened.enter_async_context(make_sender(self._setup, self._clock))
            attempt = await self._sender.send(ready)
        except Exception:
            lane.stopped = True
            log.exception("an attempt failed in this node", extra={"action": "webhook.attempt_failed"})
            self._hinted()
            return
        finally:
            del self._under_way[claimed.id]
        self._finished.append(attempt)
        if attempt.verdict == "delivered":
            lane.finished()
        else:
            lane.stopped = True
        if lane.stopped:
            self._hinted()
        elif len(lane.waiting) <= lane.low:
            self._runs_low()

    def _over(self) -> _Over:
        """What is to be recorded, taken out."""
        over = _Over(self._finished, self._withheld, self._unsent)
        self._finished, self._withheld, self._unsent = [], [], []
        return over

    async def _write(self, over: _Over, thread: ThreadPoolExecutor) -> None:
        if not any(over):
            return
        try:
            await self._in(
                thread,
                lambda: results.record(
                    self._db, self._clock(), *over, setup=self._setup, fraction=self._fraction
                ),
            )
        except Exception:
            # Kept for the next turn. Were they lost, their leases would end and the deliveries be made again.
            self._finished[:0], self._withheld[:0], self._unsent[:0] = over
            raise

    async def _leave(self, thread: ThreadPoolExecutor) -> None:
        if self._places:
            await asyncio.wait(list(self._places), timeout=LEAVE_SECONDS)
        for place in list(self._places):
            place.cancel()
        for lane in self._lanes.values():
            self._unsent.extend(Unsent(one.claimed) for one in lane.waiting)
            lane.waiting.clear()
        try:
            await self._write(self._over(), thread)
        except Exception:
            log.exception(
                "results of the last webhooks were not recorded", extra={"action": "webhook.loop_failed"}
            )

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - passed on
        return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)
