"""One POST over aiohttp's connections, without its session: what a delivery needs of HTTP and nothing else.

aiohttp's connector finds, guards, opens and keeps the connections, and aiohttp's parser reads the answers. What its session
does for each request besides (cookies, redirects, proxies, traces, a header of its own built anew, a task that writes the
body) is two thirds of the processor time of a POST, and none of it is wanted here. The head of a request is made once for
each endpoint; a delivery adds its few lines.

Redirects are never followed: there is nothing here that could.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import HttpProcessingError
from yarl import URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from multidict import CIMultiDictProxy

MAX_ANSWER_BYTES: Final = 20_000
"""How much of an answer's body is read, so that the connection can be used again."""

DRAIN_SECONDS: Final = 1.0
"""How long an answer's body is waited for. Its status has been read by then, and counts whatever the body does."""

_SCHEMES: Final = frozenset({"http", "https"})
_BUFFER_BYTES: Final = 2**16
_SWITCHING: Final = 101
_FINAL: Final = 200
_BREAKS: Final = frozenset("\r\n\0")


class Prepared(NamedTuple):
    """How an endpoint is called: what the connector goes by, and the head of every request but for its last lines."""

    request: ClientRequest
    head: bytes


class Answer(NamedTuple):
    """What came back.

    Attributes:
        raw_headers: as they came.
        beginning: of the body, as far as it was read.
    """

    status: int
    headers: CIMultiDictProxy[str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    beginning: bytes


def prepare(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> Prepared:
    """Make what all requests to an endpoint share. Inside a running loop.

    Args:
        tls: how it is verified and what it is shown; None: as the connector does for all.

    Raises:
        ValueError: `url` cannot be called, or a header has a line end in it.
    """
    address = URL(url)
    if address.scheme not in _SCHEMES:
        raise ValueError("neither http nor https")
    request = ClientRequest(
        "POST", address, headers=headers, loop=asyncio.get_running_loop(), ssl=True if tls is None else tls
    )
    del request.headers[hdrs.CONTENT_LENGTH]  # of no body; each delivery says its own
    lines = [f"POST {request.url.raw_path_qs} HTTP/1.1", *(f"{n}: {v}" for n, v in request.headers.items())]
    if any(_BREAKS.intersection(line) for line in lines):
        raise ValueError("a header has a line end in it")
    return Prepared(request, "".join(line + "\r\n" for line in lines).encode())


async def post(
    connector: aiohttp.BaseConnector,
    limits: aiohttp.ClientTimeout,
    prepared: Prepared,
    headers: Mapping[str, str],
    body: bytes,
) -> Answer:
    """Send one request and read its answer. The connection is used again if the answer was read to its end.

    Args:
        limits: `total` ends with the head of the answer.
        headers: of this request alone: our own words, with nothing in them that anybody sent us.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError: there is no answer, or none that is HTTP.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
    whole = b"%b%bContent-Length: %d\r\n\r\n%b" % (prepared.head, lines, len(body), body)
    connection = None
    try:
        async with asyncio.timeout(limits.total):
            connection = await connector.connect(prepared.request, [], limits)
            message, content = await _exchange(connection, prepared.request, whole)
        beginning = b"" if content.at_eof() else await _drain(content)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    connection.release()  # which closes it if there is more to read, or more came than was asked for
    return Answer(message.code, message.headers, message.raw_headers, beginning)


async def _exchange(
    connection: Connection, request: ClientRequest, whole: bytes
) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None:
        raise aiohttp.ServerDisconnectedError
    if protocol.should_close:  # something came that nobody asked for: it must not pass for the answer to this
        raise aiohttp.ServerDisconnectedError("The receiver spoke before it was asked.")
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=_BUFFER_BYTES)
    transport.write(whole)
    try:
        while True:
            message, content = await protocol.read()
            if message.code >= _FINAL or message.code == _SWITCHING:  # what comes before is no answer yet
                return message, content
    except HttpProcessingError as error:
        raise aiohttp.ClientResponseError(
            request.request_info, (), status=error.code, message=error.message
        ) from error


async def _drain(content: aiohttp.StreamReader) -> bytes:
    """Read a short body; leave a long, slow or broken one.

    Returns:
        What was read of it.
    """
    read = bytearray()
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while len(read) < MAX_ANSWER_BYTES and (
                piece := await content.read(MAX_ANSWER_BYTES - len(read))
            ):
                read += piece
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass  # the status was read, and says all that counts
    return bytes(read)
