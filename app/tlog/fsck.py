"""The log check: everything that is derived from stored leaves is derived again, and what differs is named.

For each log, in the order of its leaves: the leaf's hash, its entry's, each held body against its commitment; then the
tiles; at every size that was signed, the head's root, the log's signature and the witnesses' cosignatures; at the end the
frontier and the newest head. Of each log the first difference is reported, since what follows from it is wrong as well.

It only reads, in short transactions of one tile's leaves, so a node may run meanwhile: it checks the log up to the size
that it had at the start, and leaves are never changed. Memory is bounded by a tile's leaves and one leaf's bodies. Left to
others: whether leaves follow the rules (that is judging), and the projections (`verbale rebuild`).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from app import bodies
from app.domain.commitment import check_opening
from app.domain.errors import BodyUnreadable, VerbaleError
from app.domain.statement import hash_leaf, parse
from app.models import BodyRow, CosignatureRow, EntryRow, HeadRow, LeafRow, LogRow, TileRow
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint
from app.tlog.cosignature import CosignerKey, verify_cosignatures
from app.tlog.merkle import HASH_SIZE, Frontier
from app.tlog.note import Note, VerifierKey
from app.tlog.tiles import TILE_WIDTH, TilePath, partial_tiles, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster

NOTHING: Final = "nothing"
_BODIES_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Difference:
    """What is stored and should be otherwise. `what` names it by index, tile path or size."""

    what: str
    expected: str
    found: str


@dataclass(slots=True)
class LogReport:
    """What was checked of one log.

    Attributes:
        unchecked: signatures by keys that no roster at hand lists; their roots were compared all the same.
        difference: the first one, or None.
    """

    origin: str
    size: int
    leaves: int = 0
    entries: int = 0
    bodies: int = 0
    tiles: int = 0
    heads: int = 0
    cosignatures: int = 0
    unchecked: int = 0
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that signatures are checked with. Past and revoked ones count: what they signed stays signed."""

    logs: Mapping[str, tuple[VerifierKey, ...]] = field(default_factory=dict)
    cosigners: tuple[CosignerKey, ...] = ()

    @classmethod
    def of(
        cls, roster: Roster | None, own: Iterable[VerifierKey] = (), witnesses: Iterable[CosignerKey] = ()
    ) -> Keys:
        """The roster's keys, and the node's own where there is no roster yet."""
        logs: dict[str, tuple[VerifierKey, ...]] = {}
        cosigners = list(witnesses)
        for key in own:
            logs[key.name] = (*logs.get(key.name, ()), key)
        for state in roster.nodes() if roster else ():
            for log in state.logs:
                listed = roster.keys_of(state.code, "log") if roster else ()
                found = (VerifierKey(log.origin, k.key) for k in listed if k.key.alg == "Ed25519")
                logs[log.origin] = (*logs.get(log.origin, ()), *found)
            if state.witness_name and roster:
                cosigners += [
                    CosignerKey(state.witness_name, k.key) for k in roster.keys_of(state.code, "witness")
                ]
        return cls({origin: tuple(dict.fromkeys(found)) for origin, found in logs.items()}, tuple(cosigners))


class _Differs(Exception):
    def __init__(self, what: str, expected: str, found: str) -> None:
        self.difference = Difference(what, expected, found)
        super().__init__(what)


def logs_of(db: Database) -> list[tuple[int, str, int]]:
    """(id, origin, size) of every log in the database, the own one first."""
    with db.read() as session:
        rows = session.execute(
            select(LogRow.id, LogRow.origin, LogRow.size).order_by(LogRow.is_own.desc(), LogRow.origin)
        )
        return [(row.id, row.origin, row.size) for row in rows]


def check_log(
    db: Database, log_id: int, keys: Keys, progress: Callable[[int], None] = lambda _done: None
) -> LogReport:
    """Check one log as it stands now.

    Args:
        progress: called with the number of leaves checked so far.
    """
    with db.read() as session:
        log = session.execute(select(LogRow.__table__).where(LogRow.id == log_id)).one()
        report = LogReport(log.origin, log.size)
        try:
            _check_extent(session, log)
        except _Differs as found:
            report.difference = found.difference
            return report
    check = _Check(db, log, keys, report)
    try:
        check.run(progress)
    except _Differs as found:
        report.difference = found.difference
    return report


