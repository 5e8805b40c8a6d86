"""Answers about States and their logs: who is who, how far this node is with each, and what was wrong.

Guarantees that completeness is reported and never assumed: a log is "in step" only if this node has proven everything its
origin signed. Headers of leaves are public, so faults of leaves are shown to all; faults of bodies only to callers of
this State who may see everything, as a body's fault tells of the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, or_, select, tuple_

from app.domain.encoding import b64u_encode
from app.domain.errors import InvalidFilter, NotFound
from app.domain.handling import Tlp
from app.domain.states import STATES
from app.models import (
    ConfirmationRow,
    CosignatureRow,
    DeliveryRow,
    EntryRow,
    EventRow,
    EvidenceRow,
    LogRow,
    RosterSaidRow,
    SubscriptionRow,
    WatchRow,
)
from app.models.service import ENDED, PENDING
from app.queries.filters import day_of, make_cursor, read_cursor
from app.queries.notices import MAX_LIMIT, rfc3339
from app.roster.layout import expiry_level
from app.tlog.merkle import tree_root
from app.tlog.store import node_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.quorum import Quorum
    from app.domain.roster import Roster, RosterKey, RosterState
    from app.gate import Principal

ROSTER_WARNING_MS: Final = 3 * 86_400_000
"""How long before its expiry the roster is warned about. Its timestamp lives seven days and is renewed daily, so three days
left means that nobody has renewed it for four. `verbale roster check` warns earlier of what takes a ceremony."""

SKEW_WARNING_MS: Final = 60_000
"""Above a minute something is wrong with a clock; statements more than five minutes ahead are refused."""


# ── the directory ─────────────────────────────────────────────────────────────────────────────────────────────────


def states(roster: Roster, *, now_ms: int) -> dict[str, Any]:
    """All Subscribing States and the holder of the central-contact term, as the API's JSON object."""
    today = day_of(now_ms).isoformat()
    codes = sorted(STATES.keys() | roster.states.keys())
    return {
        "items": [_state(code, roster, today) for code in codes],
        "central_contact": roster.central_contact(today),
        "roster_version": roster.version,
    }


def state(roster: Roster, code: str, *, now_ms: int) -> dict[str, Any]:
    """One State with its keys.

    Raises:
        NotFound: no Subscribing State and not in the roster.
    """
    if code.upper() not in STATES and code.upper() not in roster.states:
        raise NotFound(f"{code[:8]!r} is no Subscribing State. /v1/states lists them.")
    today = day_of(now_ms).isoformat()
    found = _state(code.upper(), roster, today)
    listed = roster.states.get(code.upper())
    now_s = now_ms // 1000
    found["keys"] = [_key(key, now_s) for key in listed.keys] if listed else []
    found["central_contact_terms"] = [
        {"start": term.start, "end": term.end, "confirmed_by": list(term.confirmed_by)}
        for term in roster.terms
        if term.state == code.upper()
    ]
    return found


def _state(code: str, roster: Roster, today: str) -> dict[str, Any]:
    listed, known = roster.states.get(code), STATES.get(code)
    return {
        "state": code,
        "name": listed.name if listed else known.name if known else code,
        "official_name": known.official_name if known else None,
        "regimes": list(known.regimes) if known else [],
        "eu_member": known.eu_member if known else None,
        "authority": known.authority if known else None,
        "membership": listed.status if listed else "not-listed",
        "joined": listed.joined if listed else None,
        "left": listed.left if listed else None,
        "central_contact": roster.central_contact(today) == code,
        "contact_point": _contact_point(listed),
        "url": listed.url if listed else None,
        "logs": [
            {"origin": log.origin, "epoch": log.epoch, "url": log.url, "status": log.status}
            for log in listed.logs
        ]
        if listed
        else [],
        "witness": listed.witness_name if listed else None,
    }


def _contact_point(listed: RosterState | None) -> dict[str, Any] | None:
    point = listed.contact_point if listed else None
    if point is None:
        return None
    return {
        "office": point.office,
        "email": point.email,
        "phone": point.phone,
        "languages": list(point.languages),
        "hours": point.hours,
    }


