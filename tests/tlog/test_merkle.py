"""The tree against RFC 6962 word for word, against pymerkle, and against whoever bends a proof."""

from collections.abc import Callable
from functools import cache

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tlog import tiles
from app.tlog.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    Frontier,
    InvalidConsistencyProof,
    InvalidInclusionProof,
    MalformedFrontier,
    NodeReader,
    complete_subtrees,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_inclusion_proof,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tests.tlog import naive

LEAVES = naive.hashes(600)
BIG = 1 << 20


@cache
def naive_root(begin: int, end: int) -> bytes:
    """MTH over LEAVES[begin:end], remembered."""
    if end - begin < 2:
        return naive.mth(LEAVES[begin:end])
    k = naive.largest_power_below(end - begin)
    return node_hash(naive_root(begin, begin + k), naive_root(begin + k, end))


def small_node(level: int, index: int) -> bytes:
    assert (index + 1) << level <= len(LEAVES)
    return naive_root(index << level, (index + 1) << level)


@pytest.fixture(scope="module")
def big_node() -> NodeReader:
    """A tree of 2^20 leaves, kept as tiles. Leaf hashes are just bytes here: a counter is as good as a digest."""
    store: dict[tuple[int, int], bytes] = {}
    hashes = [i.to_bytes(32, "big") for i in range(BIG)]
    for tile in tiles.extend_tiles(0, {}, hashes):
        store[tile.level, tile.index] = tile.data
    return tiles.nodes_from_tiles(lambda level, index: store[level, index])


# ── roots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_roots_are_those_of_the_certificate_transparency_test_tree() -> None:
    entries = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    frontier = Frontier()
    for entry, root in zip(entries, roots, strict=True):
        frontier = frontier.extend([leaf_hash(bytes.fromhex(entry))])
        assert frontier.root().hex() == root


def test_the_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    assert Frontier().root() == EMPTY_ROOT == naive.mth([])
    assert tree_root(small_node, 0) == EMPTY_ROOT


def test_frontier_and_stored_tree_have_the_naive_root_at_every_size_to_600() -> None:
    frontier = Frontier()
    for size in range(601):
        assert frontier.root() == naive_root(0, size) == tree_root(small_node, size)
        assert frontier == Frontier.read(small_node, size)
        if size < 600:
            frontier = frontier.extend(LEAVES[size : size + 1])


@given(st.lists(st.integers(0, 70), max_size=12))
def test_it_does_not_matter_how_appends_are_batched(batches: list[int]) -> None:
    frontier, size = Frontier(), 0
    for batch in batches:
        frontier = frontier.extend(LEAVES[size : size + batch])
        size = min(size + batch, 600)
    assert frontier == Frontier().extend(LEAVES[:size])
    assert frontier.root() == naive_root(0, size)


@given(st.integers(0, 600))
def test_a_frontier_survives_storage(size: int) -> None:
    frontier = Frontier().extend(LEAVES[:size])
    assert Frontier.from_bytes(frontier.to_bytes()) == frontier


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (1).to_bytes(8, "big"),
        (1).to_bytes(8, "big") + b"x" * 31,
        (2).to_bytes(8, "big") + b"x" * 64,
        b"\x00" * 9,
        b"\x80" + b"\x00" * 7 + b"x" * 32,
    ],
)
def test_bytes_that_are_no_frontier_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrontier):
        Frontier.from_bytes(data)


@given(st.integers(0, 3), st.integers(0, 74), st.integers(0, 74))
def test_a_frontier_takes_subtrees_for_their_leaves(level: int, before: int, more: int) -> None:
    width = 1 << level
    before, more = before & -width, more // width
    frontier = Frontier().extend(LEAVES[:before])
    roots = [naive_root(at, at + width) for at in range(before, before + more * width, width)]
    assert frontier.extend(roots, level) == frontier.extend(LEAVES[before : before + more * width])


def test_a_subtree_goes_where_one_may_begin() -> None:
    with pytest.raises(ValueError, match="level 3"):
        Frontier().extend(LEAVES[:4]).extend([LEAVES[0]], 3)


def test_a_frontier_of_the_wrong_shape_is_a_programming_mistake() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        Frontier(3, (b"x" * 32,))


def test_pymerkle_has_the_same_roots_and_the_same_inclusion_proofs() -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for i in range(70):
        tree.append_entry(b"%d" % i)
    for size in range(1, 71):
        assert tree.get_root(size) == naive_root(0, size)
    for size in (1, 2, 3, 7, 8, 9, 31, 33, 64, 65, 70):
        for index in range(size):
            theirs = tree.prove_inclusion(index + 1, size)  # it counts from one
            assert tuple(theirs.path[1:]) == inclusion_proof(small_node, index, size)
            pymerkle.verify_inclusion(LEAVES[index], tree_root(small_node, size), theirs)


