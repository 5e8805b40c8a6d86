"""Where a webhook may go: the guard against being used to reach inner networks (server-side request forgery).

Two checks. `check_url`, when a subscription is saved, is a courtesy: it refuses what can be seen to be wrong without
asking anybody. `UrlPolicy.socket`, at each connect, is the guard: aiohttp hands it the final socket address, so one rule
covers address literals in every spelling, every DNS answer, and names that answer differently the second time.

The table is explicit because `ipaddress.is_global` differs between Python versions and knows nothing of cloud
providers' addresses. What is not listed as public is refused; an operator may allow networks (`webhook_allow_networks`).
"""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

import yarl

from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_URL: Final = 2000

_INNER_V4: Final = tuple(
    IPv4Network(n)
    for n in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, a public address that never is
        "169.254.0.0/16",  # link-local; most clouds' metadata at 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata at 192.0.0.192
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")
"""Global unicast. Everything outside (loopback, unique local, link-local, multicast, NAT64, IPv4-mapped) is refused."""

_INNER_V6: Final = tuple(
    IPv6Network(n)
    for n in (
        "2001::/23",  # IETF protocol assignments; Teredo carries an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

# The URL parser accepts many spellings of one address; only the usual one is taken for an address here, and a host that
# looks numeric without being one is refused as the WHATWG URL standard's "ends in a number" check does.
_NUMERIC_END: Final = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)\.?$")
_ODD_IN_HOST: Final = re.compile(r"[\x00-,/:-@\[-^`{-\x7f]|^$")
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain", "home.arpa")

REFUSED_ADDRESS: Final = "this address is not one that webhooks may go to"
"""The text by which a refused connect is told from a failed one; aiohttp passes on nothing else of the error."""


class UnsafeUrl(Malformed):
    """A webhook URL that cannot be called, or must not be."""

    code = "unsafe-url"


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What this node's operator allows.

    Attributes:
        networks: networks that webhooks may reach although they are not public.
        http: whether plain `http` URLs are taken; without it only `https`.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    http: bool = False

    @classmethod
    def of(cls, networks: Iterable[str] = (), *, http: bool = False) -> UrlPolicy:
        """From the settings' texts. Raises ValueError for a text that is no network."""
        return cls(tuple(ip_network(n) for n in networks), http)

    def allows(self, address: str) -> bool:
        """Whether a webhook may connect to this address. Anything that is no plain IP address is refused."""
        try:
            ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip in network for network in self.networks):
            return True
        if isinstance(ip, IPv4Address):
            return not any(ip in network for network in _INNER_V4)
        return ip in _PUBLIC_V6 and not any(ip in network for network in _INNER_V6)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """aiohttp's `socket_factory`: a socket for one resolved address, or OSError. `info` is as from `getaddrinfo`."""
        family, kind, protocol, _name, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not self.allows(address[0]):
            raise OSError(errno.EACCES, REFUSED_ADDRESS)
        return socket.socket(family, kind, protocol)


def check_url(text: str, policy: UrlPolicy) -> str:
    """Check a subscription's URL without asking the network; return it.

    Raises:
        UnsafeUrl: not `https` (or allowed `http`), user information, a fragment, an odd port, an address in an odd
            spelling, or an address or name that can only be an inner one.
    """
    if len(text) > MAX_URL or not text.isprintable() or " " in text or "\\" in text:
        raise UnsafeUrl(
            f"A webhook URL has at most {MAX_URL} characters and no blanks, backslashes or control characters."
        )
    try:
        url = yarl.URL(text)  # the parser that aiohttp will use: what is checked is what is called
        host, port = url.host, url.port
    except ValueError as error:
        raise UnsafeUrl("This is not a URL. Write it like https://example.org/hooks/verbale.") from error
    if url.scheme != "https" and not (policy.http and url.scheme == "http"):
        raise UnsafeUrl("A webhook URL begins with https://, so that what is sent cannot be read on the way.")
    if not host:
        raise UnsafeUrl("The webhook URL names no host. Write it like https://example.org/hooks/verbale.")
    if url.user is not None or url.password is not None:
        raise UnsafeUrl("A webhook URL carries no user name or password. Verify the signature instead.")
    if "#" in text:
        raise UnsafeUrl("A webhook URL has no fragment: it would not be sent.")
    if port is None or not (port in (80, 443) or 1024 <= port <= 65535):  # noqa: PLR2004 - HTTP's own, and unprivileged
        raise UnsafeUrl("A webhook goes to port 443, 80, or one from 1024 to 65535.")
    _check_host(host, policy)
    return text


def _check_host(host: str, policy: UrlPolicy) -> None:
    try:
        ip_address(host)
    except ValueError:
        name = host.rstrip(".").lower()
        if _ODD_IN_HOST.search(name):
            raise UnsafeUrl("The host of the webhook URL has characters that no host name has.") from None
        if _NUMERIC_END.search(name.rpartition(".")[2]):
            raise UnsafeUrl(
                "The host is a number that is no usual IP address. Write four decimal numbers, or a name."
            ) from None
        if any(name == local or name.endswith("." + local) for local in _LOCAL_NAMES) and not policy.networks:
            raise UnsafeUrl(
                "This host name is a local one. Webhooks go to public hosts unless the operator allows others."
            ) from None
        return
    if not policy.allows(host):
        raise UnsafeUrl(
            "This address is not public. Webhooks go to public addresses unless this node's operator allows the network "
            "(webhook_allow_networks)."
        )
