"""`verbale bench`: the figures a sceptic asks for, from one run on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import AsJson, print_json, progress

TARGETS = {
    "posting_ratio": ("at least", 0.35),
    "catch_up_ratio": ("at least", 0.5),
    "live_ms_median": ("at most", 150.0),
    "idle_mb": ("at most", 150.0),
    "catch_up_mb": ("at most", 300.0),
}
"""What a release should reach; printed beside what was measured."""


def bench(
    records: Annotated[int, typer.Option("--records", help="Notices to post and to catch up with.")] = 20_000,
    live: Annotated[int, typer.Option("--live", help="Notices posted one by one.")] = 50,
    database_url: Annotated[
        str,
        typer.Option(
            "--database-url", help="PostgreSQL instead of SQLite: a URL with {state} in the database's name."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Measure two nodes on this machine: posting, catch-up, live replication, memory.

    Rates are given as ratios to the bare Ed25519 verifications of one core in the same run. Nothing leaves this machine.
    """
    from app.bench.federation import run  # noqa: PLC0415 - see `app.cli`

    def say(text: str) -> None:
        if not as_json:
            typer.echo(text, err=True)

    with tempfile.TemporaryDirectory(prefix="verbale-bench-") as directory:
        result = run(
            Path(directory) / "federation",
            records,
            database_url=database_url,
            live=live,
            say=say,
            progress=progress,
        ).as_dict()
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        target = TARGETS.get(name)
        typer.echo(f"{name:18} {value!s:>12}" + (f"   target: {target[0]} {target[1]}" if target else ""))
