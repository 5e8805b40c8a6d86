"""Packing: what one State has not got yet of every log held here, its bodies among it, into one file.

Only reads, and may run while the node does: each log is packed up to the head it had when its turn came. What the State
holds is known from its cosignatures: each is a receipt for everything up to a size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import func, select

from app import bodies
from app.db import chunks
from app.domain.encoding import b64u_encode
from app.domain.errors import Refused
from app.domain.handling import Tlp
from app.domain.sealing import info, seal
from app.gate import may_read, peer
from app.models import BodyRow, CarriedRow, ConfirmationRow, CosignatureRow, EntryRow, LogRow, TileRow
from app.pouch.archive import writing
from app.pouch.manifest import NAME, Carried, Manifest, log_prefix
from app.replication.sealed import encryption_key_of
from app.roster.layout import is_served
from app.tlog.confirm import encode_history
from app.tlog.publish import head_with_cosignatures
from app.tlog.store import read_bundle
from app.tlog.tiles import TILE_WIDTH, BundlePath, bundle_width, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster, RosterKey
    from app.domain.statement import Part
    from app.pouch.archive import Writer

BODIES_AT_ONCE: Final = 64
MAX_BODIES_MEMBER: Final = 8 * 2**20
"""Bytes of one member with bodies; it ends after the body that passes this."""
MAX_BODIES_LINES: Final = 512
MAX_CONFIRMATIONS: Final = 20_000
"""Of one log in one pouch; the next pouch goes on from there."""


class NothingToCarry(Refused):
    """The State is not one that a pouch can be packed for."""

    code = "nothing-to-carry"


@dataclass(frozen=True, slots=True)
class Packed:
    """What went into a pouch, and what could not: `unsealed` bodies, since the State lists no encryption key."""

    manifest: Manifest
    unsealed: int


def known_sizes(session: Session, state: str) -> dict[str, int]:
    """How much of each log a State is proven to hold: the largest size its witness cosigned."""
    rows = session.execute(
        select(LogRow.origin, func.max(CosignatureRow.size))
        .join(CosignatureRow, CosignatureRow.log_id == LogRow.id)
        .where(CosignatureRow.state == state)
        .group_by(LogRow.origin)
    )
    return {row.origin: row[1] for row in rows}


def pack(
    db: Database,
    path: Path,
    *,
    by: str,
    to: str,
    roster: Roster,
    roster_files: Path,
    now: int,
    since: Mapping[str, int] | None = None,
    show: Callable[[int, str], None] = lambda *_: None,
) -> Packed:
    """Pack a pouch for a State.

    Args:
        path: must not exist.
        by: this node's State.
        roster_files: the verified repository this node serves.
        now: unix seconds.
        since: what the State holds, origin → size; None: as its cosignatures say. A log it does not name counts from 0.
        show: told how many leaves are packed, and of which log.

    Raises:
        NothingToCarry: the State has no node in the roster, or is this node's own.
        PouchExists: there is a file.
    """
    if to == by or to not in {state.code for state in roster.nodes()}:
        raise NothingToCarry(f"{to} is no other State with a node in the roster (version {roster.version}).")
    with db.read() as session:
        held = known_sizes(session, to) if since is None else dict(since)
        logs = session.execute(
            select(LogRow.id, LogRow.origin, LogRow.state)
            .where(LogRow.head_note.is_not(None), LogRow.status == "ok")
            .order_by(LogRow.origin)
        ).all()
    key = encryption_key_of(roster, to, at=now)
    carried: list[Carried] = []
    unsealed = done = 0
    with writing(path) as out:
        for name, raw in _roster_members(roster_files):
            out.add(name, raw)
        for log_id, origin, state in logs:
            # What a State's own log holds it knows best; only the receipts of others are news to it.
            start = None if state == to else held.get(origin, 0)
            one = _Log(db, log_id, origin, state, to, key, out)
            packed, left_out = one.pack(start, lambda n, o=origin, d=done: show(d + n, o))  # type: ignore[misc]
            carried.append(packed)
            unsealed += left_out
            done += packed.end - packed.start
        manifest = Manifest(by, to, now, roster.version, tuple(carried))
        out.add(NAME, manifest.to_bytes())
    return Packed(manifest, unsealed)


def leaves_to_pack(db: Database, to: str, since: Mapping[str, int] | None) -> int:
    """How many leaves `pack` will carry, for a progress bar."""
    with db.read() as session:
        held = known_sizes(session, to) if since is None else dict(since)
        logs = session.execute(select(LogRow.origin, LogRow.state, LogRow.head_size)).all()
    return sum(max(size - held.get(origin, 0), 0) for origin, state, size in logs if state != to)


def _roster_members(files: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(p for p in files.rglob("*.json") if p.is_file()):
        name = path.relative_to(files).as_posix()
        if is_served(name):
            yield f"roster/{name}", path.read_bytes()


class _Log:
    """One log on its way into the pouch."""

    def __init__(  # what it is packed from, for whom, and where to
        self, db: Database, log_id: int, origin: str, issuer: str, to: str, key: RosterKey | None, out: Writer
    ) -> None:
        self._db, self._log_id, self._origin, self._issuer = db, log_id, origin, issuer
        self._to, self._key, self._out = to, key, out
        self._prefix = log_prefix(origin)
        self._public = self._sealed = self._unsealed = 0

    def pack(self, start: int | None, show: Callable[[int], None]) -> tuple[Carried, int]:
        """Add the head, and from `start` on leaves, their hashes and bodies. None: the head alone."""
        with self._db.read() as session:
            head = head_with_cosignatures(session, self._log_id)
            size = session.execute(select(LogRow.head_size).where(LogRow.id == self._log_id)).scalar_one()
            assert head is not None  # noqa: S101 - selected by it
            self._out.add(f"{self._prefix}/checkpoint", head)
            begin = size if start is None else min(start, size)
            self._history(session, begin)
            if begin < size:
                self._tiles(session, begin, size)
                self._leaves(session, begin, size, show)
                self._bodies(session, begin, size)
        return Carried(self._origin, begin, size, self._public, self._sealed), self._unsealed

    def _history(self, session: Session, begin: int) -> None:
        """Confirmed checkpoints from the last one that covers no leaf carried here on: what tells the time of the leaves."""
        before = session.execute(
            select(func.coalesce(func.max(ConfirmationRow.size), 0)).where(
                ConfirmationRow.log_id == self._log_id, ConfirmationRow.size <= begin
            )
        ).scalar_one()
        notes = session.scalars(
            select(ConfirmationRow.note)
            .where(ConfirmationRow.log_id == self._log_id, ConfirmationRow.size >= before)
            .order_by(ConfirmationRow.size, ConfirmationRow.at)
            .limit(MAX_CONFIRMATIONS)
        ).all()
        if notes:
            self._out.add(f"{self._prefix}/history", encode_history(bytes(note) for note in notes))

    def _tiles(self, session: Session, begin: int, size: int) -> None:
        """Hash tiles: of the leaves carried, and all above them, so that the file proves itself (`inspect`)."""
        for path in tiles_of(size):
            if path.level == 0 and path.index < begin // TILE_WIDTH:
                continue
            hashes = session.execute(
                select(TileRow.hashes).where(
                    TileRow.log_id == self._log_id, TileRow.level == path.level, TileRow.idx == path.index
                )
            ).scalar_one()
            self._out.add(f"{self._prefix}/{path}", bytes(hashes)[: path.width * 32])

    def _leaves(self, session: Session, begin: int, size: int, show: Callable[[int], None]) -> None:
        for index in range(begin // TILE_WIDTH, (size - 1) // TILE_WIDTH + 1):
            path = BundlePath(index, bundle_width(size, index))
            self._out.add(f"{self._prefix}/{path}", read_bundle(session, self._log_id, path))
            show(min((index + 1) * TILE_WIDTH, size) - begin)

    def _bodies(self, session: Session, begin: int, size: int) -> None:
        lines: list[bytes] = []
        indexes: list[int] = []
        weight = 0
        for index, line in self._body_lines(session, begin, size):
            lines.append(line)
            indexes.append(index)
            weight += len(line)
            if weight > MAX_BODIES_MEMBER or len(lines) == MAX_BODIES_LINES:
                self._bodies_member(indexes, lines)
                lines, indexes, weight = [], [], 0
        if lines:
            self._bodies_member(indexes, lines)

    def _bodies_member(self, indexes: Sequence[int], lines: Sequence[bytes]) -> None:
        name = f"{self._prefix}/bodies/{indexes[0]:016}-{indexes[-1]:016}.ndjson"
        self._out.add(name, b"\n".join(lines) + b"\n")

    def _body_lines(self, session: Session, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
        """Lines as `POST /bodies` gives them: public bodies open, the State's own sealed, in order of index."""
        reader = peer(self._to, "")
        for some in chunks(range(begin, size), MAX_BODIES_LINES):
            entries = session.execute(
                select(EntryRow.idx, EntryRow.id, EntryRow.tlp_rank, EntryRow.audience).where(
                    EntryRow.log_id == self._log_id,
                    EntryRow.idx >= some[0],
                    EntryRow.idx <= some[-1],
                    EntryRow.body_state == "held",
                )
            ).all()
            allowed = {
                e.idx: e
                for e in entries
                if may_read(reader, issuer=self._issuer, tlp_rank=e.tlp_rank, audience=e.audience)
            }
            found: dict[int, bytes] = {}
            where = (BodyRow.log_id == self._log_id) & BodyRow.idx.in_(list(allowed))
            rows = bodies.stream(session, where, at_once=BODIES_AT_ONCE)
            for index, group in groupby(rows, key=itemgetter(0)):
                entry = allowed[index]
                parts = {name: part for _, name, part in group}
                public = entry.tlp_rank == int(Tlp.CLEAR) and entry.audience == "ALL"
                line = (
                    self._public_line(index, parts) if public else self._sealed_line(index, entry.id, parts)
                )
                if line is not None:
                    found[index] = line
            found |= self._carried_lines(session, [index for index in some if index not in found])
            yield from sorted(found.items())

    def _line(self, index: int, **members: Any) -> bytes:  # noqa: ANN401 - what JSON takes
        return orjson.dumps({"origin": self._origin, "index": index, **members})

    def _public_line(self, index: int, parts: Mapping[str, Part]) -> bytes:
        self._public += 1
        return self._line(
            index,
            parts={
                name: {"salt": b64u_encode(part.salt), "content": b64u_encode(part.content)}
                for name, part in parts.items()
            },
        )

    def _sealed_line(self, index: int, notice_id: str | None, parts: Mapping[str, Part]) -> bytes | None:
        key = self._key
        if key is None or notice_id is None:
            self._unsealed += 1
            return None
        self._sealed += 1
        sealed = {
            name: b64u_encode(
                seal(part, key.key, info(origin=self._origin, notice_id=notice_id, part=name, kid=key.kid))
            )
            for name, part in parts.items()
        }
        return self._line(index, sealed={"id": notice_id, "kid": key.kid, "parts": sealed})

    def _carried_lines(self, session: Session, indexes: Sequence[int]) -> dict[int, bytes]:
        """What other States sealed to this one and this node only carries."""
        rows = session.execute(
            select(CarriedRow.idx, CarriedRow.sealed)
            .join(LogRow, LogRow.id == CarriedRow.log_id)
            .where(
                CarriedRow.log_id == self._log_id,
                LogRow.is_own.is_(False),
                CarriedRow.recipient == self._to,
                CarriedRow.idx.in_(indexes),
            )
        ).all()
        self._sealed += len(rows)
        return {idx: self._line(idx, sealed=orjson.Fragment(bytes(sealed))) for idx, sealed in rows}
