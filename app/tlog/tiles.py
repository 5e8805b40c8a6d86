"""The log as files: tiles of hashes, bundles of entries, and their paths (C2SP tlog-tiles).

Guarantees: `extend_tiles` returns exactly the tiles that an append changes, and every hash of the tree can be read back
from tiles alone. Paths and bundles have one spelling each. Leaves to others: storing rows, and telling whether tile
bytes are the right ones: compare `root_from_tiles` with a signed checkpoint.

Geometry: the tile (level L, index N) holds up to 256 hashes of complete subtrees of height 8·L, the first of which is
number 256·N. Tiles grow to the right only, so a wider tile serves every reader of a narrower one, and a store may keep
one row for each (L, N) and overwrite it. Bundle N holds the entries under tile (0, N).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.domain.errors import LogCorrupt, Malformed, VerbaleError
from app.tlog.merkle import HASH_SIZE, MAX_TREE_SIZE, NodeReader, hash_pairs, tree_root

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_SIZE = TILE_WIDTH * HASH_SIZE
"""Bytes in a full tile: 8,192."""

MAX_LEVEL = 63
"""The highest level a path may name (C2SP tlog-tiles). A tree of MAX_TREE_SIZE leaves needs levels 0 to 7."""

MAX_ENTRY_SIZE = 65_535
"""Bytes of one entry, as C2SP tlog-tiles bounds it. The protocol's leaves are at most a quarter of that; a State that logs a
longer one is mirrored all the same, and judging flags the leaf. A bundle is thereby at most 16.8 MB."""

_LENGTH_SIZE = 2

TileReader = Callable[[int, int], bytes]
"""(level, index) → the bytes of that tile, as wide as stored. It raises its own error if there is no such tile."""


class MalformedTilePath(Malformed):
    """The path is not one that C2SP tlog-tiles spells."""

    code = "malformed-tile-path"


class MalformedTile(Malformed):
    """The bytes are not a tile of that width."""

    code = "malformed-tile"


class MalformedBundle(Malformed):
    """The bytes are not a bundle of that many entries."""

    code = "malformed-bundle"


@dataclass(frozen=True, slots=True)
class TilePath:
    """The path of a tile of hashes under the log's prefix.

    Attributes:
        level: 0 to 63.
        index: number of the tile in its level.
        width: hashes in it, 1 to 256.
    """

    level: int
    index: int
    width: int = TILE_WIDTH

    def __str__(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`, without a leading slash."""
        return f"tile/{self.level}/{_path_end(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class BundlePath:
    """The path of a bundle of entries under the log's prefix.

    Attributes:
        index: number of the bundle.
        width: entries in it, 1 to 256.
    """

    index: int
    width: int = TILE_WIDTH

    def __str__(self) -> str:
        """`tile/entries/<N>[.p/<W>]`, without a leading slash."""
        return f"tile/entries/{_path_end(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile as it stands after an append.

    Attributes:
        level: 0 is the level of leaf hashes.
        index: number of the tile in its level.
        data: all its hashes, 32 to 8,192 bytes.
    """

    level: int
    index: int
    data: bytes

    @property
    def width(self) -> int:
        """Number of hashes, 1 to 256."""
        return len(self.data) // HASH_SIZE

    @property
    def path(self) -> TilePath:
        """Where it is served."""
        return TilePath(self.level, self.index, self.width)


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_PATH = re.compile(
    r"tile/(?:(?P<entries>entries)|(?P<level>0|[1-9][0-9]?))"
    r"/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


def parse_tile_path(path: str) -> TilePath | BundlePath:
    """Read a path under the log's prefix, without a leading slash.

    Raises:
        MalformedTilePath: any spelling that `str()` of a path does not give, or a tile beyond the largest tree.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedTilePath(
            "A tile path is tile/<level>/<index>[.p/<width>] or tile/entries/<index>[.p/<width>]."
        )
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"]) if match["width"] else TILE_WIDTH
    level = 0 if match["entries"] else int(match["level"])
    if level > MAX_LEVEL or (match["width"] and width >= TILE_WIDTH):
        raise MalformedTilePath("The level of a tile is at most 63, and the width in a path at most 255.")
    found = BundlePath(index, width) if match["entries"] else TilePath(level, index, width)
    if str(found) != path or index >= MAX_TREE_SIZE >> TILE_HEIGHT:
        raise MalformedTilePath("The index has too many zeroes or lies beyond the largest tree.")
    return found


