"""Offline proofs: what a court, a colleague or a State without a node can check from one file."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSignature, Malformed
from app.tlog.checkpoint import Checkpoint, UnexpectedOrigin, sign_checkpoint
from app.tlog.cosignature import cosign, verify_cosignatures, with_cosignatures
from app.tlog.merkle import Frontier, InvalidInclusionProof, inclusion_proof
from app.tlog.note import MAX_NOTE_SIZE, MalformedNote, NoKnownSignature, VerifierKey
from app.tlog.proof import MAX_EXTRA_SIZE, MalformedProof, TlogProof, verify_proof
from app.tlog.tiles import extend_tiles, nodes_from_tiles
from tests.tlog import naive
from tests.tlog.keys import LOG, LOG_KEY, ORIGIN, OTHER, WITNESS_KEYS, WITNESS_NAMES, WITNESSES

SIZE, INDEX, AT = 11, 5, 1_790_000_000
LEAVES = naive.hashes(SIZE)
TILES = {(tile.level, tile.index): tile.data for tile in extend_tiles(0, {}, LEAVES)}
HEAD = Checkpoint(ORIGIN, SIZE, Frontier().extend(LEAVES).root())
NOTE = with_cosignatures(sign_checkpoint(HEAD, LOG), [cosign(HEAD, WITNESS_NAMES[0], WITNESSES[0], AT)])
PATH = inclusion_proof(nodes_from_tiles(lambda level, index: TILES[level, index]), INDEX, SIZE)
PROOF = TlogProof(INDEX, PATH, NOTE.encode(), b"context")
RAW = PROOF.encode()


def test_a_proof_is_spelt_as_the_specification_asks() -> None:
    lines = RAW.decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra Y29udGV4dA==", "index 5"]
    assert lines[3:7] == [b64encode(one).decode() for one in PATH]
    assert lines[7] == ""
    assert "\n".join(lines[8:]).encode() == NOTE.encode()


def test_a_proof_is_read_back_and_verified_with_its_cosignatures() -> None:
    proof = TlogProof.parse(RAW)
    assert proof == PROOF
    head, note = verify_proof(proof, LEAVES[INDEX], [LOG_KEY], ORIGIN)
    assert head == HEAD
    assert [held.at for held in verify_cosignatures(note, WITNESS_KEYS)] == [AT]


def test_a_proof_without_extra_data_has_no_line_for_it() -> None:
    proof = TlogProof(INDEX, PATH, NOTE.encode())
    assert b"extra" not in proof.encode()
    assert TlogProof.parse(proof.encode()) == proof


def test_the_only_leaf_of_a_log_needs_no_hashes() -> None:
    head = Checkpoint(ORIGIN, 1, LEAVES[0])
    raw = TlogProof(0, (), sign_checkpoint(head, LOG).encode()).encode()
    assert raw.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nee.verbale")
    assert verify_proof(TlogProof.parse(raw), LEAVES[0], [LOG_KEY], ORIGIN)[0] == head


@pytest.mark.parametrize(
    ("proof", "leaf", "key", "origin", "fault"),
    [
        pytest.param(PROOF, LEAVES[4], LOG_KEY, ORIGIN, InvalidInclusionProof, id="another leaf"),
        pytest.param(
            TlogProof(4, PATH, PROOF.checkpoint),
            LEAVES[5],
            LOG_KEY,
            ORIGIN,
            InvalidInclusionProof,
            id="another index",
        ),
        pytest.param(
            TlogProof(11, PATH, PROOF.checkpoint),
            LEAVES[5],
            LOG_KEY,
            ORIGIN,
            InvalidInclusionProof,
            id="beyond the tree",
        ),
        pytest.param(
            TlogProof(5, PATH[:-1], PROOF.checkpoint),
            LEAVES[5],
            LOG_KEY,
            ORIGIN,
            InvalidInclusionProof,
            id="short path",
        ),
        pytest.param(
            PROOF, LEAVES[5], LOG_KEY, "nl.verbale.example/log/1", UnexpectedOrigin, id="another log"
        ),
        pytest.param(
            PROOF, LEAVES[5], VerifierKey(ORIGIN, OTHER.public), ORIGIN, NoKnownSignature, id="another key"
        ),
    ],
)
def test_a_proof_of_something_else_is_refused(
    proof: TlogProof, leaf: bytes, key: VerifierKey, origin: str, fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        verify_proof(proof, leaf, [key], origin)


def test_a_flipped_bit_can_only_change_what_nobody_authenticates() -> None:
    for at in range(len(RAW)):
        for bit in range(8):
            bent = RAW[:at] + bytes([RAW[at] ^ 1 << bit]) + RAW[at + 1 :]
            try:
                proof = TlogProof.parse(bent)
                head, note = verify_proof(proof, LEAVES[INDEX], [LOG_KEY], ORIGIN)
                held = verify_cosignatures(note, WITNESS_KEYS)
            except (Malformed, InvalidSignature, InvalidInclusionProof, UnexpectedOrigin):
                continue
            # What passes proves the same: only the extra data differs, or one witness became unknown.
            assert (proof.index, proof.path, head) == (INDEX, PATH, HEAD)
            assert proof.extra != PROOF.extra or held == ()


@given(st.binary(max_size=80))
def test_whatever_is_accepted_has_one_spelling(raw: bytes) -> None:
    for candidate in (raw, b"c2sp.org/tlog-proof@v1\n" + raw + b"\n\n" + NOTE.encode()):
        try:
            proof = TlogProof.parse(candidate)
        except Malformed:
            continue
        assert proof.encode() == candidate


TOP = b"c2sp.org/tlog-proof@v1\n"
HASH = b64encode(LEAVES[0]) + b"\n"
END = b"\n" + NOTE.encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(TOP, id="the header alone"),
        pytest.param(b"c2sp.org/tlog-proof@v2\nindex 5\n" + END, id="another version"),
        pytest.param(b"\xef\xbb\xbf" + RAW, id="a byte order mark"),
        pytest.param(RAW.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n" + RAW, id="a blank line first"),
        pytest.param(TOP + HASH + END, id="no index"),
        pytest.param(TOP + b"index\n" + END, id="index without a number"),
        pytest.param(TOP + b"index \n" + END, id="index with an empty number"),
        pytest.param(TOP + b"index 05\n" + END, id="leading zero"),
        pytest.param(TOP + b"index -1\n" + END, id="negative index"),
        pytest.param(TOP + b"index  5\n" + END, id="two spaces"),
        pytest.param(TOP + b"Index 5\n" + END, id="upper case"),
        pytest.param(TOP + b"index 9223372036854775808\n" + END, id="index of 2^63"),
        pytest.param(TOP + b"index 5\nindex 5\n" + END, id="two indexes"),
        pytest.param(TOP + b"index 5\nextra YQ==\n" + END, id="extra after the index"),
        pytest.param(TOP + b"extra YQ==\nextra YQ==\nindex 5\n" + END, id="extra twice"),
        pytest.param(TOP + b"extra \nindex 5\n" + END, id="empty extra"),
        pytest.param(TOP + b"extra YQ\nindex 5\n" + END, id="extra without padding"),
        pytest.param(TOP + b"extra YR==\nindex 5\n" + END, id="spare bits in extra"),
        pytest.param(
            TOP + b"extra " + b64encode(b"x" * (MAX_EXTRA_SIZE + 1)) + b"\nindex 5\n" + END,
            id="extra too long",
        ),
        pytest.param(TOP + b"index 5\n" + HASH * 64 + END, id="64 hashes"),
        pytest.param(TOP + b"index 5\nAAAA\n" + END, id="a short hash"),
        pytest.param(TOP + b"index 5\n" + HASH[:-2] + b"\n" + END, id="a hash without padding"),
        pytest.param(TOP + b"index 5\n" + HASH + b" " + HASH + END, id="a space before a hash"),
        pytest.param(TOP + b"index 5\n" + HASH + NOTE.encode(), id="no blank line before the checkpoint"),
        pytest.param(TOP + b"index 5\n" + b"x" * 500_000 + END, id="too large"),
    ],
)
def test_what_is_not_a_proof_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedProof):
        TlogProof.parse(raw)


@pytest.mark.parametrize("tail", [b"", b"\n", NOTE.text, NOTE.text + b"\n", b"x" * MAX_NOTE_SIZE])
def test_a_proof_whose_checkpoint_is_no_note_is_refused(tail: bytes) -> None:
    with pytest.raises(MalformedNote):
        TlogProof.parse(TOP + b"index 5\n\n" + tail)
