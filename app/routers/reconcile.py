"""The Reconciliation Service API 0.2 (W3C community report), for OpenRefine and whatever else speaks it.

OpenRefine sends no header of its own, so the token may stand in the address here, `?api_key=vbl_…`; the manifest says so. It
is not logged by this node. Any web page may ask (CORS): there is no cookie that it could ride on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app import tokens
from app.deps import node_of, screener_of
from app.domain.errors import InvalidFilter, NotFound
from app.domain.json import parse_strict
from app.domain.party import NAME_PROPERTIES, PROPERTIES, SCHEMATA
from app.gate import Principal
from app.limits import read_body
from app.problems import base_url
from app.screening.application import NotUnderstood
from app.screening.denials import load
from app.screening.entities import dataset, entity, find_entity, read_example

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from app.deps import Node
    from app.screening.denials import DenialView
    from app.screening.entities import Dataset

router = APIRouter(prefix="/reconcile", tags=["reconciliation"])

MAX_QUERIES: Final = 50
MAX_RESULTS: Final = 50
MAX_IDS: Final = 500
BATCH_SIZE: Final = 10
_LOWEST: Final = 0.3
"""Candidates below it are noise to a person who picks from a list."""
_CORS: Final = {"Access-Control-Allow-Origin": "*"}
_TYPES: Final = {
    "LegalEntity": "Any party", "Person": "Person", "Organization": "Organization", "Company": "Company",
    "PublicBody": "Public body", "Vessel": "Vessel", "Airplane": "Airplane",
}  # fmt: skip


def _of_notice(key: str) -> Callable[[DenialView], list[str]]:
    def values(view: DenialView) -> list[str]:
        value = view.wire().get(key)
        listed = value if isinstance(value, list) else [value]
        return [str(each) for each in listed if each is not None]

    return values


_NOTICE_PROPERTIES: Final = {
    "noticeIssuer": _of_notice("issuer"), "noticeStatus": _of_notice("status"), "noticeTitle": _of_notice("title"),
    "deniedOn": _of_notice("denied_on"), "reasons": _of_notice("reasons"), "destination": _of_notice("destination"),
}  # fmt: skip
"""What an officer's table wants beside the party: of the notice that is behind the entity."""


async def reconciler_of(request: Request) -> Principal:
    """The caller: a token in the header, as everywhere, or in `api_key`."""
    text = request.query_params.get("api_key")
    if text is None or "authorization" in request.headers:
        return await screener_of(request)
    node = node_of(request)
    principal = await run_in_threadpool(
        tokens.authenticate, node.db, text, state=node.state, now_ms=node.clock()
    )
    principal.require("screen")
    return principal


Reconciler = Annotated[Principal, Depends(reconciler_of)]


def _json(value: Any) -> Response:  # noqa: ANN401 - a JSON value for orjson
    return Response(orjson.dumps(value), media_type="application/json", headers=_CORS)


def _name(property_name: str) -> str:
    """`birthDate` -> `birth date`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in property_name)


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/{dataset_name}", response_class=Response)
async def get_reconciliation(
    request: Request, dataset_name: str, queries: str | None = None, extend: str | None = None
) -> Response:
    """The service's manifest, for anybody; with `queries` or `extend`, the answer to them. Scope `screen` for those."""
    where = dataset(dataset_name)
    if queries is None and extend is None:
        return _json(_manifest(request, where))
    principal = await reconciler_of(request)
    return await run_in_threadpool(_answer, node_of(request), principal, where, queries, extend)


@router.post("/{dataset_name}", response_class=Response)
async def post_reconciliation(request: Request, dataset_name: str, principal: Reconciler) -> Response:
    """Reconcile names (form field `queries`), or fetch properties of entities (form field `extend`). Scope `screen`."""
    node = node_of(request)
    where = dataset(dataset_name)
    raw = await read_body(request.scope, request.receive, node.settings.max_body_bytes)
    try:
        form = dict(parse_qsl(raw.decode(), strict_parsing=True, max_num_fields=10))
    except ValueError as error:
        raise InvalidFilter("The body is a form with the field queries or extend.") from error
    return await run_in_threadpool(_answer, node, principal, where, form.get("queries"), form.get("extend"))


