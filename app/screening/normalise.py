"""A name as it is compared: its words, without the legal form, which is kept beside them.

Guarantees one reading for a name whoever gives it, query or notice, in time linear in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

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

MAX_TOKENS: Final = 24
"""Words of a name that are compared. What follows is a clause about successors, not a name."""
MAX_TOKEN: Final = 40
"""Characters of a word that are compared: distances are quadratic in it."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name that was read.

    Attributes:
        text: as given.
        tokens: its words in their order, legal forms left out unless there is nothing else.
        forms: kinds of legal form found in it.
        is_person: it was read as a person's name.
    """

    text: str
    tokens: tuple[Token, ...]
    forms: frozenset[str] = frozenset()
    is_person: bool = False
    form_only: bool = False

    @property
    def weight(self) -> float:
        """What all its words say together."""
        return sum(t.weight for t in self.tokens)

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
    if not person:
        left, forms = _without_forms(words)
        form_only = not left and bool(words)
        words = left or words
        words = [str(ordinals()[w]) if w in ordinals() else w for w in words]
    return Name(text, tuple(token(word) for word in words[:MAX_TOKENS]), forms, person, form_only)


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


def acronyms(name: Name) -> set[str]:
    """The first letters of an organisation's words, with and without particles, if there are three to eight."""
    every = "".join(t.latin[:1] for t in name.tokens)
    weighty = "".join(t.latin[:1] for t in name.tokens if t.text not in PARTICLES)
    return {letters for letters in (every, weighty) if 3 <= len(letters) < LONGEST_ACRONYM}
