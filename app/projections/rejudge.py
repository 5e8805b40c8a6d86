"""Judging again what a new roster judges otherwise.

A leaf's verdict follows from its bytes, its index and the roster. When a roster comes that lists a key late, revokes one
from an index on, or suspends a State, some verdicts change: those leaves, and whatever hangs on them, are folded again
here, with the result that a rebuild of the whole log would have. So two nodes agree whenever they hold the same roster,
whatever they held when a leaf came.

What hangs together: leaves with the same id, and leaves one of which refers to the other. Everything else stays as it is,
so that a key that came late to the roster of a log of a million leaves costs what its own leaves cost.

The times of leaves follow from the roster as well, as it says whose witnesses counted when: a history is counted again
beside the leaves (`app.tlog.confirm`).

One log is one transaction; a crash leaves it as it was, and `logs.judged_under`, which is written last, still says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, or_, select, update

from app import bodies
from app.db import SQLITE_VARIABLES, chunks, execute
from app.judging import Context, MirroredLeaf
from app.models import EntryRow, ErasureSaidRow, LeafRow, LogRow, NoticeRow, RosterSaidRow, ScreenedRow
from app.projections import lineage
from app.projections.fold import SCREENED_EPOCH, Fold, fold_all, forget_terms
from app.projections.late import give_back
from app.tlog.confirm import Recount, apply_recount, recount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session
    from sqlalchemy.orm.attributes import InstrumentedAttribute

    from app.db import Database
    from app.domain.roster import Roster, RosterState
    from app.domain.statement import Part
    from app.projections.arrival import Arrival

    Judge = Callable[[Sequence[MirroredLeaf], Context], list[Arrival]]

ROSTER_FAULTS: Final = ("unknown-key", "wrong-key-use", "key-not-active", "not-allowed", "log-ended")
"""Faults that another roster may lift. A signature that does not hold never will: a key id names one key for ever."""
_BEFORE: Final = ("malformed-statement", "wrong-log")
"""Faults found before the roster is asked (`app.domain.judge`)."""
WINDOW: Final = 2048


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What became of one log: leaves that count now, leaves that do not any more, and how many were folded again."""

    origin: str
    cleared: int
    flagged: int
    folded: int


_UNDER: Final = select(
    LogRow.__table__.c.origin,
    LogRow.__table__.c.judged_under,
    LogRow.__table__.c.confirmed_under,
).where(LogRow.__table__.c.id == bindparam("log"))


def is_due(session: Session, log_id: int, roster: Roster) -> bool:
    """Whether the log's leaves were judged, or its history counted, under another view of the States than `roster` gives."""
    row = execute(session, _UNDER, log=log_id).one()
    if row.confirmed_under != roster.confirms_by:
        return True
    return bool(row.judged_under != roster.judges_by(row.origin)) or not lineage.is_linked(
        session, log_id, row.origin, roster
    )


def rejudge_log(
    db: Database,
    log_id: int,
    *,
    judge: Judge,
    roster: Roster,
    now: int,
) -> Rejudged | None:
    """Bring the verdicts of one log up to `roster`; None if they are.

    Args:
        judge: `app.judging.Judges.leaves`.
        now: unix ms, for the events of leaves that count now.
    """
    with db.read() as session:
        if not is_due(session, log_id, roster):
            return None
        origin, of, under = session.execute(
            select(LogRow.origin, LogRow.state, LogRow.confirmed_under).where(LogRow.id == log_id)
        ).one()
        history = Recount() if under == roster.confirms_by else recount(session, log_id, of, roster)
        lifted = _lifted(session, log_id, Context(origin, roster), judge)
    with db.write() as session:
        log = lineage.lock(session, log_id)
        state = roster.state_of_origin(origin)
        changed = lifted | _fallen(session, log_id, origin, state, roster)
        if lineage.link(session, log_id, origin, roster):
            changed |= lineage.hanging_on(session, log_id)
        result = Rejudged(origin, 0, 0, 0)
        if changed:
            result = _refold(db, session, log_id, log.state, Context(origin, roster), changed, judge, now)
            _refold_later(db, session, log_id, roster, judge, now)
        apply_recount(db, session, log_id, history)
        session.execute(
            update(LogRow)
            .where(LogRow.id == log_id)
            .values(judged_under=roster.judges_by(origin), confirmed_under=roster.confirms_by)
        )
    return result


def _refold_later(
    db: Database, session: Session, log_id: int, roster: Roster, judge: Judge, now: int
) -> None:
    """What the logs that continue this one say of its notices, folded again."""
    after = lineage.later(session, log_id)
    if after is None:
        return
    hanging = lineage.hanging_on(session, after)
    if hanging:
        origin, state = session.execute(select(LogRow.origin, LogRow.state).where(LogRow.id == after)).one()
        _refold(db, session, after, state, Context(origin, roster), hanging, judge, now)
    _refold_later(db, session, after, roster, judge, now)


