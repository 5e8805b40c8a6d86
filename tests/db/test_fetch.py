"""Rows straight from the driver are those of SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import bindparam, literal, select

from app.db import Database, execute, fetch
from app.models import CounterRow, LogRow
from tests.db.own_log import open_log


@pytest.fixture
def db(log_url: str) -> Iterator[Database]:
    db, _ = open_log(log_url)
    yield db
    db.dispose()


LOGS = select(LogRow.__table__).where(LogRow.__table__.c.state == bindparam("state"))
OWN = select(LogRow.origin.label("its_origin"), LogRow.is_own, literal(7).label("seven")).where(
    LogRow.epoch == 1, LogRow.state.in_([literal("EE"), literal("US")])
)


@pytest.mark.parametrize(
    ("statement", "values"), [(LOGS, {"state": "EE"}), (LOGS, {"state": "NL"}), (OWN, {})], ids=str
)
def test_rows_have_the_values_types_and_names_that_sqlalchemy_gives(
    db: Database, statement: Any, values: dict[str, Any]
) -> None:
    with db.read() as session:
        wanted = execute(session, statement, **values).all()
        found = fetch(session, statement, **values)
    assert [row._asdict() for row in found] == [row._asdict() for row in wanted]
    assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in wanted]


def test_it_reads_in_the_sessions_snapshot(db: Database) -> None:
    values = select(CounterRow.value).where(CounterRow.name == "x")
    with db.read() as session:
        assert fetch(session, values) == []
        with db.write() as other:
            db.next_values(other, "x", 3)
        assert fetch(session, values) == []
    with db.read() as session:
        assert fetch(session, values) == [(3,)]


def test_a_list_that_is_expanded_when_executed_is_refused(db: Database) -> None:
    with db.read() as session, pytest.raises(TypeError, match="expanded"):
        fetch(session, select(LogRow.id).where(LogRow.state.in_(["EE", "US"])))
