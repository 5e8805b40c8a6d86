"""The memory of this process: what the collector walks, and what the allocator keeps."""

from __future__ import annotations

import ctypes
import gc


def settle_memory() -> None:
    """Keep what was imported out of the garbage collector's walks, and let it walk less often.

    Judging and folding make many short-lived objects; with the default thresholds, walking all modules again and again
    was a tenth of their time. Reference counting frees almost everything here; cycles are rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def give_back() -> None:
    """Give the system back what the allocator keeps of what was made and thrown away. Some milliseconds; the lock of Python is free
    meanwhile.

    A flood of notices leaves glibc with tens of megabytes in the heaps of a dozen threads, for good unless it is asked.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
