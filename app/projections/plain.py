"""What a leaf that issues a notice becomes, as long as nothing acts on it: rows that follow from it alone.

Nearly every leaf is one. Its rows are made without any database, on whichever core has time; the fold numbers and writes
them, and takes them apart again for the few that something in the same run acts on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from app.projections.content import CONTENT_COLUMNS, Content

if TYPE_CHECKING:
    from app.projections.arrival import Arrival

ENTRY_COLUMNS: Final = (
    "log_id", "idx", "leaf_hash", "id", "kind", "kid", "iat", "exp", "root_idx", "version", "received_at", "body_state",
    "body_type", "tlp_rank", "audience",
)  # fmt: skip
NOTICE_COLUMNS: Final = (
    "log_id", "idx", "id", "issuer", "status", "version", "current_idx", "current_hash", "document_idx", "content_idx",
    "content_state", "iat", "exp", "changed_iat", "received_at", "changed_at", *CONTENT_COLUMNS, "seq",
)  # fmt: skip
SCREENED_COLUMNS: Final = ("log_id", "idx", "audience", "parties", "seq")
TERM_COLUMNS: Final = ("kind", "term", "log_id", "idx", "pos")

_HANDLING: Final = ENTRY_COLUMNS.index("body_type")
_CONTENT: Final = slice(NOTICE_COLUMNS.index(CONTENT_COLUMNS[0]), NOTICE_COLUMNS.index("seq"))


class PlainRows(NamedTuple):
    """The rows of one such leaf.

    Attributes:
        entry: in the order of ENTRY_COLUMNS.
        notice: in that of NOTICE_COLUMNS, without the last, which the fold gives.
        screened: in that of SCREENED_COLUMNS, likewise.
        terms: each in that of TERM_COLUMNS, sorted.
    """

    entry: tuple[Any, ...]
    notice: tuple[Any, ...]
    screened: tuple[Any, ...]
    terms: tuple[tuple[str, str, int, int, int], ...]

    @property
    def type(self) -> str:
        """Type of the notice."""
        return str(self.entry[_HANDLING])

    def content(self) -> Content:
        """What the rows were made of."""
        type_, tlp_rank, audience = self.entry[_HANDLING:]
        terms = tuple([(kind, term, pos) for kind, term, _, _, pos in self.terms])
        return Content(type_, tlp_rank, audience, self.notice[_CONTENT], terms, self.screened[-1])

    def __repr__(self) -> str:
        """Show nothing of what the notice says."""
        return f"PlainRows(log_id={self.entry[0]}, idx={self.entry[1]})"


def plain_rows(arrival: Arrival, log_id: int, issuer: str) -> PlainRows | None:
    """The rows of a leaf that issues a notice, held and sound; None of any other."""
    statement, content = arrival.statement, arrival.content
    if (
        statement is None
        or content is None
        or statement.kind != "issue"
        or arrival.body_state != "held"
        or arrival.fault is not None
        or arrival.body_fault is not None
    ):
        return None
    index, at, leaf_hash = arrival.index, arrival.received_at, arrival.leaf_hash
    id_, iat, exp = statement.id, statement.iat, statement.exp
    type_, tlp_rank, audience, columns, terms, screened = content
    return PlainRows(
        (log_id, index, leaf_hash, id_, "issue", statement.kid, iat, exp, index, 1, at, "held", type_, tlp_rank, audience),
        (
            log_id, index, id_, issuer, "active", 1, index, leaf_hash, index, index, "current", iat, exp, iat, at, at,
            *columns,
        ),
        (log_id, index, None if screened is None else audience, screened),
        tuple([(kind, term, log_id, index, pos) for kind, term, pos in terms]),
    )  # fmt: skip
