"""Notices of a suspect key: they count, and are marked as to be reconfirmed unless witnesses prove that they are older."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from app.models import EventRow
from app.queries.notices import mark_suspects
from tests import examples
from tests.db.test_rejudge import SECOND, by_second, change_key, second_key
from tests.federation.world import NOW, Peer, World


@pytest.fixture
def us(world: World) -> Peer:
    us, nl = world.make("US"), world.make("NL")
    world.add_key("NL", second_key())
    nl.must_post(nl.officer.sign(examples.best_practice(issuer="NL", title="By another key")))
    nl.must_post(by_second(nl, examples.best_practice(issuer="NL", title="Suspect")))
    us.sync(nl)
    return us


def marked(peer: Peer) -> dict[str, bool]:
    items = peer.find()["items"]
    for item in items:
        assert peer.get(f"/v1/notices/{item['id']}", headers=peer.token())["reconfirm"] == item["reconfirm"]
    return {item["title"]: item["reconfirm"] for item in items}


def test_only_what_the_suspect_key_signed_is_marked(world: World, us: Peer) -> None:
    assert marked(us) == {"By another key": False, "Suspect": False}
    change_key(world, "NL", SECOND, suspect_from=NOW - 100)
    us.judge(world.peers["NL"])
    assert marked(us) == {"By another key": False, "Suspect": True}


def test_what_witnesses_prove_to_be_older_is_not_marked_whatever_it_claims(world: World, us: Peer) -> None:
    change_key(world, "NL", SECOND, suspect_from=NOW)
    from app.gate import operator
    from app.queries.filters import NoticeFilter
    from app.queries.notices import find

    with us.db.read() as session:
        page = find(
            session, operator("US"), NoticeFilter.parse([]), limit=10, cursor=None, now_ms=world.clock()
        )
        (view,) = (v for v in page.items if v.title == "Suspect")
        for before, expected in ((NOW, False), (NOW - 1, False), (NOW + 1, True), (None, True)):
            seen = replace(view, logged=replace(view.logged, before=before))
            (shown,) = mark_suspects(session, world.roster, [seen])
            assert shown.reconfirm == expected, before


def test_a_new_roster_is_told_once(world: World, us: Peer) -> None:
    for _ in range(2):
        us.node._tell_of_roster(world.roster)
    newer = replace(world.roster, version=world.roster.version + 1, sha256="cd" * 32)
    us.node._tell_of_roster(newer)
    with us.db.read() as session:
        told = session.scalars(select(EventRow.detail).where(EventRow.type == "roster.changed")).all()
    assert len(told) == 2
    assert (
        told[1]
        == f'{{"version":{newer.version},"sha256":"{newer.sha256}","previous":{world.roster.version}}}'
    )
