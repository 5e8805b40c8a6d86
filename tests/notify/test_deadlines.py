"""What the clock makes happen: once for each version, whenever it is asked, however often, and whoever is killed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import Database
from app.models import DeadlineRow, EventRow, NoticeRow
from app.notify.deadlines import DEADLINES, deadlines_step
from tests.notify.receivers import DAY, NOW, Log, SettableClock

S = NOW // 1000
"""08:00 UTC."""


def day(offset: int) -> str:
    return datetime.fromtimestamp(S + offset * 86_400, UTC).date().isoformat()


def told(db: Database) -> list[tuple[str, int | None, int | None]]:
    with db.read() as session:
        rows = session.execute(
            select(EventRow.type, EventRow.log_id, EventRow.idx)
            .where(EventRow.type.in_([d.type for d in DEADLINES]))
            .order_by(EventRow.seq)
        )
        return [(t, log_id, idx) for t, log_id, idx in rows]


def steps(db: Database, clock: SettableClock, run: int = 500) -> int:
    """Until there is no more; how many there were."""
    for n in range(1, 10_000):
        if not deadlines_step(db, clock, run=run):
            return n
    raise AssertionError


def issue(log: Log, **values: Any) -> int:
    """A notice whose row is whole when its event is written, as the fold does it."""
    idx = log.issue(event=False)
    log.set(idx, **values)
    log.event("notice.issued", idx, idx)
    return idx


def amend(log: Log, idx: int, **values: Any) -> int:
    version = log.follow("amend", idx, "notice.amended", **values, event=False)
    log.set(idx, current_idx=version, document_idx=version, content_idx=version)
    log.event("notice.amended", version, idx)
    return version


def test_a_notice_is_told_expired_once_when_its_second_comes(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    idx = issue(log, exp=S + 60)
    clock.now = NOW + 59_999
    steps(db, clock)
    assert told(db) == []
    clock.now = NOW + 60_000
    steps(db, clock)
    steps(db, clock)
    clock.now = NOW + 400 * DAY
    steps(db, clock)
    assert told(db) == [("notice.expired", log.id, idx)]


def test_a_day_ends_at_midnight_utc(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    expires, review = issue(log, valid_until=day(0)), issue(log, review_due=day(0))
    midnight = NOW - NOW % DAY + DAY
    clock.now = midnight - 1
    steps(db, clock)
    assert told(db) == []
    clock.now = midnight
    steps(db, clock)
    assert told(db) == [("notice.expired", log.id, expires), ("notice.review_overdue", log.id, review)]


def test_whichever_end_comes_first_counts_and_the_other_tells_nothing_more(
    db: Database, clock: SettableClock
) -> None:
    log = Log(db)
    steps(db, clock)
    idx = issue(log, exp=S + 60, valid_until=day(2), review_due=day(1))
    for days in (0.1, 1, 2, 3, 4):
        clock.now = NOW + round(days * DAY)
        steps(db, clock)
    assert told(db) == [("notice.expired", log.id, idx)]  # and what has ended needs no review


def test_what_passed_before_the_first_look_is_history(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    issue(log, exp=S - 60)
    backfilled = log.issue(live=False)
    steps(db, clock)
    log.set(backfilled, exp=S - 60)
    later = log.issue(event=False)
    log.set(later, exp=S - 60)
    log.event("notice.issued", later, later, live=False)
    steps(db, clock)
    assert told(db) == []


def test_a_version_that_arrives_when_its_time_has_passed_is_told_on_arrival(
    db: Database, clock: SettableClock
) -> None:
    log = Log(db)
    steps(db, clock)
    late = issue(log, exp=S - 60)
    first = issue(log, exp=S + 60)
    clock.now = NOW + 60_000
    steps(db, clock)
    again = amend(log, first, exp=S + 30)
    steps(db, clock)
    prolonged = amend(log, first, exp=S + 600)
    steps(db, clock)
    assert [idx for _, _, idx in told(db)] == [late, first, again]
    clock.now = NOW + 600_000
    steps(db, clock)
    assert told(db)[-1] == ("notice.expired", log.id, prolonged)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "withdrawn"},
        {"status": "erased", "content_state": "erased"},
        {"content_state": "none"},
        {"content_state": "recalled"},
    ],
)
def test_what_no_reader_is_shown_as_valid_does_not_expire(
    db: Database, clock: SettableClock, values: dict[str, str]
) -> None:
    log = Log(db)
    steps(db, clock)
    idx = issue(log, exp=S + 60)
    log.set(idx, **values)
    clock.now = NOW + 60_000
    steps(db, clock)
    assert told(db) == []


def test_a_long_stop_is_made_up_in_bounded_runs(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    wanted = {issue(log, exp=S + 1 + n) for n in range(12)}
    clock.now = NOW + 30 * DAY
    assert deadlines_step(db, clock, run=5)
    assert len(told(db)) == 5
    assert steps(db, clock, run=5) >= 2
    assert Counter(idx for _, _, idx in told(db)) == dict.fromkeys(wanted, 1)


def test_what_arrives_in_the_middle_of_a_run_is_told_once_before_and_behind_its_place(
    db: Database, clock: SettableClock
) -> None:
    behind, before = Log(db, "JP"), Log(db, "US")
    steps(db, clock)
    wanted = [issue(log, exp=S + 30) for log in (behind, behind, before, before)]
    clock.now = NOW + 60_000
    assert deadlines_step(db, clock, run=3)
    assert len(told(db)) == 3
    wanted += [issue(log, exp=S + 30) for log in (behind, before)]
    steps(db, clock, run=3)
    assert sorted(idx or 0 for _, _, idx in told(db)) == sorted(wanted)


def test_a_clock_that_is_set_back_tells_nothing_twice(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    idx = issue(log, exp=S + 60)
    for now in (NOW + 120_000, NOW - 3 * DAY, NOW + 30_000, NOW + 2 * DAY):
        clock.now = now
        steps(db, clock)
    assert told(db) == [("notice.expired", log.id, idx)]


@pytest.mark.parametrize("seed", range(6))
def test_every_version_is_told_once_whatever_happens_between_the_steps(
    db: Database, clock: SettableClock, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test that can be run again
    logs = [Log(db, "US"), Log(db, "JP")]
    steps(db, clock)
    notices: list[tuple[Log, int]] = []

    def deadlines() -> dict[str, Any]:
        moment = clock.now // 1000 + chance.randint(-200_000, 200_000)
        on = datetime.fromtimestamp(moment, UTC).date().isoformat()
        return {
            "exp": chance.choice([None, moment]),
            "valid_until": chance.choice([None, on]),
            "review_due": chance.choice([None, on]),
        }

    def passed() -> set[tuple[str, int, int]]:
        with db.read() as session:
            found: set[tuple[str, int, int]] = set()
            for deadline in DEADLINES:
                for row in session.scalars(select(NoticeRow).where(deadline.passed(clock.now))):
                    ended = session.scalar(
                        select(DEADLINES[0].passed(clock.now))
                        .select_from(NoticeRow)
                        .where(NoticeRow.log_id == row.log_id, NoticeRow.idx == row.idx)
                    )
                    if row.status == "active" and (deadline is DEADLINES[0] or not ended):
                        found.add((deadline.type, row.log_id, row.current_idx))
            return found

    for _ in range(40):
        what = chance.random()
        if what < 0.35 or not notices:
            log = chance.choice(logs)
            notices.append((log, issue(log, **deadlines())))
        elif what < 0.5:
            log, idx = chance.choice(notices)
            with db.read() as session:
                row = session.get_one(NoticeRow, (log.id, idx))
            if row.status == "active":
                amend(log, idx, **deadlines())
        elif what < 0.55:
            log, idx = chance.choice(notices)
            log.follow("withdraw", idx, "notice.withdrawn", status="withdrawn")
        elif what < 0.7:
            clock.now += chance.choice([1000, DAY // 4, DAY])
        elif what < 0.9:
            deadlines_step(db, clock, run=2)
        else:
            steps(db, clock, run=3)
            # A review that was overdue and told of stays told, though the notice has ended since.
            assert set(told(db)) >= passed()
    steps(db, clock, run=3)
    assert set(told(db)) >= passed()
    assert all(n == 1 for n in Counter(told(db)).values())


def test_two_workers_tell_everything_once(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    wanted = {issue(log, exp=S + 1 + n) for n in range(30)}
    clock.now = NOW + DAY
    workers = [threading.Thread(target=steps, args=(db, clock, 4)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    steps(db, clock)
    assert Counter(idx for _, _, idx in told(db)) == dict.fromkeys(wanted, 1)


def test_a_worker_that_dies_in_its_transaction_has_told_nothing(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    idx = issue(log, exp=S + 60)
    clock.now = NOW + 60_000

    class Killed(Database):
        """Its transactions end before their commit."""

        @contextmanager
        def write(self) -> Iterator[Session]:
            with super().write() as session:
                yield session
                raise KeyboardInterrupt

    killed = Killed(db.url.render_as_string(hide_password=False))
    with pytest.raises(KeyboardInterrupt):
        deadlines_step(killed, clock)
    killed.dispose()
    assert told(db) == []
    steps(db, clock)
    assert told(db) == [("notice.expired", log.id, idx)]


def test_the_mark_follows_a_flood_of_arrivals(db: Database, clock: SettableClock) -> None:
    log = Log(db)
    steps(db, clock)
    with db.write() as session:
        first = db.next_values(session, "events", 1200)
        session.add_all(
            EventRow(seq=first + n, type="notice.issued", log_id=log.id, idx=n, root_idx=n, at=NOW, live=True)
            for n in range(1200)
        )
    steps(db, clock)
    with db.read() as session:
        assert {row.seq for row in session.scalars(select(DeadlineRow))} == {first + 1199}
