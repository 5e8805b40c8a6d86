"""Wire shapes of `/v1/notices`: models that document what is posted (`app.domain.signed` reads it) and what is answered.

The answers are written by the views of `app.queries` without passing through these models, as a page of a thousand
documents should not be parsed to be sent; a test reads the written answers with them, so that they stay true.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.domain.encoding import b64u_encode
from app.record import Receipt

_EXAMPLE: Final[JsonDict] = {
    "statement": "eyJhbGciOiJFZDI1NTE5Iiwia2lkIjoiRUUvY3AvMSIsInR5cCI6Im5vdGljZStqd3MifQ.eyJ2IjoxLC4uLn0.…",
    "parts": {"main": {"salt": "base64url of 32 bytes", "content": "base64url of the exact JSON bytes"}},
}


def receipt(answer: Receipt) -> dict[str, Any]:
    """The receipt on the wire."""
    return {
        "id": answer.id,
        "index": answer.index,
        "leaf_hash": b64u_encode(answer.leaf_hash),
        "origin": answer.origin,
    }


# ── shapes for the documentation ──────────────────────────────────────────────────────────────────────────────────


class Shape(BaseModel):
    """No member that is not documented."""

    model_config = ConfigDict(extra="forbid")


class PartIn(Shape):
    """One opened body part."""

    salt: str = Field(description="base64url of 32 random bytes")
    content: str = Field(description="base64url of the exact bytes that were committed to")


class SignedNoticeIn(Shape):
    """One signed notice; the statement's signature is the caller's proof, no token is needed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    statement: str = Field(description="compact JWS, docs/protocol.md")
    parts: dict[str, PartIn] = Field(description="the part `main`, and one for each attachment")


def signed_notice_schema() -> dict[str, Any]:
    """JSON Schema of a posted notice, whole: references would point outside of the place it is put into."""
    schema = SignedNoticeIn.model_json_schema()
    del schema["$defs"]
    schema["properties"]["parts"]["additionalProperties"] = PartIn.model_json_schema()
    return schema


class ReceiptOut(Shape):
    """The notice is durable at this place."""

    id: str
    index: int
    leaf_hash: str = Field(description="base64url; what an amendment or withdrawal refers to")
    origin: str


class Links(Shape):
    """Addresses of what else there is about the notice, relative to the node."""

    self: str
    versions: str
    receipts: str
    proof: str


class LoggedOut(Shape):
    """When a version was logged, as a quorum of witnesses saw it: between the last confirmed checkpoint without it and the
    first with it. The same on every node.
    """

    after: str | None = Field(description="null: among the log's first")
    before: str | None = Field(description="null: not confirmed yet")
    flag: Literal["back-dated", "post-dated"] | None = Field(
        description="the claimed time lies more than five minutes outside"
    )


class NoticeOut(Shape):
    """One notice in its newest version. Four times are kept apart: issued and changed (claimed), received (measured)."""

    id: str
    origin: str
    index: int = Field(description="of the newest version in its log")
    leaf_hash: str = Field(description="base64url, of the newest version")
    issuer: str
    type: str | None
    status: Literal["active", "expired", "withdrawn", "erased", "recalled"]
    review_overdue: bool = Field(description="the review date has passed; the notice stays valid")
    version: int
    issued_at: str
    changed_at: str
    received_at: str
    expires_at: str | None
    tlp: str | None
    audience: list[str] | Literal["ALL"] | None
    title: str | None
    stale: bool = Field(description="a newer version exists whose body is still being fetched")
    reconfirm: bool = Field(
        description="signed by a key that its State suspects, and not proven to be older: ask the State to confirm it"
    )
    recalled: bool = Field(
        description="recalled by its issuer: a newer version is not for this State; nothing of what it held is shown"
    )
    standing: Literal["confirmed", "provisional", "unproven"] = Field(
        description="confirmed: a quorum of witnesses cosigned a checkpoint that covers the newest version; provisional: not yet; "
        "unproven: its log has signed two histories, and they do not share it"
    )
    logged: LoggedOut = Field(description="of the newest version")
    document: dict[str, Any] | None = Field(description="the effective main part")
    links: Links


class NoticesOut(Shape):
    """One page, newest arrival first."""

    items: list[NoticeOut]
    next: str | None = Field(description="cursor of the next page, for the same parameters")
    total: int = Field(description="how many this caller may see in all")


class VersionOut(Shape):
    """One signed version. The statement is public; the rest is null if this caller may not read this version's body."""

    version: int | None
    origin: str
    index: int
    id: str
    kind: str
    leaf_hash: str
    kid: str
    issued_at: str
    received_at: str
    statement: str
    readable: bool
    tlp: str | None
    audience: list[str] | Literal["ALL"] | None
    standing: Literal["confirmed", "provisional", "unproven"]
    logged: LoggedOut
    document: dict[str, Any] | None


class VersionsOut(Shape):
    """Versions, oldest first."""

    items: list[VersionOut]
    next: str | None


class HoldingOut(Shape):
    """A signed tree head that covers the version."""

    size: int
    at: str


class StateReceiptOut(Shape):
    """What is proven of one State."""

    state: str
    role: Literal["origin", "witness"]
    holds: Literal["current", "earlier", "unproven"]
    issue: HoldingOut | None
    current: HoldingOut | None


class AcknowledgementOut(Shape):
    """A State's signed acknowledgement of a version."""

    state: str
    origin: str
    index: int
    id: str
    ref: str
    issued_at: str
    document: dict[str, Any]


class HolderOut(HoldingOut):
    """A State that provably holds the version."""

    state: str


class ErasureSaidOut(Shape):
    """A State's own statement that it has carried an erasure out."""

    state: str
    at: str
    origin: str = Field(description="of the leaf that says so, in that State's log")
    index: int


class VersionReceiptsOut(Shape):
    """Who provably holds one version, a withdrawal or an erasure, and who not."""

    version: int | None
    origin: str
    index: int
    kind: str
    leaf_hash: str
    standing: Literal["confirmed", "provisional", "unproven"]
    logged: LoggedOut
    holders: list[HolderOut] = Field(
        description="States, each with the size it cosigned and since when, by its clock"
    )
    unproven: list[str] = Field(description="members that have not shown that they hold it")
    acknowledged: list[str] = Field(
        description="States that acknowledged this version, of what the caller may read"
    )
    recalled_from: list[str] = Field(
        description="States that an earlier version addressed and this one does not; only for those who may read both"
    )
    erased_by: list[ErasureSaidOut] = Field(
        description="of an erasure: States whose node says, in its log, that it has carried it out"
    )
    erasure_unsaid: list[str] = Field(description="and the members whose node has not said so")


class RecallOut(Shape):
    """A notice that was amended, withdrawn, erased or recalled, and how far that has come."""

    id: str
    origin: str
    issuer: str
    type: str | None
    title: str | None
    status: str
    changed_at: str
    newest: VersionReceiptsOut
    complete: bool = Field(description="every member's node has shown that it holds the newest version")


class RecallBoardOut(Shape):
    """One page, newest arrival first."""

    items: list[RecallOut]
    next: str | None
    total: int


class ReceiptsOut(Shape):
    """Which States hold the notice, and which acknowledged it."""

    id: str
    origin: str
    index: int
    leaf_hash: str
    states: list[StateReceiptOut]
    versions: list[VersionReceiptsOut]
    acknowledgements: list[AcknowledgementOut]
