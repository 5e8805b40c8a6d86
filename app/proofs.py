"""One JSON file that proves a notice to somebody who trusts nobody.

It holds every version of the notice as logged, the bodies the asker may have, inclusion proofs to one checkpoint, the
checkpoint with cosignatures, and the roster's own metadata. `verify_proof` needs the file and a pinned roster root, no
network and no database, and checks in this order:

    1. roster        the TUF chain from the pinned root
    2. checkpoint    the log's signature, by a key the roster lists for the origin
    3. cosignatures  whose witnesses vouch for it, and whether they are a quorum
    4. history       confirmed checkpoints that tell when each version was logged
    5. inclusion     each statement's leaf is in that tree, at its index
    6. signature     each statement, by a contact-point key that counted at that index
    7. life          the versions follow each other as the state machine allows
    8. commitment    each body given opens its statement's commitment, and follows its schema

A notice that was issued in a log which the States have ended goes on in the next one (`app.projections.lineage`): the file
then tells of both, the earlier one in `before`, and the roster says that one continues the other.

It proves what was said, by whom, and that the log carries it. It does not prove that no later version exists beyond the
checkpoint, nor that what was said is true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from app import bodies
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import InvalidSignature, NotFound, Refused
from app.domain.judge import judge_body, judge_statement
from app.domain.lifecycle import ELSEWHERE, NoticeState
from app.domain.lifecycle import advance as advance_life
from app.domain.statement import Part, is_origin
from app.domain.times import Bracket, bracket_from
from app.gate import may_read
from app.models import CosignatureRow, EntryRow, HeadRow, LeafRow, LogRow, NoticeRow
from app.projections.lineage import line
from app.replication.witness import cosigner_keys, log_keys
from app.roster import export_bundle, roster_from_bundle
from app.tlog.checkpoint import open_checkpoint
from app.tlog.confirm import bracket_notes, confirmers, open_confirmation
from app.tlog.cosignature import verify_cosignatures
from app.tlog.merkle import inclusion_proof, verify_inclusion
from app.tlog.publish import head_with_cosignatures
from app.tlog.store import node_reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy.orm import Session

    from app.domain.notices import Notice
    from app.domain.quorum import Quorum
    from app.domain.roster import Roster, RosterState
    from app.gate import Principal
    from app.projections.lineage import Key

FORMAT: Final = "verbale/proof/v1"
_TOLD: Final = frozenset({"origin", "checkpoint", "statements"})
_MEMBERS: Final = _TOLD | {"format", "notice", "roster"}
_HISTORY: Final = "history"
"""May be missing: a file made before anything was confirmed, or by an earlier version."""
_BEFORE: Final = "before"
"""Of a notice that was issued in an ended log: the same of that log, but for the format, the notice and the roster."""


class ProofRefused(Refused):
    """The file does not prove what it claims. `step` names the check that failed."""

    code = "proof-refused"

    def __init__(self, step: str, why: str) -> None:
        """Keep the step."""
        self.step = step
        super().__init__(f"{step}: {why}")


class NotYetProvable(NotFound):
    """The notice is recorded, and no signed checkpoint covers it yet; that takes well under a second."""

    code = "not-yet-provable"


# ── making ────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_proof(
    session: Session,
    principal: Principal,
    *,
    log_id: int,
    root_idx: int,
    roster: Roster,
    repository: Path,
    recalled: bool = False,
) -> dict[str, Any]:
    """The proof file of one notice, with the bodies that `principal` may read. The caller has passed the gate.

    Args:
        recalled: its issuer took it away from this State: what was held before is not given any more.

    Raises:
        NotYetProvable: no signed head covers its newest version.
    """
    *before, last = line(session, (log_id, root_idx))
    told = _tell(session, principal, last, roster, recalled=recalled)
    told = {**told, **_told_before(session, principal, before, roster, recalled=recalled)}
    return {
        "format": FORMAT,
        "notice": session.execute(
            select(NoticeRow.id).where(NoticeRow.log_id == log_id, NoticeRow.idx == root_idx)
        ).scalar_one(),
        **told,
        "roster": export_bundle(repository),
    }


def _told_before(
    session: Session, principal: Principal, keys: Sequence[Key], roster: Roster, *, recalled: bool
) -> dict[str, Any]:
    """The member `before`, if the notice was issued in an earlier log; nested, the newest log outermost."""
    if not keys:
        return {}
    *earlier, last = keys
    told = _tell(session, principal, last, roster, recalled=recalled)
    return {_BEFORE: {**told, **_told_before(session, principal, earlier, roster, recalled=recalled)}}


def _tell(
    session: Session, principal: Principal, key: Key, roster: Roster, *, recalled: bool
) -> dict[str, Any]:
    """What one log says of a notice, with proofs."""
    log_id, root_idx = key
    log = session.execute(select(LogRow.origin, LogRow.state).where(LogRow.id == log_id)).one()
    versions = session.execute(
        select(
            EntryRow.idx, EntryRow.id, EntryRow.tlp_rank, EntryRow.audience, EntryRow.body_state, LeafRow.leaf
        )
        .join(LeafRow, (LeafRow.log_id == EntryRow.log_id) & (LeafRow.idx == EntryRow.idx))
        .where(EntryRow.log_id == log_id, EntryRow.root_idx == root_idx, EntryRow.fault_code.is_(None))
        .order_by(EntryRow.idx)
    ).all()
    listed = roster.log(log.origin)
    size = listed.end if listed is not None else None
    if size is None:
        size = _best_head(session, log_id, versions[-1].idx, roster.quorum_for(log.state))
    head = None if size is None else head_with_cosignatures(session, log_id, size)
    if size is None or head is None:
        raise NotYetProvable("No signed checkpoint covers this notice yet. Ask again in a moment.")
    node = node_reader(session, log_id)
    statements = []
    for version in versions:
        readable = (
            not recalled
            and version.body_state == "held"
            and may_read(principal, issuer=log.state, tlp_rank=version.tlp_rank, audience=version.audience)
        )
        statements.append(
            {
                "index": version.idx,
                "statement": bytes(version.leaf).decode(),
                "inclusion": [b64u_encode(h) for h in inclusion_proof(node, version.idx, size)],
                "parts": _parts(session, log_id, version.idx) if readable else None,
            }
        )
    history = _history(session, log_id, [version.idx for version in versions])
    return {
        "origin": log.origin,
        "checkpoint": head.decode(),
        **({_HISTORY: history} if history else {}),
        "statements": statements,
    }


def _history(session: Session, log_id: int, indexes: list[int]) -> list[str]:
    """The confirmed checkpoints that bracket these leaves, each once."""
    notes = [note for index in indexes for note in bracket_notes(session, log_id, index) if note is not None]
    return [note.decode() for note in dict.fromkeys(notes)]


def _best_head(session: Session, log_id: int, index: int, quorum: Quorum) -> int | None:
    """The newest head above `index` that a quorum cosigned, else the newest at all."""
    confirmed = session.execute(
        select(CosignatureRow.size)
        .join(HeadRow, (HeadRow.log_id == CosignatureRow.log_id) & (HeadRow.size == CosignatureRow.size))
        .where(
            CosignatureRow.log_id == log_id,
            CosignatureRow.size > index,
            CosignatureRow.state.in_(quorum.witnesses),
            HeadRow.note.is_not(None),
        )
        .group_by(CosignatureRow.size)
        .having(func.count(CosignatureRow.state.distinct()) >= max(quorum.needed, 1))
        .order_by(CosignatureRow.size.desc())
        .limit(1)
    ).scalar_one_or_none()
    if confirmed is not None:
        return confirmed
    return session.execute(
        select(func.max(HeadRow.size)).where(
            HeadRow.log_id == log_id, HeadRow.size > index, HeadRow.note.is_not(None)
        )
    ).scalar_one_or_none()


def _parts(session: Session, log_id: int, idx: int) -> dict[str, dict[str, str]]:
    held = bodies.opened(session, log_id, [idx]).get(idx, {})
    return {
        name: {"salt": b64u_encode(part.salt), "content": b64u_encode(part.content)}
        for name, part in held.items()
    }


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof file proves.

    Attributes:
        size: of the checkpoint; nothing is said about later leaves.
        cosigned_by: States whose witnesses cosigned it → unix seconds by their clocks.
        quorum: whose cosignatures count and how many the roster asks for; `confirmed` if they are there.
        versions: (index, kind, unix seconds claimed, key id, the notice if its body was given).
        logged: when each version was logged, in the same order.
    """

    notice: str
    issuer: str
    origin: str
    status: str
    size: int
    cosigned_by: dict[str, int]
    quorum: Quorum
    versions: tuple[tuple[int, str, int, str, Notice | None], ...]
    logged: tuple[Bracket, ...]
    roster_version: int

    @property
    def confirmed(self) -> bool:
        """Whether a quorum of witnesses vouches for the checkpoint."""
        return self.quorum.met_by(self.cosigned_by)


