"""`verbale drill NAME`."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.demo.command import ENDING, FAILED, INTERRUPTED
from app.domain.errors import VerbaleError
from app.drill.field import Field
from app.drill.report import DrillReport

if TYPE_CHECKING:
    from types import FrameType

DRILLS: Final[dict[str, tuple[str, str]]] = {
    "stolen-contact-key": (
        "app.drill.stolen_contact_key",
        "Somebody speaks in a State's name with its contact point's key, while another State is away.",
    ),
    "erasure": (
        "app.drill.erasure",
        "A notice that names the wrong person must be gone, also where a State was away.",
    ),
    "central-alone": (
        "app.drill.central_alone",
        "The central contact tries to suspend a State with its own keys alone.",
    ),
    "fork": ("app.drill.fork", "A State shows two histories to two halves of the others."),
    "recovery": (
        "app.drill.recovery",
        "After a fork the States end the log, and its State goes on in the next epoch.",
    ),
    "chosen-history": (
        "app.drill.chosen_history",
        "After a fork the States end the log with one history, and whoever holds the other takes it.",
    ),
    "cut-off": ("app.drill.cut_off", "A State is away while the others say a great deal, and comes back."),
    "restored-backup": (
        "app.drill.restored_backup",
        "A State's node is started from yesterday's copy of its database.",
    ),
    "twin": ("app.drill.twin", "A State's node runs twice, on a copy of its folder."),
}
"""Name → the module whose `run(field)` it is, and what goes wrong."""


def drill(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(DRILLS)}.")],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Work in this empty folder and leave everything there. By default a temporary folder, removed at the end.",
        ),
    ] = None,
    notices: Annotated[
        int, typer.Option(min=1, help="How many notices a State that is cut off misses.")
    ] = 100_000,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON document on standard output; all else goes to standard error."
        ),
    ] = False,
) -> None:
    """Five real nodes on this machine, one thing that goes wrong on purpose; exit code 0 only if the promise held."""
    if name not in DRILLS:
        raise typer.BadParameter(f"There is no drill {name!r}. Drills: {', '.join(DRILLS)}.")
    report = DrillReport(as_json=as_json)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    folder = _prepare(directory)
    field = Field(folder, report)
    field.notices = notices
    module, what = DRILLS[name]
    held, error = False, None
    try:
        report.console.print(f"[bold]Drill: {name}.[/bold] {what} Everything said here is invented.")
        importlib.import_module(module).run(field)
        held = True
        report.console.print()
        report.console.print(f"The promise held: {len(report.promises)} of {len(report.promises)} checks.")
    except VerbaleError as failure:
        error = {"code": failure.code, "step": report.at, "detail": str(failure)}
        report.console.print()
        report.quote(f"Step {report.at}: the promise did not hold.")
        report.quote(str(failure))
        raise typer.Exit(FAILED) from failure
    except KeyboardInterrupt:
        error = {"code": "interrupted", "step": report.at, "detail": "The drill was interrupted."}
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was started is ended now
        field.close()
        if directory is None:
            shutil.rmtree(folder, ignore_errors=True)
        if as_json:
            value = {"drill": name, "held": held, **report.to_dict(), "error": error}
            print(json.dumps(value, indent=2), flush=True)  # noqa: T201


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _prepare(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="verbale-drill-"))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(directory.iterdir()):
        raise typer.BadParameter(f"{directory} is not empty. Name another folder.", param_hint="--dir")
    return directory.resolve()
