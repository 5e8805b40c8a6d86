"""The candidates that the peer of `verbale bench screening` scores: those that this index finds best, with all their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import select

from app.db import Database
from app.gate import operator
from app.models import ScreenedRow
from app.screening.find import Screener
from app.screening.party import Query

if TYPE_CHECKING:
    from collections.abc import Sequence


def candidates(database: str, parties: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """For each query `{"query": party, "candidates": [party, …]}`, parties as FollowTheMoney has them."""
    db = Database(database)
    screener = Screener(db)
    found = []
    for party in parties:
        answer = screener.screen(operator("EE"), Query.parse(party), now=1, limit=most, threshold=0.0)
        with db.read() as session:
            rows = [
                session.scalars(
                    select(ScreenedRow.parties).where(
                        ScreenedRow.log_id == hit.log_id, ScreenedRow.idx == hit.root_idx
                    )
                ).one()
                for hit in answer.hits
            ]
        listed = [orjson.loads(row or "[]")[hit.position] for row, hit in zip(rows, answer.hits, strict=True)]
        found.append(
            {
                "query": party,
                "candidates": [
                    {"schema": one["schema"], "properties": {"name": one["names"]}} for one in listed
                ],
            }
        )
    return found
