"""Rules of retention: how many days after its end a notice of a type is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.domain.errors import UnsafeSettings
from app.domain.notices import SCHEMA_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY: Final = "*"
SHORTEST_DAYS: Final = 30
"""Below a month a mistake in a rule would erase what an office has only just withdrawn."""


def parse_rules(texts: Sequence[str]) -> dict[str, int]:
    """`denied_end_user=3650` → days by type; `*` is every type not named.

    Raises:
        UnsafeSettings: not of that form, an unknown type, or fewer than 30 days.
    """
    rules: dict[str, int] = {}
    for text in texts:
        type_, _, days = text.partition("=")
        known = type_ == EVERY or type_ in SCHEMA_VERSIONS
        if (
            not known
            or not days.isascii()
            or not days.isdigit()
            or int(days) < SHORTEST_DAYS
            or type_ in rules
        ):
            raise UnsafeSettings(
                f"retention: {text!r} is not TYPE=DAYS with a type of notice, or *, and at least {SHORTEST_DAYS} days."
            )
        rules[type_] = int(days)
    return rules
