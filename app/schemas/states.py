"""Wire shapes of `/v1/states`."""

from __future__ import annotations

from pydantic import Field

from app.schemas.notices import Shape


class ContactPointOut(Shape):
    """The office that speaks for a State."""

    office: str
    email: str
    phone: str | None
    languages: list[str]
    hours: str | None


class StateLogOut(Shape):
    """One log of a State."""

    origin: str
    epoch: int
    url: str
    status: str


class StateListedOut(Shape):
    """One Subscribing State in the list."""

    state: str = Field(description="alpha-2")
    name: str
    official_name: str | None
    regimes: list[str]
    eu_member: bool | None
    authority: str | None = Field(description="national export-control authority, from public sources")
    membership: str = Field(description="member, suspended, withdrawn, or not-listed in this roster")
    joined: str | None
    left: str | None = Field(
        description="of a State that is no member: the first day of which its witness vouches for nothing"
    )
    central_contact: bool = Field(description="holds the central-contact term today")
    contact_point: ContactPointOut | None
    url: str | None
    logs: list[StateLogOut]
    witness: str | None


class StatesOut(Shape):
    """The directory."""

    items: list[StateListedOut]
    central_contact: str | None
    roster_version: int


class KeyOut(Shape):
    """One public key. Past ones stay listed, so that what they signed stays verifiable."""

    kid: str
    use: str
    alg: str
    public: str = Field(description="base64url of the raw key")
    status: str = Field(description="active, past, future or revoked")
    active_from: str
    active_to: str | None
    revoked_at_index: int | None
    suspect_from: str | None


class TermOut(Shape):
    """A term as central contact; `end` is exclusive."""

    start: str
    end: str | None
    confirmed_by: list[str]


class StateOut(StateListedOut):
    """One Subscribing State."""

    keys: list[KeyOut]
    central_contact_terms: list[TermOut]
