"""Forks: what to do with two heads of one log that may contradict each other, wherever they came from.

Every head that this node comes upon, by following, by an offer, by gossip, in an anchor or in somebody's evidence, is held
against what is proven here (`contradiction`). If the two cannot both be true the record is made and kept and the log is
frozen (`convict`): never cosigned, never followed again. Nothing else stops, and nobody resolves a fork automatically.

Guarantees: nothing is kept against a log unless `app.tlog.evidence.verify` holds, whoever brings it. What a source serves
wrongly accuses nobody. Records and branches are bounded: a State that signs a thousand forks costs a mirror four.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from app.domain.errors import PeerFault, VerbaleError
from app.domain.statement import hash_leaf
from app.events import Event, emit
from app.models import BranchLeafRow, CosignatureRow, EvidenceRow, HeadRow, LeafRow, LogRow, WatchRow
from app.replication.client import MAX_BUNDLE_BYTES, MAX_TILE_BYTES, PeerAnswerRefused, mirror_url
from app.replication.witness import cosigner_keys, log_keys
from app.tlog.checkpoint import Checkpoint
from app.tlog.confirm import settle_confirmed
from app.tlog.evidence import (
    Evidence,
    EvidenceRefused,
    Sighting,
    Verdict,
    cosigners_of,
    fork_between,
    verify,
)
from app.tlog.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    tree_root,
    verify_consistency,
)
from app.tlog.note import Note, parse_signature_lines
from app.tlog.note import parse as parse_note
from app.tlog.store import node_reader
from app.tlog.tiles import (
    TILE_WIDTH,
    BundlePath,
    TilePath,
    bundle_width,
    decode_bundle,
    nodes_from_tiles,
    tile_width,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster, RosterLog
    from app.replication.client import PeerClient
    from app.tlog.merkle import NodeReader

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 4
"""Records of one type kept against one log or witness. The first convicts; more would only show that it goes on."""
STALE_HEAD: Final = "stale-head"
"""Code of a log whose own node serves an older head than before (`app.replication.follow.StaleHead`)."""
MAX_BRANCH: Final = 4096
"""Leaves kept of the other history of a fork."""
MAX_HEADS: Final = 512
"""Heads looked at, newest first, for the last one that both histories share."""


class CheckpointFork(PeerFault):
    """The log signed two heads that contradict each other: evidence, kept, and this log is frozen here."""

    code = "checkpoint-fork"


class UnprovenHead(PeerFault):
    """The tiles that a source serves do not give the head that was signed; another source may do better. Accuses nobody."""

    code = "corrupt-leaves"


class EndMissing(PeerFault):
    """The leaves of an ended log up to its end cannot be had now."""

    code = "end-missing"


class EndDiffers(PeerFault):
    """The leaves stored here are not those of the history at whose size the States have ended the log."""

    code = "end-differs"

    @classmethod
    def of(cls, listed: RosterLog) -> EndDiffers:
        """The fault of an ended log."""
        return cls(
            f"The States have ended {listed.origin} at size {listed.end} with another history than the leaves stored here. Stop the "
            f"node and run `verbale node begin-anew {listed.origin}`: it then fetches the history that they chose."
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A contradiction, with the two heads as they came.

    Attributes:
        a, b: notes with all their cosignatures.
    """

    evidence: Evidence
    a: Note
    b: Note


# ── reading another history ───────────────────────────────────────────────────────────────────────────────────────


def remote_nodes(client: PeerClient, source: str, size: int) -> NodeReader:
    """Subtrees of a tree of `size` leaves as a source's tiles give them. Unproven: check a proof made of them."""

    def read(level: int, index: int) -> bytes:
        path = TilePath(level, index, tile_width(size, level, index))
        raw = client.get(f"{source}/{path}", limit=MAX_TILE_BYTES)
        if raw is None:
            raise PeerAnswerRefused(f"{source} has no {path}, which the head it serves promises.")
        return raw

    return nodes_from_tiles(read, UnprovenHead)


