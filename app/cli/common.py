"""What several commands share: finding settings, printing, progress.

Left to `app.cli`: errors and exit codes.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_type_hints

import typer

from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.cli.client import NodeClient
    from app.db import Database
    from app.settings import Settings

DONE, REFUSED, USAGE, NODE_FAULT, UNREACHABLE, INTERRUPTED, UNFORESEEN = 0, 1, 2, 3, 4, 130, 70
"""Exit codes; `app.cli` says what each means."""

MAX_INPUT_BYTES = 64 * 2**20
"""Of one document read into memory: a notice with attachments, or a proof. Batches are streamed."""

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="The node's settings file; by default what VERBALE_SETTINGS names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NodeUrl = Annotated[
    str | None, typer.Option("--url", help="The node's address; by default that of the settings.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File that holds the token: a command line is seen by others."),
]
MAX_TOKEN_BYTES = 4096


def load_settings(path: Path | None) -> Settings:
    """The node's settings: `--settings` of the command, else of `verbale` itself, else VERBALE_SETTINGS.

    Raises:
        UnsafeSettings
    """
    from app.settings import load  # noqa: PLC0415 - see `app.cli`

    return load(path or _named.get())


def settings_path(path: Path | None) -> Path | None:
    """The file that `load_settings` reads, or None if the environment alone sets everything."""
    named = os.environ.get("VERBALE_SETTINGS")
    return path or _named.get() or (Path(named) if named else None)


_named: ContextVar[Path | None] = ContextVar("settings_file", default=None)


def name_settings(path: Path | None) -> None:
    """Keep what `verbale --settings FILE …` named for the command that follows."""
    _named.set(path)


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The node's database, its schema current.

    Raises:
        SchemaNotCurrent
    """
    from app import migrations  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    database = Database(settings.database)
    try:
        migrations.check_current(database)
        yield database
    finally:
        database.dispose()


def read_file(path: Path, *, limit: int = MAX_INPUT_BYTES) -> bytes:
    """The bytes of a file, or of standard input for `-`.

    Raises:
        Malformed: it cannot be read, or is larger than any such file.
    """
    if str(path) == "-":
        raw = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with path.open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise Malformed(f"Cannot read {path}: {error.strerror}.") from error
    if len(raw) > limit:
        raise Malformed(f"{path} is larger than {limit} bytes.")
    return raw


def read_token(token: str | None, file: Path | None) -> str | None:
    """The API token of `--token` or `--token-file`; None if neither is given.

    Raises:
        typer.BadParameter: both are.
        Malformed: see `read_file`.
    """
    if file is None:
        return token
    if token is not None:
        raise typer.BadParameter("give --token or --token-file, not both")
    return read_file(file, limit=MAX_TOKEN_BYTES).decode("utf-8", "replace").strip()


@contextmanager
def asking(
    url: str | None, token: str | None, token_file: Path | None, settings_file: Path | None
) -> Iterator[NodeClient]:
    """A client of the node that is named, or of the one the settings are of; closed at the end.

    Raises:
        typer.BadParameter, Malformed: see `read_token`, `NodeClient`.
    """
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    given = read_token(token, token_file)
    with node_client(url or load_settings(settings_file).public_url, given) as client:
        yield client


def asks(scope: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that name a node and a token; it is called with a `NodeClient` as its first argument.

    Args:
        scope: that the token needs.
    """
    token = Annotated[str | None, typer.Option("--token", help=f"API token with the scope {scope}.")]
    options = {"url": NodeUrl, "token": token, "token_file": TokenFile, "settings_file": SettingsFile}

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def ask(
            *,
            url: str | None,
            token: str | None,
            token_file: Path | None,
            settings_file: Path | None,
            **given: Any,  # noqa: ANN401 - the command's own
        ) -> None:
            with asking(url, token, token_file, settings_file) as client:
                command(client, **given)

        # What typer reads is the command's own, but for the client, and these.
        _, *own = inspect.signature(command).parameters.values()
        named = SimpleNamespace(__annotations__={one.name: one.annotation for one in own})
        hints = get_type_hints(named, command.__globals__, include_extras=True) | options
        added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in options]
        read = [one.replace(annotation=hints[one.name]) for one in (*own, *added)]
        ask.__signature__ = inspect.Signature(read)  # type: ignore[attr-defined]  # where `inspect` looks first
        ask.__annotations__ = hints
        return ask

    return wrap


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Pretty JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def warn(sentence: str) -> None:
    """A sentence on standard error that changes nothing."""
    print(f"warning: {sentence}", file=sys.stderr)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
) -> None:
    """A table for people; through a pipe it is wide rather than cut, so that nothing is lost."""
    from rich.console import Console  # noqa: PLC0415 - see `app.cli`
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


class Progress(Protocol):
    """How far something is."""

    def __call__(self, done: int, what: str | None = None, /) -> None:
        """`done` of the total; `what` is worked on from now."""
        ...


def _silent(done: int, what: str | None = None, /) -> None:
    del done, what


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere nothing, as the result says it all."""
    if not sys.stderr.isatty() or total <= 0:
        yield _silent
        return
    from rich.console import Console  # noqa: PLC0415 - see `app.cli`
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def show(done: int, now: str | None = None, /) -> None:
            bar.update(task, completed=done, description=now)

        yield show
