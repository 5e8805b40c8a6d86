"""Bodies at rest: each leaf's opened parts are sealed under a key of its own, so that destroying 32 bytes destroys them.

    key     32 bytes from the operating system, fresh for every leaf whose body is stored, kept apart from what it seals
    sealed  AES-256-GCM (NIST SP 800-38D) over salt ‖ content; nonce = SHA-256(part)[:12]; additional data = the text
            "verbale/at-rest/v1", 0x00, the index as 8 bytes big-endian, the part's name

A nonce that follows from the part is safe here, since a key seals each part of one leaf, and a part is fixed by its
commitment: the same key and nonce never meet another plaintext. What is sealed never leaves the node in this form; it
protects copies of the database (backups, free pages, a disk that was thrown away) once the key is gone.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.errors import BodyUnreadable
from app.domain.statement import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES: Final = 32
_SALT_BYTES: Final = 32
_LABEL: Final = b"verbale/at-rest/v1\x00"


def fresh_key() -> bytes:
    """A key for one leaf's body."""
    return os.urandom(KEY_BYTES)


@lru_cache(maxsize=256)
def _nonce(part: str) -> bytes:
    return sha256(part.encode()).digest()[:12]


def _place(index: int, part: str) -> bytes:
    return _LABEL + index.to_bytes(8, "big") + part.encode()


def seal(key: bytes, index: int, part: str, opened: Part) -> bytes:
    """Seal one part of the leaf at `index`; 48 bytes longer than its content."""
    return AESGCM(key).encrypt(_nonce(part), opened.salt + opened.content, _place(index, part))


class SealedParts(NamedTuple):
    """One leaf's body, sealed.

    Attributes:
        key: drawn for it.
        parts: (name, sealed) of each.
    """

    key: bytes
    parts: tuple[tuple[str, bytes], ...]

    def __repr__(self) -> str:
        """Show no key."""
        return f"SealedParts({[name for name, _ in self.parts]})"


def seal_parts(index: int, parts: Mapping[str, Part]) -> SealedParts:
    """Seal the parts of the leaf at `index` under a fresh key."""
    key = fresh_key()
    return SealedParts(key, tuple([(name, seal(key, index, name, part)) for name, part in parts.items()]))


def unseal(key: bytes, index: int, part: str, sealed: bytes) -> Part:
    """The part again.

    Raises:
        BodyUnreadable: another key, another place, or bytes that were changed.
    """
    try:
        plain = AESGCM(key).decrypt(_nonce(part), sealed, _place(index, part))
    except (InvalidTag, ValueError) as error:
        raise BodyUnreadable(
            f"Part {part} of the body at index {index} does not open with the key stored for it: the database was damaged "
            "or put together from two copies. Run: verbale fsck"
        ) from error
    return Part(plain[:_SALT_BYTES], plain[_SALT_BYTES:])
