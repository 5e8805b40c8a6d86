"""The logs as files, own and mirrored: C2SP tlog-tiles, tlog-proof, and checkpoints with cosignatures.

Public: leaves carry no personal data. A mirror is served in the same layout, so that any node, or any auditor, can take a
log from any other node and prove it against the origin's signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
from fastapi import APIRouter, Response
from sqlalchemy import bindparam, select

from app.db import fetch
from app.deps import CurrentNode
from app.domain.errors import NotFound
from app.models import LeafRow, LogRow
from app.replication.witness import log_by_hash, policy_of
from app.timing import make_time_file
from app.tlog.checkpoint import Checkpoint, parse_size
from app.tlog.confirm import encode_history, read_history
from app.tlog.merkle import HASH_SIZE, inclusion_proof
from app.tlog.note import parse as parse_note
from app.tlog.proof import TlogProof
from app.tlog.publish import head_with_cosignatures
from app.tlog.store import node_reader, read_bundle, tile_reader
from app.tlog.tiles import TILE_WIDTH, BundlePath, TilePath, parse_tile_path, tile_width

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db import Database

router = APIRouter(tags=["log"])

TEXT: Final = "text/plain; charset=utf-8"
OCTETS: Final = "application/octet-stream"
IMMUTABLE: Final = {"cache-control": "public, max-age=31536000, immutable"}
FRESH: Final = {"cache-control": "no-cache"}

_LOGS: Final = LogRow.__table__.c
_HEAD_SIZE: Final = select(_LOGS.head_size).where(_LOGS.id == bindparam("log"))
_EARLIER: Final = select(_LOGS.id).where(
    _LOGS.origin == bindparam("origin"), _LOGS.epoch <= bindparam("newest")
)


class LogFiles:
    """One stored log as the resources that C2SP names. Raises NotFound for what is not there (yet)."""

    def __init__(self, db: Database, log_id: int) -> None:
        """Serve the log with this row id."""
        self._db, self._log_id = db, log_id

    def checkpoint(self, size: str | None = None) -> Response:
        """The newest checkpoint, or the one of a size with all its cosignatures."""
        wanted = None if size is None else parse_size(size.encode(), NotFound)  # type: ignore[arg-type]  # any other spelling names nothing
        with self._db.read() as session:
            raw = head_with_cosignatures(session, self._log_id, wanted)
        if raw is None:
            raise NotFound("There is no signed checkpoint of that size.")
        return Response(raw, media_type=TEXT, headers=FRESH)

    def tile(self, path: str) -> Response:
        """A hash tile or an entry bundle, in the width asked for, up to the newest signed head."""
        wanted = parse_tile_path(f"tile/{path}")
        with self._db.read() as session:
            ((size,),) = fetch(session, _HEAD_SIZE, log=self._log_id)
            level = wanted.level if isinstance(wanted, TilePath) else 0
            if tile_width(size, level, wanted.index) < wanted.width:
                raise NotFound("The log is not that large yet.")
            if isinstance(wanted, BundlePath):
                body = read_bundle(session, self._log_id, wanted)
            else:
                body = tile_reader(session, self._log_id)(level, wanted.index)[: wanted.width * HASH_SIZE]
        return Response(body, media_type=OCTETS, headers=IMMUTABLE if wanted.width == TILE_WIDTH else FRESH)

    def proof(self, index: str) -> Response:
        """A C2SP tlog-proof for one leaf against the newest checkpoint."""
        number = parse_size(index.encode(), NotFound)  # type: ignore[arg-type]  # any other spelling names nothing
        with self._db.read() as session:
            raw = head_with_cosignatures(session, self._log_id)
            if raw is None:
                raise NotFound("There is no signed checkpoint yet.")
            body = prove(session, self._log_id, number, raw).encode()
        return Response(body, media_type=TEXT, headers=FRESH)

    def history(self, start: str) -> Response:
        """Confirmed checkpoints of size `start` and above, one page."""
        number = parse_size(start.encode(), NotFound)  # type: ignore[arg-type]  # any other spelling names nothing
        with self._db.read() as session:
            body = encode_history(read_history(session, self._log_id, number))
        return Response(body, media_type=OCTETS, headers=FRESH)

    def time(self, node: CurrentNode, index: str) -> Response:
        """When one leaf was logged, as a file that proves it."""
        number = parse_size(index.encode(), NotFound)  # type: ignore[arg-type]  # any other spelling names nothing
        with self._db.read() as session:
            made = make_time_file(
                session, log_id=self._log_id, index=number, repository=node.roster_client.repository
            )
        return Response(orjson.dumps(made), media_type="application/json", headers=FRESH)


def prove(session: Session, log_id: int, index: int, head: bytes) -> TlogProof:
    """The tlog-proof of a leaf against a stored head.

    Raises:
        NotFound: the head does not cover the leaf.
    """
    size = Checkpoint.parse(parse_note(head).text).size
    leaf = session.execute(
        select(LeafRow.idx).where(LeafRow.log_id == log_id, LeafRow.idx == index)
    ).scalar_one_or_none()
    if leaf is None or index >= size:
        raise NotFound("No signed checkpoint covers that index yet.")
    return TlogProof(index, inclusion_proof(node_reader(session, log_id), index, size), head)


def _own(node: CurrentNode, epoch: int) -> LogFiles:
    """The own log, or an earlier epoch of it that this node holds: an ended log stays where the roster says it is."""
    host = node.origin.rpartition("/")[0]
    with node.db.read() as session:
        found = fetch(session, _EARLIER, origin=f"{host}/{epoch}", newest=node.settings.epoch)
    if not found:
        raise NotFound("This node serves no log of that epoch.")
    return LogFiles(node.db, found[0].id)


def _mirrored(node: CurrentNode, origin_hash: str) -> LogFiles:
    with node.db.read() as session:
        return LogFiles(node.db, log_by_hash(session, origin_hash)[0])


@router.get("/log/{epoch}/checkpoint")
def own_checkpoint(node: CurrentNode, epoch: int) -> Response:
    """The own log's newest checkpoint: its signature, then at most 16 cosignatures."""
    return _own(node, epoch).checkpoint()


