"""Mail for people: what happened since the last mail, in a few lines each, as thin as a webhook.

A digest is a reader of the feed (`app.notify.feed`) with a mailbox: the same gate, the same cursor, its own ceiling. One line
for each version of a notice, however many events it had; ids, type, State, label and a link, never a title or a text: mail
lies in servers that nobody here knows. To read, one follows the link and passes the gate again.

Guarantees: sent at least once. The place moves after the server has taken the mail; a crash in between sends it again under
the same `Message-ID`, by which mail programs drop it. One recipient's fault does not hold up the others.
Leaves to others: delivery beyond the server that is configured.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
from sqlalchemy import update

from app.domain.errors import Malformed, NodeFault, UnsafeSettings
from app.domain.handling import Tlp
from app.gate import Principal
from app.models import DigestRow
from app.notify import feed
from app.notify.feed import Position, ResyncNeeded, View
from app.queries.filters import NoticeFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.clock import Clock
    from app.db import Database
    from app.notify.setup import WebhookSetup
    from app.settings import Settings

log: Final = logging.getLogger("verbale.notify")

HOUR_MS: Final = 3_600_000
LEASE_MS: Final = 300_000
"""Longer than a server takes to accept or refuse a mail; a worker that dies holds a digest up for so long."""
TIMEOUT_SECONDS: Final = 30.0
LINES: Final = 200
"""Of one mail. More than that nobody reads; the mail says how many there are."""

_VERBS: Final = {
    "notice.issued": "new",
    "notice.amended": "new version",
    "notice.withdrawn": "withdrawn: stop relying on it",
    "notice.expired": "expired",
    "notice.review_overdue": "review overdue",
    "notice.recalled": "recalled: stop using your copy",
    "notice.erased": "erased: destroy your copy",
    "notice.confirmed": "confirmed",
    "acknowledgement.received": "acknowledged",
}


class MailRefused(NodeFault):
    """The mail server refuses, cannot be reached, or is not who it should be."""

    code = "mail-refused"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who is written to, how much it may see, and how often.

    Attributes:
        every_ms: between two mails.
    """

    address: str
    ceiling: Tlp
    every_ms: int

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read `address LABEL HOURS`, as the setting `mail_digests` has it.

        Raises:
            UnsafeSettings: it is not that.
        """
        try:
            address, label, hours = text.split()
            ceiling, every = Tlp.parse(label), int(hours)
        except (ValueError, Malformed) as error:
            raise UnsafeSettings(f"mail_digests: {text!r} is not `address LABEL HOURS`.") from error
        local, _, host = address.rpartition("@")
        if (
            not local
            or not host
            or not address.isascii()
            or any(c in address for c in ',;:<>()[]"\\')
            or every < 1
        ):
            raise UnsafeSettings(f"mail_digests: {text!r} has no plain address, or less than an hour.")
        return cls(address, ceiling, every * HOUR_MS)


class Post(Protocol):
    """Hands one mail to a server."""

    def __call__(self, message: EmailMessage) -> None:
        """Raises MailRefused."""
        ...


@dataclass(frozen=True, slots=True)
class Smtp:
    """The configured server. TLS is verified by the system's authorities, or those of `ca` alone."""

    host: str
    port: int
    security: str
    username: str
    password: str
    ca: str | None

    @classmethod
    def of(cls, settings: Settings) -> Smtp:
        """From the settings.

        Raises:
            UnsafeSettings: the file of the password cannot be read.
        """
        password = ""
        if settings.mail_username:
            try:
                password = (settings.data_dir / settings.mail_password_file).read_text("utf-8").strip()
            except OSError as error:
                raise UnsafeSettings(
                    f"mail_password_file {settings.mail_password_file} cannot be read: {error.strerror}."
                ) from error
        return cls(
            settings.mail_host, settings.mail_port, settings.mail_security, settings.mail_username, password,
            str(settings.data_dir / settings.mail_ca) if settings.mail_ca else None,
        )  # fmt: skip

    def __call__(self, message: EmailMessage) -> None:
        """Hand it over; returns when the server has taken it."""
        try:
            with self._connect() as server:
                if self.username:
                    server.login(self.username, self.password)
                server.send_message(message)
        except (OSError, smtplib.SMTPException, ssl.SSLError) as error:
            # Of the server's words only the code: they may quote what was sent.
            code = getattr(error, "smtp_code", "")
            raise MailRefused(
                f"The mail server {self.host}:{self.port} took nothing: {type(error).__name__} {code}".rstrip()
                + "."
            ) from error

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self.ca)
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_SECONDS, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)
        if self.security == "starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server


def digest_step(
    db: Database, clock: Clock, setup: WebhookSetup, recipients: Sequence[Recipient], sender: str, post: Post
) -> bool:
    """Write to everybody whose time has come.

    Raises:
        MailRefused: the server took nothing for somebody; the others were served first.
    """
    refused: MailRefused | None = None
    for recipient in recipients:
        try:
            _write_to(db, clock(), setup, recipient, sender, post)
        except MailRefused as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return False


