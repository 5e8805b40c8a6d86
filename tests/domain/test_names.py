"""What may stand in a text, and how two spellings become one."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.names import UnprintableText, check_printable, first_unprintable, fold, tokens


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b", "a\tb", "a\rb", "a\x1bb", "a\x7fb", "a\x85b",  # controls
        "a\u202eb", "a\u202ab", "a\u2066b", "a\u2069b", "a\u200eb", "a\u200fb", "a\u061cb",  # bidi
        "a\u200bb", "a\u200cb", "a\u200db", "\u200dab", "ab\u2060", "\ufeffab", "a\u00adb", "a\u034fb",  # invisible
        "a\u3164b", "a\u115fb", "a\u2800b", "a\u2028b", "a\u2029b",  # blank letters, separators
        "a\ue000b", "a\U000f0000b", "a\U00100000b",  # private use
        "a\ud800b", "a\udfffb",  # noqa: PT014 - lone surrogates, which the linter takes for one character
        "a\ufffeb", "a\ufdd0b", "a\U0001ffffb", "a\U00050000b", "a\U000e0041b", "a\ufffdb",  # noqa: PT014 - the same; not characters; mojibake
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_refused(text: str) -> None:
    with pytest.raises(UnprintableText, match=r"U\+[0-9A-F]{4,6}"):
        check_printable(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "Aurelian Sky Systems LLC", "line\nbreak", "no\u00a0break", "Łódź", "Ёлка", "İstanbul", "محمّد", "می‌خواهم",
        "ක්‍රි", "हिन्दी", "葛\U000e0100城", "株式会社", "김철수", "👩🏽", "e\u0301", "١٢٣", "Ωμέγα’s “quote”",
    ],
)  # fmt: skip
def test_names_in_any_script_are_printable(text: str) -> None:
    assert check_printable(text) == text


@given(st.text())
def test_no_text_that_passes_holds_a_control_or_a_surrogate(text: str) -> None:
    if first_unprintable(text) is None:
        assert not any(unicodedata.category(c) in {"Cc", "Cs", "Co"} and c != "\n" for c in text)
        assert not any(
            unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
            for c in text
        )


@given(st.text())
def test_the_position_named_holds_the_character_named(text: str) -> None:
    found = first_unprintable(text)
    if found is not None:
        assert text[found[0]] == found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Łukasiewicz & Søn", "lukasiewicz son"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("Đorđević", "dordevic"),
        ("Þór Æsir", "thor aesir"),
        ("O’Brien-Smith, Jr.", "o brien smith jr"),
        ("ＡＢＣ　ｃｏ", "abc co"),
        ("ООО «Ёлка»", "ооо елка"),
        ("Ωμέγα ΑΕ", "ωμεγα αε"),
        ("محمّد", "محمد"),
        ("がんばれ", "がんばれ"),
        ("हिन्दी", "हिन्दी"),
        ("김철수", "김철수"),
        ("İstanbul IŞIK", "istanbul isik"),
        ("  a_b  c ", "a b c"),
        ("№ 5", "no 5"),
        ("", ""),
        ("…", ""),
    ],
)
def test_case_accents_punctuation_and_width_do_not_count(text: str, expected: str) -> None:
    assert fold(text) == expected


def test_tokens_keep_their_order() -> None:
    assert tokens("Sky Systems (Aurelian), LLC") == ("sky", "systems", "aurelian", "llc")
    assert tokens("...") == ()


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(st.characters(codec="latin-1")))
def test_case_never_matters(text: str) -> None:
    assert fold(text.upper()) == fold(text.lower()) or "\xb5" in text  # the micro sign's capital is Greek


@given(st.text())
def test_composition_never_matters(text: str) -> None:
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_folds_to_its_small_letters_and_digits(text: str) -> None:
    assert fold(text) == " ".join(re.sub("[^0-9a-z]", " ", text.lower()).split())
