"""A witness's judgement: one test for each answer in C2SP tlog-witness."""

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Malformed
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, MalformedCheckpoint, UnexpectedOrigin, sign_checkpoint
from app.tlog.cosignature import cosign, verify_cosignatures
from app.tlog.merkle import Frontier, InvalidConsistencyProof
from app.tlog.note import InvalidNoteSignature, MalformedNote, NoKnownSignature, Note, Signature
from app.tlog.witness import (
    MAX_SUBMISSION_SIZE,
    CheckpointForked,
    MalformedSubmission,
    OldSizeMismatch,
    OldSizeTooLarge,
    Submission,
    encode_cosignatures,
    encode_size,
    judge_submission,
    origin_hash,
    parse_cosignatures,
    parse_size_answer,
)
from tests.tlog import naive
from tests.tlog.keys import LOG, LOG_KEY, ORIGIN, OTHER, WITNESS_KEYS, WITNESS_NAMES, WITNESSES

LEAVES = naive.hashes(40)
AT = 1_790_000_000


def head(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, Frontier().extend(LEAVES[:size]).root())


def submission(old: int, new: Checkpoint, proof: list[bytes] | None = None) -> Submission:
    if proof is None:
        proof = naive.proof(old, LEAVES[: new.size]) if 0 < old <= new.size else []
    return Submission(old, tuple(proof), sign_checkpoint(new, LOG).encode())


def judge(what: Submission, cosigned: Checkpoint | None) -> Checkpoint:
    return judge_submission(Submission.parse(what.encode()), [LOG_KEY], ORIGIN, cosigned)[0]


@given(st.integers(0, 40), st.integers(0, 40))
def test_every_honest_step_forward_is_accepted(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert judge(submission(old, head(new)), head(old) if old else None) == head(new)


def test_the_first_checkpoint_is_accepted_without_a_proof() -> None:
    assert judge(submission(0, head(7)), None) == head(7)
    assert judge(submission(0, head(0)), None) == head(0)


def test_the_same_checkpoint_again_is_accepted_for_a_fresh_time() -> None:
    assert judge(submission(7, head(7)), head(7)) == head(7)


def test_a_checkpoint_the_log_did_not_sign_is_refused() -> None:
    forged = Note(head(7).body(), (notes.sign(head(7).body(), ORIGIN, OTHER),)).encode()
    with pytest.raises(NoKnownSignature):
        judge(Submission(0, (), forged), None)
    bad = Note(head(7).body(), (Signature(ORIGIN, LOG_KEY.key_id, b"\x00" * 64),)).encode()
    with pytest.raises(InvalidNoteSignature):
        judge(Submission(0, (), bad), None)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    other = Checkpoint("nl.verbale.example/log/1", 7, head(7).root)
    with pytest.raises(UnexpectedOrigin):
        judge(Submission(0, (), sign_checkpoint(other, LOG).encode()), None)


def test_an_old_size_above_the_checkpoint_is_a_bad_request() -> None:
    with pytest.raises(OldSizeTooLarge):
        judge(submission(8, head(7)), head(8))


@pytest.mark.parametrize(("old", "cosigned"), [(0, 5), (4, 5), (6, 5), (3, 0)])
def test_an_old_size_other_than_ours_is_answered_with_ours(old: int, cosigned: int) -> None:
    with pytest.raises(OldSizeMismatch) as caught:
        judge(submission(old, head(7)), head(cosigned) if cosigned else None)
    assert caught.value.size == cosigned


def test_a_witness_never_goes_back() -> None:
    """Old size 5 is honest, the checkpoint is genuine, and this witness has since cosigned 9."""
    with pytest.raises(OldSizeMismatch):
        judge(submission(5, head(7)), head(9))


@pytest.mark.parametrize(
    ("old", "proof"),
    [
        pytest.param(5, [], id="missing"),
        pytest.param(5, naive.proof(5, LEAVES[:8]), id="to another size"),
        pytest.param(5, naive.proof(4, LEAVES[:9]), id="from another size"),
        pytest.param(5, [*naive.proof(5, LEAVES[:9]), LEAVES[0]], id="too long"),
        pytest.param(0, [LEAVES[0]], id="not empty from size zero"),
    ],
)
def test_a_proof_that_does_not_verify_is_refused(old: int, proof: list[bytes]) -> None:
    with pytest.raises(InvalidConsistencyProof):
        judge(submission(old, head(9), proof), head(old) if old else None)


def test_a_proof_from_the_same_size_must_be_empty() -> None:
    with pytest.raises(InvalidConsistencyProof):
        judge(submission(5, head(5), [LEAVES[0]]), head(5))


def test_a_rewritten_log_is_refused_though_its_own_proof_is_sound() -> None:
    rewritten = [*LEAVES[:3], LEAVES[30], *LEAVES[4:9]]
    new = Checkpoint(ORIGIN, 9, naive.mth(rewritten))
    with pytest.raises(InvalidConsistencyProof):
        judge(submission(5, new, naive.proof(5, rewritten)), head(5))


def test_two_roots_for_one_size_are_named_a_fork_and_both_are_kept() -> None:
    other = Checkpoint(ORIGIN, 5, naive.mth(LEAVES[1:6]))
    with pytest.raises(CheckpointForked) as caught:
        judge(submission(5, other, []), head(5))
    assert (caught.value.held, caught.value.offered) == (head(5), other)


def test_an_empty_tree_with_a_root_is_refused() -> None:
    with pytest.raises(InvalidConsistencyProof):
        judge(submission(0, Checkpoint(ORIGIN, 0, LEAVES[0])), None)


# ── wire forms ────────────────────────────────────────────────────────────────────────────────────────────────────

NOTE = sign_checkpoint(head(9), LOG).encode()
HASH = b64encode(LEAVES[0]) + b"\n"


def test_a_request_is_spelt_as_the_specification_asks() -> None:
    what = submission(5, head(9))
    assert what.encode() == b"old 5\n" + b"".join(b64encode(one) + b"\n" for one in what.proof) + b"\n" + NOTE
    assert Submission.parse(what.encode()) == what
    assert what.claimed_origin() == ORIGIN
    assert submission(0, head(9)).encode() == b"old 0\n\n" + NOTE


@given(st.binary(max_size=60))
def test_whatever_request_is_accepted_has_one_spelling(raw: bytes) -> None:
    for candidate in (raw, b"old " + raw + b"\n\n" + NOTE, b"old 5\n" + raw + b"\n" + NOTE):
        try:
            what = Submission.parse(candidate)
        except Malformed:
            continue
        assert what.encode() == candidate


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NOTE, id="a checkpoint alone"),
        pytest.param(b"\n" + NOTE, id="no old size"),
        pytest.param(b"old\n\n" + NOTE, id="old without a size"),
        pytest.param(b"old \n\n" + NOTE, id="old with an empty size"),
        pytest.param(b"old 05\n\n" + NOTE, id="leading zero"),
        pytest.param(b"old -5\n\n" + NOTE, id="negative"),
        pytest.param(b"old 5 \n\n" + NOTE, id="a space at the end"),
        pytest.param(b"old 9223372036854775808\n\n" + NOTE, id="2^63"),
        pytest.param(b"old 5\r\n\r\n" + NOTE, id="CRLF"),
        pytest.param(b"5\n\n" + NOTE, id="a size alone"),
        pytest.param(b"new 5\n\n" + NOTE, id="another word"),
        pytest.param(b"old 5\n" + HASH * 64 + b"\n" + NOTE, id="64 hashes"),
        pytest.param(b"old 5\nAAAA\n\n" + NOTE, id="a short hash"),
        pytest.param(b"old 5\n!!!!\n\n" + NOTE, id="a line that is no base64"),
        pytest.param(b"old 5\n" + HASH + NOTE, id="no blank line"),
        pytest.param(b"old 5\n\n" + b"x" * MAX_SUBMISSION_SIZE, id="too large"),
    ],
)
def test_what_is_not_a_request_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedSubmission):
        Submission.parse(raw)