# ── which verdicts change ─────────────────────────────────────────────────────────────────────────────────────────


def _lifted(
    session: Session,
    log_id: int,
    context: Context,
    judge: Judge,
) -> set[int]:
    """Flagged leaves that another fault, or none, is found with now."""
    changed: set[int] = set()
    after = -1
    while True:
        rows = session.execute(
            select(EntryRow.idx, EntryRow.fault_code)
            .where(EntryRow.log_id == log_id, EntryRow.idx > after, EntryRow.fault_code.in_(ROSTER_FAULTS))
            .order_by(EntryRow.idx)
            .limit(WINDOW)
        ).all()
        if not rows:
            return changed
        before = {row.idx: row.fault_code for row in rows}
        for arrival in judge(_leaves(session, log_id, sorted(before), {}, frozenset()), context):
            code = arrival.fault.code if arrival.fault else None
            if code != before[arrival.index]:
                changed.add(arrival.index)
        after = rows[-1].idx


def _fallen(
    session: Session, log_id: int, origin: str, state: RosterState | None, roster: Roster
) -> set[int]:
    """Leaves that the roster's rules let pass, and do not under this roster; also those that a later rule has flagged."""
    counted = (EntryRow.log_id == log_id) & or_(
        EntryRow.fault_code.is_(None), EntryRow.fault_code.not_in((*_BEFORE, *ROSTER_FAULTS))
    )
    if state is None:
        return set(session.scalars(select(EntryRow.idx).where(counted)))
    conditions: list[ColumnElement[bool]] = []
    if (end := state.end_of(origin)) is not None:
        conditions.append(EntryRow.idx >= end)
    listed = roster.log(origin)
    if listed is not None and listed.end is not None:
        conditions.append(EntryRow.idx >= listed.end)
    keys = {key.kid: key for key in state.keys}
    for kid in session.scalars(select(EntryRow.kid).where(counted).distinct()):
        key = keys.get(kid or "")
        if key is None:
            conditions.append(EntryRow.kid == kid)
            continue
        over = [EntryRow.iat < key.active_from]
        if key.active_to is not None:
            over.append(EntryRow.iat >= key.active_to)
        if key.revoked_at_index is not None:
            over.append(EntryRow.idx >= key.revoked_at_index)
        conditions.append((EntryRow.kid == kid) & or_(*over))
    if not conditions:
        return set()
    return set(session.scalars(select(EntryRow.idx).where(counted, or_(*conditions))))


# ── what hangs on them ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Node:
    idx: int
    id: str | None
    ref: bytes | None
    leaf_hash: bytes
    root_idx: int | None
    kind: str | None


_COLUMNS: Final = (
    EntryRow.idx, EntryRow.id, EntryRow.ref, EntryRow.leaf_hash, EntryRow.root_idx, EntryRow.kind,
)  # fmt: skip


def _connected(session: Session, log_id: int, start: Iterable[int]) -> list[int]:
    """All leaves that hang together with those of `start`, in log order.

    Flagged leaves are few and are held in memory; those that count are found by their notice.
    """
    flagged = [_node(row) for row in _rows(session, log_id, EntryRow.fault_code.is_not(None))]
    by_id: dict[str, list[_Node]] = {}
    by_ref: dict[bytes, list[_Node]] = {}
    by_hash: dict[bytes, _Node] = {}
    for node in flagged:
        by_hash[node.leaf_hash] = node
        if node.id is not None:
            by_id.setdefault(node.id, []).append(node)
        if node.ref is not None and node.kind != "ack":
            by_ref.setdefault(node.ref, []).append(node)
    found: dict[int, _Node] = {}
    roots: set[int] = set()
    fresh: list[_Node] = [
        _node(row)
        for some in chunks(sorted(start), SQLITE_VARIABLES - 1)
        for row in _rows(session, log_id, EntryRow.idx.in_(some))
    ]
    while fresh:
        found |= {node.idx: node for node in fresh}
        near: list[_Node] = []
        for node in fresh:
            near += by_id.get(node.id or "", [])
            near += by_ref.get(node.leaf_hash, [])
            if node.ref is not None and node.kind != "ack" and node.ref in by_hash:
                near.append(by_hash[node.ref])
        ids = [node.id for node in fresh if node.id is not None]
        refs = [node.ref for node in fresh if node.ref is not None and node.kind != "ack"]
        new_roots = {node.root_idx for node in fresh if node.root_idx is not None} - roots
        roots |= new_roots
        near += _matching(session, log_id, EntryRow.id, ids)
        near += _matching(session, log_id, EntryRow.leaf_hash, refs)
        near += _matching(session, log_id, EntryRow.root_idx, sorted(new_roots))
        fresh = list({node.idx: node for node in near if node.idx not in found}.values())
    return sorted(found)


