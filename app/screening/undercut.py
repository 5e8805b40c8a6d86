"""Is this the essentially identical transaction that another State refused? A pre-screen: it shows why, and a person decides.

Regulation (EU) 2021/821, article 2: items with essentially identical parameters or technical characteristics, and the same
end-user or consignee. So a denial is compared with an application on two legs, parties and items, and each leg says what it
rests on. The destination is reported and decides nothing: the same goods by another route are what undercutting looks like.

Pure: values in, values out. Who matched whom is screening's finding, passed in; what the caller may see was decided before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from app.domain.control_codes import MAX_CODE, ControlCode, ancestors
from app.domain.errors import Malformed
from app.domain.names import fold
from app.domain.party import END_ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LOOK_BACK_YEARS: Final = 3
"""What the regimes and Common Position 2008/944/CFSP look back. A denial may be valid far longer (EU): both are told."""

SAME_PARTY_ROLES: Final = END_ROLES | {"consignee"}
"""End-user or consignee. An intermediary, a purchaser or an agent that matches is a hit, and not this test's party."""

Depth = Literal["category", "group", "number", "paragraph", "exact"]
DEPTHS: Final[tuple[Depth, ...]] = get_args(Depth)
DEFAULT_DEPTH: Final[Depth] = "number"
"""`5A001`: paragraphs differ between editions and are often left out, so they are shown and not asked for."""

DEFAULT_TOLERANCE: Final = Decimal("0.1")
MAX_TOLERANCE: Final = Decimal(1)

Verdict = Literal["essentially_identical", "possibly_identical", "same_site_other_name", "other_items"]