@router.get("/log/{epoch}/checkpoint/{size}")
def own_checkpoint_of_size(node: CurrentNode, epoch: int, size: str) -> Response:
    """The checkpoint of a size that was signed, with every cosignature this node has for it."""
    return _own(node, epoch).checkpoint(size)


@router.get("/log/{epoch}/tile/{path:path}")
def own_tile(node: CurrentNode, epoch: int, path: str) -> Response:
    """A tile of the own log."""
    return _own(node, epoch).tile(path)


@router.get("/log/{epoch}/proof/{index}")
def own_proof(node: CurrentNode, epoch: int, index: str) -> Response:
    """A tlog-proof of one leaf of the own log."""
    return _own(node, epoch).proof(index)


@router.get("/log/{epoch}/history/{start}")
def own_history(node: CurrentNode, epoch: int, start: str) -> Response:
    """Confirmed checkpoints of the own log from a size on: at most 64, each led by its length in two bytes."""
    return _own(node, epoch).history(start)


@router.get("/log/{epoch}/time/{index}")
def own_time(node: CurrentNode, epoch: int, index: str) -> Response:
    """When one leaf of the own log was logged; `verbale verify --time` checks the file offline."""
    return _own(node, epoch).time(node, index)


@router.get("/log/{epoch}/policy")
def own_policy(node: CurrentNode, epoch: int) -> Response:
    """The C2SP tlog-policy of the own log: whose cosignatures, and how many, confirm a checkpoint of it."""
    _own(node, epoch)
    origin = f"{node.origin.rpartition('/')[0]}/{epoch}"
    policy = policy_of(node.roster(), origin, node.settings.witnesses)
    return Response(policy.encode(), media_type=TEXT, headers=FRESH)


@router.get("/mirror/{origin_hash}/checkpoint")
def mirrored_checkpoint(node: CurrentNode, origin_hash: str) -> Response:
    """The newest checkpoint of a log that this node mirrors, as far as it has proven it."""
    return _mirrored(node, origin_hash).checkpoint()


@router.get("/mirror/{origin_hash}/checkpoint/{size}")
def mirrored_checkpoint_of_size(node: CurrentNode, origin_hash: str, size: str) -> Response:
    """An earlier checkpoint of a mirrored log."""
    return _mirrored(node, origin_hash).checkpoint(size)


@router.get("/mirror/{origin_hash}/tile/{path:path}")
def mirrored_tile(node: CurrentNode, origin_hash: str, path: str) -> Response:
    """A tile of a mirrored log."""
    return _mirrored(node, origin_hash).tile(path)


@router.get("/mirror/{origin_hash}/proof/{index}")
def mirrored_proof(node: CurrentNode, origin_hash: str, index: str) -> Response:
    """A tlog-proof of one leaf of a mirrored log."""
    return _mirrored(node, origin_hash).proof(index)


@router.get("/mirror/{origin_hash}/history/{start}")
def mirrored_history(node: CurrentNode, origin_hash: str, start: str) -> Response:
    """Confirmed checkpoints of a mirrored log from a size on."""
    return _mirrored(node, origin_hash).history(start)


@router.get("/mirror/{origin_hash}/time/{index}")
def mirrored_time(node: CurrentNode, origin_hash: str, index: str) -> Response:
    """When one leaf of a mirrored log was logged."""
    return _mirrored(node, origin_hash).time(node, index)


@router.get("/mirror/{origin_hash}/policy")
def mirrored_policy(node: CurrentNode, origin_hash: str) -> Response:
    """The C2SP tlog-policy of a mirrored log."""
    with node.db.read() as session:
        _, origin = log_by_hash(session, origin_hash)
    return Response(policy_of(node.roster(), origin).encode(), media_type=TEXT, headers=FRESH)
