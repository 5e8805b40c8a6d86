"""The dialect of yente, the server of OpenSanctions: a client of it screens against this node without being changed.

Read at yente 5.5 (`/match`, `/search`, `/entities`, `/catalog`, `/algorithms`, `/healthz`, `/readyz`). Departures, all on
the careful side: a query that cannot be read has no `results`, where yente refuses the whole batch (a lone one is refused here
too); an algorithm this node does not have is refused; a property that is not compared is named in `query.ignored`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.deps import CurrentNode, CurrentScreener, node_of
from app.domain.errors import InvalidFilter, NodeFault
from app.domain.json import parse_strict
from app.domain.party import SCHEMATA
from app.domain.states import STATES
from app.gate import visible
from app.limits import read_body
from app.models import NoticeRow
from app.queries.filters import SHOWN, is_active
from app.screening.answering import Match
from app.screening.application import NotUnderstood
from app.screening.denials import DenialView, load
from app.screening.entities import (
    DATASET,
    TOPICS,
    Dataset,
    dataset,
    dataset_of,
    entity,
    entity_id,
    find_entity,
    read_example,
)
from app.screening.freshness import read_freshness

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.orm import Session

    from app.deps import Node
    from app.gate import Principal
    from app.screening.application import Asked

router = APIRouter(tags=["yente"])

MAX_BATCH: Final = 100
"""Queries of one /match, as yente's YENTE_MAX_BATCH."""
MAX_LIMIT: Final = 500
MAX_OFFSET: Final = 9_499
LOOKED_AT: Final = 500
"""Candidates that filters choose from."""
CUTOFF: Final = 0.5
"""Results below it are not shown, as in yente; `threshold` decides `match`."""

