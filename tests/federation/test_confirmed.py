"""Confirmed and provisional: what a quorum of witnesses vouches for, as every node shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from app.models import ApiTokenRow, EventRow, SubscriptionRow
from tests.federation.test_replication import amend, issue
from tests.federation.world import Peer, World


def standings(peer: Peer, *standing: str) -> dict[str, str]:
    """Title → standing."""
    asked: list[tuple[str, str]] = [("standing", one) for one in standing]
    items = peer.get("/v1/notices", params=asked, headers=peer.token())["items"]
    return {item["title"]: item["standing"] for item in items}


def confirmed(peer: Peer, of: Peer) -> tuple[int, int]:
    """Confirmed size of a log and its lag, as one node shows them."""
    shown = peer.federation(of)["confirmed"]
    return shown["size"], shown["lag_leaves"]


def test_a_notice_is_confirmed_when_a_quorum_has_cosigned_one_checkpoint_above_it(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    issue(ee, "first")
    ee.witnessed(us, nl)
    assert standings(ee) == {"first": "provisional"}
    assert confirmed(ee, ee) == (0, 1)

    ee.offer(jp)  # 3 of 4: the fourth never starts
    assert standings(ee) == {"first": "confirmed"}
    assert confirmed(ee, ee) == (1, 0)

    issue(ee, "second")
    ee.witnessed(us, nl)
    assert standings(ee) == {"first": "confirmed", "second": "provisional"}
    assert standings(ee, "confirmed") == {"first": "confirmed"}
    assert standings(ee, "provisional") == {"second": "provisional"}
    assert standings(ee, "confirmed", "provisional") == standings(ee)

    # Two quorums of halves are none: three States, and no three over one checkpoint.
    issue(ee, "third")
    ee.witnessed(jp)
    assert standings(ee, "confirmed") == {"first": "confirmed"}
    ee.offer(us)
    ee.offer(nl)
    assert len(standings(ee, "confirmed")) == 3


def test_another_node_learns_it_from_the_cosignatures_that_the_log_serves(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    issue(ee, "told")
    ee.witnessed(us, nl, jp)
    us.judge(ee)
    assert standings(us) == {"told": "provisional"}  # it knows of its own cosignature alone
    us.follow(ee)
    assert standings(us) == {"told": "confirmed"}
    assert confirmed(us, ee) == (1, 0)


def test_each_version_has_its_own_standing_and_the_notice_that_of_its_newest(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    signed = issue(ee, "before")
    ee.witnessed(us, nl, jp)
    amend(ee, signed, "after")
    shown = ee.get(f"/v1/notices/{signed.id}", headers=ee.token())
    versions = ee.get(f"/v1/notices/{signed.id}/versions", headers=ee.token())["items"]
    assert shown["standing"] == "provisional"
    assert [v["standing"] for v in versions] == ["confirmed", "provisional"]
    ee.witnessed(us, nl, jp)
    assert ee.get(f"/v1/notices/{signed.id}", headers=ee.token())["standing"] == "confirmed"


def test_in_a_small_federation_the_quorum_is_everybody_and_the_answer_says_so(world: World) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    issue(ee, "small")
    ee.witnessed(us)
    assert standings(ee) == {"small": "provisional"}
    ee.offer(nl)
    assert standings(ee) == {"small": "confirmed"}
    shown: dict[str, Any] = ee.get("/v1/federation", headers=ee.token())
    assert (shown["witnesses"], shown["faulty"], shown["quorum"]) == (2, 0, 2)
    assert shown["quorum_rule"].startswith("All 2 witnesses must cosign")
    assert ee.federation(ee)["confirmed"]["takes_all"] is True


def test_the_federation_shows_the_quorum_of_each_log(five: World) -> None:
    ee = five.make("EE")
    shown = ee.get("/v1/federation", headers=ee.token())
    assert (shown["witnesses"], shown["faulty"], shown["quorum"]) == (4, 1, 3)
    assert shown["quorum_rule"] == "3 of 4 witnesses must cosign; up to 1 may be dishonest or broken."
    own = ee.federation(ee)["confirmed"]
    assert {k: own[k] for k in ("witnesses", "faulty", "quorum", "takes_all")} == {
        "witnesses": 4,
        "faulty": 1,
        "quorum": 3,
        "takes_all": False,
    }


def test_what_is_confirmed_stays_so_when_states_join_or_are_suspended(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    five.change_state("FI", status="suspended")  # four members are left: all three witnesses must cosign
    issue(ee, "then")
    ee.witnessed(us, nl)
    assert standings(ee) == {"then": "provisional"}
    ee.offer(jp)
    assert standings(ee) == {"then": "confirmed"}
    five.change_state("JP", status="suspended")
    five.change_state("FI", status="member")
    assert standings(ee) == {"then": "confirmed"}


@pytest.mark.parametrize("again_after_s", [0, 10_000])
def test_a_cosignature_that_comes_twice_counts_once(five: World, again_after_s: int) -> None:
    ee, us, nl = (five.make(code) for code in ("EE", "US", "NL"))
    issue(ee, "once")
    ee.witnessed(us, nl)
    five.clock.tick(again_after_s)
    for peer in (us, nl):
        ee.offer(peer)
    assert standings(ee) == {"once": "provisional"}


# ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────────


def listen(peer: Peer, *types: str) -> None:
    """A subscription of somebody who may read everything here."""
    peer.token()
    with peer.db.write() as session:
        token_id = session.scalars(select(ApiTokenRow.id)).first()
        session.add(
            SubscriptionRow(
                id=f"subscription-{len(types)}",
                token_id=token_id,
                url="https://receiver.example/",
                event_types=json.dumps(types),
                filter="{}",
                scheme="v1",
                status="active",
                fanned_seq=0,
                created_at=0,
                not_before=0,
            )
        )


def told(peer: Peer) -> list[tuple[int | None, int | None]]:
    """(index, root) of each event `notice.confirmed`, in order."""
    with peer.db.read() as session:
        rows = session.execute(
            select(EventRow.idx, EventRow.root_idx)
            .where(EventRow.type == "notice.confirmed")
            .order_by(EventRow.seq)
        )
        return [(idx, root) for idx, root in rows]


def test_who_names_the_event_is_told_once_of_every_version_that_was_confirmed(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    listen(ee)  # all events that are written: this one is not written for those who do not name it
    issue(ee, "nobody listens")
    ee.witnessed(us, nl, jp)
    ee.node.mirrors.tell_confirmed(ee.node.log_id)
    assert told(ee) == []
    listen(ee, "notice.confirmed")
    first = issue(ee, "first")
    amend(ee, first, "changed")
    issue(ee, "last")
    ee.witnessed(us, nl)
    ee.node.mirrors.tell_confirmed(ee.node.log_id)
    assert told(ee) == []
    ee.offer(jp)
    for _ in range(2):
        ee.node.mirrors.tell_confirmed(ee.node.log_id)
    assert told(ee) == [(1, 1), (2, 1), (3, 3)]


def test_a_mirror_tells_of_what_it_has_judged_and_not_of_history(five: World) -> None:
    ee, us, nl, jp = (five.make(code) for code in ("EE", "US", "NL", "JP"))
    listen(us, "notice.confirmed")
    issue(ee, "before US was there")
    ee.witnessed(nl, jp)
    us.sync(ee)
    ee.offer(us)
    us.follow(ee)
    assert told(us) == []
    issue(ee, "news")
    ee.witnessed(us, nl, jp)
    us.follow(ee)
    assert told(us) == []  # confirmed, and not judged here yet
    us.judge(ee)
    assert told(us) == [(1, 1)]
