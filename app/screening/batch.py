"""Many applications, one a line: answered in order, in windows, in constant memory. For the API and for the command line.

Guarantees that a line that is wrong is answered as such and stops no other, and that the last line of an answer says that it
is the last. Leaves to others: where lines come from, where answers go, and keeping records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from app.domain.errors import TooLarge, VerbaleError
from app.domain.json import parse_strict
from app.screening.application import read_application
from app.screening.freshness import read_freshness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.db import Database
    from app.domain.roster import Roster
    from app.gate import Principal
    from app.screening.answering import Answer, Answering, Options

MAX_LINE: Final = 2**20
"""Bytes of one line: an application of a thousand parties has less."""
WINDOW_LINES: Final = 16
"""Lines that are answered in one snapshot."""

_CUT: Final = (
    " This is the last line and no line feed ends it: the batch seems to be cut off. Send this line again."
)


@dataclass(frozen=True, slots=True)
class Window:
    """What some lines gave.

    Attributes:
        answer: NDJSON, one line each.
        screened: what was asked and answered, for a record.
        over: the batch is over; then `answer` has its last line.
    """

    answer: bytes
    screened: list[tuple[Any, Answer]]
    over: bool


@dataclass(slots=True)
class Batch:
    """One batch on its way.

    Args:
        problem: writes a refusal as the object that a line carries; it has a `status`.
        first: first line to answer, from 1.
        ended: a line feed ends the last line.
    """

    db: Database
    principal: Principal
    options: Options
    problem: Callable[[VerbaleError], dict[str, Any]]
    first: int = 1
    ended: bool = True
    screened: int = 0
    failed: int = 0
    line: int = 0

    def window(
        self,
        lines: Iterator[tuple[int, bytes | None, bool]],
        answering: Answering,
        roster: Roster | None,
        *,
        now_ms: int,
    ) -> Window:
        """Answer the next lines of `numbered`. `now_ms` in unix ms."""
        out: list[bytes] = []
        kept: list[tuple[Any, Answer]] = []
        over = True
        with self.db.read() as session:
            freshness = read_freshness(session, roster, now_ms=now_ms)
            for number, raw, last in lines:
                self.line = number
                if number < self.first:
                    continue
                wire: dict[str, Any] = {"line": number, "id": None}
                try:
                    asked = _parsed(raw, cut=last and not self.ended)
                    wire["id"] = asked.get("id") if isinstance(asked, dict) else None
                    application = read_application(asked)
                    answer = answering.answer(
                        session, self.principal, application, self.options, freshness, now_ms=now_ms
                    )
                except VerbaleError as refusal:
                    problem = self.problem(refusal)
                    wire |= {"status": problem["status"], "problem": problem}
                    self.failed += 1
                else:
                    kept.append((asked, answer))
                    wire |= {"status": 200, "screening": answer.wire(every_state=False)}
                    self.screened += 1
                out.append(orjson.dumps(wire, option=orjson.OPT_APPEND_NEWLINE))
                if len(out) >= WINDOW_LINES:
                    over = False
                    break
        if over:
            end = {
                "end": True,
                "lines": self.line,
                "screened": self.screened,
                "failed": self.failed,
                "freshness": freshness.wire(),
            }
            out.append(orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE))
        return Window(b"".join(out), kept, over)


def _parsed(raw: bytes | None, *, cut: bool) -> Any:  # noqa: ANN401 - any JSON
    if raw is None:
        raise TooLarge(f"One line has more than {MAX_LINE} bytes. Send fewer parties in one application.")
    try:
        return parse_strict(raw)
    except VerbaleError as error:
        if cut:
            raise type(error)(str(error) + _CUT) from error
        raise


def numbered(lines: IO[bytes]) -> Iterator[tuple[int, bytes | None, bool]]:
    """Lines with their numbers, from 1, and whether each is the last; None for one that is too long to be held."""
    number = 0
    line = lines.readline(MAX_LINE + 1)
    while line:
        number += 1
        whole = len(line) <= MAX_LINE
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = lines.readline(MAX_LINE)
        following = lines.readline(MAX_LINE + 1)
        yield number, line.rstrip(b"\n") if whole else None, not following
        line = following
