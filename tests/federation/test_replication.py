"""What is said at one State is known at every State that may know it, and at no other."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.models import BodyRow, EventRow
from app.replication.follow import advance, read_followed
from app.replication.signatures import sign_request
from app.replication.witness import log_keys
from app.tlog.checkpoint import open_checkpoint
from tests import examples
from tests.federation.test_bodies import ask_as
from tests.federation.world import Peer, Signed, World, answer, dump, url_of


def issue(peer: Peer, title: str, tlp: str = "TLP:GREEN", audience: Any = "ALL") -> Signed:
    main = examples.denied_end_user(issuer=peer.state, title=title, tlp=tlp, audience=audience)
    return peer.must_post(peer.officer.sign(main))


def amend(peer: Peer, of: Signed, title: str, tlp: str = "TLP:GREEN", audience: Any = "ALL") -> Signed:
    """A whole new version."""
    new = examples.denied_end_user(issuer=peer.state, title=title, tlp=tlp, audience=audience)
    main = examples.amendment(of.id, of.ref, replacement=new, issuer=peer.state, tlp=tlp, audience=audience)
    return peer.must_post(peer.officer.sign(main, "amend", ref=of.hash))


def withdraw(peer: Peer, of: Signed, tlp: str = "TLP:GREEN", audience: Any = "ALL") -> Signed:
    main = examples.withdrawal(of.id, of.ref, issuer=peer.state, tlp=tlp, audience=audience)
    return peer.must_post(peer.officer.sign(main, "withdraw", ref=of.hash))


def events(peer: Peer) -> list[tuple[str, bool]]:
    with peer.db.read() as session:
        return [(e.type, e.live) for e in session.scalars(select(EventRow).order_by(EventRow.seq))]


def held(peer: Peer, of: Peer) -> list[int]:
    with peer.db.read() as session:
        return list(
            session.scalars(
                select(BodyRow.idx).where(BodyRow.log_id == peer.log(of).id).order_by(BodyRow.idx)
            )
        )


def test_a_posted_notice_is_found_at_another_state(world_on_both: World) -> None:
    ee, us = world_on_both.make("EE"), world_on_both.make("US")
    signed = issue(ee, "Denied: Aurelian Sky")
    us.sync(ee)
    assert us.titles(party="aurelian") == ["Denied: Aurelian Sky"]
    found = us.get(f"/v1/notices/{signed.id}", headers=us.token())
    assert (found["issuer"], found["status"], found["leaf_hash"]) == ("EE", "active", signed.ref)
    assert dump(ee.db, log_id=ee.log().id) == dump(us.db, log_id=us.log(ee).id)


def test_a_look_that_was_overtaken_takes_no_head_back(world_on_both: World) -> None:
    """Two looks at a log side by side, its loop's and one for gossip: the one that read first writes last."""
    us, nl = world_on_both.make("US"), world_on_both.make("NL")
    us.publish()
    early = us.request("GET", "/log/1/checkpoint").content  # of size 0
    nl.followed(us)
    with nl.db.read() as session:
        mirror = read_followed(session, nl.log(us).id)
    issue(us, "meanwhile")
    us.publish()
    nl.sync(us)
    assert nl.log(us).head_size == 1
    head, note = open_checkpoint(early, log_keys(world_on_both.roster, mirror.origin), mirror.origin)
    advance(
        nl.db,
        nl.node.client,
        mirror,
        f"{url_of('US')}/log/1",
        head,
        note,
        roster=world_on_both.roster,
        clock=world_on_both.clock,
    )
    log = nl.log(us)
    assert (head.size, log.head_size, log.claimed_size) == (0, 1, 1)
    assert log.head_note != early


def test_a_whole_life_leaves_the_same_rows_everywhere(world_on_both: World) -> None:
    """Issue, amend, withdraw, erase, acknowledge; in one look, in many, and on every engine."""
    ee, us, nl = (world_on_both.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "first")
    us.sync(ee)
    second = amend(ee, first, "second version")
    other = issue(ee, "other")
    us.sync(ee)
    withdraw(ee, second)
    ee.must_post(ee.officer.sign(None, "erase", ref=other.hash))
    ack = examples.acknowledgement(first.id, first.ref, issuer="EE")
    ee.must_post(ee.officer.sign(ack, "ack", ref=first.hash))
    us.sync(ee)
    nl.sync(ee)
    ours = dump(ee.db, log_id=ee.log().id)
    assert dump(us.db, log_id=us.log(ee).id) == ours
    assert dump(nl.db, log_id=nl.log(ee).id) == ours


