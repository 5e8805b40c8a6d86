"""Receipts and the recall board: who provably knows of a change, since when, and who not."""

from __future__ import annotations

from typing import Any

import pytest

from tests import examples
from tests.federation.test_replication import amend, issue, withdraw
from tests.federation.world import NOW, Peer, Signed, World


def four(five: World) -> list[Peer]:
    return [five.make(code) for code in ("EE", "US", "NL", "JP")]


def board(peer: Peer, *, anonymous: bool = False, **asked: str) -> list[dict[str, Any]]:
    headers = {} if anonymous else peer.token()
    items: list[dict[str, Any]] = peer.get("/v1/recall-board", params=asked, headers=headers)["items"]
    return items


def receipts(peer: Peer, of: Signed) -> dict[str, Any]:
    found: dict[str, Any] = peer.get(f"/v1/notices/{of.id}/receipts", headers=peer.token())
    return found


def acknowledge(peer: Peer, of: Signed) -> Signed:
    main = examples.acknowledgement(of.id, of.ref, issuer=peer.state)
    return peer.must_post(peer.officer.sign(main, "ack", ref=of.hash))


def test_the_board_names_who_does_not_know_of_a_withdrawal(five: World) -> None:
    ee, us, nl, jp = four(five)
    first = issue(ee, "to be withdrawn")
    issue(ee, "stands")
    ee.witnessed(us, nl, jp)
    assert board(ee) == []
    five.clock.tick(60)
    withdraw(ee, first)
    ee.witnessed(us)
    five.clock.tick(60)
    ee.offer(nl)
    (shown,) = board(ee)
    assert (shown["id"], shown["status"], shown["complete"]) == (first.id, "withdrawn", False)
    newest = shown["newest"]
    assert (newest["kind"], newest["standing"]) == ("withdraw", "provisional")
    assert [(h["state"], h["at"]) for h in newest["holders"]] == [
        ("NL", clock_text(NOW + 120)),
        ("US", clock_text(NOW + 60)),
    ]
    assert newest["unproven"] == ["FI", "JP"]

    ee.offer(jp)
    (shown,) = board(ee)
    assert (shown["newest"]["standing"], shown["newest"]["unproven"]) == ("confirmed", ["FI"])
    assert board(ee, missing="true") == [shown]
    fi = five.make("FI")
    ee.offer(fi)
    (shown,) = board(ee)
    assert shown["complete"]
    assert board(ee, missing="true") == []

    # Any other node shows the same, from what the log and its witnesses serve.
    us.follow(ee)
    us.judge(ee)
    (theirs,) = board(us)
    assert theirs["newest"]["holders"] == shown["newest"]["holders"]


def clock_text(seconds: int) -> str:
    from app.queries.notices import rfc3339

    return rfc3339(seconds * 1000)


def test_receipts_say_of_each_version_who_holds_and_who_acknowledged_it(five: World) -> None:
    ee, us, nl, jp = four(five)
    first = issue(ee, "first")
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    acknowledge(us, first)
    second = amend(ee, first, "second")
    ee.witnessed(nl)
    ee.sync(us)
    found = receipts(ee, first)["versions"]
    assert [(v["version"], v["kind"], v["standing"]) for v in found] == [
        (1, "issue", "confirmed"),
        (2, "amend", "provisional"),
    ]
    assert [[h["state"] for h in v["holders"]] for v in found] == [["JP", "NL", "US"], ["NL"]]
    assert [v["unproven"] for v in found] == [["FI"], ["FI", "JP", "US"]]
    assert [v["acknowledged"] for v in found] == [["US"], []]
    acknowledge(us, second)
    ee.sync(us)
    assert [v["acknowledged"] for v in receipts(ee, second)["versions"]] == [["US"], ["US"]]


@pytest.mark.parametrize("back", ["not for it", "for it again"])
def test_a_narrowed_notice_is_recalled_from_former_addressees_end_to_end(five: World, back: str) -> None:
    ee, us, nl, jp = four(five)
    first = issue(ee, "for both", "TLP:AMBER", ["NL", "US"])
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    nl.sync(ee)
    narrowed = amend(ee, first, "for NL alone", "TLP:AMBER", ["NL"])
    ee.witnessed(us, nl, jp)
    us.sync(ee)
    nl.sync(ee)

    # The issuer sees from whom it was recalled, and that their node provably knows.
    (shown,) = board(ee)
    assert shown["newest"]["recalled_from"] == ["US"]
    assert "US" in [h["state"] for h in shown["newest"]["holders"]]
    # The former addressee sees that, and nothing else.
    (recalled,) = board(us)
    assert (recalled["id"], recalled["status"]) == (first.id, "recalled")
    assert (recalled["title"], recalled["type"], recalled["newest"]["recalled_from"]) == (None, None, [])
    everything = str(us.get(f"/v1/notices/{first.id}/versions", headers=us.token())) + str(board(us))
    assert "for both" not in everything
    assert us.titles(status="all") == [None]
    # A State that it was never for sees no trace, nor does the public.
    assert board(jp) == board(ee, anonymous=True) == board(us, anonymous=True) == []
    # The addressee that stays sees the new version.
    assert [(b["title"], b["newest"]["recalled_from"]) for b in board(nl)] == [("for NL alone", ["US"])]

    # The leaf stays, and every proof with it.
    assert us.log(ee).size == us.log(ee).judged == 2
    if back == "not for it":
        withdraw(ee, narrowed, "TLP:AMBER", ["NL"])
        us.sync(ee)
        assert [b["status"] for b in board(us)] == ["withdrawn"]
        assert board(us)[0]["title"] is None
    else:
        amend(ee, narrowed, "for both again", "TLP:AMBER", ["NL", "US"])
        us.sync(ee)
        assert us.titles() == ["for both again"]


def test_an_erasure_stands_on_the_board_until_everybody_has_it(five: World) -> None:
    ee, us, nl, jp = four(five)
    fi = five.make("FI")
    first = issue(ee, "to be erased")
    ee.witnessed(us, nl, jp, fi)
    us.sync(ee)
    ee.must_post(ee.officer.sign(None, "erase", ref=first.hash))
    ee.witnessed(nl, jp, fi)
    (shown,) = board(ee)
    assert (shown["status"], shown["title"], shown["type"]) == ("erased", None, None)
    assert (shown["newest"]["kind"], shown["newest"]["unproven"]) == ("erase", ["US"])
    assert board(ee, missing="true") == [shown]
    us.sync(ee)
    us.follow(ee)
    (theirs,) = board(us)
    assert (theirs["id"], theirs["complete"]) == (first.id, True)
    assert board(us, anonymous=True) == []


def test_a_board_is_paged_and_refuses_what_it_does_not_know(world: World) -> None:
    ee = world.make("EE")
    for n in range(3):
        withdraw(ee, issue(ee, f"notice {n}"))
    first = ee.get("/v1/recall-board", params={"limit": "2"}, headers=ee.token())
    assert [i["title"] for i in first["items"]] == ["notice 2", "notice 1"]
    rest = ee.get("/v1/recall-board", params={"limit": "2", "cursor": first["next"]}, headers=ee.token())
    assert ([i["title"] for i in rest["items"]], rest["next"], rest["total"]) == (["notice 0"], None, 3)
    for query in (
        "?state=EE",
        "?missing=perhaps",
        "?issuer=XX",
        "?issuer=EE&issuer=EE",
        "?limit=0",
        "?cursor=x",
    ):
        assert ee.request("GET", f"/v1/recall-board{query}", headers=ee.token()).status_code == 400, query
    assert board(ee, issuer="US") == []
    assert len(board(ee, issuer="ee")) == 3
