"""When a leaf was logged, as its witnesses saw it, and whether what it claims fits.

A checkpoint that a quorum cosigned has one time, the median of its cosignatures' times, which no minority of witnesses can
move outside of what honest ones saw. The last such checkpoint without a leaf and the first with it bracket the moment at
which the leaf was logged. Whoever holds the same checkpoints comes to the same bracket; further ones can only narrow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

TOLERANCE_S: Final = 300
"""How far `iat` may lie outside of the bracket: what clocks may differ by, as for a statement that is posted."""

_LAST_S: Final = 253_402_300_799
"""The last second of the year 9999."""

TimeFlag = Literal["back-dated", "post-dated"]


def utc_day(seconds: int) -> str:
    """The ISO date, UTC, of unix seconds; of seconds that no calendar holds, the nearest it does."""
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_S), UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Bracket:
    """Unix seconds between which a leaf was logged.

    Attributes:
        after: time of the last confirmed checkpoint without it (T1); None: there is none, it is among the log's first.
        before: time of the first confirmed checkpoint with it (T2); None: it is not confirmed yet.
    """

    after: int | None
    before: int | None

    def flag(self, iat: int) -> TimeFlag | None:
        """What is to be said of a claimed time. Nothing is said before a quorum has seen the leaf.

        `back-dated`: the log did not hold it yet when it claims to have been signed: it was posted late, or its time is
        made up. `post-dated`: it was there before it claims to have been signed.
        """
        if self.before is None:
            return None
        if iat > self.before + TOLERANCE_S:
            return "post-dated"
        if self.after is not None and iat < self.after - TOLERANCE_S:
            return "back-dated"
        return None


def bracket_from(history: Sequence[tuple[int, int]], index: int) -> Bracket:
    """The bracket of a leaf out of (size, time) of confirmed checkpoints, in any order.

    T1 is the latest time of the largest size without the leaf, T2 the earliest time of the smallest size with it.
    """
    without = [point for point in history if point[0] <= index]
    with_it = [point for point in history if point[0] > index]
    return Bracket(max(without)[1] if without else None, min(with_it)[1] if with_it else None)
