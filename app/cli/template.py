"""A notice to be filled in, made from the schema that nodes apply: it can never describe another shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from app.domain.errors import UnknownNoticeType
from app.domain.notices import NOTICE_TYPES, SCHEMA_VERSIONS, json_schemas

MAX_DEPTH: Final = 12
PLACEHOLDER: Final = "…"
_FIRST: Final = (
    "schema_version",
    "type",
    "issuer",
    "tlp",
    "audience",
    "caveats",
    "language",
    "title",
    "summary",
    "contact",
)


def template(notice_type: str, *, issuer: str = "", full: bool = False) -> dict[str, Any]:
    """The main part of a notice of a type, with placeholders.

    Args:
        issuer: alpha-2 code to fill in.
        full: with optional members too.

    Raises:
        UnknownNoticeType
    """
    if notice_type not in SCHEMA_VERSIONS:
        raise UnknownNoticeType(f"There is no notice type {notice_type!r}. Known: {', '.join(NOTICE_TYPES)}.")
    version = SCHEMA_VERSIONS[notice_type][-1]
    schema = json_schemas()[f"{notice_type}-{version}"]
    made: dict[str, Any] = _value(schema, schema.get("$defs", {}), full=full, depth=0)
    made |= {
        "schema_version": version,
        "type": notice_type,
        "tlp": "TLP:GREEN",
        "audience": "ALL",
        "language": "en",
    }
    made |= {"issuer": issuer} if issuer else {}
    return {name: made[name] for name in (*_FIRST, *made) if name in made}


def _value(schema: dict[str, Any], defs: dict[str, Any], *, full: bool, depth: int) -> Any:  # noqa: ANN401 - any JSON
    """A placeholder of the schema's shape: the first choice of an enumeration, today for a date, … for a text."""
    if "$ref" in schema:
        return _value(defs.get(schema["$ref"].rpartition("/")[2], {}), defs, full=full, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("oneOf", "anyOf", "allOf"):
        if schema.get(choice):
            return _value(schema[choice][0], defs, full=full, depth=depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _members(schema, defs, full=full, depth=depth)
    if kind == "array":
        wanted = schema.get("minItems", 0) > 0 or full
        items = schema.get("items")
        return (
            [_value(items, defs, full=full, depth=depth + 1)]
            if wanted and items and depth < MAX_DEPTH
            else []
        )
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return False
    return datetime.now(UTC).date().isoformat() if schema.get("format") == "date" else PLACEHOLDER


def _members(schema: dict[str, Any], defs: dict[str, Any], *, full: bool, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    return {
        name: _value(member, defs, full=full, depth=depth + 1)
        for name, member in schema.get("properties", {}).items()
        if name in required or (full and depth < MAX_DEPTH)
    }
