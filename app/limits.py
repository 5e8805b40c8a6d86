"""What a caller may make this node hold: bytes, headers, time.

Guarantees that whatever arrives is cut off at its limit while it arrives, compressed or not, and that a caller who sends
too slowly is refused instead of waited for. The refusals are ordinary errors; `app.problems` gives them their status.
What the bytes mean is left to others.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from app.domain.errors import Malformed, Refused, TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import Receive, Scope

MAX_HEADER_BYTES: Final = 16 * 1024
"""Names and values of one request's header together. A signed request needs about 1 KiB."""

GRACE_SECONDS: Final = 20.0
"""How long a body may take whatever its size."""

MIN_BYTES_PER_SECOND: Final = 8 * 1024
"""What a body has to bring on average once the grace is used up: a modem from the last century can."""

_PIECE: Final = 64 * 1024
_GZIP: Final = 31  # zlib's window bits for a gzip member with its header and checksum


class HeadersTooLarge(TooLarge):
    """The request's header passes the limit of this node."""

    code = "headers-too-large"


class TooSlow(Refused):
    """The request's body came too slowly, or stopped coming."""

    code = "too-slow"


class UnsupportedEncoding(Malformed):
    """A Content-Encoding this node does not undo."""

    code = "unsupported-encoding"


class BadCompression(Malformed):
    """A body that says it is gzip and is not, or ends early."""

    code = "bad-compression"


def header_bytes(scope: Scope) -> int:
    """Size of a request's header as HTTP/1.1 would write it."""
    line = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


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


async def body_pieces(
    scope: Scope,
    receive: Receive,
    limit: int,
    *,
    grace_seconds: float = GRACE_SECONDS,
    bytes_per_second: int = MIN_BYTES_PER_SECOND,
) -> AsyncIterator[bytes]:
    """Yield a request's body, decompressed, in pieces of bounded size.

    Only the time spent waiting for the caller counts, not the time the reader of this iterator takes.

    Args:
        scope: of the request.
        receive: of the request.
        limit: most bytes, both as sent and as decompressed.
        grace_seconds: see `GRACE_SECONDS`.
        bytes_per_second: see `MIN_BYTES_PER_SECOND`.

    Raises:
        TooLarge, TooSlow, UnsupportedEncoding, BadCompression: see each.
        ClientDisconnect: the caller went away before the body was over.
    """
    headers = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip", b""):
        raise UnsupportedEncoding(
            "This Content-Encoding is not supported. Send the body as it is, or with gzip."
        )
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    gunzip = _Gunzip() if encoding == b"gzip" else None
    sent = given = 0
    waited = 0.0
    clock = asyncio.get_running_loop().time
    more = True
    while more:
        began = clock()
        patience = grace_seconds + sent / bytes_per_second - waited
        try:
            message = await asyncio.wait_for(receive(), max(patience, 0.0))
        except TimeoutError as error:
            raise TooSlow(
                f"The body came too slowly: {sent} bytes in {grace_seconds + sent / bytes_per_second:.0f} seconds. Send it again."
            ) from error
        waited += clock() - began
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        sent += len(chunk)
        if sent > limit:
            raise _too_large(limit)
        for piece in gunzip.feed(chunk) if gunzip else (chunk,):
            given += len(piece)
            if given > limit:
                raise _too_large(limit)
            if piece:
                yield piece
    if gunzip is not None and not gunzip.over:
        raise BadCompression("The gzip body ends before it is over. Send all of it.")


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int,
    *,
    grace_seconds: float = GRACE_SECONDS,
    bytes_per_second: int = MIN_BYTES_PER_SECOND,
) -> bytes:
    """A request's whole body, decompressed; see `body_pieces`."""
    pieces = body_pieces(
        scope, receive, limit, grace_seconds=grace_seconds, bytes_per_second=bytes_per_second
    )
    return b"".join([piece async for piece in pieces])


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body has more than {limit} bytes, which is this node's limit. Send less at once.")
