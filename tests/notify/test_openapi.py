"""The OpenAPI document describes exactly what is sent."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.domain.events import EVENT_TYPES
from app.models import ApiTokenRow
from app.notify.deliver import deliver_step
from app.notify.payload import trial_body
from app.notify.send import Sender
from app.schemas import webhooks
from tests.notify.receivers import NOW, Log, Receiver, SettableClock, add_token, subscribe

if TYPE_CHECKING:
    from app.db import Database
    from app.notify.setup import WebhookSetup


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = FastAPI()
    webhooks.install(app)
    described: dict[str, Any] = app.openapi()
    return described


def check(document: dict[str, Any], event: dict[str, Any]) -> None:
    """By somebody else's reading of the document."""
    described = document["webhooks"][event["type"]]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    jsonschema.Draft202012Validator(
        {**described, "components": document["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    ).validate(event)
    webhooks.PAYLOADS[event["type"]].model_validate(event)


def test_every_type_of_event_is_described_with_its_headers(document: dict[str, Any]) -> None:
    assert set(document["webhooks"]) == {*EVENT_TYPES, "webhook.test"}
    for described in document["webhooks"].values():
        names = [parameter["name"] for parameter in described["post"]["parameters"]]
        assert names == ["webhook-id", "webhook-timestamp", "webhook-signature"]


def test_what_is_sent_is_what_is_described(
    db: Database, clock: SettableClock, setup: WebhookSetup, document: dict[str, Any]
) -> None:
    us, jp, token = Log(db, "US"), Log(db, "JP"), add_token(db)
    with Receiver() as receiver:
        subscribe(db, setup, token, receiver.url)

        def deliver() -> None:
            async def round_() -> None:
                async with Sender(setup, clock) as sender:
                    while await deliver_step(db, clock, setup, sender):
                        pass

            asyncio.run(round_())

        issued = us.issue(tlp=2, audience="EE")
        followed = us.issue()
        deliver()
        us.follow("amend", issued, "notice.amended", tlp_rank=1)
        us.follow("withdraw", followed, "notice.withdrawn", status="withdrawn")
        us.event("question.asked", issued, issued)
        us.event("notice.expired", issued, issued)
        jp.acknowledge(us.hash(issued))
        deliver()
        us.follow("amend", issued, "notice.recalled", content_state="recalled")
        deliver()
        gone = {"status": "erased", "content_state": "erased", "tlp_rank": 99, "type": None}
        us.follow("erase", followed, "notice.erased", **gone)  # type: ignore[arg-type]
        deliver()
    events = [json.loads(request.body) for request in receiver.received]
    assert {event["type"] for event in events} == {
        "notice.issued", "notice.amended", "notice.withdrawn", "question.asked", "notice.expired",
        "acknowledgement.received", "notice.recalled", "notice.erased",
    }  # fmt: skip
    for event in events:
        check(document, event)
    with db.read() as session:
        assert session.scalar(select(ApiTokenRow.id)) == token


def test_a_test_event_and_what_is_no_event(document: dict[str, Any]) -> None:
    event = json.loads(trial_body("webhook.test", NOW, "s"))
    check(document, event)
    with pytest.raises(jsonschema.ValidationError):
        check(document, event | {"data": {"subscription": "s", "secret": "x"}})
    with pytest.raises(jsonschema.ValidationError):
        check(document, event | {"type": "notice.issued"})
