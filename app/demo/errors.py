"""Why a demo did not work."""

from __future__ import annotations

from app.domain.errors import NodeFault


class DemoFailed(NodeFault):
    """Something that the demo shows did not happen."""

    code = "demo-failed"
