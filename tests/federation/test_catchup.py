"""Nodes that begin late, were away, or were cut off: they become complete by themselves, and quietly."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import func, select

from app.clock import system_clock
from app.demo.found import Federation, Member, found
from app.domain.errors import PeerFault
from app.domain.statement import hash_leaf
from app.keyfiles import load_private
from app.models import EventRow
from app.node import Node
from app.replication.follow import NEAR, WINDOW, CorruptLeaves, follow_step
from app.server import make_server
from app.tlog.tiles import BundlePath, encode_bundle, extend_tiles, parse_tile_path
from tests import examples
from tests.federation.world import Officer, Peer, World, answer, dump, wait_until


def post_many(peer: Peer, count: int, label: str) -> None:
    """Small notices, in one batch."""
    lines = []
    for n in range(count):
        main = examples.best_practice(issuer=peer.state, title=f"{label} {n}")
        lines.append(orjson.dumps(peer.officer.sign(main).wire()))
    response = peer.request("POST", "/v1/notices/batch", content=b"\n".join(lines) + b"\n")
    assert {orjson.loads(a)["status"] for a in response.content.splitlines()} == {201}


def events(peer: Peer) -> dict[bool, int]:
    with peer.db.read() as session:
        rows = session.execute(select(EventRow.live, func.count()).group_by(EventRow.live)).all()
    return {live: count for live, count in rows}  # noqa: C416 - Row to tuple


def test_history_is_no_news_and_what_follows_is(world: World) -> None:
    """A first catch-up of hundreds must not become hundreds of alerts."""
    us, nl = world.make("US"), world.make("NL")
    post_many(us, NEAR + 20, "history")
    nl.sync(us)
    assert nl.log(us).backfilled
    assert events(nl) == {False: NEAR + 20}
    post_many(us, 3, "news")
    nl.sync(us)
    assert events(nl) == {False: NEAR + 20, True: 3}


def test_a_node_that_was_away_catches_up_with_everything(world_on_both: World) -> None:
    """Far enough behind that hash tiles are proven first, and not on a border of anything."""
    us, nl = world_on_both.make("US"), world_on_both.make("NL")
    post_many(us, 7, "before")
    nl.sync(us)
    nl.close()
    post_many(us, NEAR + 301, "while away")
    nl.open()
    nl.line.asked.clear()
    nl.sync(us)
    assert any("/tile/1/" in url for url in nl.line.asked)
    assert nl.log(us).size == nl.log(us).judged == NEAR + 308
    assert nl.federation(us)["in_step"]
    assert dump(nl.db, log_id=nl.log(us).id) == dump(us.db, log_id=us.log().id)
    post_many(us, 2, "after")
    nl.sync(us)
    assert nl.titles(limit="1") == ["after 1"]


def test_who_judges_is_told_of_a_long_catch_up_before_its_leaves_are_fetched(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    us.smuggle(*((b"leaf %d" % n, {}) for n in range(NEAR)))
    us.publish()
    told: list[tuple[int, bool]] = []
    listed = world.roster.log(us.node.origin)
    assert listed is not None

    def look() -> None:
        def expect(count: int) -> None:
            told.append((count, any("/tile/entries/" in url for url in nl.line.asked)))

        nl.line.asked.clear()
        follow_step(
            nl.db,
            nl.node.client,
            nl.log(us).id,
            listed.url,
            world.roster,
            clock=world.clock,
            expect=expect,
        )

    nl.followed(us)
    look()
    assert told == [], "a short one is no news"
    us.smuggle(*((b"another leaf %d" % n, {}) for n in range(NEAR + 1)))
    us.publish()
    look()
    assert told == [(NEAR + 1, False)]


def test_a_long_catch_up_that_is_cut_off_goes_on_where_it_was(world: World) -> None:
    """Leaves of a window are kept; they are neither judged nor cosigned before all up to the proven head are there."""
    us, nl = world.make("US"), world.make("NL")
    total = WINDOW + 700
    us.smuggle(*((b"leaf %d" % n, {}) for n in range(total)))
    us.publish()

    def cut_off(request: httpx.Request) -> httpx.Response | None:
        bundle = re.search(r"/tile/entries/([x0-9/]+?)(\.p/\d+)?$", request.url.path)
        number = int(bundle[1].replace("x", "").replace("/", "")) if bundle else 0
        return answer(503) if number >= WINDOW // 256 + 1 else None

    nl.line.rules = [cut_off]
    with pytest.raises(PeerFault):
        nl.follow(us)
    nl.judge(us)
    log = nl.log(us)
    assert (log.size, log.head_size, log.judged) == (WINDOW, 0, 0)
    seen = nl.federation(us)
    assert (seen["lag"]["leaves"], seen["in_step"], seen["receipts"]) == (total - WINDOW, False, [])

    nl.close()
    nl.open()
    nl.line.rules = []
    nl.line.asked.clear()
    nl.sync(us)
    assert not any(re.search(r"/tile/entries/00\d$", url) for url in nl.line.asked)
    log = nl.log(us)
    assert (log.size, log.head_size, log.judged) == (total, total, total)
    assert [(r["state"], r["size"]) for r in nl.federation(us)["receipts"]] == [("NL", total)]


@pytest.mark.parametrize(
    "pattern", [r"/tile/entries/001$", r"/tile/1/000.p/2$", r"/tile/(0|entries)/002", r"/tile/(0|1|entries)/"]
)
def test_what_is_wrong_far_ahead_is_noticed_as_well(world: World, pattern: str) -> None:
    """Beyond a few hundred leaves their hashes are proven first, and then each bundle against its own."""
    us, nl = world.make("US"), world.make("NL")
    us.smuggle(*((b"leaf %d" % n, {}) for n in range(NEAR + 100)))
    us.publish()

    def flip(request: httpx.Request) -> httpx.Response | None:
        if re.search(pattern, request.url.path) is None:
            return None
        body = bytearray(nl.line.honest(request).read())
        body[-1] ^= 1
        return answer(200, bytes(body))

    nl.line.rules = [flip]
    with pytest.raises(CorruptLeaves):
        nl.follow(us)
    log = nl.log(us)
    assert (log.size, log.head_size, log.status) == (0, 0, "ok")
    nl.line.rules = []
    nl.sync(us)
    assert nl.log(us).judged == NEAR + 100


def test_leaves_and_hashes_that_agree_with_each_other_and_not_with_the_signed_head_are_refused(
    world: World,
) -> None:
    """Whoever makes up a whole log makes up its tiles as well: the root that the log signed decides, before anything is stored."""
    us, nl = world.make("US"), world.make("NL")
    total = NEAR + 100
    us.smuggle(*((b"leaf %d" % n, {}) for n in range(total)))
    us.publish()
    made_up = [b"made up %d" % n for n in range(total)]
    tiles = {(t.level, t.index): t.data for t in extend_tiles(0, {}, [hash_leaf(leaf) for leaf in made_up])}

    def lie(request: httpx.Request) -> httpx.Response | None:
        _, found, path = request.url.path.partition("/tile/")
        if not found:
            return None
        wanted = parse_tile_path(f"tile/{path}")
        if isinstance(wanted, BundlePath):
            first = wanted.index * 256
            return answer(200, encode_bundle(made_up[first : first + wanted.width]))
        return answer(200, tiles[wanted.level, wanted.index][: wanted.width * 32])

    nl.line.rules = [lie]
    with pytest.raises(CorruptLeaves):
        nl.follow(us)
    log = nl.log(us)
    assert (log.size, log.head_size, log.status) == (0, 0, "ok")
    nl.line.rules = []
    nl.sync(us)
    assert nl.log(us).judged == total


def test_two_followers_of_one_log_do_not_disturb_each_other(world: World) -> None:
    """A worker beside the server, or a push while pulling."""
    us, nl = world.make("US"), world.make("NL")
    nl.followed(us)
    failures: list[Exception] = []

    def look() -> None:
        try:
            for _ in range(3):
                nl.node.mirrors.follow(nl.followed(us))
                nl.node.mirrors.judge(nl.followed(us))
        except Exception as error:  # noqa: BLE001 - whatever a thread raises, the test shows
            failures.append(error)

    for n in range(4):
        post_many(us, 30, f"round {n}")
        us.publish()

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        nl.sync(us)
        assert [e for e in failures if "to be next" not in str(e)] == []
    assert nl.log(us).judged == 120
    assert dump(nl.db, log_id=nl.log(us).id) == dump(us.db, log_id=us.log().id)


# ── as it is run: processes' threads, sockets, the roster from its repository ─────────────────────────────────────


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def served(federation: Federation, state: str) -> Iterator[Node]:
    node = Node(federation.node(state).settings)
    node.open()
    server = make_server(node)
    thread = threading.Thread(target=server.run, name=f"serve {state}")
    thread.start()
    try:
        wait_until(lambda: server.started)
        url = node.settings.public_url
        wait_until(
            lambda: httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
        )  # the roster is there
        yield node
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def _post(federation: Federation, state: str, title: str) -> None:
    member = federation.node(state)
    officer = Officer(state, load_private(member.contact_key), member.contact_kid)
    main = examples.best_practice(issuer=state, title=title)
    response = httpx.post(
        f"{member.member.url}/v1/notices",
        json=officer.sign(main, iat=system_clock() // 1000).wire(),
        timeout=60,
    )
    assert response.status_code == 201, response.text


def _sees(federation: Federation, state: str, title: str) -> bool:
    listed: Any = httpx.get(f"{federation.node(state).member.url}/v1/notices", timeout=60).json()
    return title in [n["title"] for n in listed.get("items", ())]


def _receipts(federation: Federation, state: str) -> dict[str, int]:
    seen = httpx.get(f"{federation.node(state).member.url}/v1/federation", timeout=60).json()
    own = next(log for log in seen["logs"] if log["own"])
    return {r["state"]: r["size"] for r in own["receipts"]}


def test_nodes_on_real_sockets_replicate_restart_and_begin_late(tmp_path: Path) -> None:
    overrides = {
        "follow_interval_s": 0.5,
        "roster_refresh_s": 1,
        "peer_timeout_s": 10.0,
        "log_level": "ERROR",
    }
    members = [
        Member(state, port, overrides) for state, port in zip(("EE", "US", "NL"), _free_ports(3), strict=True)
    ]
    federation = found(tmp_path / "federation", members, central="NL", at=system_clock() // 1000)
    with served(federation, "EE"):
        with served(federation, "US"):
            _post(federation, "EE", "while both run")
            wait_until(lambda: _sees(federation, "US", "while both run"))
            # A receipt comes from whoever stored the leaves, by the offer alone.
            wait_until(lambda: _receipts(federation, "EE").get("US") == 1)
        _post(federation, "EE", "while US is away")
        with served(federation, "US"), served(federation, "NL"):
            wait_until(lambda: _sees(federation, "US", "while US is away"))
            wait_until(lambda: _sees(federation, "NL", "while US is away"))
            _post(federation, "US", "from the one that came back")
            for state in ("EE", "NL"):
                wait_until(partial(_sees, federation, state, "from the one that came back"))
            wait_until(lambda: _receipts(federation, "EE") == {"US": 2, "NL": 2})
