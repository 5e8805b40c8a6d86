"""What words mean: legal forms, words that many organisations share, particles and titles, groups of one given name.

Guarantees that everything about a word is a function of the word and of the data shipped in `data/`, never of what a node
holds: two nodes weigh a word alike, and no weight tells a caller that a notice exists which it may not read.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.screening.spelling import is_semitic, is_unspaced, latin, skeleton

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

DATA: Final = Path(__file__).parent / "data"

ENTRIES: Final = 14_160
"""Entries of the list that words were counted in."""
UNCOUNTED: Final = 4
"""How many entries a word is taken to stand in that was not counted: fewer than the table's least."""

PARTICLES: Final = frozenset(
    "al el ul as ad ar az an at ash bin ben ibn bint binti abu abou umm ould oulad bou van von der den de del della di da do dos du la le les los "
    "las y e and und et i of the for ter ten zu zur af av te wa ud ur us ed es ez the des por para pour und".split()
)
"""Words that join names and are left out or written otherwise."""

HONORIFICS: Final = frozenset(
    "mr mrs ms miss dr prof sir dame lord lady sheikh shaykh sheik shaikh haji hajji hajj hadji haj mullah mulla maulana mawlawi maulavi "
    "molvi qari hafiz ayatollah hojjatoleslam imam general gen colonel col major maj captain capt lieutenant lt sergeant sgt commander brigadier admiral "
    "marshal president minister engineer eng ing prince princess king sultan emir amir sayyid sayed seyed syed sayyed jr sr ii iii iv phd md esq "
    "rt hon rev fr don dona senor senora monsieur madame herr frau ustad ustaz doctor professor".split()
)


_ARTICLE: Final = "ال"


@dataclass(slots=True, eq=False)
class Token:
    """One word of a name with all that comparing needs.

    Attributes:
        text: folded, in its own script.
        latin: in Latin letters; may be "".
        bones: consonants in classes, "" if there are fewer than two; see `spelling.skeleton`.
        bare_bones: those without the Arabic article, which Latin letters set apart; "" if it has none.
        groups: numbers of the name groups it belongs to.
        classes: words of organisations it is one of, such as TRADING.
        weight: what agreeing on it says, 0 to 1: rare words say more.
        semitic: its script writes no vowels.
        native: it is in another script than Latin.
        letters: a bit for each letter of `latin`, whatever its number and place.
    """

    text: str
    latin: str
    bones: str
    groups: tuple[int, ...]
    classes: tuple[str, ...]
    weight: float
    semitic: bool
    unspaced: bool
    native: bool
    is_number: bool
    letters: int
    bare_bones: str = ""


def letters_of(word: str) -> int:
    """A bit for each of a word's letters, 64 kinds: one edit changes two at most."""
    bits = 0
    for letter in word.encode():
        bits |= 1 << (letter & 63)
    return bits


@lru_cache(maxsize=8_192)
def token(text: str) -> Token:
    """Everything about a word that `spelling.words_of` gave."""
    plain = latin(text)
    number = text.isdigit()
    own_classes = classes_of(text)
    semitic = unspaced = False
    bare_bones = ""
    if not text.isascii():
        own_classes = own_classes or classes_of(plain)
        semitic, unspaced = is_semitic(text), is_unspaced(text)
        if text.startswith(_ARTICLE) and len(text) > len(_ARTICLE) + 2:
            bare_bones = skeleton(latin(text[len(_ARTICLE) :]))
    return Token(
        text=text,
        latin=plain,
        bones="" if number else skeleton(plain),
        groups=groups_of(text),
        classes=own_classes,
        weight=_weight(text, plain, own_classes),
        semitic=semitic,
        unspaced=unspaced,
        native=plain != text,
        is_number=number,
        letters=letters_of(plain),
        bare_bones=bare_bones,
    )


def joined(a: Token, b: Token) -> Token:
    """Two neighbours as one word: in their own script where it has a spelling of its own for that."""
    return token(a.text + b.text if a.semitic and b.semitic else a.latin + b.latin)


def _weight(text: str, plain: str, own_classes: tuple[str, ...]) -> float:
    if plain in PARTICLES:
        return 0.1
    if len(plain) <= 1 and text.isascii():
        return 0.15
    weight = _weights().get(plain, 1.0)
    if plain in HONORIFICS:
        weight = min(weight, 0.2)
    if own_classes:
        weight = min(weight, 0.5)
    if text.isdigit():
        weight = min(weight, 0.6)
    if len(plain) == 2 and text.isascii():
        weight = min(weight, 0.6)
    return max(weight, 0.1)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _words() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / "words.json").read_text(encoding="utf-8"))
    return loaded


