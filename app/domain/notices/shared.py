"""The objects that several notice types share: parties, items, concerns, references, technology."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from app.domain.control_codes import MAX_CODE, ControlCode, InvalidControlCode, System, canonical
from app.domain.notices.fields import (
    MAX_ATTACHMENT_BYTES,
    MAX_CODES,
    MAX_ITEMS,
    MAX_LIST,
    MAX_PARTIES,
    MAX_VALUES,
    ConcernCode,
    Currency,
    Date,
    Decimal,
    Email,
    FileName,
    Language,
    LeafHash,
    Line,
    MediaType,
    NoticeId,
    PartName,
    Script,
    Strict,
    Text,
    Title,
    Url,
    fault,
)
from app.domain.party import PROPERTIES, NativeName, Party, Role, Schema, properties_fault
from app.domain.vocabulary import Relation, Severity, TechnologyClass, VictimGroup

if TYPE_CHECKING:
    from collections.abc import Iterator


class Described(Strict):
    """An object with members that a person would search by words."""

    searched: ClassVar[tuple[str, ...]]

    def texts(self) -> Iterator[str]:
        """Those that are present."""
        return (text for text in (getattr(self, name) for name in self.searched) if text is not None)


# ── references ────────────────────────────────────────────────────────────────────────────────────────────────────


class Ref(Strict):
    """One signed version of a notice: the notice's id and that version's leaf hash."""

    id: NoticeId
    hash: LeafHash


class Reference(Ref):
    """A reference in the envelope, with what it means."""

    rel: Relation


class Contact(Strict):
    """Whom to ask. An office, not a person, by default."""

    role: Line
    office: Line
    email: Email


class Attachment(Strict):
    """One more committed part of the statement: the part's name there, a file name, and what to expect."""

    part: Annotated[PartName, AfterValidator(lambda name: name if name != "main" else _refuse_main())]
    name: FileName
    media_type: MediaType
    size: Annotated[int, Field(ge=0, le=MAX_ATTACHMENT_BYTES)]  # bytes


def _refuse_main() -> str:
    raise fault("the main part is this document; an attachment is another part")


# ── parties ───────────────────────────────────────────────────────────────────────────────────────────────────────

Value = Annotated[str, Field(min_length=1, max_length=2_000)]  # addresses and notes run longer than a name
Values = Annotated[tuple[Value, ...], Field(strict=False, min_length=1, max_length=MAX_VALUES)]


def _properties(properties: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    wrong = properties_fault(properties)
    if wrong is not None:
        raise fault(wrong)
    return properties


class FtmEntity(Strict):
    """FollowTheMoney's shape: a schema, and properties that are lists of texts."""

    schema_: Annotated[Schema, Field(alias="schema")]
    properties: Annotated[
        dict[str, Values],
        AfterValidator(_properties),
        Field(json_schema_extra={"propertyNames": {"enum": list(PROPERTIES)}, "required": ["name"]}),
    ]


class NativeNameIn(Strict):
    """A name in its own script."""

    value: Line
    script: Script | None = None
    lang: Language | None = None


class PartyIn(Strict):
    """A party as it stands in a notice; see `app.domain.party`."""

    ftm: FtmEntity
    role: Role
    native_names: Annotated[tuple[NativeNameIn, ...], Field(strict=False, max_length=MAX_VALUES)] = ()
    match_hints: Annotated[tuple[Line, ...], Field(strict=False, max_length=MAX_LIST)] = ()

    def party(self) -> Party:
        """The domain's view."""
        return Party(
            self.ftm.schema_,
            self.role,
            self.ftm.properties,
            tuple(NativeName(n.value, n.script, n.lang) for n in self.native_names),
            self.match_hints,
        )


Parties = Annotated[tuple[PartyIn, ...], Field(strict=False, max_length=MAX_PARTIES)]


# ── items ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Code(Strict):
    """A control-list code as its issuer wrote it."""

    system: System
    edition: Line | None = None
    code: Annotated[str, Field(min_length=1, max_length=MAX_CODE)]

    @model_validator(mode="after")
    def _valid(self) -> Self:
        try:
            canonical(self.system, self.code)
        except InvalidControlCode as error:
            raise fault(str(error)) from error
        return self

    def control_code(self) -> ControlCode:
        """The domain's view, with the canonical spelling."""
        return ControlCode.parse(self.system, self.code, self.edition)


Codes = Annotated[tuple[Code, ...], Field(strict=False, max_length=MAX_CODES)]


def _hs(code: str) -> str:
    try:
        canonical("HS", code)
    except InvalidControlCode as error:
        raise fault(str(error)) from error
    return code


class TechnicalParameter(Strict):
    """One parameter that decides whether two transactions are essentially identical."""

    name: Line
    value: Line
    unit: Line | None = None


class Quantity(Strict):
    """How much: a decimal text and a unit."""

    value: Decimal
    unit: Line


class Money(Strict):
    """A decimal amount and its ISO 4217 currency."""

    amount: Decimal
    currency: Currency


class Item(Described):
    """Goods, software or technology of a transaction."""

    searched = ("description",)

    description: Text
    codes: Codes = ()
    hs: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_CODE), AfterValidator(_hs)], ...],
        Field(strict=False, max_length=MAX_CODES),
    ] = ()
    technical_parameters: Annotated[
        tuple[TechnicalParameter, ...], Field(strict=False, max_length=MAX_LIST)
    ] = ()
    quantity: Quantity | None = None
    value: Money | None = None

    def control_codes(self) -> list[ControlCode]:
        """The codes of the item, HS included."""
        return [code.control_code() for code in self.codes] + [ControlCode.parse("HS", hs) for hs in self.hs]


Items = Annotated[tuple[Item, ...], Field(strict=False, max_length=MAX_ITEMS)]


# ── concerns, sources, technology ─────────────────────────────────────────────────────────────────────────────────


class Source(Strict):
    """Where something was read: an address or a citation, and when."""

    url: Url | None = None
    citation: Line | None = None
    date: Date | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.url is None and self.citation is None:
            raise fault("a source has a url or a citation")
        return self


Sources = Annotated[tuple[Source, ...], Field(strict=False, max_length=MAX_LIST)]


class Concern(Described):
    """A human-rights concern: its code, and what is known of it."""

    searched = ("narrative",)

    code: ConcernCode
    severity: Severity | None = None
    victims: Annotated[tuple[VictimGroup, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    narrative: Text | None = None
    sources: Sources = ()

    @model_validator(mode="after")
    def _other_is_told(self) -> Self:
        if self.code == "HR-OTHER" and self.narrative is None:
            raise fault("HR-OTHER needs a narrative that tells what the concern is")
        return self


Concerns = Annotated[tuple[Concern, ...], Field(strict=False, max_length=MAX_LIST)]


class Confidence(Strict):
    """How sure the issuer is, and from what."""

    level: Literal["low", "moderate", "high"]
    basis: Literal["open_source", "government", "intelligence", "industry", "civil_society"]


class Technology(Described):
    """A tool or technology, listed or not."""

    searched = ("name", "description")

    name: Title
    description: Text
    class_: Annotated[TechnologyClass, Field(alias="class")]


class PublicListing(Described):
    """Where the decision was published."""

    searched = ("list", "citation")

    list: Line
    citation: Line | None = None
    url: Url | None = None
    date: Date | None = None


def add_years(day: date, years: int) -> date:
    """The same day of a later year; 28 February for a 29 February that does not exist."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
