"""Signed notes: a text and the signature lines under it (C2SP signed-note).

Guarantees: a note has exactly one spelling here. `parse(raw).encode() == raw` for every accepted input, so nothing can
be altered in transit without being seen. `verify` returns only signatures that hold under keys the caller named.
Leaves to others: what the text means (`app.tlog.checkpoint`), timestamped signatures (`app.tlog.cosignature`), and
which keys to trust (the roster).

Stricter than C2SP asks: base64 must be canonical (the Go implementation accepts spare bits), since mirrors compare
notes as bytes.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Protocol

from app.domain.errors import InvalidSignature, Malformed, NonCanonicalEncoding
from app.domain.keys import PublicKey, Signer

MAX_NOTE_SIZE = 256 * 1024
"""Bytes. Room for MAX_SIGNATURES cosignatures (170 bytes each), or for 70 lines of ML-DSA-44 (3.3 kB each)."""

MAX_SIGNATURES = 256
"""C2SP asks verifiers to accept at least 16; a federation of two hundred States with one witness each still fits."""

ED25519 = 0x01
"""Signature type: Ed25519 over the note text."""

KEY_ID_SIZE = 4
_ED25519_KEY_SIZE = 32
_DASH = "\u2014 "
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")  # those below U+0020, without newline
_KEY_NAME = re.compile(r"[^\s+\x00-\x1f]+")


class MalformedNote(Malformed):
    """The bytes are not a signed note."""

    code = "malformed-note"


class MalformedVerifierKey(Malformed):
    """The text is not a verifier key `name+hexkeyid+base64(type ‖ key)` of a type this node verifies."""

    code = "malformed-verifier-key"


class InvalidNoteSignature(InvalidSignature):
    """A signature line names a known key and does not hold: the whole note is refused (C2SP signed-note)."""

    code = "invalid-note-signature"


class NoKnownSignature(InvalidSignature):
    """No line of the note is by any key that was asked for."""

    code = "no-known-signature"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who says to have signed, and the bytes after the key id. Unverified by itself.

    Attributes:
        name: the key's name.
        key_id: 4 bytes, big-endian uint32 of the specification.
        value: the signature; its form depends on the key's type.
    """

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> bytes:
        """`— <name> base64(key id ‖ signature)`, with its newline."""
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.value).decode('ascii')}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, none of them verified.

    Attributes:
        text: the signed bytes, with the final newline and without the blank line that follows.
        signatures: in the order of the lines, at least one.
    """

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The note's only spelling."""
        return self.text + b"\n" + b"".join(signature.line() for signature in self.signatures)


class Verifier(Protocol):
    """A key that can tell whether a signature line of its name and id holds over a note's text."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    @property
    def key_id(self) -> bytes:
        """The key's 4-byte id."""
        ...

    def check(self, text: bytes, value: bytes) -> None:
        """Raise InvalidSignature unless `value` is this key's signature over `text`."""
        ...


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 key for notes (signature type 0x01): the key of a log.

    Attributes:
        name: for a log, its origin.
        key: the Ed25519 public key.
    """

    name: str
    key: PublicKey

    type: ClassVar[int] = ED25519

    def __post_init__(self) -> None:
        """Refuse what no vkey can spell."""
        check_key(self.name, self.key)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)[:4]."""
        return key_id(self.name, self.type, self.key.raw)

    def check(self, text: bytes, value: bytes) -> None:
        """Raise InvalidSignature unless `value` is this key's signature over `text`."""
        self.key.verify(value, text)

    def encode(self) -> str:
        """The vkey text."""
        return encode_vkey(self.name, self.type, self.key.raw)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey of type 0x01.

        Raises:
            MalformedVerifierKey: the text is not a vkey of this type, or the id is not the key's.
            UnacceptableKey: the key is not canonical or of small order.
        """
        return cls(*parse_vkey(text, cls.type))


# ── notes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse(raw: bytes) -> Note:
    """Read a note without verifying anything.

    Raises:
        MalformedNote: too large, not UTF-8, a control character, no blank line, no or too many signature lines, or a
            line that is not spelt as it must be.
    """
    if len(raw) > MAX_NOTE_SIZE:
        raise MalformedNote(f"The note is longer than {MAX_NOTE_SIZE} bytes.")
    if _CONTROL.search(raw):
        raise MalformedNote("The note holds a control character other than newline.")
    cut = raw.rfind(b"\n\n")
    if cut < 0:
        raise MalformedNote("The note has no blank line between its text and its signatures.")
    text, block = raw[: cut + 1], raw[cut + 2 :]
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNote("The note is not UTF-8.") from error
    return Note(text, parse_signature_lines(block))


def parse_signature_lines(block: bytes) -> tuple[Signature, ...]:
    """Read signature lines, each with its newline: the end of a note, or a witness's answer.

    Raises:
        MalformedNote: there is none or more than MAX_SIGNATURES, or one is not spelt as it must be.
    """
    if not block.endswith(b"\n") or len(block) > MAX_NOTE_SIZE:
        raise MalformedNote("The note does not end in signature lines, each closed by a newline.")
    lines = block[:-1].split(b"\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"The note holds more than {MAX_SIGNATURES} signatures.")
    return tuple(_parse_signature_line(line) for line in lines)


def _parse_signature_line(line: bytes) -> Signature:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNote("The note is not UTF-8.") from error
    name, space, encoded = text.removeprefix(_DASH).partition(" ")
    if not text.startswith(_DASH) or not space or not is_key_name(name):
        raise MalformedNote("A signature line is not: em dash, space, key name, space, base64.")
    try:
        data = b64_decode(encoded)
    except NonCanonicalEncoding as error:
        raise MalformedNote(f"The signature line of {name} is not canonical base64.") from error
    if len(data) <= KEY_ID_SIZE:
        raise MalformedNote(f"The signature line of {name} holds no signature.")
    return Signature(name, data[:KEY_ID_SIZE], data[KEY_ID_SIZE:])


def sign(text: bytes, name: str, signer: Signer) -> Signature:
    """Sign a note's text with an Ed25519 key (type 0x01).

    Raises:
        ValueError: the text is not one that `parse` reads back, or the key is not an Ed25519 key with a proper name.
    """
    check_key(name, signer.public)
    check_text(text)
    return Signature(name, key_id(name, ED25519, signer.public.raw), signer.sign(text))


def verify(note: Note, verifiers: Iterable[Verifier]) -> tuple[Signature, ...]:
    """Return the signatures that hold, one per key, in the order of the note.

    Lines of unknown keys are ignored, also when they share a name or an id (not both) with a known key. A key that
    signed twice counts once, and both its lines must hold.

    Raises:
        InvalidNoteSignature: a line by a known key does not hold.
        NoKnownSignature: there is no line by a known key.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    held: dict[tuple[str, bytes], Signature] = {}
    for signature in note.signatures:
        who = (signature.name, signature.key_id)
        if who not in known:
            continue
        try:
            known[who].check(note.text, signature.value)
        except InvalidSignature as error:
            raise InvalidNoteSignature(
                f"The signature of {signature.name} (key {signature.key_id.hex()}) does not hold over this note."
            ) from error
        held.setdefault(who, signature)
    if not held:
        names = ", ".join(sorted({name for name, _ in known})) or "nobody"
        raise NoKnownSignature(f"The note is not signed by any key asked for ({names}).")
    return tuple(held.values())


