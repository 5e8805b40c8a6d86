"""`/v1/screenings`: is a party denied, was this transaction refused before, whom to ask and by when.

Nothing of what is asked leaves the node. What is kept of it says the setting `screening_record`; by default nothing is.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from app import tokens
from app.deps import CurrentNode, CurrentScreener, node_of, token_in
from app.domain.errors import NodeFault, TooLarge
from app.domain.json import parse_strict
from app.limits import body_pieces, read_body
from app.problems import base_url, document
from app.schemas.screenings import APPLICATION_SCHEMA, EXAMPLE_ANSWER, EXAMPLE_LINES
from app.screening import records
from app.screening.answering import DEFAULT_LIMIT, Answering, Options
from app.screening.application import read_application
from app.screening.batch import Asking, Batch, numbered
from app.screening.explain import MODEL
from app.screening.features import calibration
from app.screening.freshness import read_freshness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
    from typing import IO

    from sqlalchemy.orm import Session

    from app.deps import Node
    from app.gate import Principal
    from app.screening.answering import Answer
    from app.screening.batch import Kept, Window

router = APIRouter(prefix="/v1/screenings", tags=["screening"])

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"

SPOOLED: Final = 2**20
"""Bytes of a batch kept in memory; the rest waits in a file without a name, which ends with the request."""


def options_of(
    limit: Annotated[int, Query(description="hits shown of one party, 1 to 100")] = DEFAULT_LIMIT,
    threshold: Annotated[
        float | None, Query(description="least score of a hit, 0 to 1; by default the one shipped")
    ] = None,
    depth: Annotated[
        str | None,
        Query(description="of control codes: category, group, number (default), paragraph or exact"),
    ] = None,
    tolerance: Annotated[
        float | None, Query(description="by what part two parameters may differ; by default 0.1")
    ] = None,
) -> Options:
    """The caller's options; refuses what is out of range."""
    return Options.of(limit=limit, threshold=threshold, depth=depth, tolerance=tolerance)


CallersOptions = Annotated[Options, Depends(options_of)]


def answering_of(node: Node) -> Answering:
    """What answers at this node."""
    try:
        listed = node.roster().states.get(node.state)
    except NodeFault:
        listed = None  # reading goes on without a roster; a draft then says that its contact is missing
    return Answering(node.finder, node.state, listed.contact_point if listed else None)


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - a JSON value for orjson
    return Response(orjson.dumps(value), status, media_type=JSON, headers={"Cache-Control": "no-store"})


# ── one ───────────────────────────────────────────────────────────────────────────────────────────────────────────


SMALL: Final = 64 * 1024
"""Bytes of a body that is taken before it is known whose it is."""


class _Straight(APIRoute):
    """A route whose common request, a token and a small body and nothing else, goes straight to the answer.

    Guarantees what the long way guarantees. The long way (FastAPI's dependencies, two turns in the pool of threads, two
    snapshots) took a third of the time of a screening.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The long way for all but the common request."""
        long_way = super().get_route_handler()

        async def handle(request: Request) -> Response:
            headers = request.headers
            authorization, length = headers.get("authorization"), headers.get("content-length", "")
            if (
                authorization is None
                or "signature-input" in headers
                or request.scope["query_string"]
                or not (length.isdecimal() and int(length) <= SMALL)
            ):
                return await long_way(request)
            token, node = token_in(authorization), node_of(request)
            raw = await read_body(request.scope, request.receive, node.settings.max_body_bytes)
            return await run_in_threadpool(_screen_for, node, token, raw)

        return handle


def _screen_for(node: Node, text: str, raw: bytes) -> Response:
    """Who asks and what is answered, from one snapshot."""
    now, token = node.clock(), None
    try:
        with node.db.read() as session:
            token = tokens.held(session, text, now_ms=now)
            principal = tokens.principal(token, node.state)
            principal.require("screen")
            asked = parse_strict(raw)
            answer = _answered(node, principal, asked, Options(), session, now)
    finally:
        if token is not None:
            tokens.note_use(node.db, token, now_ms=now)
    return _shown(node, principal, asked, answer, now)


async def post_screening(request: Request, principal: CurrentScreener, options: CallersOptions) -> Response:
    """Screen one party, many, or a whole licence application. Scope `screen`.

    A party that was not understood says so in its place; if none was, the request is refused. `no_hit` says why a party
    has no hit, `freshness` what the answer rests on, `complete` whether anything was left out.
    """
    node = node_of(request)
    raw = await read_body(request.scope, request.receive, node.settings.max_body_bytes)
    return await run_in_threadpool(_screen_one, node, principal, raw, options)


router.add_api_route(
    "",
    post_screening,
    methods=["POST"],
    response_class=Response,
    responses={200: {"content": {JSON: {"example": EXAMPLE_ANSWER}}}},
    openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": APPLICATION_SCHEMA}}}},
    route_class_override=_Straight,
)


def _screen_one(node: Node, principal: Principal, raw: bytes, options: Options) -> Response:
    asked, now = parse_strict(raw), node.clock()
    with node.db.read() as session:
        answer = _answered(node, principal, asked, options, session, now)
    return _shown(node, principal, asked, answer, now)


def _answered(
    node: Node,
    principal: Principal,
    asked: Any,  # noqa: ANN401 - any JSON
    options: Options,
    session: Session,
    now: int,
) -> Answer:
    application = read_application(asked)
    freshness = read_freshness(session, _roster(node), now_ms=now)
    return answering_of(node).answer(session, principal, application, options, freshness, now_ms=now)


