"""The receiver in `examples/` is run as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from app.clock import system_clock
from app.notify import signing
from app.notify.payload import trial_body
from tests.notify.live_feed import LiveFeed, bearer
from tests.notify.receivers import Log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.notify.setup import WebhookSetup

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "receiver" / "receiver.py"
OLD, NEW = signing.new_secret(), signing.new_secret()


def environment(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"INBOX": str(folder / "inbox.db"), "PORT": "0"} | more


def run(folder: Path, command: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), command],
        env=environment(folder, **more), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    secrets = f"{signing.secret_text(OLD)} {signing.secret_text(NEW)}"
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLE)],
        env=environment(tmp_path, WEBHOOK_SECRET=secrets), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1], process
    process.kill()
    process.communicate()


def post(url: str, secret: bytes, body: bytes, *, id_: str = "msg_1", **changes: str) -> int:
    now = system_clock() // 1000
    headers = signing.headers(id_, now, [signing.sign_v1(secret, id_, now, body)]) | changes
    return httpx.post(url, content=body, headers=headers, timeout=60).status_code


def test_the_receiver_stores_what_is_genuine_once_and_refuses_the_rest(
    receiver: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    url, _ = receiver
    body = (
        b'{"type":"notice.issued","timestamp":"2026-11-25T16:00:00.000Z","data":{"id":"n","origin":"us.example/log/1",'
        b'"index":7,"leaf_hash":"x","url":"https://node.example/v1/notices/n","sequence":1}}'
    )
    assert [post(url, OLD, body), post(url, OLD, body), post(url, NEW, body, id_="msg_2")] == [204] * 3
    assert post(url, NEW, trial_body("webhook.test", system_clock(), "s"), id_="msg_3") == 204
    assert post(url, signing.new_secret(), body, id_="msg_4") == 401
    assert post(url, OLD, body, id_="msg_5", **{"webhook-signature": "v1"}) == 401
    assert post(url, OLD, body, id_="msg_6", **{"webhook-timestamp": "1"}) == 401
    assert post(url, OLD, b"x" * 70_001, id_="msg_7") == 413
    assert run(tmp_path, "list") == "notice.issued https://node.example/v1/notices/n\n"


def test_the_receiver_takes_from_the_feed_what_did_not_come(
    sqlite_url: str, setup: WebhookSetup, tmp_path: Path
) -> None:
    from app.db import Database

    db = Database(sqlite_url)
    log = Log(db)
    first = log.issue()
    _, token = bearer(db)
    with LiveFeed(db, setup, tmp_path) as live:
        more = {"NODE": live.url, "TOKEN": token["Authorization"].removeprefix("Bearer ")}
        assert run(tmp_path, "catch-up", **more) == "1 events had not come\n"
        second = log.issue()
        assert run(tmp_path, "catch-up", **more) == "1 events had not come\n"
        assert run(tmp_path, "catch-up", **more) == "0 events had not come\n"
    url = "https://ee.example/v1/notices/notice-US-"
    assert run(tmp_path, "list") == f"notice.issued {url}{first}\nnotice.issued {url}{second}\n"
    db.dispose()
