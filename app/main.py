"""The application: the only place where routers, errors and a running node are wired together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from app import __version__, problems
from app.edge import Edge
from app.notify.hub import FeedHub
from app.observability import RequestMetrics
from app.restored import Restored
from app.routers import (
    federation,
    feed,
    health,
    log,
    notices,
    peers,
    proofs,
    recalls,
    reconcile,
    screenings,
    states,
    subscriptions,
    syndication,
    watchlists,
    yente,
)
from app.schemas import webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from app.node import Node

DESCRIPTION: Final = (
    "Signed notices under the Code of Conduct on export controls and human rights, replicated between Subscribing States. "
    "Errors are problem documents (RFC 9457); lists use keyset cursors; times are RFC 3339, UTC."
)


def create_app(node: Node) -> FastAPI:
    """The ASGI application of an opened node. Its lifespan starts and stops the node."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(node.start)
        app.state.feed = FeedHub(node.db, node.clock, node.webhooks)
        node.watch(app.state.feed.hint)
        try:
            yield
        finally:
            await run_in_threadpool(node.stop)

    app: FastAPI = FastAPIOffline(
        title="Verbale", version=__version__, description=DESCRIPTION, lifespan=lifespan
    )
    app.state.node = node
    app.state.metrics = RequestMetrics()
    problems.install(app)
    for module in (
        notices,
        proofs,
        recalls,
        feed,
        syndication,
        screenings,
        watchlists,
        subscriptions,
        states,
        federation,
        log,
        peers,
        health,
        yente,
        reconcile,
    ):
        app.include_router(module.router)
    webhooks.install(app)
    app.add_middleware(Restored, node=node)
    app.add_middleware(
        Edge,
        metrics=app.state.metrics,
        base_url=node.settings.public_url,
        max_header_bytes=node.settings.max_header_bytes,
        max_body_bytes=node.settings.max_body_bytes,
    )
    return app
