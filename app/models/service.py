"""The node's own business: outbox, webhooks, callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
    false,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.domain.events import URGENT
from app.models.base import Base

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

URGENT_EVENT: Final = f"live AND type IN ({', '.join(repr(type_) for type_ in sorted(URGENT))})"
"""Condition of the index of such events, in the words that both engines know it by."""


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
        # "Does anything urgent stand further on?" Few do.
        Index(
            "ix_events_urgent",
            "seq",
            sqlite_where=text(URGENT_EVENT),
            postgresql_where=text(URGENT_EVENT),
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


class DigestRow(Base):
    """How far a person's mail has come; see app/notify/digest.py."""

    __tablename__ = "digests"

    address: Mapped[str] = mapped_column(String(320), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)  # told up to this event
    check: Mapped[int] = mapped_column(BigInteger)  # and that it is still this one
    upto_seq: Mapped[int | None] = mapped_column(BigInteger)  # the mail under way ends here
    upto_check: Mapped[int | None] = mapped_column(BigInteger)
    sent_at: Mapped[int] = mapped_column(BigInteger)
    leased_until: Mapped[int] = mapped_column(BigInteger, default=0)


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
    tags: Mapped[str] = mapped_column(Text, default="[]", server_default="[]")  # JSON list
    event_types: Mapped[str] = mapped_column(Text)  # JSON list, [] is all
    filter: Mapped[str] = mapped_column(Text)  # JSON, the query parameters of /v1/notices
    payload: Mapped[str] = mapped_column(String(8), default="thin", server_default="thin")  # thin | full
    ordered: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # one after another
    max_in_flight: Mapped[int] = mapped_column(Integer, default=4, server_default="4")  # from one worker
    per_minute: Mapped[int | None] = mapped_column(Integer)  # most deliveries a minute; None: no limit
    scheme: Mapped[str] = mapped_column(String(8))  # v1 | v1a | both
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)  # v1: sealed under the node's webhook key
    old_secrets: Mapped[str | None] = mapped_column(Text)  # JSON [[until ms, sealed in base64], …]
    headers: Mapped[bytes | None] = mapped_column(LargeBinary)  # sealed JSON: the subscriber's own headers
    ca: Mapped[str | None] = mapped_column(Text)  # PEM: the only authorities trusted for this endpoint
    client_cert: Mapped[bytes | None] = mapped_column(LargeBinary)  # sealed PEM: chain and key
    verified_at: Mapped[int | None] = mapped_column(
        BigInteger
    )  # it took what is genuine and refused what is not
    status: Mapped[str] = mapped_column(String(10))  # active | paused | disabled
    status_reason: Mapped[str | None] = mapped_column(String(500))
    fanned_seq: Mapped[int] = mapped_column(BigInteger)
    top_seq: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # highest event with a delivery
    told: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # number of its newest delivery
    created_at: Mapped[int] = mapped_column(BigInteger)
    failing_since: Mapped[int | None] = mapped_column(BigInteger)  # first of an unbroken row of failures
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # length of that row
    warned_at: Mapped[int | None] = mapped_column(BigInteger)  # the owner was told that it fails
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)  # the endpoint rests until then


class DeliveryRow(Base):
    """One event on its way to one subscription."""

    __tablename__ = "deliveries"
    __table_args__ = (
        # Claims go endpoint by endpoint: a million pending rows of one that is down cost the others nothing, and the
        # first row that is due is the first of the index, however many follow.
        Index(
            "ix_deliveries_due",
            "subscription_id",
            "lane",
            "due_at",
            "event_seq",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_deliveries_subscription_id_event_seq", "subscription_id", "event_seq", unique=True),
        # Dead letters: few, listed, counted and replayed without reading what arrived.
        Index(
            "ix_deliveries_ended",
            "subscription_id",
            "state",
            "event_seq",
            sqlite_where=text("state IN ('failed', 'dropped')"),
            postgresql_where=text("state IN ('failed', 'dropped')"),
        ),
    )

    id: Mapped[str] = mapped_column(
        String(36), primary_key=True
    )  # the webhook-id: stable over retries and replays
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    event_seq: Mapped[int] = mapped_column(BigInteger)  # no foreign key: see app/notify/retention.py
    number: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # 1, 2, … in its subscription
    lane: Mapped[int] = mapped_column(SmallInteger, default=1, server_default="1")  # 0 goes before 1
    state: Mapped[str] = mapped_column(String(10))  # pending | delivered | failed | dropped
    due_at: Mapped[int] = mapped_column(BigInteger)  # 0 in an ordered subscription: its turn is its place
    leased_until: Mapped[int] = mapped_column(BigInteger, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    recalled: Mapped[bool] = mapped_column(
        Boolean, default=False, server_default=false()
    )  # sent without content
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(String(500))
    last_ms: Mapped[int | None] = mapped_column(Integer)


PENDING: Final[ColumnElement[str]] = literal_column("'pending'")
"""For conditions on `deliveries.state`: written out, since with a bound value neither engine takes the index of these rows."""

ENDED: Final[ColumnElement[bool]] = literal_column("deliveries.state IN ('failed', 'dropped')", Boolean())
"""The condition of `ix_deliveries_ended`, as SQLite has to find it in a statement to use that index."""


class AttemptRow(Base):
    """One attempt at one delivery: what was sent, what came back, how long it took. Never a secret, never the body.

    No foreign key: a result that arrives after its subscription was deleted must not fail; pruning sweeps what is left.
    """

    __tablename__ = "delivery_attempts"
    __table_args__ = ({"sqlite_with_rowid": False},)

    delivery_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # its end
    nonce: Mapped[int] = mapped_column(Integer, primary_key=True)  # random: two may end in one millisecond
    ms: Mapped[int] = mapped_column(Integer)
    url: Mapped[str] = mapped_column(String(2000))
    timestamp: Mapped[int] = mapped_column(BigInteger)  # unix seconds, as signed
    signatures: Mapped[int] = mapped_column(SmallInteger)  # how many stood in the header
    body_bytes: Mapped[int] = mapped_column(Integer)
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(40))
    head: Mapped[str | None] = mapped_column(Text)  # header of the answer, cut
    excerpt: Mapped[str | None] = mapped_column(Text)  # beginning of the body of a refusal


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
