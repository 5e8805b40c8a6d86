"""What is asked: one party, as a FollowTheMoney-shaped object that is read strictly.

Guarantees that a `Query` holds at least one thing that can be compared: a name with letters or digits that is more than a
legal form or a title, or an identifier. What cannot be understood is refused with the place and the reason: screening
never answers "no match" about something it did not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import Refused
from app.domain.party import (
    COUNTRY_PROPERTIES,
    DATE_PROPERTIES,
    NAME_PROPERTIES,
    PROPERTIES,
    SCHEMATA,
    Schema,
    properties_fault,
)
from app.projections.screened import IDENTIFIER_PROPERTIES
from app.screening.normalise import Name, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_NAMES: Final = 50
"""Names of one query. The longest published alias list has 42."""
MAX_NAME: Final = 1_000
"""Characters of one name: as in a notice, where clauses about successors stand inside names."""
MAX_VALUES: Final = 50
"""Values of any other property."""
MAX_VALUE: Final = 1_000


class UnreadableParty(Refused):
    """A party to be screened that is not a FollowTheMoney-shaped object of this project's allow-list."""

    code = "unreadable-party"


class NothingToCompare(Refused):
    """A party whose names say nothing: empty, only symbols, only a legal form, only a title, one letter."""

    code = "nothing-to-compare"