def _check_extent(session: Session, log: Row[tuple[object, ...]]) -> None:
    """Nothing beyond the size: no leaf, no tile, no hash in a tile. In the snapshot that the size was read in."""
    surplus: int | None = session.execute(
        select(func.min(LeafRow.idx)).where(LeafRow.log_id == log.id, LeafRow.idx >= log.size)
    ).scalar_one()
    if surplus is not None:
        raise _Differs(f"leaf {surplus}", f"{NOTHING}: the log has {log.size} leaves", "a leaf")
    for tile in partial_tiles(log.size):
        stored = _tile(session, log.id, tile.level, tile.index)
        if len(stored) // HASH_SIZE > tile.width:
            raise _Differs(str(tile), f"{tile.width} hashes", f"{len(stored) // HASH_SIZE} hashes")
    count = session.execute(
        select(func.count()).select_from(TileRow).where(TileRow.log_id == log.id)
    ).scalar_one()
    tiles = sum(1 for _ in tiles_of(log.size))
    if count > tiles:
        raise _Differs("tiles", f"{tiles} for {log.size} leaves", str(count))
    beyond: int | None = session.execute(
        select(func.min(HeadRow.size)).where(
            HeadRow.log_id == log.id, HeadRow.size > max(log.size, log.head_size)
        )
    ).scalar_one()
    if beyond is not None and log.is_own:
        raise _Differs(f"head of size {beyond}", f"{NOTHING}: the log has {log.size} leaves", "a signed head")


def _tile(session: Session, log_id: int, level: int, index: int) -> bytes:
    stored = session.execute(
        select(TileRow.hashes).where(TileRow.log_id == log_id, TileRow.level == level, TileRow.idx == index)
    ).scalar_one_or_none()
    return b"" if stored is None else bytes(stored)


