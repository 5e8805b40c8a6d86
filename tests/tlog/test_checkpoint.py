"""Checkpoints and cosignatures: exact bytes, exact origin, exact time."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSignature, Malformed
from app.tlog import note as notes
from app.tlog.checkpoint import (
    Checkpoint,
    MalformedCheckpoint,
    UnexpectedOrigin,
    open_checkpoint,
    parse_size,
    sign_checkpoint,
)
from app.tlog.cosignature import (
    CosignerKey,
    cosign,
    cosigned_at,
    cosigned_message,
    verify_cosignatures,
    with_cosignatures,
)
from app.tlog.merkle import EMPTY_ROOT, MAX_TREE_SIZE
from app.tlog.note import (
    InvalidNoteSignature,
    MalformedVerifierKey,
    NoKnownSignature,
    Note,
    Signature,
    VerifierKey,
)
from tests.tlog.keys import LOG, LOG_KEY, ORIGIN, OTHER, WITNESS_KEYS, WITNESS_NAMES, WITNESSES

ROOT = bytes(range(32))
HEAD = Checkpoint(ORIGIN, 20852163, ROOT)
SIGNED = sign_checkpoint(HEAD, LOG)
RAW = SIGNED.encode()
B64 = b64encode(ROOT)
AT = 1_679_315_147
COSIGNED = with_cosignatures(SIGNED, [cosign(HEAD, WITNESS_NAMES[0], WITNESSES[0], AT)])


def test_the_body_is_three_lines() -> None:
    assert (
        HEAD.body() == b"ee.verbale.example/log/1\n20852163\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    )


def test_a_signed_checkpoint_opens() -> None:
    assert open_checkpoint(RAW, [LOG_KEY], ORIGIN) == (HEAD, SIGNED)


@given(st.integers(0, MAX_TREE_SIZE), st.binary(min_size=32, max_size=32))
def test_any_checkpoint_is_read_back(size: int, root: bytes) -> None:
    head = Checkpoint(ORIGIN, size, root)
    assert Checkpoint.parse(head.body()) == head


@given(st.binary(max_size=120))
def test_whatever_is_accepted_has_one_spelling(text: bytes) -> None:
    for candidate in (text, HEAD.body() + text, ORIGIN.encode() + b"\n" + text + b"\n" + B64 + b"\n"):
        try:
            head = Checkpoint.parse(candidate)
        except MalformedCheckpoint:
            continue
        assert head.body() == candidate


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"a\n1\n", id="two lines"),
        pytest.param(b"a\n1\n" + B64, id="no final newline"),
        pytest.param(b"a\n1\n" + B64 + b"\n\n", id="a blank line"),
        pytest.param(b"a\n1\n" + B64 + b"\nextension\n", id="an extension line"),
        pytest.param(b"\n1\n" + B64 + b"\n", id="no origin"),
        pytest.param(b"a b\n1\n" + B64 + b"\n", id="space in the origin"),
        pytest.param(b"a+b\n1\n" + B64 + b"\n", id="plus in the origin"),
        pytest.param(b"\xff\n1\n" + B64 + b"\n", id="origin not UTF-8"),
        pytest.param(b"a" * 256 + b"\n1\n" + B64 + b"\n", id="origin too long"),
        pytest.param(b"a\n\n" + B64 + b"\n", id="no size"),
        pytest.param(b"a\n01\n" + B64 + b"\n", id="leading zero"),
        pytest.param(b"a\n00\n" + B64 + b"\n", id="two zeroes"),
        pytest.param(b"a\n+1\n" + B64 + b"\n", id="plus sign"),
        pytest.param(b"a\n-1\n" + B64 + b"\n", id="negative"),
        pytest.param(b"a\n1_0\n" + B64 + b"\n", id="underscore"),
        pytest.param(b"a\n 1\n" + B64 + b"\n", id="space before the size"),
        pytest.param(b"a\n1 \n" + B64 + b"\n", id="space after the size"),
        pytest.param(b"a\n0x1\n" + B64 + b"\n", id="hexadecimal"),
        pytest.param("a\n\u0661\n".encode() + B64 + b"\n", id="an Arabic digit"),
        pytest.param(b"a\n9223372036854775808\n" + B64 + b"\n", id="size of 2^63"),
        pytest.param(b"a\n" + b"1" * 5000 + b"\n" + B64 + b"\n", id="size of 5000 digits"),
        pytest.param(b"a\n1\n\n", id="no root"),
        pytest.param(b"a\n1\nAAAA\n", id="short root"),
        pytest.param(b"a\n1\n" + b64encode(b"x" * 33) + b"\n", id="long root"),
        pytest.param(b"a\n1\n" + B64[:-1] + b"\n", id="root without padding"),
        pytest.param(b"a\n1\n" + B64[:-2] + b"9=\n", id="spare bits in the root"),
        pytest.param(b"a\r\n1\r\n" + B64 + b"\r\n", id="CRLF"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedCheckpoint):
        Checkpoint.parse(text)


def test_no_flipped_bit_in_a_cosigned_checkpoint_goes_unseen() -> None:
    raw = COSIGNED.encode()
    for at in range(len(raw)):
        for bit in range(8):
            bent = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
            try:
                head, note = open_checkpoint(bent, [LOG_KEY], ORIGIN)
                held = verify_cosignatures(note, WITNESS_KEYS)
            except (Malformed, InvalidSignature, UnexpectedOrigin):
                continue
            # A witness whose name or key id was bent is simply unknown: its statement is lost, none is made up.
            assert (head, held) == (HEAD, ())


def test_a_checkpoint_of_another_log_is_refused_even_if_its_key_signed() -> None:
    other = Checkpoint("nl.verbale.example/log/1", 5, ROOT)
    raw = Note(other.body(), (notes.sign(other.body(), ORIGIN, LOG),)).encode()
    with pytest.raises(UnexpectedOrigin, match="checkpoint of nl"):
        open_checkpoint(raw, [LOG_KEY], ORIGIN)


def test_a_checkpoint_that_only_a_witness_signed_is_refused() -> None:
    raw = Note(HEAD.body(), COSIGNED.signatures[1:]).encode()
    with pytest.raises(NoKnownSignature):
        open_checkpoint(raw, [LOG_KEY], ORIGIN)


def test_a_cosignature_cannot_stand_for_the_logs_signature_under_one_key() -> None:
    raw = Note(HEAD.body(), (cosign(HEAD, ORIGIN, LOG, AT),)).encode()
    with pytest.raises(NoKnownSignature):
        open_checkpoint(raw, [LOG_KEY], ORIGIN)


def test_either_key_opens_a_checkpoint_while_a_log_key_is_replaced() -> None:
    keys = [LOG_KEY, VerifierKey(ORIGIN, OTHER.public)]
    assert open_checkpoint(sign_checkpoint(HEAD, OTHER).encode(), keys, ORIGIN)[0] == HEAD
    assert open_checkpoint(RAW, keys, ORIGIN)[0] == HEAD


def test_a_checkpoint_without_a_text_is_a_programming_mistake() -> None:
    for origin, size, root in (("", 1, ROOT), ("a", -1, ROOT), ("a", MAX_TREE_SIZE + 1, ROOT), ("a", 1, b"")):
        with pytest.raises(ValueError, match="no checkpoint"):
            Checkpoint(origin, size, root)


def test_the_longest_origin_is_accepted() -> None:
    head = Checkpoint("a" * 255, 1, ROOT)
    assert Checkpoint.parse(head.body()) == head


def test_sizes_have_one_spelling() -> None:
    assert [parse_size(text) for text in (b"0", b"7", b"9223372036854775807")] == [0, 7, MAX_TREE_SIZE]


# ── cosignatures ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_cosigned_message_is_the_one_of_the_specification() -> None:
    head = Checkpoint(
        "example.com/behind-the-sofa",
        20852163,
        notes.b64_decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="),
    )
    assert cosigned_message(head.body(), AT) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_a_cosignature_verifies_and_tells_its_time() -> None:
    _, note = open_checkpoint(COSIGNED.encode(), [LOG_KEY], ORIGIN)
    (held,) = verify_cosignatures(note, WITNESS_KEYS)
    assert (held.name, held.key_id, held.at) == (WITNESS_NAMES[0], WITNESS_KEYS[0].key_id, AT)
    assert held.signature == note.signatures[1]
    assert len(held.signature.value) == 72


def test_a_checkpoint_without_cosignatures_has_none() -> None:
    assert verify_cosignatures(SIGNED, WITNESS_KEYS) == ()


def test_a_cosignature_with_another_time_does_not_hold() -> None:
    line = COSIGNED.signatures[1]
    later = Signature(line.name, line.key_id, (AT + 1).to_bytes(8, "big") + line.value[8:])
    with pytest.raises(InvalidNoteSignature):
        verify_cosignatures(Note(HEAD.body(), (later,)), WITNESS_KEYS)


def test_a_cosignature_over_another_checkpoint_does_not_hold() -> None:
    other = Checkpoint(ORIGIN, HEAD.size + 1, ROOT)
    with pytest.raises(InvalidNoteSignature):
        verify_cosignatures(
            with_cosignatures(sign_checkpoint(other, LOG), COSIGNED.signatures[1:]), WITNESS_KEYS
        )


@pytest.mark.parametrize("at", [0, 2**63])
def test_a_time_out_of_range_does_not_hold_even_if_signed(at: int) -> None:
    value = at.to_bytes(8, "big") + WITNESSES[0].sign(cosigned_message(HEAD.body(), at))
    line = Signature(WITNESS_NAMES[0], WITNESS_KEYS[0].key_id, value)
    with pytest.raises(InvalidNoteSignature):
        verify_cosignatures(Note(HEAD.body(), (line,)), WITNESS_KEYS)
    with pytest.raises(ValueError, match="not a time"):
        cosign(HEAD, WITNESS_NAMES[0], WITNESSES[0], at)


def test_the_last_time_there_is_can_be_cosigned() -> None:
    line = cosign(HEAD, WITNESS_NAMES[0], WITNESSES[0], 2**63 - 1)
    (held,) = verify_cosignatures(Note(HEAD.body(), (line,)), WITNESS_KEYS)
    assert held.at == cosigned_at(line) == 2**63 - 1


@pytest.mark.parametrize("cut", [0, 7, 8, 64, 71])
def test_a_cosignature_of_the_wrong_length_does_not_hold(cut: int) -> None:
    line = COSIGNED.signatures[1]
    short = Signature(line.name, line.key_id, line.value[:cut])
    with pytest.raises(InvalidNoteSignature):
        verify_cosignatures(Note(HEAD.body(), (short,)), WITNESS_KEYS)


def test_the_logs_plain_signature_is_no_cosignature() -> None:
    key = CosignerKey(ORIGIN, LOG.public)
    assert key.key_id != LOG_KEY.key_id
    assert verify_cosignatures(SIGNED, [key]) == ()


def test_lines_are_added_once_per_key_with_the_latest_time_and_up_to_the_limit() -> None:
    lines = [
        cosign(HEAD, name, one, AT + late)
        for late in (5, 9, 7)
        for name, one in zip(WITNESS_NAMES, WITNESSES, strict=True)
    ]
    note = with_cosignatures(SIGNED, lines)
    assert [line.name for line in note.signatures] == [ORIGIN, *WITNESS_NAMES]
    assert {cosigned_at(line) for line in note.signatures[1:]} == {AT + 9}
    assert len(verify_cosignatures(note, WITNESS_KEYS)) == 3
    assert with_cosignatures(SIGNED, lines, limit=2).signatures == note.signatures[:3]


def test_a_note_stays_readable_with_more_cosigners_than_it_can_hold() -> None:
    lines = [cosign(HEAD, f"w{i}", WITNESSES[0], AT) for i in range(300)]
    assert len(with_cosignatures(SIGNED, lines).signatures) == 1 + 16
    full = with_cosignatures(SIGNED, lines, limit=400)
    assert notes.parse(full.encode()) == full
    assert len(full.signatures) == 256


def test_a_cosigner_key_is_read_back_and_is_not_a_log_key() -> None:
    assert CosignerKey.parse(WITNESS_KEYS[0].encode()) == WITNESS_KEYS[0]
    with pytest.raises(MalformedVerifierKey):
        CosignerKey.parse(LOG_KEY.encode())
    with pytest.raises(MalformedVerifierKey):
        VerifierKey.parse(WITNESS_KEYS[0].encode())


def test_the_empty_tree_has_a_checkpoint() -> None:
    head = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert open_checkpoint(sign_checkpoint(head, LOG).encode(), [LOG_KEY], ORIGIN)[0] == head
