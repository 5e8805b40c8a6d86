"""`verbale policy`: whose cosignatures confirm a log, for verifiers that know nothing of rosters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import SettingsFile, load_settings, read_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.roster import Roster


def policy(
    origin: Annotated[
        str | None, typer.Argument(metavar="ORIGIN", help="Of the log; by default this node's own.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="A roster's repository, instead of what this node has verified.")
    ] = None,
    roster_root: Annotated[
        Path | None, typer.Option("--roster-root", help="The roster's root, obtained out of band.")
    ] = None,
    settings_file: SettingsFile = None,
) -> None:
    """Print the C2SP tlog-policy of a log: its keys, the witnesses that count, and how many must cosign."""
    from app.replication.witness import policy_of  # noqa: PLC0415 - see `app.cli`

    foreign: Sequence[str] = ()
    if repository is not None:
        if origin is None or roster_root is None:
            raise typer.BadParameter("with --repository name ORIGIN and --roster-root")
        roster = _verified(repository, roster_root)
    else:
        settings = load_settings(settings_file)
        roster = _verified(settings.roster_dir / "repository", settings.pinned_root)
        if origin in (None, settings.origin):
            origin, foreign = settings.origin, settings.witnesses
    sys.stdout.buffer.write(policy_of(roster, str(origin), foreign).encode())


def _verified(repository: Path, pinned_root: Path) -> Roster:
    from app.domain.errors import RosterMissing  # noqa: PLC0415 - see `app.cli`
    from app.roster import ceremony  # noqa: PLC0415

    found = ceremony.current(repository, read_file(pinned_root))
    if found is None:
        raise RosterMissing(
            f"{repository} holds no roster. Start the node once, or name a repository that has one."
        )
    return found.roster
