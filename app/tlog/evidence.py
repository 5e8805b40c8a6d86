"""Evidence: a record with which anybody can prove, offline, that a log or a witness contradicted itself.

Guarantees: `verify` returns only what follows from signatures of the accused over bytes in the record, so nobody can frame
a State: to make a record that convicts a log one needs two statements that its key signed and that cannot both be true.
Two types convict nobody and say so (`Verdict.convicts`): they describe what was served when, which nobody can prove.

| type | older | newer | convicts |
| --- | --- | --- | --- |
| `fork` | a head | a head of at least its size that does not extend it | the log |
| `cosigner` | as `fork`, and one witness cosigned both | | the witness, and the log |
| `badleaf` | none | a head over a leaf that breaks the leaf's format or names another log | the log |
| `rollback` | the head that was served last | a larger head, served before, that extends it | nobody |
| `withheld` | the largest head the log itself serves | a larger head, shown by others | nobody |

The record is one canonical JSON object (RFC 8785); its id is the SHA-256 of its bytes, in hex. `docs/protocol.md` has the
members and vectors. Leaves to others: whose keys count (the roster), keeping records, and what follows from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import MalformedJson, Refused, VerbaleError
from app.domain.json import canonical, parse_strict
from app.domain.statement import parse as parse_leaf
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.cosignature import verify_cosignatures
from app.tlog.merkle import (
    HASH_SIZE,
    MAX_PROOF_LENGTH,
    MAX_TREE_SIZE,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from app.tlog.note import Note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.tlog.cosignature import CosignerKey
    from app.tlog.note import Signature, VerifierKey

Kind = Literal["fork", "rollback", "withheld", "badleaf", "cosigner"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CONVICTING: Final = frozenset({"fork", "cosigner", "badleaf"})

MAX_RECORD: Final = 256 * 2**10
"""Bytes: two heads of 64 KiB with JSON's escapes, two proofs, a leaf."""
MAX_SEEN: Final = 64

_MEMBERS: Final = frozenset(
    {"v", "type", "origin", "older", "newer", "root_at_older_size_in_newer", "consistency", "seen"}
)
_EXTRA: Final[dict[str, frozenset[str]]] = {
    "cosigner": frozenset({"witness"}),
    "badleaf": frozenset({"index", "leaf"}),
}
_SEEN_MEMBERS: Final = frozenset({"at", "by", "where"})
_STATE: Final = re.compile(r"[A-Z]{2}")
_WHERE: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")
_ID: Final = re.compile(r"[0-9a-f]{64}")


class EvidenceRefused(Refused):
    """The record is malformed, or does not prove what it says. It accuses nobody and is not kept.

    Attributes:
        step: what failed: format, older, newer, proof, cosignatures or leaf.
    """

    code = "evidence-refused"

    def __init__(self, step: str, why: str) -> None:
        """Name the step."""
        self.step = step
        super().__init__(f"{step}: {why}")


@dataclass(frozen=True, slots=True)
class Sighting:
    """Who came upon a head, when and where. Not proven by anything.

    Attributes:
        at: unix seconds, by that State's clock.
        by: alpha-2 code.
        where: for instance `origin`, `offer`, `mirror NL`, `witness JP`, `anchor US`.
    """

    at: int
    by: str
    where: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One record, read. Its format holds; nothing else has been checked.

    Attributes:
        older: note, byte for byte; None for `badleaf`.
        newer: note, byte for byte.
        root: the root of the newer tree at the older size; None if it is not known (`withheld`) or has no meaning.
        proof: from the older to the newer size in the newer tree (RFC 6962); for `badleaf` the inclusion proof.
        witness: the accused of `cosigner`.
        index, leaf: of `badleaf`.
    """

    type: Kind
    origin: str
    older: bytes | None = field(repr=False)
    newer: bytes = field(repr=False)
    root: bytes | None = field(repr=False)
    proof: tuple[bytes, ...] = field(default=(), repr=False)
    seen: tuple[Sighting, ...] = ()
    witness: str | None = None
    index: int | None = None
    leaf: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        """The exact bytes of the record."""
        value: dict[str, Any] = {
            "v": 1,
            "type": self.type,
            "origin": self.origin,
            "older": None if self.older is None else self.older.decode(),
            "newer": self.newer.decode(),
            "root_at_older_size_in_newer": None if self.root is None else b64u_encode(self.root),
            "consistency": [b64u_encode(one) for one in self.proof],
            "seen": [{"at": s.at, "by": s.by, "where": s.where} for s in self.seen],
        }
        if self.type == "cosigner":
            value["witness"] = self.witness
        if self.type == "badleaf":
            value |= {"index": self.index, "leaf": b64u_encode(self.leaf or b"")}
        return canonical(value)

    @classmethod
    def parse(cls, raw: bytes) -> Evidence:
        """Read a record.

        Raises:
            EvidenceRefused: any other spelling than the one `encode` gives.
        """
        if len(raw) > MAX_RECORD:
            raise EvidenceRefused("format", f"A record has at most {MAX_RECORD} bytes.")
        try:
            value = parse_strict(raw)
            if not isinstance(value, dict) or canonical(value) != raw:
                raise EvidenceRefused("format", "A record is one JSON object in canonical form (RFC 8785).")
            return _read(value)
        except (MalformedJson, UnicodeEncodeError) as error:
            raise EvidenceRefused("format", str(error)) from error

    @property
    def id(self) -> str:
        """The record's name: SHA-256 of its bytes, hex."""
        return record_id(self.encode())


