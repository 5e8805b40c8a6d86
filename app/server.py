"""Running a node's HTTP server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import uvicorn

from app.edge import protocol_for
from app.main import create_app
from app.memory import settle_memory

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from app.node import Node
    from app.notify.hub import FeedHub


SWITCH_S: Final = 0.001


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


def serve(node: Node, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    server = make_server(node)
    settle_memory()
    # A thread that has read from a peer or from the disk waits at most this long for one that computes, and a notice on its
    # way to people passes a dozen such moments. With the default of 5 ms they were a third of its time.
    sys.setswitchinterval(SWITCH_S)
    server.run(sockets)