def _shown(node: Node, principal: Principal, asked: Any, answer: Answer, now: int) -> Response:  # noqa: ANN401 - any JSON
    wire = answer.wire()
    kept = _keep(node, principal, [(asked, len(answer.parties), answer.refs())], now)
    if kept:
        wire["record"] = kept[0]
    response = _json(wire)
    if kept:
        response.headers["Location"] = f"/v1/screenings/{kept[0]}"
    return response


def _roster(node: Node) -> Any:  # noqa: ANN401 - Roster | None
    try:
        return node.roster()
    except NodeFault:
        return None


def _keep(node: Node, principal: Principal, answers: Sequence[Kept], now: int) -> list[str]:
    if node.settings.screening_record == "none" or not answers:
        return []
    with node.db.write() as session:
        return records.keep(
            session,
            records.owner(principal),
            answers,
            whole=node.settings.screening_record == "full",
            days=node.settings.screening_record_days,
            now=now,
        )


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post(
    "/batch",
    response_class=Response,
    responses={200: {"content": {NDJSON: {"example": EXAMPLE_LINES}}}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {NDJSON: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def post_batch(
    request: Request,
    principal: CurrentScreener,
    options: CallersOptions,
    from_: Annotated[
        int, Query(alias="from", ge=1, description="first line to answer, to go on after a broken connection")
    ] = 1,
) -> Response:
    """Screen many applications, one a line (NDJSON); one answer a line, in order. Scope `screen`.

    `{"line": 1, "id": …, "status": 200, "screening": {…}}`, or `{"line": 2, "status": 422, "problem": {…}}`: a line that
    is wrong is answered as such and stops no other. The last line is `{"end": true, …}` with counts and freshness; if it
    is missing, send the same lines again with `?from=` one more than the last `line` that came.
    """
    node = node_of(request)
    lines = tempfile.SpooledTemporaryFile(max_size=SPOOLED)  # noqa: SIM115 - the answer's iterator closes it
    try:
        ended = await _spool(request, node, lines)
    except BaseException:
        lines.close()
        raise
    lines.seek(0)
    asking = Asking(principal, options, partial(document, base_url=base_url(request)), ended)
    batch = Batch(node.db, asking, lambda: answering_of(node), lambda: _roster(node), node.clock, first=from_)
    return StreamingResponse(
        _answers(node, batch, lines), media_type=NDJSON, headers={"Cache-Control": "no-store"}
    )


async def _spool(request: Request, node: Node, lines: IO[bytes]) -> bool:
    """Take the whole batch before its first answer; returns whether a line feed ended it.

    A client that sends everything before it reads would block, and so would we. Answers then go out as they are made.
    """
    count, ended, most = 0, True, node.settings.max_batch_lines
    async for piece in body_pieces(request.scope, request.receive, node.settings.max_batch_bytes):
        lines.write(piece)
        count += piece.count(b"\n")
        ended = piece.endswith(b"\n")
        if count > most:
            raise TooLarge(f"A batch has at most {most} lines. Send the rest in another.")
    return ended


async def _answers(node: Node, batch: Batch, lines: IO[bytes]) -> AsyncIterator[bytes]:
    """The answer's pieces, one window each."""
    windows = batch.windows(numbered(lines), node.crew)
    try:
        over = False
        while not over:
            window = await run_in_threadpool(_window, node, batch, windows)
            over = window.over
            yield window.answer
    finally:
        await run_in_threadpool(windows.close)
        lines.close()


def _window(node: Node, batch: Batch, windows: Generator[Window]) -> Window:
    window = next(windows)
    _keep(node, batch.asking.principal, window.screened, node.clock())
    return window


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("", response_class=Response)
def list_screenings(
    node: CurrentNode,
    principal: CurrentScreener,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=36)] = None,
) -> Response:
    """The calling token's screenings that were kept, newest first. Empty unless the setting `screening_record` says so."""
    with node.db.read() as session:
        items, following = records.listed(session, records.owner(principal), limit=limit, cursor=cursor)
        found = [records.wire(session, principal, row, now=node.clock()) for row in items]
    return _json({"items": found, "next": following})


@router.get("/thresholds", response_class=Response)
def get_thresholds(principal: CurrentScreener) -> Response:
    """What a threshold means: the part of clean names that reach it, for persons, organisations and both. Scope `screen`.

    Measured with names alone against one list; on a longer list more clean names reach a threshold.
    """
    del principal  # the same for everybody who may screen
    return _json({"model": MODEL, **calibration()})


@router.get("/{screening_id}", response_class=Response)
def get_screening(node: CurrentNode, principal: CurrentScreener, screening_id: str) -> Response:
    """One screening that was kept: what was asked, if that was kept, and which notices were found that may be seen today."""
    with node.db.read() as session:
        row = records.owned(session, records.owner(principal), screening_id)
        found = records.wire(session, principal, row, now=node.clock())
    return _json(found)


@router.delete("", status_code=204)
def forget_screenings(node: CurrentNode, principal: CurrentScreener) -> None:
    """Forget all screenings of the calling token."""
    with node.db.write() as session:
        records.forget_all(session, records.owner(principal))


@router.delete("/{screening_id}", status_code=204)
def forget_screening(node: CurrentNode, principal: CurrentScreener, screening_id: str) -> None:
    """Forget one screening."""
    with node.db.write() as session:
        session.delete(records.owned(session, records.owner(principal), screening_id))
