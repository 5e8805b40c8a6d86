"""One transaction: leaves, bodies, rows and events of a batch, or nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from app.db import Database
from app.domain.encoding import b64u_encode
from app.domain.errors import IdReused, NoticeClosed, StaleReference
from app.domain.notices.amend import InapplicableAmendment
from app.models import BodyRow, EntryRow, EventRow, NoticeRow, NoticeTermRow, ScreenedRow
from app.record import Receipt, record_own
from tests import examples
from tests.db.own_log import (
    EE,
    ORIGIN,
    add_log,
    amendment,
    check_whole,
    erasure,
    judged,
    notice,
    open_log,
    record,
    withdrawal,
)
from tests.federation.world import NOW, dump, everything


@pytest.fixture
def log(log_url: str) -> Iterator[tuple[Database, int]]:
    db, log_id = open_log(log_url)
    yield db, log_id
    db.dispose()


def test_a_batch_gets_consecutive_indexes_in_its_order(log: tuple[Database, int]) -> None:
    db, log_id = log
    notices = [notice(f"n {n}") for n in range(7)]
    answers = record(db, log_id, notices[:3]) + record(db, log_id, notices[3:])
    assert answers == [
        Receipt(n.statement.id, index, n.statement.leaf_hash, ORIGIN, created=True)
        for index, n in enumerate(notices)
    ]
    assert check_whole(db, log_id) == 7


def test_what_is_refused_takes_no_index_and_disturbs_nothing(log: tuple[Database, int]) -> None:
    db, log_id = log
    first, last = notice(), notice()
    end = withdrawal(first)
    answers = record(
        db,
        log_id,
        [first, notice(statement_id=first.statement.id), end, amendment(first, "x"), withdrawal(end), last],
    )
    assert [a.index if isinstance(a, Receipt) else type(a) for a in answers] == [
        0,
        IdReused,
        1,
        NoticeClosed,
        NoticeClosed,
        2,
    ]
    assert check_whole(db, log_id) == 3


def test_together_or_one_by_one_the_rows_are_the_same(log: tuple[Database, int]) -> None:
    """Also of a notice that is issued and acted on in one transaction, and its place in the order of arrival."""
    db, together = log
    one_by_one = add_log(db, "two.example/log/1")
    acted_on, plain, over, gone = notice("acted on"), notice("plain"), notice("over"), notice("gone")
    batch = [
        acted_on,
        plain,
        over,
        judged(EE.sign(examples.denied_end_user(issuer="EE", tlp="TLP:CLEAR"), exp=NOW + 9)),
        amendment(acted_on, "amended"),
        withdrawal(over),
        gone,
        erasure(gone),
    ]
    assert len(record(db, together, batch)) == len(batch)
    for each in batch:
        record(db, one_by_one, [each])
    with db.read() as session:
        for row in (EntryRow, NoticeRow, NoticeTermRow, ScreenedRow, BodyRow):
            columns = [c for c in row.__table__.columns if c.name not in ("log_id", "seq", "sealed")]
            key = [c for c in columns if c.primary_key]
            rows = [
                session.execute(select(*columns).where(row.log_id == log_id).order_by(*key)).all()
                for log_id in (together, one_by_one)
            ]
            assert rows[0] == rows[1], row.__tablename__
            assert rows[0]
        for log_id in (together, one_by_one):
            arrived = session.scalars(
                select(NoticeRow.idx).where(NoticeRow.log_id == log_id).order_by(NoticeRow.seq)
            ).all()
            assert arrived == [0, 1, 2, 3, 6]
            told = session.execute(
                select(EventRow.type, EventRow.idx).where(EventRow.log_id == log_id).order_by(EventRow.seq)
            ).all()
            assert [(e.type.removeprefix("notice."), e.idx) for e in told] == [
                *(("issued", n) for n in range(4)),
                ("amended", 4),
                ("withdrawn", 5),
                ("issued", 6),
                ("erased", 7),
            ]


def test_of_two_amendments_of_one_version_the_first_counts(log: tuple[Database, int]) -> None:
    """Whether they come in one batch or in two."""
    db, log_id = log
    for together in (True, False):
        first = notice()
        record(db, log_id, [first])
        one, two = amendment(first, "one"), amendment(first, "two")
        answers = (
            record(db, log_id, [one, two])
            if together
            else record(db, log_id, [one]) + record(db, log_id, [two])
        )
        assert isinstance(answers[0], Receipt)
        assert isinstance(answers[1], StaleReference)


def test_the_same_statement_again_gets_its_first_receipt(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = notice()
    one, again = record(db, log_id, [first, first])
    before = everything(db)
    (later,) = record(db, log_id, [first])
    assert one.created
    assert not again.created
    assert not later.created
    assert {(r.index, r.leaf_hash) for r in (one, again, later)} == {(0, first.statement.leaf_hash)}
    assert everything(db) == before


def test_an_amendment_that_would_make_no_valid_notice_is_refused(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = notice()
    record(db, log_id, [first])
    before = everything(db)
    ref = first.statement.leaf_hash
    change = {"type": "question"}
    main = examples.amendment(
        first.statement.id, b64u_encode(ref), merge_patch=change, issuer="EE", tlp="TLP:CLEAR"
    )
    (answer,) = record(db, log_id, [judged(EE.sign(main, "amend", ref=ref))])
    assert isinstance(answer, InapplicableAmendment)
    assert everything(db) == before


class Crash(Exception):
    """The process ends here."""


def test_a_crash_before_the_commit_leaves_nothing(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = notice()
    record(db, log_id, [first])
    before = everything(db)
    with pytest.raises(Crash), db.write() as session:  # noqa: PT012 - the crash is the block's end
        record_own(db, session, log_id, [notice(), amendment(first, "x"), erasure(first)], now=NOW * 1000)
        raise Crash
    assert everything(db) == before
    assert check_whole(db, log_id) == 1
    assert [a.index for a in record(db, log_id, [notice()])] == [1]


def test_writers_that_race_leave_no_gap_and_no_double(log: tuple[Database, int], log_url: str) -> None:
    """Two processes on one database: each with its own engine."""
    db, log_id = log
    other = Database(log_url)
    answers: list[Receipt] = []

    def write(database: Database) -> None:
        for _ in range(5):
            answers.extend(record(database, log_id, [notice() for _ in range(3)]))

    threads = [threading.Thread(target=write, args=(d,)) for d in (db, other, db, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.dispose()
    assert sorted(a.index for a in answers) == list(range(60))
    assert check_whole(db, log_id) == 60


def test_erasing_leaves_leaves_and_takes_every_trace_of_the_body(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = notice("A title to be forgotten")
    second = amendment(first, "Another to be forgotten")
    end = withdrawal(second)
    record(db, log_id, [first, second, end, notice("Stays")])
    record(db, log_id, [erasure(end)])
    with db.read() as session:
        assert session.scalars(select(BodyRow.idx)).all() == [3]
        erased = session.scalars(select(NoticeRow).where(NoticeRow.idx == 0)).one()
        assert (erased.status, erased.title, erased.document, erased.search_text) == (
            "erased",
            None,
            None,
            None,
        )
        assert erased.withdrawn_on is None
    assert b"forgotten" not in repr(everything(db)).encode()
    assert check_whole(db, log_id) == 5


def test_every_event_is_written_with_what_it_tells_of(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = notice()
    second = amendment(first, "x")
    end = withdrawal(second)
    record(db, log_id, [first, second])
    record(db, log_id, [end, erasure(end)])
    with db.read() as session:
        told = session.execute(
            select(EventRow.type, EventRow.idx, EventRow.root_idx).order_by(EventRow.seq)
        ).all()
        assert (
            session.execute(select(func.count()).select_from(EventRow).where(~EventRow.live)).scalar_one()
            == 0
        )
    assert [tuple(t) for t in told] == [
        ("notice.issued", 0, 0),
        ("notice.amended", 1, 0),
        ("notice.withdrawn", 2, 0),
        ("notice.erased", 3, 0),
    ]


def test_one_batch_or_many_make_the_same_rows(log: tuple[Database, int]) -> None:
    """The fold does not depend on where batches end; a refusal neither."""
    db, one_by_one = log
    at_once = add_log(db, "copy.example/log/1")
    first, other = notice("first"), notice("other")
    second = amendment(first, "second")
    third = amendment(second, "third")
    end = withdrawal(third)
    gone = erasure(other)
    everyone = [
        first,
        other,
        second,
        first,
        gone,
        amendment(gone, "x"),
        amendment(first, "late"),
        third,
        end,
        erasure(end),
    ]
    separately = [type(record(db, one_by_one, [n])[0]) for n in everyone]
    together = [type(a) for a in record(db, at_once, everyone)]
    assert separately == together
    assert dump(db, log_id=one_by_one) == dump(db, log_id=at_once)
