"""Keys in a token, tried with SoftHSM: the same signatures as from a file, and no way to learn the PIN."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.cli import app
from app.domain.errors import Malformed, UnsafeKeyFile
from app.hsm import HsmUnavailable, KeyUri, open_hsm
from app.keyfiles import KeyCard, read_card
from tests import examples

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
)
PIN, SO_PIN = "4711-0815", "0000-1111"
MODULE = next((path for path in LIBRARIES if Path(path).exists()), None)
# A developer's machine may have no token library; CI installs one, and there its absence is a failure.
needs_softhsm = pytest.mark.skipif(
    MODULE is None and "CI" not in os.environ,
    reason="no SoftHSM here: apt-get install softhsm2 (CI fails without it)",
)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token `verbale` with an Ed25519 key `ed` and a P-256 key `p256`; returns the file with its PIN.

    The library reads its configuration when it is loaded, once for each process: hence one token for all of these tests.
    """
    assert MODULE is not None, "SoftHSM is missing: apt-get install softhsm2"
    assert shutil.which("softhsm2-util"), "softhsm2-util is missing: apt-get install softhsm2"
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "verbale", "--pin", PIN, "--so-pin", SO_PIN],
        check=True,
        capture_output=True,
    )
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    found = pkcs11.lib(MODULE).get_token(token_label="verbale")
    with found.open(user_pin=PIN, rw=True) as session:
        for label, kind, parameters in (
            ("ed", pkcs11.KeyType.EC_EDWARDS, b"\x13\x0cedwards25519"),
            ("p256", pkcs11.KeyType.EC, encode_named_curve_parameters("secp256r1")),
        ):
            made = session.create_domain_parameters(
                kind, {pkcs11.Attribute.EC_PARAMS: parameters}, local=True
            )
            made.generate_keypair(label=label, store=True)
    pin = folder / "pin"
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o600)
    return pin


def uri(token: Path, key: str, **changes: str) -> str:
    query = {"module-path": MODULE or "", "pin-source": f"file:{token}"} | changes
    return f"pkcs11:token=verbale;object={key}?" + "&".join(f"{n}={v}" for n, v in query.items() if v)


@needs_softhsm
@pytest.mark.parametrize(("key", "alg"), [("ed", "Ed25519"), ("p256", "ES256")])
def test_a_key_in_a_token_signs_like_one_in_a_file(token: Path, key: str, alg: str) -> None:
    signer = open_hsm(uri(token, key))
    assert signer.public.alg == alg
    for message in (b"", b"a notice", b"x" * 16_384):
        signer.public.verify(signer.sign(message), message)
    KeyCard.make(signer, "EE/cp/1", "notices").check()


@needs_softhsm
def test_a_notice_is_signed_and_its_card_made_on_the_command_line(token: Path, tmp_path: Path) -> None:
    run = CliRunner()
    card = tmp_path / "ee-cp.pub"
    named = run.invoke(app, ["keys", "card", uri(token, "ed"), str(card), "--kid", "EE/cp/1"])
    assert named.exit_code == 0, named.output
    notice = tmp_path / "notice.json"
    notice.write_text(json.dumps(examples.best_practice(issuer="EE")))
    signed = run.invoke(
        app,
        [
            "notice",
            "sign",
            str(notice),
            "--key",
            uri(token, "ed"),
            "--kid",
            "EE/cp/1",
            "--origin",
            "ee.example/log/1",
        ],
    )
    assert signed.exit_code == 0, signed.output
    from app.domain.statement import parse

    statement = parse(json.loads(signed.stdout)["statement"].encode())
    read_card(card).key.verify(statement.signature, statement.signing_input)
    assert PIN not in named.output + signed.output


@needs_softhsm
def test_what_a_token_refuses_is_said_without_the_pin(token: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong-pin-9999\n")
    wrong.chmod(0o600)
    from app import hsm

    hsm.log_out()
    with pytest.raises(HsmUnavailable) as refused:
        open_hsm(uri(token, "ed", **{"pin-source": f"file:{wrong}"}))
    assert "9999" not in str(refused.value)
    with pytest.raises(HsmUnavailable, match="0 private keys"):
        open_hsm(uri(token, "nosuch"))
    with pytest.raises(HsmUnavailable, match="0 tokens"):
        open_hsm(uri(token, "ed").replace("token=verbale", "token=other"))
    with pytest.raises(HsmUnavailable, match="cannot be loaded"):
        open_hsm(uri(token, "ed", **{"module-path": str(wrong)}))
    token.chmod(0o644)
    hsm.log_out()
    try:
        with pytest.raises(UnsafeKeyFile, match="can be read by others"):
            open_hsm(uri(token, "ed"))
    finally:
        token.chmod(0o600)
    with pytest.raises(UnsafeKeyFile, match="Nobody is here to type the PIN"):
        open_hsm(uri(token, "ed", **{"pin-source": ""}))
    assert open_hsm(uri(token, "ed", **{"pin-source": ""}), ask_pin=lambda: PIN).sign(b"x")


# ── URIs: no token needed ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_uri_is_read_as_rfc_7512_says() -> None:
    read = KeyUri.parse(
        "pkcs11:token=My%20token;object=ee%3Bcp;id=%01%FF;type=private?module-path=/a/b.so&pin-source=file:/etc/p"
    )
    assert (read.token, read.object, read.id) == ("My token", "ee;cp", b"\x01\xff")
    assert (read.module, read.pin_file) == (Path("/a/b.so"), Path("/etc/p"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pkcs11:object=a?module-path=/m&pin-value=1234", "holds a PIN"),
        ("pkcs11:object=a", "lacks module-path"),
        ("pkcs11:token=a?module-path=/m", "names no key"),
        ("pkcs11:object=a;object=b?module-path=/m", "names object twice"),
        ("pkcs11:object=a;type=public?module-path=/m", "no private key"),
        ("pkcs11:objekt=a?module-path=/m", "is no attribute"),
        ("pkcs11:object=a%2?module-path=/m", "percent-encoded"),
        ("pkcs11:object=%FF?module-path=/m", "not UTF-8"),
        ("pkcs11:object=a;slot-id=1?module-path=/m", "does not compare: slot-id"),
        ("pkcs11:object=a?module-path=/m&pin-source=|/bin/cat", "a file of mode 0600"),
        ("pkcs11:object=a?module-path=/m&pin-source=file:relative", "absolute path"),
        ("file:a", "begins with pkcs11:"),
    ],
)
def test_a_uri_that_is_unclear_or_unsafe_is_refused(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why) as refused:
        KeyUri.parse(text)
    assert "1234" not in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        KeyUri.parse(f"pkcs11:{text}")
