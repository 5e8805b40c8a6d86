"""What a webhook carries, as models: the `webhooks` section of the OpenAPI document, and what tests hold bodies against.

A receiver ignores members it does not know: adding one is a minor change.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from app.domain.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

Status = Literal["active", "expired", "withdrawn", "erased", "recalled"]
TEST: Final = "webhook.test"

SAYS: Final[dict[str, str]] = {
    "notice.issued": "A new notice.",
    "notice.amended": "A new version, which replaces the one before.",
    "notice.withdrawn": "The issuer took it back: stop relying on it.",
    "notice.expired": "Its `exp` or `valid_until` has passed.",
    "notice.review_overdue": "Its review date has passed; it stays valid until its issuer decides.",
    "notice.recalled": "A newer version exists that is not for you: stop using your copy.",
    "notice.erased": "Content and salt were destroyed: destroy your copy.",
    "notice.confirmed": "Enough States are proven to hold it.",
    "question.asked": "A question came; told beside the `notice.issued` of the same leaf.",
    "question.answered": "An answer came; told beside the `notice.issued` of the same leaf.",
    "consultation.requested": "A consultation was asked for; told beside the `notice.issued` of the same leaf.",
    "consultation.answered": "A consultation was answered; told beside the `notice.issued` of the same leaf.",
    "consultation.closed": "A consultation has an outcome; told beside the `notice.issued` of the same leaf.",
    "acknowledgement.received": "A State acknowledged a notice.",
    "watchlist.matched": "A notice matches a watch-list of yours.",
    "subscription.failing": "Every delivery to another subscription of yours has failed for a day.",
    "subscription.disabled": "Another subscription of yours was disabled.",
    "subscription.recovered": "Another subscription of yours works again.",
    "log.fault": "A log contradicts itself, or cannot be followed.",
    "roster.changed": "A new roster is in force.",
    TEST: "You asked for a test.",
}


class _Data(BaseModel):
    model_config = ConfigDict(extra="allow")

    sequence: int | None = Field(
        default=None,
        description="Its place among the deliveries of the subscription: 1, 2, 3, …; not in the feed.",
    )


class NoticeData(_Data):
    """What an event says of the notice it concerns."""

    model_config = ConfigDict(extra="forbid", title="Data of a notice event")

    id: str = Field(description="Of the notice: the same for all of its versions.")
    version: int | None = Field(description="Null in a recall that says nothing of the newer version.")
    issuer: str = Field(description="State, alpha-2.")
    type: str | None = Field(description="Of the notice. Null when nothing but its id may be said.")
    tlp: str | None = Field(description="Label as of the sending.")
    status: Status = Field(description="As of the sending.")
    origin: str = Field(description="Log that carries the statement which caused the event.")
    index: int | None = Field(description="Its place in that log.")
    leaf_hash: str | None = Field(description="Its leaf hash, base64url.")
    url: str = Field(description="Fetch the notice here.")
    document: dict[str, Any] | None = Field(
        default=None,
        description="The notice itself, for subscriptions with full bodies; null if it is too long.",
    )


class Acknowledgement(BaseModel):
    """The statement that acknowledges."""

    id: str | None
    state: str


class AcknowledgementData(NoticeData):
    """The acknowledged notice, and who acknowledged it. `origin`, `index` and `leaf_hash` are the acknowledgement's."""

    model_config = ConfigDict(extra="forbid", title="Data of an acknowledgement")

    acknowledgement: Acknowledgement


class MatchData(NoticeData):
    """The notice, and what it matched; more members say how."""

    model_config = ConfigDict(extra="allow", title="Data of a match")


class ConfirmedData(NoticeData):
    """The notice; more members say by whom it is confirmed."""

    model_config = ConfigDict(extra="allow", title="Data of a confirmation")


class HealthData(_Data):
    """A subscription of yours and what became of it."""

    model_config = ConfigDict(extra="forbid", title="Data of a subscription's health")

    subscription: str
    url: str
    description: str | None
    reason: str | None = None
    failing_since: datetime | None = None


class FaultData(_Data):
    """The log; more members say what is wrong."""

    model_config = ConfigDict(extra="allow", title="Data of a log's fault")

    origin: str


class RosterData(_Data):
    """More members say which roster."""

    model_config = ConfigDict(extra="allow", title="Data of a roster's change")


class TestData(BaseModel):
    """Of a test."""

    model_config = ConfigDict(extra="forbid", title="Data of a test")

    subscription: str


def _data_of(type_: str) -> type[BaseModel]:
    special: dict[str, type[BaseModel]] = {
        "acknowledgement.received": AcknowledgementData,
        "watchlist.matched": MatchData,
        "notice.confirmed": ConfirmedData,
        "log.fault": FaultData,
        "roster.changed": RosterData,
        TEST: TestData,
    }
    if type_.startswith("subscription."):
        return HealthData
    return special.get(type_, NoticeData)


def _event(type_: str) -> type[BaseModel]:
    name = "".join(word.title() for word in type_.replace(".", "_").split("_"))
    return create_model(
        f"{name}Event",
        __config__=ConfigDict(extra="forbid", title=f"Event {type_}"),
        __doc__=SAYS[type_],
        type=(cast("Any", Literal[type_]), ...),
        timestamp=(datetime, Field(description="When the node recorded it.")),
        data=(_data_of(type_), ...),
    )


PAYLOADS: Final[dict[str, type[BaseModel]]] = {type_: _event(type_) for type_ in (*EVENT_TYPES, TEST)}
"""Type of event -> model of the whole body."""

_HEADERS: Final = [
    {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
    for name, text in (
        ("webhook-id", "Names the delivery; the same over retries and replays. Drop repeats by it."),
        ("webhook-timestamp", "Unix seconds at which it was sent. Refuse what is five minutes off."),
        (
            "webhook-signature",
            "Signatures (`v1,…`, `v1a,…`) with a blank between them; one that verifies is enough.",
        ),
    )
]
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    "2XX": {"description": "Taken. Anything else is tried again, but for 410, which ends the subscription."},
    410: {"description": "Never again."},
}


def install(app: FastAPI) -> None:
    """Describe every webhook in the OpenAPI document of `app`."""
    for type_, model in PAYLOADS.items():
        app.webhooks.post(
            type_,
            summary=SAYS[type_],
            status_code=204,
            responses=_ANSWERS,
            openapi_extra={"parameters": _HEADERS},
            tags=["webhooks"],
        )(_described(model))


def _described(model: type[BaseModel]) -> Callable[..., None]:
    def told(body: BaseModel) -> None:
        """Nothing calls this: a receiver is yours."""

    told.__annotations__ = {"body": model, "return": None}
    return told
