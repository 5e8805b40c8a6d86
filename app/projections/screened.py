"""What parties are screened against: the parties of a notice, cut down to what is compared.

Only notices that say something against a party count: denials, and the suppliers and known users of a threat. A party of a
consultation or an assurance is not denied anything, and must not be found as if it were.

The rows hold what the notice says, and nothing of how it is compared: a better matcher needs no refolding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.party import COUNTRY_PROPERTIES

if TYPE_CHECKING:
    from app.domain.notices import Notice

SCREENED_TYPES: Final = frozenset({"denied_end_user", "technology_threat"})

IDENTIFIER_PROPERTIES: Final = (
    "registrationNumber", "taxNumber", "vatCode", "innCode", "ogrnCode", "kppCode", "okpoCode", "uscCode", "leiCode",
    "dunsCode", "uniqueEntityId", "swiftBic", "bikCode", "cageCode", "idNumber", "passportNumber", "socialSecurityNumber",
    "imoNumber", "mmsi", "callSign", "serialNumber",
)  # fmt: skip
"""Properties whose equality says who it is, given that their values are unique."""

COMPARED_PROPERTIES: Final = (
    *COUNTRY_PROPERTIES, "birthDate", "incorporationDate", "buildDate", "gender", "flag", "address", "email", "phone", "website",
    *IDENTIFIER_PROPERTIES,
)  # fmt: skip
"""What is compared beside names."""

_PLACE: Final = {name: place for place, name in enumerate(COMPARED_PROPERTIES)}


def screened_parties(notice: Notice) -> str | None:
    """The parties as JSON, or None if the notice is of a type that is not screened against.

    A list of objects: `pos` (place among the notice's parties), `schema`, `role`, `names` (each once, first is the caption),
    and `properties` (name to list of texts, `COMPARED_PROPERTIES` only).
    """
    if notice.type not in SCREENED_TYPES:
        return None
    found: list[dict[str, Any]] = []
    for position, (party, names) in enumerate(zip(notice.parties(), notice.names(), strict=True)):
        given = party.properties
        compared = sorted(given.keys() & _PLACE.keys(), key=_PLACE.__getitem__)
        found.append(
            {
                "pos": position,
                "schema": party.schema,
                "role": party.role,
                "names": names,
                "properties": {name: given[name] for name in compared},
            }
        )
    return orjson.dumps(found).decode() if found else None
