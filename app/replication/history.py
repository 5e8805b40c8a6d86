"""The history of confirmed checkpoints, taken from whoever serves it, and telling subscribers what was confirmed.

Every confirmed checkpoint is verified here like any other: the log's signature, a quorum of cosignatures, and the root
against the own mirror. One that fails is dropped and logged, and accuses nobody. Taking one from another mirror is as good
as taking it from the log: so a log that shows its history to some and not to others is completed by the others.
"""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, case, func, insert, literal, or_, select, update

from app.db import execute
from app.domain.errors import PeerFault, Refused
from app.domain.statement import NOTICE_KINDS
from app.events import COUNTER
from app.models import ConfirmationRow, EntryRow, EventRow, LogRow, SubscriptionRow
from app.replication.witness import log_keys
from app.tlog.confirm import (
    HISTORY_PAGE,
    ConfirmationRefused,
    Confirmed,
    confirmers,
    decode_history,
    open_confirmation,
    take_confirmations,
)
from app.tlog.merkle import tree_root
from app.tlog.store import node_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.db import Database
    from app.domain.roster import Roster
    from app.replication.client import PeerClient

log = logging.getLogger(__name__)

MAX_HISTORY_BYTES: Final = HISTORY_PAGE * (2 + 65_535)
PAGES_AT_ONCE: Final = 4
"""Pages in one look: half a second of verifying in a federation of 25."""

CONFIRMED: Final = "notice.confirmed"


_LOGS, _KEPT = LogRow.__table__, ConfirmationRow.__table__
_NEWEST: Final = (
    select(_LOGS.c.head_size, func.max(_KEPT.c.size))
    .outerjoin_from(_LOGS, _KEPT, _KEPT.c.log_id == _LOGS.c.id)
    .where(_LOGS.c.id == bindparam("log"))
    .group_by(_LOGS.c.head_size)
)
_UNTOLD: Final = select(
    _LOGS.c.confirmed_told, _LOGS.c.confirmed_size, _LOGS.c.judged, or_(_LOGS.c.is_own, _LOGS.c.backfilled)
).where(_LOGS.c.id == bindparam("log"))


def fetch_history(
    db: Database, client: PeerClient, log_id: int, source: str, roster: Roster, current: Callable[[], Roster]
) -> int:
    """Take from `source` what is new in the history of a mirrored log. Returns how many checkpoints were taken.

    Asks nothing while the newest proven head is confirmed. What `source` serves badly is dropped and logged.
    """
    with db.read() as session:
        head_size, newest = execute(session, _NEWEST, log=log_id).one()
    if newest == head_size:
        return 0
    return _take(db, client, log_id, source, roster, current, start=newest or 0)


def compare_history(
    db: Database, client: PeerClient, log_id: int, source: str, roster: Roster, current: Callable[[], Roster]
) -> int:
    """Take from another mirror what it knows of the newest part of a log's history and this node does not."""
    with db.read() as session:
        sizes = session.scalars(
            select(ConfirmationRow.size)
            .where(ConfirmationRow.log_id == log_id)
            .order_by(ConfirmationRow.size.desc())
            .limit(HISTORY_PAGE)
        ).all()
    return _take(db, client, log_id, source, roster, current, start=sizes[-1] if sizes else 0)


def recover_history(
    db: Database, client: PeerClient, log_id: int, source: str, roster: Roster, current: Callable[[], Roster]
) -> int:
    """Take all that a mirror knows of a log's history, in one go: after a restore, when what is missing may be anywhere."""
    return _take(db, client, log_id, source, roster, current, start=0, pages=None)


def _take(
    db: Database,
    client: PeerClient,
    log_id: int,
    source: str,
    roster: Roster,
    current: Callable[[], Roster],
    *,
    start: int,
    pages: int | None = PAGES_AT_ONCE,
) -> int:
    """Read pages from `start` on; `pages` None: to the end. It ends, since each page has to reach a larger proven size.

    Args:
        roster, current: what is served is verified by the one, and written while the other tells the same of who confirms.
    """
    taken = 0
    for _ in count() if pages is None else range(pages):
        try:
            raw = client.get(f"{source}/history/{start}", limit=MAX_HISTORY_BYTES)
            served = [] if raw is None else decode_history(raw)
        except (PeerFault, Refused) as fault:
            _drop(source, fault)
            return taken
        found, last = _verify(db, log_id, source, served, roster)
        if found:
            with db.write() as session:
                state = session.execute(select(LogRow.state).where(LogRow.id == log_id)).scalar_one()
                if current().confirms_by != roster.confirms_by:
                    return taken  # a roster came meanwhile, by which the history here may be counted already
                take_confirmations(db, session, log_id, found, roster.quorum_for(state))
            taken += len(found)
        if last is None or last <= start:
            return taken
        start = last
    return taken


