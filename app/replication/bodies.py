"""Bodies between nodes: asked for by signed request, given to those in the audience, accepted only against a leaf.

`POST /bodies` with ``{"bodies": [[origin, index], …]}`` answers, as NDJSON, one line for each body the caller may have:
``{"origin", "index", "parts": {name: {"salt", "content"}}}``. For the rest there is no line: the same as for an index that
does not exist. An answer that would grow too large ends early with ``{"more": true}``; the caller asks for the rest.

A log's own node, which alone can say "not for you" by its silence, says ``{"origin", "index", "later": true}`` of a leaf
that does not count there: two nodes may hold different rosters for a while, and silence would stand for good. It says so to
whoever asks, since it tells nothing that the leaf and the roster do not.

A node that carries sealed bodies of another State's log (`app.replication.sealed`) answers with what is sealed to the
caller's State: ``{"origin", "index", "sealed": {"id", "kid", "parts"}}``. Opening it gives the parts; the commitment then
decides, as ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from app import bodies as stored
from app.db import execute
from app.domain.encoding import b64u_encode
from app.domain.errors import MalformedRequest, VerbaleError
from app.domain.json import parse_strict
from app.domain.statement import is_origin
from app.gate import may_read
from app.models import EntryRow, LogRow
from app.replication.client import MAX_BODIES_BYTES, PeerAnswerRefused
from app.replication.sealed import carried_for, open_carried

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.domain.sealing import EncryptionKey
    from app.gate import Principal
    from app.replication.client import PeerClient

MAX_ASKED: Final = 512
"""Bodies in one request."""
MAX_GIVEN_BYTES: Final = 16 * 2**20
"""An answer ends after the body that passes this; below the caller's own limit by the size of the largest body."""
_READ_AT_ONCE: Final = 64
_INDEX: Final = re.compile(
    rb'\{"origin":"[^"]{1,300}","index":([0-9]{1,15}),"(parts":\{|sealed":\{|later":true\}$)'
)
"""How a line begins, members in this order: enough to file it by index without parsing it."""

# ── giving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_request(raw: bytes) -> list[tuple[str, int]]:
    """Read a request for bodies.

    Raises:
        MalformedJson, MalformedRequest.
    """
    request = parse_strict(raw)
    asked = request.get("bodies") if isinstance(request, dict) and request.keys() == {"bodies"} else None
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_ASKED:
        raise MalformedRequest(f'Ask with {{"bodies": [[origin, index], …]}}, 1 to {MAX_ASKED} of them.')
    wanted: list[tuple[str, int]] = []
    for item in asked:
        if not isinstance(item, list) or len(item) != 2:  # noqa: PLR2004 - a pair
            raise MalformedRequest("Each body is asked for as a pair [origin, index].")
        origin, index = item
        if (
            not isinstance(origin, str)
            or not is_origin(origin)
            or type(index) is not int
            or not 0 <= index < 2**62
        ):
            raise MalformedRequest(
                "Each body is asked for by the origin of its log and the index of its leaf."
            )
        wanted.append((origin, index))
    return wanted


