"""Every type has a valid example; every rule has a main part that only it refuses."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import MalformedJson
from app.domain.handling import Tlp
from app.domain.json import canonical
from app.domain.notices import (
    KIND_OF_TYPE,
    MODELS,
    NOTICE_TYPES,
    SCHEMA_VERSIONS,
    InapplicableAmendment,
    InvalidNotice,
    UnknownNoticeType,
    UnknownSchemaVersion,
    amended,
    apply_amendment,
    json_schemas,
    merge_patch,
    parse_main,
    validate_main,
)
from app.domain.notices.json_schema import render
from tests import examples
from tests.examples import (
    BUILDERS,
    CONCERN,
    LEAF_HASH,
    NOTICE_ID,
    REF,
    denied_end_user,
    item,
    party,
    technology_threat,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def faults(main: dict[str, Any]) -> dict[str, str]:
    """Pointer -> detail of everything that is wrong with a main part."""
    with pytest.raises(InvalidNotice) as refused:
        validate_main(main)
    return dict(refused.value.errors)


# ── every type ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_is_an_example_a_model_and_a_kind_for_every_type() -> None:
    assert set(BUILDERS) == set(NOTICE_TYPES) == set(KIND_OF_TYPE)
    assert {(t, int(v.split(".")[0])) for t, versions in SCHEMA_VERSIONS.items() for v in versions} == set(
        MODELS
    )
    assert {t: k for t, k in KIND_OF_TYPE.items() if k != "issue"} == {
        "amendment": "amend",
        "withdrawal": "withdraw",
        "acknowledgement": "ack",
    }


_IN_MANY_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from app.domain.notices import parse_main
from tests.examples import BUILDERS
from app.domain.json import canonical
mains = [canonical(make()) for make in BUILDERS.values()] * 8
with ThreadPoolExecutor(8) as pool:
    types = [notice.type for notice in pool.map(parse_main, sorted(mains))]
sys.exit(len(types) != len(mains))
"""


def test_the_first_notices_of_each_type_may_come_all_at_once() -> None:
    """A model is built at the first notice of its type, in whichever thread that is: so in a process of its own."""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", _IN_MANY_THREADS], cwd=root, check=True, timeout=60)


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_the_example_is_read_and_answers_every_question(notice_type: str) -> None:
    main = BUILDERS[notice_type]()
    notice = parse_main(canonical(main))
    assert notice.type == notice_type
    assert notice.document == main
    assert notice.kind == KIND_OF_TYPE[notice_type]
    assert (notice.issuer, notice.title, notice.summary) == (main["issuer"], main["title"], main["summary"])
    assert notice.schema_version == "1.0.0"
    assert len(notice.names()) == len(notice.parties())
    assert all(len(code) == 2 for code in notice.countries())
    assert notice.search_text() == notice.search_text().casefold()


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_a_member_nobody_knows_is_refused_in_envelope_and_body(notice_type: str) -> None:
    assert "/colour" in faults(BUILDERS[notice_type](colour="red"))
    assert "/body/colour" in faults(BUILDERS[notice_type](body={"colour": "red"}))


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_every_required_member_of_a_body_is_asked_for(notice_type: str) -> None:
    required = json_schemas()[f"{notice_type}-1.0.0"]
    body = required["$defs"][required["properties"]["body"]["$ref"].rsplit("/", 1)[1]]
    for name in body["required"]:
        assert faults(BUILDERS[notice_type](body={name: ...}))[f"/body/{name}"] == "required"


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_members_named_for_search_and_places_exist(notice_type: str) -> None:
    body = MODELS[notice_type, 1].model_fields["body"].annotation
    assert body is not None
    assert {*body.searched, *body.places} <= set(body.model_fields)


@pytest.mark.parametrize(
    "name",
    ["issuer", "tlp", "audience", "language", "title", "summary", "contact", "body"],
)
def test_the_envelope_is_asked_for(name: str) -> None:
    assert faults(
        denied_end_user(**{name: ...} if name != "body" else {}) | ({"body": None} if name == "body" else {})
    )


def test_the_envelopes_required_members_are_those_of_the_design() -> None:
    assert set(json_schemas()["denied_end_user-1.0.0"]["required"]) == {
        "schema_version", "type", "issuer", "tlp", "audience", "language", "title", "summary", "contact", "body",
    }  # fmt: skip


