"""What a caller may make this node hold: bytes, headers, time.

Guarantees that whatever arrives is cut off at its limit while it arrives, compressed or not, and that a caller who sends
too slowly is refused instead of waited for. `Inflow` stands between the server and every route; `body_pieces` and
`read_body` are for routes that read their body themselves. What the bytes mean is left to others.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.domain.errors import Malformed, Refused, TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import Message, Receive, Scope

MAX_HEADER_BYTES: Final = 16 * 1024
"""Names and values of one request's header together. A signed request needs about 1 KiB."""

MAX_BODY_BYTES: Final = 4 * 2**20

GRACE_SECONDS: Final = 20.0
"""How long a body may take whatever its size."""

MIN_BYTES_PER_SECOND: Final = 8 * 1024
"""What a body has to bring on average once the grace is used up: a modem from the last century can."""

DRAIN_BYTES: Final = 32 * 2**20
DRAIN_SECONDS: Final = 5.0
"""How much of a refused body is read and thrown away. Closing at once would reset the connection, and the caller would
see that instead of the refusal."""

_PIECE: Final = 64 * 1024
_GZIP: Final = 31  # zlib's window bits for a gzip member with its header and checksum


class _AtReceive(HTTPException):
    """Base of refusals that arise while a body is received: FastAPI makes a 400 of any other kind of error there."""

    status: int

    def __init__(self, detail: str) -> None:
        super().__init__(self.status, detail)

    def __str__(self) -> str:
        return self.detail


class HeadersTooLarge(TooLarge):
    """The request's header passes the limit of this node."""

    code = "headers-too-large"


class BodyTooLarge(TooLarge, _AtReceive):
    """The request's body passes the limit of this node."""

    code = "too-large"
    status = 413


class TooSlow(Refused, _AtReceive):
    """The request's body came too slowly, or stopped coming."""

    code = "too-slow"
    status = 408


class UnsupportedEncoding(Malformed):
    """A Content-Encoding this node does not undo."""

    code = "unsupported-encoding"


class BadCompression(Malformed):
    """A body that says it is gzip and is not, or ends early."""

    code = "bad-compression"


def header_bytes(scope: Scope) -> int:
    """Size of a request's header as HTTP/1.1 would write it, near enough."""
    line = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def check_headers(scope: Scope, limit: int) -> None:
    """Check the size of a request's header.

    Raises:
        HeadersTooLarge: it has more than `limit` bytes.
    """
    if header_bytes(scope) > limit:
        raise HeadersTooLarge(
            f"The request's header has more than {limit} bytes. Leave out what is not needed, cookies first."
        )


class Inflow:
    """A request's `receive`, with a limit on bytes and on time. Call it as ASGI's `receive`.

    Only time spent waiting for the caller counts, not what the route takes between two calls.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        limit: int,
        *,
        grace_seconds: float = GRACE_SECONDS,
        bytes_per_second: int = MIN_BYTES_PER_SECOND,
    ) -> None:
        """Wrap `receive`; `limit` is for the bytes as sent."""
        self._receive, self._limit = receive, limit
        self._grace_seconds, self._bytes_per_second = grace_seconds, bytes_per_second
        self._declared = _declared_length(scope)
        self._sent = 0
        self._waited = 0.0
        self.over = False

    async def __call__(self) -> Message:
        """The next message.

        Raises:
            BodyTooLarge, TooSlow: see each.
        """
        if self.over:
            return (
                await self._receive()
            )  # nothing but a disconnect can come, and a stream may wait for that for hours
        if self._declared > self._limit:
            raise too_large(self._limit)
        allowed = self._grace_seconds + self._sent / self._bytes_per_second
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(max(allowed - self._waited, 0.0)):
                message = await self._receive()
        except TimeoutError as error:
            raise TooSlow(
                f"The body came too slowly: {self._sent} bytes in {allowed:.0f} seconds. Send it again."
            ) from error
        self._waited += clock() - began
        self._count(message)
        if self._sent > self._limit:
            raise too_large(self._limit)
        return message

    def _count(self, message: Message) -> None:
        self._sent += len(message.get("body", b""))
        self.over = message["type"] != "http.request" or not message.get("more_body", False)

    async def drain(self) -> None:
        """Read and forget what is left of a refused body, within bounds."""
        most = self._sent + DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.over and self._sent < most:
                    self._count(await self._receive())
        except TimeoutError:
            pass  # the caller had its chance to hear the answer


def _declared_length(scope: Scope) -> int:
    length: bytes = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(length) if length.isdigit() else 0


def too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body of more than `limit` bytes."""
    return BodyTooLarge(
        f"The body has more than {limit} bytes, which is this node's limit. Send less at once."
    )


class _Gunzip:
    """Gzip undone in pieces of at most 64 KiB, each made only when asked for: a bomb stops at the reader's limit."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def over(self) -> bool:
        """Whether the body may end here."""
        return self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` adds.

        Raises:
            BadCompression: not gzip, or a checksum that does not hold.
        """
        while data:
            if self._member.eof:  # a file may hold several members (RFC 1952 section 2.2)
                self._member = zlib.decompressobj(_GZIP)
            try:
                yield self._member.decompress(data, _PIECE)
            except zlib.error as error:
                raise BadCompression("The body says it is gzip, and it is not, or it was damaged.") from error
            data = self._member.unconsumed_tail or self._member.unused_data


async def body_pieces(scope: Scope, receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """Yield a request's body, decompressed, in pieces of bounded size.

    Args:
        scope: of the request.
        receive: of the request; how long it waits is the business of `Inflow`.
        limit: most bytes, both as sent and as decompressed.

    Raises:
        BodyTooLarge, UnsupportedEncoding, BadCompression: see each.
        ClientDisconnect: the caller went away before the body was over.
    """
    encoding: bytes = next(
        (value for name, value in scope["headers"] if name == b"content-encoding"), b"identity"
    )
    if encoding.strip().lower() not in (b"identity", b"gzip", b""):
        raise UnsupportedEncoding(
            "This Content-Encoding is not supported. Send the body as it is, or with gzip."
        )
    if _declared_length(scope) > limit:
        raise too_large(limit)
    gunzip = _Gunzip() if encoding.strip().lower() == b"gzip" else None
    given = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        for piece in gunzip.feed(chunk) if gunzip else (chunk,):
            given += len(piece)
            if given > limit:
                raise too_large(limit)
            if piece:
                yield piece
    if gunzip is not None and not gunzip.over:
        raise BadCompression("The gzip body ends before it is over. Send all of it.")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """A request's whole body, decompressed; see `body_pieces`."""
    return b"".join([piece async for piece in body_pieces(scope, receive, limit)])
