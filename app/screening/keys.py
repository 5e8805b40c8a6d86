"""Keys by which a word is found although it is written otherwise.

A word of the index and a word of a query meet if they share a key; whether they are alike is decided afterwards, by
`score.similarity`. Keys are CRC-32 of a text: a collision costs one comparison and changes nothing.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def joined_keys(words: tuple[str, ...]) -> Iterator[int]:
    """Keys of neighbours written as one word, and of the whole name so."""
    if len(words) < 2:
        return
    for a, b in pairwise(words):
        yield zlib.crc32((a + b).encode(), _JOINED)
    if len(words) > 2:
        yield zlib.crc32("".join(words).encode(), _JOINED)


def joined_key(word: str) -> int:
    """The key under which a word finds neighbours of an index that it may be written together of."""
    return zlib.crc32(word.encode(), _JOINED)


def identifier_key(value: str) -> int:
    """The key of an identifier, by its letters and digits: registers write the same number with dots, spaces, dashes."""
    return zlib.crc32(plain_identifier(value).encode(), _IDENTIFIER)


def plain_identifier(value: str) -> str:
    """An identifier without what is only layout."""
    return "".join(c for c in value.upper() if c.isalnum())
