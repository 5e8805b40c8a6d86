"""Worlds whose EE node is on the engine under test."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.settings import load
from app.setup import begin_log
from tests.federation.world import World, make_template


@pytest.fixture(scope="session")
def node_templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of nodes that have keys, a schema and an empty log."""
    directory = tmp_path_factory.mktemp("templates")
    for code in ("EE", "US", "NL"):
        make_template(directory, code)
    return directory


@pytest.fixture
def world(tmp_path: Path, node_templates: Path, database_url: str) -> Iterator[World]:
    """Three States; the database of EE is the one under test."""

    def database(code: str) -> str:
        if code != "EE":
            return ""
        begin_log(
            replace(load(node_templates / code / "node.toml", environment={}), database_url=database_url)
        )
        return database_url

    with closing(World(tmp_path / "world", node_templates, database=database)) as made:
        yield made