@cache
def _weights() -> dict[str, float]:
    """What agreeing on a word says that was counted; on one that was not, 1."""
    counts: dict[str, int] = _words()["counts"]
    most = math.log(ENTRIES / UNCOUNTED)
    return {word: math.log(ENTRIES / count) / most for word, count in counts.items()}


def classes_of(word: str) -> tuple[str, ...]:
    """The classes of organisations' words that a word belongs to."""
    return tuple(_words()["classes"].get(word, ()))


@cache
def legal_forms() -> dict[tuple[str, ...], str]:
    """Phrases that are a legal form, with their kind ("" where it is not known to be like another)."""
    return {tuple(phrase.split()): kind for phrase, kind in _words()["forms"].items()}


@cache
def longest_forms() -> dict[str, int]:
    """Words that a legal form begins with, and how many words the longest of those forms has."""
    found: dict[str, int] = {}
    for phrase in legal_forms():
        found[phrase[0]] = max(found.get(phrase[0], 0), len(phrase))
    return found


@cache
def ordinals() -> dict[str, int]:
    """Words that are a number: "three", "second"."""
    found: dict[str, int] = _words()["ordinals"]
    return found


@cache
def titles() -> frozenset[str]:
    """Titles of persons beside HONORIFICS."""
    return frozenset(_words()["titles"])


@cache
def _nicknames() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for number, names in enumerate(_words()["nicknames"]):
        for name in names:
            found[name] = (*found.get(name, ()), -1 - number)
    return found


@cache
def _group_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted hashes of words, where each word's groups begin, and the groups: 6 MB, read once."""
    import numpy as np  # noqa: PLC0415 - eleven megabytes that a node without screening does without

    raw = np.frombuffer(gzip.decompress((DATA / "name_groups.gz").read_bytes()), dtype=np.uint8)
    words, flat, _ = (int(n) for n in raw[:12].view("<u4"))
    at = 12
    hashes = np.cumsum(_unplaned(raw, at, words), dtype=np.uint32)
    at += 4 * words
    starts = np.concatenate(([0], np.cumsum(raw[at : at + words], dtype=np.uint32))).astype(np.uint32)
    return hashes, starts, _unplaned(raw, at + words, flat)


@cache
def _group_places() -> tuple[memoryview, memoryview, np.ndarray, np.ndarray]:
    """The table as one word is looked up in it: its hashes, and where those begin that have the same upper half."""
    import numpy as np  # noqa: PLC0415 - see `_group_table`

    hashes, starts, groups = _group_table()
    firsts = hashes.searchsorted(np.arange(2**16 + 1, dtype=np.uint64) << np.uint64(16)).astype(np.uint32)
    return hashes.data, firsts.data, starts, groups


def _unplaned(raw: np.ndarray, at: int, count: int) -> np.ndarray:
    import numpy as np  # noqa: PLC0415 - see `_group_table`

    planes = raw[at : at + 4 * count].reshape(4, count)
    return np.ascontiguousarray(planes.T).view("<u4").reshape(-1)


def groups_of_each(words: Sequence[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many groups of each of many words, short names left out: (groups, for each the place of its word)."""
    import numpy as np  # noqa: PLC0415 - see `_group_table`

    hashes, starts, groups = _group_table()
    wanted = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint32, len(words))
    at = np.minimum(hashes.searchsorted(wanted), len(hashes) - 1)
    known = np.flatnonzero(hashes[at] == wanted)
    first, end = starts[at[known]].astype(np.int64), starts[at[known] + 1].astype(np.int64)
    counts = np.minimum(end - first, most)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return groups[np.repeat(first, counts) + within], np.repeat(known, counts)


def groups_of(word: str) -> tuple[int, ...]:
    """The groups of names that a word is a form of: the name in other languages and scripts, and short forms of it."""
    hashes, firsts, starts, groups = _group_places()
    wanted = zlib.crc32(word.encode())
    top = wanted >> 16
    end = firsts[top + 1]
    at = bisect_left(hashes, wanted, firsts[top], end)
    found: tuple[int, ...] = ()
    if at < end and hashes[at] == wanted:
        found = tuple(groups[starts[at] : starts[at + 1]].tolist())
    return (*found, *_nicknames().get(word, ()))
