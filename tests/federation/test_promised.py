"""What a far head promises, on the tree alone: the hashes prove the leaves, and nothing else does."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clock import system_clock
from app.replication.client import PeerAnswerRefused, PeerClient, PeerUnreachable
from app.replication.promised import MAX_GROWTH, Promise, fetch_promise
from app.tlog.merkle import Frontier, leaf_hash
from app.tlog.tiles import MalformedTile, TilePath, extend_tiles, parse_tile_path
from tests.federation.world import answer

HASHES = [leaf_hash(b"leaf %d" % n) for n in range(256 * 260 + 77)]


@cache
def stored() -> dict[tuple[int, int], bytes]:
    return {(tile.level, tile.index): tile.data for tile in extend_tiles(0, {}, HASHES)}


Lie = Callable[[TilePath, bytes], bytes | None]


def promise(start: int, size: int, lie: Lie = lambda _, raw: raw) -> tuple[Promise, list[str]]:
    """As a source gives it that holds the tree of HASHES, or lies about it; and what it was asked for."""
    asked: list[str] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.removeprefix("/log/"))
        path = parse_tile_path(asked[-1])
        assert isinstance(path, TilePath)
        body = lie(path, stored()[path.level, path.index][: path.width * 32])
        return answer(404) if body is None else answer(200, body)

    client = PeerClient(system_clock, transport=httpx.MockTransport(serve))
    try:
        return fetch_promise(client, "http://source.example/log", start, size), asked
    finally:
        client.close()


def bundles(start: int, size: int) -> list[tuple[int, int, int]]:
    """Number, first leaf and end of each bundle from `start` on."""
    borders = [start, *range((start // 256 + 1) * 256, size, 256), size]
    return [(a // 256, a, b) for a, b in pairwise(borders)]


SPANS = st.integers(0, len(HASHES) - 513).flatmap(
    lambda start: st.tuples(st.just(start), st.integers(start + 513, len(HASHES)))
)


@settings(max_examples=40)
@given(SPANS)
def test_the_hashes_give_the_root_and_know_each_bundle(span: tuple[int, int]) -> None:
    start, size = span
    promised, _ = promise(start, size)
    whole = Frontier().extend(HASHES[:size])
    assert promised.onto(Frontier().extend(HASHES[:start])) == whole
    for number, begin, end in bundles(start, size):
        assert promised.kept_by(number, HASHES[begin:end])


@settings(max_examples=40)
@given(SPANS, st.data())
def test_a_leaf_that_was_changed_swapped_or_left_out_is_noticed(
    span: tuple[int, int], data: st.DataObject
) -> None:
    start, size = span
    promised, _ = promise(start, size)
    number, begin, end = data.draw(st.sampled_from(bundles(start, size)))
    leaves = HASHES[begin:end]
    at = data.draw(st.integers(0, len(leaves) - 1))
    assert not promised.kept_by(number, [*leaves[:at], leaf_hash(b"forged"), *leaves[at + 1 :]])
    assert not promised.kept_by(number, [*leaves[:at], *leaves[at + 1 :]])
    assert not promised.kept_by(number, [*leaves, leaves[at]])
    if len(leaves) > 1:
        assert not promised.kept_by(number, [*leaves[1:], leaves[0]])


@pytest.mark.parametrize("level", [0, 1])
def test_one_hash_that_is_wrong_gives_another_root(level: int) -> None:
    def lie(path: TilePath, raw: bytes) -> bytes:
        return raw[:-1] + bytes([raw[-1] ^ 1]) if path.level == level else raw

    start, size = 1_000, 10_100
    promised, _ = promise(start, size, lie)
    root = promised.onto(Frontier().extend(HASHES[:start])).root()
    assert root != Frontier().extend(HASHES[:size]).root()


def test_of_full_bundles_one_hash_each_is_asked_for() -> None:
    _, asked = promise(100, len(HASHES))
    assert asked == ["tile/0/000", "tile/1/000", "tile/1/001.p/4", "tile/0/260.p/77"]
    _, asked = promise(512, 512 + 1024)
    assert asked == ["tile/1/000.p/6"]


def test_what_a_source_lacks_or_cuts_short_is_refused() -> None:
    with pytest.raises(PeerAnswerRefused, match="tile/1/000"):
        promise(0, 2_000, lambda _path, _raw: None)
    with pytest.raises(MalformedTile, match=r"^tile/1/000\.p/7: "):
        promise(0, 2_000, lambda _path, raw: raw[:-32])
    with pytest.raises(PeerAnswerRefused, match="at most"):
        promise(5, MAX_GROWTH + 6)


def test_who_is_closing_asks_nobody_any_more() -> None:
    client = PeerClient(system_clock)
    assert client.meanwhile(lambda: 7).result(60) == 7
    client.close()
    with pytest.raises(PeerUnreachable, match="closing"):
        client.meanwhile(lambda: 7)
