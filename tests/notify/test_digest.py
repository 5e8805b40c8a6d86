"""Mail to people, by a real server on loopback: thin, once for each version, never above the ceiling, never without TLS."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import delete

from app.domain.errors import UnsafeSettings
from app.domain.handling import Tlp
from app.models import CounterRow, EventRow
from app.notify import feed
from app.notify.digest import HOUR_MS, LEASE_MS, MailRefused, Recipient, Smtp, digest_step
from tests.notify.receivers import Log, SettableClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.db import Database
    from app.notify.setup import WebhookSetup

SENDER = "verbale@ee.example"
OFFICER = Recipient("officer@ee.example", Tlp.GREEN, HOUR_MS)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A key and a certificate for `localhost` that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return private, public


class Box:
    """What the server was given. It refuses when told to."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuse = False

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuse:
            return "451 later"
        self.mails.append(message_from_bytes(envelope.content))
        return "250 taken"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[Box, Smtp, Path]]:
    """A mailbox, the way to it, and the authority of its server."""
    private, public = certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    box = Box()
    with socket.create_server(("localhost", 0)) as spare:  # the controller cannot say which port it was given
        port = spare.getsockname()[1]
    controller = Controller(box, hostname="localhost", port=port, tls_context=context, require_starttls=True)
    controller.start()
    yield box, Smtp("localhost", port, "starttls", "", "", str(public)), public
    controller.stop()


def step(db: Database, clock: SettableClock, setup: WebhookSetup, post: Any, *recipients: Recipient) -> None:
    digest_step(db, clock, setup, recipients or (OFFICER,), SENDER, post)


def test_a_mail_tells_each_version_once_thinly_and_nothing_above_the_ceiling(
    db: Database, clock: SettableClock, setup: WebhookSetup, box: tuple[Box, Smtp, Path]
) -> None:
    inbox, smtp, _ = box
    log = Log(db)
    log.issue()
    step(db, clock, setup, smtp)  # a new recipient is told of what follows
    shown, hidden = log.issue(tlp=1), log.issue(tlp=2, audience="EE")
    log.event("question.asked", shown, shown)
    log.follow("amend", shown, "notice.amended", tlp_rank=1)
    log.event("notice.confirmed", shown, shown)
    step(db, clock, setup, smtp)
    assert inbox.mails == []  # not yet
    clock.now += HOUR_MS
    step(db, clock, setup, smtp)
    step(db, clock, setup, smtp)
    (mail,) = inbox.mails
    text = mail.get_payload(decode=True).decode()
    url = "https://ee.example/v1/notices/notice-US-"
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, OFFICER.address, "Verbale: 2 notices")
    assert text.count(f"{url}{shown}") == 2  # one line for each of its two versions
    assert f"new; question.asked; confirmed: US denied_end_user TLP:GREEN version 1 {url}{shown}" in text
    assert f"{url}{hidden}" not in text
    assert "A title that must not travel" not in str(mail)
    clock.now += HOUR_MS
    step(db, clock, setup, smtp)
    assert len(inbox.mails) == 1  # nothing happened: no mail


def test_what_is_refused_is_sent_later_as_the_same_mail_and_holds_nobody_up(
    db: Database, clock: SettableClock, setup: WebhookSetup, box: tuple[Box, Smtp, Path]
) -> None:
    inbox, smtp, _ = box
    other = Recipient("other@ee.example", Tlp.RED, HOUR_MS)
    sent: list[str] = []

    def post(message: Any) -> None:
        sent.append(message["Message-ID"])
        if message["To"] == OFFICER.address and len(sent) == 1:
            raise MailRefused("The server is away.")
        smtp(message)

    step(db, clock, setup, post, OFFICER, other)
    log = Log(db)
    log.issue()
    clock.now += HOUR_MS
    with pytest.raises(MailRefused):
        step(db, clock, setup, post, OFFICER, other)
    assert [mail["To"] for mail in inbox.mails] == [other.address]
    log.issue()
    step(db, clock, setup, post, OFFICER, other)
    assert sent[0] == sent[2]
    assert inbox.mails[1]["Subject"] == "Verbale: 1 notice"
    clock.now += HOUR_MS
    step(db, clock, setup, post, OFFICER)
    assert inbox.mails[2]["Subject"] == "Verbale: 1 notice"


def test_a_worker_that_dies_after_sending_costs_a_mail_under_the_same_id(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    sent: list[str] = []

    def dies(message: Any) -> None:
        sent.append(message["Message-ID"])
        raise KeyboardInterrupt

    step(db, clock, setup, dies)
    Log(db).issue()
    clock.now += HOUR_MS
    with pytest.raises(KeyboardInterrupt):
        step(db, clock, setup, dies)
    step(db, clock, setup, dies)  # another worker: it is leased
    assert len(sent) == 1
    clock.now += LEASE_MS
    step(db, clock, setup, lambda message: sent.append(message["Message-ID"]))
    assert len(sent) == 2
    assert sent[0] == sent[1]


def test_events_that_were_forgotten_are_said_to_be(
    db: Database, clock: SettableClock, setup: WebhookSetup
) -> None:
    log = Log(db)
    mails: list[Any] = []
    step(db, clock, setup, mails.append)
    for _ in range(3):
        log.issue()
    with db.write() as session:
        position = feed.position_at(session, 2)
        for name, value in ((feed.PRUNED, 2), (feed.PRUNED_CHECK, position.check)):
            session.execute(
                db.upsert(CounterRow.__table__, ["name"], ["value"]).values(name=name, value=value)
            )
        session.execute(delete(EventRow).where(EventRow.seq <= 2))
    clock.now += HOUR_MS
    step(db, clock, setup, mails.append)
    assert "Look at https://ee.example/v1/notices anew" in mails[0].get_content()


def test_a_server_that_cannot_be_verified_is_given_nothing(
    db: Database, clock: SettableClock, setup: WebhookSetup, box: tuple[Box, Smtp, Path], tmp_path: Path
) -> None:
    inbox, smtp, _ = box
    _, stranger = certificate(tmp_path, "stranger")
    step(db, clock, setup, smtp)
    Log(db).issue()
    clock.now += HOUR_MS
    for ca in (str(stranger), None):
        wrong = Smtp("localhost", smtp.port, "starttls", "", "", ca)
        with pytest.raises(MailRefused, match="SSL"):
            step(db, clock, setup, wrong)
    with pytest.raises(MailRefused):  # nor one that is spoken to under another name than it proves
        step(db, clock, setup, Smtp("127.0.0.1", smtp.port, "starttls", "", "", smtp.ca))
    inbox.refuse = True
    with pytest.raises(MailRefused, match="451"):
        step(db, clock, setup, smtp)
    assert inbox.mails == []
    inbox.refuse = False
    step(db, clock, setup, smtp)
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "a@b TLP:GREEN",
        "a@b PURPLE 1",
        "a@b TLP:RED 0",
        "@b TLP:RED 1",
        "a,c@b TLP:RED 1",
        "a TLP:RED 1",
    ],
)
def test_a_recipient_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(UnsafeSettings):
        Recipient.parse(text)
    assert Recipient.parse("officer@ee.example TLP:GREEN 1") == OFFICER
