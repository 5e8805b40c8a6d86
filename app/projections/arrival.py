"""One judged leaf on its way into the fold. Without any database, so that a worker process can make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.domain.notices import Notice, parse_main
from app.domain.statement import MAIN_PART

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.domain.errors import VerbaleError
    from app.domain.statement import Part, Statement
    from app.projections.content import Content


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

    def notice(self) -> Notice:
        """The main part, read again: only the few that act on other notices need more than their content."""
        assert self.parts is not None  # noqa: S101 - there is content
        return parse_main(self.parts[MAIN_PART].content)
