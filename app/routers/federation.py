"""The health of the federation, as this node sees it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.deps import CurrentNode, CurrentReader
from app.domain.errors import InvalidFilter
from app.queries import federation as queries
from app.routers.notices import page_parameters
from app.schemas.federation import FaultsOut, FederationOut

router = APIRouter(prefix="/v1/federation", tags=["federation"])

_PAGE: dict[str, Any] = {
    "parameters": [
        {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "default": 100}},
        {"name": "cursor", "in": "query", "required": False, "schema": {"type": "string"}},
    ]
}


@router.get("", response_model_exclude_unset=True)
def get_federation(node: CurrentNode, principal: CurrentReader) -> FederationOut:
    """Per log: size proven here, head, lag, skew, receipts, faults; and the roster in force."""
    roster = node.roster()
    with node.db.read() as session:
        found = queries.federation(session, roster, principal, own_state=node.state, now_ms=node.clock())
    return FederationOut.model_validate(found)


@router.get("/faults", openapi_extra=_PAGE)
def get_faults(
    request: Request,
    node: CurrentNode,
    principal: CurrentReader,
    state: Annotated[str | None, Query(description="alpha-2")] = None,
) -> FaultsOut:
    """Leaves that failed judgement, with the reason. They are kept, flagged, and stop nothing."""
    pairs, limit, cursor = page_parameters(request, frozenset({"state"}))
    if len(pairs) > 1:
        raise InvalidFilter("state may be given once only.")
    with node.db.read() as session:
        found = queries.faults(
            session, principal, own_state=node.state, of_state=state, limit=limit, cursor=cursor
        )
    return FaultsOut.model_validate(found)
