"""Following one foreign log: checkpoint, leaves, proof, store, and only then cosign.

Guarantees: leaves are stored only after they were shown to be part of a tree whose root the log signed and which extends
the tree stored before; a mirror is therefore complete up to a proven size. Judging the leaves comes later and can never
stop this: the verdict is a flag. A fork freezes that one log, keeps both signed heads, and everything else goes on.

    1. GET checkpoint ▸ strict parse ▸ origin ▸ the log's signature
    2. same size: same root?          smaller: is our root at that size the same?
    3. larger, near:  bundles ▸ hash onto our frontier ▸ same root?   one comparison proves consistency and content
       larger, far:   hash tiles ▸ frontier ▸ same root? ▸ then bundle by bundle against the proven tiles, in constant memory
    4. one transaction: leaves, tiles, frontier, head; compare-and-swap on the old size
    5. cosign
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import select, update

from app.domain.errors import PeerFault, VerbaleError
from app.domain.statement import hash_leaf
from app.models import HeadRow, LogRow
from app.replication.client import (
    MAX_BUNDLE_BYTES,
    MAX_CHECKPOINT_BYTES,
    MAX_TILE_BYTES,
    PeerAnswerRefused,
)
from app.replication.witness import collect_cosignatures, log_keys
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.merkle import Frontier, tree_root
from app.tlog.note import Note
from app.tlog.store import append_leaves, lock_log, node_reader
from app.tlog.tiles import (
    BundlePath,
    MalformedBundle,
    MalformedTile,
    TilePath,
    bundle_width,
    decode_bundle,
    split_tile,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

NEAR: Final = 512
"""Up to this many new leaves are taken in one step; beyond it the hash tiles are proven first."""
MAX_GROWTH: Final = 2**21
"""Leaves whose hashes are proven at once: 64 MiB of tiles. A log can sign any size, and must not fill a mirror's memory."""
WINDOW: Final = 16 * 256
"""Leaves in one transaction of a long catch-up: some megabytes in memory, whatever the distance."""
BUNDLE: Final = 256


class CheckpointFork(PeerFault):
    """The log signed two heads that contradict each other: evidence, kept, and this log is frozen here."""

    code = "checkpoint-fork"


class StaleHead(PeerFault):
    """The origin serves an older head than one it signed before. It is consistent; something there went back in time."""

    code = "stale-head"


class CorruptLeaves(PeerFault):
    """What was served does not hash to the head the log signed; another source may do better. Accuses nobody."""

    code = "corrupt-leaves"


class LogNotServed(PeerFault):
    """The source serves no checkpoint of this log (yet)."""

    code = "log-not-served"


@dataclass(frozen=True, slots=True)
class Followed:
    """A foreign log as the follower reads it at the start of a step."""

    id: int
    origin: str
    state: str
    status: str
    size: int
    head_size: int
    head_root: bytes | None
    head_note: bytes | None


def read_followed(session: Session, log_id: int) -> Followed:
    """Read the follower's state of one log."""
    row = session.execute(
        select(
            LogRow.id,
            LogRow.origin,
            LogRow.state,
            LogRow.status,
            LogRow.size,
            LogRow.head_size,
            LogRow.head_root,
            LogRow.head_note,
        ).where(LogRow.id == log_id)
    ).one()
    return Followed(*row)


def follow_step(
    db: Database,
    client: PeerClient,
    log_id: int,
    source: str,
    roster: Roster,
    *,
    clock: Clock,
    evidence_dir: Path | None,
) -> bool:
    """Bring the mirror of one log up to the head that `source` serves. True if the mirror grew.

    Args:
        source: base URL of the log's tiles: the origin's own, or any mirror's; what it serves is proven either way.
        evidence_dir: where contradicting heads are kept.

    Raises:
        PeerFault: see the classes above and `app.replication.client`; the mirror is as it was before, or further.
    """
    with db.read() as session:
        mirror = read_followed(session, log_id)
    raw = client.get(f"{source}/checkpoint", limit=MAX_CHECKPOINT_BYTES)
    if raw is None:
        raise LogNotServed(f"{source} serves no checkpoint yet.")
    try:
        checkpoint, note = open_checkpoint(raw, log_keys(roster, mirror.origin), mirror.origin)
    except VerbaleError as error:
        raise PeerAnswerRefused(f"The checkpoint that {source} serves does not verify: {error}") from error
    grew = advance(
        db, client, mirror, source, checkpoint, note, roster=roster, clock=clock, evidence_dir=evidence_dir
    )
    with db.write() as session:
        session.execute(
            update(LogRow)
            .where(LogRow.id == log_id)
            .values(
                contact_at=clock(), skew_ms=client.skew_ms, error_code=None, error_detail=None, error_at=None
            )
        )
    return grew


