"""`verbale simulate`: play federations out under seeds, and say which invariant a seed breaks."""

from __future__ import annotations

import json
import logging
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli.common import DONE, REFUSED
from app.memory import settle_memory
from app.simulation.growth import measure
from app.simulation.world import Outcome, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.simulation.faults import Extent

LEAST_STATES: Final = 4
"""A fork needs a State that is shown one history, one that is shown another, and a witness."""


def simulate(
    seed: Annotated[int, typer.Option("--seed", help="Play this seed.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Play so many seeds, from --seed on.")] = 1,
    states: Annotated[int, typer.Option("--states", min=LEAST_STATES, max=249, help="How many States.")] = 25,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Events before everything heals.")] = 200,
    processes: Annotated[int, typer.Option("--processes", min=0, help="0: one a core, at most 2.")] = 0,
    mild: Annotated[
        bool,
        typer.Option("--mild", help="No start-up gate, backups, gossip, accusations or other node keys."),
    ] = False,
    members: Annotated[
        bool,
        typer.Option(
            "--members", help="Also suspend States and take them back, and revoke keys of their nodes."
        ),
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print everything that happens, in order.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="For a seed that fails, look for the fewest steps that do.")
    ] = False,
    growth: Annotated[
        bool,
        typer.Option("--growth", help="Measure messages, bytes and storage in a federation without faults."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a seed.")] = False,
) -> int:
    """Run whole federations in this process, in virtual time, with faults and malice drawn from a seed.

    Exit 0 only if every invariant held. The same seed, States and steps give the same trace again, to the last byte.
    """
    if mild and members:
        raise typer.BadParameter("--mild leaves out what --members adds to.")
    logging.disable(logging.CRITICAL)  # what nodes log of the faults they meet is not what is asked here
    extent: Extent = "mild" if mild else "members" if members else "usual"
    if growth:
        typer.echo(measure(states, as_json=as_json))
        return DONE
    if seeds == 1:
        outcome = play(seed, states, steps, trace=trace, extent=extent)
        outcomes: Iterator[Outcome] = iter((outcome,))
    else:
        outcomes = _many(
            range(seed, seed + seeds), states, steps, processes or min(2, os.cpu_count() or 1), extent=extent
        )
    failed = 0
    began = time.monotonic()
    for outcome in outcomes:
        failed += outcome.broken is not None
        if as_json:
            typer.echo(json.dumps(asdict(outcome)))
        elif outcome.broken is not None or seeds == 1:
            typer.echo(_describe(outcome, extent=extent))
        if shrink and outcome.broken is not None:
            typer.echo(f"  fewest steps that break it: {fewest_steps(outcome, extent=extent)}")
    if seeds > 1 and not as_json:
        took = time.monotonic() - began
        typer.echo(f"{seeds} seeds of {states} States, {steps} steps each: {failed} broken. {took:.0f} s.")
    return REFUSED if failed else DONE


def play(seed: int, states: int, steps: int, *, trace: bool = False, extent: Extent = "usual") -> Outcome:
    """Play one seed."""
    return World(seed, states, steps, trace=typer.echo if trace else None, extent=extent).play()


def fewest_steps(failed: Outcome, *, extent: Extent = "usual") -> int:
    """Fewest steps after which the same invariant breaks: a shorter run is a prefix of a longer one, then all heals."""
    low, high = 0, failed.steps
    while low < high:
        middle = (low + high) // 2
        if play(failed.seed, failed.states, middle, extent=extent).broken == failed.broken:
            high = middle
        else:
            low = middle + 1
    return low


def _describe(outcome: Outcome, *, extent: Extent = "usual") -> str:
    line = (
        f"seed {outcome.seed}: {outcome.notices} statements, {outcome.messages} messages, {outcome.virtual_s} s of virtual "
        f"time, trace {outcome.trace[:16]}"
    )
    if outcome.broken is None:
        return f"{line}: every invariant held"
    again = (
        f"verbale simulate --seed {outcome.seed} --states {outcome.states} --steps {outcome.steps} --trace"
        f"{'' if extent == 'usual' else f' --{extent}'}"
    )
    return f"{line}\n  BROKEN in step {outcome.at}: {outcome.broken}: {outcome.what}\n  again: {again}"


def _many(seeds: range, states: int, steps: int, processes: int, *, extent: Extent) -> Iterator[Outcome]:
    progress = Progress(
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with (
        progress,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin) as pool,
    ):
        task = progress.add_task("seeds", total=len(seeds))
        left = iter(seeds)
        running = {
            pool.submit(play, seed, states, steps, extent=extent) for seed in _take(left, 2 * processes)
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                progress.advance(task)
                yield future.result()
                running |= {pool.submit(play, seed, states, steps, extent=extent) for seed in _take(left, 1)}


def _take(seeds: Iterator[int], count: int) -> Iterator[int]:
    for _, seed in zip(range(count), seeds, strict=False):
        yield seed


def _begin() -> None:
    logging.disable(logging.CRITICAL)
    settle_memory()
