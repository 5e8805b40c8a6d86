"""How two names agree: which word met which and how, and what is left over on each side.

Guarantees a result that depends on the two names alone, in time bounded by their number of words. An alignment is greedy:
the pair that says most is taken first. With the few words of a name that is the best one nearly always, and it can be
explained.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rapidfuzz.distance import OSA, JaroWinkler

from app.screening.normalise import LONGEST_ACRONYM, LONGEST_RUN, acronyms, blends
from app.screening.spelling import skeleton
from app.screening.words import PARTICLES, groups_of, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.screening.normalise import Name
    from app.screening.words import Token

Kind = Literal[
    "equal", "transliteration", "same name", "spelling", "consonants", "initial", "abbreviation", "same word", "joined", "acronym", "blend"
]  # fmt: skip

ACRONYM: Final = 0.75
"""First letters say who it is less surely than words do: many share them."""
BLEND: Final = 0.75
"""So does a word that is made of the beginnings of words."""
RUN: Final = 0.7
"""The first letters of some words of a name."""

INITIAL: Final = 0.7
LEAST: Final = 0.5
"""Below this two words do not meet at all."""


class Met(NamedTuple):
    """Words of the query that met words of the notice.

    Attributes:
        query, notice: positions of the words, one or several next to each other.
        similarity: 0 to 1.
        kind: how they met.
        edits: differing letters, for a spelling.
    """

    query: tuple[int, ...]
    notice: tuple[int, ...]
    similarity: float
    kind: Kind
    edits: int = 0


class Agreement(NamedTuple):
    """How two names agree.

    Attributes:
        met: pairs, best first.
        query_left, notice_left: positions of words that met nothing.
    """

    query: Name
    notice: Name
    met: tuple[Met, ...]
    query_left: tuple[int, ...]
    notice_left: tuple[int, ...]


def similarity(a: Token, b: Token, *, person: bool) -> tuple[float, Kind, int]:
    """How alike two words are, how, and in how many letters they differ; (0, "equal", 0) if not at all."""
    if a.text == b.text:
        return 1.0, "equal", 0
    x, y = a.latin, b.latin
    if not x or not y:
        return 0.0, "equal", 0
    crossing = a.native != b.native
    if x == y:
        return 0.97, "transliteration", 0
    if a.is_number or b.is_number:
        return 0.0, "equal", 0
    if len(x) == 1 or len(y) == 1:
        if person and x[0] == y[0] and not crossing:
            return INITIAL, "initial", 0
        return 0.0, "equal", 0
    best: tuple[float, Kind, int] = (0.0, "equal", 0)
    if a.groups and b.groups and not set(a.groups).isdisjoint(b.groups):
        best = (0.93, "same name", 0)
    if not person and a.classes and b.classes and not set(a.classes).isdisjoint(b.classes):
        best = (0.85, "same word", 0)
    # A letter more or less changes one bit of `letters` at most, and another letter two: most pairs differ in too many.
    most = allowed(max(len(x), len(y)))
    if (a.letters ^ b.letters).bit_count() <= 2 * most and -most <= len(x) - len(y) <= most:
        spelled = _spelling(x, y)
        if spelled[0] > best[0]:
            best = spelled
    if (a.semitic or b.semitic) and crossing and best[0] < 0.9 and len(a.bones) > 1 and len(b.bones) > 1:
        bones = _bones(a.bones, b.bones)
        if a.bare_bones or b.bare_bones:
            bones = max(bones, _bones(a.bare_bones or a.bones, b.bare_bones or b.bones))
        if bones > best[0]:
            best = (bones, "consonants", 0)
    elif best[0] < 0.8 and len(a.bones) > 2 and a.bones == b.bones and x[0] == y[0]:
        best = (0.8, "consonants", 0)
    if not person and x[0] == y[0] and best[0] < 0.8:
        shortened = abbreviation(x, y)
        if shortened > best[0]:
            best = (shortened, "abbreviation", 0)
    return best if best[0] >= LEAST else (0.0, "equal", 0)


MOST_EDITS: Final = 3


def allowed(longer: int) -> int:
    """In how many letters two words may differ, by the length of the longer."""
    return 0 if longer <= 2 else 1 if longer <= 5 else 2 if longer <= 8 else MOST_EDITS


def _spelling(x: str, y: str) -> tuple[float, Kind, int]:
    edits = OSA.distance(x, y, score_cutoff=allowed(max(len(x), len(y))))
    return spelled(x, y, edits), "spelling", edits


def spelled(x: str, y: str, edits: int) -> float:
    longer = max(len(x), len(y))
    if edits > allowed(longer):
        return 0.0
    ratio = 1 - edits / longer
    value = 0.5 * ratio + 0.5 * JaroWinkler.similarity(x, y)
    if x[0] != y[0]:
        value -= 0.05
    return value


def abbreviation(x: str, y: str) -> float:
    """What it says that one of two words of an organisation's name is short for the other; 0 if it is not."""
    short, long = (x, y) if len(x) <= len(y) else (y, x)
    if len(short) < 3 or len(long) == len(short) or long[0] != short[0]:
        return 0.0
    if long.startswith(short) and (len(short) >= 4 or len(long) <= 8):
        return 0.8
    return 0.72 if _abbreviates(short, long) else 0.0


