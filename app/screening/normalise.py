"""A name as it is compared: its words, without the legal form, which is kept beside them.

Guarantees one reading for a name whoever gives it, query or notice, in time linear in the text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from app.domain.names import fold
from app.screening.spelling import words_of
from app.screening.words import (
    HONORIFICS,
    PARTICLES,
    Token,
    legal_forms,
    longest_forms,
    ordinals,
    titles,
    token,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.party import Schema

LONGEST_ACRONYM: Final = 9
"""Letters below which an acronym is one."""

LONGEST_RUN: Final = 5
"""Letters of an acronym of a part of a name."""
LEAST_BLEND, LONGEST_BLEND, MOST_BLENDED = 5, 14, 7
"""Letters of a word that may be made of the beginnings of others, and how many they may be."""
SUFFIX: Final = 4
"""Letters below which a legal form may end an acronym."""

MAX_TOKENS: Final = 24
"""Words of a name that are compared. What follows is a clause about successors, not a name."""
MAX_TOKEN: Final = 40
"""Characters of a word that are compared: distances are quadratic in it."""


class Name(NamedTuple):
    """A name that was read.

    Attributes:
        text: as given.
        tokens: its words in their order, legal forms left out unless there is nothing else.
        forms: kinds of legal form found in it.
        is_person: it was read as a person's name.
        form_only: there is nothing but a legal form.
        suffix: the letters of a short legal form at its end, such as "sa": acronyms often take them in.
    """

    text: str
    tokens: tuple[Token, ...]
    forms: frozenset[str] = frozenset()
    is_person: bool = False
    form_only: bool = False
    suffix: str = ""

    @property
    def weight(self) -> float:
        """What all its words say together."""
        return sum([t.weight for t in self.tokens])

    @property
    def emptiness(self) -> str | None:
        """Why nobody could be found by it, as the end of a sentence; None if somebody could."""
        if not self.tokens:
            return "has no letter and no digit"
        if self.form_only:
            return "is a legal form and nothing else"
        if (
            all(t.text in PARTICLES or t.text in HONORIFICS or t.text in titles() for t in self.tokens)
            and len(self.tokens) < 3
        ):
            return (
                "is a title or a particle and nothing else"
                if len(self.tokens[0].text) > 1
                else "is one letter"
            )
        if all(len(t.text) == 1 and t.text.isascii() for t in self.tokens) and len(self.tokens) < 3:
            return "is one letter" if len(self.tokens) == 1 else "is two letters"
        return None


@lru_cache(maxsize=4096)
def normalise(text: str, schema: Schema) -> Name:
    """Read a name; `Name.emptiness` says if nothing is left of it."""
    person = schema == "Person"
    words = [word[:MAX_TOKEN] for word in words_of(_turned(text) if person else text)[: 2 * MAX_TOKENS]]
    forms: frozenset[str] = frozenset()
    form_only = False
    suffix = ""
    if not person:
        left, forms = _without_forms(words)
        suffix = _suffix(words, left)
        form_only = not left and bool(words)
        words = left or words
        words = [str(ordinals()[w]) if w in ordinals() else w for w in words]
    return Name(text, tuple(token(word) for word in words[:MAX_TOKENS]), forms, person, form_only, suffix)


def _turned(text: str) -> str:
    """A person's name as it is said: "Karelin, Ivo" is Ivo Karelin, and "Ivo Karelin, Jr." is not turned."""
    last, comma, first = text.partition(",")
    if not comma or "," in first:
        return text
    said = fold(first).split()
    if not said or not fold(last) or all(word in HONORIFICS or word in titles() for word in said):
        return text
    return f"{first} {last}"


def _without_forms(words: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """The words that are no legal form, and the kinds of form. A single word counts only at the start or the end."""
    known, begins = legal_forms(), longest_forms()
    kinds: set[str] = set()
    left: list[tuple[int, str]] = []
    at = 0
    while at < len(words):
        for length in range(min(begins.get(words[at], 0), len(words) - at), 0, -1):
            phrase = tuple(words[at : at + length])
            edge = at == 0 or at + length == len(words)
            if phrase in known and (length > 1 or edge):
                kinds.add(known[phrase])
                at += length
                break
        else:
            left.append((at, words[at]))
            at += 1
    plain = [word for _, word in left]
    while len(plain) > 1 and (plain[-1],) in known:
        kinds.add(known[plain.pop(),])
    return plain, frozenset(kinds)


def _suffix(words: Sequence[str], left: Sequence[str]) -> str:
    """The first word of the legal form at the end, if it is short."""
    if not left or words[-1] == left[-1]:
        return ""
    last = len(words) - 1 - list(reversed(words)).index(left[-1])
    return words[last + 1] if len(words[last + 1]) < SUFFIX and words[last + 1].isascii() else ""


def acronyms(name: Name) -> set[str]:
    """The first letters of an organisation's words, with and without particles and legal form, if there are three to eight."""
    every = "".join([t.latin[:1] for t in name.tokens])
    weighty = "".join([t.latin[:1] for t in name.tokens if t.text not in PARTICLES])
    found = {every, weighty}
    if name.suffix:
        found |= {every + name.suffix, weighty + name.suffix}
    return {letters for letters in found if 3 <= len(letters) < LONGEST_ACRONYM}


def runs(name: Name) -> list[str]:
    """The first letters of some words of an organisation's name that stand together, three to five, but not of all."""
    letters = "".join([t.latin[:1] for t in name.tokens if t.text not in PARTICLES])
    return [
        letters[at : at + length]
        for length in range(3, min(LONGEST_RUN, len(letters) - 1) + 1)
        for at in range(len(letters) - length + 1)
    ]


def blends(word: str, name: Name) -> bool:
    """Whether a word is made of the beginnings of an organisation's words, in order: Frutas de la Costa, Frucosta.

    All words but particles take part, or each part has two letters or more and one word alone is left out. The letters of a
    short legal form may end it.
    """
    words = [t.latin for t in name.tokens if t.text not in PARTICLES and t.latin]
    if not LEAST_BLEND <= len(word) <= LONGEST_BLEND or not 2 <= len(words) <= MOST_BLENDED:
        return False
    ends = {word}
    if name.suffix and word.endswith(name.suffix):
        ends.add(word[: -len(name.suffix)])
    return any(_blended(end, words, 0, 1) or (len(words) > 2 and _covered(end, words)) for end in ends)


def _blended(rest: str, words: Sequence[str], used: int, skips: int) -> bool:
    """Whether the rest is made of beginnings of two letters or more; the first word always takes part."""
    if not rest:
        return used > 1 and len(words) <= skips
    if not words:
        return False
    first = words[0]
    for length in range(min(len(first), len(rest)), 1, -1):
        if first[:length] == rest[:length] and _blended(rest[length:], words[1:], used + 1, skips):
            return True
    return used > 0 and skips > 0 and _blended(rest, words[1:], used, skips - 1)


def _covered(rest: str, words: Sequence[str]) -> bool:
    """Whether the rest is made of beginnings of every word."""
    if not words:
        return not rest
    first = words[0]
    return any(
        first[:length] == rest[:length] and _covered(rest[length:], words[1:])
        for length in range(1, min(len(first), len(rest) - len(words) + 1) + 1)
    )
