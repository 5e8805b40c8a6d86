"""Building and checking the schema: alembic, driven from code so that the URL comes from the settings alone.

A node whose schema is current, which is nearly every start, does not load alembic.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from app.db import MIGRATION_LOCK
from app.domain.errors import NodeFault
from app.models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from sqlalchemy import Connection

    from app.db import Database

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"
_VERSION_TABLE = "alembic_version"


class SchemaNotCurrent(NodeFault):
    """The database's schema is not the one this version needs."""

    code = "schema-not-current"


def revisions() -> list[str]:
    """The revisions that this version knows, oldest first: one follows another, and each file's name begins with its own."""
    return sorted(script.name.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*_*.py"))


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see the module

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the schema to `revision`. Safe to run from several processes at once; a crash leaves whole migrations only."""
    if revision in {"head", revisions()[-1]} and current_revision(database) == revisions()[-1]:
        return
    from alembic import command  # noqa: PLC0415 - see the module

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
    from alembic import command  # noqa: PLC0415 - see the module

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
    with database.write_engine.execution_options(verbale_write=True).connect() as connection:
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
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        revision: str | None = connection.execute(
            text(f"SELECT version_num FROM {_VERSION_TABLE}")  # noqa: S608 - our own name
        ).scalar_one_or_none()
        return revision


def check_current(database: Database) -> None:
    """Check that the schema is at this version's head.

    Raises:
        SchemaNotCurrent: it is not; `verbale db upgrade` mends it.
    """
    head = revisions()[-1]
    current = current_revision(database)
    if current != head:
        raise SchemaNotCurrent(
            f"The database is at schema {current or 'none'}, this version needs {head}. Run: verbale db upgrade"
        )


def differences(database: Database) -> list[str]:
    """What the models say that the migrated schema does not, one line each; empty when they agree (`alembic check`)."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - see the module
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    with database.engine.connect() as connection:
        found = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    return [str(difference) for difference in found]
