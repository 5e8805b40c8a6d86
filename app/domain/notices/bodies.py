"""One body per notice type (design section 6.1 to 6.13), with the rules that join its members.

A body tells what projections need to know of it, whatever its type: parties, codes, concerns, countries, narratives.
Rules that need the envelope too are in `rules`; rules that need another notice, a clock or the roster are left to intake.
"""

from __future__ import annotations

from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from app.domain.control_codes import ControlCode
from app.domain.notices.fields import (
    MAX_LIST,
    Base64Url,
    Count,
    Country,
    Date,
    Email,
    Kid,
    Language,
    Line,
    PartName,
    Phone,
    State,
    Strict,
    Text,
    Title,
    UnixTime,
    Url,
    fault,
)
from app.domain.notices.shared import (
    Code,
    Codes,
    Concern,
    Concerns,
    Confidence,
    Described,
    Item,
    Items,
    Parties,
    PartyIn,
    PublicListing,
    Ref,
    Sources,
    Technology,
    add_years,
)
from app.domain.party import END_ROLES
from app.domain.states import STATES
from app.domain.vocabulary import Action, Collaboration, HeldInformation, Reason, Undertaking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.domain.notices.envelope import MainPart

_Object = TypeVar("_Object", bound=Strict)

Fault = tuple[str, str]
"""A JSON pointer into the main part, and what is wrong there."""

REVIEW_YEARS = 3
"""A denial is reviewed three years on and stays valid until the issuer decides (Regulation (EU) 2021/821, article 16)."""

RENEWALS_WITHOUT_EXPLANATION = 2
"""At the third review the State explains why a denial is kept."""

Lines = Annotated[tuple[Line, ...], Field(strict=False, max_length=MAX_LIST)]
Refs = Annotated[tuple[Ref, ...], Field(strict=False, max_length=MAX_LIST)]
States = Annotated[tuple[State, ...], Field(strict=False, max_length=MAX_LIST)]
Countries = Annotated[tuple[Country, ...], Field(strict=False, max_length=MAX_LIST)]


class Body(Strict):
    """What every body can be asked. Objects are found by their class, wherever the body has them."""

    searched: ClassVar[tuple[str, ...]] = ()
    """Members whose own text a person would search by words."""
    places: ClassVar[tuple[str, ...]] = ()
    """Members that name countries: destination, regions, the State concerned."""

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """What is wrong across members, the envelope's included."""
        del main
        yield from ()

    def default_review(self) -> date | None:
        """When the issuer has to look again, if the envelope does not say."""
        return None

    def all_parties(self) -> Iterator[PartyIn]:
        """Every party named, in the order of the schema."""
        return iter(self._every(PartyIn))

    def all_codes(self) -> Iterator[ControlCode]:
        """Every control-list and tariff code."""
        for item in self._every(Item):
            yield from item.control_codes()
        for code in self._every(Code):
            yield code.control_code()

    def all_concerns(self) -> Iterator[str]:
        """Every human-rights concern code."""
        return (concern.code for concern in self._every(Concern))

    def all_refs(self) -> Iterator[Ref]:
        """The notices this body is about."""
        return iter(self._every(Ref))

    def all_countries(self) -> Iterator[str]:
        """Destination, regions and States concerned; not the parties' countries."""
        return self._strings(self.places)

    def texts(self) -> Iterator[str]:
        """What a person would search by words. Not the parties' names."""
        for described in self._every(Described):
            yield from described.texts()
        yield from self._strings(self.searched)

    @cached_property
    def objects(self) -> tuple[Any, ...]:
        """Every member, and every element of a list, that is not a text or null, in the order of the schema."""
        found: list[Any] = []
        for value in self.__dict__.values():
            if value is None or type(value) is str:  # most members of most bodies
                continue
            if type(value) is tuple:
                found.extend(member for member in value if type(member) is not str)
            else:
                found.append(value)
        return tuple(found)

    def _every(self, kind: type[_Object]) -> list[_Object]:
        # isinstance() of a pydantic class runs Python code at every call; the method resolution order does not.
        return [member for member in self.objects if kind in type(member).__mro__]

    def _strings(self, names: tuple[str, ...]) -> Iterator[str]:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, tuple):
                yield from value
            elif value is not None:
                yield value


def _end_user_named(parties: Parties) -> Iterator[Fault]:
    if not any(party.role in END_ROLES for party in parties):
        yield "/body/parties", "name at least one party whose role is end_user or ultimate_consignee"


