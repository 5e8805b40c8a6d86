"""The remote door: mirrored leaves are judged by the local door's rules, and the verdict is a flag.

Leaves are stored and proven already. Here they are judged in log order, their bodies are asked for, and both go through
`record_mirrored`, where local notices go as well. A body that cannot be had now does not hold up the leaves: it stays
wanted, and `fetch_wanted` comes back for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from app.db import chunks
from app.domain.errors import CommitmentMismatch, PartsMismatch, PeerFault, VerbaleError
from app.domain.judge import VerifiedStatement, check_openings, judge_main, judge_statement
from app.domain.statement import parse
from app.models import EntryRow, LeafRow, LogRow
from app.projections.fold import Arrival
from app.projections.late import LateBody, take_late_bodies
from app.record import record_mirrored
from app.replication.bodies import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from app.clock import Clock
    from app.db import Database
    from app.domain.notices import Notice
    from app.domain.roster import Roster
    from app.domain.statement import Part
    from app.replication.bodies import Given
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

JUDGED_AT_ONCE: Final = 512
"""Leaves in one judging transaction; also the most bodies in one request."""
POOL_CHUNK: Final = 64
LATE_AT_ONCE: Final = 128


def judge_leaves(
    rows: Sequence[tuple[int, bytes, bytes, int]], *, origin: str, roster: Roster, pool: ThreadPoolExecutor
) -> list[tuple[Arrival, VerifiedStatement | None]]:
    """Judge (index, leaf hash, leaf, received_at ms) without bodies, on all cores, in order."""

    def judge(
        some: Sequence[tuple[int, bytes, bytes, int]],
    ) -> list[tuple[Arrival, VerifiedStatement | None]]:
        return [_judge_leaf(*row, origin=origin, roster=roster) for row in some]

    return [judged for some in pool.map(judge, chunks(rows, POOL_CHUNK)) for judged in some]


def _judge_leaf(
    index: int, leaf_hash: bytes, leaf: bytes, received_at: int, *, origin: str, roster: Roster
) -> tuple[Arrival, VerifiedStatement | None]:
    arrival = Arrival(index=index, leaf_hash=leaf_hash, received_at=received_at, statement=None)
    try:
        # Read first, so that a leaf with a bad signature is still shown with what it claims.
        arrival.statement = parse(leaf)
        verified = judge_statement(leaf, origin=origin, index=index, roster=roster, at=received_at // 1000)
    except VerbaleError as fault:
        arrival.fault = fault
        return arrival, None
    arrival.body_state = "wanted" if verified.statement.parts else "none"
    return arrival, verified


def attach_bodies(
    judged: Sequence[tuple[Arrival, VerifiedStatement | None]], given: Given | None, pool: ThreadPoolExecutor
) -> None:
    """Open and judge the bodies a peer gave. `given` None: nobody answered, all of them stay wanted."""
    if given is None:
        return

    def attach(some: Sequence[tuple[Arrival, VerifiedStatement | None]]) -> None:
        for arrival, verified in some:
            if verified is None or arrival.body_state != "wanted":
                continue
            parts = given.parts.get(arrival.index)
            if parts is None:
                if arrival.index in given.withheld:
                    arrival.body_state = "absent"
                continue
            state, notice, fault = open_body(verified, parts)
            arrival.body_state = state
            if state == "held":
                arrival.parts, arrival.notice, arrival.body_fault = parts, notice, fault

    list(pool.map(attach, chunks(judged, POOL_CHUNK)))


def open_body(
    verified: VerifiedStatement, parts: Mapping[str, Part]
) -> tuple[str, Notice | None, VerbaleError | None]:
    """Judge one given body: (state, notice, fault).

    A body that does not open its commitment says nothing about the State that logged the leaf, only about who served it:
    it stays wanted. One that opens it and breaks the rules is held and flagged: the State did sign it.
    """
    try:
        check_openings(verified.statement, parts)
    except (CommitmentMismatch, PartsMismatch):
        return "wanted", None, None
    try:
        return "held", judge_main(verified, parts), None
    except VerbaleError as fault:
        return "held", None, fault


def judge_step(
    db: Database,
    log_id: int,
    *,
    roster: Roster,
    pool: ThreadPoolExecutor,
    bodies: Callable[[Sequence[int]], Given | None],
    clock: Clock,
) -> int:
    """Judge and project the next leaves of a mirror. Returns how many; 0 when it is up to date.

    Args:
        bodies: asks the origin, or whoever may have them, for bodies by index; None if nobody answered.
    """
    with db.read() as session:
        origin, judged, head_size, backfilled = session.execute(
            select(LogRow.origin, LogRow.judged, LogRow.head_size, LogRow.backfilled).where(
                LogRow.id == log_id
            )
        ).one()
        # Only below a proven head: leaves of a catch-up under way are stored, and may not be complete yet.
        rows = [
            (r.idx, bytes(r.leaf_hash), bytes(r.leaf), r.received_at)
            for r in session.execute(
                select(LeafRow.idx, LeafRow.leaf_hash, LeafRow.leaf, LeafRow.received_at)
                .where(LeafRow.log_id == log_id, LeafRow.idx >= judged, LeafRow.idx < head_size)
                .order_by(LeafRow.idx)
                .limit(JUDGED_AT_ONCE)
            )
        ]
    if not rows:
        if not backfilled and judged == head_size:
            with db.write() as session:
                session.execute(
                    update(LogRow).where(LogRow.id == log_id, LogRow.judged == judged).values(backfilled=True)
                )
        return 0
    outcomes = judge_leaves(rows, origin=origin, roster=roster, pool=pool)
    wanted = [arrival.index for arrival, _ in outcomes if arrival.body_state == "wanted"]
    attach_bodies(outcomes, bodies(wanted) if wanted else None, pool)
    with db.write() as session:
        record_mirrored(
            db, session, log_id, [arrival for arrival, _ in outcomes], now=clock(), live=backfilled
        )
    flagged = sum(arrival.fault is not None or arrival.body_fault is not None for arrival, _ in outcomes)
    if flagged:
        log.warning("leaves flagged", extra={"action": "leaves_flagged", "origin": origin, "count": flagged})
    return len(rows)


def fetch_wanted(
    db: Database,
    log_id: int,
    *,
    roster: Roster,
    bodies: Callable[[Sequence[int]], Given | None],
    clock: Clock,
    after: int = -1,
) -> int | None:
    """Ask once more for bodies that are still wanted, from index `after` on. Returns the last index asked for, or None."""
    with db.read() as session:
        origin, judged, backfilled = session.execute(
            select(LogRow.origin, LogRow.judged, LogRow.backfilled).where(LogRow.id == log_id)
        ).one()
        rows = [
            (r.idx, bytes(r.leaf_hash), bytes(r.leaf), r.received_at)
            for r in session.execute(
                select(LeafRow.idx, LeafRow.leaf_hash, LeafRow.leaf, LeafRow.received_at)
                .join(EntryRow, (EntryRow.log_id == LeafRow.log_id) & (EntryRow.idx == LeafRow.idx))
                .where(
                    EntryRow.log_id == log_id,
                    EntryRow.body_state == "wanted",
                    EntryRow.idx > after,
                    EntryRow.idx < judged,
                )
                .order_by(EntryRow.idx)
                .limit(LATE_AT_ONCE)
            )
        ]
    if not rows:
        return None
    given = bodies([row[0] for row in rows])
    if given is None:
        return None
    late: list[LateBody] = []
    for index, leaf_hash, leaf, received_at in rows:
        if index in given.withheld:
            late.append(LateBody(index, "absent"))
        elif index in given.parts:
            _, verified = _judge_leaf(index, leaf_hash, leaf, received_at, origin=origin, roster=roster)
            if verified is None:
                continue
            state, notice, fault = open_body(verified, given.parts[index])
            late.append(LateBody(index, state, given.parts[index], notice, fault))
    with db.write() as session:
        take_late_bodies(db, session, log_id=log_id, bodies=late, now=clock(), live=backfilled)
    return int(rows[-1][0])


def ask_node(client: PeerClient, node_url: str, origin: str, indexes: Sequence[int]) -> Given | None:
    """Ask one node; None if it did not answer properly (which is logged)."""
    try:
        return ask(client, node_url, origin, indexes)
    except PeerFault as fault:
        log.warning(
            "bodies not given", extra={"action": "bodies_failed", "origin": origin, "why": str(fault)[:300]}
        )
        return None