class InvalidComparison(Malformed):
    """A depth or a tolerance that has no meaning."""

    code = "invalid-comparison"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How strictly items are compared.

    Attributes:
        depth: how much of two control codes has to be equal.
        tolerance: by what part of the larger value two parameters may differ, 0 to 1.
    """

    depth: Depth = DEFAULT_DEPTH
    tolerance: Decimal = DEFAULT_TOLERANCE

    @classmethod
    def of(
        cls, depth: str = DEFAULT_DEPTH, tolerance: float | str | Decimal = DEFAULT_TOLERANCE
    ) -> Comparison:
        """Read what a caller chose.

        Raises:
            InvalidComparison: an unknown depth, or a tolerance outside 0 to 1.
        """
        if depth not in DEPTHS:
            raise InvalidComparison(f"{depth[:20]!r} is no depth. Use one of: {', '.join(DEPTHS)}.")
        number = Decimal(str(tolerance))
        if not (number.is_finite() and 0 <= number <= MAX_TOLERANCE):
            raise InvalidComparison("A tolerance is a part of the larger value, from 0 to 1; 0.1 is a tenth.")
        return cls(depth, number)


# ── what is compared ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Parameter:
    """One technical parameter as written."""

    name: str
    value: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Goods:
    """One item of either side."""

    description: str
    codes: tuple[ControlCode, ...] = ()
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    """What a denial says of its transaction.

    Attributes:
        denied_on: None for a listing without a date.
        valid_now: neither withdrawn nor past its end, by this node's clock.
        scope: `all` or `listed` where a denial is about whatever items; None: `goods` are all of it.
        destination: None for a listing.
    """

    issuer: str
    denied_on: date | None
    valid_now: bool
    goods: tuple[Goods, ...]
    scope: Literal["all", "listed"] | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True)
class PartyMatch:
    """One finding of screening: a party of the application, and the party of the denial that it may be.

    Attributes:
        role, denied_role: in the application and in the denial.
        basis: what the match rests on; of an identifier or an address, the names say nothing.
    """

    role: str
    name: str
    denied_role: str
    denied_name: str
    score: float
    basis: Literal["name", "identifier", "address"] = "name"

    @property
    def counts(self) -> bool:
        """Whether both are end-user or consignee."""
        return self.role in SAME_PARTY_ROLES and self.denied_role in SAME_PARTY_ROLES


# ── codes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_LISTED_STEPS: Final[Mapping[Depth, int]] = {"category": 0, "group": 1, "number": 2, "paragraph": 3}
_LISTED_NUMBER = re.compile(r"[0-9][A-E][0-9]{3}")
_BASKETS: Final = frozenset({"EAR99"})


@dataclass(frozen=True, slots=True)
class CodeOverlap:
    """Two codes that meet.

    Attributes:
        shared: the longest prefix both have.
        weak: a basket (EAR99), a catch-all or a tariff number: it does not identify an item.
    """

    applied: str
    denied: str
    shared: str
    weak: bool

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {"applied": self.applied, "denied": self.denied, "shared": self.shared, "weak": self.weak}


def overlap(applied: ControlCode, denied: ControlCode, depth: Depth) -> CodeOverlap | None:
    """Whether two codes meet at a depth. A denial of `5A001` covers `5A001.j`, whatever the depth below its end."""
    ours, theirs = ancestors(applied.canonical), ancestors(denied.canonical)
    shared = [step for step in ours if step in theirs]
    if not shared:
        return None
    deepest = max(len(ours), len(theirs)) if depth == "exact" else min(len(ours), len(theirs))
    if len(shared) < min(_steps(ours, depth), deepest):
        return None
    return CodeOverlap(applied.canonical, denied.canonical, shared[-1], _is_weak(applied, denied))


def _steps(prefixes: Sequence[str], depth: Depth) -> int:
    """How many prefixes have to be shared. Codes of other numberings have their number first, then paragraphs."""
    if depth == "exact":
        return MAX_CODE  # more than there are: the longer of the two decides
    if _LISTED_NUMBER.match(prefixes[-1]):
        return _LISTED_STEPS[depth] + 1
    if prefixes[-1].isdigit():  # tariff: 4, 6, 8, 10 digits; six is what is international
        return {"category": 1, "group": 1, "number": 2, "paragraph": 3}[depth]
    return 2 if depth == "paragraph" else 1


def _is_weak(applied: ControlCode, denied: ControlCode) -> bool:
    systems = {applied.system, denied.system}
    return "HS" in systems or "CATCH-ALL" in systems or bool({applied.canonical, denied.canonical} & _BASKETS)


# ── parameters ────────────────────────────────────────────────────────────────────────────────────────────────────

_NUMBER = r"[-+]?[0-9]+(?:[.,][0-9]+)?(?:[eE][-+]?[0-9]{1,3})?"
_RANGE = re.compile(rf"({_NUMBER})\s*(?:-|–|to|\.\.)\s*({_NUMBER})")
_BOUND = re.compile(rf"(>=|≥|>|<=|≤|<|≈|~|=)?\s*({_NUMBER})")
_FAR: Final = Decimal("1e60")

_PREFIXES: Final[Mapping[str, Decimal]] = {
    "": Decimal(1), "p": Decimal("1e-12"), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "µ": Decimal("1e-6"),
    "μ": Decimal("1e-6"), "m": Decimal("1e-3"), "c": Decimal("1e-2"), "k": Decimal("1e3"), "K": Decimal("1e3"),
    "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"),
}  # fmt: skip
_BASES: Final[Mapping[str, tuple[str, Decimal]]] = {
    "bit/s": ("bit/s", Decimal(1)), "bps": ("bit/s", Decimal(1)), "b/s": ("bit/s", Decimal(1)),
    "B/s": ("bit/s", Decimal(8)), "byte/s": ("bit/s", Decimal(8)),
    "Hz": ("Hz", Decimal(1)), "hz": ("Hz", Decimal(1)), "W": ("W", Decimal(1)), "V": ("V", Decimal(1)), "A": ("A", Decimal(1)),
    "m": ("m", Decimal(1)), "g": ("g", Decimal(1)), "s": ("s", Decimal(1)), "Pa": ("Pa", Decimal(1)), "J": ("J", Decimal(1)),
    "bit": ("bit", Decimal(1)), "B": ("bit", Decimal(8)), "byte": ("bit", Decimal(8)), "pixel": ("pixel", Decimal(1)),
    "px": ("pixel", Decimal(1)), "FLOPS": ("FLOPS", Decimal(1)), "FLOP/s": ("FLOPS", Decimal(1)),
}  # fmt: skip
"""Units in use in control texts, with what makes two of them one. An unknown unit has to be equal as written."""


def compare_parameter(applied: Parameter, denied: Parameter, tolerance: Decimal) -> bool | None:
    """Whether two parameters of one name agree; None where they cannot be compared, their units being different things."""
    ours, theirs = _interval(applied), _interval(denied)
    if ours is None or theirs is None:
        return fold(applied.value) == fold(denied.value) and fold(applied.unit or "") == fold(
            denied.unit or ""
        )
    if ours[2] != theirs[2]:
        return None
    (low, high, _), (other_low, other_high, _) = ours, theirs
    # The gap between two intervals, against the larger of the two values that face each other.
    gap = max(low - other_high, other_low - high, Decimal(0))
    facing = (low, other_high) if low > other_high else (other_low, high)
    return gap <= tolerance * max(abs(facing[0]), abs(facing[1]))


def _interval(parameter: Parameter) -> tuple[Decimal, Decimal, str] | None:
    """A value as an interval in base units; None where it is no number."""
    text = parameter.value.strip()
    if len(text) > 60:  # noqa: PLR2004
        return None
    factor, unit = _unit((parameter.unit or "").strip())
    between = _RANGE.fullmatch(text)
    if between:
        low, high = sorted((_decimal(between[1]) * factor, _decimal(between[2]) * factor))
        return low, high, unit
    bound = _BOUND.fullmatch(text)
    if bound is None:
        return None
    value = _decimal(bound[2]) * factor
    if bound[1] in (">=", "≥", ">"):
        return value, max(value, _FAR), unit
    if bound[1] in ("<=", "≤", "<"):
        return min(value, -_FAR), value, unit
    return value, value, unit


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "."))


def _unit(text: str) -> tuple[Decimal, str]:
    if text in _BASES:
        base, factor = _BASES[text]
        return factor, base
    if text[1:] in _BASES and text[:1] in _PREFIXES:
        base, factor = _BASES[text[1:]]
        return _PREFIXES[text[:1]] * factor, base
    return Decimal(1), fold(text) or "1"


@dataclass(frozen=True, slots=True)
class ParameterFinding:
    """One parameter that both sides state."""

    name: str
    applied: str
    denied: str
    agrees: bool | None

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {"name": self.name, "applied": self.applied, "denied": self.denied, "agrees": self.agrees}


def compare_parameters(applied: Goods, denied: Goods, tolerance: Decimal) -> tuple[ParameterFinding, ...]:
    """Every parameter that both items state, by its folded name; the order is the application's."""
    stated = {fold(p.name): p for p in denied.parameters}
    found = []
    for ours in applied.parameters:
        theirs = stated.get(fold(ours.name))
        if theirs is not None:
            agrees = compare_parameter(ours, theirs, tolerance)
            found.append(ParameterFinding(ours.name, _shown(ours), _shown(theirs), agrees))
    return tuple(found)


