"""Private keys as files, and the one-line cards by which their public halves travel.

Guarantees: a private key is written once, for its owner alone (mode 0600, never over an existing file), and is read only
from a regular file that nobody else can read. A card (`*.pub`) carries a proof that whoever made it holds the private
half. Leaves to others: what a key may do (the roster) and keys that live in an HSM (another `Signer`, same two names).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Container
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidSignature, Malformed, UnacceptableKey, UnsafeKeyFile
from app.domain.json import canonical, parse_strict
from app.domain.keys import (
    ALGORITHMS,
    ENCRYPTION_ALGORITHMS,
    Algorithm,
    Ed25519Signer,
    EncryptionAlgorithm,
    Es256Signer,
    PublicKey,
    Signer,
)
from app.domain.pkcs8 import encrypt_pkcs8
from app.domain.sealing import SEED_BYTES, EncryptionKey

MAX_KEY_FILE: Final = 16 * 1024
"""A PKCS#8 file of either algorithm has under 500 bytes; anything large is not a key."""

MAX_CARD: Final = 4 * 1024

KID_SEGMENTS: Final[dict[str, str]] = {
    "notices": "cp",
    "node": "node",
    "log": "log",
    "witness": "witness",
    "transport": "transport",
    "encryption": "encryption",
    "webhook": "webhook",
    "governance": "governance",
    "authority": "authority",
    "online": "online",
}
"""The middle part of a key id, by use: `EE/cp/1` signs notices. The last three uses sign the roster itself."""

_KID: Final = re.compile(r"([A-Z]{2})/([a-z]{1,20})/([1-9][0-9]{0,5})")

SAMPLE_KEYS: Final[frozenset[str]] = frozenset()
"""Fingerprints of private keys that were ever published, for instance in an example: no node may sign with them."""


def state_of_kid(kid: str, use: str) -> str:
    """The State that a key id belongs to.

    Raises:
        Malformed: not `CC/segment/number`, or the segment is another use's.
    """
    match = _KID.fullmatch(kid)
    segment = KID_SEGMENTS.get(use)
    if segment is None:
        raise Malformed(f"Unknown key use {use!r}. Use one of: {', '.join(KID_SEGMENTS)}.")
    if match is None or match[2] != segment:
        raise Malformed(f"{kid!r} is no key id for {use}. Write it like EE/{segment}/1.")
    return match[1]


def fingerprint(key: PublicKey) -> str:
    """Hex SHA-256 of the raw public key: short enough to read over the telephone in eight groups."""
    return hashlib.sha256(key.raw).hexdigest()


# ── cards: the public half, with proof of possession ──────────────────────────────────────────────────────────────


def possession_message(kid: str, use: str, state: str, key: PublicKey) -> bytes:
    """What a key signs to enter a roster: `verbale/key/v1` and its description, parted by 0x00.

    None of the text fields can hold 0x00, and the raw key comes last: no two descriptions give the same bytes.
    """
    head = b"\x00".join(text.encode("ascii") for text in ("verbale/key/v1", kid, use, state, key.alg))
    return head + b"\x00" + key.raw


@lru_cache(maxsize=8192)
def check_possession(kid: str, use: str, state: str, key: PublicKey, proof: bytes) -> None:
    """Check a proof of possession. Cached: a roster's proofs are checked at every refresh and seldom change.

    An encryption key signs nothing and has none: its proof is empty. A State that lists a key it does not hold can only
    keep itself from reading what is sealed to it (docs/adr/0015).

    Raises:
        UnacceptableKey: it does not hold.
    """
    if use == "encryption":
        if proof:
            raise UnacceptableKey(f"Key {kid} is for encryption: it signs nothing, and its proof is empty.")
        return
    try:
        key.verify(proof, possession_message(kid, use, state, key))
    except InvalidSignature as error:
        raise UnacceptableKey(
            f"The proof of possession of key {kid} does not hold. Make the card again with `verbale roster keygen`."
        ) from error


