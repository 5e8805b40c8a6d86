"""Answers about notices: lists, one notice, its versions, and which States hold it.

Guarantees that nothing of a notice that the caller may not read leaves this module, be it a row, a count or an id; a
notice that is hidden raises the same `NotFound` as one that never was. Bodies of earlier versions pass the gate each for
itself, under the handling they had.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, case, func, or_, select, tuple_

from app import bodies
from app.domain.encoding import b64u_encode
from app.domain.errors import Conflict, InvalidFilter, NotFound
from app.domain.handling import Tlp
from app.domain.statement import is_statement_id
from app.domain.times import Bracket
from app.gate import may_read, visible
from app.models import CosignatureRow, EntryRow, ErasureSaidRow, HeadRow, LeafRow, LogRow, NoticeRow
from app.models.notice import UNKNOWN_TLP
from app.projections.lineage import line, newest
from app.queries.filters import RECALLED, SHOWN, NoticeFilter, day_of, make_cursor, read_cursor
from app.tlog.checkpoint import Checkpoint
from app.tlog.confirm import bracket_columns, bracket_notes
from app.tlog.cosignature import cosigned_at
from app.tlog.note import parse as parse_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session

    from app.domain.roster import Roster
    from app.gate import Principal

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
"""Rows of one page. A thousand denials are about 4 MB of JSON."""


class AmbiguousId(Conflict):
    """The id stands in more than one log, and the caller may see more than one of them."""

    code = "ambiguous-id"


LAST_MS: Final = 253_402_300_799_000
"""The last second of the year 9999: RFC 3339 can name no later one, and a statement may claim it."""


def rfc3339(ms: int) -> str:
    """A time in unix milliseconds as RFC 3339 UTC; whole seconds without a fraction; what is later as the year 9999's end."""
    text = datetime.fromtimestamp(min(ms, LAST_MS) / 1000, UTC).isoformat(
        timespec="milliseconds" if ms % 1000 else "seconds"
    )
    return text.replace("+00:00", "Z")


def standing(*, confirmed: bool, frozen: bool = False) -> str:
    """The word for whether a quorum vouches for a version.

    Args:
        frozen: its log has signed two histories: what is not confirmed of it is in one of them only, and stays unproven.
    """
    return "confirmed" if confirmed else "unproven" if frozen else "provisional"


def logged(bracket: Bracket, iat: int) -> dict[str, Any]:
    """The bracket of a version on the wire, with what is to be said of its claimed time (unix seconds)."""
    return {
        "after": None if bracket.after is None else rfc3339(bracket.after * 1000),
        "before": None if bracket.before is None else rfc3339(bracket.before * 1000),
        "flag": bracket.flag(iat),
    }


