"""Train the model of names: `app/screening/data/model.json`. Deterministic; run when features or words change.

    python scripts/train_screening.py --corpus FILE --queries FILE --negatives FILE --pairs FILE [--every N] [--write]

Files as `verbale screen evaluate` and `compare` take them. Without --write it prints a five-fold cross-validation, by query, and the same
with each feature left out: what each has earned.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.screening.features import NAME_FEATURES, ODDS, name_features
from app.screening.measure import Asked, Corpus, read_corpus, read_pairs, read_queries
from app.screening.normalise import normalise
from app.screening.party import NothingToCompare, Query
from app.screening.score import Comparer
from app.screening.words import DATA

RIDGE = 1.0
STEPS = 30
HARD = 4
"""Wrong candidates of a query that are learned from: the most alike."""
WEIGHT_OF_CLEAN, WEIGHT_OF_WRONG = 1.5, 0.35
WEIGHT_OF_PAIR = 4.0
"""Labelled pairs are few, and near misses on purpose: weighed so that they are heard."""
AT_ONE_PERCENT = 0.7
"""The score that one in a hundred clean names exceeds, by which both models together are set to a scale."""

Matrix = NDArray[np.float64]


class Example:
    """One query with the features, the truth and the family of each candidate."""

    def __init__(self, asked: Asked, corpus: Corpus) -> None:
        self.asked = asked
        self.person = asked.schema == "Person"
        try:
            query = Query(asked.schema, (asked.name,))
            found = corpus.candidates(query)
        except NothingToCompare:
            found = []
        entries = [corpus.entries[f.party] for f in found]
        self.x = np.array([name_features(f.agreement) for f in found if f.agreement is not None]).reshape(
            -1, len(NAME_FEATURES)
        )
        self.right = np.array([e.id in asked.truth for e in entries], bool)
        self.kind = np.array([e.schema == "Person" for e in entries], bool)
        self.offset = np.where(self.kind == self.person, 0.0, ODDS["schema", "contradicts"])

    def odds(self, weights: dict[bool, Matrix], columns: list[int]) -> Matrix:
        """Log-odds of each candidate."""
        if not len(self.x):
            return np.zeros(0)
        both = {kind: self.x[:, columns] @ weights[kind] for kind in weights}
        return np.where(self.kind, both[True], both[False]) + self.offset


Pair = tuple[Matrix, bool, bool]
"""Features of a labelled pair, whether it is one party, whether it is a person."""


def read_labelled(path: Path) -> list[Pair]:
    """The pairs that can be read."""
    found = []
    for a, b, schema, match in read_pairs(path.read_text(encoding="utf-8").splitlines()):
        first, second = normalise(a, schema), normalise(b, schema)
        if first.tokens and second.tokens:
            found.append(
                (np.array(name_features(Comparer(first).compare(second))), match, schema == "Person")
            )
    return found


def fit(examples: list[Example], pairs: list[Pair], columns: list[int]) -> dict[bool, Matrix]:
    """Two logistic regressions with a ridge, by Newton's method."""
    return _scaled(
        examples, {kind: _fit(examples, pairs, columns, person=kind) for kind in (True, False)}, columns
    )


def _fit(examples: list[Example], pairs: list[Pair], columns: list[int], *, person: bool) -> Matrix:
    rows, truths, weights, offsets = [], [], [], []
    agreement = NAME_FEATURES.index("agreement")
    for example in examples:
        order = np.argsort(-example.x[:, agreement], kind="stable") if len(example.x) else np.zeros(0, int)
        right = [i for i in order if example.right[i]][:1]
        wrong = [i for i in order if not example.right[i]][:HARD]
        clean = WEIGHT_OF_CLEAN if not example.asked.truth else WEIGHT_OF_WRONG
        for places, truth, weight in ((right, 1.0, 1.0), (wrong, 0.0, clean)):
            for i in places:
                if example.kind[i] == person:
                    rows.append(example.x[i, columns])
                    truths.append(truth)
                    weights.append(weight)
                    offsets.append(example.offset[i])
    for features, match, is_person in pairs:
        if is_person == person:
            rows.append(features[columns])
            truths.append(float(match))
            weights.append(WEIGHT_OF_PAIR)
            offsets.append(0.0)
    x, y, w, o = np.array(rows), np.array(truths), np.array(weights), np.array(offsets)
    found = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(x @ found + o)))
        slope = x.T @ (w * (p - y)) + RIDGE * found
        curve = (x.T * (w * p * (1 - p))) @ x + RIDGE * np.eye(len(found))
        found -= np.linalg.solve(curve, slope)
    return found


