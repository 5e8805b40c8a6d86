r"""Checkpoints: the signed head of a log (C2SP tlog-checkpoint).

The text is three lines, `<origin>\n<size>\n<base64 root>\n`. Guarantees: `Checkpoint.parse(c.body()) == c`, and no
other text parses to `c`. Leaves to others: whether the root is right (`app.tlog.merkle`), whether it is newer than what
was seen, and never to sign two roots for one size (the publisher's database constraint).

Stricter than C2SP asks: no extension lines, since they would be signed and never audited.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.errors import Malformed, NonCanonicalEncoding, Refused
from app.domain.keys import Signer
from app.tlog import note as notes
from app.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE
from app.tlog.note import Note, VerifierKey

MAX_ORIGIN_LENGTH = 255
"""Bytes of UTF-8. The ML-DSA-44 cosignature (C2SP tlog-cosignature) gives an origin a one-byte length."""

_LINES = 3


class MalformedCheckpoint(Malformed):
    """The text of the note is not a checkpoint of three lines."""

    code = "malformed-checkpoint"


class UnexpectedOrigin(Refused):
    """The checkpoint is of another log than the one asked for."""

    code = "unexpected-origin"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log.

    Attributes:
        origin: the log's name, `<host>/log/<epoch>`.
        size: number of leaves.
        root: 32 bytes, the RFC 6962 root at that size.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """A checkpoint that has no text is a programming mistake; input goes through `parse`."""
        if not _is_origin(self.origin) or not 0 <= self.size <= MAX_TREE_SIZE or len(self.root) != HASH_SIZE:
            raise ValueError(
                f"no checkpoint has origin {self.origin!r}, size {self.size}, root {self.root.hex()}"
            )

    def body(self) -> bytes:
        """The exact bytes that are signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode('ascii')}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read the text of a note. It says nothing about signatures.

        Raises:
            MalformedCheckpoint: not exactly three lines of the right form, each closed by a newline.
        """
        lines = text.split(b"\n")
        if len(lines) != _LINES + 1 or lines[-1]:
            raise MalformedCheckpoint("A checkpoint has exactly three lines: origin, size and root.")
        try:
            origin = lines[0].decode("utf-8")
            root = notes.b64_decode(lines[2])
        except (UnicodeDecodeError, NonCanonicalEncoding) as error:
            raise MalformedCheckpoint(
                "The origin is not UTF-8, or the root is not canonical base64."
            ) from error
        if not _is_origin(origin):
            raise MalformedCheckpoint(
                "The origin is empty, too long, or holds a space, a plus or a control character."
            )
        if len(root) != HASH_SIZE:
            raise MalformedCheckpoint(f"The root is {len(root)} bytes long, not {HASH_SIZE}.")
        return cls(origin, parse_size(lines[1]), root)


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> Note:
    """Sign with the log's Ed25519 key; the key's name is the origin.

    Whoever calls this has stored (origin, size, root) durably first, so that no second root is ever signed for a size.
    """
    body = checkpoint.body()
    return Note(body, (notes.sign(body, checkpoint.origin, signer),))


def open_checkpoint(raw: bytes, keys: Iterable[VerifierKey], origin: str) -> tuple[Checkpoint, Note]:
    """Read and verify the signed checkpoint of a log.

    Args:
        raw: the note as it came.
        keys: the log keys that count for this origin; more than one while a key is being replaced.
        origin: the log that was asked for.

    Returns:
        The checkpoint and the note; cosignatures in the note are not verified (see `app.tlog.cosignature`).

    Raises:
        MalformedNote, MalformedCheckpoint: it cannot be read.
        UnexpectedOrigin: it is of another log.
        InvalidNoteSignature, NoKnownSignature: the log's signature does not hold or is missing.
    """
    note = notes.parse(raw)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise UnexpectedOrigin(f"This is a checkpoint of {checkpoint.origin}, not of {origin}.")
    notes.verify(note, keys)
    return checkpoint, note


def parse_size(text: bytes, error: type[Malformed] = MalformedCheckpoint) -> int:
    """Read a tree size or leaf index: ASCII decimal, no leading zeroes, at most MAX_TREE_SIZE.

    Raises:
        error: any other spelling; the fact is named by the format that the number stands in.
    """
    if not (text.isdigit() and len(text) <= len(str(MAX_TREE_SIZE))) or (text[:1] == b"0" and text != b"0"):
        raise error("A tree size or index is an ASCII decimal number without leading zeroes.")
    size = int(text)
    if size > MAX_TREE_SIZE:
        raise error(f"A tree size or index is at most {MAX_TREE_SIZE}.")
    return size


def _is_origin(origin: str) -> bool:
    """An origin is also the name of the log's key, so it follows the rules for key names."""
    return notes.is_key_name(origin) and len(origin.encode()) <= MAX_ORIGIN_LENGTH
