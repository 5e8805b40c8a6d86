"""`/feed.atom` and `/feed.json`: the notices that changed last, for feed readers. `/v1/feed` is for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from app.deps import CurrentNode, CurrentReader
from app.domain.errors import InvalidFilter
from app.queries.filters import NoticeFilter
from app.queries.newest import newest
from app.routers.notices import documented_filters, page_parameters
from app.schemas.syndication import ATOM_TYPE, JSON_TYPE, atom, json_feed

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.deps import Node
    from app.gate import Principal

router = APIRouter(tags=["feed"])

MAX_LIMIT: Final = 200
"""Entries of one answer: feed readers fetch all of it each time."""

SETTLED_MS: Final = 2_000
"""A change so recent may be followed by another in the same second, which a date could not tell from it."""

_LIMIT: Final = {
    "name": "limit",
    "in": "query",
    "required": False,
    "description": "Most entries.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50},
}


def _extra(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "response_class": Response,
        "responses": {
            200: {"content": {media_type: {"schema": schema}}, "description": "The feed"},
            304: {"description": "Nothing has changed since"},
        },
        "openapi_extra": {"parameters": [*documented_filters(), _LIMIT]},
    }


@router.get("/feed.atom", **_extra(ATOM_TYPE, {"type": "string"}))
def get_atom(request: Request, node: CurrentNode, principal: CurrentReader) -> Response:
    """The newest issued, amended and withdrawn notices that the caller may read, as Atom (RFC 4287). Filters narrow them."""
    return _answer(request, node, principal, atom, ATOM_TYPE)


@router.get("/feed.json", **_extra(JSON_TYPE, {"type": "object"}))
def get_json(request: Request, node: CurrentNode, principal: CurrentReader) -> Response:
    """The same as a JSON Feed 1.1."""
    return _answer(request, node, principal, json_feed, JSON_TYPE)


def _answer(
    request: Request, node: Node, principal: Principal, made: Callable[..., bytes], media_type: str
) -> Response:
    pairs, limit, cursor = page_parameters(request)
    if cursor is not None:
        raise InvalidFilter("A feed has no pages: it shows the newest. Use GET /v1/notices, or GET /v1/feed.")
    if "limit" not in request.query_params:
        limit = 50
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    now = node.clock()
    with node.db.read() as session:
        entries = newest(session, principal, NoticeFilter.parse(pairs), limit=limit, now_ms=now)
    body = made(entries, node.settings.public_url, request.url.query)
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    # What a caller may see is its own: no cache between us keeps it, and each use of a copy is asked for.
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    last: datetime | None = None
    if entries and now - entries[0][0] >= SETTLED_MS:
        last = datetime.fromtimestamp(entries[0][0] // 1000, UTC)
        headers["Last-Modified"] = format_datetime(last, usegmt=True)
    if _has_it(request, etag, last):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _has_it(request: Request, etag: str, last: datetime | None) -> bool:
    """Whether the caller's copy is what it would be sent (RFC 9110 section 13.2.2: the tag decides if there is one)."""
    given = request.headers.get("if-none-match")
    if given is not None:
        tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
        return etag in tags or tags == ["*"]
    since = request.headers.get("if-modified-since")
    if since is None or last is None:
        return False
    try:
        date = parsedate_to_datetime(since)
    except ValueError:
        return False
    return last <= (date if date.tzinfo is not None else date.replace(tzinfo=UTC))
