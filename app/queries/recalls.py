"""The recall board: what was amended, withdrawn, erased or recalled, and which States have shown that they know.

A withdrawal that somebody has not received is the failure this project exists to prevent, so it is listed by name and not
assumed. What a State holds is proven by its cosignature alone. All of it passes the gate like any list of notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, false, func, or_, select

from app.domain.errors import InvalidFilter
from app.domain.states import STATES
from app.gate import visible
from app.models import CosignatureRow, EntryRow, LogRow, NoticeRow
from app.queries.filters import RECALLED, SHOWN, make_cursor, read_cursor
from app.queries.notices import (
    MAX_LIMIT,
    acknowledgements,
    load_notices,
    rfc3339,
    version_receipts,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.domain.roster import Roster
    from app.gate import Principal

MISSING: Final = ("true", "false")


def board(
    session: Session,
    roster: Roster,
    principal: Principal,
    *,
    issuer: str | None,
    missing: bool,
    limit: int,
    cursor: str | None,
    now_ms: int,
) -> dict[str, Any]:
    """One page of the board, newest arrival first, as the API's JSON object.

    Args:
        issuer: of this State only.
        missing: only what some member has not shown to hold.

    Raises:
        InvalidFilter, InvalidCursor: see `app.queries.notices.find`.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    if issuer is not None and issuer.upper() not in STATES:
        raise InvalidFilter(f"issuer: {issuer!r} is no Subscribing State.")
    conditions: list[ColumnElement[bool]] = [
        _may_see(principal),
        NoticeRow.content_state.in_((*SHOWN, RECALLED)),
        or_(NoticeRow.status != "active", NoticeRow.version > 1, NoticeRow.content_state == RECALLED),
    ]
    if issuer is not None:
        conditions.append(NoticeRow.issuer == issuer.upper())
    if missing:
        conditions.append(_somebody_is_behind(session, roster))
    scope = f"recalls:{issuer}:{missing}"
    total = session.execute(select(func.count()).select_from(NoticeRow).where(*conditions)).scalar_one()
    if cursor is not None:
        conditions.append(NoticeRow.seq < read_cursor(scope, cursor))
    keys = session.scalars(
        select(NoticeRow.seq).where(*conditions).order_by(NoticeRow.seq.desc()).limit(limit + 1)
    ).all()
    page = keys[:limit]
    items = []
    for notice in load_notices(session, NoticeRow.seq.in_(page), now_ms) if page else []:
        acknowledged = acknowledgements(session, principal, notice)
        (newest,) = version_receipts(session, roster, principal, notice, acknowledged, newest_only=True)
        items.append(
            {
                "id": notice.id,
                "origin": notice.origin,
                "issuer": notice.issuer,
                "type": notice.type,
                "title": notice.title,
                "status": notice.status,
                "changed_at": rfc3339(notice.changed_at),
                "newest": newest.wire(),
                "complete": not newest.unproven,
            }
        )
    return {
        "items": items,
        "next": make_cursor(scope, page[-1]) if len(keys) > limit else None,
        "total": total,
    }


def _may_see(principal: Principal) -> ColumnElement[bool]:
    """The gate; and of what was erased, for callers of a State, that it was.

    Nothing is left of an erased notice that the gate could judge. That an erasure was logged, by whom and when, stands in
    the log for every member to read, and it is all that is shown of it.
    """
    if principal.state is None:
        return visible(principal)
    return or_(visible(principal), NoticeRow.content_state == "erased")


def _somebody_is_behind(session: Session, roster: Roster) -> ColumnElement[bool]:
    """Notices whose newest version lies at or above what the slowest member has cosigned of its log."""
    largest = session.execute(
        select(CosignatureRow.log_id, CosignatureRow.state, func.max(CosignatureRow.size))
        .where(CosignatureRow.state.is_not(None))
        .group_by(CosignatureRow.log_id, CosignatureRow.state)
    ).all()
    sizes: dict[int, dict[str | None, int]] = {}
    for log_id, state, size in largest:
        sizes.setdefault(log_id, {})[state] = size
    members = {state.code for state in roster.nodes() if state.status == "member"}
    slowest = {
        log_id: min((sizes.get(log_id, {}).get(code, 0) for code in members - {state}), default=2**62)
        for log_id, state in session.execute(select(LogRow.id, LogRow.state))
    }
    newest = (  # of a notice that was erased the erasure, which is a leaf of its own
        select(func.max(EntryRow.idx))
        .where(
            EntryRow.log_id == NoticeRow.log_id,
            EntryRow.root_idx == NoticeRow.idx,
            EntryRow.fault_code.is_(None),
        )
        .scalar_subquery()
    )
    return or_(
        false(), *(and_(NoticeRow.log_id == log_id, newest >= size) for log_id, size in slowest.items())
    )