class _Chain:
    """The history that the file itself tells, for the state machine."""

    def __init__(self) -> None:
        self.ids: dict[str, bytes] = {}
        self.state: NoticeState | None = None
        self.hashes: set[bytes] = set()

    def go_on(self) -> None:
        """Leave the log for the one that continues it."""
        assert self.state is not None  # noqa: S101 - a log told of holds at least one version
        self.state = replace(self.state, root_index=ELSEWHERE)
        self.ids = {}

    def statement_with_id(self, statement_id: str) -> bytes | None:
        return self.ids.get(statement_id)

    def notice_with_version(self, leaf_hash: bytes) -> NoticeState | None:
        return self.state if leaf_hash in self.hashes else None


def verify_proof(proof: Any, pinned_root: bytes, *, at: int | None = None) -> Proven:  # noqa: ANN401 - parsed JSON
    """Check a proof file offline; the module lists the checks.

    Args:
        proof: the parsed file.
        pinned_root: bytes of the roster's root metadata, obtained out of band.
        at: unix seconds; if given, the roster must not have expired then. A proof is usually read years later: None.

    Raises:
        ProofRefused: naming the check that failed.
    """
    if (
        not isinstance(proof, dict)
        or proof.keys() - {_HISTORY, _BEFORE} != _MEMBERS
        or proof["format"] != FORMAT
    ):
        raise ProofRefused("format", f"this is not a proof file of {FORMAT}.")
    try:
        roster = roster_from_bundle(proof["roster"], pinned_root, at)
    except Refused as error:
        raise ProofRefused("roster", str(error)) from error
    chain = _Chain()
    told = _verify_told(proof, roster, chain)
    assert chain.state is not None  # noqa: S101 - `_verify_statement` sets it or raises
    if chain.state.root_id != proof["notice"]:
        raise ProofRefused("life", "the statements are of another notice than the file names.")
    return Proven(
        notice=chain.state.root_id,
        issuer=told.state.code,
        origin=told.origin,
        status=chain.state.status,
        size=told.size,
        cosigned_by=told.cosigned,
        quorum=roster.quorum_for(told.state.code),
        versions=told.versions,
        logged=told.logged,
        roster_version=roster.version,
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """What one log is proven to say of a notice; `versions` and `logged` with those of the logs before."""

    state: RosterState
    origin: str
    size: int
    cosigned: dict[str, int]
    versions: tuple[tuple[int, str, int, str, Notice | None], ...]
    logged: tuple[Bracket, ...]


def _verify_told(proof: dict[str, Any], roster: Roster, chain: _Chain) -> _Told:
    """Steps 2 to 8 for one log, after those for the log that it continues."""
    origin = proof["origin"]
    if not isinstance(origin, str) or not is_origin(origin):
        raise ProofRefused("format", "origin is not the origin of a log.")
    earlier: _Told | None = None
    if _BEFORE in proof:
        before, continued = proof[_BEFORE], roster.continued(origin)
        if not isinstance(before, dict) or before.keys() - {_HISTORY, _BEFORE} != _TOLD:
            raise ProofRefused("format", "before tells of one log: origin, checkpoint, statements.")
        if continued is None or before["origin"] != continued.origin:
            raise ProofRefused(
                "roster", f"by the roster {origin} does not continue the log that before tells of."
            )
        earlier = _verify_told(before, roster, chain)
        chain.go_on()
    state = roster.state_of_origin(origin)
    if state is None:
        raise ProofRefused("roster", f"the roster lists no log {origin}.")
    listed = roster.log(origin)
    end = None if listed is None or listed.end is None else (listed.end, listed.end_root)
    keys = log_keys(roster, origin, settled=None if end is None else end[0])
    try:
        checkpoint, note = open_checkpoint(_text(proof["checkpoint"]).encode(), keys, origin)
    except Refused as error:
        raise ProofRefused("checkpoint", str(error)) from error
    cosigned: dict[str, int] = {}
    for key, code in cosigner_keys(roster).items():
        if code == state.code:
            continue  # a log's own witness vouches for nothing
        try:
            for cosignature in verify_cosignatures(note, [key]):
                cosigned[code] = cosignature.at
        except InvalidSignature as error:
            raise ProofRefused("cosignatures", f"the cosignature of {code} does not hold: {error}") from error
    # A log that was ended has signed two histories. What stands below its end counts in the one that the States chose.
    if end is not None and end != (checkpoint.size, checkpoint.root):
        raise ProofRefused(
            "checkpoint",
            f"the States have ended {origin} at size {end[0]}, and this is not the head of that end.",
        )
    history = open_history(proof.get(_HISTORY, []), roster, origin)
    statements = proof["statements"]
    if not isinstance(statements, list) or not statements:
        raise ProofRefused("format", "statements must be a list with at least the issuing statement.")
    versions = tuple(
        _verify_statement(item, origin, checkpoint.size, checkpoint.root, roster, chain)
        for item in statements
    )
    logged = tuple(bracket_from(history, version[0]) for version in versions)
    if earlier is not None:
        versions, logged = earlier.versions + versions, earlier.logged + logged
    return _Told(state, origin, checkpoint.size, cosigned, versions, logged)


def open_history(notes: Any, roster: Roster, origin: str) -> list[tuple[int, int]]:  # noqa: ANN401 - parsed JSON
    """Verify confirmed checkpoints of a log; their (size, time).

    Raises:
        ProofRefused: one does not hold.
    """
    state = roster.state_of_origin(origin)
    if not isinstance(notes, list) or state is None:
        raise ProofRefused("history", "history is a list of confirmed checkpoints of the log.")
    found = []
    for note in notes:
        try:
            one = open_confirmation(
                _text(note).encode(),
                keys=lambda size: log_keys(roster, origin, settled=size),
                origin=origin,
                witnesses=confirmers(roster),
                quorum_at=partial(roster.quorum_for, state.code),
            )
        except ProofRefused:
            raise
        except Refused as error:
            raise ProofRefused("history", str(error)) from error
        found.append((one.checkpoint.size, one.at))
    return found


def _verify_statement(
    item: Any,  # noqa: ANN401 - parsed JSON
    origin: str,
    size: int,
    root: bytes,
    roster: Roster,
    chain: _Chain,
) -> tuple[int, str, int, str, Notice | None]:
    if not isinstance(item, dict) or item.keys() != {"index", "statement", "inclusion", "parts"}:
        raise ProofRefused("format", "a statement has the members index, statement, inclusion and parts.")
    index = item["index"]
    if type(index) is not int or not 0 <= index < size:
        raise ProofRefused("inclusion", "the index is not below the checkpoint's size.")
    leaf = _text(item["statement"]).encode()
    where = f"statement at index {index}"
    try:
        verified = judge_statement(leaf, origin=origin, index=index, roster=roster, at=None)
    except Refused as error:
        raise ProofRefused("signature", f"{where}: {error}") from error
    statement = verified.statement
    try:
        path = [b64u_decode(_text(h)) for h in item["inclusion"]]
        verify_inclusion(statement.leaf_hash, index, size, path, root)
    except ProofRefused:
        raise
    except (Refused, TypeError) as error:
        raise ProofRefused("inclusion", f"{where}: {error}") from error
    try:
        state = advance_life(chain, statement, index)
    except Refused as error:
        raise ProofRefused("life", f"{where}: {error}") from error
    if state is None or (chain.state is not None and state.root_id != chain.state.root_id):
        raise ProofRefused("life", f"{where} is no version of this notice.")
    chain.state = state
    chain.ids[statement.id] = statement.leaf_hash
    chain.hashes.add(statement.leaf_hash)
    notice = None
    if item["parts"] is not None:
        try:
            parts = {
                name: Part(b64u_decode(_text(part["salt"])), b64u_decode(_text(part["content"])))
                for name, part in item["parts"].items()
            }
            notice = judge_body(verified, parts).notice
        except ProofRefused:
            raise
        except (Refused, AttributeError, KeyError, TypeError) as error:
            raise ProofRefused("commitment", f"{where}: {error}") from error
    return index, statement.kind, statement.iat, statement.kid, notice


def _text(value: object) -> str:
    if not isinstance(value, str) or (not value.isprintable() and "\n" not in value):
        raise ProofRefused("format", "a text is missing or cannot be read.")
    return value
