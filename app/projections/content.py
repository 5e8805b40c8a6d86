"""What a notice is found by: the part of a projection that needs the notice alone, and no log and no database.

Judging makes it, on whichever core has time, and the fold only writes it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.names import tokens
from app.projections.screened import screened_parties

if TYPE_CHECKING:
    from app.domain.handling import Handling
    from app.domain.notices import Notice

MAX_TERM: Final = 120
"""Longest searchable term, characters; longer tokens are cut on both sides of a comparison."""


@dataclass(frozen=True, slots=True)
class Content:
    """The searchable content of one valid main part.

    Attributes:
        type: notice type.
        tlp_rank: 0 (CLEAR) to 4 (RED).
        audience: "ALL", or codes joined by a space; "" is nobody.
        columns: the columns of `notices` that come from the document.
        terms: (kind, term, position), see `NoticeTermRow`; sorted.
        screened: the parties that others are screened against, see `app.projections.screened`.
    """

    type: str
    tlp_rank: int
    audience: str
    columns: dict[str, Any] = field(repr=False)
    terms: tuple[tuple[str, str, int], ...] = field(repr=False)
    screened: str | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes by its constructor; see `app.domain.statement.PartCommitment`."""
        return Content, (self.type, self.tlp_rank, self.audience, self.columns, self.terms, self.screened)


def content_of(notice: Notice, raw: bytes | None = None) -> Content:
    """The content of a notice.

    Args:
        raw: the exact bytes of its main part, kept as they are; None for what an amendment made, which nobody signed as such.
    """
    return Content(
        notice.type,
        int(notice.handling.tlp),
        audience_text(notice.handling),
        columns(notice, raw),
        tuple(sorted(terms(notice))),
        screened_parties(notice),
    )


def audience_text(handling: Handling) -> str:
    """How an audience is stored with an entry: "ALL", or codes joined by a space; "" is nobody."""
    return "ALL" if handling.audience == "ALL" else " ".join(sorted(handling.audience))


def columns(notice: Notice, raw: bytes | None) -> dict[str, Any]:
    """The columns of `notices` that come from the document."""
    denied_on, review = notice.denied_on, notice.effective_review_due
    return {
        "tlp_rank": int(notice.handling.tlp),
        "audience_all": notice.handling.audience == "ALL",
        "type": notice.type,
        "title": notice.title,
        "denied_on": denied_on.isoformat() if denied_on else None,
        "effective_from": notice.effective_from.isoformat() if notice.effective_from else None,
        "valid_until": notice.valid_until.isoformat() if notice.valid_until else None,
        "review_due": review.isoformat() if review else None,
        "search_text": notice.search_text(),
        "document": (orjson.dumps(notice.document) if raw is None else raw).decode(),
    }


def terms(notice: Notice) -> set[tuple[str, str, int]]:
    """The searchable terms of a notice: (kind, term, position), see `NoticeTermRow`."""
    found: set[tuple[str, str, int]] = set()
    position = 0
    for names in notice.names():
        for name in names:
            for token in tokens(name):
                found.add(("n", token[:MAX_TERM], position))
            position += 1
    for code in notice.codes():
        found.update(("c", ancestor[:MAX_TERM], 0) for ancestor in code.ancestors())
    for country in notice.countries():
        found.add(("l", country, 0))
    found.update(("h", concern, 0) for concern in notice.concerns())
    if notice.handling.audience != "ALL":
        found.update(("a", state, 0) for state in notice.handling.audience)
    return found
