"""Building and checking the schema: alembic, driven from code so that the URL comes from the settings alone."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.db import MIGRATION_LOCK
from app.domain.errors import NodeFault
from app.models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from app.db import Database

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"


class SchemaNotCurrent(NodeFault):
    """The database's schema is not the one this version needs."""

    code = "schema-not-current"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to `revision`. Safe to run from several processes at once; a crash leaves whole migrations only."""
    with _connected(database) as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        try:
            command.upgrade(_config(connection), revision)
            connection.commit()
        finally:
            if not database.is_sqlite:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
                connection.commit()


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to `revision`."""
    with _connected(database) as connection:
        command.downgrade(_config(connection), revision)
        connection.commit()


@contextmanager
def _connected(database: Database) -> Iterator[Connection]:
    """A connection for migrations.

    SQLite changes a column by making the table anew, and would not let go of a table that others refer to. So it checks
    references when the migration is over, not while it runs (its own advice, "Making Other Kinds Of Table Schema
    Changes"); a crash in between leaves the database as it was, since the migration was one transaction.

    Raises:
        NodeFault: a row refers to one that is not there.
    """
    with database.engine.execution_options(verbale_write=True).connect() as connection:
        if not database.is_sqlite:
            yield connection
            return
        driver = connection.connection.cursor()  # outside of any transaction, where alone this pragma works
        driver.execute("PRAGMA foreign_keys = OFF")
        try:
            yield connection
            broken = driver.execute("PRAGMA foreign_key_check").fetchmany(5)
        finally:
            connection.rollback()
            driver.execute("PRAGMA foreign_keys = ON")
            driver.close()
        if broken:
            raise NodeFault(f"After the migration rows refer to nothing: {broken}. Restore the backup.")


def current_revision(database: Database) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check_current(database: Database) -> None:
    """Check that the schema is at this version's head.

    Raises:
        SchemaNotCurrent: it is not; `verbale db upgrade` mends it.
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    current = current_revision(database)
    if current != head:
        raise SchemaNotCurrent(
            f"The database is at schema {current or 'none'}, this version needs {head}. Run: verbale db upgrade"
        )


def differences(database: Database) -> list[str]:
    """What the models say that the migrated schema does not, one line each; empty when they agree (`alembic check`)."""
    with database.engine.connect() as connection:
        found = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    return [str(difference) for difference in found]
