"""Where webhooks may not go."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from app.notify import deliver
from app.notify.claims import Claimed, Ready
from app.notify.endpoint import Endpoint
from app.notify.guard import UnsafeUrl, UrlPolicy, check_url
from app.notify.setup import WebhookSetup
from tests.notify.receivers import Receiver, SettableClock, answer, loopback_setup

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = UrlPolicy()
HTTP = UrlPolicy.of(http=True)

HOSTILE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1%25lo]/",
    "http://[2001:0:53aa:64c::]/",
    "http://[::]/",
    "http://[ff02::1]/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://metadata.google.internal/",
    "http://255.255.255.255/",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_refused_when_it_is_saved(url: str) -> None:
    with pytest.raises(UnsafeUrl):
        check_url(url, HTTP)


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_that_got_past_the_first_check_is_not_connected_to(url: str, tmp_path: Path) -> None:
    attempt = attempt_at(url, loopback_setup(tmp_path, networks=()))
    assert attempt.status is None
    assert attempt.error in ("address-refused", "dns", "invalid-url")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@example.org/",
        "https://user@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:22/",
        "https://example.org:99999/",
        "ftp://example.org/",
        "https:///path",
        "//example.org/",
        "example.org",
        "https://example.org/a b",
        "https://example.org/\r\nX: y",
        "https://example.org\\@10.0.0.1/",
        "https://exa_mple!.org/",
        "https://example.org/" + "a" * 2000,
        "javascript:alert(1)",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(UnsafeUrl):
        check_url(url, HTTP)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook?x=1",
        "https://example.org:8443/",
        "https://xn--bcher-kva.example/hook",
        "https://93.184.215.14/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    ],
)
def test_a_public_url_is_taken(url: str) -> None:
    assert check_url(url, PUBLIC) == url


def test_plain_http_is_refused_unless_allowed() -> None:
    with pytest.raises(UnsafeUrl, match="https"):
        check_url("http://example.org/", PUBLIC)
    assert check_url("http://example.org/", HTTP)


def test_an_allowed_network_is_reachable_and_its_neighbours_are_not() -> None:
    policy = UrlPolicy.of(["10.1.0.0/16"])
    assert policy.allows("10.1.2.3")
    assert policy.allows("::ffff:10.1.2.3")
    assert not policy.allows("10.2.0.1")
    assert not policy.allows("127.0.0.1")


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_PACKET])
def test_only_internet_sockets_are_made(family: int) -> None:
    with pytest.raises(OSError):
        UrlPolicy.of(["0.0.0.0/0"]).socket((family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))


def test_a_name_that_answers_an_inner_address_at_connect_time_is_not_connected_to(tmp_path: Path) -> None:
    """DNS rebinding: what counts is the address that is connected to, not what the name said when it was saved."""
    with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2].removesuffix("/hook")
        attempt = attempt_at(f"http://localhost:{port}/hook", loopback_setup(tmp_path, networks=()))
    assert (attempt.status, attempt.error) == (None, "address-refused")
    assert receiver.received == []


def test_a_redirect_is_a_failure_and_is_not_followed(tmp_path: Path) -> None:
    with (
        Receiver() as inner,
        Receiver(lambda *_: answer("307 Temporary Redirect", f"Location: {inner.url}")) as outer,
    ):
        attempt = attempt_at(outer.url, loopback_setup(tmp_path))
    assert (attempt.status, attempt.error, attempt.verdict) == (307, "redirect", "retry")
    assert inner.received == []


def attempt_at(url: str, setup: WebhookSetup) -> Any:
    ready = Ready(Claimed("0190", "s", 1, 0), Endpoint("s", url, "v1a", None), b"{}")
    return asyncio.run(deliver.send_once(setup, SettableClock(), ready))
