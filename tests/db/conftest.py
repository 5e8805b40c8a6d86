"""Worlds whose US node is on the engine under test."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests import pg
from tests.db.own_log import begin
from tests.federation.world import World, with_one_database


@pytest.fixture
def world(tmp_path: Path, templates: Path, database_url: str) -> Iterator[World]:
    """Three States; the database of the US is the one under test."""

    with closing(with_one_database(tmp_path / "world", templates, "US", database_url)) as made:
        yield made


@pytest.fixture(scope="session")
def _sqlite_log(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    shutil.copyfile(migrated_sqlite, path)
    begin(f"sqlite:///{path}")[0].dispose()
    return path


@pytest.fixture(scope="session")
def _postgresql_log(postgres_dsn: str, migrated_postgresql: str) -> Iterator[str]:
    url = pg.create_database(postgres_dsn, migrated_postgresql)
    begin(url)[0].dispose()
    yield url
    pg.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with an empty own log of EE and nothing else, on each engine; a copy, which is quick."""
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(request.getfixturevalue('_sqlite_log'), tmp_path / 'log.sqlite')}"
    fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
    return fresh(make_url(request.getfixturevalue("_postgresql_log")).database)
