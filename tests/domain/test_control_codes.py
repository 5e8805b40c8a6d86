"""Control-list codes: one spelling, and prefixes that end at joints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.control_codes import (
    ControlCode,
    InvalidControlCode,
    ancestors,
    canonical,
    canonical_query,
    prefix_matches,
)
from app.domain.vocabulary import CONTROLLED_ITEMS

_PARAGRAPHS = st.lists(st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True), max_size=4)
_LISTED = st.builds(
    lambda category, group, number, paragraphs: ".".join((f"{category}{group}{number:03}", *paragraphs)),
    st.integers(0, 9),
    st.sampled_from("ABCDE"),
    st.integers(0, 999),
    _PARAGRAPHS,
)


@pytest.mark.parametrize(
    ("system", "code", "expected"),
    [
        ("EU", "5A001.j", "5A001.j"),
        ("EU", "5a001.J.1", "5A001.j.1"),
        ("UK", "4E001.c", "4E001.c"),
        ("US", "3A981", "3A981"),
        ("US", "9A610.y.1", "9A610.y.1"),
        ("US", "ear99", "EAR99"),
        ("WA", "5.A.1.j", "5A001.j"),
        ("WA", "4.E.1.c", "4E001.c"),
        ("WA", "1.C.12", "1C012"),
        ("ML", "ML10c", "ML10.c"),
        ("ML", "ml10.c", "ML10.c"),
        ("ML", "ML8.a.12", "ML8.a.12"),
        ("ML", "ML22", "ML22"),
        ("UK-PL", "PL5001", "PL5001"),
        ("UK-PL", "PL5001c", "PL5001.c"),
        ("EU-AT", "2019/125 Annex III", "2019/125 Annex III"),
        ("EU-AT", "2019/125 annex iii 2.1", "2019/125 Annex III 2.1"),
        ("CATCH-ALL", "EU:Art5", "EU:Art5"),
        ("CATCH-ALL", "eu:art10", "EU:Art10"),
        ("CATCH-ALL", "US:744.21", "US:744.21"),
        ("HS", "8517.62", "851762"),
        ("HS", "8517", "8517"),
        ("HS", "8517620000", "8517620000"),
    ],
)
def test_each_system_has_one_spelling(system: str, code: str, expected: str) -> None:
    assert canonical(system, code) == expected
    assert ControlCode.parse(system, code, "2025").canonical == expected


@pytest.mark.parametrize(
    ("system", "code"),
    [
        ("EU", "5F001"),
        ("EU", "5A01"),
        ("EU", "5A0011"),
        ("EU", "5A001j"),
        ("EU", "5A001."),
        ("EU", "5A001.abcd"),
        ("EU", "EAR99"),
        ("EU", "5A001 "),
        ("EU", "5A001\n"),
        ("EU", "５A001"),
        ("EU", "5A001.ß"),
        ("EU", "5A001.ı"),
        ("ML", "ML10.c..1"),
        ("UK-PL", "PL5001..a"),
        ("UK-PL", "PL5001" + "a" * 60 + "!"),  # would keep a careless pattern busy for years
        ("WA", "5A001.j"),
        ("WA", "0.A.1"),
        ("WA", "5.A.123"),
        ("ML", "ML0"),
        ("ML", "ML23"),
        ("ML", "ML10.c."),
        ("UK-PL", "PL6001"),
        ("EU-AT", "2019/125 Annex V"),
        ("CATCH-ALL", "EU:Art6"),
        ("CATCH-ALL", "US:745.1"),
        ("HS", "85"),
        ("HS", "85176"),
        ("HS", "85176200001"),
        ("US", ""),
    ],
)
def test_a_code_the_numbering_cannot_have_is_refused_with_advice(system: str, code: str) -> None:
    with pytest.raises(InvalidControlCode, match=f"not a code of {system}: "):
        canonical(system, code)


def test_an_unknown_system_is_refused_with_the_list_of_systems() -> None:
    with pytest.raises(InvalidControlCode, match="Use one of EU, UK, US, WA"):
        canonical("CCL", "5A001")


def test_wassenaar_and_european_codes_for_one_entry_are_equal() -> None:
    assert canonical("WA", "5.A.1.j") == canonical("EU", "5A001.j") == canonical("US", "5a001.J")


def test_a_code_is_found_by_its_ancestors_and_by_nothing_else() -> None:
    assert ancestors("5A001.j.1") == ("5", "5A", "5A001", "5A001.j", "5A001.j.1")
    assert ancestors("85176200") == ("8517", "851762", "85176200")
    assert ancestors("ML8.a.12") == ("ML8", "ML8.a", "ML8.a.12")
    assert ancestors("EAR99") == ("EAR99",)
    assert ancestors("2019/125 Annex III 2.1") == (
        "2019/125 Annex III",
        "2019/125 Annex III 2",
        "2019/125 Annex III 2.1",
    )
    assert ancestors("US:744.21") == ("US:744", "US:744.21")


@pytest.mark.parametrize(
    ("query", "code", "found"),
    [
        ("5A001", "5A001.j", True),
        ("5A001", "5A001", True),
        ("5a001", "5A001.j.1", True),
        ("5.A.1", "5A001.j", True),
        ("5.A.1.j", "5A001.j", True),
        ("5A", "5A001.j", True),
        ("5.A", "5A001.j", True),
        ("5", "5A001.j", True),
        ("5A001.j", "5A001", False),
        ("5A001", "5A0011", False),
        ("5A001.j", "5A001.ja", False),
        ("5A001.b.1", "5A001.b.10", False),
        ("5A", "5D001", False),
        ("5", "851762", False),
        ("ML1", "ML10.c", False),
        ("ML10", "ML10.c", True),
        ("8517", "851762", True),
        ("EAR99", "EAR99", True),
        ("US:744", "US:744.21", True),
    ],
)
def test_a_prefix_ends_at_a_joint_of_the_code(query: str, code: str, found: bool) -> None:
    assert prefix_matches(query, code) is found


@pytest.mark.parametrize(
    "query",
    [
        "5A0",
        "5A00",
        "5A001.",
        "A",
        "",
        "851",
        "ML",
        "%",
        "5A001%",
        "5A001.ı",
        "x" * 1000,
        "PL5001" + "A" * 30 + "!",
    ],
)
def test_a_query_that_stops_inside_a_number_is_refused(query: str) -> None:
    with pytest.raises(InvalidControlCode, match="prefix"):
        canonical_query(query)


def test_every_item_of_the_packaged_vocabulary_can_be_asked_for() -> None:
    for item in CONTROLLED_ITEMS:
        query = f"EU:{item.code}" if item.code.startswith("Art") else item.code
        assert canonical_query(query)


@given(_LISTED)
def test_the_spelling_of_a_spelling_is_itself(code: str) -> None:
    once = canonical("EU", code)
    assert canonical("EU", once) == once == canonical("US", code.upper()) == canonical("UK", code.lower())


@given(_LISTED)
def test_every_code_is_found_by_each_of_its_ancestors(code: str) -> None:
    spelled = canonical("EU", code)
    prefixes = ancestors(spelled)
    assert prefixes[-1] == spelled
    assert all(prefix_matches(prefix, spelled) and spelled.startswith(prefix) for prefix in prefixes)


@given(_LISTED, _LISTED)
def test_a_whole_number_finds_exactly_the_codes_under_it(query: str, code: str) -> None:
    q, c = canonical("EU", query), canonical("EU", code)
    assert prefix_matches(q, c) is (c == q or c.startswith(q + "."))
