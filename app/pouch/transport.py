"""A pouch in the place of the network: it answers what other nodes would, from what it carries.

The node that unpacks asks as it always asks, so that one code decides about the wire and about the file. What the pouch
does not carry is unreachable, never "not there": that a body is missing from a pouch says nothing about whom it is for.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson

from app.domain.errors import VerbaleError
from app.domain.json import parse_strict
from app.pouch.archive import PouchMalformed
from app.pouch.manifest import log_prefix
from app.replication.bodies import parse_request
from app.replication.client import MAX_BUNDLE_BYTES, mirror_url
from app.tlog.checkpoint import Checkpoint
from app.tlog.confirm import HISTORY_PAGE, encode_history
from app.tlog.note import parse as parse_note

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.domain.roster import Roster
    from app.pouch.archive import Pouch

MAX_BODIES_BYTES: Final = 64 * 2**20
_MEMBER: Final = re.compile(r"(log/[0-9a-f]{64})/bodies/([0-9]{16})-([0-9]{16})\.ndjson")
_KEPT: Final = 4


def body_members(pouch: Pouch, prefix: str) -> dict[str, tuple[int, int]]:
    """The members with bodies of one log: name → first and last index, by its name."""
    found = {}
    for name in pouch.names:
        match = _MEMBER.fullmatch(name)
        if match is not None and match[1] == prefix:
            found[name] = (int(match[2]), int(match[3]))
    return found


def body_lines(pouch: Pouch, name: str, origin: str, limit: int) -> dict[int, dict[str, Any]]:
    """The bodies of one member by index, read strictly.

    Raises:
        PouchMalformed: not lines as `POST /bodies` answers them.
    """
    raw = pouch.read(name, limit) or b""
    found: dict[int, dict[str, Any]] = {}
    for line in raw.splitlines():
        try:
            value = parse_strict(line)
        except VerbaleError as error:
            raise PouchMalformed(f"{name} holds a line that is not JSON: {error}") from error
        if (
            not isinstance(value, dict)
            or value.get("origin") != origin
            or type(value.get("index")) is not int
            or value.keys() not in ({"origin", "index", "parts"}, {"origin", "index", "sealed"})
            or value["index"] in found
        ):
            raise PouchMalformed(f"{name} holds a line that is no body: {line[:80]!r}")
        found[value["index"]] = value
    return found


def confirmations(pouch: Pouch, prefix: str) -> list[tuple[int, bytes]]:
    """The confirmed checkpoints carried of one log, ascending: size and bytes, not verified.

    Raises:
        PouchMalformed: not checkpoints, each led by its length.
    """
    raw = pouch.read(f"{prefix}/history", MAX_BODIES_BYTES) or b""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        try:
            size = Checkpoint.parse(parse_note(raw[at + 2 : end]).text).size
        except VerbaleError as error:
            raise PouchMalformed(f"{prefix}/history holds what is no checkpoint: {error}") from error
        if end > len(raw) or (found and size < found[-1][0]):
            raise PouchMalformed(f"{prefix}/history is cut off or out of order.")
        found.append((size, raw[at + 2 : end]))
        at = end
    return found


class PouchTransport(httpx.BaseTransport):
    """See the module. `roster` gives the roster in force, which says where whose log is asked for."""

    def __init__(self, pouch: Pouch, roster: Callable[[], Roster]) -> None:
        """Answer from `pouch`."""
        self._pouch, self._roster = pouch, roster
        self._lines: OrderedDict[str, dict[int, dict[str, Any]]] = OrderedDict()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; what is not carried is as a host that does not answer, what is malformed as one that lies."""
        try:
            return self._answer(request)
        except PouchMalformed as fault:
            raise httpx.RemoteProtocolError(str(fault), request=request) from fault

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        if request.method == "POST" and url.endswith("/bodies"):
            return self._bodies(request, url.removesuffix("/bodies"))
        if request.method == "GET":
            for base, origin in self._bases():
                if url.startswith(f"{base}/history/"):
                    return self._history(request, origin, url.removeprefix(f"{base}/history/"))
                if url.startswith(f"{base}/"):
                    raw = self._pouch.read(f"{log_prefix(origin)}{url[len(base) :]}", MAX_BUNDLE_BYTES)
                    if raw is not None:
                        return httpx.Response(200, stream=httpx.ByteStream(raw))
        raise httpx.ConnectError("the pouch does not carry it", request=request)

    def _history(self, request: httpx.Request, origin: str, start: str) -> httpx.Response:
        """One page of the history from a size on, as a node serves it."""
        if not start.isdecimal():
            raise httpx.ConnectError("the pouch does not carry it", request=request)
        notes = [raw for size, raw in confirmations(self._pouch, log_prefix(origin)) if size >= int(start)]
        return httpx.Response(200, stream=httpx.ByteStream(encode_history(notes[:HISTORY_PAGE])))

    def _bases(self) -> list[tuple[str, str]]:
        """Every address under which a log may be asked for: its own, and every node's mirror of it."""
        roster = self._roster()
        logs = [listed for state in roster.nodes() for listed in state.logs]
        nodes = [state.url for state in roster.nodes() if state.url]
        own = [(listed.url, listed.origin) for listed in logs]
        return own + [(mirror_url(node, listed.origin), listed.origin) for listed in logs for node in nodes]

    def _bodies(self, request: httpx.Request, node: str) -> httpx.Response:
        answer = []
        for origin, index in parse_request(request.read()):
            issuer = self._roster().state_of_origin(origin)
            if issuer is None or issuer.url == node:
                # Only the issuer's node can say that a body is not for a State; a file cannot.
                raise httpx.ConnectError("a pouch does not speak for the issuer", request=request)
            line = self._line(origin, index)
            if line is not None:
                answer.append(orjson.dumps(line))
        return httpx.Response(200, stream=httpx.ByteStream(b"\n".join(answer)))

    def _line(self, origin: str, index: int) -> dict[str, Any] | None:
        for name, (first, last) in body_members(self._pouch, log_prefix(origin)).items():
            if first <= index <= last:
                if name not in self._lines:
                    self._lines[name] = body_lines(self._pouch, name, origin, MAX_BODIES_BYTES)
                    if len(self._lines) > _KEPT:
                        self._lines.popitem(last=False)
                return self._lines[name].get(index)
        return None
