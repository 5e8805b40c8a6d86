"""Reading what is asked: three shapes, and whatever is not understood is said where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.party import APPLICATION_ROLES, ROLES
from app.screening.application import (
    MAX_PARTIES,
    Application,
    Asked,
    InvalidScreening,
    NotUnderstood,
    read_application,
)
from tests import examples

ACME: dict[str, Any] = {"schema": "Company", "properties": {"name": ["Acme Ltd"], "country": ["ru"]}}


def faults(document: Any) -> dict[str, str]:
    with pytest.raises(InvalidScreening) as caught:
        read_application(document)
    assert caught.value.errors
    return dict(caught.value.errors)


def only(application: Application) -> Asked:
    (asked,) = application.parties
    assert isinstance(asked, Asked)
    return asked


def test_one_party_may_be_a_text_a_name_or_the_whole_shape() -> None:
    for party in (
        "Acme Ltd",
        {"name": "Acme Ltd"},
        {"name": ["Acme Ltd"]},
        {"properties": {"name": "Acme Ltd"}},
    ):
        asked = only(read_application({"party": party}))
        assert asked.properties == {"name": ("Acme Ltd",)}
        assert (asked.schema, asked.role, asked.id, asked.pointer) == (None, None, None, "/party")
    asked = only(read_application({"party": ACME | {"id": "42", "role": "agent", "name": "ACME"}}))
    assert (asked.schema, asked.role, asked.id) == ("Company", "agent", "42")
    assert asked.properties == {"name": ("ACME", "Acme Ltd"), "country": ("ru",)}


def test_an_exporter_is_a_role_of_an_application_and_the_applicant_of_a_notice() -> None:
    read = read_application({"parties": {"exporter": ACME, "end_user": "Quiet Harbour"}})
    exporter, end_user = read.asked()
    assert (exporter.role, end_user.role) == ("exporter", "end_user")
    assert [party.as_notice_party()["role"] for party in (exporter, end_user)] == ["applicant", "end_user"]
    assert {party.as_notice_party()["role"] for party in (exporter, end_user)} <= set(ROLES)


def test_an_item_may_have_one_code() -> None:
    alone, listed = (
        {"parties": [ACME], "items": [item]} for item in ({"code": "5A001.j"}, {"codes": ["5A001.j"]})
    )
    assert read_application(alone).items == read_application(listed).items
    both = {"parties": [ACME], "items": [{"code": "5A001.j", "codes": ["5A002"]}]}
    assert list(faults(both)) == ["/items/0/code"]
    assert list(faults({"parties": [ACME], "items": [{"code": "ZZ9"}]})) == ["/items/0/code"]


def test_an_application_has_its_parties_by_role_and_what_is_to_be_exported() -> None:
    read = read_application(
        {
            "parties": {"end_user": [ACME, "Northern Lantern"], "consignee": "Quiet Harbour"},
            "items": [examples.item(), {"codes": ["5.A.1.j", "8517.62"]}],
            "destination": "kp",
            "stated_end_use": "Telephony",
            "reference": "2026/1",
            "received_on": "2026-11-20",
        }
    )
    assert [(p.pointer, p.role) for p in read.asked()] == [
        ("/parties/end_user/0", "end_user"),
        ("/parties/end_user/1", "end_user"),
        ("/parties/consignee", "consignee"),
    ]
    assert read.destination == "KP"
    assert [code.canonical for code in read.goods[1].codes] == ["5A001.j", "851762"]
    assert read.items[1]["description"] == "5.A.1.j, 8517.62"
    assert read.is_application
    assert not read_application({"party": ACME}).is_application


def test_a_party_that_is_not_understood_stops_no_other() -> None:
    read = read_application({"parties": [ACME, {"schema": "Alien", "name": "X"}, {"name": "..."}, 7]})
    assert [type(p) for p in read.parties] == [Asked, NotUnderstood, NotUnderstood, NotUnderstood]
    pointers = [p.errors[0][0] for p in read.parties if isinstance(p, NotUnderstood)]
    assert pointers == ["/parties/1/schema", "/parties/2/properties", "/parties/3"]


@pytest.mark.parametrize(
    ("party", "pointer"),
    [
        ({}, "/party/properties"),
        ("", "/party/properties"),
        (" \u200b ", "/party/properties"),
        ("😀 — !", "/party/properties"),
        ({"name": "Acme", "shoe": 1}, "/party/shoe"),
        ({"name": "Acme", "properties": []}, "/party/properties"),
        ({"name": "Acme", "properties": {"shoeSize": ["1"]}}, "/party/properties/shoeSize"),
        ({"name": "Acme", "properties": {"country": ["Neverland"]}}, "/party/properties"),
        ({"name": "Acme", "properties": {"birthDate": ["01.02.1970"]}}, "/party/properties"),
        ({"name": "Acme", "properties": {"birthDate": [1970]}}, "/party/properties/birthDate"),
        ({"name": "x" * 10_000}, "/party/name"),
        ({"name": ["x"] * 1_000}, "/party/name"),
        ({"name": "Acme", "role": "boss"}, "/party/role"),
        ({"name": "Acme", "schema": "Thing"}, "/party/schema"),
        ({"name": "Acme", "schema": ["Person"]}, "/party/schema"),
        ({"name": "Acme", "id": 7}, "/party/id"),
        (None, "/party"),
        ([], "/party"),
    ],
)
def test_what_is_wrong_with_the_only_party_refuses_the_request_and_points_at_it(
    party: Any, pointer: str
) -> None:
    assert list(faults({"party": party})) == [pointer]


def test_a_year_alone_is_a_date_and_names_may_hold_what_a_notice_may_not() -> None:
    asked = only(
        read_application({"party": {"name": "Аcme\u202e\u200b", "properties": {"birthDate": "1970"}}})
    )
    assert asked.properties == {"birthDate": ("1970",), "name": ("Аcme\u202e\u200b",)}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ([], ""),
        (None, ""),
        ({}, ""),
        ({"party": ACME, "parties": [ACME]}, ""),
        ({"parties": []}, "/parties"),
        ({"parties": {}}, "/parties"),
        ({"parties": "Acme"}, "/parties"),
        ({"parties": {"boss": ACME}}, "/parties/boss"),
        ({"party": ACME, "colour": "red"}, "/colour"),
        ({"party": ACME, "destination": "ZZ"}, "/destination"),
        ({"party": ACME, "destination": 7}, "/destination"),
        ({"party": ACME, "items": {}}, "/items"),
        ({"party": ACME, "items": ["5A001"]}, "/items/0"),
        ({"party": ACME, "items": [{"codes": "5A001"}]}, "/items/0/codes"),
        ({"party": ACME, "items": [{"codes": ["5A0"]}]}, "/items/0/codes/0"),
        ({"party": ACME, "items": [{"codes": ["5A"]}]}, "/items/0/codes/0"),
        ({"party": ACME, "items": [{"codes": [{"system": "EU", "code": "5A0"}]}]}, "/items/0/codes/0"),
        ({"party": ACME, "items": [{"description": "x", "shoe": 1}]}, "/items/0/shoe"),
        ({"party": ACME, "stated_end_use": ""}, "/stated_end_use"),
        ({"party": ACME, "received_on": "yesterday"}, "/received_on"),
        ({"parties": [ACME] * (MAX_PARTIES + 1)}, "/parties"),
    ],
)
def test_what_is_wrong_with_the_application_refuses_it_and_points_there(document: Any, pointer: str) -> None:
    assert list(faults(document)) == [pointer]


def test_every_error_is_told_at_once() -> None:
    assert set(faults({"parties": [{"name": "Acme", "schema": "Alien"}], "destination": "ZZ", "x": 1})) == {
        "/x",
        "/destination",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARTY = st.dictionaries(st.sampled_from(["schema", "properties", "name", "role", "id", "native_names"]), JSON)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "party": PARTY | JSON,
            "parties": st.lists(PARTY | JSON, max_size=3)
            | st.dictionaries(st.sampled_from(APPLICATION_ROLES), PARTY | JSON),
            "items": st.lists(st.dictionaries(st.sampled_from(["codes", "description", "hs"]), JSON)) | JSON,
            "destination": JSON,
            "received_on": JSON,
            "id": JSON,
        },
    )
)
def test_whatever_comes_is_read_or_refused(document: dict[str, Any]) -> None:
    understood: Sequence[object]
    try:
        understood = list(read_application(document).asked())
    except InvalidScreening as refusal:
        understood = refusal.errors
    assert understood