# ── the types that travel first ───────────────────────────────────────────────────────────────────────────────────


def test_a_denial_tells_projections_what_they_need() -> None:
    notice = validate_main(denied_end_user(caveats=["ORCON"], tlp="TLP:RED", audience=["NL", "JP"]))
    assert notice.handling.tlp is Tlp.RED
    assert notice.handling.audience == {"NL", "JP"}
    assert notice.handling.caveats == ("ORCON",)
    assert notice.names() == (
        ("Aurelian Sky Systems LLC", "Aurelian Sky", "AS Systems", "Аурелиан Скай"),
        ("Blue Heron Trading FZE",),
    )
    assert notice.countries() == ("ZM", "AE")
    assert [code.canonical for code in notice.codes()] == ["5A001.j", "851762"]
    assert notice.codes()[0].edition == "2025/2003"
    assert notice.concerns() == ("HR-SURV-TARGET",)
    assert notice.denied_on == date(2026, 9, 14)
    assert "lawful interception at one operator" in notice.search_text()
    assert "ee 2026 0117" in notice.search_text()
    assert notice.refs == ()


def test_a_review_date_is_derived_and_not_written() -> None:
    notice = validate_main(denied_end_user())
    assert notice.review_due is None
    assert notice.effective_review_due == date(2029, 9, 14)
    assert "review_due" not in notice.document
    leap = validate_main(denied_end_user(body={"denied_on": "2024-02-29"}))
    assert leap.effective_review_due == date(2027, 2, 28)
    said = validate_main(
        denied_end_user(review_due="2027-01-01", effective_from="2026-01-01", valid_until="2030-01-01")
    )
    assert said.effective_review_due == said.review_due == date(2027, 1, 1)
    assert (said.effective_from, said.valid_until) == (date(2026, 1, 1), date(2030, 1, 1))
    assert validate_main(technology_threat()).effective_review_due is None


def test_a_threat_finds_parties_and_codes_wherever_they_stand() -> None:
    notice = validate_main(technology_threat())
    assert [p.role for p in notice.parties()] == ["supplier", "user"]
    assert [code.canonical for code in notice.codes()] == ["4D004"]
    assert notice.countries() == ("ZM", "XK")
    assert "zero click implant" in notice.search_text()


@pytest.mark.parametrize("builder", [examples.acknowledgement, examples.amendment, examples.withdrawal])
def test_what_is_said_about_another_notice_names_its_version(builder: Callable[..., dict[str, Any]]) -> None:
    other = "01937f3a-5c00-7abc-8def-000000000000", "B" * 42 + "A"
    assert [(ref.id, ref.hash) for ref in validate_main(builder(*other)).refs] == [other]


# ── rules, one failing case each ──────────────────────────────────────────────────────────────────────────────────