def _write_to(
    db: Database, now: int, setup: WebhookSetup, recipient: Recipient, sender: str, post: Post
) -> None:
    claimed = _claim(db, recipient, now)
    if claimed is None:
        return
    after, upto = claimed
    try:
        with db.read() as session:
            feed.check(session, after)
            told = _read(session, setup, recipient, after, upto.seq, now)
        lost = False
    except ResyncNeeded:
        told, lost = [], True
    try:
        if told or lost:
            post(_message(setup, recipient, sender, told, after, upto, now, lost=lost))
    except MailRefused:
        _finish(db, recipient, {"leased_until": 0})  # the span stays: what is sent later is the same mail
        raise
    done = {"seq": upto.seq, "check": upto.check, "upto_seq": None, "upto_check": None, "sent_at": now}
    _finish(db, recipient, done | {"leased_until": 0})


def _claim(db: Database, recipient: Recipient, now: int) -> tuple[Position, Position] | None:
    """The span to write about, leased to this worker, if it is time. The first look at a recipient only sets its place."""
    with db.write() as session:
        newest = feed.position_at(session, feed.newest_seq(session))
        row = session.get(DigestRow, recipient.address, with_for_update=True)
        if row is None:
            first = {"seq": newest.seq, "check": newest.check, "sent_at": now, "leased_until": 0}
            session.execute(db.insert_ignore(DigestRow.__table__).values(address=recipient.address, **first))
            return None
        if now < row.sent_at + recipient.every_ms or now < row.leased_until:
            return None
        if row.upto_seq is None or row.upto_check is None:
            row.upto_seq, row.upto_check = newest.seq, newest.check
        row.leased_until = now + LEASE_MS
        return Position(row.seq, row.check), Position(row.upto_seq, row.upto_check)


def _finish(db: Database, recipient: Recipient, values: dict[str, int | None]) -> None:
    with db.write() as session:
        session.execute(update(DigestRow).where(DigestRow.address == recipient.address).values(values))


def _read(
    session: Any,  # noqa: ANN401 - an SQLAlchemy session
    setup: WebhookSetup,
    recipient: Recipient,
    after: Position,
    newest: int,
    now: int,
) -> list[dict[str, Any]]:
    principal = Principal("token", setup.state, int(recipient.ceiling), frozenset({"read"}))
    view = View.shared(principal, NoticeFilter(), frozenset(), live_only=True)
    told: list[dict[str, Any]] = []
    while after.seq < newest:
        span = feed.look(session, setup, view, after, newest, limit=500, now=now)
        told += [orjson.loads(item.json) for item in span.items]
        after = span.upto
    return told


def _message(
    setup: WebhookSetup,
    recipient: Recipient,
    sender: str,
    told: list[dict[str, Any]],
    after: Position,
    newest: Position,
    now: int,
    *,
    lost: bool,
) -> EmailMessage:
    lines = _lines(told)
    message = EmailMessage()
    message["From"], message["To"] = sender, recipient.address
    message["Subject"] = f"Verbale: {len(lines)} {'notice' if len(lines) == 1 else 'notices'}"
    message["Date"] = format_datetime(datetime.fromtimestamp(now / 1000, UTC))
    # The same for the same span: what a crash sends again is one mail to the reader's program.
    span = f"{setup.state} {recipient.address} {after.seq} {after.check} {newest.seq} {newest.check}"
    message["Message-ID"] = f"<{sha256(span.encode()).hexdigest()[:32]}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    text = [f"What this node recorded for you, up to {recipient.ceiling.label}.", ""]
    if lost:
        text += [
            f"Events were forgotten before they could be told here. Look at {setup.public_url}/v1/notices anew.",
            "",
        ]
    text += lines[:LINES]
    if len(lines) > LINES:
        text += ["", f"And {len(lines) - LINES} more: {setup.public_url}/v1/feed"]
    text += ["", "Read a notice by its link, with your own credentials. Nothing of it is in this mail."]
    message.set_content("\n".join(text) + "\n")
    return message


def _lines(told: list[dict[str, Any]]) -> list[str]:
    """One line for each version of a notice, in the order in which it was first told; then what concerns no notice."""
    versions: dict[tuple[Any, Any], tuple[dict[str, Any], list[str]]] = {}
    others: list[str] = []
    for event in told:
        data = event["data"]
        if "url" not in data or "id" not in data:
            others.append(f"{event['type']} {data.get('origin', '')}".strip())
            continue
        found = versions.setdefault((data["id"], data["version"]), (data, []))
        verb = _VERBS.get(event["type"], event["type"])
        if verb not in found[1]:
            found[1].append(verb)
    lines = [
        " ".join(
            filter(None, (f"{'; '.join(verbs)}:", d["issuer"], d["type"], d["tlp"], f"version {d['version']}" if d["version"] else "", d["url"]))
        )
        for d, verbs in versions.values()
    ]  # fmt: skip
    return lines + list(dict.fromkeys(others))
