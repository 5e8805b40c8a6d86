"""A witness's rules and wire forms, without the network (C2SP tlog-witness, `add-checkpoint`).

Guarantees: `judge_submission` lets a checkpoint pass only if the log signed it and it extends what this witness cosigned
last. Leaves to others: HTTP, and doing the three things that must be one transaction in this order: judge against the
*stored* last checkpoint, store the new one, and only then cosign. Two concurrent judgements against the same state may
both pass; the store's compare-and-swap on (origin, old size) decides which one counts.

| outcome | C2SP status |
| --- | --- |
| accepted | 200, signature lines |
| MalformedSubmission, MalformedNote, MalformedCheckpoint, OldSizeTooLarge | 400 |
| NoKnownSignature, InvalidNoteSignature | 403 |
| origin unknown (the caller's roster knows) | 404 |
| OldSizeMismatch | 409, `text/x.tlog.size` |
| InvalidConsistencyProof, CheckpointForked | 422 |
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from app.domain.errors import Conflict, Malformed
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, open_checkpoint, parse_size
from app.tlog.merkle import EMPTY_ROOT, InvalidConsistencyProof, verify_consistency
from app.tlog.note import MAX_NOTE_SIZE, Note, Signature, VerifierKey
from app.tlog.proof import decode_hash_lines

SIZE_TYPE = "text/x.tlog.size"
"""Media type of the body of a 409."""

MAX_SUBMISSION_SIZE = MAX_NOTE_SIZE + 4 * 1024
"""Bytes: a note, 63 lines of 45 bytes and the old size."""


class MalformedSubmission(Malformed):
    """The body is not an add-checkpoint request, or an answer is not one a witness gives."""

    code = "malformed-submission"


class OldSizeTooLarge(Malformed):
    """The old size is above the size of the checkpoint."""

    code = "old-size-too-large"


class OldSizeMismatch(Conflict):
    """The old size is not the size this witness cosigned last.

    Attributes:
        size: what it cosigned last; 0 if nothing. Make the proof from there.
    """

    code = "old-size-mismatch"

    def __init__(self, size: int) -> None:
        """Keep the size: it is the answer's body."""
        self.size = size
        super().__init__(f"This witness last cosigned size {size}. Send a proof from there.")


class CheckpointForked(Conflict):
    """The log signed two roots for one size: evidence, not a mistake in the request.

    Attributes:
        held: the checkpoint this witness cosigned.
        offered: the one that contradicts it, whose signature holds.
    """

    code = "checkpoint-forked"

    def __init__(self, held: Checkpoint, offered: Checkpoint) -> None:
        """Keep both: together with their signatures they convict the log."""
        self.held = held
        self.offered = offered
        super().__init__(
            f"{held.origin} signed two different roots for size {held.size}. Keep both checkpoints."
        )


@dataclass(frozen=True, slots=True)
class Submission:
    """The body of an add-checkpoint request.

    Attributes:
        old_size: the size that the log believes this witness cosigned last.
        proof: RFC 6962 consistency proof from there, 0 to 63 hashes.
        checkpoint: the note, byte for byte, unverified.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The exact body."""
        head = b"old %d\n" % self.old_size + b"".join(b64encode(one) + b"\n" for one in self.proof)
        return head + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, raw: bytes) -> Submission:
        """Read a body; the checkpoint is only checked to be a note.

        Raises:
            MalformedSubmission, MalformedNote: it is not spelt as C2SP asks.
        """
        if len(raw) > MAX_SUBMISSION_SIZE:
            raise MalformedSubmission(f"The request is longer than {MAX_SUBMISSION_SIZE} bytes.")
        head, blank, checkpoint = raw.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        if not blank or not first.startswith(b"old "):
            raise MalformedSubmission("A request is: old <size>, proof lines, a blank line, a checkpoint.")
        old_size = parse_size(first.removeprefix(b"old "), MalformedSubmission)
        proof = decode_hash_lines(lines, MalformedSubmission)
        notes.parse(checkpoint)
        return cls(old_size, proof, checkpoint)

    def claimed_origin(self) -> str:
        """The origin in the checkpoint, unverified: only for finding the keys that `judge_submission` needs.

        Raises:
            MalformedCheckpoint: the note is not a checkpoint.
        """
        return Checkpoint.parse(notes.parse(self.checkpoint).text).origin


def judge_submission(
    submission: Submission, keys: Iterable[VerifierKey], origin: str, cosigned: Checkpoint | None
) -> tuple[Checkpoint, Note]:
    """Decide whether to cosign, in the order of C2SP tlog-witness.

    The same size and root again is accepted: that is how a log asks for a fresh time.

    Args:
        submission: what came.
        keys: the log keys that count for the origin.
        origin: the log, known to the caller.
        cosigned: the last checkpoint this witness cosigned for the origin, from its store; None if there is none.

    Returns:
        The checkpoint to store and then to cosign, and its note.

    Raises:
        See the table at the top of this module.
    """
    # (1) The log itself signed it. Until here nothing it says is anybody's fault.
    checkpoint, note = open_checkpoint(submission.checkpoint, keys, origin)
    # (2) The request is about our last checkpoint.
    if submission.old_size > checkpoint.size:
        raise OldSizeTooLarge(
            f"The old size {submission.old_size} is above the checkpoint's size {checkpoint.size}."
        )
    held = cosigned or Checkpoint(origin, 0, EMPTY_ROOT)
    if submission.old_size != held.size:
        raise OldSizeMismatch(held.size)
    # (3) The new tree extends it.
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise InvalidConsistencyProof("The root at size 0 is not the root of the empty tree.")
    if checkpoint.size == held.size and checkpoint.root != held.root:
        raise CheckpointForked(held, checkpoint)
    verify_consistency(held.size, held.root, checkpoint.size, checkpoint.root, submission.proof)
    return checkpoint, note


def encode_cosignatures(signatures: Iterable[Signature]) -> bytes:
    """The body of a 200: one line for each signature."""
    return b"".join(signature.line() for signature in signatures)


def parse_cosignatures(raw: bytes, checkpoint: Checkpoint) -> Note:
    """Read the body of a 200 as a note over the checkpoint that was submitted, for `verify_cosignatures`.

    Raises:
        MalformedNote: it is not a sequence of signature lines.
    """
    return Note(checkpoint.body(), notes.parse_signature_lines(raw))


def encode_size(size: int) -> bytes:
    """The body of a 409."""
    return b"%d\n" % size


def parse_size_answer(raw: bytes) -> int:
    """Read the body of a 409.

    Raises:
        MalformedSubmission: not one decimal number and a newline.
    """
    if not raw.endswith(b"\n"):
        raise MalformedSubmission("The witness's answer is not a size and a newline.")
    return parse_size(raw[:-1], MalformedSubmission)


def origin_hash(origin: str) -> str:
    """Lowercase hex SHA-256 of the origin: the path element of a witness's monitoring prefix."""
    return sha256(origin.encode()).hexdigest()
