"""Sealed bodies on their way: carried by a node that may not read them, opened by the addressee, proven by the leaf."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select

from app.domain.encoding import b64u_encode
from app.domain.statement import Part
from app.models import BodyRow, CarriedRow, LogRow
from app.replication import sealed as sealing
from app.replication.client import PeerAnswerRefused
from app.replication.remote import LATE_AT_ONCE
from app.replication.signatures import sign_request
from tests import examples
from tests.federation.world import DAY, NOW, Peer, Rule, Signed, World, answer, origin_of, url_of

SECRET = "Falcon Grey Logistics"


@pytest.fixture
def world(tmp_path: Path, templates: Path) -> Iterator[World]:
    made = World(tmp_path / "world", templates, ("EE", "US", "NL", "JP"))
    yield made
    made.close()


def restricted(peer: Peer, title: str, to: list[str], **overrides: Any) -> Signed:
    main = examples.denied_end_user(issuer=peer.state, title=title, tlp="TLP:RED", audience=to, **overrides)
    return peer.must_post(peer.officer.sign(main))


def down(state: str) -> Rule:
    """That State's node does not answer."""

    def rule(request: httpx.Request) -> httpx.Response | None:
        if str(request.url).startswith(url_of(state)):
            raise httpx.ConnectError("as if", request=request)
        return None

    return rule


def carried(peer: Peer, of: Peer) -> dict[tuple[int, str], bytes]:
    with peer.db.read() as session:
        rows = session.execute(
            select(CarriedRow.idx, CarriedRow.recipient, CarriedRow.sealed)
            .join(LogRow, LogRow.id == CarriedRow.log_id)
            .where(LogRow.origin == origin_of(of.state))
        ).all()
    return {(row.idx, row.recipient): bytes(row.sealed) for row in rows}


def seal_all(peer: Peer) -> None:
    while peer.node.seal():
        pass


def carry(peer: Peer, of: Peer) -> None:
    peer.followed(of)
    while peer.node.mirrors.carry():
        pass


def test_an_addressee_gets_its_body_from_a_node_that_may_not_read_it(world_on_both: World) -> None:
    ee, us, nl = (world_on_both.make(code) for code in ("EE", "US", "NL"))
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)
    carry(us, ee)
    nl.line.rules = [down("EE")]
    nl.follow(ee)  # from a mirror: the log itself is everybody's
    nl.judge(ee)
    assert nl.titles() == [SECRET]
    assert us.titles() == []


def test_whoever_carries_learns_neither_content_nor_audience(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    restricted(ee, SECRET, ["EE", "NL"])
    restricted(ee, "For Japan", ["EE", "JP"])
    seal_all(ee)
    us.sync(ee)
    carry(us, ee)
    held = carried(us, ee)
    # One for each State that is not here, addressee or not, all alike but for the key they name.
    assert sorted(held) == [(0, "JP"), (0, "NL"), (1, "JP"), (1, "NL")]
    assert len({len(raw) for raw in held.values()}) == 1
    assert SECRET.encode() not in b"".join(held.values())
    with us.db.read() as session:
        assert session.execute(select(BodyRow.idx)).all() == []


def test_a_state_that_is_no_addressee_is_given_what_opens_for_nobody(world: World) -> None:
    ee, us, jp = world.make("EE"), world.make("US"), world.make("JP")
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)
    carry(us, ee)
    jp.line.rules = [down("EE")]
    jp.follow(ee)
    jp.judge(ee)
    assert jp.titles() == []
    assert jp.entry(ee, 0).body_state == "wanted"  # nobody but the issuer can say that it is not for Japan
    jp.line.rules = []
    jp.judge(ee)
    assert jp.entry(ee, 0).body_state == "absent"


def test_what_every_member_may_read_or_nobody_is_not_sealed(world: World) -> None:
    ee = world.make("EE")
    ee.must_post(ee.officer.sign(examples.denied_end_user(issuer="EE", title="For all")))
    main = examples.denied_end_user(
        issuer="EE", title="For each", tlp="TLP:AMBER", audience=["EE", "US", "NL", "JP"]
    )
    ee.must_post(ee.officer.sign(main))
    seal_all(ee)
    with ee.db.read() as session:
        assert session.execute(select(CarriedRow.idx)).all() == []


