"""The essentially identical transaction: two legs, parties and items, and every verdict with its reasons."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.control_codes import ControlCode, ancestors
from app.domain.party import ROLES
from app.screening.undercut import (
    DEPTHS,
    Comparison,
    Denied,
    Depth,
    Finding,
    Goods,
    InvalidComparison,
    Parameter,
    PartyMatch,
    check,
    compare_parameter,
    overlap,
)

TODAY = date(2026, 9, 21)
SAME = PartyMatch("end_user", "Acme Telecom", "end_user", "ACME TELECOM LLC", 0.93)


def code(text: str, system: str = "EU") -> ControlCode:
    return ControlCode.parse(system, text)


def goods(*codes: str, system: str = "EU", **parameters: str) -> Goods:
    stated = tuple(Parameter(name, *value.split(" ", 1)) for name, value in parameters.items())
    return Goods("probe", tuple(code(c, system) for c in codes), stated)


def denied(*items: Goods, **values: Any) -> Denied:
    base = Denied("NL", TODAY - timedelta(100), valid_now=True, goods=items, destination="KP")
    return replace(base, **values)


def verdict(found: Finding | None) -> str | None:
    return found.verdict if found else None


def compare(
    ours: Goods, theirs: Denied, *matches: PartyMatch, depth: Depth = "number", tolerance: str = "0.1"
) -> Finding | None:
    return check(
        theirs,
        matches or (SAME,),
        [ours],
        destination="KP",
        today=TODAY,
        comparison=Comparison.of(depth, tolerance),
    )


# ── codes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LETTERS = st.text("abcdefghij", min_size=1, max_size=1)
LISTED = st.builds(
    lambda d, g, n, p: f"{d}{g}{n:03}" + "".join(f".{x}" for x in p),
    st.integers(0, 9),
    st.sampled_from("ABCDE"),
    st.integers(0, 3),
    st.lists(LETTERS, max_size=3),
)


@given(a=LISTED, b=LISTED, depth=st.sampled_from(DEPTHS))
def test_two_codes_meet_alike_from_either_side_and_less_often_the_deeper_one_looks(
    a: str, b: str, depth: Depth
) -> None:
    there, back = overlap(code(a), code(b), depth), overlap(code(b), code(a), depth)
    assert (there is None) == (back is None)
    if there is not None:
        assert there.shared in ancestors(code(a).canonical)
        assert there.shared in ancestors(code(b).canonical)
        for shallower in DEPTHS[: DEPTHS.index(depth)]:
            assert overlap(code(a), code(b), shallower) is not None


@given(a=LISTED, depth=st.sampled_from(DEPTHS))
def test_a_code_meets_itself_at_every_depth(a: str, depth: Depth) -> None:
    found = overlap(code(a), code(a), depth)
    assert found is not None
    assert found.shared == a


@pytest.mark.parametrize(
    ("a", "b", "deepest"),
    [
        ("5A001.j", "5A001.f", "number"),
        ("5A001", "5A001.j", "paragraph"),  # a denial of the number covers its paragraphs
        ("5A001.j.1", "5A001.j.2", "paragraph"),
        ("5A001.j", "5A002", "group"),
        ("5A001", "5D001", "category"),
        ("5A001.j", "5A001.j", "exact"),
        ("5A001", "6A001", None),
    ],
)
def test_how_deep_two_codes_meet(a: str, b: str, deepest: Depth | None) -> None:
    met = [depth for depth in DEPTHS if overlap(code(a), code(b), depth) is not None]
    assert (met[-1] if met else None) == deepest


def test_one_numbering_is_one_numbering_whoever_wrote_it() -> None:
    found = overlap(code("5.A.1.j", "WA"), code("5A001.j", "US"), "exact")
    assert found is not None
    assert not found.weak


def test_numbers_that_only_begin_alike_do_not_meet() -> None:
    assert overlap(code("ML1", "ML"), code("ML10", "ML"), "category") is None


@pytest.mark.parametrize(("system", "text"), [("US", "EAR99"), ("HS", "8517.62"), ("CATCH-ALL", "EU:Art5")])
def test_a_basket_does_not_identify_an_item(system: str, text: str) -> None:
    found = overlap(code(text, system), code(text, system), "number")
    assert found is not None
    assert found.weak
    item = goods(text, system=system)
    assert verdict(compare(item, denied(item))) == "possibly_identical"


# ── parameters ────────────────────────────────────────────────────────────────────────────────────────────────────

NUMBERS = st.decimals(Decimal("0.001"), Decimal("1e9"), allow_nan=False, allow_infinity=False, places=3)
TENTH = Decimal("0.1")


def agree(a: str, b: str, tolerance: Decimal = TENTH) -> bool | None:
    def read(text: str) -> Parameter:
        return Parameter("p", *text.rsplit(" ", 1)) if " " in text else Parameter("p", text)

    return compare_parameter(read(a), read(b), tolerance)


@given(a=NUMBERS, b=NUMBERS, narrow=st.decimals(0, 1, places=2), wide=st.decimals(0, 1, places=2))
def test_parameters_agree_alike_from_either_side_and_more_often_the_wider_the_tolerance(
    a: Decimal, b: Decimal, narrow: Decimal, wide: Decimal
) -> None:
    assume(narrow <= wide)
    assert agree(str(a), str(b), narrow) == agree(str(b), str(a), narrow)
    assert agree(str(a), str(a), Decimal(0))
    assert agree(str(a), str(b), wide) or not agree(str(a), str(b), narrow)
    assert agree(str(a), str(b), Decimal(1))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("100 Gbit/s", "100000 Mbps", True),
        ("100 Gbit/s", "91 Gbit/s", True),
        ("100 Gbit/s", "89 Gbit/s", False),
        ("1 GB/s", "8 Gbit/s", True),
        ("10 GHz", "10 W", None),
        (">=10 GHz", "40 GHz", True),
        (">=10 GHz", "5 GHz", False),
        ("<=10 GHz", "40 GHz", False),
        ("900-1800 MHz", "1.8 GHz", True),
        ("900-1800 MHz", "2.4 GHz", False),
        ("2,5 kW", "2500 W", True),
        ("AES-256", "aes_256", True),
        ("AES-256", "AES-128", False),
        ("10 widgets", "10 widgets", True),
        ("10 widgets", "10 gadgets", None),
        ("1e400", "1e500", False),
    ],
)
def test_values_are_compared_in_their_units(a: str, b: str, expected: bool | None) -> None:
    assert agree(a, b) is expected
    assert agree(b, a) is expected


@given(a=st.text(max_size=80), b=st.text(max_size=80), unit=st.text(max_size=10))
def test_no_text_of_a_parameter_is_too_much(a: str, b: str, unit: str) -> None:
    assert compare_parameter(Parameter("p", a, unit), Parameter("p", b, unit), TENTH) in (True, False, None)


# ── verdicts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_same_end_user_and_code_is_essentially_identical() -> None:
    found = compare(goods("5A001.j"), denied(goods("5A001.f")))
    assert found is not None
    assert found.verdict == "essentially_identical"
    assert found.asks_consultation
    assert "5A001" in " ".join(found.why)
    assert found.same_destination is True


def test_a_code_that_meets_with_parameters_that_differ_is_only_possibly_identical() -> None:
    ours = goods("5A001.j", throughput="100 Gbit/s")
    assert verdict(compare(ours, denied(goods("5A001.j", throughput="95 Gbit/s")))) == "essentially_identical"
    found = compare(ours, denied(goods("5A001.j", throughput="1 Gbit/s")))
    assert verdict(found) == "possibly_identical"
    assert found is not None
    assert "throughput" in " ".join(found.why)
    assert verdict(compare(ours, denied(goods("5A001.j", throughput="1 Gbit/s")), tolerance="1")) == (
        "essentially_identical"
    )


def test_parameters_that_agree_make_up_for_a_missing_code_and_not_for_another_one() -> None:
    ours = goods(throughput="100 Gbit/s")
    assert (
        verdict(compare(ours, denied(goods("5A001.j", throughput="100 Gbit/s")))) == "essentially_identical"
    )
    coded = goods("4A003", throughput="100 Gbit/s")
    assert verdict(compare(coded, denied(goods("5A001.j", throughput="100 Gbit/s")))) == "possibly_identical"


def test_other_items_for_the_same_party_are_told_and_ask_no_consultation() -> None:
    found = compare(goods("3A001"), denied(goods("5A001.j")))
    assert found is not None
    assert found.verdict == "other_items"
    assert not found.asks_consultation


def test_what_could_not_be_compared_is_not_called_different() -> None:
    assert verdict(compare(Goods("antenna"), denied(goods("5A001.j")))) == "possibly_identical"
    assert verdict(compare(goods("5A001.j"), denied(Goods("antenna")))) == "possibly_identical"
    assert (
        verdict(check(denied(goods("5A001")), [SAME], [], destination=None, today=TODAY))
        == "possibly_identical"
    )


def test_a_denial_of_whatever_items_meets_what_it_says() -> None:
    assert verdict(compare(goods("EAR99", system="US"), denied(scope="all"))) == "essentially_identical"
    assert verdict(compare(goods("5A001"), denied(scope="listed"))) == "essentially_identical"
    assert verdict(compare(Goods("antenna"), denied(scope="listed"))) == "possibly_identical"
    assert (
        verdict(compare(goods("EAR99", system="US"), denied(goods("5A001"), scope="listed"))) == "other_items"
    )


def test_only_an_end_user_or_consignee_is_the_same_party() -> None:
    for role, denied_role in itertools.product(ROLES, ROLES):
        match = replace(SAME, role=role, denied_role=denied_role)
        found = compare(goods("5A001"), denied(goods("5A001")), match)
        same = {role, denied_role} <= {"end_user", "ultimate_consignee", "consignee"}
        assert (found is not None) == same


def test_one_site_under_another_name_needs_a_code_that_identifies() -> None:
    site = replace(SAME, basis="address")
    found = compare(goods("5A001"), denied(goods("5A001")), site)
    assert found is not None
    assert found.verdict == "same_site_other_name"
    assert not found.asks_consultation
    assert "another name" in found.why[0]
    assert compare(goods("EAR99", system="US"), denied(goods("EAR99", system="US")), site) is None
    assert compare(goods("3A001"), denied(goods("5A001")), site) is None
    assert verdict(compare(goods("5A001"), denied(goods("5A001")), site, SAME)) == "essentially_identical"


def test_an_equal_identifier_under_another_name_asks_for_a_consultation() -> None:
    found = compare(goods("5A001"), denied(goods("5A001")), replace(SAME, basis="identifier"))
    assert found is not None
    assert found.verdict == "same_site_other_name"
    assert found.asks_consultation


@given(days=st.integers(-10, 365 * 8), valid=st.booleans())
def test_valid_now_and_the_look_back_are_kept_apart(days: int, valid: bool) -> None:
    denied_on = TODAY - timedelta(days)
    found = compare(goods("5A001"), denied(goods("5A001"), denied_on=denied_on, valid_now=valid))
    within = date(2023, 9, 21) <= denied_on <= TODAY
    assert (found is not None) == (valid or within)
    if found is not None:
        assert (found.valid_now, found.within_look_back) == (valid, within)


def test_a_listing_without_a_date_counts_while_it_is_valid() -> None:
    assert compare(goods("5A001"), denied(goods("5A001"), denied_on=None, valid_now=False)) is None
    assert compare(goods("5A001"), denied(goods("5A001"), denied_on=None)) is not None


def test_another_destination_is_told_and_changes_nothing() -> None:
    found = compare(goods("5A001"), denied(goods("5A001"), destination="AE"))
    assert found is not None
    assert found.verdict == "essentially_identical"
    assert "The destinations differ." in found.why


@given(
    ours=st.lists(LISTED, max_size=3), theirs=st.lists(LISTED, max_size=3), depth=st.sampled_from(DEPTHS[:-1])
)
def test_looking_deeper_never_makes_a_verdict_graver(
    ours: list[str], theirs: list[str], depth: Depth
) -> None:
    order = ["other_items", "possibly_identical", "essentially_identical"]
    deeper = DEPTHS[DEPTHS.index(depth) + 1]
    shallow = compare(goods(*ours), denied(goods(*theirs)), depth=depth)
    deep = compare(goods(*ours), denied(goods(*theirs)), depth=deeper)
    assert shallow is not None
    assert deep is not None
    assert order.index(deep.verdict) <= order.index(shallow.verdict)


def test_a_comparison_without_meaning_is_refused() -> None:
    for depth, tolerance in (("deep", 0.1), ("number", 2), ("number", -0.1), ("number", float("nan"))):
        with pytest.raises(InvalidComparison):
            Comparison.of(depth, tolerance)
