"""The notices that changed last: what feed readers are shown.

Guarantees that a notice is shown as it stands now and passes the gate as it stands now, whatever the event says that
brought it here; that each stands there once; and that a look costs no more than `SCANNED` events, however few of them are
for the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, select

from app.gate import visible
from app.models import EventRow, NoticeRow
from app.queries.notices import NoticeView, load_notices

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.queries.filters import NoticeFilter

TYPES: Final = ("notice.issued", "notice.amended", "notice.withdrawn")
READABLE: Final = ("current", "stale")
"""Content states of a notice of which there is something to read."""

SCANNED: Final = 20_000
"""The newest events that are looked at; a reader who may see few of them must not hold the database for all the others."""

_PIECE: Final = 500


def newest(
    session: Session, principal: Principal, wanted: NoticeFilter, *, limit: int, now_ms: int
) -> list[tuple[int, NoticeView]]:
    """The notices that were issued, amended or withdrawn last, of those that match and that the caller may see.

    Args:
        limit: most notices.
        now_ms: unix ms, for what is expired.

    Returns:
        When this node recorded the newest version (unix ms), and the notice; newest first.
    """
    found: dict[tuple[int, int], int] = {}
    before, least = _bounds(session)
    while len(found) < limit and before > least:
        piece = session.execute(
            select(EventRow.seq, NoticeRow.log_id, NoticeRow.idx, NoticeRow.changed_at)
            .join(NoticeRow, and_(NoticeRow.log_id == EventRow.log_id, NoticeRow.idx == EventRow.root_idx))
            .where(
                EventRow.seq < before,
                EventRow.seq >= max(least, before - _PIECE),
                EventRow.type.in_(TYPES),
                NoticeRow.content_state.in_(READABLE),
                visible(principal),
                *wanted.named(now_ms),
            )
            .order_by(EventRow.seq.desc())
        )
        for row in piece:
            found.setdefault((row.log_id, row.idx), row.changed_at)
        before -= _PIECE
    keys = list(found)[:limit]
    views = {
        (view.log_id, view.root_idx): view
        for log_id in {log_id for log_id, _ in keys}
        for view in load_notices(
            session,
            and_(NoticeRow.log_id == log_id, NoticeRow.idx.in_([idx for log, idx in keys if log == log_id])),
            now_ms,
        )
    }
    shown = [(found[key], views[key]) for key in keys if key in views]
    # In the order of arrival but for a clock that was set back: then by what is shown.
    return sorted(shown, key=lambda one: -one[0])


def _bounds(session: Session) -> tuple[int, int]:
    """Just above the newest event, and the lowest that is looked at."""
    top = session.scalar(select(EventRow.seq).order_by(EventRow.seq.desc()).limit(1))
    return (0, 0) if top is None else (top + 1, max(1, top + 1 - SCANNED))
