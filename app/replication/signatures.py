"""Requests between nodes: RFC 9421 message signatures with the node's transport key.

Covered: method, authority, target URI and content digest (always, so that an empty body is said to be empty); parameters
created, keyid, nonce and tag. A request counts once: its nonce is kept until its window is over. Errors name what was
expected, the key id and the measured skew, since "signature invalid" has cost other federations weeks.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
)
from http_message_signatures import InvalidSignature as LibraryInvalidSignature
from http_message_signatures.exceptions import HTTPMessageSignaturesException
from sqlalchemy import bindparam, delete, insert
from sqlalchemy.exc import IntegrityError

from app.db import execute
from app.domain.errors import InvalidSignature, KeyNotActive, NotAllowed, NotAuthenticated, UnknownKey
from app.domain.statement import is_kid
from app.gate import Principal, peer
from app.models import NonceRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.db import Database
    from app.domain.keys import PublicKey, Signer
    from app.domain.roster import Roster

TAG: Final = "verbale"
LABEL: Final = "verbale"
COMPONENTS: Final = ("@method", "@authority", "@target-uri", "content-digest")
WINDOW_S: Final = 300
"""A signature counts this long before and after its `created`; documents have no such window, requests do."""


class SignatureReplayed(NotAuthenticated):
    """This very request was seen before."""

    code = "signature-replayed"


class SignatureTooOld(NotAuthenticated):
    """`created` is outside the window; the message gives the measured skew."""

    code = "signature-too-old"


class InvalidMessageSignature(NotAuthenticated):
    """The message signature is missing something, or does not hold."""

    code = "invalid-message-signature"


@dataclass(slots=True)
class _Message:
    """The shape the library wants of a request."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


class _Ed25519(HTTPSignatureAlgorithm):
    """Our own key objects behind the library's algorithm interface, so that admission and strictness are ours."""

    algorithm_id = "ed25519"

    def __init__(self, public_key: PublicKey | None = None, private_key: object = None) -> None:
        self._key = public_key
        self._private = private_key

    def verify(self, signature: bytes, message: bytes) -> None:
        assert self._key is not None  # noqa: S101 - the resolver below always gives one
        self._key.verify(signature, message)


def fresh_nonce() -> str:
    """128 bits from the operating system."""
    return secrets.token_urlsafe(16)


def sign_request(
    method: str, url: str, body: bytes, *, signer: Signer, kid: str, at: int, nonce: str | None = None
) -> dict[str, str]:
    """The headers that make a request a signed one.

    Args:
        url: the absolute URL as the peer knows itself in the roster.
        at: unix seconds.
        nonce: by default a fresh one.
    """
    message = _Message(method, url)
    library = HTTPMessageSigner(signature_algorithm=_Ed25519)
    prepared = library.prepare(
        message,
        key_id=kid,
        created=datetime.datetime.fromtimestamp(at, datetime.UTC),
        nonce=nonce or fresh_nonce(),
        label=LABEL,
        tag=TAG,
        covered_component_ids=COMPONENTS,
        body=body,
    )
    library.apply(message, prepared, signer.sign(prepared.signature_base))
    return message.headers


class _Resolver(HTTPSignatureKeyResolver):
    """Looks a key id up in the roster; remembers which State it belongs to."""

    def __init__(self, roster: Roster, at: int) -> None:
        self._roster, self._at = roster, at
        self.kid = ""

    def resolve_public_key(self, key_id: str) -> PublicKey:
        self.kid = key_id
        if not is_kid(key_id):
            raise UnknownKey(f"The key id {key_id[:40]!r} does not look like EE/transport/1.")
        key = self._roster.require_key(key_id[:2], key_id, ("transport",))
        key.check_active(at=self._at, index=None)
        return key.key


class _Verifier(HTTPMessageVerifier):
    """The library's verifier without its clock: the window is checked here, against the node's clock."""

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:  # noqa: ANN401 - the library's types
        """Left to `authenticate_peer`."""


def authenticate_peer(
    db: Database, *, method: str, url: str, headers: Mapping[str, str], body: bytes, roster: Roster, now: int
) -> Principal:
    """Who signed this request.

    Args:
        url: the absolute URL under this node's public URL; what the peer must have signed for.
        headers: lower-case names.
        now: unix ms.

    Raises:
        InvalidMessageSignature, SignatureTooOld, SignatureReplayed: the request.
        UnknownKey, WrongKeyUse, KeyNotActive, NotAllowed: the key or the State.
    """
    at = now // 1000
    resolver = _Resolver(roster, at)
    verifier = _Verifier(signature_algorithm=_Ed25519, key_resolver=resolver)
    try:
        result = verifier.verify(
            _Message(method, url, dict(headers)),
            max_age=None,
            expect_tag=TAG,
            require_components=COMPONENTS,
            body=body,
        )[0]
    except (LibraryInvalidSignature, HTTPMessageSignaturesException) as error:
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error.__cause__
        if (
            isinstance(cause, UnknownKey | KeyNotActive | NotAllowed)
            or getattr(cause, "code", "") == "wrong-key-use"
        ):
            raise cause from error  # type: ignore[misc]  # an exception by the check
        detail = str(cause) if isinstance(cause, InvalidSignature) else str(error)
        raise InvalidMessageSignature(
            f"The message signature does not hold: {detail} Expected components {', '.join(COMPONENTS)} over {method} {url}, "
            f"tag {TAG!r}, key {resolver.kid or 'unknown'}."
        ) from error
    created, nonce = result.parameters.get("created"), result.nonce
    if not isinstance(created, int) or not nonce or len(nonce) > 64:  # noqa: PLR2004 - width of the column
        raise InvalidMessageSignature(
            "The message signature needs the parameters created and nonce (at most 64 characters)."
        )
    skew = created - at
    if abs(skew) > WINDOW_S:
        raise SignatureTooOld(
            f"The request was signed {abs(skew)} seconds {'ahead of' if skew > 0 else 'behind'} this node's clock; the window is "
            f"{WINDOW_S} seconds. Set the clock of {resolver.kid[:2]}'s node, and sign each request anew."
        )
    state = resolver.kid[:2]
    if roster.states[state].status != "member":
        raise NotAllowed(f"{state} is {roster.states[state].status} in the roster.")
    _count_once(db, resolver.kid, nonce, expires=now + 2 * WINDOW_S * 1000, now=now)
    return peer(state, resolver.kid)


_FORGET: Final = delete(NonceRow.__table__).where(NonceRow.__table__.c.expires_at < bindparam("now"))  # type: ignore[arg-type]  # a mapped class's __table__
_COUNT: Final = insert(NonceRow.__table__)  # type: ignore[arg-type]  # a mapped class's __table__


def _count_once(db: Database, kid: str, nonce: str, *, expires: int, now: int) -> None:
    try:
        with db.write() as session:
            execute(session, _FORGET, now=now)
            execute(session, _COUNT, keyid=kid, nonce=nonce, expires_at=expires)
    except IntegrityError as error:
        raise SignatureReplayed(
            "This signed request was seen before. Sign each request anew, with a fresh nonce."
        ) from error


def target(public_url: str, path: str, query: str = "") -> str:
    """The absolute URL of a path of this node, as peers sign for it."""
    parts = urlsplit(public_url)
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else "")
