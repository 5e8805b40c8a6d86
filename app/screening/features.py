"""What agrees and what does not, as named numbers, and how they make one score.

Guarantees that the score is a pure function of the two parties: not of other notices, not of the clock, not of who asks.
A score is made of odds: names give the first, and each thing known beside the name multiplies them. So each feature's part
can be told alone, and the score without it is the same sum without one addend.
"""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import pairwise
from operator import mul
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from rapidfuzz import fuzz

from app.domain.names import fold
from app.domain.party import COUNTRY_PROPERTIES, SCHEMATA
from app.projections.screened import IDENTIFIER_PROPERTIES
from app.screening.spelling import plain_identifier
from app.screening.words import DATA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from app.screening.party import Query
    from app.screening.score import Agreement

# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CONFLICT: Final = 2.0
"""Words left over on both sides: two names that each hold what the other does not are two names."""
QUERY_LEFT: Final = 0.6
PERSON_LEFT: Final = 0.25
OTHER_LEFT: Final = 0.4


def sharpened(value: float) -> float:
    """What a similarity counts for: two words that differ in a third of their letters say little."""
    return value if value >= 0.9 else value * (value / 0.9) ** 2


NAME_FEATURES: Final = (
    "one", "agreement", "evidence", "conflict", "only_in_query", "only_in_notice", "worst_word", "equal_words", "order",
    "common_words_only", "initials", "consonants", "forms_of_a_name", "legal_form", "numbers",
)  # fmt: skip
"""What the model of names sees, in the order of its weights; `name_features` says what each is."""


def name_features(agreement: Agreement) -> tuple[float, ...]:
    """The numbers of NAME_FEATURES.

    `one` is always 1. `agreement`: the share of all words' weight that met, conflicts counted twice. `evidence`: how much
    met, as a logarithm: two long names that agree say more than two short ones. `conflict`: the share of what both sides
    have alone; `only_in_query`, `only_in_notice`: what one side has beyond that. `worst_word`: the least similarity of a
    word that says something. `equal_words`, `consonants`, `forms_of_a_name`: the share met in that way. `order`: how often the words
    change their order. `common_words_only`: no word met that says much. `initials`: the share of pairs that are one.
    `legal_form`: 1 equal, -1 unequal, 0 unknown. `numbers`: 1 if one side has a number that the other has not.
    """
    ours, theirs = agreement.query.tokens, agreement.notice.tokens
    total = matched = equal = bones = forms = strongest = 0.0
    initials, worst = 0, 1.0
    # This is asked of some twenty names a query: it goes without what Python does slowly.
    for own, others, alike, kind, _ in agreement.met:
        a = ours[own[0]].weight if len(own) == 1 else sum([ours[place].weight for place in own])
        b = theirs[others[0]].weight if len(others) == 1 else sum([theirs[place].weight for place in others])
        less, more = (a, b) if a < b else (b, a)
        weight = 1.5 * less if kind == "initial" else more
        total += weight
        matched += weight * sharpened(alike)
        strongest = max(strongest, less * alike)
        if more > 0.25 and alike < worst:
            worst = alike
        if kind == "equal":
            equal += weight
        elif kind == "initial":
            initials += 1
        elif kind == "consonants":
            bones += weight
        elif kind in _FORMS:
            forms += weight
    query_left = sum([ours[i].weight for i in agreement.query_left])
    notice_left = sum([theirs[j].weight for j in agreement.notice_left])
    conflict = min(query_left, notice_left)
    query_left -= conflict
    notice_left -= conflict
    left = PERSON_LEFT if agreement.notice.is_person else OTHER_LEFT
    below = total + CONFLICT * conflict + QUERY_LEFT * query_left + left * notice_left
    total = max(total, 0.05)
    turned, pairs = 0, len(agreement.met)
    if pairs > 1:
        places = sorted([(met[0][0], met[1][0]) for met in agreement.met])
        turned = sum([b[1] < a[1] for a, b in pairwise(places)])
    ours_forms, theirs_forms = agreement.query.forms, agreement.notice.forms
    return (
        1.0,
        matched / below if below else 0.0,
        math.log1p(matched),
        conflict / (conflict + total),
        query_left / max(agreement.query.weight, 0.1) if query_left else 0.0,
        notice_left / max(agreement.notice.weight, 0.1) if notice_left else 0.0,
        worst,
        equal / total,
        turned / max(pairs - 1, 1),
        float(strongest < 0.5),
        initials / max(pairs, 1),
        bones / total,
        forms / total,
        0.0 if not ours_forms or not theirs_forms else -1.0 if ours_forms.isdisjoint(theirs_forms) else 1.0,
        float({t.text for t in ours if t.is_number} != {t.text for t in theirs if t.is_number}),
    )


_FORMS: Final = frozenset({"same name", "same word", "abbreviation", "acronym", "blend"})


