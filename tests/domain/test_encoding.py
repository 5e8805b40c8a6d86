"""Base64url has one spelling for each sequence of bytes."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import NonCanonicalEncoding

_ALPHABET = string.ascii_letters + string.digits + "-_"


def spelling(data: bytes) -> str:
    """The one spelling, by the standard library."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def lenient(text: str) -> bytes | None:
    """What a decoder gives that skips foreign characters and ignores spare bits; None: nothing at all."""
    try:
        return base64.b64decode(
            text.encode(errors="replace").translate(bytes.maketrans(b"-_", b"+/")) + b"==="
        )
    except ValueError:
        return None


def accepted(text: str | bytes) -> bytes | None:
    try:
        return b64u_decode(text)
    except NonCanonicalEncoding:
        return None


@given(st.binary(max_size=200))
def test_what_is_encoded_is_the_one_spelling_and_is_decoded(data: bytes) -> None:
    assert b64u_encode(data) == spelling(data)
    assert b64u_decode(spelling(data)) == data
    assert b64u_decode(spelling(data).encode()) == data


@given(
    st.text(st.sampled_from(_ALPHABET), max_size=12)
    | st.text(st.sampled_from(_ALPHABET + "+/= \n.é"), max_size=12)
)
def test_a_text_is_accepted_exactly_if_it_is_the_spelling_of_what_it_gives(text: str) -> None:
    data = accepted(text)
    loosely = lenient(text)
    assert (data is not None) == (loosely is not None and spelling(loosely) == text)
    assert data is None or data == loosely


def test_every_end_of_two_and_three_characters_is_judged_by_its_spare_bits() -> None:
    for end in (a + b for a in "Az-_" for b in _ALPHABET):
        for text in (end, "A" + end):
            loosely = base64.urlsafe_b64decode(text + "==")
            assert (accepted(text) is not None) == (spelling(loosely) == text), text


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AA==", "AAA=", "AAAA=", "AA A", "AAA\n", "AA+A", "AA/A", "=", "AA.A", "ÄÄÄÄ"]
)
def test_what_is_no_base64url_is_refused(text: str) -> None:
    assert accepted(text) is None
