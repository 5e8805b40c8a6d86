"""A contact point's officer: makes main parts into signed notices, as they are posted.

Guarantees a fresh id and a fresh salt for every notice. The private key stays in its file's signer.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.commitment import SALT_BYTES, commit
from app.domain.encoding import b64u_encode
from app.domain.json import canonical
from app.domain.notices import KIND_OF_TYPE
from app.domain.statement import MAIN_MEDIA_TYPE, MAIN_PART, PartCommitment, sign
from app.keyfiles import load_private

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.demo.found import FoundedNode
    from app.domain.keys import Signer

_VERSION_7: Final = 0x7000
_VARIANT: Final = 0x8000_0000_0000_0000


@dataclass(frozen=True, slots=True)
class Author:
    """Signs in the name of one State's contact point.

    Attributes:
        origin: of the State's log.
    """

    state: str
    origin: str
    kid: str
    signer: Signer

    @classmethod
    def of(cls, node: FoundedNode) -> Author:
        """The officer whose key was made with the node. Raises UnsafeKeyFile."""
        return cls(node.member.state, node.member.origin, node.contact_kid, load_private(node.contact_key))

    def sign(self, main: Mapping[str, Any], *, ref: bytes | None = None) -> bytes:
        """One line of JSON to post. The kind follows from the type; `ref` is the leaf hash acted on, 32 bytes.

        Raises:
            MalformedStatement: a `ref` is missing, or there is one where none may be.
        """
        content, salt, statement_id = canonical(dict(main)), os.urandom(SALT_BYTES), uuid7()
        statement = sign(
            self.signer,
            kid=self.kid,
            log=self.origin,
            statement_id=statement_id,
            kind=KIND_OF_TYPE[main["type"]],
            iat=int(time.time()),
            parts=[
                PartCommitment(MAIN_PART, MAIN_MEDIA_TYPE, commit(salt, statement_id, MAIN_PART, content))
            ],
            ref=ref,
        )
        return orjson.dumps(
            {
                "statement": statement.leaf.decode("ascii"),
                "parts": {MAIN_PART: {"salt": b64u_encode(salt), "content": b64u_encode(content)}},
            }
        )


def uuid7() -> str:
    """A fresh UUIDv7 (RFC 9562 section 5.7): milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    high = (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 16 | _VERSION_7 | random >> 68
    low = _VARIANT | random & 0x3FFF_FFFF_FFFF_FFFF
    return str(uuid.UUID(int=high << 64 | low))
