"""Running a node's HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from app.edge import protocol_for
from app.main import create_app
from app.process import settle_process

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from app.node import Node
    from app.notify.hub import FeedHub


class Server(uvicorn.Server):
    """Lets streams go before it waits for requests that are under way: they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        """Not yet running."""
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        feed: FeedHub | None = getattr(self._app.state, "feed", None)  # none if the node did not start
        if feed is not None:
            feed.close()
        await super().shutdown(sockets)


def make_server(node: Node) -> uvicorn.Server:
    """A server for an opened node, not yet running. Its logging is ours."""
    settings = node.settings
    app = create_app(node)
    config = uvicorn.Config(
        app,
        host=settings.listen_host,
        port=settings.listen_port,
        loop="uvloop",
        http=protocol_for(settings.max_header_bytes),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        lifespan="on",
    )
    return Server(config, app)


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve on a socket that listens, until SIGINT or SIGTERM."""
    settle_process()
    server.run([listener])
