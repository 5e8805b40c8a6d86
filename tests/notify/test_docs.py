"""The receivers that `docs/webhooks.md` shows are run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.clock import system_clock
from app.domain.events import EVENT_TYPES
from app.notify import deliver, matching, outbox, results, signing
from app.notify.claims import Claimed, Ready
from app.notify.endpoint import Endpoint
from app.notify.payload import trial_body
from tests.notify.receivers import Receiver

if TYPE_CHECKING:
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def send(setup: WebhookSetup, url: str, secret: bytes | None, body: bytes) -> Attempt:
    sealed = None if secret is None else setup.keys.seal(secret, "s")
    claimed = Claimed(outbox.new_id(system_clock()), "s", 1, 0)
    ready = Ready(claimed, Endpoint("s", url, "v1" if sealed else "v1a", sealed), body)
    return asyncio.run(deliver.send_once(setup, system_clock, ready))


def test_the_python_receiver_takes_what_is_genuine_and_refuses_the_rest(
    setup: WebhookSetup, tmp_path: Path
) -> None:
    secret = signing.new_secret()
    with Receiver() as spare:
        url = spare.url
    port = url.rpartition(":")[2].removesuffix("/hook")
    script = tmp_path / "receiver.py"
    script.write_text(blocks("python")[0])
    receiver = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        env=os.environ | {"WEBHOOK_SECRET": signing.secret_text(secret), "PORT": port},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        body = trial_body("webhook.test", system_clock(), "s")
        deadline = time.monotonic() + 30
        while (attempt := send(setup, url, secret, body)).error == "connect":  # until it listens
            assert time.monotonic() < deadline
        assert attempt.status == 204
        assert send(setup, url, signing.new_secret(), body).status == 401
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "webhook.test None\n"
    finally:
        receiver.kill()
        receiver.communicate()


def genuine(setup: WebhookSetup) -> tuple[str, dict[str, str], bytes]:
    with Receiver() as receiver:
        send(setup, receiver.url, None, trial_body("webhook.test", system_clock(), "ü"))
        request = receiver.received[0]
    return signing.public_text(setup.keys.signer.public), request.headers, request.body


def test_the_v1a_lines_in_python_verify_and_refuse(setup: WebhookSetup) -> None:
    scope: dict[str, Any] = {}
    exec(blocks("python")[1], scope)  # noqa: S102 - our own document
    key, headers, body = genuine(setup)
    assert scope["is_genuine"](key, headers, body)
    assert not scope["is_genuine"](key, headers, body + b" ")
    assert not scope["is_genuine"](key, headers | {"webhook-id": "x"}, body)
    assert not scope["is_genuine"](key, headers | {"webhook-timestamp": "1"}, body)


# Node is only one of the two languages shown; where it is missing the Python receiver still runs.
@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on this machine")
def test_the_v1a_lines_in_node_verify_and_refuse(setup: WebhookSetup, tmp_path: Path) -> None:
    key, headers, body = genuine(setup)
    (tmp_path / "body").write_bytes(body)
    shown = {k: v for k, v in headers.items() if k.startswith("webhook-")}
    program = blocks("js")[1] + (
        'import { readFileSync } from "node:fs";'
        f"const body = readFileSync({str(tmp_path / 'body')!r}), headers = {shown!r}, key = {key!r};"
        "console.log(isGenuine(key, headers, body), isGenuine(key, headers, Buffer.concat([body, Buffer.from(' ')])),"
        "isGenuine(key, {...headers, 'webhook-id': 'x'}, body));"
    )
    (tmp_path / "verify.mjs").write_text(program)
    done = subprocess.run(["node", str(tmp_path / "verify.mjs")], capture_output=True, text=True, check=True)
    assert done.stdout == "true false false\n"


def test_the_document_names_every_event_type_and_error() -> None:
    for name in (*EVENT_TYPES, matching.TEST_EVENT):
        assert re.search(rf"^\|[^|]*`{re.escape(name)}`[^|]*\|", DOCS, re.MULTILINE)
    for name in results.ErrorClass.__args__:  # type: ignore[attr-defined]
        assert f"`{name}`" in DOCS
