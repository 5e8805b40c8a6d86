"""Tiles, bundles and paths: the geometry of C2SP tlog-tiles, checked against the definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import LogCorrupt, PeerFault
from app.tlog.merkle import Frontier, complete_subtrees
from app.tlog.tiles import (
    MAX_ENTRY_SIZE,
    TILE_WIDTH,
    BundlePath,
    MalformedBundle,
    MalformedTile,
    MalformedTilePath,
    Tile,
    TilePath,
    bundle_width,
    decode_bundle,
    encode_bundle,
    extend_tiles,
    nodes_from_tiles,
    parse_tile_path,
    partial_tiles,
    root_from_tiles,
    split_tile,
    tile_width,
    tiles_of,
)
from tests.tlog import naive

COUNT = 2 * 65536 + 700  # three levels of tiles
HASHES = [i.to_bytes(32, "big") for i in range(COUNT)]
Store = dict[tuple[int, int], bytes]


def append(store: Store, size: int, count: int) -> list[Tile]:
    """Extend a store the way the database does: read the partial tiles, upsert what changed."""
    partials = {tile.level: store[tile.level, tile.index] for tile in partial_tiles(size)}
    changed = extend_tiles(size, partials, HASHES[size : size + count])
    store.update({(tile.level, tile.index): tile.data for tile in changed})
    return changed


@pytest.fixture(scope="module")
def whole() -> Store:
    store: Store = {}
    append(store, 0, COUNT)
    return store


# ── geometry ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_of_70000_has_the_tiles_that_the_specification_lists() -> None:
    tiles = list(tiles_of(70_000))
    assert [(t.level, t.index, t.width) for t in tiles if t.width < 256] == [
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]
    assert sum(t.level == 0 for t in tiles) == 274
    assert sum(t.level == 1 for t in tiles) == 2
    assert [str(t) for t in partial_tiles(70_000)] == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]


def test_a_tree_of_256_has_a_full_tile_and_a_partial_one_above() -> None:
    assert [str(t) for t in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]


def test_the_empty_tree_has_no_tiles() -> None:
    assert list(tiles_of(0)) == []
    assert partial_tiles(0) == ()


@given(st.integers(0, 2**40), st.integers(0, 6))
def test_the_partial_tile_of_a_level_has_the_width_the_specification_gives(size: int, level: int) -> None:
    width = size // 256**level % 256
    partials = {tile.level: tile.width for tile in partial_tiles(size)}
    assert partials.get(level, 0) == width
    assert tile_width(size, level, size // 256 ** (level + 1)) == width


def test_a_tile_beyond_the_tree_has_no_width() -> None:
    assert (tile_width(256, 0, 1), tile_width(256, 0, 0), tile_width(255, 1, 0)) == (0, 256, 0)
    assert (bundle_width(300, 1), bundle_width(300, 2)) == (44, 0)


# ── writing and reading ───────────────────────────────────────────────────────────────────────────────────────────


def test_every_hash_of_every_tile_to_600_leaves_is_the_naive_one() -> None:
    for size in (1, 2, 255, 256, 257, 511, 512, 513, 600):
        store: Store = {}
        append(store, 0, size)
        assert set(store) == {(tile.level, tile.index) for tile in tiles_of(size)}
        for (level, index), data in store.items():
            assert len(data) == 32 * tile_width(size, level, index)
            for i, one in enumerate(split_tile(data)):
                begin = (index * 256 + i) * 256**level
                assert one == naive.mth(HASHES[begin : begin + 256**level])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 600), max_size=8))
def test_it_does_not_matter_how_appends_are_batched(batches: list[int]) -> None:
    store: Store = {}
    size = 0
    for batch in batches:
        append(store, size, batch)
        size += batch
    at_once: Store = {}
    append(at_once, 0, size)
    assert store == at_once


@settings(max_examples=25, deadline=None)
@given(st.integers(0, COUNT))
def test_the_root_from_tiles_is_the_root_from_the_frontier_at_any_older_size(whole: Store, size: int) -> None:
    frontier = Frontier().extend(HASHES[:size])
    assert root_from_tiles(lambda level, index: whole[level, index], size) == frontier.root()


def test_an_append_of_one_batch_changes_a_handful_of_tiles() -> None:
    store: Store = {}
    append(store, 0, 65_500)
    changed = append(store, 65_500, 256)
    assert [(t.level, t.index, t.width) for t in changed] == [
        (0, 255, 256),
        (0, 256, 220),
        (1, 0, 256),
        (2, 0, 1),
    ]
    assert str(changed[1].path) == "tile/0/256.p/220"
    assert [(t.level, t.index, t.width) for t in append(store, 65_756, 1)] == [(0, 256, 221)]
    assert append(store, 65_757, 0) == []


@pytest.mark.parametrize(
    "partials",
    [
        pytest.param({}, id="missing"),
        pytest.param({0: b"x" * 32}, id="too narrow"),
        pytest.param({0: b"x" * 96}, id="too wide"),
        pytest.param({0: b"x" * 63}, id="torn"),
        pytest.param({0: b"x" * 64, 1: b"x" * 32}, id="a level that is not there"),
    ],
)
def test_partial_tiles_of_another_size_are_our_own_fault(partials: dict[int, bytes]) -> None:
    with pytest.raises(LogCorrupt):
        extend_tiles(2, partials, HASHES[:1])


def test_a_leaf_hash_of_another_length_is_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        extend_tiles(0, {}, [b"x" * 31, b"x" * 33])


def test_a_tile_too_narrow_is_reported_as_the_fault_of_its_keeper() -> None:
    store: Store = {}
    append(store, 0, 300)
    store[0, 1] = store[0, 1][:-32]
    with pytest.raises(LogCorrupt, match=r"tile/0/001 is too narrow"):
        root_from_tiles(lambda level, index: store[level, index], 300)
    with pytest.raises(PeerFault):
        root_from_tiles(lambda level, index: store[level, index], 300, PeerFault)
    store[0, 1] += b"x"
    with pytest.raises(PeerFault, match="not a tile"):
        root_from_tiles(lambda level, index: store[level, index], 300, PeerFault)


def test_every_flipped_byte_of_a_tile_changes_the_root() -> None:
    store: Store = {}
    append(store, 0, 40)
    right, data = root_from_tiles(lambda level, index: store[level, index], 40), store[0, 0]
    for at in range(len(data)):
        store[0, 0] = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        assert root_from_tiles(lambda level, index: store[level, index], 40) != right


def test_a_reader_reads_each_tile_once(whole: Store) -> None:
    read: list[tuple[int, int]] = []

    def read_tile(level: int, index: int) -> bytes:
        read.append((level, index))
        return whole[level, index]

    node = nodes_from_tiles(read_tile)
    for level, index in complete_subtrees(0, COUNT) * 2:
        node(level, index)
    assert len(read) == len(set(read)) == 3


@pytest.mark.parametrize("size", [0, 31, 33, 257 * 32])
def test_bytes_that_are_no_tile_are_refused(size: int) -> None:
    with pytest.raises(MalformedTile):
        split_tile(b"x" * size)


def test_a_tile_of_another_width_than_asked_for_is_refused() -> None:
    assert len(split_tile(b"x" * 64, 2)) == 2
    with pytest.raises(MalformedTile):
        split_tile(b"x" * 64, 3)


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TilePath(0, 0), "tile/0/000"),
        (TilePath(0, 1234067), "tile/0/x001/x234/067"),
        (TilePath(63, 999), "tile/63/999"),
        (TilePath(1, 1000), "tile/1/x001/000"),
        (TilePath(2, 5, 1), "tile/2/005.p/1"),
        (BundlePath(1234067, 255), "tile/entries/x001/x234/067.p/255"),
        (BundlePath(7), "tile/entries/007"),
    ],
)
def test_paths_are_spelt_as_the_specification_asks(tile: TilePath | BundlePath, path: str) -> None:
    assert str(tile) == path
    assert parse_tile_path(path) == tile


@given(st.one_of(st.none(), st.integers(0, 63)), st.integers(0, 2**54), st.integers(1, 256))
def test_any_path_is_read_back(level: int | None, index: int, width: int) -> None:
    tile = BundlePath(index, width) if level is None else TilePath(level, index, width)
    assert parse_tile_path(str(tile)) == tile


@given(st.text("tile/entrsxp.0123456789", max_size=30))
def test_whatever_path_is_accepted_has_one_spelling(text: str) -> None:
    for candidate in (text, "tile/" + text, "tile/0/" + text):
        try:
            tile = parse_tile_path(candidate)
        except MalformedTilePath:
            continue
        assert str(tile) == candidate


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/00/000",
        "tile/64/000",
        "tile/100/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/8/0/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/1000",
        "tile/0/x000/000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/X001/000",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/1/",
        "tile/0/000.P/1",
        "tile/0/000\n",
        "tile/0/../0/000",
        "tile/0/٠٠٠",
        "tile/entries/entries",
        "tile/Entries/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x001/" * 50 + "000",
    ],
)
def test_what_is_not_a_tile_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedTilePath):
        parse_tile_path(path)


# ── bundles ───────────────────────────────────────────────────────────────────────────────────────────────────────

ENTRIES = [b"", b"a", b"bc" * 200, b"x" * MAX_ENTRY_SIZE]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_a_bundle_is_read_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_an_entry_is_led_by_its_length_in_two_bytes() -> None:
    assert encode_bundle([b"abc", b""]) == b"\x00\x03abc\x00\x00"
    assert decode_bundle(encode_bundle(ENTRIES), 4) == ENTRIES


@given(st.binary(max_size=60), st.integers(1, 8))
def test_whatever_bundle_is_accepted_has_one_spelling(data: bytes, width: int) -> None:
    try:
        entries = decode_bundle(data, width)
    except MalformedBundle:
        return
    assert encode_bundle(entries) == data


def test_no_flipped_bit_in_a_bundle_keeps_the_same_entries() -> None:
    entries = [b"first", b"", b"third entry"]
    data = encode_bundle(entries)
    for at in range(len(data)):
        for bit in range(8):
            bent = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                read = decode_bundle(bent, 3)
            except MalformedBundle:
                continue
            assert read != entries


def test_no_truncated_bundle_is_accepted() -> None:
    data = encode_bundle([b"first", b"", b"third"])
    for length in range(len(data)):
        with pytest.raises(MalformedBundle):
            decode_bundle(data[:length], 3)


@pytest.mark.parametrize(
    ("data", "width"),
    [
        pytest.param(b"", 1, id="nothing"),
        pytest.param(b"\x00", 1, id="half a length"),
        pytest.param(b"\x00\x02a", 1, id="entry cut short"),
        pytest.param(b"\x00\x01a\x00", 1, id="half a length left over"),
        pytest.param(b"\x00\x01a", 2, id="too few entries"),
        pytest.param(b"\x00\x01a" * 2, 1, id="too many entries"),
        pytest.param(b"\x00\x00" * 257, 256, id="257 entries"),
        pytest.param(b"\x00\x00" * 257, 257, id="257 entries asked for"),
    ],
)
def test_what_is_not_a_bundle_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(MalformedBundle):
        decode_bundle(data, width)


def test_the_longest_entry_a_bundle_can_hold_is_read_and_a_lower_limit_is_kept() -> None:
    """A State that logs a leaf longer than the protocol allows is mirrored all the same; judging flags the leaf."""
    longest = b"\xff\xff" + b"x" * 65_535
    assert decode_bundle(longest, 1) == [b"x" * 65_535]
    assert encode_bundle([b"x" * 65_535]) == longest
    with pytest.raises(MalformedBundle):
        decode_bundle(longest, 1, max_entry=16_384)


def test_a_bundle_that_nobody_could_read_is_not_made() -> None:
    for entries in ([], [b""] * (TILE_WIDTH + 1), [b"x" * (MAX_ENTRY_SIZE + 1)]):
        with pytest.raises(ValueError, match="bundle"):
            encode_bundle(entries)