def prefix_of(node: NodeReader, size: int, head: Checkpoint) -> tuple[bytes, tuple[bytes, ...]]:
    """The root at `size` of the tree with this head, and its proof, from tiles that nobody vouches for.

    Raises:
        UnprovenHead: the tiles do not give the head.
    """
    root, proof = tree_root(node, size), consistency_proof(node, size, head.size)
    try:
        verify_consistency(size, root, head.size, head.root, proof)
    except VerbaleError as error:
        raise UnprovenHead(f"The tiles served do not hash to the head of size {head.size}.") from error
    return root, proof


def contradiction(
    db: Database,
    client: PeerClient,
    log_id: int,
    a: Note,
    b: Note,
    *,
    sources: Sequence[str],
    roster: Roster,
    seen: Iterable[Sighting] = (),
) -> Found | None:
    """Whether two signed heads of one log contradict each other; None if the larger extends the smaller.

    Args:
        a, b: notes whose log signatures were verified.
        sources: where the larger tree's tiles may be had, if it is not the tree that is stored here.

    Raises:
        PeerFault: it cannot be told now: no source gives tiles that hash to the larger head.
    """
    one, other = Checkpoint.parse(a.text), Checkpoint.parse(b.text)
    small, large = (one, other) if one.size <= other.size else (other, one)
    if small.size == large.size:
        root: bytes | None = large.root
        proof: tuple[bytes, ...] = ()
    else:
        root, proof = _prove(db, client, log_id, small.size, large, sources)
    if root == small.root:
        return None
    keys = log_keys(roster, large.origin)
    return Found(fork_between(a, b, keys, root=root, proof=proof, seen=seen), a, b)


def _prove(
    db: Database, client: PeerClient, log_id: int, size: int, large: Checkpoint, sources: Sequence[str]
) -> tuple[bytes, tuple[bytes, ...]]:
    with db.read() as session:
        if root_here(session, log_id, large.size) == large.root:
            return prefix_of(node_reader(session, log_id), size, large)
    fault: PeerFault = UnprovenHead(f"No source serves the tree of size {large.size} of {large.origin}.")
    for source in sources:
        try:
            return prefix_of(remote_nodes(client, source, large.size), size, large)
        except PeerFault as error:
            fault = error
    raise fault


def root_here(session: Session, log_id: int, size: int) -> bytes | None:
    """The root that the stored tree has at `size`, or None if it is not that large."""
    stored = session.execute(select(LogRow.size).where(LogRow.id == log_id)).scalar_one()
    return tree_root(node_reader(session, log_id), size) if size <= stored else None


def newest_seen(session: Session, log_id: int) -> bytes | None:
    """The largest checkpoint of a log that this node has seen, with the log's own signature lines; proven here or not.

    Besides what is proven: the head of a catch-up under way, what the log's own node served last, what others showed, and the
    largest head whose leaves nobody gave. All were verified when they were kept. None if there is none.
    """
    row = session.execute(
        select(
            LogRow.origin,
            LogRow.head_note,
            WatchRow.pending_note,
            WatchRow.served_note,
            WatchRow.shown_note,
            WatchRow.claimed_note,
        )
        .outerjoin(WatchRow, WatchRow.log_id == LogRow.id)
        .where(LogRow.id == log_id)
    ).one()
    origin, *notes = row
    seen = [parse_note(bytes(note)) for note in notes if note is not None]
    if not seen:
        return None
    return own_lines(max(seen, key=lambda note: Checkpoint.parse(note.text).size), origin)


# ── keeping and freezing ──────────────────────────────────────────────────────────────────────────────────────────


def watch_log(db: Database, session: Session, log_id: int, **values: object) -> None:
    """Change what is kept in mind of a log."""
    session.execute(db.insert_ignore(WatchRow.__table__).values(log_id=log_id, served_size=0, shown_size=0))
    if values:
        session.execute(update(WatchRow).where(WatchRow.log_id == log_id).values(values))


