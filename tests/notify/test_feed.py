"""The feed: nothing skipped, nothing twice, nothing above what the caller may see; and sharing one look."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, update

from app.domain.encoding import b64u_encode
from app.domain.errors import InvalidCursor, NotAuthenticated
from app.domain.handling import Tlp
from app.events import Event, emit
from app.gate import ANONYMOUS, Principal, may_read, peer
from app.models import ApiTokenRow, CounterRow, EntryRow, EventRow, NoticeRow
from app.notify import feed
from app.notify.feed import START, Position, ResyncNeeded, Span, View
from app.notify.hub import MOST_OF_ONE, Closing, FeedHub, Patience, TooManyStreams
from app.queries.filters import NoticeFilter
from tests.notify.receivers import NOW, Log, SettableClock, add_token, loopback_setup

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from app.db import Database
    from app.notify.setup import WebhookSetup

TOKEN = Principal("token", "EE", int(Tlp.RED), frozenset({"read"}), "token0")


def view(principal: Principal = TOKEN, types: frozenset[str] = frozenset(), **filters: str) -> View:
    return View.shared(principal, NoticeFilter.from_json(filters), types, live_only=False)


def read(
    db: Database, setup: WebhookSetup, asked: View, after: Position = START, *, limit: int = 100
) -> tuple[list[dict[str, Any]], Position]:
    """Everything from a place on, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        with db.read() as session:
            newest = feed.newest_seq(session)
            if after.seq == newest:
                return found, after
            span = feed.look(session, setup, asked, after, newest, limit=limit, now=NOW)
        assert span.upto.seq > after.seq
        assert all(after.seq < item.position.seq <= span.upto.seq for item in span.items)
        found += [_loads(item) for item in span.items]
        after = span.upto


def _loads(item: feed.Item) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(item.json)
    return value


def told(
    db: Database, setup: WebhookSetup, asked: View, after: Position = START, *, limit: int = 100
) -> list[tuple[str, int | None]]:
    return [(e["type"], e["data"].get("index")) for e in read(db, setup, asked, after, limit=limit)[0]]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_the_size_of_a_page_changes_nothing(db: Database, setup: WebhookSetup, limit: int) -> None:
    log = Log(db)
    issued = [log.issue(tlp=4 if n % 3 == 0 else 0, audience="JP" if n % 3 == 0 else "ALL") for n in range(9)]
    log.event("roster.changed", None, None, detail='{"version":2}')
    expected = [("notice.issued", idx) for n, idx in enumerate(issued) if n % 3] + [("roster.changed", None)]
    assert told(db, setup, view(), limit=limit) == expected
    assert told(db, setup, view(ANONYMOUS), limit=limit) == expected[:-1]


def test_an_event_says_the_same_as_a_webhook_does(db: Database, setup: WebhookSetup) -> None:
    log = Log(db)
    idx = log.issue(tlp=2, audience="EE")
    (event,), _ = read(db, setup, view())
    assert event.pop("id") == read(db, setup, view())[0][0]["id"]
    assert event == {
        "type": "notice.issued",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "live": True,
        "data": {
            "id": f"notice-US-{idx}",
            "version": 1,
            "issuer": "US",
            "type": "denied_end_user",
            "tlp": "TLP:AMBER",
            "status": "active",
            "origin": "us.verbale.example/log/1",
            "index": idx,
            "leaf_hash": b64u_encode(log.hash(idx)),
            "url": f"https://ee.example/v1/notices/notice-US-{idx}",
        },
    }


def test_filters_and_types_select(db: Database, setup: WebhookSetup) -> None:
    us, jp = Log(db, "US"), Log(db, "JP")
    us.issue()
    of_jp = jp.issue(type_="technology_threat")
    gone = jp.follow("withdraw", of_jp, "notice.withdrawn", status="withdrawn")
    us.event("log.fault", None, None)
    assert told(db, setup, view(issuer="JP"))[:2] == [("notice.issued", of_jp), ("notice.withdrawn", gone)]
    assert told(db, setup, view(types=frozenset({"notice.withdrawn"}))) == [("notice.withdrawn", gone)]
    assert told(db, setup, view(types=frozenset({"log.fault"}))) == [("log.fault", None)]
    assert told(db, setup, view(status="active", issuer="JP"))[:-1] == []


