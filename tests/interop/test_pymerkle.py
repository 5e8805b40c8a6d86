"""pymerkle, another author's Merkle tree, against the roots and proofs our nodes serve."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pymerkle
import pytest

from tests.interop.live import STATES, Live, bent, flip
from tests.interop.served import Head, Proof, ServedLog, read_submission


@pytest.fixture(scope="module")
def tree(leaves: list[bytes]) -> pymerkle.InmemoryTree:
    """Their tree over the leaves we serve."""
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        theirs.append_entry(leaf)
    return theirs


def included(tree: pymerkle.InmemoryTree, leaf: bytes, proof: Proof, head: Head) -> None:
    """Have pymerkle verify a tlog-proof; only the shape, which follows from index and size, is its own tree's."""
    hash_ = sha256(b"\0" + leaf).digest()
    shape = tree.prove_inclusion(proof.index + 1, head.size)
    ours = pymerkle.InclusionProof(
        "sha256", True, head.size, proof.index + 1, shape.rule, [hash_, *proof.path]
    )
    pymerkle.verify_inclusion(
        hash_, head.root, ours, index=proof.index + 1, size=head.size, algorithm="sha256"
    )


def consistent(old: Head, new: Head, path: list[bytes]) -> bool:
    """Have pymerkle fold an RFC 6962 consistency proof to the old root and to the new one.

    pymerkle's own consistency proofs go on to the leaf behind the old tree, so its verifier takes only those. The order
    of the hashes is therefore worked out here, from RFC 9162 section 2.1.4; the folding is pymerkle's.
    """
    sides: list[
        int
    ] = []  # from the root down: 0, the sibling is on the right; 1, on the left, in the old tree too
    old_width, width = old.size, new.size
    while old_width != width:
        left = 1 << (width - 1).bit_length() - 1
        sides.append(int(old_width > left))
        old_width, width = (old_width - left, width - left) if old_width > left else (old_width, left)
    if 1 not in sides:
        path = [old.root, *path]  # the old root is itself a node of the new tree, and is left out
    proof = pymerkle.ConsistencyProof(
        "sha256", True, new.size, old.size, [*sides[::-1], 0], [1, *sides[::-1]], path
    )
    return (len(path), proof.retrieve_prior_state(), proof.compute_root()) == (
        len(sides) + 1,
        old.root,
        new.root,
    )


def test_the_log_is_large_enough_to_show_something(live: Live, leaves: list[bytes]) -> None:
    assert live.sizes == [1, 256, 300, 694, 700]
    assert len(leaves) == 700
    assert len(set(leaves)) == 700


@pytest.mark.parametrize("at", STATES)
def test_pymerkle_computes_every_signed_root_from_the_leaves_each_node_serves(live: Live, at: str) -> None:
    with ServedLog(live.log if at == "EE" else live.mirror(at)) as log:
        theirs = pymerkle.InmemoryTree(algorithm="sha256")
        for leaf in log.leaves(live.sizes[-1]):
            theirs.append_entry(leaf)
        assert log.head().size == live.sizes[-1]
        for size in live.sizes:
            head = log.head(size)
            assert head.origin == live.origins["EE"]
            assert theirs.get_root(size) == head.root


def test_pymerkle_computes_another_root_when_one_byte_of_a_bundle_differs(live: Live) -> None:
    with bent(live.log, r"entries/001$", flip(-1)) as url, ServedLog(url) as log:
        theirs = pymerkle.InmemoryTree(algorithm="sha256")
        for leaf in log.leaves(700):
            theirs.append_entry(leaf)
        assert [theirs.get_root(size) == log.head(size).root for size in live.sizes] == [
            *(True, True, True),
            *(False, False),  # the last byte of the second bundle is in leaf 511
        ]


def test_pymerkle_accepts_the_served_proofs_of_entries_everywhere_in_the_tree(
    tree: pymerkle.InmemoryTree, served: ServedLog, leaves: list[bytes]
) -> None:
    head = served.head()
    for index in sorted({*range(0, 700, 13), 255, 256, 511, 512, 698, 699}):
        proof = served.proof(index)
        assert proof.index == index
        assert proof.head.text == head.text
        included(tree, leaves[index], proof, head)


def test_pymerkle_accepts_proofs_that_a_mirror_makes(
    tree: pymerkle.InmemoryTree, live: Live, leaves: list[bytes]
) -> None:
    with ServedLog(live.mirror("NL")) as log:
        for index in (0, 255, 256, 511, 512, 699):
            included(tree, leaves[index], log.proof(index), log.head())


@pytest.mark.parametrize("hash_number", range(10))
def test_pymerkle_refuses_a_proof_with_one_flipped_bit(
    tree: pymerkle.InmemoryTree, served: ServedLog, leaves: list[bytes], hash_number: int
) -> None:
    proof = served.proof(300)
    assert len(proof.path) == 10
    proof.path[hash_number] = flip(hash_number)(proof.path[hash_number])
    with pytest.raises(pymerkle.InvalidProof):
        included(tree, leaves[300], proof, proof.head)


def test_pymerkle_refuses_the_proof_of_another_entry_and_of_another_byte(
    tree: pymerkle.InmemoryTree, served: ServedLog, leaves: list[bytes]
) -> None:
    proof = served.proof(300)
    for leaf in (leaves[301], flip(0)(leaves[300])):
        with pytest.raises(pymerkle.InvalidProof):
            included(tree, leaf, proof, proof.head)


def test_pymerkle_accepts_the_consistency_proofs_that_our_node_sends_to_a_foreign_witness(
    live: Live, served: ServedLog
) -> None:
    seen = set()
    for old_size, path, head in map(read_submission, live.foreign.taken):
        if old_size:
            assert consistent(served.head(old_size), head, path)
            seen.add(head.size)
    assert seen >= set(live.sizes[1:])


def _flipped(root: Head) -> Head:
    return replace(root, root=flip(7)(root.root))


Sent = tuple[Head, Head, list[bytes]]


@pytest.mark.parametrize(
    "bend",
    [
        lambda old, new, path: (old, new, [*path[:3], flip(5)(path[3]), *path[4:]]),
        lambda old, new, path: (old, new, path[1:]),
        lambda old, new, path: (old, new, [*path, path[0]]),
        lambda old, new, path: (replace(old, size=old.size - 2), new, path),
        lambda old, new, path: (_flipped(old), new, path),
        lambda old, new, path: (old, _flipped(new), path),
    ],
    ids=["a hash", "one missing", "one too many", "old size", "old root", "new root"],
)
def test_pymerkle_refuses_a_consistency_proof_that_was_bent(
    live: Live, served: ServedLog, bend: Callable[[Head, Head, list[bytes]], Sent]
) -> None:
    old_size, path, new = read_submission(live.foreign.taken[-1])
    old = served.head(old_size)
    assert consistent(old, new, path)
    assert not consistent(*bend(old, new, path))


def test_pymerkle_proves_that_every_signed_head_is_a_prefix_of_the_last(
    tree: pymerkle.InmemoryTree, live: Live, served: ServedLog
) -> None:
    last = served.head()
    for size in live.sizes:
        pymerkle.verify_consistency(served.head(size).root, last.root, tree.prove_consistency(size))
