"""The finder that answers use: `find.Screener`, in the words of `answering`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from app.screening.answering import Found, Match
from app.screening.explain import MODEL
from app.screening.features import FEATURES
from app.screening.find import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.screening.application import Asked
    from app.screening.find import Hit, Screener

NAMES_AGREE: Final = 0.5
"""Below it the names say nothing for a party that was found by its identifier."""

_FEATURES: Final = {
    "name": "how well the two names agree, word by word, whatever their script",
    **{
        name: f"{name.replace('_', ' ')}: raises or lowers the score, where both sides state it"
        for name in FEATURES
    },
}


class ScreenerFinder:
    """Implements `answering.Finder`."""

    def __init__(self, screener: Screener) -> None:
        self._screener = screener

    def find(
        self,
        principal: Principal,
        asked: Asked,
        *,
        limit: int,
        threshold: float | None,
        now_ms: int,
        ended: bool = False,
        session: Session | None = None,
    ) -> Found:
        """See `answering.Finder`."""
        least = DEFAULT_THRESHOLD if threshold is None else threshold
        screening = self._screener.screen(
            principal,
            asked.query,
            now=now_ms,
            limit=limit,
            threshold=least,
            include_inactive=ended,
            session=session,
            matches_only=True,
        )
        matches = tuple(_match(hit) for hit in screening.hits if hit.is_match)
        below = [hit.score for hit in screening.hits if not hit.is_match]
        ignored = asked.query.ignored
        notes = (f"Not compared: {', '.join(ignored)}.",) if ignored else ()
        return Found(matches, screening.matches > len(matches), least, below[0] if below else None, notes)

    def foresee(self, principal: Principal, parties: Sequence[Asked], session: Session) -> None:
        """See `answering.Finder`."""
        self._screener.foresee(principal, [asked.query for asked in parties], session)

    def algorithm(self) -> Mapping[str, Any]:
        """See `answering.Finder`."""
        return {"name": MODEL, "threshold": DEFAULT_THRESHOLD, "features": _FEATURES}


def _match(hit: Hit) -> Match:
    why = hit.explanation
    basis: Literal["name", "identifier"] = "name" if why.name_score >= NAMES_AGREE else "identifier"
    return Match((hit.log_id, hit.root_idx), hit.position, hit.score, why, basis)