def _shown(parameter: Parameter) -> str:
    return f"{parameter.value} {parameter.unit}" if parameter.unit else parameter.value


# ── items ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ItemFinding:
    """How one item of the application meets one item of the denial.

    Attributes:
        strength: `identical` (a code at the chosen depth, or parameters, and nothing against it), `unclear`
            (a weak code, a code whose parameters differ, or a denial of whatever items).
    """

    applied: str
    denied: str
    strength: Literal["identical", "unclear"]
    codes: tuple[CodeOverlap, ...]
    parameters: tuple[ParameterFinding, ...]
    why: str

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "applied": self.applied,
            "denied": self.denied,
            "strength": self.strength,
            "codes": [code.wire() for code in self.codes],
            "parameters": [parameter.wire() for parameter in self.parameters],
            "why": self.why,
        }


def compare_items(
    applied: Sequence[Goods], denied: Denied, comparison: Comparison
) -> tuple[ItemFinding, ...]:
    """Every pair of items that meets, the identical ones first."""
    found = [
        finding
        for ours in applied
        for theirs in denied.goods
        if (finding := _pair(ours, theirs, comparison)) is not None
    ]
    if denied.scope is not None:
        found.extend(_in_scope(applied, denied.scope))
    found.sort(key=lambda finding: finding.strength != "identical")  # stable: the order of the application
    return tuple(found)