# ── audiences ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restricted_notice_does_not_exist_for_others(world: World) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    secret = issue(ee, "For NL only", "TLP:RED", ["NL"])
    issue(ee, "For all")
    us.sync(ee)
    nl.sync(ee)
    assert nl.titles() == ["For all", "For NL only"]
    assert us.titles() == ["For all"]
    assert us.find()["total"] == 1
    for filters in ({"text": "NL only"}, {"party": "aurelian"}, {"tlp": "TLP:RED"}, {"issuer": "EE"}):
        assert us.find(**filters)["total"] == (1 if filters.keys() & {"party", "issuer"} else 0)
    unknown = "01a0c450-6c00-7000-8000-000000000000"
    for path in ("", "/versions", "/receipts", "/proof"):
        answers = []
        for notice_id in (secret.id, unknown):
            response = us.request("GET", f"/v1/notices/{notice_id}{path}", headers=us.token())
            problem = response.json() | {"instance": ""}
            answers.append((response.status_code, orjson.dumps(problem).replace(notice_id.encode(), b"ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
    assert held(us, ee) == [1]
    assert events(us) == [("notice.issued", False)]


def test_nobody_is_shown_a_restricted_notice_without_a_credential(world: World) -> None:
    ee, nl = world.make("EE"), world.make("NL")
    secret = issue(ee, "For NL only", "TLP:RED", ["NL"])
    nl.sync(ee)
    for peer in (ee, nl):
        assert peer.get("/v1/notices")["total"] == 0
        assert peer.request("GET", f"/v1/notices/{secret.id}").status_code == 404


def test_another_states_node_is_shown_what_its_state_may_see_and_no_more(world: World) -> None:
    """By a request that it signs, to a node that holds all of it: here the gate alone decides."""
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    secret = issue(ee, "For NL only", "TLP:RED", ["NL"])
    issue(ee, "For both", "TLP:AMBER", ["NL", "US"])
    issue(ee, "For all")

    def ask(peer: Peer, path: str) -> Any:
        url = f"{ee.settings.public_url}{path}"
        kid = f"{peer.state}/transport/1"
        signed = sign_request(
            "GET", url, b"", signer=peer.node.keys.transport, kid=kid, at=world.clock() // 1000
        )
        return ee.request("GET", path, headers=signed)

    for peer, titles in ((us, ["For all", "For both"]), (nl, ["For all", "For both", "For NL only"])):
        page = ask(peer, "/v1/notices").json()
        assert [n["title"] for n in page["items"]] == titles
        assert page["total"] == len(titles)
    for path in ("", "/versions", "/receipts"):
        assert ask(us, f"/v1/notices/{secret.id}{path}").status_code == 404
        assert ask(nl, f"/v1/notices/{secret.id}{path}").status_code == 200


@pytest.mark.parametrize("when", ["seen before", "all at once"])
def test_a_narrowed_audience_recalls_and_shows_no_more(world: World, when: str) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "For both", "TLP:AMBER", ["NL", "US"])
    if when == "seen before":
        us.sync(ee)
        nl.sync(ee)
        assert us.titles() == ["For both"]
    amend(ee, first, "For NL now", "TLP:AMBER", ["NL"])
    us.sync(ee)
    nl.sync(ee)
    assert nl.titles() == ["For NL now"]
    assert us.titles() == []
    assert us.find()["total"] == 0
    shown = us.get(f"/v1/notices/{first.id}", headers=us.token())
    assert (shown["status"], shown["recalled"], shown["title"]) == ("recalled", True, None)
    assert us.statuses() == {}
    assert [n["id"] for n in us.find(status="recalled")["items"]] == [first.id]
    assert b"NL now" not in us.request("GET", f"/v1/notices/{first.id}/versions", headers=us.token()).content
    assert held(us, ee) == [0]
    assert us.entry(ee, 1).body_state == "absent"
    assert events(us)[-1][0] == "notice.recalled"
    assert ask_as(us, ee, 1) == b""
    assert ask_as(us, nl, 1, origin=ee.node.origin) == b""


def test_early_and_late_replicas_of_one_state_are_the_same(world: World) -> None:
    """One of them saw every version as it came, the other began when all was over."""
    ee, us = world.make("EE"), world.make("US")
    notices = [issue(ee, f"notice {n}", "TLP:AMBER", ["NL", "US"]) for n in range(6)]
    us.sync(ee)
    amend(ee, notices[0], "narrowed", "TLP:AMBER", ["NL"])
    widened = amend(ee, amend(ee, notices[1], "narrowed", "TLP:AMBER", ["NL"]), "widened again")
    us.sync(ee)
    withdraw(ee, notices[2], "TLP:AMBER", ["NL"])
    ee.must_post(ee.officer.sign(None, "erase", ref=notices[3].hash))
    us.sync(ee)
    withdraw(ee, widened)
    us.sync(ee)
    statuses = us.statuses()
    late = world.make("US", folder="US-late")
    late.sync(ee)
    assert dump(late.db, log_id=late.log(ee).id) == dump(us.db, log_id=us.log(ee).id)
    assert late.statuses() == statuses
    assert list(statuses.values()).count("withdrawn") == 2


def test_a_widened_audience_is_shown_the_new_version_and_not_the_old(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    first = issue(ee, "For NL", "TLP:RED", ["NL"])
    us.sync(ee)
    amend(ee, first, "For all")
    us.sync(ee)
    assert us.titles() == ["For all"]
    versions = us.get(f"/v1/notices/{first.id}/versions", headers=us.token())["items"]
    assert [(v["version"], v["readable"]) for v in versions] == [(1, False), (2, True)]
    assert held(us, ee) == [1]


def test_a_patch_for_more_states_is_refused_and_from_a_peer_flagged_by_all_it_is_for(world: World) -> None:
    """The new addressee could not apply it, and whoever could must come to the same verdict."""
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "For NL", "TLP:RED", ["NL"])
    main = examples.amendment(first.id, first.ref, issuer="EE")
    wider = ee.officer.sign(main, "amend", ref=first.hash)
    refused = ee.post(wider)
    assert (refused.status_code, refused.json()["type"].split("#")[1]) == (422, "inapplicable-amendment")
    ee.smuggle((wider.leaf, wider.parts))
    for peer in (us, nl):
        peer.sync(ee)
        assert peer.titles() == []
        assert peer.faults(ee) == {1: "inapplicable-amendment"}


def test_a_withdrawal_is_seen_wherever_any_version_was(world: World) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "For both", "TLP:AMBER", ["NL", "US"])
    us.sync(ee)
    withdraw(ee, first, "TLP:AMBER", ["NL"])
    us.sync(ee)
    nl.sync(ee)
    for peer in (us, nl):
        assert peer.statuses() == {"For both": "withdrawn"}
        assert peer.titles() == []


def test_nobody_else_withdraws_amends_or_acknowledges_in_a_states_name(world: World) -> None:
    """US says, in its own log, that EE's notice is over. It is flagged there and changes nothing."""
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    target = issue(ee, "Stands")
    main = examples.withdrawal(target.id, target.ref, issuer="US")
    forged = us.officer.sign(main, "withdraw", ref=target.hash)
    us.smuggle((forged.leaf, forged.parts))
    nl.sync(ee)
    nl.sync(us)
    assert nl.faults(us) == {0: "unknown-reference"}
    assert [(n["title"], n["status"]) for n in nl.find()["items"]] == [("Stands", "active")]


def test_one_id_in_two_logs_is_two_notices(world: World) -> None:
    ee, us, nl = (world.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "the first")
    main = examples.denied_end_user(issuer="US", title="the same id")
    us.must_post(us.officer.sign(main, statement_id=first.id))
    nl.sync(ee)
    nl.sync(us)
    assert nl.titles() == ["the same id", "the first"]
    response = nl.request("GET", f"/v1/notices/{first.id}", headers=nl.token())
    assert response.status_code == 409
    chosen = nl.get(f"/v1/notices/{first.id}", params={"origin": ee.node.origin}, headers=nl.token())
    assert chosen["title"] == "the first"


# ── the order in which bodies come ────────────────────────────────────────────────────────────────────────────────


class Author:
    """Writes lives of notices at random into one log."""

    def __init__(self, peer: Peer, chance: random.Random) -> None:
        self.peer, self.chance = peer, chance
        self.open: list[Signed] = []

    def _handling(self) -> dict[str, Any]:
        ours = self.chance.random() < 0.7
        return {"tlp": "TLP:AMBER", "audience": ["NL", "US"] if ours else ["NL"]}

    def write(self) -> None:
        """One more statement, sometimes one that no door would take."""
        kind = self.chance.choice(["issue", "replace", "patch", "patch", "bad patch", "withdraw", "erase"])
        if kind == "issue" or not self.open:
            main = examples.denied_end_user(
                issuer="EE", title=f"notice {self.chance.random()}", **self._handling()
            )
            self.open.append(self._log(self.peer.officer.sign(main)))
            return
        position = self.chance.randrange(len(self.open))
        at = self.open[position]
        if kind == "erase":
            self._log(self.peer.officer.sign(None, "erase", ref=at.hash))
            self.open.pop(position)
        elif kind == "withdraw":
            main = examples.withdrawal(at.id, at.ref, issuer="EE", **self._handling())
            self.open[position] = self._log(self.peer.officer.sign(main, "withdraw", ref=at.hash))
        else:
            change: dict[str, Any] = {"merge_patch": {"title": f"patched {self.chance.random()}"}}
            handling = self._handling()
            if kind == "bad patch":
                change = {"merge_patch": {"body": {"destination": "ZZ"}}}
            if kind == "replace":
                new = examples.denied_end_user(issuer="EE", title=f"new {self.chance.random()}", **handling)
                change = {"replacement": new}
            main = examples.amendment(at.id, at.ref, issuer="EE", **change, **handling)
            self.open[position] = self._log(self.peer.officer.sign(main, "amend", ref=at.hash))

    def _log(self, signed: Signed) -> Signed:
        main = orjson.loads(signed.parts["main"].content) if signed.parts else {"audience": []}
        self.peer.smuggle((signed.leaf, signed.parts), audience=" ".join(main["audience"]))
        return signed


def spoil(line: bytes) -> bytes:
    """The same body with another salt: it opens nothing, so it stays wanted."""
    given = orjson.loads(line)
    given["parts"]["main"]["salt"] = "A" * 43
    return orjson.dumps(given)


def test_the_order_in_which_bodies_come_does_not_matter(tmp_path: Path, templates: Path) -> None:
    """One replica is given every body at once; the other, of the same State, in any order and in any portions."""
    world = World(tmp_path / "world", templates)
    ee, late = world.make("EE"), world.make("US", folder="late")
    at_once = world.make("US", folder="at once")

    @settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32), st.integers(2, 10))
    def check(seed: int, length: int) -> None:
        # Not st.randoms(): it parses source, and CPython's parser is not safe while other threads parse.
        chance = random.Random(seed)  # noqa: S311 - a test's choices
        author = Author(ee, chance)
        for _ in range(length):
            author.write()
            if chance.random() < 0.3:
                step()
        for _ in range(3):
            late.world.clock.tick(1)
            step()
        late.line.rules = []
        late.sync(ee)
        at_once.sync(ee)
        assert dump(late.db, log_id=late.log(ee).id) == dump(at_once.db, log_id=at_once.log(ee).id)

    def step() -> None:
        def some(request: Any) -> Any:
            if str(request.url) != f"{url_of('EE')}/bodies":
                return None
            lines = late.line.honest(request).read().splitlines()
            return answer(200, b"".join((line if chance_of(line) else spoil(line)) + b"\n" for line in lines))

        late.line.rules = [some]
        late.sync(ee)

    def chance_of(line: bytes) -> bool:
        return sha256(line + bytes([late.world.clock.ms // 1000 % 251])).digest()[0] < 100

    try:
        check()
    finally:
        world.close()


def test_bodies_that_come_late_lead_to_the_same_rows(world_on_both: World) -> None:
    """The origin's /bodies is down at first."""
    ee, us, nl = (world_on_both.make(code) for code in ("EE", "US", "NL"))
    first = issue(ee, "first")
    main = examples.amendment(first.id, first.ref, issuer="EE")
    second = ee.must_post(ee.officer.sign(main, "amend", ref=first.hash))
    main = examples.amendment(second.id, second.ref, merge_patch={"summary": "Patched again."}, issuer="EE")
    withdraw(ee, ee.must_post(ee.officer.sign(main, "amend", ref=second.hash)))
    issue(ee, "other")
    us.line.rules = [lambda request: answer(503) if request.url.path == "/bodies" else None]
    us.sync(ee)
    assert us.titles() == []
    us.line.rules = []
    us.judge(ee)
    nl.sync(ee)
    assert us.statuses() == nl.statuses() == {"other": "active", "Amended title": "withdrawn"}
    assert dump(us.db, log_id=us.log(ee).id) == dump(nl.db, log_id=nl.log(ee).id)


def test_a_body_is_never_taken_for_another_leaf(world: World) -> None:
    ee, us = world.make("EE"), world.make("US")
    issue(ee, "one")
    issue(ee, "two")

    def exchanged(request: Any) -> Any:
        if request.url.path != "/bodies":
            return None
        one, two = (orjson.loads(line) for line in us.line.honest(request).read().splitlines())
        one["parts"], two["parts"] = two["parts"], one["parts"]
        return answer(200, orjson.dumps(one) + b"\n" + orjson.dumps(two) + b"\n")

    us.line.rules = [exchanged]
    us.sync(ee)
    assert us.titles() == []
    us.line.rules = []
    us.judge(ee)
    assert us.titles() == ["two", "one"]
