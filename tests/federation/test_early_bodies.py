"""What an offer sets in motion: bodies are asked for with the leaves, and a verdict never holds up a cosignature."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.domain.errors import PeerFault
from app.loops import Loop
from app.mirrors import Followed
from app.models import CosignatureRow, EntryRow, NoticeRow
from tests import examples
from tests.federation.world import Peer, Signed, World, answer, url_of, wait_until

PATIENCE_S = 60.0


def post(peer: Peer, title: str) -> Signed:
    return peer.must_post(peer.officer.sign(examples.best_practice(issuer=peer.state, title=title)))


def mirror(peer: Peer, of: Peer) -> Followed:
    """As a running node keeps it: with a loop that judges. It is not started, the test says who judges."""
    followed = peer.followed(of)
    followed.judge = Loop("judge", lambda: False, interval_s=PATIENCE_S)
    return followed


def before(path: str, wait: Callable[[], object]) -> Callable[[httpx.Request], None]:
    """A rule of a line: requests whose path has `path` in it go out only after `wait` has returned."""

    def rule(request: httpx.Request) -> None:
        if path in request.url.path:
            wait()

    return rule


def bodies_come_first(peer: Peer, followed: Followed) -> None:
    """Leaves that `peer` asks for arrive after the bodies it asked for at the same time."""

    def here() -> object:
        return followed.early is not None and followed.early.answer.done()

    peer.line.rules = [before("/tile/", lambda: wait_until(here, PATIENCE_S))]


def rows(peer: Peer, table: Any) -> list[Any]:
    with peer.db.read() as session:
        return list(session.scalars(select(table)))


def asked_for_bodies(peer: Peer, of: Peer) -> int:
    return peer.line.asked.count(f"{url_of(of.state)}/bodies")


def test_what_is_offered_is_shown_before_the_offer_is_answered_if_its_bodies_are_here(
    world_on_both: World,
) -> None:
    us, nl = world_on_both.make("US"), world_on_both.make("NL")
    followed = mirror(nl, us)
    post(us, "offered")
    bodies_come_first(nl, followed)
    us.publish()
    us.offer(nl)
    assert nl.entry(us, 0).body_state == "held"
    assert [notice.title for notice in rows(nl, NoticeRow)] == ["offered"]
    assert [one.size for one in rows(nl, CosignatureRow)] == [1]
    assert asked_for_bodies(nl, us) == 1


def test_an_offer_is_cosigned_while_its_bodies_are_on_their_way(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    followed = mirror(nl, us)
    post(us, "slow")
    go_on = threading.Event()
    nl.line.rules = [before("/bodies", lambda: go_on.wait(PATIENCE_S))]
    us.publish()
    us.offer(nl)
    assert [one.size for one in rows(nl, CosignatureRow)] == [1]
    assert rows(nl, EntryRow) == []
    wait_until(lambda: followed.early is not None and followed.early.answer.running(), PATIENCE_S)
    go_on.set()
    nl.judge(us)
    assert nl.entry(us, 0).body_state == "held"
    assert asked_for_bodies(nl, us) == 1


def test_an_offer_does_not_wait_for_somebody_who_judges(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    followed = mirror(nl, us)
    post(us, "one")
    bodies_come_first(nl, followed)
    us.publish()
    with followed.judging:
        us.offer(nl)
    assert [one.size for one in rows(nl, CosignatureRow)] == [1]
    assert rows(nl, EntryRow) == []
    nl.judge(us)
    assert nl.entry(us, 0).body_state == "held"


def test_bodies_of_leaves_that_did_not_come_are_dropped(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    followed = mirror(nl, us)
    post(us, "first")
    us.publish()
    nl.line.rules = [lambda request: answer(500) if "/tile/" in request.url.path else None]
    with pytest.raises(PeerFault):
        us.offer(nl)
    assert rows(nl, CosignatureRow) == []
    post(us, "second")
    us.publish()
    bodies_come_first(nl, followed)
    us.offer(nl)
    assert {notice.title for notice in rows(nl, NoticeRow)} == {"first", "second"}
    assert all(entry.body_state == "held" for entry in rows(nl, EntryRow))


def test_bodies_that_were_asked_for_early_are_not_taken_for_those_of_other_leaves(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    followed = mirror(nl, us)
    post(us, "first")
    us.publish()
    nl.follow(us)  # the leaf is here, and not judged
    post(us, "second")
    us.publish()
    bodies_come_first(nl, followed)
    us.offer(nl)  # asks early for the second alone, and both are judged
    assert {notice.title for notice in rows(nl, NoticeRow)} == {"first", "second"}
    assert all(entry.body_state == "held" for entry in rows(nl, EntryRow))
