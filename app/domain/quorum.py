"""How many witnesses make a checkpoint certain, and what time they agree on.

For one log, m other States are witnesses and at most f = floor((m-1)/3) of them may be dishonest or broken. A quorum is q =
the smallest integer above (m+f)/2 of them: any two quorums then share an honest witness, so two histories cannot both be
confirmed. While f < 1 there is no room for a dishonest witness, and the quorum is all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who confirms one log.

    Attributes:
        witnesses: States whose witnesses count: m of them, never the log's own.
        faulty: f, how many of them may lie without a false confirmation.
        needed: q, how many must cosign one checkpoint.
    """

    witnesses: frozenset[str]
    faulty: int
    needed: int

    @property
    def takes_all(self) -> bool:
        """Whether the federation is too small for a dishonest witness: every witness must cosign."""
        return self.faulty < 1

    def met_by(self, states: Iterable[str]) -> bool:
        """Whether these States' cosignatures over one checkpoint confirm it. Nothing is confirmed by nobody."""
        return 0 < self.needed <= len(self.witnesses.intersection(states))


def quorum_of(witnesses: Iterable[str]) -> Quorum:
    """The quorum of a log with these States as witnesses."""
    who = frozenset(witnesses)
    m = len(who)
    f = max(m - 1, 0) // 3
    return Quorum(who, f, m if f < 1 else (m + f) // 2 + 1)


def agreed_time(times: Sequence[int]) -> int:
    """The lower median: with at most f liars among 2f+1 or more, it lies between the times of two honest witnesses.

    Raises:
        ValueError: there are no times.
    """
    if not times:
        raise ValueError("no times, no median")
    return sorted(times)[(len(times) - 1) // 2]
