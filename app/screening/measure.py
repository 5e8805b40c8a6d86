"""How good and how quick screening is, on labelled data, by the very index and scorer a node answers with.

Guarantees that nothing here scores by a rule of its own. Leaves to its callers: files (`read_*` take lines), printing.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.errors import Malformed
from app.screening.explain import explain
from app.screening.features import features, schema_odds
from app.screening.find import DEFAULT_THRESHOLD
from app.screening.index import Found, Index, Indexed
from app.screening.normalise import normalise
from app.screening.party import NothingToCompare, Query
from app.screening.score import Comparer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from app.domain.party import Schema

SCHEMA_OF_TYPE: Final[Mapping[str, Schema]] = {"person": "Person", "org": "Organization", "vessel": "Vessel"}
ALERT_RATES: Final = (0.002, 0.005, 0.01, 0.02, 0.05)
NEVER: Final = 1 << 60
TOP: Final = 10


# ── a corpus with queries ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a corpus."""

    id: str
    schema: Schema
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One labelled query; `truth` is empty for a name that is on no list."""

    set: str
    schema: Schema
    name: str
    truth: frozenset[str] = frozenset()


def read_corpus(lines: Iterable[bytes]) -> list[Listed]:
    """Lines of `{"id", "type": "person" | "org", "names": [...]}`; raises Malformed."""
    return [
        Listed(str(o["id"]), _schema(o), tuple(o["names"]))
        for o in _objects(lines, "corpus", ("id", "type", "names"))
    ]


def read_queries(lines: Iterable[bytes]) -> list[Asked]:
    """Lines of `{"type", "name"}`, with `set` and `truth_ids` where they are queries; raises Malformed."""
    return [
        Asked(str(o.get("set", "negatives")), _schema(o), o["name"], frozenset(o.get("truth_ids", ())))
        for o in _objects(lines, "queries", ("type", "name"))
    ]


def _objects(lines: Iterable[bytes], what: str, members: Sequence[str]) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"Line {number} of the {what} is not JSON: {error}.") from error
        if not isinstance(value, dict) or any(name not in value for name in members):
            raise Malformed(f"Line {number} of the {what} is not an object with {', '.join(members)}.")
        yield value


def _schema(value: Mapping[str, Any]) -> Schema:
    schema = SCHEMA_OF_TYPE.get(value["type"])
    if schema is None:
        raise Malformed(f"type {str(value['type'])[:40]!r} is not one of {', '.join(SCHEMA_OF_TYPE)}.")
    return schema


class Corpus:
    """An index of a corpus, asked as a node asks its own: names alone, every gate open."""

    def __init__(
        self, entries: Sequence[Listed], progress: Callable[[int], None] = lambda _done: None
    ) -> None:
        """Load it."""
        self.entries = entries
        self.index = Index()
        began = time.perf_counter()
        for number, entry in enumerate(entries):
            names = tuple(normalise(name, entry.schema) for name in entry.names)
            self.index.add(Indexed(0, number, 0, ("", 0, "ALL"), 1, NEVER, names, schema=entry.schema))
            if number % 256 == 0:
                progress(number)
        self.index.sort()
        self.load_s = time.perf_counter() - began
        self._visible = self.index.visible([True], statuses=(1,), now=0)

    def candidates(self, query: Query) -> list[Found]:
        """The parties that are compared with a query, each with its best name."""
        return self.index.search(query.read, (), self._visible, [True], schema_odds=schema_odds(query.schema))

    def ask(self, name: str, schema: Schema) -> list[tuple[float, str]]:
        """(score, id) of all candidates, best first. A name that a node would refuse finds nothing."""
        try:
            query = Query(schema, (name,))
        except NothingToCompare:
            return []
        found = []
        for candidate in self.candidates(query):
            entry = self.entries[candidate.party]
            beside = features(query, entry.schema, {})
            score = explain(candidate.agreement, name, None, beside).score
            found.append((-score, candidate.party, entry.id))
        found.sort()
        return [(-score, id_) for score, _, id_ in found]


@dataclass(slots=True)
class _Outcomes:
    ranks: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def figures(self, thresholds: Mapping[float, float]) -> dict[str, Any]:
        count = len(self.ranks) or 1
        return {
            "queries": len(self.ranks),
            "recall_at_1": _rate(sum(r == 0 for r in self.ranks), count),
            "recall_at_10": _rate(sum(r < TOP for r in self.ranks), count),
            **{
                f"recall_at_alert_{_percent(rate)}": _rate(sum(s > t for s in self.scores), count)
                for rate, t in thresholds.items()
            },
        }


def _percent(rate: float) -> str:
    return f"{rate * 100:g}pct".replace(".", "_")


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4)


def evaluate(
    corpus: Corpus,
    queries: Sequence[Asked],
    negatives: Sequence[Asked],
    progress: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Recall by rank and at alert rates, for all and for each set, and how long a query took.

    The threshold of an alert rate is the score that so many of the negatives exceed.
    """
    times: list[float] = []

    def timed(asked: Asked) -> list[tuple[float, str]]:
        began = time.perf_counter()
        found = corpus.ask(asked.name, asked.schema)
        times.append(time.perf_counter() - began)
        if len(times) % 32 == 0:
            progress(len(times))
        return found

    tops: dict[str, list[float]] = {"all": []}
    for asked in negatives:
        found = timed(asked)
        top = found[0][0] if found else 0.0
        tops["all"].append(top)
        tops.setdefault(asked.schema, []).append(top)
    thresholds = {rate: _exceeded_by(tops["all"], rate) for rate in ALERT_RATES}
    outcomes = {"all": _Outcomes()}
    for asked in queries:
        found = timed(asked)
        rank = next((n for n, (_, id_) in enumerate(found) if id_ in asked.truth), 1 << 30)
        score = found[rank][0] if rank < len(found) else 0.0
        for name in ("all", asked.set, asked.schema):
            kept = outcomes.setdefault(name, _Outcomes())
            kept.ranks.append(rank)
            kept.scores.append(score)
    times.sort()
    everything = outcomes.pop("all").figures(thresholds)
    return {
        **everything,
        "p50_ms": round(times[len(times) // 2] * 1000, 2) if times else 0.0,
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2) if times else 0.0,
        "sets": {name: kept.figures(thresholds) for name, kept in outcomes.items()},
        "corpus": len(corpus.entries),
        "load_per_s": round(len(corpus.entries) / corpus.load_s) if corpus.load_s else 0,
        "thresholds": {
            kind: {_percent(rate): round(_exceeded_by(values, rate), 4) for rate in ALERT_RATES}
            for kind, values in tops.items()
        },
        "alert_rate_at_shipped_threshold": {
            kind: _rate(sum(v >= DEFAULT_THRESHOLD for v in values), len(values) or 1)
            for kind, values in tops.items()
        },
    }


def _exceeded_by(values: Sequence[float], rate: float) -> float:
    """The value that so large a part of them exceeds."""
    return sorted(values, reverse=True)[min(int(len(values) * rate), len(values) - 1)] if values else 0.0


# ── labelled pairs ────────────────────────────────────────────────────────────────────────────────────────────────

PAIR_COLUMNS: Final = ("name1", "name2", "schema", "is_match")


def read_pairs(lines: Iterable[str]) -> list[tuple[str, str, Schema, bool]]:
    """Rows of a CSV file with the columns name1, name2, schema, is_match (true or false); raises Malformed."""
    reader = csv.DictReader(lines)
    missing = [c for c in PAIR_COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise Malformed(f"The file lacks the column {missing[0]}. It needs {', '.join(PAIR_COLUMNS)}.")
    pairs: list[tuple[str, str, Schema, bool]] = []
    for row in reader:
        value = (row["is_match"] or "").strip().lower()
        if value not in ("true", "false", "1", "0"):
            raise Malformed(f"Line {reader.line_num}: is_match is true or false, not {value[:20]!r}.")
        schema = row["schema"] if row["schema"] in _SCHEMATA else "LegalEntity"
        pairs.append((row["name1"] or "", row["name2"] or "", schema, value in ("true", "1")))  # type: ignore[arg-type]
    return pairs


_SCHEMATA: Final = frozenset(
    ("Person", "Organization", "Company", "PublicBody", "LegalEntity", "Vessel", "Airplane")
)


def pair_score(a: str, b: str, schema: Schema) -> float:
    """The score of two names; 0 where one of them is refused."""
    first, second = normalise(a, schema), normalise(b, schema)
    if not first.tokens or not second.tokens:
        return 0.0
    return explain(Comparer(first).compare(second), a, b, ()).score


def compare(pairs: Sequence[tuple[str, str, Schema, bool]]) -> dict[str, Any]:
    """Precision, recall and F1 at the shipped threshold and at the best one for these pairs."""
    scored = [(pair_score(a, b, schema), match) for a, b, schema, match in pairs]
    best = max(sorted({s for s, _ in scored}) or [DEFAULT_THRESHOLD], key=lambda t: _at(scored, t)[2])
    shipped = _at(scored, DEFAULT_THRESHOLD)
    top = _at(scored, best)
    return {
        "pairs": len(scored),
        "matches": sum(match for _, match in scored),
        "shipped_threshold": DEFAULT_THRESHOLD,
        "precision_at_shipped_threshold": shipped[0],
        "recall_at_shipped_threshold": shipped[1],
        "f1_at_shipped_threshold": shipped[2],
        "best_threshold": round(best, 4),
        "precision_best": top[0],
        "recall_best": top[1],
        "f1_best": top[2],
    }


def _at(scored: Sequence[tuple[float, bool]], threshold: float) -> tuple[float, float, float]:
    right = sum(match for score, match in scored if score >= threshold)
    said = sum(score >= threshold for score, _ in scored)
    wanted = sum(match for _, match in scored)
    precision, recall = right / said if said else 0.0, right / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return round(precision, 4), round(recall, 4), round(f1, 4)
