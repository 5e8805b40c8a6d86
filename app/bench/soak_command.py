"""`verbale soak`: minutes of random kills, and a count of everything afterwards."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import AsJson, print_json

soak = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Run for minutes under random kills.")


@soak.callback()
def _soak() -> None:
    """A group, so that other parts may have a soak of their own."""


@soak.command()
def webhooks(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.05, help="For how long to post and kill.")
    ] = 10.0,
    database_url: Annotated[
        str,
        typer.Option("--database-url", help="PostgreSQL instead of SQLite: the URL of an empty database."),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 1,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="An empty folder to work in, which stays afterwards.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Kill workers, receivers and the server of a node at random while notices flow, then count deliveries.

    Exits with 1 unless every event arrived at every subscription it was for, and none above a ceiling or without a
    signature that holds. Nothing leaves this machine.
    """
    from app.bench.soak import run  # noqa: PLC0415 - see `app.cli`

    with tempfile.TemporaryDirectory(prefix="verbale-soak-") as directory:
        tally = run(
            keep or Path(directory) / "soak",
            minutes,
            database_url=database_url or None,
            seed=seed,
            say=lambda text: typer.echo(text, err=True),
        )
    if as_json:
        print_json(tally.as_dict())
    else:
        kills = ", ".join(f"{count} of {kind}s" for kind, count in tally.kills.items())
        typer.echo(
            f"{tally.events} events in {tally.minutes:g} minutes; kills: {kills}; drained in {tally.drained_s} s"
        )
        for count in tally.subscriptions:
            typer.echo(
                f"{count.ceiling:18} {count.signing:5} expected {count.expected}, arrived {count.arrived}, "
                f"missing {count.missing}, repeated {count.repeated}, above its ceiling {count.above_ceiling}, "
                f"unsigned {count.unsigned}, not expected {count.not_expected}, under several ids {count.several_ids}, "
                f"out of order {count.out_of_order}"
            )
        typer.echo(
            f"feed: missing {tally.feed_missing}, repeated {tally.feed_repeated}, not expected {tally.feed_not_expected}"
        )
        typer.echo("good" if tally.good else "NOT GOOD")
    raise typer.Exit(0 if tally.good else 1)
