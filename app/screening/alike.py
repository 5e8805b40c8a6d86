"""How alike words of a query are to many words of an index, without looking all of each of them up.

Guarantees the values of `score.similarity`. An index has words by their keys, so it knows what a word shares with that of
the query. That two words share a key of another kind than spelling is taken for what it stands for: once in billions of
pairs it is a collision, which moves an estimate and no score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from rapidfuzz.distance import OSA, JaroWinkler
from rapidfuzz.process import cpdist

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
    """Words of an index beside the words of a query that they share keys with: lists and arrays parallel to each other.

    Attributes:
        of: places of the words of the query.
        texts, latin: the words of the index as they are written, and in Latin letters, "" if they cannot be.
        lengths: letters of `latin`, at most LONGEST.
        begins: the first of them, as a number; 0 if there is none.
        flags: of `flags_of`.
        shared: of what kinds the keys are that the two share, those of spelling apart: see `keys`.
    """

    of: NDArray[np.intp]
    texts: Sequence[str]
    latin: Sequence[str]
    lengths: NDArray[np.uint8]
    begins: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    shared: NDArray[np.uint8]


def worthwhile(
    asked: Sequence[Token],
    of: NDArray[np.intp],
    lengths: NDArray[np.uint8],
    begins: NDArray[np.uint8],
    shared: NDArray[np.uint8],
    *,
    person: bool,
) -> NDArray[np.bool_]:
    """Which pairs may be alike at all, by what is known without their letters: of all others `similarities` says 0.

    Two words that share no key but of spelling are alike by spelling, in no more letters than their lengths may differ in; by
    the letter they begin with, where one is an initial of a person; or where one may be short for the other.
    """
    size = np.array([min(len(own.latin), LONGEST) for own in asked], np.uint8)[of]
    first = np.array([ord(own.latin[0]) if own.latin else 0 for own in asked], np.uint8)[of]
    longer, shorter = np.maximum(lengths, size), np.minimum(lengths, size)
    may = (longer - shorter <= _ALLOWED[longer]) | (shared > 0)
    if person:
        may |= (begins == first) & (shorter == 1)
    else:
        may |= begins == first
    return may


def similarities(asked: Sequence[Token], known: Known, *, person: bool) -> NDArray[np.float64]:
    """How alike the pairs of words are, 0 to 1.

    Args:
        asked: words of a query, which all can be written in Latin letters.
        person: they stand in a person's name.
    """
    of, texts, latin, lengths, begins, flags, shared = known
    which = of.tolist()
    words = [asked[i].latin for i in which]
    size = np.array([min(len(own.latin), LONGEST) for own in asked], np.uint8)[of]
    same_start = begins == np.array([ord(own.latin[0]) for own in asked], np.uint8)[of]
    theirs_alone, ours_alone = lengths == 1, size == 1
    edits = cpdist(words, latin, scorer=OSA.distance, score_cutoff=MOST_EDITS, dtype=np.uint8)
    longer = np.maximum(lengths, size)
    found = np.zeros(len(latin))
    found[shared & BY_GROUP > 0] = 0.93
    if not person:
        found[shared & BY_CLASS > 0] = 0.85
    near = edits <= _ALLOWED[longer]
    at = np.flatnonzero(near & (longer > 1))
    if len(at):
        some = at.tolist()
        value = cpdist(
            [words[i] for i in some],
            [latin[i] for i in some],
            scorer=JaroWinkler.similarity,
            dtype=np.float64,
        )
        value = 0.5 * (1 - edits[at].astype(np.float64) / longer[at]) + 0.5 * value
        value[~same_start[at]] -= 0.05
        found[at] = np.maximum(found[at], value)
    bony = np.array([len(own.bones) > 2 for own in asked], np.bool_)[of]
    found[bony & same_start & (shared & BY_BONES > 0) & (found < 0.8)] = 0.8
    if not person:
        for i in np.flatnonzero(same_start & (found < 0.8)).tolist():
            found[i] = max(found[i], abbreviation(words[i], latin[i]))
    found[found < LEAST] = 0
    # Where vowels are not written, and in words too long to be measured here, the rules are others.
    odd = (longer == LONGEST) | (flags & SEMITIC > 0)
    if any(own.semitic for own in asked):
        odd |= np.array([own.semitic for own in asked], np.bool_)[of]
    for i in np.flatnonzero(odd & (near | (shared > 0) | (found > 0))).tolist():
        found[i] = similarity(asked[which[i]], token(texts[i]), person=person)[0]
    initials = theirs_alone | ours_alone
    if initials.any():
        found[initials] = 0
        if person:
            native = np.array([own.native for own in asked], np.bool_)[of]
            found[initials & same_start & ((flags & NATIVE > 0) == native)] = INITIAL
    number = np.array([own.is_number for own in asked], np.bool_)[of]
    found[number | (flags & NUMBER > 0) | (lengths == 0)] = 0
    for i in np.flatnonzero(edits == 0).tolist():
        found[i] = 1.0 if texts[i] == asked[which[i]].text else 0.97
    return found