def keep(session: Session, verdict: Verdict, *, source: str | None, now: int) -> bool:
    """Keep a verified record, in the caller's transaction. False if it, or enough of its kind, is kept already.

    Args:
        source: the State that gave it; None if it was found here.
    """
    evidence = verdict.evidence
    alike = session.scalars(
        select(EvidenceRow.id).where(
            EvidenceRow.origin == evidence.origin,
            EvidenceRow.type == evidence.type,
            EvidenceRow.accused == verdict.accused,
        )
    ).all()
    if len(alike) >= MAX_RECORDS or evidence.id in alike:
        return False
    session.add(
        EvidenceRow(
            id=evidence.id,
            origin=evidence.origin,
            type=evidence.type,
            accused=verdict.accused,
            convicts=verdict.convicts,
            record=evidence.encode(),
            at=now,
            source=source,
        )
    )
    session.flush()
    return True


def convict(
    db: Database, found: Found, *, roster: Roster, now: int, source: str | None = None
) -> CheckpointFork:
    """Keep the record of a fork, and of every witness that cosigned both histories; freeze the log; say so.

    One transaction: the log is frozen if and only if the record is kept. The caller raises or stores what is returned.
    """
    evidence = found.evidence
    keys, cosigners = log_keys(roster, evidence.origin), tuple(cosigner_keys(roster))
    verdicts = [verify(evidence, keys)]
    with db.read() as session:
        heads = [_with_receipts(session, evidence.origin, note) for note in (found.a, found.b)]
    verdicts += [
        verify(one, keys, cosigners) for one in cosigners_of(evidence, heads[0], heads[1], cosigners)
    ]
    return take_verdicts(db, verdicts, now=now, source=source)


def _with_receipts(session: Session, origin: str, note: Note) -> Note:
    """A head with the cosignatures over it that are kept here, besides those that came with it."""
    head = Checkpoint.parse(note.text)
    lines = session.scalars(
        select(CosignatureRow.line)
        .join(LogRow, LogRow.id == CosignatureRow.log_id)
        .join(HeadRow, (HeadRow.log_id == CosignatureRow.log_id) & (HeadRow.size == CosignatureRow.size))
        .where(LogRow.origin == origin, HeadRow.size == head.size, HeadRow.root == head.root)
    ).all()
    kept = [line for block in lines for line in parse_signature_lines(block) if line not in note.signatures]
    return Note(note.text, (*note.signatures, *kept))


def take_verdicts(
    db: Database, verdicts: Sequence[Verdict], *, now: int, source: str | None
) -> CheckpointFork:
    """Keep verified records about one log and freeze it, in one transaction."""
    first = verdicts[0]
    origin = first.evidence.origin
    with db.write() as session:
        log_id = session.execute(select(LogRow.id).where(LogRow.origin == origin)).scalar_one()
        for verdict in verdicts:
            if keep(session, verdict, source=source, now=now):
                _log_kept(verdict)
        frozen = session.execute(
            select(WatchRow.frozen_at).where(WatchRow.log_id == log_id)
        ).scalar_one_or_none()
        if frozen is None:
            session.execute(update(LogRow).where(LogRow.id == log_id).values(status="frozen"))
            watch_log(db, session, log_id, frozen_at=now)
            log.error("log forked", extra={"action": "log_forked", "origin": origin, "at": now})
            detail = {"code": CheckpointFork.code, "origin": origin, "evidence": first.evidence.id}
            emit(db, session, [Event("log.fault", log_id=log_id, detail=detail)], now=now)
    return CheckpointFork(
        f"{first.says} The log is frozen here; the record {first.evidence.id} can be checked by anybody. Tell the other States' "
        "contact points; see docs/operations.md."
    )