@dataclass(frozen=True, slots=True)
class KeyCard:
    """A public key as a State mails it: one JSON line, checked when read.

    Attributes:
        kid: for instance `EE/cp/1`.
        use: a roster key use, or `governance`, `authority`, `online` for keys that sign the roster itself.
        proof: signature by the key over `possession_message`.
    """

    kid: str
    use: str
    key: PublicKey
    proof: bytes = field(repr=False)

    @property
    def state(self) -> str:
        """The State whose key it is."""
        return self.kid[:2]

    @classmethod
    def make(cls, signer: Signer, kid: str, use: str) -> KeyCard:
        """Describe and prove the key that `signer` holds.

        Raises:
            Malformed: `kid` is not well formed for `use`.
        """
        state = state_of_kid(kid, use)
        return cls(kid, use, signer.public, signer.sign(possession_message(kid, use, state, signer.public)))

    @classmethod
    def of_encryption(cls, key: PublicKey, kid: str) -> KeyCard:
        """Describe a key that receives sealed bodies.

        Raises:
            Malformed: `kid` is not well formed for an encryption key.
        """
        state_of_kid(kid, "encryption")
        return cls(kid, "encryption", key, b"")

    def check(self) -> None:
        """Check the key id and the proof of possession.

        Raises:
            Malformed: the key id.
            UnacceptableKey: the proof does not hold.
        """
        check_possession(self.kid, self.use, state_of_kid(self.kid, self.use), self.key, self.proof)

    def to_line(self) -> bytes:
        """The card as one canonical JSON line."""
        return canonical(self.to_dict()) + b"\n"

    def to_dict(self) -> dict[str, str]:
        """The members of the card."""
        return {
            "kid": self.kid,
            "use": self.use,
            "alg": self.key.alg,
            "public": self.key.text(),
            "proof": b64u_encode(self.proof),
        }

    @classmethod
    def from_line(cls, raw: bytes) -> KeyCard:
        """Read a card and check all of it.

        Raises:
            Malformed, UnacceptableKey
        """
        value = parse_strict(raw)
        members = ("kid", "use", "alg", "public", "proof")
        if (
            not isinstance(value, dict)
            or set(value) != set(members)
            or not all(isinstance(v, str) for v in value.values())
        ):
            raise Malformed("A key card is one JSON object with the texts kid, use, alg, public and proof.")
        card = cls(
            value["kid"],
            value["use"],
            PublicKey.from_text(value["alg"], value["public"], encryption=value["use"] == "encryption"),
            b64u_decode(value["proof"]),
        )
        card.check()
        return card


def read_card(path: Path) -> KeyCard:
    """Read a `.pub` file.

    Raises:
        Malformed, UnacceptableKey: as `KeyCard.from_line`, naming the file.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CARD + 1)
    except OSError as error:
        raise Malformed(f"Cannot read the key card {path}: {error.strerror}.") from error
    if len(raw) > MAX_CARD:
        raise Malformed(f"{path} is too large for a key card.")
    try:
        return KeyCard.from_line(raw)
    except UnacceptableKey as error:
        raise UnacceptableKey(f"{path}: {error}") from error
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from error


# ── private keys ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class FileSigner:
    """A signer whose private key came from a file. Satisfies `app.domain.keys.Signer`."""

    path: Path
    inner: Ed25519Signer | Es256Signer = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self.inner.public

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self.inner.sign(message)


def generate(alg: Algorithm = "Ed25519") -> Ed25519Signer | Es256Signer:
    """Make a fresh key from the operating system's randomness. It exists in memory only."""
    return Ed25519Signer.generate() if alg == "Ed25519" else Es256Signer.generate()


