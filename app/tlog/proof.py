"""Offline proofs: one file that shows an entry in a signed log (C2SP tlog-proof, version 1).

Guarantees: a proof that verifies ties a leaf hash to a checkpoint signed by the given log; each proof has one spelling.
Leaves to others: how the leaf hash comes from a notice, and whether enough witnesses cosigned (the returned note holds
the lines; `app.tlog.cosignature` verifies them, the roster knows the quorum).

`extra` is not authenticated by anything. Never act on it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.errors import Malformed, NonCanonicalEncoding
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, open_checkpoint, parse_size
from app.tlog.merkle import HASH_SIZE, MAX_PROOF_LENGTH, verify_inclusion
from app.tlog.note import MAX_NOTE_SIZE, Note, VerifierKey

HEADER = b"c2sp.org/tlog-proof@v1"

MAX_EXTRA_SIZE = 64 * 1024
"""Bytes before encoding. Room for a signed notice beside its proof; larger things belong in their own file."""

_MAX_SIZE = MAX_NOTE_SIZE + 2 * MAX_EXTRA_SIZE + 16 * 1024


class MalformedProof(Malformed):
    """The bytes are not a C2SP tlog-proof of version 1."""

    code = "malformed-proof"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof as it stands in the file; nothing in it is verified.

    Attributes:
        index: zero-based index of the entry.
        path: inclusion proof, 0 to 63 hashes of 32 bytes, the leaf's sibling first.
        checkpoint: the note, byte for byte.
        extra: opaque and unauthenticated; None if the file has no such line. Never empty.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The file's bytes; its name ends in `.tlog-proof`."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(b"extra " + b64encode(self.extra))
        lines.append(b"index %d" % self.index)
        lines.extend(b64encode(one) for one in self.path)
        return b"\n".join(lines) + b"\n\n" + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> TlogProof:
        """Read a proof; only its shape is checked, and that the checkpoint is a note.

        Raises:
            MalformedProof, MalformedNote: it is not spelt as C2SP tlog-proof and signed-note ask.
        """
        if len(raw) > _MAX_SIZE:
            raise MalformedProof("The proof is too large.")
        head, blank, checkpoint = raw.partition(b"\n\n")
        lines = head.split(b"\n")
        if not blank or lines.pop(0) != HEADER:
            raise MalformedProof(
                f"A proof begins with {HEADER.decode()} and has a blank line before the checkpoint."
            )
        extra = None
        if lines and lines[0].startswith(b"extra "):
            extra = _decode(lines.pop(0).removeprefix(b"extra "))
            if len(extra) > MAX_EXTRA_SIZE:
                raise MalformedProof(f"The extra data is longer than {MAX_EXTRA_SIZE} bytes.")
        if not lines or not lines[0].startswith(b"index "):
            raise MalformedProof("The proof has no index line.")
        index = parse_size(lines.pop(0).removeprefix(b"index "), MalformedProof)
        path = decode_hash_lines(lines, MalformedProof)
        notes.parse(checkpoint)
        return cls(index, path, checkpoint, extra)


def verify_proof(
    proof: TlogProof, leaf: bytes, keys: Iterable[VerifierKey], origin: str
) -> tuple[Checkpoint, Note]:
    """Check that the log vouches for a leaf hash at the index the proof names.

    Cosignatures are not looked at: pass the returned note to `verify_cosignatures` and count.

    Args:
        proof: from `TlogProof.parse`.
        leaf: the leaf hash, 32 bytes, computed by the caller from the entry itself.
        keys: the log keys that count for this origin.
        origin: the log that must have signed.

    Raises:
        MalformedNote, MalformedCheckpoint, UnexpectedOrigin, InvalidNoteSignature, NoKnownSignature: as `open_checkpoint`.
        InvalidInclusionProof: the path does not lead from the leaf at that index to the checkpoint's root.
    """
    checkpoint, note = open_checkpoint(proof.checkpoint, keys, origin)
    verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return checkpoint, note


def decode_hash_lines(lines: list[bytes], error: type[Malformed]) -> tuple[bytes, ...]:
    """Read hashes, one base64 line each, at most 63: the form that proofs and submissions to witnesses share.

    Raises:
        error: too many, not canonical base64, or not 32 bytes.
    """
    if len(lines) > MAX_PROOF_LENGTH:
        raise error(f"A proof holds at most {MAX_PROOF_LENGTH} hashes.")
    try:
        hashes = tuple(notes.b64_decode(line) for line in lines)
    except NonCanonicalEncoding as cause:
        raise error("A line of the proof is not canonical base64.") from cause
    if any(len(one) != HASH_SIZE for one in hashes):
        raise error(f"Every hash in a proof is {HASH_SIZE} bytes long.")
    return hashes


def _decode(text: bytes) -> bytes:
    try:
        return notes.b64_decode(text)
    except NonCanonicalEncoding as error:
        raise MalformedProof("The extra data is not canonical base64.") from error
