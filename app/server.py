"""Running a node's HTTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from app.edge import protocol_for
from app.judging import settle_memory
from app.main import create_app

if TYPE_CHECKING:
    import socket

    from app.node import Node


def make_server(node: Node) -> uvicorn.Server:
    """A server for an opened node, not yet running. Its logging is ours."""
    settings = node.settings
    config = uvicorn.Config(
        create_app(node),
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
    return uvicorn.Server(config)


def serve(node: Node, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    server = make_server(node)
    settle_memory()
    server.run(sockets)
