"""The reverse index: stored parties, so that a new notice is one question about them and not a screening of them all.

    with db.write() as session:
        mark = watcher.mark(session)
        …                                     # record notices
        watcher.match(session, mark, now=now, live=live)

Guarantees that a notice and what it means for the portfolios are written in one transaction, as `watchlist.matched` for the
owner of each; that a hit that a person cleared stays quiet until the notice or the party changes, or the clearance is over;
and that nobody's parties are ever merged. Hits are kept whoever may see the notice: the gate decides when they are read and
when they are told.

A crash before the commit leaves neither notice nor hit. Adding a party and recording a notice at the same moment cannot miss
each other: both hold the row of the counter `screened` (see `watchlists.put`).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, delete, exists, or_, select, true

from app.db import execute
from app.domain.errors import VerbaleError
from app.events import Event, emit
from app.models import CounterRow, NoticeRow, ScreenedRow, WatchEntryRow, WatchHitRow, WatchlistRow
from app.queries.filters import SHOWN
from app.screening.explain import explain
from app.screening.features import features, name_score
from app.screening.find import DEFAULT_THRESHOLD, empty_index
from app.screening.normalise import normalise
from app.screening.party import Query
from app.screening.score import Comparer
from app.statements import uuid7

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.screening.explain import Explanation
    from app.screening.index import Index, Indexed
    from app.screening.normalise import Name

SCREENED: Final = "screened"
WATCHED: Final = "watched"
"""Counters: changes of what is screened against, and of portfolios."""

SEEN: Final = "watch-seen"
"""Counter: how far changes of what is screened against were matched. It lags when matching failed, or when notices changed
in another way than by being recorded: a rebuild, a new roster. `Watcher.catch_up` then goes on from there."""

COMPARED: Final = 500
"""Stored parties whose whole entry is compared with one party of a notice, the most alike by name."""
TOLD: Final = 10
"""Stored parties that one event names; how many more there are is said, and the list of hits has them all."""
PAGE: Final = 2000
NEVER: Final = 1 << 60
CLEARED_AT_ONCE: Final = 500
CAUGHT_UP: Final = 200

_EVERYBODY: Final = ("", 0, "ALL")
log = logging.getLogger(__name__)


def score_pair(query: Query, party: Mapping[str, Any]) -> Explanation:
    """How alike a stored party is to a party of a notice: the same score as a screening gives.

    Args:
        party: as `screened_notices` keeps it.
    """
    best = None
    names = [(text, normalise(text, party["schema"])) for text in party["names"]]
    for asked, name in zip(query.names, query.read, strict=True):
        comparer = Comparer(name)
        for text, theirs in names:
            if theirs.tokens:
                agreement = comparer.compare(theirs)
                value = name_score(agreement)
                if agreement.met and (best is None or value > best[0]):
                    best = (value, agreement, asked, text)
    beside = features(query, party["schema"], party["properties"])
    if best is None:
        return explain(None, None, None, beside)
    return explain(best[1], best[2], best[3], beside)


@dataclass(frozen=True, slots=True)
class Matched:
    """A stored party that a notice may be about."""

    entry_id: int
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class _Changed:
    """A notice that changed, as far as matching needs it."""

    seq: int
    log_id: int
    idx: int
    version: int
    leaf: int
    shown: bool
    parties: Sequence[Mapping[str, Any]]


_ANY: Final = select(exists(select(true()).select_from(WatchEntryRow.__table__)))


class Watcher:
    """Follows the portfolios in memory, and matches notices against them. Thread-safe."""

    @cached_property
    def _index(self) -> Index:
        return empty_index()

    def __init__(self, db: Database) -> None:
        """Read nothing yet."""
        self._db = db
        self._lock = threading.Lock()
        self._seq = 0

    def mark(self, session: Session) -> int | None:
        """Where the changes of this transaction begin; None if nobody watches."""
        if not execute(session, _ANY).scalar_one():
            return None
        return _counter(session, SCREENED) or 0

    def match(self, session: Session, mark: int | None, *, now: int, live: bool) -> int:
        """Write what the notices recorded since `mark` mean for the portfolios; returns the number of new hits.

        Args:
            session: the transaction that recorded them.
            now: unix ms.
            live: False for history, which nobody is alerted of; its hits are kept all the same.
        """
        if mark is None:
            return 0
        try:
            # What goes wrong here must not keep a State from speaking: it is undone alone, and tried again.
            with session.begin_nested():
                changes = _changed(session, mark)
                count = self._match(session, changes, now=now, live=live)
                seen = _counter(session, SEEN)
                if changes and (seen is None or seen >= mark):
                    self._set_seen(session, changes[-1].seq)
                return count
        except Exception:
            log.exception("portfolios not matched", extra={"action": "watch_failed"})
            return 0

    def catch_up(self, *, now: int) -> bool:
        """Match changes that nobody has matched yet, some at once; True if there may be more.

        Args:
            now: unix ms.
        """
        with self._db.read() as session:
            if self.mark(session) is None or (_counter(session, SEEN) or 0) >= (
                _counter(session, SCREENED) or 0
            ):
                return False
        with self._db.write() as session:
            self._db.next_values(session, SCREENED, 0)  # nobody records meanwhile
            seen, top = _counter(session, SEEN) or 0, _counter(session, SCREENED) or 0
            changes = _changed(session, seen, limit=CAUGHT_UP)
            self._match(session, changes, now=now, live=True)
            whole = len(changes) < CAUGHT_UP
            self._set_seen(session, top if whole else changes[-1].seq)
        return not whole

    def _set_seen(self, session: Session, seq: int) -> None:
        values = {"name": SEEN, "value": seq}
        session.execute(self._db.upsert(CounterRow.__table__, ["name"], ["value"]).values(values))

    def _match(self, session: Session, changes: Sequence[_Changed], *, now: int, live: bool) -> int:
        count = 0
        told: list[Event] = []
        for changed in changes:
            matched = self._matched(session, changed) if changed.shown else []
            fresh = _write(session, changed, matched, now)
            count += len(fresh)
            told += _events(session, changed, fresh)
        if live:
            emit(self._db, session, told, now=now)
        return count

    def refresh(self) -> int:
        """Read the portfolios, as every match does; returns the number of stored parties."""
        with self._db.read() as session, self._lock:
            self._follow(session)
            return self._index.parties

    def _matched(self, session: Session, changed: _Changed) -> list[Matched]:
        """Every stored party that reaches its list's threshold, with its best party of the notice."""
        with self._lock:
            self._follow(session)
            candidates = [(party, self._candidates(party)) for party in changed.parties]
        wanted = sorted({entry for _, entries in candidates for entry in entries})
        stored: dict[int, tuple[Query, float]] = {}
        for at in range(0, len(wanted), PAGE):
            rows = session.execute(
                select(WatchEntryRow.id, WatchEntryRow.party, WatchlistRow.threshold)
                .join(WatchlistRow, WatchlistRow.id == WatchEntryRow.watchlist_id)
                .where(WatchEntryRow.id.in_(wanted[at : at + PAGE]))
            )
            for id_, text, threshold in rows:
                least = DEFAULT_THRESHOLD if threshold is None else threshold
                query = stored_query(id_, text)
                if query is not None:
                    stored[id_] = (query, least)
        best: dict[int, Matched] = {}
        for party, entries in candidates:
            for entry in entries:
                if entry not in stored:  # deleted since
                    continue
                asked, least = stored[entry]
                score = score_pair(asked, party).score
                if score >= least and (entry not in best or score > best[entry].score):
                    best[entry] = Matched(entry, party["pos"], score)
        return sorted(best.values(), key=lambda m: (-m.score, m.entry_id))

    def _candidates(self, party: Mapping[str, Any]) -> list[int]:
        index = self._index
        names: list[Name] = [normalise(text, party["schema"]) for text in party["names"]]
        identifiers = [value for values in _identifiers(party) for value in values]
        everybody = [True] * len(index.gates)
        visible = index.visible(everybody, statuses=(1,), now=0)
        # One more than are compared, to know whether there are more.
        found = index.search(
            [n for n in names if n.tokens], identifiers, visible, everybody, most=COMPARED + 1
        )
        named = sorted(
            ((name_score(f.agreement), f.party) for f in found if f.agreement is not None), reverse=True
        )
        if len(named) > COMPARED:
            log.warning(
                "not every stored party compared", extra={"action": "watch_capped", "count": len(named)}
            )
        parties = [f.party for f in found if f.agreement is None] + [p for _, p in named[:COMPARED]]
        return [entry for _, entry, _ in index.keys_of(parties)]

    def _follow(self, session: Session) -> None:
        """Read the portfolios' changes. What was deleted stays until the next start, and is dropped when it is looked up."""
        loading = self._seq == 0
        while True:
            rows = session.execute(
                select(WatchEntryRow.seq, WatchEntryRow.id, WatchEntryRow.party)
                .where(WatchEntryRow.seq > self._seq)
                .order_by(WatchEntryRow.seq)
                .limit(PAGE)
            ).all()
            for seq, id_, party in rows:
                if not loading:
                    self._index.remove(0, id_)
                self._seq = seq
                query = stored_query(id_, party)
                if query is not None:
                    self._index.add(_indexed(id_, query))
            if len(rows) < PAGE:
                break
        if loading and self._seq:
            self._index.sort()


