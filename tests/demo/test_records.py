"""Every public record becomes a valid notice that says what was published, and nothing more."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from app.demo.scenario import SOUGHT_RECORD, choose
from app.domain.json import canonical
from app.domain.notices import Notice, parse_main
from app.interop.bis import UnknownBisRecord, main_part, records


@pytest.fixture(scope="module")
def pairs() -> list[tuple[dict[str, Any], Notice]]:
    """Each record with its notice, parsed as any node would."""
    return [(record, parse_main(canonical(main_part(record)))) for record in records()]


def test_all_2273_records_are_valid_notices(pairs: list[tuple[dict[str, Any], Notice]]) -> None:
    assert len(pairs) == 2273
    assert {notice.type for _, notice in pairs} == {"denied_end_user"}
    assert {notice.document["tlp"] for _, notice in pairs} == {"TLP:CLEAR"}


def test_each_list_is_imported_whole(pairs: list[tuple[dict[str, Any], Notice]]) -> None:
    listed = Counter(notice.document["body"]["public_listing"]["list"] for _, notice in pairs)
    assert listed == {"Entity List": 2001, "Unverified List": 201, "Military End-User List": 71}


def test_names_addresses_and_countries_stand_as_published(pairs: list[tuple[dict[str, Any], Notice]]) -> None:
    def mended(text: str) -> str:
        return " ".join(text.replace("\x92", "’").split())

    for record, notice in pairs:
        properties = notice.document["body"]["parties"][0]["ftm"]["properties"]
        assert properties["name"] == [mended(record["name"])]
        assert set(properties.get("alias", [])) == {mended(alias) for alias in record["aliases"]} - {""}
        assert set(properties.get("address", [])) == {mended(a["full"]) for a in record["addresses"]} - {""}
        assert properties.get("country", []) == record["countries"]


def test_what_was_not_published_is_left_out(pairs: list[tuple[dict[str, Any], Notice]]) -> None:
    bodies = [notice.document["body"] for _, notice in pairs]
    # 375 records have no date, and three have a year of the first century.
    assert sum("denied_on" not in body for body in bodies) == 375 + 3
    assert sum("country" not in body["parties"][0]["ftm"]["properties"] for body in bodies) == 11
    assert not any("destination" in body for body in bodies)
    assert {body["parties"][0]["ftm"]["schema"] for body in bodies} == {"LegalEntity"}


def test_no_reason_or_concern_is_made_of_a_flag_set_by_hand(
    pairs: list[tuple[dict[str, Any], Notice]],
) -> None:
    assert sum(record["human_rights_ground_candidate"] for record, _ in pairs) == 93
    for _, notice in pairs:
        assert notice.document["body"]["concerns"] == []
        assert "HUMAN_RIGHTS" not in notice.document["body"]["reasons"]
        assert "human" not in json.dumps(notice.document["body"]).lower()


def test_licence_requirement_policy_and_citations_are_quoted(
    pairs: list[tuple[dict[str, Any], Notice]],
) -> None:
    for record, notice in pairs:
        summary, citation = notice.document["summary"], notice.document["body"]["public_listing"]["citation"]
        for published in (record["license_requirement"], record["license_policy"]):
            assert published is None or " ".join(published.split()) in summary
        for published in record["fr_citations"]:
            assert " ".join(published.split()) in citation
        assert citation.endswith("US Consolidated Screening List, April 2022")
        assert "not by the United States Government" in summary


def test_three_control_characters_are_mended_and_said_to_be(
    pairs: list[tuple[dict[str, Any], Notice]],
) -> None:
    mended = [notice for record, notice in pairs if "\x92" in record["name"]]
    assert len(mended) == 3
    for notice in mended:
        properties = notice.document["body"]["parties"][0]["ftm"]["properties"]
        assert "Xi’an" in properties["name"][0]
        assert "U+0092" in properties["notes"][0]


def test_a_record_of_another_data_set_is_refused() -> None:
    record = next(records())
    with pytest.raises(UnknownBisRecord):
        main_part(record | {"list": "SDN"})
    with pytest.raises(UnknownBisRecord):
        main_part(record | {"passport": "1"})


def test_a_small_demo_still_holds_the_party_that_is_looked_for() -> None:
    assert [r["id"] for r in choose(1)] == [SOUGHT_RECORD]
    assert len(choose(40)) == 40
    assert SOUGHT_RECORD in [r["id"] for r in choose(40)]
    assert len(choose(5000)) == len(choose(None)) == 2273
