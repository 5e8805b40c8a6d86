"""Background work as loops over step functions.

A loop calls its step until it says there is nothing more, then waits for a hint or its interval. A step that raises is
logged and tried again with a growing pause, capped in minutes: no error ends a loop, and any hint resets the pause, so a
peer that comes back is noticed at once. Tests call the step functions directly.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from app.domain.errors import PeerFault

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
"""Other federations let peers wait for days after an outage, and returning nodes went unnoticed."""
PATIENCE_S: Final = 120.0
"""A loop that has shown no life for this long beyond its interval is reported as stopped."""


class Loop:
    """One named thread around one step.

    Args:
        step: does some work; True if there may be more at once.
        interval_s: longest wait between two steps without a hint.
    """

    def __init__(self, name: str, step: Callable[[], bool], *, interval_s: float) -> None:
        """Nothing runs before `start`."""
        self.name = name
        self._step, self._interval_s = step, interval_s
        self._hint = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._beat = time.monotonic()
        self.failures = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Hint that there is work; never blocks."""
        self._hint.set()

    def stop(self) -> None:
        """Ask the loop to end after its current step."""
        self._stopping.set()
        self._hint.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def is_stuck(self) -> bool:
        """Whether the thread ended, or has shown no life for too long."""
        overdue = time.monotonic() - self._beat > self._interval_s + LONGEST_PAUSE_S + PATIENCE_S
        return overdue or not (self._thread.is_alive() or self._stopping.is_set())

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._hint.clear()
            pause = self._interval_s
            try:
                while self._step() and not self._stopping.is_set():
                    self._beat = time.monotonic()
                self.failures = 0
            except Exception as error:  # whatever it was, the loop goes on
                if self._stopping.is_set():
                    break  # connections are closed under a step that was under way: that is no fault
                self.failures += 1
                pause = min(
                    FIRST_PAUSE_S * 2 ** min(self.failures - 1, 10),
                    LONGEST_PAUSE_S,
                    max(self._interval_s, 5.0),
                )
                expected = isinstance(error, PeerFault)
                level = logging.WARNING if expected else logging.ERROR
                extra = {
                    "action": "step_failed",
                    "loop": self.name,
                    "failures": self.failures,
                    "why": str(error)[:500],
                }
                log.log(level, "%s: %s", self.name, type(error).__name__, extra=extra, exc_info=not expected)
            self._beat = time.monotonic()
            self._hint.wait(pause)
