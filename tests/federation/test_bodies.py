"""Bodies between nodes: who gets them, and what becomes of answers that are not them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select

from app.domain.encoding import b64u_encode
from app.models import BodyRow
from app.replication import bodies
from app.replication.signatures import sign_request
from tests import examples
from tests.federation.world import NOW, Peer, Rule, World, answer, origin_of, seeded, url_of


def post(peer: Peer, title: str, **overrides: Any) -> Any:
    return peer.must_post(
        peer.officer.sign(examples.denied_end_user(issuer=peer.state, title=title, **overrides))
    )


def when_asked(peer: Peer, state: str, give: Callable[[list[int], httpx.Request], httpx.Response]) -> Rule:
    """Answer this node's requests for bodies to `state`'s node."""

    def rule(request: httpx.Request) -> httpx.Response | None:
        if str(request.url) != f"{url_of(state)}/bodies":
            return None
        asked = [index for _, index in orjson.loads(request.read())["bodies"]]
        return give(asked, request)

    return rule


def lines(*values: Any) -> httpx.Response:
    return answer(200, b"".join(orjson.dumps(v) + b"\n" for v in values))


def body_line(index: Any, parts: Any, origin: str = origin_of("US")) -> dict[str, Any]:
    return {"origin": origin, "index": index, "parts": parts}


def part(salt: bytes = b"s" * 32, content: bytes = b"{}") -> dict[str, str]:
    return {"salt": b64u_encode(salt), "content": b64u_encode(content)}


def raising(error: type[httpx.TransportError]) -> Any:
    def give(asked: list[int], request: httpx.Request) -> httpx.Response:
        raise error("as if", request=request)

    return give


LIES: dict[str, Callable[[list[int], httpx.Request], httpx.Response]] = {
    "nothing_at_all": raising(httpx.ConnectError),
    "an_answer_that_never_comes": raising(httpx.ReadTimeout),
    "an_error": lambda *_: answer(500),
    "a_refusal": lambda *_: answer(403, b'{"type": "not-allowed"}'),
    "a_redirect": lambda *_: answer(307, location=url_of("EE")),
    "an_endless_answer": lambda *_: answer(200, itertools.repeat(b" " * 2**20)),
    "garbage": lambda *_: answer(200, bytes(range(256))),
    "a_page": lambda *_: answer(200, b"<html>\n<body>"),
    "an_empty_line": lambda *_: answer(200, b"\n"),
    "a_line_cut_off": lambda a, _: answer(200, orjson.dumps(body_line(a[-1], {"main": part()}))[:-9]),
    "null": lambda *_: lines(None),
    "a_list": lambda *_: lines([1]),
    "no_members": lambda *_: lines({}),
    "more_and_nothing": lambda *_: lines({"more": True}),
    "parts_that_are_none": lambda a, _: lines(body_line(a[-1], None)),
    "a_part_that_is_text": lambda a, _: lines(body_line(a[-1], {"main": "text"})),
    "a_part_without_salt": lambda a, _: lines(body_line(a[-1], {"main": {"content": "e30"}})),
    "a_salt_that_is_a_number": lambda a, _: lines(body_line(a[-1], {"main": {"salt": 1, "content": "e30"}})),
    "padded_base64url": lambda a, _: lines(body_line(a[-1], {"main": {"salt": "AA==", "content": "e30"}})),
    "an_index_that_is_a_list": lambda a, _: lines(body_line([a[-1]], {"main": part()})),
    "very_deep_nesting": lambda *_: answer(200, b"[" * 100_000 + b"]" * 100_000),
    "a_body_that_opens_nothing": lambda a, _: lines(body_line(a[-1], {"main": part()})),
    "an_index_of_five_thousand_digits": lambda *_: answer(
        200, b'{"origin":"us.verbale.example/log/1","index":' + b"9" * 5000 + b',"parts":{}}'
    ),
    "a_short_salt": lambda a, _: lines(body_line(a[-1], {"main": part(b"s")})),
    "no_parts": lambda a, _: lines(body_line(a[-1], {})),
    "a_part_too_many": lambda a, _: lines(body_line(a[-1], {"main": part(), "scan": part()})),
    "a_part_of_no_use": lambda a, _: lines(body_line(a[-1], {"scan": part()})),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[tuple[Peer, Peer]]:
    world = World(tmp_path_factory.mktemp("pair"), templates)
    yield world.make("US"), world.make("NL")
    world.close()


@pytest.mark.parametrize("name", LIES)
def test_a_body_stays_wanted_until_an_answer_opens_it(pair: tuple[Peer, Peer], name: str) -> None:
    us, nl = pair
    index = us.log().size
    signed = post(us, name)
    nl.line.rules = [when_asked(nl, "US", LIES[name])]
    nl.sync(us)
    entry = nl.entry(us, index)
    assert (entry.body_state, entry.fault_code, entry.body_fault_code) == ("wanted", None, None)
    assert name not in nl.titles(limit="200")
    assert nl.request("GET", f"/v1/notices/{signed.id}", headers=nl.token()).status_code == 404

    nl.judge(us)  # asked once more, with the same answer
    assert nl.entry(us, index).body_state == "wanted"

    nl.line.rules = []
    nl.judge(us)
    assert nl.entry(us, index).body_state == "held"
    assert nl.titles(limit="1") == [name]


def test_one_bad_body_among_good_ones_is_the_only_one_that_stays_wanted(pair: tuple[Peer, Peer]) -> None:
    us, nl = pair
    first = us.log().size
    for n in range(3):
        post(us, f"mixed {n}")

    def give(asked: list[int], request: httpx.Request) -> httpx.Response:
        given = [orjson.loads(line) for line in nl.line.honest(request).read().splitlines()]
        for line in given:
            if line["index"] == first + 1:
                line["parts"]["main"]["content"] = b64u_encode(b"{}")
        return lines(*given)

    nl.line.rules = [when_asked(nl, "US", give)]
    nl.sync(us)
    nl.line.rules = []
    assert [nl.entry(us, first + n).body_state for n in range(3)] == ["held", "wanted", "held"]
    assert nl.titles(limit="2") == ["mixed 2", "mixed 0"]
    nl.judge(us)
    assert nl.entry(us, first + 1).body_state == "held"


def test_a_withheld_body_is_absent_and_not_asked_for_for_ever(pair: tuple[Peer, Peer]) -> None:
    """No line in the answer says the same as "you are no addressee": this node cannot tell, and shows nothing."""
    us, nl = pair
    index = us.log().size
    post(us, "withheld")
    nl.line.rules = [when_asked(nl, "US", lambda *_: answer(200))]
    nl.sync(us)
    nl.line.rules = []
    assert nl.entry(us, index).body_state == "absent"
    nl.line.asked.clear()
    nl.judge(us)
    assert not [url for url in nl.line.asked if url.endswith("/bodies")]
    assert "withheld" not in nl.titles(limit="100")


def test_bodies_nobody_asked_for_are_left_alone(pair: tuple[Peer, Peer]) -> None:
    us, nl = pair
    post(us, "asked for")
    nl.sync(us)
    held = nl.entry(us, us.log().size - 1)
    index = us.log().size
    post(us, "and this")

    def give(asked: list[int], request: httpx.Request) -> httpx.Response:
        honest = [orjson.loads(line) for line in nl.line.honest(request).read().splitlines()]
        others = [body_line(index - 1, {"main": part()}), body_line(10**6, {"main": part()})]
        return lines(*others, *honest, body_line(index + 7, {"main": part()}, origin_of("EE")))

    nl.line.rules = [when_asked(nl, "US", give)]
    nl.sync(us)
    nl.line.rules = []
    assert nl.titles(limit="2") == ["and this", "asked for"]
    assert nl.entry(us, index - 1).body_state == held.body_state == "held"


def test_an_answer_in_pieces_is_asked_for_until_it_is_whole(pair: tuple[Peer, Peer]) -> None:
    us, nl = pair
    for n in range(3):
        post(us, f"piece {n}")

    def one_at_a_time(asked: list[int], request: httpx.Request) -> httpx.Response:
        first, *rest = nl.line.honest(request).read().splitlines()
        return answer(200, first + b"\n" + (b'{"more":true}\n' if rest else b""))

    nl.line.rules = [when_asked(nl, "US", one_at_a_time)]
    nl.sync(us)
    nl.line.rules = []
    assert nl.titles(limit="3") == ["piece 2", "piece 1", "piece 0"]


def test_what_is_to_be_asked_for_later_stays_wanted_and_is_not_asked_for_at_once(
    pair: tuple[Peer, Peer],
) -> None:
    us, nl = pair
    first = us.log().size
    for n in range(2):
        post(us, f"later {n}")
    asked_for: list[list[int]] = []

    def one_later(asked: list[int], request: httpx.Request) -> httpx.Response:
        asked_for.append(asked)
        if len(asked) > 1:
            return lines({"origin": origin_of("US"), "index": first, "later": True}, {"more": True})
        return nl.line.honest(request)

    nl.line.rules = [when_asked(nl, "US", one_later)]
    nl.sync(us)
    nl.line.rules = []
    assert asked_for[0] == [first, first + 1]
    assert asked_for[1] == [first + 1]
    assert nl.titles(limit="1") == ["later 1"]
    nl.judge(us)
    assert nl.titles(limit="2") == ["later 1", "later 0"]


# ── giving ────────────────────────────────────────────────────────────────────────────────────────────────────────


def ask_as(asker: Peer, of: Peer, *indexes: int, origin: str | None = None) -> bytes:
    """What `of` answers to `asker`'s own signed request."""
    body = orjson.dumps({"bodies": [[origin or of.node.origin, index] for index in indexes]})
    status, given = asker.node.client.post(f"{of.settings.public_url}/bodies", body, limit=2**20, signed=True)
    assert status == 200, given
    return given


