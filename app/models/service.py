"""The node's own business: outbox, webhooks, callers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class CounterRow(Base):
    """A named counter. Its row lock orders the transactions that number events, so a reader never sees `seq` out of order."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """The outbox: one row per thing that happened, written in the transaction that made it happen."""

    __tablename__ = "events"
    __table_args__ = (
        # "Was this subscriber told of the notice before?" Live ones only: a first catch-up writes none of it.
        Index(
            "ix_events_live_notice",
            "log_id",
            "root_idx",
            sqlite_where=text("live"),
            postgresql_where=text("live"),
        ),
        Index(
            "ix_events_owner",
            "owner",
            "seq",
            sqlite_where=text("owner IS NOT NULL"),
            postgresql_where=text("owner IS NOT NULL"),
        ),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(String(40))  # out of app/domain/events.py
    log_id: Mapped[int | None] = mapped_column(ForeignKey("logs.id"))  # None: it concerns no log
    idx: Mapped[int | None] = mapped_column(BigInteger)  # leaf that caused it
    root_idx: Mapped[int | None] = mapped_column(BigInteger)  # notice it concerns
    at: Mapped[int] = mapped_column(BigInteger)
    live: Mapped[bool] = mapped_column(Boolean)  # False: history that a first catch-up brought
    detail: Mapped[str | None] = mapped_column(Text)  # JSON
    owner: Mapped[str | None] = mapped_column(String(64))  # token that alone may see it; None: see app.gate
    tlp_rank: Mapped[int | None] = mapped_column(SmallInteger)  # handling that the erased notice had
    audience: Mapped[str | None] = mapped_column(Text)  # as in `entries`


class DeadlineRow(Base):
    """How far time was looked at for one kind of deadline; see app/notify/deadlines.py."""

    __tablename__ = "deadlines"

    type: Mapped[str] = mapped_column(String(40), primary_key=True)  # type of the event it gives
    since: Mapped[int] = mapped_column(BigInteger)  # all up to here is told
    to: Mapped[int] = mapped_column(BigInteger)  # the span under way ends here
    log_id: Mapped[int] = mapped_column(Integer)  # last notice told within the span
    idx: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)  # newest event looked at for what came late


class SubscriptionRow(Base):
    """A member system's webhook. `fanned_seq` is how far the outbox was turned into deliveries for it."""

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("api_tokens.id"), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str | None] = mapped_column(String(500))
    event_types: Mapped[str] = mapped_column(Text)  # JSON list, [] is all
    filter: Mapped[str] = mapped_column(Text)  # JSON, the query parameters of /v1/notices
    scheme: Mapped[str] = mapped_column(String(8))  # v1a | v1
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)  # v1: sealed under the node's webhook key
    status: Mapped[str] = mapped_column(String(10))  # active | paused | disabled
    status_reason: Mapped[str | None] = mapped_column(String(500))
    fanned_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    failing_since: Mapped[int | None] = mapped_column(BigInteger)  # first of an unbroken row of failures
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)  # the endpoint asked for a rest until then


class DeliveryRow(Base):
    """One event on its way to one subscription."""

    __tablename__ = "deliveries"
    __table_args__ = (
        # Claims go endpoint by endpoint: a million pending rows of one that is down cost the others nothing.
        Index(
            "ix_deliveries_due",
            "subscription_id",
            "due_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_deliveries_subscription_id_event_seq", "subscription_id", "event_seq", unique=True),
    )

    id: Mapped[str] = mapped_column(
        String(36), primary_key=True
    )  # the webhook-id: stable over retries and replays
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    event_seq: Mapped[int] = mapped_column(BigInteger)  # no foreign key: see app/notify/retention.py
    state: Mapped[str] = mapped_column(String(10))  # pending | delivered | failed | dropped
    due_at: Mapped[int] = mapped_column(BigInteger)
    leased_until: Mapped[int] = mapped_column(BigInteger, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(String(500))
    last_ms: Mapped[int | None] = mapped_column(Integer)


class ApiTokenRow(Base):
    """A scoped token of this State's member system. Only a hash of its secret is kept."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[str] = mapped_column(String(200))  # joined by a space
    ceiling: Mapped[int] = mapped_column(SmallInteger)  # highest TLP rank it may see
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)


class NonceRow(Base):
    """Nonces of signed peer requests, kept until the signature's window is over: a request counts once."""

    __tablename__ = "nonces"

    keyid: Mapped[str] = mapped_column(String(64), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
