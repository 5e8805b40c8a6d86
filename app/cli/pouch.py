"""`verbale pouch`: notices for a State that no wire reaches, in one file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import (
    DONE,
    REFUSED,
    AsJson,
    SettingsFile,
    load_settings,
    open_database,
    print_json,
    print_table,
    progress,
    read_file,
    warn,
)
from app.domain.errors import Malformed, NodeFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from app.domain.roster import Roster
    from app.pouch.inspect import Inspection
    from app.pouch.manifest import Manifest
    from app.pouch.unpack import Unpacked
    from app.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Pack, inspect and unpack a pouch: what a State has missed, in one file, for any carrier.",
)

MAX_SIZES_BYTES: Final = 2**20

PouchFile = Annotated[Path, typer.Argument(metavar="POUCH", help="The pouch.")]


class NoRoster(NodeFault):
    """The node holds no verified roster, so it cannot say for whom it packs."""

    code = "roster-missing-here"


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="POUCH", help="Where the pouch goes; never overwritten.")],
    to: Annotated[str, typer.Option("--for", help="The State it is for, for instance EE.")],
    sizes: Annotated[
        Path | None,
        typer.Option(
            "--sizes",
            help="What the State holds, as its `verbale pouch sizes` wrote it. By default what its cosignatures prove.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="From the beginning of every log.")
    ] = False,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Pack what a State has missed of every log, with the roster, receipts and the bodies that are for it.

    Bodies that are not for everybody are sealed to the State's encryption key. May run while the node does.
    """
    from app.pouch.pack import leaves_to_pack, pack  # noqa: PLC0415 - see `app.cli`
    from app.roster import RosterClient  # noqa: PLC0415

    settings = load_settings(settings_file)
    roster = _roster(settings)
    since = {} if everything else None if sizes is None else _read_sizes(sizes)
    files = RosterClient(settings.roster_dir, (), b"").repository
    with (
        open_database(settings) as database,
        progress("Packing", leaves_to_pack(database, to, since)) as show,
    ):
        packed = pack(
            database,
            file,
            by=settings.state,
            to=to,
            roster=roster,
            roster_files=files,
            now=int(time.time()),
            since=since,
            show=show,
        )
    if packed.unsealed:
        warn(
            f"{packed.unsealed} bodies that are for {to} were left out: the roster lists no encryption key of {to}. It gets "
            "them over the wire, or in a pouch after it has listed one."
        )
    if as_json:
        print_json(
            {
                "file": str(file),
                "bytes": file.stat().st_size,
                "unsealed": packed.unsealed,
                **_manifest(packed.manifest),
            }
        )
        return
    _print_manifest(packed.manifest)
    print(f"{file}: {file.stat().st_size} bytes, for {to}.")


@app.command()
def sizes(settings_file: SettingsFile = None) -> None:
    """Print what this node holds of every log, for whoever packs a pouch for it: one JSON object."""
    from sqlalchemy import select  # noqa: PLC0415 - see `app.cli`

    from app.models import LogRow  # noqa: PLC0415

    with open_database(load_settings(settings_file)) as database, database.read() as session:
        rows = session.execute(select(LogRow.origin, LogRow.head_size).order_by(LogRow.origin)).all()
    print_json({row.origin: row.head_size for row in rows})


