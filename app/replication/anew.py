"""A mirror begun anew: when the States have ended a log with a history that this node does not hold.

Everything that is kept of the log goes, but for the evidence against it, what was told of it and what people decided about
matches; then it is fetched like one that is new here. Of the logs that continue it, leaves and cosignatures stay and the
rest is judged again when the ended log has been.

Only a log that the roster has ended is begun anew: it is cosigned no more, so that nothing is lost by forgetting what this
node's witness has signed. Forgetting that of a log that lives would let its next history be cosigned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update

from app.domain.errors import NodeFault
from app.models import Base, BranchLeafRow, LeafRow, LogRow, WatchRow
from app.projections import lineage
from app.projections.fold import SCREENED_EPOCH
from app.replication.forks import MAX_BRANCH, EndDiffers, root_here, watch_log

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.roster import Roster

KEPT: Final = frozenset({"events", "branch_leaves", "log_watch", "deadlines", "watch_hits"})
"""Tables with a `log_id` that are not the mirror's."""
LEAVES: Final = frozenset(
    {"leaves", "tree_tiles", "heads", "cosignatures", "confirmations", "carried_bodies"}
)
"""Tables of the mirror that do not follow from a verdict."""


class NotToBeginAnew(NodeFault):
    """The log is not one whose mirror here may be forgotten."""

    code = "not-to-begin-anew"


def begin_anew(db: Database, origin: str, roster: Roster) -> int:
    """Forget this node's mirror of an ended log that holds another history than the States chose.

    One transaction: a crash leaves the mirror as it was, or gone.

    Returns:
        How many leaves were forgotten.

    Raises:
        NotToBeginAnew: it is a log of the own State, or not kept here, or the States have not ended it, or what is here is the history
            they chose. Nothing was changed.
    """
    with db.read() as session:
        row = session.execute(
            select(LogRow.id, LogRow.state, LogRow.size, LogRow.error_code).where(LogRow.origin == origin)
        ).one_or_none()
        own = session.execute(select(LogRow.state).where(LogRow.is_own)).scalar_one()
        listed = roster.log(origin)
        end = None if listed is None else listed.end
        ours = None if row is None or end is None else root_here(session, row.id, end)
    if row is None:
        raise NotToBeginAnew(f"This node keeps no log {origin}.")
    if row.state == own:
        raise NotToBeginAnew(
            f"{origin} is a log of this node's own State. If it holds the wrong history, copy `keys/` into a new folder and begin the next "
            "epoch there: see “Recovery after a fork” in docs/operations.md."
        )
    if listed is None or listed.end is None:
        raise NotToBeginAnew(
            f"The States have not ended {origin}. A damaged mirror of a log that lives is mended by a copy of the database: this "
            "node's witness must not forget what it has cosigned."
        )
    # A shorter one is known to differ when somebody has proven it: see `Vigil`.
    differs = row.error_code == EndDiffers.code if ours is None else ours != listed.end_root
    if not differs:
        raise NotToBeginAnew(f"What this node holds of {origin} is the history that the States chose.")
    with db.write() as session:
        lineage.lock(session, row.id)
        _keep_branch(db, session, row.id)
        _forget(session, row.id, kept=KEPT)
        after = lineage.later(session, row.id)
        while after is not None:
            _forget(session, after, kept=KEPT | LEAVES)
            after = lineage.later(session, after)
        session.execute(
            update(LogRow)
            .where(LogRow.id == row.id)
            .values(
                status="ok",
                size=0,
                frontier=b"",
                head_size=0,
                head_root=None,
                head_note=None,
                head_at=None,
                confirmed_size=0,
                confirmed_told=0,
                claimed_size=0,
                error_code=None,
                error_detail=None,
                error_at=None,
            )
        )
        watch_log(db, session, row.id, pending_note=None, frozen_size=None)
        # Whoever holds an index of what is screened against reads all of it again.
        db.next_values(session, SCREENED_EPOCH, 1)
    return int(row.size)


def _keep_branch(db: Database, session: Session, log_id: int) -> None:
    """Keep what the forgotten history alone said, as evidence of it, if that is not beyond all measure."""
    size, root = session.execute(select(LogRow.head_size, LogRow.head_root).where(LogRow.id == log_id)).one()
    shared = session.execute(
        select(WatchRow.frozen_size).where(WatchRow.log_id == log_id)
    ).scalar_one_or_none()
    if root is None or shared is None or size - shared > MAX_BRANCH:
        return
    leaves = session.execute(
        select(LeafRow.idx, LeafRow.leaf).where(
            LeafRow.log_id == log_id, LeafRow.idx >= shared, LeafRow.idx < size
        )
    )
    rows = [
        {"log_id": log_id, "root": bytes(root).hex(), "idx": idx, "leaf": bytes(leaf)} for idx, leaf in leaves
    ]
    if rows:
        session.execute(db.insert_ignore(BranchLeafRow.__table__), rows)


def _forget(session: Session, log_id: int, *, kept: frozenset[str]) -> None:
    for table in reversed(Base.metadata.sorted_tables):
        if "log_id" in table.c and table.name not in kept:
            session.execute(delete(table).where(table.c.log_id == log_id))
    session.execute(
        update(LogRow).where(LogRow.id == log_id).values(judged=0, judged_under=None, backfilled=False)
    )
