"""Which connection does what, and what each may keep."""

from __future__ import annotations

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
    """There may be sixty of them: with eight times as much, eight people who ask at once doubled a node's memory."""
    db = Database(f"sqlite:///{tmp_path / 'node.sqlite'}")
    with db.write() as session:
        written = session.execute(text("PRAGMA cache_size")).scalar_one()
    with db.read() as session:
        assert session.execute(text("PRAGMA cache_size")).scalar_one() >= written / 4  # negative: KiB
    db.dispose()


def test_giving_back_is_nothing_where_there_is_nothing_to_give(database_url: str) -> None:
    db = Database(database_url)
    db.give_back()
    with db.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    db.dispose()
