"""Retention: what is over for long enough is erased, on the clock; and what was erased leaves the files as well.

A State erases its own notices only: an `erase` statement in its log, signed with the node's key, which every other State's
node obeys. The setting `retention` says after how many days, by type: counted from the withdrawal, or from the day from
which the notice was no longer valid (`exp`, `valid_until`). A notice that is in force is never erased by the clock. Where
the own log continues one that the States have ended, what stands below the end is the own State's to erase as well.

Each step is one short transaction and looks at the log as it is: a crash between two of them loses nothing, and a notice
that was erased meanwhile is simply refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, func, or_, select

from app.domain.errors import VerbaleError
from app.domain.judge import judge_statement
from app.domain.retention import EVERY
from app.domain.statement import sign
from app.judging import Judged
from app.models import EventRow, NoticeRow
from app.projections.lineage import MOVED, earlier
from app.record import record_own
from app.statements import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.keys import Signer
    from app.domain.roster import Roster

log = logging.getLogger(__name__)

DAY_S: Final = 86_400
AT_ONCE: Final = 64
LOOK_MS: Final = 3_600_000
"""Days are counted: looking once an hour is soon enough."""
TABLES: Final = (
    "bodies", "body_keys", "carried_bodies", "entries", "notices", "notice_terms", "screened_notices",
)  # fmt: skip
"""Tables in which an erased notice has left something."""


@dataclass(frozen=True, slots=True)
class Due:
    """A notice whose time is over: the leaf hash of its current version, and what for people."""

    id: str
    current_hash: bytes


def due(session: Session, log_id: int, rules: Mapping[str, int], *, now_s: int) -> list[Due]:
    """Own notices that a rule says to erase now, oldest first, a few at once; also those of earlier epochs."""
    conditions = []
    for type_, days in rules.items():
        end_s = now_s - days * DAY_S
        end_day = (datetime.fromtimestamp(now_s, UTC).date() - timedelta(days=days)).isoformat()
        of_type = NoticeRow.type == type_ if type_ != EVERY else _none_of(rules)
        over = or_(
            and_(NoticeRow.status == "withdrawn", NoticeRow.changed_at <= end_s * 1000),
            and_(NoticeRow.status == "active", or_(NoticeRow.exp <= end_s, NoticeRow.valid_until < end_day)),
        )
        conditions.append(and_(of_type, over))
    if not conditions:
        return []
    rows = session.execute(
        select(NoticeRow.id, NoticeRow.current_hash)
        .where(
            NoticeRow.log_id.in_([log_id, *earlier(session, log_id)]),
            NoticeRow.content_state != MOVED,  # goes on in a later epoch, where it has another row
            or_(*conditions),
        )
        .order_by(NoticeRow.log_id, NoticeRow.idx)
        .limit(AT_ONCE)
    )
    return [Due(row.id, bytes(row.current_hash)) for row in rows]


def _none_of(rules: Mapping[str, int]) -> ColumnElement[bool]:
    named = sorted(set(rules) - {EVERY})
    return or_(NoticeRow.type.is_(None), NoticeRow.type.not_in(named))


class Housekeeper:
    """One node's retention and cleaning, a step at a time."""

    def __init__(
        self,
        db: Database,
        *,
        log_id: int,
        origin: str,
        clock: Clock,
        roster: Callable[[], Roster],
        rules: Mapping[str, int],
        signer: Callable[[], tuple[Signer, str]],
    ) -> None:
        """`signer` gives the node's own key with its key id; it is asked only when something is due."""
        self._db, self._log_id, self._origin, self._clock = db, log_id, origin, clock
        self._roster, self._rules, self._signer = roster, rules, signer
        self._looked_at = 0
        self._seen: int | None = None

    @property
    def cleaned(self) -> int | None:
        """The newest event up to which whatever was erased has left the files as well; None: not looked yet."""
        return self._seen

    def step(self) -> bool:
        """Erase what is due, then clean up after every erasure since. True if there may be more at once."""
        more = False
        if self._clock() - self._looked_at >= LOOK_MS:
            more = self._erase() == AT_ONCE
            self._looked_at = self._looked_at if more else self._clock()
        self._scrub()
        return more

    def _erase(self) -> int:
        now = self._clock()
        with self._db.read() as session:
            found = due(session, self._log_id, self._rules, now_s=now // 1000)
        if not found:
            return 0
        signer, kid = self._signer()
        judged = []
        for notice in found:
            statement = sign(
                signer,
                kid=kid,
                log=self._origin,
                statement_id=uuid7(now // 1000),
                kind="erase",
                iat=now // 1000,
                parts=(),
                ref=notice.current_hash,
            )
            verified = judge_statement(
                statement, origin=self._origin, index=None, roster=self._roster(), at=now // 1000
            )
            judged.append(Judged(statement, verified.issuer, {}, None))
        with self._db.write() as session:
            answers = record_own(self._db, session, self._log_id, judged, now=now, roster=self._roster)
        refused = [answer for answer in answers if isinstance(answer, VerbaleError)]
        extra = {"action": "retention_erased", "count": len(answers) - len(refused), "refused": len(refused)}
        log.info("notices erased on the clock", extra=extra)
        return len(answers)

    def _scrub(self) -> None:
        with self._db.read() as session:
            newest = session.execute(select(func.max(EventRow.seq))).scalar_one() or 0
            erased = self._seen is None or (
                session.execute(
                    select(EventRow.seq)
                    .where(
                        EventRow.seq > self._seen, EventRow.seq <= newest, EventRow.type == "notice.erased"
                    )
                    .limit(1)
                ).first()
                is not None
            )
        if erased and not self._db.scrub(TABLES):
            log.info("a reader holds up the cleaning", extra={"action": "scrub_waits"})
            return
        self._seen = newest
