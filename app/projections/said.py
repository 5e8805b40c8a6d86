"""What nodes say of themselves in their own logs: which erasures they have carried out, and which roster they follow.

Both stand in main parts of statements that a State's node signs (`anchor`, `roster`). They are that node's word and prove
nothing but that it was given: an erasure at another State cannot be proven, and two rosters of one version can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import MalformedJson
from app.domain.json import parse_strict
from app.domain.statement import MAIN_PART, is_origin
from app.models import ErasureSaidRow, RosterSaidRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.statement import Part

MAX_ERASURES: Final = 256
"""Logs that one anchor speaks of: those of a federation, a few epochs each."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Said:
    """What one leaf says.

    Attributes:
        index: of the leaf.
        iat: unix seconds, as its node claims.
        erasures: (origin, below): all erasures of that log below that index have been carried out.
        roster: (version, SHA-256 in hex) of the roster that the node follows from then on.
    """

    index: int
    iat: int
    erasures: tuple[tuple[str, int], ...] = ()
    roster: tuple[int, str] | None = None


def read(kind: str, index: int, iat: int, parts: Mapping[str, Part]) -> Said | None:
    """What a statement says here; None if nothing, or nothing that can be read. Only `anchor` and `roster` say anything."""
    if kind not in ("anchor", "roster"):
        return None
    try:
        value = parse_strict(parts[MAIN_PART].content)
    except MalformedJson:
        return None
    if not isinstance(value, dict):
        return None
    if kind == "anchor":
        erasures = _erasures(value.get("erased"))
        return Said(index, iat, erasures=erasures) if erasures else None
    version, digest = value.get("version"), value.get("sha256")
    if (
        isinstance(version, int)
        and _is_count(version)
        and isinstance(digest, str)
        and _DIGEST.fullmatch(digest)
    ):
        return Said(index, iat, roster=(version, digest))
    return None


def _erasures(value: Any) -> tuple[tuple[str, int], ...]:  # noqa: ANN401 - parsed JSON
    if not isinstance(value, list) or len(value) > MAX_ERASURES:
        return ()
    found: dict[str, int] = {}
    for one in value:
        if not isinstance(one, dict) or one.keys() != {"origin", "below"}:
            return ()
        origin, below = one["origin"], one["below"]
        if not isinstance(origin, str) or not is_origin(origin) or not _is_count(below):
            return ()
        found[origin] = max(below, found.get(origin, 0))
    return tuple(sorted(found.items()))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def store(db: Database, session: Session, log_id: int, said: Sequence[Said]) -> None:
    """Keep what leaves of one log say. What is kept already stays."""
    erasures = [
        {"log_id": log_id, "idx": one.index, "origin": origin, "below": below, "iat": one.iat}
        for one in said
        for origin, below in one.erasures
    ]
    rosters = [
        {
            "log_id": log_id,
            "idx": one.index,
            "version": one.roster[0],
            "sha256": one.roster[1],
            "iat": one.iat,
        }
        for one in said
        if one.roster is not None
    ]
    if erasures:
        session.execute(db.insert_ignore(ErasureSaidRow.__table__), erasures)
    if rosters:
        session.execute(db.insert_ignore(RosterSaidRow.__table__), rosters)
