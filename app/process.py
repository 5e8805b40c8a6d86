"""What a process that runs a node asks of Python and of its allocator."""

from __future__ import annotations

import sys
from typing import Final

from app.memory import keep_memory, settle_memory

SWITCH_S: Final = 0.001
"""A thread that has read from a peer or from the disk waits at most this long for one that computes, and a notice on its way to
people passes a dozen such moments. With the default of 5 ms they were a third of its time.
"""


def begin_process() -> None:
    """To be called first: before there are threads."""
    keep_memory()


def settle_process() -> None:
    """To be called once everything is imported and opened, before the work begins."""
    settle_memory()
    sys.setswitchinterval(SWITCH_S)
