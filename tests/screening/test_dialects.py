"""The dialects: a public client of yente, and the Reconciliation API's own rules, hold for what this node answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from yente_client import Company, MatchFilters, Person, SearchFilters
from yente_client.client import Client
from yente_client.exceptions import AuthenticationError, BadRequestError, NotFoundError

from app.domain.handling import Tlp
from tests import examples
from tests.db.test_rebuild import withdrawal
from tests.federation.world import Peer, World, _Plain
from tests.screening.asking import denial, token


@pytest.fixture
def ee(world: World) -> Peer:
    return world.make("EE")


@pytest.fixture
def client(ee: Peer) -> Iterator[Client]:
    key = token(ee)["authorization"].removeprefix("Bearer ")
    network: Any = _Plain(ee.world.network)
    with Client(api_key=key, base_url=ee.settings.public_url, transport=network) as opened:
        yield opened


# ── yente ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_of_yente_matches_looks_up_and_lists_without_being_changed(ee: Peer, client: Client) -> None:
    issued = ee.must_post(ee.officer.sign(examples.denied_end_user()))
    answer = client.match(Company(name="Aurelian Sky Systems", country="zm", wikidataId="Q1"), threshold=0.7)
    assert answer.top is not None
    assert (answer.top.match, answer.top.schema_, answer.top.caption) == (
        True,
        "Company",
        "Aurelian Sky Systems LLC",
    )
    assert answer.total.value == len(answer.results) == 1
    assert answer.query["ignored"] == ["wikidataId"]
    assert answer.top.contributing_explanations["name"].candidate
    assert answer.top.datasets == ["verbale_ee"]
    assert "export.control" in answer.top.properties["topics"]
    assert answer.top.properties["country"] == ["zm"]

    found = client.fetch(answer.top.id)
    assert found.caption == answer.top.caption
    assert "Аурелиан Скай" in found.properties["alias"]
    (decision,) = found.properties["sanctions"]
    assert not isinstance(decision, str)
    assert (decision.schema_, decision.properties["startDate"]) == ("Sanction", ["2026-09-14"])
    assert client.fetch(found.id, nested=False).properties.get("sanctions") is None
    assert client.adjacent(found.id).adjacent["sanctions"].total.value == 1
    assert client.adjacent(found.id, prop="sanctions").results
    assert issued.id in found.id

    assert client.healthz().status == client.readyz().status == "ok"
    names = [each.name for each in client.datasets().datasets]
    assert names == ["verbale", "verbale_ee"]
    assert client.datasets().datasets == client.datasets().datasets  # the second is answered 304
    algorithms = client.algorithms()
    assert algorithms.best == algorithms.default == algorithms.algorithms[0].name
    assert client.match(Company(name="Aurelian Sky Systems"), algorithm=algorithms.best).top is not None


def test_filters_narrow_what_is_matched_and_searched(ee: Peer, client: Client) -> None:
    us = ee.world.make("US")
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    us.must_post(us.officer.sign(denial("Borealis Signals GmbH", issuer="US")))
    ee.sync(us)
    company = Company(name="Borealis Signals")

    def matched(**filters: Any) -> set[str]:
        return {r.datasets[0] for r in client.match(company, filters=MatchFilters(**filters)).results}

    both = {"verbale_ee", "verbale_us"}
    assert matched() == both
    assert matched(datasets=["verbale_us"]) == {"verbale_us"}
    assert matched(datasets=["verbale_us", "verbale_ee"]) == both
    assert matched(exclude_datasets=["verbale_us"]) == {"verbale_ee"}
    assert matched(exclude_schemata=["Company"]) == set()
    assert matched(topics=["export.control"]) == both
    assert matched(topics=["sanction"]) == set()
    assert matched(changed_since="2030-01-01") == set()
    top = client.match(company).results[0]
    assert top.id not in {r.id for r in client.match(company, exclude_entities=[top.id]).results}
    assert len(client.match(company, limit=1).results) == 1

    def searched(q: str, **filters: Any) -> int:
        return client.search(q, filters=SearchFilters(**filters)).total.value

    assert searched("borealis") == 2
    assert searched("") == 2
    assert searched("borealis", countries=["zm"]) == 2
    assert searched("borealis", countries=["ru"]) == 0
    assert searched("", schema="Person") == 0
    assert searched("", schema="LegalEntity") == 2
    assert searched("", datasets=["verbale_us"]) == 1
    page = client.search("", limit=1, offset=1)
    assert (len(page.results), page.total.value, page.offset) == (1, 2, 1)
    facets = client.search("borealis").facets
    assert {v.name: v.count for v in facets["datasets"].values} == {"verbale_ee": 1, "verbale_us": 1}


def test_what_cannot_be_matched_is_never_answered_with_nothing_found(ee: Peer, client: Client) -> None:
    for name in ("Co Ltd", "😀"):
        with pytest.raises(BadRequestError):
            client.match(Company(name=name))
    with pytest.raises(BadRequestError, match="algorithm"):
        client.match(Person(name="Ada Lovelace"), algorithm="logic-v2")
    with pytest.raises(BadRequestError):
        client.match(Person(name="Ada Lovelace"), config={"nm_number_mismatch": 1})
    with pytest.raises(NotFoundError):
        client.match(Person(name="Ada Lovelace"), datasets=["sanctions"])
    for unknown in ("NK-1", "ee1-01937f3a-5c00-7abc-8def-0123456789ab-0"):
        with pytest.raises(NotFoundError):
            client.fetch(unknown)
    headers = token(ee)
    queries = {
        "good": {"schema": "Company", "properties": {"name": ["Borealis"], "country": ["Neverland", "zm"]}},
        "bad": {"schema": "Alien", "properties": {"name": ["X"]}},
    }
    answer = ee.request("POST", "/match/default", json={"queries": queries}, headers=headers)
    assert answer.headers["x-batch-size"] == "2"
    good, bad = answer.json()["responses"]["good"], answer.json()["responses"]["bad"]
    assert (good["status"], good["query"]["unread"]) == (200, {"country": ["Neverland"]})
    assert (bad["status"], "results" in bad) == (400, False)
    for body in (
        b"",
        b"[]",
        b"{}",
        b'{"queries": {}}',
        json.dumps({"queries": {key: {} for key in map(str, range(101))}}).encode(),
    ):
        refusal = ee.request("POST", "/match/default", content=body, headers=headers)
        assert refusal.status_code in (400, 422)
        assert refusal.json()["detail"]
    anonymous: Any = _Plain(ee.world.network)
    with pytest.raises(AuthenticationError):
        Client(base_url=ee.settings.public_url, transport=anonymous).match(Company(name="Borealis"))


def test_a_withdrawn_notice_is_no_entity_any_more(ee: Peer, client: Client) -> None:
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    top = client.match(Company(name="Borealis Signals")).top
    assert top is not None
    ee.must_post(ee.officer.sign(withdrawal(issued), "withdraw", ref=issued.hash))
    with pytest.raises(NotFoundError):
        client.fetch(top.id)
    assert client.match(Company(name="Borealis Signals")).results == []


# ── reconciliation ────────────────────────────────────────────────────────────────────────────────────────────────

# The rules of the Reconciliation Service API 0.2, written anew from its text: what a client may rely on.
_TEXT = {"type": "string"}
_NAMED = {"type": "object", "required": ["id", "name"], "properties": {"id": _TEXT, "name": _TEXT}}
_SERVICE = {"type": "object", "properties": {"service_url": _TEXT, "service_path": _TEXT}}
MANIFEST: dict[str, Any] = {
    "type": "object",
    "required": ["versions", "name", "identifierSpace", "schemaSpace"],
    "properties": {
        "versions": {"type": "array", "contains": {"const": "0.2"}},
        "name": _TEXT,
        "identifierSpace": {"type": "string", "pattern": "^https?://"},
        "schemaSpace": {"type": "string", "pattern": "^https?://"},
        "documentation": _TEXT,
        "authentication": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "name", "in"],
            "properties": {
                "type": {"const": "apiKey"},
                "name": _TEXT,
                "in": {"enum": ["header", "query"]},
                "description": _TEXT,
            },
        },
        "defaultTypes": {"type": "array", "uniqueItems": True, "items": _NAMED},
        "view": {"required": ["url"], "properties": {"url": {"pattern": r"\{\{id\}\}"}}},
        "suggest": {"properties": dict.fromkeys(("entity", "type", "property"), _SERVICE)},
        "extend": {
            "properties": {
                "propose_properties": _SERVICE,
                "property_settings": {
                    "type": "array",
                    "items": {
                        "required": ["type", "label", "name"],
                        "properties": {
                            "type": {"enum": ["number", "text", "checkbox"]},
                            "default": {"type": "number"},
                        },
                    },
                },
            }
        },
    },
}
RESULTS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["result"],
        "properties": {
            "result": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "name", "score"],
                    "properties": {
                        "id": _TEXT,
                        "name": _TEXT,
                        "description": _TEXT,
                        "score": {"type": "number"},
                        "match": {"type": "boolean"},
                        "type": {"type": "array", "items": {"type": "object", "required": ["id"]}},
                        "features": {
                            "type": "array",
                            "items": {"properties": {"id": _TEXT, "value": {"type": ["number", "boolean"]}}},
                        },
                    },
                },
            }
        },
    },
}
SUGGESTED = {
    "type": "object",
    "required": ["result"],
    "properties": {"result": {"type": "array", "items": _NAMED}},
}
PROPOSED = {
    "type": "object",
    "required": ["properties"],
    "properties": {
        "properties": {"type": "array", "items": _NAMED},
        "type": _TEXT,
        "limit": {"type": "number"},
    },
}
EXTENDED: dict[str, Any] = {
    "type": "object",
    "required": ["meta", "rows"],
    "properties": {
        "meta": {"type": "array", "items": _NAMED},
        "rows": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["str"],
                        "additionalProperties": False,
                        "properties": {"str": _TEXT},
                    },
                },
            },
        },
    },
}


def valid(answer: httpx.Response, rules: dict[str, Any]) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    document = answer.json()
    jsonschema.validate(document, rules)
    return document


def test_openrefine_finds_the_service_reconciles_suggests_and_extends(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(examples.denied_end_user()))
    key = token(ee)["authorization"].removeprefix("Bearer ")
    here = {"api_key": key}
    manifest = valid(ee.request("GET", "/reconcile/verbale", params=here), MANIFEST)
    assert manifest["authentication"]["in"] == "query"
    entity_service = manifest["suggest"]["entity"]
    assert entity_service["service_url"] == ee.settings.public_url
    assert f"api_key={key}" in entity_service["service_path"]

    queries = {
        "q0": {"query": "Aurelian Sky Systems", "type": "Company", "limit": 3, "properties": [{"pid": "country", "v": "ZM"}]},
        "q1": {"query": "Entirely Other Name Plc"},
        "q2": {"query": "...", "type": "Company"},
    }  # fmt: skip
    form = {"queries": json.dumps(queries)}
    first: dict[str, Any] = {}
    for answer in (
        ee.request("POST", "/reconcile/verbale", data=form, params=here),
        ee.request("GET", "/reconcile/verbale", params=form | here),
    ):
        found = valid(answer, RESULTS)
        (first,) = found["q0"]["result"]
        assert (first["name"], first["match"], first["type"][0]["id"]) == (
            "Aurelian Sky Systems LLC",
            True,
            "Company",
        )
        assert found["q1"]["result"] == []
        assert found["q2"]["error"]

    path = entity_service["service_path"]
    suggested = valid(ee.request("GET", f"{path}&prefix=Aurelian+Sky"), SUGGESTED)
    assert first["id"] in [each["id"] for each in suggested["result"]]
    assert valid(ee.request("GET", "/reconcile/verbale/suggest/type?prefix=comp"), SUGGESTED)["result"]
    types = valid(ee.request("GET", "/reconcile/verbale/suggest/property?prefix=birth"), SUGGESTED)["result"]
    assert {"id": "birthDate", "name": "birth date"} in types
    proposed = valid(ee.request("GET", "/reconcile/verbale/extend/property?type=Company"), PROPOSED)
    assert {"id": "deniedOn", "name": "denied on"} in proposed["properties"]

    wanted = {
        "ids": [first["id"], "unknown"],
        "properties": [{"id": "deniedOn"}, {"id": "alias", "settings": {"limit": 1}}],
    }
    extended = ee.request("POST", "/reconcile/verbale", data={"extend": json.dumps(wanted)}, params=here)
    rows = valid(extended, EXTENDED)["rows"]
    assert rows[first["id"]] == {"deniedOn": [{"str": "2026-09-14"}], "alias": [{"str": "Aurelian Sky"}]}
    assert rows["unknown"] == {"deniedOn": [], "alias": []}


def test_two_namesakes_are_never_taken_for_a_match(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    ee.must_post(ee.officer.sign(denial("Borealis Signals GmbH")))
    form = {"queries": json.dumps({"q": {"query": "Borealis Signals"}})}
    found = valid(ee.request("POST", "/reconcile/verbale", data=form, headers=token(ee)), RESULTS)
    assert [each["match"] for each in found["q"]["result"]] == [False, False]


def test_reconciliation_refuses_what_it_cannot_read(ee: Peer) -> None:
    headers = token(ee)
    for data in (
        {"queries": "nonsense"},
        {"queries": "[]"},
        {"x": "y"},
        {"extend": "{}"},
        {"extend": json.dumps({"ids": [], "properties": [{"id": "shoe"}]})},
    ):
        assert ee.request("POST", "/reconcile/verbale", data=data, headers=headers).status_code in (400, 422)
    assert ee.request("GET", "/reconcile/other").status_code == 404
    assert ee.request("POST", "/reconcile/verbale", data={"queries": "{}"}).status_code == 401
    wrong = {"api_key": "vbl_nonsense"}
    assert ee.request("POST", "/reconcile/verbale", data={"queries": "{}"}, params=wrong).status_code == 401
    reader = {"api_key": token(ee, Tlp.RED, "read")["authorization"].removeprefix("Bearer ")}
    assert ee.request("POST", "/reconcile/verbale", data={"queries": "{}"}, params=reader).status_code == 403