def _matching(
    session: Session, log_id: int, column: InstrumentedAttribute[Any], values: Sequence[object]
) -> list[_Node]:
    """Leaves that count and have one of these values."""
    return [
        _node(row)
        for some in chunks(values, SQLITE_VARIABLES - 1)
        for row in _rows(session, log_id, EntryRow.fault_code.is_(None) & column.in_(some))
    ]


def _rows(session: Session, log_id: int, where: ColumnElement[bool]) -> Iterable[Any]:
    return session.execute(select(*_COLUMNS).where(EntryRow.log_id == log_id, where)).all()


def _node(row: Any) -> _Node:  # noqa: ANN401 - a row of `_COLUMNS`
    ref = None if row.ref is None else bytes(row.ref)
    return _Node(row.idx, row.id, ref, bytes(row.leaf_hash), row.root_idx, row.kind)


# ── folding them again ────────────────────────────────────────────────────────────────────────────────────────────


def _refold(
    db: Database,
    session: Session,
    log_id: int,
    issuer: str,
    context: Context,
    changed: set[int],
    judge: Judge,
    now: int,
) -> Rejudged:
    indexes = _connected(session, log_id, changed)
    flagged, absent, seq = _drop(db, session, log_id, indexes)
    held = bodies.opened(session, log_id, indexes)
    arrivals = judge(_leaves(session, log_id, indexes, held, absent), context)
    for arrival in arrivals:
        arrival.stored = True
    statements = [a.statement if a.fault is None else None for a in arrivals]
    fold = Fold(db, session, log_id=log_id, issuer=issuer, statements=statements)
    fold_all(fold, arrivals)
    standing = {a.index for a in arrivals if a.fault is None}
    # What counted before has been told before. A notice that counts only now is news.
    fold.flush(now=now, live=True, tell=frozenset(flagged & standing))
    for root, number in seq.items():
        session.execute(
            update(NoticeRow).where(NoticeRow.log_id == log_id, NoticeRow.idx == root).values(seq=number)
        )
    if not seq.keys() <= fold.roots():
        # A notice is gone and left no row to say so: whoever holds an index in memory reads all of it again.
        db.next_values(session, SCREENED_EPOCH, 1)
    return Rejudged(
        context.origin,
        cleared=len(flagged & standing),
        flagged=len(set(indexes) - flagged - standing),
        folded=len(indexes),
    )


def _drop(
    db: Database, session: Session, log_id: int, indexes: Sequence[int]
) -> tuple[set[int], frozenset[int], dict[int, int]]:
    """Delete what the leaves were folded to; return which were flagged, which bodies are not for this State, and `seq`s."""
    flagged: set[int] = set()
    absent: set[int] = set()
    seq: dict[int, int] = {}
    moved: list[lineage.Key] = []
    for some in chunks(indexes, SQLITE_VARIABLES - 1):
        for row in session.execute(
            select(EntryRow.idx, EntryRow.fault_code, EntryRow.body_state).where(
                EntryRow.log_id == log_id, EntryRow.idx.in_(some)
            )
        ):
            if row.fault_code is not None:
                flagged.add(row.idx)
            if row.body_state == "absent":
                absent.add(row.idx)
        for notice in session.execute(
            select(
                NoticeRow.idx, NoticeRow.seq, NoticeRow.document, NoticeRow.from_log_id, NoticeRow.from_idx
            ).where(NoticeRow.log_id == log_id, NoticeRow.idx.in_(some))
        ):
            seq[notice.idx] = notice.seq
            if notice.from_log_id is not None:
                moved.append((notice.from_log_id, notice.from_idx))
            forget_terms(session, log_id, notice.idx, notice.document)
        for table in (ScreenedRow, NoticeRow, ErasureSaidRow, RosterSaidRow, EntryRow):
            session.execute(delete(table).where(table.log_id == log_id, table.idx.in_(some)))
    give_back(db, session, moved)
    return flagged, frozenset(absent), seq


def _leaves(
    session: Session,
    log_id: int,
    indexes: Sequence[int],
    held: Mapping[int, Mapping[str, Part]],
    absent: frozenset[int],
) -> list[MirroredLeaf]:
    found: list[MirroredLeaf] = []
    for some in chunks(indexes, SQLITE_VARIABLES - 1):
        rows = session.execute(
            select(LeafRow.idx, LeafRow.leaf_hash, LeafRow.leaf, LeafRow.received_at)
            .where(LeafRow.log_id == log_id, LeafRow.idx.in_(some))
            .order_by(LeafRow.idx)
        )
        found += [
            MirroredLeaf(
                row.idx,
                bytes(row.leaf_hash),
                bytes(row.leaf),
                row.received_at,
                held.get(row.idx),
                withheld=row.idx in absent,
            )
            for row in rows
        ]
    return found
