"""A node's database, migrated once and copied for each test, and its webhook setup."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from app import migrations
from app.db import Database
from tests import pg
from tests.notify.receivers import Receiver, SettableClock, loopback_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from app.notify.setup import WebhookSetup


def migrate(url: str) -> None:
    database = Database(url)
    migrations.upgrade(database)
    database.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "node.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_dsn: str) -> Iterator[str]:
    """The name of a database to copy."""
    url = pg.create_database(postgres_dsn, None)
    migrate(url)
    yield make_url(url).database or ""
    pg.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    shutil.copyfile(migrated_sqlite, tmp_path / "node.sqlite")
    return f"sqlite:///{tmp_path / 'node.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database with the schema in it."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        return url
    fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
    return fresh(request.getfixturevalue("migrated_postgresql"))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def setup(tmp_path: Path) -> WebhookSetup:
    return loopback_setup(tmp_path / "keys")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running
