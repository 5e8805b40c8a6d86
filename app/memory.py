"""The memory of this process: what the collector walks, and what the allocator keeps."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""As in glibc's malloc.h."""
KEPT_BLOCK: Final = 4 * 2**20
"""Larger blocks come from the system and go back to it, bytes."""
KEPT_FREE: Final = 64 * 2**20
"""So much may lie free at the end of the heap, bytes."""


def settle_memory() -> None:
    """Keep what was imported out of the garbage collector's walks, and let it walk less often.

    Judging and folding make many short-lived objects; with the default thresholds, walking all modules again and again
    was a tenth of their time. Reference counting frees almost everything here; cycles are rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def keep_memory() -> None:
    """Have the allocator keep what is freed until `give_back`, in one heap that all threads share. To be called before there are any.

    By default each thread has a heap of its own, and what lies free at its end goes back to the system at once, to be asked for
    again a moment later, page by page: in a long catch-up two faults a notice, and a tenth of memory. Threads of Python
    rarely allocate at the same time.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, and takes what it does not know for no
    if tune is None:
        return
    tune(_M_ARENA_MAX, 1)
    tune(_M_MMAP_THRESHOLD, KEPT_BLOCK)
    tune(_M_TRIM_THRESHOLD, KEPT_FREE)


def give_back() -> None:
    """Give the system back what the allocator keeps of what was made and thrown away. Some milliseconds; the lock of Python is free
    meanwhile.

    A flood of notices leaves glibc with tens of megabytes in the heaps of a dozen threads, for good unless it is asked.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
