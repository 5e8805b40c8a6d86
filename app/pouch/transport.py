"""A pouch in the place of the network: it answers what other nodes would, from what it carries.

The node that unpacks asks as it always asks, so that one code decides about the wire and about the file. What the pouch
does not carry is unreachable, never "not there": that a body is missing from a pouch says nothing about whom it is for.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
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

CARRIER: Final = "http://pouch.invalid"
"""Where the pouch answers for bodies: as a carrier among others, never as a log's own node, whose silence would mean that a
body is not for this State. RFC 6761 keeps the name from ever being anybody's."""
MAX_BODIES_BYTES: Final = 64 * 2**20
_MEMBER: Final = re.compile(r"(log/[0-9a-f]{64})/bodies/([0-9]{16})-([0-9]{16})\.ndjson")
_RESOURCE: Final = re.compile(r"(https?://.+?)/(checkpoint|tile/.+|history/([0-9]{1,16}))")
_KEPT: Final = 4
"""Members with bodies in memory: those that the threads of a catch-up ask for, each at most MAX_BODIES_BYTES."""


@dataclass(frozen=True, slots=True, order=True)
class BodyMember:
    """A member with bodies of the leaves `first` to `last` of one log, as its name says."""

    first: int
    last: int
    name: str


def body_members(pouch: Pouch) -> dict[str, list[BodyMember]]:
    """The members with bodies by the prefix of their log, in order of index. Reads all names: once for each pouch."""
    found: dict[str, list[BodyMember]] = {}
    for name in pouch.names:
        match = _MEMBER.fullmatch(name)
        if match is not None:
            found.setdefault(match[1], []).append(BodyMember(int(match[2]), int(match[3]), name))
    return {prefix: sorted(members) for prefix, members in found.items()}


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
    """See the module. `roster` gives the roster in force, which says where whose log is asked for.

    Asked by several threads at once: a catch-up fetches the next bodies while it writes the last.
    """

    def __init__(self, pouch: Pouch, roster: Callable[[], Roster]) -> None:
        """Answer from `pouch`."""
        self._pouch, self._roster = pouch, roster
        self._members = body_members(pouch)
        self._lock = threading.Lock()
        self._lines: OrderedDict[str, dict[int, dict[str, Any]]] = OrderedDict()
        self._histories: dict[str, list[tuple[int, bytes]]] = {}
        self._addresses: tuple[str, dict[str, str]] = ("", {})

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; what is not carried is as a host that does not answer, what is malformed as one that lies."""
        try:
            with self._lock:
                return self._answer(request)
        except PouchMalformed as fault:
            raise httpx.RemoteProtocolError(str(fault), request=request) from fault

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        if request.method == "POST" and url == f"{CARRIER}/bodies":
            return self._bodies(request)
        asked = _RESOURCE.fullmatch(url) if request.method == "GET" else None
        origin = None if asked is None else self._logs().get(asked[1])
        if asked is not None and origin is not None:
            if asked[3] is not None:
                return self._history(origin, int(asked[3]))
            raw = self._pouch.read(f"{log_prefix(origin)}/{asked[2]}", MAX_BUNDLE_BYTES)
            if raw is not None:
                return httpx.Response(200, stream=httpx.ByteStream(raw))
        raise httpx.ConnectError("the pouch does not carry it", request=request)

    def _history(self, origin: str, start: int) -> httpx.Response:
        """One page of the history from a size on, as a node serves it."""
        if origin not in self._histories:
            self._histories[origin] = confirmations(self._pouch, log_prefix(origin))
        notes = [raw for size, raw in self._histories[origin] if size >= start]
        return httpx.Response(200, stream=httpx.ByteStream(encode_history(notes[:HISTORY_PAGE])))

    def _logs(self) -> dict[str, str]:
        """Every address under which a log may be asked for, its own and every node's mirror of it, → its origin."""
        roster = self._roster()
        if self._addresses[0] != roster.sha256:
            logs = [listed for state in roster.nodes() for listed in state.logs]
            nodes = [state.url for state in roster.nodes() if state.url]
            found = {mirror_url(node, listed.origin): listed.origin for listed in logs for node in nodes}
            self._addresses = (roster.sha256, found | {listed.url: listed.origin for listed in logs})
        return self._addresses[1]

    def _bodies(self, request: httpx.Request) -> httpx.Response:
        lines = [self._line(origin, index) for origin, index in parse_request(request.read())]
        answer = b"\n".join(orjson.dumps(line) for line in lines if line is not None)
        return httpx.Response(200, stream=httpx.ByteStream(answer))

    def _line(self, origin: str, index: int) -> dict[str, Any] | None:
        members = self._members.get(log_prefix(origin), [])
        at = bisect_right(members, index, key=lambda member: member.first) - 1
        if at < 0 or members[at].last < index:
            return None
        name = members[at].name
        if name not in self._lines:
            self._lines[name] = body_lines(self._pouch, name, origin, MAX_BODIES_BYTES)
            if len(self._lines) > _KEPT:
                self._lines.popitem(last=False)
        return self._lines[name].get(index)
