"""Keys by which a word is found although it is written otherwise.

A word of the index and a word of a query meet if they share a key; whether they are alike is decided afterwards, by
`score.similarity`. Keys are CRC-32 of a text: a collision costs one comparison and changes nothing.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from app.screening.spelling import skeleton
from app.screening.words import PARTICLES, groups_of

if TYPE_CHECKING:
    from app.screening.normalise import Name
    from app.screening.words import Token

PREFIX: Final = 8
"""Letters of a word that deletions are made of: typing errors beyond change nothing of them."""

# One space of numbers for each kind of key, by the start value of the checksum.
_SPELLING: Final = 1
_GROUP: Final = 2
_BONES: Final = 3
_CLASS: Final = 4
_JOINED: Final = 5
_IDENTIFIER: Final = 6
_JOINED_BONES: Final = 7
_JOINED_GROUP: Final = 8
_ACRONYM: Final = 9

MAX_JOINED_GROUPS: Final = 4
MAX_ACRONYM: Final = 9


def spelling_keys(word: str) -> set[int]:
    """The word's start and what is left of it with one letter out (from four letters) or two (from seven).

    Two words within so many edits share a key: https://wolfgarbe.medium.com, "symmetric delete", cut to a prefix.
    """
    start = word[:PREFIX].encode()
    found = {zlib.crc32(start, _SPELLING)}
    length = len(start)
    if length < 4:
        return found
    once = {start[:i] + start[i + 1 :] for i in range(length)}
    found.update(zlib.crc32(s, _SPELLING) for s in once)
    if len(word) >= 6:
        twice = {s[:i] + s[i + 1 :] for s in once for i in range(length - 1)}
        found.update(zlib.crc32(s, _SPELLING) for s in twice)
    return found


def token_keys(token: Token) -> set[int]:
    """All keys of a word, the same for the index and for a query."""
    found = spelling_keys(token.latin) if token.latin else {zlib.crc32(token.text.encode(), _SPELLING)}
    found.update(zlib.crc32(b"%d" % group, _GROUP) for group in token.groups)
    found.update(zlib.crc32(name.encode(), _CLASS) for name in token.classes)
    if len(token.bones) > 1:
        found.add(zlib.crc32(token.bones.encode(), _BONES))
    return found


def joined_keys(name: Name) -> set[int]:
    """Keys of neighbours written as one word, of the whole name so, and of its first letters."""
    words = [t.latin for t in name.tokens]
    found: set[int] = set()
    if len(words) < 2:
        return found
    for a, b in pairwise(words):
        found |= _one_word(a + b)
    if len(words) > 2:
        found.add(zlib.crc32("".join(words).encode(), _JOINED))
        if not name.is_person:
            found.update(zlib.crc32(letters.encode(), _ACRONYM) for letters in acronyms(name))
    return found


def _one_word(joined: str) -> set[int]:
    found = {zlib.crc32(joined.encode(), _JOINED)}
    bones = skeleton(joined)
    if len(bones) > 3:
        found.add(zlib.crc32(bones.encode(), _JOINED_BONES))
    found.update(zlib.crc32(b"%d" % group, _JOINED_GROUP) for group in groups_of(joined)[:MAX_JOINED_GROUPS])
    return found


def joined_by(token: Token) -> set[int]:
    """The keys under which a word finds neighbours of an index that it may be written together of."""
    if len(token.latin) < 3:
        return set()
    found = {zlib.crc32(token.latin.encode(), _ACRONYM)} if len(token.latin) < MAX_ACRONYM else set()
    if len(token.latin) > 3:
        found.add(zlib.crc32(token.latin.encode(), _JOINED))
        if token.native:
            if len(token.bones) > 3:
                found.add(zlib.crc32(token.bones.encode(), _JOINED_BONES))
            found.update(zlib.crc32(b"%d" % group, _JOINED_GROUP) for group in token.groups)
    return found


def acronyms(name: Name) -> set[str]:
    """The first letters of an organisation's words, with and without particles, if there are three to eight."""
    every = "".join(t.latin[:1] for t in name.tokens)
    weighty = "".join(t.latin[:1] for t in name.tokens if t.text not in PARTICLES)
    return {letters for letters in (every, weighty) if 3 <= len(letters) < MAX_ACRONYM}


def identifier_key(value: str) -> int:
    """The key of an identifier, by its letters and digits: registers write the same number with dots, spaces, dashes."""
    return zlib.crc32(plain_identifier(value).encode(), _IDENTIFIER)


def plain_identifier(value: str) -> str:
    """An identifier without what is only layout."""
    return "".join(c for c in value.upper() if c.isalnum())
