"""A consultation request, drafted: the main part that `verbale notice sign` takes, one for each State to be asked.

Guarantees that a draft without `faults` follows its schema, names only denials of the State it goes to (another State's
TLP:RED denial is not quoted to it), and is addressed to that State alone. Leaves to the officer: reading it, and signing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import InvalidNotice
from app.domain.names import first_unprintable
from app.domain.notices import SCHEMA_VERSIONS, validate_main
from app.domain.notices.fields import MAX_LIST, MAX_TITLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from app.domain.roster import ContactPoint

TYPE: Final = "consultation_request"
CONTACT_ROLE: Final = "National point of contact"
QUESTION: Final = (
    "An application for an export licence is before us that may be essentially identical to what you denied. "
    "Do you regard it as an essentially identical transaction? Please say so, with your reasons, by the date in due_by; "
    "without an answer by then you are deemed not to regard it so."
)


@dataclass(frozen=True, slots=True)
class Denial:
    """One version of a denial that is asked about: the notice's id and that version's leaf hash, base64url."""

    id: str
    leaf_hash: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A main part, and what is still wrong with it, as (JSON pointer, detail). It can be signed if nothing is."""

    main: dict[str, Any]
    faults: tuple[tuple[str, str], ...]

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "ready": not self.faults,
            "main": self.main,
            "faults": [{"pointer": pointer, "detail": detail} for pointer, detail in self.faults],
        }


def consultation_request(
    *,
    issuer: str,
    consulted: str,
    denials: Sequence[Denial],
    parties: Sequence[Mapping[str, Any]],
    items: Sequence[Mapping[str, Any]],
    destination: str | None,
    stated_end_use: str | None,
    due: date,
    contact: ContactPoint | None,
    reference: str | None = None,
    received_on: date | None = None,
) -> Draft:
    """Draft the request to one State.

    Args:
        issuer: the State that asks, alpha-2.
        consulted: the State that denied.
        denials: its denials in question, the gravest first; at most 100 are named.
        parties: of the application, as they stand in a notice (`PartyIn`).
        items: of the application, as they stand in a notice (`Item`).
        destination: alpha-2, or None if the application does not say.
        stated_end_use: as stated.
        due: by when an answer is due.
        contact: the asking State's contact point, as the roster has it.
        reference: the asking State's file number.
        received_on: when the application came.
    """
    names = [name for party in parties for name in party["ftm"]["properties"].get("name", ())[:1]]
    subject = ", ".join(names[:2]) or "an application"
    body: dict[str, Any] = {
        "consulted": [consulted],
        "kind": "essentially_identical",
        "parties": list(parties),
        "items": list(items),
        "destination": destination,
        "question": QUESTION,
        "due_by": due.isoformat(),
        "denials": [{"id": d.id, "hash": d.leaf_hash} for d in denials[:MAX_LIST]],
        "stated_end_use": stated_end_use,
        "application_received_on": received_on.isoformat() if received_on else None,
    }
    office = {"role": CONTACT_ROLE, "office": contact.office, "email": contact.email} if contact else None
    main: dict[str, Any] = {
        "schema_version": SCHEMA_VERSIONS[TYPE][-1],
        "type": TYPE,
        "issuer": issuer,
        "national_reference": reference,
        "tlp": "TLP:RED",
        "audience": [consulted],
        "caveats": ["COMMERCIAL-IN-CONFIDENCE"],
        "language": "en",
        "title": f"Consultation on {subject}"[:MAX_TITLE].strip(),
        "summary": f"{issuer} asks {consulted} whether an application concerning {subject[:MAX_TITLE]} is essentially "
        "identical to what it denied.",
        "contact": office,
        "body": {name: value for name, value in body.items() if value is not None},
    }
    document = _printable({name: value for name, value in main.items() if value is not None})
    return Draft(document, tuple(_faults(document)))


def _faults(document: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        validate_main(document)
    except InvalidNotice as error:
        return error.errors
    return []


def _printable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same without characters that cannot be seen: they may stand in what was screened, and never in a notice."""
    if isinstance(value, str):
        while (found := first_unprintable(value)) is not None:
            value = value[: found[0]] + value[found[0] + 1 :]
        return value
    if isinstance(value, dict):
        return {name: _printable(member) for name, member in value.items()}
    return [_printable(member) for member in value] if isinstance(value, list | tuple) else value