@dataclass(frozen=True, slots=True)
class NoticeView:
    """One notice as a caller may see it, in its newest version that this node holds. Times are unix ms.

    Attributes:
        log_id, root_idx: its key at this node.
        index, leaf_hash: of its newest version, which an amendment or withdrawal refers to.
        status: active, expired, withdrawn, erased, or recalled: its issuer took it away from this State, and nothing of what
            this State held is shown.
        document: JSON text of the effective main part; None where there is no content any more.
        stale: the newest version's body is still being fetched; `document` is an earlier one.
        confirmed: a quorum of witnesses cosigned a checkpoint that covers the newest version.
        frozen: its log has signed two histories.
        logged: when the newest version was logged, unix seconds, as its witnesses saw it.
    """

    log_id: int
    root_idx: int
    seq: int
    id: str
    origin: str
    index: int
    leaf_hash: bytes
    issuer: str
    type: str | None
    status: str
    review_overdue: bool
    version: int
    issued_at: int
    changed_at: int
    received_at: int
    expires_at: int | None
    tlp_rank: int
    title: str | None
    document: str | None
    stale: bool
    confirmed: bool
    logged: Bracket
    frozen: bool = False
    recalled: bool = False
    reconfirm: bool = False

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API, for orjson: the document goes out as it is stored."""
        # Label and audience are read from the document rather than kept twice.
        main = orjson.loads(self.document) if self.document is not None else {}
        return {
            "id": self.id,
            "origin": self.origin,
            "index": self.index,
            "leaf_hash": b64u_encode(self.leaf_hash),
            "issuer": self.issuer,
            "type": self.type,
            "status": self.status,
            "review_overdue": self.review_overdue,
            "version": self.version,
            "issued_at": rfc3339(self.issued_at),
            "changed_at": rfc3339(self.changed_at),
            "received_at": rfc3339(self.received_at),
            "expires_at": None if self.expires_at is None else rfc3339(self.expires_at),
            "tlp": Tlp(self.tlp_rank).label if self.tlp_rank <= Tlp.RED else None,
            "audience": main.get("audience"),
            "title": self.title,
            "stale": self.stale,
            "recalled": self.recalled,
            "reconfirm": self.reconfirm,
            "standing": standing(confirmed=self.confirmed, frozen=self.frozen),
            "logged": logged(self.logged, self.changed_at // 1000),
            "document": None if self.document is None else orjson.Fragment(self.document),
            "links": {
                "self": f"/v1/notices/{self.id}",
                "versions": f"/v1/notices/{self.id}/versions",
                "receipts": f"/v1/notices/{self.id}/receipts",
                "proof": f"/v1/notices/{self.id}/proof",
            },
        }


_AFTER, _BEFORE = bracket_columns(NoticeRow.log_id, NoticeRow.current_idx)
_COLUMNS: Final = (
    NoticeRow.log_id, NoticeRow.idx, NoticeRow.seq, NoticeRow.id, LogRow.origin, NoticeRow.current_idx, NoticeRow.current_hash,
    NoticeRow.issuer, NoticeRow.type, NoticeRow.status, NoticeRow.version, NoticeRow.iat, NoticeRow.changed_iat,
    NoticeRow.received_at, NoticeRow.exp, NoticeRow.tlp_rank, NoticeRow.title, NoticeRow.document, NoticeRow.content_state,
    NoticeRow.valid_until, NoticeRow.review_due,
    (NoticeRow.current_idx < LogRow.confirmed_size).label("confirmed"), (LogRow.status == "frozen").label("frozen"),
    _AFTER.label("logged_after"), _BEFORE.label("logged_before"),
)  # fmt: skip


def _view(row: Any, now_ms: int) -> NoticeView:  # noqa: ANN401 - a row of _COLUMNS
    today = day_of(now_ms).isoformat()
    over = (row.exp is not None and row.exp <= now_ms // 1000) or (
        row.valid_until is not None and row.valid_until < today
    )
    if row.content_state == RECALLED:
        return _recalled(row)
    status = "expired" if row.status == "active" and over else row.status
    return NoticeView(
        log_id=row.log_id,
        root_idx=row.idx,
        seq=row.seq,
        id=row.id,
        origin=row.origin,
        index=row.current_idx,
        leaf_hash=bytes(row.current_hash),
        issuer=row.issuer,
        type=row.type,
        status=status,
        review_overdue=status == "active" and row.review_due is not None and row.review_due < today,
        version=row.version,
        issued_at=row.iat * 1000,
        changed_at=row.changed_iat * 1000,
        received_at=row.received_at,
        expires_at=None if row.exp is None else row.exp * 1000,
        tlp_rank=row.tlp_rank,
        title=row.title,
        document=row.document,
        stale=row.content_state == "stale",
        confirmed=bool(row.confirmed),
        frozen=bool(row.frozen),
        logged=Bracket(row.logged_after, row.logged_before),
    )


def _recalled(row: Any) -> NoticeView:  # noqa: ANN401 - a row of _COLUMNS
    """What a former addressee is shown: that there is a newer version which is not for it. Nothing of the content it held."""
    return NoticeView(
        log_id=row.log_id,
        root_idx=row.idx,
        seq=row.seq,
        id=row.id,
        origin=row.origin,
        index=row.current_idx,
        leaf_hash=bytes(row.current_hash),
        issuer=row.issuer,
        type=None,
        status=RECALLED if row.status == "active" else row.status,
        review_overdue=False,
        version=row.version,
        issued_at=row.iat * 1000,
        changed_at=row.changed_iat * 1000,
        received_at=row.received_at,
        expires_at=None,
        tlp_rank=UNKNOWN_TLP,
        title=None,
        document=None,
        stale=False,
        confirmed=bool(row.confirmed),
        frozen=bool(row.frozen),
        logged=Bracket(row.logged_after, row.logged_before),
        recalled=True,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest arrival first; `total` counts the whole list in the same snapshot."""

    items: list[NoticeView]
    next: str | None
    total: int


