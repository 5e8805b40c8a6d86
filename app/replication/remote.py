"""The remote door: mirrored leaves are judged by the local door's rules, and the verdict is a flag.

Leaves are stored and proven already. Here their bodies are asked for, both are judged on every core, and they go through
`record_mirrored` in log order, where local notices go as well. A body that cannot be had now does not hold up the leaves:
it stays wanted, and `fetch_missing` comes back for it.
"""

from __future__ import annotations

import logging
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, literal_column, select, update

from app.db import execute
from app.domain.errors import PeerFault
from app.judging import FLOOD, Context, MirroredLeaf
from app.models import EntryRow, LeafRow, LogRow
from app.projections import lineage
from app.projections.late import LateBody, take_late_bodies
from app.record import record_mirrored, watched
from app.replication.bodies import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.domain.sealing import EncryptionKey
    from app.judging import Judges
    from app.projections.arrival import Arrival
    from app.record import Watch
    from app.replication.bodies import Given
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

JUDGED_AT_ONCE: Final = 512
"""Leaves that are judged together; also the most bodies in one request."""
WRITTEN_AT_ONCE: Final = 1_024
"""Leaves in one transaction, if so many are ready: who writes a notice meanwhile waits for it, some tens of milliseconds."""
AHEAD: Final = 3
"""Runs of leaves that are fetched and judged while an earlier one is written: bounds memory in a long catch-up."""
LATE_AT_ONCE: Final = 128


_LOGS, _LEAVES, _ENTRIES = LogRow.__table__, LeafRow.__table__, EntryRow.__table__
_PLACE: Final = select(
    _LOGS.c.origin, _LOGS.c.state, _LOGS.c.judged, _LOGS.c.head_size, _LOGS.c.backfilled, _LOGS.c.continues_id
).where(_LOGS.c.id == bindparam("log"))
_RUN: Final = (
    select(_LEAVES.c.idx, _LEAVES.c.leaf_hash, _LEAVES.c.leaf, _LEAVES.c.received_at)
    .where(
        _LEAVES.c.log_id == bindparam("log"),
        _LEAVES.c.idx >= bindparam("start"),
        _LEAVES.c.idx < bindparam("end"),
    )
    .order_by(_LEAVES.c.idx)
)
_MISSING: Final = (
    select(_LEAVES.c.idx, _LEAVES.c.leaf_hash, _LEAVES.c.leaf, _LEAVES.c.received_at)
    .join_from(
        _LEAVES,
        _ENTRIES,
        (_ENTRIES.c.log_id == _LEAVES.c.log_id) & (_ENTRIES.c.idx == _LEAVES.c.idx),
    )
    .where(
        _ENTRIES.c.log_id == bindparam("log"),
        _ENTRIES.c.body_state == literal_column("'wanted'"),  # not bound: there is an index of what is wanted
        _ENTRIES.c.idx > bindparam("after"),
    )
    .order_by(_ENTRIES.c.idx)
    .limit(LATE_AT_ONCE)
)


def judge_step(
    db: Database,
    log_id: int,
    *,
    roster: Roster,
    judges: Judges,
    bodies: Callable[[Sequence[int]], Given | None],
    clock: Clock,
    ahead: Executor,
    watch: Watch | None = None,
) -> int:
    """Judge and project what is new of a mirror, up to its proven head. Returns how many leaves; 0 when up to date.

    Args:
        bodies: asks the origin, or whoever may have them, for bodies by index; None if nobody answered.
        ahead: threads in which the next runs of leaves are fetched and judged meanwhile.
    """
    with db.read() as session:
        origin, state, judged, head_size, backfilled, before = execute(session, _PLACE, log=log_id).one()
        if judged < head_size and before is not None and lineage.is_waiting(session, log_id):
            return 0  # what it says of the notices of the log before is judged when those are
    if judged >= head_size:
        if not backfilled and judged == head_size:
            with db.write() as session:
                session.execute(
                    update(LogRow).where(LogRow.id == log_id, LogRow.judged == judged).values(backfilled=True)
                )
        return 0
    context = Context(origin, roster, place=(log_id, state))
    flood = head_size - judged > FLOOD

    def prepare(start: int) -> list[Arrival]:
        # Only below a proven head: leaves of a catch-up under way are stored, and may not be complete yet.
        leaves = _read_leaves(db, log_id, start, min(start + JUDGED_AT_ONCE, head_size))
        given = bodies([leaf.index for leaf in leaves])
        return judges.leaves([_with_body(leaf, given) for leaf in leaves], context, flood=flood)

    if head_size - judged <= JUDGED_AT_ONCE:  # the ordinary trickle: no other thread is worth waking
        _record(db, log_id, prepare(judged), origin, now=clock(), live=backfilled, watch=watch)
        return int(head_size - judged)
    starts = iter(range(judged, head_size, JUDGED_AT_ONCE))
    under_way: deque[Future[list[Arrival]]] = deque()
    for start in starts:
        under_way.append(ahead.submit(prepare, start))
        if len(under_way) > AHEAD:
            _record(db, log_id, _ready(under_way), origin, now=clock(), live=backfilled, watch=watch)
    while under_way:
        _record(db, log_id, _ready(under_way), origin, now=clock(), live=backfilled, watch=watch)
    return int(head_size - judged)