def test_history_is_told_and_marked_and_may_be_left_out(db: Database, setup: WebhookSetup) -> None:
    log = Log(db)
    old, new = log.issue(live=False), log.issue()
    events, _ = read(db, setup, view())
    assert [(e["data"]["index"], e["live"]) for e in events] == [(old, False), (new, True)]
    live = View.shared(TOKEN, NoticeFilter(), frozenset(), live_only=True)
    assert told(db, setup, live) == [("notice.issued", new)]


def test_an_erasure_is_told_to_those_who_could_read_the_notice_and_says_only_the_id(
    db: Database, setup: WebhookSetup
) -> None:
    log = Log(db)
    idx = log.issue(tlp=2, audience="EE NL")
    gone: dict[str, Any] = {
        "status": "erased",
        "content_state": "erased",
        "tlp_rank": 99,
        "audience_all": False,
        "type": None,
    }
    erasure = log.follow("erase", idx, "notice.erased", event=False, **gone)
    log.event("notice.erased", erasure, idx, tlp_rank=2, audience="EE NL")
    below = Principal("token", "EE", int(Tlp.GREEN), frozenset({"read"}), "low")
    for caller, knows in ((TOKEN, True), (peer("NL", "k"), True), (peer("JP", "k"), False), (below, False), (ANONYMOUS, False)):  # fmt: skip
        assert told(db, setup, view(caller)) == [("notice.erased", erasure)] * knows
    (event,), _ = read(db, setup, view(country="ZM"))  # no filter hides it: nothing is left to match
    assert (event["data"]["id"], event["data"]["type"], event["data"]["tlp"]) == (
        f"notice-US-{idx}",
        None,
        None,
    )


