"""How fresh an answer can be: per issuing State, what this node has of its log, and what it has not.

Guarantees that a State whose log lags, is in fault, was not heard of or is not followed at all is named, and that bodies
which have not come yet are counted: without that, "no hit" would say more than is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from app.db import fetch
from app.models import EntryRow, LogRow
from app.queries.notices import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.domain.roster import Roster

SILENT_MS: Final = 15 * 60_000
"""A log is looked at every few seconds; after a quarter of an hour without an answer its State may have said more."""


@dataclass(frozen=True, slots=True)
class Source:
    """What this node has of one State's log.

    Attributes:
        as_of: unix ms of the newest head that was verified here; None: never.
        wanted: notices whose bodies have not come yet.
        why: what is missing, in words; empty if nothing is known to be.
    """

    state: str
    origin: str
    as_of: int | None
    lag: int
    wanted: int
    why: tuple[str, ...]

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "state": self.state,
            "origin": self.origin,
            "as_of": None if self.as_of is None else rfc3339(self.as_of),
            "lag": self.lag,
            "bodies_wanted": self.wanted,
            "why": list(self.why),
        }


@dataclass(frozen=True, slots=True)
class Freshness:
    """What an answer rests on."""

    sources: tuple[Source, ...]

    @property
    def behind(self) -> tuple[Source, ...]:
        """Sources of which something is missing."""
        return tuple(source for source in self.sources if source.why)

    def wire(self, *, every: bool = True) -> dict[str, Any]:
        """The JSON object of the API.

        Args:
            every: with the time of each State; otherwise only what is missing.
        """
        found: dict[str, Any] = {
            "complete": not self.behind,
            "behind": [source.wire() for source in self.behind],
        }
        if every:
            found["states"] = {
                source.origin: None if source.as_of is None else rfc3339(source.as_of)
                for source in self.sources
            }
        return found


def read_freshness(session: Session, roster: Roster | None, *, now_ms: int) -> Freshness:
    """Look at every log this node keeps, and at those the roster lists and it does not keep. Two small queries.

    Args:
        roster: None if there is none in force.
        now_ms: unix ms.
    """
    wanted = {row.log_id: row.wanted for row in fetch(session, _WANTED)}
    logs = fetch(session, _LOGS)
    sources = [_source(log, wanted.get(log.id, 0), now_ms) for log in logs]
    sources += _not_followed(logs, roster)
    return Freshness(tuple(sources))


_ENTRIES: Final = EntryRow.__table__.c
_WANTED: Final = (
    select(_ENTRIES.log_id, func.count().label("wanted"))
    .where(_ENTRIES.body_state == "wanted")
    .group_by(_ENTRIES.log_id)
)
_KEPT: Final = LogRow.__table__.c
_LOGS: Final = select(
    _KEPT.id, _KEPT.is_own, _KEPT.state, _KEPT.origin, _KEPT.claimed_size, _KEPT.head_size, _KEPT.judged, _KEPT.error_code,
    _KEPT.contact_at,
).order_by(_KEPT.is_own.desc(), _KEPT.state, _KEPT.epoch)  # fmt: skip


def _source(log: Any, wanted: int, now_ms: int) -> Source:  # noqa: ANN401 - a row of _LOGS
    lag = max(0, max(log.claimed_size, log.head_size) - log.judged)
    why = []
    if lag and not log.is_own:
        why.append(f"{lag} statements of {log.state} are signed and not judged here yet.")
    if wanted:
        why.append(f"{wanted} notices of {log.state} are known, and what they say has not come yet.")
    if log.error_code is not None:
        why.append(f"The log of {log.state} is in fault: {log.error_code}.")
    if not log.is_own and (log.contact_at is None or now_ms - log.contact_at > SILENT_MS):
        since = "never" if log.contact_at is None else f"not since {rfc3339(log.contact_at)}"
        why.append(f"{log.state} was {since} heard of.")
    as_of = now_ms if log.is_own else log.contact_at
    return Source(log.state, log.origin, as_of, 0 if log.is_own else lag, wanted, tuple(why))


def _not_followed(logs: Sequence[Any], roster: Roster | None) -> list[Source]:
    if roster is None:
        return []
    kept = {log.origin for log in logs}
    return [
        Source(
            state.code, log.origin, None, 0, 0, (f"The log of {state.code} is not followed by this node.",)
        )
        for state in roster.nodes()
        for log in state.logs
        if log.origin not in kept
    ]