def report_rollback(
    db: Database, log_id: int, served: Note, *, roster: Roster, seen: Iterable[Sighting], now: int
) -> Verdict | None:
    """Keep a record of a log whose own node serves an older head than it served before. It convicts nobody.

    One record for each time that begins; None if there is nothing to keep.

    Args:
        served: what it serves now: a head of the tree that is stored here.
        now: unix ms.
    """
    older = Checkpoint.parse(served.text)
    with db.read() as session:
        row = session.execute(
            select(WatchRow.served_note, WatchRow.served_size, LogRow.size, LogRow.error_code)
            .join(LogRow, LogRow.id == WatchRow.log_id)
            .where(WatchRow.log_id == log_id)
        ).one_or_none()
        if row is None or row.served_note is None or not older.size < row.served_size <= row.size:
            return None
        if row.error_code == STALE_HEAD:
            return None  # that is known, and goes on
        node = node_reader(session, log_id)
        root, proof = tree_root(node, older.size), consistency_proof(node, older.size, row.served_size)
    made = Evidence(
        "rollback",
        older.origin,
        own_lines(served, older.origin),
        own_lines(parse_note(bytes(row.served_note)), older.origin),
        root,
        tuple(proof),
        tuple(seen),
    )
    return _keep_if_true(db, made, roster, now)


def report_bad_leaf(db: Database, log_id: int, index: int, *, roster: Roster, now: int) -> Verdict | None:
    """Keep a record of a leaf that breaks the leaf's format or names another log, under the newest head that is stored here.

    The log's State is accused; the log goes on, since the leaf is flagged where it stands.

    Args:
        now: unix ms.
    """
    with db.read() as session:
        origin, size, head = session.execute(
            select(LogRow.origin, LogRow.head_size, LogRow.head_note).where(LogRow.id == log_id)
        ).one()
        leaf = session.execute(
            select(LeafRow.leaf).where(LeafRow.log_id == log_id, LeafRow.idx == index)
        ).scalar_one_or_none()
        if head is None or leaf is None or index >= size:
            return None
        proof = inclusion_proof(node_reader(session, log_id), index, size)
    note = own_lines(parse_note(bytes(head)), origin)
    made = Evidence("badleaf", origin, None, note, None, tuple(proof), (), None, index, bytes(leaf))
    return _keep_if_true(db, made, roster, now)


def _keep_if_true(db: Database, made: Evidence, roster: Roster, now: int) -> Verdict | None:
    """Keep a record that was made here. None if it does not verify, or is kept already."""
    verdict = verified(made, roster)
    if verdict is None:
        return None
    with db.write() as session:
        if not keep(session, verdict, source=None, now=now):
            return None
    _log_kept(verdict)
    return verdict


def verified(made: Evidence, roster: Roster) -> Verdict | None:
    """The verdict over a record that was made here; None if it does not verify: a key may have changed since."""
    try:
        return verify(made, log_keys(roster, made.origin))
    except EvidenceRefused as error:
        extra = {"action": "gossip_failed", "origin": made.origin, "why": str(error)[:300]}
        log.info("no record made", extra=extra)
        return None


def _log_kept(verdict: Verdict) -> None:
    log.error(
        "evidence kept",
        extra={
            "action": "evidence_kept",
            "origin": verdict.evidence.origin,
            "type": verdict.evidence.type,
            "accused": verdict.accused,
            "evidence": verdict.evidence.id,
        },
    )


def own_lines(note: Note, origin: str) -> bytes:
    """A note with the log's own signatures alone: a record carries no line that nothing checks."""
    return Note(note.text, tuple(s for s in note.signatures if s.name == origin)).encode()


def bad_leaves_known(session: Session, origin: str) -> set[int]:
    """Leaves of a log about which a record of type `badleaf` is kept."""
    rows = session.scalars(
        select(EvidenceRow.record).where(EvidenceRow.origin == origin, EvidenceRow.type == "badleaf")
    )
    return {index for raw in rows if (index := Evidence.parse(bytes(raw)).index) is not None}


# ── what both histories share ─────────────────────────────────────────────────────────────────────────────────────


