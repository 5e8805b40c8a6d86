"""Keys by which a word is found although it is written otherwise.

A word of the index and a word of a query meet if they share a key; whether they are alike is decided afterwards, by
`score.similarity`. Keys are 32 bits of a checksum: a collision costs one comparison and changes nothing. They are made for
many words at once, with numpy, because that is most of the work of making an index.
"""

from __future__ import annotations

import zlib
from functools import cache
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from app.screening.normalise import (
    LEAST_BLEND,
    LONGEST_ACRONYM,
    LONGEST_BLEND,
    LONGEST_RUN,
    acronyms,
    runs,
)
from app.screening.spelling import plain_identifier, skeleton
from app.screening.words import PARTICLES, groups_of_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.screening.normalise import Name
    from app.screening.words import Token

PREFIX: Final = 8
"""Letters of a word that deletions are made of: typing errors beyond change nothing of them."""

# One space of numbers for each kind of key: the start value of a checksum, or what a number is mixed with.
_SPELLING: Final = 1
_GROUP: Final = 2
_BONES: Final = 3
_CLASS: Final = 4
_JOINED: Final = 5
_IDENTIFIER: Final = 6
_JOINED_BONES: Final = 7
_JOINED_GROUP: Final = 8
_ACRONYM: Final = 9
_RUN: Final = 10
_BLEND: Final = 11
_BLENDED: Final = 12

BY_TEXT: Final = 1
BY_CLASS: Final = 2
BY_BONES: Final = 4
BY_GROUP: Final = 8
"""What a key that is not made of a spelling says of two words that share it: one bit each."""

MAX_JOINED_GROUPS: Final = 4

_AT_ONCE: Final = 4096
"""Words whose deletions are made together: some megabytes."""

Keys = tuple[NDArray[np.uint32], NDArray[np.uint32]]


def _mixed(values: NDArray[np.uint32], kind: int) -> NDArray[np.uint32]:
    """Numbers spread over 32 bits, another way for each kind; different numbers stay different (MurmurHash3's finalizer)."""
    h = values ^ np.uint32(kind * 0x9E3779B9 & 0xFFFFFFFF)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


_FACTORS: Final = np.array([pow(0x01000193, k, 1 << 32) for k in range(PREFIX)], np.uint32)


@cache
def _left(length: int, out: int) -> NDArray[np.intp]:
    """Places of the letters that are left of `length` when `out` are deleted, a row for each way."""
    return np.array(list(combinations(range(length), length - out)), np.intp)


def spelling_keys(words: Sequence[str]) -> Keys:
    """Of words in Latin letters: (keys, for each the place of its word).

    A word's keys are its start and what is left of it with one letter out (from four letters) or two (from six). Two words
    within so many edits share a key: "symmetric delete", https://wolfgarbe.medium.com, cut to a prefix.
    """
    found, places = [], []
    for start in range(0, len(words), _AT_ONCE):
        some = words[start : start + _AT_ONCE]
        text = b"".join([word[:PREFIX].encode().ljust(PREFIX, b"\0") for word in some])
        letters = np.frombuffer(text, np.uint8).reshape(-1, PREFIX).astype(np.uint32)
        lengths = np.fromiter(map(len, some), np.int64, len(some))
        prefixes = np.minimum(lengths, PREFIX)
        outs = np.where(prefixes < 4, 0, np.where(lengths < 6, 1, 2))
        for length in range(1, PREFIX + 1):
            for out in range(3):
                rows = np.flatnonzero((prefixes == length) & (outs == out))
                if not len(rows):
                    continue
                parts = [
                    (letters[rows][:, left] * _FACTORS[: left.shape[1]]).sum(-1, dtype=np.uint32)
                    for left in (_left(length, n) for n in range(out + 1))
                ]
                keys = np.sort(_mixed(np.concatenate(parts, axis=1), _SPELLING), axis=1)
                once = np.ones(keys.shape, np.bool_)  # doubled letters leave the same when either is out
                once[:, 1:] = keys[:, 1:] != keys[:, :-1]
                found.append(keys[once])
                places.append(np.repeat(rows + start, once.sum(1)).astype(np.uint32))
    return _all(found, places)


