"""Unpacking: a node follows, judges, opens and cosigns as ever, with the file where the network would be.

Idempotent: what is held already is compared and left. A crash leaves what was committed, window by window; unpacking the
same pouch again goes on from there. May run beside the node's server, which sees the new leaves as it would see a
worker's.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from app.domain.errors import PeerFault, RosterMissing, VerbaleError
from app.models import CosignatureRow, EntryRow, HeadRow, LogRow
from app.node import Node
from app.pouch.inspect import PouchRefused
from app.pouch.manifest import log_prefix, read_manifest
from app.pouch.transport import CARRIER, PouchTransport
from app.replication.client import MAX_CHECKPOINT_BYTES
from app.replication.follow import StaleHead
from app.replication.witness import WitnessAhead, collect_cosignatures, log_keys
from app.roster import RosterClient, layout
from app.tlog.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.clock import Clock
    from app.mirrors import Followed
    from app.pouch.archive import Pouch
    from app.pouch.manifest import Manifest
    from app.settings import Settings


@dataclass(slots=True)
class Taken:
    """What came of one log.

    Attributes:
        before, after: leaves proven here.
        bodies: how many came to be held.
        fault: why it was not taken, or not all of it; None if all is well.
    """

    origin: str
    before: int = 0
    after: int = 0
    bodies: int = 0
    fault: VerbaleError | None = None


@dataclass(slots=True)
class Unpacked:
    """What came of a pouch. `receipts` are other States' new cosignatures over this node's own log."""

    manifest: Manifest
    roster_version: int
    logs: list[Taken] = field(default_factory=list)
    receipts: int = 0


def unpack(
    settings: Settings, pouch: Pouch, *, clock: Clock, show: Callable[[int, str], None] = lambda *_: None
) -> Unpacked:
    """Take a pouch into the node that `settings` name.

    Args:
        show: told how many leaves are judged, and of which log.

    Raises:
        PouchMalformed, PouchRefused: nothing was taken; the roster in it does not verify.
        NodeFault: see `Node.open`.
    """
    manifest = read_manifest(pouch)
    with tempfile.TemporaryDirectory(prefix="verbale-pouch-") as scratch:
        _spread_roster(pouch, Path(scratch))
        pinned = settings.pinned_root.read_bytes()
        client = RosterClient(settings.roster_dir, (Path(scratch),), pinned)
        transport = PouchTransport(pouch, lambda: client.roster)
        node = Node(settings, clock=clock, peer_transport=transport, carriers=(CARRIER,))
        parts = node.from_settings()
        node.open(replace(parts, roster_client=client))
        try:
            _adopt(node, client)
            result = Unpacked(manifest, node.roster().version)
            done = 0
            for carried in manifest.logs:
                if carried.origin == node.origin:
                    result.receipts = _receipts(node, pouch)
                    continue
                followed = node.mirrors.followed(carried.origin)
                if followed is None:
                    fault = PouchRefused(carried.origin, "the roster lists no such log")
                    result.logs.append(Taken(carried.origin, fault=fault))
                    continue
                result.logs.append(_take(node, followed, lambda n, o=carried.origin, d=done: show(d + n, o)))  # type: ignore[misc]
                done += carried.end - carried.start
            return result
        finally:
            node.stop()


def _spread_roster(pouch: Pouch, directory: Path) -> None:
    """Lay the roster's files out for the client that verifies them; only names that a roster can hold are read."""
    for name in pouch.names:
        path = name.removeprefix("roster/")
        if path != name and layout.is_served(path):
            raw = pouch.read(name, layout.MAX_METADATA)
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw or b"")


def _adopt(node: Node, client: RosterClient) -> None:
    """The pouch's roster if it is newer and verifies; else the one the node has."""
    node.refresh_roster()
    try:
        node.roster()
    except RosterMissing as error:
        told = "; ".join(outcome.detail for outcome in client.outcomes)
        raise PouchRefused(
            "roster", f"this node has none, and the one in the pouch cannot be used: {told}"
        ) from error


def _take(node: Node, followed: Followed, show: Callable[[int], None]) -> Taken:
    taken = Taken(followed.origin)
    taken.before, held = _standing(node, followed)
    try:
        node.mirrors.follow(followed)
    except StaleHead:
        pass  # more is held here than was packed: the bodies may still be news
    except PeerFault as fault:
        taken.fault = fault
    followed.wanted_after = -1
    # Nobody waits here for a next look: go on until all that is wanted was asked for once.
    while node.mirrors.judge(followed) or followed.wanted_after >= 0:
        show(_judged(node, followed) - taken.before)
    taken.after, now_held = _standing(node, followed)
    taken.bodies = now_held - held
    return taken


def _standing(node: Node, followed: Followed) -> tuple[int, int]:
    with node.db.read() as session:
        size = session.execute(select(LogRow.head_size).where(LogRow.id == followed.log_id)).scalar_one()
        held = session.execute(
            select(func.count())
            .select_from(EntryRow)
            .where(EntryRow.log_id == followed.log_id, EntryRow.body_state == "held")
        ).scalar_one()
    return size, held


def _judged(node: Node, followed: Followed) -> int:
    with node.db.read() as session:
        return session.execute(select(LogRow.judged).where(LogRow.id == followed.log_id)).scalar_one()


def _receipts(node: Node, pouch: Pouch) -> int:
    """Keep the cosignatures that others gave this node's own log.

    Raises:
        WitnessAhead: others hold more of this log than this node: it was restored from an old copy.
        PouchRefused: the head is not one this node signed.
    """
    raw = pouch.read(f"{log_prefix(node.origin)}/checkpoint", MAX_CHECKPOINT_BYTES)
    if raw is None:
        return 0
    head, note = open_checkpoint(raw, log_keys(node.roster(), node.origin), node.origin)
    with node.db.read() as session:
        root = session.execute(
            select(HeadRow.root).where(HeadRow.log_id == node.log_id, HeadRow.size == head.size)
        ).scalar_one_or_none()
        size = session.execute(select(LogRow.size).where(LogRow.id == node.log_id)).scalar_one()
    if head.size > size:
        raise WitnessAhead(
            f"The pouch carries a head of {node.origin} of size {head.size}, and this node holds {size}: it was restored from "
            "an old copy. Do not post; see docs/operations.md."
        )
    if root != head.root:
        raise PouchRefused(
            node.origin,
            f"the head of size {head.size} is not the one this node signed: somebody else has its log key",
        )
    before = _cosignatures(node, head.size)
    collect_cosignatures(node.db, node.log_id, head.size, note, node.roster())
    return _cosignatures(node, head.size) - before


def _cosignatures(node: Node, size: int) -> int:
    with node.db.read() as session:
        return session.execute(
            select(func.count())
            .select_from(CosignatureRow)
            .where(CosignatureRow.log_id == node.log_id, CosignatureRow.size == size)
        ).scalar_one()
