"""Posting notices over HTTP: what is read, what is refused, and limits that hold while bytes arrive."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
import uvicorn

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import Busy, IdReused, InvalidSignature, VerbaleError
from app.domain.signed import SignedNotice
from app.edge import Edge, HttpProtocol
from app.limits import Inflow, TooSlow
from app.observability import RequestMetrics
from app.record import Receipt
from app.routers import notices
from tests.http.edge_node import URL, Client, EdgeNode, make_app, open_node, run

SALT = b64u_encode(b"s" * 32)


def wire(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "statement": f"h.{number}.s",
        "parts": {"main": {"salt": SALT, "content": b64u_encode(b"{}")}},
    } | changes


def line(number: int = 0) -> bytes:
    return json.dumps(wire(number)).encode() + b"\n"


@pytest.fixture
def node(sqlite_url: str) -> Iterator[EdgeNode]:
    opened = open_node(
        sqlite_url,
        max_notice_bytes=4000,
        max_batch_bytes=400_000,
        max_batch_lines=1500,
    )
    seen: dict[bytes, int] = {}

    def answer(signed: SignedNotice) -> Receipt | VerbaleError:
        if signed.statement == b"h.13.s":
            return InvalidSignature("The signature does not hold.")
        created = signed.statement not in seen
        index = seen.setdefault(signed.statement, len(seen))
        return Receipt(
            signed.statement.decode(), index, sha256(signed.statement).digest(), opened.origin, created
        )

    opened.answer = answer
    yield opened
    opened.db.dispose()


@pytest.fixture
def client(node: EdgeNode) -> Client:
    return Client(make_app(node))


def answers(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.content.endswith(b"\n")
    return [json.loads(text) for text in response.content.splitlines()]


# ── one ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notice_is_answered_with_its_receipt_and_the_same_bytes_with_the_same(
    client: Client, node: EdgeNode
) -> None:
    first, again = (client.post("/v1/notices", content=json.dumps(wire())) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json().keys() == {"id", "index", "leaf_hash", "origin"}
    assert b64u_decode(first.json()["leaf_hash"]) == sha256(b"h.0.s").digest()
    assert node.posted[0][0].parts["main"].content == b"{}"


def test_what_the_door_refuses_is_a_problem(client: Client, node: EdgeNode) -> None:
    assert (
        client.post("/v1/notices", content=json.dumps(wire(13))).json()["type"].endswith("#invalid-signature")
    )
    node.answer = lambda _: IdReused("Used.")
    assert client.post("/v1/notices", content=json.dumps(wire(1))).status_code == 409


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed-json"),
        (b"\xff\xfe", "malformed-json"),
        (b'{"statement":NaN,"parts":{}}', "malformed-json"),
        (b'{"statement":"a","statement":"b","parts":{}}', "malformed-json"),
        (b'{"statement":"a", "parts":{"main":{"salt":"AA","content":"AA"},"main":{"salt":"AA","content":"AA"}}}', "malformed-json"),
        (b"[" * 3000, "malformed-json"),
        (b"[]", "malformed-request"),
        (b'{"statement":"a"}', "malformed-request"),
        (b'{"statement":"a","parts":{},"more":1}', "malformed-request"),
        (b'{"statement":1,"parts":{}}', "malformed-request"),
        (b'{"statement":"\xc3\xa4","parts":{}}', "malformed-request"),
        (b'{"statement":"a","parts":[]}', "malformed-request"),
        (b'{"statement":"a","parts":{"main":{"salt":"AA"}}}', "malformed-request"),
        (b'{"statement":"a","parts":{"main":{"salt":"AA","content":1}}}', "malformed-request"),
        (b'{"statement":"a","parts":{"main":{"salt":"AA==","content":"AA"}}}', "non-canonical-encoding"),
        (b'{"statement":"a","parts":{"main":{"salt":"AA","content":"AB"}}}', "non-canonical-encoding"),
    ],
)  # fmt: skip
def test_what_is_not_a_signed_notice_never_reaches_the_door(
    client: Client, node: EdgeNode, body: bytes, code: str
) -> None:
    answer = client.post("/v1/notices", content=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == f"{URL}/problems#{code}"
    (in_batch,) = answers(client.post("/v1/notices/batch", content=body + b"\n"))
    assert in_batch["problem"]["type"] == f"{URL}/problems#{code}"
    assert node.posted == []


def test_a_body_over_the_limit_is_refused_compressed_or_not(client: Client, node: EdgeNode) -> None:
    large = json.dumps(wire(statement="x" * 5000)).encode()
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 40_000

    async def chunks() -> AsyncIterator[bytes]:
        yield large

    for body, headers in ((large, {}), (chunks(), {}), (bomb, {"content-encoding": "gzip"})):
        answer = client.post("/v1/notices", content=body, headers=headers)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
    assert node.posted == []


def test_a_compressed_body_is_read_and_a_damaged_one_refused(client: Client) -> None:
    packed = gzip.compress(json.dumps(wire()).encode())
    headers = {"content-encoding": "gzip"}
    assert client.post("/v1/notices", content=packed, headers=headers).status_code == 201
    for damaged in (packed[:-3], b"plain", packed[:20] + b"\0" + packed[21:]):
        answer = client.post("/v1/notices", content=damaged, headers=headers)
        assert answer.json()["type"] == f"{URL}/problems#bad-compression"
    assert client.post("/v1/notices", content=packed, headers={"content-encoding": "br"}).status_code == 415


# ── many ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_answered_line_by_line_in_order_and_a_bad_line_refuses_only_itself(client: Client) -> None:
    body = line(1) + line(13) + b"nonsense\n" + b"\n" + line(2) + line(1)
    got = answers(client.post("/v1/notices/batch", content=body))
    assert [(a["line"], a["status"]) for a in got] == [
        (1, 201),
        (2, 422),
        (3, 422),
        (4, 422),
        (5, 201),
        (6, 200),
    ]
    assert [a["receipt"]["id"] for a in got if "receipt" in a] == ["h.1.s", "h.2.s", "h.1.s"]
    assert {a["problem"]["type"].split("#")[1] for a in got if "problem" in a} == {
        "invalid-signature",
        "malformed-json",
    }


def test_a_last_line_that_is_cut_off_is_refused_and_a_whole_one_without_line_feed_is_not(
    client: Client,
) -> None:
    got = answers(client.post("/v1/notices/batch", content=line(1) + line(2)[:-20]))
    assert [a["status"] for a in got] == [201, 422]
    assert "cut off" in got[1]["problem"]["detail"]
    assert [a["status"] for a in answers(client.post("/v1/notices/batch", content=line(3).rstrip()))] == [201]
    assert client.post("/v1/notices/batch", content=b"").content == b""


def test_a_batch_is_stored_in_bounded_windows(client: Client, node: EdgeNode) -> None:
    body = b"".join(line(n + 100) for n in range(1200))
    got = answers(client.post("/v1/notices/batch", content=body))
    assert [a["line"] for a in got] == list(range(1, 1201))
    assert [a["receipt"]["index"] for a in got] == list(range(1200))
    assert [len(window) for window in node.posted] == [notices.WINDOW_LINES, notices.WINDOW_LINES, 176]


def test_lines_before_a_limit_are_stored_and_the_line_at_it_says_so(client: Client, node: EdgeNode) -> None:
    got = answers(client.post("/v1/notices/batch", content=b"".join(line(n + 100) for n in range(1510))))
    assert [a["line"] for a in got] == list(range(1, 1502))
    assert [a["status"] for a in got[-2:]] == [201, 413]
    got = answers(client.post("/v1/notices/batch", content=line(1) + b"x" * 5000 + b"\n" + line(2)))
    assert [(a["line"], a["status"]) for a in got] == [(1, 201), (2, 422), (3, 201)]
    got = answers(client.post("/v1/notices/batch", content=line(1) + b"x" * 500_000))
    assert (got[-1]["status"], got[-1]["problem"]["type"]) == (413, f"{URL}/problems#too-large")


def test_a_busy_node_says_so_for_each_line(client: Client, node: EdgeNode) -> None:
    def full(_: SignedNotice) -> Receipt:
        raise Busy("Full.")

    node.answer = full
    got = answers(client.post("/v1/notices/batch", content=line(1) + b"x\n" + line(2)))
    assert [a["status"] for a in got] == [503, 422, 503]


# ── slow and large callers ────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_that_stops_coming_is_refused() -> None:
    async def silence() -> Any:
        await asyncio.Event().wait()

    async def read() -> None:
        inflow = Inflow({"type": "http", "headers": []}, silence, 100, grace_seconds=0.01)
        with pytest.raises(TooSlow):
            await inflow()

    run(read())


async def endless(inflow: Inflow) -> None:
    while True:
        await inflow()


def test_a_body_that_trickles_is_refused_although_it_never_stops() -> None:
    async def trickle() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> None:
        inflow = Inflow(
            {"type": "http", "headers": []}, trickle, 2**30, grace_seconds=0.02, bytes_per_second=10**9
        )
        with pytest.raises(TooSlow):
            await endless(inflow)

    run(read())


def test_waiting_for_a_disconnect_after_the_body_has_no_limit_of_time() -> None:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def read() -> None:
        inflow = Inflow({"type": "http", "headers": []}, receive, 100, grace_seconds=0.01)
        await inflow()
        assert (await inflow())["type"] == "http.disconnect"

    run(read())


def test_a_header_over_the_limit_is_refused(client: Client) -> None:
    answer = client.get("/health/live", headers={"x-large": "a" * 17_000})
    assert answer.status_code == 431
    assert answer.json()["type"] == f"{URL}/problems#headers-too-large"
    assert client.get("/health/live", headers={"x-large": "a" * 15_000}).status_code == 200


def test_a_slow_body_of_any_route_is_408(node: EdgeNode) -> None:
    app = make_app(node)

    @app.post("/things")
    def take(thing: dict[str, str]) -> dict[str, str]:
        return thing

    sent: list[Any] = []

    async def receive() -> Any:
        raise TooSlow("The body came too slowly.")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/things", "raw_path": b"/things", "root_path": "",
        "query_string": b"", "headers": [(b"content-type", b"application/json")], "scheme": "http", "server": ("x", 80),
        "client": ("y", 1), "state": {},
    }  # fmt: skip
    run(Edge(app, RequestMetrics(), URL)(scope, receive, send))
    assert sent[0]["status"] == 408


# ── below the application ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def address(node: EdgeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A real server on loopback."""
    monkeypatch.setattr(HttpProtocol, "header_seconds", 0.2)
    config = uvicorn.Config(
        make_app(node), port=0, http=HttpProtocol, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    yield socket.getsockname()
    server.should_exit = True
    thread.join(60)
    socket.close()


def say(address: tuple[str, int], data: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes, read the answer to its end."""

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection(*address[:2])
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()

    head, _, body = run(talk()).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 408),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", 408),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: " + b"a" * 100_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ],
)
def test_what_never_becomes_a_request_is_refused_in_the_same_form(
    address: tuple[str, int], data: bytes, status: int
) -> None:
    got, document = say(address, data)
    assert (got, document["status"]) == (status, status)
    assert document["instance"].startswith("urn:uuid:")


def test_a_large_body_over_a_socket_is_answered_413_and_not_by_a_broken_connection(
    address: tuple[str, int],
) -> None:
    url = f"http://127.0.0.1:{address[1]}/v1/notices"

    def chunks() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    with httpx.Client(timeout=60) as client:
        assert client.post(url, content=b"x" * 10 * 2**20).status_code == 413
        assert client.post(url, content=chunks()).status_code == 413
        assert client.post(url, content=json.dumps(wire(77))).status_code == 201


def test_one_connection_serves_many_requests_whatever_their_size(address: tuple[str, int]) -> None:
    url = f"http://127.0.0.1:{address[1]}/v1/notices/batch"
    with httpx.Client(timeout=60) as client:
        for _ in range(3):
            answer = client.post(url, content=b"".join(line(n) for n in range(1000)))
            assert answer.status_code == 200
            assert len(answer.content.splitlines()) == 1000
