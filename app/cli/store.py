"""`verbale fsck`, `rebuild` and `db`: the node's store."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import (
    DONE,
    REFUSED,
    AsJson,
    SettingsFile,
    load_settings,
    open_database,
    print_json,
    progress,
    warn,
)
from app.domain.errors import NodeFault, Refused, RosterMissing

if TYPE_CHECKING:
    from app.cli.common import Progress
    from app.domain.roster import Roster
    from app.projections.rebuild import Rebuilt
    from app.settings import Settings
    from app.tlog.fsck import Keys, LogReport

db = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The database's schema.")


def kept_roster(settings: Settings) -> Roster | None:
    """The roster the node keeps, verified from its pinned root, without network; None if there is none."""
    from app.roster import RosterClient  # noqa: PLC0415 - see `app.cli`

    try:
        pinned = settings.pinned_root.read_bytes()
        return RosterClient(settings.roster_dir, (), pinned).load_local(int(time.time()))
    except (OSError, RosterMissing):
        return None


def newest_roster(settings: Settings) -> Roster:
    """The newest roster that the node's sources give, adopted as the node itself would; the one it keeps if none answers.

    Raises:
        RosterMissing: there is none, or the pinned root cannot be read.
    """
    from app.roster import RosterClient  # noqa: PLC0415 - see `app.cli`

    try:
        pinned = settings.pinned_root.read_bytes()
    except OSError as error:
        raise RosterMissing(
            f"The pinned roster root {settings.pinned_root} cannot be read: {error.strerror}."
        ) from error
    sources = tuple(s if s.startswith(("http://", "https://")) else Path(s) for s in settings.roster_sources)
    client, now = RosterClient(settings.roster_dir, sources, pinned), int(time.time())
    with suppress(RosterMissing):
        client.load_local(now)
    return client.refresh(now)


# ── the log check ─────────────────────────────────────────────────────────────────────────────────────────────────


def fsck(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Derive every hash of the stored logs again and name, for each log, the first thing that differs.

    Only reads, and may run while the node does. Exit code 0: clean; 1: something differs.
    """
    from app.tlog.fsck import check_log, logs_of  # noqa: PLC0415 - see `app.cli`

    settings = load_settings(settings_file)
    roster = kept_roster(settings)
    if roster is None:
        warn(
            "the node holds no verified roster, so signatures of other States cannot be checked; hashes are."
        )
    keys = _keys(settings, roster)
    reports = []
    with open_database(settings) as database:
        logs = logs_of(database)
        done = 0
        with progress("Checking", sum(size for _, _, size in logs)) as show:
            for log_id, origin, size in logs:
                show(done, origin)
                reports.append(check_log(database, log_id, keys, partial(_shift, show, done)))
                done += size
    dirty = [report for report in reports if report.difference is not None]
    if as_json:
        print_json({"clean": not dirty, "logs": [_as_dict(report) for report in reports]})
        raise typer.Exit(REFUSED if dirty else DONE)
    for report in reports:
        for line in _report_lines(report):
            print(line)
    if dirty:
        raise StoreDiffers(
            f"{len(dirty)} of {len(reports)} logs differ from what their leaves say. Stop the node and see docs/operations.md."
        )


class StoreDiffers(Refused):
    """The log check found something."""

    code = "store-differs"


def _keys(settings: Settings, roster: Roster | None) -> Keys:
    from app.keyfiles import card_path, read_card  # noqa: PLC0415 - see `app.cli`
    from app.tlog.cosignature import CosignerKey  # noqa: PLC0415
    from app.tlog.fsck import Keys  # noqa: PLC0415
    from app.tlog.note import VerifierKey  # noqa: PLC0415

    try:
        own = [VerifierKey(settings.origin, read_card(card_path(settings.keys_dir / "log.key")).key)]
    except Refused:
        own = []
    return Keys.of(roster, own, [CosignerKey.parse(line.partition(" ")[0]) for line in settings.witnesses])


