"""What contact points write: small true notices, signed, with every byte decided by the seed.

The shipped `app.statements` draws ids and salts from the operating system; a run that replays needs them from the seed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.commitment import commit
from app.domain.encoding import b64u_encode
from app.domain.json import canonical
from app.domain.keys import Ed25519Signer
from app.domain.signed import SignedNotice
from app.domain.statement import MAIN_MEDIA_TYPE, MAIN_PART, Part, PartCommitment, Statement, sign

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from app.domain.statement import Kind

ALL: Final = "ALL"
Main = Callable[[str], dict[str, Any]]
"""Makes a main part around a mark."""


@cache
def key(label: str) -> Ed25519Signer:
    """A key that is the same in every run: a run's outcome must not depend on it."""
    return Ed25519Signer(
        Ed25519PrivateKey.from_private_bytes(sha256(f"verbale simulation: {label}".encode()).digest())
    )


@dataclass(frozen=True, slots=True)
class Written:
    """One signed statement with its opened part.

    Attributes:
        audience: who may read its body: ALL or States. The issuer always may.
        mark: a text that stands in its body and nowhere else; "" if it has none.
    """

    statement: Statement
    parts: Mapping[str, Part]
    audience: str | frozenset[str]
    mark: str = ""

    def signed(self) -> SignedNotice:
        """As the local door takes it."""
        return SignedNotice(self.statement.leaf, dict(self.parts))

    def may_be_read_by(self, state: str, issuer: str) -> bool:
        """The gate's rule, stated once more and apart from the gate."""
        return state == issuer or self.audience == ALL or state in self.audience


@dataclass(slots=True)
class Officer:
    """The contact point of one State.

    Attributes:
        kid: of the key it signs with now.
        rotations: how often that was replaced.
        signer: the key, if it is not the one that belongs to `kid`: a thief's, a forger's.
        speaks_for: the issuer that bodies name, if it is another.
    """

    state: str
    origin: str
    rng: random.Random
    kid: str
    rotations: int = 0
    signer: Ed25519Signer | None = None
    speaks_for: str | None = None

    def issue(self, at: int, audience: str | frozenset[str]) -> Written:
        """A new notice."""
        return self._write("issue", at, audience, lambda mark: self._threat(mark, audience))

    def amend(self, at: int, of: Written, root: str, audience: str | frozenset[str]) -> Written:
        """A new version, handled as `audience` says from now on."""

        def main(mark: str) -> dict[str, Any]:
            body = {
                "amends": {"id": root, "hash": b64u_encode(of.statement.leaf_hash)},
                "change": {"replacement": self._threat(mark, audience)},
                "reason": "new_information",
            }
            return self._envelope("amendment", mark, audience, body)

        return self._write("amend", at, audience, main, ref=of.statement.leaf_hash)

    def withdraw(self, at: int, of: Written, root: str) -> Written:
        """The end of a notice."""

        def main(mark: str) -> dict[str, Any]:
            body = {
                "withdraws": {"id": root, "hash": b64u_encode(of.statement.leaf_hash)},
                "kind": "issued_in_error",
                "reason": "The party was mistaken for another.",
                "effective_on": "2026-11-01",
            }
            return self._envelope("withdrawal", mark, of.audience, body)

        return self._write("withdraw", at, of.audience, main, ref=of.statement.leaf_hash)

    def erase(self, at: int, of: Written) -> Written:
        """The order to forget a notice's contents."""
        return self._write("erase", at, ALL, None, ref=of.statement.leaf_hash)

    def acknowledge(self, at: int, of: Written, root: str) -> Written:
        """An acknowledgement of another State's notice, for its issuer and addressees."""
        audience = (
            of.audience if of.audience == ALL else frozenset(of.audience) | {of.statement.log[:2].upper()}
        )

        def main(mark: str) -> dict[str, Any]:
            body = {
                "notice": {"id": root, "hash": b64u_encode(of.statement.leaf_hash)},
                "state": "actioned",
                "measures": [{"kind": "licensing_alert", "date": "2026-10-01"}],
            }
            return self._envelope("acknowledgement", mark, audience, body)

        return self._write("ack", at, audience, main, ref=of.statement.leaf_hash)

    def _write(
        self,
        kind: Kind,
        at: int,
        audience: str | frozenset[str],
        main: Main | None,
        *,
        ref: bytes | None = None,
    ) -> Written:
        mark = "" if main is None else f"mark{self.rng.getrandbits(64):016x}"
        statement_id = self._uuid7(at)
        contents = {} if main is None else {MAIN_PART: canonical(main(mark))}
        parts = {name: Part(self.rng.randbytes(32), content) for name, content in contents.items()}
        named = [
            PartCommitment(name, MAIN_MEDIA_TYPE, commit(part.salt, statement_id, name, part.content))
            for name, part in parts.items()
        ]
        statement = sign(
            self.signer or key(self.kid),
            kid=self.kid,
            log=self.origin,
            statement_id=statement_id,
            kind=kind,
            iat=at,
            parts=named,
            ref=ref,
        )
        return Written(statement, parts, audience, mark)

    def _uuid7(self, at: int) -> str:
        raw = bytearray((at * 1000).to_bytes(6, "big") + self.rng.randbytes(10))
        raw[6], raw[8] = raw[6] & 15 | 0x70, raw[8] & 63 | 0x80
        return str(uuid.UUID(bytes=bytes(raw)))

    def _threat(self, mark: str, audience: str | frozenset[str]) -> dict[str, Any]:
        body = {
            "technology": {"name": mark, "description": "An implant.", "class": "intrusion_software"},
            "threat": "Sold to services without judicial oversight.",
            "concerns": [{"code": "HR-SURV-TARGET", "severity": "high"}],
            "maturity": "deployed",
            "confidence": {"level": "moderate", "basis": "government"},
        }
        return self._envelope("technology_threat", mark, audience, body)

    def _envelope(
        self, notice_type: str, mark: str, audience: str | frozenset[str], body: dict[str, Any]
    ) -> dict[str, Any]:
        everyone = audience == ALL
        return {
            "schema_version": "1.0.0",
            "type": notice_type,
            "issuer": self.speaks_for or self.state,
            "tlp": "TLP:GREEN" if everyone else "TLP:RED",
            "audience": ALL if everyone else sorted(audience),
            "caveats": [],
            "language": "en",
            "title": f"Notice {mark}",
            "summary": "A fictional notice.",
            "contact": {
                "role": "point_of_contact",
                "office": "Export control",
                "email": f"contact@{self.state.lower()}.example",
            },
            "body": body,
        }
