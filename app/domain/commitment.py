"""A commitment binds a statement to a body part without showing anything of it.

``C = HMAC-SHA-256(key = salt, "verbale/commit/v1" 0x00 ‖ u16be(len id) ‖ id ‖ u16be(len part) ‖ part ‖ content)``

Hiding: under a secret uniform salt HMAC is a PRF, so C says nothing even about guessable content. Binding: two openings
are a SHA-256 collision. The id and the length prefixes stop a body from being moved to another notice or part.
Deleting content and salt together leaves C a random-looking string: that is what makes a notice erasable.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from app.domain.errors import CommitmentMismatch

SALT_BYTES = 32
_DOMAIN = b"verbale/commit/v1\x00"


def commit(salt: bytes, notice_id: str, part: str, content: bytes) -> bytes:
    """Return the 32-byte commitment to `content` as part `part` of statement `notice_id`.

    The salt must be 32 fresh bytes from the operating system for every part of every version; this function cannot
    check freshness.

    Raises:
        CommitmentMismatch: the salt does not have 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise CommitmentMismatch(f"A salt has {SALT_BYTES} bytes; this one has {len(salt)}.")
    id_bytes, part_bytes = notice_id.encode(), part.encode()
    message = b"".join(
        (
            _DOMAIN,
            len(id_bytes).to_bytes(2, "big"),
            id_bytes,
            len(part_bytes).to_bytes(2, "big"),
            part_bytes,
            content,
        )
    )
    return hmac.digest(salt, message, sha256)


def check_opening(commitment: bytes, salt: bytes, notice_id: str, part: str, content: bytes) -> None:
    """Check that (salt, content) opens `commitment`.

    Raises:
        CommitmentMismatch: it does not: the content was changed, the salt is wrong, or it is another notice's body.
    """
    if not hmac.compare_digest(commit(salt, notice_id, part, content), commitment):
        raise CommitmentMismatch(
            f"The part {part!r} does not open the statement's commitment: its content or salt was changed, or it belongs "
            "to another notice. Send the exact bytes and the salt that were signed for."
        )
