"""Evidence: it convicts whoever signed a contradiction, and nobody can make it against somebody who did not."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.json import canonical
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.cosignature import cosign
from app.tlog.evidence import (
    Evidence,
    EvidenceRefused,
    Sighting,
    cosigners_of,
    fork_between,
    record_id,
    verify,
)
from app.tlog.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash
from app.tlog.note import Note
from tests.tlog.keys import LOG, LOG_KEY, ORIGIN, OTHER, WITNESS_KEYS, WITNESS_NAMES, WITNESSES

SEEN = (Sighting(1_790_000_000, "NL", "witness JP"),)


class Tree:
    """A history: leaves, and everything that can be derived of them, the naive way."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.hashes = [leaf_hash(leaf) for leaf in leaves]

    def node(self, level: int, index: int) -> bytes:
        return Frontier().extend(self.hashes[index << level : (index + 1) << level]).root()

    def root(self, size: int | None = None) -> bytes:
        return Frontier().extend(self.hashes[:size]).root()

    def head(self, size: int | None = None, signer: Any = LOG) -> Note:
        size = len(self.leaves) if size is None else size
        return sign_checkpoint(Checkpoint(ORIGIN, size, self.root(size)), signer)

    def proof(self, size: int) -> tuple[bytes, ...]:
        return consistency_proof(self.node, size, len(self.leaves))


def history(common: int, own: int, name: str) -> Tree:
    return Tree(
        [b"common %d" % n for n in range(common)] + [b"%s %d" % (name.encode(), n) for n in range(own)]
    )


def fork(common: int = 3, first: int = 2, second: int = 4) -> Evidence:
    a, b = history(common, first, "a"), history(common, second, "b")
    small, large = sorted((a, b), key=lambda tree: len(tree.leaves))
    size = len(small.leaves)
    equal = size == len(large.leaves)
    return fork_between(
        a.head(),
        b.head(),
        [LOG_KEY],
        root=None if equal else large.root(size),
        proof=() if equal else large.proof(size),
        seen=SEEN,
    )


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 30))
def test_two_histories_convict_the_log_whatever_their_sizes(common: int, first: int, second: int) -> None:
    evidence = fork(common, first, second)
    again = Evidence.parse(evidence.encode())
    assert again == evidence
    verdict = verify(again, [LOG_KEY])
    assert (verdict.accused, verdict.convicts) == (ORIGIN, True)
    assert verdict.older is not None
    assert verdict.older.size <= verdict.newer.size
    assert verdict.older.root != verdict.newer.root


@given(st.integers(0, 40), st.integers(0, 40), st.data())
def test_a_log_that_only_grew_cannot_be_accused(size: int, growth: int, data: st.DataObject) -> None:
    """Whatever root and proof an accuser makes up: honest heads do not become a fork."""
    tree = history(size, growth, "honest")
    hashes = st.one_of(
        st.binary(min_size=32, max_size=32), st.sampled_from([tree.root(n) for n in range(size + growth + 1)])
    )
    root = data.draw(hashes)
    proof = data.draw(st.one_of(st.just(tree.proof(size)), st.lists(hashes, max_size=8).map(tuple)))
    older, newer = tree.head(size).encode(), tree.head().encode()
    with pytest.raises(EvidenceRefused, match="no contradiction"):
        verify(Evidence("fork", ORIGIN, older, newer, tree.root(size), tree.proof(size)), [LOG_KEY])
    for kind in ("fork", "cosigner"):
        made = Evidence(kind, ORIGIN, older, newer, root, proof, witness=WITNESS_NAMES[0])
        with pytest.raises(EvidenceRefused):
            verify(made, [LOG_KEY], WITNESS_KEYS)


def test_heads_that_the_log_did_not_sign_accuse_nobody() -> None:
    a, b = history(3, 2, "a"), history(3, 2, "b")
    forged = b.head(signer=OTHER)
    evidence = replace(fork(3, 2, 2), older=a.head().encode(), newer=forged.encode(), root=b.root())
    with pytest.raises(EvidenceRefused, match=r"^newer: "):
        verify(evidence, [LOG_KEY])