def test_a_body_one_may_not_have_is_answered_as_one_that_does_not_exist(world: World) -> None:
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    post(ee, "for NL", tlp="TLP:RED", audience=["NL"])
    for index in (0, 1, 999_999):
        assert ask_as(us, ee, index) == b""
    assert ask_as(us, ee, 0, origin="xx.example/log/1") == b""
    assert orjson.loads(ask_as(nl, ee, 0, 1))["index"] == 0


def test_any_entitled_holder_gives_a_body_to_any_entitled_state(world: World) -> None:
    ee, us, nl = world.make("EE"), world.make("US"), world.make("NL")
    post(ee, "for NL and US", tlp="TLP:RED", audience=["NL", "US"])
    post(ee, "for NL", tlp="TLP:RED", audience=["NL"])
    nl.sync(ee)
    given = bodies.ask(us.node.client, nl.settings.public_url, ee.node.origin, [0, 1])
    assert (set(given.lines), given.withheld) == ({0}, {1})


def _signed(nl: Peer, us: Peer, body: bytes, **changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {
        "signer": nl.node.keys.transport,
        "kid": "NL/transport/1",
        "at": nl.world.clock() // 1000,
    }
    return sign_request("POST", f"{us.settings.public_url}/bodies", body, **(values | changes))


def _ask(us: Peer, body: bytes, headers: dict[str, str]) -> int:
    return us.request("POST", "/bodies", content=body, headers=headers).status_code


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"signer": seeded("a stranger")}, 401),
        ({"kid": "NL/transport/9"}, 403),
        ({"kid": "EE/transport/1"}, 401),
        ({"kid": "NL/cp/1", "signer": seeded("NL/cp/1")}, 403),
        ({"at": NOW - 3600}, 401),
        ({"at": NOW + 3600}, 401),
    ],
    ids=[
        "by a stranger",
        "with a key nobody listed",
        "in another State's name",
        "with a contact point's key",
        "an hour ago",
        "in an hour",
    ],
)
def test_a_request_for_bodies_is_refused_if_signed(
    pair: tuple[Peer, Peer], changes: dict[str, Any], status: int
) -> None:
    us, nl = pair
    body = orjson.dumps({"bodies": [[us.node.origin, 0]]})
    assert _ask(us, body, _signed(nl, us, body)) == 200
    assert _ask(us, body, _signed(nl, us, body, **changes)) == status


