"""Sealed bodies: who opens them, what they are bound to, and what their length tells."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import x25519
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSignature, UnacceptableKey
from app.domain.keys import ENCRYPTION_ALGORITHMS, MLKEM_BYTES, EncryptionAlgorithm, PublicKey
from app.domain.sealing import STEPS, CannotOpen, EncryptionKey, info, padded_length, seal, seal_nothing
from app.domain.statement import Part
from app.keyfiles import check_possession

BINDING = {
    "origin": "ee.example/log/1",
    "notice_id": "019966a8-0000-7000-8000-000000000000",
    "part": "main",
    "kid": "NL/encryption/1",
}
BOUND = info(**BINDING)
KEYS = {alg: EncryptionKey.generate(alg) for alg in ENCRYPTION_ALGORITHMS}
P = 2**255 - 19
SMALL_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
)


@given(content=st.binary(max_size=20_000), alg=st.sampled_from(ENCRYPTION_ALGORITHMS))
def test_what_was_sealed_opens_with_its_key_and_shows_its_length_in_steps_only(
    content: bytes, alg: EncryptionAlgorithm
) -> None:
    part = Part(os.urandom(32), content)
    sealed = seal(part, KEYS[alg].public, BOUND)
    assert KEYS[alg].open_sealed(sealed, BOUND) == part
    overhead = len(seal(Part(bytes(32), b""), KEYS[alg].public, BOUND)) - STEPS[0]
    assert len(sealed) - overhead == padded_length(len(content))
    assert padded_length(len(content)) in STEPS


def test_what_is_longer_than_the_last_step_is_padded_to_a_multiple_of_it() -> None:
    assert padded_length(STEPS[-1]) == 2 * STEPS[-1]
    content = os.urandom(3 * STEPS[-1])
    sealed = seal(Part(bytes(32), content), KEYS["X25519"].public, BOUND)
    assert KEYS["X25519"].open_sealed(sealed, BOUND).content == content


@pytest.mark.parametrize("alg", ENCRYPTION_ALGORITHMS)
@pytest.mark.parametrize("changed", BINDING)
def test_a_sealing_does_not_open_as_another_part_notice_log_or_key(
    alg: EncryptionAlgorithm, changed: str
) -> None:
    sealed = seal(Part(bytes(32), b"{}"), KEYS[alg].public, BOUND)
    with pytest.raises(CannotOpen):
        KEYS[alg].open_sealed(sealed, info(**(BINDING | {changed: BINDING[changed][:-1] + "2"})))


@pytest.mark.parametrize("alg", ENCRYPTION_ALGORITHMS)
def test_no_other_key_opens_it(alg: EncryptionAlgorithm) -> None:
    sealed = seal(Part(bytes(32), b"{}"), KEYS[alg].public, BOUND)
    with pytest.raises(CannotOpen):
        EncryptionKey.generate(alg).open_sealed(sealed, BOUND)


@pytest.mark.parametrize("alg", ENCRYPTION_ALGORITHMS)
def test_a_flipped_byte_anywhere_keeps_it_closed(alg: EncryptionAlgorithm) -> None:
    sealed = seal(Part(bytes(32), b"{}"), KEYS[alg].public, BOUND)
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1
        with pytest.raises(CannotOpen):
            KEYS[alg].open_sealed(bytes(altered), BOUND)
    for cut in (0, 1, 31, 32, len(sealed) - 1):
        with pytest.raises(CannotOpen):
            KEYS[alg].open_sealed(sealed[:cut], BOUND)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"x" * 35,
        bytes(1024)[:-1],
        bytes(32) + (2000).to_bytes(4, "big") + bytes(988),
        bytes(36) + b"x" * 988,
    ],
    ids=["nothing", "too short", "no step", "longer than it is", "padding that says something"],
)
def test_a_key_that_opens_rubbish_says_so(plain: bytes) -> None:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    to = x25519.X25519PublicKey.from_public_bytes(KEYS["X25519"].public.raw)
    with pytest.raises(CannotOpen):
        KEYS["X25519"].open_sealed(suite.encrypt(plain, to, info=BOUND), BOUND)


@pytest.mark.parametrize("alg", ENCRYPTION_ALGORITHMS)
def test_a_sealing_of_nothing_has_the_same_length_and_opens_for_nobody(alg: EncryptionAlgorithm) -> None:
    for length in (2, 2000, 70_000):
        nothing = seal_nothing(alg, length)
        assert len(nothing) == len(seal(Part(bytes(32), bytes(length)), KEYS[alg].public, BOUND))
        with pytest.raises(CannotOpen):
            KEYS[alg].open_sealed(nothing, BOUND)


def test_the_encapsulated_points_of_nothing_lie_on_the_curve_as_real_ones_do() -> None:
    # Half of all random strings lie on the twist: sixteen on the curve in a row would be an accident of one in 65,536.
    def on_curve(u: int) -> bool:
        square = (u * u * u + 486662 * u * u + u) % P
        return pow(square, (P - 1) // 2, P) in (0, 1)

    points = [int.from_bytes(seal_nothing("X25519", 2)[:32], "little") for _ in range(16)]
    assert all(on_curve(u) for u in points)


@pytest.mark.parametrize("alg", ENCRYPTION_ALGORITHMS)
def test_a_public_key_is_admitted_as_it_was_made(alg: EncryptionAlgorithm) -> None:
    public = KEYS[alg].public
    assert PublicKey.admit_encryption(alg, public.raw) == public
    with pytest.raises(UnacceptableKey):
        PublicKey.admit(alg, public.raw)
    with pytest.raises(UnacceptableKey):
        PublicKey.admit_encryption(alg, public.raw + b"x")
    with pytest.raises(UnacceptableKey):
        PublicKey.admit_encryption("Ed25519", public.raw)
    with pytest.raises(InvalidSignature):
        public.verify(bytes(64), b"")


@pytest.mark.parametrize("u", [*SMALL_ORDER, P, P + 1, 2**255 - 1, 2**255])
def test_points_that_agree_on_no_secret_are_refused(u: int) -> None:
    raw = u.to_bytes(32, "little")
    with pytest.raises(UnacceptableKey):
        PublicKey.admit_encryption("X25519", raw)
    with pytest.raises(UnacceptableKey):
        PublicKey.admit_encryption("X-Wing", KEYS["X-Wing"].public.raw[:MLKEM_BYTES] + raw)


def test_a_lattice_key_out_of_range_is_refused() -> None:
    # FIPS 203 section 7.2: every coefficient is below 3329.
    with pytest.raises(UnacceptableKey):
        PublicKey.admit_encryption("X-Wing", b"\xff" * MLKEM_BYTES + KEYS["X-Wing"].public.raw[MLKEM_BYTES:])


def test_an_x_wing_key_follows_from_its_seed_as_the_draft_says() -> None:
    # draft-connolly-cfrg-xwing-kem appendix C, first vector: the seed and the beginning of its public key.
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = EncryptionKey("X-Wing", seed).public.raw
    assert public.hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5")


def test_a_key_that_signs_nothing_proves_nothing() -> None:
    public = KEYS["X-Wing"].public
    check_possession("EE/encryption/1", "encryption", "EE", public, b"")
    with pytest.raises(UnacceptableKey):
        check_possession("EE/encryption/1", "encryption", "EE", public, b"x" * 64)
