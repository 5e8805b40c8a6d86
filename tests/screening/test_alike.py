"""Many words compared at once: the same values as `score.similarity` gives one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.screening.alike import Known, flags_of, similarities, worthwhile
from app.screening.keys import keys_of_spelling, query_keys, spelling_keys, token_keys
from app.screening.score import abbreviation, similarity, spelled
from app.screening.spelling import _CLASSES, _PAIRS, skeleton
from app.screening.words import Token, groups_of, groups_of_each, token

WORDS = (
    "karelin karelyn kareln karelinn carelin krelin k i 1970 1971 19701 muhammad mohamed mohammed mhmd muhammed محمد محمود "
    "الرشيد rashid alrashid rasheed رشيد عبدالستار abdulsatar abdelsattar иван ivan ivo iwan john jon jonathan johnny giovanni juan "
    "борис boris shipping shpg shipg trading trade tradings торговая intl international internationale ltd tech technology "
    "technologies 王 wang 习近平 xijinping xi γιώργος george giorgos ab abc abd abcd electronics electronic elektronik Ω ω ٣ "
    "a4 北京 beijing peking bank banka banque star stars sta к 1 э"
).split()
LONG = ["王" * 40, "王" * 39, "wang" * 75, "ж" * 40]


def shared(a: Token, b: Token) -> int:
    """The kinds of keys other than spelling that two words share."""
    (keys, kinds), theirs = query_keys(a), set(query_keys(b)[0].tolist())
    return sum({kind for key, kind in zip(keys.tolist(), kinds.tolist(), strict=True) if key in theirs})


def known(own: Token, others: Sequence[Token], place: int = 0) -> Known:
    return Known(
        np.full(len(others), place, np.intp),
        [t.text for t in others],
        [t.latin for t in others],
        np.array([min(len(t.latin), 255) for t in others], np.uint8),
        np.array([ord(t.latin[0]) if t.latin else 0 for t in others], np.uint8),
        np.array([flags_of(t) for t in others], np.uint8),
        np.array([shared(own, t) for t in others], np.uint8),
    )


def check(own: Token, others: Sequence[Token], *, person: bool) -> int:
    """Compare with `similarity`; returns how many met."""
    every = known(own, others)
    values = similarities([own], every, person=person).tolist()
    may = worthwhile([own], every.of, every.lengths, every.begins, every.shared, person=person)
    assert not any(value for value, worth in zip(values, may.tolist(), strict=True) if not worth)
    for other, value in zip(others, values, strict=True):
        plain, kind, _ = similarity(own, other, person=person)
        if value != plain:
            # Passed over: consonants across scripts may be one letter apart and share no key.
            assert (value, kind, shared(own, other)) == (0, "consonants", 0), (own.text, other.text)
            assert not spelled(own.latin, other.latin, 4)
            assert not abbreviation(own.latin, other.latin)
    return sum(value > 0 for value in values)


@pytest.mark.parametrize("person", [True, False])
def test_a_word_is_as_like_another_as_if_all_of_both_had_been_looked_up(person: bool) -> None:
    others = [token(word) for word in (*WORDS, *LONG)]
    met = [check(own, others, person=person) for own in others if own.latin]
    assert sum(met) > 2 * len(WORDS)


@pytest.mark.parametrize("person", [True, False])
def test_many_words_of_a_query_are_compared_as_each_alone(person: bool) -> None:
    others = [token(word) for word in WORDS]
    asked = [token(word) for word in ("karelin", "k", "1970", "иван", "رشيد", "technology")]
    some = [known(own, others, place) for place, own in enumerate(asked)]
    alone = [
        similarities([own], each._replace(of=each.of * 0), person=person)
        for own, each in zip(asked, some, strict=True)
    ]
    lists = ([text for each in some for text in each[at]] for at in (1, 2))
    arrays = (np.concatenate([each[at] for each in some]) for at in (0, 3, 4, 5, 6))
    of, lengths, begins, flags, kinds = arrays
    texts, latin = lists
    together = similarities(asked, Known(of, texts, latin, lengths, begins, flags, kinds), person=person)
    assert together.tolist() == np.concatenate(alone).tolist()


LETTERS = st.text("abckmoи", min_size=1, max_size=10)


@given(LETTERS, st.lists(LETTERS, min_size=1, max_size=20), st.booleans())
def test_so_is_any_word(word: str, others: list[str], person: bool) -> None:
    check(token(word), [token(other) for other in others], person=person)


def test_these_words_meet_in_every_way_there_is() -> None:
    words = [token(word) for word in WORDS]
    kinds = {similarity(a, b, person=person)[1] for a, b in product(words, words) for person in (True, False)}
    assert kinds >= {
        "equal", "transliteration", "same name", "spelling", "consonants", "initial", "abbreviation", "same word"
    }  # fmt: skip


@given(st.text("abcdefghij", min_size=1, max_size=14))
def test_one_word_has_the_keys_that_it_has_among_many(word: str) -> None:
    keys, places = spelling_keys(["other", word])
    assert set(keys_of_spelling(word).tolist()) == set(keys[places == 1].tolist())


@pytest.mark.parametrize("word", WORDS)
def test_a_query_asks_for_the_keys_that_an_index_has(word: str) -> None:
    own = token(word)
    assert set(query_keys(own)[0].tolist()) == set(token_keys([own])[0].tolist())


@pytest.mark.parametrize("word", [*WORDS, "", "zzzzzz"])
def test_a_word_alone_has_the_groups_that_it_has_among_many(word: str) -> None:
    found, places = groups_of_each(["other", word, "ivan"], 1_000_000)
    assert [group for group in groups_of(word) if group >= 0] == found[places == 1].tolist()


@given(st.text("aeiouywhkgdtscpzjxbqv", max_size=12))
def test_consonants_are_what_the_rules_leave_one_by_one(word: str) -> None:
    left = word
    for pair, one in _PAIRS:
        left = left.replace(pair, one)
    left = re.sub(r"(.)\1+", r"\1", left.translate(_CLASSES))
    left = left[:-1] if left.endswith("h") and len(left) > 2 else left
    assert skeleton(word) == (left if len(left) > 1 else "")