def _key(key: RosterKey, now_s: int) -> dict[str, Any]:
    if key.revoked_at_index is not None:
        status = "revoked"
    elif now_s < key.active_from:
        status = "future"
    elif key.active_to is not None and now_s >= key.active_to:
        status = "past"
    else:
        status = "active"
    return {
        "kid": key.kid,
        "use": key.use,
        "alg": key.key.alg,
        "public": b64u_encode(key.key.raw),
        "status": status,
        "active_from": rfc3339(key.active_from * 1000),
        "active_to": None if key.active_to is None else rfc3339(key.active_to * 1000),
        "revoked_at_index": key.revoked_at_index,
        "suspect_from": None if key.suspect_from is None else rfc3339(key.suspect_from * 1000),
    }


# ── health of the federation ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class LogView:
    """How far this node is with one log. Times are unix ms, sizes and counts are leaves.

    Attributes:
        size: leaves stored and proven here.
        judged: leaves of those that are judged and can be found.
        claimed_size: largest size the origin signed, as far as this node knows.
        head_at: when this node verified (own log: signed) the newest head.
        receipts: State -> (largest size its witness cosigned, when by its clock, unix s).
        pending_bodies: bodies this State is, or may be, entitled to that have not come yet.
    """

    origin: str
    state: str
    epoch: int
    is_own: bool
    status: str
    size: int
    judged: int
    head_size: int
    claimed_size: int
    head_at: int | None
    contact_at: int | None
    skew_ms: int | None
    backfilled: bool
    error_code: str | None
    error_detail: str | None
    error_at: int | None
    faults: int
    body_faults: int
    pending_bodies: int
    receipts: Mapping[str, tuple[int, int]]
    foreign: Mapping[str, tuple[int, int]]
    confirmed_size: int
    confirmed_at: int | None
    frozen_size: int | None = None
    frozen_root: bytes | None = None
    continues: dict[str, Any] | None = None
    follows: dict[str, Any] | None = None
    withheld: bool = False
    closed: bool = False
    evidence: tuple[str, ...] = ()

    @property
    def lag_leaves(self) -> int:
        """Leaves the origin signed that are not proven here yet."""
        return max(0, self.claimed_size - self.size)

    def lag_seconds(self, now_ms: int) -> float:
        """Zero in step; otherwise how old the newest head is that this node has proven."""
        if self.lag_leaves == 0:
            return 0.0
        since = self.head_at or self.contact_at
        return 0.0 if since is None else max(0, now_ms - since) / 1000

    def confirmation(self, quorum: Quorum) -> dict[str, Any]:
        """What a quorum vouches for, on the wire. Lag is against the largest size the log signed, as far as known here."""
        return {
            "size": self.confirmed_size,
            "at": None if self.confirmed_at is None else rfc3339(self.confirmed_at * 1000),
            "lag_leaves": max(0, self.claimed_size - self.confirmed_size),
            "witnesses": len(quorum.witnesses),
            "faulty": quorum.faulty,
            "quorum": quorum.needed,
            "takes_all": quorum.takes_all,
        }

    def wire(self, now_ms: int, quorum: Quorum, *, details: bool) -> dict[str, Any]:
        """The JSON object of the API; `details` only for callers of a State: they may quote inner addresses."""
        error = None
        if self.error_code is not None:
            error = {
                "code": self.error_code,
                "since": None if self.error_at is None else rfc3339(self.error_at),
            }
            if details:
                error["detail"] = self.error_detail
        silent = None if self.is_own or self.contact_at is None else max(0, now_ms - self.contact_at) / 1000
        return {
            "state": self.state,
            "origin": self.origin,
            "epoch": self.epoch,
            "own": self.is_own,
            "status": self.status,
            "size": self.size,
            "judged": self.judged,
            "head_size": self.head_size,
            "head_at": None if self.head_at is None else rfc3339(self.head_at),
            "claimed_size": self.claimed_size,
            "lag": {"leaves": self.lag_leaves, "seconds": round(self.lag_seconds(now_ms), 3)},
            "in_step": self.size >= self.claimed_size
            and self.judged >= self.size
            and self.error_code is None,
            "skew_ms": self.skew_ms,
            "last_contact": None if self.contact_at is None else rfc3339(self.contact_at),
            "silent_seconds": silent,
            "backfilled": self.backfilled,
            "faults": self.faults,
            "frozen_size": self.frozen_size,
            "frozen_root": None if self.frozen_root is None else b64u_encode(self.frozen_root),
            "continues": self.continues,
            "follows": self.follows,
            "withheld": self.withheld,
            "evidence": list(self.evidence),
            "receipts": [
                {"state": state, "size": size, "at": rfc3339(at * 1000), "complete": size >= self.head_size}
                for state, (size, at) in sorted(self.receipts.items())
            ],
            "foreign_witnesses": [
                {"name": name, "size": size, "at": rfc3339(at * 1000)}
                for name, (size, at) in sorted(self.foreign.items())
            ],
            "confirmed": self.confirmation(quorum),
            "error": error,
        }