def give(session: Session, principal: Principal, wanted: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    """Yield the NDJSON lines of the answer. Every body passes the gate under its own version's handling."""
    given = 0
    for origin in dict.fromkeys(origin for origin, _ in wanted):
        indexes = [index for of, index in wanted if of == origin]
        allowed = _allowed(session, principal, origin, indexes)
        if allowed is None:
            continue
        for line in _lines(session, principal, origin, indexes, allowed):
            if given > MAX_GIVEN_BYTES:
                yield b'{"more":true}\n'
                return
            given += len(line)
            yield line


def _lines(
    session: Session,
    principal: Principal,
    origin: str,
    asked: Sequence[int],
    allowed: _Allowed,
) -> Iterator[bytes]:
    """The lines about one log: what is held and may be had; then, of the rest, what is carried for the caller, and what this node
    cannot decide under its roster.
    """

    def line(index: int, **members: Any) -> bytes:  # noqa: ANN401 - what JSON takes
        return orjson.dumps({"origin": origin, "index": index, **members}, option=orjson.OPT_APPEND_NEWLINE)

    given = set()
    held = stored.of_leaves(session, allowed.log_id, allowed.indexes, at_once=_READ_AT_ONCE)
    for index, parts in groupby(held, key=itemgetter(0)):
        given.add(index)
        yield line(
            index,
            parts={
                name: {"salt": b64u_encode(salt), "content": b64u_encode(content)}
                for _, name, (salt, content) in parts
            },
        )
    missing = [index for index in asked if index not in given]
    if principal.state is not None and missing:
        for index, sealed in carried_for(session, principal.state, origin, missing).items():
            yield line(index, sealed=orjson.Fragment(sealed))
    if allowed.is_own and missing:
        for index in execute(session, _NOT_COUNTING, log=allowed.log_id, indexes=missing).scalars():
            yield line(index, later=True)


_LOGS, _ENTRIES = LogRow.__table__.c, EntryRow.__table__.c
_LOG: Final = select(_LOGS.id, _LOGS.state, _LOGS.is_own).where(_LOGS.origin == bindparam("of"))
_HELD: Final = select(_ENTRIES.idx, _ENTRIES.tlp_rank, _ENTRIES.audience).where(
    _ENTRIES.log_id == bindparam("log"),
    _ENTRIES.idx.in_(bindparam("indexes", expanding=True)),
    _ENTRIES.body_state == "held",
)
_NOT_COUNTING: Final = select(_ENTRIES.idx).where(
    _ENTRIES.log_id == bindparam("log"),
    _ENTRIES.idx.in_(bindparam("indexes", expanding=True)),
    _ENTRIES.fault_code.is_not(None),
)


class _Allowed(NamedTuple):
    """Of one log: the indexes whose bodies are here and may be given to the caller."""

    log_id: int
    is_own: bool
    indexes: Sequence[int]


def _allowed(session: Session, principal: Principal, origin: str, indexes: Sequence[int]) -> _Allowed | None:
    log = execute(session, _LOG, of=origin).one_or_none()
    if log is None:
        return None
    allowed: list[int] = []
    known: dict[tuple[int, str | None], bool] = {}  # of the bodies of a log most are handled alike
    for idx, tlp_rank, audience in execute(session, _HELD, log=log.id, indexes=indexes):
        may = known.get((tlp_rank, audience))
        if may is None:
            may = may_read(principal, issuer=log.state, tlp_rank=tlp_rank, audience=audience)
            known[tlp_rank, audience] = may
        if may:
            allowed.append(idx)
    return _Allowed(log.id, log.is_own, allowed)


# ── taking ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Given:
    """A peer's answer: its lines by index, unparsed, and the indexes it said nothing about and will not.

    Lines are read where they are judged. Which body a line is about is only its own claim until then. An index that is in neither
    is to be asked for again.
    """

    lines: Mapping[int, bytes]
    withheld: frozenset[int]


def ask(
    client: PeerClient,
    node_url: str,
    origin: str,
    indexes: Sequence[int],
    keys: Mapping[str, EncryptionKey] = MappingProxyType({}),
) -> Given:
    """Ask a node for bodies of one log. What comes back is not yet opened against any commitment.

    Args:
        keys: this State's encryption keys by key id, for what the node only carries.

    Raises:
        PeerUnreachable, PeerAnswerRefused: then nothing is known about any of them.
    """
    lines: dict[int, bytes] = {}
    later: set[int] = set()
    open_indexes = list(indexes)
    while open_indexes:
        asked, rest = open_indexes[:MAX_ASKED], open_indexes[MAX_ASKED:]
        request = orjson.dumps({"bodies": [[origin, index] for index in asked]})
        status, answer = client.post(f"{node_url}/bodies", request, limit=MAX_BODIES_BYTES, signed=True)
        if status != 200:  # noqa: PLR2004 - HTTP OK
            raise PeerAnswerRefused(
                f"{node_url}/bodies answered {status}: {answer[:300].decode(errors='replace')}"
            )
        found, undecided, more = _split_answer(answer, node_url, origin, keys)
        later |= undecided
        lines |= {index: line for index in asked if (line := found.get(index)) is not None}
        unanswered = [i for i in asked if i not in found and i not in undecided] if more else []
        if more and len(unanswered) == len(asked):
            raise PeerAnswerRefused(f"{node_url}/bodies says there is more and gives nothing.")
        open_indexes = unanswered + rest
    return Given(lines, frozenset(indexes) - lines.keys() - later)


def _split_answer(
    answer: bytes, node_url: str, origin: str, keys: Mapping[str, EncryptionKey]
) -> tuple[dict[int, bytes | None], set[int], bool]:
    """The lines by index, None for a sealed one that does not open here; the indexes to be asked for later; if there is more."""
    found: dict[int, bytes | None] = {}
    later: set[int] = set()
    more = False
    for line in answer.splitlines():
        if line == b'{"more":true}':
            more = True
            continue
        claimed = _INDEX.match(line)
        if claimed is None:
            raise PeerAnswerRefused(f"{node_url}/bodies answered a line that is no body: {line[:100]!r}")
        index = int(claimed[1])
        if claimed[2].startswith(b"later"):
            later.add(index)
        elif claimed[2].startswith(b"parts"):
            found[index] = line
        else:
            found[index] = _opened(line, origin, index, keys)
    return found, later, more


def _opened(line: bytes, origin: str, index: int, keys: Mapping[str, EncryptionKey]) -> bytes | None:
    """A sealed line as the line it would be if it had come from the issuer, or None."""
    try:
        value = parse_strict(line)
    except VerbaleError:
        return None
    parts = open_carried(value.get("sealed"), origin=origin, keys=keys)
    return None if parts is None else orjson.dumps({"origin": origin, "index": index, "parts": parts})
