"""The recall board."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.deps import CurrentNode, CurrentReader
from app.domain.errors import InvalidFilter
from app.queries import recalls
from app.routers.notices import page_parameters
from app.schemas.notices import RecallBoardOut

router = APIRouter(prefix="/v1/recall-board", tags=["notices"])

_PAGE: dict[str, Any] = {
    "parameters": [
        {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "default": 100}},
        {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"}},
    ]
}


@router.get("", openapi_extra=_PAGE)
def recall_board(
    request: Request,
    node: CurrentNode,
    principal: CurrentReader,
    issuer: Annotated[str | None, Query(description="alpha-2")] = None,
    missing: Annotated[str, Query(description="true: only what some member has not shown to hold")] = "false",
) -> RecallBoardOut:
    """What was amended, withdrawn, erased or recalled, and which States have shown that they know, which not."""
    pairs, limit, cursor = page_parameters(request, frozenset({"issuer", "missing"}))
    if len(pairs) != len({name for name, _ in pairs}):
        raise InvalidFilter("issuer and missing may be given once only.")
    if missing not in recalls.MISSING:
        raise InvalidFilter(f"missing: {missing!r} is neither true nor false.")
    roster = node.roster()
    with node.db.read() as session:
        found = recalls.board(
            session,
            roster,
            principal,
            issuer=issuer,
            missing=missing == "true",
            limit=limit,
            cursor=cursor,
            now_ms=node.clock(),
        )
    return RecallBoardOut.model_validate(found)
