"""`/v1/subscriptions`: webhooks of the calling token. `/v1/webhook-keys`: how to verify `v1a`, for anybody."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.deps import CurrentNode, CurrentPrincipal, Node
from app.notify import feed, subscriptions
from app.notify.claims import Ready
from app.notify.deliver import prove, send_once
from app.notify.setup import WebhookSetup
from app.notify.subscriptions import subscriber
from app.schemas.subscriptions import (
    AttemptOut,
    Choice,
    CountsOut,
    DeliveryDetail,
    DeliveryList,
    DeliveryOut,
    ProofOut,
    Queued,
    Rotation,
    State,
    SubscriptionChange,
    SubscriptionCreated,
    SubscriptionIn,
    SubscriptionList,
    SubscriptionOut,
    WebhookKeys,
)

router = APIRouter(tags=["webhooks"])


def webhooks_of(request: Request) -> WebhookSetup:
    """The node's webhook setup."""
    return cast("WebhookSetup", request.app.state.node.webhooks)


def token_of(principal: CurrentPrincipal) -> str:
    """The caller's token, which must carry the scope `subscribe`."""
    return subscriber(principal)


Webhooks = Annotated[WebhookSetup, Depends(webhooks_of)]
TokenId = Annotated[str, Depends(token_of)]


@router.post("/v1/subscriptions", status_code=201)
def create_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, wanted: SubscriptionIn, response: Response
) -> SubscriptionCreated:
    """Subscribe a URL. The answer holds the secret of a `v1` subscription; it is never shown again."""
    since = None if wanted.from_ is None else round(wanted.from_.timestamp() * 1000)
    now = node.clock()
    with node.db.write() as session:
        after = _event_of(session, setup, wanted.after)
        row, secret = subscriptions.create(
            session, setup, token, wanted.values(), since=since, after=after, now=now
        )
    response.headers["Location"] = f"/v1/subscriptions/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return SubscriptionCreated.made(row, setup, now, secret)


def _event_of(session: Session, setup: WebhookSetup, cursor: str | None) -> int | None:
    """Number of the event that a cursor of the feed stands behind.

    Raises:
        InvalidCursor, ResyncNeeded: it is none, or what followed it is not kept any more.
    """
    if cursor is None:
        return None
    position = feed.read_cursor(setup, cursor)
    feed.check(session, position)
    return position.seq


@router.get("/v1/subscriptions")
def list_subscriptions(
    node: CurrentNode,
    setup: Webhooks,
    token: TokenId,
    tag: Annotated[str | None, Query(max_length=50)] = None,
) -> SubscriptionList:
    """The calling token's subscriptions, oldest first; with `tag`, those that carry it."""
    with node.db.read() as session:
        shown = [SubscriptionOut.of(row, setup, node.clock()) for row in subscriptions.listed(session, token)]
    return SubscriptionList(items=[one for one in shown if tag is None or tag in one.tags])


@router.get("/v1/subscriptions/{subscription_id}")
def get_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str
) -> SubscriptionOut:
    """One subscription."""
    with node.db.read() as session:
        return SubscriptionOut.of(subscriptions.owned(session, token, subscription_id), setup, node.clock())


@router.patch("/v1/subscriptions/{subscription_id}")
def change_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, change: SubscriptionChange
) -> SubscriptionOut:
    """Pause, resume or change a subscription. What happened while it was paused or disabled is sent when it is resumed."""
    with node.db.write() as session:
        row = subscriptions.owned(session, token, subscription_id, lock=True)
        subscriptions.change(node.db, session, setup, row, change.changes(), now=node.clock())
    return SubscriptionOut.of(row, setup, node.clock())


@router.delete("/v1/subscriptions/{subscription_id}", status_code=204)
def delete_subscription(node: CurrentNode, token: TokenId, subscription_id: str) -> None:
    """End a subscription and forget its deliveries."""
    with node.db.write() as session:
        subscriptions.remove(session, token, subscription_id)


@router.post("/v1/subscriptions/{subscription_id}/test")
async def test_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str
) -> AttemptOut:
    """Send an event of type `webhook.test` now, once. One that arrives makes a disabled subscription active again."""
    ready = await run_in_threadpool(_trial, node, token, subscription_id)
    attempt = await send_once(setup, node.clock, ready)

    def after() -> None:
        with node.db.write() as session:
            subscriptions.after_trial(node.db, session, token, attempt)

    await run_in_threadpool(after)
    return AttemptOut.of(attempt)


def _trial(node: Node, token: str, subscription_id: str) -> Ready:
    with node.db.read() as session:
        return subscriptions.trial(subscriptions.owned(session, token, subscription_id), node.clock())


