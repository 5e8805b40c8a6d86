"""The folder in which a node's loops run: whose processes are one run, and which runs there are known to be over.

A process that holds the log's lease (`app.replication.lease`) and is killed leaves a lease that nobody renews and that
keeps its own successor waiting. So the file `running` in the node's folder says who ran here last:

    {"boot": kernel's boot id, "device": …, "inode": …, "runs": [the newest last]}

Every process that runs the loops here holds the file's lock, shared: several workers of one node are one run. Whoever finds
the lock free, in the same boot of the same machine, in the very same file, knows that the runs before are over, and begins
another. A copy of the folder is another file, a restored machine another boot: there nothing is known and the lease is
waited for. The file is in no backup. Written before the run is told to anybody; what cannot be read, after a crash, says
nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from app.domain.lease import MAX_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = "running"
MAX_RUNS: Final = MAX_OVER
"""A process killed before it claimed anything leaves the run before it as the one that the others know."""
MAX_FILE: Final = 4096
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Of this boot of this machine (Linux, random(4)); empty where there is none: then no run is known to be over."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


@dataclass(slots=True)
class Place:
    """A folder in which this process runs a node's loops.

    Attributes:
        run: 32 hex digits, of this run: of all processes that are here at the same time.
        over: runs before it that ended for sure, the newest last.
    """

    run: str
    over: tuple[str, ...]
    _file: int

    @classmethod
    def take(cls, folder: Path, *, boot: Callable[[], str] = boot_id) -> Place:
        """Be in the folder until `leave`, or the end of the process.

        Raises:
            OSError: the file cannot be written.
        """
        file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            now = os.fstat(file)
            here = {"boot": boot(), "device": now.st_dev, "inode": now.st_ino}
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else is here: what was, is over
                _begin(file, here)
            fcntl.flock(file, fcntl.LOCK_SH)
            # Another may have come between the two locks; then its run is the one.
            *over, run = _read(file, here, alone=False)
        except BaseException:
            os.close(file)
            raise
        return cls(run, tuple(over), file)

    def leave(self) -> None:
        """End this process's part in it; nothing if it has ended: the number of a closed file may be another's by then."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _begin(file: int, here: dict[str, object]) -> None:
    """Write another run behind those that are over."""
    runs = [*_read(file, here, alone=True), secrets.token_hex(16)][-MAX_RUNS:]
    written = orjson.dumps({**here, "runs": runs})
    os.ftruncate(file, 0)  # the same file: a renamed one would be another inode
    os.pwrite(file, written, 0)
    os.fsync(file)


def _read(file: int, here: dict[str, object], *, alone: bool) -> list[str]:
    """The runs that the file names.

    Args:
        alone: nobody else is here, so that they count only if the file was written in this boot, in this place.
    """
    try:
        said = orjson.loads(os.pread(file, MAX_FILE, 0))
        runs = said.pop("runs")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return []
    if not isinstance(runs, list) or (alone and (said != here or not here["boot"])):
        return []
    return [run for run in runs if isinstance(run, str)][-MAX_RUNS:]
