"""Offline evidence for one notice."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from app.deps import CurrentNode, CurrentReader
from app.proofs import make_proof
from app.queries import notices as queries
from app.routers.notices import Origin

router = APIRouter(prefix="/v1/notices", tags=["notices"])


@router.get("/{notice_id}/proof", response_class=Response)
def get_proof(notice_id: str, node: CurrentNode, principal: CurrentReader, origin: Origin = None) -> Response:
    """One JSON file that `verbale verify` checks offline against a pinned roster root; see `docs/protocol.md`."""
    with node.db.read() as session:
        notice = queries.get(session, principal, notice_id, origin=origin, now_ms=node.clock())
        proof = make_proof(
            session,
            principal,
            log_id=notice.log_id,
            root_idx=notice.root_idx,
            roster=node.roster(),
            repository=node.roster_client.repository,
            recalled=notice.recalled,
        )
    return Response(orjson.dumps(proof), media_type="application/json", headers={"cache-control": "no-store"})
