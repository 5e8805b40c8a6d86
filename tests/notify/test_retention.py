"""Events are forgotten after their time, never before somebody was told of them, and never silently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select

from app.models import DeliveryRow, EventRow, SubscriptionRow
from app.notify import feed, outbox
from app.notify.feed import ResyncNeeded
from app.notify.retention import retention_step
from tests.notify.receivers import DAY, NOW, Log, SettableClock, add_token, subscribe

if TYPE_CHECKING:
    from app.db import Database
    from app.notify.setup import WebhookSetup

URL = "http://127.0.0.1:9999/hook"


def kept(db: Database) -> list[int]:
    with db.read() as session:
        return list(session.scalars(select(EventRow.seq).order_by(EventRow.seq)))


def forget(db: Database, clock: SettableClock, **options: Any) -> int:
    steps = 0
    while retention_step(db, clock, 90, **options):
        steps += 1
    return steps


def history(log: Log, count: int, *, at: int = NOW) -> None:
    for _ in range(count):
        log.event("roster.changed", None, None, at=at)


def test_what_is_old_is_forgotten_in_bounded_steps_and_cursors_before_it_are_told(
    db: Database, clock: SettableClock
) -> None:
    log = Log(db)
    history(log, 7)
    history(log, 3, at=NOW + DAY)
    with db.read() as session:
        places = [feed.position_at(session, n) for n in range(11)]
    clock.now = NOW + 90 * DAY
    assert forget(db, clock) == 0
    clock.now += 1
    assert forget(db, clock, run=3) >= 3
    assert kept(db) == [8, 9, 10]
    with db.read() as session:
        feed.check(session, places[7])
        feed.check(session, places[10])
        with pytest.raises(ResyncNeeded):
            feed.check(session, places[6])


def test_the_newest_event_stays_so_that_who_has_seen_everything_need_not_resync(
    db: Database, clock: SettableClock
) -> None:
    log = Log(db)
    history(log, 4)
    with db.read() as session:
        newest = feed.position_at(session, 4)
    clock.now = NOW + 900 * DAY
    forget(db, clock)
    assert kept(db) == [4]
    with db.read() as session:
        feed.check(session, newest)
    history(log, 1, at=clock.now)
    assert kept(db) == [4, 5]


def test_a_subscription_that_was_not_told_yet_keeps_its_events(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    history(log, 2)
    id_, _ = subscribe(db, setup, token, URL)
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).status = "paused"
    history(log, 3)
    clock.now = NOW + 900 * DAY
    forget(db, clock)
    assert kept(db) == [3, 4, 5]
    with db.read() as session:  # for the feed they are gone all the same
        assert feed.oldest(session).seq == 4
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).fanned_seq = 4
    forget(db, clock)
    assert kept(db) == [5]


def test_a_delivery_in_the_log_keeps_its_event(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL)
    for _ in range(3):
        log.issue()
    outbox.fan_out_step(db, clock, setup)
    clock.now = NOW + 900 * DAY
    forget(db, clock)
    assert kept(db) == [1, 2, 3]
    with db.write() as session:
        session.execute(delete(DeliveryRow).where(DeliveryRow.event_seq < 3))
    forget(db, clock)
    assert kept(db) == [3]