def logs(session: Session) -> list[LogView]:
    """Every log this node keeps, its own first."""
    faults = _counts(session, EntryRow.fault_code.is_not(None))
    body_faults = _counts(session, EntryRow.body_fault_code.is_not(None))
    wanted = _counts(session, EntryRow.body_state == "wanted")
    receipts: dict[int, dict[str, tuple[int, int]]] = {}
    for row in _receipts(session):
        receipts.setdefault(row[0], {})[row[1]] = (row[2], row[3])
    foreign: dict[int, dict[str, tuple[int, int]]] = {}
    for log_id, name, size, at in _foreign(session):
        foreign.setdefault(log_id, {})[name] = (size, at)
    confirmed_at = _confirmed_at(session)
    watched = {row.log_id: row for row in session.scalars(select(WatchRow))}
    follows = _follows(session)
    evidence: dict[str, list[str]] = {}
    for origin, record in session.execute(
        select(EvidenceRow.origin, EvidenceRow.id).order_by(EvidenceRow.at, EvidenceRow.id)
    ):
        evidence.setdefault(origin, []).append(record)
    rows = session.scalars(select(LogRow).order_by(LogRow.is_own.desc(), LogRow.state, LogRow.epoch))
    return [
        LogView(
            origin=row.origin,
            state=row.state,
            epoch=row.epoch,
            is_own=row.is_own,
            status=row.status,
            size=row.size,
            judged=row.judged,
            head_size=row.head_size,
            claimed_size=max(row.claimed_size, row.head_size),
            head_at=row.head_at,
            contact_at=row.contact_at,
            skew_ms=row.skew_ms,
            backfilled=row.backfilled,
            error_code=row.error_code,
            error_detail=row.error_detail,
            error_at=row.error_at,
            faults=faults.get(row.id, 0),
            body_faults=body_faults.get(row.id, 0),
            pending_bodies=wanted.get(row.id, 0),
            receipts=receipts.get(row.id, {}),
            foreign=foreign.get(row.id, {}),
            confirmed_size=row.confirmed_size,
            confirmed_at=confirmed_at.get(row.id),
            frozen_size=(frozen := watched[row.id].frozen_size if row.id in watched else None),
            frozen_root=_root_at(session, row, frozen),
            continues=_continues(session, row),
            follows=follows.get(row.id),
            closed=row.id in watched and watched[row.id].closed_at is not None,
            withheld=row.id in watched and watched[row.id].withheld_at is not None,
            evidence=tuple(evidence.get(row.origin, ())),
        )
        for row in rows
    ]


def _root_at(session: Session, row: LogRow, size: int | None) -> bytes | None:
    return None if size is None or size > row.size else tree_root(node_reader(session, row.id), size)


def _continues(session: Session, row: LogRow) -> dict[str, Any] | None:
    """Which ended log this one continues by the roster, and whether its first leaf says so."""
    if row.continues_id is None:
        return None
    before = session.execute(
        select(LogRow.origin, LogRow.end_size).where(LogRow.id == row.continues_id)
    ).one()
    first = session.execute(
        select(EntryRow.kind, EntryRow.fault_code, EntryRow.body_fault_code, EntryRow.body_state).where(
            EntryRow.log_id == row.id, EntryRow.idx == 0
        )
    ).one_or_none()
    stated = first is not None and tuple(first) == ("anchor", None, None, "held")
    return {"origin": before.origin, "size": before.end_size, "stated": stated}


def _follows(session: Session) -> dict[int, dict[str, Any]]:
    """Log → the roster that its node says it follows, in its newest leaf about it."""
    newest = (
        select(RosterSaidRow.log_id, func.max(RosterSaidRow.idx).label("idx"))
        .group_by(RosterSaidRow.log_id)
        .subquery()
    )
    rows = session.execute(
        select(
            RosterSaidRow.log_id,
            RosterSaidRow.version,
            RosterSaidRow.sha256,
            RosterSaidRow.idx,
            RosterSaidRow.iat,
        ).join(newest, and_(newest.c.log_id == RosterSaidRow.log_id, newest.c.idx == RosterSaidRow.idx))
    )
    return {
        row.log_id: {
            "version": row.version,
            "sha256": row.sha256,
            "index": row.idx,
            "at": rfc3339(row.iat * 1000),
        }
        for row in rows
    }


