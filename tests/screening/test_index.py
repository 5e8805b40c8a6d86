"""The index alone: keys, what a search costs, and that additions, orders and times change nothing but what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.party import Schema
from app.screening.arrays import Mapped, Numbered, Pairs, Store, dump, restore
from app.screening.index import (
    BLENDED_AT_ONCE,
    CANDIDATES,
    FORESEEN_MOST,
    MAX_MET,
    POOL,
    Index,
    Indexed,
    _parted,
)
from app.screening.keys import token_keys
from app.screening.normalise import MAX_TOKENS, normalise
from app.screening.party import NothingToCompare, Query, UnreadableParty
from app.screening.words import token

NEVER = 1 << 60
OPEN = ("EE", 0, "ALL")
HIDDEN = ("US", 4, "US")


def listed(number: int, *names: str, schema: Schema = "Company", **more: Any) -> Indexed:
    read = tuple(normalise(name, schema) for name in names)
    return Indexed(1, number, 0, more.pop("gate", OPEN), 1, more.pop("until", NEVER), read, **more)


def loaded(*parties: Indexed) -> Index:
    index = Index()
    for party in parties:
        index.add(party)
    index.sort()
    return index


def ask(index: Index, name: str, schema: Schema = "Company", *, now: int = 0) -> list[tuple[int, float]]:
    """Numbers of notices with scores, best first, as a caller who may read OPEN sees them."""
    gates = [gate == OPEN for gate in index.gates]
    visible = index.visible(gates, statuses=(1,), now=now)
    query = Query(schema, (name,))
    found = index.search(query.read, (), visible, gates)
    return sorted(((index.keys_of([f.party])[0][1], f.score) for f in found), key=lambda f: (-f[1], f[0]))


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = st.text("abcdefghij", min_size=1, max_size=14)


@given(st.lists(WORDS, min_size=1, max_size=20))
def test_a_word_has_the_same_keys_alone_and_among_others(words: list[str]) -> None:
    tokens = [token(word) for word in words]
    keys, places = token_keys(tokens)
    for place, one in enumerate(tokens):
        assert set(keys[places == place].tolist()) == set(token_keys([one])[0].tolist())


@given(WORDS.filter(lambda word: len(word) >= 6), st.data())
def test_words_that_differ_in_two_letters_of_their_start_share_a_key(word: str, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, min(len(word), 7) - 1), min_size=2, max_size=2, unique=True))
    other = "".join("z" if place in places else letter for place, letter in enumerate(word))
    mine, theirs = (set(token_keys([token(w)])[0].tolist()) for w in (word, other))
    assert mine & theirs


# ── what changes nothing ──────────────────────────────────────────────────────────────────────────────────────────

NAMES = [
    "Borealis Signals Ltd",
    "Boreal Signals",
    "Meridian Optics GmbH",
    "Meridiane Optik",
    "Qaanaaq Dynamics",
    "Signals Research Institute",
]


def test_an_index_that_grew_answers_as_one_that_was_loaded() -> None:
    parties = [listed(n, name) for n, name in enumerate(NAMES)]
    grown = loaded(*parties[:2])
    for party in parties[2:]:
        grown.add(party)
    whole = loaded(*parties)
    # In the last one, only what was added has the first word, and only what was loaded the second.
    for name in [*NAMES, "Borealis Sygnals", "MeridianOptics", "S.R.I. Institute", "Institute Boreal"]:
        assert ask(grown, name) == ask(whole, name) != []
    grown.sort()
    for name in NAMES:
        assert ask(grown, name) == ask(whole, name)


class Small(Mapped):
    """Sorts often, so that what is loaded is merged many times."""

    segment = 2


LISTED = st.lists(
    st.lists(
        st.sampled_from([*NAMES, "Qaan Aaq", "S R I", "Борис Карелин", "Karelin Boris", "Qaadyn"]), max_size=3
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(LISTED, LISTED, st.sets(st.integers(0, 20), max_size=5))
def test_an_index_on_disk_answers_as_one_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[list[str]],
    then: list[list[str]],
    gone: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("index")
    here, there = Index(), Index(Small(folder))
    for index in (here, there):
        for number, names in enumerate(first):
            index.add(listed(number, *names))
        index.sort()
        for number, names in enumerate(then, len(first)):
            index.add(listed(number, *names, gate=HIDDEN if number % 3 == 0 else OPEN))
        for number in gone:
            index.remove(1, number)
    asked = [*NAMES, "Borealis Sygnals", "MeridianOptics", "QaanAaq", "SRI Institute", "Qaanaaq de Dynamics"]
    answers = [ask(here, name) for name in asked]
    assert [ask(there, name) for name in asked] == answers
    there.rest()
    assert [ask(there, name) for name in asked] == answers
    there.sort()
    with (folder / "copy").open("w+b") as file:
        dump(there, file)
        file.flush()
        copy = restore(file)
    copy.add(listed(99, "Borealis Signals Ltd"))
    copy.remove(1, 0)
    assert [ask(there, name) for name in asked] == answers, "what a copy changes is its own"
    assert [n for n, _ in ask(copy, "Borealis Signals Ltd")] == sorted(
        {n for n, _ in ask(there, "Borealis Signals Ltd")} - {0} | {99},
        key=[n for n, _ in ask(copy, "Borealis Signals Ltd")].index,
    )
    assert [path.name for path in folder.iterdir()] == ["copy"], "its files have no name"


def test_what_is_taken_out_or_over_is_not_found_and_the_rest_is() -> None:
    index = loaded(listed(1, "Borealis Signals", until=100), listed(2, "Borealis Signals"))
    assert [n for n, _ in ask(index, "Borealis Signals", now=99)] == [1, 2]
    assert [n for n, _ in ask(index, "Borealis Signals", now=100)] == [2]
    assert [n for n, _ in ask(index, "Borealis Signals", now=50)] == [1, 2]
    index.add(listed(3, "Borealis Signals"))
    assert [n for n, _ in ask(index, "Borealis Signals", now=99)] == [1, 2, 3]
    index.remove(1, 2)
    assert [n for n, _ in ask(index, "Borealis Signals", now=99)] == [1, 3]


def test_one_search_leaves_nothing_behind_for_the_next() -> None:
    index = loaded(*(listed(n, name) for n, name in enumerate(NAMES)))
    first = [ask(index, name) for name in NAMES]
    for name in reversed(NAMES):
        ask(index, name)
    assert [ask(index, name) for name in NAMES] == first


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 50)), max_size=40)


def test_what_was_foreseen_is_found_the_same_without_comparing_a_word_again() -> None:
    names = [
        f"{a} {b}" for a in ("Borealis", "Borealys", "Meridian") for b in ("Optics", "Optiks", "Signals")
    ]
    parties = [
        listed(number, name, gate=HIDDEN if number % 4 == 0 else OPEN) for number, name in enumerate(names)
    ]
    asked = [*names, "Nowhere Kobelt", "Merdian Optics"] * 2
    plain, ready = loaded(*parties), loaded(*parties)
    gates = [gate == OPEN for gate in ready.gates]
    ready.foresee([name for text in asked for name in Query("Company", (text,)).read], gates)
    compared = ready.work.words
    assert compared > 0
    assert [ask(ready, name) for name in asked] == [ask(plain, name) for name in asked]
    assert ready.work.words == compared == plain.work.words


def test_no_more_words_are_foreseen_than_others_may_be_held_up_for() -> None:
    words = [
        f"{chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}word"
        for n in range(FORESEEN_MOST + 100)
    ]
    index = loaded(*(listed(number, word) for number, word in enumerate(words)))
    index.foresee([normalise(word, "Company") for word in words[:FORESEEN_MOST]], [True])
    most = index.work.words
    again = loaded(*(listed(number, word) for number, word in enumerate(words)))
    again.foresee([normalise(word, "Company") for word in words], [True])
    assert again.work.words == most
    assert ask(again, words[-1])[0][0] == len(words) - 1


@given(PAIRS, PAIRS, PAIRS, st.lists(st.lists(st.integers(0, 15), max_size=4), min_size=1, max_size=5))
def test_what_was_sorted_in_and_what_came_since_is_found_by_its_keys(
    first: list[tuple[int, int]],
    second: list[tuple[int, int]],
    since: list[tuple[int, int]],
    asked: list[list[int]],
) -> None:
    for kind in (Pairs, Numbered):
        pairs = kind(Store())
        for some, live in ((first, False), (second, True), (since, True)):
            keys, values = (np.array([pair[n] for pair in some], np.uint32) for n in (0, 1))
            pairs.add(keys, values, live=live)
            if some is not since:
                pairs.sort()
        plain = [[value for key in keys for k, value in first + second + since if k == key] for keys in asked]
        wanted = [np.array(keys, np.uint32) for keys in asked]
        flat = [key for keys in asked for key in keys]
        for own, (found, at), expected in zip(asked, _parted(pairs, wanted), plain, strict=True):
            assert sorted(found.tolist()) == sorted(expected)
            assert all(
                (flat[place], value) in first + second + since for value, place in zip(found, at, strict=True)
            )
            assert {flat[place] for place in at} <= set(own)
        assert len(pairs) == len(first) + len(second) + len(since)
        keys, values = map(np.concatenate, zip(*pairs.blocks(), strict=True))
        assert sorted(zip(keys.tolist(), values.tolist(), strict=True)) == sorted(first + second + since)


# ── who is compared ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schema", "listed_name", "asked"),
    [
        ("Company", "Qaanaaq de la Marine SA", "Qaamar"),
        ("Company", "Qaamar Ltd", "Qaanaaq de la Marine"),
        ("Company", "Qaanaaq Marine Research SA", "QMRSA"),
        ("Company", "Qaanaaq Marine Research Shipping", "QMR Shipping"),
        ("Person", "Abdul Satar", "عبد الستار"),
        ("Person", "Hamdullah Karelin", "حمد الله كارلين"),
        ("Person", "Rogelio Nieto Karelin", "R. Karelin"),
    ],
)
def test_among_many_that_share_a_word_it_is_compared(schema: Schema, listed_name: str, asked: str) -> None:
    letters = "abcdefghijklmnopstuvwxz"
    others = [f"{a}elos{b}i {b}omas{a}u Karelin Shipping" for a in letters for b in letters]
    index = loaded(
        *(listed(n, name, schema=schema) for n, name in enumerate(others)),
        listed(1000, listed_name, schema=schema),
    )
    assert 1000 in [n for n, _ in ask(index, asked, schema)][:10]


def test_an_initial_chooses_among_more_namesakes_than_are_looked_at() -> None:
    """The one whose first name begins so is chosen, although it stands last and its namesakes share as many words."""
    others = [f"{first}{second}rtax Karelin" for first in "BCDFGHJKLMNP" for second in "aeou"]
    parties = [listed(n, name, schema="Person") for n, name in enumerate(others * 9)]
    index = loaded(*parties, listed(len(parties), "Ivo Karelin", schema="Person"))
    assert len(parties) > POOL
    assert ask(index, "I. Karelin", "Person")[0][0] == len(parties)


def test_hidden_parties_push_no_visible_one_out_of_what_is_compared() -> None:
    words = [f"{a}{b}{c}" for a in "bcdfghkl" for b in "aeiou" for c in "mnprstvx"]
    hidden = [listed(n, f"Qaa{word} Marine SA", gate=HIDDEN) for n, word in enumerate(words)]
    seen = listed(1000, "Qaanaaq Marine")
    for asked in ("Qaamarine", "Qaanaaq Marine", "Q. Marine", "QMS Marine"):
        alone, among = ask(loaded(seen), asked), ask(loaded(*hidden, seen), asked)
        assert alone == among
    assert len(hidden) > BLENDED_AT_ONCE
    assert ask(loaded(*hidden, seen), "Qaamarine") != []


def test_a_word_that_was_asked_for_before_is_found_with_what_was_put_in_since() -> None:
    index = loaded(listed(1, "Borealis Signals"))
    assert [n for n, _ in ask(index, "Borealis")] == [1]
    index.add(listed(2, "Borealis Optics"))
    index.add(listed(3, "Borealys Optics"))
    assert sorted(n for n, _ in ask(index, "Borealis")) == [1, 2, 3]


# ── what it costs ─────────────────────────────────────────────────────────────────────────────────────────────────


def cost(index: Index, name: str, schema: Schema = "Company") -> tuple[int, int]:
    words, names = index.work.words, index.work.names
    ask(index, name, schema)
    return index.work.words - words, index.work.names - names


def test_a_name_that_ten_thousand_parties_bear_costs_as_much_as_one_that_few_bear() -> None:
    index = loaded(*(listed(n, "Borealis Signals") for n in range(10_000)))
    assert cost(index, "Borealis Signals")[1] == CANDIDATES
    found = ask(index, "Borealis Signals")
    assert [n for n, _ in found] == list(range(CANDIDATES))
    assert {score for _, score in found} == {found[0][1]}


def test_a_vocabulary_made_to_meet_costs_a_bounded_number_of_comparisons() -> None:
    letters = "bcdfghjklmnpqrstvwxz"
    words = [f"aaaaaa{a}{b}{c}" for a in letters for b in letters for c in letters]
    index = loaded(*(listed(n, word) for n, word in enumerate(words)))
    assert len(words) > MAX_MET
    assert cost(index, "aaaaaabcd aaaaaabcf")[0] <= 3 * MAX_MET


HOSTILE = [
    "a" * 10_000,
    "ab " * 3_000,
    "a.b." * 2_500,
    "'" * 5_000 + "a'b" * 1_000,
    "& + " * 2_500,
    "o'o'o'" * 1_600,
    "🙂" * 5_000,
    "\u202eevil\u202c " * 1_000,
    "a\u200bb\u200b" * 2_500,
    "Раvel " * 1_500,
    "Co Ltd " * 1_400,
    "L.L.C. " * 1_400,
    "1970 " * 2_000,
    "1970",
    "\u0301" * 10_000,
    "ﷺ" * 3_000,
    "محمد" * 2_000,
    "王" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("schema", ["Person", "Company"])
def test_a_hostile_name_is_cut_to_a_bounded_number_of_words(text: str, schema: Schema) -> None:
    name = normalise(text, schema)
    assert len(name.tokens) <= MAX_TOKENS
    assert all(len(t.text) <= 40 for t in name.tokens)
    assert normalise(text, schema) == name


ANYTHING = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("aеоΑВсpx .,'’&-\u200b\u200d\u202e\u2066🙂ß ﷺ王한محمد1970"),
        st.sampled_from(["Co", "Ltd", "bin", "al"]).map(lambda w: w[0]),
    ),
    max_size=200,
)
SMALL = loaded(*(listed(n, name) for n, name in enumerate(NAMES)))


@settings(max_examples=300, deadline=None)
@given(ANYTHING, st.sampled_from(["Person", "Company", "Vessel", "LegalEntity"]))
def test_any_text_is_answered_or_refused_the_same_every_time_within_bounds(text: str, schema: Schema) -> None:
    try:
        first = ask(SMALL, text, schema)
    except (NothingToCompare, UnreadableParty):
        with pytest.raises((NothingToCompare, UnreadableParty)):
            ask(SMALL, text, schema)
        return
    assert ask(SMALL, text, schema) == first
    words, names = cost(SMALL, text, schema)
    assert words <= (2 * MAX_TOKENS - 1) * SMALL.vocabulary
    assert names <= CANDIDATES
    assert all(0 <= score <= 1 for _, score in first)


def test_words_that_only_hidden_parties_have_cost_the_caller_nothing() -> None:
    seen = loaded(listed(1, "Borealis Signals"))
    both = loaded(
        listed(1, "Borealis Signals"),
        *(listed(n, f"Boreali{letter} Signal{letter}", gate=HIDDEN) for n, letter in enumerate("bcdfghk", 2)),
    )
    assert ask(both, "Borealis Signals") == ask(seen, "Borealis Signals")
    assert cost(both, "Borealis Signals") == cost(seen, "Borealis Signals")
