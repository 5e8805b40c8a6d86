"""Where a delivery goes and how: what a subscription says about its endpoint, still sealed.

`Endpoint` is what a worker needs to sign and send; it is opened by `Opener`, which keeps what is costly to make: the TLS
context of an endpoint with authorities or a certificate of its own.
"""

from __future__ import annotations

import json
import re
import ssl
import tempfile
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.domain.errors import Malformed, UnsafeKeyFile
from app.notify import signing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.models import SubscriptionRow
    from app.notify.keys import WebhookKeys

MAX_HEADERS: Final = 10
MAX_HEADER_BYTES: Final = 2_000
MAX_PEM: Final = 20_000
MAX_OLD_SECRETS: Final = 5

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 section 5.6.2
_VALUE: Final = re.compile(
    r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?"
)  # visible ASCII: nothing that could end a line

_OURS: Final = frozenset({
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect",
    "forwarded", "host", "http2-settings", "keep-alive", "origin", "range", "referer", "te", "trailer", "transfer-encoding",
    "upgrade", "user-agent", "via", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url",
})  # fmt: skip
"""Headers that say how the request is framed, where it goes or who sends it: ours to set."""

_OUR_PREFIXES: Final = (
    "webhook-", "verbale-", "proxy-", "sec-", "x-forwarded-", "x-real-", "access-control-",
    # What cloud providers' metadata services ask for as proof that a request was made on purpose.
    "metadata", "x-aws-ec2-metadata", "x-google-metadata",
)  # fmt: skip


class UnsafeEndpoint(Malformed):
    """A header, certificate or authority that an endpoint cannot be called with."""

    code = "unsafe-endpoint"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as its subscription describes it; what is secret in it is sealed.

    Attributes:
        places: deliveries that may be under way to it at once, from one worker.
    """

    subscription_id: str
    url: str
    scheme: str
    secret: bytes | None = field(repr=False)
    places: int = 1
    old_secrets: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    headers: bytes | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)
    client_cert: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, row: SubscriptionRow) -> Endpoint:
        """Read a subscription."""
        return cls(
            row.id,
            row.url,
            row.scheme,
            row.secret,
            1 if row.ordered else row.max_in_flight,
            read_old(row.old_secrets),
            row.headers,
            row.ca,
            row.client_cert,
        )


def read_old(text: str | None) -> tuple[tuple[int, bytes], ...]:
    """Earlier secrets that still sign: until when (unix ms), and the sealed secret."""
    return tuple((until, b64decode(sealed)) for until, sealed in json.loads(text)) if text else ()


def write_old(old: tuple[tuple[int, bytes], ...]) -> str | None:
    """The column that `read_old` reads."""
    return json.dumps([[until, b64encode(sealed).decode("ascii")] for until, sealed in old]) if old else None


def header_names(keys: WebhookKeys, row: SubscriptionRow) -> list[str]:
    """Names of a subscriber's own headers; none if they do not open any more."""
    if row.headers is None:
        return []
    try:
        return sorted(json.loads(keys.unseal(row.headers, row.id)))
    except UnsafeKeyFile:
        return []