@dataclass(frozen=True, slots=True)
class Query:
    """One party to be screened.

    Attributes:
        names: as given, once each.
        birth_dates, founded: ISO dates, possibly partial: of a person; of anything else.
        countries: alpha-2 in capitals.
        identifiers: (property, value) as given.
        ignored: properties that were given and are not compared.
        read: the names as they were understood, parallel to `names`.
    """

    schema: Schema
    names: tuple[str, ...]
    birth_dates: tuple[str, ...] = ()
    founded: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    addresses: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()
    contacts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    read: tuple[Name, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the names.

        Raises:
            NothingToCompare: see the class.
        """
        if not self.read:
            object.__setattr__(self, "read", _read_names(self.names, self.schema))
        if not self.read and not self.identifiers:
            raise NothingToCompare("There is no name and no identifier to screen. Give properties.name.")

    @classmethod
    def named(cls, name: str, schema: Schema = "LegalEntity") -> Query:
        """The query of a name alone."""
        return cls.parse({"schema": schema, "properties": {"name": [name]}})

    @classmethod
    def parse(cls, document: Any, *, stored: bool = False) -> Query:  # noqa: ANN401 - JSON from outside
        """Read `{"schema": "Person", "properties": {"name": ["…"], …}}`.

        Args:
            stored: it was taken before, maybe by a version that did not look whether the calendar has a day.

        Raises:
            UnreadableParty: not that shape, an unknown schema or property, a date or a country that is none.
            NothingToCompare: nothing in it can be compared.
        """
        schema, properties = _shape(document)
        given = {name: _values(name, values) for name, values in properties.items()}
        given = {name: values for name, values in given.items() if values}
        _check_values(given)
        if not stored:
            _check_days(given)
        names = tuple(dict.fromkeys(v for p in NAME_PROPERTIES for v in given.get(p, ())))
        if len(names) > MAX_NAMES:
            raise UnreadableParty(f"A party has at most {MAX_NAMES} names; this one has {len(names)}.")
        used = {*NAME_PROPERTIES, *COUNTRY_PROPERTIES, *IDENTIFIER_PROPERTIES, *_OTHER_USED}
        return cls(
            schema=schema,
            names=names or _composed(given),
            birth_dates=given.get("birthDate", ()),
            founded=(*given.get("incorporationDate", ()), *given.get("buildDate", ())),
            countries=_countries(given),
            identifiers=tuple((p, v) for p in IDENTIFIER_PROPERTIES for v in given.get(p, ())),
            addresses=given.get("address", ()),
            genders=tuple(v.casefold() for v in given.get("gender", ())),
            contacts=tuple(v for p in ("email", "phone", "website") for v in given.get(p, ())),
            ignored=tuple(sorted(set(given) - used)),
        )


_OTHER_USED: Final = (
    "birthDate", "incorporationDate", "buildDate", "address", "gender", "email", "phone", "website", "firstName", "middleName",
    "lastName", "flag",
)  # fmt: skip


def _shape(document: Any) -> tuple[Schema, Mapping[str, Any]]:  # noqa: ANN401 - JSON from outside
    if not isinstance(document, dict):
        raise UnreadableParty('A party is an object: {"schema": "Person", "properties": {"name": ["…"]}}.')
    unknown = sorted(set(map(str, document)) - {"schema", "properties", "id"})
    if unknown:
        raise UnreadableParty(
            f"{unknown[0][:40]!r} is no member of a party: it has schema, properties and, if wanted, id."
        )
    schema = document.get("schema")
    if schema not in SCHEMATA:
        raise UnreadableParty(f"schema: {str(schema)[:40]!r} is not one of {', '.join(SCHEMATA)}.")
    properties = document.get("properties")
    if not isinstance(properties, dict):
        raise UnreadableParty('properties: required, an object of lists of texts, such as {"name": ["…"]}.')
    return schema, properties


def _values(name: str, values: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON from outside
    if name not in PROPERTIES:
        raise UnreadableParty(f"properties.{str(name)[:40]}: not a property this schema allows.")
    listed = [values] if isinstance(values, str) else values
    if not isinstance(listed, list) or not all(isinstance(value, str) for value in listed):
        raise UnreadableParty(f"properties.{name}: must be a list of texts.")
    if len(listed) > MAX_VALUES:
        raise UnreadableParty(f"properties.{name}: at most {MAX_VALUES} values; these are {len(listed)}.")
    for value in listed:
        if len(value) > MAX_VALUE:
            raise UnreadableParty(
                f"properties.{name}: at most {MAX_VALUE} characters each; one has {len(value)}."
            )
    if name in NAME_PROPERTIES:
        return tuple(dict.fromkeys(" ".join(value.split()) for value in listed))
    return tuple(dict.fromkeys(value.strip() for value in listed if value.strip()))


def _check_values(given: Mapping[str, tuple[str, ...]]) -> None:
    # The rules of a notice, without the one that asks for a name.
    fault = properties_fault({"name": ("x",), **{k: v for k, v in given.items() if k not in NAME_PROPERTIES}})
    if fault is not None:
        raise UnreadableParty(f"properties.{fault}")


def _check_days(given: Mapping[str, tuple[str, ...]]) -> None:
    for name in DATE_PROPERTIES:
        for value in given.get(name, ()):
            if len(value) == _WHOLE_DATE and not _is_day(value):
                raise UnreadableParty(f"properties.{name}: the calendar has no such day.")


_WHOLE_DATE: Final = 10


def _is_day(value: str) -> bool:
    """Whether a date of ten characters is in the calendar: a notice may have another, and keeps what was signed."""
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _composed(given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A name from its parts, where no whole one was given."""
    parts = [given[p][0] for p in ("firstName", "middleName", "lastName") if p in given]
    return (" ".join(parts),) if parts else ()


def _countries(given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    listed = [v.upper() for p in (*COUNTRY_PROPERTIES, "flag") for v in given.get(p, ())]
    return tuple(dict.fromkeys(code for code in listed if len(code) == 2))  # noqa: PLR2004 - alpha-2


def _read_names(names: Sequence[str], schema: Schema) -> tuple[Name, ...]:
    read = []
    for position, text in enumerate(names):
        if len(text) > MAX_NAME:
            raise UnreadableParty(
                f"Name {position + 1} has {len(text)} characters; at most {MAX_NAME} are read."
            )
        name = normalise(text, schema)
        if name.emptiness is not None:
            raise NothingToCompare(
                f"Name {position + 1} {name.emptiness}, so there is nothing to screen by. Give the whole name."
            )
        read.append(name)
    return tuple(read)