def roster_contradictions(session: Session, roster: Roster) -> list[dict[str, Any]]:
    """Versions of the roster of which nodes follow different ones: two were signed, and shown to different States.

    One object for each version: its digests, each with the leaves that name it. The roster in force here counts too.
    """
    several = (
        select(RosterSaidRow.version)
        .group_by(RosterSaidRow.version)
        .having(func.count(RosterSaidRow.sha256.distinct()) > 1)
    )
    rows = session.execute(
        select(RosterSaidRow.version, RosterSaidRow.sha256, LogRow.state, LogRow.origin, RosterSaidRow.idx)
        .join(LogRow, LogRow.id == RosterSaidRow.log_id)
        .where(
            RosterSaidRow.version.in_(several)
            | (RosterSaidRow.version == roster.version) & (RosterSaidRow.sha256 != roster.sha256)
        )
        .order_by(RosterSaidRow.version, RosterSaidRow.sha256, LogRow.state, RosterSaidRow.idx)
        .limit(MAX_LIMIT)
    )
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for version, digest, state, origin, idx in rows:
        leaves = found.setdefault(version, {}).setdefault(digest, [])
        leaves.append({"state": state, "origin": origin, "index": idx})
    if roster.version in found:
        found[roster.version].setdefault(roster.sha256, [])
    return [
        {
            "version": version,
            "rosters": [{"sha256": d, "leaves": leaves} for d, leaves in sorted(digests.items())],
        }
        for version, digests in sorted(found.items())
    ]


def _counts(session: Session, condition: Any) -> dict[int, int]:  # noqa: ANN401 - an SQL condition
    rows = session.execute(select(EntryRow.log_id, func.count()).where(condition).group_by(EntryRow.log_id))
    return {log_id: count for log_id, count in rows}  # noqa: C416 - Row to tuple


def _receipts(session: Session) -> list[tuple[int, str, int, int]]:
    largest = (
        select(CosignatureRow.log_id, CosignatureRow.state, func.max(CosignatureRow.size).label("size"))
        .where(CosignatureRow.state.is_not(None))
        .group_by(CosignatureRow.log_id, CosignatureRow.state)
        .subquery()
    )
    rows = session.execute(
        select(
            CosignatureRow.log_id,
            CosignatureRow.state,
            CosignatureRow.size,
            func.min(CosignatureRow.timestamp),
        )
        .join(
            largest,
            and_(
                largest.c.log_id == CosignatureRow.log_id,
                largest.c.state == CosignatureRow.state,
                largest.c.size == CosignatureRow.size,
            ),
        )
        .group_by(CosignatureRow.log_id, CosignatureRow.state, CosignatureRow.size)
    )
    return [(log_id, state, size, at) for log_id, state, size, at in rows if state is not None]


def _foreign(session: Session) -> list[tuple[int, str, int, int]]:
    """The newest size that each witness outside the roster cosigned, by log: shown, and counted for nothing."""
    largest = (
        select(CosignatureRow.log_id, CosignatureRow.witness, func.max(CosignatureRow.size).label("size"))
        .where(CosignatureRow.state.is_(None))
        .group_by(CosignatureRow.log_id, CosignatureRow.witness)
        .subquery()
    )
    rows = session.execute(
        select(
            CosignatureRow.log_id, CosignatureRow.witness, CosignatureRow.size, CosignatureRow.timestamp
        ).join(
            largest,
            and_(
                largest.c.log_id == CosignatureRow.log_id,
                largest.c.witness == CosignatureRow.witness,
                largest.c.size == CosignatureRow.size,
            ),
        )
    )
    return [(log_id, name, size, at) for log_id, name, size, at in rows]


def _confirmed_at(session: Session) -> dict[int, int]:
    """When each log's confirmed size was confirmed, unix seconds, as its history says."""
    rows = session.execute(
        select(ConfirmationRow.log_id, func.min(ConfirmationRow.at))
        .join(
            LogRow, and_(LogRow.id == ConfirmationRow.log_id, LogRow.confirmed_size == ConfirmationRow.size)
        )
        .group_by(ConfirmationRow.log_id)
    )
    return {log_id: at for log_id, at in rows}  # noqa: C416 - Row to tuple


