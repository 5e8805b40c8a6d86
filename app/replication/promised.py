"""What a far head promises: the few hashes that prove its leaves before any of them is stored.

    leaves   0 ─────── 256 ─────── 512 ─────── 768 ──── 900
    mirror ends here ──▸ 100
    hashes       [level 0]  one root    one root   [level 0]

A full bundle is proven by the one hash that stands for it in the tiles of level 1 (C2SP tlog-tiles), the bundles at the two
ends leaf by leaf. Hashed onto the mirror's frontier they must give the root that the log signed; from then on each bundle is
held against its own. 32 bytes for 256 leaves: how far the head is costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.replication.client import MAX_TILE_BYTES, PeerAnswerRefused
from app.tlog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    MalformedTile,
    TilePath,
    bundle_width,
    full_tile_root,
    split_tile,
    tile_width,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.replication.client import PeerClient
    from app.tlog.merkle import Frontier

MAX_GROWTH: Final = 2**24
"""Leaves that are promised at once: 2 MiB of hashes. A log can sign any size, and must not fill a mirror's memory."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Hashes of the leaves [start, size), as a source gave them.

    Attributes:
        roots: one for each full bundle that begins at or above `start`, in order.
        edges: hashes of leaves, by number of the bundle they are the end or the beginning of.
    """

    start: int
    size: int
    roots: Sequence[bytes]
    edges: Mapping[int, Sequence[bytes]]

    def onto(self, frontier: Frontier) -> Frontier:
        """The frontier of the tree of `size`, if the source tells the truth: its root decides.

        Args:
            frontier: of the tree of `start`.
        """
        first, last = self.start // TILE_WIDTH, self.size // TILE_WIDTH
        if self.start % TILE_WIDTH:
            frontier = frontier.extend(self.edges[first])
        if self.roots:
            frontier = frontier.extend(self.roots, level=TILE_HEIGHT)
        if last != first and last in self.edges:
            frontier = frontier.extend(self.edges[last])
        return frontier

    def kept_by(self, bundle: int, hashes: Sequence[bytes]) -> bool:
        """Whether these are the hashes of the bundle's promised leaves.

        Args:
            hashes: of all its leaves at or above `start`.
        """
        edge = self.edges.get(bundle)
        if edge is not None:
            return list(edge) == list(hashes)
        root = self.roots[bundle - -(-self.start // TILE_WIDTH)]
        return len(hashes) == TILE_WIDTH and full_tile_root(b"".join(hashes)) == root


def fetch_promise(client: PeerClient, source: str, start: int, size: int) -> Promise:
    """Fetch what proves the leaves [start, size). Unproven until the root is compared.

    Args:
        start: below the border of bundles that is at or below `size`, or on it.

    Raises:
        PeerAnswerRefused: it is too far, or the source lacks what the head it serves promises.
        PeerFault, MalformedTile: see `app.replication.client` and `split_tile`.
    """
    if size - start > MAX_GROWTH:
        raise PeerAnswerRefused(
            f"{source} serves a head {size - start} leaves beyond what is proven here; at most {MAX_GROWTH} are taken at once."
        )
    first, last = -(-start // TILE_WIDTH), size // TILE_WIDTH
    edges: dict[int, Sequence[bytes]] = {}
    if start % TILE_WIDTH:
        edges[first - 1] = _tile(client, source, 0, first - 1, TILE_WIDTH)[start % TILE_WIDTH :]
    roots: list[bytes] = []
    for index in range(first // TILE_WIDTH, -(-last // TILE_WIDTH)):
        found = _tile(client, source, 1, index, tile_width(size, 1, index))
        roots += found[max(first - index * TILE_WIDTH, 0) :]
    if size % TILE_WIDTH:
        edges[last] = _tile(client, source, 0, last, bundle_width(size, last))
    return Promise(start, size, roots, edges)


def _tile(client: PeerClient, source: str, level: int, index: int, width: int) -> list[bytes]:
    path = TilePath(level, index, width)
    raw = client.get(f"{source}/{path}", limit=MAX_TILE_BYTES)
    if raw is None:
        raise PeerAnswerRefused(f"{source} has no {path}, which the head it serves promises.")
    try:
        return split_tile(raw, width)
    except MalformedTile as error:
        raise MalformedTile(f"{path}: {error}") from error