Names = Annotated[list[str], Query()]


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The filters that /match and /search share."""

    datasets: tuple[Dataset, ...]
    without: tuple[Dataset, ...]
    not_schemata: frozenset[str]
    topics: frozenset[str]
    since_ms: int | None
    not_ids: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    schema: str | None = None

    def takes(self, view: DenialView, position: int) -> bool:
        """Whether a party of a notice is left."""
        party = view.parties()[position]["ftm"]
        issuer, schema = view.issuer, party["schema"]
        countries = {
            value.lower()
            for name in ("country", "jurisdiction", "nationality", "citizenship", "mainCountry")
            for value in party["properties"].get(name, ())
        }
        return (
            any(each.has(issuer) for each in self.datasets)
            and not any(each.issuer == issuer for each in self.without)
            and schema not in self.not_schemata
            and (self.schema is None or schema == self.schema or self.schema in _broader(schema))
            and (not self.topics or TOPICS[view.type] in self.topics)
            and (self.since_ms is None or view.changed_at >= self.since_ms)
            and (not self.countries or bool(countries & self.countries))
            and entity_id(view, position) not in self.not_ids
        )


_BROADER: Final[dict[str, tuple[str, ...]]] = {
    "Company": ("Organization", "LegalEntity", "Thing"),
    "PublicBody": ("Organization", "LegalEntity", "Thing"),
    "Organization": ("LegalEntity", "Thing"),
    "Person": ("LegalEntity", "Thing"),
    "LegalEntity": ("Thing",),
    "Vessel": ("Vehicle", "Thing"),
    "Airplane": ("Vehicle", "Thing"),
}


def _broader(schema: str) -> tuple[str, ...]:
    return _BROADER.get(schema, ())


def _narrowing(
    path: str,
    include: Sequence[str],
    exclude: Sequence[str],
    exclude_schema: Sequence[str],
    topics: Sequence[str],
    changed_since: str | None,
    **more: Any,  # noqa: ANN401 - members of Narrowing
) -> Narrowing:
    return Narrowing(
        datasets=tuple(dataset(name) for name in (path, *include)),
        without=tuple(dataset(name) for name in exclude),
        not_schemata=frozenset(exclude_schema),
        topics=frozenset(topics),
        since_ms=_moment(changed_since),
        **more,
    )


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidFilter(
            "changed_since is a date or a time, such as 2026-11-25 or 2026-11-25T12:00:00."
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _json(value: Any, **headers: str) -> Response:  # noqa: ANN401 - a JSON value for orjson
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)


# ── matching ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post("/match/{dataset_name}", response_class=Response)
async def match_entities(
    request: Request,
    dataset_name: str,
    principal: CurrentScreener,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 5,
    threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
    cutoff: Annotated[float | None, Query(ge=0, le=1)] = None,
    algorithm: str = "best",
    include_dataset: Names = [],  # noqa: B006 - FastAPI copies it
    exclude_dataset: Names = [],  # noqa: B006
    exclude_schema: Names = [],  # noqa: B006
    topics: Names = [],  # noqa: B006
    changed_since: str | None = None,
    exclude_entity_ids: Names = [],  # noqa: B006
) -> Response:
    """Match entities by example, as yente does: `{"queries": {key: {"schema", "properties"}}}`. Scope `screen`."""
    node = node_of(request)
    own = str(node.finder.algorithm()["name"])
    if algorithm not in ("best", "default", own):
        raise InvalidFilter(f"{algorithm[:40]!r} is not an algorithm of this node; /algorithms lists them.")
    narrowing = _narrowing(
        dataset_name, include_dataset, exclude_dataset, exclude_schema, topics, changed_since,
        not_ids=frozenset(exclude_entity_ids[:50]),
    )  # fmt: skip
    raw = await read_body(request.scope, request.receive, node.settings.max_body_bytes)
    return await run_in_threadpool(
        _match, node, principal, raw, narrowing, limit=limit, threshold=threshold, cutoff=cutoff
    )


def _match(
    node: Node,
    principal: Principal,
    raw: bytes,
    narrowing: Narrowing,
    *,
    limit: int,
    threshold: float | None,
    cutoff: float | None,
) -> Response:
    queries = _queries(parse_strict(raw))
    least = node.finder.algorithm()["threshold"] if threshold is None else threshold
    lowest = min(least, CUTOFF if cutoff is None else cutoff)
    now = node.clock()
    responses: dict[str, Any] = {}
    refused = []
    with node.db.read() as session:
        for key, value in queries.items():
            example = read_example(value)
            if isinstance(example, NotUnderstood):
                detail = "; ".join(f"queries/{key}{pointer}: {why}" for pointer, why in example.errors)
                refused.append(detail)
                # Without `results`: a client must not take what was not read for "nothing found".
                responses[key] = {"status": 400, "detail": detail, "query": value}
                continue
            found, more = _found(node, session, principal, example.asked, narrowing, lowest, now)
            responses[key] = {
                "status": 200,
                "results": [_scored(view, match, least) for match, view in found[:limit]],
                "total": {"value": len(found), "relation": "gte" if more else "eq"},
                "query": example.wire(),
            }
    if len(refused) == len(queries):
        raise InvalidFilter(f"No query of this batch can be matched. {refused[0][:500]}")
    answer = _json({"responses": responses, "limit": limit})
    answer.headers["x-batch-size"] = str(len(queries))
    return answer


def _queries(document: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    queries = document.get("queries") if isinstance(document, dict) else None
    if not isinstance(queries, dict) or not queries:
        raise InvalidFilter(
            'The body is {"queries": {"q1": {"schema": …, "properties": {…}}}}, with at least one query.'
        )
    if len(queries) > MAX_BATCH:
        raise InvalidFilter(
            f"At most {MAX_BATCH} queries at once; there are {len(queries)}. Send several requests."
        )
    if document.get("weights") or document.get("config"):
        raise InvalidFilter("Weights and config of other algorithms have no meaning here; leave them empty.")
    return queries


def _found(
    node: Node,
    session: Session,
    principal: Principal,
    asked: Asked,
    narrowing: Narrowing,
    lowest: float,
    now: int,
) -> tuple[list[tuple[Match, DenialView]], bool]:
    found = node.finder.find(principal, asked, limit=LOOKED_AT, threshold=lowest, now_ms=now)
    views = load(session, principal, {match.key for match in found.matches}, now_ms=now)
    left = [
        (match, views[match.key])
        for match in found.matches
        if match.key in views and narrowing.takes(views[match.key], match.position)
    ]
    return left, found.more


def _scored(view: DenialView, match: Match, threshold: float) -> dict[str, Any]:
    return entity(view, match.position) | {
        "score": round(match.score, 4),
        "match": match.score >= threshold,
        "explanations": match.why.parts(),
    }


# ── searching ─────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/search/{dataset_name}", response_class=Response)
def search_entities(
    node: CurrentNode,
    dataset_name: str,
    principal: CurrentScreener,
    q: Annotated[str, Query(max_length=1000)] = "",
    schema: str = "Thing",
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    include_dataset: Names = [],  # noqa: B006
    exclude_dataset: Names = [],  # noqa: B006
    exclude_schema: Names = [],  # noqa: B006
    topics: Names = [],  # noqa: B006
    countries: Names = [],  # noqa: B006
    changed_since: str | None = None,
    facets: Names = ["countries", "topics", "datasets"],  # noqa: B006
) -> Response:
    """Find entities by words of their names, as yente does; without `q`, the newest first. Scope `screen`."""
    if schema not in {"Thing", "Vehicle", *SCHEMATA}:
        raise InvalidFilter(f"{schema[:40]!r} is not a schema of this node's entities.")
    narrowing = _narrowing(
        dataset_name, include_dataset, exclude_dataset, exclude_schema, topics, changed_since,
        countries=frozenset(code.lower() for code in countries), schema=schema,
    )  # fmt: skip
    now = node.clock()
    with node.db.read() as session:
        if q.strip():
            example = read_example({"schema": "Thing", "properties": {"name": [q]}})
            if isinstance(example, NotUnderstood):
                raise InvalidFilter(f"q: {example.errors[0][1]}.")
            found, more = _found(node, session, principal, example.asked, narrowing, CUTOFF, now)
            listed = [(view, match.position) for match, view in found]
        else:
            listed, more = _newest(session, principal, narrowing, offset + limit, now)
    return _json(
        {
            "results": [entity(view, position) for view, position in listed[offset : offset + limit]],
            "facets": _facets(listed, facets),
            "total": {"value": len(listed), "relation": "gte" if more else "eq"},
            "limit": limit,
            "offset": offset,
        }
    )


def _newest(
    session: Session, principal: Principal, narrowing: Narrowing, wanted: int, now: int
) -> tuple[list[tuple[DenialView, int]], bool]:
    """Parties of the newest notices, at least `wanted` if there are so many, and whether there are more."""
    found: list[tuple[DenialView, int]] = []
    before: int | None = None
    while len(found) <= wanted:
        query = select(NoticeRow.seq, NoticeRow.log_id, NoticeRow.idx).where(
            visible(principal),
            is_active(now),
            NoticeRow.type.in_(sorted(TOPICS)),
            NoticeRow.content_state.in_(SHOWN),
        )
        if before is not None:
            query = query.where(NoticeRow.seq < before)
        keys = session.execute(query.order_by(NoticeRow.seq.desc()).limit(LOOKED_AT)).all()
        if not keys:
            return found, False
        before = keys[-1].seq
        views = load(session, principal, [(k.log_id, k.idx) for k in keys], now_ms=now)
        for key in keys:
            view = views[key.log_id, key.idx]
            found += [(view, n) for n in range(len(view.parties())) if narrowing.takes(view, n)]
    return found, True


def _facets(listed: Sequence[tuple[DenialView, int]], wanted: Sequence[str]) -> dict[str, Any]:
    labels = {"countries": "Countries", "topics": "Topics", "datasets": "Data sources"}
    found: dict[str, dict[str, int]] = {name: {} for name in wanted if name in labels}
    for view, position in listed:
        for name, counts in found.items():
            for value in _facet_values(name, view, position):
                counts[value] = counts.get(value, 0) + 1
    return {
        name: {
            "label": labels[name],
            "values": [
                {"name": value, "label": value, "count": count}
                for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            ],
        }
        for name, counts in found.items()
    }


def _facet_values(name: str, view: DenialView, position: int) -> Iterator[str]:
    if name == "topics":
        yield TOPICS[view.type]
    elif name == "datasets":
        yield dataset_of(view.issuer)
    else:
        properties = view.parties()[position]["ftm"]["properties"]
        yield from {
            value.lower()
            for key in ("country", "nationality", "jurisdiction")
            for value in properties.get(key, ())
        }


# ── entities ──────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/entities/{entity_key}", response_class=Response)
def get_entity(
    node: CurrentNode, principal: CurrentScreener, entity_key: str, nested: bool = True
) -> Response:
    """One entity, with the decision about it. Scope `screen`."""
    with node.db.read() as session:
        view, position = find_entity(session, principal, entity_key, now_ms=node.clock())
    return _json(entity(view, position, nested=nested))


@router.get("/entities/{entity_key}/adjacent", response_class=Response)
def get_adjacent(
    node: CurrentNode,
    principal: CurrentScreener,
    entity_key: str,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> Response:
    """What is next to an entity: the decision about it. Scope `screen`."""
    with node.db.read() as session:
        view, position = find_entity(session, principal, entity_key, now_ms=node.clock())
    page = _adjacent(view, position, limit, offset)
    return _json({"entity": entity(view, position), "adjacent": {"sanctions": page}})


@router.get("/entities/{entity_key}/adjacent/{property_name}", response_class=Response)
def get_adjacent_property(
    node: CurrentNode,
    principal: CurrentScreener,
    entity_key: str,
    property_name: str,
    limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> Response:
    """One property's entities next to an entity. Scope `screen`."""
    with node.db.read() as session:
        view, position = find_entity(session, principal, entity_key, now_ms=node.clock())
    if property_name != "sanctions":
        raise InvalidFilter(
            "Entities here have other entities next to them under the property sanctions alone."
        )
    return _json(_adjacent(view, position, limit, offset))


