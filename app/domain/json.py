"""Strict JSON in, canonical JSON out.

Parsers differ on duplicate members, NaN, lone surrogates and depth, and a difference between two nodes' parsers would
split their verdicts. So everything that was signed passes `parse_strict`, and everything that must have one spelling
passes `canonical` (RFC 8785).
"""

from __future__ import annotations

import json
from typing import Any

import orjson
import rfc8785

from app.domain.errors import MalformedJson

MAX_DEPTH = 32
"""Notices need about ten levels; thirty-two leaves room and keeps every recursive reader far from its stack's end."""

MAX_NUMBER_LENGTH = 40
"""Longer numerals only serve to make big-integer parsing slow."""

JsonValue = Any
"""None, bool, int, float, str, list or dict with string keys."""


def _no_duplicates(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        name = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]  # add returns None
        raise MalformedJson(f"The member {name!r} appears twice in one JSON object. Keep one.")
    return members


def _no_constant(name: str) -> JsonValue:
    raise MalformedJson(f"{name} is not JSON. Use null or leave the member out.")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise MalformedJson(f"A number has more than {MAX_NUMBER_LENGTH} digits.")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_bounded_int
)


def _is_deeper(value: JsonValue, levels: int) -> bool:
    """Whether a parsed value has more than `levels` levels of objects and lists. Breadth first, so never recursive."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not level:
            return False
        level = [
            member
            for container in level
            for member in (container.values() if type(container) is dict else container)
            if type(member) is dict or type(member) is list
        ]
    return bool(level)


def parse_strict(raw: bytes, *, max_depth: int = MAX_DEPTH) -> JsonValue:
    """Parse one JSON text.

    Raises:
        MalformedJson: bad UTF-8, a byte order mark, duplicate members, NaN or Infinity, lone surrogates, numbers of
            absurd length, more than `max_depth` levels, or anything after the value.
    """
    try:
        # Refuses bad UTF-8, NaN, lone surrogates, trailing text and more than 1,024 levels; keeps the last duplicate.
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"This is not JSON: {error}.") from error
    # Fewer brackets than levels allowed, wherever they stand, is the common case; counting them is a search in C.
    if raw.count(b"{") + raw.count(b"[") > max_depth and _is_deeper(value, max_depth):
        raise MalformedJson(f"The JSON is nested deeper than {max_depth} levels.")
    # If sorting members and writing them again gives the same bytes, no member was dropped: the common case, as our own
    # tools write canonical JSON. Otherwise a second parser looks for duplicates.
    if orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == raw:
        return value
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedJson(f"This is not JSON: {error}.") from error


def canonical(value: JsonValue) -> bytes:
    """Serialise per RFC 8785 (JSON Canonicalization Scheme).

    Raises:
        MalformedJson: the value has no canonical form (NaN, integers beyond 2^53, non-string keys).
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise MalformedJson(f"This value has no canonical JSON form: {error}.") from error
