"""`/v1/subscriptions` over HTTP, with real tokens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError

from app import problems, tokens
from app.clock import system_clock
from app.domain.handling import Tlp
from app.models import DeliveryRow, NoticeRow, SubscriptionRow
from app.notify import health, subscriptions
from app.notify.guard import UrlPolicy
from app.routers.subscriptions import router
from tests.notify.receivers import DAY, Log, Received, Receiver, answer
from tests.notify.test_deliver import delivery, step

if TYPE_CHECKING:
    from app.db import Database
    from app.notify.setup import WebhookSetup


@dataclass
class PublicUrl:
    public_url: str = "https://ee.example"


@dataclass
class FakeNode:
    """What the routes use of a node."""

    db: Database
    webhooks: WebhookSetup
    settings: PublicUrl
    state: str = "EE"

    def clock(self) -> int:
        return system_clock()


class Api:
    """The node's HTTP side, asked as one token."""

    def __init__(self, db: Database, setup: WebhookSetup) -> None:
        self.node = FakeNode(db, setup, PublicUrl())
        self.app = FastAPI()
        self.app.state.node = self.node
        problems.install(self.app)
        self.app.include_router(router)

    def token(self, *scopes: str, ceiling: Tlp = Tlp.RED) -> dict[str, str]:
        now = system_clock()
        with self.node.db.write() as session:
            _, text = tokens.create(
                session, name="licensing", scopes=scopes, ceiling=ceiling, expires_at=now + DAY, now_ms=now
            )
        return {"Authorization": f"Bearer {text}"}

    def ask(
        self, method: str, path: str, token: dict[str, str] | None = None, body: Any = None
    ) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="https://ee.example") as client:
                return await client.request(method, path, headers=token, json=body)

        return asyncio.run(run())


@pytest.fixture
def api(db: Database, setup: WebhookSetup) -> Api:
    return Api(db, setup)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """The routes' SQL is run on both engines by the tests beside; here one is enough."""
    return sqlite_url


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["type"].partition("#")[2]


def test_the_secret_is_shown_once_and_verifies_what_arrives(
    api: Api, db: Database, setup: WebhookSetup
) -> None:
    token = api.token("read", "subscribe")
    log = Log(db)
    with Receiver() as receiver:
        made = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url, "filter": {"issuer": "us"}})
        assert made.status_code == 201
        assert made.headers["location"] == f"/v1/subscriptions/{made.json()['id']}"
        log.issue()
        step(db, system_clock, setup)
        (request,) = receiver.received
    Webhook(made.json()["secret"]).verify(request.body, request.headers)
    shown = api.ask("GET", made.headers["location"], token)
    assert shown.status_code == 200
    assert "secret" not in shown.json()
    assert shown.json()["filter"] == {"issuer": ["US"]}
    assert shown.json() == api.ask("GET", "/v1/subscriptions", token).json()["items"][0]
    with db.read() as session:
        sealed = session.scalars(select(SubscriptionRow.secret)).one()
    assert sealed is not None
    assert made.json()["secret"].encode() not in sealed


def test_v1a_has_no_secret_and_its_key_is_public(api: Api) -> None:
    made = api.ask(
        "POST", "/v1/subscriptions", api.token("subscribe"), {"url": "https://example.org/", "signing": "v1a"}
    ).json()
    keys = api.ask("GET", "/v1/webhook-keys").json()["keys"]
    assert made["secret"] is None
    assert [k["public_key"] for k in keys] == [made["public_key"]]
    assert keys[0]["kid"] == "EE/webhook/1"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "malformed-request"),
        ({"url": "https://example.org/", "colour": "red"}, 422, "malformed-request"),
        ({"url": "https://example.org/", "signing": "none"}, 422, "malformed-request"),
        ({"url": "https://example.org/", "event_types": ["notice.invented"]}, 422, "malformed-request"),
        ({"url": "https://example.org/", "from": "2026-01-01T00:00:00"}, 422, "malformed-request"),
        ({"url": "https://example.org/", "filter": {"colour": "red"}}, 400, "invalid-filter"),
        ({"url": "https://example.org/", "filter": {"issuer": "XX"}}, 400, "invalid-filter"),
        ({"url": "https://169.254.169.254/"}, 422, "unsafe-url"),
        ({"url": "https://user@example.org/"}, 422, "unsafe-url"),
    ],
)
def test_a_bad_subscription_is_refused_and_leaves_nothing(
    api: Api, db: Database, body: dict[str, Any], status: int, code: str
) -> None:
    assert problem(api.ask("POST", "/v1/subscriptions", api.token("subscribe"), body)) == (status, code)
    with db.read() as session:
        assert session.scalars(select(SubscriptionRow.id)).all() == []