def test_a_request_whose_checkpoint_is_no_note_is_refused() -> None:
    with pytest.raises(MalformedNote):
        Submission.parse(b"old 5\n\n" + head(9).body())


def test_a_request_whose_note_is_no_checkpoint_names_no_origin() -> None:
    text = b"just words\n"
    what = Submission(0, (), Note(text, (notes.sign(text, ORIGIN, LOG),)).encode())
    with pytest.raises(MalformedCheckpoint):
        what.claimed_origin()


def test_the_answer_is_read_as_cosignatures_over_what_was_submitted() -> None:
    lines = [cosign(head(9), name, one, AT) for name, one in zip(WITNESS_NAMES[:2], WITNESSES, strict=False)]
    answer = parse_cosignatures(encode_cosignatures(lines), head(9))
    assert [(held.name, held.at) for held in verify_cosignatures(answer, WITNESS_KEYS)] == [
        (name, AT) for name in WITNESS_NAMES[:2]
    ]
    with pytest.raises(InvalidNoteSignature):
        verify_cosignatures(parse_cosignatures(encode_cosignatures(lines), head(8)), WITNESS_KEYS)


@pytest.mark.parametrize("raw", [b"", b"\n", b"ok\n", encode_size(7), b"\xe2\x80\x94 w AAAAAAAA"])
def test_an_answer_without_signature_lines_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_cosignatures(raw, head(9))


def test_a_conflict_is_answered_with_the_size_alone() -> None:
    assert encode_size(20852014) == b"20852014\n"
    assert parse_size_answer(b"20852014\n") == 20852014
    for raw in (b"", b"\n", b"7", b"7\n\n", b"07\n", b" 7\n", b"seven\n", b"7\r\n"):
        with pytest.raises(MalformedSubmission):
            parse_size_answer(raw)


def test_an_origin_is_found_by_its_hash() -> None:
    assert origin_hash(ORIGIN) == sha256(b"ee.verbale.example/log/1").hexdigest()
