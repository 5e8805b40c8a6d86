"""What a POST of ours looks like on the wire, and what of a receiver's answer counts for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from app.clock import system_clock
from app.notify import wire
from app.notify.claims import Claimed, Ready
from app.notify.endpoint import Endpoint
from app.notify.send import Sender

from .receivers import Receiver, answer

if TYPE_CHECKING:
    import socket

    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup


def send(setup: WebhookSetup, *endpoints: Endpoint) -> list[Attempt]:
    """One delivery after another, through one sender."""

    async def run() -> list[Attempt]:
        async with Sender(setup, system_clock) as sender:
            return [
                await sender.send(Ready(Claimed("0190", e.subscription_id, 1, 0), e, b"{}"))
                for e in endpoints
            ]

    return asyncio.run(run())


def endpoint(url: str, **more: Any) -> Endpoint:
    return Endpoint("s", url, "v1a", None, **more)


def test_what_stands_before_the_final_answer_is_passed_over(setup: WebhookSetup) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    with Receiver(lambda *_: early + answer("418 Teapot", body=b"no")) as receiver:
        (attempt,) = send(setup, endpoint(receiver.url))
    assert attempt.status == 418
    assert attempt.exchange is not None
    assert attempt.exchange.excerpt == "no"
    assert "Link" not in (attempt.exchange.head or "")


def test_an_answer_that_nobody_asked_for_is_nobodys(setup: WebhookSetup) -> None:
    """A second answer behind the first does not stand for that to the next delivery."""
    ports = []

    def twice(_request: object, connection: socket.socket, _closing: object) -> bytes:
        ports.append(connection.getpeername()[1])
        return answer() + answer("410 Gone")

    with Receiver(twice) as receiver:
        attempts = send(setup, *[endpoint(receiver.url)] * 3)
    assert [a.status for a in attempts] == [204, 204, 204]
    assert len(set(ports)) == 3


def test_an_answer_that_comes_while_nothing_is_asked_is_nobodys_either(setup: WebhookSetup) -> None:
    async def run() -> list[Attempt]:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            while await reader.readuntil(b"{}"):
                writer.write(answer())

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
            ready = Ready(Claimed("0190", "s", 1, 0), endpoint(url), b"{}")
            async with Sender(setup, system_clock) as sender:
                attempts = [await sender.send(ready)]
                writers[0].write(answer("410 Gone"))
                for _ in range(10):  # the loop reads what is there
                    await asyncio.sleep(0)
                attempts += [await sender.send(ready), await sender.send(ready)]
            for writer in writers:
                writer.close()
        return attempts

    assert [(a.status, a.error) for a in asyncio.run(run())] == [
        (204, None),
        (None, "disconnected"),
        (204, None),
    ]


def test_a_subscription_that_is_changed_is_called_as_it_is_now(setup: WebhookSetup) -> None:
    """What is kept half made is of one state of the subscription."""
    sealed = [setup.keys.seal(b'{"X-Desk": "%d"}' % n, "s") for n in (1, 2)]
    with Receiver() as receiver:
        one, two = (endpoint(receiver.url, headers=headers) for headers in sealed)
        elsewhere = endpoint(receiver.url + "?to=b%20c", headers=sealed[0])
        assert {a.status for a in send(setup, one, two, one, elsewhere)} == {204}
        assert [r.headers["x-desk"] for r in receiver.received] == ["1", "2", "1", "1"]
        sent = receiver.received[0].headers
    assert sent["host"] == receiver.url.split("/")[2]
    assert (sent["content-type"], sent["content-length"]) == ("application/json", "2")
    assert sent["user-agent"] == "Verbale-Webhook/1"


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\rb", "a\0b"])
def test_a_header_with_a_line_end_in_it_is_not_sent(setup: WebhookSetup, value: str) -> None:
    """It is refused when it is given; this is for what came into the database otherwise."""

    async def run() -> None:
        wire.prepare("http://127.0.0.1:1/", {"X-Desk": value}, None)

    with pytest.raises(ValueError, match="line end"):
        asyncio.run(run())


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "example.org/x", "http:///x"])
def test_what_is_no_web_address_is_not_called(setup: WebhookSetup, url: str) -> None:
    (attempt,) = send(setup, endpoint(url))
    assert (attempt.status, attempt.error) == (None, "invalid-url")
