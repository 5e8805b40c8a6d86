"""Watch-lists: stored portfolios of a token's parties, what was found for them, and what a person decided.

Guarantees that a token meets only its own lists; that a hit is shown only if its notice may be seen today, in lists and in
counts; and that a clearance names who decided, why, and until when. A party that changes is a new version: what was cleared
for the old one is heard again.

A party is stored first and screened afterwards, in transactions of their own, since a screening takes longer than others may be
kept waiting. A crash in between leaves a party whose `screened` is not its `version`: it is screened when it is put in again, and
by the node's own loop if it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, delete, func, or_, select

from app.domain.errors import Conflict, InvalidCursor, InvalidFilter, MalformedRequest, NotFound
from app.gate import operator, visible
from app.models import NoticeRow, WatchEntryRow, WatchHitRow, WatchlistRow
from app.queries.filters import SHOWN, is_active
from app.queries.notices import rfc3339
from app.screening.answering import party_wire
from app.screening.application import ANY_SCHEMA, Asked
from app.screening.denials import load
from app.screening.watch import SCREENED, WATCHED, begin_watch, forget_entries, stored_query, write_hits
from app.statements import uuid7

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Principal
    from app.screening.answering import Finder, Match
    from app.screening.denials import DenialView

MAX_LISTS: Final = 100
MAX_ENTRIES: Final = 200_000
"""Of one token: each costs about a kilobyte of memory while the node runs."""
SCREENED_AT_ONCE: Final = 50
"""Stored parties whose screening is kept in one transaction."""
LEFT_MS: Final = 60_000
"""A party that was put in so long ago and is not screened was left so by a crash, or by a fault."""
MAX_FOUND: Final = 500
"""Notices kept for one stored party when it is put in; newer ones add to them."""
LONGEST_CLEARANCE_MS: Final = 3 * 366 * 86_400_000
"""A denial is reviewed after three years, and so is a clearance."""


class WatchlistFull(Conflict):
    """The token has as many lists or parties as this node lets one have."""

    code = "watchlist-full"


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def create(session: Session, token: str, *, name: str, threshold: float | None, now: int) -> WatchlistRow:
    """Make a list.

    Raises:
        WatchlistFull, MalformedRequest
    """
    count = session.scalar(select(func.count()).where(WatchlistRow.token_id == token)) or 0
    if count >= MAX_LISTS:
        raise WatchlistFull(
            f"This token has {count} watch-lists, the most a token may have. Delete one first."
        )
    row = WatchlistRow(
        id=uuid7(now), token_id=token, name=_name(name), threshold=_threshold(threshold), created_at=now
    )
    session.add(row)
    session.flush()
    return row


def _name(name: str) -> str:
    if not 0 < len(name.strip()) <= 200:  # noqa: PLR2004
        raise MalformedRequest("A watch-list has a name of 1 to 200 characters.")
    return name.strip()


def _threshold(threshold: float | None) -> float | None:
    if threshold is not None and not 0 < threshold <= 1:
        raise MalformedRequest("threshold is a score above 0 and at most 1.")
    return threshold


def listed(session: Session, token: str) -> Sequence[WatchlistRow]:
    """The token's lists, oldest first."""
    return session.scalars(
        select(WatchlistRow).where(WatchlistRow.token_id == token).order_by(WatchlistRow.id)
    ).all()


def owned(session: Session, token: str, watchlist_id: str) -> WatchlistRow:
    """One list of the token.

    Raises:
        NotFound: there is none, or it is another token's.
    """
    row = session.get(WatchlistRow, watchlist_id)
    if row is None or row.token_id != token:
        raise NotFound("This token has no such watch-list.")
    return row


def change(row: WatchlistRow, changes: dict[str, Any]) -> None:
    """Change name or threshold. Another threshold counts for what is matched from now on."""
    if "name" in changes:
        row.name = _name(changes["name"])
    if "threshold" in changes:
        row.threshold = _threshold(changes["threshold"])


def remove(session: Session, token: str, watchlist_id: str) -> None:
    """Delete a list with its parties and hits, for good.

    Raises:
        NotFound
    """
    row = owned(session, token, watchlist_id)
    forget_entries(session, WatchEntryRow.watchlist_id == row.id)
    session.delete(row)


def wire(session: Session, row: WatchlistRow) -> dict[str, Any]:
    """The JSON object of the API."""
    count = session.scalar(select(func.count()).where(WatchEntryRow.watchlist_id == row.id)) or 0
    return {
        "id": row.id,
        "name": row.name,
        "threshold": row.threshold,
        "created_at": rfc3339(row.created_at),
        "entries": count,
    }