def find(
    session: Session,
    principal: Principal,
    wanted: NoticeFilter,
    *,
    limit: int,
    cursor: str | None,
    now_ms: int,
) -> Page:
    """The notices that match and that the caller may see.

    Raises:
        InvalidCursor: see `read_cursor`.
        InvalidFilter: a limit outside 1 to MAX_LIMIT.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    scope = f"notices:{wanted.fingerprint()}"
    before = None if cursor is None else read_cursor(scope, cursor)
    conditions = wanted.conditions(principal, now_ms)
    total = session.execute(select(func.count()).select_from(NoticeRow).where(*conditions)).scalar_one()
    paged = conditions if before is None else [*conditions, NoticeRow.seq < before]
    # Keys first: the filter is answered from narrow rows, and only one page of documents is read.
    keys = select(NoticeRow.seq).where(*paged).order_by(NoticeRow.seq.desc()).limit(limit + 1)
    found = list(session.scalars(keys))
    more, found = len(found) > limit, found[:limit]
    items = load_notices(session, NoticeRow.seq.in_(found), now_ms) if found else []
    return Page(items, make_cursor(scope, found[-1]) if more else None, total)


def load_notices(session: Session, condition: ColumnElement[bool], now_ms: int) -> list[NoticeView]:
    """The notices that a condition names, newest arrival first. The condition includes the gate, or comes from what did."""
    rows = session.execute(
        select(*_COLUMNS)
        .join(LogRow, LogRow.id == NoticeRow.log_id)
        .where(condition)
        .order_by(NoticeRow.seq.desc())
    )
    return [_view(row, now_ms) for row in rows]


def mark_suspects(session: Session, roster: Roster, views: Sequence[NoticeView]) -> list[NoticeView]:
    """Mark notices whose newest version was signed by a key that its State suspects, and is not proven to be older than that.

    By the time at which witnesses saw it in the log, not by the time it claims: a thief claims what suits him.
    """
    suspects = roster.suspects
    if not suspects or not views:
        return list(views)
    places = [(view.log_id, view.index) for view in views]
    rows = session.execute(
        select(EntryRow.log_id, EntryRow.idx, EntryRow.kid).where(
            tuple_(EntryRow.log_id, EntryRow.idx).in_(places)
        )
    )
    kids = {(row.log_id, row.idx): row.kid for row in rows}

    def marked(view: NoticeView) -> NoticeView:
        since = suspects.get((view.issuer, kids.get((view.log_id, view.index)) or ""))
        if since is None or (view.logged.before is not None and view.logged.before <= since):
            return view
        return replace(view, reconfirm=True)

    return [marked(view) for view in views]


def _unknown(notice_id: str) -> NotFound:
    return NotFound(f"There is no notice {notice_id[:64]!r} that this caller may see.")


def get(
    session: Session, principal: Principal, notice_id: str, *, origin: str | None, now_ms: int
) -> NoticeView:
    """The notice that has a version with this id: the id of its issue, or of an amendment, withdrawal or erasure.

    Raises:
        NotFound: there is none for this caller.
        AmbiguousId: the caller may see several, in several logs, and named no origin.
    """
    if not is_statement_id(notice_id):
        raise _unknown(notice_id)
    versions = select(EntryRow.log_id, EntryRow.root_idx).where(
        EntryRow.id == notice_id, EntryRow.fault_code.is_(None), EntryRow.root_idx.is_not(None)
    )
    keys = session.execute(versions).all()
    found: list[NoticeView] = []
    for log_id, root in dict.fromkeys(newest(session, (row.log_id, row.root_idx)) for row in keys):
        named = and_(NoticeRow.log_id == log_id, NoticeRow.idx == root)
        found += load_notices(
            session, and_(named, visible(principal), NoticeRow.content_state.in_((*SHOWN, RECALLED))), now_ms
        )
    if origin is not None:
        found = [notice for notice in found if notice.origin == origin]
    if not found:
        raise _unknown(notice_id)
    if len(found) > 1:
        origins = ", ".join(sorted(notice.origin for notice in found))
        raise AmbiguousId(f"The id {notice_id} stands in several logs. Add ?origin= with one of: {origins}.")
    return found[0]


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class VersionView:
    """One signed version. The statement is public, as every leaf is; the rest is there if the caller may read it.

    Attributes:
        at, received_at: unix ms; as claimed, and as this node recorded it.
        readable: whether the caller may read this version's body, and this node holds it.
        document: JSON text of the main part as it was signed, or None.
        origin: of the log it stands in: a notice of an ended log goes on in the next one.
        confirmed, frozen, logged: see `NoticeView`; of this version.
    """

    version: int | None
    index: int
    id: str
    kind: str
    leaf_hash: bytes
    kid: str
    at: int
    received_at: int
    statement: str
    readable: bool
    tlp_rank: int | None
    audience: str | None
    document: str | None
    origin: str
    confirmed: bool
    frozen: bool
    logged: Bracket

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API, for orjson."""
        audience = self.audience if self.audience in (None, "ALL") else self.audience.split()
        return {
            "version": self.version,
            "origin": self.origin,
            "index": self.index,
            "id": self.id,
            "kind": self.kind,
            "leaf_hash": b64u_encode(self.leaf_hash),
            "kid": self.kid,
            "issued_at": rfc3339(self.at),
            "received_at": rfc3339(self.received_at),
            "statement": self.statement,
            "readable": self.readable,
            "tlp": None if self.tlp_rank is None else Tlp(self.tlp_rank).label,
            "audience": audience,
            "standing": standing(confirmed=self.confirmed, frozen=self.frozen),
            "logged": logged(self.logged, self.at // 1000),
            "document": None if self.document is None else orjson.Fragment(self.document),
        }


def versions(
    session: Session, principal: Principal, notice: NoticeView, *, limit: int, cursor: str | None
) -> tuple[list[VersionView], str | None]:
    """The versions of a notice that `get` gave, oldest first, and the cursor of what follows.

    Raises:
        InvalidCursor, InvalidFilter: see `find`.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    scope = f"versions:{notice.origin}:{notice.id}"
    after = -1 if cursor is None else read_cursor(scope, cursor)
    after_column, before_column = bracket_columns(EntryRow.log_id, EntryRow.idx)
    place, of_notice = _places(session, notice)
    rows = session.execute(
        select(
            EntryRow,
            LeafRow.leaf,
            LogRow.origin,
            place.label("place"),
            (EntryRow.idx < LogRow.confirmed_size).label("confirmed"),
            (LogRow.status == "frozen").label("frozen"),
            after_column.label("logged_after"),
            before_column.label("logged_before"),
        )
        .join(LogRow, LogRow.id == EntryRow.log_id)
        .join(LeafRow, and_(LeafRow.log_id == EntryRow.log_id, LeafRow.idx == EntryRow.idx))
        .where(
            of_notice,
            EntryRow.fault_code.is_(None),
            place > after,
        )
        .order_by(place)
        .limit(limit + 1)
    ).all()
    shown = (
        [] if notice.recalled else rows[:limit]
    )  # what this State held before the recall is not shown any more
    held: dict[tuple[int, int], bytes] = {}
    for log_id in {row.EntryRow.log_id for row in shown}:
        indexes = [row.EntryRow.idx for row in shown if row.EntryRow.log_id == log_id]
        held |= {(log_id, i): main for i, main in bodies.main_parts(session, log_id, indexes).items()}
    items = [
        _version(
            principal,
            notice.issuer,
            row.EntryRow,
            row.origin,
            bytes(row.leaf),
            held.get((row.EntryRow.log_id, row.EntryRow.idx)),
            confirmed=bool(row.confirmed),
            frozen=bool(row.frozen),
            logged=Bracket(row.logged_after, row.logged_before),
        )
        for row in rows[:limit]
    ]
    return items, make_cursor(scope, rows[limit - 1].place) if len(rows) > limit else None


def _places(session: Session, notice: NoticeView) -> tuple[ColumnElement[int], ColumnElement[bool]]:
    """The place of an entry in the order of a notice's versions, over the logs it was in, and the entries that are of it."""
    rows = list(enumerate(line(session, (notice.log_id, notice.root_idx))))
    if len(rows) == 1:
        return EntryRow.idx.expression, and_(
            EntryRow.log_id == notice.log_id, EntryRow.root_idx == notice.root_idx
        )
    place = case(*((EntryRow.log_id == key[0], EntryRow.idx + n * EPOCH_PLACES) for n, key in rows), else_=-1)
    return place, or_(*(and_(EntryRow.log_id == key[0], EntryRow.root_idx == key[1]) for _, key in rows))


EPOCH_PLACES: Final = 2**48
"""Places of one log in the order of the versions of a notice that went on in the next one."""


def _version(
    principal: Principal,
    issuer: str,
    entry: EntryRow,
    origin: str,
    leaf: bytes,
    content: bytes | None,
    *,
    confirmed: bool,
    frozen: bool,
    logged: Bracket,
) -> VersionView:
    readable = (
        content is not None
        and entry.body_fault_code is None
        and may_read(principal, issuer=issuer, tlp_rank=entry.tlp_rank, audience=entry.audience)
    )
    return VersionView(
        version=entry.version,
        index=entry.idx,
        id=entry.id or "",
        kind=entry.kind or "",
        leaf_hash=bytes(entry.leaf_hash),
        kid=entry.kid or "",
        at=(entry.iat or 0) * 1000,
        received_at=entry.received_at,
        statement=leaf.decode("ascii"),
        readable=readable,
        tlp_rank=entry.tlp_rank if readable else None,
        audience=entry.audience if readable else None,
        document=content.decode() if readable and content is not None else None,
        origin=origin,
        confirmed=confirmed,
        frozen=frozen,
        logged=logged,
    )


# ── receipts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Holding:
    """That a State holds one version: the smallest size it signed that covers it, and when (unix ms, its own clock)."""

    size: int
    at: int


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """What is proven of one State. `issue` is the first version, `current` the newest; None: not proven."""

    state: str
    role: str  # origin | witness
    issue: Holding | None
    current: Holding | None

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "state": self.state,
            "role": self.role,
            "holds": "current" if self.current else "earlier" if self.issue else "unproven",
            "issue": _holding(self.issue),
            "current": _holding(self.current),
        }


