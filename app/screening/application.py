"""What is asked: one party, many, or a whole licence application, read from JSON and told apart from what it is not.

    {"party": Party}
    {"parties": [Party, …]}
    {"parties": {"end_user": [Party, …], "consignee": Party, …}, "items": [Item, …], "destination": "KP", "stated_end_use": "…"}

A Party is FollowTheMoney's shape, `{"schema", "properties": {"name": [...]}}`, with an optional `role` and `id`; a single text
may stand for a list of one, and `name` beside `properties` for `properties.name`. An Item is that of a notice; a code may be
written alone, and `code` for a list of one.

Guarantees that whatever was not understood is an error that points at it: of one party, which stops no other party, or of
the application, which then is not screened at all. Unlike a notice, what is asked may hold characters that cannot be seen:
names arrive so, and must be found. Pure; matching is left to `find`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from app.domain.control_codes import ControlCode, InvalidControlCode, canonical_query
from app.domain.errors import Malformed, Refused
from app.domain.notices.fields import MAX_ITEMS, MAX_TEXT, MAX_VALUES
from app.domain.notices.shared import Item
from app.domain.party import APPLICATION_ROLES, PROPERTIES, SCHEMATA
from app.domain.states import UnknownCountry, country
from app.screening.party import Query
from app.screening.undercut import Goods, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_PARTIES: Final = 1_000
"""Of one request. More go as a batch, which is streamed."""
MAX_VALUE: Final = 2_000
"""Characters of one value, as in a notice. A name that is longer is not a name."""
MAX_ID: Final = 200

DEFAULT_ROLE: Final = "other_party"
ANY_SCHEMA: Final = "LegalEntity"
_PARTY_MEMBERS: Final = frozenset({"schema", "properties", "name", "role", "id", "native_names"})
_MEMBERS: Final = frozenset(
    {"party", "parties", "items", "destination", "stated_end_use", "reference", "received_on", "id"}
)
_ROLES: Final = frozenset(APPLICATION_ROLES)
_SCHEMATA: Final = frozenset(SCHEMATA)
_PROPERTIES: Final = frozenset(PROPERTIES)
_ITEM: Final = TypeAdapter(Item)
# A code may be written alone; then the numbering that it can only be of is looked for, in this order.
_GUESSED: Final = ("EU", "US", "WA", "ML", "UK-PL", "EU-AT", "CATCH-ALL", "HS")

Faults = list[tuple[str, str]]


class InvalidScreening(Malformed):
    """What is asked cannot be screened.

    Attributes:
        errors: pairs (JSON pointer, detail).
    """

    code = "invalid-screening"

    def __init__(self, errors: Faults) -> None:
        """Keep every error: an officer mends them in one go."""
        self.errors = errors
        shown = "; ".join(f"{pointer or '/'}: {detail.rstrip('.')}" for pointer, detail in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""  # noqa: PLR2004
        super().__init__(f"This cannot be screened. {shown}{more}.")


@dataclass(frozen=True, slots=True)
class Asked:
    """One party that is asked about.

    Attributes:
        pointer: where it stands in the request.
        schema: one of SCHEMATA; None if it was not said, which is any.
        properties: FollowTheMoney's.
        query: the same, as matching takes it: at least one name or identifier.
    """

    pointer: str
    id: str | None
    role: str | None
    schema: str | None
    properties: Mapping[str, tuple[str, ...]]
    query: Query

    @property
    def caption(self) -> str:
        """What to call it: its first name, or an identifier."""
        return self.query.names[0] if self.query.names else self.query.identifiers[0][1]

    def as_notice_party(self) -> dict[str, Any]:
        """As it would stand in a notice (`PartyIn`)."""
        properties = {name: list(values) for name, values in self.properties.items()}
        ftm = {"schema": self.schema or ANY_SCHEMA, "properties": properties}
        return {"ftm": ftm, "role": "applicant" if self.role == "exporter" else self.role or DEFAULT_ROLE}


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A party that cannot be screened, and why."""

    pointer: str
    id: str | None
    role: str | None
    errors: Faults
    code: str = "invalid-screening"


@dataclass(frozen=True, slots=True)
class Application:
    """What is asked, read.

    Attributes:
        parties: in the order of the request.
        items: as they would stand in a notice.
        goods: the same, for the undercut check.
        is_application: items or a destination were given, so that transactions can be compared.
        id: the caller's own id for it, echoed.
    """

    parties: tuple[Asked | NotUnderstood, ...]
    items: tuple[dict[str, Any], ...] = ()
    goods: tuple[Goods, ...] = ()
    destination: str | None = None
    stated_end_use: str | None = None
    reference: str | None = None
    received_on: date | None = None
    id: str | None = None

    @property
    def is_application(self) -> bool:
        """Whether there is a transaction that could be compared with denied ones."""
        return bool(self.goods or self.destination)

    def asked(self) -> Iterator[Asked]:
        """The parties that were understood."""
        return (party for party in self.parties if isinstance(party, Asked))