def test_a_newer_version_that_may_not_be_seen_is_told_as_a_recall_and_nothing_else(
    db: Database, setup: WebhookSetup
) -> None:
    log = Log(db)
    idx = log.issue(tlp=1)
    log.follow("amend", idx, "notice.amended", tlp=4, audience="EE", tlp_rank=4, audience_all=False)
    low = Principal("token", "EE", int(Tlp.GREEN), frozenset({"read"}), "low")
    (event,), _ = read(db, setup, view(low))
    assert event["type"] == "notice.recalled"
    assert event["data"] == {
        "id": f"notice-US-{idx}",
        "issuer": "US",
        "status": "recalled",
        "origin": log.origin,
        "url": f"https://ee.example/v1/notices/notice-US-{idx}",
        **dict.fromkeys(("version", "type", "tlp", "index", "leaf_hash")),
    }
    assert told(db, setup, view(low, frozenset({"notice.recalled"}))) == [("notice.recalled", None)]
    assert told(db, setup, view(low, frozenset({"notice.amended"}))) == []
    assert told(db, setup, view(ANONYMOUS)) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_gate_holds_for_every_event_and_caller(db: Database, setup: WebhookSetup, seed: int) -> None:
    """Against the rule said again in plain Python over all rows."""
    chance = random.Random(seed)  # noqa: S311 - a test that can be run again
    logs = {state: Log(db, state) for state in ("US", "EE")}
    audiences = ("ALL", "", "EE", "NL", "EE NL")
    roots: list[tuple[Log, int]] = []
    for _ in range(40):
        what = chance.random()
        tlp, audience = chance.randint(0, 4), chance.choice(audiences)
        log = logs[chance.choice(("US", "EE"))]
        if what < 0.5 or not roots:
            roots.append((log, log.issue(tlp=tlp, audience=audience)))
            continue
        log, idx = chance.choice(roots)
        if what < 0.6:
            log.event("watchlist.matched", idx, idx, owner=chance.choice(("token0", "token1")))
        elif what < 0.7:
            log.event("log.fault", None, None, owner=None)
        elif what < 0.8:
            log.acknowledge(log.hash(idx), tlp=tlp, audience=audience)
        else:
            with db.read() as session:
                entry = session.get_one(EntryRow, (log.id, idx))
            log.follow("withdraw", idx, "notice.withdrawn", tlp=entry.tlp_rank, audience=entry.audience or "")
    with db.read() as session:
        events = session.query(EventRow).order_by(EventRow.seq).all()
        entries = {(e.log_id, e.idx): e for e in session.query(EntryRow)}
        notices = {(n.log_id, n.idx): n for n in session.query(NoticeRow)}
    by_hash = {e.leaf_hash: e for e in entries.values()}

    def may(caller: Principal, log_id: int | None, root: int | None) -> bool:
        notice, entry = notices[log_id or 0, root or 0], entries[log_id or 0, root or 0]
        return may_read(caller, issuer=notice.issuer, tlp_rank=notice.tlp_rank, audience=entry.audience)

    def expected(caller: Principal) -> list[tuple[str, int | None]]:
        found: list[tuple[str, int | None]] = []
        for e in events:
            if e.owner is not None and (caller.kind, caller.id) != ("token", e.owner):
                continue
            if e.idx is None:
                if caller.scopes:
                    found.append((e.type, None))
                continue
            if e.type == "acknowledgement.received":
                ack = entries[e.log_id or 0, e.idx]
                acked = by_hash[ack.ref or b""]
                sender = next(s for s, log in logs.items() if log.id == e.log_id)
                seen = may(caller, acked.log_id, acked.root_idx) and may_read(
                    caller, issuer=sender, tlp_rank=ack.tlp_rank, audience=ack.audience
                )
            else:
                seen = may(caller, e.log_id, e.root_idx)
            if seen:
                found.append((e.type, e.idx))
        return found

    callers = [ANONYMOUS, peer("NL", "k"), peer("US", "k"), peer("JP", "k")]
    callers += [
        Principal("token", "EE", c, frozenset({"read"}), f"token{n}") for n in (0, 1) for c in range(5)
    ]
    for caller in callers:
        asked = view(caller)
        with db.read() as session:
            newest = feed.newest_seq(session)
            span = feed.look(session, setup, asked, START, newest, limit=1000, now=NOW)
            if caller.kind == "token":
                own = asked.private(caller.id or "")
                span = feed.merged(span, feed.look(session, setup, own, START, newest, limit=1000, now=NOW))
        assert [(i.type, _loads(i)["data"].get("index")) for i in span.items] == expected(caller)


def test_a_reader_beside_many_writers_meets_every_event_once_in_order(
    db: Database, setup: WebhookSetup
) -> None:
    done = threading.Event()

    def write(name: int) -> None:
        for n in range(25):
            with db.write() as session:
                some = [
                    Event("roster.changed", detail={"by": name, "n": n, "of": k}) for k in range(n % 3 + 1)
                ]
                emit(db, session, some, now=NOW + n)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    met: list[dict[str, Any]] = []

    def follow() -> None:
        after = START
        while True:
            last = done.is_set()
            some, after = read(db, setup, view(), after, limit=5)
            met.extend(some)
            if last:
                return

    reader = threading.Thread(target=follow)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    everything, _ = read(db, setup, view())
    assert len(everything) == 4 * sum(n % 3 + 1 for n in range(25))
    assert met == everything


# ── cursors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cursor_is_sealed_and_no_two_are_alike(db: Database, setup: WebhookSetup, tmp_path: Path) -> None:
    Log(db).issue()
    _, after = read(db, setup, view())
    first, second = feed.cursor_of(setup, after), feed.cursor_of(setup, after)
    assert first != second
    assert feed.read_cursor(setup, first) == feed.read_cursor(setup, second) == after
    flipped = first[:-1] + ("A" if first[-1] != "A" else "B")
    for bad in (flipped, "", "x", "oldestt", first[:-4], first + "AAAA"):
        with pytest.raises(InvalidCursor):
            feed.read_cursor(setup, bad)
    with pytest.raises(InvalidCursor):
        feed.read_cursor(loopback_setup(tmp_path / "other"), first)