def record_id(raw: bytes) -> str:
    """The name of a record: SHA-256 of its bytes, hex."""
    return sha256(raw).hexdigest()


def is_record_id(text: str) -> bool:
    """Whether `text` can name a record."""
    return _ID.fullmatch(text) is not None


def _read(value: dict[str, Any]) -> Evidence:
    kind = value.get("type")
    if kind not in KINDS:
        raise EvidenceRefused("format", f"type is one of {', '.join(KINDS)}.")
    wanted = _MEMBERS | _EXTRA.get(kind, frozenset())
    if value.keys() != wanted:
        odd = sorted(value.keys() ^ wanted)
        raise EvidenceRefused(
            "format", f"A record of this type lacks or adds members: {', '.join(odd)[:200]}."
        )
    if type(value["v"]) is not int or value["v"] != 1:
        raise EvidenceRefused("format", "Only version 1 is known.")
    if not isinstance(value["origin"], str):
        raise EvidenceRefused("format", "origin is a text.")
    root = value["root_at_older_size_in_newer"]
    proof = value["consistency"]
    if not isinstance(proof, list) or len(proof) > MAX_PROOF_LENGTH:
        raise EvidenceRefused("format", f"consistency is a list of at most {MAX_PROOF_LENGTH} hashes.")
    return Evidence(
        type=kind,
        origin=value["origin"],
        older=None if kind == "badleaf" and value["older"] is None else _note(value["older"], "older"),
        newer=_note(value["newer"], "newer"),
        root=None if root is None else _hash(root, "root_at_older_size_in_newer"),
        proof=tuple(_hash(one, "consistency") for one in proof),
        seen=_seen(value["seen"]),
        witness=_text(value["witness"], "witness") if kind == "cosigner" else None,
        index=_index(value["index"]) if kind == "badleaf" else None,
        leaf=_bytes(value["leaf"], "leaf") if kind == "badleaf" else None,
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise EvidenceRefused("format", f"{name} is a text.")
    return value


def _note(value: object, name: str) -> bytes:
    return _text(value, name).encode()


def _bytes(value: object, name: str) -> bytes:
    try:
        return b64u_decode(_text(value, name))
    except VerbaleError as error:
        raise EvidenceRefused("format", f"{name}: {error}") from error


def _hash(value: object, name: str) -> bytes:
    raw = _bytes(value, name)
    if len(raw) != HASH_SIZE:
        raise EvidenceRefused("format", f"{name} holds hashes of {HASH_SIZE} bytes.")
    return raw


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TREE_SIZE:
        raise EvidenceRefused("format", "index is a whole number from 0.")
    return value


def _seen(value: object) -> tuple[Sighting, ...]:
    if not isinstance(value, list) or len(value) > MAX_SEEN:
        raise EvidenceRefused("format", f"seen is a list of at most {MAX_SEEN}.")
    found = []
    for one in value:
        good = (
            isinstance(one, dict)
            and one.keys() == _SEEN_MEMBERS
            and type(one["at"]) is int
            and 0 <= one["at"] <= 2**40
            and isinstance(one["by"], str)
            and _STATE.fullmatch(one["by"]) is not None
            and isinstance(one["where"], str)
            and _WHERE.fullmatch(one["where"]) is not None
        )
        if not good:
            raise EvidenceRefused(
                "format", "Each of seen has at (unix seconds), by (a State) and where (a short text)."
            )
        found.append(Sighting(one["at"], one["by"], one["where"]))
    return tuple(found)


# ── verifying ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a record proves.

    Attributes:
        accused: the log's origin, or the witness's name.
        convicts: whether the accused signed a contradiction; False for what was merely served.
        older: None for `badleaf`.
        says: one sentence for a person.
    """

    evidence: Evidence
    accused: str
    convicts: bool
    older: Checkpoint | None
    newer: Checkpoint
    says: str


def verify(
    evidence: Evidence, log_keys: Iterable[VerifierKey], cosigners: Iterable[CosignerKey] = ()
) -> Verdict:
    """Check a record with public keys alone.

    Args:
        log_keys: keys that sign, or signed, checkpoints of the log.
        cosigners: keys of the accused witness; needed for `cosigner` only.

    Raises:
        EvidenceRefused: it does not prove what it says; the message names the step.
    """
    keys = tuple(log_keys)
    witness = evidence.witness
    newer, newer_note = _open(evidence.newer, "newer", keys, evidence.origin, witness)
    if evidence.type == "badleaf":
        return _verify_badleaf(evidence, newer)
    if evidence.older is None:
        raise EvidenceRefused("older", "A record of this type has two heads.")
    older, older_note = _open(evidence.older, "older", keys, evidence.origin, witness)
    if evidence.type in ("rollback", "withheld"):
        return _verify_report(evidence, older, newer)
    _check_contradiction(evidence, older, newer)
    if evidence.type == "fork":
        says = f"{evidence.origin} signed {_at(older)} and {_at(newer)}, which does not extend it."
        return Verdict(evidence, evidence.origin, True, older, newer, says)
    name = witness or ""
    wanted = [key for key in cosigners if key.name == name]
    for step, note in (("older", older_note), ("newer", newer_note)):
        try:
            held = verify_cosignatures(note, wanted)
        except VerbaleError as error:
            raise EvidenceRefused("cosignatures", f"{step}: {error}") from error
        if not held:
            raise EvidenceRefused(
                "cosignatures", f"{name} has not cosigned the {step} head with a key given."
            )
    says = f"{name} cosigned {_at(older)} of {evidence.origin} and {_at(newer)}, which does not extend it."
    return Verdict(evidence, name, True, older, newer, says)


def _open(
    raw: bytes, step: str, keys: tuple[VerifierKey, ...], origin: str, witness: str | None
) -> tuple[Checkpoint, Note]:
    """Every line counts: a line that nothing checks could be changed without notice."""
    try:
        checkpoint, note = open_checkpoint(raw, keys, origin)
    except VerbaleError as error:
        raise EvidenceRefused(step, str(error)) from error
    known = {(key.name, key.key_id) for key in keys}
    others = [s for s in note.signatures if (s.name, s.key_id) not in known and s.name != witness]
    if others or (witness is not None and sum(s.name == witness for s in note.signatures) != 1):
        raise EvidenceRefused(
            step, "The head carries signatures that this record has no use for, or lacks one."
        )
    return checkpoint, note


def _check_contradiction(evidence: Evidence, older: Checkpoint, newer: Checkpoint) -> None:
    root = _check_proof(evidence, older, newer)
    if root == older.root:
        raise EvidenceRefused("proof", "The newer head extends the older one: there is no contradiction.")


def _check_proof(evidence: Evidence, older: Checkpoint, newer: Checkpoint) -> bytes:
    """The root that the newer tree has at the older size, proven."""
    if older.size > newer.size:
        raise EvidenceRefused("older", "The older head is the smaller one.")
    if evidence.root is None:
        raise EvidenceRefused("proof", "root_at_older_size_in_newer is missing.")
    try:
        verify_consistency(older.size, evidence.root, newer.size, newer.root, evidence.proof)
    except VerbaleError as error:
        raise EvidenceRefused("proof", str(error)) from error
    return evidence.root


def _verify_report(evidence: Evidence, older: Checkpoint, newer: Checkpoint) -> Verdict:
    if older.size >= newer.size:
        raise EvidenceRefused("older", "The older head is the smaller one.")
    if evidence.root is not None:
        if _check_proof(evidence, older, newer) != older.root:
            raise EvidenceRefused(
                "proof", "The newer head does not extend the older one: that is a fork, say so."
            )
    elif evidence.type == "rollback" or evidence.proof:
        raise EvidenceRefused("proof", "root_at_older_size_in_newer is missing.")
    what = (
        "served size {0} after it had served {1}"
        if evidence.type == "rollback"
        else "serves size {0}, others show {1}"
    )
    says = (
        f"{evidence.origin} "
        + what.format(older.size, newer.size)
        + ". It signed both; nothing contradicts itself."
    )
    return Verdict(evidence, evidence.origin, False, older, newer, says)


def _verify_badleaf(evidence: Evidence, newer: Checkpoint) -> Verdict:
    if evidence.older is not None or evidence.root is not None:
        raise EvidenceRefused(
            "format", "A bad leaf has one head, newer, and its inclusion proof in consistency."
        )
    leaf, index = evidence.leaf or b"", evidence.index or 0
    try:
        verify_inclusion(leaf_hash(leaf), index, newer.size, evidence.proof, newer.root)
    except VerbaleError as error:
        raise EvidenceRefused("proof", str(error)) from error
    fault = _fault_of(leaf, evidence.origin)
    if fault is None:
        raise EvidenceRefused(
            "leaf", "The leaf keeps the format and names this log: nothing is wrong with it."
        )
    says = f"{evidence.origin} carries a leaf at index {index} that is none: {fault}"
    return Verdict(evidence, evidence.origin, True, None, newer, says)


def _fault_of(leaf: bytes, origin: str) -> str | None:
    """What anybody can see to be wrong with a leaf, without a roster."""
    try:
        statement = parse_leaf(leaf)
    except VerbaleError as error:
        return str(error)
    return None if statement.log == origin else f"it was signed for {statement.log}."


def _at(checkpoint: Checkpoint) -> str:
    return f"the root {checkpoint.root.hex()[:16]}… at size {checkpoint.size}"


def fork_between(
    a: Note,
    b: Note,
    keys: Iterable[VerifierKey],
    *,
    root: bytes | None,
    proof: Iterable[bytes],
    seen: Iterable[Sighting] = (),
) -> Evidence:
    """The record of two heads that contradict each other, whichever is which, with the log's own signatures alone.

    Args:
        keys: the log's; its signatures hold over both.
        root: of the larger tree at the smaller size; None between equal sizes.
        proof: of consistency in the larger tree; empty between equal sizes.
    """
    known = tuple(keys)
    older, newer = sorted((a, b), key=lambda n: (Checkpoint.parse(n.text).size, n.text))
    small, large = Checkpoint.parse(older.text), Checkpoint.parse(newer.text)
    return Evidence(
        type="fork",
        origin=large.origin,
        older=Note(older.text, notes.verify(older, known)).encode(),
        newer=Note(newer.text, notes.verify(newer, known)).encode(),
        root=large.root if small.size == large.size else root,
        proof=tuple(proof),
        seen=tuple(seen)[:MAX_SEEN],
    )


def cosigners_of(fork: Evidence, a: Note, b: Note, keys: Iterable[CosignerKey]) -> tuple[Evidence, ...]:
    """One record for each witness whose cosignature holds over both heads of a fork.

    Args:
        a, b: the two heads with all the cosignatures that came with them.
        keys: of every witness that is known.
    """
    assert fork.older is not None  # noqa: S101 - a fork has two heads
    by_text = {n.text: _cosignatures(n, tuple(keys)) for n in (a, b)}
    older, newer = notes.parse(fork.older), notes.parse(fork.newer)
    both = by_text[older.text].keys() & by_text[newer.text].keys()
    return tuple(
        Evidence(
            "cosigner",
            fork.origin,
            Note(older.text, (*older.signatures, by_text[older.text][who])).encode(),
            Note(newer.text, (*newer.signatures, by_text[newer.text][who])).encode(),
            fork.root,
            fork.proof,
            fork.seen,
            who[0],
        )
        for who in sorted(both)
    )


def _cosignatures(note: Note, keys: tuple[CosignerKey, ...]) -> dict[tuple[str, bytes], Signature]:
    held: dict[tuple[str, bytes], Signature] = {}
    for key in keys:
        try:
            held |= {(c.name, c.key_id): c.signature for c in verify_cosignatures(note, [key])}
        except VerbaleError:
            continue  # a line that does not hold accuses nobody
    return held
