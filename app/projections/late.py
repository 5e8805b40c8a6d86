"""Bodies that come after their leaves were folded: an outage, a new addressee, a slow peer.

The fold has already put the header facts in place. Here the body is stored and the one notice it belongs to is folded
again from all the bodies held, so the result does not depend on the order in which bodies came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import select, update

from app import bodies as stored_bodies
from app.domain import events as vocabulary
from app.domain.at_rest import seal_parts
from app.domain.errors import VerbaleError
from app.domain.notices import Notice, amended, parse_main, validate_main
from app.events import Event, emit
from app.models import EntryRow, NoticeRow, NoticeTermRow
from app.projections import lineage, said
from app.projections.content import Content, content_of
from app.projections.fold import (
    BEFORE,
    NO_CONTENT,
    SCREENED_COUNTER,
    content_state,
    forget_terms,
    update_screened,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.statement import Part


@dataclass(frozen=True, slots=True)
class LateBody:
    """What became of one wanted body.

    Attributes:
        state: `held` (then `parts` is set), `absent` or `wanted` (still).
        content, fault: what the judged main part is found by, or why it is flagged.
    """

    index: int
    state: str
    parts: Mapping[str, Part] | None = None
    content: Content | None = None
    fault: VerbaleError | None = None


def take_late_bodies(
    db: Database, session: Session, *, log_id: int, bodies: Sequence[LateBody], now: int, live: bool
) -> None:
    """Store late bodies and refold the notices they belong to. Bodies that are no longer wanted are left alone.

    Args:
        now: unix ms.
        live: see `Fold.flush`.
    """
    events: list[Event] = []
    if lineage.later(session, log_id) is not None:
        lineage.lock(session, log_id)  # what is refolded here may go on in the next epoch
    for body in bodies:
        entry = session.execute(
            select(EntryRow.kind, EntryRow.iat, EntryRow.root_idx, EntryRow.body_state).where(
                EntryRow.log_id == log_id, EntryRow.idx == body.index
            )
        ).one()
        if entry.body_state not in ("wanted", "absent") or body.state == entry.body_state:
            continue  # held already, or erased meanwhile: an erased body that is offered again is refused
        _store(db, session, log_id, body, now)
        if body.parts is not None and body.fault is None:
            heard = said.read(entry.kind or "", body.index, entry.iat or 0, body.parts)
            said.store(db, session, log_id, [heard] if heard is not None else [])
        if entry.root_idx is not None:
            events.extend(_refold(db, session, log_id, entry.root_idx, body.index, entry.kind))
        elif entry.kind == "ack" and body.content is not None:
            events.append(Event("acknowledgement.received", log_id, body.index))
    emit(db, session, events, now=now, live=live)


def _store(db: Database, session: Session, log_id: int, body: LateBody, now: int) -> None:
    content = body.content
    session.execute(
        update(EntryRow)
        .where(EntryRow.log_id == log_id, EntryRow.idx == body.index)
        .values(
            body_state=body.state,
            body_type=content.type if content else None,
            body_fault_code=body.fault.code if body.fault else None,
            body_fault_detail=str(body.fault)[:1000] if body.fault else None,
            **({"tlp_rank": content.tlp_rank, "audience": content.audience} if content else {}),
        )
    )
    if body.state == "held" and body.parts is not None:
        stored_bodies.store(db, session, log_id, [(body.index, seal_parts(body.index, body.parts), now)])


@dataclass(slots=True)
class _Refolded:
    content: Content | None = None
    content_idx: int | None = None
    withdrawn_on: str | None = None


def _refold(
    db: Database, session: Session, log_id: int, root: int, index: int, kind: str | None
) -> list[Event]:
    """Fold one notice from the bodies held; return the events that the body at `index` causes."""
    row = session.execute(
        select(NoticeRow.status, NoticeRow.document_idx, NoticeRow.content_state, NoticeRow.document).where(
            NoticeRow.log_id == log_id, NoticeRow.idx == root
        )
    ).one()
    if row.status == "erased":
        return []
    if row.content_state == lineage.MOVED:
        last = lineage.newest(session, (log_id, root))
        newest = session.execute(
            select(NoticeRow.document_idx).where(NoticeRow.log_id == last[0], NoticeRow.idx == last[1])
        ).scalar_one()
        return _refold(db, session, *last, newest, None)
    result = _fold_versions(session, log_id, root)
    document_body, faulty = session.execute(
        select(EntryRow.body_state, EntryRow.body_fault_code).where(
            EntryRow.log_id == log_id, EntryRow.idx == row.document_idx
        )
    ).one()
    state = content_state(
        status=row.status,
        content_idx=result.content_idx,
        document_idx=row.document_idx,
        document_body="invalid" if faulty else document_body,
    )
    values: dict[str, Any] = NO_CONTENT | (result.content.named() if result.content else {})
    values |= {"content_idx": result.content_idx, "content_state": state, "withdrawn_on": result.withdrawn_on}
    session.execute(update(NoticeRow).where(NoticeRow.log_id == log_id, NoticeRow.idx == root).values(values))
    forget_terms(session, log_id, root, row.document)
    if result.content is not None:
        session.add_all(
            NoticeTermRow(kind=k, term=t, log_id=log_id, idx=root, pos=p) for k, t, p in result.content.terms
        )
        session.flush()
    update_screened(session, log_id, root, db.next_values(session, SCREENED_COUNTER, 1), result.content)
    if kind in ("issue", "amend") and result.content_idx == index:
        type_ = result.content.type if result.content else None
        return [Event(told, log_id, index, root) for told in vocabulary.of_version(kind, type_)]
    if state == "recalled" and row.content_state != "recalled":
        return [Event("notice.recalled", log_id, index, root)]
    return []


def _fold_versions(session: Session, log_id: int, root: int) -> _Refolded:
    versions = session.execute(
        select(EntryRow.idx, EntryRow.kind, EntryRow.body_fault_code)
        .where(EntryRow.log_id == log_id, EntryRow.root_idx == root, EntryRow.fault_code.is_(None))
        .where(EntryRow.kind.in_(("issue", "amend", "withdraw")))
        .order_by(EntryRow.idx)
    ).all()
    held = stored_bodies.main_parts(session, log_id, [version.idx for version in versions])
    result, previous = _fold_earlier(session, log_id, root)  # previous: the version just before, if held
    for idx, kind, fault_code in versions:
        body = held.get(idx) if fault_code in (None, "inapplicable-amendment") else None
        if kind == "withdraw":
            if previous is not None and result.content_idx == BEFORE:
                result.content_idx = (
                    idx  # nothing newer carries a document: what that log left is what is shown
                )
            if body is not None:
                result.withdrawn_on = parse_main(body).document["body"]["effective_on"]
            continue
        notice = _version(session, log_id, idx, kind, body, previous) if body is not None else None
        if notice is not None:
            result.content, result.content_idx = content_of(notice, body if kind == "issue" else None), idx
        previous = notice
    return result


def _fold_earlier(session: Session, log_id: int, root: int) -> tuple[_Refolded, Notice | None]:
    """What the log before left of a notice that goes on here; nothing for one that was issued here."""
    before = session.execute(
        select(NoticeRow.from_log_id, NoticeRow.from_idx).where(
            NoticeRow.log_id == log_id, NoticeRow.idx == root
        )
    ).one()
    if before.from_log_id is None:
        return _Refolded(), None
    left = _fold_versions(session, before.from_log_id, before.from_idx)
    newest = session.execute(
        select(NoticeRow.document_idx).where(
            NoticeRow.log_id == before.from_log_id, NoticeRow.idx == before.from_idx
        )
    ).scalar_one()
    if left.content is None:
        return _Refolded(), None
    is_current = left.content_idx == newest
    notice = validate_main(orjson.loads(left.content.named()["document"])) if is_current else None
    return _Refolded(left.content, BEFORE), notice


def give_back(db: Database, session: Session, keys: Iterable[lineage.Key]) -> None:
    """Give notices back to the log they stood in, when the statements that moved them are folded again."""
    for log_id, idx in keys:
        row = session.execute(
            update(NoticeRow)
            .where(NoticeRow.log_id == log_id, NoticeRow.idx == idx, NoticeRow.content_state == lineage.MOVED)
            .values(content_state="none")
            .returning(NoticeRow.idx)
        ).one_or_none()
        if row is not None:
            _refold(db, session, log_id, idx, idx, None)


def _version(
    session: Session, log_id: int, idx: int, kind: str | None, content: bytes, previous: Notice | None
) -> Notice | None:
    notice = parse_main(content)
    if kind == "issue":
        return notice
    fault: VerbaleError | None = None
    result: Notice | None = None
    try:
        result = amended(previous.document if previous else None, notice)
    except VerbaleError as error:
        fault = error
    session.execute(
        update(EntryRow)
        .where(EntryRow.log_id == log_id, EntryRow.idx == idx)
        .values(
            body_fault_code=fault.code if fault else None,
            body_fault_detail=str(fault)[:1000] if fault else None,
        )
    )
    return result
