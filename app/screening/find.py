"""Screening at a node: what the caller may see of the notices that a party is alike to, best first, with reasons.

Guarantees that an answer is of one state of the database that is at least as new as the call, that whatever the gate hides
had no part in it, neither in a hit nor in a count, a score or what was left out, and that it depends on nothing but the
query, the caller's rights, the visible notices and `now`. Nothing of a query is kept.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import IO, TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import and_, bindparam, or_, select

from app.db import fetch
from app.domain.errors import InvalidFilter
from app.gate import may_read, visible
from app.models import CounterRow, LogRow, NoticeRow, ScreenedRow
from app.projections.screened import IDENTIFIER_PROPERTIES
from app.queries.filters import SHOWN, day_of
from app.screening.denials import among, by_log, is_shown
from app.screening.explain import Explanation, explain
from app.screening.features import at_most, features, most_odds, name_score, schema_odds
from app.screening.normalise import normalise
from app.screening.score import Comparer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.gate import Principal
    from app.screening.denials import Shape
    from app.screening.index import Index, Indexed
    from app.screening.normalise import Name
    from app.screening.party import Query

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 500
DEFAULT_THRESHOLD: Final = 0.7
RESCORED: Final = 100
"""Parties whose whole entry may be read for one query: what is beside the name may reorder as many."""
READ_AT_ONCE: Final = 16
"""Parties that are read in one go, best first, until no further one can be among the hits."""
PAGE: Final = 2000
NEVER: Final = 1 << 60
_ACTIVE, _WITHDRAWN, _HIDDEN = 1, 2, 0
_DAY_S: Final = 86_400

Key = tuple[int, int, int]
"""Log, index of the notice, and position of the party in it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One party of one notice that the query is alike to.

    Attributes:
        log_id, root_idx: the notice's key at this node; `id` and `origin` are the same everywhere.
        position, role, schema, caption: the party's place among those of the notice, and what it is.
        status: active, expired or withdrawn.
        is_match: whether the score reaches the threshold asked for.
    """

    log_id: int
    root_idx: int
    id: str
    origin: str
    issuer: str
    type: str
    title: str
    status: str
    denied_on: str | None
    valid_until: str | None
    position: int
    role: str
    schema: str
    caption: str
    score: float
    is_match: bool
    explanation: Explanation

    def to_json(self) -> dict[str, Any]:
        """A stable shape, see docs/screening.md."""
        return {
            "notice": {
                "id": self.id,
                "origin": self.origin,
                "issuer": self.issuer,
                "type": self.type,
                "title": self.title,
                "status": self.status,
                "denied_on": self.denied_on,
                "valid_until": self.valid_until,
                "links": {"self": f"/v1/notices/{self.id}", "proof": f"/v1/notices/{self.id}/proof"},
            },
            "party": {
                "position": self.position,
                "role": self.role,
                "schema": self.schema,
                "caption": self.caption,
            },
            "score": round(self.score, 4),
            "match": self.is_match,
            "explanation": self.explanation.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Screening:
    """The answer to one query.

    Attributes:
        hits: best first, at most `limit`, those below the threshold included and marked.
        matches: how many parties reach the threshold, those beyond the limit included.
        seq: the last change of notices it has seen.
    """

    hits: tuple[Hit, ...]
    matches: int
    threshold: float
    seq: int

    def to_json(self) -> dict[str, Any]:
        """A stable shape, see docs/screening.md."""
        return {
            "hits": [hit.to_json() for hit in self.hits],
            "matches": self.matches,
            "threshold": self.threshold,
        }


def empty_index(directory: Path | None = None) -> Index:
    """An index of nothing, in memory, or mapped from files in a folder.

    Its module brings numpy: a node that nobody asks to screen does without those megabytes.
    """
    from app.screening.arrays import Mapped, Store  # noqa: PLC0415
    from app.screening.index import Index  # noqa: PLC0415

    return Index(Store() if directory is None else Mapped(directory))


class Screener:
    """Answers queries from an index that follows the database. Thread-safe.

    Args:
        directory: where the index lies, in files without a name; None: in memory.
    """

    @cached_property
    def _index(self) -> Index:
        return empty_index(self._directory)

    def __init__(self, db: Database, directory: Path | None = None) -> None:
        """Read nothing yet: the first query, or `refresh`, loads the index."""
        self._db, self._directory = db, directory
        self._lock = threading.RLock()
        self._seq = 0
        self._epoch = -1

    def screen(
        self,
        caller: Principal,
        query: Query,
        *,
        now: int,
        limit: int = DEFAULT_LIMIT,
        threshold: float = DEFAULT_THRESHOLD,
        include_inactive: bool = False,
        session: Session | None = None,
        matches_only: bool = False,
    ) -> Screening:
        """Whom the query is alike to.

        Args:
            now: unix ms.
            include_inactive: withdrawn and expired notices too.
            matches_only: those below the threshold are not wanted, but for the best if none reaches it.
            session: a snapshot to answer from, which the index is brought up to once; None takes one of its own.

        Raises:
            InvalidFilter: a limit or a threshold out of range.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter(f"limit is a whole number from 1 to {MAX_LIMIT}.")
        if not 0 <= threshold <= 1:
            raise InvalidFilter("threshold is a number from 0 to 1.")
        with nullcontext(session) if session is not None else self._db.read() as snapshot:
            comparers = [Comparer(name) for name in query.read]
            with self._lock:
                self._follow_once(snapshot)
                found = self._search(caller, query, comparers, now, include_inactive=include_inactive)
                seq = self._seq
                self._index.rest()
            reading = _Reading(
                snapshot, caller, query, comparers, now, threshold, include_inactive=include_inactive
            )
            read = reading.best(found, 1 if matches_only else limit, matches_only=matches_only)
        matches = sum(one.score >= threshold for one in read)
        return Screening(tuple(one.hit(threshold) for one in read[:limit]), matches, threshold, seq)

    def foresee(self, caller: Principal, queries: Sequence[Query], session: Session) -> None:
        """Make ready for several queries that `screen` is asked one after another with this session: a tenth less work."""
        with self._lock:
            self._follow_once(session)
            names = [name for query in queries for name in query.read]
            self._index.foresee(names, self._gates(caller))

    @property
    def held(self) -> int:
        """Parties in memory now."""
        return self._index.parties if self._seq else 0

    def refresh(self) -> int:
        """Bring the index up to date, as every query does; returns the number of parties in it."""
        with self._db.read() as session, self._lock:
            self._follow(session)
            return self._index.parties

    def dump(self, file: IO[bytes]) -> None:
        """Write a copy of the index, brought up to date, for `restore` in another process of this node. It holds names."""
        from app.screening import arrays  # noqa: PLC0415 - see `empty_index`

        with self._db.read() as session, self._lock:
            self._follow(session)
            arrays.dump((self._epoch, self._seq, self._index), file)

    def restore(self, file: IO[bytes]) -> None:
        """Go on from a copy that `dump` wrote; what has changed since is read from the database."""
        from app.screening import arrays  # noqa: PLC0415 - see `empty_index`

        with self._lock:
            self._epoch, self._seq, self._index = arrays.restore(file)

    # ── following the database ────────────────────────────────────────────────────────────────────────────────────

    def _follow_once(self, session: Session) -> None:
        """Bring the index up to a snapshot, which does not change."""
        if session.info.get(self) is None:
            self._follow(session)
            session.info[self] = self._seq

    def _follow(self, session: Session) -> None:
        counters = {row.name: row.value for row in fetch(session, _COUNTED)}
        seq, epoch = counters.get("screened", 0), counters.get("screened-epoch", 0)
        if epoch != self._epoch or seq < self._seq:
            self._index, self._seq, self._epoch = empty_index(self._directory), 0, epoch
        loading = self._seq == 0
        while self._seq < seq:
            rows = fetch(session, _CHANGED, seen=self._seq)
            for row in rows:
                if not loading:
                    self._index.remove(row.log_id, row.idx)
                if row.parties is not None:
                    for party in _indexed(row):
                        self._index.add(party)
            # Numbers without a row belong to rows that have changed again since.
            self._seq = rows[-1].seq if len(rows) == PAGE else max(seq, rows[-1].seq if rows else 0)
        if loading:
            self._index.sort()

    def _gates(self, caller: Principal) -> list[bool]:
        """Which gates of the index are open to a caller."""
        return [
            may_read(caller, issuer=issuer, tlp_rank=rank, audience=who)
            for issuer, rank, who in self._index.gates
        ]

    def _search(
        self,
        caller: Principal,
        query: Query,
        comparers: Sequence[Comparer],
        now: int,
        *,
        include_inactive: bool,
    ) -> list[tuple[float, Key]]:
        """What is worth reading: the most that its score may be, and its key; best first."""
        index, gates = self._index, self._gates(caller)
        statuses = (_ACTIVE, _WITHDRAWN) if include_inactive else (_ACTIVE,)
        who = index.visible(gates, statuses=statuses, now=-NEVER if include_inactive else now // 1000)
        identifiers = [value for _, value in query.identifiers]
        of_schema = schema_odds(query.schema)
        found = index.search(query.read, identifiers, who, gates, schema_odds=of_schema, comparers=comparers)
        parties = [f.party for f in found]
        odds = of_schema[index.schemas_of(parties)].tolist()
        beside = most_odds(query)
        decided: list[tuple[float, Key]] = []
        named: list[tuple[float, Key]] = []
        for f, key, own in zip(found, index.keys_of(parties), odds, strict=True):
            if f.by_identifier:
                decided.append((1.0, key))
            elif f.agreement is not None:
                named.append((-at_most(f.score, own, beside), key))
        named.sort()
        return decided + [(-most, key) for most, key in named[:RESCORED]]


_COUNTERS: Final = CounterRow.__table__.c
_COUNTED: Final = select(_COUNTERS.name, _COUNTERS.value).where(
    or_(_COUNTERS.name == "screened", _COUNTERS.name == "screened-epoch")
)


_CHANGED: Final = (
    select(
        ScreenedRow.seq,
        ScreenedRow.log_id,
        ScreenedRow.idx,
        ScreenedRow.audience,
        ScreenedRow.parties,
        NoticeRow.issuer,
        NoticeRow.tlp_rank,
        NoticeRow.status,
        NoticeRow.content_state,
        NoticeRow.exp,
        NoticeRow.valid_until,
    )
    .join(NoticeRow, and_(NoticeRow.log_id == ScreenedRow.log_id, NoticeRow.idx == ScreenedRow.idx))
    .where(ScreenedRow.seq > bindparam("seen"))
    .order_by(ScreenedRow.seq)
    .limit(PAGE)
)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reading what was found as one session sees it: the gate is asked again, in SQL, and names are compared as they stand."""

    session: Session
    caller: Principal
    query: Query
    comparers: Sequence[Comparer]
    now: int
    threshold: float
    include_inactive: bool

    def best(self, found: Sequence[tuple[float, Key]], limit: int, *, matches_only: bool) -> list[_Read]:
        """The `limit` best and every other that reaches the threshold, best first. What can be neither is not read.

        With `matches_only` those below the threshold are for where none reaches it.
        """
        comparers = list(zip(self.query.names, self.comparers, strict=True))
        hits: list[_Read] = []
        at, piece = 0, min(limit, READ_AT_ONCE)
        while at < len(found):
            ahead, key = found[at]
            if (
                ahead < self.threshold
                and len(hits) >= limit
                and (
                    (-ahead, key) > hits[limit - 1].order
                    or (matches_only and hits[0].score >= self.threshold)
                )
            ):
                break
            # As many as may be matches, and a few that may be the nearest, more each time; but a large answer in pieces.
            likely = sum(most >= self.threshold for most, _ in found[at : at + READ_AT_ONCE])
            some = [key for _, key in found[at : at + max(likely, piece)]]
            at, piece = at + len(some), min(2 * piece, READ_AT_ONCE)
            hits += self._read(some, comparers)
            hits.sort(key=_order)
        return hits

    def _read(self, keys: Iterable[Key], comparers: list[tuple[str, Comparer]]) -> list[_Read]:
        wanted: dict[tuple[int, int], set[int]] = {}
        for log_id, idx, pos in keys:
            wanted.setdefault((log_id, idx), set()).add(pos)
        shape, values = by_log(wanted)
        rows = fetch(self.session, _parties(self.caller, shape), **values)
        hits = []
        for row in rows:
            status = _status(row, self.now)
            if status != "active" and not self.include_inactive:
                continue
            chosen = wanted[row.log_id, row.idx]
            hits += [
                _compared(row, party, self.query, comparers, status)
                for party in orjson.loads(row.parties)
                if party["pos"] in chosen
            ]
        return hits


_READ: Final = (
    ScreenedRow.parties, NoticeRow.log_id, NoticeRow.idx, NoticeRow.id, LogRow.origin, NoticeRow.issuer, NoticeRow.type,
    NoticeRow.title, NoticeRow.status, NoticeRow.denied_on, NoticeRow.valid_until, NoticeRow.exp,
)  # fmt: skip


@lru_cache(maxsize=256)
def _parties(caller: Principal, shape: Shape) -> Select[*tuple[Any, ...]]:
    """The parties of notices by their keys, as far as the caller may read them; see `denials.among`."""
    return (
        select(*_READ)
        .join(NoticeRow, and_(NoticeRow.log_id == ScreenedRow.log_id, NoticeRow.idx == ScreenedRow.idx))
        .join(LogRow, LogRow.id == NoticeRow.log_id)
        .where(
            among(ScreenedRow.log_id, ScreenedRow.idx, shape),
            ScreenedRow.parties.is_not(None),
            is_shown(),
            visible(caller),
        )
    )


def _indexed(row: Any) -> Iterable[Indexed]:  # noqa: ANN401 - a row of `_follow`
    status = _ACTIVE if row.status == "active" else _WITHDRAWN if row.status == "withdrawn" else _HIDDEN
    if row.content_state not in SHOWN:
        status = _HIDDEN
    until = NEVER if row.exp is None else row.exp
    if row.valid_until is not None:
        until = min(until, _end_of(row.valid_until))
    from app.screening.index import Indexed  # noqa: PLC0415 - see `empty_index`

    for party in orjson.loads(row.parties):
        properties = party["properties"]
        yield Indexed(
            log_id=row.log_id,
            idx=row.idx,
            pos=party["pos"],
            gate=(row.issuer, row.tlp_rank, row.audience),
            status=status,
            until=until,
            names=_names(party),
            identifiers=tuple(v for p in IDENTIFIER_PROPERTIES for v in properties.get(p, ())),
            schema=party["schema"],
        )


def _names(party: dict[str, Any]) -> tuple[Name, ...]:
    return tuple(normalise(text, party["schema"]) for text in party["names"])


def _end_of(day: str) -> int:
    """Unix seconds at which a day is over, UTC."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) + _DAY_S


def _status(row: Any, now: int) -> str:  # noqa: ANN401 - a row of `_read`
    over = (row.exp is not None and row.exp <= now // 1000) or (
        row.valid_until is not None and row.valid_until < day_of(now).isoformat()
    )
    return "expired" if row.status == "active" and over else row.status


@dataclass(frozen=True, slots=True)
class _Read:
    """A party that was read and compared; of most only the score is wanted.

    Attributes:
        order: the best first, the oldest first among equals.
    """

    row: Any
    party: dict[str, Any]
    status: str
    explanation: Explanation
    order: tuple[float, Key]

    @property
    def score(self) -> float:
        return -self.order[0]

    def hit(self, threshold: float) -> Hit:
        row, party = self.row, self.party
        return Hit(
            log_id=row.log_id,
            root_idx=row.idx,
            id=row.id,
            origin=row.origin,
            issuer=row.issuer,
            type=row.type,
            title=row.title,
            status=self.status,
            denied_on=row.denied_on,
            valid_until=row.valid_until,
            position=party["pos"],
            role=party["role"],
            schema=party["schema"],
            caption=party["names"][0],
            score=self.score,
            is_match=self.score >= threshold,
            explanation=self.explanation,
        )


def _order(read: _Read) -> tuple[float, Key]:
    return read.order


def _compared(
    row: Any,  # noqa: ANN401 - a row of `_read`
    party: dict[str, Any],
    query: Query,
    comparers: list[tuple[str, Comparer]],
    status: str,
) -> _Read:
    best = None
    for text, comparer in comparers:
        for written, name in zip(party["names"], _names(party), strict=True):
            if name.tokens:
                agreement = comparer.compare(name)
                value = name_score(agreement)
                if agreement.met and (best is None or value > best[0]):
                    best = (value, agreement, text, written)
    beside = features(query, party["schema"], party["properties"])
    explanation = (
        explain(None, None, None, beside)
        if best is None
        else explain(best[1], best[2], best[3], beside, names=best[0])
    )
    order = (-explanation.score, (row.log_id, row.idx, party["pos"]))
    return _Read(row, party, status, explanation, order)


__all__ = ["Hit", "Screener", "Screening"]