def _in_scope(applied: Sequence[Goods], scope: Literal["all", "listed"]) -> Iterator[ItemFinding]:
    for ours in applied:
        if scope == "all":
            why = "The denial is about all items for this party."
            yield ItemFinding(ours.description, "all items", "identical", (), (), why)
        elif any(
            code.system not in ("HS", "CATCH-ALL") and code.canonical not in _BASKETS for code in ours.codes
        ):
            why = "The denial is about all listed items for this party, and this item is listed."
            yield ItemFinding(ours.description, "all listed items", "identical", (), (), why)
        elif not ours.codes:
            why = (
                "The denial is about all listed items, and the application states no code: it may be listed."
            )
            yield ItemFinding(ours.description, "all listed items", "unclear", (), (), why)


def _pair(ours: Goods, theirs: Goods, comparison: Comparison) -> ItemFinding | None:
    codes = tuple(
        met for a in ours.codes for d in theirs.codes if (met := overlap(a, d, comparison.depth)) is not None
    )
    parameters = compare_parameters(ours, theirs, comparison.tolerance)
    agreeing = [p for p in parameters if p.agrees]
    contradicting = [p for p in parameters if p.agrees is False]
    strong = [code for code in codes if not code.weak]
    by_parameters = bool(agreeing) and not contradicting
    if not codes and not by_parameters:
        return None
    reasons = []
    if strong:
        reasons.append(f"Both fall under {_joined({c.shared for c in strong})}.")
    elif codes:
        reasons.append(f"Both carry {_joined({c.shared for c in codes})}, which does not identify an item.")
    if agreeing:
        reasons.append(f"Parameters agree: {_joined({p.name for p in agreeing})}.")
    if contradicting:
        reasons.append(f"Parameters differ: {_joined({p.name for p in contradicting})}.")
    both_coded = bool(ours.codes and theirs.codes)
    if by_parameters and not codes and both_coded:
        reasons.append("Their codes do not meet.")
    identical = (bool(strong) and not contradicting) or (by_parameters and not (both_coded and not codes))
    strength: Literal["identical", "unclear"] = "identical" if identical else "unclear"
    return ItemFinding(ours.description, theirs.description, strength, codes, parameters, " ".join(reasons))


