"""The folder in which a node's loops run: one process at a time, and which runs there are known to be over.

A process that holds the log's lease (`app.replication.lease`) and is killed leaves a lease that nobody renews and that
keeps its own successor waiting. So the file `running` in the node's folder says who ran here last:

    {"boot": kernel's boot id, "device": …, "inode": …, "runs": [the newest last]}

Whoever holds the file's lock, in the same boot of the same machine, in the very same file, knows that those runs are over.
A copy of the folder is another file, a restored machine another boot: there nothing is known and the lease is waited for.
The file is in no backup. Written before the run is told to anybody; what cannot be read, after a crash, says nothing.
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

from app.domain.errors import NodeFault
from app.domain.lease import MAX_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = "running"
MAX_RUNS: Final = MAX_OVER
"""A process killed before it claimed anything leaves the run before it as the one that the others know."""
MAX_FILE: Final = 4096
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class PlaceTaken(NodeFault):
    """The loops of a node run in this folder already."""

    code = "place-taken"


def boot_id() -> str:
    """Of this boot of this machine (Linux, random(4)); empty where there is none: then no run is known to be over."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


@dataclass(slots=True)
class Place:
    """A folder that this process holds.

    Attributes:
        run: 32 hex digits, of this run alone.
        over: runs before it that ended for sure, the newest last.
    """

    run: str
    over: tuple[str, ...]
    _file: int

    @classmethod
    def take(cls, folder: Path, *, boot: Callable[[], str] = boot_id) -> Place:
        """Hold the folder until `leave`, or the end of the process.

        Raises:
            PlaceTaken: another process holds it.
            OSError: the file cannot be written.
        """
        file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlaceTaken(
                    f"Another process runs this node's loops: it holds {folder / FILE}. One `verbale serve`, or with "
                    "background = false one `verbale worker`, does that. Stop the other one first."
                ) from None
            now = os.fstat(file)
            here = {"boot": boot(), "device": now.st_dev, "inode": now.st_ino}
            over = _runs(os.pread(file, MAX_FILE, 0), here)
            run = secrets.token_hex(16)
            written = orjson.dumps({**here, "runs": [*over, run][-MAX_RUNS:]})
            os.ftruncate(file, 0)  # the same file: a renamed one would be another inode
            os.pwrite(file, written, 0)
            os.fsync(file)
        except BaseException:
            os.close(file)
            raise
        return cls(run, over, file)

    def leave(self) -> None:
        """Let the next process in."""
        with suppress(OSError):
            os.close(self._file)


def _runs(raw: bytes, here: dict[str, object]) -> tuple[str, ...]:
    """The runs that a file names, if it was written here."""
    try:
        said = orjson.loads(raw)
        runs = said.pop("runs")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return ()
    if said != here or not here["boot"] or not isinstance(runs, list):
        return ()
    return tuple(run for run in runs if isinstance(run, str))[-MAX_RUNS:]