def federation(
    session: Session, roster: Roster, principal: Principal, *, own_state: str, now_ms: int
) -> dict[str, Any]:
    """The health of the federation as this node sees it, as the API's JSON object."""
    kept = logs(session)
    details = principal.state is not None
    today = day_of(now_ms).isoformat()
    missing = {log.origin for s in roster.nodes() for log in s.logs} - {log.origin for log in kept}
    contradictions = roster_contradictions(session, roster)
    return {
        "state": own_state,
        "now": rfc3339(now_ms),
        "central_contact": roster.central_contact(today),
        **_quorum(roster, own_state),
        "roster": {
            "version": roster.version,
            "sha256": roster.sha256,
            "expires": rfc3339(roster.expires * 1000),
            "warnings": [*warnings(roster, kept, now_ms), *map(_contradicts, contradictions)],
            "contradictions": contradictions,
        },
        "accepting": all(log.status == "ok" and not log.closed for log in kept if log.is_own),
        "logs": [log.wire(now_ms, roster.quorum_for(log.state), details=details) for log in kept],
        "not_followed": sorted(missing),
    }


def _contradicts(found: dict[str, Any]) -> dict[str, str]:
    return {
        "code": "roster-contradiction",
        "detail": f"States follow {len(found['rosters'])} different rosters of version {found['version']}: whoever signs it has "
        "shown different ones to different States. The leaves that say so prove it. See docs/operations.md.",
    }


def _quorum(roster: Roster, own_state: str) -> dict[str, Any]:
    """The quorum of this node's own log; each log has its own beside its confirmed size."""
    quorum = roster.quorum_for(own_state)
    m, f, q = len(quorum.witnesses), quorum.faulty, quorum.needed
    if quorum.takes_all:
        said = f"All {m} witnesses must cosign: with fewer than four witnesses there is no room for a dishonest one."
    else:
        said = f"{q} of {m} witnesses must cosign; up to {f} may be dishonest or broken."
    return {"quorum": q, "faulty": f, "witnesses": m, "quorum_rule": said}


def _ceremonies(roster: Roster, now: int) -> list[dict[str, str]]:
    """Metadata that people have to sign again before long: 60, 30 and 14 days ahead."""
    found = []
    for role, end in sorted(roster.expiries.items(), key=lambda item: item[1]):
        level = expiry_level(role, end, now)
        if role in ("snapshot", "timestamp") or level == "fine":
            continue
        when = day_of(end * 1000).isoformat()
        if level == "expired":
            said = f"{role} has expired: it counted until {when}. Hold its ceremony: verbale roster propose renewal"
            found.append({"code": "ceremony-overdue", "detail": said})
        else:
            said = f"{role} expires {level}, on {when}. Hold its ceremony: verbale roster propose renewal"
            found.append({"code": "ceremony-due", "detail": said})
    return found


