"""Worlds whose EE node is on the engine under test."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.federation.world import World, with_one_database


@pytest.fixture
def world(tmp_path: Path, templates: Path, database_url: str) -> Iterator[World]:
    """Three States; the database of EE is the one under test."""

    with closing(with_one_database(tmp_path / "world", templates, "EE", database_url)) as made:
        yield made
