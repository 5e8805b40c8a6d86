"""What the peer of `verbale bench screening` scores, and the same scored here.

The candidates of a query are the parties that this node compares with it, with all their names.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import select

from app.db import Database
from app.gate import operator
from app.models import ScreenedRow
from app.screening.find import Screener
from app.screening.normalise import normalise
from app.screening.party import Query
from app.screening.watch import score_pair
from app.screening.words import token

if TYPE_CHECKING:
    from collections.abc import Sequence


WARM: Final = 20
"""Queries that are scored before those that are measured: as many as in `peer_logic_v2`."""


def own_times(listed: Sequence[dict[str, Any]]) -> list[float]:
    """How long this program takes to score what `candidates` gave, pair by pair as the peer does: ms of each query.

    Reading the query and the names of the candidates is part of it, as it is part of the peer's; neither has read them before.
    """
    normalise.cache_clear()
    token.cache_clear()
    gc.collect()
    gc.freeze()  # the index that `candidates` loaded is no part of what is measured, nor is looking through it for garbage
    times: list[float] = []
    for some in (listed[:WARM], listed):
        times = []
        for one in some:
            parties = [
                {"schema": party["schema"], "names": party["properties"]["name"], "properties": {}}
                for party in one["candidates"]
            ]
            began = time.perf_counter()
            query = Query.parse(one["query"])
            for party in parties:
                score_pair(query, party)
            times.append((time.perf_counter() - began) * 1000)
    gc.unfreeze()
    return times


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