def write_exclusive(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create `path` with `data`, durable when this returns. An existing file, or symlink, is never touched.

    Raises:
        FileExistsError: something stands there already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask may only have taken bits away; say exactly what is meant
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_private(path: Path, data: bytes) -> None:
    """Write a private key's bytes for the owner alone, in a folder of the owner's.

    Raises:
        UnsafeKeyFile: the path exists, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_exclusive(path, data)
    except FileExistsError as error:
        raise UnsafeKeyFile(
            f"{path} exists already, and a key file is never overwritten. Choose another name."
        ) from error
    except OSError as error:
        raise UnsafeKeyFile(f"Cannot write the key file {path}: {error.strerror}.") from error


def store_private(
    signer: Ed25519Signer | Es256Signer, path: Path, *, passphrase: bytes | None = None
) -> FileSigner:
    """Write a private key as PKCS#8 PEM, mode 0600, to a path that must not exist; with a passphrase, under scrypt.

    A crash leaves either no file or an unreadable partial one, which `load_private` refuses; delete it and go on.

    Raises:
        UnsafeKeyFile: the path exists, or cannot be written.
    """
    encoding = Encoding.DER if passphrase else Encoding.PEM
    pem = signer.private.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
    if passphrase:
        pem = encrypt_pkcs8(pem, passphrase)
    _write_private(path, pem)
    return FileSigner(path, signer)


def create_key(
    path: Path, kid: str, use: str, *, alg: Algorithm = "Ed25519", passphrase: bytes | None = None
) -> tuple[FileSigner, KeyCard]:
    """Generate a key, store it at `path` and its card at `path` + `.pub` (mode 0644).

    Raises:
        Malformed: `kid` is not well formed for `use`; nothing was written.
        UnsafeKeyFile: as `store_private`.
    """
    fresh = generate(alg)
    card = KeyCard.make(fresh, kid, use)
    pub = card_path(path)
    if pub.exists():
        raise UnsafeKeyFile(f"{pub} exists already. Choose another name.")
    signer = store_private(fresh, path, passphrase=passphrase)
    write_exclusive(pub, card.to_line(), mode=0o644)
    return signer, card


# ── encryption keys ───────────────────────────────────────────────────────────────────────────────────────────────


def create_encryption_key(path: Path, kid: str, *, alg: EncryptionAlgorithm = "X-Wing") -> KeyCard:
    """Generate a key that receives sealed bodies, store its seed at `path` (mode 0600) and its card beside it.

    Raises:
        Malformed: `kid` is not well formed; nothing was written.
        UnsafeKeyFile: the path exists, or cannot be written.
    """
    key = EncryptionKey.generate(alg)
    card = KeyCard.of_encryption(key.public, kid)
    if card_path(path).exists():
        raise UnsafeKeyFile(f"{card_path(path)} exists already. Choose another name.")
    _write_private(path, canonical({"alg": alg, "seed": b64u_encode(key.seed)}) + b"\n")
    write_exclusive(card_path(path), card.to_line(), mode=0o644)
    return card


def make_key(
    path: Path,
    kid: str,
    use: str,
    *,
    alg: Algorithm | EncryptionAlgorithm | None = None,
    passphrase: bytes | None = None,
) -> KeyCard:
    """Make a key of any use: `create_key`, or `create_encryption_key` for `encryption`.

    Raises:
        Malformed: the key id or algorithm is not one for that use; nothing was written.
        UnsafeKeyFile: as those.
    """
    if use == "encryption":
        if alg in ALGORITHMS:
            raise Malformed(f"An encryption key is X-Wing or X25519, not {alg}.")
        if passphrase is not None:
            raise Malformed("An encryption key is read by the node without a person: it has no passphrase.")
        return create_encryption_key(path, kid, alg=alg or "X-Wing")  # type: ignore[arg-type]  # not one that signs
    if alg in ENCRYPTION_ALGORITHMS:
        raise Malformed(f"{alg} is for encryption. A key that signs is Ed25519 or ES256.")
    return create_key(path, kid, use, alg=alg or "Ed25519", passphrase=passphrase)[1]  # type: ignore[arg-type]  # one that signs


def load_encryption_key(path: Path) -> EncryptionKey:
    """Read the seed of an encryption key, refusing files that others can read.

    Raises:
        UnsafeKeyFile: missing, readable by others, foreign, or not such a key.
    """
    try:
        value = parse_strict(read_secret_file(path))
        seed = b64u_decode(value["seed"])
        alg = next(known for known in ENCRYPTION_ALGORITHMS if known == value["alg"])
    except (Malformed, TypeError, KeyError, StopIteration) as error:
        raise UnsafeKeyFile(
            f'{path} is not an encryption key: {{"alg", "seed"}} as canonical JSON.'
        ) from error
    if len(seed) != SEED_BYTES:
        raise UnsafeKeyFile(
            f"The seed of an encryption key has {SEED_BYTES} bytes; the one in {path} has {len(seed)}."
        )
    return EncryptionKey(alg, seed)


def card_path(path: Path) -> Path:
    """Where the card of the private key at `path` lies: beside it, with `.pub` added."""
    return path.with_name(path.name + ".pub")


def read_secret_file(path: Path) -> bytes:
    """The bytes of a key file that only its owner can read."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnsafeKeyFile(
            f"There is no key file at {path}. Create it, or correct the path in the settings."
        ) from error
    if path.is_symlink() and not real.is_relative_to(path.parent.resolve()):
        raise UnsafeKeyFile(
            f"{path} is a link to {real}, outside its own directory. Name the file itself in the settings, so that what "
            "is protected is what is read."
        )
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UnsafeKeyFile(f"Cannot read the key file {path}: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)  # of the open file: nobody can swap it between check and use
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeKeyFile(
                f"{path} is not a regular file. A private key is read from a regular file only."
            )
        if status.st_mode & 0o077:
            raise UnsafeKeyFile(
                f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}). Run: chmod 600 {path}. If "
                "others had access to it, make a new key and revoke this one."
            )
        if status.st_uid not in {os.geteuid(), 0}:
            raise UnsafeKeyFile(
                f"{path} belongs to another user, who can change it. Run: chown {os.geteuid()} {path}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_KEY_FILE + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_KEY_FILE:
        raise UnsafeKeyFile(f"{path} is too large for a private key.")
    return raw


def load_private(
    path: Path, *, passphrase: bytes | None = None, samples: Container[str] = SAMPLE_KEYS
) -> FileSigner:
    """Read a private key, refusing files that others can read and keys that were published.

    `samples` holds fingerprints of keys that must never sign for real; see `SAMPLE_KEYS`.

    Raises:
        UnsafeKeyFile: missing, readable by others, foreign, not a key, wrong passphrase, or a sample.
    """
    raw = read_secret_file(path)
    try:
        private = load_pem_private_key(raw, passphrase)
    except TypeError as error:  # cryptography's word for a passphrase missing or superfluous
        advice = "needs its passphrase" if passphrase is None else "has no passphrase, but one was given"
        raise UnsafeKeyFile(f"The key file {path} {advice}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnsafeKeyFile(
            f"{path} is not a readable PKCS#8 private key, or the passphrase is wrong."
        ) from error
    signer: Ed25519Signer | Es256Signer
    if isinstance(private, ed25519.Ed25519PrivateKey):
        signer = Ed25519Signer(private)
    elif isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        signer = Es256Signer(private)
    else:
        raise UnsafeKeyFile(f"{path} holds a key that is neither Ed25519 nor P-256.")
    if fingerprint(signer.public) in samples:
        raise UnsafeKeyFile(
            f"{path} holds a sample key whose private half is published. Generate a key of your own."
        )
    return FileSigner(path, signer)
