"""Sealed bodies that other nodes carry: so that an addressee gets its body while the issuer's node is down.

A body whose audience leaves out a member State may be at nobody but the issuer and the addressees. The issuer therefore
seals it (`app.domain.sealing`), once for **each** State with an encryption key: for an addressee the body, for every other
State a sealing that nobody can open, of the same length. A node that carries them learns neither the content nor for
whom it is.

    issuer       `seal_step` makes them after the commit; `POST /bodies/sealed` hands them on
    any node     `carry_step` fetches them from the issuer alone, and keeps them within a limit for each log
    addressee    asks any node as it asks for bodies (`app.replication.bodies`); gets its own, opens it, and then checks
                 the commitment as for any body: who sealed it does not matter

A crash loses nothing: each step stores what it made together with how far it is, and the next one goes on from there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import delete, func, select

from app import bodies
from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import KeyNotActive, MalformedRequest, VerbaleError
from app.domain.json import parse_strict
from app.domain.sealing import info, seal, seal_nothing
from app.domain.statement import MAX_PARTS, Part, is_origin, is_statement_id
from app.gate import may_read, peer
from app.models import CarriedRow, CounterRow, EntryRow, LogRow
from app.replication.client import MAX_BODIES_BYTES, PeerAnswerRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster, RosterKey
    from app.domain.sealing import EncryptionKey
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

LOOKED_AT_ONCE: Final = 1_024
"""Entries that one sealing step looks at."""
SEALED_AT_ONCE: Final = 16
"""Bodies that one step seals: some milliseconds each for a federation of 25, off the posting path."""
MAX_CARRIED_BYTES: Final = 16 * 2**20
"""An answer with sealed bodies ends after the line that passes this."""
DAY_MS: Final = 86_400_000
MAX_KID: Final = 40
OK, NOT_FOUND = 200, 404


def encryption_key_of(roster: Roster, state: str, *, at: int) -> RosterKey | None:
    """The key to seal to: the newest of the State's encryption keys that is active at `at` (unix s); None without one."""
    usable = []
    for key in roster.keys_of(state, "encryption"):
        try:
            key.check_active(at=at, index=None)
        except KeyNotActive:
            continue
        usable.append(key)
    return max(usable, key=lambda key: (key.active_from, key.kid), default=None)


# ── sealing, at the issuer ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Restricted:
    """A held body of the own log that some member may not read."""

    index: int
    id: str
    addressees: frozenset[str]
    parts: Mapping[str, Part]