@pytest.mark.parametrize("liar", ["US", "JP"])
def test_an_altered_sealing_is_no_body_and_another_carrier_is_asked(world: World, liar: str) -> None:
    ee, us, jp, nl = (world.make(code) for code in ("EE", "US", "JP", "NL"))
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    for carrier in (us, jp):
        carrier.sync(ee)
        carry(carrier, ee)
    with world.peers[liar].db.write() as session:
        row = session.execute(select(CarriedRow).where(CarriedRow.recipient == "NL")).scalar_one()
        row.sealed = orjson.dumps(orjson.loads(row.sealed) | {"parts": {"main": b64u_encode(b"x" * 2160)}})
    nl.line.rules = [down("EE")]
    nl.follow(ee)
    nl.judge(ee)
    assert nl.titles() == [SECRET]


def test_bodies_that_nobody_has_do_not_keep_later_ones_from_being_asked_for(world: World) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    for number in range(LATE_AT_ONCE + 1):
        restricted(ee, f"For nobody else {number}", ["EE"])
    restricted(ee, SECRET, ["EE", "NL"])
    us.sync(ee)
    nl.line.rules = [down("EE")]
    nl.follow(ee)
    nl.judge(ee)
    assert {nl.entry(ee, index).body_state for index in (0, LATE_AT_ONCE + 1)} == {"wanted"}
    seal_all(ee)
    carry(us, ee)
    followed = nl.followed(ee)
    followed.wanted_after = -1
    for _ in range(2):  # two looks: one batch that nobody has, and the one after it
        nl.node.mirrors.judge(followed)
    assert nl.titles() == [SECRET]


def test_a_body_that_somebody_else_sealed_does_not_pass_for_the_issuers(world: World) -> None:
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    signed = restricted(ee, SECRET, ["EE", "NL"])
    us.sync(ee)
    key = sealing.encryption_key_of(world.roster, "NL", at=NOW)
    assert key is not None
    genuine = signed.parts["main"]
    forged = Part(genuine.salt, genuine.content.replace(b"Grey", b"Blue"))
    one = sealing._Restricted(0, signed.id, frozenset({"NL"}), {"main": forged})
    raw = sealing._sealed_for(one, "NL", key, ee.node.origin)
    with us.db.write() as session:
        session.add(
            CarriedRow(log_id=us.log(ee).id, idx=0, recipient="NL", sealed=raw, size=len(raw), at=NOW * 1000)
        )
    nl.line.rules = [down("EE")]
    nl.follow(ee)
    nl.judge(ee)
    assert nl.entry(ee, 0).body_state == "wanted"
    assert nl.titles() == []


def test_an_erasure_takes_the_sealings_too(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    signed = restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)
    carry(us, ee)
    assert carried(us, ee)
    ee.must_post(ee.officer.sign(None, "erase", ref=signed.hash))
    us.sync(ee)
    assert not carried(us, ee)
    with ee.db.read() as session:
        assert session.execute(select(CarriedRow.idx)).all() == []
    carry(us, ee)
    assert not carried(us, ee)


