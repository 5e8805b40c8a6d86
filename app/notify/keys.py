"""The two keys of the node's webhooks: one that signs (`v1a`), one that seals subscribers' secrets at rest.

Both are made by `node init`, or on first use, in the node's key directory, for its owner alone (0600). Processes that
start at once make one key, not two. A sealed secret is bound to its subscription: moved to another row it does not open.

The signing key can be changed (`rotate`): the new one is published before it signs, and for a while both sign.

Loss of `webhook-seal.key`: `v1` subscriptions can no longer be signed for and must be created anew. Loss of
`webhook.key`: receivers of `v1a` must fetch the new public key. Whoever reads either can forge what this node sends to
webhooks, never a notice.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app import keyfiles
from app.domain.errors import Conflict, UnsafeKeyFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from app.domain.keys import Signer

SIGNING_FILE: Final = "webhook.key"
SEALING_FILE: Final = "webhook-seal.key"
RING_FILE: Final = "webhook-keys.json"
"""Which signing keys there are, and from when until when each signs. Absent until the first change of keys."""

LOOK_AGAIN_SECONDS: Final = 1.0

_SEAL_VERSION: Final = b"\x01"  # AES-256-GCM, nonce of 12 bytes, the subscription's id as associated data
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key that signs `v1a`.

    Attributes:
        since, until: unix ms between which it signs; None is open.
    """

    kid: str
    file: str
    since: int | None = None
    until: int | None = None
    signer: Signer = field(repr=False, compare=False, default=None)  # type: ignore[assignment]  # set when opened

    def signs(self, now: int) -> bool:
        """Whether it signs at `now` (unix ms)."""
        return (self.since is None or self.since <= now) and (self.until is None or now < self.until)


class WebhookKeys:
    """The node's webhook keys, opened. Keys that another process rotated are noticed within a second."""

    def __init__(self, directory: Path, state: str, signing: tuple[SigningKey, ...], sealing: AESGCM) -> None:
        """Use `open`."""
        self._directory, self._state = directory, state
        self._signing, self._sealing = signing, sealing
        self._stamp, self._looked = _stamp(directory), time.monotonic()

    @classmethod
    def open(cls, directory: Path, state: str) -> WebhookKeys:
        """Read all keys from `directory`, making what is missing.

        Raises:
            UnsafeKeyFile: a key file can be read by others, is not a key, or cannot be written.
        """
        with _one_at_a_time(directory):
            if not (directory / RING_FILE).exists() and not (directory / SIGNING_FILE).exists():
                keyfiles.create_key(directory / SIGNING_FILE, f"{state}/webhook/1", "webhook")
            return cls(
                directory, state, _ring(directory, state), AESGCM(_sealing_key(directory / SEALING_FILE))
            )

    @property
    def kid(self) -> str:
        """Id of the newest key."""
        return self._signing[-1].kid

    @property
    def signer(self) -> Signer:
        """The newest key."""
        return self._signing[-1].signer

    def signers(self, now: int) -> list[Signer]:
        """Every key that signs at `now` (unix ms), newest first: one, and while keys are changed two."""
        self._refresh()
        return [key.signer for key in reversed(self._signing) if key.signs(now)]

    def published(self, now: int) -> list[SigningKey]:
        """Keys that sign at `now` (unix ms) or will, newest first."""
        self._refresh()
        return [key for key in reversed(self._signing) if key.until is None or now < key.until]

    def _refresh(self) -> None:
        if time.monotonic() - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = time.monotonic()
        stamp = _stamp(self._directory)
        if stamp != self._stamp:
            self._signing, self._stamp = _ring(self._directory, self._state), stamp

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


def rotate(directory: Path, state: str, now: int, *, ahead_ms: int, overlap_ms: int) -> list[SigningKey]:
    """Make a new signing key. It is published at once, signs after `ahead_ms`, and the one before signs on for `overlap_ms`.

    Running processes notice by themselves. A crash leaves a key file that nothing names, or the ring with both.

    Raises:
        UnsafeKeyFile: see `WebhookKeys.open`.
        Conflict: a rotation is under way.
    """
    WebhookKeys.open(directory, state)
    with _one_at_a_time(directory):
        ring = [key for key in _ring(directory, state) if key.until is None or now < key.until]
        if any(key.since is not None and now < key.since for key in ring):
            raise Conflict(
                "A new webhook key is published and does not sign yet. Wait for it before you make another."
            )
        number = max(int(key.kid.rpartition("/")[2]) for key in ring) + 1
        kid = f"{state}/webhook/{number}"
        name = f"webhook-{number}-{secrets.token_hex(4)}.key"
        signer = keyfiles.create_key(directory / name, kid, "webhook")[0]
        since = now + ahead_ms
        ends = since + overlap_ms
        ring = [
            SigningKey(k.kid, k.file, k.since, ends if k.until is None else min(k.until, ends), k.signer)
            for k in ring
        ]
        ring.append(SigningKey(kid, name, since, None, signer))
        _write_ring(directory, ring)
    return ring


def _ring(directory: Path, state: str) -> tuple[SigningKey, ...]:
    """The signing keys, oldest first. Without a ring there is the one key of the first start."""
    try:
        listed = json.loads((directory / RING_FILE).read_bytes())["keys"]
        keys = [SigningKey(k["kid"], k["file"], k["since"], k["until"]) for k in listed]
    except FileNotFoundError:
        keys = [SigningKey(f"{state}/webhook/1", SIGNING_FILE)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnsafeKeyFile(f"{directory / RING_FILE} cannot be read as a list of keys: {error}.") from error
    opened = []
    for key in keys:
        path = directory / key.file
        signer: Signer = keyfiles.load_private(path)
        if signer.public.alg != "Ed25519":
            raise UnsafeKeyFile(f"{path} is not an Ed25519 key, which Standard Webhooks v1a asks for.")
        opened.append(SigningKey(key.kid, key.file, key.since, key.until, signer))
    return tuple(opened)


def _write_ring(directory: Path, ring: Iterable[SigningKey]) -> None:
    keys = [{"kid": k.kid, "file": k.file, "since": k.since, "until": k.until} for k in ring]
    fresh = directory / (RING_FILE + ".new")
    fresh.unlink(missing_ok=True)
    keyfiles.write_exclusive(fresh, json.dumps({"keys": keys}, indent=1).encode())
    fresh.rename(directory / RING_FILE)


def _stamp(directory: Path) -> tuple[int, int] | None:
    try:
        status = (directory / RING_FILE).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


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
