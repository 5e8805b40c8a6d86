"""`verbale demo`."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.demo.report import Report
from app.demo.scenario import LISTER, SOUGHT, STATE_FILE, STATES, Scenario
from app.domain.errors import VerbaleError
from app.settings import SETTINGS_VARIABLE

if TYPE_CHECKING:
    from types import FrameType

FAILED: Final = 1
INTERRUPTED: Final = 130
ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Do all of it, then end: 0 if every step held.")
    ] = False,
    records: Annotated[
        int | None, typer.Option(min=1, help="Import so many of the 2,273 records; by default all.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Keep everything here, and write federation.json once ready. With a folder that a demo filled earlier, the same "
            "federation starts again. By default a temporary folder, removed at the end.",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="SQLAlchemy URL of empty PostgreSQL databases; {state} becomes us, ee, nl, jp. By default SQLite.",
        ),
    ] = None,
    port_base: Annotated[
        int | None,
        typer.Option(
            min=1024, max=65535 - len(STATES), help="Use this port and the next three; by default free ones."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON document on standard output; all else goes to standard error."
        ),
    ] = False,
) -> None:
    """Four States on this machine found a federation and exchange signed notices: real ones of the US, invented ones of others."""
    if database_url is not None and "{state}" not in database_url:
        raise typer.BadParameter("--database-url needs {state} in it: every node has a database of its own.")
    report = Report(as_json=as_json)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells' background jobs want it
            signal.signal(number, _interrupt)
    folder = _prepare(directory)
    scenario = Scenario(folder, report)
    ready = False
    try:
        _introduce(report)
        scenario.run(records=records, database_url=database_url, port_base=port_base)
        file = scenario.publish()
        ready = True
        if as_json:
            print(json.dumps({**report.to_dict(), **scenario.describe()}, indent=2), flush=True)  # noqa: T201
        if not once:
            _explain(report, scenario, file)
            scenario.keep_running()
        report.console.print()
        report.console.print(f"All {len(report.done)} steps held.")
    except VerbaleError as error:
        report.console.print()
        report.quote(f"Step {report.at}: failed.")
        report.quote(str(error))
        if as_json:
            print(json.dumps({"error": {"code": error.code, "step": report.at, "detail": str(error)}}))  # noqa: T201
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        report.console.print()
        report.console.print("Ending all nodes." if ready else f"Interrupted in step {report.at}.")
        if not ready:
            raise typer.Exit(INTERRUPTED) from None
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was started is ended now
        scenario.close()
        if directory is None:
            shutil.rmtree(folder, ignore_errors=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _prepare(directory: Path | None) -> Path:
    """The folder to work in: empty, or of an earlier demo."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="verbale-demo-"))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(directory.iterdir()) and not (directory / STATE_FILE).exists():
        raise typer.BadParameter(
            f"{directory} holds other files, or a demo that did not get to the end. Empty it or name another folder.",
            param_hint="--dir",
        )
    return directory.resolve()


def _introduce(report: Report) -> None:
    report.console.print(
        "[bold]Verbale[/bold]: signed notices between States, each with a node and a log of its own."
    )
    report.console.print(
        "Real records of the United States, as published in April 2022; everything else is invented. All keys are made now."
    )


def _explain(report: Report, scenario: Scenario, file: Path) -> None:
    """What can be looked at while it runs."""
    print_line = report.console.print
    print_line()
    print_line("[bold]Running. Ctrl-C ends it.[/bold]")
    report.table(
        ("State", "documentation and try-out", "health of the federation"),
        [(s, f"{scenario.apis[s].url}/docs", f"{scenario.apis[s].url}/v1/federation") for s in STATES],
    )
    central, lister = scenario.apis["NL"], scenario.apis[LISTER]
    report.say(f"Tokens, keys and settings of all four: {file}")
    print_line()
    report.quote(f"curl '{lister.url}/v1/notices?country=IL&limit=5'    # no token: TLP:CLEAR only")
    report.quote(f"curl -H 'Authorization: Bearer {central.token}' '{central.url}/v1/notices?party={SOUGHT}'")
    report.quote(
        f"curl -H 'Authorization: Bearer {central.token}' '{central.url}/v1/notices?code=5A001&tlp=RED'"
    )
    report.quote(f"curl '{central.url}/v1/states'")
    report.quote(f"{SETTINGS_VARIABLE}={scenario.federation.node('NL').settings_file} verbale fsck")
