"""The directory of States: contact points, nodes, keys, and who is the central contact."""

from __future__ import annotations

from fastapi import APIRouter

from app.deps import CurrentNode
from app.queries import federation as queries
from app.schemas.states import StateOut, StatesOut

router = APIRouter(prefix="/v1/states", tags=["states"])


@router.get("")
def list_states(node: CurrentNode) -> StatesOut:
    """All Subscribing States, those without a node too."""
    return StatesOut.model_validate(queries.states(node.roster(), now_ms=node.clock()))


@router.get("/{code}")
def get_state(code: str, node: CurrentNode) -> StateOut:
    """One State with all its keys, past ones included, and its terms as central contact."""
    return StateOut.model_validate(queries.state(node.roster(), code, now_ms=node.clock()))
