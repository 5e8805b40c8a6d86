"""The background loops in a process of their own: publish, offer, follow, judge, roster, deadlines, events, webhooks.

For a node whose server has `background = false`: several servers may then answer requests while one worker talks to the
peers. The loops are those of `Node.start_background`, and each is a step function that tests call directly; here they
are only started and, at SIGTERM or SIGINT, ended after their current step. A kill at any moment leaves whole transactions.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from app.process import settle_process

if TYPE_CHECKING:
    from app.node import Node

log = logging.getLogger(__name__)


def run(node: Node, ending: threading.Event | None = None) -> None:
    """Run the loops of an opened node until `ending` is set or the process is told to end (SystemExit, Ctrl-C)."""
    ending = ending or threading.Event()
    settle_process()
    node.start_background()
    log.info("worker runs", extra={"action": "worker_started", "origin": node.origin})
    try:
        ending.wait()
    finally:
        node.stop()
        log.info("worker ended", extra={"action": "worker_ended", "origin": node.origin})
