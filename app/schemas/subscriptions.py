"""Wire shapes of `/v1/subscriptions`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.domain.events import EventType
from app.notify.endpoint import MAX_HEADERS, MAX_PEM, header_names, read_old
from app.notify.guard import MAX_URL
from app.notify.signing import public_text
from app.notify.subscriptions import MAX_OVERLAP_HOURS, OVERLAP_HOURS, Chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.models import AttemptRow, SubscriptionRow
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup
    from app.notify.subscriptions import Counts, Delivery

Signing = Literal["v1", "v1a", "both"]
BodyKind = Literal["thin", "full"]
State = Literal["pending", "delivered", "failed", "dropped"]
Filter = dict[str, str | bool | int | list[str]]
Url = Annotated[str, Field(max_length=MAX_URL, examples=["https://licensing.example.org/hooks/verbale"])]
Description = Annotated[str, Field(max_length=500)]
Tag = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^\S(.*\S)?$")]
Places = Annotated[int, Field(ge=1, le=64)]
PerMinute = Annotated[int, Field(ge=1, le=60_000)]
FeedCursor = Annotated[str, Field(max_length=200)]
Pem = Annotated[str, Field(max_length=MAX_PEM)]


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _time_or_none(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else _time(at_ms)


class ClientCertificate(BaseModel):
    """What this node shows to an endpoint that asks who it is (mutual TLS)."""

    model_config = ConfigDict(extra="forbid", title="Client certificate", hide_input_in_errors=True)

    certificate: Pem = Field(description="The chain in PEM, its own certificate first.")
    key: Pem = Field(description="Its private key in PEM, without a password. Stored sealed, never shown.")


_BODY = "thin: ids and links; full: with the document, for an endpoint that was proven (see `/verify`)."
_ORDERED = "One delivery after another, in the order of events; the first that fails holds those behind it."
_PLACES = "Deliveries under way to this endpoint at once."
_PER_MINUTE = "Most deliveries a minute; null is no limit."
_HEADERS = "Headers of your own, such as Authorization. Stored sealed; only their names are shown."
_CA = "Certificate authorities in PEM: the only ones under which this endpoint's certificate is accepted."


class SubscriptionIn(BaseModel):
    """What to be told of, and where."""

    model_config = ConfigDict(extra="forbid", title="Subscription to make", hide_input_in_errors=True)

    url: Url
    description: Description | None = None
    tags: list[Tag] = Field(default=[], max_length=20, description="Words of your own to find it by.")
    event_types: list[EventType] = Field(default=[], max_length=50, description="None named is all.")
    filter: Filter = Field(
        default={},
        description="The query parameters of `GET /v1/notices`; without a status, notices of any status match. "
        "`watchlist` names watch-lists of yours: then only their matches are told, and what becomes of those notices.",
    )
    signing: Signing = Field(
        default="v1",
        description="Standard Webhooks: v1 is HMAC-SHA256 under a secret of your own, v1a is Ed25519 under this node's key.",
    )
    body: BodyKind = Field(default="thin", description=_BODY)
    ordered: bool = Field(default=False, description=_ORDERED)
    max_in_flight: Places = Field(default=4, description=_PLACES)
    per_minute: PerMinute | None = Field(default=None, description=_PER_MINUTE)
    headers: dict[str, str] = Field(default={}, max_length=MAX_HEADERS, description=_HEADERS)
    ca: Pem | None = Field(default=None, description=_CA)
    client_cert: ClientCertificate | None = None
    from_: AwareDatetime | None = Field(
        default=None, alias="from", description="Also send what this node recorded live from this time on."
    )

    after: FeedCursor | None = Field(
        default=None, description="Also send what follows this cursor of `/v1/feed`."
    )

    def values(self) -> dict[str, Any]:
        """As `app.notify.subscriptions.create` takes it."""
        given = self.model_dump(exclude={"from_", "after"})
        return given | {"scheme": given.pop("signing"), "payload": given.pop("body")}


class SubscriptionChange(BaseModel):
    """What to change; members left out stay as they are. The signing changes with the secret: see `/rotate`."""

    model_config = ConfigDict(extra="forbid", title="Change of a subscription", hide_input_in_errors=True)

    url: Url = ""
    description: Description | None = None
    tags: list[Tag] = Field(default=[], max_length=20)
    event_types: list[EventType] = Field(default=[], max_length=50)
    filter: Filter = {}
    body: BodyKind = Field(default="thin", description=_BODY)
    ordered: bool = Field(default=False, description=_ORDERED)
    max_in_flight: Places = Field(default=4, description=_PLACES)
    per_minute: PerMinute | None = Field(default=None, description=_PER_MINUTE)
    headers: dict[str, str] = Field(default={}, max_length=MAX_HEADERS, description=_HEADERS)
    ca: Pem | None = Field(default=None, description=_CA)
    client_cert: ClientCertificate | None = None
    status: Literal["active", "paused"] = "active"

    def changes(self) -> dict[str, Any]:
        """The members that were sent."""
        given = self.model_dump(exclude_unset=True)
        if "body" in given:
            given["payload"] = given.pop("body")
        return given


class Rotation(BaseModel):
    """A new secret, and how long the one before signs beside it."""

    model_config = ConfigDict(extra="forbid", title="New secret")

    overlap_hours: int = Field(
        default=OVERLAP_HOURS,
        ge=0,
        le=MAX_OVERLAP_HOURS,
        description="For so long each delivery carries a signature under either secret. 0 ends every earlier secret now.",
    )
    signing: Signing | None = Field(default=None, description="The signing from now on; left out: as it is.")


class Choice(BaseModel):
    """Which deliveries; all that is given must hold."""

    model_config = ConfigDict(extra="forbid", title="Choice of deliveries")

    failed: bool = Field(default=False, description="Only those that were given up.")
    since: AwareDatetime | None = Field(default=None, description="Made at this time or later.")
    until: AwareDatetime | None = Field(default=None, description="Made before this time.")

    after: FeedCursor | None = Field(
        default=None,
        description="Of events after this cursor of `/v1/feed`; in a replay also those that were never told.",
    )

    def chosen(self, after: int | None) -> Chosen:
        """As `app.notify.subscriptions` takes it. `after` is the number that the cursor stands for."""
        return Chosen(self.failed, _ms(self.since), _ms(self.until), after)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)


class Queued(BaseModel):
    """How many deliveries a call concerned."""

    model_config = ConfigDict(title="Deliveries concerned")

    count: int
    more: bool = Field(description="There are more: call again.")


class SubscriptionOut(BaseModel):
    """A subscription. Its secret is not part of it."""

    model_config = ConfigDict(title="Subscription")

    id: str
    url: str
    description: str | None
    tags: list[str]
    event_types: list[str]
    filter: dict[str, Any]
    signing: Signing
    public_key: str | None = Field(description="v1a: the key that signs, `whpk_…`; see `/v1/webhook-keys`.")
    old_secrets_until: datetime | None = Field(description="Until then an earlier secret signs as well.")
    body: BodyKind
    ordered: bool
    max_in_flight: int
    per_minute: int | None
    header_names: list[str] = Field(description="Your own headers; their values are never shown.")
    has_ca: bool
    has_client_cert: bool
    verified_at: datetime | None = Field(description="When the endpoint proved itself; see `/verify`.")
    status: Literal["active", "paused", "disabled"]
    status_reason: str | None
    failing_since: datetime | None
    failures: int = Field(description="Attempts that failed in a row.")
    rests_until: datetime | None = Field(
        description="Nothing is sent before then: the endpoint's circuit is open."
    )
    created_at: datetime

    @classmethod
    def of(cls, row: SubscriptionRow, setup: WebhookSetup, now: int) -> SubscriptionOut:
        """Read a row. `now` in unix ms."""
        return cls(**_subscription(row, setup, now))


class SubscriptionCreated(SubscriptionOut):
    """A subscription just made, with its secret for the only time."""

    model_config = ConfigDict(title="New subscription")

    secret: str | None = Field(description="v1: `whsec_…`. Store it now; it is never shown again.")

    @classmethod
    def made(
        cls, row: SubscriptionRow, setup: WebhookSetup, now: int, secret: str | None
    ) -> SubscriptionCreated:
        """Read a row, and show the secret. `now` in unix ms."""
        return cls(**_subscription(row, setup, now), secret=secret)


def _subscription(row: SubscriptionRow, setup: WebhookSetup, now: int) -> dict[str, Any]:
    old = [until for until, _ in read_old(row.old_secrets) if until > now]
    return {
        "id": row.id,
        "url": row.url,
        "description": row.description,
        "event_types": json.loads(row.event_types),
        "filter": json.loads(row.filter),
        "signing": row.scheme,
        "public_key": None if row.scheme == "v1" else public_text(setup.keys.signers(now)[0].public),
        "tags": json.loads(row.tags),
        "old_secrets_until": _time_or_none(max(old, default=None)),
        "body": row.payload,
        "ordered": row.ordered,
        "max_in_flight": row.max_in_flight,
        "per_minute": row.per_minute,
        "header_names": header_names(setup.keys, row),
        "has_ca": row.ca is not None,
        "has_client_cert": row.client_cert is not None,
        "verified_at": _time_or_none(row.verified_at),
        "failures": row.failures,
        "rests_until": _time(row.not_before) if row.not_before > now else None,
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
    sequence: int = Field(description="Its place in this subscription: 1, 2, 3, …")
    state: State
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
        return cls(**_delivery(delivery))


def _delivery(delivery: Delivery) -> dict[str, Any]:
    row = delivery.row
    return {
        "id": row.id,
        "event_type": delivery.event_type,
        "sequence": row.number,
        "state": row.state,
        "attempts": row.attempts,
        "created_at": _time(row.created_at),
        "next_attempt_at": _time(row.due_at) if row.state == "pending" and row.due_at else None,
        "finished_at": _time_or_none(row.finished_at),
        "last_status": row.last_status,
        "last_error": row.last_error,
        "last_duration_ms": row.last_ms,
    }


class DeliveryAttempt(BaseModel):
    """One attempt: what was sent, what came back. Bodies and secrets are not kept."""

    model_config = ConfigDict(title="Delivery attempt")

    ended_at: datetime
    duration_ms: int
    url: str
    webhook_timestamp: int = Field(description="The signed header, unix seconds.")
    signatures: int
    body_bytes: int
    status: int | None
    error: str | None
    response_head: str | None = Field(description="Header of the answer, cut.")
    response_excerpt: str | None = Field(description="Beginning of the body of a refusal.")

    @classmethod
    def of(cls, row: AttemptRow) -> DeliveryAttempt:
        """Read a row."""
        return cls(
            ended_at=_time(row.at),
            duration_ms=row.ms,
            url=row.url,
            webhook_timestamp=row.timestamp,
            signatures=row.signatures,
            body_bytes=row.body_bytes,
            status=row.status,
            error=row.error,
            response_head=row.head,
            response_excerpt=row.excerpt,
        )


class DeliveryDetail(DeliveryOut):
    """A delivery with every attempt that is kept, oldest first."""

    model_config = ConfigDict(title="Delivery with its attempts")

    log: list[DeliveryAttempt]

    @classmethod
    def with_log(cls, delivery: Delivery, attempts: Sequence[AttemptRow]) -> DeliveryDetail:
        """Read a delivery and its attempts."""
        return cls(**_delivery(delivery), log=[DeliveryAttempt.of(row) for row in attempts])


class CountsOut(BaseModel):
    """How an endpoint stands."""

    model_config = ConfigDict(title="Counts of a subscription")

    told: int = Field(description="Deliveries ever made; the newest one's `sequence`.")
    pending: int
    failed: int = Field(description="Dead letters: given up, kept until replayed or discarded.")
    dropped: int = Field(description="Not sent because the notice was no longer yours to see, or discarded.")
    events_ahead: int = Field(
        description="Events that it has not come to yet. Those that it is not told of are among them."
    )
    oldest_pending_at: datetime | None
    last: int = Field(description="How many of the newest deliveries the next three are about.")
    last_delivered: int
    last_median_ms: int | None
    last_slowest_ms: int | None

    @classmethod
    def of(cls, counts: Counts) -> CountsOut:
        """Read counts."""
        return cls(
            told=counts.told,
            pending=counts.pending,
            failed=counts.failed,
            dropped=counts.dropped,
            events_ahead=counts.events_ahead,
            oldest_pending_at=_time_or_none(counts.oldest_pending_at),
            last=counts.looked_at,
            last_delivered=counts.arrived,
            last_median_ms=counts.median_ms,
            last_slowest_ms=counts.slowest_ms,
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


class ProofOut(BaseModel):
    """Whether an endpoint proved itself: it must refuse the first of two deliveries and take the second."""

    model_config = ConfigDict(title="Proof of an endpoint")

    verified: bool
    forged: AttemptOut = Field(description="With a false signature; a good receiver answers 400 to 499.")
    genuine: AttemptOut

    @classmethod
    def of(cls, verified: bool, forged: Attempt, genuine: Attempt) -> ProofOut:
        """Read both attempts."""
        return cls(verified=verified, forged=AttemptOut.of(forged), genuine=AttemptOut.of(genuine))


class WebhookKey(BaseModel):
    """A key under which this node signs webhooks (v1a)."""

    model_config = ConfigDict(title="Webhook key")

    kid: str
    scheme: Literal["v1a"] = "v1a"
    public_key: str = Field(description="`whpk_` and 32 bytes in base64: an Ed25519 public key.")
    valid_from: datetime | None = Field(description="It signs from then on; null: it does already.")
    valid_until: datetime | None = Field(description="It signs no longer from then on; null: no end is set.")


class WebhookKeys(BaseModel):
    """The node's webhook keys, newest first. Accept a signature under any of them."""

    model_config = ConfigDict(title="Webhook keys")

    keys: list[WebhookKey]

    @classmethod
    def of(cls, setup: WebhookSetup, now: int) -> WebhookKeys:
        """The keys in force and those to come. `now` in unix ms."""
        return cls(
            keys=[
                WebhookKey(
                    kid=key.kid,
                    public_key=public_text(key.signer.public),
                    valid_from=_time_or_none(key.since),
                    valid_until=_time_or_none(key.until),
                )
                for key in setup.keys.published(now)
            ]
        )