def _path_end(index: int, width: int) -> str:
    """The index in groups of three digits, all but the last led by x; then the width of what is not full."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    return "/".join(groups) + ("" if width == TILE_WIDTH else f".p/{width}")


# ── geometry ──────────────────────────────────────────────────────────────────────────────────────────────────────


def tile_width(size: int, level: int, index: int) -> int:
    """How many hashes tile (level, index) holds in a tree of `size` leaves: 0 (no such tile) to 256."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


def bundle_width(size: int, index: int) -> int:
    """How many entries bundle `index` holds in a log of `size` entries: 0 (no such bundle) to 256."""
    return tile_width(size, 0, index)


def partial_tiles(size: int) -> tuple[TilePath, ...]:
    """The partial tiles of a tree of `size` leaves, at most one a level, lowest level first.

    What `extend_tiles` needs to go on from `size`.
    """
    widths = ((level, size >> (TILE_HEIGHT * level)) for level in range(_levels(size)))
    return tuple(
        TilePath(level, count >> TILE_HEIGHT, count % TILE_WIDTH)
        for level, count in widths
        if count % TILE_WIDTH
    )


def tiles_of(size: int) -> Iterator[TilePath]:
    """Every tile of a tree of `size` leaves, lowest level first: for `fsck` and for whoever copies a log."""
    for level in range(_levels(size)):
        count = size >> (TILE_HEIGHT * level)
        for index in range((count + TILE_WIDTH - 1) >> TILE_HEIGHT):
            yield TilePath(level, index, tile_width(size, level, index))


