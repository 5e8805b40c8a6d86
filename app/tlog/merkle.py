"""The Merkle tree of RFC 6962 over SHA-256: hashes, a growing frontier, proofs and their verification.

Guarantees: a proof that verifies here ties a leaf, or an older root, to the given root unless SHA-256 is broken. Every
verification either returns None or raises a named fact. Leaves to others: where hashes are stored (`NodeReader`), who
signed a root (`app.tlog.checkpoint`) and what a leaf means.

Ranges of leaves are half open. A *complete subtree* at (level, index) covers the leaves
`[index << level, (index + 1) << level)`; its hash never changes once the log has grown past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from app.domain.errors import Malformed, Refused

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962 section 2.1)."""

MAX_TREE_SIZE = 2**63 - 1
"""C2SP bounds tree sizes by tile level 63 and proofs by 63 hashes; databases hold signed 64-bit integers."""

MAX_PROOF_LENGTH = 63
"""The longest inclusion or consistency proof in a tree of at most MAX_TREE_SIZE leaves."""

NodeReader = Callable[[int, int], bytes]
"""(level, index) → the 32-byte hash of that complete subtree. It raises if it does not hold the subtree."""


class InvalidInclusionProof(Refused):
    """The proof does not lead from the leaf at that index to the root."""

    code = "invalid-inclusion-proof"


class InvalidConsistencyProof(Refused):
    """The proof does not show that the smaller tree is a prefix of the larger one."""

    code = "invalid-consistency-proof"


class MalformedFrontier(Malformed):
    """Bytes that no frontier serialises to."""

    code = "malformed-frontier"


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf), RFC 6962 section 2.1."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), RFC 6962 section 2.1."""
    return sha256(b"\x01" + left + right).digest()


def hash_pairs(hashes: Sequence[bytes]) -> list[bytes]:
    """Hash an even number of siblings into their parents: one level of the tree, in one tight loop."""
    return [
        sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)
    ]


# ── the frontier ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed to go on appending to a tree: its size and the roots of its maximal complete subtrees.

    Attributes:
        size: number of leaves.
        hashes: one hash for each bit set in `size`, the largest (leftmost) subtree first.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """A frontier of the wrong shape is a programming mistake; stored bytes go through `from_bytes`."""
        if not 0 <= self.size <= MAX_TREE_SIZE or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"a frontier of size {self.size} cannot hold {len(self.hashes)} hashes")

    def extend(self, hashes: Iterable[bytes], level: int = 0) -> Frontier:
        """Return the frontier after appending leaf hashes, in order. One node hash per leaf on average.

        Works level by level: at each level the new nodes, led by the pending left sibling if there is one, are paired;
        an unpaired last node is what the new frontier keeps of that level.

        Args:
            hashes: of leaves, or of complete subtrees of `level`.
            level: 0 is that of the leaves.

        Raises:
            ValueError: no complete subtree of `level` begins at the frontier's size.
        """
        if self.size & ((1 << level) - 1):
            raise ValueError(f"no complete subtree of level {level} begins at {self.size}")
        nodes = list(hashes)
        size = self.size + (len(nodes) << level)
        pending = list(self.hashes)  # smallest subtree last
        kept: list[bytes] = []  # smallest subtree first
        position = self.size >> level  # nodes complete at this level before the append
        while nodes or pending:
            if position & 1:
                nodes.insert(0, pending.pop())
            if len(nodes) & 1:
                kept.append(nodes.pop())
            nodes = hash_pairs(nodes)
            position >>= 1
        return Frontier(size, tuple(reversed(kept)))

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT

    def to_bytes(self) -> bytes:
        """u64be(size) ‖ hashes, largest subtree first."""
        return self.size.to_bytes(8, "big") + b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """The inverse of `to_bytes`. It cannot know whether the hashes are right: compare `root()` with a checkpoint.

        Raises:
            MalformedFrontier: truncated, a size out of range, or a number of hashes that does not fit the size.
        """
        size = int.from_bytes(data[:8], "big")
        if len(data) < 8 or size > MAX_TREE_SIZE or len(data) != 8 + HASH_SIZE * size.bit_count():  # noqa: PLR2004
            raise MalformedFrontier("These bytes are not a frontier. Recompute it from the tiles.")
        return cls(size, tuple(data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)))

    @classmethod
    def read(cls, node: NodeReader, size: int) -> Frontier:
        """The frontier of a tree of `size` leaves whose hashes `node` can read."""
        return cls(size, tuple(node(level, index) for level, index in complete_subtrees(0, size)))


# ── reading a stored tree ─────────────────────────────────────────────────────────────────────────────────────────


def complete_subtrees(begin: int, end: int) -> list[tuple[int, int]]:
    """Split the leaves [begin, end) into complete subtrees (level, index), left to right, largest first.

    `begin` must be a multiple of the largest power of two that is not above `end - begin`; every range that RFC 6962
    splits off a tree is like that.
    """
    subtrees = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        subtrees.append((level, begin >> level))
        begin += 1 << level
    return subtrees


def tree_root(node: NodeReader, size: int) -> bytes:
    """The root of a stored tree at `size`, which may be smaller than the tree is now."""
    return _range_root(node, 0, size) if size else EMPTY_ROOT