def _holding(holding: Holding | None) -> dict[str, Any] | None:
    return None if holding is None else {"size": holding.size, "at": rfc3339(holding.at)}


@dataclass(frozen=True, slots=True)
class AcknowledgementView:
    """A State's signed acknowledgement of one version of the notice, that the caller may read."""

    state: str
    origin: str
    index: int
    id: str
    leaf_hash: bytes  # of the version acknowledged
    at: int
    document: str

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API, for orjson."""
        return {
            "state": self.state,
            "origin": self.origin,
            "index": self.index,
            "id": self.id,
            "ref": b64u_encode(self.leaf_hash),
            "issued_at": rfc3339(self.at),
            "document": orjson.Fragment(self.document),
        }


def receipts(session: Session, roster: Roster, notice: NoticeView) -> list[ReceiptView]:
    """Which States are proven to hold the notice that `get` gave, by cosignatures over its log.

    A cosignature is given only after storing, so one over a size above a version's index is that State's receipt. The
    origin holds what its own signed heads cover. Every State with a node is listed, the unproven ones too.
    """
    issued = line(session, (notice.log_id, notice.root_idx))[0]
    issue, current = (
        _holders(session, *issued, roster),
        _holders(session, notice.log_id, notice.index, roster),
    )
    states = {state.code for state in roster.nodes()} | issue.keys()
    states.discard(notice.issuer)
    origin = ReceiptView(
        notice.issuer,
        "origin",
        _signed(session, *issued),
        _signed(session, notice.log_id, notice.index),
    )
    return [origin, *(ReceiptView(s, "witness", issue.get(s), current.get(s)) for s in sorted(states))]


def _holders(session: Session, log_id: int, index: int, roster: Roster) -> dict[str, Holding]:
    """State → the smallest size above `index` that its witness cosigned, and when, as far as this node knows.

    From the cosignatures it collected, and from the first confirmed checkpoint with the leaf, which every node has.
    """
    smallest = (
        select(CosignatureRow.state, func.min(CosignatureRow.size).label("size"))
        .where(
            CosignatureRow.log_id == log_id, CosignatureRow.size > index, CosignatureRow.state.is_not(None)
        )
        .group_by(CosignatureRow.state)
        .subquery()
    )
    rows = session.execute(
        select(CosignatureRow.state, CosignatureRow.size, func.min(CosignatureRow.timestamp))
        .join(
            smallest, and_(smallest.c.state == CosignatureRow.state, smallest.c.size == CosignatureRow.size)
        )
        .where(CosignatureRow.log_id == log_id)
        .group_by(CosignatureRow.state, CosignatureRow.size)
    )
    found = {state: Holding(size, timestamp * 1000) for state, size, timestamp in rows if state is not None}
    confirmed = bracket_notes(session, log_id, index)[1]
    if confirmed is not None:
        note = parse_note(confirmed)
        size = Checkpoint.parse(note.text).size
        states = {state.witness_name: state.code for state in roster.nodes() if state.witness_name}
        for line in note.signatures:  # verified when it was kept; the log's own line has no witness's name
            state = states.get(line.name)
            if state is not None and (state not in found or size < found[state].size):
                found[state] = Holding(size, cosigned_at(line) * 1000)
    return found


def _signed(session: Session, log_id: int, index: int) -> Holding | None:
    row = session.execute(
        select(HeadRow.size, HeadRow.at)
        .where(HeadRow.log_id == log_id, HeadRow.size > index, HeadRow.note.is_not(None))
        .order_by(HeadRow.size)
        .limit(1)
    ).first()
    if row is not None:
        return Holding(row.size, row.at)
    # A mirror keeps the newest head of its origin only.
    log = session.get(LogRow, log_id)
    if log is None or log.head_size <= index or log.head_at is None:
        return None
    return Holding(log.head_size, log.head_at)


@dataclass(frozen=True, slots=True)
class ErasureSaid:
    """A State's own word, in a leaf of its log, that it has carried an erasure out. Nothing proves it.

    Attributes:
        at: unix ms, as the leaf claims.
        origin, index: of the leaf.
    """

    state: str
    at: int
    origin: str
    index: int

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {"state": self.state, "at": rfc3339(self.at), "origin": self.origin, "index": self.index}


def erasures_said(session: Session, origin: str, index: int) -> tuple[ErasureSaid, ...]:
    """Each State's first statement that it has carried out the erasure at `index` of a log, by State."""
    rows = session.execute(
        select(LogRow.state, LogRow.origin, ErasureSaidRow.idx, ErasureSaidRow.iat)
        .join(LogRow, LogRow.id == ErasureSaidRow.log_id)
        .where(ErasureSaidRow.origin == origin, ErasureSaidRow.below > index)
        .order_by(LogRow.epoch, ErasureSaidRow.idx)
    )
    found: dict[str, ErasureSaid] = {}
    for state, of, idx, iat in rows:
        found.setdefault(state, ErasureSaid(state, iat * 1000, of, idx))
    return tuple(found[state] for state in sorted(found))


