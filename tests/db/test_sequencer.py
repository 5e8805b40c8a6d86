"""Group commit: an answer means durable, and a failure means that nothing was stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.db import Database
from app.domain.errors import Busy, VerbaleError
from app.intake import MAX_QUEUED, Sequencer
from app.record import Receipt
from tests.db.own_log import check_whole, notice, open_log
from tests.federation.world import NOW, everything


class Bent(Database):
    """A database whose commits wait for a gate, or fail."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.fails = False
        self.commits = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        with super().write() as session:
            yield session
            self.waiting.set()
            assert self.gate.wait(60)
            if self.fails:
                raise OSError("No space left on device")
        self.commits += 1


@pytest.fixture
def bent(log_url: str) -> Iterator[tuple[Bent, int, Sequencer, list[int]]]:
    db, log_id = open_log(log_url)
    db.dispose()
    bent_db = Bent(log_url)
    woken: list[int] = []
    sequencer = Sequencer(bent_db, log_id, lambda: NOW * 1000, lambda: woken.append(1))
    sequencer.start()
    yield bent_db, log_id, sequencer, woken
    sequencer.stop()
    bent_db.dispose()


Bench = tuple[Bent, int, Sequencer, list[int]]


def test_nobody_is_answered_before_the_commit(bent: Bench, log_url: str) -> None:
    db, log_id, sequencer, woken = bent
    db.gate.clear()
    future = sequencer.submit([notice()])
    assert db.waiting.wait(60)
    assert not future.done()
    assert woken == []
    other = Database(log_url)
    assert check_whole(other, log_id) == 0  # nobody else sees it either
    db.gate.set()
    (receipt,) = future.result(10)
    assert isinstance(receipt, Receipt)
    assert check_whole(other, log_id) == 1
    other.dispose()


def test_a_commit_that_fails_is_told_to_everybody_and_stores_nothing(bent: Bench) -> None:
    db, log_id, sequencer, woken = bent
    before = everything(db)
    db.fails = True
    futures = [sequencer.submit([notice(), notice()]) for _ in range(3)]
    for future in futures:
        with pytest.raises(VerbaleError):
            future.result(10)
    assert everything(db) == before
    assert woken == []
    db.fails = False
    (receipt,) = sequencer.submit([notice()]).result(10)
    assert isinstance(receipt, Receipt)
    assert receipt.index == 0
    assert woken == [1]
    assert check_whole(db, log_id) == 1


def test_what_gathers_during_a_commit_shares_the_next_one(bent: Bench) -> None:
    db, log_id, sequencer, _ = bent
    db.gate.clear()
    first = sequencer.submit([notice()])
    assert db.waiting.wait(60)
    rest = [sequencer.submit([notice()]) for _ in range(40)]
    db.gate.set()
    indexes = [future.result(20)[0].index for future in (first, *rest)]  # type: ignore[union-attr]
    assert indexes == list(range(41))
    assert db.commits == 2
    assert check_whole(db, log_id) == 41


def test_many_threads_at_once_get_one_index_each(bent: Bench) -> None:
    db, log_id, sequencer, _ = bent
    answers: list[Any] = []
    ready = threading.Barrier(60)

    def post() -> None:
        mine = notice()
        ready.wait(30)
        answers.extend(sequencer.submit([mine]).result(30))

    threads = [threading.Thread(target=post) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(a.index for a in answers) == list(range(60))
    assert all(a.created for a in answers)
    assert check_whole(db, log_id) == 60


def test_one_bad_notice_does_not_spoil_a_shared_commit(bent: Bench) -> None:
    _, _, sequencer, _ = bent
    good = notice()
    answers = sequencer.submit([good, notice(statement_id=good.statement.id), notice()]).result(10)
    assert [a.index if isinstance(a, Receipt) else a.code for a in answers] == [0, "id-reused", 1]


def test_what_is_queued_when_the_node_stops_is_committed_and_answered(bent: Bench) -> None:
    db, log_id, sequencer, _ = bent
    db.gate.clear()
    futures = [sequencer.submit([notice()]) for _ in range(5)]
    stopping = threading.Thread(target=sequencer.stop)
    stopping.start()
    db.gate.set()
    stopping.join(60)
    assert [future.result(1)[0].index for future in futures] == list(range(5))  # type: ignore[union-attr]
    assert check_whole(db, log_id) == 5


def test_too_much_at_once_is_refused_and_not_piled_up(bent: Bench) -> None:
    db, _, sequencer, _ = bent
    one = notice()
    db.gate.clear()
    waiting = sequencer.submit([one])
    assert db.waiting.wait(60)
    with pytest.raises(Busy):
        sequencer.submit([one] * MAX_QUEUED)
    db.gate.set()
    waiting.result(10)
    assert len(sequencer.submit([one] * 3).result(10)) == 3
    assert sequencer._queued == 0  # neither what was refused nor what was stored counts for ever
