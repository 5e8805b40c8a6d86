"""`verbale screen file`: a file of applications screened against this node's own database, one a line.

It asks as the operator. Nothing leaves the machine, and nothing is kept: the answers go to standard output alone.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import SettingsFile, load_settings, open_database, progress
from app.domain.errors import Malformed


def screen_file(
    file: Annotated[Path, typer.Argument(help="Applications as NDJSON, as POST /v1/screenings takes them.")],
    first: Annotated[
        int, typer.Option("--from", min=1, help="First line to answer, to go on after an interruption.")
    ] = 1,
    limit: Annotated[int, typer.Option(help="Hits shown of one party, 1 to 100.")] = 5,
    threshold: Annotated[float | None, typer.Option(help="Least score of a hit.")] = None,
    depth: Annotated[
        str | None, typer.Option(help="Of control codes: category, group, number, paragraph or exact.")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="By what part two parameters may differ.")] = None,
    settings_file: SettingsFile = None,
) -> None:
    """Screen applications; prints one line of JSON each, in order, and a last one with counts and freshness.

    A line that is wrong is answered as such and stops no other. Exit code 0 even so: the last line counts them.
    """
    from app.cli.store import kept_roster  # noqa: PLC0415 - see `app.cli`
    from app.gate import operator  # noqa: PLC0415
    from app.problems import document  # noqa: PLC0415
    from app.screening.answering import Answering, Options  # noqa: PLC0415
    from app.screening.batch import Asking, Batch, numbered  # noqa: PLC0415
    from app.screening.crew import Crew  # noqa: PLC0415
    from app.screening.find import Screener  # noqa: PLC0415
    from app.screening.finder import ScreenerFinder  # noqa: PLC0415

    options = Options.of(limit=limit, threshold=threshold, depth=depth, tolerance=tolerance)
    settings = load_settings(settings_file)
    roster = kept_roster(settings)
    listed = roster.states.get(settings.state) if roster else None

    try:
        total, ended = _count(file)
        with open_database(settings) as database, file.open("rb") as lines:
            screener = Screener(database)
            answering = Answering(
                ScreenerFinder(screener), settings.state, listed.contact_point if listed else None
            )
            asking = Asking(
                operator(settings.state), options, partial(document, base_url=settings.public_url), ended
            )
            batch = Batch(
                database,
                asking,
                lambda: answering,
                lambda: roster,
                lambda: time.time_ns() // 1_000_000,
                first=first,
            )
            crew = Crew(settings.database, screener)
            try:
                with progress("Screening", total) as show:
                    for window in batch.windows(numbered(lines), crew):
                        sys.stdout.buffer.write(window.answer)
                        sys.stdout.buffer.flush()
                        show(batch.line)
            finally:
                crew.close()
    except OSError as error:
        raise Malformed(f"{file} cannot be read: {error.strerror}.") from error


def _count(file: Path) -> tuple[int, bool]:
    """Lines of a file, and whether a line feed ends the last."""
    count, last = 0, b"\n"
    with file.open("rb") as content:
        while piece := content.read(2**20):
            count += piece.count(b"\n")
            last = piece[-1:]
    return count + (last != b"\n"), last == b"\n"