# ── parties ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Put:
    """What became of one party: `created`, `changed`, or neither, because it was there like that.

    It is screened if its `version` was not, whether it changed now or not.
    """

    entry_id: int
    ref: str
    version: int
    created: bool
    changed: bool
    screened: bool = False


def put(
    db: Database, session: Session, row: WatchlistRow, parties: Sequence[tuple[str, Asked]], *, now: int
) -> list[Put]:
    """Put parties in, or others in their place, by the caller's own ids.

    Raises:
        WatchlistFull
    """
    # A notice that is being recorded holds this row until it is committed, and then matches against what it can see. So
    # either it sees these parties, or the screening that follows sees the notice. SQLite has one writer anyway.
    db.next_values(session, SCREENED, 0)
    begin_watch(db, session)
    known = {
        entry.ref: entry
        for entry in session.scalars(
            select(WatchEntryRow).where(
                WatchEntryRow.watchlist_id == row.id, WatchEntryRow.ref.in_([ref for ref, _ in parties])
            )
        )
    }
    _check_room(session, row.token_id, len({ref for ref, _ in parties} - known.keys()))
    numbers = iter(range(first := db.next_values(session, WATCHED, len(parties)), first + len(parties)))
    made: list[Put] = []
    for ref, asked in parties:
        number = next(numbers)
        party = _stored(asked)
        entry = known.get(ref)
        if entry is None:
            entry = known[ref] = WatchEntryRow(
                id=number,
                watchlist_id=row.id,
                ref=ref,
                seq=number,
                version=1,
                screened=0,
                party=party,
                changed_at=now,
            )
            session.add(entry)
            made.append(Put(entry.id, ref, entry.version, created=True, changed=True))
        elif entry.party != party:
            entry.seq, entry.version, entry.party, entry.changed_at = number, entry.version + 1, party, now
            session.execute(delete(WatchHitRow).where(WatchHitRow.entry_id == entry.id))
            made.append(Put(entry.id, ref, entry.version, created=False, changed=True))
        else:
            screened = entry.screened == entry.version
            made.append(Put(entry.id, ref, entry.version, created=False, changed=False, screened=screened))
    session.flush()
    return made


def _check_room(session: Session, token: str, more: int) -> None:
    count = (
        session.scalar(
            select(func.count())
            .select_from(WatchEntryRow)
            .join(WatchlistRow, WatchlistRow.id == WatchEntryRow.watchlist_id)
            .where(WatchlistRow.token_id == token)
        )
        or 0
    )
    if count + more > MAX_ENTRIES:
        raise WatchlistFull(f"This token may store {MAX_ENTRIES} parties and has {count}.")


def _stored(asked: Asked) -> str:
    properties = {name: list(values) for name, values in asked.properties.items()}
    return orjson.dumps({"schema": asked.schema or ANY_SCHEMA, "properties": properties}).decode()


def _asked(entry_id: int, party: str) -> Asked | None:
    query = stored_query(entry_id, party)
    if query is None:
        return None
    stored = orjson.loads(party)
    properties = {name: tuple(values) for name, values in stored["properties"].items()}
    return Asked("", None, None, stored["schema"], properties, query)


def screen_put(
    db: Database, finder: Finder, state: str, parties: Sequence[tuple[Put, Asked]], *, now: int
) -> None:
    """Screen parties that were just put in, after their transaction, and keep what was found.

    It asks as the operator: whether a hit may be seen is asked when it is read, of whoever reads it then.
    """
    # Of a party that stands twice in one call, the last is the one that is kept.
    due = list({put.entry_id: (put, asked) for put, asked in parties if not put.screened}.values())
    for at in range(0, len(due), SCREENED_AT_ONCE):
        _screen(
            db, finder, state, [(p.entry_id, p.version, a) for p, a in due[at : at + SCREENED_AT_ONCE]], now
        )


def screen_left(db: Database, finder: Finder, state: str, *, now: int) -> bool:
    """Screen parties that were stored and whose screening a crash prevented, some at once; True if there may be more.

    Args:
        now: unix ms.
    """
    left: list[_Due] = []
    after: int | None = -1
    while after is not None and not left:  # one that cannot be read hides no other
        with db.read() as session:
            rows = session.execute(
                select(WatchEntryRow.id, WatchEntryRow.version, WatchEntryRow.party)
                .where(WatchEntryRow.screened != WatchEntryRow.version)
                .where(WatchEntryRow.changed_at < now - LEFT_MS, WatchEntryRow.id > after)
                .order_by(WatchEntryRow.id)
                .limit(SCREENED_AT_ONCE)
            ).all()
        after = rows[-1].id if len(rows) == SCREENED_AT_ONCE else None
        for id_, version, party in rows:
            if (asked := _asked(id_, party)) is not None:
                left.append((id_, version, asked))
    if left:
        _screen(db, finder, state, left, now)
    return after is not None


