"""Standard Webhooks 1.0.0: the three headers, and the two signatures `v1` and `v1a`.

What is signed is `id.timestamp.body`, over the exact bytes of the body; ids of ours hold no full stop. `v1` is HMAC-SHA256
under a secret shared with one receiver (`whsec_…`); `v1a` is Ed25519 under the node's webhook key, whose public half
(`whpk_…`) anybody may fetch. Several signatures stand side by side, parted by blanks, while keys are rotated.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.domain.keys import PublicKey, Signer

Scheme = Literal["v1", "v1a"]

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what a secret begins with
PUBLIC_PREFIX: Final = "whpk_"
SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64; 32 is the strength of SHA-256."""


def new_secret() -> bytes:
    """A fresh secret for one subscription."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """The form in which a receiver is given its secret, once."""
    return SECRET_PREFIX + b64encode(secret).decode("ascii")


def public_text(key: PublicKey) -> str:
    """The published form of the node's webhook key."""
    return PUBLIC_PREFIX + b64encode(key.raw).decode("ascii")


def signed_bytes(message_id: str, timestamp: int, body: bytes) -> bytes:
    """What both schemes sign. `timestamp` is in unix seconds."""
    return f"{message_id}.{timestamp}.".encode("ascii") + body


def sign_v1(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…` signature."""
    # Not `hmac.digest`: it lets other threads run while it computes, and the sender's loop then waits for them to be done, which
    # takes ten times as long as the signature.
    digest = hmac.new(secret, signed_bytes(message_id, timestamp, body), "sha256").digest()
    return "v1," + b64encode(digest).decode("ascii")


def sign_v1a(signer: Signer, message_id: str, timestamp: int, body: bytes) -> str:
    """One `v1a,…` signature. `signer` holds an Ed25519 key."""
    return "v1a," + b64encode(signer.sign(signed_bytes(message_id, timestamp, body))).decode("ascii")


def forged(signature: str) -> str:
    """A signature of the same form that is nobody's."""
    scheme, _, text = signature.partition(",")
    return f"{scheme},{b64encode(bytes(byte ^ 0xFF for byte in b64decode(text))).decode('ascii')}"


def headers(message_id: str, timestamp: int, signatures: Iterable[str]) -> dict[str, str]:
    """The three headers of a delivery."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