def warnings(roster: Roster, kept: list[LogView], now_ms: int) -> list[dict[str, str]]:
    """What an operator should see to, as code and sentence."""
    found: list[dict[str, str]] = []
    if roster.expires * 1000 <= now_ms:
        found.append(
            {
                "code": "roster-expired",
                "detail": "The roster has expired. Its administrators have to sign new metadata.",
            }
        )
    elif roster.expires * 1000 - now_ms < ROSTER_WARNING_MS:
        days = (roster.expires * 1000 - now_ms) // 86_400_000
        found.append({"code": "roster-expires-soon", "detail": f"The roster expires in {days} days."})
    found.extend(_ceremonies(roster, now_ms // 1000))
    if roster.central_contact(day_of(now_ms).isoformat()) is None:
        found.append({"code": "no-central-contact", "detail": "Nobody holds the central-contact term today."})
    found.extend(
        {
            "code": "clock-skew",
            "detail": f"The clock of {log.state} is {log.skew_ms / 1000:.0f} s off this node's.",
        }
        for log in kept
        if log.skew_ms is not None and abs(log.skew_ms) > SKEW_WARNING_MS
    )
    return found


# ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────────


def faults(
    session: Session,
    principal: Principal,
    *,
    own_state: str,
    of_state: str | None,
    limit: int,
    cursor: str | None,
) -> dict[str, Any]:
    """Leaves that failed judgement, in log order, as the API's JSON object; for whom it may concern, bodies too.

    Raises:
        InvalidFilter, InvalidCursor: see `app.queries.notices.find`.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    with_bodies = principal.state == own_state and principal.ceiling >= Tlp.RED
    conditions: list[Any] = [EntryRow.fault_code.is_not(None)]
    if with_bodies:
        conditions = [or_(EntryRow.fault_code.is_not(None), EntryRow.body_fault_code.is_not(None))]
    if of_state is not None:
        if of_state.upper() not in STATES:
            raise InvalidFilter(f"state: {of_state!r} is no Subscribing State.")
        conditions.append(LogRow.state == of_state.upper())
    scope = f"faults:{of_state}:{with_bodies}"
    total = session.execute(
        select(func.count())
        .select_from(EntryRow)
        .join(LogRow, LogRow.id == EntryRow.log_id)
        .where(*conditions)
    ).scalar_one()
    if cursor is not None:
        position = read_cursor(scope, cursor)
        conditions.append(
            tuple_(EntryRow.log_id, EntryRow.idx) > tuple_(position >> 44, position & ((1 << 44) - 1))
        )
    rows = session.execute(
        select(EntryRow, LogRow.origin, LogRow.state)
        .join(LogRow, LogRow.id == EntryRow.log_id)
        .where(*conditions)
        .order_by(EntryRow.log_id, EntryRow.idx)
        .limit(limit + 1)
    ).all()
    items = [_fault(entry, origin, of) for entry, origin, of in rows[:limit]]
    last = rows[limit - 1][0] if len(rows) > limit else None
    return {
        "items": items,
        "next": None if last is None else make_cursor(scope, last.log_id << 44 | last.idx),
        "total": total,
    }


def _fault(entry: EntryRow, origin: str, of_state: str) -> dict[str, Any]:
    of_leaf = entry.fault_code is not None
    return {
        "state": of_state,
        "origin": origin,
        "index": entry.idx,
        "leaf_hash": b64u_encode(bytes(entry.leaf_hash)),
        "part": "statement" if of_leaf else "body",
        "code": entry.fault_code if of_leaf else entry.body_fault_code,
        "detail": entry.fault_detail if of_leaf else entry.body_fault_detail,
        "received_at": rfc3339(entry.received_at),
    }


# ── queues ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """How webhooks stand. Times in unix ms.

    Attributes:
        events_ahead: events that the active subscription which is furthest behind has not come to yet.
        oldest: since when something waits to be told: the first delivery at its endpoint, or the first of those events.
        failed: dead letters.
        subscriptions: how many there are, by status.
        failing: active subscriptions whose last attempt failed.
    """

    pending: int
    events_ahead: int
    oldest: int | None
    failed: int
    subscriptions: Mapping[str, int]
    failing: int


def webhooks(session: Session) -> DeliveryView:
    """Read from indexes alone, whatever waits: a look at the metrics must not cost more the worse things are."""
    first = (
        select(DeliveryRow.created_at)
        .where(DeliveryRow.subscription_id == SubscriptionRow.id, DeliveryRow.state == PENDING)
        .order_by(DeliveryRow.lane, DeliveryRow.due_at, DeliveryRow.event_seq)
        .limit(1)
        .correlate(SubscriptionRow)
        .scalar_subquery()
    )
    count = select(func.count()).select_from(DeliveryRow)
    newest = session.scalar(select(func.max(EventRow.seq))) or 0
    furthest = session.scalar(
        select(func.min(SubscriptionRow.fanned_seq)).where(SubscriptionRow.status == "active")
    )
    waits_since = (
        session.scalar(select(func.min(select(first.label("at")).subquery().c.at))),
        None
        if furthest is None
        else session.scalar(
            select(EventRow.at).where(EventRow.seq > furthest).order_by(EventRow.seq).limit(1)
        ),
    )
    return DeliveryView(
        pending=session.scalar(count.where(DeliveryRow.state == PENDING)) or 0,
        events_ahead=0 if furthest is None else max(0, newest - furthest),
        oldest=min((at for at in waits_since if at is not None), default=None),
        failed=session.scalar(count.where(ENDED, DeliveryRow.state == "failed")) or 0,
        subscriptions={
            row.status: row.number
            for row in session.execute(
                select(SubscriptionRow.status, func.count().label("number")).group_by(SubscriptionRow.status)
            )
        },
        failing=session.scalar(
            select(func.count()).where(SubscriptionRow.status == "active", SubscriptionRow.failures > 0)
        )
        or 0,
    )


def prove_writable(db: Database, session: Session) -> None:
    """Write one row, as a probe: a full disk or a read-only replica shows here and not at the first notice."""
    db.next_values(session, "readiness", 1)
