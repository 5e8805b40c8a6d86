"""The log in the database: appending to a tree and reading it back.

Guarantees: leaves, tiles, frontier and size change together, in the caller's transaction. A crash before its commit leaves
the log as it was; there is no state between. Leaves to others: who may append (`app.record` for the own log,
`app.replication` for mirrors) and signing (`app.tlog.publish`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, tuple_, update

from app.db import execute, fetch
from app.domain.errors import LogCorrupt
from app.models import HeadRow, LeafRow, LogRow, TileRow
from app.tlog.merkle import Frontier
from app.tlog.tiles import BundlePath, TilePath, encode_bundle, extend_tiles, nodes_from_tiles, partial_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.tlog.merkle import NodeReader
    from app.tlog.tiles import TileReader

_LEAF_COLUMNS = ("log_id", "idx", "leaf_hash", "leaf", "received_at")
_LOGS, _LEAVES, _TILES, _HEADS = LogRow.__table__, LeafRow.__table__, TileRow.__table__, HeadRow.__table__
_LOCKED = (
    select(_LOGS.c.id, _LOGS.c.origin, _LOGS.c.state, _LOGS.c.is_own, _LOGS.c.size, _LOGS.c.frontier)
    .where(_LOGS.c.id == bindparam("log"))
    .with_for_update()  # on SQLite the write transaction excludes every other writer already
)
_GROWN = update(_LOGS).where(_LOGS.c.id == bindparam("log"))  # type: ignore[arg-type]  # a mapped class's __table__
_GROWN = _GROWN.values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
_PARTIALS = select(_TILES.c.level, _TILES.c.hashes).where(
    _TILES.c.log_id == bindparam("log"),
    tuple_(_TILES.c.level, _TILES.c.idx).in_(bindparam("tiles", expanding=True)),
)
_TILE = select(_TILES.c.hashes).where(
    _TILES.c.log_id == bindparam("log"),
    _TILES.c.level == bindparam("level"),
    _TILES.c.idx == bindparam("index"),
)
_NOTE_OF = select(_HEADS.c.note).where(
    _HEADS.c.log_id == bindparam("log"), _HEADS.c.size == bindparam("at_size")
)
_RUN = (
    select(_LEAVES.c.leaf)
    .where(
        _LEAVES.c.log_id == bindparam("log"),
        _LEAVES.c.idx >= bindparam("start"),
        _LEAVES.c.idx < bindparam("end"),
    )
    .order_by(_LEAVES.c.idx)
)


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log as its row had it when it was read, inside the same transaction."""

    id: int
    origin: str
    state: str
    is_own: bool
    size: int
    frontier: Frontier


def lock_log(session: Session, log_id: int) -> StoredLog:
    """Read a log's state and keep it from changing until the transaction ends."""
    return _stored(execute(session, _LOCKED, log=log_id).one())


def _stored(row: Row[*tuple[Any, ...]]) -> StoredLog:
    log_id, origin, state, is_own, size, raw = row
    frontier = Frontier.from_bytes(raw) if raw else Frontier()
    if frontier.size != size:
        raise LogCorrupt(
            f"The stored size {size} of {origin} is not that of its frontier ({frontier.size}). Run: verbale fsck"
        )
    return StoredLog(log_id, origin, state, is_own, size, frontier)


def append_leaves(
    db: Database, session: Session, log: StoredLog, leaves: Sequence[tuple[bytes, bytes]], *, at: int
) -> StoredLog:
    """Append (leaf hash, leaf) pairs to a locked log; return its new state.

    Indexes are consecutive from `log.size`; the primary key refuses a second leaf at an index. No database sequence: a
    rolled-back number would leave a gap, and a gap in a log is evidence of tampering.

    Args:
        at: unix ms when this node received them.
    """
    if not leaves:
        return log
    hashes = [leaf_hash for leaf_hash, _ in leaves]
    frontier = log.frontier.extend(hashes)
    db.bulk_insert(
        session,
        LeafRow.__table__,
        _LEAF_COLUMNS,
        [(log.id, log.size + n, leaf_hash, leaf, at) for n, (leaf_hash, leaf) in enumerate(leaves)],
    )
    tiles = [
        {"log_id": log.id, "level": tile.level, "idx": tile.index, "hashes": tile.data}
        for tile in extend_tiles(log.size, _partials(session, log), hashes)
    ]
    session.connection().execute(db.upsert(_TILES, ("log_id", "level", "idx"), ("hashes",)), tiles)
    execute(session, _GROWN, log=log.id, new_size=frontier.size, new_frontier=frontier.to_bytes())
    return StoredLog(log.id, log.origin, log.state, log.is_own, frontier.size, frontier)


def _partials(session: Session, log: StoredLog) -> dict[int, bytes]:
    wanted = partial_tiles(log.size)
    rows = execute(session, _PARTIALS, log=log.id, tiles=[(t.level, t.index) for t in wanted])
    return {level: bytes(hashes) for level, hashes in rows}


def tile_reader(session: Session, log_id: int) -> TileReader:
    """A reader of this log's stored tiles, for proofs and roots."""

    def read(level: int, index: int) -> bytes:
        found = fetch(session, _TILE, log=log_id, level=level, index=index)
        if not found:
            raise LogCorrupt(f"{TilePath(level, index)} is missing from the store. Run: verbale fsck")
        return bytes(found[0].hashes)

    return read


def node_reader(session: Session, log_id: int) -> NodeReader:
    """A reader of complete subtrees of this log. Caches what it reads: one per request."""
    return nodes_from_tiles(tile_reader(session, log_id))


def read_note(session: Session, log_id: int, size: int) -> bytes | None:
    """The checkpoint of a size as its log signed it; None if there is none, or it is not signed yet."""
    note: bytes | None = execute(session, _NOTE_OF, log=log_id, at_size=size).scalar_one_or_none()
    return note


def read_leaves(session: Session, log_id: int, start: int, end: int) -> list[bytes]:
    """The leaves [start, end), exactly as logged.

    Raises:
        LogCorrupt: one is missing.
    """
    leaves = [row.leaf for row in fetch(session, _RUN, log=log_id, start=start, end=end)]
    if len(leaves) != end - start:
        raise LogCorrupt(f"Leaves are missing between {start} and {end}. Run: verbale fsck")
    return leaves


def read_bundle(session: Session, log_id: int, path: BundlePath) -> bytes:
    """An entry bundle's bytes (C2SP tlog-tiles)."""
    start = path.index * 256
    return encode_bundle(read_leaves(session, log_id, start, start + path.width))