@cache
def model() -> Mapping[str, tuple[float, ...]]:
    """Weights of NAME_FEATURES, for persons and for all others; made by `scripts/train_screening.py`."""
    read = json.loads((DATA / "model.json").read_text(encoding="utf-8"))
    return {kind: tuple(read[kind][name] for name in NAME_FEATURES) for kind in ("person", "other")}


@cache
def calibration() -> Mapping[str, Any]:
    """The table of thresholds with the part of clean names that reach each, as `verbale screen evaluate` measured it."""
    read: dict[str, Any] = json.loads((DATA / "calibration.json").read_text(encoding="utf-8"))
    return read


def name_score(agreement: Agreement) -> float:
    """How well two names agree, 0 to 1: the logistic function of the weighted features."""
    if not agreement.met:
        return 0.0
    weights = model()["person" if agreement.notice.is_person else "other"]
    odds = sum(map(mul, weights, name_features(agreement)))
    return 1 / (1 + math.exp(-max(min(odds, 30.0), -30.0)))


# ── beside the name ───────────────────────────────────────────────────────────────────────────────────────────────

State = Literal["agrees", "contradicts", "absent", "not compared"]

FEATURES: Final = ("schema", "birth_date", "founded", "country", "identifier", "address", "gender", "contact")

ODDS: Final[Mapping[tuple[str, str], float]] = {
    ("schema", "contradicts"): -2.5,
    ("birth_date", "agrees"): 2.0,
    ("birth_date", "partly"): 1.0,
    ("birth_date", "contradicts"): -3.0,
    ("founded", "agrees"): 1.0,
    ("founded", "contradicts"): -0.7,
    ("country", "agrees"): 0.5,
    ("country", "contradicts"): -0.9,
    ("identifier", "agrees"): 8.0,
    ("identifier", "contradicts"): -1.5,
    ("address", "agrees"): 1.0,
    ("gender", "contradicts"): -1.5,
    ("contact", "agrees"): 2.5,
}
"""Natural logarithms of what the odds are multiplied by. An equal identifier decides."""

_CLOSEST: Final = 0.995
"""The score of a name that agrees wholly: what is beside the name can still move it."""


class Feature(NamedTuple):
    """One thing that was compared, or could not be.

    Attributes:
        state: `absent`: one side does not say; `not compared`: it does not apply.
        odds: natural logarithm of what it multiplies the odds by.
        detail: what was compared with what, for a person.
    """

    name: str
    state: State
    odds: float
    detail: str


def features(query: Query, schema: str, properties: Mapping[str, Sequence[str]]) -> tuple[Feature, ...]:
    """Compare all that is known beside the names. `properties` are those of the notice's party."""
    return (
        _schema(query.schema, schema),
        _dates("birth_date", query.birth_dates, properties.get("birthDate", ())),
        _dates(
            "founded",
            query.founded,
            (*properties.get("incorporationDate", ()), *properties.get("buildDate", ())),
        ),
        _country(query, properties),
        _identifier(query, properties),
        _address(query.addresses, properties.get("address", ())),
        _equal("gender", query.genders, [g.casefold() for g in properties.get("gender", ())]),
        _equal(
            "contact",
            query.contacts,
            [v for p in ("email", "phone", "website") for v in properties.get(p, ())],
        ),
    )


@cache
def schema_odds(asked: str) -> np.ndarray:
    """What each of SCHEMATA does to the odds of a query of one: the part of `features` that is known of every party."""
    import numpy as np  # noqa: PLC0415 - a node without screening does without it

    return np.array([_schema(asked, found).odds for found in SCHEMATA])


def combined(name: float, found: Sequence[Feature]) -> float:
    """One score, 0 to 1, of a name's score and what is beside it."""
    return _moved(name, math.fsum([f.odds for f in found]))


def _moved(name: float, odds: float) -> float:
    if not odds:
        return name
    kept = min(max(name, 0.005), _CLOSEST)
    return 1 / (1 + math.exp(-(math.log(kept / (1 - kept)) + odds)))


def most_odds(query: Query) -> float:
    """The most that what is beside the names may add to the odds of a query, as a logarithm."""
    return math.fsum(
        odds
        for given, odds in (
            (query.birth_dates, ODDS["birth_date", "agrees"]),
            (query.founded, ODDS["founded", "agrees"]),
            (query.countries, ODDS["country", "agrees"]),
            (query.identifiers, ODDS["identifier", "agrees"]),
            (query.addresses, ODDS["address", "agrees"]),
            (query.contacts, ODDS["contact", "agrees"]),
        )
        if given
    )


def at_most(name: float, schema: float, beside: float) -> float:
    """The most that `combined` may give for a name's score: with the odds of the schema, and at most `beside` of the rest."""
    if not beside:
        return _moved(name, schema)
    kept = min(max(name, 0.005), _CLOSEST)
    most = 1 / (1 + math.exp(-(math.log(kept / (1 - kept)) + schema + beside)))
    return max(name, most) if schema + beside >= 0 else most