@router.post("/v1/subscriptions/{subscription_id}/verify")
async def verify_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str
) -> ProofOut:
    """Let the endpoint prove itself: send a test event with a false signature, then a genuine one, now.

    An endpoint that refuses the first (by 400 to 499) and takes the second holds this subscription's secret or knows this
    node's key, and checks it. Only a proven endpoint is sent full bodies.
    """
    ready = await run_in_threadpool(_trial, node, token, subscription_id)
    forged, genuine = await prove(setup, node.clock, ready)

    def after() -> bool:
        with node.db.write() as session:
            return subscriptions.after_proof(node.db, session, token, ready.endpoint.url, forged, genuine)

    return ProofOut.of(await run_in_threadpool(after), forged, genuine)


@router.post("/v1/subscriptions/{subscription_id}/rotate")
def rotate_secret(
    node: CurrentNode,
    setup: Webhooks,
    token: TokenId,
    subscription_id: str,
    wanted: Rotation,
    response: Response,
) -> SubscriptionCreated:
    """Make a new secret, shown this once. For the overlap each delivery carries signatures under both."""
    now = node.clock()
    with node.db.write() as session:
        row = subscriptions.owned(session, token, subscription_id, lock=True)
        secret = subscriptions.rotate(
            setup, row, scheme=wanted.signing, overlap_hours=wanted.overlap_hours, now=now
        )
    response.headers["Cache-Control"] = "no-store"
    return SubscriptionCreated.made(row, setup, now, secret)


@router.get("/v1/subscriptions/{subscription_id}/counts")
def count_deliveries(node: CurrentNode, token: TokenId, subscription_id: str) -> CountsOut:
    """How the endpoint stands: what waits, what was given up, how quick it is."""
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        return CountsOut.of(subscriptions.counts(session, subscription))


@router.post("/v1/subscriptions/{subscription_id}/replay", status_code=202)
def replay_many(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, wanted: Choice
) -> Queued:
    """Queue many deliveries again, each under its own `webhook-id`: all that failed, a range of time, or since a cursor."""
    with node.db.write() as session:
        row = subscriptions.owned(session, token, subscription_id, lock=True)
        count, more = subscriptions.replay_many(
            session, row, wanted.chosen(_event_of(session, setup, wanted.after)), node.clock()
        )
    return Queued(count=count, more=more)


@router.post("/v1/subscriptions/{subscription_id}/discard")
def discard_failed(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, wanted: Choice
) -> Queued:
    """Drop dead letters: what was given up and shall not be sent any more."""
    with node.db.write() as session:
        row = subscriptions.owned(session, token, subscription_id, lock=True)
        count, more = subscriptions.discard(
            session, row, wanted.chosen(_event_of(session, setup, wanted.after)), node.clock()
        )
    return Queued(count=count, more=more)


@router.get("/v1/subscriptions/{subscription_id}/deliveries")
def list_deliveries(
    node: CurrentNode,
    token: TokenId,
    subscription_id: str,
    cursor: Annotated[str | None, Query(max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    state: State | None = None,
) -> DeliveryList:
    """The delivery log, newest event first; with `state`, only deliveries in it."""
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        found, after = subscriptions.deliveries(
            session, subscription, cursor=cursor, limit=limit, state=state
        )
        return DeliveryList(items=[DeliveryOut.of(delivery) for delivery in found], next=after)


@router.get("/v1/subscriptions/{subscription_id}/deliveries/{delivery_id}")
def get_delivery(node: CurrentNode, token: TokenId, subscription_id: str, delivery_id: str) -> DeliveryDetail:
    """One delivery with its attempts: what was sent, the head of each answer, how long it took."""
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        return DeliveryDetail.with_log(*subscriptions.delivery(session, subscription, delivery_id))


@router.post("/v1/subscriptions/{subscription_id}/deliveries/{delivery_id}/replay")
async def replay_delivery(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, delivery_id: str
) -> AttemptOut:
    """Send one delivery again now, once, under the same `webhook-id`; also while the subscription is paused or disabled."""
    ready = await run_in_threadpool(_replay, node, setup, token, subscription_id, delivery_id)
    attempt = await send_once(setup, node.clock, ready)

    def after() -> None:
        with node.db.write() as session:
            subscriptions.after_replay(node.db, session, attempt)

    await run_in_threadpool(after)
    return AttemptOut.of(attempt)


def _replay(node: Node, setup: WebhookSetup, token: str, subscription_id: str, delivery_id: str) -> Ready:
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        return subscriptions.replay(node.db, session, setup, subscription, delivery_id, node.clock())


@router.get("/v1/webhook-keys")
def webhook_keys(node: CurrentNode, setup: Webhooks) -> WebhookKeys:
    """The keys under which this node signs `v1a` webhooks, and from when until when. Public."""
    return WebhookKeys.of(setup, node.clock())