@dataclass(frozen=True, slots=True)
class VersionReceipts:
    """Who provably holds one version, and who not.

    Attributes:
        holders: State → since when.
        unproven: members with a node that have not shown that they hold it.
        acknowledged: States whose contact point acknowledged this version, among what the caller may read.
        former: States that were addressed by an earlier version and are not by this one: it recalls the notice from them.
            Empty unless the caller may read both.
        erased: of an erasure, the States that say they have carried it out.
        unsaid: and the members, its issuer among them, that have not said so.
    """

    version: int | None
    origin: str
    index: int
    kind: str
    leaf_hash: bytes
    confirmed: bool
    frozen: bool
    logged: Bracket
    iat: int
    holders: dict[str, Holding]
    unproven: tuple[str, ...]
    acknowledged: tuple[str, ...]
    former: tuple[str, ...]
    erased: tuple[ErasureSaid, ...] = ()
    unsaid: tuple[str, ...] = ()

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "version": self.version,
            "origin": self.origin,
            "index": self.index,
            "kind": self.kind,
            "leaf_hash": b64u_encode(self.leaf_hash),
            "standing": standing(confirmed=self.confirmed, frozen=self.frozen),
            "logged": logged(self.logged, self.iat),
            "holders": [
                {"state": state, **(_holding(holding) or {})}
                for state, holding in sorted(self.holders.items())
            ],
            "unproven": list(self.unproven),
            "acknowledged": list(self.acknowledged),
            "recalled_from": list(self.former),
            "erased_by": [one.wire() for one in self.erased],
            "erasure_unsaid": list(self.unsaid),
        }


