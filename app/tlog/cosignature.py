"""Cosignatures: a witness says when it saw a checkpoint to be consistent (C2SP tlog-cosignature, Ed25519, type 0x04).

Guarantees: `verify_cosignatures` returns only statements that hold under keys the caller named, one per key. In this
federation a cosignature is also a receipt: the cosigner stores every leaf up to that size. Leaves to others: whether
there are enough of them (the roster's quorum) and whether their times are plausible.

A cosigner key must differ from the keys of the same operator's other cosigners and logs: the signed message names
neither the cosigner nor its type (C2SP tlog-cosignature, "Ed25519 signed message").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from app.domain.errors import InvalidSignature
from app.domain.keys import PublicKey, Signer
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint
from app.tlog.note import NoKnownSignature, Note, Signature

COSIGNATURE_V1 = 0x04
"""Signature type: timestamped Ed25519 cosignature."""

MAX_COSIGNATURES = 16
"""In `checkpoint`: every C2SP verifier accepts 16 signatures. The full set is served at `checkpoint/<size>`."""

MAX_TIME = 2**63 - 1
_TIME_SIZE = 8
_SIGNATURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """The Ed25519 key of a witness or mirror (signature type 0x04). A `note.Verifier`.

    Attributes:
        name: the cosigner's name, a URL without scheme.
        key: the Ed25519 public key.
    """

    name: str
    key: PublicKey

    type: ClassVar[int] = COSIGNATURE_V1

    def __post_init__(self) -> None:
        """Refuse what no vkey can spell."""
        notes.check_key(self.name, self.key)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ 0x04 ‖ key)[:4]."""
        return notes.key_id(self.name, self.type, self.key.raw)

    def check(self, text: bytes, value: bytes) -> None:
        """Raise InvalidSignature unless `value` is this key's cosignature over the checkpoint text."""
        if len(value) != _TIME_SIZE + _SIGNATURE_SIZE:
            raise InvalidSignature("A cosignature is a time of 8 bytes and a signature of 64.")
        at = int.from_bytes(value[:_TIME_SIZE], "big")
        if not 0 < at <= MAX_TIME:
            raise InvalidSignature("The time of the cosignature is zero or above 2^63 - 1.")
        self.key.verify(value[_TIME_SIZE:], cosigned_message(text, at))

    def encode(self) -> str:
        """The vkey text."""
        return notes.encode_vkey(self.name, self.type, self.key.raw)

    @classmethod
    def parse(cls, text: str) -> CosignerKey:
        """Read a vkey of type 0x04.

        Raises:
            MalformedVerifierKey: the text is not a vkey of this type, or the id is not the key's.
            UnacceptableKey: the key is not canonical or of small order.
        """
        return cls(*notes.parse_vkey(text, cls.type))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature: the named cosigner vouches for the checkpoint at that time.

    Attributes:
        name: the cosigner.
        key_id: 4 bytes.
        at: unix seconds, by the cosigner's clock.
        signature: the line as it stands in the note.
    """

    name: str
    key_id: bytes
    at: int
    signature: Signature


def cosigned_message(text: bytes, at: int) -> bytes:
    r"""`cosignature/v1\ntime <at>\n` ‖ checkpoint text: the bytes that are signed."""
    return b"cosignature/v1\ntime %d\n" % at + text


def cosign(checkpoint: Checkpoint, name: str, signer: Signer, at: int) -> Signature:
    """Cosign a checkpoint at unix time `at`.

    The caller has verified the checkpoint, found it consistent with and not smaller than the last one it cosigned for
    this origin, and stored both it and its leaves.

    Raises:
        ValueError: `at` is out of range, or the key is not an Ed25519 key with a proper name.
    """
    notes.check_key(name, signer.public)
    if not 0 < at <= MAX_TIME:
        raise ValueError(f"{at} is not a time a cosignature can carry")
    value = at.to_bytes(_TIME_SIZE, "big") + signer.sign(cosigned_message(checkpoint.body(), at))
    return Signature(name, notes.key_id(name, COSIGNATURE_V1, signer.public.raw), value)


def verify_cosignatures(note: Note, keys: Iterable[CosignerKey]) -> tuple[Cosignature, ...]:
    """Return the cosignatures by the given keys, one per key, in the order of the note; () if there are none.

    The log's own signature is not looked at: `open_checkpoint` does that.

    Raises:
        InvalidNoteSignature: a line by a known cosigner does not hold.
    """
    try:
        held = notes.verify(note, keys)
    except NoKnownSignature:  # no quorum yet is not a fault; the caller counts
        return ()
    return tuple(Cosignature(line.name, line.key_id, cosigned_at(line), line) for line in held)


def cosigned_at(signature: Signature) -> int:
    """The time a cosignature line claims, unix seconds. It means something only once the line is verified."""
    return int.from_bytes(signature.value[:_TIME_SIZE], "big")


def with_cosignatures(signed: Note, cosignatures: Iterable[Signature], limit: int = MAX_COSIGNATURES) -> Note:
    """Add cosignature lines under a log's own lines: one per key, the latest it gave, the first `limit` keys.

    Args:
        signed: the note as the log signed it, without cosignatures.
        cosignatures: verified lines, in the order of preference.
        limit: most cosignature lines to add. `note.MAX_SIGNATURES` bounds a note as a whole.
    """
    latest: dict[tuple[str, bytes], Signature] = {}
    for line in cosignatures:
        who = (line.name, line.key_id)
        if who not in latest or cosigned_at(latest[who]) < cosigned_at(line):
            latest[who] = line
    room = min(limit, notes.MAX_SIGNATURES - len(signed.signatures))
    return Note(signed.text, signed.signatures + tuple(latest.values())[:room])