def _scaled(examples: list[Example], weights: dict[bool, Matrix], columns: list[int]) -> dict[bool, Matrix]:
    """Move both intercepts alike, so that AT_ONE_PERCENT is what one in a hundred clean names exceeds."""
    tops = [_top(e.odds(weights, columns)) for e in examples if not e.asked.truth]
    threshold = sorted(tops, reverse=True)[int(len(tops) * 0.01)]
    for one in weights.values():
        one[0] += np.log(AT_ONE_PERCENT / (1 - AT_ONE_PERCENT)) - threshold
    return weights


def _top(odds: Matrix) -> float:
    return float(odds.max()) if len(odds) else -30.0


def figures(examples: list[Example], odds: list[Matrix]) -> dict[str, float]:
    """Recall by rank, and at 1 % and 5 % alerts."""
    clean = sorted(
        (
            float(o.max()) if len(o) else -30.0
            for e, o in zip(examples, odds, strict=True)
            if not e.asked.truth
        ),
        reverse=True,
    )
    at = [clean[int(len(clean) * rate)] for rate in (0.01, 0.05)]
    ranks, scores = [], []
    for example, o in zip(examples, odds, strict=True):
        if example.asked.truth:
            order = np.argsort(-o, kind="stable")
            places = np.flatnonzero(example.right[order])
            ranks.append(places[0] if len(places) else 1 << 30)
            scores.append(o[order[places[0]]] if len(places) else -30.0)
    r, s = np.array(ranks), np.array(scores)
    return {
        "recall@1": float((r == 0).mean()),
        "recall@10": float((r < 10).mean()),  # noqa: PLR2004 - the name says it
        "at 1 % alerts": float((s > at[0]).mean()),
        "at 5 % alerts": float((s > at[1]).mean()),
    }


def cross_validated(examples: list[Example], pairs: list[Pair], columns: list[int]) -> dict[str, float]:
    """Figures of queries that the weights have not seen."""
    fold = np.random.default_rng(0).permutation(len(examples)) % 5
    odds: list[Any] = [None] * len(examples)
    for number in range(5):
        weights = fit([e for e, f in zip(examples, fold, strict=True) if f != number], pairs, columns)
        for i, example in enumerate(examples):
            if fold[i] == number:
                odds[i] = example.odds(weights, columns)
    return figures(examples, odds)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("corpus", "queries", "negatives", "pairs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="learn from each n-th query only")
    parser.add_argument("--write", action="store_true", help="write the model, learned from all")
    parser.add_argument("--ablate", action="store_true", help="also without each feature")
    arguments = parser.parse_args()
    corpus = Corpus(read_corpus(arguments.corpus.read_bytes().splitlines()))
    asked = read_queries(arguments.queries.read_bytes().splitlines()) + read_queries(
        arguments.negatives.read_bytes().splitlines()
    )
    examples = [Example(one, corpus) for one in asked[:: arguments.every]]
    pairs = read_labelled(arguments.pairs)
    every = list(range(len(NAME_FEATURES)))
    if arguments.write:
        weights = fit(examples, pairs, every)
        named = {
            kind: {
                name: round(float(w), 4)
                for name, w in zip(NAME_FEATURES, weights[kind == "person"], strict=True)
            }
            for kind in ("person", "other")
        }
        (DATA / "model.json").write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
    full = cross_validated(examples, pairs, every)
    print("all features      ", {k: round(v, 4) for k, v in full.items()})
    for left_out in every[1:] if arguments.ablate else ():
        without = cross_validated(examples, pairs, [i for i in every if i != left_out])
        print(f"- {NAME_FEATURES[left_out]:18}", {k: round(v - full[k], 4) for k, v in without.items()})


if __name__ == "__main__":
    main()