def test_pymerkle_accepts_our_roots_as_prefixes_of_each_other() -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for i in range(40):
        tree.append_entry(b"%d" % i)
    for new in range(1, 41):
        for old in range(1, new + 1):
            theirs = tree.prove_consistency(old, new)
            pymerkle.verify_consistency(tree_root(small_node, old), tree_root(small_node, new), theirs)


# ── inclusion ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_inclusion_proof_in_trees_to_70_is_the_naive_one_and_verifies() -> None:
    for size in range(1, 71):
        for index in range(size):
            proof = inclusion_proof(small_node, index, size)
            assert list(proof) == naive.path(index, LEAVES[:size])
            verify_inclusion(LEAVES[index], index, size, proof, naive_root(0, size))


def test_every_inclusion_proof_in_a_tree_of_600_and_of_511_to_513_verifies() -> None:
    for size in (511, 512, 513, 600):
        for index in range(size):
            proof = inclusion_proof(small_node, index, size)
            verify_inclusion(LEAVES[index], index, size, proof, naive_root(0, size))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_inclusion_proofs_in_a_tree_of_a_million_leaves_verify(
    big_node: NodeReader, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, BIG))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(big_node, index, size)
    assert len(proof) <= 20
    verify_inclusion(index.to_bytes(32, "big"), index, size, proof, tree_root(big_node, size))


@pytest.mark.parametrize(
    "bend",
    [
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, p[:-1], r), id="last hash dropped"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, p[1:], r), id="first hash dropped"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, (*p, r), r), id="hash added at the end"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, (leaf, *p), r), id="hash added at the start"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, p[::-1], r), id="order reversed"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, (p[0][:31], *p[1:]), r), id="hash too short"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, (p[0] + b"x", *p[1:]), r), id="hash too long"),
        pytest.param(lambda leaf, i, n, p, r: (leaf + b"x", i, n, p, r), id="leaf too long"),
        pytest.param(lambda leaf, i, n, p, r: (r, i, n, p, r), id="another leaf"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, p, leaf), id="another root"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i ^ 1, n, p, r), id="the neighbour's index"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i + n, n, p, r), id="index beyond the tree"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, n, n, p, r), id="index equal to the size"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, -1, n, p, r), id="index negative"),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, 0, p, r), id="empty tree"),
        pytest.param(
            lambda leaf, i, n, p, r: (leaf, i, MAX_TREE_SIZE + 1, p, r), id="tree beyond the largest"
        ),
        pytest.param(lambda leaf, i, n, p, r: (leaf, i, n, (), r), id="proof missing"),
    ],
)
def test_a_bent_inclusion_proof_is_refused(bend: Callable[..., tuple]) -> None:
    for index, size in ((0, 7), (5, 7), (6, 7), (3, 8), (64, 100), (598, 600)):
        proof = inclusion_proof(small_node, index, size)
        with pytest.raises(InvalidInclusionProof):
            verify_inclusion(*bend(LEAVES[index], index, size, proof, naive_root(0, size)))


def test_every_flipped_bit_in_an_inclusion_proof_is_refused() -> None:
    index, size = 5, 11
    proof, root = inclusion_proof(small_node, index, size), naive_root(0, size)
    for at in range(len(proof)):
        for bit in range(256):
            bent = list(proof)
            bent[at] = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
            with pytest.raises(InvalidInclusionProof):
                verify_inclusion(LEAVES[index], index, size, bent, root)


def test_a_proof_of_the_wrong_length_leads_to_no_root() -> None:
    proof = inclusion_proof(small_node, 5, 11)
    for bent in (proof[:-1], (*proof, LEAVES[0])):
        with pytest.raises(InvalidInclusionProof, match=r"too (long|short)"):
            root_from_inclusion_proof(LEAVES[5], 5, 11, bent)


def test_the_largest_tree_has_proofs_of_63_hashes() -> None:
    path = LEAVES[:63]
    root = root_from_inclusion_proof(LEAVES[99], 0, MAX_TREE_SIZE, path)
    verify_inclusion(LEAVES[99], 0, MAX_TREE_SIZE, path, root)
    frontier = Frontier(MAX_TREE_SIZE, tuple(path))
    assert Frontier.from_bytes(frontier.to_bytes()) == frontier
    with pytest.raises(ValueError, match="cannot hold"):
        frontier.extend([LEAVES[0]])


def test_a_proof_leads_to_the_same_root_from_every_leaf() -> None:
    roots = {
        root_from_inclusion_proof(LEAVES[i], i, 50, inclusion_proof(small_node, i, 50)) for i in range(50)
    }
    assert roots == {naive_root(0, 50)}


