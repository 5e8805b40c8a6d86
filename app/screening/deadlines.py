"""By when a consulted State answers: working days of its export-control authority, counted by kept holiday calendars.

Guarantees that a due date is a working day of the consulted State, that the day of asking does not count (as in Regulation
(EEC, Euratom) 1182/71, article 3), and that the calendar's edition is part of the answer, so that a later edition explains a
later difference. Ten working days to answer, at most thirty with extensions: Regulation (EU) 2021/821, article 16(5).

The calendars are the package `holidays` (public holidays of all 25 Subscribing States, with movable feasts, days in lieu
and working Saturdays). Holidays that follow the moon are estimates until they are proclaimed, and are said to be. What a
calendar cannot know, for instance a day of mourning proclaimed last week, is left to the two contact points.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import Malformed
from app.domain.states import STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ANSWER_WORKING_DAYS: Final = 10
LONGEST_WORKING_DAYS: Final = 30
"""Extensions included."""

FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2080
"""Beyond these the calendars hold too little to count with."""

SEATS: Final[Mapping[str, str]] = {
    "AU": "ACT", "CA": "ON", "DE": "HE", "ES": "MD", "GB": "ENG", "NZ": "WGN", "US": "DC",
}  # fmt: skip
"""Where regional holidays differ: the region in which the State's authority has its offices (capital; Germany's is in
Eschborn, Hesse)."""

_GOVERNMENT: Final = "government"  # days on which public offices are closed and shops are not (CA, US)
_ESTIMATED: Final = "estimated"
_EDITION: Final = version("holidays")


class NoCalendar(Malformed):
    """A State or a year for which no calendar is kept."""

    code = "no-calendar"


@dataclass(frozen=True, slots=True)
class Closure:
    """A weekday, Monday to Friday, on which the authority is closed."""

    on: date
    name: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer is due.

    Attributes:
        state: the consulted State, alpha-2.
        asked_on: the day of asking, which does not count.
        working_days: of that State, counted.
        due: the last of them.
        closures: weekdays in between that did not count.
        calendar: edition of the calendar and region, for the record.
    """

    state: str
    asked_on: date
    working_days: int
    due: date
    closures: tuple[Closure, ...]
    calendar: str

    @property
    def estimated(self) -> bool:
        """Whether it rests on a holiday whose date is not certain yet."""
        return any(closure.estimated for closure in self.closures)

    def wire(self) -> dict[str, Any]:
        """The JSON object of the API."""
        return {
            "asked_on": self.asked_on.isoformat(),
            "working_days": self.working_days,
            "due": self.due.isoformat(),
            "closed": [{"on": c.on.isoformat(), "name": c.name} for c in self.closures],
            "estimated": self.estimated,
            "calendar": self.calendar,
        }


def answer_due(state: str, asked_on: date, working_days: int = ANSWER_WORKING_DAYS) -> Deadline:
    """When `state` has to answer what it was asked on `asked_on`.

    Args:
        state: alpha-2 code of a Subscribing State.
        asked_on: the date of the request, UTC.
        working_days: 1 to LONGEST_WORKING_DAYS.

    Raises:
        NoCalendar: an unknown State, a number of days out of range, or a date outside the calendars.
    """
    if not 1 <= working_days <= LONGEST_WORKING_DAYS:
        raise NoCalendar(
            f"An answer is due within 1 to {LONGEST_WORKING_DAYS} working days, extensions included."
        )
    closures: list[Closure] = []
    counted = 0
    for day in _days_after(asked_on):
        closure = closed_on(state, day)
        if closure is None:
            counted += 1
        elif day.weekday() < 5:  # noqa: PLR2004
            closures.append(closure)
        if counted == working_days:
            break
    return Deadline(state, asked_on, working_days, day, tuple(closures), calendar_of(state))


def closed_on(state: str, day: date) -> Closure | None:
    """Why the authority of `state` does not work on a day, or None if it does.

    Raises:
        NoCalendar: an unknown State, or a date outside the calendars.
    """
    named, working = _year(state, day.year)
    if day in working:
        return None
    name = named.get(day)
    if name is None:
        return Closure(day, "weekend", estimated=False) if day.weekday() >= 5 else None  # noqa: PLR2004
    return Closure(day, name, estimated=_ESTIMATED in name.lower())


def calendar_of(state: str) -> str:
    """The calendar that is used for a State, for the record: package, edition, country and region."""
    region = f"-{SEATS[state]}" if state in SEATS else ""
    return f"holidays {_EDITION} {state}{region}"


def _days_after(day: date) -> Iterator[date]:
    while True:
        day += timedelta(days=1)
        yield day


@lru_cache(maxsize=256)
def _year(state: str, year: int) -> tuple[Mapping[date, str], frozenset[date]]:
    """Holidays of a year with their names, and the days of weekends that are worked in lieu."""
    if state not in STATES:
        raise NoCalendar(f"{state[:8]!r} is no Subscribing State, so no calendar is kept for it.")
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise NoCalendar(f"The calendars reach from {FIRST_YEAR} to {LAST_YEAR}; {year} is outside.")
    import holidays  # noqa: PLC0415 - calendars of a hundred countries: at the first question about one

    supported = holidays.country_holidays(state).supported_categories
    categories = tuple(c for c in ("public", _GOVERNMENT) if c in supported)
    # The year's own entries and what its neighbours move into it: New Year's Day on a Saturday is kept the Friday before.
    kept = holidays.country_holidays(
        state,
        subdiv=SEATS.get(state),
        years=(year - 1, year, year + 1),
        categories=categories,
        language="en_US",
    )
    named = {day: name for day, name in kept.items() if day.year == year}
    return named, frozenset(day for day in getattr(kept, "weekend_workdays", ()) if day.year == year)
