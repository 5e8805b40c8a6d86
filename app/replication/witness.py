"""This node as a witness, and its own log before other witnesses.

**A cosignature is a receipt**: it is given only after every leaf up to that size is stored here, so State B's cosignature
over size N proves that B holds everything up to N. The recall board, lag and "who has been told" read from cosignatures.

Forms and rules: C2SP tlog-witness and tlog-cosignature (`app.tlog.witness`, `app.tlog.cosignature`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, func, select, update

from app.db import execute
from app.domain.errors import NodeFault, NotFound, PeerFault, VerbaleError
from app.models import CosignatureRow, HeadRow, LogRow, WatchRow
from app.tlog.checkpoint import Checkpoint
from app.tlog.confirm import REFRESH_S, confirm
from app.tlog.cosignature import Cosignature, CosignerKey, cosign, verify_cosignatures
from app.tlog.merkle import consistency_proof
from app.tlog.note import Note, VerifierKey
from app.tlog.note import parse as parse_note
from app.tlog.policy import Policy, PolicyGroup, PolicyLog, PolicyWitness
from app.tlog.store import node_reader, read_note
from app.tlog.witness import (
    MalformedSubmission,
    Submission,
    judge_submission,
    origin_hash,
    parse_cosignatures,
    parse_size_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.keys import PublicKey, Signer
    from app.domain.roster import Roster
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 16 * 2**10
ACCEPTED, CONFLICT = 200, 409


_LOGS, _HEADS, _COSIGNED = LogRow.__table__, HeadRow.__table__, CosignatureRow.__table__
_NEWEST_AT: Final = func.coalesce(_COSIGNED.c.fresh_at, _COSIGNED.c.timestamp)
_LAST_COSIGNED: Final = (
    select(_COSIGNED.c.size, _HEADS.c.root)
    .join_from(
        _COSIGNED, _HEADS, (_HEADS.c.log_id == _COSIGNED.c.log_id) & (_HEADS.c.size == _COSIGNED.c.size)
    )
    .where(_COSIGNED.c.log_id == bindparam("log"), _COSIGNED.c.witness == bindparam("name"))
    .order_by(_COSIGNED.c.size.desc())
    .limit(1)
)
_TO_COSIGN: Final = (
    select(
        _LOGS.c.origin,
        _LOGS.c.size,
        _LOGS.c.head_size,
        _LOGS.c.head_root,
        _LOGS.c.status,
        WatchRow.__table__.c.restored_at,
    )
    .outerjoin_from(_LOGS, WatchRow.__table__, WatchRow.__table__.c.log_id == _LOGS.c.id)
    .where(_LOGS.c.id == bindparam("log"))
)
_FRESHEN: Final = (
    update(_COSIGNED)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(
        _COSIGNED.c.log_id == bindparam("log"),
        _COSIGNED.c.size == bindparam("at_size"),
        _COSIGNED.c.witness == bindparam("name"),
        bindparam("at") > _NEWEST_AT,
    )
    .values(fresh_at=bindparam("at"), fresh_line=bindparam("new_line"))
)
_STATE: Final = select(_LOGS.c.state).where(_LOGS.c.id == bindparam("log"))
_WHO_COSIGNED: Final = select(_COSIGNED.c.witness).where(
    _COSIGNED.c.log_id == bindparam("log"), _COSIGNED.c.size == bindparam("at_size")
)
_MIRROR: Final = select(_LOGS.c.id).where(_LOGS.c.origin == bindparam("of"), _LOGS.c.is_own.is_(False))
_LINE: Final = select(func.coalesce(_COSIGNED.c.fresh_line, _COSIGNED.c.line)).where(
    _COSIGNED.c.log_id == bindparam("log"),
    _COSIGNED.c.size == bindparam("at_size"),
    _COSIGNED.c.witness == bindparam("name"),
    bindparam("since") <= _NEWEST_AT,
)
_HEAD: Final = select(_LOGS.c.origin, _LOGS.c.head_size, _LOGS.c.head_root, _LOGS.c.head_note).where(
    _LOGS.c.id == bindparam("log")
)
_LAST_KEPT: Final = (
    select(_COSIGNED.c.size, _NEWEST_AT.label("at"))
    .where(_COSIGNED.c.log_id == bindparam("log"), _COSIGNED.c.witness == bindparam("name"))
    .order_by(_COSIGNED.c.size.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class WitnessIdentity:
    """This node's witness: the key name (a URL without scheme) and the key."""

    name: str
    signer: Signer
    state: str


@dataclass(frozen=True, slots=True)
class WitnessEndpoint:
    """Another witness: its keys (several while one is being replaced), where it takes checkpoints, and whose it is."""

    name: str
    keys: tuple[CosignerKey, ...]
    url: str
    state: str | None


