"""Storage that loses power: a real SQLite database in memory, and a node's process that can die at any step of its use.

What was committed stays on the `Disk`, as it would on a real one; what was not is gone with the process. Between any two
storage steps (before a transaction, before its COMMIT, after its COMMIT) the process can be made to die, or to wait while
others run. Nothing here knows what is stored.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import StaticPool

from app import migrations
from app.db import Database
from app.simulation.quick import QuickSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

_URL: Final = make_url("sqlite://")
_STATEMENTS: Final[dict[Any, Any]] = {}
"""Compiled SQL, shared by every database of this process: compiling it anew for each of 25 nodes would be most of a run."""


class PowerLost(BaseException):
    """The process that runs this code is dead. Not an Exception: a dead process catches nothing."""


class Power:
    """The life of one process of a node.

    Args:
        pause: called at a storage step that is not its last: others may run there.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        """Alive."""
        self.alive = True
        self.steps_left: int | None = None
        self._pause = pause

    def check(self) -> None:
        """Raise PowerLost if the process is dead."""
        if not self.alive:
            raise PowerLost

    def step(self) -> None:
        """One storage step has come: die here, if it is the one."""
        self.check()
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.alive = False
                raise PowerLost

    def wait(self) -> None:
        """Let others run between two transactions; the process may be dead afterwards."""
        self._pause()
        self.check()


class Disk:
    """The bytes of one node's database: they outlive its processes."""

    def __init__(self, content: bytes) -> None:
        """Begin with a database file's content."""
        self.raw = _open(content)

    def copy(self) -> bytes:
        """A consistent copy, as a backup makes it."""
        return self.raw.serialize()

    def replace(self, content: bytes) -> None:
        """Put a copy in its place."""
        self.raw.close()
        self.raw = _open(content)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Look at what is there, from outside of any process."""
        return self.raw.execute(sql, values).fetchall()

    def leaves(self, origin: str) -> int:
        """How many leaves of a log are on it."""
        rows = self.rows("SELECT size FROM logs WHERE origin = ?", origin)
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Forget it."""
        self.raw.close()


def leaves_in(content: bytes, origin: str) -> int:
    """How many leaves of a log a copy of a disk has."""
    disk = Disk(content)
    try:
        return disk.leaves(origin)
    finally:
        disk.close()


def _open(content: bytes) -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    raw.deserialize(content)
    return raw


class PoweredDatabase(Database):
    """`Database` on a `Disk`, for as long as the power lasts."""

    def __init__(
        self, disk: Disk, power: Power, committed: Callable[[], None], *, quick: bool = True
    ) -> None:
        """`committed` is called after every COMMIT, before anybody else can run; `quick`: see `app.simulation.quick`."""
        super().__init__("sqlite://", engine=_engine(disk.raw))
        if quick:
            self._write_sessions.class_ = self._read_sessions.class_ = QuickSession
            self._read_sessions.configure(info={"reads": disk.raw})
        self._writer = None  # tasks take turns, and no transaction is open when one waits
        self._power, self._committed = power, committed

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction, with the process's end possible before it, before its COMMIT and after it."""
        self._power.step()
        with super().write() as session:
            yield session
            self._power.step()
        self._committed()
        self._power.step()
        self._power.wait()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot."""
        self._power.check()
        with super().read() as session:
            yield session


def _engine(raw: sqlite3.Connection) -> Engine:
    shared = _dialect_engine()
    # A session ends its transaction itself; there is nothing left to reset when its connection comes back.
    pool = StaticPool(lambda: raw, dialect=shared.dialect, reset_on_return=None)  # type: ignore[arg-type]  # a driver connection
    engine = Engine(pool, shared.dialect, _URL, hide_parameters=True)
    engine.update_execution_options(compiled_cache=_STATEMENTS)
    return engine


@cache
def _dialect_engine() -> Engine:
    engine = create_engine(_URL)
    with engine.connect():  # the dialect asks the library for its version once
        return engine


@cache
def empty_database() -> bytes:
    """A database file's content with the schema and nothing in it."""
    raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    database = Database("sqlite://", engine=_engine(raw))
    migrations.upgrade(database)
    content = raw.serialize()
    raw.close()
    return content