def test_every_byte_counts() -> None:
    """A flipped bit is refused, but for what is said to be unproven: who saw it, when and where. The id covers that too."""
    raw = fork().encode()
    begin, end = raw.index(b'"seen":['), raw.index(b'"type"')
    accepted = set()
    for at in range(len(raw)):
        for bit in (1, 0x20, 0x80):
            flipped = bytearray(raw)
            flipped[at] ^= bit
            try:
                verify(Evidence.parse(bytes(flipped)), [LOG_KEY])
            except EvidenceRefused:
                continue
            accepted.add(at)
            assert record_id(bytes(flipped)) != record_id(raw)
    assert accepted <= set(range(begin, end))


def test_a_cut_off_or_longer_record_is_refused() -> None:
    raw = fork().encode()
    for bad in [*(raw[:at] for at in range(0, len(raw), 37)), raw + b"\n", b" " + raw, raw + raw]:
        with pytest.raises(EvidenceRefused, match=r"^format: "):
            Evidence.parse(bad)


def _with(**changes: Any) -> bytes:
    return canonical({**json.loads(fork().encode()), **changes})


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"null",
        _with(v=2),
        _with(v=True),
        _with(type="gossip"),
        _with(extra=1),
        _with(older=None),
        _with(older=3),
        _with(origin=["x"]),
        _with(consistency="x"),
        _with(consistency=["AA"]),
        _with(consistency=["="]),
        _with(root_at_older_size_in_newer="AA"),
        _with(seen=[{"at": 1, "by": "NL"}]),
        _with(seen=[{"at": -1, "by": "NL", "where": "x"}]),
        _with(seen=[{"at": 1, "by": "nl", "where": "x"}]),
        _with(seen=[{"at": 1, "by": "NL", "where": "a\nb"}]),
        _with(seen=[{"at": 1, "by": "NL", "where": "x"}] * 65),
        _with(type="cosigner"),
        _with(type="badleaf"),
        fork().encode().replace(b'"v":1', b'"v":1,"v":1'),
        fork().encode().replace(b":", b": ", 1),
    ],
)
def test_a_record_of_another_spelling_is_refused(raw: bytes) -> None:
    with pytest.raises(EvidenceRefused, match=r"^format: "):
        Evidence.parse(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"root": None},
        {"root": sha256(b"made up").digest()},
        {"proof": ()},
        {"origin": "nl.verbale.example/log/1"},
    ],
)
def test_a_record_without_its_proof_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceRefused):
        verify(replace(fork(), **change), [LOG_KEY])


def test_a_record_in_the_wrong_order_is_refused() -> None:
    made = fork()
    assert made.older is not None
    with pytest.raises(EvidenceRefused, match="smaller one"):
        verify(replace(made, older=made.newer, newer=made.older), [LOG_KEY])


def test_a_head_with_a_line_that_nothing_checks_is_refused() -> None:
    tree = history(3, 4, "b")
    line = cosign(Checkpoint.parse(tree.head().text), WITNESS_NAMES[0], WITNESSES[0], 1_790_000_000)
    made = fork()
    more = Note(tree.head().text, (*tree.head().signatures, line))
    with pytest.raises(EvidenceRefused, match=r"^newer: "):
        verify(replace(made, newer=more.encode()), [LOG_KEY])


# ── witnesses ─────────────────────────────────────────────────────────────────────────────────────────────────────


def cosigned(tree: Tree, *witnesses: int) -> Note:
    head = tree.head()
    lines = [
        cosign(Checkpoint.parse(head.text), WITNESS_NAMES[n], WITNESSES[n], 1_790_000_000 + n)
        for n in witnesses
    ]
    return Note(head.text, (*head.signatures, *lines))