def version_receipts(
    session: Session,
    roster: Roster,
    principal: Principal,
    notice: NoticeView,
    acknowledged: list[AcknowledgementView],
    *,
    newest_only: bool = False,
) -> list[VersionReceipts]:
    """For every version of the notice that `get` gave, and its withdrawal or erasure: who holds it, oldest first."""
    after, before = bracket_columns(EntryRow.log_id, EntryRow.idx)
    place, of_notice = _places(session, notice)
    rows = session.execute(
        select(
            EntryRow.version,
            EntryRow.log_id,
            LogRow.origin,
            LogRow.status,
            EntryRow.idx,
            EntryRow.kind,
            EntryRow.leaf_hash,
            EntryRow.iat,
            EntryRow.tlp_rank,
            EntryRow.audience,
            EntryRow.body_state,
            LogRow.confirmed_size,
            after.label("logged_after"),
            before.label("logged_before"),
        )
        .join(LogRow, LogRow.id == EntryRow.log_id)
        .where(
            of_notice,
            EntryRow.fault_code.is_(None),
        )
        .order_by(place.desc())
        .limit(MAX_LIMIT)
    ).all()
    nodes = {state.code for state in roster.nodes() if state.status == "member"} - {notice.issuer}
    acks: dict[bytes, set[str]] = {}
    for acknowledgement in acknowledged:
        acks.setdefault(acknowledgement.leaf_hash, set()).add(acknowledgement.state)
    found: list[VersionReceipts] = []
    for n, row in enumerate(rows[:1] if newest_only else rows):
        holders = _holders(session, row.log_id, row.idx, roster)
        holders.pop(notice.issuer, None)
        erased = erasures_said(session, row.origin, row.idx) if row.kind == "erase" else ()
        said = {one.state for one in erased}
        unsaid = tuple(sorted((nodes | {notice.issuer}) - said)) if row.kind == "erase" else ()
        found.append(
            VersionReceipts(
                version=row.version,
                origin=row.origin,
                index=row.idx,
                kind=row.kind or "",
                leaf_hash=bytes(row.leaf_hash),
                confirmed=row.idx < row.confirmed_size,
                frozen=row.status == "frozen",
                logged=Bracket(row.logged_after, row.logged_before),
                iat=row.iat or 0,
                holders=holders,
                unproven=tuple(sorted(nodes - holders.keys())),
                acknowledged=tuple(sorted(acks.get(bytes(row.leaf_hash), ()))),
                former=_former(principal, notice, row, rows[n + 1 :], nodes),
                erased=erased,
                unsaid=unsaid,
            )
        )
    return found[::-1]


