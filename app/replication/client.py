"""Asking a peer, without trusting its answer: bounded in bytes and time, no redirects, nothing decoded by surprise.

The transport is a seam: tests put a lying one under the very client that ships.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import httpx

from app.domain.errors import PeerFault
from app.replication.signatures import fresh_nonce, sign_request
from app.tlog.witness import origin_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future

    from app.clock import Clock
    from app.domain.keys import Signer
    from app.domain.roster import Roster

MAX_CHECKPOINT_BYTES: Final = 64 * 2**10
MAX_BUNDLE_BYTES: Final = 256 * (2 + 65_535)
MAX_TILE_BYTES: Final = 256 * 32
MAX_BODIES_BYTES: Final = 64 * 2**20
FETCHING: Final = 8
"""Threads for what is asked meanwhile: so many logs can be far behind at once before one waits for another's slow source."""
DATE_BEHIND_MS: Final = 2000
"""How far a Date header may be behind its clock: it is cut to the second, and uvicorn writes it anew once a second."""
DEADLINE_FACTOR: Final = 6
"""A whole answer may take this many times the time-out that each read has: a peer that trickles bytes is cut off."""

T = TypeVar("T")
P = ParamSpec("P")


class PeerUnreachable(PeerFault):
    """No answer: refused, timed out, or cut off."""

    code = "peer-unreachable"


class PeerAnswerRefused(PeerFault):
    """An answer that is too large, redirected, of the wrong status or not the format asked for."""

    code = "peer-answer-refused"


class PeerClient:
    """One node's view of its peers over HTTP.

    Args:
        signer, kid: the node's transport key; requests for bodies are signed with it.
        transport: the seam; None is the network.
        nonce: makes the nonce of each signed request.
        threads: in which `meanwhile` asks; by default FETCHING of its own.
        timer: seconds from any beginning, for how long an answer may take in all.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        signer: Signer | None = None,
        kid: str = "",
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        nonce: Callable[[], str] = fresh_nonce,
        threads: Executor | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open a connection pool; environment proxies are not used, a peer's address comes from the roster alone."""
        self._clock, self._signer, self._kid, self._timeout_s = clock, signer, kid, timeout_s
        self._nonce, self.timer = nonce, timer
        self._threads = threads or ThreadPoolExecutor(FETCHING, thread_name_prefix="fetch")
        self._http = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            follow_redirects=False,
            trust_env=False,
            headers={"accept-encoding": "identity", "user-agent": "verbale"},
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=50),
        )
        self.skew_ms: int | None = None

    def identify(self, kid: str, signer: Signer) -> None:
        """Sign requests with this key from now on: a new roster lists it, or lists it under another id."""
        self._kid, self._signer = kid, signer

    def close(self) -> None:
        """Close all connections; what is asked for meanwhile fails."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def meanwhile(self, fetch: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Start what asks a peer, while the caller does something else; the result raises what it raised.

        It must not start anything in turn: each waits for a thread.

        Raises:
            PeerUnreachable: this client is closed.
        """
        try:
            return self._threads.submit(fetch, *arguments, **named)
        except RuntimeError as error:
            raise PeerUnreachable("This node is closing, and asks nobody any more.") from error

    def get(self, url: str, *, limit: int) -> bytes | None:
        """Fetch `url`; None if the peer says it does not exist (404).

        Raises:
            PeerUnreachable, PeerAnswerRefused.
        """
        status, body = self._send(httpx.Request("GET", url, headers=self._http.headers), limit)
        if status == httpx.codes.NOT_FOUND:
            return None
        if status != httpx.codes.OK:
            raise PeerAnswerRefused(f"{url} answered {status} instead of 200.")
        return body

    def post(
        self,
        url: str,
        body: bytes,
        *,
        limit: int,
        signed: bool = False,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Post `body`; returns status and answer.

        Raises:
            PeerUnreachable, PeerAnswerRefused.
        """
        headers = dict(self._http.headers) | {"content-type": content_type}
        if signed:
            assert self._signer is not None  # noqa: S101 - wiring mistake
            headers |= sign_request(
                "POST",
                url,
                body,
                signer=self._signer,
                kid=self._kid,
                at=self._clock() // 1000,
                nonce=self._nonce(),
            )
        return self._send(httpx.Request("POST", url, headers=headers, content=body), limit)

    def _send(self, request: httpx.Request, limit: int) -> tuple[int, bytes]:
        deadline = self.timer() + DEADLINE_FACTOR * self._timeout_s
        # A request built outside the client has no time-outs of its own.
        request.extensions["timeout"] = self._http.timeout.as_dict()
        asked = self._clock()
        try:
            response = self._http.send(request, stream=True)
            try:
                self._note_skew(response, asked)
                body = self._read(response, limit, deadline, request)
            finally:
                response.close()
                # httpx has the two name each other: what was asked would stay until the collector comes by.
                response.stream = httpx.ByteStream(b"")
        except httpx.HTTPError as error:
            raise PeerUnreachable(
                f"{request.url} did not answer: {type(error).__name__} {error}".strip()[:500]
            ) from error
        if response.is_redirect:
            raise PeerAnswerRefused(
                f"{request.url} redirects. A node answers at the address the roster gives; nothing is followed."
            )
        return response.status_code, body

    def _read(self, response: httpx.Response, limit: int, deadline: float, request: httpx.Request) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for piece in response.iter_raw():
            size += len(piece)
            if size > limit:
                raise PeerAnswerRefused(f"{request.url} answered more than {limit} bytes.")
            if self.timer() > deadline:
                raise PeerUnreachable(
                    f"{request.url} took longer than {DEADLINE_FACTOR * self._timeout_s:.0f} seconds."
                )
            pieces.append(piece)
        return b"".join(pieces)

    def _note_skew(self, response: httpx.Response, asked: int) -> None:
        """The peer's clock minus ours, from the Date header: the least that explains it.

        The peer wrote it at some moment between our asking (`asked`, unix ms) and now, when the head of its answer is here.
        How long the body takes says nothing of its clock.
        """
        date = response.headers.get("date")
        if date is None:
            return
        try:
            theirs = int(parsedate_to_datetime(date).timestamp() * 1000)
        except (TypeError, ValueError, OverflowError):
            return
        least, most = theirs - self._clock(), theirs + DATE_BEHIND_MS - asked
        self.skew_ms = max(least, min(most, 0))


def mirror_url(node_url: str, origin: str) -> str:
    """Where a node serves its mirror of another State's log, in the same layout as the log itself."""
    return f"{node_url}/mirror/{origin_hash(origin)}"


def mirrors_of(roster: Roster, origin: str, *, but: str) -> list[str]:
    """Where every State but `but` serves its copy of a log."""
    return [mirror_url(s.url, origin) for s in roster.nodes() if s.url and s.code != but]