def _answer(
    node: Node, principal: Principal, where: Dataset, queries: str | None, extend: str | None
) -> Response:
    if extend is not None:
        return _json(_extended(node, principal, parse_strict(extend.encode())))
    if queries is None:
        raise InvalidFilter("Send the field queries or extend.")
    asked = parse_strict(queries.encode())
    if not isinstance(asked, dict) or len(asked) > MAX_QUERIES:
        raise InvalidFilter(f"queries is an object of at most {MAX_QUERIES} queries.")
    with node.db.read() as session:
        return _json(
            {key: _reconciled(node, session, principal, where, query) for key, query in asked.items()}
        )


def _manifest(request: Request, where: Dataset) -> dict[str, Any]:
    base = base_url(request)
    path = f"/reconcile/{where.name}"
    # OpenRefine keeps the address it was given; what it builds from the manifest has to carry the key too.
    key = request.query_params.get("api_key")
    suffix = f"?{urlencode({'api_key': key})}" if key else ""

    def service(name: str) -> dict[str, str]:
        return {"service_url": base, "service_path": f"{path}/suggest/{name}{suffix}"}

    return {
        "versions": ["0.2"],
        "name": f"Verbale: denied parties ({where.name})",
        "identifierSpace": f"{base}/entities/",
        "schemaSpace": "https://www.opensanctions.org/reference/#schema.",
        "documentation": f"{base}/docs",
        "authentication": {
            "type": "apiKey",
            "name": "api_key",
            "in": "query",
            "description": "An API token of this node with the scope screen.",
        },
        "batchSize": BATCH_SIZE,
        "defaultTypes": [{"id": schema, "name": name} for schema, name in _TYPES.items()],
        "view": {"url": f"{base}/entities/{{{{id}}}}"},
        "suggest": {name: service(name) for name in ("entity", "type", "property")},
        "extend": {
            "propose_properties": {"service_url": base, "service_path": f"{path}/extend/property{suffix}"},
            "property_settings": [
                {
                    "name": "limit",
                    "label": "Limit",
                    "type": "number",
                    "default": 0,
                    "help_text": "Most values of a property; 0 is all.",
                }
            ],
        },
    }


# ── reconciling ───────────────────────────────────────────────────────────────────────────────────────────────────


def _reconciled(
    node: Node,
    session: Session,
    principal: Principal,
    where: Dataset,
    query: Any,  # noqa: ANN401 - any JSON
) -> dict[str, Any]:
    if not isinstance(query, dict):
        return {"result": [], "error": "A query is an object with the member query."}
    example = read_example({"schema": _type_of(query), "properties": _properties(query)})
    if isinstance(example, NotUnderstood):
        # 0.2 has no place for an error of one query; OpenRefine shows this one's row as not reconciled.
        return {"result": [], "error": "; ".join(f"{pointer} {why}" for pointer, why in example.errors)}
    limit = query.get("limit")
    limit = min(limit, MAX_RESULTS) if isinstance(limit, int) and limit > 0 else 5
    now = node.clock()
    found = node.finder.find(principal, example.asked, limit=MAX_RESULTS, threshold=_LOWEST, now_ms=now)
    views = load(session, principal, {match.key for match in found.matches}, now_ms=now)
    least = node.finder.algorithm()["threshold"]
    shown = [m for m in found.matches if m.key in views and where.has(views[m.key].issuer)][:limit]
    certain = [m for m in shown if m.score >= least]
    result = []
    for match in shown:
        view = views[match.key]
        made = entity(view, match.position)
        result.append(
            {
                "id": made["id"],
                "name": made["caption"],
                "description": f"{view.type.replace('_', ' ')} of {view.issuer}: {view.title}"[:300],
                "type": [{"id": made["schema"], "name": _TYPES[made["schema"]]}],
                "score": round(match.score * 100, 2),
                # OpenRefine takes a match without asking anybody: only a lone one that is above the threshold.
                "match": len(certain) == 1 and match.score >= least,
                "features": [
                    {"id": name, "value": feature["score"]} for name, feature in match.why.parts().items()
                ],
            }
        )
    return {"result": result}


