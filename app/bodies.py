"""Bodies as they are stored: sealed in `bodies`, each leaf's key in `body_keys`.

The only reader and writer of the two tables. Guarantees: whatever is stored is sealed under a fresh key; `destroy` removes
keys and ciphertext together; a body whose key is gone is the same as one that was never held. Leaves to others: whether a
body may be stored (`app.projections`), shown (`app.gate`) or must go (the fold of an erasure).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, bindparam, delete, select

from app.db import SQLITE_VARIABLES, chunks
from app.domain.at_rest import unseal
from app.domain.statement import MAIN_PART
from app.models import BodyKeyRow, BodyRow

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.at_rest import SealedParts
    from app.domain.statement import Part

_BODY_COLUMNS: Final = ("log_id", "idx", "part", "sealed", "held_at")
_KEY_COLUMNS: Final = ("log_id", "idx", "key")

_BODIES, _KEYS = BodyRow.__table__, BodyKeyRow.__table__
_SEALED: Final = (
    select(_BODIES.c.idx, _BODIES.c.part, _BODIES.c.sealed, _KEYS.c.key)
    .join_from(_BODIES, _KEYS, (_KEYS.c.log_id == _BODIES.c.log_id) & (_KEYS.c.idx == _BODIES.c.idx))
    .order_by(_BODIES.c.idx, _BODIES.c.part)
)
_OF_LEAVES: Final = _SEALED.where(
    _BODIES.c.log_id == bindparam("log"), _BODIES.c.idx.in_(bindparam("indexes", expanding=True))
)

Held = tuple[int, "SealedParts", int]
"""One leaf's body on its way in: index, sealed parts (`app.domain.at_rest.seal_parts`), and when they came (unix ms)."""


def store(db: Database, session: Session, log_id: int, bodies: Sequence[Held]) -> None:
    """Store bodies of one log. None of them may be there already."""
    keys = [(log_id, index, body.key) for index, body, _ in bodies]
    sealed = [(log_id, index, name, part, at) for index, body, at in bodies for name, part in body.parts]
    db.bulk_insert(session, BodyKeyRow.__table__, _KEY_COLUMNS, keys)
    db.bulk_insert(session, BodyRow.__table__, _BODY_COLUMNS, sealed)


def stream(
    session: Session, where: ColumnElement[bool], *, at_once: int
) -> Generator[tuple[int, str, Part], None, None]:
    """Yield (index, part, opened) of the bodies that `where` (on `BodyRow`) selects, by index and part.

    Args:
        at_once: rows held in memory.

    Raises:
        BodyUnreadable: a body does not open with its key.
    """
    yield from _unsealed(session, _SEALED.where(where), {}, at_once)


def of_leaves(
    session: Session, log_id: int, indexes: Sequence[int], *, at_once: int
) -> Generator[tuple[int, str, Part], None, None]:
    """The same of these leaves of one log, no more than SQLITE_VARIABLES of them."""
    yield from _unsealed(session, _OF_LEAVES, {"log": log_id, "indexes": indexes}, at_once)


def _unsealed(
    session: Session, statement: Select[Any], values: Mapping[str, Any], at_once: int
) -> Generator[tuple[int, str, Part], None, None]:
    rows = session.connection().execute(statement, values, execution_options={"yield_per": at_once})
    with rows:
        for index, part, sealed, key in rows:
            yield index, part, unseal(bytes(key), index, part, bytes(sealed))


def opened(
    session: Session, log_id: int, indexes: Sequence[int], *, part: str | None = None
) -> dict[int, dict[str, Part]]:
    """The bodies held of these leaves of one log: index → part → opened, in order. Leaves without one are left out.

    Args:
        part: only this part.

    Raises:
        BodyUnreadable: see `stream`.
    """
    found: dict[int, dict[str, Part]] = {}
    for some in chunks(indexes, SQLITE_VARIABLES - 2):
        if part is None:
            rows = of_leaves(session, log_id, some, at_once=len(some) or 1)
        else:
            where = (BodyRow.log_id == log_id) & BodyRow.idx.in_(some) & (BodyRow.part == part)
            rows = stream(session, where, at_once=len(some) or 1)
        for index, name, body in rows:
            found.setdefault(index, {})[name] = body
    return found


def main_parts(session: Session, log_id: int, indexes: Sequence[int]) -> dict[int, bytes]:
    """The content of the main parts held of these leaves."""
    return {i: p[MAIN_PART].content for i, p in opened(session, log_id, indexes, part=MAIN_PART).items()}


def destroy(session: Session, log_id: int, where: ColumnElement[bool] | Sequence[int]) -> None:
    """Destroy keys, salts and contents of the leaves given: a list of indexes, or a subquery of them."""
    for table in (BodyKeyRow, BodyRow):
        session.execute(delete(table).where(table.log_id == log_id, table.idx.in_(where)))
