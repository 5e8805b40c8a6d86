"""Fixtures of the roster's tests."""

from pathlib import Path

import pytest

from tests.roster.federation import Federation


@pytest.fixture(scope="session")
def _four_founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = Federation(tmp_path_factory.mktemp("four") / "roster")
    made.found()
    return made


@pytest.fixture(scope="session")
def _two_founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = Federation(
        tmp_path_factory.mktemp("two") / "roster", codes=("EE", "JP"), online_codes=("EE", "JP")
    )
    made.found()
    return made


@pytest.fixture
def federation(_four_founded: Federation, tmp_path: Path) -> Federation:
    """Four States, founded; the test's own copy."""
    return _four_founded.copy(tmp_path / "roster")


@pytest.fixture
def two_states(_two_founded: Federation, tmp_path: Path) -> Federation:
    """Two States, founded: the smallest federation with every kind of file."""
    return _two_founded.copy(tmp_path / "roster")
