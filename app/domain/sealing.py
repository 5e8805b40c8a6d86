"""Sealed bodies: a body part that any node may carry and one State can open.

`seal` writes to one encryption key of one State (HPKE, RFC 9180, base mode); `open_sealed` reads with the private half.
Sealing hides the content and, up to the steps of padding, its length. It does not say who sealed it: anybody can. What
proves a body is the commitment in a leaf its State signed, and that is checked afterwards as for every body.

Suites: the KEM is X-Wing (ML-KEM-768 beside X25519, draft-connolly-cfrg-xwing-kem), so that what is carried today stays
closed to a quantum computer, or X25519 (RFC 9180 DHKEM) for a State whose key store has no ML-KEM. The KDF is
HKDF-SHA-256, the AEAD AES-256-GCM. `docs/protocol.md` gives the bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from app.domain.errors import Refused
from app.domain.keys import MLKEM_BYTES, PublicKey
from app.domain.statement import Part

if TYPE_CHECKING:
    from app.domain.keys import EncryptionAlgorithm

SEED_BYTES: Final = 32
"""Both kinds of private key: the X-Wing seed of its draft, section 5.2; or the X25519 scalar."""
STEPS: Final = (1 << 10, 4 << 10, 16 << 10, 64 << 10)
"""What is sealed is padded to one of these, and beyond them to whole multiples of the last: a length tells little."""
_SALT_BYTES: Final = 32
_LENGTH_BYTES: Final = 4
_HEAD: Final = _SALT_BYTES + _LENGTH_BYTES


class CannotOpen(Refused):
    """A sealed part does not open under this key, or holds no body part."""

    code = "cannot-open"


def _suite(alg: str) -> hpke.Suite:
    kem = hpke.KEM.MLKEM768_X25519 if alg == "X-Wing" else hpke.KEM.X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def info(*, origin: str, notice_id: str, part: str, kid: str) -> bytes:
    """What a sealing is bound to: which part of which statement in which log, and for which key.

    None of the texts can hold 0x00, so no two bindings give the same bytes.
    """
    return b"\x00".join(text.encode("ascii") for text in ("verbale/body/v1", origin, notice_id, part, kid))


def padded_length(content_bytes: int) -> int:
    """Bytes of plaintext that a content of so many bytes is sealed as."""
    needed = _HEAD + content_bytes
    return next((step for step in STEPS if needed <= step), -(-needed // STEPS[-1]) * STEPS[-1])


def seal(part: Part, to: PublicKey, bound_to: bytes) -> bytes:
    """Seal one opened part.

    Args:
        to: an X-Wing or X25519 key, admitted.
        bound_to: see `info`.

    Returns:
        The encapsulated key, then the ciphertext (RFC 9180 section 6.1, concatenated).
    """
    plain = part.salt + len(part.content).to_bytes(_LENGTH_BYTES, "big") + part.content
    plain = plain.ljust(padded_length(len(part.content)), b"\x00")
    if to.alg == "X-Wing":
        recipient: object = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(to.raw[:MLKEM_BYTES]),
            x25519.X25519PublicKey.from_public_bytes(to.raw[MLKEM_BYTES:]),
        )
    else:
        recipient = x25519.X25519PublicKey.from_public_bytes(to.raw)
    return _suite(to.alg).encrypt(plain, recipient, info=bound_to)  # type: ignore[arg-type]  # by the algorithm


def seal_nothing(alg: EncryptionAlgorithm, content_bytes: int) -> bytes:
    """A sealing that nobody can open, of the length that a content of so many bytes would have.

    It is made with a fresh key whose private half is forgotten, not of random bytes: half of all random X25519 points lie
    on the curve's twist, which would tell the one from the other.
    """
    nobody = EncryptionKey.generate(alg)
    return seal(Part(os.urandom(_SALT_BYTES), os.urandom(content_bytes)), nobody.public, os.urandom(16))


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A State's key that receives sealed bodies, both halves.

    Attributes:
        seed: 32 bytes; see `SEED_BYTES`.
    """

    alg: EncryptionAlgorithm
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, alg: EncryptionAlgorithm = "X-Wing") -> EncryptionKey:
        """Make a fresh key from the operating system's randomness."""
        return cls(alg, os.urandom(SEED_BYTES))

    def _halves(self) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
        expanded = hashlib.shake_256(self.seed).digest(96)
        return (
            mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @property
    def public(self) -> PublicKey:
        """The public half."""
        if self.alg == "X25519":
            scalar = x25519.X25519PrivateKey.from_private_bytes(self.seed)
            return PublicKey("X25519", scalar.public_key().public_bytes_raw())
        lattice, curve = self._halves()
        raw = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return PublicKey("X-Wing", raw)

    def open_sealed(self, sealed: bytes, bound_to: bytes) -> Part:
        """Open what `seal` made for this key and the same binding.

        Raises:
            CannotOpen: made for another key or binding, altered, or not a part.
        """
        private: object = (
            x25519.X25519PrivateKey.from_private_bytes(self.seed)
            if self.alg == "X25519"
            else hpke.MLKEM768X25519PrivateKey(*self._halves())
        )
        try:
            plain = _suite(self.alg).decrypt(sealed, private, info=bound_to)  # type: ignore[arg-type]  # by the algorithm
        except (InvalidTag, ValueError) as error:
            raise CannotOpen(
                "A sealed body does not open under this State's key: it is for another, or it was altered."
            ) from error
        salt, length = plain[:_SALT_BYTES], int.from_bytes(plain[_SALT_BYTES:_HEAD], "big")
        content, padding = plain[_HEAD : _HEAD + length], plain[_HEAD + length :]
        if (
            len(plain) < _HEAD
            or len(content) != length
            or len(plain) != padded_length(length)
            or any(padding)
        ):
            raise CannotOpen("A sealed body was opened and holds no body part.")
        return Part(salt, content)
