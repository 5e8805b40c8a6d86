"""The nodes of the demo as separate processes: started, watched, ended.

Guarantees that every process started here is ended by `stop`, and on Linux also when this process is killed
(`app.demo.tether`). A node that ends by itself is reported, not restarted: somebody may be trying what a crash does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from app.demo.errors import DemoFailed
from app.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.demo.found import FoundedNode

STOP_S: Final = 15.0
"""How long a node may take to end in order; its server gives open requests ten seconds."""

LOG_FILE: Final = "node.log"
_TAIL_BYTES: Final = 2_000


def serve_command(settings_file: Path) -> list[str]:
    """The command that serves a node, run by this very Python."""
    return [sys.executable, "-m", "app.cli", "--traceback", "serve", "--settings", str(settings_file)]


def environment() -> dict[str, str]:
    """This process's environment without settings of a node: each has a settings file, and nothing may override all four.

    Without byte code, four nodes would compile every module at every start: that costs more than all else they do.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name != "PYTHONDONTWRITEBYTECODE"
    }


class NodeProcess:
    """One node's process. Its output goes to `node.log` in the node's folder."""

    def __init__(self, node: FoundedNode) -> None:
        """Start it."""
        self.node = node
        self.log = node.settings.data_dir / LOG_FILE
        command = [
            sys.executable,
            "-m",
            "app.demo.tether",
            str(os.getpid()),
            *serve_command(node.settings_file),
        ]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,  # Ctrl-C reaches the demo, which ends its nodes in order
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ended(self) -> str | None:
        """How it ended, for people, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def check(self) -> None:
        """Raise DemoFailed with the end of its log if it is not running."""
        how = self.ended()
        if how is not None:
            tail = self.log.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
            raise DemoFailed(f"The node of {self.node.member.state} {how}. The end of {self.log}:\n{tail}")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end in order."""
        self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait for its end until `deadline` (monotonic seconds), then kill it."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()


def stop(processes: Sequence[NodeProcess]) -> None:
    """End all of them, side by side."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes:
        process.wait(deadline)
