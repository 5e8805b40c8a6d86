"""Parties: FollowTheMoney's shape on our allow-list."""

from __future__ import annotations

import pytest

from app.domain.notices import InvalidNotice, validate_main
from app.domain.party import (
    COUNTRY_PROPERTIES,
    END_ROLES,
    PROPERTIES,
    ROLES,
    SCHEMATA,
    NativeName,
    Party,
    properties_fault,
)
from app.domain.states import COUNTRIES, ISO_3166_1, STATES, UnknownCountry, country
from tests.examples import denied_end_user, party


def test_the_accessors_normalise_and_the_properties_do_not() -> None:
    it = Party(
        "Company",
        "end_user",
        {
            "name": ("Aurelian Sky",),
            "alias": ("ASky", "Aurelian Sky"),
            "country": ("zm", "ZM"),
            "jurisdiction": ("ae",),
        },
        (NativeName("Аурелиан", "Cyrl", "ru"),),
    )
    assert it.caption == "Aurelian Sky"
    assert it.names() == ("Aurelian Sky", "ASky", "Аурелиан")
    assert it.countries() == ("ZM", "AE")
    assert it.properties["country"] == ("zm", "ZM")


@pytest.mark.parametrize("schema", SCHEMATA)
@pytest.mark.parametrize("role", sorted(END_ROLES))
def test_every_schema_is_accepted_in_every_end_role(schema: str, role: str) -> None:
    it = party(role=role)
    it["ftm"]["schema"] = schema
    notice = validate_main(denied_end_user(body={"parties": [it]}))
    assert [(p.schema, p.role) for p in notice.parties()] == [(schema, role)]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_known(role: str) -> None:
    validate_main(denied_end_user(body={"parties": [party(), party(role=role)]}))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"ftm": {"schema": "Company", "properties": {}}}, "/ftm/properties"),
        ({"ftm": {"schema": "Company", "properties": {"alias": ["x"]}}}, "/ftm/properties"),
        ({"ftm": {"schema": "Company", "properties": {"name": [" "]}}}, "/ftm/properties"),
        ({"ftm": {"schema": "Company", "properties": {"name": []}}}, "/ftm/properties/name"),
        ({"ftm": {"schema": "Company", "properties": {"name": "x"}}}, "/ftm/properties/name"),
        ({"ftm": {"schema": "Company", "properties": {"name": [""]}}}, "/ftm/properties/name/0"),
        ({"ftm": {"schema": "Company", "properties": {"name": [1]}}}, "/ftm/properties/name/0"),
        ({"ftm": {"schema": "Address", "properties": {"name": ["x"]}}}, "/ftm/schema"),
        ({"ftm": {"schema": "Company", "id": "x", "properties": {"name": ["x"]}}}, "/ftm/id"),
        ({"role": "villain"}, "/role"),
        ({"native_names": [{"value": "x", "script": "cyrillic"}]}, "/native_names/0/script"),
        ({"native_names": [{"value": "x", "lang": "ru_RU"}]}, "/native_names/0/lang"),
        ({"name": "x"}, "/name"),
    ],
)
def test_a_party_of_another_shape_is_refused_where_it_differs(
    change: dict[str, object], pointer: str
) -> None:
    with pytest.raises(InvalidNotice) as refused:
        validate_main(denied_end_user(body={"parties": [party() | change]}))
    assert f"/body/parties/0{pointer}" in [p for p, _ in refused.value.errors]


@pytest.mark.parametrize(
    ("properties", "names"),
    [
        ({"alias": ("two\nlines",)}, "alias"),
        ({"weakAlias": (" ",)}, "weakAlias"),
        ({"country": ("ıe",)}, "country"),
        ({"birthDate": ("1970-13",)}, "birthDate"),
        ({"birthDate": ("01/02/1970",)}, "birthDate"),
        ({"website": ("javascript:alert(1)",)}, "website"),
        ({"sourceUrl": ("ftp://x.example",)}, "sourceUrl"),
        ({"topics": ("Export Control",)}, "topics"),
        ({"wikidataId": ("Q1",)}, "wikidataId"),
        *(({name: ("ZZ",)}, name) for name in COUNTRY_PROPERTIES),
        *(({name: ("Zambia",)}, name) for name in COUNTRY_PROPERTIES),
    ],
)
def test_a_property_outside_the_allow_list_or_its_values_is_refused_by_name(
    properties: dict[str, tuple[str, ...]], names: str
) -> None:
    wrong = properties_fault({"name": ("Aurelian",), **properties})
    assert wrong is not None
    assert names in wrong


def test_every_allowed_property_is_accepted() -> None:
    values = dict.fromkeys(PROPERTIES, ("1970",)) | dict.fromkeys(COUNTRY_PROPERTIES, ("xk",))
    values |= {
        "website": ("https://a.example",),
        "sourceUrl": ("http://a.example",),
        "topics": ("export.control",),
    }
    assert properties_fault(values) is None


def test_the_error_shows_no_personal_value() -> None:
    wrong = properties_fault({"name": ("Aurelian",), "birthDate": ("born 3 May 1970",)})
    assert wrong is not None
    assert "3 May" not in wrong


def test_the_countries_are_iso_3166_1_and_kosovo() -> None:
    assert len(ISO_3166_1) == 249
    assert ISO_3166_1 | {"XK"} == COUNTRIES
    assert country("xk") == "XK"
    assert all(state in COUNTRIES for state in STATES)
    with pytest.raises(UnknownCountry, match="GB"):
        country("UK")


def test_the_twenty_five_states_are_known_by_name() -> None:
    assert len(STATES) == 25
    assert STATES["NL"].name == "Netherlands"
    assert STATES["XK"].regimes == ()
    assert sum(state.eu_member for state in STATES.values()) == 12
    assert STATES["CR"].authority is None