def advance(
    db: Database,
    client: PeerClient,
    mirror: Followed,
    source: str,
    checkpoint: Checkpoint,
    note: Note,
    *,
    roster: Roster,
    clock: Clock,
    evidence_dir: Path | None,
) -> bool:
    """Bring the mirror up to a checkpoint whose signature was verified, fetched or offered. True if the mirror grew.

    Raises:
        PeerFault: see `follow_step`.
    """
    log_id = mirror.id
    if checkpoint.size <= mirror.size:
        with db.read() as session:
            ours = (
                mirror.head_root
                if checkpoint.size == mirror.head_size
                else _root_at(session, log_id, checkpoint.size)
            )
        if ours is not None and ours != checkpoint.root:
            raise freeze(db, mirror, note, evidence_dir, now=clock())
        if checkpoint.size < mirror.head_size:
            raise StaleHead(
                f"{source} serves size {checkpoint.size}, and {mirror.origin} has signed {mirror.head_size} before."
            )
    grew = False
    if checkpoint.size > mirror.size:
        if checkpoint.size - mirror.size <= NEAR:
            try:
                grew = _take_near(
                    db, client, mirror, source, checkpoint, note, clock=clock, evidence_dir=evidence_dir
                )
            except PeerFault:
                _note_claim(db, log_id, checkpoint.size)
                raise
        else:
            _note_claim(db, log_id, checkpoint.size)
            grew = _take_far(
                db, client, mirror, source, checkpoint, note, clock=clock, evidence_dir=evidence_dir
            )
    elif (
        checkpoint.size > mirror.head_size or mirror.head_note is None
    ):  # a catch-up that was cut off after its last leaves
        with db.write() as session:
            _set_head(db, session, log_id, checkpoint, note, now=clock())
        grew = True
    if (
        grew or checkpoint.size <= mirror.size
    ):  # otherwise another worker was here first, and nothing was compared
        collect_cosignatures(db, log_id, checkpoint.size, note, roster)
    return grew


def _root_at(session: Session, log_id: int, size: int) -> bytes:
    return tree_root(node_reader(session, log_id), size)


def _note_claim(db: Database, log_id: int, size: int) -> None:
    """What the log says it has, even before we have it: lag is shown against it."""
    with db.write() as session:
        session.execute(
            update(LogRow).where(LogRow.id == log_id, LogRow.claimed_size < size).values(claimed_size=size)
        )


def _take_near(
    db: Database,
    client: PeerClient,
    mirror: Followed,
    source: str,
    checkpoint: Checkpoint,
    note: Note,
    *,
    clock: Clock,
    evidence_dir: Path | None,
) -> bool:
    leaves = _fetch_leaves(client, source, mirror.size, checkpoint.size, checkpoint.size)
    pairs = [(hash_leaf(leaf), leaf) for leaf in leaves]
    with db.write() as session:
        stored = lock_log(db, session, mirror.id)
        if stored.size != mirror.size:
            return False  # another worker was here; the next step starts from what it stored
        if stored.frontier.extend([h for h, _ in pairs]).root() == checkpoint.root:
            append_leaves(db, session, stored, pairs, at=clock())
            _set_head(db, session, mirror.id, checkpoint, note, now=clock())
            return True
    _explain_mismatch(db, client, mirror, source, checkpoint, note, evidence_dir, now=clock())
    return False


