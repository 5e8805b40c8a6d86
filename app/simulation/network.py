"""A network that the seed controls: the transport under the very client that ships, and the routes that ship behind it.

A request goes to the plain function below the route that would serve it; what lies between (sockets, HTTP parsing, the
event loop) is tested elsewhere. On its way it may be late, lost, doubled or overtaken, its answer may be lost after it was
acted upon, and a wire may be cut between any two States. Who relays what it should not is another module's business
(`app.simulation.malice`): it gets to see every answer before it leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import httpx
from starlette.responses import Response
from starlette.routing import compile_path

from app.domain.errors import VerbaleError
from app.gate import ANONYMOUS
from app.problems import encode
from app.replication.signatures import target
from app.restored import OPEN
from app.routers import log, peers
from app.simulation.storage import PowerLost

if TYPE_CHECKING:
    import random
    import re
    from collections.abc import Callable, Iterator

    from app.simulation.site import Site
    from app.simulation.virtual import Schedule

TIMEOUT_MS: Final = 10_000
"""Until a node gives up waiting for an answer."""
LATEST_COPY_MS: Final = 5_000
"""How late the second copy of a message may come."""
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answers: status, body and its Date header."""

    status: int
    body: bytes
    date: str = ""


@dataclass(slots=True)
class Weather:
    """How bad the network is: chances in a thousand, and the longest way of a message in milliseconds."""

    lost: int = 0
    answer_lost: int = 0
    doubled: int = 0
    slowest_ms: int = 30
    """A message takes 1 to so many ms: messages overtake each other."""


@dataclass(slots=True)
class Traffic:
    """What has gone over the wires."""

    messages: int = 0
    bytes: int = 0
    by_kind: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, kind: str, size: int) -> None:
        """One message with its answer."""
        self.messages += 1
        self.bytes += size
        messages, total = self.by_kind.get(kind, (0, 0))
        self.by_kind[kind] = (messages + 1, total + size)


class Network:
    """Every node's address, and the wires between.

    Attributes:
        find: (sender, address) → who answers there, as the sender sees it; None if nobody does.
        inspect: (sender, receiver, request, answer) → the answer that leaves.
    """

    def __init__(self, schedule: Schedule, rng: random.Random, note: Callable[[str], None]) -> None:
        """`note` takes a line for the trace."""
        self.schedule, self.rng, self.note = schedule, rng, note
        self.weather = Weather()
        self.cut: set[frozenset[str]] = set()
        self.traffic = Traffic()
        self.find: Callable[[str, str], Site | None] = lambda _sender, _netloc: None
        self.inspect: Callable[[Site, Site, httpx.Request, Answer], Answer] = (
            lambda _sender, _receiver, _request, answer: answer
        )

    def exchange(self, sender: Site, request: httpx.Request) -> Answer:
        """One request and its answer, as the sender gets to see it. Runs in the sender's task."""
        receiver = self.find(sender.name, request.url.netloc.decode())
        self._travel()
        if receiver is None or self._is_cut(sender, receiver) or self._happens(self.weather.lost):
            raise self._give_up(request, "lost")
        if self._happens(self.weather.doubled):
            late = self.rng.randrange(1, LATEST_COPY_MS)
            self.schedule.spawn(lambda: self._again(sender, receiver, request), after=late)
        answer = self._deliver(sender, receiver, request)
        self._travel()
        if self._is_cut(sender, receiver) or self._happens(self.weather.answer_lost):
            raise self._give_up(request, "answer lost")
        return answer

    def _deliver(self, sender: Site, receiver: Site, request: httpx.Request) -> Answer:
        try:
            answer = serve(receiver, request)
            receiver.power.check()
        except PowerLost:  # the receiver's: a sender that died in here is noticed by its own line
            raise self._give_up(request, "no answer") from None
        answer = self.inspect(sender, receiver, request, answer)
        path = request.url.path
        self.traffic.count(_kind(path), len(request.content) + len(answer.body))
        digest = crc32(answer.body) if answer.status == _OK else 0
        self.note(f"{sender.name} {request.method} {receiver.name}{path} {answer.status} {digest:08x}")
        return answer

    def _again(self, sender: Site, receiver: Site, request: httpx.Request) -> None:
        try:
            self._deliver(sender, receiver, request)
        except (httpx.HTTPError, PowerLost):
            return

    def _give_up(self, request: httpx.Request, why: str) -> httpx.ReadTimeout:
        self.note(f"{request.method} {request.url.host}{request.url.path} {why}")
        self.schedule.sleep(self.rng.randrange(1, TIMEOUT_MS))
        return httpx.ReadTimeout(why, request=request)

    def _travel(self) -> None:
        self.schedule.sleep(self.rng.randrange(1, self.weather.slowest_ms + 1))

    def _is_cut(self, a: Site, b: Site) -> bool:
        return bool(self.cut) and frozenset((a.name, b.name)) in self.cut

    def _happens(self, permille: int) -> bool:
        return permille > 0 and self.rng.randrange(1000) < permille


