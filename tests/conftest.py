"""What every test may ask for: databases. Each test gets its own, empty, gone afterwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import pg

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


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; a test that takes it runs once on each engine."""
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
