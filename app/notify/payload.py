"""What an event says, to webhooks and in the feed alike: thin, so that every reading of the notice itself stays audited.

It says what happened to which notice, under which marking, and where the proof of it stands: origin, index and leaf hash
let a receiver order what it gets, drop repeats and check everything against the log. Well under 20 kB, always.

Whoever tells an event selects `columns` through `matching.with_notice` and makes `told` or `recall` of the row. Whether it
may be told at all is decided before (`app.notify.matching`, `app.gate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.encoding import b64u_encode
from app.domain.handling import Tlp
from app.models import EventRow, LogRow, NoticeRow
from app.notify import matching
from app.notify.matching import Acked, Cause
from app.queries.filters import is_active, is_active_then

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PAYLOAD: Final = 64 * 2**10
"""Bytes of a body, at most; a thin one has about 700. Standard Webhooks advises less than 20 kB."""


def rfc3339(at_ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Told:
    """What one event says. `type`, `tlp_rank` are None for an erased notice: nothing but its id is left. In a recall of a
    notice that may not be seen any more `version`, `index` and `leaf_hash` are None too.

    Attributes:
        at: when this node recorded it, unix ms.
        notice_id: None: it concerns no notice, and `detail` says it all.
        version: of the notice the event speaks of.
        status: of the notice when the payload was made.
        origin, index, leaf_hash: the leaf that caused the event.
        acknowledgement: id of the acknowledging statement and its State.
        detail: JSON text of what else the event says.
        document: JSON text of the notice's document, for those who asked for full bodies.
    """

    event_type: str
    at: int
    notice_id: str | None
    version: int | None
    issuer: str | None
    notice_type: str | None
    tlp_rank: int | None
    status: str | None
    origin: str | None
    index: int | None
    leaf_hash: bytes | None
    acknowledgement: tuple[str | None, str] | None = None
    detail: str | None = None
    document: str | None = None

    def body(self, public_url: str) -> bytes:
        """The bytes to send, but for the number that `numbered` puts in."""
        whole: dict[str, Any] = {
            "type": self.event_type,
            "timestamp": rfc3339(self.at),
            "data": self.data(public_url),
        }
        if self.document is not None:
            whole["data"]["document"] = orjson.Fragment(self.document)
            full = orjson.dumps(whole)
            if len(full) <= MAX_PAYLOAD - _NUMBER_BYTES:
                return full
            whole["data"]["document"] = None  # too long: it is to be fetched
        return orjson.dumps(whole)

    def data(self, public_url: str) -> dict[str, Any]:
        """The member `data`, but for the document and the number."""
        detail: dict[str, Any] = {} if self.detail is None else orjson.loads(self.detail)
        if self.notice_id is None:
            return ({} if self.origin is None else {"origin": self.origin}) | detail
        data: dict[str, Any] = {
            "id": self.notice_id,
            "version": self.version,
            "issuer": self.issuer,
            "type": self.notice_type,
            "tlp": None if self.tlp_rank is None else Tlp(self.tlp_rank).label,
            "status": self.status,
            "origin": self.origin,
            "index": self.index,
            "leaf_hash": None if self.leaf_hash is None else b64u_encode(self.leaf_hash),
            "url": f"{public_url}/v1/notices/{self.notice_id}",
        }
        if self.acknowledgement is not None:
            statement_id, state = self.acknowledgement
            data["acknowledgement"] = {"id": statement_id, "state": state}
        return detail | data


def columns(now: int | None) -> Sequence[Any]:
    """What `told` and `recall` need of an event's row, to be selected.

    Args:
        now: unix ms, for what is expired; None: it is bound when the statement is executed (`app.queries.filters.then`).
    """
    return (
        EventRow.seq,
        EventRow.type,
        EventRow.at,
        EventRow.idx,
        EventRow.detail,
        LogRow.origin,
        LogRow.state,
        Cause.id.label("cause_id"),
        Cause.version,
        Cause.leaf_hash,
        Acked.version.label("acked_version"),
        NoticeRow.id.label("notice_id"),
        NoticeRow.issuer,
        NoticeRow.type.label("notice_type"),
        NoticeRow.tlp_rank,
        NoticeRow.status,
        NoticeRow.version.label("notice_version"),
        (is_active_then() if now is None else is_active(now)).label("is_active"),
    )


def told(row: Any, document: str | None = None) -> Told:  # noqa: ANN401 - a row with `columns`
    """What an event says to whoever may be told all of it."""
    acknowledged = row.type == matching.ACKNOWLEDGED
    erased = row.type == matching.ERASED
    return Told(
        event_type=row.type,
        at=row.at,
        notice_id=row.notice_id,
        version=row.acked_version if acknowledged else (row.version or row.notice_version),
        issuer=row.issuer,
        notice_type=None if erased else row.notice_type,
        tlp_rank=None if erased else row.tlp_rank,
        status="expired" if row.status == "active" and not row.is_active else row.status,
        origin=row.origin,
        index=row.idx,
        leaf_hash=None if row.leaf_hash is None else bytes(row.leaf_hash),
        acknowledgement=(row.cause_id, row.state) if acknowledged else None,
        detail=row.detail,
        document=document,
    )


def recall(row: Any) -> Told:  # noqa: ANN401 - a row with `columns`
    """A recall that says nothing of the version that may not be seen: not even that there is one."""
    return Told(
        event_type=matching.RECALLED,
        at=row.at,
        notice_id=row.notice_id,
        version=None,
        issuer=row.issuer,
        notice_type=None,
        tlp_rank=None,
        status="recalled",
        origin=row.origin,
        index=None,
        leaf_hash=None,
    )


_NUMBER_BYTES: Final = 40


def numbered(body: bytes, number: int) -> bytes:
    """The exact bytes to sign and send: `body` with the delivery's place in its subscription, as `data.sequence`."""
    return b'%b%b"sequence":%d}}' % (body[:-2], b"" if body.endswith(b"{}}") else b",", number)


def trial_body(event_type: str, at_ms: int, subscription_id: str) -> bytes:
    """The body of a test delivery, which concerns no notice."""
    return orjson.dumps(
        {"type": event_type, "timestamp": rfc3339(at_ms), "data": {"subscription": subscription_id}}
    )
