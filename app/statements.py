"""Building and signing notices, for whoever holds a contact point's key: the CLI, the demo, a State's own client.

Guarantees that every statement has a fresh id and every part a fresh salt, and that what is signed is exactly the bytes
that are returned. Leaves to others: whether the notice follows its schema and the roster lists the key; the node judges
that, and `forejudge` tells beforehand what it would say. Nothing here is sent anywhere.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.domain.commitment import SALT_BYTES, commit
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import Malformed, MalformedStatement
from app.domain.json import canonical
from app.domain.judge import VerifiedStatement, judge_main
from app.domain.notices import apply_amendment
from app.domain.notices.fields import MAX_TITLE
from app.domain.statement import MAIN_MEDIA_TYPE, MAIN_PART, Part, PartCommitment, parse, sign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.domain.keys import Signer
    from app.domain.statement import Kind

Wire = dict[str, Any]
"""`{"statement": compact JWS, "parts": {name: {"salt", "content"}}}`, base64url: what a node takes and keeps."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One more part beside `main`. `main` must list it under `attachments`."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def uuid7(at: int | None = None) -> str:
    """A fresh UUIDv7 (RFC 9562 section 5.7): 48 bits of unix ms, the rest random.

    Args:
        at: unix ms; by default the system's clock.
    """
    raw = bytearray((time.time_ns() // 1_000_000 if at is None else at).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def sign_notice(
    main: Mapping[str, Any] | bytes | None,
    signer: Signer,
    kid: str,
    origin: str,
    *,
    kind: Kind = "issue",
    ref: bytes | str | None = None,
    exp: int | None = None,
    attachments: Sequence[Attachment] = (),
    at: int | None = None,
) -> Wire:
    """Make, commit to and sign one statement.

    Args:
        main: the main part, as an object (written as canonical JSON) or as exact bytes; None for an erasure.
        ref: leaf hash of the version acted on, 32 bytes or base64url; for amend, withdraw, ack and erase.
        exp: unix seconds at which the notice ends by itself.
        at: unix seconds claimed as the time of signing; by default the system's clock.

    Raises:
        MalformedStatement: the values do not make a valid statement.
        MalformedJson: `main` has no canonical form.
    """
    statement_id = uuid7(None if at is None else at * 1000)
    at = int(time.time()) if at is None else at
    contents: list[tuple[str, str, bytes]] = []
    if main is not None:
        contents.append(
            (MAIN_PART, MAIN_MEDIA_TYPE, main if isinstance(main, bytes) else canonical(dict(main)))
        )
    contents += [(a.name, a.media_type, a.content) for a in attachments]
    commitments, parts = [], {}
    for name, media_type, content in contents:
        salt = os.urandom(SALT_BYTES)
        commitments.append(PartCommitment(name, media_type, commit(salt, statement_id, name, content)))
        parts[name] = {"salt": b64u_encode(salt), "content": b64u_encode(content)}
    if len(parts) != len(contents):
        raise MalformedStatement("Two parts have the same name.")
    statement = sign(
        signer,
        kid=kid,
        log=origin,
        statement_id=statement_id,
        kind=kind,
        iat=at,
        parts=commitments,
        exp=exp,
        ref=b64u_decode(ref) if isinstance(ref, str) else ref,
    )
    return {"statement": statement.leaf.decode("ascii"), "parts": parts}


def forejudge(wire: Wire) -> None:
    """Judge a notice's content as a node would, taking the key and the log as given. Needs no roster.

    Raises:
        Refused: what the node would answer.
    """
    statement = parse(wire["statement"].encode("ascii"))
    parts = {
        name: Part(b64u_decode(part["salt"]), b64u_decode(part["content"]))
        for name, part in wire["parts"].items()
    }
    # The signer's State is the issuer if the roster says so, which is for the node to find out.
    judge_main(VerifiedStatement(statement, statement.kid[:2]), parts)


# ── what follows a notice ─────────────────────────────────────────────────────────────────────────────────────────


def _reference(notice: Mapping[str, Any]) -> dict[str, str]:
    return {"id": notice["id"], "hash": notice["leaf_hash"]}


def _envelope(
    document: Mapping[str, Any], notice_type: str, title: str, body: dict[str, Any]
) -> dict[str, Any]:
    """A main part handled as `document` is."""
    kept = ("issuer", "tlp", "audience", "caveats", "language", "contact")
    return {
        "schema_version": "1.0.0",
        "type": notice_type,
        **{name: document[name] for name in kept if name in document},
        "title": f"{title}: {document['title']}"[:MAX_TITLE].strip(),
        "summary": f"{title} of the notice “{document['title']}”.",
        "body": body,
    }


def amendment(
    notice: Mapping[str, Any], replacement: Mapping[str, Any], *, reason: str, explanation: str | None = None
) -> dict[str, Any]:
    """The main part that replaces a notice's document by `replacement`, handled as the replacement is.

    Args:
        notice: as `GET /v1/notices/{id}` answers.
        replacement: the full new document.
        reason: correction, new_information, renewal or status_change.

    Raises:
        Malformed: the replacement lacks what every notice has, or cannot follow the current version.
    """
    body: dict[str, Any] = {
        "amends": _reference(notice),
        "change": {"replacement": dict(replacement)},
        "reason": reason,
    }
    if explanation is not None:
        body["explanation"] = explanation
    _require(replacement)
    main = _envelope(replacement, "amendment", "Amendment", body)
    apply_amendment(notice["document"], main)
    return main


def withdrawal(notice: Mapping[str, Any], *, kind: str, reason: str, effective_on: str) -> dict[str, Any]:
    """The main part that ends a notice.

    Args:
        notice: as `GET /v1/notices/{id}` answers.
        kind: revoked, issued_in_error, delisted, superseded or expired.
        effective_on: ISO date.
    """
    body = {"withdraws": _reference(notice), "kind": kind, "reason": reason, "effective_on": effective_on}
    return _envelope(_document(notice), "withdrawal", "Withdrawal", body)


def acknowledgement(
    notice: Mapping[str, Any], *, issuer: str, state: str, contact: Mapping[str, str], note: str | None = None
) -> dict[str, Any]:
    """The main part by which `issuer` acknowledges a notice, handled as the notice is.

    Args:
        notice: as `GET /v1/notices/{id}` answers.
        state: received, under_review, actioned, no_action or cannot_share.
        contact: role, office and email of the acknowledging office.
    """
    body: dict[str, Any] = {"notice": _reference(notice), "state": state}
    if note is not None:
        body["note"] = note
    return _envelope(
        {**_document(notice), "issuer": issuer, "contact": dict(contact)},
        "acknowledgement",
        "Acknowledgement",
        body,
    )


def _document(notice: Mapping[str, Any]) -> Mapping[str, Any]:
    document: Mapping[str, Any] | None = notice.get("document")
    if document is None:
        raise Malformed(
            "This node shows no document of that notice: it is erased, or its newest version is not for this State."
        )
    return document


def _require(document: Mapping[str, Any]) -> None:
    missing = [
        name for name in ("issuer", "tlp", "audience", "language", "title", "contact") if name not in document
    ]
    if missing:
        raise Malformed(
            f"The new document lacks {', '.join(missing)}. Give the whole document, not only what changes."
        )
