"""How a State's next log says which one it continues.

Its first leaf is a statement of kind `anchor` whose main part has the member `continues`: origin, final size and root of the
log before. What a log may act on follows from the roster alone, in which the States have ended that log by threshold; the
leaf is the State's own word for it, and has to say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.domain.encoding import b64u_encode
from app.domain.errors import ContinuationMismatch
from app.domain.json import parse_strict

if TYPE_CHECKING:
    from app.domain.roster import RosterLog


def continuation(before: RosterLog) -> dict[str, Any]:
    """The member `continues`: where the log before has ended."""
    return {"origin": before.origin, "size": before.end, "root": b64u_encode(before.end_root or b"")}


def check_continuation(main: bytes, before: RosterLog | None) -> None:
    """Check what an anchor says that its log continues.

    Args:
        main: its main part.
        before: the ended log that the roster says is continued, if the anchor is the first leaf; None: none.

    Raises:
        ContinuationMismatch: it says something else than the States, or says it where nothing is continued.
        MalformedJson: the main part is no strict JSON.
    """
    value = parse_strict(main)
    said = value.get("continues") if isinstance(value, dict) else None
    wanted = None if before is None else continuation(before)
    if said != wanted:
        what = "nothing" if wanted is None else f"{wanted['origin']} from size {wanted['size']}"
        raise ContinuationMismatch(f"By the roster this leaf continues {what}, and it says otherwise.")
