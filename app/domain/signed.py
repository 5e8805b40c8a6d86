"""A signed notice as it travels between a contact point and its node: a statement and its opened parts, read, not judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from app.domain.encoding import b64u_decode
from app.domain.errors import MalformedRequest
from app.domain.json import parse_strict
from app.domain.statement import MAX_LEAF_BYTES, MAX_PARTS, Part

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class SignedNotice:
    """What came: a statement and its opened parts, read but not judged."""

    statement: bytes
    parts: Mapping[str, Part]


def read_signed(raw: bytes) -> SignedNotice:
    """Read one signed notice as it is posted, without judging it.

    Raises:
        MalformedJson: not strict JSON.
        MalformedRequest: not `{"statement": …, "parts": {name: {"salt": …, "content": …}}}`.
        NonCanonicalEncoding: a salt or content is not canonical base64url.
    """
    value = _parse(raw)
    if not isinstance(value, dict) or value.keys() != {"statement", "parts"}:
        raise MalformedRequest('A signed notice has exactly the members "statement" and "parts".')
    statement, parts = value["statement"], value["parts"]
    if not isinstance(statement, str) or not statement.isascii() or len(statement) > MAX_LEAF_BYTES:
        raise MalformedRequest(f'"statement" is a compact JWS: ASCII text of at most {MAX_LEAF_BYTES} bytes.')
    return SignedNotice(statement.encode("ascii"), read_parts(parts))


def read_parts(parts: object) -> dict[str, Part]:
    """Read the parts of a signed notice, or of a body that a node gave.

    Raises:
        MalformedRequest, NonCanonicalEncoding
    """
    if not isinstance(parts, dict) or len(parts) > MAX_PARTS:
        raise MalformedRequest(f'"parts" is an object of at most {MAX_PARTS} parts.')
    return {name: _part(name, part) for name, part in parts.items()}


def _parse(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    # Most posts are compact JSON; if writing what was read gives the same bytes, no duplicate member was lost. That is
    # several times faster than a second parser, and the second parser decides where it is not so.
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return parse_strict(raw)
    return value if orjson.dumps(value) == raw else parse_strict(raw)


def _part(name: str, part: object) -> Part:
    if not isinstance(part, dict) or part.keys() != {"salt", "content"}:
        raise MalformedRequest(f'Part {name[:32]!r} must have exactly the members "salt" and "content".')
    salt, content = part["salt"], part["content"]
    if not isinstance(salt, str) or not isinstance(content, str):
        raise MalformedRequest(f"Salt and content of part {name[:32]!r} are base64url texts.")
    return Part(b64u_decode(salt), b64u_decode(content))
