"""`/v1/feed`: everything that happened, in order, from any place on; by long poll, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from app.deps import CurrentReader
from app.domain.errors import InvalidFilter, VerbaleError
from app.domain.events import EVENT_TYPES
from app.edge import ABORT
from app.notify.feed import Item, Position, View, cursor_of
from app.notify.hub import NEWEST, Closing, FeedHub
from app.problems import base_url, document
from app.queries.filters import NoticeFilter
from app.routers.notices import documented_filters, page_parameters
from app.schemas.feed import FeedOut

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from app.gate import Principal
    from app.notify.hub import Seat

router = APIRouter(prefix="/v1/feed", tags=["feed"])

LONGEST_WAIT_SECONDS: Final = 60
"""Below what proxies cut off as idle."""

PAGE: Final = 100
"""Events of one look of a stream, about 70 kB: what a consumer that reads slowly costs."""

_OWN: Final = frozenset({"event_type", "live", "wait"})


def hub_of(request: Request) -> FeedHub:
    """The hub of this process."""
    hub: FeedHub = request.app.state.feed
    return hub


Hub = Annotated[FeedHub, Depends(hub_of)]


@dataclass(frozen=True, slots=True)
class _Asked:
    filters: NoticeFilter
    types: frozenset[str]
    live_only: bool
    wait: int
    limit: int
    cursor: str | None

    def view(self, principal: Principal) -> View:
        return View.shared(principal, self.filters, self.types, live_only=self.live_only)


def _asked(request: Request) -> _Asked:
    """What the query string asks for.

    Raises:
        InvalidFilter: unknown parameters, or values outside their vocabulary.
    """
    pairs, limit, cursor = page_parameters(request)
    types = frozenset(value for name, value in pairs if name == "event_type")
    if unknown := sorted(types - set(EVENT_TYPES)):
        raise InvalidFilter(f"{unknown[0]!r} is no type of event. Use: {', '.join(EVENT_TYPES)}.")
    own = {name: [value for given, value in pairs if given == name] for name in ("live", "wait")}
    if any(len(values) > 1 for values in own.values()):
        raise InvalidFilter("live and wait may be given once only.")
    live = own["live"] or ["false"]
    if live[0] not in ("true", "false"):
        raise InvalidFilter("live is true or false.")
    wait = own["wait"] or ["0"]
    if not (wait[0].isascii() and wait[0].isdigit() and int(wait[0][:9]) <= LONGEST_WAIT_SECONDS):
        raise InvalidFilter(f"wait is a whole number of seconds from 0 to {LONGEST_WAIT_SECONDS}.")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    filters = NoticeFilter.parse((name, value) for name, value in pairs if name not in _OWN)
    return _Asked(filters, types, live[0] == "true", int(wait[0]), limit, cursor)


MAX_LIMIT: Final = 1_000


def _parameter(name: str, doc: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": doc, "schema": schema}


_EVENT_TYPE: Final = _parameter(
    "event_type", "Only these; repeat it.", {"type": "array", "items": {"enum": list(EVENT_TYPES)}}
) | {"explode": True}
_LIVE: Final = _parameter(
    "live", "true: without the history that a first catch-up with a log brought.", {"type": "boolean"}
)
_CURSOR: Final = _parameter(
    "cursor",
    "`next` of an answer, or `cursor` of an item; or `oldest` (the default) or `newest`.",
    {"type": "string"},
)
_LIMIT: Final = _parameter(
    "limit", "Most items.", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100}
)
_WAIT: Final = _parameter(
    "wait",
    "Seconds to wait for the first item.",
    {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS, "default": 0},
)


@router.get(
    "",
    response_model=FeedOut,
    openapi_extra={"parameters": [*documented_filters(), _EVENT_TYPE, _LIVE, _CURSOR, _LIMIT, _WAIT]},
)
async def get_feed(request: Request, hub: Hub, principal: CurrentReader) -> Response:
    """What happened after a cursor, in order. With `wait`, the answer comes when there is something, or time is over.

    Keep `next` and send it as `cursor`: nothing is left out and nothing comes twice. A filter selects events by the notice
    they are about, as it stands now; `resync-needed` (410) says that this node cannot go on from your cursor.
    """
    asked = _asked(request)
    after, newest = await hub.begin(asked.cursor)
    items, after, newest = await _page(hub, principal, asked, after, newest)
    if not items and asked.wait:
        deadline = asyncio.get_running_loop().time() + asked.wait
        with hub.seat(principal) as seat:
            while not items:
                left = deadline - asyncio.get_running_loop().time()
                try:
                    came = await hub.beyond(after.seq, left) if left > 0 else None
                except Closing:
                    break
                if came is None:
                    break
                items, after, newest = await _page(hub, seat.now(), asked, after, came)
    body = b'{"items":[%b],"next":%b,"more":%b}' % (
        b",".join(_with_cursor(hub, item) for item in items),
        orjson.dumps(cursor_of(hub.setup, after)),
        b"true" if after.seq < newest else b"false",
    )
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _page(
    hub: FeedHub, principal: Principal, asked: _Asked, after: Position, newest: int
) -> tuple[tuple[Item, ...], Position, int]:
    """The first items up to `newest`, the place behind them, and `newest`."""
    while after.seq < newest:
        span = await hub.span(principal, asked.view(principal), after, newest, limit=asked.limit)
        after = span.upto
        if span.items:
            return span.items, after, newest
    return (), after, newest


def _with_cursor(hub: FeedHub, item: Item) -> bytes:
    return b'{"cursor":%b,%b' % (orjson.dumps(cursor_of(hub.setup, item.position)), item.json[1:])


@router.get(
    "/stream",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    openapi_extra={"parameters": [*documented_filters(), _EVENT_TYPE, _LIVE, _CURSOR]},
)
async def get_stream(request: Request, hub: Hub, principal: CurrentReader) -> Response:
    """The feed as server-sent events: `id` is the cursor, `event` the type, `data` the item. Begins now.

    With `Last-Event-ID`, or `cursor`, it goes on from there. A stream that has to end for a reason of yours says so in an
    event named `problem`; one that merely breaks off is resumed with the last `id`.
    """
    asked = _asked(request)
    cursor = request.headers.get("last-event-id") or asked.cursor or NEWEST
    after, _ = await hub.begin(cursor)
    return EventStream(hub, principal, asked, after, base_url(request))


class EventStream(Response):
    """Server-sent events until the consumer goes away, takes too long, or has been served for an hour.

    The next page is asked for when the last one is on its way: the server's own buffer and one page are all that a
    consumer costs that reads slowly or not at all.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        hub: FeedHub,
        principal: Principal,
        asked: _Asked,
        after: Position,
        url: str,
    ) -> None:
        """Nothing is sent before it is called."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._hub, self._principal, self._asked, self._after, self._url = hub, principal, asked, after, url
        self._patience = hub.patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        sending = asyncio.ensure_future(self._serve(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            outcomes = await asyncio.gather(sending, leaving, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, TimeoutError):
                scope.get(ABORT, lambda: None)()  # it would wait for ever to hand over what it holds
                await _gone(receive)
            elif isinstance(outcome, Exception):
                raise outcome

    async def _serve(self, send: Send) -> None:
        headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                async with asyncio.timeout(self._patience.send):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncGenerator[bytes]:
        try:
            with self._hub.seat(self._principal) as seat:
                yield b"retry: 3000\n" + self._place()
                async with aclosing(self._events(seat)) as events:
                    async for piece in events:
                        yield piece
        except Closing:
            return
        except VerbaleError as problem:
            yield b"event: problem\ndata: " + orjson.dumps(document(problem, self._url)) + b"\n\n"

    async def _events(self, seat: Seat) -> AsyncGenerator[bytes]:
        clock = asyncio.get_running_loop().time
        life = self._patience.peer_life if self._principal.kind == "peer" else self._patience.life
        end = clock() + life
        while clock() < end:
            newest = await self._hub.beyond(self._after.seq, self._patience.heartbeat)
            principal = seat.now()
            if newest is None:
                yield b": heartbeat\n" + self._place()
                continue
            view = self._asked.view(principal)
            span = await self._hub.span(principal, view, self._after, newest, limit=PAGE)
            self._after = span.upto
            if span.items:
                yield b"".join(_event(self._hub, item) for item in span.items)

    def _place(self) -> bytes:
        """Moves the consumer's `Last-Event-ID` without telling anything: it need not come back over what was not for it."""
        return b"id: %b\n\n" % cursor_of(self._hub.setup, self._after).encode()


def _event(hub: FeedHub, item: Item) -> bytes:
    cursor = cursor_of(hub.setup, item.position).encode()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor, item.type.encode(), item.json)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
