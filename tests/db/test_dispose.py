"""What becomes of connections that are in use when a database is closed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from app.db import Database

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("begin", [Database.read, Database.write])
def test_a_connection_that_comes_back_after_the_end_is_closed(
    database_url: str, begin: Callable[[Database], AbstractContextManager[Session]]
) -> None:
    db = Database(database_url)
    with begin(db) as session:
        session.execute(text("SELECT 1"))
        used = session.connection().connection.driver_connection
        db.dispose()
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    assert used is not None
    with pytest.raises(Exception, match="closed"):
        used.cursor().execute("SELECT 1")
    with db.write() as session:  # and whoever goes on all the same gets connections that are kept
        first = session.connection().connection.driver_connection
    with db.write() as session:
        assert session.connection().connection.driver_connection is first
    db.dispose()
    assert first is not None
    with pytest.raises(Exception, match="closed"):
        first.cursor().execute("SELECT 1")
    del used, first
    gc.collect()