def test_a_proof_for_a_leaf_that_is_not_there_cannot_be_made() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(small_node, index, size)


# ── consistency ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_consistency_proof_between_trees_to_70_is_the_naive_one_and_verifies() -> None:
    for new in range(71):
        for old in range(new + 1):
            proof = consistency_proof(small_node, old, new)
            assert list(proof) == (naive.proof(old, LEAVES[:new]) if old else [])
            verify_consistency(old, naive_root(0, old), new, naive_root(0, new), proof)


def test_every_consistency_proof_to_trees_of_511_to_513_and_600_verifies() -> None:
    for new in (511, 512, 513, 600):
        for old in range(new + 1):
            proof = consistency_proof(small_node, old, new)
            verify_consistency(old, naive_root(0, old), new, naive_root(0, new), proof)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_consistency_proofs_to_trees_of_a_million_leaves_verify(
    big_node: NodeReader, data: st.DataObject
) -> None:
    new = data.draw(st.integers(1, BIG))
    old = data.draw(st.integers(0, new))
    proof = consistency_proof(big_node, old, new)
    verify_consistency(old, tree_root(big_node, old), new, tree_root(big_node, new), proof)


@pytest.mark.parametrize(
    "bend",
    [
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, p[:-1]), id="last hash dropped"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, p[1:]), id="first hash dropped"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, (*p, a)), id="hash added at the end"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, (a, *p)), id="old root added at the start"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, ()), id="proof missing"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, b, (p[0][:31], *p[1:])), id="hash too short"),
        pytest.param(lambda m, a, n, b, p: (m, b, n, b, p), id="another old root"),
        pytest.param(lambda m, a, n, b, p: (m, a, n, a, p), id="another new root"),
        pytest.param(lambda m, a, n, b, p: (m, b, n, a, p), id="roots exchanged"),
        pytest.param(lambda m, a, n, b, p: (n, b, m, a, p), id="trees exchanged"),
        pytest.param(lambda m, a, n, b, p: (0, EMPTY_ROOT, n, b, p), id="proof from the empty tree"),
        pytest.param(lambda m, a, n, b, p: (n, b, n, b, p), id="proof from the tree to itself"),
        pytest.param(lambda m, a, n, b, p: (-1, a, n, b, p), id="old size negative"),
        pytest.param(lambda m, a, n, b, p: (m, a, MAX_TREE_SIZE + 1, b, p), id="tree beyond the largest"),
    ],
)
def test_a_bent_consistency_proof_is_refused(bend: Callable[..., tuple]) -> None:
    for old, new in ((1, 2), (3, 7), (4, 7), (6, 7), (6, 8), (64, 100), (500, 600)):
        proof = consistency_proof(small_node, old, new)
        with pytest.raises(InvalidConsistencyProof):
            verify_consistency(*bend(old, naive_root(0, old), new, naive_root(0, new), proof))


def test_a_tree_that_changed_one_old_leaf_is_not_an_extension() -> None:
    changed = [*LEAVES[:40]]
    changed[17] = leaf_hash(b"something else")
    for old in range(18, 40):
        with pytest.raises(InvalidConsistencyProof):
            verify_consistency(old, naive_root(0, old), 40, naive.mth(changed), naive.proof(old, changed))


@pytest.mark.parametrize(
    ("old", "old_root", "new", "new_root"),
    [
        pytest.param(0, LEAVES[0], 1, LEAVES[0], id="the empty tree with a root"),
        pytest.param(0, EMPTY_ROOT, 0, LEAVES[0], id="the empty tree with two roots"),
        pytest.param(0, LEAVES[0], 0, LEAVES[0], id="the empty tree with the same wrong root"),
        pytest.param(5, LEAVES[0], 5, LEAVES[1], id="two roots for one size"),
    ],
)
def test_the_trivial_cases_still_compare_roots(old: int, old_root: bytes, new: int, new_root: bytes) -> None:
    with pytest.raises(InvalidConsistencyProof):
        verify_consistency(old, old_root, new, new_root, ())


def test_a_proof_from_a_larger_tree_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="no proof"):
        consistency_proof(small_node, 8, 7)


@given(st.integers(0, 10_000))
def test_a_tree_splits_into_one_subtree_for_each_bit_of_its_size(size: int) -> None:
    subtrees = complete_subtrees(0, size)
    assert len(subtrees) == size.bit_count()
    covered = [leaf for level, index in subtrees for leaf in (index << level, (index + 1) << level)]
    assert covered == sorted(covered)
    assert (covered[-1] if covered else 0) == size
