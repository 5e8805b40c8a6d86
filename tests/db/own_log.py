"""An own log in an empty database, and notices judged for it: what recording needs, without a node."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import select

from app.db import Database
from app.domain.encoding import b64u_encode
from app.domain.roster import Roster, RosterKey, RosterLog, RosterState
from app.domain.signed import SignedNotice
from app.domain.statement import hash_leaf
from app.judging import Context, Judged, judge_posted
from app.models import EntryRow, HeadRow, LogRow
from app.record import record_own
from app.tlog.merkle import Frontier, tree_root
from app.tlog.store import node_reader, read_leaves
from tests import examples
from tests.federation.world import DAY, NOW, Officer, Signed, origin_of, seeded

ORIGIN = origin_of("EE")
EE = Officer("EE", seeded("EE/cp/1"))
LOG = seeded("EE/log/1")
ROSTER = Roster(
    1,
    "ab" * 32,
    NOW + DAY,
    MappingProxyType(
        {
            "EE": RosterState(
                "EE",
                "Estonia",
                logs=(RosterLog(ORIGIN, 1, "http://x/log/1"),),
                keys=(RosterKey("EE/cp/1", "notices", EE.signer.public, NOW - DAY),),
            )
        }
    ),
)


def begin(database_url: str) -> tuple[Database, int]:
    """An empty own log in a database with the schema; (database, row id)."""
    db = Database(database_url)
    return db, add_log(db, ORIGIN, own=True)


def open_log(log_url: str) -> tuple[Database, int]:
    """The log that the fixture `log_url` has begun; (database, row id)."""
    db = Database(log_url)
    with db.read() as session:
        return db, session.execute(select(LogRow.id).where(LogRow.origin == ORIGIN)).scalar_one()


def add_log(db: Database, origin: str, *, own: bool = False) -> int:
    with db.write() as session:
        row = LogRow(
            origin=origin, epoch=1, state="EE", is_own=own, status="ok", frontier=b"", backfilled=True
        )
        session.add(row)
        session.flush()
        return row.id


def judged(signed: Signed) -> Judged:
    return judge_posted(SignedNotice(signed.leaf, signed.parts), Context(ORIGIN, ROSTER, NOW))


def notice(title: str = "A practice", **kwargs: Any) -> Judged:
    return judged(EE.sign(examples.best_practice(issuer="EE", title=title), **kwargs))


def amendment(of: Judged, title: str) -> Judged:
    ref = of.statement.leaf_hash
    main = examples.amendment(
        of.statement.id, b64u_encode(ref), merge_patch={"title": title}, issuer="EE", tlp="TLP:CLEAR"
    )
    return judged(EE.sign(main, "amend", ref=ref))


def withdrawal(of: Judged) -> Judged:
    ref = of.statement.leaf_hash
    main = examples.withdrawal(of.statement.id, b64u_encode(ref), issuer="EE", tlp="TLP:CLEAR")
    return judged(EE.sign(main, "withdraw", ref=ref))


def erasure(of: Judged) -> Judged:
    return judged(EE.sign(None, "erase", ref=of.statement.leaf_hash))


def record(db: Database, log_id: int, notices: Sequence[Judged]) -> list[Any]:
    with db.write() as session:
        return list(record_own(db, session, log_id, notices, now=NOW * 1000))


def log_row(db: Database, log_id: int) -> LogRow:
    with db.read() as session:
        return session.execute(select(LogRow).where(LogRow.id == log_id)).scalar_one()


def check_whole(db: Database, log_id: int) -> int:
    """Every leaf, hash, tile and entry of the log agree; returns its size."""
    with db.read() as session:
        log = session.execute(select(LogRow).where(LogRow.id == log_id)).scalar_one()
        leaves = read_leaves(session, log_id, 0, log.size)
        root = Frontier().extend([hash_leaf(leaf) for leaf in leaves]).root()
        assert root == Frontier.from_bytes(log.frontier).root() if log.frontier else log.size == 0
        if log.size:
            assert root == tree_root(node_reader(session, log_id), log.size)
        entries = session.scalars(
            select(EntryRow).where(EntryRow.log_id == log_id).order_by(EntryRow.idx)
        ).all()
        assert [e.idx for e in entries] == list(range(log.size))
        assert [e.leaf_hash for e in entries] == [hash_leaf(leaf) for leaf in leaves]
        return log.size


def heads(db: Database, log_id: int) -> dict[int, HeadRow]:
    with db.read() as session:
        return {h.size: h for h in session.scalars(select(HeadRow).where(HeadRow.log_id == log_id))}
