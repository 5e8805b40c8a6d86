"""What nodes ask of each other: cosignatures, bodies, the roster, evidence."""

from __future__ import annotations

from typing import Final

import orjson
from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app.deps import CurrentNode, CurrentPrincipal, Node
from app.domain.errors import Malformed, NotAllowed, NotFound, VerbaleError
from app.domain.lease import MAX_REQUEST as MAX_LEASE_REQUEST
from app.domain.lease import Claim
from app.gate import Principal
from app.limits import read_body, too_large
from app.models import CosignatureRow, EvidenceRow, HeadRow
from app.problems import MEDIA_TYPE, base_url, encode
from app.replication.bodies import give, parse_request
from app.replication.forks import CheckpointFork, newest_seen
from app.replication.lease import give as give_lease
from app.replication.sealed import hand_on, parse_carry_request
from app.replication.witness import log_by_hash
from app.schemas.federation import EvidenceListOut, EvidenceOut
from app.tlog.evidence import MAX_RECORD
from app.tlog.merkle import InvalidConsistencyProof
from app.tlog.note import InvalidNoteSignature, NoKnownSignature, Note, parse_signature_lines
from app.tlog.note import parse as parse_note
from app.tlog.witness import (
    MAX_SUBMISSION_SIZE,
    SIZE_TYPE,
    CheckpointForked,
    OldSizeMismatch,
    Submission,
    encode_size,
)

router = APIRouter(tags=["nodes"])

TEXT: Final = "text/plain; charset=utf-8"
FRESH: Final = {"cache-control": "no-cache"}
MAX_BODIES_REQUEST: Final = 256 * 2**10
RETRY_AFTER_S: Final = 2
_WITNESS_STATUS: Final[tuple[tuple[tuple[type[VerbaleError], ...], int], ...]] = (
    ((NoKnownSignature, InvalidNoteSignature, NotAllowed), 403),
    ((InvalidConsistencyProof, CheckpointForked, CheckpointFork), 422),
    ((Malformed,), 400),
)


@router.post("/witness/add-checkpoint", response_class=Response)
async def add_checkpoint(request: Request, node: CurrentNode) -> Response:
    """C2SP tlog-witness: take a checkpoint of another State's log; store its leaves; then cosign.

    200 with signature lines; 409 with the size last cosigned; 503 while the leaves are still being fetched.
    """
    raw = await read_body(request.scope, request.receive, MAX_SUBMISSION_SIZE)
    return await run_in_threadpool(answer_offer, node, raw, base_url(request))


def answer_offer(node: Node, raw: bytes, url: str) -> Response:
    """The answer to an `add-checkpoint` request whose body is `raw`; `url` is where problems are explained."""
    try:
        _, line = node.take_submission(Submission.parse(raw))
    except OldSizeMismatch as mismatch:
        return Response(encode_size(mismatch.size), 409, media_type=SIZE_TYPE)
    except VerbaleError as error:
        # What C2SP tlog-witness gives each refusal; elsewhere in this API the same errors may have other statuses.
        status = next((status for kinds, status in _WITNESS_STATUS if isinstance(error, kinds)), None)
        document, status = encode(error, url, status)
        return Response(document, status, media_type=MEDIA_TYPE)
    if line is None:
        return Response(
            "The leaves are being fetched; offer the checkpoint again.\n",
            503,
            media_type=TEXT,
            headers={"retry-after": str(RETRY_AFTER_S)},
        )
    return Response(line, media_type=TEXT)


@router.get("/witness/{origin_hash}/checkpoint", response_class=Response)
def cosigned_checkpoint(node: CurrentNode, origin_hash: str) -> Response:
    """The newest checkpoint that this node's witness cosigned for a log: what gossip compares."""
    with node.db.read() as session:
        log_id, _ = log_by_hash(session, origin_hash)
        row = session.execute(
            select(HeadRow.note, CosignatureRow.line)
            .join(
                CosignatureRow,
                (CosignatureRow.log_id == HeadRow.log_id) & (CosignatureRow.size == HeadRow.size),
            )
            .where(HeadRow.log_id == log_id, CosignatureRow.witness == node.witness.name)
            .order_by(HeadRow.size.desc())
            .limit(1)
        ).one_or_none()
    if row is None or row.note is None:
        raise NotFound("This witness has cosigned no checkpoint of that log.")
    signed = parse_note(row.note)
    lines = signed.signatures + parse_signature_lines(row.line)
    return Response(Note(signed.text, lines).encode(), media_type=TEXT, headers=FRESH)


@router.get("/witness/{origin_hash}/seen", response_class=Response)
def seen_checkpoint(node: CurrentNode, origin_hash: str) -> Response:
    """The largest checkpoint of a log that this node has seen, proven here or not: what a node that starts asks for.

    It carries the log's signature alone. A cosignature would say that the leaves are here.
    """
    with node.db.read() as session:
        seen = newest_seen(session, log_by_hash(session, origin_hash)[0])
    if seen is None:
        raise NotFound("This node has seen no checkpoint of that log.")
    return Response(seen, media_type=TEXT, headers=FRESH)


