"""The shared tail of both doors: leaves and bodies become log, rows and events in one transaction.

`record_own` appends to the node's own log what the local door accepted; `record_mirrored` projects leaves that
`app.replication` has already appended to a mirror. Both advance the same state machine and write through the same fold.

A crash before the commit leaves nothing; after it, everything. Nobody is answered before it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import bindparam, select, update

from app.db import execute
from app.domain.errors import KeyNotActive, LeafReplayed, LogStopped, NodeFault, NodeStarting, VerbaleError
from app.domain.judge import check_key
from app.domain.lease import HELD_ELSEWHERE
from app.models import EntryRow, LogRow, WatchRow
from app.projections.arrival import Arrival
from app.projections.fold import Fold, fold_all
from app.tlog.store import append_leaves, lock_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster
    from app.judging import Judged
    from app.tlog.store import StoredLog


_LOGS, _WATCHED = LogRow.__table__.c, WatchRow.__table__.c
_OPEN: Final = (
    select(_LOGS.status, _WATCHED.closed_at, _LOGS.error_code, _LOGS.error_detail)
    .outerjoin_from(LogRow.__table__, WatchRow.__table__, _WATCHED.log_id == _LOGS.id)
    .where(_LOGS.id == bindparam("log"))
)
_JUDGED: Final = select(_LOGS.judged).where(_LOGS.id == bindparam("log"))
_SET_JUDGED: Final = (
    update(LogRow.__table__)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_LOGS.id == bindparam("log"))
    .values(judged=bindparam("new_judged"))
)


class Watch(Protocol):
    """Who looks at notices in the transaction that records them: `app.screening.watch`."""

    def mark(self, session: Session) -> int | None:
        """Where the changes of this transaction begin; None: nobody looks."""
        ...

    def match(self, session: Session, mark: int | None, *, now: int, live: bool) -> int:
        """Look at what changed since the mark, and write what it means. A fault of its own does not end the transaction."""
        ...


@contextmanager
def watched(watch: Watch | None, session: Session, *, now: int, live: bool) -> Iterator[None]:
    """A block of a transaction that records notices, looked at before the commit. `now` in unix ms; `live`: see `Fold.flush`."""
    mark = None if watch is None else watch.mark(session)
    yield
    if watch is not None:
        watch.match(session, mark, now=now, live=live)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The local door's answer: the statement is durable at this place.

    Attributes:
        created: False if the same bytes stood there already.
    """

    id: str
    index: int
    leaf_hash: bytes
    origin: str
    created: bool


