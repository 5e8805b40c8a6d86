"""How alike one word of a query is to many words of an index, without looking all of each of them up.

Guarantees the values of `score.similarity`. An index has words by their keys, so it knows what a word shares with that of
the query. That two words share a key of another kind than spelling is taken for what it stands for: once in billions of
pairs it is a collision, which moves an estimate and no score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from app.screening.keys import BY_BONES, BY_CLASS, BY_GROUP
from app.screening.score import INITIAL, LEAST, MOST_EDITS, abbreviation, allowed, similarity, spelled
from app.screening.spelling import skeleton
from app.screening.words import token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from app.screening.words import Token

NATIVE: Final = 1
SEMITIC: Final = 2
"""What is kept of each word of an index beside its letters, one bit each: see `Token`."""

LONGEST: Final = 255
"""Letters of a word that are counted: more change nothing."""

_ALLOWED: Final = np.array([allowed(longer) for longer in range(LONGEST + 1)], np.uint8)


def flags_of(word: Token) -> int:
    """NATIVE and SEMITIC of a word."""
    return NATIVE * word.native + SEMITIC * word.semitic


class Similar:
    """One word that can be written in Latin letters, to be compared with many that can.

    Args:
        person: it stands in a person's name.
    """

    def __init__(self, own: Token, *, person: bool) -> None:
        """Compare nothing yet."""
        self._own, self._person = own, person

    def edits(self, others: Sequence[str]) -> NDArray[np.uint8]:
        """In how many letters each of them differs; one more than MOST_EDITS for all that differ in more."""
        found: NDArray[np.uint8] = cdist(
            [self._own.latin], others, scorer=OSA.distance, score_cutoff=MOST_EDITS, dtype=np.uint8
        )[0]
        return found

    def near(self, edits: NDArray[np.uint8], lengths: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of them may be the word misspelt, by their `edits` and their lengths."""
        most = _ALLOWED[np.maximum(lengths, np.uint8(min(len(self._own.latin), LONGEST)))]
        near: NDArray[np.bool_] = edits <= most
        return near

    def may_be(self, other: str) -> bool:
        """Whether one that is not `near` may still be meant: an initial, or one of the two is short for the other."""
        x = self._own.latin
        if other[:1] != x[0]:
            return False
        return len(other) == 1 or len(x) == 1 or (not self._person and abbreviation(x, other) > 0)

    def value(self, text: str, other: str, edits: int, flags: int, shared: int) -> float:
        """How alike one is, 0 to 1.

        Args:
            text, other: as it is written, and in Latin letters, "" if it cannot be.
            edits: of `edits`.
            flags: of `flags_of`.
            shared: of what kinds the keys are that the two words share, those of spelling apart: see `keys`.
        """
        own, x = self._own, self._own.latin
        if text == own.text:
            return 1.0
        if x == other:
            return 0.97
        if own.is_number or text.isdigit():
            return 0.0
        if not other:
            return 0.0
        native = bool(flags & NATIVE)
        if len(x) == 1 or len(other) == 1:
            return INITIAL if self._person and x[0] == other[0] and native == own.native else 0.0
        if (own.semitic or flags & SEMITIC) and native != own.native:
            return similarity(own, token(text), person=self._person)[0]
        best = 0.93 if shared & BY_GROUP else 0.0
        if shared & BY_CLASS and not self._person:
            best = 0.85
        best = max(best, spelled(x, other, edits))
        if best >= 0.8:
            return best
        if shared & BY_BONES and len(own.bones) > 2 and x[0] == other[0] and own.bones == skeleton(other):
            return 0.8
        if not self._person:
            best = max(best, abbreviation(x, other))
        return best if best >= LEAST else 0.0
