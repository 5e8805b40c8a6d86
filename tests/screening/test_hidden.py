"""What the gate hides, screening does not reveal: not by a hit, a count, a score, a refusal, nor by the work it makes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from app.db import Database
from app.domain.handling import Tlp
from tests import examples
from tests.federation.world import Peer, World
from tests.screening.asking import application, denial, token

NAMES = (
    "Borealis Signals Ltd",
    "Borealis Signal Works",
    "Borealys Signals",
    "Quiet Harbour Trading",
    "Meridian Optics",
)
SITE = "12 Copper Road, Lusaka"


def hidden(rng: random.Random) -> dict[str, Any]:
    """A denial that a token with the ceiling GREEN may not see; like the visible ones in every way that is compared."""
    label, audience = rng.choice(
        (("TLP:RED", ["NL"]), ("TLP:AMBER", "ALL"), ("TLP:AMBER+STRICT", ["EE", "NL"]))
    )
    party = examples.party(
        rng.choice(NAMES),
        rng.choice(("end_user", "consignee", "agent")),
        address=[SITE],
        registrationNumber=["ZM-000-117"],
        alias=[rng.choice(NAMES)],
    )
    items = [examples.item(rng.choice(("5A001.j", "5A001", "4A005")))]
    end_user = examples.party(rng.choice(NAMES))
    return examples.denied_end_user(
        tlp=label, audience=audience, body={"parties": [party, end_user], "items": items}
    )


def surfaces(
    peer: Peer, headers: dict[str, str], watchlist: str, shown: str, unseen: list[str]
) -> dict[str, Any]:
    """What a token gets to see on every surface of screening."""

    def ask(method: str, path: str, **options: Any) -> tuple[int, str]:
        answer: httpx.Response = peer.request(method, path, headers=headers, **options)
        text = answer.text
        # The request's own id is in every problem.
        body = answer.json() if answer.headers["content-type"].endswith(("/json", "+json")) else text
        if isinstance(body, dict):
            body.pop("instance", None)
        return answer.status_code, json.dumps(body)

    stranger = {
        "name": "Zebra Instruments",
        "properties": {"address": SITE, "registrationNumber": "ZM-000-117"},
    }
    documents: list[Any] = [
        *({"party": name} for name in (*NAMES, "Borealis", "Somebody Else", "Meridian Optic")),
        {"parties": [*NAMES, stranger]},
        application(),
        application(parties={"end_user": stranger, "consignee": NAMES[3]}),
        application(items=[examples.item("4A005")]),
    ]
    queries = {
        str(n): {"schema": "LegalEntity", "properties": {"name": [name]}} for n, name in enumerate(NAMES)
    }
    reconcile = {str(n): {"query": name} for n, name in enumerate((*NAMES, "Borealis"))}
    found: dict[str, Any] = {}
    for n, document in enumerate(documents):
        for threshold in (None, 0.01) if n < 3 else (0.99,) if n == 3 else (None,):
            params = {"limit": 1} if threshold is None else {"threshold": threshold, "limit": 100}
            found[f"screening {n} {threshold}"] = ask("POST", "/v1/screenings", json=document, params=params)
    lines = b"".join(json.dumps(d).encode() + b"\n" for d in documents)
    found["batch"] = ask("POST", "/v1/screenings/batch", content=lines)
    found["match"] = ask("POST", "/match/default", json={"queries": queries}, params={"cutoff": 0})
    for q in ("", "borealis", "zebra"):
        found[f"search {q}"] = ask("GET", "/search/default", params={"q": q})
    found["catalog"] = ask("GET", "/catalog")
    found["reconcile"] = ask("POST", "/reconcile/verbale", data={"queries": json.dumps(reconcile)})
    found["suggest"] = ask("GET", "/reconcile/verbale/suggest/entity", params={"prefix": "Borealis"})
    extend = {"ids": [shown, *unseen], "properties": [{"id": "name"}]}
    found["extend"] = ask("POST", "/reconcile/verbale", data={"extend": json.dumps(extend)})
    for n, id_ in enumerate(unseen):
        found[f"entity {n}"] = ask("GET", f"/entities/{id_}")[0]
        found[f"adjacent {n}"] = ask("GET", f"/entities/{id_}/adjacent")[0]
    for state in ("open", "cleared", "all"):
        found[f"hits {state}"] = ask("GET", f"{watchlist}/hits", params={"state": state})
    found["list"] = ask("GET", watchlist)
    found["entry"] = ask("PUT", f"{watchlist}/entries/1", json={"name": NAMES[0]})
    found["kept"] = ask("GET", "/v1/screenings")
    return found


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """The statements that are sent to the database meanwhile."""
    sent: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    for engine in {db.engine, db.write_engine}:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in {db.engine, db.write_engine}:
            event.remove(engine, "before_cursor_execute", note)


@pytest.mark.timeout(300)
def test_hidden_notices_change_nothing_of_what_a_caller_is_answered_nor_how_it_is_looked_up(
    world: World,
) -> None:
    rng = random.Random(20261125)  # noqa: S311 - a test's choice
    ee = world.make("EE")
    green, red = token(ee, Tlp.GREEN), token(ee, Tlp.RED)
    visible = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd", party={})))
    ee.must_post(ee.officer.sign(denial("Meridian Optical Instruments", code="4A005")))
    lists = []
    for headers in (green, red):
        made = ee.request("POST", "/v1/watchlists", json={"name": "x"}, headers=headers).json()
        lists.append(f"/v1/watchlists/{made['id']}")
        ee.request("PUT", f"{lists[-1]}/entries/1", json={"name": NAMES[0]}, headers=headers)
    shown = f"ee1-{visible.id}-0"
    secrets = [ee.officer.sign(hidden(rng)) for _ in range(12)]
    unseen = [f"ee1-{secret.id}-{n}" for secret in secrets[:2] for n in (0, 1)]
    surfaces(ee, green, lists[0], shown, unseen)  # whatever is made once is made
    with counted(ee.db) as before_statements:
        before = surfaces(ee, green, lists[0], shown, unseen)
    before_red = surfaces(ee, red, lists[1], shown, unseen)
    for secret in secrets:
        ee.must_post(secret)
    after_red = surfaces(ee, red, lists[1], shown, unseen)
    with counted(ee.db) as after_statements:
        after = surfaces(ee, green, lists[0], shown, unseen)
    for surface, answer in before.items():
        assert after[surface] == answer, surface
    assert after_statements == before_statements
    # The other token sees them everywhere: the test would notice if nothing were there to be revealed.
    same = {surface for surface in before_red if after_red[surface] == before_red[surface]}
    told = {"catalog", "list", "kept", "hits cleared"}
    assert {s for s in same if not s.startswith("screening")} <= told | {"entry", "search zebra"}
    assert after_red["entity 0"] == 200