class _Check:
    """One pass over one log. Every method raises `_Differs` at the first difference."""

    def __init__(self, db: Database, log: Row[tuple[object, ...]], keys: Keys, report: LogReport) -> None:
        self._db, self._log, self._keys, self._report = db, log, keys, report
        self._frontier = Frontier()
        self._tiles: list[tuple[int, list[bytes]]] = []  # per level: index of the unfinished tile, its hashes

    def run(self, progress: Callable[[int], None]) -> None:
        size = self._log.size
        start = 0
        while True:
            end = min(start + TILE_WIDTH, size)
            with self._db.read() as session:
                hashes = self._leaves(session, start, end)
                for leaf_hash in hashes:
                    self._add_to_tile(session, 0, leaf_hash)
                self._heads(session, start, end, hashes)
            progress(end)
            if end == size:
                break
            start = end
        with self._db.read() as session:
            for level, (index, hashes) in enumerate(self._tiles):
                if hashes:
                    self._compare_tile(session, level, index, hashes)
        stored = bytes(self._log.frontier) or Frontier().to_bytes()
        if stored != self._frontier.to_bytes():
            raise _Differs("frontier", self._frontier.to_bytes().hex(), stored.hex())

    # ── leaves, entries, bodies ───────────────────────────────────────────────────────────────────────────────────

    def _leaves(self, session: Session, start: int, end: int) -> list[bytes]:
        log_id = self._log.id
        rows = {
            row.idx: (bytes(row.leaf_hash), bytes(row.leaf))
            for row in session.execute(
                select(LeafRow.idx, LeafRow.leaf_hash, LeafRow.leaf).where(
                    LeafRow.log_id == log_id, LeafRow.idx >= start, LeafRow.idx < end
                )
            )
        }
        entries = {
            row.idx: (bytes(row.leaf_hash), row.body_state)
            for row in session.execute(
                select(EntryRow.idx, EntryRow.leaf_hash, EntryRow.body_state).where(
                    EntryRow.log_id == log_id, EntryRow.idx >= start, EntryRow.idx < end
                )
            )
        }
        with closing(self._bodies(session, start, end)) as bodies:
            return self._compare(rows, entries, bodies, start, end)

    def _compare(
        self,
        rows: Mapping[int, tuple[bytes, bytes]],
        entries: Mapping[int, tuple[bytes, str]],
        bodies: Iterator[tuple[int, list[tuple[str, bytes, bytes]]]],
        start: int,
        end: int,
    ) -> list[bytes]:
        body = next(bodies, None)
        hashes = []
        for index in range(start, end):
            if index not in rows:
                raise _Differs(f"leaf {index}", "a leaf", NOTHING)
            stored, leaf = rows[index]
            derived = hash_leaf(leaf)
            if derived != stored:
                raise _Differs(f"leaf {index}", f"hash {derived.hex()}", f"hash {stored.hex()}")
            hashes.append(derived)
            self._report.leaves += 1
            state = self._entry(index, derived, entries.get(index))
            held: list[tuple[str, bytes, bytes]] = []
            if body is not None and body[0] == index:
                held, body = body[1], next(bodies, None)
            self._body(index, leaf, state, held)
        return hashes

    def _entry(self, index: int, derived: bytes, entry: tuple[bytes, str] | None) -> str | None:
        """The body state of a judged leaf; None for one that is not judged yet."""
        if entry is None:
            if index < self._log.judged:
                raise _Differs(f"entry {index}", "a judged entry", NOTHING)
            return None
        stored, state = entry
        if stored != derived:
            raise _Differs(f"entry {index}", f"hash {derived.hex()}", f"hash {stored.hex()}")
        self._report.entries += 1
        return state

    def _bodies(
        self, session: Session, start: int, end: int
    ) -> Generator[tuple[int, list[tuple[str, bytes, bytes]]], None, None]:
        """Held parts by index, one leaf's at a time: a window of large attachments must not fill the memory."""
        where = (BodyRow.log_id == self._log.id) & (BodyRow.idx >= start) & (BodyRow.idx < end)
        rows = bodies.stream(session, where, at_once=_BODIES_AT_ONCE)
        with closing(rows):  # a server's cursor, also when a difference ends the reading
            try:
                for index, parts in groupby(rows, key=lambda row: row[0]):
                    yield index, [(part, body.salt, body.content) for _, part, body in parts]
            except BodyUnreadable as error:
                raise _Differs(
                    f"bodies from {start} on", "ciphertext that opens with its key", str(error)
                ) from error

    def _body(
        self, index: int, leaf: bytes, state: str | None, held: Sequence[tuple[str, bytes, bytes]]
    ) -> None:
        if state == "erased" and held:
            raise _Differs(
                f"body {index}", f"{NOTHING}: it was erased", ", ".join(part for part, _, _ in held)
            )
        if not held and state != "held":
            return
        try:
            statement = parse(leaf)
        except VerbaleError as error:
            raise _Differs(f"body {index}", f"{NOTHING}: its leaf cannot be read", str(error)) from error
        named = {part.name: part.commitment for part in statement.parts}
        found = [part for part, _, _ in held]
        if state == "held" and sorted(named) != sorted(found):
            raise _Differs(
                f"body {index}",
                f"parts {', '.join(sorted(named))}",
                f"parts {', '.join(sorted(found)) or NOTHING}",
            )
        for part, salt, content in held:
            try:
                check_opening(named.get(part, b""), salt, statement.id, part, content)
            except VerbaleError as error:
                raise _Differs(
                    f"body {index}, part {part}", "content that opens its commitment", str(error)
                ) from error
            self._report.bodies += 1

    # ── tiles ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_to_tile(self, session: Session, level: int, value: bytes) -> None:
        if level == len(self._tiles):
            self._tiles.append((0, []))
        index, hashes = self._tiles[level]
        hashes.append(value)
        if len(hashes) < TILE_WIDTH:
            return
        self._compare_tile(session, level, index, hashes)
        self._tiles[level] = (index + 1, [])
        self._add_to_tile(session, level + 1, Frontier().extend(hashes).root())

    def _compare_tile(self, session: Session, level: int, index: int, hashes: Sequence[bytes]) -> None:
        """Compare as many hashes as there were leaves for at the start; a growing log may have added some since."""
        path = TilePath(level, index, len(hashes))
        stored = _tile(session, self._log.id, level, index)
        if not stored:
            raise _Differs(str(path), f"{len(hashes)} hashes", NOTHING)
        for number, derived in enumerate(hashes):
            found = stored[number * HASH_SIZE : (number + 1) * HASH_SIZE]
            if found != derived:
                raise _Differs(f"{path}, hash {number}", derived.hex(), found.hex() or NOTHING)
        self._report.tiles += 1

    # ── heads ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _heads(self, session: Session, start: int, end: int, hashes: Sequence[bytes]) -> None:
        """Bring the frontier from `start` to `end`, and stop at every size that was signed."""
        log = self._log
        first = start if start == 0 else start + 1
        heads = {
            row.size: (bytes(row.root), row.note)
            for row in session.execute(
                select(HeadRow.size, HeadRow.root, HeadRow.note).where(
                    HeadRow.log_id == log.id, HeadRow.size >= first, HeadRow.size <= end
                )
            )
        }
        cosigned: dict[int, list[tuple[str, int, bytes]]] = {}
        for row in session.execute(
            select(CosignatureRow.size, CosignatureRow.witness, CosignatureRow.timestamp, CosignatureRow.line)
            .where(CosignatureRow.log_id == log.id, CosignatureRow.size >= first, CosignatureRow.size <= end)
            .order_by(CosignatureRow.size, CosignatureRow.witness)
        ):
            cosigned.setdefault(row.size, []).append((row.witness, row.timestamp, bytes(row.line)))
        newest = {log.head_size} if log.head_note is not None and first <= log.head_size <= end else set()
        at = start
        for size in sorted(heads.keys() | cosigned.keys() | newest):
            self._frontier = self._frontier.extend(hashes[at - start : size - start])
            at = size
            checkpoint = Checkpoint(log.origin, size, self._frontier.root())
            if size in heads:
                self._head(f"head of size {size}", checkpoint, *heads[size])
                self._report.heads += 1
            if size in newest:
                self._head(
                    f"newest head (size {size})", checkpoint, bytes(log.head_root or b""), log.head_note
                )
            for witness, timestamp, line in cosigned.get(size, ()):
                self._cosignature(checkpoint, witness, timestamp, line)
        self._frontier = self._frontier.extend(hashes[at - start :])

    def _head(self, what: str, derived: Checkpoint, root: bytes, raw: bytes | None) -> None:
        if root != derived.root:
            raise _Differs(what, f"root {derived.root.hex()}", f"root {root.hex() or NOTHING}")
        if raw is None:
            return  # decided and not signed yet
        try:
            note = notes.parse(bytes(raw))
            signed = Checkpoint.parse(note.text)
        except VerbaleError as error:
            raise _Differs(what, "a signed checkpoint", str(error)) from error
        if signed != derived:
            raise _Differs(
                what,
                f"size {derived.size}, root {derived.root.hex()}",
                f"signed {signed.origin}, size {signed.size}, root {signed.root.hex()}",
            )
        keys = self._keys.logs.get(derived.origin, ())
        if not keys:
            self._report.unchecked += 1
            return
        try:
            notes.verify(note, keys)
        except VerbaleError as error:
            raise _Differs(what, "a signature by the log's key", str(error)) from error

    def _cosignature(self, checkpoint: Checkpoint, witness: str, timestamp: int, line: bytes) -> None:
        what = f"cosignature of {witness} over size {checkpoint.size}"
        try:
            note = Note(checkpoint.body(), notes.parse_signature_lines(line))
            found = verify_cosignatures(note, [key for key in self._keys.cosigners if key.name == witness])
        except VerbaleError as error:
            raise _Differs(what, f"a cosignature over root {checkpoint.root.hex()}", str(error)) from error
        if not found:
            self._report.unchecked += 1
            return
        if found[0].at != timestamp:
            raise _Differs(what, f"time {found[0].at}", f"time {timestamp}")
        self._report.cosignatures += 1