def _take_far(
    db: Database,
    client: PeerClient,
    mirror: Followed,
    source: str,
    checkpoint: Checkpoint,
    note: Note,
    *,
    clock: Clock,
    evidence_dir: Path | None,
) -> bool:
    proven = _fetch_leaf_hashes(client, source, mirror.size, checkpoint.size)
    with db.read() as session:
        frontier = _frontier(session, mirror.id)
    if frontier.size != mirror.size:
        return False
    hashes = [proven[at : at + 32] for at in range(0, len(proven), 32)]
    if frontier.extend(hashes).root() != checkpoint.root:
        _explain_mismatch(db, client, mirror, source, checkpoint, note, evidence_dir, now=clock())
    at = mirror.size
    while at < checkpoint.size:
        # Windows end on bundle borders, so that each bundle is fetched once.
        end = min(checkpoint.size, (at // BUNDLE) * BUNDLE + WINDOW)
        leaves = _fetch_leaves(client, source, at, end, checkpoint.size)
        wanted = hashes[at - mirror.size : end - mirror.size]
        pairs = [(hash_leaf(leaf), leaf) for leaf in leaves]
        for index, ((found, _), expected) in enumerate(zip(pairs, wanted, strict=True), at):
            if found != expected:
                raise CorruptLeaves(
                    f"{source} serves a leaf {index} that is not the one {mirror.origin} signed for."
                )
        with db.write() as session:
            stored = lock_log(db, session, mirror.id)
            if stored.size != at:
                return True
            append_leaves(db, session, stored, pairs, at=clock())
            if end == checkpoint.size:
                _set_head(db, session, mirror.id, checkpoint, note, now=clock())
        at = end
    return True


def _frontier(session: Session, log_id: int) -> Frontier:
    raw = session.execute(select(LogRow.frontier).where(LogRow.id == log_id)).scalar_one()
    return Frontier.from_bytes(raw) if raw else Frontier()


def _set_head(
    db: Database, session: Session, log_id: int, checkpoint: Checkpoint, note: Note, *, now: int
) -> None:
    """The head is proven: store it with the log's own signature line (cosignatures are kept apart)."""
    own = Note(note.text, tuple(s for s in note.signatures if s.name == checkpoint.origin))
    session.execute(
        db.insert_ignore(HeadRow.__table__).values(
            log_id=log_id, size=checkpoint.size, root=checkpoint.root, note=own.encode(), at=now
        )
    )
    session.execute(
        update(LogRow)
        .where(LogRow.id == log_id)
        .values(
            head_size=checkpoint.size,
            head_root=checkpoint.root,
            head_note=own.encode(),
            head_at=now,
            claimed_size=checkpoint.size,
        )
    )


def _fetch_leaves(client: PeerClient, source: str, start: int, end: int, size: int) -> list[bytes]:
    """Leaves [start, end) of a tree of `size`, from entry bundles."""
    leaves: list[bytes] = []
    for index in range(start // BUNDLE, (end - 1) // BUNDLE + 1):
        width = bundle_width(size, index)
        path = BundlePath(index, width)
        raw = client.get(f"{source}/{path}", limit=MAX_BUNDLE_BYTES)
        if raw is None:
            raise PeerAnswerRefused(f"{source} has no {path}, which the head it serves promises.")
        try:
            entries = decode_bundle(raw, width)
        except MalformedBundle as error:
            raise CorruptLeaves(f"{source}/{path}: {error}") from error
        first = index * BUNDLE
        leaves += entries[max(start - first, 0) : min(end - first, width)]
    return leaves


def _fetch_leaf_hashes(client: PeerClient, source: str, start: int, size: int) -> bytes:
    """Leaf hashes [start, size), 32 bytes each, from tiles of level 0. Unproven until their root is compared."""
    if size - start > MAX_GROWTH:
        raise PeerAnswerRefused(
            f"{source} serves a head {size - start} leaves beyond what is proven here; at most {MAX_GROWTH} are taken at once."
        )
    found = bytearray()
    for index in range(start // BUNDLE, (size - 1) // BUNDLE + 1):
        width = bundle_width(size, index)
        path = TilePath(0, index, width)
        raw = client.get(f"{source}/{path}", limit=MAX_TILE_BYTES)
        if raw is None:
            raise PeerAnswerRefused(f"{source} has no {path}, which the head it serves promises.")
        try:
            split_tile(raw, width)
        except MalformedTile as error:
            raise CorruptLeaves(f"{source}/{path}: {error}") from error
        found += raw[max(start - index * BUNDLE, 0) * 32 :]
    return bytes(found)


def _explain_mismatch(
    db: Database,
    client: PeerClient,
    mirror: Followed,
    source: str,
    checkpoint: Checkpoint,
    note: Note,
    evidence_dir: Path | None,
    *,
    now: int,
) -> None:
    """Our leaves and the new ones do not give the signed root: a fork, or a source that serves rubbish?

    Hash tiles from zero that do give the signed root are authentic, and their root at our size tells the two apart.

    Raises:
        CheckpointFork, CorruptLeaves: one of them, always.
    """
    raw = _fetch_leaf_hashes(client, source, 0, checkpoint.size)
    hashes = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    at_our_size = Frontier().extend(hashes[: mirror.head_size])
    if at_our_size.extend(hashes[mirror.head_size :]).root() != checkpoint.root:
        raise CorruptLeaves(
            f"{source} serves tiles that do not hash to the head it serves (size {checkpoint.size})."
        )
    if mirror.head_root is not None and at_our_size.root() != mirror.head_root:
        raise freeze(db, mirror, note, evidence_dir, now=now)
    raise CorruptLeaves(f"{source} serves bundles that are not the leaves {mirror.origin} signed for.")


def freeze(
    db: Database, mirror: Followed, newer: Note, evidence_dir: Path | None, *, now: int
) -> CheckpointFork:
    """Keep both signed heads, stop cosigning this log, and return what to say of it."""
    if evidence_dir is not None and mirror.head_note is not None:
        record = orjson.dumps(
            {
                "v": 1,
                "type": "fork",
                "origin": mirror.origin,
                "older": mirror.head_note.decode(),
                "newer": newer.encode().decode(),
            },
            option=orjson.OPT_SORT_KEYS,
        )
        evidence_dir.mkdir(parents=True, exist_ok=True)
        (evidence_dir / f"{hash_leaf(record).hex()}.json").write_bytes(record)
    with db.write() as session:
        session.execute(update(LogRow).where(LogRow.id == mirror.id).values(status="frozen"))
    log.error("log forked", extra={"action": "log_forked", "origin": mirror.origin, "at": now})
    return CheckpointFork(
        f"{mirror.origin} has signed two heads that contradict each other. The log is frozen here at size {mirror.head_size}; both "
        "heads are kept as evidence. Tell the other States' contact points; see docs/operations.md."
    )