def names_key(note: Note, verifier: Verifier) -> bool:
    """Whether a line of the note is said to be this key's. It is not verified: for notes that were verified before."""
    return any((s.name, s.key_id) == (verifier.name, verifier.key_id) for s in note.signatures)


def check_text(text: bytes) -> None:
    """Raise ValueError unless `text` can be the text of a note: UTF-8, no control characters, final newline."""
    if not text.endswith(b"\n") or _CONTROL.search(text):
        raise ValueError("a note's text ends in a newline and holds no other control character")
    text.decode("utf-8")


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_key_name(name: str) -> bool:
    """Whether a name is one a note can carry: not empty, no Unicode space, no plus, no control character."""
    return _KEY_NAME.fullmatch(name) is not None


def check_key(name: str, key: PublicKey) -> None:
    """Raise ValueError unless this is an Ed25519 key under a name that a note can carry."""
    if not is_key_name(name):
        raise ValueError(f"{name!r} cannot name a note key")
    if key.alg != "Ed25519":
        raise ValueError(f"notes are signed with Ed25519, not {key.alg}")


def key_id(name: str, signature_type: int, material: bytes) -> bytes:
    """SHA-256(name ‖ 0x0A ‖ type ‖ public key)[:4] (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + bytes([signature_type]) + material).digest()[:KEY_ID_SIZE]


def encode_vkey(name: str, signature_type: int, material: bytes) -> str:
    """`<name>+<hex key id>+<base64(type ‖ key)>`."""
    encoded = b64encode(bytes([signature_type]) + material).decode("ascii")
    return f"{name}+{key_id(name, signature_type, material).hex()}+{encoded}"


def parse_vkey(text: str, signature_type: int) -> tuple[str, PublicKey]:
    """Read a vkey whose material is an Ed25519 key.

    Raises:
        MalformedVerifierKey: not a vkey, another type, or an id that is not that of name and key.
        UnacceptableKey: the key is not canonical or of small order.
    """
    name, _, rest = text.partition("+")
    shown_id, _, encoded = rest.partition("+")
    try:
        data = b64_decode(encoded)
    except NonCanonicalEncoding as error:
        raise MalformedVerifierKey("The key in this verifier key is not canonical base64.") from error
    if not is_key_name(name) or len(data) != 1 + _ED25519_KEY_SIZE or data[0] != signature_type:
        raise MalformedVerifierKey(
            f"This is not a verifier key of type 0x{signature_type:02x}: name+id+base64."
        )
    if shown_id != key_id(name, signature_type, data[1:]).hex():
        raise MalformedVerifierKey(
            f"The id in the verifier key of {name} is not the id of that name and key."
        )
    return name, PublicKey.admit("Ed25519", data[1:])


def b64_decode(text: str | bytes) -> bytes:
    """Decode canonical, padded, standard base64 (RFC 4648 section 4), as C2SP formats use it. Empty text is refused.

    Raises:
        NonCanonicalEncoding: not base64, or not the spelling that encoding gives.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        data = b64decode(raw, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise NonCanonicalEncoding("This is not base64. Encode with padding and with + and /.") from error
    if not raw or b64encode(data) != raw:
        raise NonCanonicalEncoding(
            "This base64 is not canonical. Encode with padding and without spare bits."
        )
    return data