def _type_of(query: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    given = query.get("type") or "LegalEntity"
    if isinstance(given, list):
        return given[0] if len(given) == 1 else "LegalEntity"
    return given["id"] if isinstance(given, dict) and isinstance(given.get("id"), str) else given


def _properties(query: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    name = query.get("query")
    if isinstance(name, str) and name.strip():
        found["name"] = [name]
    for each in query.get("properties") or ():
        if isinstance(each, dict) and isinstance(each.get("pid"), str):
            values = each.get("v")
            for value in values if isinstance(values, list) else [values]:
                text = value.get("name") if isinstance(value, dict) else value
                if text not in (None, ""):
                    found.setdefault(each["pid"], []).append(str(text))
    return found


# ── suggesting ────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/{dataset_name}/suggest/entity", response_class=Response)
def suggest_entities(
    request: Request,
    principal: Reconciler,
    dataset_name: str,
    prefix: Annotated[str, Query(max_length=1000)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_RESULTS)] = 5,
) -> Response:
    """Entities whose names are like what was typed. Scope `screen`."""
    node, where = node_of(request), dataset(dataset_name)
    with node.db.read() as session:
        found = _reconciled(node, session, principal, where, {"query": prefix, "limit": limit})
    return _json(
        {
            "result": [
                {
                    "id": each["id"],
                    "name": each["name"],
                    "description": each["description"],
                    "notable": each["type"],
                }
                for each in found["result"]
            ]
        }
    )


@router.get("/{dataset_name}/suggest/type", response_class=Response)
def suggest_types(dataset_name: str, prefix: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Schemata whose names begin like what was typed. Public."""
    dataset(dataset_name)
    return _json({"result": _suggested(_TYPES, prefix)})


@router.get("/{dataset_name}/suggest/property", response_class=Response)
def suggest_properties(dataset_name: str, prefix: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Properties whose names begin like what was typed. Public."""
    dataset(dataset_name)
    return _json({"result": _suggested({name: _name(name) for name in PROPERTIES}, prefix)})


def _suggested(named: dict[str, str], prefix: str) -> list[dict[str, str]]:
    wanted = prefix.casefold().strip()
    return [
        {"id": key, "name": name}
        for key, name in named.items()
        if key.casefold().startswith(wanted) or any(w.startswith(wanted) for w in name.casefold().split())
    ]


# ── extending ─────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/{dataset_name}/extend/property", response_class=Response)
def propose_properties(
    dataset_name: str,
    type_: Annotated[str, Query(alias="type", max_length=40)] = "LegalEntity",
    limit: Annotated[int, Query(ge=1, le=len(PROPERTIES) + len(_NOTICE_PROPERTIES))] = 20,
) -> Response:
    """Properties that can be fetched of entities: those of the party, and some of its notice. Public."""
    dataset(dataset_name)
    if type_ not in (*SCHEMATA, "Thing"):
        raise NotFound(f"{type_[:40]!r} is not a type here.")
    first = [*_NOTICE_PROPERTIES, *NAME_PROPERTIES, *(p for p in PROPERTIES if p not in NAME_PROPERTIES)]
    listed = [{"id": name, "name": _name(name)} for name in first][:limit]
    return _json({"type": type_, "limit": limit, "properties": listed})


def _extended(node: Node, principal: Principal, asked: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    ids = asked.get("ids") if isinstance(asked, dict) else None
    wanted = asked.get("properties") if isinstance(asked, dict) else None
    if not isinstance(ids, list) or not isinstance(wanted, list) or len(ids) > MAX_IDS:
        raise InvalidFilter(f"extend is an object with ids, at most {MAX_IDS}, and properties.")
    columns = [p for p in wanted if isinstance(p, dict) and isinstance(p.get("id"), str)]
    unknown = [p["id"] for p in columns if p["id"] not in PROPERTIES and p["id"] not in _NOTICE_PROPERTIES]
    if unknown or len(columns) != len(wanted):
        raise InvalidFilter(f"{str(unknown or wanted)[:60]}: not properties that can be fetched here.")
    rows: dict[str, Any] = {}
    with node.db.read() as session:
        for each in ids:
            rows[str(each)] = _row(node, session, principal, str(each), columns)
    return {"meta": [{"id": p["id"], "name": _name(p["id"])} for p in columns], "rows": rows}


def _row(
    node: Node, session: Session, principal: Principal, text: str, columns: list[dict[str, Any]]
) -> dict[str, list[dict[str, str]]]:
    """The values of one entity; nothing where there is none that the caller may see."""
    try:
        view, position = find_entity(session, principal, text, now_ms=node.clock())
    except NotFound:
        return {column["id"]: [] for column in columns}
    properties = entity(view, position)["properties"]
    row: dict[str, list[dict[str, str]]] = {}
    for column in columns:
        name, settings = column["id"], column.get("settings") or {}
        values = _NOTICE_PROPERTIES[name](view) if name in _NOTICE_PROPERTIES else properties.get(name, [])
        most = settings.get("limit") if isinstance(settings, dict) else None
        most = int(most) if isinstance(most, int | str) and str(most).isdigit() else 0
        row[name] = [{"str": value} for value in (values[:most] if most else values)]
    return row
