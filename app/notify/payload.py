"""The body of a delivery: thin, so that every reading of the notice itself stays an audited request.

It says what happened to which notice, under which marking, and where the proof of it stands: origin, index and leaf hash
let a receiver order what it gets, drop repeats and check everything against the log. Well under 20 kB, always.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app.domain.encoding import b64u_encode
from app.domain.handling import Tlp

MAX_PAYLOAD: Final = 20_000
"""What Standard Webhooks advises at most, bytes. A thin payload has about 600."""


def rfc3339(at_ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Told:
    """What one event says. `type`, `tlp_rank` are None for an erased notice: nothing but its id is left.

    Attributes:
        at: when this node recorded it, unix ms.
        version: of the notice the event speaks of.
        status: of the notice when the payload was made.
        origin, index, leaf_hash: the leaf that caused the event.
        acknowledgement: id of the acknowledging statement and its State.
    """

    event_type: str
    at: int
    notice_id: str
    version: int | None
    issuer: str
    notice_type: str | None
    tlp_rank: int | None
    status: str
    origin: str
    index: int
    leaf_hash: bytes | None
    acknowledgement: tuple[str | None, str] | None = None

    def body(self, public_url: str) -> bytes:
        """The exact bytes to sign and send."""
        data: dict[str, Any] = {
            "id": self.notice_id,
            "version": self.version,
            "issuer": self.issuer,
            "type": self.notice_type,
            "tlp": None if self.tlp_rank is None else Tlp(self.tlp_rank).label,
            "status": self.status,
            "origin": self.origin,
            "index": self.index,
            "leaf_hash": None if self.leaf_hash is None else b64u_encode(self.leaf_hash),
            "url": f"{public_url}/v1/notices/{self.notice_id}",
        }
        if self.acknowledgement is not None:
            statement_id, state = self.acknowledgement
            data["acknowledgement"] = {"id": statement_id, "state": state}
        return orjson.dumps({"type": self.event_type, "timestamp": rfc3339(self.at), "data": data})


def trial_body(event_type: str, at_ms: int, subscription_id: str) -> bytes:
    """The body of a test delivery, which concerns no notice."""
    return orjson.dumps(
        {"type": event_type, "timestamp": rfc3339(at_ms), "data": {"subscription": subscription_id}}
    )