# ── 6.1 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class DeniedEndUser(Body):
    """A licence decision against an end-user, or a published listing of one."""

    searched = ("legal_basis", "stated_end_use", "assessed_end_use", "conditions_for_reconsideration")
    places = ("destination",)

    action: Action
    denied_on: Date | None = None
    legal_basis: Annotated[Lines, Field(min_length=1)]
    parties: Annotated[Parties, Field(min_length=1)]
    items: Items = ()
    items_scope: Literal["all", "listed"] | None = None
    destination: Country | None = None
    reasons: Annotated[tuple[Reason, ...], Field(strict=False, min_length=1, max_length=MAX_LIST)]
    concerns: Concerns
    status: Literal["active", "suspended", "under_appeal"]
    stated_end_use: Text | None = None
    assessed_end_use: Text | None = None
    licence_count: Count | None = None
    catch_all: bool | None = None
    public_listing: PublicListing | None = None
    conditions_for_reconsideration: Text | None = None
    assurances_sought: bool | None = None
    confidence: Confidence | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """End-user named, items or scope, destination or listing, concerns where human rights are the reason."""
        del main
        yield from _end_user_named(self.parties)
        if not self.items and self.items_scope is None:
            yield (
                "/body/items",
                "list at least one item, or say in items_scope whether all or all listed items are meant",
            )
        if self.public_listing is None:
            # A decision on a licence has a date and a destination. A published listing is about a party wherever the
            # goods go, and some lists print no date: nobody should have to invent one.
            if self.denied_on is None:
                yield "/body/denied_on", "required, unless public_listing tells of a listing without a date"
            if self.destination is None:
                yield "/body/destination", "required, unless public_listing tells of a listing"
        if "HUMAN_RIGHTS" in self.reasons and not self.concerns:
            yield "/body/concerns", "the reason HUMAN_RIGHTS needs at least one concern"

    def default_review(self) -> date | None:
        """Three years after the decision."""
        return None if self.denied_on is None else add_years(self.denied_on, REVIEW_YEARS)


# ── 6.2, 6.3 ──────────────────────────────────────────────────────────────────────────────────────────────────────


class TechnologyThreat(Body):
    """A tool or technology that is, or may be, misused."""

    searched = ("threat", "suggested_action", "indicators")
    places = ("regions",)

    technology: Technology
    threat: Text
    concerns: Annotated[Concerns, Field(min_length=1)]
    maturity: Literal["research", "prototype", "commercial", "deployed", "proliferating"]
    confidence: Confidence
    codes: Codes = ()
    uncontrolled: Literal[True] | None = None
    suppliers: Parties = ()
    known_users: Parties = ()
    regions: Countries = ()
    first_observed: Date | None = None
    indicators: Lines = ()
    suggested_action: Text | None = None
    sources: Sources = ()

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """Controlled or not, not both."""
        del main
        if self.codes and self.uncontrolled:
            yield (
                "/body/uncontrolled",
                "a technology with control-list codes is not uncontrolled: remove one of the two",
            )


class ProposedControl(Described):
    """The control text that is proposed, and where."""

    searched = ("text", "parameters")

    text: Text
    parameters: Text | None = None
    forum: Literal["national", "EU", "WA", "other"]


class TechnologyProposal(Body):
    """A technology that should be controlled. The optional members are the selection criteria of the regimes."""

    searched = (
        "rationale",
        "foreign_availability",
        "controllability",
        "clear_specification",
        "civil_uses",
        "impact",
    )

    technology: Technology
    proposed_control: ProposedControl
    rationale: Text
    concerns: Annotated[Concerns, Field(min_length=1)]
    comment_deadline: Date
    existing_codes: Codes = ()
    foreign_availability: Text | None = None
    controllability: Text | None = None
    clear_specification: Text | None = None
    civil_uses: Text | None = None
    impact: Text | None = None


class TechnologyProposalPosition(Body):
    """A State's position on a proposal."""

    searched = ("reason",)

    proposal: Ref
    position: Literal["support", "support_with_changes", "object", "abstain", "reserve"]
    reason: Text


# ── 6.4, 6.5 ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ConsultationRequest(Body):
    """A question to named States before a licence is decided. `due_by` is computed by the asking system."""

    searched = ("question", "stated_end_use")
    places = ("destination",)

    consulted: Annotated[States, Field(min_length=1)]
    kind: Literal["essentially_identical", "human_rights_concern", "information"]
    parties: Annotated[Parties, Field(min_length=1)]
    items: Annotated[Items, Field(min_length=1)]
    destination: Country
    question: Text
    due_by: Date
    denials: Refs = ()
    stated_end_use: Text | None = None
    application_received_on: Date | None = None
    information_available: Annotated[
        tuple[HeldInformation, ...], Field(strict=False, max_length=MAX_LIST)
    ] = ()
    assurances_offered: Refs = ()

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """The denial in question is named; the consulted States can read the request."""
        if self.kind == "essentially_identical" and not self.denials:
            yield "/body/denials", "the kind essentially_identical needs the denials it is about"
        if main.issuer in self.consulted:
            yield "/body/consulted", "a State does not consult itself"
        if main.audience != "ALL":
            for index, state in enumerate(self.consulted):
                if state not in main.audience:
                    yield (
                        f"/body/consulted/{index}",
                        f"{state} is consulted and not in the audience: it could not read this",
                    )


