"""Headers, certificates, secrets and proofs: what an endpoint is called with, and what must not get out."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from app.clock import system_clock
from app.domain.errors import Conflict
from app.models import AttemptRow, DeliveryRow, SubscriptionRow
from app.notify import deliver, endpoint, keys, outbox, signing, subscriptions
from app.notify.claims import Claimed, Ready
from app.notify.endpoint import Endpoint, UnsafeEndpoint
from app.notify.guard import UrlPolicy
from app.notify.send import Sender
from tests.notify.receivers import (
    DAY,
    NOW,
    Log,
    Received,
    Receiver,
    SettableClock,
    add_token,
    answer,
    loopback_setup,
    subscribe,
    subscription,
)
from tests.notify.test_deliver import delivery, scripted, step

if TYPE_CHECKING:
    from pathlib import Path

    from app.db import Database
    from app.notify.results import Attempt
    from app.notify.setup import WebhookSetup


# ── headers of one's own ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_subscribers_own_headers_arrive_and_are_sealed_at_rest(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, _ = subscribe(
        db, setup, add_token(db), receiver.url, headers={"Authorization": "Bearer abc", "X-Desk": "7"}
    )
    log.issue()
    step(db, clock, setup)
    (request,) = receiver.received
    assert (request.headers["authorization"], request.headers["x-desk"]) == ("Bearer abc", "7")
    sealed = subscription(db, id_).headers
    assert sealed is not None
    assert b"abc" not in sealed
    assert endpoint.header_names(setup.keys, subscription(db, id_)) == ["Authorization", "X-Desk"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "inner.example"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "upgrade"},
        {"webhook-signature": "v1,x"},
        {"Webhook-Id": "x"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Cookie": "a=b"},
        {"Expect": "100-continue"},
        {"Metadata-Flavor": "Google"},
        {"Metadata": "true"},
        {"X-aws-ec2-metadata-token": "x"},
        {"Proxy-Authorization": "x"},
        {"X-A": "b\r\nHost: inner"},
        {"X-A": "b\nc"},
        {"X-A": " b"},
        {"X-A": ""},
        {"X-A\r\nB": "c"},
        {"X A": "c"},
        {"X-Ä": "c"},
        {"X-A": "ä"},
        {"X-A": "1", "x-a": "2"},
        {f"X-{n}": "v" for n in range(11)},
        {"X-A": "v" * 2_001},
    ],
)
def test_headers_that_are_ours_or_could_forge_a_request_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(UnsafeEndpoint):
        endpoint.check_headers(headers)


# ── certificates ──────────────────────────────────────────────────────────────────────────────────────────────────


class Authority:
    """A certificate authority of a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._sign(self._name, self._key.public_key(), authority=True)

    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, host: str, *, expired: bool = False) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._sign(name, key.public_key(), host=host, expired=expired)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM).decode(), private.decode()

    def _sign(
        self, name: x509.Name, key: Any, *, host: str = "", authority: bool = False, expired: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        ends = now - timedelta(days=1) if expired else now + timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if authority:
            usage = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        else:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


class TlsReceiver:
    """Answers 204 over TLS to whoever gets that far; a context manager."""

    def __init__(self, tmp_path: Path, certificate: tuple[str, str], clients: str | None = None) -> None:
        (tmp_path / "server.pem").write_text("".join(certificate))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=clients)
        self._context.load_cert_chain(tmp_path / "server.pem")
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
        self.requests = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}/hook"

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(10)
                try:
                    with self._context.wrap_socket(plain, server_side=True) as connection:
                        if connection.recv(65536):
                            self.requests += 1
                            connection.sendall(answer())
                except (OSError, ssl.SSLError):
                    continue


def tried(setup: WebhookSetup, url: str, **options: Any) -> Attempt:
    secret = setup.keys.seal(signing.new_secret(), "s")
    where = Endpoint("s", url, "v1", secret, **options)
    ready = Ready(Claimed("0190", "s", 1, 0), where, b'{"type":"webhook.test"}')
    return asyncio.run(deliver.send_once(setup, system_clock, ready))


def test_a_certificate_is_verified_under_the_subscriptions_own_authority_and_no_other(
    setup: WebhookSetup, tmp_path: Path
) -> None:
    authority, stranger = Authority(), Authority()
    with TlsReceiver(tmp_path, authority.issue("127.0.0.1")) as receiver:
        assert tried(setup, receiver.url).error == "tls"
        assert tried(setup, receiver.url, ca=stranger.pem()).error == "tls"
        assert receiver.requests == 0
        assert tried(setup, receiver.url, ca=authority.pem()).verdict == "delivered"


