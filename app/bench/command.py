"""`verbale bench`: the figures a sceptic asks for, from one run on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import AsJson, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = {
    "posting_ratio": ("at least", 0.35),
    "catch_up_ratio": ("at least", 0.5),
    "live_ms_median": ("at most", 150.0),
    "idle_mb": ("at most", 150.0),
    "catch_up_mb": ("at most", 300.0),
}
"""What a release should reach; printed beside what was measured."""


WEBHOOK_TARGETS = {
    "fan_out_ratio": ("at least", 0.6),
    "dead_endpoint_ratio": ("at least", 0.9),
    "dead_endpoint_delay_ms": ("at most", 1000.0),
    "idle_latency_ms_median": ("at most", 100.0),
    "busy_latency_ms_p99": ("at most", 1000.0),
    "claims_ratio": ("at least", 0.8),
}

bench = typer.Typer(rich_markup_mode=None, help="Measure this machine.")


@bench.callback(invoke_without_command=True)
def federation(
    context: typer.Context,
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
    if context.invoked_subcommand is not None:
        return
    from app.bench.federation import run  # noqa: PLC0415 - see `app.cli`

    with tempfile.TemporaryDirectory(prefix="verbale-bench-") as directory:
        result = run(
            Path(directory) / "federation",
            records,
            database_url=database_url,
            live=live,
            say=_speaker(as_json=as_json),
            progress=progress,
        ).as_dict()
    _show(result, TARGETS, as_json=as_json)


@bench.command()
def webhooks(
    deliveries: Annotated[int, typer.Option("--deliveries", help="Deliveries of one round.")] = 10_000,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of bare client and fan-out in turn.")] = 2,
    signing: Annotated[str, typer.Option("--signing", help="v1, v1a or both.")] = "v1",
    workers: Annotated[
        int, typer.Option("--workers", help="Sending processes for the fan-out: 1, 2 or 4.")
    ] = 1,
    pending: Annotated[
        int, typer.Option("--pending", help="Deliveries that wait for the claim rate; 0 leaves it out.")
    ] = 100_000,
    database_url: Annotated[
        str, typer.Option("--database-url", help="An empty PostgreSQL database instead of SQLite.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Measure the delivery of webhooks to receivers on this machine, against the bare HTTP client."""
    from app.bench.webhooks import run  # noqa: PLC0415 - see `app.cli`

    with tempfile.TemporaryDirectory(prefix="verbale-bench-") as directory:
        result = run(
            Path(directory),
            deliveries,
            database_url=database_url,
            rounds=rounds,
            scheme=signing,
            workers=workers,
            many=pending,
            say=_speaker(as_json=as_json),
        ).as_dict()
    _show(result, WEBHOOK_TARGETS, as_json=as_json)


@bench.command()
def screening(
    entities: Annotated[
        int, typer.Option("--entities", min=100, help="Invented parties to screen against.")
    ] = 100_000,
    queries: Annotated[
        int,
        typer.Option("--queries", min=10, help="Parties asked one by one; the batch has four times as many."),
    ] = 1_000,
    index: Annotated[
        str, typer.Option("--index", help="Where the node has its index: memory or disk.")
    ] = "memory",
    peer: Annotated[
        str,
        typer.Option(
            "--peer", help="A Python that has nomenklatura, to score the same candidates with LogicV2."
        ),
    ] = "",
    database_url: Annotated[
        str, typer.Option("--database-url", help="An empty PostgreSQL database instead of SQLite.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Measure screening at a size: index, change, cold start, one party and a batch through HTTP, memory, the peer.

    `ratios` hold each figure against its limit: 1 or less is within it.
    """
    from app.bench.screening import run  # noqa: PLC0415 - see `app.cli`

    with tempfile.TemporaryDirectory(prefix="verbale-bench-") as directory:
        result = run(
            Path(directory) / "federation",
            entities,
            database_url=database_url,
            asked=queries,
            peer=peer,
            index=index,
            say=_speaker(as_json=as_json),
            progress=progress,
        )
    _show(result.as_dict(), result.limits(), as_json=as_json)
    if not peer and not as_json:
        typer.echo(
            "peer: not measured; --peer names a Python that has nomenklatura (docs/screening.md)", err=True
        )


def _speaker(*, as_json: bool) -> Callable[[str], None]:
    """What is being done, for a person; a program hears only the result."""
    return lambda text: None if as_json else typer.echo(text, err=True)


def _show(result: dict[str, Any], targets: dict[str, tuple[str, float]], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        target = targets.get(name)
        typer.echo(f"{name:24} {value!s:>12}" + (f"   target: {target[0]} {target[1]}" if target else ""))