@cache
def _kept(length: int, out: int) -> NDArray[np.intp]:
    """The rows of `_left` for up to `out` letters out, one below the other, filled up with the place behind a start."""
    rows = [row for n in range(out + 1) for row in _left(length, n).tolist()]
    return np.array([row + [PREFIX] * (PREFIX - len(row)) for row in rows], np.intp)


def keys_of_spelling(word: str) -> NDArray[np.uint32]:
    """Those of `spelling_keys` for one word in Latin letters, as a query has it; one may be there twice."""
    begun = word[:PREFIX].encode()
    letters = np.zeros(PREFIX + 1, np.uint32)
    letters[: len(begun)] = np.frombuffer(begun, np.uint8)
    kept = _kept(len(begun), 0 if len(begun) < 4 else 1 if len(word) < 6 else 2)
    return _mixed((letters[kept] * _FACTORS).sum(-1, dtype=np.uint32), _SPELLING)


def query_keys(token: Token) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The keys of one word, and of what kind each is: 0 is its spelling."""
    texts = _other_texts(token)
    others = np.array([key for _, key in texts], np.uint32)
    kinds = [kind for kind, _ in texts]
    if token.groups:
        others = np.concatenate((others, _grouped(token.groups, _GROUP)))
        kinds += [BY_GROUP] * len(token.groups)
    if not token.latin:
        return others, np.array(kinds, np.uint8)
    spelled = keys_of_spelling(token.latin)
    return np.concatenate((spelled, others)), np.array([0] * len(spelled) + kinds, np.uint8)


def _other_texts(token: Token) -> list[tuple[int, int]]:
    """Of the keys of a word that are made of a text: (kind, key)."""
    found: list[tuple[int, int]] = []
    if not token.latin:
        found.append((BY_TEXT, zlib.crc32(token.text.encode(), _SPELLING)))
    found += [(BY_CLASS, zlib.crc32(name.encode(), _CLASS)) for name in token.classes]
    if len(token.bones) > 1:
        found.append((BY_BONES, zlib.crc32(token.bones.encode(), _BONES)))
    if token.bare_bones:
        found.append((BY_BONES, zlib.crc32(token.bare_bones.encode(), _BONES)))
    return found


def token_keys(tokens: Sequence[Token]) -> Keys:
    """All keys of words, as the index has them: (keys, for each the place of its word)."""
    latin = [place for place, token in enumerate(tokens) if token.latin]
    keys, places = spelling_keys([tokens[place].latin for place in latin])
    texts: list[int] = []
    of_text: list[int] = []
    groups: list[int] = []
    of_group: list[int] = []
    for place, token in enumerate(tokens):
        for _, key in _other_texts(token):
            texts.append(key)
            of_text.append(place)
        groups += token.groups
        of_group += [place] * len(token.groups)
    return _all(
        [keys, np.array(texts, np.uint32), _grouped(groups, _GROUP)],
        [np.array(latin, np.uint32)[places], np.array(of_text, np.uint32), np.array(of_group, np.uint32)],
    )


def joined_keys(names: Sequence[Name]) -> Keys:
    """Keys of neighbours written as one word, of the whole name so, and of its first letters: (keys, places of names)."""
    pairs: list[str] = []
    of_pair: list[int] = []
    texts: list[int] = []
    of_text: list[int] = []
    for place, name in enumerate(names):
        words = [t.latin for t in name.tokens]
        if len(words) < 2:
            if words and not name.is_person:
                made = _blend_keys(words[0], _BLENDED)
                texts += made
                of_text += [place] * len(made)
            continue
        pairs += [a + b for a, b in pairwise(words)]
        of_pair += [place] * (len(words) - 1)
        if len(words) > 2:
            texts.append(zlib.crc32("".join(words).encode(), _JOINED))
            of_text.append(place)
            if not name.is_person:
                short = [zlib.crc32(letters.encode(), _ACRONYM) for letters in acronyms(name)]
                short += [zlib.crc32(letters.encode(), _RUN) for letters in runs(name)]
                texts += short
                of_text += [place] * len(short)
        if not name.is_person:
            made = [zlib.crc32(begun.encode(), _BLEND) for begun in _beginnings(name)]
            texts += made
            of_text += [place] * len(made)
    for place, pair in zip(of_pair, pairs, strict=True):
        texts.append(zlib.crc32(pair.encode(), _JOINED))
        of_text.append(place)
        bones = skeleton(pair)
        if len(bones) > 3:
            texts.append(zlib.crc32(bones.encode(), _JOINED_BONES))
            of_text.append(place)
    groups, of_group = groups_of_each(pairs, MAX_JOINED_GROUPS)
    return _all(
        [np.array(texts, np.uint32), _mixed(groups, _JOINED_GROUP)],
        [np.array(of_text, np.uint32), np.array(of_pair, np.uint32)[of_group]],
    )


def _beginnings(name: Name) -> list[str]:
    """Two letters of the first weighty word and of one of the two that follow: what a word blended of them begins with."""
    words = [t.latin for t in name.tokens if t.text not in PARTICLES and len(t.latin) > 1][:3]
    return [words[0][:2] + word[:2] for word in words[1:]]


def _blend_keys(word: str, kind: int) -> list[int]:
    """Keys of what a word would begin with, were it blended of others."""
    if not (LEAST_BLEND <= len(word) <= LONGEST_BLEND and word.isalpha()):
        return []
    parts = {word[:2] + word[at : at + 2] for at in range(2, len(word) - 1)}
    return [zlib.crc32(part.encode(), kind) for part in parts]


def acronym_keys(name: Name) -> NDArray[np.uint32]:
    """The keys under which a name of one word finds those that it is the first letters of, and the other way round."""
    if name.is_person or not name.tokens:
        return np.zeros(0, np.uint32)
    word = name.tokens[0].latin
    if len(name.tokens) > 1 or not 3 <= len(word) < LONGEST_ACRONYM:
        return np.zeros(0, np.uint32)
    return np.array([zlib.crc32(word.encode(), _ACRONYM)], np.uint32)


def blend_keys(name: Name) -> NDArray[np.uint32]:
    """The keys under which a name finds those that it may be blended of, or that may be blended of it; see `normalise.blends`."""
    if name.is_person or not name.tokens:
        return np.zeros(0, np.uint32)
    if len(name.tokens) == 1:
        return np.array(_blend_keys(name.tokens[0].latin, _BLEND), np.uint32)
    return np.array([zlib.crc32(begun.encode(), _BLENDED) for begun in _beginnings(name)], np.uint32)


def run_keys(token: Token) -> NDArray[np.uint32]:
    """The keys under which a word finds names of which it is the first letters of some words."""
    if not 3 <= len(token.latin) <= LONGEST_RUN or token.native or token.is_number:
        return np.zeros(0, np.uint32)
    return np.array([zlib.crc32(token.latin.encode(), _RUN)], np.uint32)


def _grouped(groups: Sequence[int], kind: int) -> NDArray[np.uint32]:
    return _mixed(np.array(groups, np.int64).astype(np.uint32), kind)


def _all(keys: Sequence[NDArray[np.uint32]], places: Sequence[NDArray[np.uint32]]) -> Keys:
    none: list[NDArray[np.uint32]] = [np.zeros(0, np.uint32)]
    return np.concatenate(none + list(keys)), np.concatenate(none + list(places))


def joined_by(token: Token) -> NDArray[np.uint32]:
    """The keys under which a word finds neighbours of an index that it may be written together of."""
    if len(token.latin) < 4:
        return np.zeros(0, np.uint32)
    found = [zlib.crc32(token.latin.encode(), _JOINED)]
    if token.native:
        if len(token.bones) > 3:
            found.append(zlib.crc32(token.bones.encode(), _JOINED_BONES))
        return np.concatenate((np.array(found, np.uint32), _grouped(token.groups, _JOINED_GROUP)))
    return np.array(found, np.uint32)


def identifier_key(value: str) -> int:
    """The key of an identifier, by its letters and digits: registers write the same number with dots, spaces, dashes."""
    return zlib.crc32(plain_identifier(value).encode(), _IDENTIFIER)