class ConsultationResponse(Body):
    """An answer to a consultation request."""

    searched = ("reasons", "conditions")

    request: Ref
    answer: Literal[
        "essentially_identical",
        "not_essentially_identical",
        "concern",
        "no_concern",
        "no_information",
        "needs_extension",
    ]
    reasons: Text
    extension_to: Date | None = None
    conditions: Text | None = None
    denial_kept: bool | None = None
    shareable: bool | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """An extension says until when, and nothing else extends."""
        del main
        if (self.answer == "needs_extension") != (self.extension_to is not None):
            yield "/body/extension_to", "required with the answer needs_extension, and only then"


class ConsultationOutcome(Body):
    """How the consulting State decided."""

    searched = ("explanation",)

    request: Ref
    decision: Literal["granted", "denied", "withdrawn", "pending"]
    explanation: Text | None = None
    undercut: bool

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """Only a grant undercuts, and then it is explained."""
        del main
        if self.undercut and self.decision != "granted":
            yield "/body/undercut", "only a granted licence undercuts a denial"
        elif self.undercut and self.explanation is None:
            yield "/body/explanation", "a licence granted over another State's denial needs an explanation"


# ── 6.6, 6.7 ──────────────────────────────────────────────────────────────────────────────────────────────────────


class BestPractice(Body):
    """A practice worth sharing (commitment C4)."""

    searched = ("practice", "evidence")

    topic: Literal[
        "licensing",
        "end_use_checks",
        "assurances",
        "due_diligence",
        "outreach",
        "enforcement",
        "cyber_surveillance",
        "other",
    ]
    practice: Text
    audience_kind: Literal["government", "industry", "academia", "public"]
    legal_effect: Literal["binding", "guidance", "informal"]
    evidence: Text | None = None
    url: Url | None = None
    supersedes: Ref | None = None


_ADDRESSEES = frozenset({"central_contact", *STATES})


def _addressee(value: str) -> str:
    if value not in _ADDRESSEES:
        raise fault("must be central_contact, or the alpha-2 code of a Subscribing State")
    return value


class Question(Body):
    """A question to a role or a State; who holds the role is read from the roster by date."""

    searched = ("text",)

    to: Annotated[str, AfterValidator(_addressee)]
    topic: Literal["code_text", "procedure", "best_practice", "item", "joining", "other"]
    text: Text
    asked_by: Literal["state", "non_subscribing_state", "industry", "civil_society"] | None = None
    public_answer_ok: bool | None = None


class Answer(Body):
    """An answer to a question."""

    searched = ("text", "referred_to")

    question: Ref
    text: Text
    status: Literal["answered", "referred", "declined"]
    referred_to: Line | None = None
    add_to_faq: bool | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """A referral says to whom."""
        del main
        if self.status == "referred" and self.referred_to is None:
            yield "/body/referred_to", "the status referred needs the office or State referred to"


# ── 6.8 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Verification(Strict):
    """One check that the assurance is kept."""

    date: Date
    method: Line
    result: Text


class Breach(Described):
    """What broke the assurance."""

    searched = ("description",)

    date: Date
    description: Text
    confidence: Confidence


