"""Time as a seam: whoever needs "now" is given a Clock, so tests and the simulator decide what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Returns the current time in unix milliseconds."""

    def __call__(self) -> int:
        """Unix milliseconds."""
        ...


def system_clock() -> int:
    """The operating system's clock, unix milliseconds."""
    return time.time_ns() // 1_000_000