def prune(db: Database, seq: int) -> None:
    """As the node forgets events, row by row or not at all."""
    with db.write() as session:
        position = feed.position_at(session, seq)
        for name, value in ((feed.PRUNED, seq), (feed.PRUNED_CHECK, position.check)):
            session.execute(
                db.upsert(CounterRow.__table__, ["name"], ["value"]).values(name=name, value=value)
            )
        session.execute(delete(EventRow).where(EventRow.seq <= seq))


def test_a_cursor_past_retention_is_told_to_resync_and_one_at_its_edge_goes_on(
    db: Database, setup: WebhookSetup
) -> None:
    log = Log(db)
    for _ in range(5):
        log.issue()
    with db.read() as session:
        places = [feed.position_at(session, n) for n in range(6)]
    prune(db, 3)
    with db.read() as session:
        for place in places[:3]:
            with pytest.raises(ResyncNeeded):
                feed.check(session, place)
            with pytest.raises(ResyncNeeded):  # and one who was reading when it happened
                feed.look(session, setup, view(), place, 5, limit=10, now=NOW)
        for place in places[3:]:
            feed.check(session, place)
        assert feed.oldest(session) == places[3]
    assert len(read(db, setup, view(), places[3])[0]) == 2


def test_a_cursor_of_events_that_a_restored_database_does_not_have_is_told_to_resync(
    db: Database, setup: WebhookSetup
) -> None:
    log = Log(db)
    for _ in range(4):
        log.issue()
    with db.read() as session:
        places = [feed.position_at(session, n) for n in range(5)]
    with db.write() as session:  # yesterday's copy
        session.execute(delete(EventRow).where(EventRow.seq > 2))
        session.execute(update(CounterRow).where(CounterRow.name == "events").values(value=2))

    def refused() -> list[int]:
        found = []
        with db.read() as session:
            for place in places:
                try:
                    feed.check(session, place)
                except ResyncNeeded:
                    found.append(place.seq)
        return found

    assert refused() == [3, 4]
    for _ in range(5):
        log.event("roster.changed", None, None, at=NOW + 1)
    assert refused() == [3, 4]  # the numbers are there again, and mean something else


# ── sharing and waiting ───────────────────────────────────────────────────────────────────────────────────────────


