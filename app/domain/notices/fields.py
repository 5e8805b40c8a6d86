"""The small types of which notices are made, and their limits.

Every limit is a constant with its reason: a limit is part of the schema, so both doors of every node apply the same one.
No number on the wire is a fraction: quantities and amounts are decimal texts, which every language reads alike.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.domain.states import COUNTRIES, STATES
from app.domain.vocabulary import CONCERNS

MAX_TITLE: Final = (
    500  # the longest published name of a listed party has 383 characters, and titles carry names
)
MAX_LINE: Final = 1_000  # names, offices, citations: one line on a page, successor clauses included
MAX_SUMMARY: Final = 4_000  # one screen: what a duty officer reads first
MAX_TEXT: Final = 50_000  # about twenty printed pages; longer papers are attachments
MAX_REFERENCE: Final = 64  # file numbers of ministries
MAX_PARTIES: Final = 200  # the largest single listing published names about 140 parties
MAX_VALUES: Final = 200  # values of one property: the longest published alias list has 42
MAX_ITEMS: Final = 200  # licence applications beyond this are sent as an attachment
MAX_CODES: Final = 100  # codes of one item, or of one technology
MAX_LIST: Final = 100  # reasons, references, sources and every other short list
MAX_ATTACHMENTS: Final = 15  # a statement names at most 16 parts, and one is the main part
MAX_ATTACHMENT_BYTES: Final = 2**30  # an announced size; what a node takes is its own, lower, setting


def fault(detail: str) -> PydanticCustomError:
    """A validation error whose message is the detail, without pydantic's prefix."""
    return PydanticCustomError("rule", "{detail}", {"detail": detail})


class Strict(BaseModel):
    """A part of a notice: no coercion, no unknown members, no changes."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", ser_json_inf_nan="strings", defer_build=True
    )


# ── texts. That every character is printable is checked once for the whole document, in `notice` ──────────────────

Line = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LINE, pattern=r"^\S(.*\S)?$")]
"""One line: no line feed, no blank at either end."""
Title = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE, pattern=r"^\S(.*\S)?$")]
Summary = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SUMMARY, pattern=r"\S")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
"""A narrative; lines end with a line feed."""
FileNumber = Annotated[str, StringConstraints(max_length=MAX_REFERENCE, pattern=r"^\S(.*\S)?$")]
Language = Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")]
"""BCP 47; 35 characters hold every tag RFC 5646 recommends to support."""
Script = Annotated[str, StringConstraints(pattern=r"^[A-Z][a-z]{3}$")]
"""ISO 15924."""
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
"""ISO 4217."""
Decimal = Annotated[str, StringConstraints(max_length=30, pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$")]
"""A non-negative number in decimal digits: `1250000.00`."""
SemVer = Annotated[str, StringConstraints(max_length=20, pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}$")]
NoticeId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]
"""A UUIDv7 (RFC 9562): the id of the statement that issued the notice."""
LeafHash = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
"""The 32 bytes of a leaf hash as canonical base64url: names one signed version."""
PartName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
MediaType = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$")
]
FileName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\s./\\:][^/\\:\n]*$")]
"""A name to save under: no folder, not hidden."""
Email = Annotated[
    str,
    StringConstraints(
        max_length=254, pattern=r"^[^\s@<>\"(),:;\\]+@[^\s@<>\"(),:;\\]+\.[^\s@<>\"(),:;\\.]+$"
    ),
]
Url = Annotated[str, StringConstraints(max_length=2_000, pattern=r"^https?://[^\s<>\"]+$")]
"""Shown as a link, so no other scheme."""
Phone = Annotated[str, StringConstraints(max_length=40, pattern=r"^\+?[0-9][0-9 ()./-]*$")]
Kid = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}/[a-z]{1,16}/[1-9][0-9]{0,5}$")]
Base64Url = Annotated[str, StringConstraints(min_length=1, max_length=4_000, pattern=r"^[A-Za-z0-9_-]+$")]
UnixTime = Annotated[int, Field(ge=0, le=2**40)]
Count = Annotated[int, Field(ge=1, le=10**9)]


# ── dates and places ──────────────────────────────────────────────────────────────────────────────────────────────

_DATE = re.compile(r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}")


def _date(value: Any) -> date:  # noqa: ANN401 - whatever the JSON held
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise fault("must be a date that exists, written 2026-11-25")


def _country(value: str) -> str:
    if value not in COUNTRIES:
        raise fault("must be an ISO 3166-1 alpha-2 code in capitals (the United Kingdom is GB, Kosovo XK)")
    return value


def _state(value: str) -> str:
    if value not in STATES:
        raise fault("must be the alpha-2 code, in capitals, of a Subscribing State")
    return value


def _concern(value: str) -> str:
    if value not in CONCERNS:
        raise fault(f"must be a human-rights concern code: {', '.join(CONCERNS)}")
    return value


Date = Annotated[date, BeforeValidator(_date)]
Country = Annotated[str, AfterValidator(_country), Field(json_schema_extra={"enum": sorted(COUNTRIES)})]
State = Annotated[str, AfterValidator(_state), Field(json_schema_extra={"enum": sorted(STATES)})]
ConcernCode = Annotated[str, AfterValidator(_concern), Field(json_schema_extra={"enum": list(CONCERNS)})]
