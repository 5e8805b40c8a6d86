"""A commitment opens to one content only, under its own id and part, and shows nothing of it."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.commitment import check_opening, commit
from app.domain.errors import CommitmentMismatch

SALT = bytes(range(32))


def test_the_exact_bytes() -> None:
    """As docs/protocol.md writes them, by another hand."""
    message = b"verbale/commit/v1\x00" + b"\x00\x02id" + b"\x00\x04main" + b"content"
    assert commit(SALT, "id", "main", b"content") == hmac.new(SALT, message, sha256).digest()


def test_lengths_keep_id_part_and_content_apart() -> None:
    """Without them the three would be one text, and a body could be moved to another notice."""
    made = {
        commit(SALT, notice_id, part, content)
        for notice_id, part, content in [
            ("ab", "c", b"d"),
            ("a", "bc", b"d"),
            ("a", "b", b"cd"),
            ("abc", "", b"d"),
        ]
    }
    assert len(made) == 4


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_only_the_content_that_was_committed_to_opens_it(content: bytes, other: bytes) -> None:
    made = commit(SALT, "id", "main", content)
    check_opening(made, SALT, "id", "main", content)
    if other != content:
        with pytest.raises(CommitmentMismatch):
            check_opening(made, SALT, "id", "main", other)


@pytest.mark.parametrize(
    ("salt", "notice_id", "part"),
    [
        (SALT[::-1], "id", "main"),
        (SALT, "other", "main"),
        (SALT, "id", "scan"),
        (SALT[:31], "id", "main"),
        (b"", "id", "main"),
    ],
)
def test_another_salt_id_or_part_does_not_open_it(salt: bytes, notice_id: str, part: str) -> None:
    made = commit(SALT, "id", "main", b"content")
    with pytest.raises(CommitmentMismatch):
        check_opening(made, salt, notice_id, part, b"content")


def test_a_short_salt_with_zeros_behind_it_is_not_the_long_one() -> None:
    """HMAC pads its key with zeros: without a fixed length, two salts would be one."""
    with pytest.raises(CommitmentMismatch):
        commit(SALT[:31], "id", "main", b"content")
    with pytest.raises(CommitmentMismatch):
        commit(SALT + b"\x00", "id", "main", b"content")


def test_one_content_under_two_salts_gives_two_commitments_that_share_nothing() -> None:
    one, two = commit(SALT, "id", "main", b"EE"), commit(SALT[::-1], "id", "main", b"EE")
    differing = sum((a ^ b).bit_count() for a, b in zip(one, two, strict=True))
    assert 80 < differing < 176
