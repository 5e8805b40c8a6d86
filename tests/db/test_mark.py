"""A mark says that something was committed, and says it when that can be read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from app.db import Database
from app.events import Event, emit
from app.models import EventRow
from tests.db.own_log import open_log


@pytest.fixture
def db(log_url: str) -> Iterator[Database]:
    db, _ = open_log(log_url)
    yield db
    db.dispose()


def test_a_mark_differs_after_every_commit_and_only_then(db: Database) -> None:
    if not db.is_sqlite:
        assert db.mark() is None
        return
    other = Database(db.url.render_as_string(hide_password=False))
    seen = {before := db.mark()}
    for committer in (db, other, db):
        with committer.write() as session:
            emit(committer, session, [Event("roster.changed")], now=0)
            assert db.mark() == before, "nothing is committed yet"
        before = db.mark()
        assert before not in seen
        seen.add(before)
        with db.read() as session:
            assert session.execute(select(func.count()).select_from(EventRow)).scalar_one() == len(seen) - 1
        assert db.mark() == before, "reading commits nothing"
    other.dispose()


def test_what_is_found_under_a_mark_is_all_that_was_committed_before_it(db: Database) -> None:
    """However long a commit takes to be durable: the files have changed by then, and nothing can be read yet."""
    if not db.is_sqlite:
        return
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(_several, db, 300)
        while not writing.done():
            before, found = db.mark(), _count(db)
            if db.mark() == before:
                assert _count(db) == found or db.mark() != before


def _several(db: Database, commits: int) -> None:
    for _ in range(commits):
        with db.write() as session:
            emit(db, session, [Event("roster.changed")], now=0)


def _count(db: Database) -> int:
    with db.read() as session:
        return session.execute(select(func.count()).select_from(EventRow)).scalar_one()