@pytest.mark.parametrize(("host", "expired"), [("127.0.0.2", False), ("127.0.0.1", True)])
def test_a_certificate_of_another_host_or_time_is_refused(
    setup: WebhookSetup, tmp_path: Path, host: str, expired: bool
) -> None:
    authority = Authority()
    with TlsReceiver(tmp_path, authority.issue(host, expired=expired)) as receiver:
        assert tried(setup, receiver.url, ca=authority.pem()).error == "tls"
        assert receiver.requests == 0


def test_a_client_certificate_is_shown_to_an_endpoint_that_asks_for_one(
    setup: WebhookSetup, tmp_path: Path
) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1")
    sealed = setup.keys.seal(endpoint.check_client_cert(certificate, key), "s")
    assert key.encode() not in sealed
    with TlsReceiver(tmp_path, authority.issue("127.0.0.1"), clients=authority.pem()) as receiver:
        assert tried(setup, receiver.url, ca=authority.pem()).verdict != "delivered"
        assert tried(setup, receiver.url, ca=authority.pem(), client_cert=sealed).verdict == "delivered"


def test_what_is_no_certificate_is_refused() -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1")
    _, other_key = authority.issue("127.0.0.1")
    for bad in ("", "x", key, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ä"):
        with pytest.raises(UnsafeEndpoint):
            endpoint.check_ca(bad)
        with pytest.raises(UnsafeEndpoint):
            endpoint.check_client_cert(bad, key)
    for bad in ("", "x", certificate, other_key, "ä"):
        with pytest.raises(UnsafeEndpoint):
            endpoint.check_client_cert(certificate, bad)


# ── names that change their answer ────────────────────────────────────────────────────────────────────────────────


class Changing(AbstractResolver):
    """Answers a public address when it is first asked, an inner one from then on."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind = socket.AF_INET6 if ":" in now else socket.AF_INET
        return [
            ResolveResult(
                hostname=host, host=now, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "inner",
    ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00::1", "64:ff9b::7f00:1"],
)
def test_a_name_that_answers_an_inner_address_is_not_connected_to(tmp_path: Path, inner: str) -> None:
    setup = replace(loopback_setup(tmp_path / "keys", networks=()), policy=UrlPolicy.of(http=True))
    where = Endpoint("s", "http://rebind.example:8080/hook", "v1a", None)
    ready = Ready(Claimed("0190", "s", 1, 0), where, b"{}")

    async def run() -> Attempt:
        async with Sender(setup, system_clock, resolver=Changing(inner)) as sender:
            return await sender.send(ready)

    assert asyncio.run(run()).error == "address-refused"


def test_the_answer_of_the_check_does_not_count_for_the_connection(tmp_path: Path) -> None:
    setup = replace(loopback_setup(tmp_path / "keys"), policy=UrlPolicy.of(["127.0.0.1/32"], http=True))
    with Receiver() as receiver:
        port = receiver.url.rpartition(":")[2].removesuffix("/hook")
        where = Endpoint("s", f"http://rebind.example:{port}/hook", "v1a", None)
        ready = Ready(Claimed("0190", "s", 1, 0), where, b"{}")
        resolver = Changing("127.0.0.1", "127.0.0.2")

        async def run() -> list[Attempt]:
            made = []
            for _ in range(2):  # two senders: neither the pool nor the cache of the first helps the second
                async with Sender(setup, system_clock, resolver=resolver) as sender:
                    made.append(await sender.send(ready))
            return made

        first, second = asyncio.run(run())
    assert (first.verdict, second.error) == ("delivered", "address-refused")
    assert len(receiver.received) == 1


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rotated(db: Database, setup: WebhookSetup, id_: str, now: int, **options: Any) -> str | None:
    wanted: dict[str, Any] = {"scheme": None, "overlap_hours": 24} | options
    with db.write() as session:
        return subscriptions.rotate(setup, session.get_one(SubscriptionRow, id_), now=now, **wanted)


def test_in_the_overlap_both_secrets_verify_and_afterwards_only_the_new_one(
    db: Database, setup: WebhookSetup
) -> None:
    log, clock = Log(db), SettableClock(system_clock())
    with Receiver() as receiver:
        id_, old = subscribe(
            db, setup, add_token(db, expires_at=clock.now + 90 * DAY), receiver.url, now=clock.now
        )
        assert old is not None
        new = rotated(db, setup, id_, clock.now)
        assert new is not None
        log.issue()
        step(db, clock, setup)
        (request,) = receiver.received
        assert request.headers["webhook-signature"].count("v1,") == 2
        for secret in (signing.secret_text(old), new):
            Webhook(secret).verify(request.body, request.headers)
        clock.now += DAY + 1_000  # the signed time has whole seconds
        log.issue()
        step(db, clock, setup)
        request = receiver.received[1]
    assert request.headers["webhook-signature"].count("v1,") == 1
    late = Received(request.headers, request.body)
    timestamp = int(late.headers["webhook-timestamp"])
    wanted = signing.sign_v1(signing_secret(new), late.headers["webhook-id"], timestamp, late.body)
    assert late.headers["webhook-signature"] == wanted


def signing_secret(text: str) -> bytes:
    from base64 import b64decode

    return b64decode(text.removeprefix("whsec_"))


def test_a_retry_that_began_before_a_rotation_is_signed_under_both(db: Database, setup: WebhookSetup) -> None:
    log, clock = Log(db), SettableClock(system_clock())
    with Receiver(scripted(answer("500 Oops"), answer())) as receiver:
        id_, old = subscribe(
            db, setup, add_token(db, expires_at=clock.now + DAY), receiver.url, now=clock.now
        )
        log.issue()
        step(db, clock, setup)
        new = rotated(db, setup, id_, clock.now)
        assert old is not None
        assert new is not None
        clock.now += 5_000
        step(db, clock, setup)
        first, second = receiver.received
    Webhook(signing.secret_text(old)).verify(second.body, second.headers)
    Webhook(new).verify(second.body, second.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(first.body, first.headers)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_an_early_end_forgets_every_earlier_secret(db: Database, setup: WebhookSetup) -> None:
    id_, _ = subscribe(db, setup, add_token(db), "https://example.org/")
    for _ in range(8):
        rotated(db, setup, id_, NOW)
    assert len(endpoint.read_old(subscription(db, id_).old_secrets)) == endpoint.MAX_OLD_SECRETS
    rotated(db, setup, id_, NOW, overlap_hours=0)
    assert subscription(db, id_).old_secrets is None


def test_both_schemes_sign_side_by_side_and_one_can_be_left(
    db: Database, setup: WebhookSetup, receiver: Receiver
) -> None:
    log, clock = Log(db), SettableClock(system_clock())
    id_, secret = subscribe(
        db, setup, add_token(db, expires_at=clock.now + DAY), receiver.url, scheme="both", now=clock.now
    )
    log.issue()
    step(db, clock, setup)
    (request,) = receiver.received
    schemes = [one.partition(",")[0] for one in request.headers["webhook-signature"].split()]
    assert schemes == ["v1", "v1a"]
    assert secret is not None
    Webhook(signing.secret_text(secret)).verify(request.body, request.headers)
    assert rotated(db, setup, id_, clock.now, scheme="v1a", overlap_hours=0) is None
    log.issue()
    step(db, clock, setup)
    assert receiver.received[1].headers["webhook-signature"].startswith("v1a,")
    assert " " not in receiver.received[1].headers["webhook-signature"]


def test_the_nodes_key_is_published_before_it_signs_and_the_old_one_signs_on_for_a_while(
    tmp_path: Path,
) -> None:
    hour = 3_600_000
    keys.WebhookKeys.open(tmp_path, "EE")
    keys.rotate(tmp_path, "EE", NOW, ahead_ms=hour, overlap_ms=2 * hour)
    opened = keys.WebhookKeys.open(tmp_path, "EE")
    old, new = opened.published(NOW)[1].signer, opened.published(NOW)[0].signer
    assert [key.kid for key in opened.published(NOW)] == ["EE/webhook/2", "EE/webhook/1"]
    assert opened.signers(NOW) == [old]
    assert opened.signers(NOW + hour) == [new, old]
    assert opened.signers(NOW + 3 * hour) == [new]
    assert [key.kid for key in opened.published(NOW + 3 * hour)] == ["EE/webhook/2"]
    with pytest.raises(Conflict):
        keys.rotate(tmp_path, "EE", NOW, ahead_ms=hour, overlap_ms=hour)
    keys.rotate(tmp_path, "EE", NOW + 4 * hour, ahead_ms=0, overlap_ms=0)
    assert [k.kid for k in keys.WebhookKeys.open(tmp_path, "EE").published(NOW + 4 * hour)] == [
        "EE/webhook/3"
    ]


def test_a_secret_that_does_not_open_is_reported_and_nothing_goes_out_unsigned(
    db: Database,
    clock: SettableClock,
    setup: WebhookSetup,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), receiver.url)
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).secret = b"\x01" + b"x" * 60
    log.issue()
    step(db, clock, setup)
    assert receiver.received == []
    assert (delivery(db, id_).state, delivery(db, id_).last_error) == ("pending", "unsealable-secret")


def test_no_log_line_and_no_row_of_the_delivery_log_holds_a_secret(
    db: Database, clock: SettableClock, setup: WebhookSetup, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(db)
    caplog.set_level(logging.DEBUG)
    echo = answer("500 Oops", "Set-Cookie: session=hidden", "X-Shown: yes", body=b"refused because")
    with Receiver(lambda *_: echo) as receiver:
        id_, secret = subscribe(
            db, setup, add_token(db), receiver.url, headers={"Authorization": "Bearer hidden"}
        )
        log.issue()
        step(db, clock, setup)
    assert secret is not None
    with db.read() as session:
        (attempt,) = session.scalars(select(AttemptRow)).all()
        kept = json.dumps({c.name: getattr(attempt, c.name) for c in AttemptRow.__table__.columns})
    assert delivery(db, id_).id == attempt.delivery_id
    assert attempt.head is not None
    assert "X-Shown: yes" in attempt.head
    assert (attempt.status, attempt.error, attempt.excerpt) == (500, "status", "refused because")
    assert (attempt.timestamp, attempt.signatures) == (NOW // 1000, 1)
    for text in (caplog.text, kept):
        assert "hidden" not in text
        assert signing.secret_text(secret) not in text


# ── proof ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def proven(setup: WebhookSetup, behave: Any) -> bool:
    with Receiver(behave) as receiver:
        where = Endpoint("s", receiver.url, "both", setup.keys.seal(b"k" * 32, "s"))
        ready = Ready(Claimed(outbox.new_id(system_clock()), "s", 1, 0), where, b'{"type":"webhook.test"}')
        forged, genuine = asyncio.run(deliver.prove(setup, system_clock, ready))
        return subscriptions.is_proof(forged, genuine)


def verifying(request: Received, _connection: socket.socket, _closing: threading.Event) -> bytes:
    try:
        Webhook(signing.secret_text(b"k" * 32)).verify(request.body, request.headers)
    except WebhookVerificationError:
        return answer("401 Unauthorized")
    return answer()


@pytest.mark.parametrize(
    ("behave", "proves"),
    [
        (verifying, True),
        (lambda *_: answer(), False),
        (lambda *_: answer("401 Unauthorized"), False),
        (scripted(answer("500 Oops"), answer()), False),
        (scripted(answer("302 Found", "Location: /"), answer()), False),
    ],
)
def test_an_endpoint_is_proven_by_refusing_a_forgery_and_taking_what_is_genuine(
    setup: WebhookSetup, behave: Any, proves: bool
) -> None:
    assert proven(setup, behave) is proves


@pytest.mark.parametrize("how", ["full body", "node asks for proof"])
def test_without_proof_nothing_is_sent_where_proof_is_asked_for(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, how: str
) -> None:
    log = Log(db)
    asked = replace(setup, require_proof=how != "full body")
    payload = "full" if how == "full body" else "thin"
    id_, _ = subscribe(db, setup, add_token(db), receiver.url, payload=payload)
    log.issue()
    assert step(db, clock, asked) == 0
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).verified_at = NOW
    assert step(db, clock, asked) == 1
    assert len(receiver.received) == 1
    with db.write() as session:
        row = session.get_one(SubscriptionRow, id_)
        subscriptions.change(db, session, setup, row, {"url": f"{receiver.url}/new"}, now=NOW)
        assert row.verified_at is None


# ── full bodies ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "is_there"), [(100, True), (70_000, False)])
def test_a_full_body_holds_the_document_unless_it_is_too_long(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver, size: int, is_there: bool
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db), receiver.url, payload="full")
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).verified_at = NOW
    idx = log.issue(tlp=2, audience="EE")
    log.set(idx, document=json.dumps({"title": "x" * size}))
    step(db, clock, setup)
    (request,) = receiver.received
    assert len(request.body) <= 64 * 1024
    data = json.loads(request.body)["data"]
    assert data["document"] == ({"title": "x" * size} if is_there else None)
    assert data["sequence"] == 1


def test_a_full_body_is_never_above_the_ceiling(
    db: Database, clock: SettableClock, setup: WebhookSetup, receiver: Receiver
) -> None:
    log = Log(db)
    id_, _ = subscribe(db, setup, add_token(db, ceiling=1), receiver.url, payload="full")
    with db.write() as session:
        session.get_one(SubscriptionRow, id_).verified_at = NOW
    idx = log.issue(tlp=1)
    log.set(idx, document='{"title": "green"}')
    outbox.fan_out_step(db, clock, setup)
    log.set(idx, tlp_rank=2, document='{"title": "amber"}')
    step(db, clock, setup)
    assert receiver.received == []
    with db.read() as session:
        assert session.scalars(select(DeliveryRow.state)).all() == ["dropped"]
