"""Passphrase-encrypted PKCS#8 with scrypt: what `cryptography` reads, and does not write.

    EncryptedPrivateKeyInfo (RFC 5958) with PBES2 (RFC 8018): scrypt (RFC 7914: N = 2^14, r = 8, p = 5) and AES-256-CBC

A guess costs 16 MiB and a quarter of a second (OWASP's figures, within what openssl agrees to read), where PBKDF2 with cryptography's defaults costs a millisecond on a graphics
card. `openssl pkcs8 -topk8 -scrypt` writes the same form, and openssl reads ours.
"""

from __future__ import annotations

import base64
import os
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

N: Final = 2**14
R: Final = 8
P: Final = 5
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_BLOCK: Final = 16

_SEQUENCE, _OCTETS, _INTEGER, _OID = 0x30, 0x04, 0x02, 0x06
_PBES2: Final = bytes.fromhex("2a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("2b06010401da47040b")
_AES256_CBC: Final = bytes.fromhex("60864801650304012a")


def _der(tag: int, *contents: bytes) -> bytes:
    """One DER value."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - DER short form
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def encrypt_pkcs8(plain: bytes, passphrase: bytes) -> bytes:
    """The PEM of an encrypted key from the DER of a plain one."""
    salt, iv = os.urandom(_SALT_BYTES), os.urandom(_BLOCK)
    key = Scrypt(salt=salt, length=_KEY_BYTES, n=N, r=R, p=P).derive(passphrase)
    padder = PKCS7(_BLOCK * 8).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    kdf = _der(
        _SEQUENCE,
        _der(_OID, _SCRYPT),
        _der(_SEQUENCE, _der(_OCTETS, salt), _integer(N), _integer(R), _integer(P), _integer(_KEY_BYTES)),
    )
    cipher = _der(_SEQUENCE, _der(_OID, _AES256_CBC), _der(_OCTETS, iv))
    algorithm = _der(_SEQUENCE, _der(_OID, _PBES2), _der(_SEQUENCE, kdf, cipher))
    text = base64.encodebytes(_der(_SEQUENCE, algorithm, _der(_OCTETS, sealed))).replace(b"\n", b"")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join(
        [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b""]
    )
