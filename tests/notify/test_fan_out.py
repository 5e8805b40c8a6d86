"""Who is told of what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select

from app.domain.encoding import b64u_encode
from app.models import ApiTokenRow, DeliveryRow, EventRow, SubscriptionRow
from app.notify import claims, outbox, subscriptions
from tests.notify.receivers import NOW, Log, SettableClock, add_token, subscribe, subscription

if TYPE_CHECKING:
    from app.db import Database
    from app.notify.setup import WebhookSetup

URL = "http://127.0.0.1:9999/hook"


def told(db: Database, subscription_id: str) -> list[tuple[str, int]]:
    """Type and leaf of each event that stands to be delivered to the subscription."""
    with db.read() as session:
        rows = session.execute(
            select(EventRow.type, EventRow.idx)
            .join(DeliveryRow, DeliveryRow.event_seq == EventRow.seq)
            .where(DeliveryRow.subscription_id == subscription_id, DeliveryRow.state != "dropped")
            .order_by(EventRow.seq)
        )
        return [(t, -1 if i is None else i) for t, i in rows]


def bodies(db: Database, setup: WebhookSetup, now: int = NOW) -> list[dict[str, Any]]:
    """What would be sent now."""
    ready, _ = claims.prepare(db, now, setup, claims.claim(db, now, 100))
    return [json.loads(r.body) for r in ready]


def test_a_live_event_is_told_once_however_often_it_is_fanned_out(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    idx = log.issue()
    assert outbox.fan_out_step(db, clock, setup) == 1
    assert outbox.fan_out_step(db, clock, setup) == 0
    with db.write() as session:  # as if the place in the outbox had been lost
        session.get_one(SubscriptionRow, id_).fanned_seq = 0
    outbox.fan_out_step(db, clock, setup)
    assert told(db, id_) == [("notice.issued", idx)]


def test_history_from_a_first_catch_up_is_not_told(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    log.issue(live=False)
    live = log.issue()
    outbox.fan_out_step(db, clock, setup)
    assert told(db, id_) == [("notice.issued", live)]


def test_a_new_subscription_is_told_of_what_follows_or_from_the_time_it_names(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    first = log.issue(event=False)
    log.event("notice.issued", first, first, at=NOW - 1000)
    second = log.issue()
    from_now, _ = subscribe(db, setup, token, URL)
    from_then, _ = subscribe(db, setup, token, URL, since=NOW)
    from_ever, _ = subscribe(db, setup, token, URL, since=0)
    third = log.issue()
    outbox.fan_out_step(db, clock, setup)
    assert [i for _, i in told(db, from_now)] == [third]
    assert [i for _, i in told(db, from_then)] == [second, third]
    assert [i for _, i in told(db, from_ever)] == [first, second, third]


@pytest.mark.parametrize("run", [1, 2, 500])
def test_the_size_of_a_run_changes_nothing(
    db: Database, clock: SettableClock, setup: WebhookSetup, run: int
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)
    issued = [log.issue(tlp=4 if n % 2 else 0, audience="JP" if n % 2 else "ALL") for n in range(6)]
    while outbox.fan_out_step(db, clock, setup, events_per_run=run):
        pass
    assert [i for _, i in told(db, id_)] == issued[::2]


@pytest.mark.parametrize(
    ("ceiling", "tlp", "audience", "is_told"),
    [
        (4, 0, "ALL", True),
        (4, 4, "EE NL", True),
        (4, 4, "NL", False),
        (4, 2, "", False),
        (1, 2, "EE", False),
        (2, 2, "EE", True),
        (0, 1, "ALL", False),
        (4, 99, "ALL", False),
    ],
)
def test_the_gate_decides(
    db: Database,
    clock: SettableClock,
    setup: WebhookSetup,
    ceiling: int,
    tlp: int,
    audience: str,
    is_told: bool,
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db, ceiling=ceiling), URL)
    log.issue(tlp=tlp, audience=audience)
    outbox.fan_out_step(db, clock, setup)
    assert bool(told(db, id_)) is is_told


def test_a_private_event_is_for_its_owner_alone_and_only_while_it_may_read_the_notice(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, owner, other, low = Log(db), add_token(db), add_token(db), add_token(db, ceiling=0)
    idx = log.issue(tlp=2, audience="EE")
    mine, _ = subscribe(db, setup, owner, URL)
    not_mine, _ = subscribe(db, setup, other, URL)
    below, _ = subscribe(db, setup, low, URL)
    for token in (owner, low):
        log.event("watchlist.matched", idx, idx, owner=token)
    outbox.fan_out_step(db, clock, setup)
    assert [told(db, id_) for id_ in (mine, not_mine, below)] == [[("watchlist.matched", idx)], [], []]


def test_a_filter_and_event_types_select(db: Database, clock: SettableClock, setup: WebhookSetup) -> None:
    us, jp, token = Log(db, "US"), Log(db, "JP"), add_token(db)
    by_issuer, _ = subscribe(db, setup, token, URL, filter={"issuer": "JP"})
    by_type, _ = subscribe(db, setup, token, URL, filter={"type": ["technology_threat"]})
    by_event, _ = subscribe(db, setup, token, URL, event_types=["notice.withdrawn"])
    us.issue()
    jp_idx = jp.issue()
    threat = us.issue(type_="technology_threat")
    withdrawal = us.follow("withdraw", threat, "notice.withdrawn", status="withdrawn")
    outbox.fan_out_step(db, clock, setup)
    assert told(db, by_issuer) == [("notice.issued", jp_idx)]
    assert told(db, by_type) == [("notice.issued", threat), ("notice.withdrawn", withdrawal)]
    assert told(db, by_event) == [("notice.withdrawn", withdrawal)]


def test_whoever_was_told_is_told_what_becomes_of_it_though_it_leaves_the_filter(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL, filter={"type": "denied_end_user"})
    idx = log.issue()
    outbox.fan_out_step(db, clock, setup)
    amendment = log.follow("amend", idx, "notice.amended", type="technology_threat")
    outbox.fan_out_step(db, clock, setup)
    recall = log.follow("amend", idx, "notice.recalled", content_state="recalled")
    outbox.fan_out_step(db, clock, setup)
    assert told(db, id_) == [
        ("notice.issued", idx),
        ("notice.amended", amendment),
        ("notice.recalled", recall),
    ]


def test_an_erasure_is_told_to_those_who_were_told_before_and_says_only_the_id(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    knew, _ = subscribe(db, setup, token, URL)
    idx = log.issue()
    outbox.fan_out_step(db, clock, setup)
    assert len(bodies(db, setup)) == 1
    did_not, _ = subscribe(db, setup, token, URL)
    erasure = log.follow(
        "erase",
        idx,
        "notice.erased",
        status="erased",
        content_state="erased",
        tlp_rank=99,
        audience_all=False,
        type=None,
    )
    outbox.fan_out_step(db, clock, setup)
    assert told(db, knew) == [("notice.issued", idx), ("notice.erased", erasure)]
    assert told(db, did_not) == []
    (body,) = bodies(db, setup)
    assert body["type"] == "notice.erased"
    assert (body["data"]["id"], body["data"]["type"], body["data"]["tlp"]) == (f"notice-US-{idx}", None, None)


def test_an_erasure_is_told_though_the_delivery_log_does_not_reach_back_to_the_notice(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    tokens = {ceiling: add_token(db, ceiling=ceiling) for ceiling in (0, 2)}
    knew, _ = subscribe(db, setup, tokens[2], URL)
    below, _ = subscribe(db, setup, tokens[0], URL)
    idx = log.issue(tlp=2)
    outbox.fan_out_step(db, clock, setup)
    assert [len(told(db, id_)) for id_ in (knew, below)] == [1, 0]
    bodies(db, setup)
    with db.write() as session:
        session.execute(delete(DeliveryRow))  # as pruned
    clock.now += setup.keep_ms + 1
    later, _ = subscribe(db, setup, tokens[2], URL, now=clock())
    young = log.issue(tlp=2, event=False)
    log.set(young, received_at=clock())
    erasures = []
    for root in (idx, young):
        hidden: dict[str, Any] = {
            "status": "erased",
            "content_state": "erased",
            "tlp_rank": 99,
            "audience_all": False,
            "type": None,
        }
        leaf = log.follow("erase", root, "notice.erased", event=False, **hidden)
        log.event("notice.erased", leaf, root, tlp_rank=2, audience="ALL")
        erasures.append(leaf)
    outbox.fan_out_step(db, clock, setup)
    assert told(db, knew) == [("notice.erased", erasures[0])]
    assert told(db, below) == told(db, later) == []
    ready, _ = claims.prepare(db, clock(), setup, claims.claim(db, clock(), 10))
    assert [json.loads(r.body)["data"]["id"] for r in ready] == [f"notice-US-{idx}"]
    assert not ready[0].recalled
    with db.write() as session:
        session.get_one(ApiTokenRow, tokens[2]).ceiling = 1
    clock.now += claims.LEASE_MS
    ready, withheld = claims.prepare(db, clock(), setup, claims.claim(db, clock(), 10))
    assert (ready, len(withheld)) == ([], 1)


def test_an_acknowledgement_needs_both_markings_to_let_it_through(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    us, jp, token = Log(db, "US"), Log(db, "JP"), add_token(db)
    seen, hidden = us.issue(), us.issue(tlp=4, audience="JP")
    id_, _ = subscribe(db, setup, token, URL)
    ack = jp.acknowledge(us.hash(seen))
    jp.acknowledge(us.hash(hidden))
    jp.acknowledge(us.hash(seen), tlp=4, audience="NL")
    jp.acknowledge(b"?" * 32)
    outbox.fan_out_step(db, clock, setup)
    assert told(db, id_) == [("acknowledgement.received", ack)]
    (body,) = bodies(db, setup)
    assert body["data"]["id"] == f"notice-US-{seen}"
    assert body["data"]["issuer"] == "US"
    assert body["data"]["origin"] == "jp.verbale.example/log/1"
    assert body["data"]["acknowledgement"] == {"id": f"statement-JP-{ack}", "state": "JP"}


def test_the_body_is_thin_and_says_where_the_proof_stands(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    subscribe(db, setup, add_token(db), URL)
    idx = log.issue(tlp=2, audience="EE")
    outbox.fan_out_step(db, clock, setup)
    (body,) = bodies(db, setup)
    assert body == {
        "type": "notice.issued",
        "timestamp": "2027-01-15T08:00:00.000Z",
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
            "sequence": 1,
        },
    }


@pytest.mark.parametrize(
    "change",
    [{"revoked_at": NOW}, {"expires_at": NOW}, {"scopes": "read"}, {"scopes": "resubscribe read"}],
)
def test_a_token_that_ends_ends_its_subscriptions(
    db: Database, clock: SettableClock, setup: WebhookSetup, change: dict[str, Any]
) -> None:
    log, token = Log(db), add_token(db)
    id_, _ = subscribe(db, setup, token, URL)
    log.issue()
    outbox.fan_out_step(db, clock, setup)
    log.issue()
    with db.write() as session:
        for name, value in change.items():
            setattr(session.get_one(ApiTokenRow, token), name, value)
    outbox.fan_out_step(db, clock, setup)
    assert len(told(db, id_)) == 1
    row = subscription(db, id_)
    assert row.status == "disabled"
    assert row.status_reason is not None
    assert "token" in row.status_reason
    assert bodies(db, setup) == []


def test_what_happened_during_a_pause_is_told_after_it(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), URL)

    def change(status: str) -> None:
        with db.write() as session:
            subscriptions.change(
                db, session, setup, session.get_one(SubscriptionRow, id_), {"status": status}, now=NOW
            )

    change("paused")
    idx = log.issue()
    assert outbox.fan_out_step(db, clock, setup) == 0
    assert told(db, id_) == []
    change("active")
    outbox.fan_out_step(db, clock, setup)
    assert told(db, id_) == [("notice.issued", idx)]


def test_a_filter_that_is_not_understood_any_more_disables_its_subscription_and_no_other(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log, token = Log(db), add_token(db)
    old, _ = subscribe(db, setup, token, URL)
    good, _ = subscribe(db, setup, token, URL)
    with db.write() as session:
        session.get_one(SubscriptionRow, old).filter = '{"abolished": ["x"]}'
    idx = log.issue()
    outbox.fan_out_step(db, clock, setup)
    assert told(db, good) == [("notice.issued", idx)]
    assert subscription(db, old).status == "disabled"


def test_ids_sort_by_time_and_hold_no_full_stop() -> None:
    ids = [outbox.new_id(NOW + n) for n in range(50)]
    assert ids == sorted(ids)
    assert all("." not in i and len(i) == 36 and i[14] == "7" and i[19] in "89ab" for i in ids)
