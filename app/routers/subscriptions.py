"""`/v1/subscriptions`: webhooks of the calling token. `/v1/webhook-keys`: how to verify `v1a`, for anybody."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.deps import CurrentNode, CurrentPrincipal, Node
from app.notify import subscriptions
from app.notify.claims import Ready
from app.notify.deliver import send_once
from app.notify.setup import WebhookSetup
from app.notify.subscriptions import subscriber
from app.schemas.subscriptions import (
    AttemptOut,
    DeliveryList,
    DeliveryOut,
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
    with node.db.write() as session:
        row, secret = subscriptions.create(
            session,
            setup,
            token,
            url=wanted.url,
            description=wanted.description,
            event_types=wanted.event_types,
            filters=wanted.filter,
            scheme=wanted.signing,
            since=since,
            now=node.clock(),
        )
    response.headers["Location"] = f"/v1/subscriptions/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return SubscriptionCreated.made(row, setup, secret)


@router.get("/v1/subscriptions")
def list_subscriptions(node: CurrentNode, setup: Webhooks, token: TokenId) -> SubscriptionList:
    """The calling token's subscriptions, oldest first."""
    with node.db.read() as session:
        return SubscriptionList(
            items=[SubscriptionOut.of(row, setup) for row in subscriptions.listed(session, token)]
        )


@router.get("/v1/subscriptions/{subscription_id}")
def get_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str
) -> SubscriptionOut:
    """One subscription."""
    with node.db.read() as session:
        return SubscriptionOut.of(subscriptions.owned(session, token, subscription_id), setup)


@router.patch("/v1/subscriptions/{subscription_id}")
def change_subscription(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, change: SubscriptionChange
) -> SubscriptionOut:
    """Pause, resume or change a subscription. What happened while it was paused or disabled is sent when it is resumed."""
    with node.db.write() as session:
        row = subscriptions.owned(session, token, subscription_id, lock=True)
        subscriptions.change(setup, row, change.changes())
    return SubscriptionOut.of(row, setup)


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
            subscriptions.after_trial(session, token, attempt)

    await run_in_threadpool(after)
    return AttemptOut.of(attempt)


def _trial(node: Node, token: str, subscription_id: str) -> Ready:
    with node.db.read() as session:
        return subscriptions.trial(subscriptions.owned(session, token, subscription_id), node.clock())


@router.get("/v1/subscriptions/{subscription_id}/deliveries")
def list_deliveries(
    node: CurrentNode,
    token: TokenId,
    subscription_id: str,
    cursor: Annotated[str | None, Query(max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DeliveryList:
    """The delivery log, newest event first."""
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        found, after = subscriptions.deliveries(session, subscription, cursor=cursor, limit=limit)
        return DeliveryList(items=[DeliveryOut.of(delivery) for delivery in found], next=after)


@router.post("/v1/subscriptions/{subscription_id}/deliveries/{delivery_id}/replay")
async def replay_delivery(
    node: CurrentNode, setup: Webhooks, token: TokenId, subscription_id: str, delivery_id: str
) -> AttemptOut:
    """Send one delivery again now, once, under the same `webhook-id`; also while the subscription is paused or disabled."""
    ready = await run_in_threadpool(_replay, node, setup, token, subscription_id, delivery_id)
    attempt = await send_once(setup, node.clock, ready)

    def after() -> None:
        with node.db.write() as session:
            subscriptions.after_replay(session, attempt)

    await run_in_threadpool(after)
    return AttemptOut.of(attempt)


def _replay(node: Node, setup: WebhookSetup, token: str, subscription_id: str, delivery_id: str) -> Ready:
    with node.db.read() as session:
        subscription = subscriptions.owned(session, token, subscription_id)
        return subscriptions.replay(session, setup, subscription, delivery_id, node.clock())


@router.get("/v1/webhook-keys")
def webhook_keys(setup: Webhooks) -> WebhookKeys:
    """The keys under which this node signs `v1a` webhooks. Public."""
    return WebhookKeys.of(setup)
