"""A receiver for the soak: verifies by code of its own, writes each delivery down durably, then answers, mostly.

    python -m app.bench.soak_receiver PORT FILE SEED SECRET PUBLIC_KEY

One line of JSON for each request in FILE, synced before the answer: so a kill at any moment leaves whatever was
acknowledged. Some requests it refuses, some it leaves unanswered, some it answers late, on purpose. SECRET is `whsec_…`,
PUBLIC_KEY `whpk_…`; `-` is none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

REFUSED, UNANSWERED, LATE = 0.03, 0.01, 0.02
"""Shares of requests."""


def genuine(headers: dict[str, str], body: bytes, secret: bytes | None, key: Ed25519PublicKey | None) -> bool:
    """Whether every scheme that was agreed on has a signature that holds, over exactly these bytes, made just now."""
    try:
        stamp = headers["webhook-timestamp"]
        signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
        if abs(time.time() - int(stamp)) > 300:  # noqa: PLR2004 - five minutes, as Standard Webhooks has it
            return False
        given = [each.partition(",")[::2] for each in headers["webhook-signature"].split()]
    except (KeyError, ValueError):
        return False
    agreed = 0
    if secret is not None:
        made = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        if not any(version == "v1" and hmac.compare_digest(text, made) for version, text in given):
            return False
        agreed += 1
    if key is not None:
        if not any(version == "v1a" and _holds(key, text, signed) for version, text in given):
            return False
        agreed += 1
    return agreed > 0


def _holds(key: Ed25519PublicKey, text: str, signed: bytes) -> bool:
    try:
        key.verify(base64.b64decode(text, validate=True), signed)
    except (InvalidSignature, ValueError):
        return False
    return True


class Receiver(BaseHTTPRequestHandler):
    """One delivery."""

    protocol_version = "HTTP/1.1"
    file: ClassVar[int]
    secret: ClassVar[bytes | None]
    key: ClassVar[Ed25519PublicKey | None]
    chance: ClassVar[random.Random]

    def do_POST(self) -> None:
        """Verify, write down, answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        lot = self.chance.random()
        if lot < UNANSWERED:
            self.close_connection = True
            return
        if lot < UNANSWERED + REFUSED:
            self._answer(500)
            return
        if lot < UNANSWERED + REFUSED + LATE:
            time.sleep(self.chance.random() * 2)
        line: dict[str, Any] = {
            "id": headers.get("webhook-id"),
            "genuine": genuine(headers, body, self.secret, self.key),
            "body": body.decode("utf-8", "replace"),
        }
        os.write(self.file, json.dumps(line).encode() + b"\n")  # one write: whole lines, or a torn last one
        os.fsync(self.file)
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def main(port: str, file: str, seed: str, secret: str, public_key: str) -> None:
    """Serve until killed."""
    Receiver.file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    Receiver.secret = None if secret == "-" else base64.b64decode(secret.removeprefix("whsec_"))  # noqa: S105 - none
    raw = None if public_key == "-" else base64.b64decode(public_key.removeprefix("whpk_"))
    Receiver.key = None if raw is None else Ed25519PublicKey.from_public_bytes(raw)
    Receiver.chance = random.Random(seed)  # noqa: S311 - mishaps that can be had again
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