@app.command()
def inspect(
    file: PouchFile,
    roster_root: Annotated[
        Path | None,
        typer.Option("--roster-root", help="The roster's root, obtained out of band; by default the node's."),
    ] = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Check all that a pouch proves, offline and without changing anything. Exit code 0: proven; 1: refused."""
    from app.pouch.archive import opened, size_of  # noqa: PLC0415 - see `app.cli`
    from app.pouch.inspect import inspect  # noqa: PLC0415
    from app.pouch.manifest import read_manifest  # noqa: PLC0415

    pinned = read_file(roster_root or load_settings(settings_file).pinned_root)
    with progress("Comparing the digest", size_of(file)) as compared, opened(file, compared) as pouch:
        digest = pouch.digest
        with progress("Checking", sum(c.end - c.start for c in read_manifest(pouch).logs)) as show:
            found = inspect(pouch, pinned, show)
    if as_json:
        print_json(_inspection(found, digest))
        return
    for line in _inspection_lines(found):
        print(line)
    rows = [
        (
            log.carried.origin,
            f"{log.carried.start} to {log.carried.end}",
            ", ".join(log.cosigned_by) or "nobody",
            log.open_bodies,
            log.sealed_bodies,
        )
        for log in found.logs
    ]
    print_table(("log", "leaves", "cosigned by", "open bodies", "sealed bodies"), rows)
    print("Proven: every head, hash, leaf and open body. What is sealed is proven when it is opened.")


@app.command()
def unpack(file: PouchFile, settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Take a pouch into this node: verified, judged and cosigned as if it had come over the wire.

    May be run again, also after it was cut off, and while the node's server runs. Exit code 0: all was taken; 1: a log
    was not, with the reason.
    """
    from app.clock import system_clock  # noqa: PLC0415 - see `app.cli`
    from app.pouch.archive import opened, size_of  # noqa: PLC0415
    from app.pouch.manifest import read_manifest  # noqa: PLC0415
    from app.pouch.unpack import unpack  # noqa: PLC0415

    settings = load_settings(settings_file)
    with progress("Comparing the digest", size_of(file)) as compared, opened(file, compared) as pouch:
        manifest = read_manifest(pouch)
        if manifest.to != settings.state:
            warn(
                f"this pouch was packed for {manifest.to}, and this node is {settings.state}'s: the logs are taken, the sealed "
                "bodies in it do not open here."
            )
        with progress("Unpacking", sum(c.end - c.start for c in manifest.logs)) as show:
            result = unpack(settings, pouch, clock=system_clock, show=show)
    failed = [log for log in result.logs if log.fault is not None]
    if as_json:
        print_json(_unpacked(result))
    else:
        rows = [
            (
                log.origin,
                f"{log.before} to {log.after}" if log.after > log.before else f"{log.after}, nothing new",
                log.bodies,
                log.fault or "",
            )
            for log in result.logs
        ]
        print_table(("log", "leaves", "bodies", "trouble"), rows)
        print(
            f"Roster version {result.roster_version}; {result.receipts} new receipts for this node's own log."
        )
    raise typer.Exit(REFUSED if failed else DONE)


# ── helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _roster(settings: Settings) -> Roster:
    from app.cli.store import kept_roster  # noqa: PLC0415 - see `app.cli`

    roster = kept_roster(settings)
    if roster is None:
        raise NoRoster(
            "This node holds no verified roster. Start it once, so that it fetches one, and pack again."
        )
    return roster


def _read_sizes(file: Path) -> Mapping[str, int]:
    from app.domain.json import parse_strict  # noqa: PLC0415 - see `app.cli`

    value = parse_strict(read_file(file, limit=MAX_SIZES_BYTES))
    if not isinstance(value, dict) or not all(type(size) is int and size >= 0 for size in value.values()):
        raise Malformed(f"{file} is not what `verbale pouch sizes` writes: one object of origins and sizes.")
    return value


def _when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "by": manifest.by,
        "for": manifest.to,
        "at": manifest.at,
        "roster_version": manifest.roster_version,
        "logs": [
            {"origin": c.origin, "from": c.start, "to": c.end, "public": c.public, "sealed": c.sealed}
            for c in manifest.logs
        ],
    }


def _print_manifest(manifest: Manifest) -> None:
    rows = [(c.origin, f"{c.start} to {c.end}", c.public, c.sealed) for c in manifest.logs]
    print_table(("log", "leaves", "open bodies", "sealed bodies"), rows)


def _inspection(found: Inspection, digest: str) -> dict[str, Any]:
    return {
        "proven": True,
        "sha256": digest,
        **_manifest(found.manifest),
        "roster_expires": found.roster.roster.expires,
        "logs": [
            {
                "origin": log.carried.origin,
                "state": log.state,
                "from": log.carried.start,
                "to": log.carried.end,
                "cosigned_by": list(log.cosigned_by),
                "open_bodies": log.open_bodies,
                "sealed_bodies": log.sealed_bodies,
                "confirmations": log.confirmations,
            }
            for log in found.logs
        ],
    }


def _inspection_lines(found: Inspection) -> Iterator[str]:
    manifest, roster = found.manifest, found.roster.roster
    yield f"Packed by {manifest.by} for {manifest.to} on {_when(manifest.at)} (as it says; nothing depends on it)."
    yield f"Roster version {roster.version}, from the pinned root; it expires on {_when(roster.expires)}."


def _unpacked(result: Unpacked) -> dict[str, Any]:
    return {
        "taken": not [log for log in result.logs if log.fault is not None],
        "roster_version": result.roster_version,
        "receipts": result.receipts,
        "logs": [
            {
                "origin": log.origin,
                "before": log.before,
                "after": log.after,
                "bodies": log.bodies,
                "fault": log.fault and {"code": log.fault.code, "detail": str(log.fault)},
            }
            for log in result.logs
        ],
    }