class WitnessAhead(NodeFault):
    """A witness has cosigned more of this log than this node holds: the node was restored from an old backup."""

    code = "witness-ahead"


def log_keys(roster: Roster, origin: str, *, settled: int | None = None) -> tuple[VerifierKey, ...]:
    """The keys that may sign checkpoints of `origin`: all that the roster lists for its State and that are not revoked.

    Args:
        settled: size of a checkpoint that is taken only if a quorum cosigned it, or if it is the one at which the States have ended
            the log: then a key that is revoked from that index on, or a later one, counts as well. By itself such a key
            proves nothing any more, since its thief can sign any size.
    """
    state = roster.state_of_origin(origin)
    if state is None:
        return ()
    return tuple(
        VerifierKey(origin, k.key)
        for k in roster.keys_of(state.code, "log")
        if k.key.alg == "Ed25519"
        if k.revoked_at_index is None or (settled is not None and settled <= k.revoked_at_index)
    )


def revoked_log_keys(roster: Roster, origin: str) -> frozenset[PublicKey]:
    """The keys under which no head of `origin` stands by itself any more."""
    state = roster.state_of_origin(origin)
    listed = () if state is None else roster.keys_of(state.code, "log")
    return frozenset(k.key for k in listed if k.revoked_at_index is not None)


def cosigner_keys(roster: Roster) -> dict[CosignerKey, str]:
    """Every witness key in the roster that is not revoked → its State."""
    return {
        CosignerKey(state.witness_name, k.key): state.code
        for state in roster.nodes()
        if state.witness_name
        for k in roster.keys_of(state.code, "witness")
        if k.revoked_at_index is None
    }


def witness_endpoints(
    roster: Roster, own_state: str, extra: Iterable[str] = ()
) -> tuple[WitnessEndpoint, ...]:
    """All witnesses of this node's log: every other State's node, and those of the setting `witnesses`.

    Raises:
        MalformedVerifierKey: an extra witness is not `<vkey> <url>`.
    """
    found = [
        WitnessEndpoint(
            s.witness_name,
            tuple(CosignerKey(s.witness_name, k.key) for k in roster.keys_of(s.code, "witness")),
            f"{s.url}/witness",
            s.code,
        )
        for s in roster.nodes()
        if s.code != own_state and s.url and s.witness_name and s.status == "member"
    ]
    for line in extra:
        vkey, _, url = line.partition(" ")
        key = CosignerKey.parse(vkey)
        found.append(WitnessEndpoint(key.name, (key,), url.strip().rstrip("/"), None))
    return tuple(found)


def policy_of(roster: Roster, origin: str, foreign: Iterable[str] = ()) -> Policy:
    """The C2SP tlog-policy of one log: its keys, the witnesses that count, and how many States' must cosign.

    A State is a witness line, or while its key is being replaced a group of several of which any counts.

    Args:
        foreign: witnesses outside the roster, `<vkey> <url>` each: named in the file, and members of no group.

    Raises:
        NotFound: the roster lists no such log, or no other member that could witness it.
    """
    state = roster.state_of_origin(origin)
    quorum = None if state is None else roster.quorum_for(state.code)
    if state is None or quorum is None or not quorum.witnesses:
        raise NotFound(f"The roster in force lists no log {origin[:300]} that other States witness.")
    listed = roster.log(origin)
    logs = [PolicyLog(key, None if listed is None else listed.url) for key in log_keys(roster, origin)]
    witnesses: list[PolicyWitness] = []
    groups: list[PolicyGroup] = []
    for code in sorted(quorum.witnesses):
        member = roster.states[code]
        names = []
        for listed_key in roster.keys_of(code, "witness"):
            if member.witness_name is None or listed_key.revoked_at_index is not None:
                continue
            names.append(listed_key.kid.encode())
            key = CosignerKey(member.witness_name, listed_key.key)
            witnesses.append(PolicyWitness(names[-1], key, member.url and f"{member.url}/witness"))
        if names:
            groups.append(PolicyGroup(code.encode(), 1, tuple(names)))
    groups.append(PolicyGroup(b"quorum", quorum.needed, tuple(group.name for group in groups)))
    for line in foreign:
        vkey, _, url = line.partition(" ")
        key = CosignerKey.parse(vkey)
        witnesses.append(PolicyWitness(key.name.encode(), key, url.strip() or None))
    m, f, q = len(quorum.witnesses), quorum.faulty, quorum.needed
    said = (
        f"all {m} witnesses: too few for one of them to be dishonest"
        if quorum.takes_all
        else f"{q} of {m} witnesses; up to {f} may be dishonest or broken"
    )
    comments = (f"{origin} by roster version {roster.version}. Quorum: {said}.",)
    return Policy(tuple(logs), tuple(witnesses), tuple(groups), b"quorum", comments)


