"""The outbox: numbers without holes that commit in order, one vocabulary, and what a statement causes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select, text

from app import migrations
from app.db import Database
from app.domain.events import EVENT_TYPES, PRIVATE
from app.events import MAX_DETAIL, Event, emit
from app.gate import ANONYMOUS, Principal, event_visible, may_see_event, operator, peer
from app.models import EventRow
from tests import examples
from tests.db.own_log import EE, amendment, erasure, judged, notice, open_log, record
from tests.federation.world import NOW


@pytest.fixture
def log(log_url: str) -> Iterator[tuple[Database, int]]:
    db, log_id = open_log(log_url)
    yield db, log_id
    db.dispose()


def events(db: Database) -> list[EventRow]:
    with db.read() as session:
        return list(session.scalars(select(EventRow).order_by(EventRow.seq)))


def types(db: Database) -> list[str]:
    return [row.type for row in events(db)]


def write(db: Database, *some: Event, live: bool = True) -> None:
    with db.write() as session:
        emit(db, session, some, now=NOW * 1000, live=live)


def test_an_event_is_written_with_what_caused_it_or_not_at_all(log: tuple[Database, int]) -> None:
    db, log_id = log
    write(db, Event("log.fault", log_id, detail={"code": "fork"}))

    def fail() -> None:
        with db.write() as session:
            emit(db, session, [Event("roster.changed", detail={"version": 2})], now=NOW * 1000)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    write(db, Event("roster.changed", detail={"version": 3}), live=False)
    assert [(e.seq, e.type, e.log_id, e.idx, e.detail, e.live) for e in events(db)] == [
        (1, "log.fault", log_id, None, '{"code":"fork"}', True),
        (2, "roster.changed", None, None, '{"version":3}', False),
    ]


def test_a_writer_that_commits_late_holds_up_the_numbers_after_it(log: tuple[Database, int]) -> None:
    db, _ = log
    seen: list[list[int]] = []
    took, begun = threading.Event(), threading.Event()

    def look() -> None:
        with db.read() as session:
            seen.append(list(session.scalars(select(EventRow.seq).order_by(EventRow.seq))))

    def second() -> None:
        took.wait()
        begun.set()
        write(db, Event("roster.changed"))
        look()

    thread = threading.Thread(target=second)
    thread.start()
    with db.write() as session:
        emit(db, session, [Event("roster.changed")], now=NOW * 1000)
        took.set()
        begun.wait()
        thread.join(0.2)  # it cannot end: it waits for this transaction
        assert thread.is_alive()
        look()
    thread.join()
    assert seen == [[], [1, 2]]


def test_many_writers_leave_no_hole_below_what_can_be_seen(log: tuple[Database, int]) -> None:
    db, _ = log
    done = threading.Event()
    bad: list[list[int]] = []

    def watch() -> None:
        while not done.is_set():
            with db.read() as session:
                seen = list(session.scalars(select(EventRow.seq).order_by(EventRow.seq)))
            if seen != list(range(1, len(seen) + 1)):
                bad.append(seen)

    def many() -> None:
        for n in range(15):
            write(db, *[Event("roster.changed")] * (n % 3 + 1))

    watcher = threading.Thread(target=watch)
    writers = [threading.Thread(target=many) for _ in range(4)]
    for thread in [watcher, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    watcher.join()
    assert bad == []
    assert len(events(db)) == 4 * 30


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Event("notice.heard_of"), "no type"),  # type: ignore[arg-type]
        (Event("watchlist.matched"), "have an owner"),
        (Event("notice.issued", 1, 0, 0, owner="t"), "others have none"),
        (Event("roster.changed", detail={"x": "y" * MAX_DETAIL}), "bytes"),
    ],
)
def test_what_is_outside_of_the_vocabulary_is_a_fault_of_the_program(
    log: tuple[Database, int], event: Event, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        write(log[0], event)
    assert events(log[0]) == []


@pytest.mark.parametrize(
    ("main", "told"),
    [
        (examples.question(issuer="EE"), "question.asked"),
        (examples.answer(issuer="EE"), "question.answered"),
        (examples.consultation_request(issuer="EE"), "consultation.requested"),
        (examples.consultation_response(issuer="EE"), "consultation.answered"),
        (examples.consultation_outcome(issuer="EE"), "consultation.closed"),
    ],
)
def test_a_question_or_consultation_is_told_as_a_notice_and_as_what_it_is(
    log: tuple[Database, int], main: dict[str, Any], told: str
) -> None:
    db, log_id = log
    record(db, log_id, [judged(EE.sign(main))])
    assert types(db) == ["notice.issued", told]


def test_an_amended_question_is_not_asked_again(log: tuple[Database, int]) -> None:
    db, log_id = log
    first = judged(EE.sign(examples.question(issuer="EE", tlp="TLP:CLEAR", audience="ALL")))
    record(db, log_id, [first])
    record(db, log_id, [amendment(first, "Better said")])
    assert types(db) == ["notice.issued", "question.asked", "notice.amended"]


@pytest.mark.parametrize("at_once", [True, False])
def test_an_erasure_remembers_who_could_read_the_notice(log: tuple[Database, int], at_once: bool) -> None:
    db, log_id = log
    first = judged(
        EE.sign(examples.best_practice(issuer="EE", tlp="TLP:AMBER", audience=["EE", "US"]), exp=NOW + 9)
    )
    if at_once:
        record(db, log_id, [first, erasure(first)])
    else:
        record(db, log_id, [first])
        record(db, log_id, [erasure(first)])
    erased = events(db)[-1]
    assert (erased.type, erased.tlp_rank, erased.audience) == ("notice.erased", 2, "EE US")
    open_one = notice()
    record(db, log_id, [open_one])
    assert (events(db)[-1].tlp_rank, events(db)[-1].audience) == (None, None)


CALLERS = (
    ANONYMOUS,
    operator("EE"),
    peer("US", "US/transport/1"),
    Principal("token", "EE", 4, frozenset({"read"}), "a"),
    Principal("token", "EE", 4, frozenset({"subscribe"}), "b"),
    Principal("token", "EE", 4, frozenset({"screen"}), "c"),
    Principal("peer", "US", 4, frozenset({"read"}), "a"),  # a key named as a token is
)


def test_both_forms_of_the_gate_agree_on_every_type_of_event(log: tuple[Database, int]) -> None:
    db, log_id = log
    record(db, log_id, [notice()])
    for type_ in EVENT_TYPES:
        leaf = None if type_ in {"log.fault", "roster.changed"} or type_.startswith("subscription") else 0
        for owner in ("a", "b") if type_ in PRIVATE else (None,):
            write(db, Event(type_, log_id, leaf, leaf, owner=owner))
    rows = events(db)
    with db.read() as session:
        for caller in CALLERS:
            selected = set(session.scalars(select(EventRow.seq).where(event_visible(caller))))
            assert selected == {
                e.seq for e in rows if may_see_event(caller, owner=e.owner, of_notice=e.idx is not None)
            }
    of_a, of_c = ({e.type for e in rows if may_see_event(c, owner=e.owner, of_notice=False)} for c in (CALLERS[3], CALLERS[5]))  # fmt: skip
    assert of_a >= {"watchlist.matched", "subscription.disabled", "log.fault"}
    assert of_c == set()
    assert not any(may_see_event(c, owner="b", of_notice=True) for c in CALLERS if c.id != "b")


BEFORE = """
INSERT INTO logs (id, origin, state, epoch, is_own, status, size, frontier, judged, head_size, backfilled, claimed_size)
VALUES (1, 'ee.example/log/1', 'EE', 1, true, 'ok', 1, '', 1, 0, true, 0);
INSERT INTO api_tokens (id, name, secret_hash, scopes, ceiling, created_at, expires_at)
VALUES ('t', 'n', '', 'read', 0, 0, 1);
INSERT INTO subscriptions (id, token_id, url, event_types, filter, scheme, status, fanned_seq, created_at, not_before)
VALUES ('s', 't', 'u', '[]', '{}', 'v1', 'active', 1, 0, 0);
INSERT INTO events (seq, type, log_id, idx, root_idx, at, live) VALUES (1, 'notice.issued', 1, 0, 0, 5, true);
INSERT INTO deliveries (id, subscription_id, event_seq, state, due_at, leased_until, attempts, created_at)
VALUES ('d', 's', 1, 'pending', 0, 0, 0, 0);
INSERT INTO counters (name, value) VALUES ('events', 1)
"""


def test_the_schema_goes_back_and_forth_over_events_that_were_delivered(empty_url: str) -> None:
    db = Database(empty_url)
    migrations.upgrade(db, "0001")
    with db.write() as session:
        for statement in BEFORE.strip().split(";\n"):
            session.execute(text(statement))
    migrations.upgrade(db)
    assert migrations.differences(db) == []
    write(db, Event("roster.changed"))
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(EventRow)) == 2
    migrations.downgrade(db, "0001")
    with db.read() as session:
        assert session.execute(text("SELECT seq FROM events")).all() == [(1,)]
        assert session.execute(text("SELECT id FROM deliveries")).all() == [("d",)]
        if db.is_sqlite:
            assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
            partial = session.execute(
                text("SELECT sql FROM sqlite_master WHERE name = 'ix_events_live_notice'")
            )
            assert "WHERE live" in partial.scalar_one()
    db.dispose()
