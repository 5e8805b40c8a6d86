"""The log check names the first thing that differs from what the stored leaves say, and nothing when nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from app import bodies
from app.domain.at_rest import fresh_key, seal
from app.domain.statement import Part, hash_leaf
from app.models import BodyKeyRow, BodyRow, CosignatureRow, EntryRow, HeadRow, LeafRow, LogRow, TileRow
from app.tlog.fsck import Difference, Keys, LogReport, check_log, logs_of
from app.tlog.store import append_leaves, lock_log
from tests import examples
from tests.federation.world import Peer, World


def check(peer: Peer, of: Peer | str | None = None) -> LogReport:
    return check_log(peer.db, peer.log(of).id, Keys.of(peer.world.roster))


def difference(peer: Peer, of: Peer | str | None = None) -> Difference:
    found = check(peer, of).difference
    assert found is not None
    return found


@pytest.fixture
def us(world: World) -> Peer:
    """The US with a mirror of EE: five leaves of which the last erases the third, two heads, each cosigned."""
    us, ee = world.make("US"), world.make("EE")
    ee.must_post(ee.officer.sign(examples.denied_end_user()))
    ee.must_post(ee.officer.sign(examples.technology_threat()))
    us.sync(ee)
    erased = ee.must_post(ee.officer.sign(examples.best_practice()))
    ee.must_post(ee.officer.sign(examples.best_practice(tlp="TLP:RED", audience=["NL"])))
    ee.must_post(ee.officer.sign(None, "erase", ref=erased.hash))
    us.sync(ee)
    return us


def test_a_store_that_nobody_touched_is_clean(us: Peer) -> None:
    report = check(us, "EE")
    assert report == LogReport(
        "ee.verbale.example/log/1", 5, leaves=5, entries=5, bodies=2, tiles=1, heads=2, cosignatures=2
    )
    assert [origin for _, origin, _ in logs_of(us.db)] == [
        "us.verbale.example/log/1",
        "ee.verbale.example/log/1",
    ]


def test_an_empty_log_is_clean_and_its_head_of_size_zero_is_checked(us: Peer) -> None:
    us.publish()
    assert check(us) == LogReport("us.verbale.example/log/1", 0, heads=1)
    with us.db.write() as session:
        session.execute(update(HeadRow).where(HeadRow.size == 0).values(root=b"\x01" * 32))
    assert difference(us).what == "head of size 0"


def forge_leaf(session: Session, log_id: int, *tables: Any) -> None:
    """Another leaf at index 1, with its hash put right in the tables named."""
    session.execute(
        update(LeafRow).where(LeafRow.log_id == log_id, LeafRow.idx == 1).values(leaf=b"forged" * 60)
    )
    for table in tables:
        session.execute(
            update(table)
            .where(table.log_id == log_id, table.idx == 1)
            .values(leaf_hash=hash_leaf(b"forged" * 60))
        )


def change(table: Any, **values: Any) -> Callable[[Session, int], None]:
    """Change the first row of a table in the order of its key."""

    def act(session: Session, log_id: int) -> None:
        row = session.scalars(
            select(table)
            .where(table.log_id == log_id)
            .order_by(*table.__table__.primary_key.columns)
            .limit(1)
        ).one()
        for name, value in values.items():
            setattr(row, name, value)

    return act


def drop(table: Any, **where: Any) -> Callable[[Session, int], None]:
    def act(session: Session, log_id: int) -> None:
        session.execute(
            delete(table).where(table.log_id == log_id, *(getattr(table, n) == v for n, v in where.items()))
        )

    return act


def set_log(**values: Any) -> Callable[[Session, int], None]:
    def act(session: Session, log_id: int) -> None:
        session.execute(update(LogRow).where(LogRow.id == log_id).values(values))

    return act


def bring_back(session: Session, log_id: int) -> None:
    put_body(session, log_id, 2, Part(b"s" * 32, b"{}"))


def put_body(session: Session, log_id: int, index: int, part: Part) -> None:
    """Whatever is stored of a body, replaced by this, properly sealed."""
    bodies.destroy(session, log_id, [index])
    key = fresh_key()
    session.add(BodyKeyRow(log_id=log_id, idx=index, key=key))
    sealed = seal(key, index, "main", part)
    session.add(BodyRow(log_id=log_id, idx=index, part="main", sealed=sealed, held_at=0))


def swap_content(session: Session, log_id: int) -> None:
    salt = bodies.opened(session, log_id, [0])[0]["main"].salt
    put_body(session, log_id, 0, Part(salt, b"{}"))


def swap_salt(session: Session, log_id: int) -> None:
    content = bodies.opened(session, log_id, [0])[0]["main"].content
    put_body(session, log_id, 0, Part(b"\x02" * 32, content))


def add_leaf(session: Session, log_id: int) -> None:
    session.add(LeafRow(log_id=log_id, idx=5, leaf_hash=hash_leaf(b"x"), leaf=b"x", received_at=0))


def widen_tile(session: Session, log_id: int) -> None:
    tile = session.get_one(TileRow, (log_id, 0, 0))
    tile.hashes = bytes(tile.hashes) + b"\0" * 32


def swap_notes(session: Session, log_id: int) -> None:
    """The signature of one head under another."""
    first, second = session.scalars(
        select(HeadRow).where(HeadRow.log_id == log_id).order_by(HeadRow.size)
    ).all()
    first.note = second.note


def break_signature(session: Session, log_id: int) -> None:
    head = session.scalars(select(HeadRow).where(HeadRow.log_id == log_id).order_by(HeadRow.size)).first()
    assert head is not None
    assert head.note is not None
    note = bytearray(head.note)
    at = note.rindex(b" ") + 20
    note[at] = ord("A") if note[at] != ord("A") else ord("B")
    head.note = bytes(note)


def break_cosignature(session: Session, log_id: int) -> None:
    row = session.scalars(select(CosignatureRow).where(CosignatureRow.log_id == log_id)).first()
    assert row is not None
    line = bytearray(row.line)
    at = line.rindex(b" ") + 40
    line[at] = ord("A") if line[at] != ord("A") else ord("B")
    row.line = bytes(line)


DAMAGES: tuple[tuple[Callable[[Session, int], None], str, str], ...] = (
    (forge_leaf, "leaf 1", "hash "),
    (lambda s, i: forge_leaf(s, i, LeafRow), "entry 1", "hash "),
    (lambda s, i: forge_leaf(s, i, LeafRow, EntryRow), "body 1", "statement"),
    (change(LeafRow, leaf_hash=b"\x01" * 32), "leaf 0", "hash 0101"),
    (drop(LeafRow, idx=3), "leaf 3", "nothing"),
    (add_leaf, "leaf 5", "a leaf"),
    (change(EntryRow, leaf_hash=b"\x01" * 32), "entry 0", "hash 0101"),
    (drop(EntryRow, idx=4), "entry 4", "nothing"),
    (swap_content, "body 0, part main", "does not open"),
    (swap_salt, "body 0, part main", "does not open"),
    (change(BodyRow, sealed=b"\x02" * 100), "bodies from 0 on", "does not open with the key"),
    (change(BodyKeyRow, key=b"\x02" * 32), "bodies from 0 on", "does not open with the key"),
    (drop(BodyRow, idx=1), "body 1", "parts nothing"),
    (drop(BodyKeyRow, idx=1), "body 1", "parts nothing"),
    (bring_back, "body 2", "main"),
    (change(TileRow, hashes=b"\x03" * 160), "tile/0/000.p/5, hash 0", "0303"),
    (drop(TileRow), "tile/0/000.p/5", "nothing"),
    (widen_tile, "tile/0/000.p/5", "6 hashes"),
    (change(HeadRow, root=b"\x04" * 32), "head of size 2", "root 0404"),
    (swap_notes, "head of size 2", "size 5"),
    (break_signature, "head of size 2", "does not hold"),
    (break_cosignature, "cosignature of us.verbale.example/witness over size 2", "does not hold"),
    (
        change(CosignatureRow, timestamp=7),
        "cosignature of us.verbale.example/witness over size 2",
        "time 7",
    ),
    (set_log(head_root=b"\x05" * 32), "newest head (size 5)", "root 0505"),
    (set_log(frontier=b"\0" * 7 + b"\x05" + b"\x06" * 64), "frontier", "0606"),
)
"""What is done to the store, what the check names, and what it says it found."""

TABLES = (LeafRow, EntryRow, BodyRow, BodyKeyRow, TileRow, HeadRow, CosignatureRow)


@contextmanager
def restored(peer: Peer, log_id: int) -> Iterator[None]:
    """Put every row of one log back at the end: a store for each damage would take its time."""
    with peer.db.read() as session:
        log = dict(session.execute(select(LogRow.__table__).where(LogRow.id == log_id)).mappings().one())
        kept = {
            table: [
                dict(row)
                for row in session.execute(select(table.__table__).where(table.log_id == log_id)).mappings()
            ]
            for table in TABLES
        }
    yield
    with peer.db.write() as session:
        for table, rows in kept.items():
            session.execute(delete(table).where(table.log_id == log_id))
            session.execute(insert(table), rows)
        session.execute(update(LogRow).where(LogRow.id == log_id).values(log))


def test_the_first_thing_that_differs_is_named(us: Peer) -> None:
    log_id = us.log("EE").id
    for damage, what, found in DAMAGES:
        with restored(us, log_id):
            with us.db.write() as session:
                damage(session, log_id)
            named = difference(us, "EE")
            assert named.what == what
            assert found in named.found
    assert check(us, "EE").difference is None


def fill(peer: Peer, log_id: int, first: int, count: int) -> None:
    """Leaves that are no statements: nobody has judged them yet."""
    leaves = [b"leaf %d" % n for n in range(first, first + count)]
    with peer.db.write() as session:
        log = lock_log(session, log_id)
        append_leaves(peer.db, session, log, [(hash_leaf(leaf), leaf) for leaf in leaves], at=0)


def test_tiles_above_the_lowest_level_are_derived_too(world: World) -> None:
    us = world.make("US")
    log_id = us.followed("NL").log_id
    fill(us, log_id, 0, 700)
    assert check(us, "NL") == LogReport("nl.verbale.example/log/1", 700, leaves=700, tiles=4)
    with us.db.write() as session:
        tile = session.get_one(TileRow, (log_id, 1, 0))
        tile.hashes = bytes(tile.hashes[:32]) + b"\x07" * 32
    assert difference(us, "NL").what == "tile/1/000.p/2, hash 1"


def test_a_log_that_grows_meanwhile_is_checked_up_to_where_it_was(world: World) -> None:
    us = world.make("US")
    log_id = us.followed("NL").log_id
    fill(us, log_id, 0, 300)

    def grow(done: int) -> None:
        fill(us, log_id, 300 if done == 256 else 500, 200)

    report = check_log(us.db, log_id, Keys(), grow)
    assert (report.size, report.leaves, report.difference) == (300, 300, None)
    assert us.log("NL").size == 700


def test_without_a_roster_roots_are_compared_and_signatures_counted_as_unchecked(us: Peer) -> None:
    report = check_log(us.db, us.log("EE").id, Keys.of(None))
    assert (report.difference, report.unchecked) == (None, 5)
