"""Wire shapes of `/v1/subscriptions`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.domain.events import EventType
from app.notify.guard import MAX_URL
from app.notify.signing import public_text

if TYPE_CHECKING:
    from app.models import SubscriptionRow
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup
    from app.notify.subscriptions import Delivery

Signing = Literal["v1", "v1a"]
Filter = dict[str, str | bool | int | list[str]]
Url = Annotated[str, Field(max_length=MAX_URL, examples=["https://licensing.example.org/hooks/verbale"])]
Description = Annotated[str, Field(max_length=500)]


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _time_or_none(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else _time(at_ms)


class SubscriptionIn(BaseModel):
    """What to be told of, and where."""

    model_config = ConfigDict(extra="forbid", title="Subscription to make")

    url: Url
    description: Description | None = None
    event_types: list[EventType] = Field(default=[], max_length=50, description="None named is all.")
    filter: Filter = Field(
        default={},
        description="The query parameters of `GET /v1/notices`; without a status, notices of any status match.",
    )
    signing: Signing = Field(
        default="v1",
        description="Standard Webhooks: v1 is HMAC-SHA256 under a secret of your own, v1a is Ed25519 under this node's key.",
    )
    from_: AwareDatetime | None = Field(
        default=None, alias="from", description="Also send what this node recorded live from this time on."
    )


class SubscriptionChange(BaseModel):
    """What to change; members left out stay as they are."""

    model_config = ConfigDict(extra="forbid", title="Change of a subscription")

    url: Url = ""
    description: Description | None = None
    event_types: list[EventType] = Field(default=[], max_length=50)
    filter: Filter = {}
    status: Literal["active", "paused"] = "active"

    def changes(self) -> dict[str, Any]:
        """The members that were sent."""
        return self.model_dump(exclude_unset=True)


class SubscriptionOut(BaseModel):
    """A subscription. Its secret is not part of it."""

    model_config = ConfigDict(title="Subscription")

    id: str
    url: str
    description: str | None
    event_types: list[str]
    filter: dict[str, Any]
    signing: Signing
    public_key: str | None = Field(description="v1a: the key that signs, `whpk_…`; see `/v1/webhook-keys`.")
    status: Literal["active", "paused", "disabled"]
    status_reason: str | None
    failing_since: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, row: SubscriptionRow, setup: WebhookSetup) -> SubscriptionOut:
        """Read a row."""
        return cls(**_subscription(row, setup))


class SubscriptionCreated(SubscriptionOut):
    """A subscription just made, with its secret for the only time."""

    model_config = ConfigDict(title="New subscription")

    secret: str | None = Field(description="v1: `whsec_…`. Store it now; it is never shown again.")

    @classmethod
    def made(cls, row: SubscriptionRow, setup: WebhookSetup, secret: str | None) -> SubscriptionCreated:
        """Read a row, and show the secret."""
        return cls(**_subscription(row, setup), secret=secret)


def _subscription(row: SubscriptionRow, setup: WebhookSetup) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "description": row.description,
        "event_types": json.loads(row.event_types),
        "filter": json.loads(row.filter),
        "signing": row.scheme,
        "public_key": public_text(setup.keys.signer.public) if row.scheme == "v1a" else None,
        "status": row.status,
        "status_reason": row.status_reason,
        "failing_since": _time_or_none(row.failing_since),
        "created_at": _time(row.created_at),
    }


class SubscriptionList(BaseModel):
    """A token's subscriptions."""

    model_config = ConfigDict(title="Subscriptions")

    items: list[SubscriptionOut]


class DeliveryOut(BaseModel):
    """One event on its way to one subscription. `id` is the `webhook-id`."""

    model_config = ConfigDict(title="Delivery")

    id: str
    event_type: str
    state: Literal["pending", "delivered", "failed", "dropped"]
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: int | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryOut:
        """Read a line of the log."""
        row = delivery.row
        return cls(
            id=row.id,
            event_type=delivery.event_type,
            state=row.state,  # type: ignore[arg-type]  # the column holds these
            attempts=row.attempts,
            created_at=_time(row.created_at),
            next_attempt_at=_time(row.due_at) if row.state == "pending" else None,
            finished_at=_time_or_none(row.finished_at),
            last_status=row.last_status,
            last_error=row.last_error,
            last_duration_ms=row.last_ms,
        )


class DeliveryList(BaseModel):
    """A page of the delivery log, newest first."""

    model_config = ConfigDict(title="Deliveries")

    items: list[DeliveryOut]
    next: str | None = Field(description="Send as `cursor` for the next page.")


class AttemptOut(BaseModel):
    """What became of one attempt that was made while you waited."""

    model_config = ConfigDict(title="Attempt")

    id: str = Field(description="The `webhook-id` it carried.")
    delivered: bool
    status: int | None
    error: str | None
    duration_ms: int

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptOut:
        """Read an attempt."""
        return cls(
            id=attempt.claimed.id,
            delivered=attempt.verdict == "delivered",
            status=attempt.status,
            error=attempt.error,
            duration_ms=attempt.ms,
        )


class WebhookKey(BaseModel):
    """A key under which this node signs webhooks (v1a)."""

    model_config = ConfigDict(title="Webhook key")

    kid: str
    scheme: Literal["v1a"] = "v1a"
    public_key: str = Field(description="`whpk_` and 32 bytes in base64: an Ed25519 public key.")


class WebhookKeys(BaseModel):
    """The node's webhook keys, newest first. Accept a signature under any of them."""

    model_config = ConfigDict(title="Webhook keys")

    keys: list[WebhookKey]

    @classmethod
    def of(cls, setup: WebhookSetup) -> WebhookKeys:
        """The keys in force."""
        return cls(keys=[WebhookKey(kid=setup.keys.kid, public_key=public_text(setup.keys.signer.public))])