_PEOPLE: Final = frozenset({"Person"})
_THINGS: Final = frozenset({"Vessel", "Airplane"})


def _family(schema: str) -> str:
    return "person" if schema in _PEOPLE else schema.lower() if schema in _THINGS else "organisation"


def _schema(asked: str, found: str) -> Feature:
    if "LegalEntity" in (asked, found) and not {asked, found} & _THINGS:
        return Feature("schema", "not compared", 0.0, f"{asked} may be {found}")
    if _family(asked) == _family(found):
        return Feature("schema", "agrees", 0.0, f"{asked} and {found}")
    return Feature("schema", "contradicts", ODDS["schema", "contradicts"], f"{asked} is not {found}")


def _dates(name: str, asked: Sequence[str], found: Sequence[str]) -> Feature:
    if not asked or not found:
        return _absent(name, asked, found)
    shown = f"{', '.join(asked)} and {', '.join(found)}"
    best = max((_date_agreement(a, b) for a in asked for b in found), default=-1)
    if best > 0:
        grade = "agrees" if best > 1 else "partly"
        return Feature(name, "agrees", ODDS.get((name, grade), ODDS[name, "agrees"]), shown)
    if best == 0:
        return Feature(name, "agrees", 0.0, f"{shown}: close, as where days and months are exchanged")
    return Feature(name, "contradicts", ODDS[name, "contradicts"], shown)


def _date_agreement(a: str, b: str) -> int:
    """2 equal to the day, 1 equal as far as written, 0 close, -1 different."""
    shared = min(len(a), len(b))
    if a[:shared] == b[:shared]:
        return 2 if shared == 10 else 1
    if a[:4] == b[:4] and shared == 10:
        return 0 if a[5:7] == b[8:10] and a[8:10] == b[5:7] else -1
    return 0 if shared == 4 and abs(int(a[:4]) - int(b[:4])) <= 1 else -1


def _country(query: Query, properties: Mapping[str, Sequence[str]]) -> Feature:
    theirs = {v.upper() for p in (*COUNTRY_PROPERTIES, "flag") for v in properties.get(p, ())}
    if not query.countries or not theirs:
        return _absent("country", query.countries, sorted(theirs))
    shown = f"{', '.join(query.countries)} and {', '.join(sorted(theirs))}"
    state: State = "contradicts" if theirs.isdisjoint(query.countries) else "agrees"
    return Feature("country", state, ODDS["country", state], shown)


def _identifier(query: Query, properties: Mapping[str, Sequence[str]]) -> Feature:
    theirs = [(p, plain_identifier(v)) for p in IDENTIFIER_PROPERTIES for v in properties.get(p, ())]
    if not query.identifiers or not theirs:
        return _absent("identifier", [v for _, v in query.identifiers], [v for _, v in theirs])
    ours = [(p, plain_identifier(v)) for p, v in query.identifiers]
    for name, value in ours:
        for other, theirs_value in theirs:
            # Registers are named differently by different hands; short numbers are equal by chance in different ones.
            if value == theirs_value and (name == other or len(value) >= 6):
                return Feature("identifier", "agrees", ODDS["identifier", "agrees"], f"{other} {value}")
    kinds = {p for p, _ in ours} & {p for p, _ in theirs}
    if kinds:
        kind = min(kinds)
        shown = f"{kind} {dict(ours)[kind]} and {dict(theirs)[kind]}"
        return Feature("identifier", "contradicts", ODDS["identifier", "contradicts"], shown)
    return Feature("identifier", "not compared", 0.0, "identifiers of different kinds")


def _address(asked: Sequence[str], found: Sequence[str]) -> Feature:
    if not asked or not found:
        return _absent("address", asked, found)
    value, ours, theirs = max(
        (fuzz.token_set_ratio(fold(a), fold(b)), a, b) for a in asked[:5] for b in found[:20]
    )
    if value >= 85:
        return Feature("address", "agrees", ODDS["address", "agrees"], f"{ours} and {theirs}")
    return Feature(
        "address", "not compared", 0.0, "no address of one is like one of the other; parties have several"
    )


def _equal(name: str, asked: Sequence[str], found: Sequence[str]) -> Feature:
    if not asked or not found:
        return _absent(name, asked, found)
    ours, theirs = {plain_identifier(v) for v in asked}, {plain_identifier(v) for v in found}
    state: State = "contradicts" if ours.isdisjoint(theirs) else "agrees"
    return Feature(name, state, ODDS.get((name, state), 0.0), f"{', '.join(asked)} and {', '.join(found)}")


def _absent(name: str, asked: Sequence[Any], found: Sequence[Any]) -> Feature:
    side = (
        "neither says"
        if not asked and not found
        else "the notice does not say"
        if asked
        else "the query does not say"
    )
    return Feature(name, "absent", 0.0, side)