def read_application(document: Any) -> Application:  # noqa: ANN401 - any JSON
    """Read what is asked.

    Raises:
        InvalidScreening: it is no request, an item or the destination is wrong, or no party of it was understood.
    """
    if not isinstance(document, dict):
        raise InvalidScreening([("", "a screening is a JSON object with the member parties, or party")])
    faults: Faults = [
        (f"/{_step(name)}", f"not a member of a screening; known: {', '.join(sorted(_MEMBERS))}")
        for name in document
        if name not in _MEMBERS
    ]
    parties = tuple(_parties(document, faults))
    items, goods = _items(document.get("items"), faults)
    found = Application(
        parties,
        items,
        goods,
        destination=_destination(document.get("destination"), faults),
        stated_end_use=_text(document, "stated_end_use", MAX_TEXT, faults),
        reference=_text(document, "reference", 64, faults),
        received_on=_day(document.get("received_on"), faults),
        id=_text(document, "id", MAX_ID, faults),
    )
    if not faults and not any(True for _ in found.asked()):
        faults = [fault for party in parties if isinstance(party, NotUnderstood) for fault in party.errors]
        faults = faults or [("/parties", "name at least one party")]
    if faults:
        raise InvalidScreening(faults[:50])
    return found


# ── parties ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _parties(document: Mapping[str, Any], faults: Faults) -> Iterator[Asked | NotUnderstood]:
    if ("party" in document) == ("parties" in document):
        faults.append(("", "give either party, for one, or parties, as a list or an object by role"))
        return
    if "party" in document:
        yield read_party(document["party"], "/party")
        return
    listed = list(_listed(document["parties"], faults))
    if len(listed) > MAX_PARTIES:
        faults.append(
            (
                "/parties",
                f"at most {MAX_PARTIES} parties at once; send more to /v1/screenings/batch, one a line",
            )
        )
        return
    for pointer, value, role in listed:
        yield read_party(value, pointer, role)


def _listed(parties: Any, faults: Faults) -> Iterator[tuple[str, Any, str | None]]:  # noqa: ANN401 - any JSON
    if isinstance(parties, list):
        yield from ((f"/parties/{n}", value, None) for n, value in enumerate(parties))
    elif isinstance(parties, dict):
        for role, values in parties.items():
            pointer = f"/parties/{_step(role)}"
            if role not in _ROLES:
                faults.append((pointer, f"not a role; known: {', '.join(APPLICATION_ROLES)}"))
            elif isinstance(values, list):
                yield from ((f"{pointer}/{n}", value, role) for n, value in enumerate(values))
            else:
                yield pointer, values, role
    else:
        faults.append(("/parties", "must be a list of parties, or an object of parties by role"))