def _former(
    principal: Principal,
    notice: NoticeView,
    row: Any,  # noqa: ANN401 - a row of `version_receipts`
    earlier: Sequence[Any],
    nodes: set[str],
) -> tuple[str, ...]:
    """States that an earlier version addressed and this one does not. Audiences are shown to those in them alone."""

    def addressed(version: Any) -> set[str] | None:  # noqa: ANN401 - a row
        if not may_read(
            principal, issuer=notice.issuer, tlp_rank=version.tlp_rank, audience=version.audience
        ):
            return None
        return nodes if version.audience == "ALL" else set((version.audience or "").split())

    now = addressed(row) if row.kind in ("issue", "amend") else None
    if now is None or notice.recalled:
        return ()
    before: set[str] = set()
    for version in earlier:
        if version.kind in ("issue", "amend"):
            before |= addressed(version) or set()
    return tuple(sorted(before - now - {notice.issuer}))


def acknowledgements(session: Session, principal: Principal, notice: NoticeView) -> list[AcknowledgementView]:
    """The acknowledgements of any version of the notice, from any log, that the caller may read; oldest arrival first."""
    hashes = select(EntryRow.leaf_hash).where(_places(session, notice)[1], EntryRow.fault_code.is_(None))
    rows = session.execute(
        select(EntryRow, LogRow.origin, LogRow.state)
        .join(LogRow, LogRow.id == EntryRow.log_id)
        .where(
            EntryRow.kind == "ack",
            EntryRow.ref.in_(hashes),
            EntryRow.fault_code.is_(None),
            EntryRow.body_fault_code.is_(None),
            EntryRow.body_state == "held",
        )
        .order_by(EntryRow.received_at, EntryRow.log_id, EntryRow.idx)
        .limit(MAX_LIMIT)
    ).all()
    held: dict[tuple[int, int], bytes] = {}
    for log_id in {entry.log_id for entry, _, _ in rows}:
        of_log = [entry.idx for entry, _, _ in rows if entry.log_id == log_id]
        held |= {(log_id, i): main for i, main in bodies.main_parts(session, log_id, of_log).items()}
    return [
        AcknowledgementView(
            state=state,
            origin=origin,
            index=entry.idx,
            id=entry.id or "",
            leaf_hash=bytes(entry.ref or b""),
            at=(entry.iat or 0) * 1000,
            document=held[entry.log_id, entry.idx].decode(),
        )
        for entry, origin, state in rows
        if (entry.log_id, entry.idx) in held
        and may_read(principal, issuer=state, tlp_rank=entry.tlp_rank, audience=entry.audience)
    ]
