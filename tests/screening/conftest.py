"""Worlds whose EE node is on the engine under test."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.federation.world import World, make_template, with_one_database


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

    with closing(with_one_database(tmp_path / "world", node_templates, "EE", database_url)) as made:
        yield made
