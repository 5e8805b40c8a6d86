"""Control-list codes: one spelling for one entry, whoever's list it was read from, and search by prefix.

Guarantees that two codes for the same entry have the same `canonical` text: Wassenaar's `5.A.1.j` is `5A001.j`, as in the
numbering that the EU, the UK and the US share. Whether an entry exists in an edition of a list is not checked: lists change.

A prefix ends only where a code has a joint: category digit, product group, whole number, then each paragraph. So
`5A001` finds `5A001` and `5A001.j` and never `5A0011`; `5A` finds all of category 5's equipment; `5A0` is refused. For SQL
every code is stored with its `ancestors`, and a query is one indexed equality with `canonical_query(text)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, get_args

from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable


MAX_CODE: Final = 40
"""Characters; the longest codes in use, deep ECCN paragraphs and annex entries, have about twenty-five."""


class InvalidControlCode(Malformed):
    """A code that its system cannot have."""

    code = "invalid-control-code"


System = Literal["EU", "UK", "US", "WA", "ML", "UK-PL", "EU-AT", "CATCH-ALL", "HS"]
"""The values of `system` on the wire. EU, UK and US share one numbering and WA is its source; ML is the munitions list,
UK-PL the United Kingdom's national list, EU-AT Regulation (EU) 2019/125. HS alone never identifies a controlled item."""

SYSTEMS: Final[tuple[System, ...]] = get_args(System)


@dataclass(frozen=True, slots=True)
class ControlCode:
    """One entry of one list. `edition` is the list's edition as its issuer names it, for instance `2025/2003`."""

    system: str
    edition: str | None
    code: str  # as written
    canonical: str

    @classmethod
    def parse(cls, system: str, code: str, edition: str | None = None) -> ControlCode:
        """Read a code of a system.

        Raises:
            InvalidControlCode: an unknown system, or a code that the system's numbering cannot have.
        """
        return cls(system, edition, code, canonical(system, code))

    def ancestors(self) -> tuple[str, ...]:
        """Every prefix that finds this code, itself last."""
        return ancestors(self.canonical)


# ── one spelling per family of numberings ─────────────────────────────────────────────────────────────────────────

_LISTED = re.compile(r"([0-9])([A-E])([0-9]{3})((?:\.[A-Z0-9]{1,3})*)")
_WASSENAAR = re.compile(r"([1-9])\.([A-E])\.([0-9]{1,2})((?:\.[A-Z0-9]{1,3})*)")
_MUNITIONS = re.compile(r"(ML(?:[1-9]|1[0-9]|2[0-2]))((?:\.?[A-Z](?:\.?[0-9A-Z])*)?)")
_UK_NATIONAL = re.compile(r"(PL[59][0-9]{3})((?:\.?[A-Z0-9])*)")
_ANTI_TORTURE = re.compile(r"2019/125 ANNEX (II|III|IV)(?: ([0-9]+(?:\.[0-9]+)*))?")
_CATCH_ALL = re.compile(r"EU:ART(4|5|9|10)|US:744\.([0-9]{1,2})")
_HARMONISED = re.compile(r"[0-9]{4}(?:[0-9]{2}){0,3}")
_RUNS = re.compile(r"[a-z]+|[0-9]+")


def _listed(code: str) -> str | None:
    match = _LISTED.fullmatch(code)
    return f"{match[1]}{match[2]}{match[3]}{match[4].lower()}" if match else None


def _us(code: str) -> str | None:
    return "EAR99" if code == "EAR99" else _listed(code)


def _wassenaar(code: str) -> str | None:
    match = _WASSENAAR.fullmatch(code)
    return f"{match[1]}{match[2]}{int(match[3]):03}{match[4].lower()}" if match else None


def _paragraphs(match: re.Match[str] | None) -> str | None:
    # National lists write ML10c, ML10.c and ML8.a.12 side by side: every run of letters or digits is a paragraph.
    return ".".join((match[1], *_RUNS.findall(match[2].lower()))) if match else None


def _munitions(code: str) -> str | None:
    return _paragraphs(_MUNITIONS.fullmatch(code))


def _uk_national(code: str) -> str | None:
    return _paragraphs(_UK_NATIONAL.fullmatch(code))


def _anti_torture(code: str) -> str | None:
    match = _ANTI_TORTURE.fullmatch(code)
    return f"2019/125 Annex {match[1]}" + (f" {match[2]}" if match[2] else "") if match else None


def _catch_all(code: str) -> str | None:
    match = _CATCH_ALL.fullmatch(code)
    return (f"EU:Art{match[1]}" if match[1] else f"US:744.{match[2]}") if match else None


def _harmonised(code: str) -> str | None:
    digits = code.replace(".", "")
    return digits if _HARMONISED.fullmatch(digits) else None