def _ready(under_way: deque[Future[list[Arrival]]]) -> list[Arrival]:
    """The oldest run, and with it what else is ready, up to WRITTEN_AT_ONCE leaves: neighbours then go to one page, once."""
    arrivals = under_way.popleft().result()
    while under_way and under_way[0].done() and len(arrivals) < WRITTEN_AT_ONCE:
        arrivals += under_way.popleft().result()
    return arrivals


def _record(
    db: Database,
    log_id: int,
    arrivals: list[Arrival],
    origin: str,
    *,
    now: int,
    live: bool,
    watch: Watch | None,
) -> None:
    with db.write() as session, watched(watch, session, now=now, live=live):
        record_mirrored(db, session, log_id, arrivals, now=now, live=live)
    flagged = sum(arrival.fault is not None or arrival.body_fault is not None for arrival in arrivals)
    if flagged:
        log.warning("leaves flagged", extra={"action": "leaves_flagged", "origin": origin, "count": flagged})


def _read_leaves(db: Database, log_id: int, start: int, end: int) -> list[MirroredLeaf]:
    with db.read() as session:
        rows = execute(session, _RUN, log=log_id, start=start, end=end).all()
    return [MirroredLeaf(idx, bytes(leaf_hash), bytes(leaf), at) for idx, leaf_hash, leaf, at in rows]


def _with_body(leaf: MirroredLeaf, given: Given | None) -> MirroredLeaf:
    """The leaf with what the peer said of its body. `given` None: nobody answered, it stays wanted."""
    if given is None:
        return leaf
    body = given.lines.get(leaf.index)
    return MirroredLeaf(
        leaf.index, leaf.leaf_hash, leaf.leaf, leaf.received_at, body, withheld=leaf.index in given.withheld
    )


class Asked(NamedTuple):
    """What came of asking again: the last index asked for, whether anybody answered, and how many bodies are settled now."""

    last: int
    answered: bool
    settled: int


def fetch_missing(
    db: Database,
    log_id: int,
    *,
    roster: Roster,
    judges: Judges,
    bodies: Callable[[Sequence[int]], Given | None],
    clock: Clock,
    after: int = -1,
    watch: Watch | None = None,
) -> Asked | None:
    """Ask once more for bodies that are wanted, beyond index `after`. Returns None if there are none."""
    with db.read() as session:
        origin, _, _, _, backfilled, _ = execute(session, _PLACE, log=log_id).one()
        rows = execute(session, _MISSING, log=log_id, after=after).all()
    leaves = [MirroredLeaf(idx, bytes(leaf_hash), bytes(leaf), at) for idx, leaf_hash, leaf, at in rows]
    if not leaves:
        return None
    given = bodies([leaf.index for leaf in leaves])
    if given is None:
        return Asked(leaves[-1].index, answered=False, settled=0)
    late = [
        LateBody(a.index, a.body_state, a.parts, a.content, a.body_fault)
        for a in judges.leaves([_with_body(leaf, given) for leaf in leaves], Context(origin, roster))
        if a.fault is None and a.body_state != "wanted"
    ]
    if late:
        now = clock()
        with db.write() as session, watched(watch, session, now=now, live=backfilled):
            take_late_bodies(db, session, log_id=log_id, bodies=late, now=now, live=backfilled)
    return Asked(leaves[-1].index, answered=True, settled=len(late))


def ask_node(
    client: PeerClient,
    node_url: str,
    origin: str,
    indexes: Sequence[int],
    keys: Mapping[str, EncryptionKey] = MappingProxyType({}),
) -> Given | None:
    """Ask one node; None if it did not answer properly (which is logged). `keys` open what it only carries."""
    try:
        return ask(client, node_url, origin, indexes, keys)
    except PeerFault as fault:
        log.warning(
            "bodies not given", extra={"action": "bodies_failed", "origin": origin, "why": str(fault)[:300]}
        )
        return None