def test_what_is_carried_stays_within_the_limit_and_the_oldest_go_first(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    for number in range(3):
        restricted(ee, f"{SECRET} {number}", ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)
    one = len(next(iter(carried_from(ee).values())))
    sealing.carry_step(
        us.db, us.node.client, us.log(ee).id, url_of("EE"),
        state="US", limit_bytes=4 * one + 10, keep_days=90, now=world.clock(),
    )  # fmt: skip
    assert {index for index, _ in carried(us, ee)} == {1, 2}
    world.clock.tick(91 * DAY)
    carry(us, ee)
    assert not carried(us, ee)


def carried_from(peer: Peer) -> dict[tuple[int, str], bytes]:
    with peer.db.read() as session:
        rows = session.execute(select(CarriedRow.idx, CarriedRow.recipient, CarriedRow.sealed)).all()
    return {(row.idx, row.recipient): bytes(row.sealed) for row in rows}


SEALED = {"id": "019966a8-0000-7000-8000-000000000000", "kid": "NL/encryption/1", "parts": {"main": "AA"}}


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'{"index": 0}',
        orjson.dumps({"index": "0", "to": "NL", "sealed": SEALED}),
        orjson.dumps({"index": 0, "to": "NLD", "sealed": SEALED}),
        orjson.dumps({"index": 0, "to": "NL", "sealed": SEALED | {"more": 1}}),
        orjson.dumps({"index": 0, "to": "NL", "sealed": SEALED | {"parts": {}}}),
        orjson.dumps({"index": 0, "to": "NL", "sealed": SEALED | {"kid": "x" * 41}}),
        orjson.dumps({"next": "1"}),
    ],
)
def test_an_answer_that_is_no_sealed_body_is_refused_and_nothing_of_it_is_kept(
    world: World, line: bytes
) -> None:
    ee, us = world.make("EE"), world.make("US")
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)

    def lie(request: httpx.Request) -> httpx.Response | None:
        if not str(request.url).endswith("/bodies/sealed"):
            return None
        good = orjson.dumps({"index": 0, "to": "NL", "sealed": SEALED})
        return answer(200, good + b"\n" + line + b"\n")

    us.line.rules = [lie]
    with pytest.raises(PeerAnswerRefused):
        sealing.carry_step(
            us.db, us.node.client, us.log(ee).id, url_of("EE"),
            state="US", limit_bytes=2**20, keep_days=90, now=world.clock(),
        )  # fmt: skip
    assert not carried(us, ee)


def test_a_sealed_body_of_a_leaf_that_is_not_mirrored_is_not_kept(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    restricted(ee, SECRET, ["EE", "NL"])
    us.sync(ee)
    given = [{"index": index, "to": "NL", "sealed": SEALED} for index in (0, 1, 10**9)]

    def ahead(request: httpx.Request) -> httpx.Response | None:
        if not str(request.url).endswith("/bodies/sealed"):
            return None
        return answer(200, b"".join(orjson.dumps(line) + b"\n" for line in [*given, {"next": 10**9}]))

    us.line.rules = [ahead]
    carry(us, ee)
    assert list(carried(us, ee)) == [(0, "NL")]


def test_only_nodes_are_given_carried_bodies_and_only_of_the_givers_own_log(world: World) -> None:
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    us.sync(ee)
    carry(us, ee)
    body = orjson.dumps({"origin": ee.node.origin, "from": 0})
    url = f"{url_of('EE')}/bodies/sealed"
    assert ee.request("POST", "/bodies/sealed", content=body).status_code == 403
    signed = sign_request("POST", url, body, signer=nl.node.keys.transport, kid="NL/transport/1", at=NOW)
    given = ee.request("POST", "/bodies/sealed", content=body, headers=signed)
    assert len(given.text.splitlines()) == 4
    other = sign_request(
        "POST",
        f"{url_of('US')}/bodies/sealed",
        body,
        signer=nl.node.keys.transport,
        kid="NL/transport/1",
        at=NOW,
    )
    assert us.request("POST", "/bodies/sealed", content=body, headers=other).text == ""


def test_the_issuer_is_silent_to_whom_a_body_is_not_for_as_if_there_were_none(world: World) -> None:
    ee, jp = world.make("EE"), world.make("JP")
    restricted(ee, SECRET, ["EE", "NL"])
    seal_all(ee)
    url = f"{url_of('EE')}/bodies"
    for index in (0, 7):  # one that is sealed to others, and one that does not exist
        body = orjson.dumps({"bodies": [[ee.node.origin, index]]})
        signed = sign_request("POST", url, body, signer=jp.node.keys.transport, kid="JP/transport/1", at=NOW)
        given = ee.request("POST", "/bodies", content=body, headers=signed)
        assert (given.status_code, given.content) == (200, b"")
