"""Names as people write them: what may stand in a notice, and how two spellings are compared.

`check_printable` guarantees that a text shows what it is: no control or bidirectional characters, nothing invisible.
`fold` guarantees one spelling for texts that differ in case, diacritics, punctuation or width, in every script.
Transliteration, initials, company forms and scores are left to screening.
"""

from __future__ import annotations

import re
import unicodedata

from app.domain.errors import Malformed


class UnprintableText(Malformed):
    """A text holds a character that cannot be seen, or that changes the order in which others are seen."""

    code = "unprintable-text"


# ── what may stand in a text ──────────────────────────────────────────────────────────────────────────────────────

# Joiners decide how letters connect in these scripts (Arabic to Mongolian); elsewhere they only make two names that look
# the same differ.
_JOINING = "\u0600-\u08ff\u0900-\u0dff\u0e00-\u109f\u1780-\u18af\u1a00-\u1cff\ua800-\uabff\U00010a00-\U00011fff\U0001e900-\U0001e95f"

# Not by general category: the tables of two Python versions differ for characters assigned between them, and two nodes
# must reach the same verdict. So the list is spelled out, and unassigned code points are refused only where whole planes
# are empty or the code point can never be assigned.
_REFUSED = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters, except the line feed
    "\u00ad\u034f\u180b-\u180f"  # soft hyphen, grapheme joiner, Mongolian selectors
    "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # letters and signs that show nothing
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # bidi controls, line separators, invisible operators
    "\ufeff\ufff0-\ufffd"  # byte order mark, interlinear marks, replacement character (mojibake)
    "\ud800-\udfff"  # lone surrogates
    "\ue000-\uf8ff\U000f0000-\U0010ffff"  # private use
    "\ufdd0-\ufdef\ufffe\uffff\U0001fffe\U0001ffff\U0002fffe\U0002ffff\U0003fffe-\U000dffff"  # never or nowhere assigned
    "\U000e0000-\U000e00ff"  # tags
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls of shorthand and music
    "]"
    f"|(?<![{_JOINING}])[\u200c\u200d]"
)
# The plane of tags also holds the variation selectors that Japanese names need.
_VARIATION = range(0xE0100, 0xE01F0)


def first_unprintable(text: str) -> tuple[int, str] | None:
    """Position and character of the first thing that must not stand in a text, or None. Line feeds may."""
    # `isprintable` is a loop in C that is false for everything refused here and for a few things that are not
    # (no-break spaces, joiners, line feeds): the common text pays for nothing else.
    if text.isprintable() and (text.isascii() or not any(map(text.__contains__, _INVISIBLE))):
        return None
    for match in _REFUSED.finditer(text):
        if ord(match[0]) not in _VARIATION:
            return match.start(), match[0]
    return None


# Letters and marks by category, hence printable to Python, that nevertheless show nothing or should not be met.
# Asked for one by one: fourteen searches in C take less than one of a character class.
_INVISIBLE = tuple("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0\ufffd")


def check_printable(text: str) -> str:
    """Return the text if every character of it can be seen for what it is.

    Raises:
        UnprintableText: control characters other than line feed, bidirectional controls, zero-width characters outside
            the scripts that need them, private use, lone surrogates, code points that are not characters.
    """
    found = first_unprintable(text)
    if found is not None:
        position, character = found
        raise UnprintableText(
            f"The text holds U+{ord(character):04X} at position {position}, which cannot be seen or reorders what is seen. "
            "Remove it."
        )
    return text


# ── one spelling ──────────────────────────────────────────────────────────────────────────────────────────────────

# Letters that Unicode does not decompose although people write them both ways.
_LETTERS = {
    "ß": "ss", "ẞ": "ss", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h",
    "ŋ": "n", "ŧ": "t", "ƒ": "f", "ɓ": "b", "ɗ": "d", "ƙ": "k", "ƴ": "y", "ə": "a", "ĸ": "k", "ſ": "s",
}  # fmt: skip

# Marks that do not make another letter: accents of Latin, Greek and Cyrillic, Hebrew points, Arabic vowel signs and the
# tatweel. Not Indic vowel signs and not the Japanese voicing mark: those are part of the letter.
_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\u200c\u200d\U000e0100-\U000e01ef]"
)
_ASCII_WORDS = bytes(c if bytes([c]).isalnum() else ord(" ") for c in bytes(range(256)).lower())
"""ASCII letters as small letters, digits as they are, everything else a space: a table for `bytes.translate`."""


class _Separators(dict[int, str]):
    """Code point -> itself, its plain letter, or a space if it is punctuation, a symbol, a separator or a control."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        replacement = _LETTERS.get(character)
        if replacement is None:
            replacement = " " if unicodedata.category(character)[0] in "PSZC" else character
        self[code_point] = replacement
        return replacement


_SEPARATORS = _Separators()  # filled as characters are met; a cache of a pure function


def fold(text: str) -> str:
    """One spelling of a text: no case, no diacritics, no punctuation, single spaces.

    NFKD, marks stripped, casefolded, letters such as ß, ø, ł, đ written plainly, everything else that is neither letter,
    digit nor vowel sign turned into a space. Non-Latin scripts keep their letters (composed, NFC). Idempotent.
    """
    if text.isascii():
        return " ".join(text.encode().translate(_ASCII_WORDS).decode().split())
    # Folding case can yield decomposable letters and the other way round (U+0345, U+03F4): twice reaches the fixed point.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).casefold()
    plain = _MARKS.sub("", decomposed).translate(_SEPARATORS)
    return " ".join(unicodedata.normalize("NFC", plain).split())


def tokens(name: str) -> tuple[str, ...]:
    """The words of a folded name, in their order: `tokens("Łukasiewicz & Søn") == ("lukasiewicz", "son")`."""
    return tuple(fold(name).split())
