"""`verbale fsck`, `rebuild` and `db`: the node's store."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, open_database, print_json, progress, warn
from app.domain.errors import Refused

if TYPE_CHECKING:
    from app.domain.roster import Roster
    from app.settings import Settings

db = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The database's schema.")


def kept_roster(settings: Settings) -> Roster | None:
    """The roster the node keeps, verified from its pinned root, without network; None if there is none."""
    from app.domain.errors import RosterMissing  # noqa: PLC0415 - see `app.cli`
    from app.roster import RosterClient  # noqa: PLC0415

    try:
        pinned = settings.pinned_root.read_bytes()
        return RosterClient(settings.roster_dir, (), pinned).load_local(int(time.time()))
    except (OSError, RosterMissing):
        return None


class ModelsDiffer(Refused):
    """Models and migrations do not agree."""

    code = "models-differ"


@db.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="Schema to go to; by default this version's.")] = "head",
    settings_file: SettingsFile = None,
) -> None:
    """Bring the database's schema up to this version's."""
    from app import migrations  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    database = Database(load_settings(settings_file).database)
    try:
        before = migrations.current_revision(database)
        migrations.upgrade(database, revision)
        after = migrations.current_revision(database)
    finally:
        database.dispose()
    print(f"The database is at schema {after}." if before == after else f"Upgraded from schema {before or 'none'} to {after}.")


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Schema to go back to, like -1 or 0001.")],
    settings_file: SettingsFile = None,
) -> None:
    """Take the schema back, for an older version of the program. Stop the node first, and have a copy."""
    from app import migrations  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    database = Database(load_settings(settings_file).database)
    try:
        migrations.downgrade(database, revision)
        after = migrations.current_revision(database)
    finally:
        database.dispose()
    print(f"The database is at schema {after or 'none'}.")


@db.command()
def check(
    database_url: Annotated[
        str, typer.Option(help="An empty database to check on; by default a fresh SQLite file, removed afterwards.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check that the migrations build exactly what the models say, and can be taken back. Needs no settings."""
    from app import migrations  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="verbale-") as scratch:
        database = Database(database_url or f"sqlite:///{Path(scratch) / 'check.db'}")
        try:
            if migrations.current_revision(database) is not None:
                raise Refused("That database is in use: it has a schema already. Give an empty one.")
            migrations.upgrade(database)
            head = migrations.current_revision(database)
            found = migrations.differences(database)
            migrations.downgrade(database, "base")
        finally:
            database.dispose()
    if as_json:
        print_json({"schema": head, "differences": found})
    else:
        for difference in found:
            print(difference)
    if found:
        raise ModelsDiffer("The models say what the migrations do not build. Write a migration.")
    if not as_json:
        print(f"The migrations up to {head} build what the models say.")
