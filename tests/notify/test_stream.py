"""The feed on a socket: long polls, streams that are resumed, consumers that are slow, gone, or past retention."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import delete

from app.db import Database
from app.domain.handling import Tlp
from app.events import Event, emit
from app.models import ApiTokenRow, CounterRow, EventRow
from app.notify import feed
from app.notify.hub import Patience
from tests.notify.live_feed import LiveFeed, bearer
from tests.notify.receivers import NOW, Log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.notify.setup import WebhookSetup


@pytest.fixture
def live(db: Database, setup: WebhookSetup, tmp_path: Path) -> Iterator[LiveFeed]:
    with LiveFeed(db, setup, tmp_path) as running:
        yield running


@pytest.fixture
def live_sqlite(sqlite_url: str, setup: WebhookSetup, tmp_path: Path) -> Iterator[LiveFeed]:
    """Where the engine makes no difference."""
    db = Database(sqlite_url)
    with LiveFeed(db, setup, tmp_path) as running:
        yield running
    db.dispose()


def tell(db: Database, count: int, *, first: int = 0) -> None:
    """Events of about 600 bytes that need no notice."""
    with db.write() as session:
        some = [Event("roster.changed", detail={"n": first + n, "filling": "x" * 500}) for n in range(count)]
        emit(db, session, some, now=NOW)


def forget(db: Database, seq: int) -> None:
    with db.write() as session:
        position = feed.position_at(session, seq)
        for name, value in ((feed.PRUNED, seq), (feed.PRUNED_CHECK, position.check)):
            session.execute(
                db.upsert(CounterRow.__table__, ["name"], ["value"]).values(name=name, value=value)
            )
        session.execute(delete(EventRow).where(EventRow.seq <= seq))


def indexes(answer: dict[str, Any]) -> list[int]:
    return [item["data"]["index"] for item in answer["items"]]


# ── one request ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reader_pages_through_everything_and_goes_on_from_next(live: LiveFeed) -> None:
    log = Log(live.db)
    issued = [log.issue() for _ in range(5)]
    met, cursor, more = [], "oldest", True
    while more:
        answer = live.events(f"?limit=2&cursor={cursor}")
        met += indexes(answer)
        cursor, more = answer["next"], answer["more"]
    assert met == issued
    assert live.events(f"?cursor={cursor}")["items"] == []
    later = log.issue()
    assert indexes(live.events(f"?cursor={cursor}")) == [later]
    item = live.events("?limit=1")["items"][0]
    assert indexes(live.events(f"?cursor={item['cursor']}")) == [*issued[1:], later]
    assert live.events("?cursor=newest")["items"] == []


def test_a_long_poll_is_answered_when_something_comes(live: LiveFeed) -> None:
    log = Log(live.db)
    log.issue()
    cursor = live.events("?cursor=newest")["next"]
    answers: list[dict[str, Any]] = []
    poll = threading.Thread(target=lambda: answers.append(live.events(f"?cursor={cursor}&wait=60")))
    poll.start()
    while not live.hub.waiting:
        assert poll.is_alive()
    hidden = log.issue(tlp=4, audience="JP")
    shown = log.issue()
    poll.join(60)
    assert indexes(answers[0]) == [shown] != [hidden]
    after = live.events(f"?cursor={answers[0]['next']}&wait=1")
    assert (after["items"], after["more"]) == ([], False)


def test_what_is_not_understood_is_refused(live_sqlite: LiveFeed) -> None:
    for query, code in (
        ("?wait=61", "invalid-filter"),
        ("?wait=-1", "invalid-filter"),
        ("?wait=1&wait=2", "invalid-filter"),
        ("?live=maybe", "invalid-filter"),
        ("?event_type=notice.heard_of", "invalid-filter"),
        ("?limit=0", "invalid-filter"),
        ("?limit=1001", "invalid-filter"),
        ("?colour=red", "invalid-filter"),
        ("?cursor=abc", "invalid-cursor"),
    ):
        answer = live_sqlite.get(query)
        assert (answer.status_code, answer.json()["type"].partition("#")[2]) == (400, code)
    _, no_read = bearer(live_sqlite.db, scopes=("subscribe",))
    assert live_sqlite.get(headers=no_read).status_code == 403
    assert live_sqlite.get(headers={"Authorization": "Bearer x"}).status_code == 401


def test_a_cursor_past_retention_is_answered_410_and_says_what_to_do(live: LiveFeed) -> None:
    tell(live.db, 5)
    _, token = bearer(live.db)
    cursor = live.events("?limit=1", token)["items"][0]["cursor"]
    forget(live.db, 3)
    answer = live.get(f"?cursor={cursor}", token)
    assert answer.status_code == 410
    assert answer.json()["type"].endswith("#resync-needed")
    assert "cursor=newest" in answer.json()["detail"]
    with live.stream(f"?cursor={cursor}", token) as stream:
        assert stream.status == 410
    assert len(live.events("", token)["items"]) == 2


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_begins_now_and_tells_what_comes(live: LiveFeed) -> None:
    log = Log(live.db)
    log.issue()
    with live.stream() as stream:
        assert stream.block().keys() == {"retry", "id"}
        hidden, shown = log.issue(tlp=4, audience="JP"), log.issue()
        name, item = stream.event()
        assert (name, item["type"], item["data"]["index"]) == ("notice.issued", "notice.issued", shown)
        assert hidden != shown
        before = stream.last_id
        while "data" in (beat := stream.block()):
            pass
        assert beat["id"] != before  # a heartbeat moves the place and says nothing
        assert indexes(live.events(f"?cursor={stream.last_id}")) == []


def test_a_stream_that_broke_off_goes_on_after_a_restart_without_loss_or_repetition(
    live: LiveFeed, db: Database, setup: WebhookSetup, tmp_path: Path
) -> None:
    log = Log(db)
    issued = [log.issue() for _ in range(3)]
    with live.stream("?cursor=oldest") as stream:
        met = [stream.event()[1]["data"]["index"] for _ in range(2)]
        resume = stream.last_id
    live.__exit__()
    issued += [log.issue() for _ in range(2)]
    with LiveFeed(db, setup, tmp_path) as again:
        with again.stream("", {"Last-Event-ID": resume}) as stream:
            met += [stream.event()[1]["data"]["index"] for _ in range(3)]
        assert met == issued
    live.__enter__()  # for the fixture, which ends it


def test_a_slow_consumer_loses_nothing_and_is_not_read_ahead_for(
    db: Database, setup: WebhookSetup, tmp_path: Path
) -> None:
    tell(db, 4_000)
    _, token = bearer(db)
    patient = Patience(poll=0.05, heartbeat=5, send=60)
    with (
        LiveFeed(db, setup, tmp_path, patience=patient, send_buffer=16_384) as live,
        live.stream("?cursor=oldest", token, receive_buffer=16_384) as stream,
    ):
        other = [live.events("?limit=1000&cursor=oldest", token)["items"] for _ in range(3)]  # is not held up
        assert [len(items) for items in other] == [1000] * 3
        looked = live.hub.looked
        tell(db, 50, first=4_000)
        live.events("?cursor=newest", token)
        # 2.4 MB wait for it; what was read for it is what the buffers take, and not a page more.
        assert live.hub.looked - looked <= 1
        assert looked < 20
        met = [stream.event()[1]["data"]["n"] for _ in range(4_050)]
    assert met == list(range(4_050))


def test_a_consumer_that_takes_nothing_is_cut_off_and_gives_its_place_back(
    db: Database, setup: WebhookSetup, tmp_path: Path
) -> None:
    tell(db, 4_000)
    _, token = bearer(db)
    with LiveFeed(db, setup, tmp_path, send_buffer=16_384) as live:
        with live.stream("?cursor=oldest", token, receive_buffer=16_384) as stream:
            while live.hub.waiting:
                pass
            met = [item["data"]["n"] for _, item in stream.to_end()]
            assert met == list(range(len(met)))
        rest = live.events(f"?limit=1000&cursor={stream.last_id}", token)["items"]
        assert rest[0]["data"]["n"] == len(met)


def test_a_consumer_past_retention_is_told_on_its_stream(
    db: Database, setup: WebhookSetup, tmp_path: Path
) -> None:
    tell(db, 4_000)
    _, token = bearer(db)
    patient = Patience(poll=0.05, heartbeat=5, send=60)
    with (
        LiveFeed(db, setup, tmp_path, patience=patient, send_buffer=16_384) as live,
        live.stream("?cursor=oldest", token, receive_buffer=16_384) as stream,
    ):
        stream.block()
        forget(db, 3_990)
        met = []
        while (event := stream.event())[0] != "problem":
            met.append(event[1]["data"]["n"])
        assert met == list(range(len(met)))  # what was on its way, then the truth
        assert event[1]["type"].endswith("#resync-needed")
        assert event[1]["status"] == 410
        with pytest.raises(EOFError):
            stream.block()


def test_a_revoked_token_ends_its_stream_with_the_reason(live: LiveFeed) -> None:
    id_, token = bearer(live.db, ceiling=Tlp.GREEN)
    log = Log(live.db)
    with live.stream("", token) as stream:
        stream.block()
        with live.db.write() as session:
            session.get_one(ApiTokenRow, id_).revoked_at = NOW
        log.issue()
        name, problem = stream.event()
        assert (name, problem["status"]) == ("problem", 401)
        with pytest.raises(EOFError):
            stream.block()
    while live.hub.waiting:
        pass


def test_a_consumer_that_goes_away_gives_its_place_back(live_sqlite: LiveFeed) -> None:
    with live_sqlite.stream() as stream:
        stream.block()
        assert live_sqlite.hub.waiting == 1
    while live_sqlite.hub.waiting:
        pass


def test_a_server_that_stops_ends_its_streams_at_once_and_cleanly(live_sqlite: LiveFeed) -> None:
    with live_sqlite.stream() as stream:
        stream.block()
        live_sqlite.__exit__()
        assert stream.to_end() == []
    live_sqlite.__enter__()


def test_a_life_ends_and_the_consumer_comes_back(
    sqlite_url: str, setup: WebhookSetup, tmp_path: Path
) -> None:
    db = Database(sqlite_url)
    with (
        LiveFeed(db, setup, tmp_path, patience=Patience(poll=0.05, heartbeat=0.05, life=0.2)) as live,
        live.stream() as stream,
    ):
        assert stream.to_end() == []
    db.dispose()


def test_a_client_that_is_not_ours_reads_the_stream(live_sqlite: LiveFeed) -> None:
    log = Log(live_sqlite.db)
    issued = [log.issue() for _ in range(3)]
    url = f"{live_sqlite.url}/v1/feed/stream?cursor=oldest"
    with httpx.stream("GET", url, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        data = [next(line for line in lines if line.startswith("data: ")) for _ in issued]
    assert all(f'"index":{idx},' in line for idx, line in zip(issued, data, strict=True))