_Due = tuple[int, int, Asked]
"""A stored party that is to be screened: its id, the version that was read, and what it says."""


def _screen(db: Database, finder: Finder, state: str, due: Sequence[_Due], now: int) -> None:
    """Screen stored parties, and keep what is found for them.

    What a crash leaves behind is screened again: until the commit `screened` says that it was not.
    """
    everything = operator(state)
    ids = [id_ for id_, _, _ in due]
    with db.read() as session:
        of_list = select(WatchEntryRow.id, WatchlistRow.threshold).join(
            WatchlistRow, WatchlistRow.id == WatchEntryRow.watchlist_id
        )
        least = dict(session.execute(of_list.where(WatchEntryRow.id.in_(ids))).all())
        found = {
            id_: finder.find(
                everything, asked, limit=MAX_FOUND, threshold=least[id_], now_ms=now, session=session
            ).matches
            for id_, _, asked in due
            if id_ in least
        }
    with db.write() as session:
        db.next_values(session, SCREENED, 0)  # a notice that is being recorded may be writing the same hits
        of_ids = select(WatchEntryRow).where(WatchEntryRow.id.in_(ids)).with_for_update()
        rows = {row.id: row for row in session.scalars(of_ids)}
        for id_, version, _ in due:
            entry = rows.get(id_)
            if (
                entry is None or entry.version != version
            ):  # deleted or changed meanwhile: whoever did, screens it
                continue
            matches: Sequence[Match] = found.get(id_, ())
            views = load(session, everything, {m.key for m in matches}, now_ms=now) if matches else {}
            best: dict[tuple[int, int], tuple[tuple[int, int], int, float, int]] = {}
            for m in matches:
                if m.key in views and (m.key not in best or m.score > best[m.key][2]):
                    best[m.key] = (m.key, m.position, m.score, views[m.key].version)
            write_hits(session, entry, best.values(), now=now)
            entry.screened = version


def entry_of(session: Session, row: WatchlistRow, ref: str) -> WatchEntryRow:
    """One stored party.

    Raises:
        NotFound
    """
    entry = session.scalars(
        select(WatchEntryRow).where(WatchEntryRow.watchlist_id == row.id, WatchEntryRow.ref == ref)
    ).one_or_none()
    if entry is None:
        raise NotFound("This watch-list has no such party.")
    return entry


def entries(
    session: Session, row: WatchlistRow, *, limit: int, cursor: str | None
) -> tuple[Sequence[WatchEntryRow], str | None]:
    """A page of stored parties, by the caller's ids, and the cursor of the next."""
    query = (
        select(WatchEntryRow)
        .where(WatchEntryRow.watchlist_id == row.id)
        .order_by(WatchEntryRow.ref)
        .limit(limit + 1)
    )
    if cursor is not None:
        query = query.where(WatchEntryRow.ref > cursor)
    found = session.scalars(query).all()
    return found[:limit], found[limit - 1].ref if len(found) > limit else None


def entry_wire(entry: WatchEntryRow) -> dict[str, Any]:
    """The JSON object of the API."""
    return {
        "ref": entry.ref,
        "version": entry.version,
        "changed_at": rfc3339(entry.changed_at),
        "party": orjson.loads(entry.party),
    }


def forget(session: Session, row: WatchlistRow, ref: str) -> None:
    """Delete a stored party with its hits, for good.

    Raises:
        NotFound
    """
    entry = entry_of(session, row, ref)
    forget_entries(session, WatchEntryRow.id == entry.id)


# ── hits ──────────────────────────────────────────────────────────────────────────────────────────────────────────

STATES: Final = ("open", "cleared", "all")


