"""The two keys of the node's webhooks: one that signs (`v1a`), one that seals subscribers' secrets at rest.

Both are made by `node init`, or on first use, in the node's key directory, for its owner alone (0600). Processes that
start at once make one key, not two. A sealed secret is bound to its subscription: moved to another row it does not open.

Loss of `webhook-seal.key`: `v1` subscriptions can no longer be signed for and must be created anew. Loss of
`webhook.key`: receivers of `v1a` must fetch the new public key. Whoever reads either can forge what this node sends to
webhooks, never a notice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app import keyfiles
from app.domain.errors import UnsafeKeyFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.domain.keys import Signer

SIGNING_FILE: Final = "webhook.key"
SEALING_FILE: Final = "webhook-seal.key"

_SEAL_VERSION: Final = b"\x01"  # AES-256-GCM, nonce of 12 bytes, the subscription's id as associated data
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class WebhookKeys:
    """The node's webhook keys, opened."""

    kid: str
    signer: Signer = field(repr=False)
    _sealing: AESGCM = field(repr=False)

    @classmethod
    def open(cls, directory: Path, state: str) -> WebhookKeys:
        """Read both keys from `directory`, making what is missing.

        Raises:
            UnsafeKeyFile: a key file can be read by others, is not a key, or cannot be written.
        """
        kid = f"{state}/webhook/1"
        with _one_at_a_time(directory):
            signing = directory / SIGNING_FILE
            signer: Signer = (
                keyfiles.load_private(signing)
                if signing.exists()
                else keyfiles.create_key(signing, kid, "webhook")[0]
            )
            if signer.public.alg != "Ed25519":
                raise UnsafeKeyFile(f"{signing} is not an Ed25519 key, which Standard Webhooks v1a asks for.")
            return cls(kid, signer, AESGCM(_sealing_key(directory / SEALING_FILE)))

    def seal(self, secret: bytes, subscription_id: str) -> bytes:
        """Encrypt a subscription's secret for the database."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _SEAL_VERSION + nonce + self._sealing.encrypt(nonce, secret, subscription_id.encode("ascii"))

    def unseal(self, sealed: bytes, subscription_id: str) -> bytes:
        """Decrypt what `seal` made for this subscription.

        Raises:
            UnsafeKeyFile: it was sealed under another key, or for another subscription.
        """
        nonce, box = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _SEAL_VERSION:
                raise InvalidTag  # noqa: TRY301 - an unknown version is answered as an unknown key is
            return self._sealing.decrypt(nonce, box, subscription_id.encode("ascii"))
        except (InvalidTag, ValueError) as error:
            raise UnsafeKeyFile(
                f"The secret of subscription {subscription_id} does not open under {SEALING_FILE}. Restore that file from "
                "your backup, or delete the subscription and create it anew."
            ) from error


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Hold the directory's lock file: two processes that start together must not make two keys."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(
            directory / ".webhook.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise UnsafeKeyFile(f"Cannot use the key directory {directory}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sealing_key(path: Path) -> bytes:
    if not path.exists():
        keyfiles.write_exclusive(path, secrets.token_bytes(_KEY_BYTES))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UnsafeKeyFile(f"Cannot read the key file {path}: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise UnsafeKeyFile(
                f"{path} must be a regular file that only its owner can read. Run: chmod 600 {path}"
            )
        raw = file.read(_KEY_BYTES + 1)
    if len(raw) != _KEY_BYTES:
        # A crash while it was first written can leave it short; nothing was sealed under it then.
        raise UnsafeKeyFile(
            f"{path} does not hold {_KEY_BYTES} bytes. Restore it, or delete it if no webhook exists yet."
        )
    return raw