def read_party(value: Any, pointer: str = "", role: str | None = None) -> Asked | NotUnderstood:  # noqa: ANN401
    """Read one party. A text alone is its name.

    Args:
        value: any JSON.
        pointer: where it stands.
        role: the role it stands under, if any.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return NotUnderstood(pointer, None, role, [(pointer, "a party is an object, or its name as a text")])
    faults: Faults = [
        (
            f"{pointer}/{_step(name)}",
            f"not a member of a party; known: {', '.join(sorted(_PARTY_MEMBERS))}",
        )
        for name in value
        if name not in _PARTY_MEMBERS
    ]
    own_id = value.get("id")
    if own_id is not None and not (isinstance(own_id, str) and 0 < len(own_id) <= MAX_ID):
        faults.append((f"{pointer}/id", f"must be a text of at most {MAX_ID} characters"))
        own_id = None
    own_role = value.get("role", role)
    if own_role is not None and (
        own_role not in APPLICATION_ROLES or (role is not None and own_role != role)
    ):
        faults.append(
            (f"{pointer}/role", f"must be one of {', '.join(APPLICATION_ROLES)}, and the one it stands under")
        )
        own_role = role
    schema = value.get("schema")
    if schema is not None and not (isinstance(schema, str) and schema in _SCHEMATA):
        faults.append((f"{pointer}/schema", f"must be one of {', '.join(SCHEMATA)}"))
    properties = _properties(value, pointer, faults)
    if faults:
        return NotUnderstood(pointer, own_id, own_role, faults[:20])
    document = {"schema": schema or ANY_SCHEMA, "properties": {n: list(v) for n, v in properties.items()}}
    try:
        query = Query.parse(document)
    except Refused as refusal:
        return NotUnderstood(
            pointer, own_id, own_role, [(f"{pointer}/properties", str(refusal))], refusal.code
        )
    return Asked(pointer, own_id, own_role, schema, properties, query)


def _properties(value: Mapping[str, Any], pointer: str, faults: Faults) -> dict[str, tuple[str, ...]]:
    given = value.get("properties", {})
    if not isinstance(given, dict):
        faults.append((f"{pointer}/properties", "must be an object of lists of texts"))
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name, values in given.items():
        where = f"{pointer}/properties/{_step(name)}"
        if name not in _PROPERTIES:
            faults.append((where, "not a property that parties have here; see docs/screening.md"))
            continue
        texts = _texts(values, where, faults)
        if texts:
            found[name] = texts
    short = _texts(value.get("name", []), f"{pointer}/name", faults)
    native = _native(value.get("native_names", []), f"{pointer}/native_names", faults)
    if short:
        found["name"] = tuple(dict.fromkeys((*short, *found.get("name", ()))))
    if native:
        found["alias"] = tuple(dict.fromkeys((*found.get("alias", ()), *native)))
    return found


def _texts(values: Any, pointer: str, faults: Faults) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    listed = [values] if isinstance(values, str) else values
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        faults.append((pointer, "must be a list of texts"))
        return ()
    if len(listed) > MAX_VALUES:
        faults.append((pointer, f"has more than {MAX_VALUES} values"))
        return ()
    if any(len(text) > MAX_VALUE for text in listed):
        faults.append((pointer, f"has a value of more than {MAX_VALUE} characters"))
        return ()
    return tuple(text for text in listed if text.strip())


def _native(values: Any, pointer: str, faults: Faults) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    if isinstance(values, list) and all(
        isinstance(v, dict) and isinstance(v.get("value"), str) for v in values
    ):
        return _texts([v["value"] for v in values], pointer, faults)
    faults.append((pointer, "must be a list of objects with a value"))
    return ()


# ── the transaction ───────────────────────────────────────────────────────────────────────────────────────────────


def _items(values: Any, faults: Faults) -> tuple[tuple[dict[str, Any], ...], tuple[Goods, ...]]:  # noqa: ANN401
    if values is None:
        return (), ()
    if not isinstance(values, list) or len(values) > MAX_ITEMS:
        faults.append(("/items", f"must be a list of at most {MAX_ITEMS} items"))
        return (), ()
    items: list[dict[str, Any]] = []
    goods: list[Goods] = []
    for n, value in enumerate(values):
        item = _with_systems(value, f"/items/{n}", faults)
        if item is None:
            continue
        try:
            read = _ITEM.validate_python(item)
        except ValidationError as error:
            faults.extend(
                ("/".join((f"/items/{n}", *(_step(str(step)) for step in found["loc"]))), found["msg"])
                for found in error.errors(include_url=False, include_context=False, include_input=False)[:10]
            )
            continue
        items.append(item)
        goods.append(goods_of(read))
    return tuple(items), tuple(goods)


def goods_of(item: Item) -> Goods:
    """An item of a notice or an application, for the undercut check."""
    parameters = tuple(Parameter(p.name, p.value, p.unit) for p in item.technical_parameters)
    return Goods(item.description, tuple(item.control_codes()), parameters)


def _with_systems(value: Any, pointer: str, faults: Faults) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON
    """The item with every code that was written alone given its list, and a description if it has none."""
    if not isinstance(value, dict):
        faults.append((pointer, "an item is an object with description and codes"))
        return None
    alone = "code" in value
    if alone:
        if "codes" in value:
            faults.append((f"{pointer}/code", "give either code, for one, or codes"))
            return None
        value = {name: member for name, member in value.items() if name != "code"} | {
            "codes": [value["code"]]
        }
    codes = value.get("codes", [])
    if not isinstance(codes, list):
        faults.append((f"{pointer}/codes", "must be a list of codes"))
        return None
    listed = []
    for n, code in enumerate(codes):
        if not isinstance(code, str):
            listed.append(code)
            continue
        system = _system_of(code)
        if system is None:
            faults.append((f"{pointer}/code" if alone else f"{pointer}/codes/{n}", _code_fault(code)))
            return None
        listed.append({"system": system, "code": code})
    item: dict[str, Any] = value | ({"codes": listed} if "codes" in value else {})
    if not item.get("description"):
        item["description"] = (
            ", ".join(code.get("code", "") for code in listed if isinstance(code, dict)) or "item"
        )
    return item


def _system_of(code: str) -> str | None:
    for system in _GUESSED:
        try:
            ControlCode.parse(system, code.strip())
        except InvalidControlCode:
            continue
        return system
    return None


def _code_fault(code: str) -> str:
    try:
        canonical_query(code)
    except InvalidControlCode as error:
        return str(error)
    return "is a category or a group; an item has a whole number, such as 5A001 or 5A001.j"


def _destination(value: Any, faults: Faults) -> str | None:  # noqa: ANN401 - any JSON
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return country(value)
        detail = "must be a country code"
    except UnknownCountry as error:
        detail = str(error)
    faults.append(("/destination", detail))
    return None


def _text(document: Mapping[str, Any], name: str, most: int, faults: Faults) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= most:
        faults.append((f"/{name}", f"must be a text of at most {most} characters"))
        return None
    return value


def _day(value: Any, faults: Faults) -> date | None:  # noqa: ANN401 - any JSON
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
    except ValueError:
        pass
    faults.append(("/received_on", "must be a date such as 2026-11-25"))
    return None


def _step(name: str) -> str:
    return name[:40].replace("~", "~0").replace("/", "~1")
