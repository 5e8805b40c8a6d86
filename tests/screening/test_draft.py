"""The drafted consultation request: what an officer reads and signs."""

from __future__ import annotations

from datetime import date
from typing import Any

from app.domain.notices import validate_main
from app.domain.roster import ContactPoint
from app.screening.draft import Denial, Draft, consultation_request
from tests import examples

CONTACT = ContactPoint("Export Control Unit", "contact@ee.example")


def drafted(**overrides: Any) -> Draft:
    values: dict[str, Any] = {
        "issuer": "EE",
        "consulted": "NL",
        "denials": [Denial(examples.REF["id"], examples.REF["hash"])],
        "parties": [examples.party()],
        "items": [examples.item()],
        "destination": "ZM",
        "stated_end_use": "Network planning",
        "due": date(2026, 12, 9),
        "contact": CONTACT,
    }
    return consultation_request(**values | overrides)


def test_a_draft_is_a_consultation_request_to_one_state_and_can_be_signed_as_it_is() -> None:
    draft = drafted(reference="2026/17", received_on=date(2026, 11, 20))
    assert not draft.faults
    notice = validate_main(draft.main)
    assert (notice.type, notice.issuer, notice.handling.wire()["audience"]) == (
        "consultation_request",
        "EE",
        ["NL"],
    )
    assert notice.handling.tlp.label == "TLP:RED"
    assert draft.main["body"]["due_by"] == "2026-12-09"
    assert draft.main["body"]["denials"] == [examples.REF]


def test_what_is_missing_is_said_and_the_rest_is_drafted() -> None:
    draft = drafted(items=[], destination=None, contact=None)
    assert {pointer for pointer, _ in draft.faults} == {"/body/items", "/body/destination", "/contact"}
    assert draft.main["body"]["consulted"] == ["NL"]
    assert draft.wire()["ready"] is False


def test_what_cannot_be_seen_is_left_out_of_a_draft() -> None:
    party = examples.party()
    party["ftm"]["properties"]["name"] = ["Zeta\u202e\u200b Ltd"]
    draft = drafted(parties=[party])
    assert not draft.faults
    assert draft.main["body"]["parties"][0]["ftm"]["properties"]["name"] == ["Zeta Ltd"]


def test_a_name_of_any_length_makes_a_title_that_fits() -> None:
    party = examples.party()
    party["ftm"]["properties"]["name"] = ["Long " * 300]
    assert not drafted(parties=[party]).faults