def _counter(session: Session, name: str) -> int | None:
    return session.execute(select(CounterRow.value).where(CounterRow.name == name)).scalar_one_or_none()


def stored_query(entry_id: int, party: str) -> Query | None:
    """A stored party; None for one that this version cannot read, which must not hide the others."""
    try:
        return Query.parse(orjson.loads(party), stored=True)
    except (VerbaleError, ValueError):
        log.exception(
            "stored party not readable", extra={"action": "watch_entry_unreadable", "entry": entry_id}
        )
        return None


def _indexed(entry_id: int, query: Query) -> Indexed:
    identifiers = tuple(value for _, value in query.identifiers)
    from app.screening.index import Indexed  # noqa: PLC0415 - see `empty_index`

    return Indexed(0, entry_id, 0, _EVERYBODY, 1, NEVER, query.read, identifiers)


def _identifiers(party: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    from app.projections.screened import IDENTIFIER_PROPERTIES  # noqa: PLC0415 - one use

    return (party["properties"].get(name, ()) for name in IDENTIFIER_PROPERTIES)


def _changed(session: Session, mark: int, limit: int | None = None) -> list[_Changed]:
    rows = session.execute(
        select(
            ScreenedRow.seq,
            ScreenedRow.log_id,
            ScreenedRow.idx,
            ScreenedRow.parties,
            NoticeRow.version,
            NoticeRow.current_idx,
            NoticeRow.status,
            NoticeRow.content_state,
        )
        .join(NoticeRow, and_(NoticeRow.log_id == ScreenedRow.log_id, NoticeRow.idx == ScreenedRow.idx))
        .where(ScreenedRow.seq > mark)
        .order_by(ScreenedRow.seq)
        .limit(limit)
    ).all()
    return [
        _Changed(
            row.seq,
            row.log_id,
            row.idx,
            row.version,
            row.current_idx,
            row.status == "active" and row.content_state in SHOWN and row.parties is not None,
            orjson.loads(row.parties) if row.parties else (),
        )
        for row in rows
    ]


def _write(session: Session, changed: _Changed, matched: Sequence[Matched], now: int) -> list[Matched]:
    """Bring the notice's hits up to date; returns those that are to be heard of, the most alike first."""
    of_notice = and_(WatchHitRow.log_id == changed.log_id, WatchHitRow.idx == changed.idx)
    if not changed.shown:
        if not changed.parties:  # erased, or not this State's any more: nothing of it is left here either
            session.execute(delete(WatchHitRow).where(of_notice))
        return []
    known = {row.entry_id: row for row in session.scalars(select(WatchHitRow).where(of_notice))}
    now_matched = {m.entry_id for m in matched}
    for entry, row in known.items():
        if entry not in now_matched:
            session.delete(row)
    fresh = []
    versions = _entry_versions(session, now_matched)
    for match in matched:
        hit = known.get(match.entry_id)
        version = versions[match.entry_id]
        if hit is not None and (hit.notice_version, hit.entry_version) == (changed.version, version):
            continue  # another process has just said the same
        if hit is None:
            hit = WatchHitRow(id=uuid7(now), entry_id=match.entry_id, log_id=changed.log_id, idx=changed.idx)
            session.add(hit)
        _renew(hit, match, notice_version=changed.version, entry_version=version, now=now)
        fresh.append(match)
    session.flush()
    return fresh


def _entry_versions(session: Session, ids: Iterable[int]) -> dict[int, int]:
    wanted = sorted(ids)
    found: dict[int, int] = {}
    for at in range(0, len(wanted), PAGE):
        rows = session.execute(
            select(WatchEntryRow.id, WatchEntryRow.version).where(
                WatchEntryRow.id.in_(wanted[at : at + PAGE])
            )
        )
        found |= {row[0]: row[1] for row in rows}
    return found


def _renew(hit: WatchHitRow, match: Matched, *, notice_version: int, entry_version: int, now: int) -> None:
    """A new version of either side is heard again, whatever was decided about the one before."""
    hit.position, hit.score = match.position, match.score
    hit.notice_version, hit.entry_version, hit.matched_at = notice_version, entry_version, now
    hit.cleared_by = hit.cleared_reason = hit.cleared_at = hit.cleared_until = None


def _events(
    session: Session, changed: _Changed, fresh: Sequence[Matched], *, why: str = "notice"
) -> list[Event]:
    """One event for each portfolio, for the token that it belongs to."""
    if not fresh:
        return []
    rows = session.execute(
        select(WatchEntryRow.id, WatchEntryRow.ref, WatchlistRow.id, WatchlistRow.token_id)
        .join(WatchlistRow, WatchlistRow.id == WatchEntryRow.watchlist_id)
        .where(WatchEntryRow.id.in_([m.entry_id for m in fresh]))
    )
    of_entry = {entry: (ref, watchlist, token) for entry, ref, watchlist, token in rows}
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for match in fresh:
        ref, watchlist, token = of_entry[match.entry_id]
        told = {"ref": ref, "position": match.position, "score": round(match.score, 4)}
        grouped.setdefault((watchlist, token), []).append(told)
    return [
        Event(
            "watchlist.matched",
            changed.log_id,
            changed.leaf,
            changed.idx,
            detail={
                "watchlist": watchlist,
                "why": why,
                "entries": entries[:TOLD],
                "more": max(0, len(entries) - TOLD),
            },
            owner=token,
        )
        for (watchlist, token), entries in grouped.items()
    ]


def begin_watch(db: Database, session: Session) -> None:
    """Where matching begins when the first party is put in: what was there before is found by screening that party."""
    if not session.execute(select(exists(select(true()).select_from(WatchEntryRow)))).scalar_one():
        values = {"name": SEEN, "value": _counter(session, SCREENED) or 0}
        session.execute(db.upsert(CounterRow.__table__, ["name"], ["value"]).values(values))


def watch_step(watcher: Watcher, db: Database, *, now: int) -> bool:
    """What the clock and a fault have left to do for portfolios; True if there may be more."""
    return watcher.catch_up(now=now) or reopen_step(db, now=now)


def reopen_step(db: Database, *, now: int) -> bool:
    """End clearances whose time is over, and tell so, once; True if there may be more.

    Args:
        now: unix ms.
    """
    over = or_(WatchHitRow.cleared_until.is_(None), WatchHitRow.cleared_until > now)
    with db.read() as session:
        if not session.execute(
            select(exists(select(true()).where(~over, WatchHitRow.cleared_at.is_not(None))))
        ).scalar_one():
            return False
    with db.write() as session:
        rows = session.execute(
            select(WatchHitRow, NoticeRow)
            .join(NoticeRow, and_(NoticeRow.log_id == WatchHitRow.log_id, NoticeRow.idx == WatchHitRow.idx))
            .where(WatchHitRow.cleared_at.is_not(None), ~over)
            .limit(CLEARED_AT_ONCE)
            .with_for_update(of=WatchHitRow, **db.skip_locked())
        ).all()
        told: list[Event] = []
        for hit, notice in rows:
            hit.cleared_by = hit.cleared_reason = hit.cleared_at = hit.cleared_until = None
            if notice.status == "active" and notice.content_state in SHOWN:
                changed = _Changed(0, hit.log_id, hit.idx, notice.version, notice.current_idx, True, ())
                match = Matched(hit.entry_id, hit.position, hit.score)
                told += _events(session, changed, [match], why="clearance-over")
        session.flush()
        emit(db, session, told, now=now)
    return len(rows) == CLEARED_AT_ONCE


def write_hits(
    session: Session,
    entry: WatchEntryRow,
    found: Iterable[tuple[tuple[int, int], int, float, int]],
    *,
    now: int,
) -> None:
    """Keep what screening found for a stored party: (notice, position, score, notice's version). Tells nobody: they asked."""
    known = {
        (row.log_id, row.idx): row
        for row in session.scalars(select(WatchHitRow).where(WatchHitRow.entry_id == entry.id))
    }
    for (log_id, idx), position, score, version in found:
        hit = known.get((log_id, idx))
        if hit is not None and (hit.notice_version, hit.entry_version) == (version, entry.version):
            continue
        if hit is None:
            hit = WatchHitRow(id=uuid7(now), entry_id=entry.id, log_id=log_id, idx=idx)
            session.add(hit)
        match = Matched(entry.id, position, score)
        _renew(hit, match, notice_version=version, entry_version=entry.version, now=now)
    session.flush()


def forget_entries(session: Session, condition: Any) -> None:  # noqa: ANN401 - an SQL condition on watch_entries
    """Delete stored parties with their hits, for good."""
    ids = select(WatchEntryRow.id).where(condition)
    session.execute(delete(WatchHitRow).where(WatchHitRow.entry_id.in_(ids)))
    session.execute(delete(WatchEntryRow).where(condition))