class Opener:
    """Opens endpoints. One for each sender: contexts are made once, and forgotten when there are many."""

    _MOST: Final = 256

    def __init__(self, keys: WebhookKeys) -> None:
        """Nothing is opened yet."""
        self._keys = keys
        self._secrets: dict[bytes, bytes] = {}
        self._contexts: dict[tuple[str | None, bytes | None], ssl.SSLContext] = {}

    def signatures(self, endpoint: Endpoint, message_id: str, timestamp: int, body: bytes) -> list[str]:
        """Every signature that is due: of each scheme, under each key that still signs. `timestamp` in unix seconds.

        Raises:
            UnsafeKeyFile: a secret does not open.
        """
        sealed = [endpoint.secret or b""] if endpoint.scheme in ("v1", "both") else []
        sealed += [old for until, old in endpoint.old_secrets if until > timestamp * 1000]
        made = [
            signing.sign_v1(self._opened(one, endpoint.subscription_id), message_id, timestamp, body)
            for one in sealed
        ]
        if endpoint.scheme in ("v1a", "both"):
            made += [
                signing.sign_v1a(signer, message_id, timestamp, body)
                for signer in self._keys.signers(timestamp * 1000)
            ]
        return made

    def _opened(self, sealed: bytes, subscription_id: str) -> bytes:
        """Sealed secrets differ each time they are made, so what is kept is never an old one."""
        secret = self._secrets.get(sealed)
        if secret is None:
            if len(self._secrets) >= self._MOST:
                self._secrets.clear()
            secret = self._secrets[sealed] = self._keys.unseal(sealed, subscription_id)
        return secret

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """The subscriber's own headers. Raises UnsafeKeyFile."""
        if endpoint.headers is None:
            return {}
        opened: dict[str, str] = json.loads(self._keys.unseal(endpoint.headers, endpoint.subscription_id))
        return opened

    def tls(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        """How this endpoint is verified and what we show it; None: as every other. Raises UnsafeKeyFile."""
        if endpoint.ca is None and endpoint.client_cert is None:
            return None
        key = (endpoint.ca, endpoint.client_cert)
        if key not in self._contexts:
            pem = None
            if endpoint.client_cert is not None:
                pem = self._keys.unseal(endpoint.client_cert, endpoint.subscription_id)
            if len(self._contexts) >= self._MOST:
                self._contexts.clear()
            self._contexts[key] = make_context(endpoint.ca, pem)
        return self._contexts[key]


def make_context(ca: str | None, client_pem: bytes | None) -> ssl.SSLContext:
    """A TLS context that trusts `ca` alone (by default the system's authorities) and shows `client_pem`.

    Raises:
        ssl.SSLError, ValueError: they are not what they should be.
    """
    context = ssl.create_default_context(cadata=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_pem is not None:
        # OpenSSL reads a chain from a file only. This one has no name and is gone when it is closed.
        with tempfile.TemporaryFile() as file:
            file.write(client_pem)
            file.flush()
            file.seek(0)
            context.load_cert_chain(f"/dev/fd/{file.fileno()}")
    return context


# ── what a subscriber may ask for ─────────────────────────────────────────────────────────────────────────────────


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check a subscriber's own headers.

    Raises:
        UnsafeEndpoint: too many, too long, ours to set, or such as would let them forge a request.
    """
    if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers.items()) > MAX_HEADER_BYTES:
        raise UnsafeEndpoint(
            f"An endpoint has at most {MAX_HEADERS} headers of its own, {MAX_HEADER_BYTES} bytes in all."
        )
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UnsafeEndpoint(
                f"The header {name[:64]!r} cannot be sent: names are tokens, values visible ASCII without line ends."
            )
        if lower in _OURS or lower.startswith(_OUR_PREFIXES):
            raise UnsafeEndpoint(
                f"The header {name!r} is set by this node. Use another, such as Authorization."
            )
        if lower in seen:
            raise UnsafeEndpoint(f"The header {name!r} is given twice.")
        seen.add(lower)
    return dict(headers)


def check_ca(pem: str) -> str:
    """Check authorities that an endpoint's certificate is verified under.

    Raises:
        UnsafeEndpoint: not PEM certificates.
    """
    try:
        x509.load_pem_x509_certificates(pem[: MAX_PEM + 1].encode("ascii"))
        make_context(pem[:MAX_PEM], None)
    except (ValueError, ssl.SSLError) as error:
        raise UnsafeEndpoint("ca is one or several certificates in PEM, 20,000 bytes at most.") from error
    return pem


def check_client_cert(certificate: str, key: str) -> bytes:
    """Check the certificate that this node is to show; return it with its key, to be sealed.

    Raises:
        UnsafeEndpoint: not PEM, a key under a password, or the two do not belong together.
    """
    try:
        x509.load_pem_x509_certificates(certificate.encode("ascii"))
        load_pem_private_key(key.encode("ascii"), password=None)
        pem = certificate.encode("ascii") + b"\n" + key.encode("ascii") + b"\n"
        make_context(None, pem)
    except (ValueError, TypeError, ssl.SSLError) as error:
        raise UnsafeEndpoint(
            "client_cert is a certificate chain and its private key, both in PEM, the key without a password."
        ) from error
    return pem