def hits(
    session: Session,
    principal: Principal,
    row: WatchlistRow,
    *,
    state: str,
    limit: int,
    cursor: str | None,
    now: int,
    ref: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of hits whose notices are valid and may be seen, newest first, and the cursor of the next.

    Args:
        ref: of one stored party alone.

    Raises:
        InvalidFilter, InvalidCursor
    """
    if state not in STATES:
        raise InvalidFilter(f"state is one of {', '.join(STATES)}.")
    query = (
        select(WatchHitRow, WatchEntryRow.ref)
        .join(WatchEntryRow, WatchEntryRow.id == WatchHitRow.entry_id)
        .join(NoticeRow, and_(NoticeRow.log_id == WatchHitRow.log_id, NoticeRow.idx == WatchHitRow.idx))
        .where(
            WatchEntryRow.watchlist_id == row.id,
            visible(principal),
            NoticeRow.content_state.in_(SHOWN),
            is_active(now),
        )
        .order_by(WatchHitRow.id.desc())
        .limit(limit + 1)
    )
    quiet = WatchHitRow.cleared_until > now
    if state == "open":
        query = query.where(or_(WatchHitRow.cleared_until.is_(None), ~quiet))
    elif state == "cleared":
        query = query.where(quiet)
    if ref is not None:
        query = query.where(WatchEntryRow.ref == ref)
    if cursor is not None:
        if len(cursor) != 36:  # noqa: PLR2004
            raise InvalidCursor("This cursor is not one of this list's. Start again without it.")
        query = query.where(WatchHitRow.id < cursor)
    found = session.execute(query).all()
    keys = {(hit.log_id, hit.idx) for hit, _ in found[:limit]}
    views = load(session, principal, keys, now_ms=now)
    items = [
        _hit_wire(hit, ref, views[hit.log_id, hit.idx], now)
        for hit, ref in found[:limit]
        if (hit.log_id, hit.idx) in views
    ]
    return items, found[limit - 1][0].id if len(found) > limit else None


def _hit_wire(hit: WatchHitRow, ref: str, view: DenialView, now: int) -> dict[str, Any]:
    quiet = hit.cleared_until is not None and hit.cleared_until > now
    clearance = None
    if quiet and hit.cleared_at is not None and hit.cleared_until is not None:
        clearance = {
            "by": hit.cleared_by,
            "reason": hit.cleared_reason,
            "at": rfc3339(hit.cleared_at),
            "until": rfc3339(hit.cleared_until),
        }
    return {
        "id": hit.id,
        "ref": ref,
        "state": "cleared" if quiet else "open",
        "score": round(hit.score, 4),
        "matched_at": rfc3339(hit.matched_at),
        "entry_version": hit.entry_version,
        "notice_version": hit.notice_version,
        "notice": view.wire(),
        "party": party_wire(view, hit.position),
        "clearance": clearance,
    }


def hit_of(
    session: Session, principal: Principal, row: WatchlistRow, hit_id: str, *, now: int
) -> tuple[WatchHitRow, str, DenialView]:
    """One hit of a list.

    Raises:
        NotFound: there is none, or its notice may not be seen.
    """
    found = session.execute(
        select(WatchHitRow, WatchEntryRow.ref)
        .join(WatchEntryRow, WatchEntryRow.id == WatchHitRow.entry_id)
        .where(WatchEntryRow.watchlist_id == row.id, WatchHitRow.id == hit_id)
    ).one_or_none()
    if found is not None:
        hit, ref = found
        view = load(session, principal, [(hit.log_id, hit.idx)], now_ms=now).get((hit.log_id, hit.idx))
        if view is not None:
            return hit, ref, view
    raise NotFound("This watch-list has no such hit.")


def clear(
    session: Session,
    principal: Principal,
    row: WatchlistRow,
    hit_id: str,
    *,
    by: str,
    reason: str,
    until: int,
    now: int,
) -> dict[str, Any]:
    """Keep a hit quiet until a time, or until the notice or the party changes.

    Args:
        by: the person who decided.
        until: unix ms.

    Raises:
        NotFound, MalformedRequest
    """
    if not now < until <= now + LONGEST_CLEARANCE_MS:
        raise MalformedRequest("A clearance ends in the future, and within three years.")
    hit, ref, view = hit_of(session, principal, row, hit_id, now=now)
    hit.cleared_by, hit.cleared_reason, hit.cleared_at, hit.cleared_until = by, reason, now, until
    session.flush()
    return _hit_wire(hit, ref, view, now)


def reopen(
    session: Session, principal: Principal, row: WatchlistRow, hit_id: str, *, now: int
) -> dict[str, Any]:
    """Take a clearance back.

    Raises:
        NotFound
    """
    hit, ref, view = hit_of(session, principal, row, hit_id, now=now)
    hit.cleared_by = hit.cleared_reason = hit.cleared_at = hit.cleared_until = None
    session.flush()
    return _hit_wire(hit, ref, view, now)