def inclusion_proof(node: NodeReader, index: int, size: int) -> tuple[bytes, ...]:
    """PATH(index, D[0:size]) of RFC 6962 section 2.1.1, the leaf's sibling first.

    Raises:
        ValueError: `index` is not below `size`. Whoever takes an index from outside checks it first.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_root(node, middle, end))
            end = middle
        else:
            path.append(_range_root(node, begin, middle))
            begin = middle
    return tuple(reversed(path))


def consistency_proof(node: NodeReader, old_size: int, new_size: int) -> tuple[bytes, ...]:
    """PROOF(old_size, D[0:new_size]) of RFC 6962 section 2.1.2; empty from the empty tree and between equal sizes.

    Raises:
        ValueError: `old_size` is negative or above `new_size`.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"no proof from size {old_size} to {new_size}")
    if old_size == 0:
        return ()
    begin, end, path = 0, new_size, []
    while old_size != end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_range_root(node, middle, end))
            end = middle
        else:
            path.append(_range_root(node, begin, middle))
            begin = middle
    if begin > 0:  # otherwise the subtree is the whole old tree, whose root the verifier knows
        path.append(_range_root(node, begin, end))
    return tuple(reversed(path))


# ── verifying ─────────────────────────────────────────────────────────────────────────────────────────────────────


def root_from_inclusion_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2, up to the comparison).

    Args:
        leaf: the leaf *hash*, 32 bytes.
        index: zero-based index of the leaf.
        size: number of leaves in the tree.
        proof: hashes of 32 bytes, the leaf's sibling first.

    Raises:
        InvalidInclusionProof: the index is not in the tree, or the proof does not have the length it needs.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise InvalidInclusionProof(
            f"Leaf {index} is not in a tree of {size}. Ask for a proof at a larger size."
        )
    _check_hashes(InvalidInclusionProof, leaf, *proof)
    first, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise InvalidInclusionProof(f"The proof for leaf {index} in a tree of {size} is too long.")
        if first & 1 or first == last:
            root = node_hash(sibling, root)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        first >>= 1
        last >>= 1
    if last != 0:
        raise InvalidInclusionProof(f"The proof for leaf {index} in a tree of {size} is too short.")
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash stands at `index` in the tree of `size` leaves with that root.

    Arguments as in `root_from_inclusion_proof`. It does not check who vouches for the root.

    Raises:
        InvalidInclusionProof: it does not, or the proof is of the wrong length.
    """
    if root_from_inclusion_proof(leaf, index, size, proof) != root:
        raise InvalidInclusionProof(f"The proof does not lead from leaf {index} to the root at size {size}.")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree (old_size, old_root) is a prefix of (new_size, new_root). RFC 9162 section 2.1.4.2.

    The cases the RFC leaves out: the empty tree is a prefix of every tree, and a tree of itself; both with an empty
    proof only. An `InvalidConsistencyProof` alone does not show a fork: the proof itself may be bad.

    Raises:
        InvalidConsistencyProof: it is not, or not by this proof.
    """
    if not 0 <= old_size <= new_size <= MAX_TREE_SIZE:
        raise InvalidConsistencyProof(f"A tree of {old_size} cannot be a prefix of a tree of {new_size}.")
    _check_hashes(InvalidConsistencyProof, old_root, new_root, *proof)
    if old_size in {0, new_size}:
        _verify_trivial_consistency(old_size, old_root, new_size, new_root, proof)
        return
    path = list(proof)
    if not path:
        raise InvalidConsistencyProof(f"The proof from size {old_size} to {new_size} is missing.")
    if old_size & (old_size - 1) == 0:  # the old tree is itself a complete subtree of the new one
        path.insert(0, old_root)
    first, last = old_size - 1, new_size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise InvalidConsistencyProof(f"The proof from size {old_size} to {new_size} is too long.")
        if first & 1 or first == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        first >>= 1
        last >>= 1
    if last != 0:
        raise InvalidConsistencyProof(f"The proof from size {old_size} to {new_size} is too short.")
    if old != old_root or new != new_root:
        raise InvalidConsistencyProof(
            f"The proof does not join the roots at sizes {old_size} and {new_size}."
        )


def _verify_trivial_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    if proof:
        raise InvalidConsistencyProof(f"The proof from size {old_size} to {new_size} must be empty.")
    if (old_size == 0 and old_root != EMPTY_ROOT) or (new_size == 0 and new_root != EMPTY_ROOT):
        raise InvalidConsistencyProof("The root at size 0 is not the root of the empty tree.")
    if old_size == new_size and old_root != new_root:
        raise InvalidConsistencyProof(f"Two different roots at size {old_size}.")


def _check_hashes(error: type[Refused], *hashes: bytes) -> None:
    """A hash of another length would be hashed without complaint and could shift the boundary of its neighbour."""
    if any(len(one) != HASH_SIZE for one in hashes):
        raise error(f"Every hash in a proof is {HASH_SIZE} bytes long.")


def _split(width: int) -> int:
    """The largest power of two smaller than `width` (RFC 6962 section 2.1), for width above 1."""
    return 1 << ((width - 1).bit_length() - 1)


def _range_root(node: NodeReader, begin: int, end: int) -> bytes:
    return _fold([node(level, index) for level, index in complete_subtrees(begin, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join the roots of adjacent complete subtrees, largest first, from the right."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root