def test_a_witness_that_cosigned_both_histories_is_convicted_and_no_other() -> None:
    a, b = history(3, 2, "a"), history(3, 4, "b")
    (record,) = cosigners_of(fork(), cosigned(a, 0, 1), cosigned(b, 1, 2), WITNESS_KEYS)
    again = Evidence.parse(record.encode())
    verdict = verify(again, [LOG_KEY], WITNESS_KEYS)
    assert (verdict.accused, verdict.convicts) == (WITNESS_NAMES[1], True)


def test_a_witness_that_cosigned_one_history_cannot_be_accused() -> None:
    a, b = history(3, 2, "a"), history(3, 4, "b")
    assert cosigners_of(fork(), cosigned(a, 0), cosigned(b, 1), WITNESS_KEYS) == ()
    (record,) = cosigners_of(fork(), cosigned(a, 1), cosigned(b, 1), WITNESS_KEYS)
    for change in (
        {"witness": WITNESS_NAMES[0]},
        {"older": a.head().encode()},
        {"newer": cosigned(b, 0).encode()},
        {"newer": cosigned(b, 0, 1).encode()},
    ):
        with pytest.raises(EvidenceRefused):
            verify(replace(record, **change), [LOG_KEY], WITNESS_KEYS)
    with pytest.raises(EvidenceRefused, match=r"^cosignatures: "):
        verify(record, [LOG_KEY], WITNESS_KEYS[:1])


def test_a_growing_log_convicts_no_witness() -> None:
    tree = history(3, 4, "b")
    older = Tree(tree.leaves[:5])
    made = Evidence(
        "cosigner",
        ORIGIN,
        cosigned(older, 1).encode(),
        cosigned(tree, 1).encode(),
        tree.root(5),
        tree.proof(5),
        witness=WITNESS_NAMES[1],
    )
    with pytest.raises(EvidenceRefused, match="no contradiction"):
        verify(made, [LOG_KEY], WITNESS_KEYS)


# ── what convicts nobody, and leaves ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["rollback", "withheld"])
def test_what_was_served_is_a_report_and_convicts_nobody(kind: Any) -> None:
    tree = history(3, 4, "b")
    made = Evidence(
        kind, ORIGIN, tree.head(4).encode(), tree.head().encode(), tree.root(4), tree.proof(4), SEEN
    )
    verdict = verify(Evidence.parse(made.encode()), [LOG_KEY])
    assert (verdict.accused, verdict.convicts) == (ORIGIN, False)
    with pytest.raises(EvidenceRefused):
        verify(replace(made, root=history(4, 0, "x").root()), [LOG_KEY])
    with pytest.raises(EvidenceRefused):
        verify(replace(made, older=made.newer), [LOG_KEY])


def badleaf(leaf: bytes) -> Evidence:
    tree = Tree([b"x" * 300, leaf, b"y" * 300])
    proof = inclusion_proof(tree.node, 1, 3)
    return Evidence("badleaf", ORIGIN, None, tree.head().encode(), None, proof, SEEN, index=1, leaf=leaf)


def test_a_leaf_that_is_none_is_proven_with_its_place() -> None:
    made = badleaf(b"not a statement")
    verdict = verify(Evidence.parse(made.encode()), [LOG_KEY])
    assert verdict.convicts
    for change in ({"index": 0}, {"leaf": b"another"}, {"proof": ()}, {"root": bytes(32)}):
        with pytest.raises(EvidenceRefused):
            verify(replace(made, **change), [LOG_KEY])


def test_a_proper_leaf_convicts_nobody() -> None:
    from app.statements import sign_notice

    leaf = sign_notice({"x": 1}, OTHER, "EE/cp/1", ORIGIN)["statement"].encode()
    with pytest.raises(EvidenceRefused, match=r"^leaf: "):
        verify(badleaf(leaf), [LOG_KEY])
    other = sign_notice({"x": 1}, OTHER, "EE/cp/1", "nl.verbale.example/log/1")["statement"].encode()
    assert verify(badleaf(other), [LOG_KEY]).convicts
