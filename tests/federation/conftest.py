"""Fixtures of the federation's tests: worlds made of templates of nodes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from app.settings import load
from app.setup import begin_log
from tests import pg
from tests.federation.world import CODES, World


@pytest.fixture
def world(tmp_path: Path, templates: Path) -> Iterator[World]:
    """Three States, none of their nodes running yet, on SQLite."""
    with ExitStack() as stack:
        made = World(tmp_path / "world", templates)
        stack.callback(made.close)
        yield made


@pytest.fixture
def five(tmp_path: Path, templates: Path) -> Iterator[World]:
    """Five States: the smallest federation in which a quorum is not everybody (3 of 4 witnesses)."""
    with ExitStack() as stack:
        made = World(tmp_path / "five", templates, CODES)
        stack.callback(made.close)
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def world_on_both(request: pytest.FixtureRequest, tmp_path: Path, templates: Path) -> Iterator[World]:
    """The same, once on each engine."""
    database: Callable[[str], str] | None = None
    if request.param == "postgresql":
        database = request.getfixturevalue("pg_node")
    with ExitStack() as stack:
        made = World(tmp_path / "world", templates, database=database)
        stack.callback(made.close)
        yield made


@pytest.fixture(scope="session")
def _pg_templates(
    postgres_dsn: str, migrated_postgresql: str, templates: Path
) -> Iterator[Callable[[str], str]]:
    """A function that gives the URL of a State's empty log on PostgreSQL, built once, to be copied."""
    made: dict[str, str] = {}

    def template(code: str) -> str:
        if code not in made:
            made[code] = pg.create_database(postgres_dsn, migrated_postgresql)
            settings = load(templates / code / "node.toml", environment={})
            begin_log(replace(settings, database_url=made[code]))
        return made[code]

    yield template
    for url in made.values():
        pg.drop_database(url)


@pytest.fixture
def pg_node(
    fresh_pg_database: Callable[[str | None], str], _pg_templates: Callable[[str], str]
) -> Callable[[str], str]:
    """A function that makes a PostgreSQL database with the empty log of a State."""
    return lambda code: fresh_pg_database(make_url(_pg_templates(code)).database)
