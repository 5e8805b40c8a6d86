"""Programs that nobody here wrote take what a node really sends, and refuse it with any one byte changed.

The npm library `standardwebhooks` looks at `v1`, Node's own crypto at our `v1a`. `scripts/npm_verifiers.sh` installs the library.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.clock import system_clock
from app.db import Database
from app.notify import signing
from tests.notify.receivers import DAY, Log, Received, Receiver, add_token, subscribe
from tests.notify.test_deliver import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.notify.setup import WebhookSetup

HERE = Path(__file__).parent / "npm"
INSTALLED = Path(__file__).parents[2] / ".venv/npm-verifiers/node_modules"

Case = tuple[dict[str, str], bytes]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifying program, beside the library."""
    if shutil.which("node") is None or not INSTALLED.is_dir():
        pytest.skip(
            "NOT CHECKED by npm's standardwebhooks: with node and npm, scripts/npm_verifiers.sh installs it"
        )
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(HERE / "verify.mjs", folder)
    (folder / "node_modules").symlink_to(INSTALLED)
    return folder / "verify.mjs"


def sent(sqlite_url: str, setup: WebhookSetup, scheme: str) -> tuple[Received, bytes | None]:
    """A delivery as it arrived, from an event to a socket, and the secret it is signed under."""
    db = Database(sqlite_url)
    log = Log(db)
    with Receiver() as receiver:
        token = add_token(db, expires_at=system_clock() + DAY)
        _, secret = subscribe(db, setup, token, receiver.url, scheme=scheme)
        log.issue()
        assert step(db, system_clock, setup) == 1
    db.dispose()
    return receiver.received[0], secret


def taken(program: Path, scheme: str, key: str, cases: list[Case]) -> list[bool]:
    asked = [
        {"scheme": scheme, "key": key, "headers": headers, "body": b64encode(body).decode()}
        for headers, body in cases
    ]
    done = subprocess.run(
        ["node", str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: list[bool] = json.loads(done.stdout)
    assert len(found) == len(cases)
    return found


def tampered(received: Received, scheme: str) -> Iterator[Case]:
    """The delivery with one bit of the body flipped, another byte in a header, or a header of another kind."""
    headers, body = received.headers, received.body
    for n in range(len(body)):
        for bit in range(8):
            yield headers, body[:n] + bytes([body[n] ^ 1 << bit]) + body[n + 1 :]
    yield headers, body + b" "
    yield headers, body[:-1]
    for name in ("webhook-id", "webhook-timestamp"):
        text = headers[name]
        for n in range(len(text)):
            yield headers | {name: text[:n] + chr(ord(text[n]) ^ 1) + text[n + 1 :]}, body
    version, _, signature = headers["webhook-signature"].partition(",")
    raw = b64decode(signature)
    for n in range(len(raw)):
        bent = b64encode(raw[:n] + bytes([raw[n] ^ 1]) + raw[n + 1 :]).decode()
        yield headers | {"webhook-signature": f"{version},{bent}"}, body
    other = {"v1": "v1a", "v1a": "v1"}[scheme]
    for forged in (f"{other},{signature}", signature, f"{version},", "", f"{version} {signature}"):
        yield headers | {"webhook-signature": forged}, body
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        yield {kept: value for kept, value in headers.items() if kept != name}, body


def check(program: Path, scheme: str, key: str, wrong: str, received: Received) -> None:
    headers, body = received.headers, received.body
    signature = headers["webhook-signature"]
    beside = headers | {
        "webhook-signature": f"{signing.forged(signature)} {signature}"
    }  # as while keys are changed
    assert taken(program, scheme, key, [(headers, body), (beside, body)]) == [True, True]
    assert taken(program, scheme, wrong, [(headers, body)]) == [False]
    cases = list(tampered(received, scheme))
    assert [cases[n] for n, took in enumerate(taken(program, scheme, key, cases)) if took] == []


def test_the_npm_library_takes_v1_and_refuses_every_tampering(
    program: Path, sqlite_url: str, setup: WebhookSetup
) -> None:
    received, secret = sent(sqlite_url, setup, "v1")
    assert secret is not None
    key, wrong = signing.secret_text(secret), signing.secret_text(signing.new_secret())
    check(program, "v1", key, wrong, received)
    late = received.headers | {"webhook-timestamp": str(int(received.headers["webhook-timestamp"]) - 301)}
    late["webhook-signature"] = signing.sign_v1(
        secret, late["webhook-id"], int(late["webhook-timestamp"]), received.body
    )
    assert taken(program, "v1", key, [(late, received.body)]) == [False]


def test_nodes_own_crypto_takes_v1a_and_refuses_every_tampering(
    program: Path, sqlite_url: str, setup: WebhookSetup
) -> None:
    received, _ = sent(sqlite_url, setup, "v1a")
    raw = bytearray(setup.keys.signer.public.raw)
    raw[0] ^= 1
    wrong = signing.PUBLIC_PREFIX + b64encode(raw).decode()
    check(program, "v1a", signing.public_text(setup.keys.signer.public), wrong, received)


def test_both_signatures_side_by_side_are_taken_by_each(
    program: Path, sqlite_url: str, setup: WebhookSetup
) -> None:
    received, secret = sent(sqlite_url, setup, "both")
    assert secret is not None
    both: list[Any] = [(received.headers, received.body)]
    assert taken(program, "v1", signing.secret_text(secret), both) == [True]
    assert taken(program, "v1a", signing.public_text(setup.keys.signer.public), both) == [True]
