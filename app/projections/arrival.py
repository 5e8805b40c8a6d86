"""One judged leaf on its way into the fold. Without any database, so that a worker process can make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.domain.at_rest import seal_parts
from app.domain.notices import Notice, parse_main
from app.domain.statement import MAIN_PART
from app.projections.plain import plain_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.domain.at_rest import SealedParts
    from app.domain.errors import VerbaleError
    from app.domain.statement import Part, Statement
    from app.projections.content import Content
    from app.projections.plain import PlainRows


@dataclass(slots=True)
class Arrival:
    """One leaf with what this node knows about it.

    Attributes:
        statement: None if the leaf cannot be read.
        fault: why the leaf is flagged, or None.
        parts: the opened body parts held now, or None.
        content: what the main part is found by, if it is held, valid and of a kind that has one.
        body_fault: why the held body is flagged, or None.
        body_state: `none` (no parts, or flagged), `wanted`, `held`, `absent` (this State is not entitled), `erased`.
        received_at: unix ms.
        stored: the body's rows are there already: a refolding.
        rows, sealed: of a leaf that issues a notice, if they were made where it was judged; then neither content nor parts
            are at hand, and the fold needs neither.
    """

    index: int
    leaf_hash: bytes
    received_at: int
    statement: Statement | None
    fault: VerbaleError | None = None
    parts: Mapping[str, Part] | None = None
    content: Content | None = None
    body_fault: VerbaleError | None = None
    body_state: str = "none"
    stored: bool = False
    rows: PlainRows | None = None
    sealed: SealedParts | None = None

    def prepare(self, log_id: int, issuer: str) -> None:
        """Make, of a leaf that issues a notice, what the fold writes of it."""
        self.rows = plain_rows(self, log_id, issuer)
        if self.rows is not None and self.parts is not None:
            self.sealed = seal_parts(self.index, self.parts)
            self.parts = self.content = None

    def refuse(self, fault: VerbaleError) -> None:
        """Flag the leaf: nothing that it carries counts."""
        self.fault, self.body_state = fault, "none"
        self.parts = self.content = self.rows = self.sealed = None

    def notice(self) -> Notice:
        """The main part, read again: only the few that act on other notices need more than their content."""
        assert self.parts is not None  # noqa: S101 - there is content
        return parse_main(self.parts[MAIN_PART].content)
