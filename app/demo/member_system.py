"""A member system: a small HTTP server that takes webhooks and verifies them as Standard Webhooks tells receivers to.

Written as an integrator would, against the specification and with nothing of a node but the secret it was given, so that
the demo shows that a delivery can be checked from outside. The tests check the same with a public library.
"""

from __future__ import annotations

import hmac
import json
import queue
import threading
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLERANCE_S: Final = 300
"""What the specification advises: an older delivery may be a replay."""

MAX_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Arrived:
    """One delivery.

    Attributes:
        headers: names in small letters.
        fault: why it does not verify, or None.
        at: when it came, monotonic seconds.
    """

    headers: Mapping[str, str]
    body: bytes
    fault: str | None
    at: float

    @property
    def event(self) -> dict[str, Any]:
        """The body, read. Ask only if there is no fault."""
        event: dict[str, Any] = json.loads(self.body)
        return event


def fault_of(secret: str, headers: Mapping[str, str], body: bytes, *, now: float) -> str | None:
    """Check a delivery (scheme v1); None if it verifies.

    Args:
        secret: `whsec_…`, as the subscription's answer gave it.
        headers: names in small letters.
        now: unix seconds.
    """
    message_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    if not message_id or not timestamp or not timestamp.isdigit():
        return "webhook-id or webhook-timestamp is missing"
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return "webhook-timestamp is more than five minutes off"
    key = b64decode(secret.removeprefix("whsec_"))
    expected = b64encode(
        hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, sha256).digest()
    ).decode()
    for signature in headers.get("webhook-signature", "").split():
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value.encode(), expected.encode()):
            return None
    return "no signature holds"


class MemberSystem:
    """The server, on a free port of loopback. `secret` is set once the subscription is made."""

    def __init__(self) -> None:
        """Listen; deliveries wait in `arrived`."""
        self.secret = ""
        self.arrived: queue.Queue[Arrived] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="member system", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it takes deliveries."""
        return f"http://127.0.0.1:{self._server.server_port}/hooks/verbale"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, headers: Mapping[str, str], body: bytes) -> bool:
        at = time.monotonic()
        fault = fault_of(self.secret, headers, body, now=time.time())
        self.arrived.put(Arrived(headers, body, fault, at))
        return fault is None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length") or 0), MAX_BODY)
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(204 if take(headers, self.rfile.read(length)) else 401)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                """Say nothing: the demo tells what arrived."""

        return Handler