def seal_step(db: Database, log_id: int, roster: Roster, *, now: int) -> bool:
    """Seal the next bodies of the own log that not every member may read. True if there is more to look at.

    Args:
        now: unix ms.
    """
    with db.read() as session:
        origin, state, judged = session.execute(
            select(LogRow.origin, LogRow.state, LogRow.judged).where(LogRow.id == log_id)
        ).one()
        start = _position(session, log_id)
        found, end = _restricted(session, log_id, start, judged, state=state, roster=roster)
    if end == start:
        return False
    keys = {
        code: key
        for code in sorted(_witnesses_to(roster, state))
        if (key := encryption_key_of(roster, code, at=now // 1000)) is not None
    }
    rows = [
        {
            "log_id": log_id,
            "idx": one.index,
            "recipient": code,
            "sealed": (sealed := _sealed_for(one, code, key, origin)),
            "size": len(sealed),
            "at": now,
        }
        for one in found
        for code, key in keys.items()
    ]
    with db.write() as session:
        if rows:
            session.execute(db.insert_ignore(CarriedRow.__table__), rows)
        _set_position(db, session, log_id, end)
    if rows:
        log.info("bodies sealed", extra={"action": "bodies_sealed", "count": len(found)})
    return end < judged


def _witnesses_to(roster: Roster, issuer: str) -> frozenset[str]:
    """The States whose nodes may come to carry or need a body: every other member with a node."""
    return frozenset(s.code for s in roster.nodes() if s.status == "member" and s.code != issuer)


def _restricted(
    session: Session, log_id: int, start: int, judged: int, *, state: str, roster: Roster
) -> tuple[list[_Restricted], int]:
    """Restricted bodies from index `start` on, and the index up to which all have been looked at."""
    others = _witnesses_to(roster, state)
    end = min(start + LOOKED_AT_ONCE, judged)
    rows = session.execute(
        select(EntryRow.idx, EntryRow.id, EntryRow.tlp_rank, EntryRow.audience)
        .where(
            EntryRow.log_id == log_id,
            EntryRow.idx >= start,
            EntryRow.idx < end,
            EntryRow.body_state == "held",
            EntryRow.audience != "ALL",
        )
        .order_by(EntryRow.idx)
        .limit(SEALED_AT_ONCE)
    ).all()
    if len(rows) == SEALED_AT_ONCE:
        end = rows[-1].idx + 1
    found = []
    for row in rows:
        addressees = frozenset(
            code
            for code in others
            if may_read(peer(code, ""), issuer=state, tlp_rank=row.tlp_rank, audience=row.audience)
        )
        # For nobody: there is nobody to carry it to. For every member: any member may simply hold it.
        if row.id is not None and addressees and addressees != others:
            found.append(_Restricted(row.idx, row.id, addressees, {}))
    parts = bodies.opened(session, log_id, [one.index for one in found])
    return [replace(one, parts=parts[one.index]) for one in found if one.index in parts], end


def _sealed_for(one: _Restricted, code: str, key: RosterKey, origin: str) -> bytes:
    """The sealed parts as they travel: JSON, opaque to whoever carries it."""
    parts = {}
    for name, part in one.parts.items():
        if code in one.addressees:
            bound = info(origin=origin, notice_id=one.id, part=name, kid=key.kid)
            sealed = seal(part, key.key, bound)
        else:
            sealed = seal_nothing(key.key.alg, len(part.content))  # type: ignore[arg-type]  # an encryption key
        parts[name] = b64u_encode(sealed)
    return orjson.dumps({"id": one.id, "kid": key.kid, "parts": parts})


# ── handing on ────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_carry_request(raw: bytes) -> tuple[str, int]:
    """Read a request for sealed bodies, `{"origin", "from"}`.

    Raises:
        MalformedJson, MalformedRequest.
    """
    request = parse_strict(raw)
    if not isinstance(request, dict) or request.keys() != {"origin", "from"}:
        raise MalformedRequest('Ask with {"origin": the log, "from": the first index}.')
    origin, start = request["origin"], request["from"]
    if (
        not isinstance(origin, str)
        or not is_origin(origin)
        or type(start) is not int
        or not 0 <= start < 2**62
    ):
        raise MalformedRequest("origin is the origin of a log, from is an index in it.")
    return origin, start


def hand_on(session: Session, origin: str, start: int) -> Iterator[bytes]:
    """Yield NDJSON lines `{"index", "to", "sealed"}` of this node's own log, in order; at the end `{"next": index}`.

    Nothing for a log that is not its own: a sealing says not who made it, so carriers take it from the issuer alone.
    """
    log_row = session.execute(
        select(LogRow.id).where(LogRow.origin == origin, LogRow.is_own)
    ).scalar_one_or_none()
    if log_row is None:
        return
    given = 0
    after = max(start, 0)
    for idx, recipient, sealed in session.execute(
        select(CarriedRow.idx, CarriedRow.recipient, CarriedRow.sealed)
        .where(CarriedRow.log_id == log_row, CarriedRow.idx >= start)
        .order_by(CarriedRow.idx, CarriedRow.recipient)
        .execution_options(yield_per=64)
    ):
        if given > MAX_CARRIED_BYTES and idx != after:
            yield orjson.dumps({"next": idx}) + b"\n"
            return
        line = orjson.dumps({"index": idx, "to": recipient, "sealed": orjson.Fragment(sealed)}) + b"\n"
        given += len(line)
        after = idx
        yield line
    yield orjson.dumps({"next": max(_position(session, log_row), after + (given > 0))}) + b"\n"


def carried_for(session: Session, state: str, origin: str, indexes: Sequence[int]) -> dict[int, bytes]:
    """What this node carries of a foreign log's bodies for one State: index → sealed JSON."""
    rows = session.execute(
        select(CarriedRow.idx, CarriedRow.sealed)
        .join(LogRow, LogRow.id == CarriedRow.log_id)
        .where(
            LogRow.origin == origin,
            LogRow.is_own.is_(False),
            CarriedRow.recipient == state,
            CarriedRow.idx.in_(indexes),
        )
    )
    return {idx: bytes(sealed) for idx, sealed in rows}


# ── carrying ──────────────────────────────────────────────────────────────────────────────────────────────────────


def carry_step(
    db: Database,
    client: PeerClient,
    log_id: int,
    node_url: str,
    *,
    state: str,
    limit_bytes: int,
    keep_days: int,
    now: int,
) -> bool:
    """Fetch what the issuer's node has sealed since the last look. True if there is more.

    Args:
        state: this node's own; what is for it, it gets unsealed.
        limit_bytes: for this log; the oldest go first. Nothing is carried at 0.
        now: unix ms.

    Raises:
        PeerUnreachable, PeerAnswerRefused: nothing was stored.
    """
    with db.read() as session:
        origin, size = session.execute(select(LogRow.origin, LogRow.size).where(LogRow.id == log_id)).one()
        start = _position(session, log_id)
    request = orjson.dumps({"origin": origin, "from": start})
    url = f"{node_url}/bodies/sealed"
    status, answer = client.post(url, request, limit=MAX_BODIES_BYTES, signed=True)
    if status == NOT_FOUND:
        return False  # a node of an earlier version seals nothing
    if status != OK:
        raise PeerAnswerRefused(f"{url} answered {status}: {answer[:300].decode(errors='replace')}")
    rows, following = _read_carried(answer, url, start=start, size=size)
    with db.write() as session:
        new = [row | {"log_id": log_id, "at": now} for row in rows if row["recipient"] != state]
        if new:
            session.execute(db.insert_ignore(CarriedRow.__table__), new)
        _drop_surplus(session, log_id, limit_bytes=limit_bytes, before=now - keep_days * DAY_MS)
        _set_position(db, session, log_id, following)
    return bool(rows) and following < size


def _read_carried(answer: bytes, url: str, *, start: int, size: int) -> tuple[list[dict[str, Any]], int]:
    """The lines of an answer, checked for form: what is in them only the addressee can tell."""
    rows: list[dict[str, Any]] = []
    following = start
    for line in answer.splitlines():
        try:
            value = parse_strict(line)
        except VerbaleError as error:
            raise PeerAnswerRefused(f"{url} answered a line that is not JSON: {line[:100]!r}") from error
        if isinstance(value, dict) and value.keys() == {"next"} and type(value["next"]) is int:
            # Never beyond what is mirrored: a leaf that comes later may have sealings at an index that is new then.
            following = max(start, min(value["next"], size))
            continue
        if (
            not isinstance(value, dict)
            or value.keys() != {"index", "to", "sealed"}
            or type(value["index"]) is not int
            or not isinstance(value["to"], str)
            or len(value["to"]) != len("EE")
            or not _is_sealed(value["sealed"])
        ):
            raise PeerAnswerRefused(f"{url} answered a line that is no sealed body: {line[:100]!r}")
        if start <= value["index"] < size:
            sealed = orjson.dumps(value["sealed"])
            rows.append(
                {"idx": value["index"], "recipient": value["to"], "sealed": sealed, "size": len(sealed)}
            )
    return rows, following


def _is_sealed(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"id", "kid", "parts"}
        and isinstance(value["id"], str)
        and is_statement_id(value["id"])
        and isinstance(value["kid"], str)
        and len(value["kid"]) <= MAX_KID
        and value["kid"].isascii()
        and isinstance(value["parts"], dict)
        and 0 < len(value["parts"]) <= MAX_PARTS
        and all(isinstance(part, str) for part in value["parts"].values())
    )


def _drop_surplus(session: Session, log_id: int, *, limit_bytes: int, before: int) -> None:
    session.execute(delete(CarriedRow).where(CarriedRow.log_id == log_id, CarriedRow.at < before))
    held = session.execute(
        select(func.coalesce(func.sum(CarriedRow.size), 0)).where(CarriedRow.log_id == log_id)
    ).scalar_one()
    if held <= limit_bytes:
        return
    kept = 0
    for idx, size in session.execute(
        select(CarriedRow.idx, func.sum(CarriedRow.size))
        .where(CarriedRow.log_id == log_id)
        .group_by(CarriedRow.idx)
        .order_by(CarriedRow.idx.desc())
    ):
        kept += size
        if kept > limit_bytes:
            session.execute(delete(CarriedRow).where(CarriedRow.log_id == log_id, CarriedRow.idx <= idx))
            return


# ── opening, at the addressee ─────────────────────────────────────────────────────────────────────────────────────


def open_carried(
    raw: bytes | dict[str, Any], *, origin: str, keys: Mapping[str, EncryptionKey]
) -> dict[str, dict[str, str]] | None:
    """Open what another node carried for this State, into parts as `POST /bodies` gives them; None if it does not open.

    Not proven yet: the commitment in the leaf decides whether it is the body.

    Args:
        keys: this State's encryption keys by key id.
    """
    value = parse_strict(raw) if isinstance(raw, bytes) else raw
    if not _is_sealed(value):
        return None
    key = keys.get(value["kid"])
    if key is None:
        return None
    parts: dict[str, dict[str, str]] = {}
    for name, text in value["parts"].items():
        try:
            bound = info(origin=origin, notice_id=value["id"], part=name, kid=value["kid"])
            part = key.open_sealed(b64u_decode(text), bound)
        except (VerbaleError, UnicodeEncodeError):
            return None
        parts[name] = {"salt": b64u_encode(part.salt), "content": b64u_encode(part.content)}
    return parts


# ── how far ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _position(session: Session, log_id: int) -> int:
    """The first index that was not looked at yet."""
    return session.execute(
        select(func.coalesce(func.max(CounterRow.value), 0)).where(CounterRow.name == f"sealed:{log_id}")
    ).scalar_one()


def _set_position(db: Database, session: Session, log_id: int, value: int) -> None:
    session.execute(
        db.upsert(CounterRow.__table__, ("name",), ("value",)).values(name=f"sealed:{log_id}", value=value)
    )
