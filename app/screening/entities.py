"""Parties of notices as FollowTheMoney entities, and FollowTheMoney-shaped queries as parties: for clients of other systems.

An entity is one party of one notice. Two notices about one person are two entities, and stay two: nothing here merges.
What a client sends that is not compared here is left out and named, as its own server would leave it out; what cannot be
understood at all is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import select

from app.domain.errors import NotFound
from app.domain.party import COUNTRY_PROPERTIES, PROPERTIES, SCHEMATA, properties_fault
from app.domain.states import STATES
from app.gate import visible
from app.models import LogRow, NoticeRow
from app.queries.notices import rfc3339
from app.screening.application import NotUnderstood, read_party
from app.screening.denials import DenialView, Key, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.screening.application import Asked

DATASET: Final = "verbale"
"""All notices of all States. Each State's own is `verbale_nl`."""
_ALIASES: Final = frozenset({DATASET, "default", "all"})
TOPICS: Final = {"denied_end_user": "export.control", "technology_threat": "export.risk"}

_ID: Final = re.compile(r"([a-z]{2})([0-9]{1,6})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([0-9]{1,3})")
_ANYTHING: Final = frozenset({"Thing", "LegalEntity"})
_ALLOWED: Final = frozenset(PROPERTIES)


# ── datasets ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Dataset:
    """Which States' notices are meant; None: all."""

    name: str
    issuer: str | None

    def has(self, issuer: str) -> bool:
        """Whether a State's notices belong to it."""
        return self.issuer is None or issuer == self.issuer


def dataset(name: str) -> Dataset:
    """The dataset of a name.

    Raises:
        NotFound: there is none.
    """
    if name in _ALIASES:
        return Dataset(DATASET, None)
    state = name.removeprefix(f"{DATASET}_").upper()
    if name.startswith(f"{DATASET}_") and state in STATES and name.islower():
        return Dataset(name, state)
    raise NotFound(f"There is no dataset {name[:60]!r} here. /catalog lists them.")


def dataset_of(issuer: str) -> str:
    """The name of a State's own dataset."""
    return f"{DATASET}_{issuer.lower()}"


# ── entities ──────────────────────────────────────────────────────────────────────────────────────────────────────


def entity_id(view: DenialView, position: int) -> str:
    """The id of a party of a notice: its log, its notice, its place."""
    epoch = view.origin.rsplit("/", 1)[1]
    return f"{view.issuer.lower()}{epoch}-{view.id}-{position}"


def find_entity(session: Session, principal: Principal, text: str, *, now_ms: int) -> tuple[DenialView, int]:
    """The party with this id.

    Raises:
        NotFound: there is none that the caller may see.
    """
    unknown = NotFound(f"There is no entity {text[:64]!r} that this caller may see.")
    match = _ID.fullmatch(text)
    if match is None:
        raise unknown
    key = session.execute(
        select(NoticeRow.log_id, NoticeRow.idx)
        .join(LogRow, LogRow.id == NoticeRow.log_id)
        .where(
            NoticeRow.id == match[3],
            LogRow.state == match[1].upper(),
            LogRow.epoch == int(match[2]),
            visible(principal),  # a hidden one costs the same look-ups as none
        )
    ).one_or_none()
    views: dict[Key, DenialView] = {}
    if key is not None:
        views = load(session, principal, [(key.log_id, key.idx)], now_ms=now_ms)
    for view in views.values():
        if view.type in TOPICS and int(match[4]) < len(view.parties()):
            return view, int(match[4])
    raise unknown


def entity(view: DenialView, position: int, *, nested: bool = False) -> dict[str, Any]:
    """A party of a notice as an entity.

    Args:
        nested: with the decision as an entity of the schema `Sanction`.
    """
    party = view.parties()[position]
    properties = {name: list(values) for name, values in party["ftm"]["properties"].items()}
    for name in COUNTRY_PROPERTIES:
        if name in properties:
            properties[name] = [code.lower() for code in properties[name]]
    native = [name["value"] for name in party.get("native_names", ())]
    if native:
        properties["alias"] = list(dict.fromkeys((*properties.get("alias", ()), *native)))
    properties["topics"] = list(dict.fromkeys((*properties.get("topics", ()), TOPICS[view.type])))
    identity = entity_id(view, position)
    if nested:
        properties["sanctions"] = [_decision(view, identity)]
    return {
        "id": identity,
        "caption": properties["name"][0],
        "schema": party["ftm"]["schema"],
        "properties": properties,
        "datasets": [dataset_of(view.issuer)],
        "referents": [],
        "target": True,
        "first_seen": rfc3339(view.received_at),
        "last_seen": rfc3339(view.changed_at),
        "last_change": rfc3339(view.changed_at),
    }


