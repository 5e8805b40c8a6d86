"""Bodies at rest: what is stored opens with its own key, at its own place, and with nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.at_rest import fresh_key, seal, unseal
from app.domain.errors import BodyUnreadable
from app.domain.statement import Part

KEY = bytes(range(32))
PART = Part(b"s" * 32, b'{"title":"An invented notice"}')


@given(content=st.binary(max_size=300), index=st.integers(0, 2**53), name=st.sampled_from(["main", "annex"]))
def test_what_is_sealed_opens_again(content: bytes, index: int, name: str) -> None:
    key = fresh_key()
    part = Part(b"\x07" * 32, content)
    assert unseal(key, index, name, seal(key, index, name, part)) == part


def test_the_form_is_fixed() -> None:
    """Stored ciphertext must open in every later version: these bytes may not change."""
    assert seal(KEY, 7, "main", Part(b"s" * 32, b"{}")).hex() == (
        "87128cf421e06184866fd90482d063760e3ef467ba37723dc92eba40c8177c3da097088b5d25a6ce1a3e5f20ca27fb0c50a5"
    )


def test_no_byte_of_what_is_stored_can_be_changed() -> None:
    sealed = seal(KEY, 7, "main", PART)
    for at in range(len(sealed)):
        with pytest.raises(BodyUnreadable):
            unseal(KEY, 7, "main", sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])


def test_it_opens_nowhere_else() -> None:
    sealed = seal(KEY, 7, "main", PART)
    for key, index, part in (
        (bytes(32), 7, "main"),
        (KEY, 8, "main"),
        (KEY, 7, "annex"),
        (b"short", 7, "main"),
    ):
        with pytest.raises(BodyUnreadable, match=f"Part {part} of the body at index {index}"):
            unseal(key, index, part, sealed)


def test_parts_of_one_leaf_and_equal_parts_of_two_look_unrelated() -> None:
    seen = {seal(KEY, 7, "main", PART), seal(KEY, 7, "annex", PART), seal(fresh_key(), 7, "main", PART)}
    assert len(seen) == 3
    assert not any(PART.content in sealed for sealed in seen)
