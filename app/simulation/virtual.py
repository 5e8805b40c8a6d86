"""Virtual time: tasks that take turns, one at a time, in an order that only the seed decides.

Each task runs on a thread of its own, and exactly one thread runs at any moment: a task keeps the turn until it sleeps or
ends, and the one that wakes up earliest has it next. So the code under test may block in the middle of whatever it does,
as it does on a real machine, and the whole run is still one deterministic sequence. Nothing here waits for real time.
"""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Stopped(BaseException):
    """The run is over: raised in every task that would wake up after it. Not an Exception: no loop may catch it."""


class _Worker:
    """A thread that runs one task after another."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.go = threading.Lock()
        self.go.acquire()
        self.work: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self._run, name="simulated", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            if self.work is None:
                return
            try:
                self.work()
            except Stopped:
                pass
            except BaseException as failure:  # noqa: BLE001 - handed to whoever runs the schedule
                self.schedule.failure = self.schedule.failure or failure
            self.work = None
            self.schedule.idle.append(self)
            self.schedule.turn.release()


class Schedule:
    """What happens when. `now` is virtual milliseconds since the run began."""

    def __init__(self) -> None:
        """Nothing is due."""
        self.now = 0
        self.failure: BaseException | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
        self.idle: list[_Worker] = []
        self._due: list[tuple[int, int, _Worker | Callable[[], None]]] = []
        self._running: _Worker | None = None
        self._count = 0
        self._over = False

    def spawn(self, work: Callable[[], None], *, after: int = 0) -> None:
        """Begin a task `after` milliseconds from now."""
        self._push(self.now + after, work)

    def sleep(self, ms: int) -> None:
        """Let others run; return `ms` later. Called by a task."""
        worker = self._running
        if worker is None:
            raise RuntimeError("only a task can sleep")
        self._push(self.now + ms, worker)
        self.turn.release()
        worker.go.acquire()
        if self._over:
            raise Stopped

    def run(self, until: int | None = None) -> None:
        """Run what is due before `until`, or everything there will ever be.

        Raises:
            Whatever a task raised; then the run is over.
        """
        while self._due and (until is None or self._due[0][0] <= until):
            self.now, _, what = heapq.heappop(self._due)
            if isinstance(what, _Worker):
                worker = what
            else:
                worker = self.idle.pop() if self.idle else _Worker(self)
                worker.work = what
            self._resume(worker)
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
        if until is not None:
            self.now = max(self.now, until)

    def close(self) -> None:
        """End every task where it sleeps, and all threads."""
        self._over = True
        while self._due:
            _, _, what = heapq.heappop(self._due)
            if isinstance(what, _Worker):
                self._resume(what)
        for worker in self.idle:
            worker.go.release()
            worker.thread.join()
        self.idle.clear()

    def _resume(self, worker: _Worker) -> None:
        self._running = worker
        worker.go.release()
        self.turn.acquire()
        self._running = None

    def _push(self, at: int, what: _Worker | Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (at, self._count, what))


class VirtualLock:
    """A `threading.Lock` for tasks: who waits for it lets the others run."""

    def __init__(self, schedule: Schedule) -> None:
        """Free."""
        self._schedule, self._held = schedule, False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if that took longer than `timeout` virtual seconds."""
        deadline = None if timeout < 0 else self._schedule.now + int(timeout * 1000)
        while self._held:
            if not blocking or (deadline is not None and self._schedule.now >= deadline):
                return False
            self._schedule.sleep(25 if deadline is None else min(25, deadline - self._schedule.now))
        self._held = True
        return True

    def release(self) -> None:
        """Give it back."""
        self._held = False

    def __enter__(self) -> bool:
        """Take it."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give it back."""
        self.release()
