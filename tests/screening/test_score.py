"""Scores of names as they are: whoever changes a rule sees here what it changes, and renames `explain.MODEL`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from app.domain.party import Schema
from app.screening.features import calibration, name_score
from app.screening.normalise import normalise
from app.screening.score import LEAST, Agreement, Comparer, allowed, similarity, spelled
from app.screening.words import token as word
from tests.federation.world import World
from tests.screening.asking import token

SCORES = [
    ("Person", "Ivo Karelin", "Karelin, Ivo", 0.992, ["equal", "equal"]),
    ("Person", "Ivo Karelin", "Ivo Karelyn", 0.981, ["equal", "spelling"]),
    ("Person", "Ivo Karelin", "Ivan Karelin", 0.1260, ["equal"]),
    ("Person", "Ivo Karelin", "Ivo Maselin", 0.908, ["equal", "spelling"]),
    ("Person", "I. Karelin", "Ivo Karelin", 0.984, ["equal", "initial"]),
    ("Person", "Ivo Petr Karelin", "Ivo Karelin", 0.902, ["equal", "equal"]),
    ("Person", "Mohamed Karelin", "محمد Karelin", 0.986, ["equal", "same name"]),
    ("Person", "Ivo Ivo", "Ivo Karelin", 0.098, ["equal"]),
    ("Person", "Nuraldin Karelin", "Nur Aldin Karelin", 0.9780, ["equal", "joined"]),
    ("Person", "P\u0430vel Karelin", "Pavel Karelin", 0.993, ["equal", "equal"]),  # a Cyrillic letter
    ("Person", "Иво Карелин", "Ivo Karelin", 0.967, ["transliteration", "transliteration"]),
    ("Person", "Ivo Karelin", "Qaanaaq Dynamics", 0.0, []),
    ("Person", "И. Karelin", "Ivo Karelin", 0.692, ["equal"]),  # an initial says nothing in another script
    ("Company", "B. Signals", "Borealis Signals", 0.599, ["equal"]),  # nor of what is no person
    ("Company", "Borealis Signals Ltd", "Borealis Signals GmbH", 0.994, ["equal", "equal"]),
    (
        "Company",
        "\u0410\u0412\u0421 Signals",
        "ABC Signals",
        0.991,
        ["equal", "equal"],
    ),  # a Cyrillic word that looks Latin
    ("Company", "Borealis Trading", "Meridian Trading", 0.021, ["equal"]),
    ("Company", "Borealis Signals 44", "Borealis Signals 45", 0.849, ["equal", "equal"]),
    ("Company", "BorealisSignals", "Borealis Signals", 0.973, ["joined"]),
    ("Company", "Qaanaaq Marine Research Institute", "QMRI", 0.7270, ["acronym"]),
    ("Company", "Qaanaaq Marine Research SA", "QMRSA", 0.694, ["acronym"]),  # the legal form taken in
    ("Company", "QMR Shipping", "Qaanaaq Marine Research Shipping", 0.796, ["equal", "acronym"]),
    ("Company", "QMA Shipping", "Qaanaaq Marine Research Shipping", 0.014, ["equal"]),
    ("Company", "Qaamar", "Qaanaaq de la Marine SA", 0.67, ["blend"]),
    ("Company", "Qaamar", "Qaanaaq Optics", 0.0, []),
    ("Person", "عبد الستار", "Abdul Satar", 0.592, ["consonants", "consonants"]),
    ("Person", "عبد الخالق", "Abdu Lkhaliq", 0.957, ["joined"]),  # the two sides parted otherwise
    ("Person", "حمد الله", "Hamdullah", 0.92, ["joined"]),
    (
        "Person",
        "ايفو الستاري",
        "Ivo Satari",
        0.954,
        ["same name", "consonants"],
    ),  # the article apart in Latin
    ("Company", "Borealis Intl", "Borealis International", 0.979, ["equal", "same word"]),
]


def agreement(schema: Schema, a: str, b: str) -> Agreement:
    return Comparer(normalise(a, schema)).compare(normalise(b, schema))


@pytest.mark.parametrize(("schema", "a", "b", "score", "kinds"), SCORES)
def test_two_names_score_as_they_did(schema: Schema, a: str, b: str, score: float, kinds: list[str]) -> None:
    found = agreement(schema, a, b)
    assert (round(name_score(found), 3), [met.kind for met in found.met]) == (score, kinds)


@pytest.mark.parametrize(("schema", "a", "b"), [case[:3] for case in SCORES])
def test_no_word_meets_twice_and_none_is_lost(schema: Schema, a: str, b: str) -> None:
    found = agreement(schema, a, b)
    ours = [place for met in found.met for place in met.query] + list(found.query_left)
    theirs = [place for met in found.met for place in met.notice] + list(found.notice_left)
    assert sorted(ours) == list(range(len(found.query.tokens)))
    assert sorted(theirs) == list(range(len(found.notice.tokens)))


def test_a_name_turned_by_a_comma_is_read_as_it_is_said_and_a_suffix_turns_nothing() -> None:
    def words(text: str, schema: Schema = "Person") -> list[str]:
        return [t.text for t in normalise(text, schema).tokens]

    assert words("KARELIN, Ivo Petr") == words("Ivo Petr Karelin")
    assert words("Ivo Karelin, Jr.") == ["ivo", "karelin", "jr"]
    assert words("Karelin, Ivo, Petr") == ["karelin", "ivo", "petr"]
    assert words(", Ivo") == ["ivo"]
    assert words("Ivo,") == ["ivo"]
    assert words("Signals, Borealis", "Company") == ["signals", "borealis"]


def test_the_thresholds_are_published_as_the_documents_say(world: World) -> None:
    ee = world.make("EE")
    answer = ee.request("GET", "/v1/screenings/thresholds", headers=token(ee))
    assert answer.status_code == 200
    assert answer.json() == {"model": "verbale-3", **calibration()}
    assert ee.request("GET", "/v1/screenings/thresholds").status_code == 401
    text = Path("docs/screening.md").read_text(encoding="utf-8")
    for row, kind in (
        ("threshold, persons", "person"),
        ("threshold, organisations", "organization"),
        ("threshold, both together", "all"),
    ):
        (line,) = re.findall(rf"\| {row} \|(.*)\|", text)
        told = [float(cell.strip(" %")) for cell in line.split("|")]
        meant = [step[kind] for step in calibration()["thresholds"]]
        meant.append(calibration()["alerts_at_shipped_threshold"][kind] * 100)
        assert told == [round(value, 2 if n < 5 else 1) for n, value in enumerate(meant)]


LETTERS = st.text("abcdeiostz", min_size=2, max_size=12)
EDITS = st.lists(
    st.tuples(st.sampled_from("idrt"), st.integers(0, 12), st.sampled_from("abcdeiostz")), max_size=4
)


@given(LETTERS, EDITS)
def test_no_two_words_that_are_alike_by_spelling_are_passed_over(
    x: str, edits: list[tuple[str, int, str]]
) -> None:
    """Most pairs are ruled out by their sets of letters before they are compared: never one that has few enough edits."""
    letters = list(x)
    for kind, place, letter in edits:
        at = place % max(len(letters), 1)
        if kind == "i":
            letters.insert(at, letter)
        elif kind == "d" and len(letters) > 2:
            del letters[at]
        elif kind == "r":
            letters[at] = letter
        elif at + 1 < len(letters):
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
    y = "".join(letters)
    wanted = spelled(x, y, OSA.distance(x, y))
    found, _, _ = similarity(word(x), word(y), person=True)
    assert OSA.distance(x, y) > allowed(max(len(x), len(y))) or wanted < LEAST or found >= wanted
