"""A node's database and its webhook setup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.db import Database
from tests.notify.receivers import Receiver, SettableClock, loopback_setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.notify.setup import WebhookSetup


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
