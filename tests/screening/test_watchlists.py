"""Watch-lists: a new notice asks the stored parties, in its own transaction, and a person's decision keeps it quiet."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import delete, func, select, text, update

from app.domain.handling import Tlp
from app.models import EventRow, NoticeRow, WatchEntryRow, WatchHitRow, WatchlistRow
from app.screening import watchlists
from app.screening.application import Asked, read_party
from app.screening.watch import COMPARED, SCREENED, Watcher, write_hits
from tests.db.test_rebuild import amendment, rebuild, withdrawal
from tests.federation.world import DAY, HANGS_S, Peer, World
from tests.screening.asking import ACME, denial, token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.gate import Principal
    from app.screening.answering import Finder, Found


@pytest.fixture
def ee(world: World) -> Peer:
    return world.make("EE")


def call(peer: Peer, method: str, path: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
    options = {} if body is None else {"json": body}
    return peer.request(method, f"/v1/watchlists{path}", headers=headers, **options)


def made(peer: Peer, headers: dict[str, str], **members: Any) -> str:
    answer = call(peer, "POST", "", headers, {"name": "Portfolio"} | members)
    assert answer.status_code == 201, answer.text
    return f"/{answer.json()['id']}"


def hits(peer: Peer, path: str, headers: dict[str, str], state: str = "open") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = call(peer, "GET", f"{path}/hits?state={state}", headers).json()["items"]
    return items


def told(peer: Peer) -> list[dict[str, Any]]:
    """The details of all `watchlist.matched`, in order."""
    with peer.db.read() as session:
        rows = session.scalars(
            select(EventRow).where(EventRow.type == "watchlist.matched").order_by(EventRow.seq)
        )
        return [json.loads(row.detail or "{}") | {"owner": row.owner, "live": row.live} for row in rows]


def test_a_new_notice_is_told_to_whoever_watches_its_party_in_the_transaction_that_records_it(
    ee: Peer,
) -> None:
    headers, other = token(ee), token(ee)
    path, quiet = made(ee, headers), made(ee, other)
    entry = call(ee, "PUT", f"{path}/entries/licence-7", headers, ACME)
    assert (entry.status_code, entry.json()["state"], entry.json()["hits"]) == (201, "created", [])
    call(ee, "PUT", f"{quiet}/entries/x", other, {"name": "Meridian Optics"})
    issued = ee.must_post(ee.officer.sign(denial("BOREALIS SIGNAL LLC")))
    (event,) = told(ee)
    assert (event["watchlist"], event["entries"][0]["ref"], event["more"]) == (path[1:], "licence-7", 0)
    assert event["owner"] == headers["authorization"].split("_")[1]
    with ee.db.read() as session:
        issue, matched = session.scalars(select(EventRow).order_by(EventRow.seq)).all()
        assert (matched.seq, matched.idx, matched.root_idx) == (issue.seq + 1, issue.idx, issue.root_idx)
    (hit,) = hits(ee, path, headers)
    assert (hit["notice"]["id"], hit["ref"], hit["state"]) == (issued.id, "licence-7", "open")
    assert hits(ee, quiet, other) == []


def test_a_party_that_is_put_in_later_finds_what_is_there_and_nobody_is_alerted(ee: Peer) -> None:
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    answer = call(ee, "PUT", f"{path}/entries/7", headers, ACME).json()
    assert [hit["notice"]["id"] for hit in answer["hits"]] == [issued.id]
    assert told(ee) == []


def test_a_cleared_hit_stays_quiet_until_the_notice_or_the_party_changes_or_its_time_is_over(
    ee: Peer,
) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))

    def clear() -> None:
        (hit,) = hits(ee, path, headers, "all")
        until = f"2026-11-{10 + len(told(ee)):02}T00:00:00Z"
        body = {"by": "K. Tamm", "reason": "Another company of the name", "until": until}
        answer = call(ee, "PUT", f"{path}/hits/{hit['id']}/clearance", headers, body)
        assert (answer.status_code, answer.json()["clearance"]["by"]) == (200, "K. Tamm")
        assert hits(ee, path, headers) == []
        assert len(hits(ee, path, headers, "cleared")) == 1

    clear()
    ee.must_post(ee.officer.sign(denial("Meridian Optics Ltd")))  # another notice does not wake it
    assert len(told(ee)) == 1

    change = denial("Borealis Signals Ltd", title="Amended")
    amended = ee.must_post(ee.officer.sign(amendment(issued, change), "amend", ref=issued.hash))
    assert len(told(ee)) == 2
    assert [hit["notice_version"] for hit in hits(ee, path, headers)] == [2]

    clear()
    assert call(ee, "PUT", f"{path}/entries/7", headers, ACME).json()["state"] == "unchanged"
    assert hits(ee, path, headers) == []
    changed = {"name": "Borealis Signals Limited", "properties": {"country": ["ZM"]}}
    assert call(ee, "PUT", f"{path}/entries/7", headers, changed).json()["state"] == "changed"
    assert [hit["entry_version"] for hit in hits(ee, path, headers)] == [2]

    clear()
    ee.node.look_after_portfolios()
    assert len(told(ee)) == 2
    ee.world.clock.tick(80 * DAY)
    ee.node.look_after_portfolios()
    ee.node.look_after_portfolios()
    assert [event.get("why") for event in told(ee)] == ["notice", "notice", "clearance-over"]
    assert len(hits(ee, path, headers)) == 1

    (hit,) = hits(ee, path, headers)
    for until in ("2020-01-01T00:00:00Z", "2036-01-01T00:00:00Z"):
        body = {"by": "K. Tamm", "reason": "x", "until": until}
        assert call(ee, "PUT", f"{path}/hits/{hit['id']}/clearance", headers, body).status_code == 422
    assert call(ee, "DELETE", f"{path}/hits/{hit['id']}/clearance", headers).json()["state"] == "open"

    ee.must_post(ee.officer.sign(withdrawal(amended), "withdraw", ref=amended.hash))
    assert hits(ee, path, headers, "all") == []


def test_an_amendment_that_names_others_takes_the_hit_back_and_an_erasure_leaves_nothing(ee: Peer) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    first = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    second = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    assert len(hits(ee, path, headers)) == 2
    change = amendment(first, denial("Meridian Optics Ltd"))
    ee.must_post(ee.officer.sign(change, "amend", ref=first.hash))
    assert [hit["notice"]["id"] for hit in hits(ee, path, headers)] == [second.id]
    ee.must_post(ee.officer.sign(None, "erase", ref=second.hash))
    with ee.db.read() as session:
        assert session.scalar(select(func.count()).select_from(WatchHitRow)) == 0


def test_a_hit_is_shown_only_to_a_token_that_may_see_the_notice_and_so_is_it_counted(ee: Peer) -> None:
    green = token(ee, Tlp.GREEN)
    path = made(ee, green)
    call(ee, "PUT", f"{path}/entries/7", green, ACME)
    red = denial("Borealis Signals Ltd", tlp="TLP:RED", audience=["NL"])
    issued = ee.must_post(ee.officer.sign(red))
    assert hits(ee, path, green, "all") == []
    assert call(ee, "PUT", f"{path}/entries/7", green, ACME).json()["hits"] == []
    with ee.db.read() as session:  # it is kept, and becomes visible when the notice does
        (row,) = session.scalars(select(WatchHitRow))
    assert call(ee, "PUT", f"{path}/hits/{row.id}/clearance", green, {
        "by": "x", "reason": "x", "until": "2026-12-01T00:00:00Z",
    }).status_code == 404  # fmt: skip
    wider = amendment(issued, denial("Borealis Signals Ltd")) | {"tlp": "TLP:GREEN", "audience": "ALL"}
    ee.must_post(ee.officer.sign(wider, "amend", ref=issued.hash))
    assert len(hits(ee, path, green)) == 1


def test_history_is_matched_and_nobody_is_alerted_of_it(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    us.must_post(us.officer.sign(denial("Borealis Signals Ltd", issuer="US")))
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    ee.sync(us)
    assert len(hits(ee, path, headers)) == 1
    assert told(ee) == []
    us.must_post(us.officer.sign(denial("Borealis Signals Ltd", issuer="US", title="Later")))
    ee.sync(us)
    assert len(told(ee)) == 1


def test_a_fault_of_matching_keeps_no_state_from_speaking_and_is_made_good(ee: Peer) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    with ee.db.write() as session:
        session.execute(text("ALTER TABLE watch_hits RENAME TO gone"))
    assert ee.post(ee.officer.sign(denial("Borealis Signals Ltd"))).status_code == 201
    assert ee.post(ee.officer.sign(denial("Meridian Optics"))).status_code == 201
    assert told(ee) == []
    with ee.db.write() as session:
        session.execute(text("ALTER TABLE gone RENAME TO watch_hits"))
    assert ee.node.watcher.catch_up(now=ee.world.clock()) is False
    assert len(told(ee)) == 1
    ee.node.look_after_portfolios()
    assert len(told(ee)) == 1
    assert len(hits(ee, path, headers)) == 1


def test_a_rebuild_is_looked_through_and_nobody_hears_again_of_what_was_heard(ee: Peer) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    ee.must_post(ee.officer.sign(denial("Meridian Optics")))
    rebuild(ee)
    with ee.db.write() as session:
        session.delete(session.scalars(select(WatchHitRow)).one())  # as if it had not been seen
    ee.node.look_after_portfolios()
    assert len(hits(ee, path, headers)) == 1
    assert len(told(ee)) == 2
    rebuild(ee)
    ee.node.look_after_portfolios()
    assert len(told(ee)) == 2


def test_a_stored_party_that_cannot_be_read_hides_no_other(ee: Peer) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/6", headers, {"name": "Somebody Else"})
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    with ee.db.write() as session:
        session.scalars(select(WatchEntryRow).where(WatchEntryRow.ref == "6")).one().party = "not JSON"
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    assert len(told(ee)) == 1


def test_many_parties_are_put_in_at_once_paged_and_deleted_with_all_that_was_found(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    parties: list[Any] = [{"id": f"n{n}", "name": f"Company Number{n} Trading"} for n in range(5)]
    parties += [
        ACME | {"id": "acme"},
        "No Id",
        {"id": "bad", "name": "Co Ltd"},
        {"id": "n0", "name": "Renamed Works"},
    ]
    answer = call(ee, "POST", f"{path}/entries", headers, {"parties": parties}).json()["items"]
    assert [item["status"] for item in answer] == [201] * 6 + [422, 422, 200]
    assert answer[-1]["state"] == "changed"
    assert call(ee, "GET", path, headers).json()["entries"] == 6
    page = call(ee, "GET", f"{path}/entries?limit=4", headers).json()
    rest = call(ee, "GET", f"{path}/entries?limit=4&cursor={page['next']}", headers).json()
    assert [e["ref"] for e in page["items"] + rest["items"]] == ["acme", "n0", "n1", "n2", "n3", "n4"]
    assert page["items"][1]["party"]["properties"]["name"] == ["Renamed Works"]
    assert len(hits(ee, path, headers)) == 1
    assert call(ee, "DELETE", f"{path}/entries/acme", headers).status_code == 204
    assert hits(ee, path, headers) == []
    assert call(ee, "GET", f"{path}/entries/acme", headers).status_code == 404
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))  # what was deleted is not matched any more
    assert told(ee) == []
    assert call(ee, "DELETE", path, headers).status_code == 204
    with ee.db.read() as session:
        for row in (WatchlistRow, WatchEntryRow, WatchHitRow):
            assert session.scalar(select(func.count()).select_from(row)) == 0


def left_by_a_crash(peer: Peer, headers: dict[str, str], path: str) -> None:
    """Store a party and die before it is screened."""
    asked = read_party(ACME)
    assert isinstance(asked, Asked)
    with peer.db.write() as session:
        row = watchlists.owned(session, headers["authorization"].split("_")[1], path[1:])
        (put,) = watchlists.put(peer.db, session, row, [("7", asked)], now=peer.world.clock())
    assert (put.changed, put.screened) == (True, False)


def test_a_party_that_a_crash_left_without_screening_is_screened_when_it_is_put_in_again(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    left_by_a_crash(ee, headers, path)
    assert hits(ee, path, headers) == []
    again = call(ee, "PUT", f"{path}/entries/7", headers, ACME).json()
    assert (again["state"], len(again["hits"])) == ("unchanged", 1)
    with ee.db.read() as session:
        assert session.scalars(select(WatchEntryRow.screened)).one() == 1


def test_a_party_that_a_crash_left_without_screening_is_screened_by_the_node(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    left_by_a_crash(ee, headers, path)
    ee.node.look_after_portfolios()  # whoever stored it may still be at it
    assert hits(ee, path, headers) == []
    ee.world.clock.ms += watchlists.LEFT_MS + 1
    ee.node.look_after_portfolios()
    (hit,) = hits(ee, path, headers)
    assert (hit["ref"], hit["entry_version"]) == ("7", 1)
    with ee.db.read() as session:
        assert session.scalars(select(WatchEntryRow.screened)).one() == 1


def test_stored_parties_that_cannot_be_read_hide_none_that_was_left(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    many = [ACME | {"id": f"n{number}"} for number in range(watchlists.SCREENED_AT_ONCE + 1)]
    assert call(ee, "POST", f"{path}/entries", headers, {"parties": many}).status_code == 200
    with ee.db.write() as session:
        session.execute(delete(WatchHitRow))
        session.execute(update(WatchEntryRow).values(screened=0))
        session.execute(
            update(WatchEntryRow).where(WatchEntryRow.ref != many[-1]["id"]).values(party='{"schema": "?"}')
        )
    ee.world.clock.ms += watchlists.LEFT_MS + 1
    assert ee.node.look_after_portfolios() is False
    assert [hit["ref"] for hit in hits(ee, path, headers)] == [many[-1]["id"]]


class Meddled:
    """A finder: something happens after what it looked at, and before what it found is kept."""

    def __init__(self, real: Finder, meanwhile: Callable[[], None]) -> None:
        self._real, self._meanwhile = real, meanwhile

    def find(self, *args: Any, **options: Any) -> Found:
        found = self._real.find(*args, **options)
        self._meanwhile()
        return found

    def foresee(self, principal: Principal, parties: Sequence[Asked], session: Session) -> None:
        self._real.foresee(principal, parties, session)

    def algorithm(self) -> Mapping[str, Any]:
        return self._real.algorithm()


def screened_while(peer: Peer, path: str, meanwhile: Callable[[], None]) -> None:
    """Screen a party that a crash left, and meanwhile something happens."""
    finder = Meddled(peer.node.finder, meanwhile)
    now = peer.world.clock() + watchlists.LEFT_MS + 1
    watchlists.screen_left(peer.db, finder, peer.state, now=now)


def test_what_was_found_for_a_party_that_changed_meanwhile_is_not_kept(ee: Peer) -> None:
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    left_by_a_crash(ee, headers, path)
    other = {"name": "Meridian Optics Ltd"}

    def change() -> None:
        assert call(ee, "PUT", f"{path}/entries/7", headers, other).status_code == 200

    screened_while(ee, path, change)
    assert hits(ee, path, headers) == []


def waits_for_a_lock(session: Session) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return session.execute(text(waiting)).scalar_one() > 0


def test_a_notice_that_is_being_recorded_and_a_screening_write_one_hit(ee: Peer) -> None:
    issued = ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    headers = token(ee)
    path = made(ee, headers)
    left_by_a_crash(ee, headers, path)
    with ThreadPoolExecutor(1) as pool:
        with ee.db.write() as session:  # as whoever records a notice does
            ee.db.next_values(session, SCREENED, 0)
            entry = session.scalars(select(WatchEntryRow)).one()
            with ee.db.read() as reader:
                key = reader.execute(select(NoticeRow.log_id, NoticeRow.idx)).one()
            screening = pool.submit(screened_while, ee, path, lambda: None)
            if (
                session.get_bind().dialect.name == "postgresql"
            ):  # SQLite has one writer, and cannot tell who waits
                while not waits_for_a_lock(session):
                    wait([screening], 0.01)
                    assert not screening.done()
            write_hits(session, entry, [(key, 0, 0.9, 1)], now=ee.world.clock())
        screening.result(HANGS_S)
    assert [hit["notice"]["id"] for hit in hits(ee, path, headers)] == [issued.id]


def test_of_a_party_that_stands_twice_in_one_call_the_last_is_screened(ee: Peer) -> None:
    for name in ("Borealis Signals Ltd", "Meridian Optics Ltd"):
        ee.must_post(ee.officer.sign(denial(name)))
    headers = token(ee)
    path = made(ee, headers)
    twice = [ACME | {"id": "a"}, {"id": "a", "name": "Meridian Optics Ltd"}]
    answer = call(ee, "POST", f"{path}/entries", headers, {"parties": twice}).json()["items"]
    assert [item["state"] for item in answer] == ["created", "changed"]
    (hit,) = hits(ee, path, headers)
    assert (hit["entry_version"], hit["ref"]) == (2, "a")


def test_five_hundred_namesakes_are_found_and_the_log_says_when_there_are_more(
    ee: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    headers = token(ee)
    path = made(ee, headers)
    for first, last in ((0, COMPARED), (COMPARED, COMPARED + 1)):
        parties = [ACME | {"id": f"n{number}"} for number in range(first, last)]
        stored = call(ee, "POST", f"{path}/entries", headers, {"parties": parties})
        assert stored.status_code == 200, stored.text
        caplog.clear()
        ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
        capped = [record for record in caplog.records if record.message == "not every stored party compared"]
        assert (len(capped), told(ee)[-1]["more"] + len(told(ee)[-1]["entries"])) == (
            first // COMPARED,
            COMPARED,
        )


def test_a_list_is_its_tokens_alone_and_has_its_own_threshold(ee: Peer) -> None:
    headers, other = token(ee), token(ee)
    path = made(ee, headers, threshold=0.999)
    call(ee, "PUT", f"{path}/entries/7", headers, {"name": "Borealis Signa"})
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    assert hits(ee, path, headers) == []
    assert call(ee, "PATCH", path, headers, {"threshold": 0.5, "name": "Wider"}).json()["name"] == "Wider"
    ee.must_post(ee.officer.sign(denial("Borealis Signals Ltd")))
    assert len(hits(ee, path, headers)) == 1
    (hit,) = hits(ee, path, headers)
    for method, tail, body in (
        ("GET", "", None), ("PATCH", "", {"name": "Mine"}), ("DELETE", "", None), ("GET", "/entries", None),
        ("GET", "/hits", None), ("PUT", "/entries/7", ACME), ("DELETE", "/entries/7", None),
        ("DELETE", f"/hits/{hit['id']}/clearance", None),
    ):  # fmt: skip
        assert call(ee, method, path + tail, other, body).status_code == 404, (method, tail)
    assert call(ee, "GET", "", other).json()["items"] == []
    for wrong in ({"name": ""}, {"name": "x", "threshold": 0}, {"name": "x", "threshold": 2}, {"nom": "x"}):
        assert call(ee, "POST", "", headers, wrong).status_code == 422


def test_the_reverse_index_follows_from_the_tables_alone(ee: Peer) -> None:
    headers = token(ee)
    path = made(ee, headers)
    call(ee, "PUT", f"{path}/entries/7", headers, ACME)
    ee.node.watcher.refresh()
    assert Watcher(ee.db).refresh() == 1