class Assurance(Body):
    """What an end-user undertook, and whether it holds."""

    searched = ("end_use", "site")
    places = ("given_to",)

    given_by: PartyIn
    given_to: Country
    items: Items
    end_use: Text
    site: Line
    undertakings: Annotated[tuple[Undertaking, ...], Field(strict=False, min_length=1, max_length=MAX_LIST)]
    signed_on: Date
    status: Literal["in_force", "expired", "breached", "released"]
    verification: Annotated[tuple[Verification, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    breach: Breach | None = None
    document: PartName | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """A breach is described; the document is an attachment of this notice."""
        if (self.status == "breached") != (self.breach is not None):
            yield "/body/breach", "required with the status breached, and only then"
        if self.document is not None and all(a.part != self.document for a in main.attachments):
            yield "/body/document", "names a part that attachments does not list"


# ── 6.9 to 6.11: what is said about another notice ────────────────────────────────────────────────────────────────


class Measure(Strict):
    """What the receiving State did."""

    kind: Literal["licensing_alert", "watchlist", "control_list_change", "outreach"]
    date: Date


class Acknowledgement(Body):
    """A voluntary answer to a notice; no acknowledgement is no consent."""

    searched = ("note",)

    notice: Ref
    state: Literal["received", "under_review", "actioned", "no_action", "cannot_share"]
    measures: Annotated[tuple[Measure, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    note: Text | None = None


class Change(Strict):
    """The new version: whole, or as a JSON Merge Patch (RFC 7396) of the current one. Exactly one of the two."""

    replacement: dict[str, Any] | None = None
    merge_patch: dict[str, Any] | None = None


class Amendment(Body):
    """A new signed version of a notice. What it makes of the old one is computed by `apply_amendment`."""

    searched = ("explanation",)

    amends: Ref
    change: Change
    reason: Literal["correction", "new_information", "renewal", "status_change"]
    explanation: Text | None = None
    renewal_number: Annotated[int, Field(ge=1, le=100)] | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """One kind of change; renewals are numbered and the third is explained. The change itself: see `amend`."""
        del main
        if (self.change.replacement is None) == (self.change.merge_patch is None):
            yield "/body/change", "give either replacement or merge_patch, not both"
        if self.renewal_number is not None and self.reason != "renewal":
            yield "/body/renewal_number", "only the reason renewal has a number"
        if (self.renewal_number or 0) > RENEWALS_WITHOUT_EXPLANATION and self.explanation is None:
            yield "/body/explanation", "from the third renewal on, explain why the denial is kept"


class Withdrawal(Body):
    """The end of a notice: hidden from default screening, kept for audit."""

    searched = ("reason",)

    withdraws: Ref
    kind: Literal["revoked", "issued_in_error", "delisted", "superseded", "expired"]
    reason: Text
    effective_on: Date


# ── 6.12 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Undercut(Body):
    """A licence approved although another State denied an essentially identical transaction."""

    searched = ("explanation", "conditions")

    denial: Ref
    approved_on: Date
    items: Annotated[Items, Field(min_length=1)]
    parties: Annotated[Parties, Field(min_length=1)]
    explanation: Text
    conditions: Text | None = None
    assurances: Refs = ()

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """The end-user is named, as in the denial."""
        del main
        yield from _end_user_named(self.parties)


# ── 6.13: the directory ───────────────────────────────────────────────────────────────────────────────────────────


class PublishedKey(Strict):
    """A key of a contact point, for information: the roster alone decides which keys count. Times in unix seconds."""

    kid: Kid
    alg: Literal["Ed25519", "ES256"]
    public: Base64Url
    not_before: UnixTime
    not_after: UnixTime | None = None
    revoked_at: UnixTime | None = None


class ContactEntry(Body):
    """A State's national point of contact (commitment A3)."""

    searched = ("office",)
    places = ("state",)

    state: State
    office: Line
    phone: Phone | None = None
    email: Email
    languages: Annotated[tuple[Language, ...], Field(strict=False, min_length=1, max_length=MAX_LIST)]
    hours: Line | None = None
    keys: Annotated[tuple[PublishedKey, ...], Field(strict=False, max_length=MAX_LIST)] = ()

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """A State publishes its own contact point only."""
        if self.state != main.issuer:
            yield "/body/state", "a State publishes its own contact point: state must equal issuer"


class CentralContactTerm(Body):
    """Which State is the central contact, from when to when (commitment A2). The roster decides; this announces."""

    places = ("state",)

    state: State
    from_: Annotated[Date, Field(alias="from")]
    to: Date | None = None
    confirmed_by: States = ()

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """A term does not end before it begins."""
        del main
        if self.to is not None and self.to < self.from_:
            yield "/body/to", "the term ends before it begins"


class Membership(Body):
    """A State joined, or left. The roster decides; this announces."""

    places = ("state",)

    state: Country
    joined: Date
    left: Date | None = None
    node_url: Url | None = None

    def rules(self, main: MainPart) -> Iterator[Fault]:
        """Nobody leaves before joining."""
        del main
        if self.left is not None and self.left < self.joined:
            yield "/body/left", "the State leaves before it joins"


class CollaborationOpportunity(Body):
    """Something to do together with a regime or initiative (commitment A6)."""

    searched = ("topic", "proposed_step")

    regime: Collaboration
    topic: Title
    proposed_step: Text


class Outreach(Body):
    """Capacity building with a State outside the Code, or encouraging it to join (commitment C6)."""

    searched = ("activity",)
    places = ("state",)

    state: Country
    activity: Text
    date: Date
