"""Worker processes that answer a long batch on every core, each with a copy of the index.

Guarantees the same answers as without them: a worker follows the database as the node's own process does, from where the
copy was taken. Guarantees that a worker that is lost loses no line: it is answered in this process. The copy passes through
a file without a name, so that nothing of it is left when the workers have it.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.db import Database
from app.screening.answering import Answering
from app.screening.batch import Answered, WorkerLost, answer_lines
from app.screening.find import Screener
from app.screening.finder import ScreenerFinder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from app.domain.roster import Roster
    from app.screening.batch import Asking, Line

IDLE_S: Final = 20.0
"""Workers end after so long without a batch, and give their memory back."""
log = logging.getLogger(__name__)


class Crew:
    """The workers of one process. Thread-safe: batches share them.

    Args:
        url: of the database, that workers open for themselves.
        processes: how many; None: one a core. With one or none batches are answered in this process.
    """

    def __init__(self, url: str, screener: Screener, *, processes: int | None = None) -> None:
        """Start nothing."""
        self.processes = (os.cpu_count() or 1) if processes is None else processes
        self._url, self._screener = url, screener
        self._pool: ProcessPoolExecutor | None = None
        self._begun: Future[None] | None = None
        self._head = b""
        self._busy = 0
        self._idle_since = 0.0
        self._lock = threading.Lock()

    @property
    def usable(self) -> bool:
        """Whether workers would help, and can open the database."""
        return self.processes > 1 and ":memory:" not in self._url and not self._url.endswith("://")

    @property
    def has_begun(self) -> bool:
        """Whether a worker takes lines by now, or none ever will."""
        with self._lock:
            return self._begun is None or self._begun.done()

    @contextmanager
    def at_work(self, answering: Answering, roster: Roster | None) -> Iterator[None]:
        """Keep the workers for a batch; they are started if there are none."""
        with self._lock:
            self._busy += 1
            self._head = pickle.dumps((answering.state, answering.contact, roster))
            if self._pool is None:
                self._pool = self._begin()
                with suppress(BrokenProcessPool, RuntimeError):  # no worker can begin: `answer` finds out
                    self._begun = self._pool.submit(_say_hello)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._idle_since = time.monotonic()

    def answer(self, asking: Asking, lines: Sequence[Line], *, now_ms: int) -> Callable[[], Answered]:
        """Have some lines answered; the result is called for.

        Raises:
            WorkerLost: by the result, if no worker could answer.
        """
        with self._lock:
            pool, head = self._pool, self._head
        future: Future[Answered] | None = None
        if pool is not None:
            try:
                future = pool.submit(_answer, head, asking, lines, now_ms)
            except (BrokenProcessPool, RuntimeError):
                self._drop(pool)

        def result() -> Answered:
            if future is None or pool is None:
                raise WorkerLost
            try:
                return future.result()
            except BrokenProcessPool as error:
                log.warning("screening workers lost", extra={"action": "crew_lost", "why": str(error)[:200]})
                self._drop(pool)
                raise WorkerLost from error

        return result

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> ProcessPoolExecutor:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the workers end
        self._screener.dump(copy)
        copy.flush()
        pool = ProcessPoolExecutor(
            self.processes,
            mp_context=get_context("spawn"),  # not forked: this process has threads, and their locks
            initializer=_begin_worker,
            initargs=(os.getpid(), self._url, f"/proc/{os.getpid()}/fd/{copy.fileno()}"),
        )
        threading.Thread(target=self._end_when_idle, args=(pool, copy), daemon=True).start()
        return pool

    def _end_when_idle(self, pool: ProcessPoolExecutor, copy: Any) -> None:  # noqa: ANN401 - an open file
        while True:
            time.sleep(IDLE_S / 4)
            with self._lock:
                if self._pool is not pool:
                    break
                if not self._busy and time.monotonic() - self._idle_since > IDLE_S:
                    self._pool = None
                    break
        pool.shutdown(wait=False)
        copy.close()

    def _drop(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)


# ── inside a worker process ───────────────────────────────────────────────────────────────────────────────────────

_db: Database | None = None
_finder: ScreenerFinder | None = None
_known: tuple[bytes, Any] = (b"", None)


def _begin_worker(parent: int, url: str, copy: str) -> None:
    """Take the copy of the index, and end with the parent, however it ends."""
    global _db, _finder  # noqa: PLW0603 - this process's own

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _db = Database(url, pool_size=1)
    screener = Screener(_db)
    if Path(copy).exists():  # elsewhere than on Linux each worker reads the tables for itself
        with Path(copy).open("rb") as file:
            screener.restore(file)
    _finder = ScreenerFinder(screener)
    gc.collect()
    gc.freeze()


def _say_hello() -> None:
    """Done when a worker has begun."""


def _answer(head: bytes, asking: Asking, lines: Sequence[Line], now_ms: int) -> Answered:
    global _known  # noqa: PLW0603 - this process's copy of the roster
    if _known[0] != head:
        _known = (head, pickle.loads(head))  # noqa: S301 - from our own parent
    state, contact, roster = _known[1]
    if _db is None or _finder is None:
        raise RuntimeError("the worker has not begun")
    return answer_lines(_db, Answering(_finder, state, contact), asking, lines, roster, now_ms=now_ms)