def test_anonymous_and_other_scopes_may_not_subscribe(api: Api) -> None:
    body = {"url": "https://example.org/"}
    assert problem(api.ask("POST", "/v1/subscriptions", None, body)) == (401, "not-authenticated")
    assert problem(api.ask("POST", "/v1/subscriptions", api.token("read"), body)) == (403, "not-allowed")


def test_another_tokens_subscription_does_not_exist(api: Api) -> None:
    mine, other = api.token("subscribe"), api.token("subscribe")
    id_ = api.ask("POST", "/v1/subscriptions", mine, {"url": "https://example.org/"}).json()["id"]
    path = f"/v1/subscriptions/{id_}"
    for method, suffix in (
        ("GET", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries"), ("POST", "/deliveries/x/replay"),
    ):  # fmt: skip
        assert problem(api.ask(method, path + suffix, other)) == (404, "not-found")
    assert problem(api.ask("PATCH", path, other, {"status": "paused"})) == (404, "not-found")
    assert api.ask("GET", "/v1/subscriptions", other).json() == {"items": []}
    assert api.ask("GET", path, mine).status_code == 200


def test_a_subscription_is_paused_changed_resumed_and_deleted(api: Api, db: Database) -> None:
    token = api.token("subscribe")
    id_ = api.ask(
        "POST", "/v1/subscriptions", token, {"url": "https://example.org/", "description": "x"}
    ).json()["id"]
    path = f"/v1/subscriptions/{id_}"
    paused = api.ask("PATCH", path, token, {"status": "paused", "description": None}).json()
    assert (paused["status"], paused["description"], paused["url"]) == (
        "paused",
        None,
        "https://example.org/",
    )
    changed = api.ask(
        "PATCH", path, token, {"url": "https://example.org/new", "event_types": ["notice.issued"]}
    ).json()
    assert (changed["status"], changed["url"], changed["event_types"]) == (
        "paused",
        "https://example.org/new",
        ["notice.issued"],
    )
    assert problem(api.ask("PATCH", path, token, {"url": "http://10.0.0.1/"})) == (422, "unsafe-url")
    assert api.ask("PATCH", path, token, {"status": "active"}).json()["status"] == "active"
    assert api.ask("DELETE", path, token).status_code == 204
    assert problem(api.ask("GET", path, token)) == (404, "not-found")


def test_a_token_has_so_many_subscriptions_and_no_more(api: Api) -> None:
    token = api.token("subscribe")
    for _ in range(subscriptions.MAX_PER_TOKEN):
        assert api.ask("POST", "/v1/subscriptions", token, {"url": "https://example.org/"}).status_code == 201
    assert problem(api.ask("POST", "/v1/subscriptions", token, {"url": "https://example.org/"})) == (
        409,
        "too-many-subscriptions",
    )


def test_a_test_event_that_arrives_makes_a_disabled_subscription_active(api: Api, db: Database) -> None:
    token = api.token("subscribe")
    replies = [answer("500 Oops"), answer()]
    with Receiver(lambda *_: replies.pop(0)) as receiver:
        made = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()
        path = f"/v1/subscriptions/{made['id']}"
        with db.write() as session:
            row = session.get_one(SubscriptionRow, made["id"])
            health.disable(db, session, row, "It failed.", system_clock())
        failed = api.ask("POST", f"{path}/test", token).json()
        assert (failed["delivered"], failed["status"], failed["error"]) == (False, 500, "status")
        assert api.ask("GET", path, token).json()["status"] == "disabled"
        assert api.ask("POST", f"{path}/test", token).json()["delivered"]
        assert api.ask("GET", path, token).json()["status"] == "active"
        request = receiver.received[1]
    event = Webhook(made["secret"]).verify(request.body, request.headers)
    assert event["type"] == "webhook.test"
    assert event["data"] == {"subscription": made["id"]}


def test_a_test_event_goes_through_the_guard(api: Api, db: Database, setup: WebhookSetup) -> None:
    token = api.token("subscribe")
    with Receiver() as receiver:
        id_ = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()["id"]
        api.node.webhooks = replace(
            setup, policy=UrlPolicy.of(http=True)
        )  # the operator takes the allowance back
        tried = api.ask("POST", f"/v1/subscriptions/{id_}/test", token).json()
    assert (tried["delivered"], tried["error"]) == (False, "address-refused")
    assert receiver.received == []


def test_the_delivery_log_is_paged_newest_first(api: Api, db: Database, setup: WebhookSetup) -> None:
    token = api.token("subscribe")
    log = Log(db)
    with Receiver() as receiver:
        id_ = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()["id"]
        for _ in range(5):
            log.issue()
        while step(db, system_clock, setup):
            pass
        path = f"/v1/subscriptions/{id_}/deliveries?limit=2"
        seen: list[str] = []
        page = api.ask("GET", path, token).json()
        seen += [d["id"] for d in page["items"]]
        while page["next"]:
            page = api.ask("GET", f"{path}&cursor={page['next']}", token).json()
            seen += [d["id"] for d in page["items"]]
    assert sorted(receiver.ids()) == sorted(seen)
    with db.read() as session:
        newest_first = session.scalars(select(DeliveryRow.id).order_by(DeliveryRow.event_seq.desc())).all()
    assert seen == list(newest_first)
    assert problem(api.ask("GET", f"{path}&cursor=stranger", token)) == (400, "invalid-cursor")


def test_a_delivery_is_replayed_once_under_its_id_and_through_todays_gate(
    api: Api, db: Database, setup: WebhookSetup
) -> None:
    token = api.token("subscribe")
    log = Log(db)
    replies = [answer(), answer("500 Oops"), answer()]
    with Receiver(lambda *_: replies.pop(0)) as receiver:
        id_ = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()["id"]
        log.issue()
        step(db, system_clock, setup)
        first = delivery(db, id_)
        path = f"/v1/subscriptions/{id_}/deliveries/{first.id}/replay"
        assert not api.ask("POST", path, token).json()["delivered"]
        assert (delivery(db, id_).state, delivery(db, id_).attempts) == ("delivered", 2)
        assert api.ask("POST", path, token).json() | {"duration_ms": 0} == {
            "id": first.id, "delivered": True, "status": 204, "error": None, "duration_ms": 0,
        }  # fmt: skip
        assert len(set(receiver.ids())) == 1
        with db.write() as session:
            session.execute(update(NoticeRow).values(tlp_rank=99))
        assert problem(api.ask("POST", path, token)) == (409, "not-deliverable")
        assert len(receiver.received) == 3


def test_a_failed_delivery_counts_as_delivered_once_its_replay_arrives(
    api: Api, db: Database, setup: WebhookSetup
) -> None:
    token = api.token("subscribe")
    log = Log(db)
    replies = [answer("410 Gone"), answer()]
    with Receiver(lambda *_: replies.pop(0)) as receiver:
        id_ = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()["id"]
        log.issue()
        step(db, system_clock, setup)
        listed = api.ask("GET", f"/v1/subscriptions/{id_}/deliveries", token).json()["items"][0]
        assert (listed["state"], listed["last_status"], listed["event_type"]) == (
            "failed",
            410,
            "notice.issued",
        )
        assert api.ask("POST", f"/v1/subscriptions/{id_}/deliveries/{listed['id']}/replay", token).json()[
            "delivered"
        ]
        again = api.ask("GET", f"/v1/subscriptions/{id_}/deliveries", token).json()["items"][0]
    assert (again["state"], again["attempts"]) == ("delivered", 2)
    assert api.ask("GET", f"/v1/subscriptions/{id_}", token).json()["status"] == "disabled"


def test_the_payload_is_valid_json_of_modest_size(api: Api, db: Database, setup: WebhookSetup) -> None:
    token = api.token("subscribe")
    log = Log(db)
    with Receiver() as receiver:
        api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url})
        log.issue()
        step(db, system_clock, setup)
    assert len(receiver.received[0].body) < 1000
    assert json.loads(receiver.received[0].body)["data"]["tlp"] == "TLP:CLEAR"


