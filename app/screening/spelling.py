"""The letters of a name: what is not seen is dropped, look-alikes are put right, words are cut, scripts made Latin.

Guarantees that `words_of` and `latin` are pure functions in time linear in the text. No table of a language here, only
letters; what words mean is in `words`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from anyascii import anyascii

from app.domain.names import fold

# Characters that show nothing or turn the order: between the letters of a word they are a trick or an accident, never a
# space. Joiners are dropped as well: they join.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0"
    "\ufff0-\ufffd\ue000-\uf8ff\U000e0000-\U0010ffff]"
)
# Inside a word an apostrophe is a letter that another transliteration leaves out: Mus'ab, Musab.
_APOSTROPHES: Final = re.compile("(?<=\\w)['’‘ʼʻʽʾʿ`´‛′＇\u0674](?=\\w)|[ʼʻʽʾʿ`]")
_DOTTED: Final = re.compile(r"\b(?:\w\.){2,}(?:\w\b)?")
_AMPERSAND: Final = re.compile(r"\s*[&＆]\s*|\s\+\s")

# Cyrillic and Greek letters that look like Latin ones in some case, by lower case, as `fold` leaves them.
_LOOKALIKES: Final = str.maketrans(
    "авеёкмнорстухіїјѕһԁԛԝґьαβεζηικμνορτυχγ",
    "abeekmhopctyxiijshdqwrbabezhikmvoptuxy",
)
_CYRILLIC: Final = re.compile("[\u0400-\u052f]")
_GREEK: Final = re.compile("[\u0370-\u03ff]")
_LATIN: Final = re.compile("[a-z\u00df-\u024f\u1e00-\u1eff]")
_SEMITIC: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_HAN: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]")
_LETTERS_FOR_DIGITS: Final = str.maketrans("01345689", "oleasbbg")
_LETTER_AND_DIGIT: Final = re.compile(r"(?=.*[a-z])(?=.*[0-9])[a-z0-9]{4,}")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a name, folded, each in its own script, in their order.

    "L.L.C." is one word and "Mus'ab" too; "Al-Rashid" is two. A word that mixes scripts by look-alikes is put into one.
    """
    ascii_only = text.isascii()
    if not ascii_only:
        text = _INVISIBLE.sub("", text)
    # Most names have none of these: looking for a letter costs a tenth of a regular expression.
    if not ascii_only or "'" in text or "`" in text:
        text = _APOSTROPHES.sub("", text)
    if "." in text:
        text = _DOTTED.sub(lambda dotted: dotted[0].replace(".", ""), text)
    if not ascii_only or "&" in text or "+" in text:
        text = _AMPERSAND.sub(" and ", text)
    words = fold(text).split()
    if ascii_only:
        return tuple([word if word.isalpha() else _unscanned(word) for word in words])
    some_latin = any(_LATIN.search(word) for word in words)
    return tuple(_unscanned(_one_script(word, some_latin=some_latin)) for word in words)


def _one_script(word: str, *, some_latin: bool) -> str:
    """A word in one script: "Pаvel" with a Cyrillic а is Latin, and so is a word all of look-alikes beside Latin ones."""
    if not (_CYRILLIC.search(word) or _GREEK.search(word)):
        return word
    mixed = _LATIN.search(word) is not None
    if not mixed and not some_latin:
        return word
    plain = word.translate(_LOOKALIKES)
    if _CYRILLIC.search(plain) or _GREEK.search(plain):
        return latin(word) if mixed else word  # not all are look-alikes: at least one spelling
    return plain


def _unscanned(word: str) -> str:
    """Letters where a scanner read digits: "5alud", "ya1in". A word with as many digits as letters is a number."""
    if not _LETTER_AND_DIGIT.fullmatch(word):
        return word
    digits = sum(c.isdigit() for c in word)
    if digits * 2 > len(word) or word[-2:].isdigit() or (word[0].isdigit() and word[1].isdigit()):
        return word
    return word.translate(_LETTERS_FOR_DIGITS)


def latin(word: str) -> str:
    """A folded word in Latin letters and digits; "" if nothing of it can be written so."""
    return word if word.isascii() else _transliterated(word)


@lru_cache(maxsize=8_192)
def _transliterated(word: str) -> str:
    # Words in Latin letters are not remembered: of a long list they would crowd out those that cost something.
    return re.sub("[^0-9a-z]+", "", anyascii(word).lower())


def is_semitic(word: str) -> bool:
    """Whether a word is in a script that does not write vowels."""
    return _SEMITIC.search(word) is not None


def is_unspaced(word: str) -> bool:
    """Whether a word is in a script that sets no spaces between names: Han, kana, hangul."""
    return _HAN.search(word) is not None


# ── consonants ────────────────────────────────────────────────────────────────────────────────────────────────────

_PAIRS: Final = (
    ("tsch", "c"), ("tch", "c"), ("sch", "s"), ("kh", "k"), ("gh", "g"), ("dh", "d"), ("th", "t"), ("sh", "s"), ("ch", "c"),
    ("ph", "f"), ("zh", "j"), ("dj", "j"), ("ck", "k"), ("ou", "u"), ("oo", "u"), ("ee", "i"), ("x", "ks"),
)  # fmt: skip
_WITH_H: Final = tuple(pair for pair in _PAIRS if "h" in pair[0])
_WITHOUT: Final = tuple(pair for pair in _PAIRS if "h" not in pair[0])  # they stand behind all others
_CLASSES: Final = str.maketrans("qgjpvc", "kgjbfk", "aeiouyw")


@lru_cache(maxsize=8_192)
def skeleton(word: str) -> str:
    """The consonants of a word in Latin letters, by classes that transliterations mix up; "" if fewer than two.

    What Arabic and Hebrew write: "muhammad", "mohamed" and "mhmd" have one skeleton.
    """
    if "h" in word:
        for pair, one in _WITH_H:
            if pair in word:
                word = word.replace(pair, one)
    for pair, one in _WITHOUT:
        if pair in word:
            word = word.replace(pair, one)
    last = bare = ""
    for letter in word.translate(_CLASSES):
        if letter != last:
            bare += letter
            last = letter
    if last == "h" and len(bare) > 2:
        bare = bare[:-1]
    return bare if len(bare) > 1 else ""


def plain_identifier(value: str) -> str:
    """An identifier without what is only layout."""
    return "".join(c for c in value.upper() if c.isalnum())
