"""What is kept of screenings, if the setting `screening_record` says so: that they were made, what was found, what was asked.

Guarantees that of a notice only numbers are kept, so that an erasure or a recall reaches what was found: reading a record
goes through today's gate. A record is its token's alone, is deleted for good on request, and by itself after the days set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import delete, select

from app.domain.errors import InvalidCursor, NotAllowed, NotFound
from app.models import ScreeningRow
from app.queries.notices import rfc3339
from app.screening.denials import load
from app.statements import uuid7

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.screening.batch import Kept

DAY_MS: Final = 86_400_000


def owner(principal: Principal) -> str:
    """The token whose record it is.

    Raises:
        NotAllowed: the caller is no token.
    """
    if principal.kind != "token" or principal.id is None:
        raise NotAllowed(
            "Screenings and watch-lists belong to an API token. Ask this node's operator for one."
        )
    return principal.id


def keep(
    session: Session, token: str, answers: Sequence[Kept], *, whole: bool, days: int, now: int
) -> list[str]:
    """Keep what was asked (if `whole`) and what was found; forget what is older than `days`. Returns the records' ids."""
    session.execute(delete(ScreeningRow).where(ScreeningRow.at < now - days * DAY_MS))
    rows = [
        ScreeningRow(
            id=uuid7(now),
            token_id=token,
            at=now,
            parties=parties,
            asked=orjson.dumps(asked).decode() if whole else None,
            found=orjson.dumps(refs).decode(),
        )
        for asked, parties, refs in answers
    ]
    session.add_all(rows)
    session.flush()
    return [row.id for row in rows]


def listed(
    session: Session, token: str, *, limit: int, cursor: str | None
) -> tuple[Sequence[ScreeningRow], str | None]:
    """A page of a token's records, newest first, and the cursor of the next.

    Raises:
        InvalidCursor: the cursor is no record of this token.
    """
    query = select(ScreeningRow).where(ScreeningRow.token_id == token).order_by(ScreeningRow.id.desc())
    if cursor is not None:
        last = session.get(ScreeningRow, cursor)
        if last is None or last.token_id != token:
            raise InvalidCursor("This cursor is not one of this list's. Start again without it.")
        query = query.where(ScreeningRow.id < cursor)
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def owned(session: Session, token: str, screening_id: str) -> ScreeningRow:
    """One record of the token.

    Raises:
        NotFound: there is none, or it is another token's.
    """
    row = session.get(ScreeningRow, screening_id)
    if row is None or row.token_id != token:
        raise NotFound("This token has no such screening.")
    return row


def forget_all(session: Session, token: str) -> None:
    """Delete every record of a token."""
    session.execute(delete(ScreeningRow).where(ScreeningRow.token_id == token))


def wire(session: Session, principal: Principal, row: ScreeningRow, *, now: int) -> dict[str, Any]:
    """The JSON object of the API. Notices that the caller may not see today are not in it."""
    refs = orjson.loads(row.found)
    views = load(session, principal, [(ref[1], ref[2]) for ref in refs], now_ms=now)
    return {
        "id": row.id,
        "screened_at": rfc3339(row.at),
        "parties": row.parties,
        "asked": None if row.asked is None else orjson.loads(row.asked),
        "found": [
            {
                "party": party,
                "notice": views[log_id, idx].wire(),
                "position": position,
                "score": score,
                "verdict": verdict,
            }
            for party, log_id, idx, position, score, verdict in refs
            if (log_id, idx) in views
        ],
    }
