"""Which connection does what, and what each may keep."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.db import Database


def _driver(session: Any) -> Any:
    return session.connection().connection.driver_connection


def test_on_sqlite_one_connection_writes_and_no_other(tmp_path: Path) -> None:
    """Whatever another connection writes has SQLite throw away what this one keeps."""
    db = Database(f"sqlite:///{tmp_path / 'node.sqlite'}")

    def write(number: int) -> Any:
        with db.read() as reading:
            reader = _driver(reading)
            with db.write() as session:
                session.execute(text(f"CREATE TABLE t{number} (a)"))
                writer = _driver(session)
        assert reader is not writer
        return writer

    with ThreadPoolExecutor(4) as threads:
        writers = set(threads.map(write, range(12)))
    assert len(writers) == 1
    with db.write() as session, pytest.raises(OperationalError):
        session.execute(text("CREATE TABLE t0 (a)"))
    with db.read() as session:
        assert session.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one() == 12
    db.dispose()


def test_connections_that_read_keep_little_on_sqlite(tmp_path: Path) -> None:
    """There may be sixty of them: with as much as the one that writes has, eight people who ask at once took 250 MB."""
    db = Database(f"sqlite:///{tmp_path / 'node.sqlite'}")
    with db.write() as session:
        written = session.execute(text("PRAGMA cache_size")).scalar_one()
    with db.read() as session:
        assert session.execute(text("PRAGMA cache_size")).scalar_one() >= written / 4  # negative: KiB
    db.dispose()


LEFT = """
import sys
from sqlalchemy import text
from app.db import Database
from app.memory import give_back, keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_memory()
db = Database("sqlite:///" + sys.argv[1])
with db.write() as session:
    session.execute(text("CREATE TABLE t (a)"))
    for _ in range(3_000):
        session.execute(text("INSERT INTO t VALUES (randomblob(4000))"))
give_back()
before = resident()
db.give_back()
give_back()
print(before - resident())
with db.write() as session:
    assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 3_000
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_what_the_connection_that_writes_keeps_is_given_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT, str(tmp_path / "node.sqlite")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ended.stdout) > 4_000_000


def test_giving_back_is_nothing_where_there_is_nothing_to_give(database_url: str) -> None:
    db = Database(database_url)
    db.give_back()
    with db.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    db.dispose()
