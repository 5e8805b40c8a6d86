"""`/v1/watchlists`: stored portfolios of the calling token, what was found for them, and what a person decided. Scope `screen`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from app.deps import CurrentNode, CurrentScreener, node_of
from app.domain.json import parse_strict
from app.limits import read_body
from app.schemas.screenings import PARTY_SCHEMA
from app.schemas.watchlists import ClearanceIn, EntriesIn, WatchlistChange, WatchlistIn
from app.screening import watchlists
from app.screening.application import MAX_ID, Asked, InvalidScreening, NotUnderstood, read_party
from app.screening.records import owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.deps import Node
    from app.gate import Principal
    from app.screening.watchlists import Put

router = APIRouter(prefix="/v1/watchlists", tags=["watch-lists"])


def token_of(principal: CurrentScreener) -> str:
    """The caller's token, which must carry the scope `screen`."""
    return owner(principal)


TokenId = Annotated[str, Depends(token_of)]
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=200)]


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - a JSON value for orjson
    return Response(
        orjson.dumps(value), status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.post("", status_code=201, response_class=Response)
def create_watchlist(node: CurrentNode, token: TokenId, wanted: WatchlistIn) -> Response:
    """Make a watch-list."""
    with node.db.write() as session:
        row = watchlists.create(
            session, token, name=wanted.name, threshold=wanted.threshold, now=node.clock()
        )
        made = watchlists.wire(session, row)
    response = _json(made, 201)
    response.headers["Location"] = f"/v1/watchlists/{made['id']}"
    return response


@router.get("", response_class=Response)
def list_watchlists(node: CurrentNode, token: TokenId) -> Response:
    """The calling token's watch-lists, oldest first."""
    with node.db.read() as session:
        found = [watchlists.wire(session, row) for row in watchlists.listed(session, token)]
    return _json({"items": found})


@router.get("/{watchlist_id}", response_class=Response)
def get_watchlist(node: CurrentNode, token: TokenId, watchlist_id: str) -> Response:
    """One watch-list."""
    with node.db.read() as session:
        found = watchlists.wire(session, watchlists.owned(session, token, watchlist_id))
    return _json(found)


@router.patch("/{watchlist_id}", response_class=Response)
def change_watchlist(
    node: CurrentNode, token: TokenId, watchlist_id: str, change: WatchlistChange
) -> Response:
    """Change the name or the threshold."""
    with node.db.write() as session:
        row = watchlists.owned(session, token, watchlist_id)
        watchlists.change(row, change.changes())
        session.flush()
        found = watchlists.wire(session, row)
    return _json(found)


@router.delete("/{watchlist_id}", status_code=204)
def delete_watchlist(node: CurrentNode, token: TokenId, watchlist_id: str) -> None:
    """Forget a watch-list with its parties and hits."""
    with node.db.write() as session:
        watchlists.remove(session, token, watchlist_id)


# ── parties ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/{watchlist_id}/entries", response_class=Response)
def list_entries(
    node: CurrentNode, token: TokenId, watchlist_id: str, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """The stored parties, by their ids."""
    with node.db.read() as session:
        row = watchlists.owned(session, token, watchlist_id)
        found, following = watchlists.entries(session, row, limit=limit, cursor=cursor)
        items = [watchlists.entry_wire(entry) for entry in found]
    return _json({"items": items, "next": following})


@router.post("/{watchlist_id}/entries", response_class=Response)
def post_entries(node: CurrentNode, token: TokenId, watchlist_id: str, wanted: EntriesIn) -> Response:
    """Put up to a thousand parties in, each by its own `id`; they are screened at once.

    The answer has one item for each, in order: `created`, `changed` or `unchanged`, or what was not understood. One that is
    wrong stops no other.
    """
    answers: list[dict[str, Any]] = []
    good: list[tuple[int, str, Asked]] = []
    for n, value in enumerate(wanted.parties):
        read = read_party(value, f"/parties/{n}")
        if isinstance(read, Asked) and read.id is None:
            read = NotUnderstood(
                read.pointer, None, None, [(f"{read.pointer}/id", "required: by it the party is found again")]
            )
        if isinstance(read, NotUnderstood):
            errors = [{"pointer": pointer, "detail": detail} for pointer, detail in read.errors]
            answers.append({"ref": read.id, "status": 422, "errors": errors})
        else:
            answers.append({})
            good.append((n, str(read.id), read))
    done = _put(node, token, watchlist_id, [(ref, asked) for _, ref, asked in good])
    for (n, ref, _), put in zip(good, done, strict=True):
        answers[n] = {"ref": ref, "status": 201 if put.created else 200, "state": _state(put)}
    return _json({"items": answers})


def _state(put: Put) -> str:
    return "created" if put.created else "changed" if put.changed else "unchanged"


def _put(node: Node, token: str, watchlist_id: str, parties: Sequence[tuple[str, Asked]]) -> list[Put]:
    """Store, then screen: a notice that comes in between is matched by whoever records it."""
    now = node.clock()
    with node.db.write() as session:
        row = watchlists.owned(session, token, watchlist_id)
        done = watchlists.put(node.db, session, row, parties, now=now) if parties else []
    asked = [asked for _, asked in parties]
    watchlists.screen_put(node.db, node.finder, node.state, list(zip(done, asked, strict=True)), now=now)
    return done


@router.put(
    "/{watchlist_id}/entries/{ref}",
    response_class=Response,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": PARTY_SCHEMA}}}
    },
)
async def put_entry(request: Request, principal: CurrentScreener, watchlist_id: str, ref: str) -> Response:
    """Put one party in, or another in its place, and screen it; the answer has its hits. What was cleared is heard again."""
    node = node_of(request)
    raw = await read_body(request.scope, request.receive, node.settings.max_body_bytes)
    return await run_in_threadpool(_put_one, node, principal, watchlist_id, ref, raw)


def _put_one(node: Node, principal: Principal, watchlist_id: str, ref: str, raw: bytes) -> Response:
    token = owner(principal)
    asked = read_party(parse_strict(raw))
    if not 0 < len(ref) <= MAX_ID:
        raise InvalidScreening([("", f"the id in the path has 1 to {MAX_ID} characters")])
    if isinstance(asked, NotUnderstood):
        raise InvalidScreening(asked.errors)
    (done,) = _put(node, token, watchlist_id, [(ref, asked)])
    with node.db.read() as session:
        row = watchlists.owned(session, token, watchlist_id)
        entry = watchlists.entry_wire(watchlists.entry_of(session, row, ref))
        hits, more = watchlists.hits(
            session, principal, row, state="all", limit=100, cursor=None, now=node.clock(), ref=ref
        )
    return _json(
        entry | {"state": _state(done), "hits": hits, "more": more is not None}, 201 if done.created else 200
    )


@router.get("/{watchlist_id}/entries/{ref}", response_class=Response)
def get_entry(node: CurrentNode, token: TokenId, watchlist_id: str, ref: str) -> Response:
    """One stored party."""
    with node.db.read() as session:
        row = watchlists.owned(session, token, watchlist_id)
        found = watchlists.entry_wire(watchlists.entry_of(session, row, ref))
    return _json(found)


@router.delete("/{watchlist_id}/entries/{ref}", status_code=204)
def delete_entry(node: CurrentNode, token: TokenId, watchlist_id: str, ref: str) -> None:
    """Forget a stored party with its hits."""
    with node.db.write() as session:
        watchlists.forget(session, watchlists.owned(session, token, watchlist_id), ref)


# ── hits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/{watchlist_id}/hits", response_class=Response)
def list_hits(
    node: CurrentNode,
    principal: CurrentScreener,
    watchlist_id: str,
    state: Annotated[str, Query(description="open (the default), cleared or all")] = "open",
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=36)] = None,
) -> Response:
    """Notices, valid now, that may be about a stored party; newest match first."""
    with node.db.read() as session:
        row = watchlists.owned(session, owner(principal), watchlist_id)
        items, following = watchlists.hits(
            session, principal, row, state=state, limit=limit, cursor=cursor, now=node.clock()
        )
    return _json({"items": items, "next": following})


@router.put("/{watchlist_id}/hits/{hit_id}/clearance", response_class=Response)
def clear_hit(
    node: CurrentNode, principal: CurrentScreener, watchlist_id: str, hit_id: str, decision: ClearanceIn
) -> Response:
    """Keep a hit quiet: it is heard again when the time is over, or the notice or the party changes."""
    with node.db.write() as session:
        row = watchlists.owned(session, owner(principal), watchlist_id)
        found = watchlists.clear(
            session,
            principal,
            row,
            hit_id,
            by=decision.by,
            reason=decision.reason,
            until=round(decision.until.timestamp() * 1000),
            now=node.clock(),
        )
    return _json(found)


@router.delete("/{watchlist_id}/hits/{hit_id}/clearance", response_class=Response)
def reopen_hit(node: CurrentNode, principal: CurrentScreener, watchlist_id: str, hit_id: str) -> Response:
    """Take a clearance back."""
    with node.db.write() as session:
        row = watchlists.owned(session, owner(principal), watchlist_id)
        found = watchlists.reopen(session, principal, row, hit_id, now=node.clock())
    return _json(found)
