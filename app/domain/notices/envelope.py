"""The envelope every notice shares (design section 6.0), and the registry of types with their schema versions.

A type keeps its name for good. Adding an optional member raises the minor version; everything else a new major version
with a model of its own beside the old one, so that old notices stay readable.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema, create_model

from app.domain.notices import bodies
from app.domain.notices.fields import (
    MAX_ATTACHMENTS,
    MAX_LIST,
    Date,
    FileNumber,
    Language,
    SemVer,
    State,
    Strict,
    Summary,
    Title,
    fault,
)
from app.domain.notices.shared import Attachment, Contact, Reference
from app.domain.states import STATES
from app.domain.vocabulary import CAVEATS, Collaboration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.domain.statement import Kind


def _audience(value: Any) -> Any:  # noqa: ANN401 - whatever the JSON held
    if value == "ALL":
        return value
    if isinstance(value, list) and all(isinstance(member, str) for member in value):
        return tuple(value)
    raise fault('must be "ALL" or a list of alpha-2 codes')


Audience = Annotated[
    Any,
    BeforeValidator(_audience),
    WithJsonSchema(
        {
            "oneOf": [
                {"const": "ALL"},
                {"type": "array", "items": {"enum": sorted(STATES)}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]
"""Either ALL or a tuple of States. Its agreement with the label is `Handling`'s."""


class MainPart(Strict):
    """The main part of a notice of any type."""

    schema_version: SemVer
    type: str
    issuer: State
    national_reference: FileNumber | None = None
    effective_from: Date | None = None
    valid_until: Date | None = None
    review_due: Date | None = None
    tlp: Annotated[str, Field(json_schema_extra={"pattern": r"^TLP:(RED|AMBER(\+STRICT)?|GREEN|CLEAR)$"})]
    audience: Audience
    caveats: Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_LIST)] = Field(
        (), json_schema_extra={"items": {"enum": list(CAVEATS)}}
    )
    language: Language
    title: Title
    summary: Summary
    references: Annotated[tuple[Reference, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    collaboration: Annotated[tuple[Collaboration, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    contact: Contact
    attachments: Annotated[tuple[Attachment, ...], Field(strict=False, max_length=MAX_ATTACHMENTS)] = ()
    body: bodies.Body

    def rules(self) -> Iterator[bodies.Fault]:
        """What is wrong across members of the envelope, then of the body."""
        if (
            self.valid_until is not None
            and self.effective_from is not None
            and self.valid_until < self.effective_from
        ):
            yield "/valid_until", "the notice ends before it takes effect"
        parts = [attachment.part for attachment in self.attachments]
        for index, part in enumerate(parts):
            if part in parts[:index]:
                yield f"/attachments/{index}/part", f"the part {part!r} is listed twice"
        yield from self.body.rules(self)

    def default_review(self) -> date | None:
        """The review date that follows from the body."""
        return self.body.default_review()


SCHEMA_VERSIONS: Final[dict[str, tuple[str, ...]]] = {
    "denied_end_user": ("1.0.0",),
    "technology_threat": ("1.0.0",),
    "technology_proposal": ("1.0.0",),
    "technology_proposal_position": ("1.0.0",),
    "consultation_request": ("1.0.0",),
    "consultation_response": ("1.0.0",),
    "consultation_outcome": ("1.0.0",),
    "best_practice": ("1.0.0",),
    "question": ("1.0.0",),
    "answer": ("1.0.0",),
    "assurance": ("1.0.0",),
    "acknowledgement": ("1.0.0",),
    "amendment": ("1.0.0",),
    "withdrawal": ("1.0.0",),
    "undercut": ("1.0.0",),
    "contact_entry": ("1.0.0",),
    "central_contact_term": ("1.0.0",),
    "membership": ("1.0.0",),
    "collaboration_opportunity": ("1.0.0",),
    "outreach": ("1.0.0",),
}
"""Type -> its newest known version of each major, oldest first. All minors up to it are read by the same model."""

NOTICE_TYPES: Final = tuple(SCHEMA_VERSIONS)

_BODIES: Final[dict[tuple[str, int], type[bodies.Body]]] = {
    ("denied_end_user", 1): bodies.DeniedEndUser,
    ("technology_threat", 1): bodies.TechnologyThreat,
    ("technology_proposal", 1): bodies.TechnologyProposal,
    ("technology_proposal_position", 1): bodies.TechnologyProposalPosition,
    ("consultation_request", 1): bodies.ConsultationRequest,
    ("consultation_response", 1): bodies.ConsultationResponse,
    ("consultation_outcome", 1): bodies.ConsultationOutcome,
    ("best_practice", 1): bodies.BestPractice,
    ("question", 1): bodies.Question,
    ("answer", 1): bodies.Answer,
    ("assurance", 1): bodies.Assurance,
    ("acknowledgement", 1): bodies.Acknowledgement,
    ("amendment", 1): bodies.Amendment,
    ("withdrawal", 1): bodies.Withdrawal,
    ("undercut", 1): bodies.Undercut,
    ("contact_entry", 1): bodies.ContactEntry,
    ("central_contact_term", 1): bodies.CentralContactTerm,
    ("membership", 1): bodies.Membership,
    ("collaboration_opportunity", 1): bodies.CollaborationOpportunity,
    ("outreach", 1): bodies.Outreach,
}

MODELS: Final[dict[tuple[str, int], type[MainPart]]] = {
    key: create_model(f"{body.__name__}Main", __base__=MainPart, body=(body, ...))
    for key, body in _BODIES.items()
}
"""(type, major version) -> model of the whole main part."""

KIND_OF_TYPE: Final[dict[str, Kind]] = {
    **dict.fromkeys(NOTICE_TYPES, "issue"),
    "amendment": "amend",
    "withdrawal": "withdraw",
    "acknowledgement": "ack",
}
"""Which kind of statement may carry a main part of the type."""