def settle_frozen(db: Database, client: PeerClient, log_id: int, *, sources: Sequence[str]) -> int | None:
    """Find out at which size a frozen log is frozen: the largest that a quorum confirmed and both histories share.

    Also fetches and keeps the other history's leaves from there on, proven and bounded. Returns the size, or None while no
    source gives what is needed; it is then tried again.
    """
    with db.read() as session:
        origin = session.execute(select(LogRow.origin).where(LogRow.id == log_id)).scalar_one()
        record = session.execute(
            select(EvidenceRow.record)
            .where(EvidenceRow.origin == origin, EvidenceRow.type == "fork")
            .order_by(EvidenceRow.at, EvidenceRow.id)
            .limit(1)
        ).scalar_one_or_none()
        if record is None:
            return None
        evidence = Evidence.parse(record)
        others = [
            head
            for head in (Checkpoint.parse(parse_note(n).text) for n in (evidence.older, evidence.newer) if n)
            if root_here(session, log_id, head.size) != head.root
        ]
        candidates = _confirmed_heads(session, log_id, min((h.size for h in others), default=0))
    size = 0
    if candidates:
        found = [_shared(client, candidates, head, sources) for head in others]
        if None in found:
            return None
        size = min(one for one in found if one is not None)
    for head in others:
        _keep_branch(db, client, log_id, size, head, sources)
    with db.write() as session:
        watch_log(db, session, log_id, frozen_size=size)
        settle_confirmed(session, log_id, size)
    return size


def settle_ended(db: Database, log_id: int, listed: RosterLog, *, now: int) -> PeerFault | None:
    """Settle a log that the States have ended: frozen, and confirmed up to its end and no further.

    Args:
        listed: the log, with its end.
        now: unix ms.

    Returns:
        What is wrong, if this node does not hold what the States say: EndMissing, EndDiffers.
    """
    end = listed.end or 0
    with db.read() as session:
        ours = root_here(session, log_id, end)
        status, confirmed, frozen_at, frozen_size = session.execute(
            select(LogRow.status, LogRow.confirmed_size, WatchRow.frozen_at, WatchRow.frozen_size)
            .outerjoin(WatchRow, WatchRow.log_id == LogRow.id)
            .where(LogRow.id == log_id)
        ).one()
    if ours is None:
        return EndMissing(f"The leaves of {listed.origin} up to its end at size {end} are not all here yet.")
    if ours != listed.end_root:
        return EndDiffers.of(listed)
    if (status, confirmed, frozen_size) != ("frozen", end, end):
        with db.write() as session:
            session.execute(update(LogRow).where(LogRow.id == log_id).values(status="frozen"))
            watch_log(db, session, log_id, frozen_at=now if frozen_at is None else frozen_at, frozen_size=end)
            settle_confirmed(session, log_id, end, ended=True)
    return None


def _confirmed_heads(session: Session, log_id: int, at_most: int) -> list[tuple[int, bytes]]:
    """(size, root) of stored heads that a quorum of States holds, largest first."""
    confirmed = session.execute(select(LogRow.confirmed_size).where(LogRow.id == log_id)).scalar_one()
    rows = session.execute(
        select(HeadRow.size, HeadRow.root)
        .where(HeadRow.log_id == log_id, HeadRow.size <= min(confirmed, at_most), HeadRow.size > 0)
        .order_by(HeadRow.size.desc())
        .limit(MAX_HEADS)
    )
    return [(size, bytes(root)) for size, root in rows]


def _shared(
    client: PeerClient, candidates: Sequence[tuple[int, bytes]], head: Checkpoint, sources: Sequence[str]
) -> int | None:
    """The largest candidate that the tree with this head extends; 0 if none; None if nobody gives that tree."""
    for source in sources:
        node = remote_nodes(client, source, head.size)
        try:
            return next((size for size, root in candidates if prefix_of(node, size, head)[0] == root), 0)
        except PeerFault:
            continue
    return None