RULES: list[tuple[str, dict[str, Any]]] = [
    ("/body/concerns", denied_end_user(body={"concerns": []})),
    ("/body/concerns/0", denied_end_user(body={"concerns": [{"code": "HR-OTHER"}]})),
    ("/body/concerns/0/code", denied_end_user(body={"concerns": [{"code": "HR-MOOD"}]})),
    ("/body/parties", denied_end_user(body={"parties": [party(role="agent")]})),
    ("/body/parties", denied_end_user(body={"parties": []})),
    ("/body/items", denied_end_user(body={"items": []})),
    ("/body/items/0/codes/0", denied_end_user(body={"items": [item("5F001")]})),
    ("/body/items/0/codes/0/system", denied_end_user(body={"items": [item(system="CCL")]})),
    ("/body/items/0/hs/0", denied_end_user(body={"items": [item() | {"hs": ["85"]}]})),
    ("/body/items/0/value/amount", denied_end_user(body={"items": [item() | {"value": {"amount": 1.5, "currency": "EUR"}}]})),
    ("/body/items/0/value/amount", denied_end_user(body={"items": [item() | {"value": {"amount": "-1", "currency": "EUR"}}]})),
    ("/body/items/0/quantity/value", denied_end_user(body={"items": [item() | {"quantity": {"value": "1e9", "unit": "kg"}}]})),
    ("/body/destination", denied_end_user(body={"destination": ...})),
    ("/body/destination", denied_end_user(body={"destination": "ZZ"})),
    ("/body/destination", denied_end_user(body={"destination": "zm"})),
    ("/body/denied_on", denied_end_user(body={"denied_on": ...})),
    ("/body/denied_on", denied_end_user(body={"denied_on": "0097-06-30"})),
    ("/body/denied_on", denied_end_user(body={"denied_on": "2026-02-30"})),
    ("/body/denied_on", denied_end_user(body={"denied_on": "20260914"})),
    ("/body/denied_on", denied_end_user(body={"denied_on": 1_790_000_000})),
    ("/body/licence_count", denied_end_user(body={"licence_count": 0})),
    ("/body/licence_count", denied_end_user(body={"licence_count": "1"})),
    ("/body/licence_count", denied_end_user(body={"licence_count": 1.0})),
    ("/body/licence_count", denied_end_user(body={"licence_count": True})),
    ("/body/catch_all", denied_end_user(body={"catch_all": 1})),
    ("/body/catch_all", denied_end_user(body={"catch_all": "true"})),
    ("/body/reasons", denied_end_user(body={"reasons": []})),
    ("/body/reasons/1", denied_end_user(body={"reasons": ["OTHER", "BECAUSE"]})),
    ("/body/legal_basis", denied_end_user(body={"legal_basis": []})),
    ("/body/legal_basis", denied_end_user(body={"legal_basis": "article 5"})),
    ("/body/stated_end_use", denied_end_user(body={"stated_end_use": None})),
    ("/body/stated_end_use", denied_end_user(body={"stated_end_use": "x" * 50_001})),
    ("/body/public_listing/url", denied_end_user(body={"public_listing": {"list": "EL", "url": "javascript:alert(1)"}})),
    ("/body/uncontrolled", technology_threat(body={"uncontrolled": True})),
    ("/body/uncontrolled", technology_threat(body={"uncontrolled": False})),
    ("/body/concerns", technology_threat(body={"concerns": []})),
    ("/body/technology/class", technology_threat(body={"technology": examples.technology() | {"class": "magic"}})),
    ("/body/sources/0", technology_threat(body={"sources": [{"date": "2026-01-01"}]})),
    ("/body/concerns", examples.technology_proposal(body={"concerns": []})),
    ("/body/denials", examples.consultation_request(body={"denials": []})),
    ("/body/consulted", examples.consultation_request(issuer="NL")),
    ("/body/consulted/0", examples.consultation_request(audience=["JP"])),
    ("/body/extension_to", examples.consultation_response(body={"answer": "needs_extension"})),
    ("/body/extension_to", examples.consultation_response(body={"extension_to": "2026-12-01"})),
    ("/body/explanation", examples.consultation_outcome(body={"explanation": ...})),
    ("/body/undercut", examples.consultation_outcome(body={"decision": "denied"})),
    ("/body/to", examples.question(body={"to": "RU"})),
    ("/body/referred_to", examples.answer(body={"status": "referred"})),
    ("/body/breach", examples.assurance(body={"breach": ...})),
    ("/body/breach", examples.assurance(body={"status": "in_force"})),
    ("/body/document", examples.assurance(attachments=[])),
    ("/body/undertakings", examples.assurance(body={"undertakings": []})),
    ("/body/change", examples.amendment(body={"change": {}})),
    ("/body/change", examples.amendment(body={"change": {"replacement": denied_end_user(), "merge_patch": {}}})),
    ("/body/renewal_number", examples.amendment(body={"renewal_number": 1})),
    ("/body/explanation", examples.amendment(body={"reason": "renewal", "renewal_number": 3})),
    ("/body/change/replacement/body/concerns", examples.amendment(replacement=denied_end_user(body={"concerns": []}))),
    ("/body/change/replacement/issuer", examples.amendment(replacement=denied_end_user(issuer="NL"))),
    ("/body/change/replacement/type", examples.amendment(replacement=examples.amendment())),
    ("/body/change/replacement", examples.amendment(replacement=denied_end_user(caveats=["ORCON"]))),
    ("/body/change/replacement", examples.amendment(replacement=denied_end_user(tlp="TLP:CLEAR"))),
    ("/body/change/merge_patch/title", examples.amendment(merge_patch={"title": "a\u202eb"})),
    ("/body/parties", examples.undercut(body={"parties": [party(role="agent")]})),
    ("/body/state", examples.contact_entry(issuer="NL")),
    ("/body/to", examples.central_contact_term(body={"to": "2025-12-31"})),
    ("/body/left", examples.membership(body={"left": "2023-03-29"})),
    ("/valid_until", denied_end_user(effective_from="2026-02-01", valid_until="2026-01-31")),
    ("/tlp", denied_end_user(tlp="RED", audience=["NL"])),
    ("/audience", denied_end_user(tlp="TLP:RED")),
    ("/audience", denied_end_user(tlp="TLP:AMBER+STRICT")),
    ("/audience", denied_end_user(tlp="TLP:CLEAR", audience=["NL"])),
    ("/audience", denied_end_user(audience=[])),
    ("/audience", denied_end_user(audience=["RU"])),
    ("/audience", denied_end_user(audience="EE")),
    ("/audience", denied_end_user(audience={"EE": True})),
    ("/audience", denied_end_user(audience=[1])),
    ("/caveats", denied_end_user(caveats=["SECRET"])),
    ("/issuer", denied_end_user(issuer="RU")),
    ("/language", denied_end_user(language="English, mostly")),
    ("/title", denied_end_user(title=" padded")),
    ("/title", denied_end_user(title="two\nlines")),
    ("/title", denied_end_user(title="x" * 501)),
    ("/title", denied_end_user(title="")),
    ("/title", denied_end_user(title="a\u2066b")),
    ("/summary", denied_end_user(summary="\n \n")),
    ("/summary", denied_end_user(summary="a\x07b")),
    ("/body/parties/0/ftm/properties/name/0", denied_end_user(body={"parties": [party("Aure\u200blian")]})),
    ("/body/parties/0/ftm/properties/name/0", denied_end_user(body={"parties": [party("Aure\u202elian")]})),
    ("/contact/email", denied_end_user(contact={"role": "r", "office": "o", "email": "nobody"})),
    ("/national_reference", denied_end_user(national_reference="x" * 65)),
    ("/national_reference", denied_end_user(national_reference=None)),
    ("/references/0/hash", denied_end_user(references=[{"rel": "related", "id": NOTICE_ID, "hash": "A" * 42 + "B"}])),
    ("/references/0/id", denied_end_user(references=[{"rel": "related", "id": NOTICE_ID.upper(), "hash": LEAF_HASH}])),
    ("/references/0/rel", denied_end_user(references=[REF | {"rel": "likes"}])),
    ("/collaboration/0", denied_end_user(collaboration=["NATO"])),
    ("/attachments/0/part", examples.assurance(attachments=[{"part": "main", "name": "a", "media_type": "a/b", "size": 1}])),
    ("/attachments/0/name", examples.assurance(attachments=[{"part": "x", "name": "../a", "media_type": "a/b", "size": 1}])),
    ("/attachments/1/part", examples.assurance(attachments=[{"part": "statement", "name": "a", "media_type": "a/b", "size": 1}] * 2)),
]  # fmt: skip


