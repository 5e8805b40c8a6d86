"""Looking into a pouch without any node: what in it is proven, from one pinned roster root.

Every file in it is checked as a node would check it when it unpacks: the roster from the root, each head by the keys the
roster lists for its log, each hash against that head, each leaf against its hash, each open body against its leaf. What
is sealed is proven by whoever can open it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from app.domain.errors import Refused, VerbaleError
from app.domain.judge import check_openings
from app.domain.signed import read_parts
from app.domain.statement import hash_leaf, parse
from app.pouch.manifest import NAME, log_prefix, read_manifest
from app.pouch.transport import MAX_BODIES_BYTES, body_lines, body_members, confirmations
from app.replication.client import MAX_BUNDLE_BYTES, MAX_CHECKPOINT_BYTES, MAX_TILE_BYTES
from app.replication.witness import cosigner_keys, log_keys
from app.roster import layout
from app.roster.verify import verify
from app.tlog.checkpoint import open_checkpoint
from app.tlog.confirm import confirmers, open_confirmation
from app.tlog.cosignature import verify_cosignatures
from app.tlog.tiles import (
    TILE_WIDTH,
    BundlePath,
    TilePath,
    bundle_width,
    decode_bundle,
    full_tile_root,
    root_from_tiles,
    split_tile,
    tile_width,
    tiles_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.domain.roster import Roster
    from app.pouch.archive import Pouch
    from app.pouch.manifest import Carried, Manifest
    from app.pouch.transport import BodyMember
    from app.roster.verify import VerifiedRoster

ROSTER: Final = "roster"


class PouchRefused(Refused):
    """Something in a pouch is not what it says; `where` names it."""

    code = "pouch-refused"

    def __init__(self, where: str, why: str) -> None:
        """Name the place and the reason."""
        super().__init__(f"{where}: {why}")
        self.where = where


@dataclass(slots=True)
class Proven:
    """What a pouch proves of one log."""

    carried: Carried
    state: str
    cosigned_by: tuple[str, ...] = ()
    leaves: int = 0
    open_bodies: int = 0
    sealed_bodies: int = 0
    confirmations: int = 0


@dataclass(slots=True)
class Inspection:
    """What a pouch proves."""

    manifest: Manifest
    roster: VerifiedRoster
    logs: list[Proven] = field(default_factory=list)


def inspect(
    pouch: Pouch, pinned_root: bytes, show: Callable[[int, str], None] = lambda *_: None
) -> Inspection:
    """Check everything in a pouch that can be checked without keys and without a node.

    Args:
        pinned_root: the roster's root, obtained out of band.
        show: told how many leaves are checked, and of which log.

    Raises:
        PouchRefused: names the first thing that is not what it should be.
        PouchMalformed: see `archive`.
    """
    manifest = read_manifest(pouch)
    try:
        roster = verify(lambda path: pouch.read(f"roster/{path}", layout.MAX_METADATA), pinned_root)
    except VerbaleError as error:
        raise PouchRefused(ROSTER, str(error)) from error
    _check_members(pouch, manifest)
    found = Inspection(manifest, roster)
    members = body_members(pouch)
    done = 0
    for carried in manifest.logs:
        try:
            check = _Check(pouch, carried, roster.roster, members.get(log_prefix(carried.origin), ()))
            found.logs.append(check.run(lambda n, o=carried.origin, d=done: show(d + n, o)))  # type: ignore[misc]
        except PouchRefused:
            raise
        except VerbaleError as error:
            raise PouchRefused(carried.origin, str(error)) from error
        done += carried.end - carried.start
    return found


def _check_members(pouch: Pouch, manifest: Manifest) -> None:
    """Nothing travels along that the table of contents does not answer for."""
    prefixes = {log_prefix(carried.origin) for carried in manifest.logs}
    for name in pouch.names:
        if name == NAME or name.startswith("roster/"):
            continue
        if "/".join(name.split("/")[:2]) not in prefixes:
            raise PouchRefused(name, "belongs to no log of the pouch")


class _Check:
    """One log of a pouch."""

    def __init__(self, pouch: Pouch, carried: Carried, roster: Roster, members: Sequence[BodyMember]) -> None:
        self._pouch, self._carried, self._roster, self._members = pouch, carried, roster, members
        self._prefix = log_prefix(carried.origin)
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    def run(self, show: Callable[[int], None]) -> Proven:
        carried = self._carried
        state = self._roster.state_of_origin(carried.origin)
        if state is None:
            raise PouchRefused(carried.origin, "the roster lists no such log")
        head, note = open_checkpoint(
            self._member("checkpoint", MAX_CHECKPOINT_BYTES),
            log_keys(self._roster, carried.origin),
            carried.origin,
        )
        if head.size != carried.end:
            raise PouchRefused(carried.origin, f"the head is of size {head.size}, not {carried.end}")
        cosigners = {
            code
            for key, code in cosigner_keys(self._roster).items()
            if any(line.name == key.name for line in note.signatures) and verify_cosignatures(note, [key])
        }
        proven = Proven(carried, state.code, tuple(sorted(cosigners)))
        if carried.start < carried.end and root_from_tiles(self._tile, head.size) != head.root:
            raise PouchRefused(carried.origin, "the hashes do not give the root that the log signed")
        self._hashes(head.size)
        self._history(proven)
        self._leaves(proven, show)
        return proven

    def _history(self, proven: Proven) -> None:
        """Every confirmed checkpoint was signed by the log and cosigned by a quorum."""
        origin, roster = self._carried.origin, self._roster
        for _, raw in confirmations(self._pouch, self._prefix):
            open_confirmation(
                raw,
                keys=lambda size: log_keys(roster, origin, settled=size),
                origin=origin,
                witnesses=confirmers(roster),
                quorum_at=lambda at: roster.quorum_for(proven.state, at),
            )
            proven.confirmations += 1

    def _member(self, path: object, limit: int) -> bytes:
        name = f"{self._prefix}/{path}"
        raw = self._pouch.read(name, limit)
        if raw is None:
            raise PouchRefused(name, "is not in the pouch")
        return raw

    def _tile(self, level: int, index: int) -> bytes:
        width = tile_width(self._carried.end, level, index)
        return self._member(TilePath(level, index, width), MAX_TILE_BYTES)

    def _hashes(self, size: int) -> None:
        """Every tile carried is the one its parent names; the rightmost ones are what the root was made of."""
        carried = self._carried
        if carried.start == carried.end:
            return
        for path in tiles_of(size):
            if path.level == 0 and path.index < carried.start // TILE_WIDTH:
                continue
            hashes = split_tile(self._tile(path.level, path.index), path.width)
            if path.width < TILE_WIDTH:
                continue
            parent = split_tile(self._tile(path.level + 1, path.index // TILE_WIDTH))
            if full_tile_root(b"".join(hashes)) != parent[path.index % TILE_WIDTH]:
                raise PouchRefused(f"{self._prefix}/{path}", "is not the tile that the one above it names")

    def _leaves(self, proven: Proven, show: Callable[[int], None]) -> None:
        start, end = self._carried.start, self._carried.end
        for index in range(start // TILE_WIDTH, (end - 1) // TILE_WIDTH + 1) if start < end else ():
            path = BundlePath(index, bundle_width(end, index))
            entries = decode_bundle(self._member(path, MAX_BUNDLE_BYTES), path.width)
            hashes = split_tile(self._tile(0, index))
            for at, (entry, expected) in enumerate(zip(entries, hashes, strict=True), index * TILE_WIDTH):
                if hash_leaf(entry) != expected:
                    raise PouchRefused(
                        f"{self._prefix}/{path}", f"leaf {at} is not the one the log signed for"
                    )
            proven.leaves += len(entries)
            show(min((index + 1) * TILE_WIDTH, end) - start)
        for member in self._members:
            lines = body_lines(self._pouch, member.name, self._carried.origin, MAX_BODIES_BYTES)
            for index, line in lines.items():
                self._body(proven, member.name, index, line)

    def _leaf(self, index: int) -> bytes:
        """A leaf whose bundle was checked. Bodies come in order of index, so the last bundle read is kept."""
        number = index // TILE_WIDTH
        if self._bundle[0] != number:
            path = BundlePath(number, bundle_width(self._carried.end, number))
            self._bundle = (number, decode_bundle(self._member(path, MAX_BUNDLE_BYTES), path.width))
        return self._bundle[1][index % TILE_WIDTH]

    def _body(self, proven: Proven, name: str, index: int, line: dict[str, object]) -> None:
        if not self._carried.start <= index < self._carried.end:
            raise PouchRefused(name, f"holds a body of leaf {index}, which is not in the pouch")
        if "sealed" in line:
            proven.sealed_bodies += 1
            return
        try:
            check_openings(parse(self._leaf(index)), read_parts(line["parts"]))
        except VerbaleError as error:
            raise PouchRefused(name, f"the body of leaf {index}: {error}") from error
        proven.open_bodies += 1
