"""What a notice is found by: the part of a projection that needs the notice alone, and no log and no database.

Judging makes it, on whichever core has time, and the fold only writes it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from app.domain.names import tokens
from app.projections.screened import screened_parties

if TYPE_CHECKING:
    from app.domain.handling import Handling
    from app.domain.notices import Notice

CONTENT_COLUMNS: Final = (
    "tlp_rank", "audience_all", "type", "title", "denied_on", "effective_from", "valid_until", "review_due", "search_text",
    "document",
)  # fmt: skip
"""The columns of `notices` that come from the document."""

MAX_TERM: Final = 120
"""Longest searchable term, characters; longer tokens are cut on both sides of a comparison."""


class Content(NamedTuple):
    """The searchable content of one valid main part.

    Attributes:
        type: notice type.
        tlp_rank: 0 (CLEAR) to 4 (RED).
        audience: "ALL", or codes joined by a space; "" is nobody.
        columns: the values of CONTENT_COLUMNS, in their order.
        terms: (kind, term, position), see `NoticeTermRow`; sorted.
        screened: the parties that others are screened against, see `app.projections.screened`.
    """

    type: str
    tlp_rank: int
    audience: str
    columns: tuple[Any, ...]
    terms: tuple[tuple[str, str, int], ...]
    screened: str | None = None

    def __repr__(self) -> str:
        """Show nothing of what the notice says."""
        return f"Content(type={self.type!r}, tlp_rank={self.tlp_rank}, audience={self.audience!r})"

    def named(self) -> dict[str, Any]:
        """The columns by name."""
        return dict(zip(CONTENT_COLUMNS, self.columns, strict=True))


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


def columns(notice: Notice, raw: bytes | None) -> tuple[Any, ...]:
    """The values of CONTENT_COLUMNS."""
    denied_on, review = notice.denied_on, notice.effective_review_due
    return (
        int(notice.handling.tlp),
        notice.handling.audience == "ALL",
        notice.type,
        notice.title,
        denied_on.isoformat() if denied_on else None,
        notice.effective_from.isoformat() if notice.effective_from else None,
        notice.valid_until.isoformat() if notice.valid_until else None,
        review.isoformat() if review else None,
        notice.search_text(),
        (orjson.dumps(notice.document) if raw is None else raw).decode(),
    )


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