def test_a_request_for_bodies_counts_once_and_for_its_own_body_only(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    body = orjson.dumps({"bodies": [[us.node.origin, 0]]})
    headers = _signed(nl, us, body)
    assert _ask(us, orjson.dumps({"bodies": [[us.node.origin, 1]]}), headers) == 401
    assert _ask(us, body, headers) == 200
    assert _ask(us, body, headers) == 401
    assert _ask(us, body, {}) in (401, 403)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"bodies":[]}',
        b'{"bodies":[["us.verbale.example/log/1"]]}',
        b'{"bodies":[["us.verbale.example/log/1",-1]]}',
        b'{"bodies":[["us.verbale.example/log/1",true]]}',
        b'{"bodies":[["us.verbale.example/log/1",1e3]]}',
        b'{"bodies":[["../../etc/passwd",1]]}',
        b'{"bodies":[["us.verbale.example/log/1",99999999999999999999]]}',
        b'{"bodies":[["us.verbale.example/log/1",0]],"bodies":[["us.verbale.example/log/1",0]]}',
        orjson.dumps({"bodies": [["us.verbale.example/log/1", n] for n in range(513)]}),
    ],
)
def test_a_request_for_bodies_that_is_none_is_refused(pair: tuple[Peer, Peer], body: bytes) -> None:
    us, nl = pair
    assert _ask(us, body, _signed(nl, us, body)) == 422


