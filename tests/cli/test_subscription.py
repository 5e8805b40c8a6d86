"""`verbale subscription`: what an integrator does with a token, at a node that answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import pytest

from app.db import Database
from tests.cli.conftest import Result, Served
from tests.notify.receivers import Receiver, answer

HOUR_S = 3_600


@pytest.fixture
def asking(estonia: Served, verbale: Callable[..., Result], tmp_path: Path) -> tuple[object, ...]:
    """The options that name the node and a token with the scope `subscribe`."""
    made = verbale(
        "token", "create", "--name", "licensing", "--scope", "subscribe", "--json", "--settings", estonia.settings
    ).json  # fmt: skip
    file = tmp_path / "token"
    file.write_text(made["token"] + "\n")
    return ("--url", estonia.url, "--token-file", file)


def test_an_integrator_does_everything_with_a_token(
    verbale: Callable[..., Result], asking: tuple[object, ...]
) -> None:
    def subscription(*arguments: object) -> Result:
        return verbale("subscription", *arguments, *asking)

    replies = [answer(), answer("500 Oops"), answer()]
    with Receiver(lambda *_: replies.pop(0)) as receiver:
        made = subscription(
            "create", receiver.url, "--filter", "country=ZM", "--filter", "country=ZW", "--filter", "type=denied_end_user",
            "--event-type", "notice.issued", "--description", "customs", "--tag", "south", "--json",
        ).json  # fmt: skip
        id_, secret = made["id"], made["secret"]
        assert made["filter"] == {"country": ["ZM", "ZW"], "type": ["denied_end_user"]}
        assert (made["event_types"], made["tags"], made["description"]) == (
            ["notice.issued"],
            ["south"],
            "customs",
        )

        tried = subscription("test", id_)
        assert (tried.code, tried.out.startswith("delivered: 204")) == (0, True), tried
        came = receiver.received[0]
        signed = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode() + came.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert came.headers["webhook-signature"] == f"v1,{wanted}"
        refused = subscription("test", id_, "--json")
        assert (refused.code, refused.json["status"], refused.json["delivered"]) == (1, 500, False)

    assert [s["id"] for s in subscription("list", "--tag", "south", "--json").json] == [id_]
    assert subscription("list", "--tag", "north", "--json").json == []
    assert id_ in subscription("list").out
    assert subscription("pause", id_, "--json").json["status"] == "paused"
    assert subscription("resume", id_).out == f"{id_} is active\n"
    shown = subscription("show", id_, "--json").json
    assert (shown["status"], shown["counts"]["pending"]) == ("active", 0)
    assert secret not in subscription("show", id_).out
    fresh = subscription("rotate-secret", id_, "--overlap-hours", 0, "--json").json["secret"]
    assert fresh.startswith("whsec_")
    assert fresh != secret
    once = subscription("rotate-secret", id_).out
    assert "whsec_" in once
    assert "shown this once" in once
    assert subscription("deliveries", id_, "--state", "failed", "--json").json == []
    assert subscription("replay", id_, "--failed", "--json").json == {"count": 0}
    assert subscription("delete", id_, "--yes", "--json").json == {"id": id_, "deleted": True}
    assert subscription("list", "--json").json == []


def test_the_log_of_deliveries_is_read_and_one_is_sent_again(
    estonia: Served, verbale: Callable[..., Result], asking: tuple[object, ...]
) -> None:
    with Receiver(lambda *_: answer()) as receiver:
        id_ = verbale(
            "subscription", "create", receiver.url, "--event-type", "subscription.disabled", "--json", *asking
        ).json["id"]
        other = verbale("subscription", "create", receiver.url + "gone", "--json", *asking).json["id"]
        # An event of its owner's: the endpoint of the other subscription went away.
        db = Database(estonia.running.settings.database)
        try:
            from app.clock import system_clock
            from app.models import SubscriptionRow
            from app.notify import health

            with db.write() as session:
                health.disable(db, session, session.get_one(SubscriptionRow, other), "gone", system_clock())
        finally:
            db.dispose()
        assert receiver.arrived.acquire(timeout=60)
        deadline = Until(60)
        while not (
            found := verbale(
                "subscription", "deliveries", id_, "--state", "delivered", "--json", *asking
            ).json
        ):
            deadline.check()
        (delivery,) = found
        assert delivery["event_type"] == "subscription.disabled"
        again = verbale("subscription", "replay", id_, "--delivery", delivery["id"], *asking)
        assert (again.code, again.out.startswith("delivered: 204")) == (0, True), again
        assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
        text = verbale("subscription", "deliveries", id_, "--delivery", delivery["id"], *asking).out
        assert delivery["id"] in text
        assert delivery["id"] in verbale("subscription", "deliveries", id_, "--limit", 1, *asking).out
    for one in (id_, other):
        assert verbale("subscription", "delete", one, "--yes", *asking).code == 0


class Until:
    """A time by which something has to have happened; each look is a request to the node."""

    def __init__(self, seconds: float) -> None:
        import time

        self._time, self._end = time.monotonic, time.monotonic() + seconds

    def check(self) -> None:
        assert self._time() < self._end


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nobody"), 1, "not-found"),
        (("delete", "nobody", "--yes"), 1, "not-found"),
        (("create", "https://user:pw@example.org/"), 1, "unsafe-url"),
        (("create", "https://example.org/", "--filter", "country"), 1, "malformed"),
        (("create", "https://example.org/", "--filter", "contry=ZM"), 1, "invalid-filter"),
        (("replay", "x"), 1, "malformed"),
        (("replay", "x", "--failed", "--delivery", "y"), 1, "malformed"),
    ],
    ids=str,
)
def test_what_is_refused_has_a_code(
    verbale: Callable[..., Result],
    asking: tuple[object, ...],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    found = verbale("subscription", *arguments, "--json", *asking)
    assert (found.code, found.json["error"]["code"]) == (code, said)


def test_without_a_token_or_a_node_it_says_so(estonia: Served, verbale: Callable[..., Result]) -> None:
    assert verbale("subscription", "list", "--url", estonia.url).code == 1
    assert verbale("subscription", "list", "--url", "http://127.0.0.1:1", "--token", "x").code == 4