def _levels(size: int) -> int:
    """How many levels of tiles a tree of `size` leaves has."""
    return (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def extend_tiles(old_size: int, partials: Mapping[int, bytes], leaf_hashes: Sequence[bytes]) -> list[Tile]:
    """Return every tile that appending leaf hashes creates or changes, whole, lowest level first.

    Args:
        old_size: leaves in the tree so far.
        partials: level → bytes of the rightmost tile of that level, for the levels in `partial_tiles(old_size)`.
            A tile read as wider than it was at `old_size` is refused: it belongs to another append.
        leaf_hashes: 32 bytes each, in order.

    A batch of up to 256 leaves changes one or two tiles of level 0 and rarely more than one of each level above.

    Raises:
        LogCorrupt: `partials` does not hold what a tree of `old_size` has.
    """
    expected = {tile.level: tile.width * HASH_SIZE for tile in partial_tiles(old_size)}
    if {level: len(data) for level, data in partials.items() if data} != expected:
        raise LogCorrupt(
            f"The stored partial tiles are not those of a tree of {old_size}. Run the log check."
        )
    if set(map(len, leaf_hashes)) - {HASH_SIZE}:
        raise ValueError("every leaf hash is 32 bytes long")
    level, count, hashes = 0, old_size, b"".join(leaf_hashes)
    tiles: list[Tile] = []
    while hashes:
        data = partials.get(level, b"") + hashes
        first = count >> TILE_HEIGHT
        full_roots = []
        for begin in range(0, len(data), TILE_SIZE):
            tile = Tile(level, first + begin // TILE_SIZE, data[begin : begin + TILE_SIZE])
            tiles.append(tile)
            if len(tile.data) == TILE_SIZE:
                full_roots.append(full_tile_root(tile.data))
        level, count, hashes = level + 1, first, b"".join(full_roots)
    return tiles


def full_tile_root(data: bytes) -> bytes:
    """The hash that stands for a full tile in the level above."""
    hashes = _hashes(data)
    while len(hashes) > 1:
        hashes = hash_pairs(hashes)
    return hashes[0]


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def nodes_from_tiles(read_tile: TileReader, fault: type[VerbaleError] = LogCorrupt) -> NodeReader:
    """Make a reader of complete subtrees out of a reader of tiles, for `app.tlog.merkle`'s proofs and roots.

    It keeps what it has read: make one for each request or check and drop it. Tiles are trusted as they come.

    Args:
        read_tile: reads one tile; a tile wider than needed is fine.
        fault: what to raise for a tile that is too narrow or no tile at all. The default is right for our own store;
            whoever reads a peer's tiles names the peer's fault.
    """
    levels_of: dict[tuple[int, int], list[list[bytes]]] = {}

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, position = divmod(index, TILE_WIDTH >> height)
        where = (tile_level, tile_index)
        if where not in levels_of:
            try:
                levels_of[where] = [split_tile(read_tile(tile_level, tile_index))]
            except MalformedTile as error:
                raise fault(f"{TilePath(tile_level, tile_index)} is not a tile: {error}") from error
        levels = levels_of[where]
        while len(levels) <= height:  # hash the tile upwards, only as far as somebody asks
            below = levels[-1]
            levels.append(hash_pairs(below[: len(below) & ~1]))
        if position >= len(levels[height]):
            raise fault(
                f"{TilePath(tile_level, tile_index)} is too narrow: no subtree {index} of level {level}."
            )
        return levels[height][position]

    return node


def root_from_tiles(read_tile: TileReader, size: int, fault: type[VerbaleError] = LogCorrupt) -> bytes:
    """The root at `size`, from the rightmost tiles of each level alone; arguments as in `nodes_from_tiles`.

    Tiles to the left are not read: `fsck` re-derives every tile.
    """
    return tree_root(nodes_from_tiles(read_tile, fault), size)


def split_tile(data: bytes, width: int | None = None) -> list[bytes]:
    """The hashes of a tile.

    Raises:
        MalformedTile: not 1 to 256 hashes of 32 bytes, or not `width` of them.
    """
    count, rest = divmod(len(data), HASH_SIZE)
    if rest or not 1 <= count <= TILE_WIDTH:
        raise MalformedTile(
            f"A tile holds 1 to {TILE_WIDTH} hashes of {HASH_SIZE} bytes; this one has {len(data)} bytes."
        )
    if width is not None and count != width:
        raise MalformedTile(f"This tile holds {count} hashes, not {width}.")
    return _hashes(data)


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


# ── entry bundles ─────────────────────────────────────────────────────────────────────────────────────────────────


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Concatenate entries, each led by its length as u16be.

    Raises:
        ValueError: not 1 to 256 entries, or one above MAX_ENTRY_SIZE.
    """
    if not 1 <= len(entries) <= TILE_WIDTH or any(len(entry) > MAX_ENTRY_SIZE for entry in entries):
        raise ValueError(f"a bundle holds 1 to {TILE_WIDTH} entries of at most {MAX_ENTRY_SIZE} bytes")
    return b"".join(len(entry).to_bytes(_LENGTH_SIZE, "big") + entry for entry in entries)


def decode_bundle(data: bytes, width: int, max_entry: int = MAX_ENTRY_SIZE) -> list[bytes]:
    """Split a bundle that must hold exactly `width` entries (see `bundle_width`).

    It does not look into the entries: hash them and compare with the tree.

    Raises:
        MalformedBundle: more or fewer entries, one above `max_entry` bytes, or bytes left over.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH_SIZE
        length = int.from_bytes(data[at:begin], "big")
        at = begin + length
        if begin > len(data) or at > len(data):
            raise MalformedBundle("The bundle ends in the middle of an entry.")
        if length > max_entry:
            raise MalformedBundle(
                f"Entry {len(entries)} of the bundle is {length} bytes long; the limit is {max_entry}."
            )
        if len(entries) == min(width, TILE_WIDTH):
            raise MalformedBundle(f"The bundle holds more than {width} entries.")
        entries.append(data[begin:at])
    if len(entries) != width:
        raise MalformedBundle(f"The bundle holds {len(entries)} entries, not {width}.")
    return entries
