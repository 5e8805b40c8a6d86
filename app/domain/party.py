"""A party: a FollowTheMoney-shaped object on an allow-list that is pinned here, with its role and native names.

Guarantees which schemata and properties a party may have, whatever the FollowTheMoney library does later (read at
version 4.11.2; no run-time dependency). A property is a list of texts, as there. Comparing parties is left to screening.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from app.domain.states import COUNTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Schema = Literal["Person", "Organization", "Company", "PublicBody", "LegalEntity", "Vessel", "Airplane"]

Role = Literal[
    "end_user", "ultimate_consignee", "consignee", "intermediate_consignee", "purchaser", "agent", "applicant", "supplier",
    "user", "other_party",
]  # fmt: skip
"""The role in the transaction or, for supplier and user, with a technology. An intermediary is never the end-user."""

SCHEMATA: Final[tuple[Schema, ...]] = get_args(Schema)
ROLES: Final[tuple[Role, ...]] = get_args(Role)

APPLICATION_ROLES: Final[tuple[str, ...]] = (*ROLES, "exporter")
"""A licence application has an exporter; in a notice it is the applicant."""

END_ROLES: Final[frozenset[Role]] = frozenset({"end_user", "ultimate_consignee"})
"""A denial names at least one of these: otherwise nobody could screen for it."""

NAME_PROPERTIES: Final = ("name", "alias", "weakAlias", "previousName", "abbreviation")
COUNTRY_PROPERTIES: Final = ("country", "jurisdiction", "mainCountry", "nationality", "citizenship")
URL_PROPERTIES: Final = ("website", "sourceUrl")
DATE_PROPERTIES: Final = ("birthDate", "deathDate", "incorporationDate", "dissolutionDate")

PROPERTIES: Final = (
    *NAME_PROPERTIES, "title", "firstName", "lastName", "middleName", "fatherName",
    "address", *COUNTRY_PROPERTIES, "birthPlace", "gender", "position", "legalForm", "sector", "status",
    *DATE_PROPERTIES,
    "registrationNumber", "taxNumber", "vatCode", "innCode", "ogrnCode", "kppCode", "okpoCode", "uscCode", "leiCode",
    "dunsCode", "uniqueEntityId", "swiftBic", "bikCode", "cageCode", "idNumber", "passportNumber", "socialSecurityNumber",
    "imoNumber", "mmsi", "callSign", "flag", "tonnage", "buildDate", "serialNumber", "model", "type",
    "email", "phone", *URL_PROPERTIES, "topics", "program", "programId", "summary", "description", "notes",
)  # fmt: skip
"""The allow-list: FollowTheMoney's properties of those schemata that a notice may carry."""

_PARTIAL_DATE = re.compile(r"[12][0-9]{3}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?")
_TOPIC = re.compile(r"[a-z]+(\.[a-z]+)*")


def _country(value: str) -> str | None:
    # Beyond ASCII, capitals of other letters fall on ours.
    if value.isascii() and value.upper() in COUNTRIES:
        return None
    return f"{value[:20]!r} is not a country code. Use ISO 3166-1 alpha-2, or XK for Kosovo."


def _name(value: str) -> str | None:
    return "A name is one line and not blank." if "\n" in value or not value.strip() else None


def _url(value: str) -> str | None:
    # It will be a link on somebody's screen, so no other scheme.
    return (
        None
        if value.startswith(("https://", "http://"))
        else "A web address starts with https:// or http://."
    )


def _date(value: str) -> str | None:
    return None if _PARTIAL_DATE.fullmatch(value) else "A date is written 1970, 1970-05 or 1970-05-01."


def _topic(value: str) -> str | None:
    return None if _TOPIC.fullmatch(value) else "A topic is small letters with dots, such as export.control."


_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    **dict.fromkeys(NAME_PROPERTIES, _name),
    **dict.fromkeys(COUNTRY_PROPERTIES, _country),
    **dict.fromkeys(URL_PROPERTIES, _url),
    **dict.fromkeys(DATE_PROPERTIES, _date),
    "topics": _topic,
}
_ALLOWED: Final = frozenset(PROPERTIES)


def properties_fault(properties: Mapping[str, tuple[str, ...]]) -> str | None:
    """What is wrong with a party's properties, or None. Lengths and characters are not checked here.

    The text names the property and, of a country, the value; never a name, a date or a number of a person.
    """
    if not properties.get("name"):
        return "a party has at least one name: add properties.name"
    for name, values in properties.items():
        if name not in _ALLOWED:
            return f"{name[:40]!r} is not a property this schema allows: see the list in its JSON Schema"
        check = _CHECKS.get(name)
        if check is not None:
            for value in values:
                wrong = check(value)
                if wrong is not None:
                    return f"{name}: {wrong}"
    return None


@dataclass(frozen=True, slots=True)
class NativeName:
    """A name in its own script: ISO 15924 script and BCP 47 language, where known."""

    value: str
    script: str | None = None
    lang: str | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """One party as its issuer wrote it. The accessors normalise; `properties` does not: its bytes were signed."""

    schema: Schema
    role: Role
    properties: Mapping[str, tuple[str, ...]]
    native_names: tuple[NativeName, ...] = ()
    match_hints: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """The name to show: the first one."""
        return self.properties["name"][0]

    def names(self) -> tuple[str, ...]:
        """All names once each: names, aliases of every kind, then native names."""
        listed = [value for name in NAME_PROPERTIES for value in self.properties.get(name, ())]
        listed.extend(native.value for native in self.native_names)
        return tuple(dict.fromkeys(listed))

    def countries(self) -> tuple[str, ...]:
        """Alpha-2 codes in capitals, once each, in the order of COUNTRY_PROPERTIES."""
        listed = (value.upper() for name in COUNTRY_PROPERTIES for value in self.properties.get(name, ()))
        return tuple(dict.fromkeys(listed))