def _verify(
    db: Database, log_id: int, source: str, served: list[bytes], roster: Roster
) -> tuple[list[Confirmed], int | None]:
    """What is new and holds, and the largest size served that this mirror has proven already."""
    with db.read() as session:
        # Of the own log every leaf counts: after a restore the newest may have been signed and confirmed, and the head that says so
        # be lost.
        origin, state, head_size = session.execute(
            select(
                LogRow.origin, LogRow.state, case((LogRow.is_own, LogRow.size), else_=LogRow.head_size)
            ).where(LogRow.id == log_id)
        ).one()
        known = {
            bytes(note): size
            for size, note in session.execute(
                select(ConfirmationRow.size, ConfirmationRow.note).where(
                    ConfirmationRow.log_id == log_id, ConfirmationRow.note.in_(served)
                )
            )
        }
        witnesses, node = confirmers(roster), node_reader(session, log_id)
        found: list[Confirmed] = []
        last: int | None = None
        for raw in served:
            if raw in known:
                last = max(last or 0, known[raw])
                continue
            try:
                one = open_confirmation(
                    raw,
                    keys=lambda size: log_keys(roster, origin, settled=size),
                    origin=origin,
                    witnesses=witnesses,
                    quorum_at=lambda at: roster.quorum_for(state, at),
                )
                size = one.checkpoint.size
                if size > head_size:
                    break  # ahead of this mirror: it is asked for again
                if tree_root(node, size) != one.checkpoint.root:
                    raise ConfirmationRefused(
                        f"The checkpoint of size {size} of {origin} is not of the tree that is stored here."
                    )
            except Refused as refusal:
                _drop(source, refusal)
                continue
            found.append(one)
            last = max(last or 0, size)
    return found, last


def _drop(source: str, why: Exception) -> None:
    log.warning(
        "history not taken", extra={"action": "history_refused", "source": source, "why": str(why)[:300]}
    )


# ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tell_confirmed(db: Database, log_id: int, *, now: int) -> bool:
    """Write `notice.confirmed` for what was confirmed and judged since the last call. True if there was any.

    One statement for all of them, and none at all unless a subscription names the event: confirmation is a fact about a
    size, and whoever lists notices sees it without an event.
    """
    with db.read() as session:
        told, confirmed, judged, live = execute(session, _UNTOLD, log=log_id).one()
    until = min(confirmed, judged)
    if until <= told:
        return False
    with db.write() as session:
        moved = session.execute(
            update(LogRow)
            .where(LogRow.id == log_id, LogRow.confirmed_told == told)
            .values(confirmed_told=until)
            .returning(LogRow.id)
        ).one_or_none()
        if moved is None or not live or not session.execute(_LISTENED).scalar_one():
            return False
        versions = (
            EntryRow.log_id == log_id,
            EntryRow.idx >= told,
            EntryRow.idx < until,
            EntryRow.fault_code.is_(None),
            EntryRow.kind.in_(NOTICE_KINDS),
        )
        count = session.execute(select(func.count()).select_from(EntryRow).where(*versions)).scalar_one()
        if count == 0:
            return False
        first = db.next_values(session, COUNTER, count)
        number = func.row_number().over(order_by=EntryRow.idx)
        session.execute(
            insert(EventRow).from_select(
                ["seq", "type", "log_id", "idx", "root_idx", "at", "live"],
                select(
                    literal(first - 1) + number,
                    literal(CONFIRMED),
                    EntryRow.log_id,
                    EntryRow.idx,
                    EntryRow.root_idx,
                    literal(now),
                    literal(True),
                ).where(*versions),
            )
        )
    return True


_LISTENED: Final = select(
    select(SubscriptionRow.id)
    .where(SubscriptionRow.status != "disabled", SubscriptionRow.event_types.contains(CONFIRMED))
    .exists()
)