def _keep_branch(
    db: Database, client: PeerClient, log_id: int, start: int, head: Checkpoint, sources: Sequence[str]
) -> None:
    """Keep leaves [start, head.size) of another history if a source serves them and they give its root."""
    if head.size - start > MAX_BRANCH:
        return
    with db.read() as session:
        frontier = Frontier.read(node_reader(session, log_id), start)
    for source in sources:
        try:
            leaves = fetch_leaves(client, source, start, head.size, head.size)
        except VerbaleError:
            continue
        if frontier.extend([hash_leaf(leaf) for leaf in leaves]).root() != head.root:
            continue
        rows = [
            {"log_id": log_id, "root": head.root.hex(), "idx": start + n, "leaf": leaf}
            for n, leaf in enumerate(leaves)
        ]
        if rows:
            with db.write() as session:
                session.execute(db.insert_ignore(BranchLeafRow.__table__), rows)
        return


def fetch_leaves(client: PeerClient, source: str, start: int, end: int, size: int) -> list[bytes]:
    """Leaves [start, end) of a tree of `size`, from a source's entry bundles. Unproven.

    Raises:
        PeerFault, MalformedBundle
    """
    if start >= end:
        return []
    leaves: list[bytes] = []
    for index in range(start // TILE_WIDTH, (end - 1) // TILE_WIDTH + 1):
        width = bundle_width(size, index)
        path = BundlePath(index, width)
        raw = client.get(f"{source}/{path}", limit=MAX_BUNDLE_BYTES)
        if raw is None:
            raise PeerAnswerRefused(f"{source} has no {path}, which the head it serves promises.")
        entries = decode_bundle(raw, width)
        first = index * TILE_WIDTH
        leaves += entries[max(start - first, 0) : min(end - first, width)]
    return leaves


# ── what others bring ─────────────────────────────────────────────────────────────────────────────────────────────


def take_record(
    db: Database, raw: bytes, *, roster: Roster, source: str | None, now: int
) -> tuple[str, bool]:
    """Judge a record that somebody brings, and act on it as if it had been found here.

    Returns:
        Its id, and whether it is new here.

    Raises:
        EvidenceRefused: malformed, false, about nobody of this roster, or of a type that convicts nobody.
    """
    evidence = Evidence.parse(raw)
    if roster.log(evidence.origin) is None:
        raise EvidenceRefused("format", f"The roster lists no log {evidence.origin[:300]}.")
    verdict = verify(evidence, log_keys(roster, evidence.origin), cosigner_keys(roster))
    if not verdict.convicts:
        raise EvidenceRefused(
            "format",
            f"A record of type {evidence.type} convicts nobody; what it tells is for each node to find out.",
        )
    with db.read() as session:
        known = (
            session.execute(select(EvidenceRow.id).where(EvidenceRow.id == evidence.id)).first() is not None
        )
        followed = (
            session.execute(select(LogRow.id).where(LogRow.origin == evidence.origin)).first() is not None
        )
    if known:
        return evidence.id, False
    if not followed:
        raise EvidenceRefused(
            "format", f"This node does not follow {evidence.origin} yet. Bring it again later."
        )
    if evidence.type == "badleaf":  # the leaf is flagged where it stands; the log goes on
        with db.write() as session:
            return evidence.id, keep(session, verdict, source=source, now=now)
    take_verdicts(db, [verdict], now=now, source=source)
    with db.read() as session:
        return evidence.id, session.execute(
            select(EvidenceRow.id).where(EvidenceRow.id == evidence.id)
        ).first() is not None


def place_of(roster: Roster, origin: str, source: str) -> str:
    """Where a source is, for `seen`: `origin`, `mirror NL`, or its address."""
    listed = roster.log(origin)
    if listed is not None and source == listed.url:
        return "origin"
    for state in roster.nodes():
        if state.url and source == mirror_url(state.url, origin):
            return f"mirror {state.code}"
    return source[:200]