@dataclass(frozen=True, slots=True)
class _Numbering:
    spell: Callable[[str], str | None]  # upper-case text -> canonical, or None
    advice: str


_SYSTEMS: Final[dict[str, _Numbering]] = {
    "EU": _Numbering(
        _listed,
        "EU Annex I codes look like 5A001 or 5A001.j: digit, A to E, three digits, paragraphs after dots",
    ),
    "UK": _Numbering(
        _listed, "UK dual-use codes look like 5A001 or 5A001.j; national PL codes have the system UK-PL"
    ),
    "US": _Numbering(
        _us, "ECCNs look like 5A001.j or 3A981; an item subject to the EAR and not listed is EAR99"
    ),
    "WA": _Numbering(_wassenaar, "Wassenaar dual-use codes look like 5.A.1.j; munitions have the system ML"),
    "ML": _Numbering(_munitions, "munitions codes look like ML10.c, from ML1 to ML22"),
    "UK-PL": _Numbering(_uk_national, "UK national codes look like PL5001.c: PL, 5 or 9, three digits"),
    "EU-AT": _Numbering(
        _anti_torture, "anti-torture codes look like '2019/125 Annex III' or '2019/125 Annex III 2.1'"
    ),
    "CATCH-ALL": _Numbering(
        _catch_all, "catch-all codes are EU:Art4, EU:Art5, EU:Art9, EU:Art10 and US:744.n"
    ),
    "HS": _Numbering(_harmonised, "HS, CN and TARIC codes have 4, 6, 8 or 10 digits, for instance 8517.62"),
}


@lru_cache(maxsize=4096)  # the same few hundred codes come in every notice
def canonical(system: str, code: str) -> str:
    """The one spelling of a code: base in capitals, paragraphs in small letters, dots between them.

    Raises:
        InvalidControlCode: an unknown system, or a code that the system's numbering cannot have.
    """
    known = _SYSTEMS.get(system)
    if known is None:
        raise InvalidControlCode(
            f"{system!r} is not a list this version knows. Use one of {', '.join(SYSTEMS)}."
        )
    # Beyond ASCII, capitals of other letters fall on ours: the small dotless i becomes I.
    spelling = known.spell(code.upper()) if code.isascii() else None
    if spelling is None:
        raise InvalidControlCode(f"{code[:MAX_CODE]!r} is not a code of {system}: {known.advice}.")
    return spelling


# ── search by prefix ──────────────────────────────────────────────────────────────────────────────────────────────

_QUERY_GROUP = re.compile(r"([0-9])(?:\.?([A-E]))?")
_HS_STEPS = (4, 6, 8, 10)
_ANNEX = re.compile(r"2019/125 Annex (II|III|IV)\b")


def ancestors(code: str) -> tuple[str, ...]:
    """The canonical prefixes that find a canonical code, shortest first, the code itself last.

    `5A001.j.1` -> `5`, `5A`, `5A001`, `5A001.j`, `5A001.j.1`; `85176200` -> `8517`, `851762`, `85176200`;
    `ML10.c` -> `ML10`, `ML10.c`; `2019/125 Annex III 2.1` -> the annex, then `… 2`, then `… 2.1`.
    """
    if code.isdigit():
        return tuple(code[:length] for length in _HS_STEPS if length <= len(code))
    # In "2019/125 Annex III 2.1" the annex is the first thing that can be asked for.
    start = _ANNEX.match(code)
    first = start.end() if start else 0
    joints = [position for position, character in enumerate(code) if position >= first and character in ". "]
    prefixes = (*(code[:joint] for joint in joints), code)
    if _LISTED.fullmatch(code.upper()):
        return (code[0], code[:2], *prefixes)
    return prefixes


def canonical_query(text: str) -> str:
    """The canonical prefix a person means: a whole code of any system, or a category (`5`) or product group (`5A`, `5.A`).

    Raises:
        InvalidControlCode: no system has such a code, or it stops inside a number.
    """
    upper = text.strip().upper() if text.isascii() and len(text) <= MAX_CODE else ""
    group = _QUERY_GROUP.fullmatch(upper)
    if group is not None:
        return group[1] + (group[2] or "")
    for numbering in _SYSTEMS.values():
        spelling = numbering.spell(upper)
        if spelling is not None:
            return spelling
    if upper == "US:744":
        return upper
    raise InvalidControlCode(
        f"{text[:MAX_CODE]!r} is no control-list code and no prefix of one. Write a category (5), a product group (5A), "
        "or a whole number with or without paragraphs (5A001, 5A001.j, 5.A.1.j, ML10, EAR99, 8517.62)."
    )


def prefix_matches(query: str, code: str) -> bool:
    """Whether the query finds the canonical code: `5A001` finds `5A001.j`, not `5A0011`.

    Raises:
        InvalidControlCode: the query is no prefix that a code can have.
    """
    return canonical_query(query) in ancestors(code)