def record_own(
    db: Database,
    session: Session,
    log_id: int,
    notices: Sequence[Judged],
    *,
    now: int,
    roster: Callable[[], Roster] | None = None,
) -> list[Receipt | VerbaleError]:
    """Append verified notices to the own log, in order; one answer each.

    One that the state machine refuses changes nothing and does not disturb the others.

    Args:
        now: unix ms.
        roster: the one in force; asked with the log locked, so that no statement is appended under a key that was revoked
            between judging and here. A roster adopted later judges again what stands there by then.
    """
    log = lock_log(session, log_id)
    current = roster() if roster is not None else None
    check_open(session, log_id)
    _check_begun(session, log, notices)
    statements = [n.statement for n in notices]
    fold = Fold(db, session, log_id=log.id, issuer=log.state, statements=statements)
    answers: list[Receipt | VerbaleError] = []
    leaves: list[tuple[bytes, bytes]] = []
    placed: dict[str, int] = {}  # ids of this batch → index: a repeat within one batch finds its first
    for judged in notices:
        statement = judged.statement
        index = log.size + len(leaves)
        try:
            if current is not None:
                check_key(statement, roster=current, index=None, at=now // 1000)
            state = fold.advance(statement, index)
            arrival = Arrival(
                index=index,
                leaf_hash=statement.leaf_hash,
                received_at=now,
                statement=statement,
                parts=judged.parts,
                content=judged.content,
                body_state="held" if statement.parts else "none",
            )
            if statement.kind == "amend" and state is not None:
                fold.check_amendment(arrival.notice(), state, statement.ref or b"")
        except LeafReplayed:
            answers.append(_existing(session, log, statement.id, statement.leaf_hash, placed))
            continue
        except VerbaleError as refusal:
            answers.append(refusal)
            continue
        leaves.append((statement.leaf_hash, statement.leaf))
        placed[statement.id] = index
        fold.add(arrival, state)
        answers.append(Receipt(statement.id, index, statement.leaf_hash, log.origin, created=True))
    if leaves:
        log = append_leaves(db, session, log, leaves, at=now)
        fold.flush(now=now, live=True)
        execute(session, _SET_JUDGED, log=log.id, new_judged=log.size)
    return answers


def check_open(session: Session, log_id: int) -> None:
    """Check, in the transaction that appends or signs, that the own log may grow; see `app.replication.startup`.

    Raises:
        NodeStarting: the start-up gate is closed; the message says that this State's node runs twice, or that its log key
            was revoked, if it is that.
        LogStopped: the log is frozen.
    """
    status, closed, code, detail = execute(session, _OPEN, log=log_id).one()
    if status != "ok":
        raise LogStopped("This log is frozen: its key has signed two histories. Nothing can be added to it.")
    if closed is not None and code in (HELD_ELSEWHERE, KeyNotActive.code):
        raise NodeStarting(detail)
    if closed is not None:
        raise NodeStarting(
            "This node has started and is still asking the other States' witnesses how far its log is. Try again soon."
        )


def _check_begun(session: Session, log: StoredLog, notices: Sequence[Judged]) -> None:
    """Check that an epoch which continues another begins with saying so.

    Raises:
        NodeStarting: it has not said so yet.
    """
    if log.size > 0 or not notices or notices[0].statement.kind == "anchor":
        return
    if session.execute(select(LogRow.continues_id).where(LogRow.id == log.id)).scalar_one() is not None:
        raise NodeStarting(
            "This log continues an earlier one, and its first leaf has to say so before anything else. The node logs it by itself, "
            "with its key `node.key`, which has to be in the roster."
        )


def _existing(
    session: Session, log: StoredLog, statement_id: str, leaf_hash: bytes, placed: dict[str, int]
) -> Receipt:
    index = placed.get(statement_id)
    if index is None:
        index = session.execute(
            select(EntryRow.idx).where(
                EntryRow.log_id == log.id, EntryRow.id == statement_id, EntryRow.fault_code.is_(None)
            )
        ).scalar_one()
    return Receipt(statement_id, index, leaf_hash, log.origin, created=False)


def record_mirrored(
    db: Database,
    session: Session,
    log_id: int,
    arrivals: Sequence[Arrival],
    *,
    now: int,
    live: bool,
    events: bool = True,
    start: int | None = None,
) -> None:
    """Project consecutive leaves of a log that are stored and judged but for the state machine.

    A leaf that the state machine refuses is flagged and kept; nothing stops.

    Args:
        arrivals: the first must be the log's next unjudged leaf.
        start: where the caller believes projection stands; by default as stored.

    Raises:
        NodeFault: another worker has projected these leaves meanwhile; the caller starts over.
    """
    log = lock_log(session, log_id)
    judged = execute(session, _JUDGED, log=log_id).scalar_one()
    if not arrivals:
        return
    if arrivals[0].index != judged or (start is not None and start != judged):
        raise NodeFault(
            f"{log.origin} is judged up to {judged}, and leaf {arrivals[0].index} was to be next."
        )
    fold = Fold(
        db,
        session,
        log_id=log.id,
        issuer=log.state,
        statements=[a.statement if a.fault is None else None for a in arrivals],
    )
    fold_all(fold, arrivals)
    fold.flush(now=now, live=live, tell=events)
    execute(session, _SET_JUDGED, log=log.id, new_judged=judged + len(arrivals))
