"""Notices: posting them and finding them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response

from app.deps import CurrentNode, CurrentReader, node_of
from app.domain.errors import InvalidFilter, Malformed, Refused, TooLarge, VerbaleError
from app.domain.signed import read_signed
from app.judging import FLOOD
from app.limits import body_pieces, read_body
from app.problems import base_url, document
from app.queries import notices as queries
from app.queries.filters import PARAMETERS, NoticeFilter
from app.schemas.notices import (
    NoticeOut,
    NoticesOut,
    ReceiptOut,
    ReceiptsOut,
    VersionsOut,
    receipt,
    signed_notice_schema,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.deps import Node
    from app.judging import Judged

router = APIRouter(prefix="/v1/notices", tags=["notices"])

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

WINDOW_LINES: Final = 512
WINDOW_BYTES: Final = 4 * 2**20
"""A batch is judged and stored in windows of so many lines or bytes, whichever is less: memory stays the same however
long the batch is, and one window fills one commit."""

JUDGED_AHEAD: Final = 2
"""Windows that may be judged while an earlier one is stored."""
FLOOD_BYTES: Final = 8 * 2**20
"""A batch that says it is larger than this is judged by worker processes from its first line on."""

_TRUNCATED: Final = (
    " This is the last line and no line feed ends it: the batch seems to be cut off. Send this line again."
)


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - a JSON value for orjson
    return Response(orjson.dumps(value), status, media_type=JSON)


def _body(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


# ── posting ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "",
    status_code=201,
    response_model=ReceiptOut,
    responses={200: {"model": ReceiptOut, "description": "The same bytes were here already"}},
    openapi_extra=_body(JSON, signed_notice_schema()),
)
async def post_notice(request: Request) -> Response:
    """Post one signed notice. The answer is sent only after it is durable."""
    node = node_of(request)
    raw = await read_body(request.scope, request.receive, node.settings.max_notice_bytes)
    answer = await node.submit(read_signed(raw))
    response = _json(receipt(answer), 201 if answer.created else 200)
    response.headers["Location"] = f"/v1/notices/{answer.id}"
    return response


@router.post(
    "/batch", response_class=Response, openapi_extra=_body(NDJSON, {"type": "string", "format": "binary"})
)
async def post_batch(request: Request) -> Response:
    """Post many signed notices, one a line (NDJSON); the answer has one line for each, in order.

    `{"line": 1, "status": 201, "receipt": {…}}`, or `{"line": 2, "status": 422, "problem": {…}}`. A refused line changes
    nothing and stops nothing. Lines are stored while the batch still arrives: after a broken connection send all of it
    again, what was stored answers 200.
    """
    # Not sent while the batch arrives: a client that sends everything before it reads would block, and so would we.
    answers = [window async for window in _answers(request)]
    return Response(b"".join(answers), media_type=NDJSON)


@dataclass(slots=True)
class _Window:
    """Lines that are judged together and stored in one commit."""

    first: int
    lines: list[bytes]
    ended: bool  # a line feed ended the last one
    judging: asyncio.Task[list[Judged | VerbaleError]]


async def _answers(request: Request) -> AsyncIterator[bytes]:
    """Answer windows in order. Judging runs ahead of storing, so that no core waits for another."""
    node, settings, url = node_of(request), node_of(request).settings, base_url(request)
    under_way: deque[_Window] = deque()
    window: list[bytes] = []
    first, size, ended = 1, 0, True
    flood = int(request.headers.get("content-length") or 0) > FLOOD_BYTES
    refused: Refused | None = None

    def judge() -> None:
        judging = asyncio.create_task(node.judge_posts(window, flood=flood or first > FLOOD))
        under_way.append(_Window(first, window, ended, judging))

    try:
        async for raw, whole in _lines(request, settings.max_batch_bytes, settings.max_notice_bytes):
            ended = whole
            if first + len(window) > settings.max_batch_lines:
                raise TooLarge(
                    f"A batch has at most {settings.max_batch_lines} lines. Send the rest in another."
                )
            window.append(raw)
            size += len(raw)
            if len(window) >= WINDOW_LINES or size >= WINDOW_BYTES:
                judge()
                first, size, window = first + len(window), 0, []
                if len(under_way) > JUDGED_AHEAD:
                    yield await _store(node, under_way.popleft(), url)
    except Refused as refusal:
        refused = refusal  # what came before this line is stored and answered; what follows it was not read
        ended = True
    if window:
        judge()
        first += len(window)
    while under_way:
        yield await _store(node, under_way.popleft(), url)
    if refused is not None:
        yield _line(first, refused, url)


async def _lines(request: Request, limit: int, line_limit: int) -> AsyncIterator[tuple[bytes, bool]]:
    """The lines of the body, and for each whether a line feed ended it. Blank lines are lines, and refused as such.

    Raises:
        TooLarge: the body or one line passes its limit.
    """
    rest = bytearray()
    async for piece in body_pieces(request.scope, request.receive, limit):
        rest += piece
        if b"\n" in piece:
            *whole, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in whole:
                yield line, True
        if len(rest) > line_limit:
            raise TooLarge(
                f"One line has more than {line_limit} bytes, which is this node's limit for a notice."
            )
    if rest:
        yield bytes(rest), False


async def _store(node: Node, window: _Window, url: str) -> bytes:
    """Store one window, judged or being judged; its answer lines."""
    judged = await window.judging
    if not window.ended and isinstance(judged[-1], Malformed):
        judged[-1] = type(judged[-1])(str(judged[-1]) + _TRUNCATED)
    try:
        answers = await node.record_posts(judged)
    except VerbaleError as busy:
        answers = [outcome if isinstance(outcome, VerbaleError) else busy for outcome in judged]
    return b"".join(_line(window.first + n, answer, url) for n, answer in enumerate(answers))


def _line(number: int, outcome: Any, url: str) -> bytes:  # noqa: ANN401 - Receipt | VerbaleError
    answer: dict[str, Any]
    if isinstance(outcome, VerbaleError):
        problem = document(outcome, url)
        answer = {"line": number, "status": problem["status"], "problem": problem}
    else:
        answer = {"line": number, "status": 201 if outcome.created else 200, "receipt": receipt(outcome)}
    return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)


# ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────────


def documented_filters() -> list[dict[str, Any]]:
    """The parameters of a `NoticeFilter`, for OpenAPI."""
    described: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "description": p.doc, "schema": {"type": "string"}}
        for name, p in PARAMETERS.items()
    ]
    for parameter, (_, filtered) in zip(described, PARAMETERS.items(), strict=True):
        if not filtered.single:
            parameter |= {"schema": {"type": "array", "items": {"type": "string"}}, "explode": True}
    return described


def _documented() -> list[dict[str, Any]]:
    limit = {"type": "integer", "minimum": 1, "maximum": queries.MAX_LIMIT, "default": queries.DEFAULT_LIMIT}
    return [
        *documented_filters(),
        {"name": "limit", "in": "query", "required": False, "schema": limit},
        {
            "name": "cursor",
            "in": "query",
            "required": False,
            "schema": {"type": "string"},
            "description": "`next` of a page.",
        },
    ]


def page_parameters(
    request: Request, known: frozenset[str] = frozenset()
) -> tuple[list[tuple[str, str]], int, str | None]:
    """Split a query string into the filter's pairs, the limit and the cursor.

    Args:
        request: the request.
        known: if given, the only other names allowed.

    Raises:
        InvalidFilter: limit or cursor given twice, limit not a number, or a name not in `known`.
    """
    pairs: list[tuple[str, str]] = []
    paging: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in ("limit", "cursor"):
            if known and name not in known:
                raise InvalidFilter(
                    f"{name!r} is no parameter here. Known: {', '.join(sorted(known | {'limit', 'cursor'}))}."
                )
            pairs.append((name, value))
        elif name in paging:
            raise InvalidFilter(f"{name} may be given once only.")
        else:
            paging[name] = value
    limit = paging.get("limit", str(queries.DEFAULT_LIMIT))
    if not limit.isascii() or not limit.isdigit() or len(limit) > 6:  # noqa: PLR2004 - far above the maximum
        raise InvalidFilter(f"limit is a whole number from 1 to {queries.MAX_LIMIT}.")
    return pairs, int(limit), paging.get("cursor")


@router.get("", response_model=NoticesOut, openapi_extra={"parameters": _documented()})
def list_notices(request: Request, node: CurrentNode, principal: CurrentReader) -> Response:
    """Find notices, newest arrival first.

    Values of a repeated parameter are alternatives, different parameters narrow each other. Without `status`, what is
    valid now is shown. Unknown parameters are refused.
    """
    pairs, limit, cursor = page_parameters(request)
    wanted = NoticeFilter.parse(pairs)
    with node.db.read() as session:
        page = queries.find(session, principal, wanted, limit=limit, cursor=cursor, now_ms=node.clock())
        items = queries.mark_suspects(session, node.roster(), page.items)
    return _json({"items": [item.wire() for item in items], "next": page.next, "total": page.total})


Origin = Annotated[str | None, Query(description="the log that is meant, where two States used one id")]


@router.get("/{notice_id}", response_model=NoticeOut)
def get_notice(
    notice_id: str, node: CurrentNode, principal: CurrentReader, origin: Origin = None
) -> Response:
    """One notice, by the id of any of its versions; withdrawn and expired ones too."""
    with node.db.read() as session:
        notice = queries.get(session, principal, notice_id, origin=origin, now_ms=node.clock())
        (notice,) = queries.mark_suspects(session, node.roster(), [notice])
    return _json(notice.wire())


@router.get("/{notice_id}/versions", response_model=VersionsOut)
def get_versions(
    request: Request,
    notice_id: str,
    node: CurrentNode,
    principal: CurrentReader,
    origin: Origin = None,
) -> Response:
    """The signed versions of a notice, oldest first. Each body is shown only to those whom that version was for."""
    _, limit, cursor = page_parameters(request, frozenset({"origin"}))
    with node.db.read() as session:
        notice = queries.get(session, principal, notice_id, origin=origin, now_ms=node.clock())
        items, following = queries.versions(session, principal, notice, limit=limit, cursor=cursor)
    return _json({"items": [item.wire() for item in items], "next": following})


@router.get("/{notice_id}/receipts", response_model=ReceiptsOut)
def get_receipts(
    notice_id: str, node: CurrentNode, principal: CurrentReader, origin: Origin = None
) -> Response:
    """Which States are proven to hold the notice, by cosignatures, and which acknowledged it."""
    roster = node.roster()
    with node.db.read() as session:
        notice = queries.get(session, principal, notice_id, origin=origin, now_ms=node.clock())
        states = queries.receipts(session, roster, notice)
        acknowledged = queries.acknowledgements(session, principal, notice)
        each = queries.version_receipts(session, roster, principal, notice, acknowledged)
    return _json(
        {
            "id": notice.id,
            "origin": notice.origin,
            "index": notice.index,
            "leaf_hash": notice.wire()["leaf_hash"],
            "states": [state.wire() for state in states],
            "versions": [version.wire() for version in each],
            "acknowledgements": [acknowledgement.wire() for acknowledgement in acknowledged],
        }
    )