def _bones(a: str, b: str) -> float:
    if a == b:
        return 0.9 if len(a) > 2 else 0.8
    longer = max(len(a), len(b))
    if longer < 3:
        return 0.0
    edits = OSA.distance(a, b, score_cutoff=1)
    return 0.85 - 0.7 / longer if edits == 1 else 0.0


def _abbreviates(short: str, long: str) -> bool:
    """Whether a word is another without some of its letters, most of them vowels: intl, shpg, srvcs."""
    if short[-1] not in long[1:] or sum(c in "aeiou" for c in short) * 2 > len(short):
        return False
    rest = iter(long)
    return all(letter in rest for letter in short)


class Comparer:
    """Compares one query name with many. Remembers words it has met, so that a common word is compared once."""

    def __init__(self, query: Name) -> None:
        self.query = query
        self._known: dict[str, list[tuple[int, float, float, Kind, int]]] = {}
        self._person = query.is_person
        tokens = query.tokens
        self._joined = [joined(a, b) for a, b in pairwise(tokens)]

    def _row(self, other: Token) -> list[tuple[int, float, float, Kind, int]]:
        """The words of the query that meet one: place, what meeting gains wherever they stand, similarity, kind, edits."""
        row = self._known.get(other.text)
        if row is None:
            row = self._known[other.text] = []
            for place, own in enumerate(self.query.tokens):
                value, kind, edits = similarity(own, other, person=self._person)
                if value:
                    row.append((place, value * value * min(other.weight, own.weight), value, kind, edits))
        return row

    def compare(self, notice: Name) -> Agreement:
        """Align the words of the two names."""
        query = self.query
        ours, theirs = query.tokens, notice.tokens
        pairs: list[_Pair] = []
        strong_q, strong_n = set(), set()
        for j, other in enumerate(theirs):
            for i, gain, value, kind, edits in self._row(other):
                pairs.append((-(gain - 0.001 * abs(i - j)), (i,), (j,), value, kind, edits))
                if value > 0.9:
                    strong_q.add(i)
                    strong_n.add(j)
        if len(strong_q) < len(ours) and len(strong_n) < len(theirs):
            pairs += self._joins(notice, strong_q, strong_n)
        pairs.sort(key=_gain)
        met: list[Met] = []
        used_q: set[int] = set()
        used_n: set[int] = set()
        for _, places, others, value, kind, edits in pairs:
            if used_q.isdisjoint(places) and used_n.isdisjoint(others):
                met.append(Met(places, others, value, kind, edits))
                used_q.update(places)
                used_n.update(others)
        return Agreement(
            query,
            notice,
            tuple(met),
            tuple([i for i in range(len(ours)) if i not in used_q]),
            tuple([j for j in range(len(theirs)) if j not in used_n]),
        )

    def _joins(self, notice: Name, strong_q: set[int], strong_n: set[int]) -> list[_Pair]:
        """Neighbours written as one word, on either side or both; first letters of some words; and whole names."""
        ours, theirs = self.query.tokens, notice.tokens
        found: list[_Pair] = []
        for i, own in enumerate(self._joined):
            if i in strong_q and i + 1 in strong_q:
                continue
            length = len(own.latin)
            weight = min(ours[i].weight + ours[i + 1].weight, 1.0)
            for j, other in enumerate(theirs):
                if j not in strong_n and abs(length - len(other.latin)) <= 3 + own.semitic:
                    value, edits = _join_value(own, other)
                    if value:
                        found.append((-value * value * weight, (i, i + 1), (j,), value, "joined", edits))
            if own.semitic:  # عبد الستار is Abdul Satar: neither side's words meet, but together they do
                for j in range(len(theirs) - 1):
                    a, b = theirs[j], theirs[j + 1]
                    if not a.native and not b.native and abs(length - len(a.latin) - len(b.latin)) <= 4:
                        value, edits = _join_value(own, joined(a, b))
                        if value:
                            found.append(
                                (-value * value * weight, (i, i + 1), (j, j + 1), value, "joined", edits)
                            )
        for j in range(len(theirs) - 1):
            if j in strong_n and j + 1 in strong_n:
                continue
            length = len(theirs[j].latin) + len(theirs[j + 1].latin)
            weight = min(theirs[j].weight + theirs[j + 1].weight, 1.0)
            plain = not (theirs[j].native or theirs[j + 1].native)
            for i, own in enumerate(ours):
                if i not in strong_q and abs(length - len(own.latin)) <= 3 + theirs[j].semitic:
                    if plain and not own.native:  # their letters say it all
                        value, edits = _spelled_together(theirs[j].latin + theirs[j + 1].latin, own.latin)
                    else:
                        value, edits = _join_value(joined(theirs[j], theirs[j + 1]), own)
                    if value:
                        found.append((-value * value * weight, (i,), (j, j + 1), value, "joined", edits))
        if not self._person and len(ours) > 1 and len(theirs) > 1:
            found += _runs(ours, theirs, strong_q)
            found += [
                (gain, places, others, value, kind, edits)
                for gain, others, places, value, kind, edits in _runs(theirs, ours, strong_n)
            ]
        if (len(ours) == 1) != (len(theirs) == 1):
            whole = self._whole(notice)
            if whole is not None:
                found.append(whole)
        return found

    def _whole(self, notice: Name) -> _Pair | None:
        """A name of one word that is all of the other: written together, its first letters, or made of its beginnings."""
        ours, theirs = self.query.tokens, notice.tokens
        value, edits, kind = 0.0, 0, "joined"
        if max(len(ours), len(theirs)) > 2:
            value, edits = _spelled_together(
                "".join([t.latin for t in ours]), "".join([t.latin for t in theirs])
            )
        if not value and not self._person:
            one, many = (ours[0].latin, notice) if len(ours) == 1 else (theirs[0].latin, self.query)
            if len(many.tokens) > 2 and len(one) < LONGEST_ACRONYM and one in acronyms(many):
                value, kind = ACRONYM, "acronym"
            elif blends(one, many):
                value, kind = BLEND, "blend"
        if not value:
            return None
        return -9.0, tuple(range(len(ours))), tuple(range(len(theirs))), value, kind, edits  # type: ignore[return-value]


