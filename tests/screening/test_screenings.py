"""`/v1/screenings` over HTTP: parties, applications, batches, what is kept, and bad input."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.handling import Tlp
from app.domain.notices import validate_main
from app.models import ApiTokenRow, ScreeningRow
from app.schemas.screenings import EXAMPLE_ANSWER, EXAMPLE_APPLICATION
from app.screening.application import read_application
from tests import examples
from tests.db.test_rebuild import amendment, withdrawal
from tests.federation import world as worlds
from tests.federation.world import DAY, Peer, World
from tests.screening.asking import ACME, application, batch, denial, screen, token


@pytest.fixture
def ee(world: World) -> Peer:
    return world.make("EE")


@pytest.fixture
def us(world: World) -> Peer:
    return world.make("US")


def answered(peer: Peer, document: Any, headers: dict[str, str] | None = None, **params: Any) -> Any:
    response = screen(peer, document, headers or token(peer), **params)
    assert response.status_code == 200, response.text
    return response.json()


# ── parties ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_party_is_answered_with_the_notice_and_the_reasons(ee: Peer) -> None:
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    answer = answered(ee, {"party": "BOREALIS SIGNAL"})
    (party,) = answer["parties"]
    (hit,) = party["hits"]
    assert hit["notice"]["id"] == issued.id
    assert (hit["notice"]["issuer"], hit["notice"]["status"], hit["notice"]["denied_on"]) == (
        "EE",
        "active",
        "2026-09-14",
    )
    assert hit["party"]["properties"]["name"] == ["Borealis Signals Ltd"]
    assert hit["party"]["role"] == "end_user"
    assert hit["score"] >= party["threshold"]
    assert hit["explanation"]["sentences"]
    assert "no_hit" not in party
    assert "undercut" not in answer


def test_no_hit_has_a_reason(ee: Peer) -> None:
    (party,) = answered(ee, {"party": "Borealis Signals"})["parties"]
    assert party["no_hit"]["reason"] == "nothing-similar"
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    (party,) = answered(ee, {"party": "Borealis Freight Holding"}, threshold=0.99)["parties"]
    assert party["hits"] == []
    assert party["no_hit"]["reason"] == "below-threshold"
    assert 0 < party["no_hit"]["nearest"] < 0.99


def test_many_parties_are_answered_in_order_and_one_that_is_not_understood_says_so(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    answer = answered(ee, {"parties": ["Zeta Works", ACME | {"id": "b"}, "Co Ltd", {"schema": "Alien"}]})
    assert [(p["status"], len(p.get("hits", ()))) for p in answer["parties"]] == [
        (200, 0),
        (200, 1),
        (422, 0),
        (422, 0),
    ]
    assert answer["parties"][1]["id"] == "b"
    assert answer["parties"][2]["problem"]["code"] == "nothing-to-compare"
    assert answer["complete"] is False


def test_many_parties_at_once_have_a_limit(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    names = [f"Company Number{n} Trading" for n in range(60)] + ["Borealis Signals"]
    answer = answered(ee, {"parties": names}, headers)
    assert len(answer["parties"]) == 61
    assert len(answer["parties"][-1]["hits"]) == 1
    refusal = screen(ee, {"parties": ["Borealis Signals"] * 1001}, headers)
    assert refusal.status_code == 422
    assert "/v1/screenings/batch" in refusal.json()["detail"]


def test_a_name_in_look_alike_letters_is_found(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    for name in ("Вorealis Signals", "Bo\u200brealis\u202e Signals", "ＢＯＲＥＡＬＩＳ ＳＩＧＮＡＬＳ"):
        (party,) = answered(ee, {"party": name})["parties"]
        assert len(party["hits"]) == 1, name


# ── applications ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_application_like_a_denied_one_names_whom_to_ask_by_when_with_a_draft_to_sign(
    ee: Peer, us: Peer
) -> None:
    denied = us.must_post(us.officer.sign(denial("Borealis Signals Ltd", issuer="US")))
    ee.sync(us)
    answer = answered(ee, application(reference="2026/17"))
    (finding,) = answer["undercut"]["findings"]
    assert (finding["verdict"], finding["notice"]["issuer"]) == ("essentially_identical", "US")
    assert (finding["valid_now"], finding["within_look_back"]) == (True, True)
    assert finding["items"][0]["codes"][0]["shared"] == "5A001.j"
    (consult,) = answer["consult"]
    assert consult["state"] == "US"
    assert consult["denials"] == [{"id": denied.id, "hash": denied.ref}]
    assert consult["deadline"]["due"] == "2026-10-05"  # ten working days after 21 September
    draft = consult["draft"]
    assert [fault["pointer"] for fault in draft["faults"]] == ["/contact"]  # this roster names no office
    main = draft["main"] | {"contact": examples.envelope("question", {})["contact"]}
    notice = validate_main(main)
    assert (notice.type, notice.issuer) == ("consultation_request", "EE")
    assert main["body"]["due_by"] == "2026-10-05"
    assert ee.post(ee.officer.sign(main)).status_code == 201


def test_an_own_denial_is_found_and_nobody_has_to_be_asked(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    answer = answered(ee, application())
    assert [f["verdict"] for f in answer["undercut"]["findings"]] == ["essentially_identical"]
    assert answer["consult"] == []


def test_a_denial_that_ended_is_compared_within_three_years_and_is_no_hit_any_more(
    ee: Peer, us: Peer
) -> None:
    ended = denial("Borealis Signals Ltd", issuer="US", valid_until="2026-09-20")
    old = denial(
        "Borealis Signals Ltd", issuer="US", valid_until="2026-09-20", body={"denied_on": "2023-09-20"}
    )
    kept = denial("Borealis Signals Ltd", issuer="US", body={"denied_on": "2020-01-01"})
    for main in (ended, old, kept):
        us.must_post(us.officer.sign(main))
    gone = us.must_post(us.officer.sign(denial("Borealis Signals Ltd", issuer="US")))
    us.must_post(us.officer.sign(withdrawal(gone) | {"issuer": "US"}, "withdraw", ref=gone.hash))
    ee.sync(us)
    answer = answered(ee, application())
    found = {
        f["notice"]["denied_on"]: (f["valid_now"], f["within_look_back"])
        for f in answer["undercut"]["findings"]
    }
    assert found == {"2026-09-14": (False, True), "2020-01-01": (True, False)}
    assert [hit["notice"]["denied_on"] for hit in answer["parties"][0]["hits"]] == ["2020-01-01"]


def test_depth_and_tolerance_are_the_callers(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd", code="5A001.f")))
    headers = token(ee)

    def verdicts(**params: Any) -> list[str]:
        return [f["verdict"] for f in answered(ee, application(), headers, **params)["undercut"]["findings"]]

    assert verdicts() == ["essentially_identical"]
    assert verdicts(depth="paragraph") == ["possibly_identical"]  # the tariff number still meets
    for params in ({"depth": "deep"}, {"tolerance": 2}, {"limit": 0}, {"limit": 101}, {"threshold": 1.5}):
        assert screen(ee, application(), headers, **params).status_code in (400, 422)


def test_one_site_under_another_name_is_seen(ee: Peer, us: Peer) -> None:
    party = examples.party("Quiet Harbour Trading", address=["12 Copper Road, Lusaka"])
    us.must_post(us.officer.sign(examples.denied_end_user(issuer="US", body={"parties": [party]})))
    ee.sync(us)
    stranger = {"name": "Zebra Instruments", "properties": {"address": "Copper Rd. 12, 10101 Lusaka"}}
    answer = answered(ee, application(parties={"end_user": stranger}))
    assert answer["parties"][0]["hits"] == []
    (finding,) = answer["undercut"]["findings"]
    assert finding["verdict"] == "same_site_other_name"
    assert finding["parties"][0]["rests_on"] == "address"
    assert answer["consult"] == []


def test_what_was_not_compared_is_said(ee: Peer) -> None:
    answer = answered(ee, {"parties": {"agent": "Zeta Works"}, "destination": "ZM"})
    assert len(answer["undercut"]["limits"]) == 2
    assert answer["complete"] is False


# ── freshness ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_whose_log_lags_or_whose_bodies_have_not_come_is_named(ee: Peer, us: Peer) -> None:
    us.must_post(us.officer.sign(denial("Borealis Signals Ltd", issuer="US")))
    ee.sync(us)
    headers = token(ee)
    freshness = answered(ee, {"party": ACME}, headers)["freshness"]
    assert [source["state"] for source in freshness["behind"]] == [
        "NL"
    ]  # listed, and not followed by this node
    assert "not followed" in freshness["behind"][0]["why"][0]

    us.must_post(us.officer.sign(denial("Meridian Optics", issuer="US")))
    us.publish()
    ee.line.rules.append(lambda request: worlds.answer(503) if "/bodies" in str(request.url) else None)
    ee.follow(us)
    behind = {s["state"]: s for s in answered(ee, {"party": ACME}, headers)["freshness"]["behind"]}
    assert behind["US"]["lag"] == 1
    ee.judge(us)
    behind = {s["state"]: s for s in answered(ee, {"party": ACME}, headers)["freshness"]["behind"]}
    assert (behind["US"]["lag"], behind["US"]["bodies_wanted"]) == (0, 1)
    ee.world.clock.tick(3600)
    behind = {s["state"]: s for s in answered(ee, {"party": ACME}, headers)["freshness"]["behind"]}
    assert any("heard of" in why for why in behind["US"]["why"])


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────


def ndjson(*documents: Any) -> bytes:
    return b"".join(json.dumps(d).encode() + b"\n" for d in documents)


def test_a_batch_is_answered_line_by_line_and_a_wrong_line_stops_no_other(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    lines = ndjson({"id": "a", "party": ACME}, application(id="b"), {"id": "c", "party": "Co Ltd"})
    lines += b"nonsense\n\n" + b'{"party": "' + b"x" * 2**20 + b'"}\n' + ndjson({"party": "Last One"})
    answer = batch(ee, lines, token(ee))
    assert [line.get("line") for line in answer] == [1, 2, 3, 4, 5, 6, 7, None]
    assert [line.get("status") for line in answer[:-1]] == [200, 200, 422, 422, 422, 413, 200]
    assert [line["id"] for line in answer[:3]] == ["a", "b", "c"]
    assert len(answer[0]["screening"]["parties"][0]["hits"]) == 1
    assert answer[1]["screening"]["undercut"]["findings"]
    assert answer[2]["problem"]["type"].endswith("#invalid-screening")
    end = answer[-1]
    assert (end["end"], end["lines"], end["screened"], end["failed"]) == (True, 7, 3, 4)
    assert "states" in end["freshness"]


def test_a_batch_goes_on_from_a_line(ee: Peer) -> None:
    headers = token(ee)
    lines = ndjson(*({"party": f"Party Number{n}"} for n in range(1, 41)))
    whole, rest = batch(ee, lines, headers), batch(ee, lines, headers, **{"from": 31})
    assert [line["line"] for line in rest[:-1]] == list(range(31, 41))
    assert rest[:-1] == whole[30:40]
    assert batch(ee, lines, headers, **{"from": 41})[0]["screened"] == 0


def test_a_batch_that_is_cut_off_says_so_at_its_last_line(ee: Peer) -> None:
    answer = batch(ee, ndjson({"party": ACME}) + b'{"party": "Bore', token(ee))
    assert answer[1]["status"] == 422
    assert "cut off" in answer[1]["problem"]["detail"]
    assert batch(ee, ndjson({"party": ACME})[:-1], token(ee))[0]["status"] == 200


def test_a_batch_has_limits(ee: Peer) -> None:
    object.__setattr__(ee.node, "settings", replace(ee.settings, max_batch_lines=3))
    headers = token(ee)
    answer = ee.request("POST", "/v1/screenings/batch", content=b"{}\n" * 4, headers=headers)
    assert answer.status_code == 413
    assert batch(ee, b"", headers)[0]["lines"] == 0


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


def kept(peer: Peer) -> list[ScreeningRow]:
    with peer.db.read() as session:
        return list(session.scalars(select(ScreeningRow)))


def keeping(peer: Peer, record: str) -> None:
    object.__setattr__(peer.node, "settings", replace(peer.settings, screening_record=record))


def test_nothing_of_a_screening_is_kept_or_logged_unless_told(
    ee: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    with caplog.at_level("DEBUG"):
        answered(ee, application("Borealis Signals"))
        batch(ee, ndjson(application("Borealis Signals")), token(ee))
    assert kept(ee) == []
    assert "orealis" not in "".join(f"{record.__dict__}" for record in caplog.records)


@pytest.mark.parametrize("record", ["outcome", "full"])
def test_what_is_kept_is_the_tokens_and_can_be_deleted(ee: Peer, record: str) -> None:
    keeping(ee, record)
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers, other = token(ee), token(ee)
    answer = answered(ee, application(), headers)
    batch(ee, ndjson({"party": ACME}, {"party": "Co Ltd"}), headers)
    assert len(kept(ee)) == 2
    path = f"/v1/screenings/{answer['record']}"
    shown = ee.get(path, headers=headers)
    assert shown["asked"] == (application() if record == "full" else None)
    assert [(f["notice"]["id"], f["verdict"]) for f in shown["found"]] == [
        (issued.id, "essentially_identical")
    ]
    assert len(ee.get("/v1/screenings", headers=headers)["items"]) == 2
    page = ee.get("/v1/screenings", headers=headers, params={"limit": 1})
    assert len(ee.get("/v1/screenings", headers=headers, params={"cursor": page["next"]})["items"]) == 1
    assert ee.get("/v1/screenings", headers=other)["items"] == []
    for method in ("GET", "DELETE"):
        assert ee.request(method, path, headers=other).status_code == 404
    assert ee.request("DELETE", path, headers=headers).status_code == 204
    assert ee.request("GET", path, headers=headers).status_code == 404
    assert ee.request("DELETE", "/v1/screenings", headers=headers).status_code == 204
    assert kept(ee) == []


def test_a_record_holds_nothing_of_a_notice_and_is_forgotten_in_time(ee: Peer) -> None:
    keeping(ee, "outcome")
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = f"/v1/screenings/{answered(ee, {'party': ACME}, headers)['record']}"
    (row,) = kept(ee)
    assert "orealis" not in row.found
    ee.must_post(ee.officer.sign(None, "erase", ref=issued.hash))
    assert ee.get(path, headers=headers)["found"] == []
    ee.world.clock.tick(31 * DAY)
    answered(ee, {"party": "Somebody Else"}, headers)
    assert ee.request("GET", path, headers=headers).status_code == 404


def test_a_record_shows_nothing_of_a_notice_that_was_narrowed_since(ee: Peer) -> None:
    keeping(ee, "outcome")
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee, Tlp.GREEN)
    path = f"/v1/screenings/{answered(ee, {'party': ACME}, headers)['record']}"
    assert len(ee.get(path, headers=headers)["found"]) == 1
    narrower = amendment(issued, denial("Borealis Signals Ltd", tlp="TLP:RED", audience=["NL"]))
    ee.must_post(ee.officer.sign(narrower, "amend", ref=issued.hash))
    assert ee.get(path, headers=headers)["found"] == []


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_screening_needs_its_scope(ee: Peer) -> None:
    paths = ("/v1/screenings", "/v1/watchlists", "/entities/x", "/search/verbale")
    for path in paths:
        assert ee.request("GET", path).status_code == 401
        assert ee.request("GET", path, headers=token(ee, Tlp.RED, "read")).status_code == 403
    assert screen(ee, {"party": ACME}, {}).status_code == 401


def test_the_short_way_and_the_long_way_answer_the_same(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    good = token(ee)
    callers: tuple[dict[str, str], ...] = (
        good,
        {},
        {"authorization": "Basic x"},
        {"authorization": good["authorization"] + "x"},
        token(ee, Tlp.RED, "read"),
    )
    asked = (
        b'{"party": "Borealis Signals"}',
        b'{"party": "Zzyzx Qwv"}',
        json.dumps(application()).encode(),
        *RUBBISH,
    )
    for headers in callers:
        for raw in asked:
            short, long = screen(ee, raw, headers), screen(ee, raw, headers, limit=5)
            assert short.status_code == long.status_code
            assert short.headers["content-type"] == long.headers["content-type"]
            assert _without_ids(short.json()) == _without_ids(long.json())
    with ee.db.read() as session:
        (used,) = session.scalars(
            select(ApiTokenRow.last_used_at).where(ApiTokenRow.id == good["authorization"].split("_")[1])
        )
    assert used == ee.world.clock(), "a use is noted on either way"


def _without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("request_id", "instance")}


def test_a_token_is_checked_before_a_large_body_is_taken(ee: Peer) -> None:
    assert screen(ee, b"x" * (10 * 2**20), {"authorization": "Bearer nobody"}).status_code == 401


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────


RUBBISH = (
    b"", b"nonsense", b"[]", b'{"party": NaN}', b'{"party": "A", "party": "B"}', b'{"party": {"name": "Co Ltd"}}',
    b'{"party": "a"}', b'{"party": "....."}', '{"party": "😀😀"}'.encode(), b'{"party": "' + b"x" * 10_000 + b'"}',
    b'{"party": ' + b"[" * 1000 + b"]" * 1000 + b"}", b"\xff\xfe",
)  # fmt: skip


def test_what_cannot_be_screened_is_refused_with_a_problem(ee: Peer) -> None:
    headers = token(ee)
    for raw in RUBBISH:
        answer = screen(ee, raw, headers)
        assert answer.status_code == 422, raw[:40]
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_a_body_above_the_limit_is_refused(ee: Peer) -> None:
    assert screen(ee, b'{"party": "' + b"x" * (10 * 2**20) + b'"}', token(ee)).status_code == 413


def test_repeats_that_would_trouble_a_regular_expression_are_answered_in_no_time(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    began = time.process_time()
    for name in ("a " * 400 + "b", "-" * 900 + "Ab", "(((((" * 150 + "Xy", "co ltd " * 120 + "Zed Ay"):
        assert screen(ee, {"party": name}, headers).status_code in (200, 422)
    parameter = {"name": "p", "value": "1" * 900 + "-", "unit": "k" * 900}
    item = examples.item() | {"technical_parameters": [parameter]}
    assert screen(ee, application(items=[item]), headers).status_code == 200
    assert time.process_time() - began < 20  # not a measurement: a runaway takes minutes


# ── documents ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_examples_of_the_documentation_are_true(ee: Peer) -> None:
    assert read_application(EXAMPLE_APPLICATION).is_application
    real = answered(ee, EXAMPLE_APPLICATION)
    assert real.keys() == EXAMPLE_ANSWER.keys()
    assert real["parties"][0].keys() >= EXAMPLE_ANSWER["parties"][0].keys() - {"no_hit"}
    assert real["undercut"].keys() == EXAMPLE_ANSWER["undercut"].keys()
    assert real["freshness"].keys() == EXAMPLE_ANSWER["freshness"].keys()
