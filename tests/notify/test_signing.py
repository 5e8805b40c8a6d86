"""Signatures that people's libraries verify, and what they refuse."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.errors import UnsafeKeyFile
from app.domain.keys import Ed25519Signer
from app.notify import signing
from app.notify.keys import SEALING_FILE, SIGNING_FILE, WebhookKeys
from tests.interop.live import flip
from tests.interop.test_openssl import verifies

if TYPE_CHECKING:
    from pathlib import Path

BODY = '{"type":"notice.issued","data":{"party":"Ünïcode \\u202e"}}'.encode()
SECRET = bytes(range(32))


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def v1_headers(body: bytes = BODY, message_id: str = "0190-a", at: int | None = None) -> dict[str, str]:
    at = now() if at is None else at
    return signing.headers(message_id, at, [signing.sign_v1(SECRET, message_id, at, body)])


def test_the_public_library_verifies_v1() -> None:
    assert Webhook(signing.secret_text(SECRET)).verify(BODY, v1_headers()) == json.loads(BODY)


@pytest.mark.parametrize(
    "tampering",
    [
        {"webhook-id": "0190-b"},
        {"webhook-timestamp": str(now() - 1)},
        {"webhook-signature": "v1," + "A" * 43 + "="},
        {"webhook-signature": "v2,abc"},
    ],
)
def test_the_public_library_refuses_tampered_headers(tampering: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.secret_text(SECRET)).verify(BODY, v1_headers() | tampering)


@pytest.mark.parametrize("place", range(0, len(BODY), 7))
def test_the_public_library_refuses_a_flipped_bit_in_the_body(place: int) -> None:
    tampered = bytearray(BODY)
    tampered[place] ^= 1
    with pytest.raises((WebhookVerificationError, UnicodeDecodeError)):
        Webhook(signing.secret_text(SECRET)).verify(bytes(tampered), v1_headers())


def test_an_old_signature_is_refused() -> None:
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(signing.secret_text(SECRET)).verify(BODY, v1_headers(at=now() - 301))


def test_several_signatures_stand_side_by_side() -> None:
    at = now()
    old, new = bytes(24), SECRET
    both = [signing.sign_v1(s, "m", at, BODY) for s in (new, old)]
    asymmetric = signing.sign_v1a(Ed25519Signer.generate(), "m", at, BODY)
    headers = signing.headers("m", at, [asymmetric, *both])
    for secret in (old, new):
        Webhook(signing.secret_text(secret)).verify(BODY, headers)


def test_v1a_verifies_under_the_published_key_and_no_tampering_does() -> None:
    signer = Ed25519Signer.generate()
    key = Ed25519PublicKey.from_public_bytes(
        b64decode(signing.public_text(signer.public).removeprefix("whpk_"))
    )
    version, _, text = signing.sign_v1a(signer, "m", 7, BODY).partition(",")
    signature = b64decode(text, validate=True)
    assert version == "v1a"
    key.verify(signature, b"m.7." + BODY)
    for forged in (b"n.7." + BODY, b"m.8." + BODY, b"m.7." + BODY + b" ", b"m.7." + BODY[:-1]):
        with pytest.raises(InvalidSignature):
            key.verify(signature, forged)


# ── keys at rest ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    first = WebhookKeys.open(tmp_path / "keys", "EE")
    second = WebhookKeys.open(tmp_path / "keys", "EE")
    assert first.signer.public == second.signer.public
    assert second.unseal(first.seal(SECRET, "a"), "a") == SECRET
    for name in (SIGNING_FILE, SEALING_FILE):
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600


def test_a_sealed_secret_says_nothing_and_opens_for_its_subscription_only(tmp_path: Path) -> None:
    keys = WebhookKeys.open(tmp_path, "EE")
    sealed = keys.seal(SECRET, "a")
    assert SECRET not in sealed
    assert sealed != keys.seal(SECRET, "a")
    for wrong, id_ in ((sealed, "b"), (sealed[:-1], "a"), (b"\x02" + sealed[1:], "a"), (b"", "a")):
        with pytest.raises(UnsafeKeyFile):
            keys.unseal(wrong, id_)


def test_a_sealing_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    WebhookKeys.open(tmp_path, "EE")
    (tmp_path / SEALING_FILE).chmod(0o644)
    with pytest.raises(UnsafeKeyFile, match="chmod 600"):
        WebhookKeys.open(tmp_path, "EE")


def test_a_short_sealing_key_is_refused(tmp_path: Path) -> None:
    WebhookKeys.open(tmp_path, "EE")
    (tmp_path / SEALING_FILE).write_bytes(b"short")
    with pytest.raises(UnsafeKeyFile, match="32 bytes"):
        WebhookKeys.open(tmp_path, "EE")


def test_openssl_verifies_v1a_and_refuses_every_tampering(tmp_path: Path) -> None:
    signer = Ed25519Signer.generate()
    made = signing.sign_v1a(signer, "0190-a", 1_800_000_000, BODY)
    signature = b64decode(made.removeprefix("v1a,"))
    signed = signing.signed_bytes("0190-a", 1_800_000_000, BODY)
    assert verifies(signer.public.raw, signed, signature, tmp_path)
    tampered = [
        signing.signed_bytes("0190-b", 1_800_000_000, BODY),
        signing.signed_bytes("0190-a", 1_800_000_001, BODY),
        signing.signed_bytes("0190-a", 1_800_000_000, BODY + b" "),
        signing.signed_bytes("0190-a", 1_800_000_000, BODY[:-1]),
    ]
    for text in tampered:
        assert not verifies(signer.public.raw, text, signature, tmp_path)
    for place in range(0, 64, 9):
        assert not verifies(signer.public.raw, signed, flip(place)(signature), tmp_path)
    other = Ed25519Signer.generate().public.raw
    assert not verifies(other, signed, signature, tmp_path)
