"""What a drill prints: numbered steps, what happened in each, and every promise that was kept."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from app.demo.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator


class DrillReport(Report):
    """A report that also remembers its lines, for `--json`."""

    def __init__(self, *, as_json: bool) -> None:
        """See `Report`."""
        super().__init__(as_json=as_json)
        self.lines: list[list[str]] = []
        self.promises: list[str] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step."""
        self.lines.append([])
        with super().step(title):
            yield

    def say(self, line: str) -> None:
        """See `Report.say`."""
        self._remember(Text.from_markup(line).plain)
        super().say(line)

    def quote(self, line: str) -> None:
        """See `Report.quote`."""
        self._remember(line)
        super().quote(line)

    def kept(self, promise: str) -> None:
        """A promise that was checked and holds."""
        self.promises.append(promise)
        self._remember(promise)
        self.console.print(Text.assemble("   ", ("kept  ", "green"), promise))

    def _remember(self, line: str) -> None:
        if self.lines:
            self.lines[-1].append(line)

    def to_dict(self) -> dict[str, Any]:
        """The steps with their lines, and the promises."""
        found = super().to_dict()
        for step, lines in zip(found["steps"], self.lines, strict=False):
            step["lines"] = lines
        return {**found, "kept": self.promises}
