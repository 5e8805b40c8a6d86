"""The local door: a posted notice is judged exactly as a mirror would judge it, then recorded.

Judging needs no database and runs on every core (`app.judging`). `Sequencer`
is the one writer of the own log in this process: it gathers what arrived and commits once for all of it. Whoever posted
is answered after that commit, so an answer means durable.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from app.db import chunks
from app.domain.errors import Busy, VerbaleError
from app.judging import Context, Judged, Judges
from app.record import Receipt, record_own, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.domain.signed import SignedNotice
    from app.record import Watch

log = logging.getLogger(__name__)

MAX_COMMIT: Final = 512
"""Statements in one transaction: enough to make the commit's cost small, few enough to keep its lock short."""
MAX_QUEUED: Final = 20_000
"""Statements waiting for a commit. Beyond it posts are answered 503 at once instead of piling up in memory."""

Answer = Receipt | VerbaleError


class Sequencer:
    """Gathers verified notices and appends them to the own log, one transaction for many.

    One thread owns the writing. A crash loses only what nobody was answered for.
    """

    def __init__(
        self,
        db: Database,
        log_id: int,
        clock: Clock,
        on_commit: Callable[[], None],
        roster: Callable[[], Roster] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`on_commit` is called after each commit that appended something: it wakes the publisher. `roster`: see `record_own`."""
        self._roster = roster
        self._db, self._log_id, self._clock, self._on_commit = db, log_id, clock, on_commit
        self._watch = watch
        self._queue: queue.SimpleQueue[tuple[Sequence[Judged], Future[list[Answer]]] | None] = (
            queue.SimpleQueue()
        )
        self._queued = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end."""
        self._queue.put(None)
        if self._thread.is_alive():  # a worker opens the node and never starts its local door
            self._thread.join(timeout=30)

    def submit(self, notices: Sequence[Judged]) -> Future[list[Answer]]:
        """Queue notices; the future resolves, after the commit, to one answer each, in order.

        Raises:
            Busy: too much is waiting already.
        """
        with self._lock:
            if self._queued + len(notices) > MAX_QUEUED:
                raise Busy("Too many notices are waiting to be stored. Try again in a few seconds.")
            self._queued += len(notices)
        future: Future[list[Answer]] = Future()
        self._queue.put((notices, future))
        return future

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            if not self._take(first):
                return

    def step(self) -> bool:
        """Commit what is queued now, once, in the caller's thread. True if something was. For callers without `start`."""
        try:
            first = self._queue.get_nowait()
        except queue.Empty:
            return False
        return first is not None and self._take(first)

    def _take(self, first: tuple[Sequence[Judged], Future[list[Answer]]]) -> bool:
        """Commit a first group with those that came meanwhile. False if the end was asked for."""
        groups = [first]
        count = len(first[0])
        ending = False
        # No waiting for more: while one commit runs, the next batch gathers by itself.
        while count < MAX_COMMIT:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                ending = True
                break
            groups.append(following)
            count += len(following[0])
        self._commit(groups)
        return not ending

    def _commit(self, groups: list[tuple[Sequence[Judged], Future[list[Answer]]]]) -> None:
        notices = [notice for some, _ in groups for notice in some]
        try:
            answers: list[Answer] = []
            for some in chunks(notices, MAX_COMMIT):
                now = self._clock()
                with self._db.write() as session, watched(self._watch, session, now=now, live=True):
                    answers += record_own(self._db, session, self._log_id, some, now=now, roster=self._roster)
        except Exception as error:  # the thread must go on; every poster of this commit learns that it failed
            log.exception("append failed", extra={"action": "append_failed", "count": len(notices)})
            failure = (
                error
                if isinstance(error, VerbaleError)
                else Busy("The notice could not be stored now. Send it again.")
            )
            for _, future in groups:
                future.set_exception(failure)
            return
        finally:
            with self._lock:
                self._queued -= len(notices)
        if any(isinstance(a, Receipt) and a.created for a in answers):
            self._on_commit()
        at = 0
        for some, future in groups:
            future.set_result(answers[at : at + len(some)])
            at += len(some)


class Intake:
    """The local door as the routers use it: judge on the pool, then sequence."""

    def __init__(
        self, sequencer: Sequencer, judges: Judges, origin: str, roster: Callable[[], Roster], clock: Clock
    ) -> None:
        """`roster` returns the roster in force and raises if there is none."""
        self._sequencer, self._judges, self._origin = sequencer, judges, origin
        self._roster, self._clock = roster, clock

    def judge(
        self, posts: Sequence[SignedNotice | bytes], *, flood: bool = False
    ) -> list[Judged | VerbaleError]:
        """Judge posts, read or as the bytes that came; one outcome each, in order.

        Args:
            flood: thousands are coming; see `app.judging`.
        """
        return self._judges.posts(
            posts, Context(self._origin, self._roster(), self._clock() // 1000), flood=flood
        )

    def sequence(self, outcomes: Sequence[Judged | VerbaleError]) -> Future[list[Answer]] | None:
        """Queue what was judged good. The future resolves, after the commit, to one answer for each of those.

        Raises:
            Busy: the node cannot take them now; nothing of them was stored. Send the same again.
        """
        good = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
        return self._sequencer.submit(good) if good else None


def merge(outcomes: Sequence[Judged | VerbaleError], recorded: Sequence[Answer]) -> list[Answer]:
    """Put the answers of the recorded ones back into their places."""
    answers = iter(recorded)
    return [outcome if isinstance(outcome, VerbaleError) else next(answers) for outcome in outcomes]
