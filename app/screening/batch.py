"""Many applications, one a line: answered in order, in windows, in constant memory. For the API and for the command line.

Guarantees that a line that is wrong is answered as such and stops no other, and that the last line of an answer says that it
is the last. Leaves to others: where lines come from, where answers go, and keeping records. With a `crew.Crew` a long batch
is answered on every core; the answers are the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from app.domain.errors import TooLarge, VerbaleError
from app.domain.json import parse_strict
from app.screening.application import Application, read_application
from app.screening.freshness import read_freshness

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from app.db import Database
    from app.domain.roster import Roster
    from app.gate import Principal
    from app.screening.answering import Answering, Options
    from app.screening.crew import Crew

MAX_LINE: Final = 2**20
"""Bytes of one line: an application of a thousand parties has less."""
WINDOW_LINES: Final = 16
"""Lines that are answered in one snapshot."""
LONG: Final = 256
"""Lines from which on workers pay for their start."""

_CUT: Final = (
    " This is the last line and no line feed ends it: the batch seems to be cut off. Send this line again."
)

Line = tuple[int, bytes | None, bool]
"""Number from 1, the line (None: too long to be held), and whether it is the last: see `numbered`."""
Kept = tuple[Any, int, list[tuple[int, int, int, int, float, str | None]]]
"""What was asked, of how many parties, and `Answer.refs`: for a record."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, and how the answers are to be. It travels to workers.

    Args:
        problem: writes a refusal as the object that a line carries; it has a `status`.
        ended: a line feed ends the last line.
    """

    principal: Principal
    options: Options
    problem: Callable[[VerbaleError], dict[str, Any]]
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Answered:
    """What some lines gave: NDJSON, one line each; what may be kept; and how many were screened and refused."""

    answer: bytes
    kept: list[Kept]
    screened: int
    failed: int


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a batch's answer.

    Attributes:
        answer: NDJSON, one line each.
        screened: what was asked and answered, for a record.
        over: the batch is over; then `answer` has its last line.
    """

    answer: bytes
    screened: list[Kept]
    over: bool


@dataclass(slots=True)
class Batch:
    """One batch on its way.

    Args:
        first: first line to answer, from 1.
        clock: unix ms.
    """

    db: Database
    asking: Asking
    answering: Callable[[], Answering]
    roster: Callable[[], Roster | None]
    clock: Callable[[], int]
    first: int = 1
    screened: int = 0
    failed: int = 0
    line: int = 0

    def windows(self, lines: Iterator[Line], crew: Crew | None = None) -> Generator[Window]:
        """Answer the lines of `numbered`, a window at a time; with a crew on every core, if they are many."""
        pieces = self._pieces(lines)
        ahead = list(islice(pieces, LONG // WINDOW_LINES))
        if crew is not None and len(ahead) * WINDOW_LINES >= LONG and crew.usable:
            answers = self._by_crew(crew, ahead, pieces)
        else:
            answers = (self._here(piece) for some in (ahead, pieces) for piece in some)
        for answered in answers:
            self.screened += answered.screened
            self.failed += answered.failed
            yield Window(answered.answer, answered.kept, over=False)
        yield Window(self._end(), [], over=True)

    def _pieces(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        piece: list[Line] = []
        for line in lines:
            self.line = line[0]
            if line[0] < self.first:
                continue
            piece.append(line)
            if len(piece) == WINDOW_LINES:
                yield piece
                piece = []
        if piece:
            yield piece

    def _here(self, piece: Sequence[Line]) -> Answered:
        return answer_lines(self.db, self.answering(), self.asking, piece, self.roster(), now_ms=self.clock())

    def _by_crew(
        self, crew: Crew, ahead: Sequence[list[Line]], pieces: Iterator[list[Line]]
    ) -> Iterator[Answered]:
        """Pieces on every core, in order, and no more of them under way than keeps the cores busy.

        Until the workers have begun, which takes seconds, pieces are answered here: whoever asks sees answers at once.
        """
        waiting: deque[tuple[list[Line], Callable[[], Answered]]] = deque()
        with crew.at_work(self.answering(), self.roster()):
            for piece in chain(ahead, pieces):
                if not waiting and not crew.has_begun:
                    yield self._here(piece)
                    continue
                waiting.append((piece, crew.answer(self.asking, piece, now_ms=self.clock())))
                if len(waiting) >= 2 * crew.processes:
                    yield self._outcome(*waiting.popleft())
            while waiting:
                yield self._outcome(*waiting.popleft())

    def _outcome(self, piece: list[Line], result: Callable[[], Answered]) -> Answered:
        try:
            return result()
        except WorkerLost:
            return self._here(piece)

    def _end(self) -> bytes:
        with self.db.read() as session:
            freshness = read_freshness(session, self.roster(), now_ms=self.clock())
        end = {
            "end": True,
            "lines": self.line,
            "screened": self.screened,
            "failed": self.failed,
            "freshness": freshness.wire(),
        }
        return orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


class WorkerLost(Exception):
    """A worker process ended, or could not begin: its lines are answered here."""


def answer_lines(
    db: Database,
    answering: Answering,
    asking: Asking,
    lines: Sequence[Line],
    roster: Roster | None,
    *,
    now_ms: int,
) -> Answered:
    """Answer some lines in one snapshot. `now_ms` in unix ms."""
    out: list[bytes] = []
    kept: list[Kept] = []
    failed = 0
    read = [_read(raw, cut=last and not asking.ended) for _, raw, last in lines]
    with db.read() as session:
        freshness = read_freshness(session, roster, now_ms=now_ms)
        alone = [one.parties[0] for _, one in read if isinstance(one, Application) and len(one.parties) == 1]
        answering.foresee(session, asking.principal, alone)
        for (number, _, _), (asked, application) in zip(lines, read, strict=True):
            wire: dict[str, Any] = {
                "line": number,
                "id": asked.get("id") if isinstance(asked, dict) else None,
            }
            try:
                if isinstance(application, VerbaleError):
                    raise application
                answer = answering.answer(
                    session, asking.principal, application, asking.options, freshness, now_ms=now_ms
                )
            except VerbaleError as refusal:
                problem = asking.problem(refusal)
                wire |= {"status": problem["status"], "problem": problem}
                failed += 1
            else:
                kept.append((asked, len(answer.parties), answer.refs()))
                wire |= {"status": 200, "screening": answer.wire(every_state=False)}
            out.append(orjson.dumps(wire, option=orjson.OPT_APPEND_NEWLINE))
    return Answered(b"".join(out), kept, len(kept), failed)


def _read(raw: bytes | None, *, cut: bool) -> tuple[Any, Application | VerbaleError]:
    """What a line asks, as JSON and read, or why it cannot be."""
    asked = None
    try:
        asked = _parsed(raw, cut=cut)
        return asked, read_application(asked)
    except VerbaleError as refusal:
        return asked, refusal


def _parsed(raw: bytes | None, *, cut: bool) -> Any:  # noqa: ANN401 - any JSON
    if raw is None:
        raise TooLarge(f"One line has more than {MAX_LINE} bytes. Send fewer parties in one application.")
    try:
        return parse_strict(raw)
    except VerbaleError as error:
        if cut:
            raise type(error)(str(error) + _CUT) from error
        raise


def numbered(lines: IO[bytes]) -> Iterator[Line]:
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
