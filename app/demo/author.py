"""A contact point's officer: makes main parts into signed notices, as they are posted.

The private key stays in its file's signer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from app.domain.notices import KIND_OF_TYPE
from app.keyfiles import load_private
from app.statements import sign_notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.demo.found import FoundedNode
    from app.domain.keys import Signer


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
        wire = sign_notice(main, self.signer, self.kid, self.origin, kind=KIND_OF_TYPE[main["type"]], ref=ref)
        return orjson.dumps(wire)