def _report_lines(report: LogReport) -> list[str]:
    found = report.difference
    if found is not None:
        return [
            f"DIFFERS {report.origin}: {found.what}",
            f"        expected {found.expected}",
            f"        found    {found.found}",
        ]
    unchecked = f"; {report.unchecked} signatures by keys no roster at hand lists" if report.unchecked else ""
    counts = (
        f"{report.leaves} leaves, {report.entries} entries, {report.bodies} body parts, {report.tiles} tiles, "
        f"{report.heads} heads, {report.cosignatures} cosignatures"
    )
    return [f"clean   {report.origin}: {counts}{unchecked}"]


# ── rebuilding ────────────────────────────────────────────────────────────────────────────────────────────────────


def rebuild(
    settings_file: SettingsFile = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            help="Even while the node answers: its writes wait, and posts may be told to come back.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop every table that is a view of the logs and fold it again from the leaves and bodies held.

    One log is one transaction, which holds the log's lock: a crash leaves each log either as it was or refolded, and
    running it again does the rest. Nothing is sent, and no event is emitted. Refused while the node's server answers.
    """
    from app.judging import Judges  # noqa: PLC0415
    from app.projections.rebuild import Live, rebuild_log  # noqa: PLC0415
    from app.record import record_mirrored  # noqa: PLC0415
    from app.tlog.fsck import logs_of  # noqa: PLC0415

    settings = load_settings(settings_file)
    if not online and answers(settings):
        raise ServerRuns(
            f"A server answers on port {settings.listen_port}. Stop the node first, or give --online to let its writes wait."
        )
    roster = kept_roster(settings)
    if roster is None:
        raise RosterMissing(
            "The node holds no verified roster, so no leaf can be judged. Start the node once to fetch it."
        )
    judges = Judges(processes=0)
    live = Live(judges.leaves, record_mirrored)
    rebuilt = []
    with open_database(settings) as database, closing(judges):
        logs = logs_of(database)
        done, now = 0, time.time_ns() // 1_000_000
        with progress("Folding", sum(size for _, _, size in logs)) as show:
            for log_id, origin, size in logs:
                show(done, origin)
                step = partial(_shift, show, done)
                rebuilt.append(
                    rebuild_log(database, log_id, live=live, roster=roster, now=now, progress=step)
                )
                done += size
    if as_json:
        print_json([_as_dict(one) for one in rebuilt])
        return
    for one in rebuilt:
        before = "" if one.flagged == one.flagged_before else f" ({one.flagged_before} before)"
        print(
            f"{one.origin}: {one.leaves} leaves folded, {one.notices} notices, {one.flagged} flagged{before}"
        )


class ServerRuns(NodeFault):
    """The node's server runs on the database that is to be rebuilt."""

    code = "server-runs"


def answers(settings: Settings) -> bool:
    """Whether a server of this node answers on this machine."""
    from app.cli.node import NotAlive, ask_health  # noqa: PLC0415 - see `app.cli`

    try:
        ask_health(settings, "/health/live")
    except NotAlive:
        return False
    return True


def _shift(show: Progress, before: int, done: int) -> None:
    show(before + done)


def _as_dict(one: LogReport | Rebuilt) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 - see `app.cli`

    return asdict(one)


# ── the schema ────────────────────────────────────────────────────────────────────────────────────────────────────


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
    print(
        f"The database is at schema {after}."
        if before == after
        else f"Upgraded from schema {before or 'none'} to {after}."
    )


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
        str,
        typer.Option(
            help="An empty database to check on; by default a fresh SQLite file, removed afterwards."
        ),
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
        raise typer.Exit(REFUSED if found else DONE)
    for difference in found:
        print(difference)
    if found:
        raise ModelsDiffer("The models say what the migrations do not build. Write a migration.")
    print(f"The migrations up to {head} build what the models say.")
