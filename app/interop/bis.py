"""A record of a US export list (Bureau of Industry and Security) as the main part of a `denied_end_user` notice.

Guarantees that a notice says what was published and nothing more: names, aliases, addresses, countries, citations, dates,
licence requirement and licence policy stand as printed. What the list does not print (a country, a date, whether a name is
a person or a company, where goods were going) is left out. `app/data/bis/README.md` tells where the records come from and
argues each choice below. Signing and posting are left to the caller.

A listing is not a refused licence. It says that a licence is needed for items that otherwise need none, because of who the
end-user is: of the actions a notice knows, that is `catch_all`. The reasons follow from what each list is for, by the
regulation that makes it. A candidate flag that somebody set by hand on a record is not a reason and is not carried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCE: Final = "US Consolidated Screening List, April 2022"
DISCLAIMER: Final = (
    f"Taken from the {SOURCE}, as published; the listing may have changed since. "
    "Posted by a demonstration of Verbale, not by the United States Government."
)
CONTACT: Final = {
    "role": "Demo contact point",
    "office": "Demo contact point of the United States (a program; not the Bureau of Industry and Security)",
    "email": "contact@us.verbale.example",
}

_MEMBERS: Final = frozenset(
    "id list name aliases addresses countries fr_citations start_date end_date license_requirement license_policy "
    "human_rights_ground_candidate".split()
)
_EARLIEST: Final = 1946
"""The Federal Register exists since 1936, these lists since 1997 and later; 0097 and 0017 are typing errors of the source."""
_ALL_ITEMS: Final = re.compile(r"(for )?all items subjects? to the EAR", re.IGNORECASE)

# The source printed an apostrophe of the Windows code page 1252 as the control character with the same number.
_CP1252_APOSTROPHE: Final = "\x92"
_APOSTROPHE_NOTE: Final = "The source prints the control character U+0092 where this notice has ’ (U+2019)."


class UnknownBisRecord(Malformed):
    """A line that is not a record of this data set."""

    code = "unknown-bis-record"


@dataclass(frozen=True, slots=True)
class _List:
    """One export list.

    Attributes:
        scope: which items need a licence; None where the record itself says.
        effect: what the listing does, for lists whose records do not print it.
    """

    name: str
    legal_basis: tuple[str, ...]
    reason: str
    scope: str | None = None
    effect: str | None = None


LISTS: Final[Mapping[str, _List]] = {
    "EL": _List("Entity List", ("15 CFR 744.16", "15 CFR part 744, supplement no. 4"), "END_USER_CONCERN"),
    "MEU": _List(
        "Military End-User List",
        ("15 CFR 744.21", "15 CFR part 744, supplement no. 7"),
        "END_USER_CONCERN",
        scope="listed",
    ),
    "UVL": _List(
        "Unverified List",
        ("15 CFR 744.15", "15 CFR part 744, supplement no. 6"),
        "INSUFFICIENT_INFORMATION",
        scope="all",
        effect="The Bureau could not verify the end-user's bona fides: no licence exceptions, and a statement of the end-user is "
        "required (15 CFR 744.15).",
    ),
}


def records() -> Iterator[dict[str, Any]]:
    """The 2,273 records carried with the program, in the order of the file."""
    source = files("app.data").joinpath("bis", "bis_end_users_2022-04.jsonl")
    with source.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def main_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """The main part of a notice for one record, ready to be serialised and signed.

    Raises:
        UnknownBisRecord: other members than the data set's, or an unknown list.
    """
    if record.keys() != _MEMBERS or record["list"] not in LISTS:
        raise UnknownBisRecord(
            "This is no record of bis_end_users_2022-04.jsonl: see app/data/bis/README.md."
        )
    listed = LISTS[record["list"]]
    name = _text(record["name"])
    citations = [_text(citation) for citation in record["fr_citations"]]
    since = _date(record["start_date"])
    return {
        "schema_version": "1.0.0",
        "type": "denied_end_user",
        "issuer": "US",
        "national_reference": record["id"],
        "tlp": "TLP:CLEAR",
        "audience": "ALL",
        "caveats": [],
        "language": "en",
        "title": f"{listed.name}: {name}",
        "summary": _summary(record, listed, citations, since),
        "contact": dict(CONTACT),
        "body": {
            "action": "catch_all",
            **({"denied_on": since} if since else {}),
            "legal_basis": list(listed.legal_basis),
            "parties": [_party(record, name)],
            "items_scope": listed.scope or _scope(record["license_requirement"]),
            "reasons": [listed.reason],
            "concerns": [],
            "status": "active",
            "catch_all": True,
            "public_listing": {
                "list": listed.name,
                "citation": "; ".join([*citations, SOURCE]),
                **({"date": since} if since else {}),
            },
        },
    }


def _party(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    properties: dict[str, list[str]] = {"name": [name]}
    values = {
        "alias": [_text(alias) for alias in record["aliases"]],
        "address": [_text(address["full"]) for address in record["addresses"]],
        "country": record["countries"],
    }
    properties |= {key: list(dict.fromkeys(filter(None, listed))) for key, listed in values.items()}
    properties["topics"] = ["export.control"]
    if _CP1252_APOSTROPHE in record["name"]:
        properties["notes"] = [_APOSTROPHE_NOTE]
    # The lists name persons and companies alike and do not say which is which.
    return {
        "ftm": {"schema": "LegalEntity", "properties": {key: v for key, v in properties.items() if v}},
        "role": "end_user",
    }


def _summary(record: Mapping[str, Any], listed: _List, citations: list[str], since: str | None) -> str:
    where = f" ({'; '.join(citations)})" if citations else ""
    lines = [
        f"On the {listed.name} of the US Bureau of Industry and Security{f' since {since}' if since else ''}{where}."
    ]
    if listed.effect:
        lines.append(listed.effect)
    if record["license_requirement"]:
        lines.append(f"Licence requirement: {_text(record['license_requirement'])}")
    if record["license_policy"]:
        lines.append(f"Licence review policy: {_text(record['license_policy'])}")
    lines.append(DISCLAIMER)
    return "\n".join(lines)


def _scope(requirement: str | None) -> str:
    """`all` where the record begins with all items subject to the EAR (exceptions stand in the summary), else `listed`."""
    return "all" if requirement and _ALL_ITEMS.match(_text(requirement)) else "listed"


def _date(text: str | None) -> str | None:
    return text if text and date.fromisoformat(text).year >= _EARLIEST else None


def _text(text: str) -> str:
    """Published text on one line: runs of blanks become one, the apostrophe is mended, nothing else changes."""
    return " ".join(text.replace(_CP1252_APOSTROPHE, "’").split())
