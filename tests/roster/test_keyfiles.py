"""Private keys on disk and the cards beside them."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.domain.errors import InvalidSignature, Malformed, MalformedJson, UnacceptableKey, UnsafeKeyFile
from app.domain.keys import Algorithm
from app.keyfiles import (
    KID_SEGMENTS,
    KeyCard,
    card_path,
    create_key,
    fingerprint,
    generate,
    load_private,
    possession_message,
    read_card,
    state_of_kid,
    store_private,
)


@pytest.mark.parametrize("alg", ["Ed25519", "ES256"])
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_stored_key_signs_as_before(tmp_path: Path, alg: Algorithm, passphrase: bytes | None) -> None:
    path = tmp_path / "deep" / "key.pem"
    fresh = generate(alg)
    store_private(fresh, path, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = load_private(path, passphrase=passphrase)
    assert loaded.public == fresh.public
    fresh.public.verify(loaded.sign(b"message"), b"message")
    assert "PRIVATE" not in repr(loaded)


def test_a_permissive_umask_makes_no_readable_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store_private(generate(), tmp_path / "key.pem")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_an_existing_file_or_link_is_never_overwritten(tmp_path: Path) -> None:
    store_private(generate(), tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "link.pem").symlink_to(tmp_path / "elsewhere.pem")
    for name in ("key.pem", "link.pem"):
        with pytest.raises(UnsafeKeyFile, match="exists already"):
            store_private(generate(), tmp_path / name)
    assert (tmp_path / "key.pem").read_bytes() == before
    assert not (tmp_path / "elsewhere.pem").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_key_that_others_can_read_is_refused_with_advice(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    store_private(generate(), path)
    path.chmod(mode)
    with pytest.raises(UnsafeKeyFile, match="chmod 600"):
        load_private(path)


def test_a_link_inside_its_directory_is_followed_and_one_out_of_it_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "data").mkdir(parents=True)
    store_private(generate(), tmp_path / "a" / "data" / "key.pem")
    (tmp_path / "a" / "key.pem").symlink_to("data/key.pem")
    load_private(tmp_path / "a" / "key.pem")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "key.pem").symlink_to(tmp_path / "a" / "data" / "key.pem")
    with pytest.raises(UnsafeKeyFile, match="is a link"):
        load_private(tmp_path / "b" / "key.pem")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b" / "loop")
    with pytest.raises(UnsafeKeyFile):
        load_private(tmp_path / "b" / "loop")


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeKeyFile, match="no key file"):
        load_private(tmp_path / "absent")
    with pytest.raises(UnsafeKeyFile, match="regular file"):
        load_private(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UnsafeKeyFile, match="regular file"):
        load_private(tmp_path / "pipe")
    for name, content in {"empty": b"", "text": b"hello", "large": bytes(1 << 20)}.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsafeKeyFile):
            load_private(tmp_path / name)
    others: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "p384": ec.generate_private_key(ec.SECP384R1()),
    }
    for name, key in others.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(UnsafeKeyFile, match="neither Ed25519 nor P-256"):
            load_private(tmp_path / name)


def test_passphrases_are_asked_for_and_checked(tmp_path: Path) -> None:
    store_private(generate(), tmp_path / "locked", passphrase=b"right")
    store_private(generate(), tmp_path / "open")
    with pytest.raises(UnsafeKeyFile, match="needs its passphrase"):
        load_private(tmp_path / "locked")
    with pytest.raises(UnsafeKeyFile, match="passphrase is wrong"):
        load_private(tmp_path / "locked", passphrase=b"wrong")
    with pytest.raises(UnsafeKeyFile, match="has no passphrase"):
        load_private(tmp_path / "open", passphrase=b"right")


def test_a_published_sample_key_never_signs(tmp_path: Path) -> None:
    signer = store_private(generate(), tmp_path / "key.pem")
    with pytest.raises(UnsafeKeyFile, match="sample key"):
        load_private(tmp_path / "key.pem", samples={fingerprint(signer.public)})


def test_a_new_key_has_a_card_that_can_be_mailed(tmp_path: Path) -> None:
    signer, made = create_key(tmp_path / "cp.pem", "EE/cp/1", "notices")
    pub = card_path(tmp_path / "cp.pem")
    assert pub.name == "cp.pem.pub"
    assert pub.read_bytes().count(b"\n") == 1
    assert set(json.loads(pub.read_bytes())) == {"kid", "use", "alg", "public", "proof"}
    assert read_card(pub) == made
    assert made.key == signer.public
    assert made.state == "EE"
    with pytest.raises(UnsafeKeyFile):
        create_key(tmp_path / "cp.pem", "EE/cp/2", "notices")


def test_a_malformed_key_id_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="Write it like EE/cp/1"):
        create_key(tmp_path / "cp.pem", "EE/log/1", "notices")
    assert list(tmp_path.iterdir()) == []


def test_the_possession_message_is_the_documented_bytes() -> None:
    signer = generate()
    assert possession_message("EE/cp/1", "notices", "EE", signer.public) == (
        b"verbale/key/v1\x00EE/cp/1\x00notices\x00EE\x00Ed25519\x00" + signer.public.raw
    )


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("kid", "EE/cp/2"),
        ("kid", "JP/cp/1"),
        ("use", "log"),
        ("alg", "ES256"),
        ("proof", "AA"),
        ("public", "AA"),
    ],
)
def test_a_card_with_any_member_changed_is_refused(member: str, value: str) -> None:
    card = KeyCard.make(generate(), "EE/cp/1", "notices").to_dict()
    with pytest.raises((Malformed, UnacceptableKey)):
        KeyCard.from_line(json.dumps({**card, member: value}).encode())


def test_a_card_of_a_small_order_key_is_refused() -> None:
    card = KeyCard.make(generate(), "EE/cp/1", "notices").to_dict()
    identity = "AQ" + "A" * 41
    with pytest.raises(UnacceptableKey, match="prime order"):
        KeyCard.from_line(json.dumps({**card, "public": identity}).encode())


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"kid":1}', b'{"kid":"a","kid":"b"}', b"\xff", b"[" * 100]
)
def test_a_card_that_is_no_card_is_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises((Malformed, MalformedJson)):
        KeyCard.from_line(raw)
    (tmp_path / "x.pub").write_bytes(raw)
    with pytest.raises(Malformed, match=r"x\.pub"):
        read_card(tmp_path / "x.pub")


def test_a_failed_proof_is_not_remembered_as_good() -> None:
    good = KeyCard.make(generate(), "EE/cp/1", "notices")
    bad = KeyCard(good.kid, good.use, generate().public, good.proof)
    for _ in range(2):
        good.check()
        with pytest.raises(UnacceptableKey):
            bad.check()
    with pytest.raises(InvalidSignature):
        good.key.verify(good.proof, b"anything else")


@pytest.mark.parametrize(
    "kid",
    ["", "EE/cp/0", "EE/cp/01", "ee/cp/1", "EE/cp/1 ", "EE/cp/1\n", "EEE/cp/1", "EE/cp", "EE/cp/1234567"],
)
def test_a_key_id_has_one_spelling(kid: str) -> None:
    with pytest.raises(Malformed):
        state_of_kid(kid, "notices")


def test_every_use_has_its_own_segment() -> None:
    assert len(set(KID_SEGMENTS.values())) == len(KID_SEGMENTS)


def test_a_passphrase_is_stretched_by_scrypt_in_a_form_that_openssl_reads(tmp_path: Path) -> None:
    import shutil
    import subprocess

    path = tmp_path / "key.pem"
    signer, _ = create_key(path, "EE/cp/1", "notices", passphrase=b"correct horse")
    der = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    assert bytes.fromhex("06092b06010401da47040b") in der  # OID of scrypt, RFC 7914
    assert load_private(path, passphrase=b"correct horse").public == signer.public
    for wrong in (b"correct horsf", b"", None):
        with pytest.raises(UnsafeKeyFile):
            load_private(path, passphrase=wrong)
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not here")
    shown = subprocess.run(
        [openssl, "pkey", "-in", path, "-passin", "pass:correct horse", "-pubout", "-outform", "DER"],
        check=True,
        capture_output=True,
    ).stdout
    assert shown.endswith(signer.public.raw)
