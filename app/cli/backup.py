"""`verbale backup` and `verbale restore`: an encrypted copy of what a node cannot get back from others."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, open_database, print_json, read_file
from app.domain.errors import Malformed

if TYPE_CHECKING:
    from app.backup import Manifest, Passphrase
    from app.db import Database
    from app.domain.roster import Roster
    from app.settings import Settings

MAX_PASSPHRASE = 1024

PassphraseFile = Annotated[
    Path,
    typer.Option("--passphrase-file", help="File whose first line is the passphrase, - for standard input."),
]


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The main file to write; replaced if it exists.")
    ],
    body_keys: Annotated[
        Path,
        typer.Option(
            "--body-keys", help="The key file to write. Keep one generation only, apart from the main files."
        ),
    ],
    passphrase_file: PassphraseFile,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a consistent, encrypted copy while the node runs. Private keys and settings are not in it: copy them once, apart.

    An old main file with the newest key file brings back no body that was erased in between.
    """
    from app import backup as backups  # noqa: PLC0415 - see `app.cli`
    from app import migrations  # noqa: PLC0415

    if file.resolve() == body_keys.resolve():
        raise Malformed("The main file and the key file have to be two files, kept in two places.")
    passphrase, now = _passphrase(passphrase_file), time.time_ns() // 1_000_000
    with open_database(load_settings(settings_file)) as database:
        revision = migrations.current_revision(database) or ""
        # Bodies first: a key written later than its body opens it; a body without a key would be noise.
        made = [
            backups.write(database, path, kind, passphrase, now=now, revision=revision)
            for path, kind in ((file, backups.MAIN), (body_keys, backups.KEYS))
        ]
    _print(made[0], file, as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The main file.")],
    passphrase_file: PassphraseFile,
    body_keys: Annotated[
        Path | None,
        typer.Option(
            "--body-keys", help="The newest key file. Without it no body opens, and all are asked for again."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only verify the files, whole; needs no settings and writes nothing."),
    ] = False,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore into an empty database, SQLite or PostgreSQL, whichever the settings name.

    The node then starts behind its gate: it signs, takes and shows nothing before it is level with the other States, so
    that nothing is signed twice and nothing that was erased meanwhile comes back.
    """
    from app import backup as backups  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    passphrase = _passphrase(passphrase_file)
    if check:
        manifest = backups.read(file, backups.MAIN, passphrase)
        if body_keys is not None:
            backups.read(body_keys, backups.KEYS, passphrase)
        _print(manifest, file, as_json=as_json)
        return
    settings = load_settings(settings_file)
    roster = _roster(settings)
    database, now = Database(settings.database), time.time_ns() // 1_000_000
    try:
        manifest = backups.restore(database, file, body_keys, passphrase, origin=settings.origin, now=now)
        _fold(database, roster, now)
    finally:
        database.dispose()
    (settings.data_dir / "first-start").unlink(missing_ok=True)
    _print(manifest, file, as_json=as_json)


def _fold(database: Database, roster: Roster, now: int) -> None:
    """Make the tables that are views of the logs anew: a backup holds none of them."""
    from app.judging import Judges  # noqa: PLC0415 - see `app.cli`
    from app.projections.rebuild import Live, rebuild_log  # noqa: PLC0415
    from app.record import record_mirrored  # noqa: PLC0415
    from app.tlog.fsck import logs_of  # noqa: PLC0415

    with closing(Judges(processes=0)) as judges:
        for log_id, _, _ in logs_of(database):
            rebuild_log(database, log_id, live=Live(judges.leaves, record_mirrored), roster=roster, now=now)


def _roster(settings: Settings) -> Roster:
    """The roster kept in the node's folder, or fetched from its sources: without one no leaf can be judged."""
    from app.cli.store import kept_roster, newest_roster  # noqa: PLC0415 - see `app.cli`

    kept = kept_roster(settings)
    return newest_roster(settings) if kept is None else kept


def _passphrase(path: Path) -> Passphrase:
    from app.backup import Passphrase  # noqa: PLC0415 - see `app.cli`

    return Passphrase(read_file(path, limit=MAX_PASSPHRASE).split(b"\n", 1)[0].rstrip(b"\r"))


def _print(manifest: Manifest, file: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(manifest.to_dict())
        return
    rows = sum(count for count, _ in manifest.tables.values())
    print(
        f"{file}: {manifest.origin}, {manifest.size} leaves of its own log, {rows} rows in {len(manifest.tables)} tables, every hash checked."
    )