def running(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(within())


def test_those_who_see_alike_share_one_look(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    log, hub = Log(db), FeedHub(db, clock, setup, patience=Patience(poll=0.01))
    callers = [Principal("token", "EE", 4, frozenset({"read"}), add_token(db)) for _ in range(20)]
    low = [Principal("token", "EE", 0, frozenset({"read"}), add_token(db, ceiling=0)) for _ in range(5)]
    sat = asyncio.Semaphore(0)

    async def one(caller: Principal) -> Span:
        with hub.seat(caller) as seat:
            sat.release()
            newest = await hub.beyond(0, 30)
            assert newest == 2
            return await hub.span(seat.now(), view(caller), START, newest, limit=10)

    async def work() -> None:
        waiting = [asyncio.ensure_future(one(c)) for c in (*callers, *low)]
        for _ in waiting:
            await sat.acquire()
        assert hub.waiting == 25

        def happen() -> None:
            log.issue(tlp=0, event=False)
            log.issue(tlp=4, audience="EE", event=False)
            with db.write() as session:
                emit(db, session, [Event("notice.issued", log.id, n, n) for n in (0, 1)], now=NOW)

        await asyncio.to_thread(happen)
        hub.hint()
        spans = await asyncio.gather(*waiting)
        assert [len(s.items) for s in spans] == [2] * 20 + [1] * 5

    running(work())
    assert hub.looked == 2


def test_a_private_event_reaches_its_owner_among_many_who_share(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, hub = Log(db), FeedHub(db, clock, setup, patience=Patience(poll=0.01))
    mine, other = (Principal("token", "EE", 4, frozenset({"read"}), add_token(db)) for _ in range(2))
    idx = log.issue()
    log.event("watchlist.matched", idx, idx, owner=mine.id, detail='{"watchlist":"w"}')
    log.event("roster.changed", None, None)

    async def work() -> None:
        spans = [await hub.span(c, view(c), START, 3, limit=10) for c in (mine, other, ANONYMOUS)]
        assert [[i.type for i in s.items] for s in spans] == [
            ["notice.issued", "watchlist.matched", "roster.changed"],
            ["notice.issued", "roster.changed"],
            ["notice.issued"],
        ]
        assert _loads(spans[0].items[1])["data"]["watchlist"] == "w"

    running(work())


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_private_and_shared_events_come_in_one_order_whatever_the_page(
    db: Database, clock: SettableClock, setup: WebhookSetup, limit: int
) -> None:
    log, hub = Log(db), FeedHub(db, clock, setup)
    caller = Principal("token", "EE", 4, frozenset({"read"}), add_token(db))
    idx = log.issue()
    for n in range(8):
        log.event(
            "watchlist.matched" if n % 3 else "notice.amended", idx, idx, owner=caller.id if n % 3 else None
        )

    async def work() -> None:
        met: list[int] = []
        after = START
        while after.seq < 9:
            span = await hub.span(caller, view(caller), after, 9, limit=limit)
            met += [item.position.seq for item in span.items]
            after = span.upto
        assert met == list(range(1, 10))

    running(work())


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}, {"scopes": "subscribe"}])
def test_a_token_that_ends_ends_what_waits_under_it(
    db: Database, clock: SettableClock, setup: WebhookSetup, change: dict[str, Any]
) -> None:
    hub = FeedHub(db, clock, setup, patience=Patience(poll=0.01))
    caller = Principal("token", "EE", 4, frozenset({"read"}), add_token(db, scopes="read"))

    def end() -> None:
        with db.write() as session:
            for name, value in change.items():
                setattr(session.get_one(ApiTokenRow, caller.id), name, value)

    async def work() -> None:
        with hub.seat(caller) as seat:
            assert await hub.beyond(0, 0.05) is None
            assert seat.now() == caller
            await asyncio.to_thread(end)
            while seat.principal is not None:
                await hub.beyond(0, 0.02)
            with pytest.raises(NotAuthenticated):
                seat.now()

    running(work())


def test_a_ceiling_that_is_lowered_counts_at_the_next_event(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    hub = FeedHub(db, clock, setup, patience=Patience(poll=0.01))
    caller = Principal("token", "EE", 4, frozenset({"read"}), add_token(db, scopes="read"))

    def lower() -> None:
        with db.write() as session:
            session.get_one(ApiTokenRow, caller.id).ceiling = 0
        Log(db).issue(tlp=2, audience="EE")

    async def work() -> None:
        with hub.seat(caller) as seat:
            assert await hub.beyond(0, 0.05) is None
            await asyncio.to_thread(lower)
            newest = await hub.beyond(0, 30)
            assert newest == 1
            span = await hub.span(seat.now(), view(seat.now()), START, newest, limit=10)
            assert span.items == ()

    running(work())


def test_one_caller_cannot_take_all_places(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    hub = FeedHub(db, clock, setup)
    seats = [hub.seat(TOKEN) for _ in range(MOST_OF_ONE)]
    for seat in seats:
        seat.__enter__()
    with pytest.raises(TooManyStreams), hub.seat(TOKEN):
        pass
    with hub.seat(ANONYMOUS):
        assert hub.waiting == MOST_OF_ONE + 1
    for seat in seats:
        seat.__exit__(None, None, None)
    with hub.seat(TOKEN):
        assert hub.waiting == 1


def test_a_node_that_stops_lets_all_who_wait_go(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    hub = FeedHub(db, clock, setup)

    sat = asyncio.Event()

    async def one() -> None:
        with hub.seat(TOKEN):
            sat.set()
            with pytest.raises(Closing):
                await hub.beyond(0, 30)

    async def work() -> None:
        waiting = asyncio.ensure_future(one())
        await sat.wait()
        hub.close()
        await waiting

    running(work())
