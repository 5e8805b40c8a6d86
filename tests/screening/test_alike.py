"""Many words compared at once: the same values as `score.similarity` gives one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.screening.alike import Similar, flags_of
from app.screening.keys import keys_of_spelling, other_keys, spelling_keys, token_keys
from app.screening.score import similarity
from app.screening.words import Token, token

WORDS = (
    "karelin karelyn kareln karelinn carelin krelin k i 1970 1971 19701 muhammad mohamed mohammed mhmd muhammed محمد محمود "
    "الرشيد rashid alrashid rasheed رشيد عبدالستار abdulsatar abdelsattar иван ivan ivo iwan john jon jonathan johnny giovanni juan "
    "борис boris shipping shpg shipg trading trade tradings торговая intl international internationale ltd tech technology "
    "technologies 王 wang 习近平 xijinping xi γιώργος george giorgos ab abc abd abcd electronics electronic elektronik Ω ω ٣ "
    "a4 北京 beijing peking bank banka banque star stars sta"
).split()


def shared(a: Token, b: Token) -> int:
    """The kinds of keys other than spelling that two words share."""
    (keys, kinds), theirs = other_keys(a), set(other_keys(b)[0].tolist())
    return sum({kind for key, kind in zip(keys.tolist(), kinds.tolist(), strict=True) if key in theirs})


@pytest.mark.parametrize("person", [True, False])
def test_a_word_is_as_like_another_as_if_all_of_both_had_been_looked_up(person: bool) -> None:
    known = [token(word) for word in WORDS]
    met = 0
    for own in known:
        if not own.latin:
            continue
        similar = Similar(own, person=person)
        edits = similar.edits([other.latin for other in known])
        near = similar.near(edits, np.array([len(other.latin) for other in known], np.uint8))
        for other, e, is_near in zip(known, edits.tolist(), near.tolist(), strict=True):
            value, kind, _ = similarity(own, other, person=person)
            kinds = shared(own, other)
            if kinds or is_near or similar.may_be(other.latin):
                assert similar.value(other.text, other.latin, e, flags_of(other), kinds) == value
                met += value > 0
            else:  # passed over: only consonants across scripts may be one letter apart and share no key
                assert value == 0 or kind == "consonants"
    assert met > 3 * len(WORDS) / 2


def test_these_words_meet_in_every_way_there_is() -> None:
    known = [token(word) for word in WORDS]
    kinds = {similarity(a, b, person=person)[1] for a, b in product(known, known) for person in (True, False)}
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
    spelled = set(keys_of_spelling(own.latin).tolist()) if own.latin else set()
    assert spelled | set(other_keys(own)[0].tolist()) == set(token_keys([own])[0].tolist())
