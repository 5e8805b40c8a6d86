"""What every test may ask for: databases. Each test gets its own, empty, gone afterwards."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import make_url

from app import migrations
from app.db import Database
from tests import pg
from tests.federation.world import CODES, make_template

# How long an example takes says more about what else the machine is doing than about the code.
hypothesis.settings.register_profile("verbale", deadline=None)
hypothesis.settings.load_profile("verbale")


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The URL of a PostgreSQL server's database `postgres`, started when the first test asks for it."""
    with pg.running() as url:
        yield url


@pytest.fixture
def fresh_pg_database(postgres_dsn: str) -> Iterator[Callable[[str | None], str]]:
    """A function that makes a database, empty or a copy of the one named, and returns its URL."""
    made: list[str] = []

    def fresh(template: str | None = None) -> str:
        made.append(pg.create_database(postgres_dsn, template))
        return made[-1]

    yield fresh
    for url in made:
        pg.drop_database(url)


def _migrated(url: str) -> None:
    database = Database(url)
    migrations.upgrade(database)
    database.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the schema and nothing in it, to be copied: its migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("schema") / "node.sqlite"
    _migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_dsn: str) -> Iterator[str]:
    """The name of a database with the schema and nothing in it, to be copied."""
    url = pg.create_database(postgres_dsn, None)
    _migrated(url)
    yield make_url(url).database or ""
    pg.drop_database(url)


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """The URL of a database with the schema and nothing in it, on SQLite."""
    return f"sqlite:///{shutil.copyfile(migrated_sqlite, tmp_path / 'node.sqlite')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema and nothing in it; a test that takes it runs once on each engine."""
    if request.param == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        return url
    fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
    return fresh(request.getfixturevalue("migrated_postgresql"))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Path:
    """Folders of nodes that have keys, a schema and an empty log, named by their States; to be copied."""
    directory = tmp_path_factory.mktemp("templates")
    for code in CODES:
        make_template(directory, code, migrated_sqlite)
    return directory


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without even a schema, on each engine: for tests of migrations."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.sqlite'}"
    fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
    return fresh(None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that with a worker a core none of them is begun when the others are done.

    A file stays whole: its fixtures are made once, and one worker runs it (`--dist loadfile`).
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