def _runs(short: Sequence[Token], long: Sequence[Token], strong: set[int]) -> list[_Pair]:
    """Words that are the first letters of some words of the other name, not of all: Hassan DTO."""
    found: list[_Pair] = []
    places: list[int] = []
    letters = ""
    for i, own in enumerate(short):
        if i in strong or not 3 <= len(own.latin) <= LONGEST_RUN or own.native or own.is_number:
            continue
        if not places:
            places = [j for j, t in enumerate(long) if t.text not in PARTICLES]
            letters = "".join([long[j].latin[:1] or "?" for j in places])
        at = letters.find(own.latin)
        if at >= 0:
            met = tuple(places[at : at + len(own.latin)])
            found.append((-RUN * RUN * own.weight, (i,), met, RUN, "acronym", 0))
    return found


_Pair = tuple[float, tuple[int, ...], tuple[int, ...], float, Kind, int]
"""What meeting gains, negated for sorting, and the members of a `Met`: most pairs never become one."""


def _gain(item: _Pair) -> float:
    return item[0]


def _join_value(put: Token, written: Token) -> tuple[float, int]:
    """How alike two words put together are to what is written; the two of `put` are a `words.joined`."""
    x, y = put.latin, written.latin
    if max(len(x), len(y)) < 4:
        return 0.0, 0
    if x == y:
        return 0.96, 0
    if put.semitic != written.semitic or written.native:
        groups = groups_of(x) if not put.native else put.groups
        if written.groups and groups and not set(groups).isdisjoint(written.groups):
            return 0.93, 0
        if put.semitic or written.semitic:
            ours, theirs = put.bones, written.bones
            if len(ours) > 3 and ours == theirs:
                return 0.88, 0
    return _spelled_together(x, y)


def _spelled_together(x: str, y: str) -> tuple[float, int]:
    longer = max(len(x), len(y))
    if longer < 4:
        return 0.0, 0
    if x == y:
        return 0.96, 0
    allowed = 1 if longer < 8 else 2
    edits = OSA.distance(x, y, score_cutoff=allowed)
    if edits > allowed:
        return (0.8, 0) if longer > 7 and len(b := skeleton(x)) > 3 and b == skeleton(y) else (0.0, 0)
    return 0.96 - edits * 1.2 / longer, edits


__all__ = ["PARTICLES", "Agreement", "Comparer", "Met", "similarity"]