def _joined(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# ── the check ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Finding:
    """How an application meets one denial.

    Attributes:
        verdict: `essentially_identical` and `possibly_identical`: consult. `same_site_other_name`: the code and the
            address or an identifier meet under another name; an identifier asks for a consultation too. `other_items`: the party is the same, the items are not.
        valid_now, within_look_back: kept apart; one of them holds.
        same_destination: None where one of the two names none.
        why: sentences for a person.
    """

    verdict: Verdict
    valid_now: bool
    within_look_back: bool
    parties: tuple[PartyMatch, ...]
    items: tuple[ItemFinding, ...]
    same_destination: bool | None
    why: tuple[str, ...]

    @property
    def asks_consultation(self) -> bool:
        """Whether the issuer has to be asked before this is granted. An equal identifier is the same party, renamed."""
        return self.verdict in ("essentially_identical", "possibly_identical") or (
            self.verdict == "same_site_other_name" and any(p.basis == "identifier" for p in self.parties)
        )

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API, without the notice it is about."""
        return {
            "verdict": self.verdict,
            "valid_now": self.valid_now,
            "within_look_back": self.within_look_back,
            "parties": [
                {
                    "role": p.role,
                    "name": p.name,
                    "denied_role": p.denied_role,
                    "denied_name": p.denied_name,
                    "score": round(p.score, 4),
                    "rests_on": p.basis,
                }
                for p in self.parties
            ],
            "items": [item.wire() for item in self.items],
            "same_destination": self.same_destination,
            "why": list(self.why),
        }


def look_back_begins(today: date, years: int = LOOK_BACK_YEARS) -> date:
    """The first day that is looked back to; the 29th of February becomes the 28th."""
    try:
        return today.replace(year=today.year - years)
    except ValueError:
        return today.replace(year=today.year - years, day=28)


def check(
    denied: Denied,
    matches: Iterable[PartyMatch],
    goods: Sequence[Goods],
    *,
    destination: str | None,
    today: date,
    comparison: Comparison | None = None,
) -> Finding | None:
    """Compare an application with one denial; None where they have nothing to do with each other.

    Args:
        denied: the denial.
        matches: what screening found between the application's parties and this denial's.
        goods: the application's items.
        destination: the application's, alpha-2.
        today: UTC.
        comparison: how strictly; by default the number of the code and a tenth.
    """
    within = denied.denied_on is not None and look_back_begins(today) <= denied.denied_on <= today
    if not (denied.valid_now or within):
        return None
    counting = tuple(m for m in matches if m.counts)
    if not counting:
        return None
    named = tuple(m for m in counting if m.basis == "name")
    items = compare_items(goods, denied, comparison or Comparison())
    identical = any(item.strength == "identical" for item in items)
    same_destination = (
        None if None in (destination, denied.destination) else destination == denied.destination
    )
    verdict: Verdict
    if not named:
        if not any(code for item in items for code in item.codes if not code.weak):
            return None  # an address alone is a hit of screening, and says nothing of a transaction
        verdict = "same_site_other_name"
    elif identical:
        verdict = "essentially_identical"
    elif items or _cannot_tell(goods, denied):
        verdict = "possibly_identical"
    else:
        verdict = "other_items"
    shown = named or counting
    why = tuple(_why(verdict, denied, shown, items, within=within, same_destination=same_destination))
    return Finding(verdict, denied.valid_now, within, shown, items, same_destination, why)


def _cannot_tell(goods: Sequence[Goods], denied: Denied) -> bool:
    """Whether a side states neither codes nor parameters: then nothing was compared, which is not the same as different."""
    return any(not any(g.codes or g.parameters for g in side) for side in (goods, denied.goods))


def _why(
    verdict: Verdict,
    denied: Denied,
    parties: Sequence[PartyMatch],
    items: Sequence[ItemFinding],
    *,
    within: bool,
    same_destination: bool | None,
) -> Iterator[str]:
    for match in parties[:3]:
        if match.basis == "name":
            yield f"{match.name} ({_plain(match.role)}) may be {match.denied_name} ({_plain(match.denied_role)})."
        else:
            what = "an address" if match.basis == "address" else "an identifier"
            yield f"{match.name} shares {what} with {match.denied_name}, under another name."
    for item in items[:3]:
        yield item.why
    if verdict == "possibly_identical" and not items:
        yield "One side states neither codes nor parameters, so the items could not be compared."
    if verdict == "other_items":
        yield "The items do not meet at the chosen depth, and no parameters agree."
    when = "without a date" if denied.denied_on is None else f"of {denied.denied_on.isoformat()}"
    if denied.valid_now and within:
        yield f"The denial {when} is valid now and within the last three years."
    elif denied.valid_now:
        yield f"The denial {when} is valid now; it is not within the last three years."
    else:
        yield f"The denial {when} has ended, and is within the last three years."
    if same_destination is False:
        yield "The destinations differ."


def _plain(role: str) -> str:
    return role.replace("_", "-") if role == "end_user" else role.replace("_", " ")
