"""Following one foreign log: checkpoint, leaves, proof, store, and only then cosign.

Guarantees: leaves are stored only after they were shown to be part of a tree whose root the log signed and which extends
the tree stored before; a mirror is therefore complete up to a proven size. Judging the leaves comes later and can never
stop this: the verdict is a flag. A fork freezes that one log, keeps both signed heads, and everything else goes on.

    1. GET checkpoint ▸ strict parse ▸ origin ▸ the log's signature
    2. same size: same root?          smaller: is our root at that size the same?
    3. larger, near:  bundles ▸ hash onto our frontier ▸ same root?   one comparison proves consistency and content
       larger, far:   a hash a bundle ▸ frontier ▸ same root? ▸ then bundle by bundle against these, in constant memory
    4. one transaction: leaves, tiles, frontier, head; compare-and-swap on the old size
    5. cosign
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, or_, select, update

from app.db import execute
from app.domain.errors import PeerFault, VerbaleError
from app.domain.statement import hash_leaf
from app.models import HeadRow, LogRow, WatchRow
from app.replication.client import MAX_CHECKPOINT_BYTES, PeerAnswerRefused
from app.replication.forks import (
    STALE_HEAD,
    CheckpointFork,
    UnprovenHead,
    contradiction,
    convict,
    fetch_leaves,
    own_lines,
    place_of,
    report_rollback,
    watch_log,
)
from app.replication.promised import fetch_promise
from app.replication.witness import collect_cosignatures, log_keys, revoked_log_keys
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.evidence import Sighting
from app.tlog.merkle import Frontier, tree_root
from app.tlog.note import Note, names_key
from app.tlog.note import parse as parse_note
from app.tlog.store import append_leaves, lock_log, node_reader
from app.tlog.tiles import MalformedBundle, MalformedTile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.replication.client import PeerClient
    from app.replication.promised import Promise

log = logging.getLogger(__name__)

NEAR: Final = 512
"""Up to this many new leaves are taken in one step; beyond it their hashes are proven first. At least two bundles."""
WINDOW: Final = 16 * 256
"""Leaves in one transaction of a long catch-up: some megabytes in memory, whatever the distance."""
BUNDLE: Final = 256


class StaleHead(PeerFault):
    """The origin serves an older head than one it signed before. It is consistent; something there went back in time."""

    code = STALE_HEAD


class CorruptLeaves(PeerFault):
    """What was served does not hash to the head the log signed; another source may do better. Accuses nobody."""

    code = "corrupt-leaves"


class LogNotServed(PeerFault):
    """The source serves no checkpoint of this log (yet)."""

    code = "log-not-served"


@dataclass(frozen=True, slots=True)
class Followed:
    """A foreign log as the follower reads it at the start of a step.

    Attributes:
        pending_note: the signed head of a catch-up under way, whose leaves from `head_size` on are stored.
        claimed_note: the largest signed head that was seen here and whose leaves nobody gave.
    """

    id: int
    origin: str
    state: str
    status: str
    size: int
    head_size: int
    head_root: bytes | None
    head_note: bytes | None
    pending_note: bytes | None = None
    claimed_note: bytes | None = None


_LOGS, _WATCHED = LogRow.__table__, WatchRow.__table__
_FOLLOWED: Final = (
    select(
        _LOGS.c.id,
        _LOGS.c.origin,
        _LOGS.c.state,
        _LOGS.c.status,
        _LOGS.c.size,
        _LOGS.c.head_size,
        _LOGS.c.head_root,
        _LOGS.c.head_note,
        _WATCHED.c.pending_note,
        _WATCHED.c.claimed_note,
    )
    .outerjoin_from(_LOGS, _WATCHED, _WATCHED.c.log_id == _LOGS.c.id)
    .where(_LOGS.c.id == bindparam("log"))
)
_NOTHING_PENDING: Final = (
    update(_WATCHED)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_WATCHED.c.log_id == bindparam("log"), _WATCHED.c.pending_note.is_not(None))
    .values(pending_note=None)
)
_PROVEN: Final = (
    update(_LOGS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(
        _LOGS.c.id == bindparam("log"),
        or_(_LOGS.c.head_note.is_(None), _LOGS.c.head_size < bindparam("new_size")),
    )
    .values(
        head_size=bindparam("new_size"),
        head_root=bindparam("new_root"),
        head_note=bindparam("new_note"),
        head_at=bindparam("now"),
        claimed_size=bindparam("new_size"),
    )
    .returning(_LOGS.c.id)
)
_SEEN: Final = (
    update(_LOGS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_LOGS.c.id == bindparam("log"))
    .values(
        contact_at=bindparam("now"),
        skew_ms=bindparam("skew"),
        error_code=None,
        error_detail=None,
        error_at=None,
    )
)
_SIGNED_AGAIN: Final = (
    update(_LOGS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_LOGS.c.id == bindparam("log"), _LOGS.c.head_size == bindparam("at_size"))
    .values(head_note=bindparam("new_note"))
)
_HEADS: Final = HeadRow.__table__
_HEAD_SIGNED_AGAIN: Final = (
    update(_HEADS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_HEADS.c.log_id == bindparam("log"), _HEADS.c.size == bindparam("at_size"))
    .values(note=bindparam("new_note"))
)


def read_followed(session: Session, log_id: int) -> Followed:
    """Read the follower's state of one log."""
    return Followed(*execute(session, _FOLLOWED, log=log_id).one())