@pytest.mark.parametrize(("pointer", "main"), RULES, ids=[f"{i}-{p}" for i, (p, _) in enumerate(RULES)])
def test_a_broken_rule_is_refused_and_pointed_at(pointer: str, main: dict[str, Any]) -> None:
    found = faults(main)
    assert pointer in found
    assert len(found) == 1, "only the rule under test refuses"


def test_a_listing_needs_neither_date_nor_destination_and_a_scope_needs_no_items() -> None:
    listing = {"list": "Entity List", "citation": "86 FR 60759", "url": "https://register.example/86-60759"}
    body = {
        "denied_on": ...,
        "destination": ...,
        "public_listing": listing,
        "items": ...,
        "items_scope": "all",
    }
    notice = validate_main(denied_end_user(body=body))
    assert notice.denied_on is None
    assert notice.effective_review_due is None
    assert notice.countries() == ("ZM", "AE")
    assert "86 fr 60759" in notice.search_text()


def test_every_error_is_reported_at_once_and_no_more_than_fifty() -> None:
    assert set(faults(denied_end_user(body={"concerns": [], "items": []}, audience=[]))) == {
        "/audience",
        "/body/items",
        "/body/concerns",
    }
    with pytest.raises(InvalidNotice) as refused:
        validate_main(denied_end_user(body={"reasons": ["X"] * 90}))
    assert len(refused.value.errors) == 50