def _kind(path: str) -> str:
    first, _, rest = path.lstrip("/").partition("/")
    if first in ("log", "mirror"):
        return f"{first} {rest.split('/')[1]}"
    return rest if first == "witness" and "/" not in rest else first


class Line(httpx.BaseTransport):
    """One process's line into the network."""

    def __init__(self, network: Network, site: Site) -> None:
        """Of the process that runs at `site` now."""
        self._network, self._site, self._power = network, site, site.power

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; wait for its answer in virtual time."""
        self._power.check()
        try:
            answer = self._network.exchange(self._site, request)
        finally:
            self._power.check()
        return httpx.Response(answer.status, headers={"date": answer.date}, stream=_Body(answer.body))


class _Body(httpx.SyncByteStream):
    """A body that is still to be read, as a network's is."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body


# ── the routes of a node ──────────────────────────────────────────────────────────────────────────────────────────


def serve(site: Site, request: httpx.Request) -> Answer:
    """What the node at `site` answers, by the functions below its routes."""
    node = site.node
    path = request.url.path
    if site.is_being_restored and not path.startswith(OPEN):  # `app.restored`, which is no plain function
        return _answer(site, 503, b"{}")
    for method, pattern, convertors, endpoint in _routes():
        match = pattern.match(path)
        if method != request.method or match is None:
            continue
        values = {name: convertors[name].convert(text) for name, text in match.groupdict().items()}
        try:
            given = endpoint(node, request, **values)
            return _answer(site, given.status_code, bytes(given.body))
        except VerbaleError as error:
            document, status = encode(error, node.settings.public_url)
            return _answer(site, status, document)
    return _answer(site, 404, b"{}")


@cache
def _routes() -> tuple[tuple[str, re.Pattern[str], Any, Callable[..., Response]], ...]:
    found = []
    for route in (*log.router.routes, *peers.router.routes):
        pattern, _, convertors = compile_path(route.path)  # type: ignore[attr-defined]  # they are all API routes
        endpoint = _PLAIN.get(route.endpoint) or _plain(route.endpoint)  # type: ignore[attr-defined]
        found += [(method, pattern, convertors, endpoint) for method in route.methods]  # type: ignore[attr-defined]
    return tuple(found)


def _plain(endpoint: Any) -> Callable[..., Response]:  # noqa: ANN401 - a route's function
    numbers = {name for name, p in signature(endpoint).parameters.items() if p.annotation in (int, "int")}

    def call(node: Any, _request: httpx.Request, **values: str) -> Response:  # noqa: ANN401 - a node by its protocol
        if iscoroutinefunction(endpoint):
            raise TypeError(f"the simulator knows no plain function below the route {endpoint.__name__}")
        given = endpoint(node, **{n: int(v) if n in numbers else v for n, v in values.items()})
        return given if isinstance(given, Response) else Response(given.model_dump_json())

    return call


def _offer(node: Any, request: httpx.Request) -> Response:  # noqa: ANN401
    return peers.answer_offer(node, request.content, node.settings.public_url)


def _evidence(node: Any, request: httpx.Request) -> Response:  # noqa: ANN401
    return peers.answer_evidence(node, request.content)


def _for_a_peer(answer: Callable[..., Response]) -> Callable[..., Response]:
    """A route whose caller proves itself by a message signature."""

    def call(node: Any, request: httpx.Request, **values: str) -> Response:  # noqa: ANN401
        principal = ANONYMOUS
        if "signature-input" in request.headers:
            url = target(node.settings.public_url, request.url.path, request.url.query.decode())
            headers = {name.lower(): value for name, value in request.headers.items()}
            principal = node.authenticate(request.method, url, headers, request.content)
        return answer(node, principal, request.content, **values)

    return call


_PLAIN: Final[dict[Any, Callable[..., Response]]] = {
    peers.add_checkpoint: _offer,
    peers.take_evidence: _evidence,
    peers.bodies: _for_a_peer(peers.answer_bodies),
    peers.lease: _for_a_peer(peers.answer_lease),
    peers.sealed_bodies: _for_a_peer(peers.answer_sealed_bodies),
}
"""Routes that read their body from the event loop → what they do with it."""


def _answer(site: Site, status: int, body: bytes) -> Answer:
    return Answer(status, body, formatdate(site.clock() / 1000, usegmt=True))
