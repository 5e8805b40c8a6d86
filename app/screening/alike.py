"""How alike one word of a query is to many words of an index, without looking all of each of them up.

Guarantees the values of `score.similarity`. An index has words by their keys, so it knows what a word shares with that of
the query. That two words share a key of another kind than spelling is taken for what it stands for: once in billions of
pairs it is a collision, which moves an estimate and no score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from rapidfuzz.distance import OSA, JaroWinkler
from rapidfuzz.process import cdist

from app.screening.keys import BY_BONES, BY_CLASS, BY_GROUP
from app.screening.score import INITIAL, LEAST, MOST_EDITS, abbreviation, allowed, similarity
from app.screening.words import token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from app.screening.words import Token

NATIVE: Final = 1
SEMITIC: Final = 2
NUMBER: Final = 4
"""What is kept of each word of an index beside its letters, one bit each: see `Token`."""

LONGEST: Final = 255
"""Letters of a word that are counted: more change nothing."""

_ALLOWED: Final = np.array([allowed(longer) for longer in range(LONGEST + 1)], np.uint8)


def flags_of(word: Token) -> int:
    """NATIVE, SEMITIC and NUMBER of a word."""
    return NATIVE * word.native + SEMITIC * word.semitic + NUMBER * word.is_number


class Known(NamedTuple):
    """Words that share keys with a word of a query: lists and arrays that are parallel to each other.

    Attributes:
        texts, latin: as they are written, and in Latin letters, "" if they cannot be.
        lengths: letters of `latin`, at most LONGEST.
        begins: the first of them, as a number; 0 if there is none.
        flags: of `flags_of`.
        shared: of what kinds the keys are that they share with it, those of spelling apart: see `keys`.
    """

    texts: Sequence[str]
    latin: Sequence[str]
    lengths: NDArray[np.uint8]
    begins: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    shared: NDArray[np.uint8]


def similarities(own: Token, known: Known, *, person: bool) -> NDArray[np.float64]:
    """How alike each of them is to a word that can be written in Latin letters, 0 to 1.

    Args:
        person: it stands in a person's name.
    """
    x = own.latin
    texts, latin, lengths, begins, flags, shared = known
    edits = cdist([x], latin, scorer=OSA.distance, score_cutoff=MOST_EDITS, dtype=np.uint8)[0]
    longer = np.maximum(lengths, np.uint8(min(len(x), LONGEST)))
    same_start = begins == ord(x[0])
    found = np.zeros(len(latin))
    if len(x) > 1:
        by_key = shared > 0
        found[shared & BY_GROUP > 0] = 0.93
        if not person:
            found[shared & BY_CLASS > 0] = 0.85
        near = edits <= _ALLOWED[longer]
        at = np.flatnonzero(near)
        if len(at):
            found[at] = np.maximum(
                found[at], _spelled(x, [latin[i] for i in at.tolist()], edits[at], longer[at], same_start[at])
            )
        if len(own.bones) > 2:
            found[same_start & (shared & BY_BONES > 0) & (found < 0.8)] = 0.8
        if not person:
            for i in np.flatnonzero(same_start & (found < 0.8)).tolist():
                found[i] = max(found[i], abbreviation(x, latin[i]))
        found[found < LEAST] = 0
        # Where vowels are not written, and in words too long to be measured here, the rules are others.
        odd = longer == LONGEST
        odd |= own.semitic or flags & SEMITIC > 0
        for i in np.flatnonzero(odd & (near | by_key | (found > 0))).tolist():
            found[i] = similarity(own, token(texts[i]), person=person)[0]
    initials = lengths == 1 if len(x) > 1 else np.ones(len(latin), np.bool_)
    if initials.any():
        found[initials] = 0
        if person:
            found[initials & same_start & ((flags & NATIVE > 0) == own.native)] = INITIAL
    found[(flags & NUMBER > 0) | (lengths == 0) | own.is_number] = 0
    for i in np.flatnonzero(edits == 0).tolist():
        found[i] = 1.0 if texts[i] == own.text else 0.97
    return found


def _spelled(
    x: str,
    latin: Sequence[str],
    edits: NDArray[np.uint8],
    longer: NDArray[np.uint8],
    same_start: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """`score.spelled` of many words."""
    ratio = 1 - edits.astype(np.float64) / longer
    value: NDArray[np.float64] = cdist([x], latin, scorer=JaroWinkler.similarity, dtype=np.float64)[0]
    value = 0.5 * ratio + 0.5 * value
    value[~same_start] -= 0.05
    return value