# ── the rest of what a subscriber can ask for ─────────────────────────────────────────────────────────────────────


def test_everything_that_can_be_set_is_shown_but_for_secrets(api: Api) -> None:
    token = api.token("subscribe")
    wanted = {
        "url": "https://example.org/", "tags": ["b", "a", "a"], "ordered": True, "max_in_flight": 7, "per_minute": 60,
        "headers": {"Authorization": "Bearer hidden"}, "signing": "both", "body": "full",
        "filter": {"watchlist": "w1", "issuer": "US"}, "description": "Licensing",
    }  # fmt: skip
    made = api.ask("POST", "/v1/subscriptions", token, wanted)
    assert made.status_code == 201, made.text
    shown = api.ask("GET", made.headers["location"], token).json()
    assert shown | {
        "tags": ["a", "b"], "ordered": True, "max_in_flight": 7, "per_minute": 60, "header_names": ["Authorization"],
        "signing": "both", "body": "full", "filter": {"issuer": ["US"], "watchlist": ["w1"]}, "verified_at": None,
        "has_ca": False, "has_client_cert": False, "failures": 0, "rests_until": None, "old_secrets_until": None,
    } == shown  # fmt: skip
    assert "hidden" not in made.text
    assert [s["id"] for s in api.ask("GET", "/v1/subscriptions?tag=a", token).json()["items"]] == [
        shown["id"]
    ]
    assert api.ask("GET", "/v1/subscriptions?tag=c", token).json() == {"items": []}
    changed = api.ask(
        "PATCH", made.headers["location"], token,
        {"ordered": False, "headers": {}, "per_minute": None, "tags": [], "body": "thin"},
    ).json()  # fmt: skip
    assert (changed["ordered"], changed["header_names"], changed["per_minute"], changed["tags"]) == (
        False, [], None, [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"headers": {"Host": "x"}}, "unsafe-endpoint"),
        ({"ca": "x"}, "unsafe-endpoint"),
        ({"client_cert": {"certificate": "hidden", "key": "hidden"}}, "unsafe-endpoint"),
        ({"max_in_flight": 0}, "malformed-request"),
        ({"max_in_flight": 65}, "malformed-request"),
        ({"per_minute": 0}, "malformed-request"),
        ({"tags": [" "]}, "malformed-request"),
        ({"filter": {"watchlist": []}}, "invalid-filter"),
        ({"filter": {"watchlist": "a b"}}, "invalid-filter"),
        ({"after": "x"}, "invalid-cursor"),
        ({"body": "fat"}, "malformed-request"),
    ],
)
def test_what_cannot_be_set_is_refused_and_not_repeated(api: Api, changes: dict[str, Any], code: str) -> None:
    token = api.token("subscribe")
    refused = api.ask("POST", "/v1/subscriptions", token, {"url": "https://example.org/"} | changes)
    assert problem(refused)[1] == code
    assert "hidden" not in refused.text
    assert api.ask("GET", "/v1/subscriptions", token).json() == {"items": []}


