"""The notices behind hits: read through the gate, and turned into what the undercut check compares.

Guarantees that nothing of a notice leaves here that the caller may not read: keys that come from an index are loaded with
the gate in the same statement, and what it hides is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from sqlalchemy import and_, bindparam, false, literal, or_, select, tuple_

from app.db import fetch
from app.domain.control_codes import ControlCode, ancestors
from app.domain.encoding import b64u_encode
from app.domain.handling import Tlp
from app.gate import visible
from app.models import LogRow, NoticeRow, NoticeTermRow
from app.queries.filters import SHOWN, day_of, is_active, years_before
from app.queries.notices import rfc3339
from app.screening.undercut import LOOK_BACK_YEARS, Denied, Goods, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from app.gate import Principal

Key = tuple[int, int]
"""A notice at this node: its log's number there, and the index of its issuing statement."""

MAX_SITES: Final = 300
"""Denials of one application's codes whose addresses are looked at, newest first."""

_DENIAL: Final = "denied_end_user"


@dataclass(frozen=True, slots=True)
class DenialView:
    """One notice behind a hit, in its newest version.

    Attributes:
        valid_now: active, by this node's clock.
        document: its main part.
    """

    key: Key
    id: str
    origin: str
    issuer: str
    type: str
    status: Literal["active", "expired", "withdrawn"]
    version: int
    leaf_hash: bytes
    denied_on: str | None
    valid_until: str | None
    review_due: str | None
    received_at: int
    changed_at: int
    tlp_rank: int
    title: str
    stale: bool
    document: Mapping[str, Any]

    @property
    def valid_now(self) -> bool:
        """Whether it is in force."""
        return self.status == "active"

    def parties(self) -> Sequence[Mapping[str, Any]]:
        """The notice's parties in the order in which screening numbers them: that of the schema of its type."""
        body = self.document["body"]
        if self.type == _DENIAL:
            listed: list[Mapping[str, Any]] = list(body["parties"])
            return listed
        return [*body.get("suppliers", ()), *body.get("known_users", ())]

    def denied(self) -> Denied | None:
        """What the undercut check compares; None for a notice that is no denial."""
        if self.type != _DENIAL:
            return None
        body = self.document["body"]
        denied_on = date.fromisoformat(self.denied_on) if self.denied_on else None
        return Denied(
            self.issuer,
            denied_on,
            self.valid_now,
            tuple(_goods(item) for item in body.get("items", ())),
            body.get("items_scope"),
            body.get("destination"),
        )

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API: what an officer needs to see before opening it."""
        body = self.document["body"]
        return {
            "id": self.id,
            "origin": self.origin,
            "issuer": self.issuer,
            "type": self.type,
            "status": self.status,
            "title": self.title,
            "tlp": Tlp(self.tlp_rank).label,
            "version": self.version,
            "leaf_hash": b64u_encode(self.leaf_hash),
            "denied_on": self.denied_on,
            "valid_until": self.valid_until,
            "review_due": self.review_due,
            "received_at": rfc3339(self.received_at),
            "changed_at": rfc3339(self.changed_at),
            "stale": self.stale,
            "action": body.get("action"),
            "reasons": body.get("reasons", []),
            "concerns": [concern["code"] for concern in body.get("concerns", ())],
            "destination": body.get("destination"),
            "links": {"self": f"/v1/notices/{self.id}", "proof": f"/v1/notices/{self.id}/proof"},
        }


def _goods(item: Mapping[str, Any]) -> Goods:
    """An item of a notice as stored: it was judged, so its codes are codes."""
    codes = [ControlCode.parse(c["system"], c["code"], c.get("edition")) for c in item.get("codes", ())]
    codes += [ControlCode.parse("HS", hs) for hs in item.get("hs", ())]
    parameters = (
        Parameter(p["name"], p["value"], p.get("unit")) for p in item.get("technical_parameters", ())
    )
    return Goods(item["description"], tuple(codes), tuple(parameters))


_COLUMNS: Final = (
    NoticeRow.log_id, NoticeRow.idx, NoticeRow.id, LogRow.origin, NoticeRow.issuer, NoticeRow.type, NoticeRow.status,
    NoticeRow.version, NoticeRow.current_hash, NoticeRow.denied_on, NoticeRow.valid_until, NoticeRow.review_due, NoticeRow.exp,
    NoticeRow.received_at, NoticeRow.changed_at, NoticeRow.tlp_rank, NoticeRow.title, NoticeRow.content_state, NoticeRow.document,
)  # fmt: skip


def load(
    session: Session, principal: Principal, keys: Iterable[Key], *, now_ms: int
) -> dict[Key, DenialView]:
    """The notices that the caller may see, out of many keys. Withdrawn ones and those without content are not there."""
    wanted = sorted(set(keys))
    found: dict[Key, DenialView] = {}
    for at in range(0, len(wanted), 500):
        shape, values = by_log(wanted[at : at + 500])
        rows = fetch(session, _by_keys(principal, shape), **values)
        found |= {view.key: view for view in (_view(row, now_ms) for row in rows)}
    return found


Shape = tuple[int, ...]
"""For each log among some keys, how many of its indexes a statement has room for."""


def by_log(keys: Iterable[Key]) -> tuple[Shape, dict[str, int]]:
    """The shape of `among` for some keys, and its values.

    There is room for a power of two; what is left of it repeats an index. So a few statements do for any number of keys:
    to spread a list anew at each time costs more than SQLite takes to find the rows.
    """
    of_log: dict[int, list[int]] = {}
    for log_id, idx in keys:
        of_log.setdefault(log_id, []).append(idx)
    shape: list[int] = []
    values: dict[str, int] = {}
    # The largest first, whichever log it is: or a federation's logs would have as many shapes as orders.
    for n, (log_id, indexes) in enumerate(sorted(of_log.items(), key=lambda one: -len(one[1]))):
        room = 1 << (len(indexes) - 1).bit_length()
        values[f"log_{n}"] = log_id
        for at in range(room):
            values[f"idx_{n}_{at}"] = indexes[min(at, len(indexes) - 1)]
        shape.append(room)
    return tuple(shape), values


def among(log: Any, index: Any, shape: Shape) -> ColumnElement[bool]:  # noqa: ANN401 - two columns of one table
    """Whether a row's key is one of many, which `by_log` gives as values.

    Log by log: for a list of pairs SQLite reads the whole table. With values that are bound later, since a statement is made
    once for a caller and not for each of a thousand parties.
    """
    return or_(
        false(),
        *(
            and_(log == bindparam(f"log_{n}"), index.in_([bindparam(f"idx_{n}_{at}") for at in range(room)]))
            for n, room in enumerate(shape)
        ),
    )


def is_shown() -> ColumnElement[bool]:
    """Whether a notice has content for a reader; spelled out, see `by_log`."""
    return NoticeRow.content_state.in_([literal(state) for state in SHOWN])


def at_codes(
    session: Session, principal: Principal, goods: Iterable[Goods], *, now_ms: int
) -> tuple[list[DenialView], bool]:
    """Denials whose codes meet those of an application at their number, newest first, and whether there are more.

    They are valid now or within the look-back. For "same site, other name": no party leads to them.
    """
    terms = {prefix for item in goods for code in item.codes if (prefix := _number(code)) is not None}
    if not terms:
        return [], False
    carries = select(NoticeTermRow.log_id, NoticeTermRow.idx).where(
        NoticeTermRow.kind == "c", NoticeTermRow.term.in_(sorted(terms))
    )
    since = years_before(day_of(now_ms), LOOK_BACK_YEARS).isoformat()
    keys = session.execute(
        select(NoticeRow.log_id, NoticeRow.idx)
        .where(
            tuple_(NoticeRow.log_id, NoticeRow.idx).in_(carries),
            NoticeRow.type == _DENIAL,
            NoticeRow.status == "active",
            or_(is_active(now_ms), NoticeRow.denied_on >= since),
            NoticeRow.content_state.in_(SHOWN),
            visible(principal),
        )
        .order_by(NoticeRow.seq.desc())
        .limit(MAX_SITES + 1)
    ).all()
    views = load(session, principal, [(k[0], k[1]) for k in keys[:MAX_SITES]], now_ms=now_ms)
    return list(views.values()), len(keys) > MAX_SITES


def _number(code: ControlCode) -> str | None:
    """The number of a code that identifies an item; None for a basket or a tariff number."""
    if code.system in ("HS", "CATCH-ALL") or code.canonical == "EAR99":
        return None
    steps = ancestors(code.canonical)
    return steps[2] if len(steps) > 2 and len(steps[0]) == 1 else steps[0]  # noqa: PLR2004


@lru_cache(maxsize=256)
def _by_keys(principal: Principal, shape: Shape) -> Select[*tuple[Any, ...]]:
    return (
        select(*_COLUMNS)
        .join(LogRow, LogRow.id == NoticeRow.log_id)
        .where(
            among(NoticeRow.log_id, NoticeRow.idx, shape),
            visible(principal),
            is_shown(),
            NoticeRow.status == "active",
            NoticeRow.document.is_not(None),
        )
    )


def _view(row: Any, now_ms: int) -> DenialView:  # noqa: ANN401 - a row of _COLUMNS
    today = day_of(now_ms).isoformat()
    over = (row.exp is not None and row.exp <= now_ms // 1000) or (
        row.valid_until is not None and row.valid_until < today
    )
    return DenialView(
        key=(row.log_id, row.idx),
        id=row.id,
        origin=row.origin,
        issuer=row.issuer,
        type=row.type,
        status="expired" if over else "active",
        version=row.version,
        leaf_hash=bytes(row.current_hash),
        denied_on=row.denied_on,
        valid_until=row.valid_until,
        review_due=row.review_due,
        received_at=row.received_at,
        changed_at=row.changed_at,
        tlp_rank=row.tlp_rank,
        title=row.title,
        stale=row.content_state == "stale",
        document=orjson.loads(row.document),
    )