def _adjacent(view: DenialView, position: int, limit: int, offset: int) -> dict[str, Any]:
    decisions = entity(view, position, nested=True)["properties"]["sanctions"]
    return {
        "results": decisions[offset : offset + limit],
        "total": {"value": len(decisions), "relation": "eq"},
        "limit": limit,
        "offset": offset,
    }


# ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/catalog", response_class=Response)
def get_catalog(request: Request, node: CurrentNode) -> Response:
    """The datasets: all notices, and each State's. How many there are depends on who asks, so it is not said. Public."""
    now = node.clock()
    try:
        roster = node.roster()
    except NodeFault:
        roster = None
    with node.db.read() as session:
        freshness = read_freshness(session, roster, now_ms=now)
    held = sorted({source.state for source in freshness.sources if source.as_of is not None})
    behind = sorted({dataset_of(source.state) for source in freshness.behind})
    names = [dataset_of(state) for state in held]
    found = {
        "datasets": [
            _dataset(DATASET, "All notices that this node holds", children=names),
            *(_dataset(dataset_of(state), f"Notices of {STATES[state].name}", state=state) for state in held),
        ],
        "current": [name for name in (DATASET, *names) if name not in behind],
        "outdated": behind,
        "index_stale": bool(behind),
    }
    body = orjson.dumps(found)
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "max-age=60"}
    if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _dataset(
    name: str, title: str, *, state: str | None = None, children: Sequence[str] = ()
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "title": title,
        "summary": "Denied end-users and parties of technology threats, as signed by their issuers.",
        "load": True,
        "index_current": True,
        "children": list(children),
        "datasets": list(children),
        "tags": ["export.control"],
    }
    if state is not None:
        found["publisher"] = {
            "name": STATES[state].authority or STATES[state].official_name,
            "country": state.lower(),
            "country_label": STATES[state].name,
            "official": True,
        }
    return found


@router.get("/algorithms", response_class=Response)
def get_algorithms(node: CurrentNode) -> Response:
    """How entities are matched. Public."""
    own = node.finder.algorithm()
    return _json(
        {
            "algorithms": [
                {
                    "name": own["name"],
                    "description": "Names in any script with legal forms, initials and spellings, then dates, countries and "
                    "identifiers; docs/screening.md explains the score.",
                    "docs": own.get("features", {}),
                }
            ],
            "default": own["name"],
            "best": own["name"],
        }
    )


@router.get("/healthz", response_class=Response, include_in_schema=True)
def get_healthz() -> Response:
    """The process answers: what yente's clients ask; see `/health/live`."""
    return _json({"status": "ok"})


@router.get("/readyz", response_class=Response)
def get_readyz(node: CurrentNode) -> Response:
    """Screening can be answered: what yente's clients ask; see `/health/ready`."""
    with node.db.read() as session:
        session.execute(select(1))
    return _json({"status": "ok"})
