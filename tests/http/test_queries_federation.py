"""States, the health of the federation, faults, probes and metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from sqlalchemy import text, update

from app.domain.handling import Tlp
from app.domain.states import STATES
from app.models import CosignatureRow, DeliveryRow, EventRow, HeadRow, LogRow, SubscriptionRow
from app.routers.health import check_node
from tests.http.edge_node import (
    LOGS,
    NOW_MS,
    NOW_S,
    Client,
    EdgeNode,
    make_roster,
    notice_id,
    put_version,
    token,
)


def change_log(node: EdgeNode, state: str, **values: Any) -> None:
    with node.db.write() as session:
        session.execute(update(LogRow).where(LogRow.state == state).values(values))


def log_of(client: Client, state: str, **options: Any) -> dict[str, Any]:
    logs = client.get("/v1/federation", **options).json()["logs"]
    found: dict[str, Any] = next(log for log in logs if log["state"] == state)
    return found


# ── the directory ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_directory_names_all_states_and_the_central_contact(client: Client, node: EdgeNode) -> None:
    directory = client.get("/v1/states").json()
    assert [s["state"] for s in directory["items"]] == sorted(STATES)
    assert len(directory["items"]) == 25
    assert directory["central_contact"] == "NL"
    assert [s["state"] for s in directory["items"] if s["central_contact"]] == ["NL"]
    by_code = {s["state"]: s for s in directory["items"]}
    assert by_code["JP"]["membership"] == "not-listed"
    assert by_code["US"]["contact_point"]["email"] == "contact@us.example"
    node.now_ms += 366 * 86_400_000
    assert client.get("/v1/states").json()["central_contact"] is None


def test_one_state_is_shown_with_its_logs_and_terms(client: Client) -> None:
    shown = client.get("/v1/states/nl").json()
    assert shown["logs"][0]["origin"] == "nl.example/log/1"
    assert shown["central_contact_terms"] == [
        {"start": "2026-01-01", "end": "2027-01-01", "confirmed_by": []}
    ]
    assert client.get("/v1/states/JP").json()["keys"] == []
    assert client.get("/v1/states/QQ").status_code == 404


# ── health of the federation ──────────────────────────────────────────────────────────────────────────────────────


def test_a_log_that_is_behind_says_how_far_and_since_when(client: Client, node: EdgeNode) -> None:
    change_log(
        node,
        "US",
        head_size=100,
        claimed_size=130,
        head_at=NOW_MS - 42_000,
        contact_at=NOW_MS - 2_000,
        skew_ms=-90_000,
    )
    change_log(node, "NL", head_size=100, claimed_size=100, head_at=NOW_MS - 42_000)
    behind, level = log_of(client, "US"), log_of(client, "NL")
    assert behind["lag"] == {"leaves": 30, "seconds": 42.0}
    assert (behind["in_step"], behind["silent_seconds"], behind["skew_ms"]) == (False, 2.0, -90_000)
    assert level["lag"] == {"leaves": 0, "seconds": 0.0}
    assert level["in_step"]
    warnings = client.get("/v1/federation").json()["roster"]["warnings"]
    assert [w["code"] for w in warnings] == ["clock-skew"]


def test_leaves_that_are_not_judged_yet_are_not_in_step(client: Client, node: EdgeNode) -> None:
    change_log(node, "US", judged=99)
    assert not log_of(client, "US")["in_step"]


def test_an_error_is_shown_with_its_detail_only_to_callers_of_a_state(client: Client, node: EdgeNode) -> None:
    change_log(
        node, "US", error_code="peer-unreachable", error_detail="connect to 10.0.0.7 failed", error_at=NOW_MS
    )
    assert log_of(client, "US")["error"] == {"code": "peer-unreachable", "since": "2026-09-21T14:13:20Z"}
    assert "10.0.0.7" in log_of(client, "US", headers=token(node))["error"]["detail"]
    assert log_of(client, "NL")["error"] is None


def test_the_own_log_shows_who_cosigned_it_and_up_to_where(client: Client, node: EdgeNode) -> None:
    change_log(node, "EE", head_size=100)
    with node.db.write() as session:
        for size in (90, 100):
            session.add(HeadRow(log_id=LOGS["EE"], size=size, root=b"", note=b"", at=0))
        session.flush()
        for state, size, at in (("NL", 90, 10), ("NL", 100, 20), ("US", 90, 30)):
            witness = f"{state}/witness"
            session.add(
                CosignatureRow(
                    log_id=LOGS["EE"], size=size, witness=witness, state=state, timestamp=at, line=b""
                )
            )
    own = log_of(client, "EE")
    assert own["own"]
    assert [(r["state"], r["size"], r["complete"]) for r in own["receipts"]] == [
        ("NL", 100, True),
        ("US", 90, False),
    ]
    assert own["receipts"][0]["at"] == "1970-01-01T00:00:20Z"


def test_a_roster_near_or_past_its_expiry_is_warned_about(client: Client, node: EdgeNode) -> None:
    for days, code in ((2, "roster-expires-soon"), (-1, "roster-expired")):
        node.the_roster = make_roster(expires=NOW_S + days * 86_400)
        assert [w["code"] for w in client.get("/v1/federation").json()["roster"]["warnings"]] == [code]


def test_each_ceremony_is_announced_at_60_30_and_14_days(client: Client, node: EdgeNode) -> None:
    for days, code, said in (
        (61, None, ""),
        (59, "ceremony-due", "targets expires within 60 days, on "),
        (29, "ceremony-due", "targets expires within 30 days, on "),
        (13, "ceremony-due", "targets expires within 14 days, on "),
        (-1, "ceremony-overdue", "targets has expired"),
    ):
        end = NOW_S + days * 86_400
        expiries = {"targets": end, "root": NOW_S + 300 * 86_400, "timestamp": NOW_S + 60}
        node.the_roster = replace(make_roster(expires=NOW_S + 300 * 86_400), expiries=expiries)
        found = client.get("/v1/federation").json()["roster"]["warnings"]
        assert [w["code"] for w in found] == ([code] if code else []), days
        assert all(said in w["detail"] and "verbale roster propose renewal" in w["detail"] for w in found)
        (detail,) = (c.detail for c in check_node(cast("Any", node)) if c.name == "roster")
        assert ("targets" in (detail or "")) == (code is not None)
        (told,) = (
            line.rpartition(" ")[2]
            for line in client.get("/metrics").text.splitlines()
            if line.startswith('verbale_roster_role_expiry_seconds{role="targets"}')
        )
        assert float(told) == days * 86_400


def test_a_log_of_the_roster_that_is_not_followed_is_named(client: Client, node: EdgeNode) -> None:
    assert node.the_roster is not None
    with node.db.write() as session:
        session.execute(text("DELETE FROM logs WHERE state = 'NL'"))
    assert client.get("/v1/federation").json()["not_followed"] == ["nl.example/log/1"]


# ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_faults(node: EdgeNode) -> None:
    with node.db.write() as session:
        for idx in range(5):
            put_version(
                session, LOGS["US"], idx, None, notice_id(idx), "issue", bytes([idx]) * 32, tlp=99, audience=None, body=None,
                version=None, fault_code="invalid-signature", fault_detail=f"Leaf {idx}.",
            )  # fmt: skip
        put_version(
            session, LOGS["NL"], 7, 7, notice_id(7), "issue", b"\7" * 32, tlp=99, audience=None, body=None,
            body_fault_code="invalid-notice", body_fault_detail="Body says: Candiru.",
        )  # fmt: skip


def test_faults_of_leaves_are_public_and_those_of_bodies_are_for_this_state_alone(
    client: Client, node: EdgeNode
) -> None:
    put_faults(node)
    callers: list[tuple[dict[str, str], int]] = [
        ({}, 5), ({"signature-input": "US"}, 5), (token(node, Tlp.AMBER), 5), (token(node, Tlp.RED), 6),
    ]  # fmt: skip
    for headers, count in callers:
        answer = client.get("/v1/federation/faults", headers=headers)
        assert (answer.json()["total"], len(answer.json()["items"])) == (count, count)
        assert ("Candiru" in answer.text) == (count == 6)
    assert log_of(client, "US")["faults"] == 5
    assert log_of(client, "NL")["faults"] == 0


def test_faults_come_in_pages_and_by_state(client: Client, node: EdgeNode) -> None:
    put_faults(node)
    headers = token(node)
    seen, query = [], "limit=4"
    while query:
        page = client.get(f"/v1/federation/faults?{query}", headers=headers).json()
        seen += [(f["state"], f["index"], f["part"]) for f in page["items"]]
        query = f"limit=4&cursor={page['next']}" if page["next"] else ""
    assert seen == [*(("US", n, "statement") for n in range(5)), ("NL", 7, "body")]
    assert client.get("/v1/federation/faults?state=nl", headers=headers).json()["total"] == 1
    cursor = client.get("/v1/federation/faults?limit=1").json()["next"]
    for query in ("state=QQ", "colour=red", "state=US&state=NL", f"state=US&cursor={cursor}"):
        assert client.get(f"/v1/federation/faults?{query}").status_code == 400


# ── scopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_reads_only_with_the_scope_to_read(client: Client, node: EdgeNode) -> None:
    headers = token(node, scopes=["subscribe"])
    for path in (
        "/v1/notices",
        "/v1/notices/x",
        "/v1/notices/x/versions",
        "/v1/federation",
        "/v1/federation/faults",
    ):
        assert client.get(path, headers=headers).status_code == 403
    assert client.get("/v1/notices", headers=token(node)).status_code == 200
    assert client.get("/v1/notices").status_code == 200


# ── probes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_without_roster_database_or_loops_is_live_and_not_ready(
    client: Client, node: EdgeNode
) -> None:
    admin = token(node, scopes=["admin"])
    assert client.get("/health/ready").json() == {"status": "ready"}

    def probe(headers: dict[str, str]) -> Any:
        client.app.state.readiness = None  # the last result is kept for some seconds
        return client.get("/health/ready", headers=headers)

    assert [c["ok"] for c in probe(admin).json()["checks"]] == [True] * 4
    node.is_warming = True
    assert [c["name"] for c in probe(admin).json()["checks"] if not c["ok"]] == ["screening"]
    node.is_warming = False
    node.stopped = ["follow us.example/log/1"]
    answer = probe({})
    assert (answer.status_code, answer.json()["type"].split("#")[1]) == (503, "not-ready")
    assert "us.example" not in answer.text
    assert "us.example" in probe(admin).text
    node.stopped, node.the_roster = [], None
    assert probe({}).status_code == 503
    node.the_roster = make_roster(expires=NOW_S)
    assert [c["name"] for c in probe(admin).json()["checks"] if not c["ok"]] == ["roster"]
    node.the_roster = replace(make_roster())
    with node.db.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    assert [c["name"] for c in probe(admin).json()["checks"] if not c["ok"]] == ["database"]
    assert client.get("/health/live").status_code == 200


def test_metrics_tell_sizes_lag_verdicts_queues_and_request_times(client: Client, node: EdgeNode) -> None:
    change_log(node, "US", claimed_size=130, head_at=NOW_MS - 5000, skew_ms=1500)
    put_faults(node)
    token(node)
    with node.db.write() as session:
        token_id = session.execute(text("SELECT id FROM api_tokens")).scalar_one()
        session.add(EventRow(seq=1, type="notice.issued", log_id=LOGS["US"], idx=1, at=0, live=True))
        session.add(
            EventRow(seq=3, type="notice.issued", log_id=LOGS["US"], idx=2, at=NOW_MS - 12_000, live=True)
        )
        session.add(
            SubscriptionRow(
                id="s", token_id=token_id, url="u", event_types="[]", filter="{}", scheme="v1", status="active", fanned_seq=1,
                created_at=0,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            DeliveryRow(
                id="d", subscription_id="s", event_seq=1, state="pending", due_at=0, created_at=NOW_MS - 9000
            )
        )  # fmt: skip
    client.get("/v1/notices?party=acme")
    client.get("/nowhere/at/all")
    told = client.get("/metrics").text
    for expected in (
        'verbale_log_size{origin="us.example/log/1",state="US"} 100.0',
        'verbale_log_lag_leaves{origin="us.example/log/1",state="US"} 30.0',
        'verbale_log_lag_seconds{origin="us.example/log/1",state="US"} 5.0',
        'verbale_log_clock_skew_seconds{origin="us.example/log/1",state="US"} 1.5',
        'verbale_leaves_judged_total{origin="us.example/log/1",state="US",verdict="flagged"} 5.0',
        'verbale_leaves_judged_total{origin="us.example/log/1",state="US",verdict="accepted"} 95.0',
        "verbale_deliveries_pending 1.0",
        "verbale_events_ahead 2.0",
        "verbale_deliveries_oldest_seconds 12.0",
        "verbale_roster_expiry_seconds 7.776e+06",
        'verbale_http_request_seconds_count{method="GET",route="/v1/notices"} 1.0',
        'verbale_http_answers_total{method="GET",route="none",status="4xx"} 1.0',
    ):
        assert expected in told
    assert "acme" not in told
    assert "nowhere" not in told
