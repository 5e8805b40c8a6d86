"""openssl by hand, as an auditor at a terminal: the signatures under a checkpoint."""

import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interop.live import Live, flip
from tests.interop.served import Head, ServedLog
from tests.interop.stock_roster import only_key_of

ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
"""What comes before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410)."""


def verifies(key: bytes, text: bytes, signature: bytes, directory: Path) -> bool:
    """Whether `openssl pkeyutl` says that the signature holds."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is not on the PATH: install it (Debian: apt-get install openssl)")
    pem = f"-----BEGIN PUBLIC KEY-----\n{b64encode(ED25519_SPKI + key).decode()}\n-----END PUBLIC KEY-----\n"
    (directory / "public").write_text(pem)
    (directory / "text").write_bytes(text)
    (directory / "signature").write_bytes(signature)
    command = "openssl pkeyutl -verify -pubin -inkey public -rawin -in text -sigfile signature"
    done = subprocess.run(command.split(), cwd=directory, capture_output=True, text=True, check=False)
    said = (done.returncode, done.stdout.strip())
    assert said in {(0, "Signature Verified Successfully"), (1, "Signature Verification Failure")}, done
    return done.returncode == 0


def test_openssl_verifies_every_signed_head(
    live: Live, served: ServedLog, log_key: bytes, tmp_path: Path
) -> None:
    for size in live.sizes:
        head = served.head(size)
        assert verifies(log_key, head.text, head.signature_of(live.origins["EE"]), tmp_path)


def test_openssl_verifies_the_cosignatures_of_the_other_states(
    live: Live, served: ServedLog, documents: dict[str, Any], tmp_path: Path
) -> None:
    head = served.head(live.sizes[-1])
    for state in ("US", "NL"):
        key = only_key_of(documents[state], "witness")
        value = head.signature_of(documents[state]["witness_name"])
        at = int.from_bytes(value[:8], "big")
        message = b"cosignature/v1\ntime %d\n" % at + head.text
        assert verifies(key, message, value[8:], tmp_path)
        assert not verifies(key, message.replace(b"time %d" % at, b"time %d" % (at + 1)), value[8:], tmp_path)


@pytest.mark.parametrize(
    "bend",
    [
        lambda head: replace(head, text=head.text.replace(b"ee.", b"us.", 1)),
        lambda head: replace(head, text=head.text.replace(b"\n700\n", b"\n701\n")),
        lambda head: replace(head, text=flip(-5)(head.text)),
        lambda head: replace(head, text=head.text + b"extension\n"),
        lambda head: replace(head, signatures=((head.origin, b"", flip(9)(head.signature_of(head.origin))),)),
    ],
    ids=["origin", "size", "root", "extension", "signature"],
)
def test_openssl_refuses_a_head_that_was_bent(
    live: Live, served: ServedLog, log_key: bytes, tmp_path: Path, bend: Callable[[Head], Head]
) -> None:
    head = served.head()
    bad = bend(head)
    assert bad != head
    assert not verifies(log_key, bad.text, bad.signature_of(live.origins["EE"]), tmp_path)


def test_openssl_refuses_a_head_under_the_key_of_another_log(
    live: Live, served: ServedLog, documents: dict[str, Any], tmp_path: Path
) -> None:
    other = only_key_of(documents["US"], "log")
    head = served.head()
    assert not verifies(other, head.text, head.signature_of(live.origins["EE"]), tmp_path)