@router.post("/witness/{origin_hash}/lease", response_class=Response)
async def lease(
    request: Request, node: CurrentNode, principal: CurrentPrincipal, origin_hash: str
) -> Response:
    """Give the lease of a log to the run of its own State's node that asks, by signed request, or renew it.

    200: it has it. 409: another run has it. See `app.replication.lease`.
    """
    raw = await request.body()  # see `bodies`
    return await run_in_threadpool(answer_lease, node, principal, raw, origin_hash=origin_hash)


def answer_lease(node: Node, principal: Principal, raw: bytes, *, origin_hash: str) -> Response:
    """The answer to a request for a log's lease by `principal`."""
    if len(raw) > MAX_LEASE_REQUEST:
        raise too_large(MAX_LEASE_REQUEST)
    with node.db.read() as session:
        log_id, origin = log_by_hash(session, origin_hash)
    listed = node.roster().state_of_origin(origin)
    if principal.kind != "peer" or listed is None or listed.code != principal.state:
        raise NotAllowed("A log's lease is given to its own State's node, by a request that it signs.")
    give_lease(node.db, log_id, Claim.parse(raw), now=node.clock())
    return Response(orjson.dumps({"held": True}), media_type="application/json", headers=FRESH)


@router.post("/bodies", response_class=Response)
async def bodies(request: Request, node: CurrentNode, principal: CurrentPrincipal) -> Response:
    """Bodies for an entitled State, by signed request; see `app.replication.bodies` for the form.

    What the caller may not have is answered exactly as what does not exist: not at all.
    """
    raw = await request.body()  # here already: the signature covers it, so it was read to be checked
    return await run_in_threadpool(answer_bodies, node, principal, raw)


def answer_bodies(node: Node, principal: Principal, raw: bytes) -> Response:
    """The answer to a request for bodies by `principal`."""
    if principal.kind != "peer":
        raise NotAllowed(
            "Bodies are given to nodes that sign their request with a transport key the roster lists."
        )
    if len(raw) > MAX_BODIES_REQUEST:
        raise too_large(MAX_BODIES_REQUEST)
    wanted = parse_request(raw)
    # One piece, bounded by `give`: streaming line by line would cost more than making the lines.
    with node.db.read() as session:
        body = b"".join(give(session, principal, wanted))
    return Response(body, media_type="application/x-ndjson")


@router.post("/bodies/sealed", response_class=Response)
async def sealed_bodies(request: Request, node: CurrentNode, principal: CurrentPrincipal) -> Response:
    """Sealed bodies of this node's log, for any member's node to carry; see `app.replication.sealed` for the form."""
    raw = await request.body()  # see `bodies`
    return await run_in_threadpool(answer_sealed_bodies, node, principal, raw)


def answer_sealed_bodies(node: Node, principal: Principal, raw: bytes) -> Response:
    """The answer to a request for sealed bodies by `principal`."""
    if principal.kind != "peer":
        raise NotAllowed(
            "Sealed bodies are given to nodes that sign their request with a transport key the roster lists."
        )
    if len(raw) > MAX_BODIES_REQUEST:
        raise too_large(MAX_BODIES_REQUEST)
    origin, start = parse_carry_request(raw)
    with node.db.read() as session:
        body = b"".join(hand_on(session, origin, start))
    return Response(body, media_type="application/x-ndjson")


@router.get("/roster/{path:path}", response_class=Response)
def roster_file(node: CurrentNode, path: str) -> Response:
    """A file of the roster's TUF repository, as this node verified it."""
    raw = node.roster_client.read(path)
    if raw is None:
        raise NotFound("There is no such roster file.")
    return Response(raw, media_type="application/json", headers={"cache-control": "no-cache"})


@router.get("/evidence")
def list_evidence(node: CurrentNode) -> EvidenceListOut:
    """Records of evidence kept here, newest first: what each convicts whom of. Public, as each proves itself."""
    with node.db.read() as session:
        rows = session.scalars(select(EvidenceRow).order_by(EvidenceRow.at.desc(), EvidenceRow.id)).all()
    return EvidenceListOut(items=[EvidenceOut.of(row) for row in rows])


@router.post("/evidence", response_class=Response)
async def take_evidence(request: Request, node: CurrentNode) -> Response:
    """Take a record of evidence, the exact bytes. 201: it holds and is kept; 200: it was known; 422: it proves nothing.

    No credential is needed, since a record proves itself or is dropped: nobody can accuse a State by saying so.
    """
    raw = await read_body(request.scope, request.receive, MAX_RECORD)
    return await run_in_threadpool(answer_evidence, node, raw)


def answer_evidence(node: Node, raw: bytes) -> Response:
    """The answer to a record of evidence."""
    record, is_new = node.take_evidence(raw)
    return Response(
        orjson.dumps({"id": record}),
        201 if is_new else 200,
        media_type="application/json",
        headers={"location": f"/evidence/{record}"},
    )


@router.get("/evidence/{evidence_id}", response_class=Response)
def evidence(node: CurrentNode, evidence_id: str) -> Response:
    """One record of evidence, the exact bytes: anybody can check it with the accused's public key alone."""
    with node.db.read() as session:
        record = session.execute(
            select(EvidenceRow.record).where(EvidenceRow.id == evidence_id.removesuffix(".json"))
        ).scalar_one_or_none()
    if record is None:
        raise NotFound("There is no such evidence.")
    return Response(
        bytes(record), media_type="application/json", headers={"cache-control": "public, immutable"}
    )
