"""`verbale webhook`: what an operator sees and does about endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.clock import system_clock
from app.db import Database
from app.models import ApiTokenRow
from app.notify import subscriptions
from app.notify.setup import WebhookSetup
from app.settings import load
from tests.notify.receivers import DAY, Receiver, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


def test_an_operator_lists_tries_and_replays_and_changes_the_key(
    verbale: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "ee" / "node.toml"
    made = verbale(
        "node", "init", "--dir", tmp_path / "ee", "--state", "EE", "--origin", "ee.verbale.example/log/1",
        "--public-url", "https://ee.verbale.example", "--set", "webhook_allow_http=true", "--set", "webhook_allow_networks=127.0.0.0/8",
    )  # fmt: skip
    assert made.code == 0, made.err
    settings = load(file)
    db, now = Database(settings.database), system_clock()
    replies = [answer(), answer("500 Oops")]
    with Receiver(lambda *_: replies.pop(0)) as receiver:
        with db.write() as session:
            session.add(
                ApiTokenRow(
                    id="t", name="licensing", secret_hash=b"", scopes="subscribe", ceiling=1, created_at=now,
                    expires_at=now + DAY,
                )
            )  # fmt: skip
            session.flush()
            wanted = {"url": receiver.url, "scheme": "v1a"}
            id_ = subscriptions.create(session, WebhookSetup.of(settings), "t", wanted, since=None, now=now)[
                0
            ].id
        db.dispose()
        (listed,) = verbale("webhook", "list", "--json", "--settings", file).json
        assert (listed["id"], listed["url"], listed["status"], listed["pending"]) == (
            id_, receiver.url, "active", 0,
        )  # fmt: skip
        assert verbale("webhook", "test", id_, "--settings", file).code == 0
        failed = verbale("webhook", "test", id_, "--json", "--settings", file)
        assert (failed.code, failed.json["status"]) == (1, 500)
    assert verbale("webhook", "test", "nobody", "--settings", file).code == 1
    assert verbale("webhook", "replay", id_, "--failed", "--json", "--settings", file).json == {"count": 0}
    assert verbale("webhook", "replay", id_, "--settings", file).code == 1
    (first,) = verbale("webhook", "keys", "--json", "--settings", file).json
    new, old = verbale("webhook", "rotate-key", "--json", "--settings", file).json
    assert (old["public_key"], old["kid"], new["kid"]) == (
        first["public_key"], "EE/webhook/1", "EE/webhook/2",
    )  # fmt: skip
    assert new["valid_from"] is not None
    assert verbale("webhook", "rotate-key", "--settings", file).code == 1
