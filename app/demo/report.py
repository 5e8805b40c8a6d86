"""What the demo prints: numbered steps with their times, plain lines, small tables. Fit for a terminal and for a file."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_INDENT = 3


@dataclass(frozen=True, slots=True)
class Done:
    """A step that succeeded, and how long it took."""

    number: int
    title: str
    seconds: float


class Report:
    """Prints the steps, and remembers them for `--json`.

    Attributes:
        at: the step at hand, "4. Every node proves the same logs"; what a failure is named after.
    """

    def __init__(self, *, as_json: bool) -> None:
        """With `as_json`, standard output is kept free for the one JSON document at the end."""
        self.console = Console(stderr=as_json, highlight=False, soft_wrap=True)
        self.done: list[Done] = []
        self.at = "0. Before the first step"

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step. Its time is printed if it succeeds."""
        number, began = len(self.done) + 1, time.monotonic()
        self.at = f"{number}. {title}"
        self.console.print()
        self.console.print(Text(self.at, "bold"))
        yield
        self.done.append(Done(number, title, time.monotonic() - began))
        self.say(f"[dim]{self.done[-1].seconds:.1f} s[/dim]")

    def say(self, line: str) -> None:
        """One line, with Rich's markup; it begins under the step's title."""
        self.console.print(" " * _INDENT + line)

    def quote(self, line: str) -> None:
        """One line as it is, whatever it holds."""
        self.console.print(Text(" " * _INDENT + line))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """A small table; columns named in `right` hold numbers."""
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=bool(head)
        )
        for name in head:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """While it lasts, a terminal shows that something goes on."""
        return self.console.status(what) if self.console.is_terminal else nullcontext()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        """A bar on a terminal; yields a function that is told of every further piece."""
        columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(" " * _INDENT + what, total=total)

            def advance(pieces: int) -> None:
                bar.advance(task, pieces)

            yield advance

    def to_dict(self) -> dict[str, Any]:
        """The steps done, for programs."""
        return {
            "steps": [
                {"number": d.number, "title": d.title, "seconds": round(d.seconds, 3)} for d in self.done
            ],
            "seconds": round(sum(d.seconds for d in self.done), 3),
        }