def follow_step(
    db: Database,
    client: PeerClient,
    log_id: int,
    source: str,
    roster: Roster,
    *,
    clock: Clock,
    state: str = "",
    expect: Callable[[int], None] | None = None,
) -> bool:
    """Bring the mirror of one log up to the head that `source` serves. True if the mirror grew.

    Args:
        source: base URL of the log's tiles: the origin's own, or any mirror's; what it serves is proven either way.
        state: this node's own: who saw what, in a record of evidence.
        expect: told how many leaves are coming, before a long catch-up fetches them.

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
    listed = roster.log(mirror.origin)
    if listed is not None and source == listed.url:
        _note_served(db, log_id, checkpoint, raw)
    try:
        grew = advance(
            db,
            client,
            mirror,
            source,
            checkpoint,
            note,
            roster=roster,
            clock=clock,
            state=state,
            expect=expect,
        )
    except StaleHead:
        if listed is not None and source == listed.url:
            seen = [Sighting(clock() // 1000, state, "origin")] if state else []
            report_rollback(db, log_id, note, roster=roster, seen=seen, now=clock())
        raise
    with db.write() as session:
        execute(session, _SEEN, log=log_id, now=clock(), skew=client.skew_ms)
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
    state: str = "",
    expect: Callable[[int], None] | None = None,
) -> bool:
    """Bring the mirror up to a checkpoint whose signature was verified, fetched or offered. True if the mirror grew.

    `expect`: see `follow_step`.

    Raises:
        PeerFault: see `follow_step`.
    """
    log_id = mirror.id
    look = _Look(db, client, source, roster, clock, state)
    if checkpoint.size <= mirror.size:
        with db.read() as session:
            ours = (
                mirror.head_root
                if checkpoint.size == mirror.head_size
                else _root_at(session, log_id, checkpoint.size)
            )
        if ours is not None and ours != checkpoint.root:
            raise look.explain(mirror, note)
        if checkpoint.size < mirror.head_size:
            raise StaleHead(
                f"{source} serves size {checkpoint.size}, and {mirror.origin} has signed {mirror.head_size} before."
            )
    grew = False
    if checkpoint.size > mirror.size:
        if checkpoint.size - mirror.size <= NEAR:
            try:
                grew = _take_near(look, mirror, checkpoint, note)
            except CheckpointFork:
                raise
            except PeerFault:
                look.claimed(mirror, checkpoint, note)
                raise
        else:
            look.claimed(mirror, checkpoint, note)
            if expect is not None:
                expect(checkpoint.size - mirror.size)
            grew = _take_far(look, mirror, checkpoint, note)
    elif (
        checkpoint.size > mirror.head_size or mirror.head_note is None
    ):  # a catch-up that was cut off after its last leaves
        with db.write() as session:
            _set_head(db, session, log_id, checkpoint, note, now=clock())
        grew = True
    elif checkpoint.size == mirror.head_size and _stands_under_a_revoked_key(mirror, roster):
        with db.write() as session:
            own = own_lines(note, checkpoint.origin)
            execute(session, _SIGNED_AGAIN, log=log_id, at_size=checkpoint.size, new_note=own)
            execute(session, _HEAD_SIGNED_AGAIN, log=log_id, at_size=checkpoint.size, new_note=own)
    if grew:
        look.hold_against_claimed(mirror)
    if (
        grew or checkpoint.size <= mirror.size
    ):  # otherwise another worker was here first, and nothing was compared
        collect_cosignatures(db, log_id, checkpoint.size, note, roster)
    return grew


def _stands_under_a_revoked_key(mirror: Followed, roster: Roster) -> bool:
    """Whether nobody would take this mirror's head from it, as the log's key was revoked since: its State signs it again."""
    if not revoked_log_keys(roster, mirror.origin) or mirror.head_note is None:
        return False
    held = parse_note(mirror.head_note)
    return not any(names_key(held, key) for key in log_keys(roster, mirror.origin))


def advance_from(
    db: Database,
    client: PeerClient,
    log_id: int,
    sources: Sequence[str],
    checkpoint: Checkpoint,
    note: Note,
    *,
    roster: Roster,
    clock: Clock,
    state: str = "",
) -> bool:
    """Bring the mirror up to a verified checkpoint from the first of several sources that can give it. True if it grew.

    Raises:
        CheckpointFork: see `advance`; no other source is asked.
        PeerFault: none of them could; what the last one did.
    """
    fault: PeerFault | None = None
    for source in sources:
        with db.read() as session:
            mirror = read_followed(session, log_id)
        if mirror.head_size >= checkpoint.size:
            return False
        try:
            return advance(
                db, client, mirror, source, checkpoint, note, roster=roster, clock=clock, state=state
            )
        except CheckpointFork:
            raise
        except PeerFault as error:
            fault = error
    if fault is not None:
        raise fault
    return False


def _root_at(session: Session, log_id: int, size: int) -> bytes:
    return tree_root(node_reader(session, log_id), size)


def note_claim(db: Database, log_id: int, checkpoint: Checkpoint, note: Note) -> bytes | None:
    """Keep in mind what the log says it has, even before we have it: lag is shown against it, and the key has signed it.

    A node that goes on from an old copy asks what was seen of its log, and what is stored later is held against it: else a head
    whose leaves never came would be forgotten, and another root could be signed for its size.

    Args:
        note: its log signature was verified.

    Returns:
        Another head of the same size that is in mind already, if it has another root.
    """
    with db.write() as session:
        session.execute(
            update(LogRow)
            .where(LogRow.id == log_id, LogRow.claimed_size < checkpoint.size)
            .values(claimed_size=checkpoint.size)
        )
        kept = session.execute(
            select(WatchRow.claimed_note).where(WatchRow.log_id == log_id)
        ).scalar_one_or_none()
        before = None if kept is None else Checkpoint.parse(parse_note(kept).text)
        if before is None or before.size < checkpoint.size:
            watch_log(db, session, log_id, claimed_note=own_lines(note, checkpoint.origin))
    is_other = before is not None and before.size == checkpoint.size and before.root != checkpoint.root
    return kept if is_other else None


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a log through one source."""

    db: Database
    client: PeerClient
    source: str
    roster: Roster
    clock: Clock
    state: str

    def leaves(self, start: int, end: int, size: int) -> list[bytes]:
        try:
            return fetch_leaves(self.client, self.source, start, end, size)
        except MalformedBundle as error:
            raise CorruptLeaves(f"{self.source}: {error}") from error

    def explain(self, mirror: Followed, newer: Note) -> PeerFault:
        """What is stored and a signed head do not fit: a fork, or a source that serves rubbish?

        Hash tiles that prove a consistent tree under the signed head are authentic, and tell the two apart.

        Returns:
            CheckpointFork, and then the log is frozen; or CorruptLeaves.

        Raises:
            PeerFault: it cannot be told now.
        """
        for raw in (mirror.head_note, mirror.pending_note):
            if raw is None:
                continue
            try:
                fork = self._fork(mirror, parse_note(raw), newer)
            except UnprovenHead as error:
                raise CorruptLeaves(f"{self.source}: {error}") from error
            if fork is not None:
                return fork
        raise CorruptLeaves(
            f"{self.source} serves bundles that are not the leaves {mirror.origin} signed for."
        )

    def claimed(self, mirror: Followed, checkpoint: Checkpoint, note: Note) -> None:
        """Keep a head in mind whose leaves are not here.

        Raises:
            CheckpointFork: there is another one for that size.
        """
        other = note_claim(self.db, mirror.id, checkpoint, note)
        if other is not None and (fork := self._fork(mirror, parse_note(other), note)) is not None:
            raise fork

    def hold_against_claimed(self, mirror: Followed) -> None:
        """After the mirror grew: is the head that was seen without its leaves one of the tree that is stored now?

        Raises:
            CheckpointFork: it is not, and the log signed both.
        """
        if mirror.claimed_note is None:
            return
        with self.db.read() as session:
            now = read_followed(session, mirror.id)
        claimed = self._claimed_head(mirror)
        if claimed is not None and Checkpoint.parse(claimed.text).size > now.head_size:
            return
        if claimed is not None and now.head_note is not None:
            fork = self._fork(now, parse_note(now.head_note), claimed)
            if fork is not None:
                raise fork
        with self.db.write() as session:
            watch_log(self.db, session, mirror.id, claimed_note=None)

    def _claimed_head(self, mirror: Followed) -> Note | None:
        """None if it was signed by a key that counts no more: it proves nothing."""
        try:
            return open_checkpoint(
                mirror.claimed_note or b"", log_keys(self.roster, mirror.origin), mirror.origin
            )[1]
        except VerbaleError:
            return None

    def _fork(self, mirror: Followed, a: Note, b: Note) -> CheckpointFork | None:
        """What two heads that the log's key signed prove: that it forked, and then it is frozen; None if one extends the other.

        Raises:
            PeerFault: it cannot be told now.
        """
        place = place_of(self.roster, mirror.origin, self.source)
        seen = [Sighting(self.clock() // 1000, self.state, place)] if self.state else []
        found = contradiction(
            self.db,
            self.client,
            mirror.id,
            a,
            b,
            sources=(self.source,),
            roster=self.roster,
            seen=seen,
        )
        return None if found is None else convict(self.db, found, roster=self.roster, now=self.clock())


def _take_near(look: _Look, mirror: Followed, checkpoint: Checkpoint, note: Note) -> bool:
    db = look.db
    leaves = look.leaves(mirror.size, checkpoint.size, checkpoint.size)
    pairs = [(hash_leaf(leaf), leaf) for leaf in leaves]
    with db.write() as session:
        stored = lock_log(session, mirror.id)
        if stored.size != mirror.size:
            return False  # another worker was here; the next step starts from what it stored
        if stored.frontier.extend([h for h, _ in pairs]).root() == checkpoint.root:
            append_leaves(db, session, stored, pairs, at=look.clock())
            _set_head(db, session, mirror.id, checkpoint, note, now=look.clock())
            return True
    raise look.explain(mirror, note)


def _take_far(look: _Look, mirror: Followed, checkpoint: Checkpoint, note: Note) -> bool:
    db, source, start, size = look.db, look.source, mirror.size, checkpoint.size
    try:
        promise = fetch_promise(look.client, source, start, size)
    except MalformedTile as error:
        raise CorruptLeaves(f"{source}: {error}") from error
    with db.read() as session:
        frontier = _frontier(session, mirror.id)
    if frontier.size != start:
        return False
    if promise.onto(frontier).root() != checkpoint.root:
        raise look.explain(mirror, note)
    with db.write() as session:  # if the catch-up is cut off, this is the head its leaves belong to
        watch_log(db, session, mirror.id, pending_note=own_lines(note, checkpoint.origin))
    # Windows end on bundle borders, so that each bundle is fetched once.
    borders = [start, *range((start // BUNDLE) * BUNDLE + WINDOW, size, WINDOW), size]
    windows = list(pairwise(borders))
    coming = look.client.meanwhile(look.leaves, *windows[0], size)
    for place, (at, end) in enumerate(windows, 1):
        leaves = coming.result()
        if place < len(windows):  # the network and the disk need not wait for each other
            coming = look.client.meanwhile(look.leaves, *windows[place], size)
        pairs = [(hash_leaf(leaf), leaf) for leaf in leaves]
        _check_promised(promise, at, [found for found, _ in pairs], source, mirror.origin)
        with db.write() as session:
            stored = lock_log(session, mirror.id)
            if stored.size != at:
                return True
            append_leaves(db, session, stored, pairs, at=look.clock())
            if end == size:
                _set_head(db, session, mirror.id, checkpoint, note, now=look.clock())
    return True


def _check_promised(promise: Promise, at: int, hashes: Sequence[bytes], source: str, origin: str) -> None:
    """Hold the leaves from index `at` on, to a border of bundles or the end, against what was proven.

    Raises:
        CorruptLeaves
    """
    done = 0
    while done < len(hashes):
        bundle = (at + done) // BUNDLE
        of_it = hashes[done : done + (bundle + 1) * BUNDLE - at - done]
        if not promise.kept_by(bundle, of_it):
            raise CorruptLeaves(
                f"Of the leaves {at + done} to {at + done + len(of_it) - 1} that {source} serves, one at least is not what {origin} "
                "signed for."
            )
        done += len(of_it)


def _frontier(session: Session, log_id: int) -> Frontier:
    raw = session.execute(select(LogRow.frontier).where(LogRow.id == log_id)).scalar_one()
    return Frontier.from_bytes(raw) if raw else Frontier()


def _set_head(
    db: Database, session: Session, log_id: int, checkpoint: Checkpoint, note: Note, *, now: int
) -> None:
    """The head is proven: store it with the log's own signature line (cosignatures are kept apart).

    Unless there is a later one: several looks at one log may be under way, and the last to write read the mirror first.
    """
    own = own_lines(note, checkpoint.origin)
    size, root = checkpoint.size, checkpoint.root
    proven = execute(session, _PROVEN, log=log_id, new_size=size, new_root=root, new_note=own, now=now)
    if proven.one_or_none() is None:
        return
    execute(session, _NOTHING_PENDING, log=log_id)
    head = db.insert_ignore(HeadRow.__table__)
    execute(session, head, log_id=log_id, size=size, root=root, note=own, at=now)


def _note_served(db: Database, log_id: int, checkpoint: Checkpoint, raw: bytes) -> None:
    """The log's own node serves this head: what others have shown up to it is not withheld."""
    with db.read() as session:
        served = session.execute(
            select(WatchRow.served_size).where(WatchRow.log_id == log_id)
        ).scalar_one_or_none()
    if served is None or served < checkpoint.size:
        with db.write() as session:
            watch_log(db, session, log_id, served_size=checkpoint.size, served_note=raw)
