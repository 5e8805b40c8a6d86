"""Signed notes: one spelling, no trust without a signature."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidSignature, Malformed, NonCanonicalEncoding, UnacceptableKey
from app.domain.keys import Es256Signer
from app.tlog import note as notes
from app.tlog.note import (
    InvalidNoteSignature,
    MalformedNote,
    MalformedVerifierKey,
    NoKnownSignature,
    Note,
    Signature,
    VerifierKey,
)
from tests.tlog.keys import LOG, LOG_KEY, ORIGIN, OTHER

TEXT = "Ognuno sta solo sul cuor della terra\n\ned è subito sera.\n".encode()
SIGNED = Note(TEXT, (notes.sign(TEXT, ORIGIN, LOG),))
RAW = SIGNED.encode()
LINE = RAW[len(TEXT) + 1 :]

# C2SP signed-note, "Example".
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH"
    "3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()


def test_the_example_of_the_specification_verifies() -> None:
    key = VerifierKey.parse(C2SP_VKEY)
    (held,) = notes.verify(notes.parse(C2SP_NOTE), [key])
    assert (held.name, held.key_id.hex(), key.encode()) == ("example.com/foo", "530d903a", C2SP_VKEY)


def test_a_signed_note_is_read_back_and_verified() -> None:
    note = notes.parse(RAW)
    assert note == SIGNED
    assert note.text == TEXT
    assert notes.verify(note, [LOG_KEY]) == SIGNED.signatures


@given(
    st.lists(
        st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=30),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_can_be_signed_and_read_back(lines: list[str]) -> None:
    text = ("\n".join(lines) + "\n").encode()
    raw = Note(text, (notes.sign(text, ORIGIN, LOG),)).encode()
    note = notes.parse(raw)
    assert note.text == text
    assert note.encode() == raw
    notes.verify(note, [LOG_KEY])


@given(st.binary(max_size=300))
def test_whatever_is_accepted_has_one_spelling(raw: bytes) -> None:
    for candidate in (raw, TEXT + b"\n" + raw, RAW + raw):
        try:
            note = notes.parse(candidate)
        except MalformedNote:
            continue
        assert note.encode() == candidate


def test_no_flipped_bit_goes_unseen() -> None:
    for at in range(len(RAW)):
        for bit in range(8):
            bent = RAW[:at] + bytes([RAW[at] ^ 1 << bit]) + RAW[at + 1 :]
            with pytest.raises((Malformed, InvalidSignature)):
                notes.verify(notes.parse(bent), [LOG_KEY])


def test_no_truncated_note_is_accepted() -> None:
    for length in range(len(RAW)):
        with pytest.raises((Malformed, InvalidSignature)):
            notes.verify(notes.parse(RAW[:length]), [LOG_KEY])


ID_AND_SIGNATURE = SIGNED.signatures[0].key_id + SIGNED.signatures[0].value
B64 = b64encode(ID_AND_SIGNATURE)
NAME = ORIGIN.encode()
DASH = "—".encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="a newline"),
        pytest.param(TEXT, id="no signatures"),
        pytest.param(TEXT + b"\n", id="a blank line and no signatures"),
        pytest.param(TEXT + LINE, id="the last blank line is inside the text"),
        pytest.param(b"\n" + LINE, id="no text"),
        pytest.param(RAW[:-1], id="no final newline"),
        pytest.param(RAW + b"\n", id="a blank line at the end"),
        pytest.param(RAW + b"more\n", id="a line that is no signature"),
        pytest.param(RAW.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\xef\xbb\xbf" + RAW[:20] + b"\x00" + RAW[20:], id="NUL in the text"),
        pytest.param(b"a\tb\n\n" + LINE, id="tab in the text"),
        pytest.param(b"a\x1bb\n\n" + LINE, id="escape in the text"),
        pytest.param(b"\xff\n\n" + LINE, id="text not UTF-8"),
        pytest.param(b"\xed\xa0\x80\n\n" + LINE, id="a surrogate in UTF-8"),
        pytest.param(b"\xc0\x8a\n\n" + LINE, id="an overlong newline"),
        pytest.param(TEXT + b"\n" + DASH + b" \xff " + B64 + b"\n", id="name not UTF-8"),
        pytest.param(TEXT + b"\n-- " + NAME + b" " + B64 + b"\n", id="hyphens for the dash"),
        pytest.param(TEXT + "\n– ".encode() + NAME + b" " + B64 + b"\n", id="en dash"),
        pytest.param(TEXT + b"\n" + DASH + NAME + b" " + B64 + b"\n", id="no space after the dash"),
        pytest.param(TEXT + b"\n" + DASH + b"  " + NAME + b" " + B64 + b"\n", id="two spaces after the dash"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b"  " + B64 + b"\n", id="two spaces after the name"),
        pytest.param(
            TEXT + b"\n" + DASH + b" " + NAME + b" " + B64 + b" \n", id="space at the end of the line"
        ),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b"\n", id="no signature bytes"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" \n", id="empty base64"),
        pytest.param(TEXT + b"\n" + DASH + b" " + B64 + b"\n", id="no name"),
        pytest.param(TEXT + b"\n" + DASH + b" a+b " + B64 + b"\n", id="plus in the name"),
        pytest.param(
            TEXT + b"\n" + DASH + " a\u00a0b ".encode() + B64 + b"\n", id="no-break space in the name"
        ),
        pytest.param(TEXT + b"\n" + DASH + " a\u2003b ".encode() + B64 + b"\n", id="em space in the name"),
        pytest.param(
            TEXT + b"\n" + DASH + " a\u2028b ".encode() + B64 + b"\n", id="line separator in the name"
        ),
        pytest.param(TEXT + b"\n" + DASH + " a\u0085b ".encode() + B64 + b"\n", id="next line in the name"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" AAAA\n", id="three bytes: not even a key id"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" AAAAAA==\n", id="a key id and no signature"),
        pytest.param(
            TEXT + b"\n" + DASH + b" " + NAME + b" " + B64.rstrip(b"=") + b"\n", id="base64 without padding"
        ),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" " + B64 + b"====\n", id="too much padding"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" AAAAAAB=\n", id="spare bits in base64"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" AAAA_AAA\n", id="base64url"),
        pytest.param(TEXT + b"\n" + DASH + b" " + NAME + b" AAAAAAA=AAAA\n", id="padding in the middle"),
        pytest.param(TEXT + b"\n" + LINE * 257, id="257 signatures"),
        pytest.param(b"x" * notes.MAX_NOTE_SIZE + b"\n\n" + LINE, id="too large"),
    ],
)
def test_what_is_not_a_note_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedNote):
        notes.parse(raw)


def test_64_signatures_are_read() -> None:
    assert len(notes.parse(TEXT + b"\n" + LINE * 64).signatures) == 64


def test_a_note_with_only_unknown_keys_is_refused() -> None:
    unknown = Note(TEXT, (notes.sign(TEXT, ORIGIN, OTHER), notes.sign(TEXT, "elsewhere", LOG)))
    with pytest.raises(NoKnownSignature, match=ORIGIN):
        notes.verify(unknown, [LOG_KEY])
    with pytest.raises(NoKnownSignature, match="nobody"):
        notes.verify(SIGNED, [])


def test_unknown_signatures_are_ignored_also_when_they_share_a_name_or_an_id() -> None:
    same_name = notes.sign(TEXT, ORIGIN, OTHER)
    same_id = Signature("elsewhere", LOG_KEY.key_id, b"\x00" * 64)
    note = Note(TEXT, (same_name, same_id, *SIGNED.signatures))
    assert notes.verify(notes.parse(note.encode()), [LOG_KEY]) == SIGNED.signatures


def test_a_bad_signature_by_a_known_key_spoils_the_note() -> None:
    bad = Signature(ORIGIN, LOG_KEY.key_id, b"\x00" * 64)
    for lines in ((bad,), (*SIGNED.signatures, bad), (bad, *SIGNED.signatures)):
        with pytest.raises(InvalidNoteSignature, match=LOG_KEY.key_id.hex()):
            notes.verify(Note(TEXT, lines), [LOG_KEY])


def test_a_signature_of_the_wrong_length_does_not_hold() -> None:
    for value in (SIGNED.signatures[0].value[:-1], SIGNED.signatures[0].value + b"\x00", b"x"):
        with pytest.raises(InvalidNoteSignature):
            notes.verify(Note(TEXT, (Signature(ORIGIN, LOG_KEY.key_id, value),)), [LOG_KEY])


def test_a_key_that_signed_twice_counts_once() -> None:
    assert notes.verify(Note(TEXT, SIGNED.signatures * 2), [LOG_KEY]) == SIGNED.signatures


def test_signatures_come_in_the_order_of_the_note() -> None:
    other = notes.sign(TEXT, "other", OTHER)
    keys = [LOG_KEY, VerifierKey("other", OTHER.public)]
    assert notes.verify(Note(TEXT, (other, *SIGNED.signatures)), keys) == (other, *SIGNED.signatures)


def test_a_text_that_no_note_can_carry_is_not_signed() -> None:
    for text in (b"", b"no newline", b"tab\t\n", b"\xff\n"):
        with pytest.raises(ValueError):
            notes.sign(text, ORIGIN, LOG)


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_verifier_key_is_read_back() -> None:
    assert VerifierKey.parse(LOG_KEY.encode()) == LOG_KEY


VKEY = LOG_KEY.encode()
VKEY_ID, VKEY_B64 = VKEY.split("+", 2)[1:]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(ORIGIN, id="a name alone"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}", id="no key"),
        pytest.param(f"+{VKEY_ID}+{VKEY_B64}", id="no name"),
        pytest.param(f"other+{VKEY_ID}+{VKEY_B64}", id="another name"),
        pytest.param(f"{ORIGIN}+00000000+{VKEY_B64}", id="another id"),
        pytest.param(f"{ORIGIN}+{VKEY_ID.upper()}+{VKEY_B64}", id="upper case id"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}0+{VKEY_B64}", id="id too long"),
        pytest.param(f"{ORIGIN}++{VKEY_B64}", id="no id"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}+{VKEY_B64[:-4]}", id="key too short"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}+AAAA{VKEY_B64}", id="key too long"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}+{VKEY_B64}\n", id="newline at the end"),
        pytest.param(f"{ORIGIN}+{VKEY_ID}+B{VKEY_B64[1:]}", id="another type"),
        pytest.param(f"a b+{VKEY_ID}+{VKEY_B64}", id="space in the name"),
    ],
)
def test_what_is_not_a_verifier_key_is_refused(text: str) -> None:
    if text != VKEY:  # an id of digits only has no upper case
        with pytest.raises(MalformedVerifierKey):
            VerifierKey.parse(text)


def test_a_small_order_key_is_refused_even_under_its_right_id() -> None:
    with pytest.raises(UnacceptableKey):
        VerifierKey.parse(notes.encode_vkey(ORIGIN, notes.ED25519, b"\x01" + b"\x00" * 31))


def test_only_ed25519_keys_with_proper_names_make_notes() -> None:
    for name in ("", "a b", "a+b", "a\nb", "a\x00b", "a\u2003b"):
        with pytest.raises(ValueError, match="cannot name"):
            VerifierKey(name, LOG.public)
    with pytest.raises(ValueError, match="Ed25519"):
        notes.sign(TEXT, ORIGIN, Es256Signer.generate())


@given(st.binary(max_size=40))
def test_base64_has_one_spelling(raw: bytes) -> None:
    try:
        data = notes.b64_decode(raw)
    except NonCanonicalEncoding:
        return
    assert b64encode(data) == raw