def test_an_endpoint_is_proven_rotated_counted_and_replayed_over_http(
    api: Api, db: Database, setup: WebhookSetup
) -> None:
    token = api.token("read", "subscribe")
    log, secrets = Log(db), [""]

    def verifies(request: Received, *_: object) -> bytes:
        try:
            Webhook(secrets[0]).verify(request.body, request.headers)
        except WebhookVerificationError:
            return answer("401 Unauthorized")
        return answer()

    with Receiver(verifies) as receiver:
        made = api.ask("POST", "/v1/subscriptions", token, {"url": receiver.url}).json()
        path = f"/v1/subscriptions/{made['id']}"
        secrets[0] = made["secret"]
        proof = api.ask("POST", f"{path}/verify", token).json()
        assert (proof["verified"], proof["forged"]["status"], proof["genuine"]["status"]) == (True, 401, 204)
        assert api.ask("GET", path, token).json()["verified_at"] is not None
        rotated = api.ask("POST", f"{path}/rotate", token, {"overlap_hours": 1})
        assert rotated.headers["cache-control"] == "no-store"
        assert rotated.json()["secret"] not in (None, made["secret"])
        assert rotated.json()["old_secrets_until"] is not None
        for _ in range(3):
            log.issue()
        assert api.ask("GET", f"{path}/counts", token).json()["events_ahead"] == 3
        while step(db, system_clock, setup):
            pass
        secrets[0] = rotated.json()["secret"]
        counts = api.ask("GET", f"{path}/counts", token).json()
        assert (counts["told"], counts["pending"], counts["last"], counts["last_delivered"]) == (3, 0, 3, 3)
        assert counts["events_ahead"] == 0
        one = api.ask("GET", f"{path}/deliveries?state=delivered", token).json()["items"][0]
        detail = api.ask("GET", f"{path}/deliveries/{one['id']}", token).json()
        assert [a["status"] for a in detail["log"]] == [204]
        assert detail["log"][0]["signatures"] == 2
        assert detail["sequence"] == 3
        since = {"since": "2020-01-01T00:00:00Z"}
        assert api.ask("POST", f"{path}/replay", token, since).json() == {"count": 3, "more": False}
        assert problem(api.ask("POST", f"{path}/replay", token, {})) == (422, "malformed-request")
        while step(db, system_clock, setup):
            pass
        assert api.ask("POST", f"{path}/discard", token, {"failed": True}).json()["count"] == 0
        assert sorted(receiver.ids()[2:5]) == sorted(receiver.ids()[5:])
