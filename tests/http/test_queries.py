"""Finding notices: filters, cursors, counts, one notice, its versions and receipts."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import select, update

from app.domain.encoding import b64u_encode
from app.domain.errors import InvalidFilter
from app.domain.handling import Tlp
from app.gate import ANONYMOUS
from app.models import CosignatureRow, HeadRow, NoticeRow
from app.queries.filters import PARAMETERS, NoticeFilter
from app.schemas.notices import NoticeOut, NoticesOut, ReceiptsOut, VersionsOut
from tests.http.edge_node import (
    LOGS,
    NOW_MS,
    NOW_S,
    Client,
    EdgeNode,
    notice_id,
    put,
    put_version,
    token,
)

DAY = 86_400


def ids(client: Client, query: str, **options: Any) -> list[str]:
    answer = client.get(f"/v1/notices?{query}", **options)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["total"] == len(document["items"])
    return [item["id"] for item in document["items"]]


# ── filters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_party_is_found_by_words_of_one_name_whatever_their_case_marks_or_order(
    client: Client, node: EdgeNode
) -> None:
    found = put(node, names=["Łukasiewicz & Søn A/S", "ЗАО «Восток»"])
    put(node, names=["Lukasiewicz Holding", "Son of Jaspers"])
    for query in ("lukasiewicz son", "SØN ŁUKASIEWICZ", "Lukasiewicz, Son", "зао восток"):
        assert ids(client, f"party={query}") == [found]
    assert ids(client, "party=lukasiewicz восток") == []
    assert len(ids(client, "party=lukasiewicz")) == 2
    assert len(ids(client, "party=восток&party=jaspers")) == 2


def test_a_code_finds_what_is_below_it_in_any_spelling(client: Client, node: EdgeNode) -> None:
    found = put(node, codes=["5A001.j"])
    put(node, codes=["5A002"])
    for query in ("5A001", "5A001.j", "5.A.1.j", "5a001"):
        assert ids(client, f"code={query}") == [found]
    assert len(ids(client, "code=5A")) == 2


def test_filters_narrow_each_other_and_values_of_one_widen_it(client: Client, node: EdgeNode) -> None:
    a = put(node, issuer="US", countries=["CN"], concerns=["HR-PRIVACY"], type_="denied_end_user")
    b = put(node, issuer="NL", countries=["RU"], concerns=["HR-CENSOR"], type_="technology_threat")
    assert ids(client, "country=cn") == [a]
    assert ids(client, "country=CN&issuer=NL") == []
    assert ids(client, "country=CN&country=RU") == [b, a]
    assert ids(client, "concern=HR-CENSOR&type=technology_threat&issuer=nl") == [b]
    assert ids(client, "origin=us.example/log/1") == [a]


def test_text_finds_parts_of_words_and_takes_no_wildcards(client: Client, node: EdgeNode) -> None:
    found = put(node, title="Überwachung of journalists", text="IMSI-catcher")
    put(node, title="Other")
    assert ids(client, "text=uberwach+catch") == [found]
    assert client.get("/v1/notices?text=%25").status_code == 400
    assert client.get("/v1/notices?text=_").status_code == 400


def test_the_label_is_a_filter_with_or_without_its_prefix(client: Client, node: EdgeNode) -> None:
    put(node, tlp=Tlp.CLEAR)
    strict = put(node, tlp=Tlp.AMBER_STRICT, audience="EE")
    headers = token(node)
    for query in ("TLP:AMBER%2BSTRICT", "TLP:AMBER+STRICT", "amber%2Bstrict"):
        assert ids(client, f"tlp={query}", headers=headers) == [strict]


def test_valid_now_is_the_default_and_the_rest_is_kept(client: Client, node: EdgeNode) -> None:
    active = put(node, exp=NOW_S + 1)
    until_today = put(node, valid_until="2026-09-21")
    over = put(node, exp=NOW_S)
    lapsed = put(node, valid_until="2026-09-20")
    withdrawn = put(node, status="withdrawn", withdrawn_on="2026-09-01")
    assert ids(client, "") == [until_today, active]
    assert ids(client, "status=expired") == [lapsed, over]
    assert ids(client, "status=withdrawn") == [withdrawn]
    assert ids(client, "status=expired&status=withdrawn") == [withdrawn, lapsed, over]
    assert len(ids(client, "status=all")) == 5
    assert client.get(f"/v1/notices/{withdrawn}").json()["status"] == "withdrawn"
    assert client.get(f"/v1/notices/{over}").json()["status"] == "expired"
    node.now_ms += 2000
    assert ids(client, "") == [until_today]


def test_a_look_back_shows_expired_denials_beside_valid_ones_and_never_withdrawn_ones(
    client: Client, node: EdgeNode
) -> None:
    put(node, denied_on="2023-09-20")
    edge = put(node, denied_on="2023-09-21")
    expired = put(node, denied_on="2025-01-01", valid_until="2026-01-01")
    put(node, denied_on="2025-01-01", status="withdrawn")
    put(node, type_="technology_threat")
    assert ids(client, "lookback_years=3") == [expired, edge]
    assert ids(client, "lookback_years=3&status=active") == [edge]
    assert ids(client, "denied_since=2024-01-01") == []
    assert ids(client, "denied_since=2024-01-01&status=expired") == [expired]


def test_a_passed_review_marks_a_notice_and_leaves_it_valid(client: Client, node: EdgeNode) -> None:
    overdue = put(node, review_due="2026-09-20")
    due = put(node, review_due="2026-09-21")
    assert ids(client, "review_overdue=true") == [overdue]
    assert ids(client, "review_overdue=false") == [due]
    shown = client.get(f"/v1/notices/{overdue}").json()
    assert (shown["status"], shown["review_overdue"]) == ("active", True)


def test_times_are_ranges_and_a_date_includes_its_day(client: Client, node: EdgeNode) -> None:
    midnight = NOW_S - NOW_S % DAY
    yesterday = put(node, iat=midnight - 1, received_at=midnight * 1000 - 1)
    today = put(node, iat=midnight, received_at=midnight * 1000)
    for kind in ("issued", "received"):
        assert ids(client, f"{kind}_from=2026-09-21") == [today]
        assert ids(client, f"{kind}_to=2026-09-20") == [yesterday]
        assert ids(client, f"{kind}_from=2026-09-20&{kind}_to=2026-09-21") == [today, yesterday]
        assert ids(client, f"{kind}_to=2026-09-21T00:00:00Z") == [yesterday]
        assert ids(client, f"{kind}_from=2026-09-21T02:00:00%2B02:00") == [today]


NO_FILTERS = (
    "colour=red", "type=amendment", "issuer=ZZ", "status=open", "code=5A0", "code=xyz", "country=ZZ", "party=%20", "party=...",
    "party=a+b+c+d+e+f+g+h+i+j+k", "concern=HR-NONE", "tlp=WHITE", "issued_from=yesterday", "issued_from=2026-09-21T12:00:00",
    "issued_to=9999-12-31", "denied_since=1", "lookback_years=0", "lookback_years=x", "lookback_years=3&lookback_years=4",
    "review_overdue=maybe", "limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1&limit=2", "origin=us", "cursor=", "cursor=AA",
    "type=Denied_End_User",
)  # fmt: skip


def test_what_is_no_filter_is_refused_and_the_answer_names_what_is_known(client: Client) -> None:
    for query in NO_FILTERS:
        answer = client.get(f"/v1/notices?{query}")
        code = "invalid-cursor" if query.startswith("cursor") else "invalid-filter"
        assert (query, answer.status_code, answer.json()["type"].split("#")[1]) == (query, 400, code)
    detail = client.get("/v1/notices?colour=red").json()["detail"]
    assert all(name in detail for name in PARAMETERS)


def test_a_filter_survives_its_json_form() -> None:
    wanted = NoticeFilter.parse(
        [("code", "5.A.1.j"), ("party", "Søn"), ("issuer", "us"), ("issuer", "NL"), ("tlp", "amber")]
    )
    kept = wanted.to_json()
    assert kept == {"code": ["5A001.j"], "issuer": ["NL", "US"], "party": ["son"], "tlp": ["TLP:AMBER"]}
    assert NoticeFilter.from_json(kept) == wanted
    assert NoticeFilter.from_json({"issuer": "US", "review_overdue": True}).to_json() == {
        "issuer": ["US"],
        "review_overdue": ["true"],
    }
    for nonsense in ({"colour": "red"}, ["issuer"], {"issuer": {"a": 1}}, {"limit": "1"}, None):
        with pytest.raises(InvalidFilter):
            NoticeFilter.from_json(nonsense)


def test_an_alert_about_a_withdrawal_matches_though_the_notice_is_no_longer_valid(node: EdgeNode) -> None:
    put(node, status="withdrawn")
    wanted = NoticeFilter.parse([("status", "active")])
    with node.db.read() as session:
        for any_status, count in ((False, 0), (True, 1)):
            conditions = wanted.conditions(ANONYMOUS, NOW_MS, any_status=any_status)
            assert len(session.scalars(select(NoticeRow.seq).where(*conditions)).all()) == count


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pages_hold_everything_once_and_can_be_asked_for_again(client: Client, node: EdgeNode) -> None:
    every = [put(node) for _ in range(7)]
    seen: list[str] = []
    cursor, page = "", {}
    for _ in range(3):
        query = f"/v1/notices?limit=3{cursor}"
        page, again = client.get(query).json(), client.get(query).json()
        assert page == again
        NoticesOut.model_validate(page)
        assert page["total"] == 7
        seen += [item["id"] for item in page["items"]]
        cursor = f"&cursor={page['next']}"
    assert page["next"] is None
    assert seen == every[::-1]


def test_what_arrives_meanwhile_does_not_shift_a_page(client: Client, node: EdgeNode) -> None:
    every = [put(node) for _ in range(4)]
    first = client.get("/v1/notices?limit=2").json()
    put(node)
    second = client.get(f"/v1/notices?limit=2&cursor={first['next']}").json()
    assert [item["id"] for item in first["items"] + second["items"]] == every[::-1]
    assert second["total"] == 5


def test_a_cursor_belongs_to_its_filters(client: Client, node: EdgeNode) -> None:
    for _ in range(3):
        put(node, issuer="US")
    cursor = client.get("/v1/notices?issuer=US&limit=1").json()["next"]
    assert client.get(f"/v1/notices?issuer=us&limit=2&cursor={cursor}").status_code == 200
    for query in ("issuer=NL", "", "issuer=US&type=denied_end_user"):
        answer = client.get(f"/v1/notices?{query}&cursor={cursor}")
        assert answer.json()["type"].endswith("#invalid-cursor")


def test_an_empty_answer_is_whole(client: Client) -> None:
    assert client.get("/v1/notices").json() == {"items": [], "next": None, "total": 0}


# ── one notice ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notice_is_shown_with_four_times_and_what_to_refer_to(client: Client, node: EdgeNode) -> None:
    id_ = put(node, issuer="US", iat=NOW_S - 60, received_at=NOW_MS - 1, exp=NOW_S + 60)
    shown = client.get(f"/v1/notices/{id_}").json()
    NoticeOut.model_validate(shown)
    assert shown["issued_at"] == "2026-09-21T14:12:20Z"
    assert shown["received_at"] == "2026-09-21T14:13:19.999Z"
    assert shown["expires_at"] == "2026-09-21T14:14:20Z"
    assert (shown["tlp"], shown["audience"], shown["origin"]) == ("TLP:CLEAR", "ALL", "us.example/log/1")
    assert shown["document"]["title"] == shown["title"]
    for link in ("self", "versions", "receipts"):
        assert client.get(shown["links"][link]).status_code == 200


def amend(node: EdgeNode, id_: str, idx: int, *, kind: str = "amend", tlp: Tlp = Tlp.CLEAR) -> str:
    """Add a version to a notice of the United States."""
    leaf_hash, version_id = sha256(b"amended %d" % idx).digest(), notice_id(idx)
    with node.db.write() as session:
        root = session.scalars(select(NoticeRow.idx).where(NoticeRow.id == id_)).one()
        put_version(
            session, LOGS["US"], idx, root, version_id, kind, leaf_hash, tlp=tlp, audience="ALL", body={"v": 2}, version=2
        )  # fmt: skip
        changed = {"version": 2, "current_idx": idx, "current_hash": leaf_hash, "changed_iat": NOW_S}
        session.execute(update(NoticeRow).where(NoticeRow.id == id_).values(changed))
    return version_id


def test_the_id_of_any_version_leads_to_the_notice(client: Client, node: EdgeNode) -> None:
    id_ = put(node, issuer="US")
    version_id = amend(node, id_, 900_000)
    shown = client.get(f"/v1/notices/{version_id}").json()
    assert (shown["id"], shown["version"], shown["index"]) == (id_, 2, 900_000)
    history = client.get(f"/v1/notices/{version_id}/versions").json()
    VersionsOut.model_validate(history)
    assert [(v["kind"], v["version"], v["id"]) for v in history["items"]] == [
        ("issue", 1, id_),
        ("amend", 2, version_id),
    ]
    assert history["items"][1]["leaf_hash"] == shown["leaf_hash"]
    page = client.get(f"/v1/notices/{id_}/versions?limit=1").json()
    rest = client.get(f"/v1/notices/{id_}/versions?limit=1&cursor={page['next']}").json()
    assert page["items"] + rest["items"] == history["items"]
    assert rest["next"] is None


def test_one_id_in_two_logs_asks_which_but_only_of_what_may_be_seen(client: Client, node: EdgeNode) -> None:
    id_ = put(node, issuer="US")
    put(node, issuer="NL", id_=id_, tlp=Tlp.RED, audience="EE")
    assert client.get(f"/v1/notices/{id_}").json()["origin"] == "us.example/log/1"
    headers = token(node)
    answer = client.get(f"/v1/notices/{id_}", headers=headers)
    assert answer.status_code == 409
    assert "nl.example/log/1" in answer.json()["detail"]
    for origin in ("us.example/log/1", "nl.example/log/1"):
        assert client.get(f"/v1/notices/{id_}?origin={origin}", headers=headers).json()["origin"] == origin
    assert client.get(f"/v1/notices/{id_}?origin=nl.example/log/1").status_code == 404


# ── receipts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def cosign(node: EdgeNode, state: str | None, size: int, timestamp: int) -> None:
    with node.db.write() as session:
        if session.get(HeadRow, (LOGS["US"], size)) is None:
            session.add(HeadRow(log_id=LOGS["US"], size=size, root=b"", note=b"", at=timestamp * 1000))
        witness = f"{(state or 'outside').lower()}.example/witness"
        session.add(
            CosignatureRow(
                log_id=LOGS["US"], size=size, witness=witness, state=state, timestamp=timestamp, line=b""
            )
        )


def test_receipts_say_which_state_is_proven_to_hold_which_version(client: Client, node: EdgeNode) -> None:
    id_ = put(node, issuer="US")
    root = client.get(f"/v1/notices/{id_}").json()["index"]
    amend(node, id_, 900_000)
    cosign(node, "EE", root, 1000)  # covers everything below the notice
    cosign(node, "EE", root + 1, 2000)
    cosign(node, "EE", 900_001, 3000)
    cosign(node, "NL", root + 5, 2500)
    cosign(node, None, 900_001, 1)
    answer = client.get(f"/v1/notices/{id_}/receipts").json()
    ReceiptsOut.model_validate(answer)
    assert {s["state"]: (s["role"], s["holds"]) for s in answer["states"]} == {
        "US": ("origin", "current"), "EE": ("witness", "current"), "NL": ("witness", "earlier"),
    }  # fmt: skip
    by_state = {s["state"]: s for s in answer["states"]}
    assert by_state["EE"]["issue"] == {"size": root + 1, "at": "1970-01-01T00:33:20Z"}
    assert by_state["EE"]["current"]["size"] == 900_001
    assert by_state["NL"]["current"] is None


def test_acknowledgements_are_shown_to_those_who_may_read_them(client: Client, node: EdgeNode) -> None:
    id_ = put(node, issuer="US")
    shown = client.get(f"/v1/notices/{id_}").json()
    leaf_hash = sha256(b"ack").digest()
    with node.db.write() as session:
        ref = session.scalars(select(NoticeRow.current_hash).where(NoticeRow.id == id_)).one()
        put_version(
            session, LOGS["NL"], 800_000, None, notice_id(800_000), "ack", leaf_hash,
            tlp=Tlp.AMBER, audience="US", body={"type": "acknowledgement"}, version=None, ref=ref,
        )  # fmt: skip
    assert client.get(f"/v1/notices/{id_}/receipts").json()["acknowledgements"] == []
    (ack,) = client.get(f"/v1/notices/{id_}/receipts", headers={"signature-input": "US"}).json()[
        "acknowledgements"
    ]
    assert (ack["state"], ack["ref"], ack["index"]) == ("NL", shown["leaf_hash"], 800_000)
    assert ack["ref"] == b64u_encode(bytes(ref))
