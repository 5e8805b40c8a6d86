"""Writing events: rows of the outbox, in the transaction of what happened.

    with db.write() as session:
        ...                                                            # what happened
        emit(db, session, [Event("roster.changed", detail={"version": 7})], now=clock())

Guarantees: an event is there exactly if what caused it is, and whoever has seen number n has seen every number below n,
on both engines and with many writers (`Database.next_values`). So no reader with a cursor ever skips one that commits
late. Leaves to others: who may see an event (`app.gate`), and telling them (`app.notify`).

Emit last: the counter's row stays locked until the transaction ends, and all who emit wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.events import EVENT_TYPES, PRIVATE, EventType
from app.models import EventRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database

MAX_DETAIL: Final = 4_000
"""Bytes of one event's detail. It points at things, it does not carry them."""

COUNTER: Final = "events"
_COLUMNS: Final = (
    "seq", "type", "log_id", "idx", "root_idx", "at", "live", "detail", "owner", "tlp_rank", "audience",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: out of `app.domain.events`.
        log_id: the log it concerns, if any.
        idx: the leaf of that log that caused it, or, of what the clock causes, the version it is about.
        root_idx: the notice it concerns, by the index of its issuing statement.
        detail: what else is to be told, as JSON; shown to everybody who may see the event. Never content of a notice: an
            erasure does not reach it here.
        owner: id of the token that alone may see it (`Principal.id`); needed by the private types, and only by them.
        tlp_rank, audience: the handling of what it tells, where no row keeps it any more (an erasure).
    """

    type: EventType
    log_id: int | None = None
    idx: int | None = None
    root_idx: int | None = None
    detail: Mapping[str, Any] | None = None
    owner: str | None = None
    tlp_rank: int | None = None
    audience: str | None = None


def emit(db: Database, session: Session, events: Sequence[Event], *, now: int, live: bool = True) -> None:
    """Write events in the order given.

    Args:
        now: unix ms.
        live: False for history, which nobody is alerted of.

    Raises:
        ValueError: a type that is not in the vocabulary, a private one without its owner or another one with an owner, or
            a detail that is too long: a fault of the program.
    """
    if not events:
        return
    details = [_detail(event) for event in events]
    first = db.next_values(session, COUNTER, len(events))
    db.bulk_insert(
        session,
        EventRow.__table__,
        _COLUMNS,
        [
            (
                first + n,
                e.type,
                e.log_id,
                e.idx,
                e.root_idx,
                now,
                live,
                detail,
                e.owner,
                e.tlp_rank,
                e.audience,
            )
            for n, (e, detail) in enumerate(zip(events, details, strict=True))
        ],
    )


def _detail(event: Event) -> str | None:
    if event.type not in EVENT_TYPES:
        raise ValueError(f"{event.type} is no type of event; app/domain/events.py has them all")
    if (event.type in PRIVATE) != (event.owner is not None):
        raise ValueError(f"{event.type}: private events have an owner, others have none")
    if event.detail is None:
        return None
    text = orjson.dumps(event.detail)
    if len(text) > MAX_DETAIL:
        raise ValueError(f"the detail of {event.type} has {len(text)} bytes; at most {MAX_DETAIL}")
    return text.decode()
