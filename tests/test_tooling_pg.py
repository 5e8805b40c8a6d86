"""The PostgreSQL that the tests run on."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests import pg


def test_each_test_gets_an_empty_database_of_its_own(empty_url: str) -> None:
    engine = create_engine(empty_url)
    with engine.begin() as tx:
        tx.execute(
            text("CREATE TABLE mine (x integer)")
        )  # would fail in a database that another run has used
    engine.dispose()


def test_a_database_can_be_copied_from_a_template(fresh_pg_database: Callable[[str | None], str]) -> None:
    template = fresh_pg_database(None)
    engine = create_engine(template)
    with engine.begin() as tx:
        tx.execute(text("CREATE TABLE migrated (x integer)"))
    name = engine.url.database
    engine.dispose()
    copy = create_engine(fresh_pg_database(name))
    with copy.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM migrated")).scalar_one() == 0
    copy.dispose()


def test_a_database_that_the_tests_did_not_make_is_not_dropped(postgres_dsn: str) -> None:
    with pytest.raises(AssertionError, match="not a database of the tests"):
        pg.drop_database(postgres_dsn)


# Whoever names a server of their own wants it to be there afterwards; the keeper is tried wherever the tests start one.
@pytest.mark.skipif("TEST_PG_DSN" in os.environ, reason="the server is not ours to stop")
@pytest.mark.parametrize("end", [signal.SIGTERM, None], ids=["SIGTERM", "its-caller-dies"])
def test_the_server_and_its_files_go_with_whoever_asked_for_them(end: signal.Signals | None) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(pg.KEEPER, cwd=pg.ROOT, stdin=pipe, stdout=pipe, text=True) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        url = keeper.stdout.readline().strip()
        folder = Path(url.partition("host=")[2])
        assert folder.stat().st_mode & 0o777 == 0o700
        if end is None:
            keeper.stdin.close()
        else:
            keeper.send_signal(end)
        assert keeper.wait(60) == 0
    assert not folder.exists()


def test_no_postgresql_is_an_error_with_advice_and_no_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_PG_BINDIR", str(tmp_path))
    with pytest.raises(pg.NoPostgres, match="TEST_PG_BINDIR"):
        pg.find_binaries()