def log_by_hash(session: Session, hashed: str) -> tuple[int, str]:
    """(row id, origin) of the log whose origin has this hash (`origin_hash`), own or mirrored.

    Raises:
        NotFound: this node keeps none.
    """
    for log_id, origin in session.execute(select(LogRow.id, LogRow.origin)).all():
        if origin_hash(origin) == hashed:
            return log_id, origin
    raise NotFound("This node keeps no log with that hash of its origin.")


# ── as a witness ──────────────────────────────────────────────────────────────────────────────────────────────────


def last_cosigned(session: Session, log_id: int, name: str, origin: str) -> Checkpoint | None:
    """The largest head of a log that the witness `name` cosigned, from the store."""
    row = execute(session, _LAST_COSIGNED, log=log_id, name=name).one_or_none()
    return None if row is None else Checkpoint(origin, row.size, bytes(row.root))


def cosign_head(
    db: Database, log_id: int, identity: WitnessIdentity, roster: Roster, *, now: int
) -> Checkpoint | None:
    """Cosign the newest verified head of a mirrored log, if it is stored whole and not frozen.

    A head that this witness cosigned before is cosigned again, with a new time. Returns the checkpoint cosigned, or None
    when there is nothing to cosign. The cosignature is stored before anybody sees it; a crash in between leaves it to be
    given by the next call.
    """
    with db.write() as session:
        row = execute(session, _TO_COSIGN, log=log_id).one()
        if row.status != "ok" or row.head_root is None or row.size < row.head_size:
            return None
        if row.restored_at is not None:  # what it cosigned after the backup it does not know yet
            return None
        checkpoint = Checkpoint(row.origin, row.head_size, bytes(row.head_root))
        line = cosign(checkpoint, identity.name, identity.signer, now // 1000)
        store_cosignatures(
            db,
            session,
            log_id,
            checkpoint.size,
            [(Cosignature(line.name, line.key_id, now // 1000, line), identity.state)],
            roster,
        )
    return checkpoint


def store_cosignatures(
    db: Database,
    session: Session,
    log_id: int,
    size: int,
    found: Sequence[tuple[Cosignature, str | None]],
    roster: Roster,
) -> None:
    """Keep verified cosignatures with the State each belongs to, and look whether they confirm the size.

    The first one of a witness for a size stays, since its time is what "since when does that State hold it" asks; beside
    it the newest, whose time says until when the log stood still.
    """
    if not found:
        return
    rows = [
        {
            "log_id": log_id,
            "size": size,
            "witness": c.name,
            "state": state,
            "timestamp": c.at,
            "line": c.signature.line(),
        }
        for c, state in found
    ]
    session.connection().execute(db.insert_ignore(CosignatureRow.__table__), rows)
    for c, _ in found:
        line = c.signature.line()
        execute(session, _FRESHEN, log=log_id, at_size=size, name=c.name, at=c.at, new_line=line)
    state = execute(session, _STATE, log=log_id).scalar_one()
    confirm(db, session, log_id, size, roster.quorum_for(state))


def collect_cosignatures(db: Database, log_id: int, size: int, note: Note, roster: Roster) -> None:
    """Verify and keep the cosignatures that a served checkpoint carries: receipts of States that did not tell us.

    The caller has compared the checkpoint's root with the tree stored here. A line that does not hold is dropped: it
    accuses nobody, since anybody could have put it there. Most looks at a quiet log find nothing new and write nothing.
    """
    with db.read() as session:
        kept = set(execute(session, _WHO_COSIGNED, log=log_id, at_size=size).scalars())
    names = {line.name for line in note.signatures} - kept
    found: list[tuple[Cosignature, str | None]] = []
    for key, state in cosigner_keys(roster).items():
        if key.name not in names:
            continue
        try:
            found += [(cosignature, state) for cosignature in verify_cosignatures(note, [key])]
        except VerbaleError as error:
            log.warning(
                "cosignature dropped",
                extra={"action": "cosignature_dropped", "witness": key.name, "why": error.code},
            )
    if found:
        with db.write() as session:
            store_cosignatures(db, session, log_id, size, found, roster)


def open_submission(
    db: Database, submission: Submission, roster: Roster, name: str
) -> tuple[int, Checkpoint, Note]:
    """Judge an `add-checkpoint` request against what this witness cosigned last. Returns (log id, checkpoint, note).

    Raises:
        NotFound: the roster lists no such log, or this node does not follow it yet.
        See `app.tlog.witness.judge_submission` for the rest.
    """
    origin = submission.claimed_origin()
    keys = log_keys(roster, origin)
    with db.read() as session:
        log_id = execute(session, _MIRROR, of=origin).scalar_one_or_none()
        if not keys or log_id is None:
            raise NotFound(
                f"This witness does not follow {origin[:300]}: the roster in force here lists no such log."
            )
        held = last_cosigned(session, log_id, name, origin)
    checkpoint, note = judge_submission(submission, keys, origin, held)
    return log_id, checkpoint, note


def cosignature_line(
    db: Database, log_id: int, size: int, name: str, *, since: int | None = None
) -> bytes | None:
    """The newest signature line this witness gave for a head, or None.

    Args:
        since: unix seconds; a line with an earlier time does not count.
    """
    with db.read() as session:
        found = execute(session, _LINE, log=log_id, at_size=size, name=name, since=since or 0)
        line: bytes | None = found.scalar_one_or_none()
    return line


# ── before other witnesses ────────────────────────────────────────────────────────────────────────────────────────


def offer_step(
    db: Database, client: PeerClient, witness: WitnessEndpoint, log_id: int, roster: Roster, *, now: int
) -> bool:
    """Offer the own newest head to one witness and keep its cosignature. True if there was something to offer.

    A head that it has cosigned is offered again once its cosignature is REFRESH_S old.

    Raises:
        PeerFault: the witness did not answer, or answered something that does not verify.
        WitnessAhead: it has cosigned more than this node holds.
    """
    offer = _make_offer(db, log_id, witness.name, now // 1000)
    if offer is None:
        return False
    checkpoint, submission = offer
    status, body = _submit(client, witness, submission)
    if status == CONFLICT:
        # It cosigned another size than we remember: by pulling, or we lost its answer. Its answer says from where.
        try:
            size = parse_size_answer(body)
        except MalformedSubmission as error:
            raise PeerFault(f"{witness.name} answered 409 without the size it cosigned.") from error
        if size > checkpoint.size:
            raise WitnessAhead(
                f"{witness.name} has cosigned size {size} of {checkpoint.origin}, and this node holds {checkpoint.size}. It was "
                "restored from an old copy, or another process signs for it. See docs/operations.md."
            )
        status, body = _submit(client, witness, _submission(db, log_id, checkpoint, size))
    if status != ACCEPTED:
        raise PeerFault(
            f"{witness.name} did not cosign size {checkpoint.size}: status {status} {body[:200].decode(errors='replace')}"
        )
    note = parse_cosignatures(body, checkpoint)
    found = verify_cosignatures(note, witness.keys)
    if not found:
        raise PeerFault(f"{witness.name} answered without a cosignature by its own key.")
    with db.write() as session:
        store_cosignatures(db, session, log_id, checkpoint.size, [(c, witness.state) for c in found], roster)
    return True


def _make_offer(db: Database, log_id: int, witness: str, now_s: int) -> tuple[Checkpoint, Submission] | None:
    with db.read() as session:
        row = execute(session, _HEAD, log=log_id).one()
        if row.head_note is None:
            return None
        last = execute(session, _LAST_KEPT, log=log_id, name=witness).one_or_none()
    if last is not None and last.size == row.head_size and now_s - last.at < REFRESH_S:
        return None
    checkpoint = Checkpoint(row.origin, row.head_size, bytes(row.head_root))
    return checkpoint, _submission(db, log_id, checkpoint, 0 if last is None else last.size)


def _submission(db: Database, log_id: int, checkpoint: Checkpoint, old_size: int) -> Submission:
    with db.read() as session:
        note = read_note(session, log_id, checkpoint.size)
        proof = consistency_proof(node_reader(session, log_id), old_size, checkpoint.size)
    if note is None:
        raise NodeFault(f"The head of size {checkpoint.size} is not signed yet.")
    return Submission(old_size, proof, parse_note(note).encode())


def _submit(client: PeerClient, witness: WitnessEndpoint, submission: Submission) -> tuple[int, bytes]:
    return client.post(
        f"{witness.url}/add-checkpoint",
        submission.encode(),
        limit=MAX_ANSWER_BYTES,
        content_type="text/plain; charset=utf-8",
    )


def set_log_error(
    db: Database, log_id: int, error: VerbaleError | None, *, now: int, contact: bool = False
) -> None:
    """Show, or clear, what is wrong with a log, for operators and `/v1/federation`."""
    values: dict[str, object] = {"error_code": None, "error_detail": None, "error_at": None}
    if error is not None:
        values = {"error_code": error.code, "error_detail": str(error)[:1000], "error_at": now}
    if contact:
        values["contact_at"] = now
    with db.write() as session:
        session.execute(update(LogRow).where(LogRow.id == log_id).values(values))