def _decision(view: DenialView, identity: str) -> dict[str, Any]:
    body = view.document["body"]
    found = {
        "entity": [identity],
        "authority": [STATES[view.issuer].authority or STATES[view.issuer].name],
        "country": [view.issuer.lower()],
        "authorityId": [view.id],
        "reason": body.get("reasons", []),
        "provisions": [body["action"]] if "action" in body else [],
        "startDate": [view.denied_on] if view.denied_on else [],
        "endDate": [view.valid_until] if view.valid_until else [],
        "status": [view.status],
        "summary": [view.title],
        "sourceUrl": [],
    }
    return {
        "id": f"{identity}-decision",
        "caption": view.title,
        "schema": "Sanction",
        "properties": {name: values for name, values in found.items() if values},
        "datasets": [dataset_of(view.issuer)],
        "referents": [],
        "target": False,
        "first_seen": rfc3339(view.received_at),
        "last_seen": rfc3339(view.changed_at),
        "last_change": rfc3339(view.changed_at),
    }


# ── queries ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Example:
    """A query by example, read: what is asked, and what of it was left out.

    Attributes:
        ignored: properties that are not compared here.
        unread: property -> values that are no date, no country and so on.
    """

    asked: Asked
    ignored: tuple[str, ...]
    unread: Mapping[str, list[str]]

    def wire(self) -> dict[str, Any]:
        """The query as it was understood."""
        found: dict[str, Any] = {
            "id": self.asked.id,
            "schema": self.asked.schema or "LegalEntity",
            "properties": {name: list(values) for name, values in self.asked.properties.items()},
        }
        return found | {"ignored": list(self.ignored), "unread": dict(self.unread)}


def read_example(value: Any) -> Example | NotUnderstood:  # noqa: ANN401 - any JSON
    """Read `{"id", "schema", "properties": {…}}` as a server of FollowTheMoney entities would: leniently, and said."""
    if not isinstance(value, dict) or not isinstance(value.get("properties"), dict):
        return NotUnderstood("", None, None, [("/properties", "required, an object of lists of texts")])
    schema = value.get("schema")
    if schema in _ANYTHING:
        schema = None
    elif not isinstance(schema, str) or schema not in SCHEMATA:
        known = ", ".join(sorted({*SCHEMATA, *_ANYTHING}))
        return NotUnderstood(
            "", None, None, [("/schema", f"{str(schema)[:40]!r} is not matched here; known: {known}")]
        )
    kept: dict[str, list[str]] = {}
    ignored: list[str] = []
    unread: dict[str, list[str]] = {}
    for name, values in value["properties"].items():
        listed = [values] if isinstance(values, str) else values
        if name not in _ALLOWED:
            ignored.append(str(name)[:60])
        elif isinstance(listed, list):
            texts = [text for text in listed if isinstance(text, str)]
            good = [text for text in texts if properties_fault({"name": ("x",), name: (text,)}) is None]
            bad = [str(text)[:100] for text in listed if text not in good]
            kept |= {name: good} if good else {}
            unread |= {name: bad} if bad else {}
        else:
            unread[name] = [orjson.dumps(values).decode()[:100]]
    identity = value.get("id")
    party: dict[str, Any] = {"properties": kept} | ({"schema": schema} if schema else {})
    if isinstance(identity, str) and 0 < len(identity) <= 200:  # noqa: PLR2004
        party["id"] = identity
    read = read_party(party)
    if isinstance(read, NotUnderstood):
        return read
    return Example(read, tuple(sorted(ignored)), unread)
