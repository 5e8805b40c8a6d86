"""API tokens of this State's member systems: made, shown once, checked, revoked.

Guarantees that only a SHA-256 hash of the 256-bit secret is stored (a random secret of that size needs no slow hash), that
every token expires within a year, and that an unknown, expired, revoked or altered token gives one and the same answer.
What a token may do is in its `Principal`; who may make one is left to the CLI: the operator at the node's machine.

A token is `vbl_<id>_<secret>`: the id is public and names it in logs, the prefix lets scanners find leaked ones.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import OperationalError

from app.db import fetch
from app.domain.encoding import b64u_encode
from app.domain.errors import MalformedRequest, NotAuthenticated, NotFound
from app.domain.handling import Tlp
from app.gate import SCOPES, Principal
from app.models import ApiTokenRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Scope

MAX_LIFETIME_MS: Final = 366 * 86_400_000
"""A forgotten token ends by itself."""

USED_EVERY_MS: Final = 60_000
"""`last_used_at` is for an operator who looks for unused tokens: a minute is exact enough and saves a write a request."""

_SECRET_BYTES = 32
_ID_BYTES = 9
log = logging.getLogger(__name__)

_TOKEN = re.compile(r"vbl_([0-9a-z]{18})_([A-Za-z0-9_-]{43})")
_ALTERED = "This API token is unknown, expired or revoked. Ask this node's operator for a new one."


@dataclass(frozen=True, slots=True)
class Token:
    """What may be shown of a token. Times are unix ms."""

    id: str
    name: str
    scopes: frozenset[str]
    ceiling: Tlp
    created_at: int
    expires_at: int
    revoked_at: int | None
    last_used_at: int | None

    @classmethod
    def of(cls, row: Any) -> Token:  # noqa: ANN401 - an ApiTokenRow, or a row with its columns
        """Read a row."""
        return cls(
            row.id,
            row.name,
            frozenset(row.scopes.split()),
            Tlp(row.ceiling),
            row.created_at,
            row.expires_at,
            row.revoked_at,
            row.last_used_at,
        )


def create(
    session: Session, *, name: str, scopes: Iterable[str], ceiling: Tlp, expires_at: int, now_ms: int
) -> tuple[Token, str]:
    """Make a token; the second value is its text, which cannot be shown again.

    Raises:
        MalformedRequest: no name, no or an unknown scope, an expiry in the past or more than a year away.
    """
    wanted = frozenset(scopes)
    if not 0 < len(name) <= 100:  # noqa: PLR2004 - the column
        raise MalformedRequest("A token has a name of 1 to 100 characters that says which system holds it.")
    if not wanted or not wanted <= set(SCOPES):
        raise MalformedRequest(f"A token has at least one scope out of: {', '.join(SCOPES)}.")
    if not now_ms < expires_at <= now_ms + MAX_LIFETIME_MS:
        raise MalformedRequest("A token expires in the future and within a year.")
    secret = b64u_encode(secrets.token_bytes(_SECRET_BYTES))
    row = ApiTokenRow(
        id=secrets.token_hex(_ID_BYTES),
        name=name,
        secret_hash=_hash(secret),
        scopes=" ".join(s for s in SCOPES if s in wanted),
        ceiling=int(ceiling),
        created_at=now_ms,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return Token.of(row), f"vbl_{row.id}_{secret}"


def listed(session: Session) -> list[Token]:
    """All tokens, newest first, revoked and expired ones included."""
    rows = session.scalars(select(ApiTokenRow).order_by(ApiTokenRow.created_at.desc(), ApiTokenRow.id))
    return [Token.of(row) for row in rows]


def exist_with(session: Session, scope: Scope, *, now_ms: int) -> bool:
    """Whether some token that counts has a scope."""
    counting = session.scalars(
        select(ApiTokenRow.scopes).where(ApiTokenRow.revoked_at.is_(None), ApiTokenRow.expires_at > now_ms)
    )
    return any(scope in scopes.split() for scopes in counting)


def revoke(session: Session, token_id: str, *, now_ms: int) -> Token:
    """End a token now. Revoking twice keeps the first time.

    Raises:
        NotFound: no such token.
    """
    row = session.get(ApiTokenRow, token_id)
    if row is None:
        raise NotFound(f"There is no token {token_id}. `verbale token list` shows all.")
    if row.revoked_at is None:
        row.revoked_at = now_ms
        session.flush()
    return Token.of(row)


_BY_ID: Final = select(ApiTokenRow.__table__).where(ApiTokenRow.__table__.c.id == bindparam("id"))


def authenticate(db: Database, text: str, *, state: str, now_ms: int) -> Principal:
    """The caller that a token's text stands for; that it was used is noted.

    Args:
        db: of this node.
        text: what stood after `Bearer`.
        state: this node's State, on whose behalf the token asks.
        now_ms: unix ms.

    Raises:
        NotAuthenticated: malformed, unknown, altered, expired or revoked; the sentence does not say which.
    """
    with db.read() as session:
        token = held(session, text, now_ms=now_ms)
    note_use(db, token, now_ms=now_ms)
    return principal(token, state)


def held(session: Session, text: str, *, now_ms: int) -> Token:
    """The token that a text is, as a snapshot has it.

    Raises:
        NotAuthenticated: see `authenticate`.
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise NotAuthenticated(_ALTERED)
    row = next(iter(fetch(session, _BY_ID, id=match[1])), None)
    stored = row.secret_hash if row is not None else b"\0" * 32
    # The text is hashed, not what it decodes to: spare bits of base64url would give one token two texts.
    genuine = hmac.compare_digest(stored, _hash(match[2]))
    if row is None or not genuine or row.revoked_at is not None or row.expires_at <= now_ms:
        raise NotAuthenticated(_ALTERED)
    return Token.of(row)


def note_use(db: Database, token: Token, *, now_ms: int) -> None:
    """Write down when a token was used, once in USED_EVERY_MS."""
    if token.last_used_at is not None and token.last_used_at > now_ms - USED_EVERY_MS:
        return
    try:
        with db.write() as session:
            session.execute(update(ApiTokenRow).where(ApiTokenRow.id == token.id).values(last_used_at=now_ms))
    except OperationalError:  # a full disk must not stop reading; the time of use is only a convenience
        log.warning("use of a token not noted", extra={"action": "token_use_not_noted"})


def principal(token: Token, state: str) -> Principal:
    """What a token of this State may do."""
    return Principal("token", state, int(token.ceiling), token.scopes, token.id)


def _hash(secret_text: str) -> bytes:
    return sha256(secret_text.encode()).digest()
