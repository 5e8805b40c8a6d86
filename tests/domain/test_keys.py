"""Keys and signatures: what is admitted, and that every node agrees on every signature."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSignature, UnacceptableKey
from app.domain.keys import Ed25519Signer, Es256Signer, PublicKey
from tests.federation.world import seeded

P = 2**255 - 19
ED25519, ES256 = seeded("a key"), Es256Signer.generate()

SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


@pytest.mark.parametrize("key", [ED25519, ES256], ids=["Ed25519", "ES256"])
def test_a_signature_holds_for_its_message_and_key_alone(key: Ed25519Signer | Es256Signer) -> None:
    signature = key.sign(b"message")
    assert len(signature) == 64
    key.public.verify(signature, b"message")
    with pytest.raises(InvalidSignature):
        key.public.verify(signature, b"messagf")
    other = Ed25519Signer.generate() if key is ED25519 else Es256Signer.generate()
    with pytest.raises(InvalidSignature):
        other.public.verify(signature, b"message")


@pytest.mark.parametrize("key", [ED25519, ES256], ids=["Ed25519", "ES256"])
def test_no_bit_of_a_signature_can_be_flipped(key: Ed25519Signer | Es256Signer) -> None:
    signature = key.sign(b"message")
    for position in range(512):
        changed = bytearray(signature)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidSignature):
            key.public.verify(bytes(changed), b"message")


@pytest.mark.parametrize("key", [ED25519, ES256], ids=["Ed25519", "ES256"])
@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_signature_has_64_bytes(key: Ed25519Signer | Es256Signer, size: int) -> None:
    with pytest.raises(InvalidSignature):
        key.public.verify(b"\x01" * size, b"message")


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_a_small_order_key_is_not_admitted_although_the_library_takes_it(raw: str) -> None:
    ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))
    with pytest.raises(UnacceptableKey):
        PublicKey.admit("Ed25519", bytes.fromhex(raw))


def test_one_signature_would_hold_for_any_message_under_a_small_order_key() -> None:
    """Why: and why a signature whose R has small order is refused too, whatever the key."""
    identity = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[1]))
    forged = bytes.fromhex(SMALL_ORDER[1]) + bytes(32)
    identity.verify(forged, b"anything")
    identity.verify(forged, b"anything else")
    with pytest.raises(InvalidSignature, match="small order"):
        PublicKey("Ed25519", bytes.fromhex(SMALL_ORDER[1])).verify(forged, b"anything")


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_an_encoding_that_is_not_canonical_is_not_admitted(y: int, sign: int) -> None:
    with pytest.raises(UnacceptableKey):
        PublicKey.admit("Ed25519", (y % 2**255 | sign << 255).to_bytes(32, "little"))


@given(st.binary(min_size=32, max_size=32))
def test_bytes_at_random_are_no_key_or_one_of_prime_order(raw: bytes) -> None:
    """Of the points of the curve one in eight is of prime order."""
    try:
        key = PublicKey.admit("Ed25519", raw)
    except UnacceptableKey:
        return
    assert PublicKey.from_text("Ed25519", key.text()) == key


@pytest.mark.parametrize(
    ("alg", "raw"),
    [
        ("Ed25519", b""),
        ("Ed25519", b"\x01" * 31),
        ("ES256", b"\x04" + b"\x01" * 64),
        ("ES256", b"\x02" + b"\x01" * 32),
        ("ES256", b"\x04" + bytes(64)),
        ("EdDSA", b"\x01" * 32),
        ("none", b""),
    ],
)
def test_what_is_no_key_is_not_admitted(alg: str, raw: bytes) -> None:
    with pytest.raises(UnacceptableKey):
        PublicKey.admit(alg, raw)


@pytest.mark.parametrize("key", [ED25519, ES256], ids=["Ed25519", "ES256"])
def test_a_good_key_is_admitted(key: Ed25519Signer | Es256Signer) -> None:
    assert PublicKey.admit(key.public.alg, key.public.raw) == key.public


def test_a_key_does_not_show_itself_in_a_representation() -> None:
    assert "private=" not in repr(ED25519)
    assert ED25519.public.raw.hex() not in repr(ED25519.public)
