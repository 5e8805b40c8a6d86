"""While a restored node is not level with the others it shows nothing: what was erased after the backup must not come back.

Public proofs (logs, mirrors, witness, roster, evidence) and health go on, since they carry no bodies and other nodes need
them; everything else is answered 503 `node-restored`. Once level, a process never looks again: a restore happens while
the node is stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.domain.errors import NodeRestored
from app.models import WatchRow
from app.problems import MEDIA_TYPE, encode

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.deps import Node

OPEN: Final = (
    "/health",
    "/metrics",
    "/log/",
    "/mirror/",
    "/witness/",
    "/roster/",
    "/evidence",
    "/v1/federation",
    "/problems",
)
RETRY_AFTER_S: Final = 5


class Restored:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, node: Node) -> None:
        """Look at nothing yet."""
        self._app, self._node = app, node
        self._is_level = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 503."""
        if not self._is_level and scope["type"] == "http" and not scope["path"].startswith(OPEN):
            self._is_level = await run_in_threadpool(self._look)
            if not self._is_level:
                error = NodeRestored(
                    "This node was restored from a backup and is still asking the other States what happened since."
                )
                body, status = encode(error, self._node.settings.public_url)
                headers = {"retry-after": str(RETRY_AFTER_S)}
                await Response(body, status, headers, MEDIA_TYPE)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _look(self) -> bool:
        with self._node.db.read() as session:
            return (
                session.execute(select(WatchRow.log_id).where(WatchRow.restored_at.is_not(None))).first()
                is None
            )
