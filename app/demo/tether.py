"""`python -m app.demo.tether PARENT COMMAND…`: become a command that ends when the process PARENT does.

On Linux the kernel does it, even if the parent is killed: a demo leaves no orphans. Elsewhere the command simply runs, and
only an orderly end of the parent ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def tie_to(parent: int) -> None:
    """Have this process terminated when its parent, whose process id is `parent`, ends. It survives `exec`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(f"The process {parent} ended before its node was started.")


if __name__ == "__main__":
    tie_to(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the demo starts its own program
