"""Due dates: working days of the consulted State, by its calendar."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.states import STATES
from app.screening.deadlines import (
    ANSWER_WORKING_DAYS,
    LONGEST_WORKING_DAYS,
    NoCalendar,
    answer_due,
    calendar_of,
    closed_on,
)

DAYS = st.dates(date(2024, 1, 1), date(2030, 12, 31))
CODES = st.sampled_from(sorted(STATES))


@given(state=CODES, asked=DAYS, count=st.integers(1, LONGEST_WORKING_DAYS))
def test_a_due_date_is_the_last_of_so_many_working_days_after_the_day_of_asking(
    state: str, asked: date, count: int
) -> None:
    deadline = answer_due(state, asked, count)
    between = [asked + timedelta(n) for n in range(1, (deadline.due - asked).days + 1)]
    assert sum(closed_on(state, day) is None for day in between) == count
    assert closed_on(state, deadline.due) is None
    closed = [day for day in between if closed_on(state, day) is not None and day.weekday() < 5]
    assert [closure.on for closure in deadline.closures] == closed


@given(state=CODES, asked=DAYS)
def test_who_asks_later_is_never_answered_earlier_and_one_more_day_is_later(state: str, asked: date) -> None:
    assert answer_due(state, asked).due <= answer_due(state, asked + timedelta(1)).due
    assert answer_due(state, asked, 10).due < answer_due(state, asked, 11).due


# A day off of each State that no neighbour shares, from its own law; all on weekdays of 2026.
CLOSED = {
    "AL": "2026-12-08", "AU": "2026-01-26", "BG": "2026-03-03", "CA": "2026-07-01", "CR": "2026-09-15", "HR": "2026-06-04",
    "CZ": "2026-10-28", "DK": "2026-05-14", "EC": "2026-08-10", "EE": "2026-02-24", "FI": "2026-06-19", "FR": "2026-07-14",
    "DE": "2026-06-04", "JP": "2026-04-29", "XK": "2026-02-17", "LV": "2026-11-18", "NL": "2026-04-27", "NZ": "2026-02-06",
    "MK": "2026-09-08", "NO": "2026-05-25", "KR": "2026-10-09", "SK": "2026-09-01", "ES": "2026-10-12", "GB": "2026-05-04",
    "US": "2026-11-26",
}  # fmt: skip


@pytest.mark.parametrize("state", sorted(STATES))
def test_every_subscribing_state_has_a_calendar(state: str) -> None:
    day = date.fromisoformat(CLOSED[state])
    if state == "SK":  # the Day of the Constitution is a holiday and, since 2025, worked
        assert closed_on(state, day) is None
        day = date(2026, 1, 6)
    closure = closed_on(state, day)
    assert closure is not None
    assert closure.name != "weekend"
    assert closed_on(state, date(2026, 3, 11)) is None  # an ordinary Wednesday everywhere
    assert calendar_of(state).startswith("holidays ")


def test_the_same_request_is_due_on_different_days() -> None:
    asked = date(2026, 12, 18)
    due = {state: answer_due(state, asked).due.isoformat() for state in ("JP", "DE", "GB", "LV", "EE")}
    assert due == {
        "JP": "2027-01-04",
        "DE": "2027-01-05",
        "GB": "2027-01-06",
        "LV": "2027-01-07",
        "EE": "2027-01-06",
    }
    assert answer_due("GB", asked).working_days == ANSWER_WORKING_DAYS


def test_a_day_in_lieu_that_the_new_year_moves_into_the_old_one_is_closed() -> None:
    closure = closed_on("US", date(2027, 12, 31))
    assert closure is not None
    assert "observed" in closure.name


def test_a_saturday_that_is_worked_in_lieu_counts() -> None:
    assert closed_on("LV", date(2026, 1, 17)) is None
    assert closed_on("EE", date(2026, 1, 17)) is not None


def test_a_feast_that_follows_the_moon_makes_the_date_an_estimate() -> None:
    assert answer_due("AL", date(2027, 3, 1)).estimated
    assert not answer_due("EE", date(2027, 3, 1)).estimated


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(NoCalendar, match="Subscribing State"):
        answer_due("RU", date(2026, 1, 1))
    with pytest.raises(NoCalendar, match="1990"):
        answer_due("EE", date(1990, 1, 1))
    for days in (0, 31):
        with pytest.raises(NoCalendar, match="1 to 30"):
            answer_due("EE", date(2026, 1, 1), days)