def test_a_suspended_state_gets_no_bodies(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    body = orjson.dumps({"bodies": [[us.node.origin, 0]]})
    world.change_state("NL", status="suspended")
    assert _ask(us, body, _signed(nl, us, body)) in (401, 403)


# ── erased ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_erased_body_is_gone_everywhere_and_not_taken_again(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    signed = post(us, "to be erased")
    nl.sync(us)
    line = ask_as(nl, us, 0)
    us.must_post(us.officer.sign(None, "erase", ref=signed.hash))
    post(us, "after it")
    nl.line.rules = [
        when_asked(nl, "US", lambda _, request: answer(200, line + nl.line.honest(request).read()))
    ]
    nl.sync(us)
    nl.line.rules = []
    assert nl.titles() == ["after it"]
    for peer in (us, nl):
        assert peer.entry(us, 0).body_state == "erased"
        with peer.db.read() as session:
            assert session.scalars(select(BodyRow.idx)).all() == [2]
    assert ask_as(nl, us, 0) == b""
    proof = nl.request("GET", f"/v1/notices/{signed.id}/proof", headers=nl.token())
    assert proof.status_code in (200, 404)


def test_a_body_that_is_erased_while_it_is_on_its_way_is_not_taken(world: World) -> None:
    us, nl = world.make("US"), world.make("NL")
    signed = post(us, "asked for when it was erased")
    nl.line.rules = [when_asked(nl, "US", lambda *_: answer(503))]
    nl.sync(us)
    assert nl.entry(us, 0).body_state == "wanted"
    line = ask_as_if_nothing(nl, us)
    us.must_post(us.officer.sign(None, "erase", ref=signed.hash))
    us.publish()

    def erased_meanwhile(asked: list[int], request: httpx.Request) -> httpx.Response:
        nl.line.rules = []
        nl.follow(us)
        nl.judge(us)
        return answer(200, line)

    nl.line.rules = [when_asked(nl, "US", erased_meanwhile)]
    nl.judge(us)
    assert nl.entry(us, 0).body_state == "erased"
    with nl.db.read() as session:
        assert session.scalars(select(BodyRow.idx)).all() == []


def ask_as_if_nothing(asker: Peer, of: Peer) -> bytes:
    """The first body, past the rules that bend the asker's line."""
    rules, asker.line.rules = asker.line.rules, []
    given = ask_as(asker, of, 0)
    asker.line.rules = rules
    return given