def test_a_pointer_escapes_what_rfc_6901_escapes() -> None:
    assert "/a~1b~0c" in faults(denied_end_user(**{"a/b~c": 1}))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "x",
        1,
        {},
        {"type": 1},
        {"type": "denied_end_user"},
        {"type": "denied_end_user", "schema_version": 1},
    ],
)
def test_what_is_no_notice_at_all_is_refused(document: Any) -> None:
    with pytest.raises(InvalidNotice):
        validate_main(document)


@pytest.mark.parametrize(
    "version", ["1", "1.0", "1.0.0.0", "v1.0.0", "1.0.x", "١.٠.٠", "1.0.-1", "", "9" * 5000 + ".0.0"]
)
def test_a_version_that_is_no_semantic_version_is_invalid(version: str) -> None:
    assert "/schema_version" in faults(denied_end_user(schema_version=version))


def test_an_unknown_type_and_an_unknown_version_are_told_apart() -> None:
    with pytest.raises(UnknownNoticeType, match="sanction"):
        validate_main(denied_end_user() | {"type": "sanction"})
    for version in ("2.0.0", "0.9.0", "1.1.0"):
        with pytest.raises(UnknownSchemaVersion, match="upgrade"):
            validate_main(denied_end_user(schema_version=version))
    validate_main(denied_end_user(schema_version="1.0.7"))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"type":"x","type":"y"}', b'{"a":NaN}', b"\xff", b"\xef\xbb\xbf{}"]
)
def test_bytes_that_are_not_strict_json_are_refused_before_any_schema(raw: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_main(raw)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_white_space_and_escapes_do_not_change_what_is_read(indent: int | None, ascii_only: bool) -> None:
    main = denied_end_user(summary="first line\nsecond “line”")
    raw = json.dumps(main, indent=indent, ensure_ascii=ascii_only).encode()
    assert parse_main(raw).document == main


@pytest.mark.parametrize("character", ["\u202e", "\x07", "\u200b"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_cannot_be_seen_is_refused_escaped_or_not(character: str, ascii_only: bool) -> None:
    raw = json.dumps(denied_end_user(title=f"a{character}b"), ensure_ascii=ascii_only).encode()
    with pytest.raises(InvalidNotice, match="/title"):
        parse_main(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(NOTICE_TYPES), st.data())
def test_any_value_in_any_place_is_read_or_refused_and_nothing_else(
    notice_type: str, data: st.DataObject
) -> None:
    main = BUILDERS[notice_type]()
    here: Any = main if data.draw(st.booleans()) else main["body"]
    here[data.draw(st.sampled_from(sorted(here)))] = data.draw(_JSON)
    with contextlib.suppress(InvalidNotice, UnknownNoticeType, UnknownSchemaVersion):
        validate_main(main)


# ── amendments ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_merge_patch_makes_the_next_version() -> None:
    before = denied_end_user()
    patch = {"title": "Denied: Aurelian Sky", "national_reference": None, "body": {"status": "under_appeal"}}
    after = apply_amendment(before, examples.amendment(merge_patch=patch))
    expected = denied_end_user(
        title="Denied: Aurelian Sky", national_reference=..., body={"status": "under_appeal"}
    )
    assert after == expected
    assert before == denied_end_user(), "the previous version is not touched"


def test_a_replacement_makes_the_next_version_without_the_previous() -> None:
    new = denied_end_user(title="Replaced")
    assert apply_amendment(None, examples.amendment(replacement=new)) == new
    assert apply_amendment(denied_end_user(), examples.amendment(replacement=new)) == new


def test_the_new_version_is_handled_as_the_amendment_is() -> None:
    narrowed = examples.amendment(tlp="TLP:RED", audience=["NL"], caveats=["ORCON"])
    notice = amended(denied_end_user(), validate_main(narrowed))
    assert notice.handling == validate_main(narrowed).handling
    assert notice.document["audience"] == ["NL"]
    same = examples.amendment(merge_patch={"tlp": "TLP:GREEN", "title": "x"})
    assert apply_amendment(denied_end_user(), same)["tlp"] == "TLP:GREEN"


def test_caveats_do_not_survive_an_amendment_that_has_none() -> None:
    assert apply_amendment(
        denied_end_user(caveats=["ORCON"]), examples.amendment(caveats=...)
    ) == denied_end_user(caveats=..., title="Amended title")


@pytest.mark.parametrize(
    ("previous", "amendment", "says"),
    [
        (None, examples.amendment(), "not at hand"),
        (denied_end_user(), examples.amendment(merge_patch={"tlp": "TLP:CLEAR"}), "sets tlp"),
        (denied_end_user(), examples.amendment(merge_patch={"caveats": None}), "sets caveats"),
        (denied_end_user(), examples.amendment(merge_patch={"type": "undercut"}), "keeps type and issuer"),
        (denied_end_user(), examples.amendment(merge_patch={"issuer": "NL"}), "keeps type and issuer"),
        (denied_end_user(issuer="NL"), examples.amendment(), "keeps type and issuer"),
        (technology_threat(), examples.amendment(replacement=denied_end_user()), "keeps type and issuer"),
        (examples.withdrawal(), examples.amendment(), "cannot be amended"),
        (denied_end_user(), examples.withdrawal(), "amends nothing"),
    ],
)
def test_an_amendment_that_cannot_be_applied_says_why(
    previous: dict[str, Any] | None, amendment: dict[str, Any], says: str
) -> None:
    with pytest.raises(InapplicableAmendment, match=says):
        apply_amendment(previous, amendment)


def test_the_result_of_an_amendment_has_to_be_a_valid_notice() -> None:
    patches: list[dict[str, Any]] = [{"body": {"concerns": []}}, {"summary": None}, {"body": None}]
    for patch in patches:
        with pytest.raises(InvalidNotice):
            apply_amendment(denied_end_user(), examples.amendment(merge_patch=patch))
    with pytest.raises(UnknownSchemaVersion):
        apply_amendment(denied_end_user(), examples.amendment(merge_patch={"schema_version": "2.0.0"}))


def test_a_renewal_says_when_the_next_review_is_due() -> None:
    renewal = {"reason": "renewal", "renewal_number": 1}
    with pytest.raises(InvalidNotice, match="/review_due"):
        apply_amendment(denied_end_user(), examples.amendment(body=renewal))
    after = amended(
        denied_end_user(),
        validate_main(examples.amendment(body=renewal, merge_patch={"review_due": "2032-09-14"})),
    )
    assert after.effective_review_due == date(2032, 9, 14)


# RFC 7396, appendix A
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_gives_the_results_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    untouched = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == untouched


# ── published schemas ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_published_schemas_are_those_of_the_models() -> None:
    published = {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")}
    assert published == render(), "run `python -m app.domain.notices docs/schemas`"


@pytest.mark.parametrize("notice_type", NOTICE_TYPES)
def test_another_validator_accepts_the_example_by_the_published_schema(notice_type: str) -> None:
    schema = json_schemas()[f"{notice_type}-1.0.0"]
    assert schema["$id"] == f"https://verbale.example/schemas/{notice_type}/1.0.0"
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(BUILDERS[notice_type]())
    assert not validator.is_valid(BUILDERS[notice_type](colour="red"))
    assert not validator.is_valid(BUILDERS[notice_type](national_reference=None))


@pytest.mark.parametrize(
    "main",
    [
        denied_end_user(audience=[]),
        denied_end_user(body={"destination": "ZZ"}),
        denied_end_user(body={"concerns": [CONCERN | {"code": "HR-MOOD"}]}),
        denied_end_user(body={"parties": [party(wikidataId=["Q1"])]}),
        denied_end_user(caveats=["SECRET"]),
        denied_end_user(type="undercut"),
        denied_end_user(schema_version="1.1.0"),
    ],
)
def test_another_validator_refuses_what_the_vocabularies_do_not_have(main: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(json_schemas()["denied_end_user-1.0.0"]).is_valid(main)
