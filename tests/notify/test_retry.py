"""When to try again."""

from __future__ import annotations

import pytest

from app.notify import retry
from app.notify.retry import DAY, HOUR, MINUTE, SECOND


def test_the_middle_of_the_jitter_is_the_schedule() -> None:
    waits = [retry.next_delay(n, 0.5) for n in range(1, 11)]
    assert waits == [
        5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR, None,
    ]  # fmt: skip


def test_the_jitter_is_a_fifth_either_way_and_never_passes_a_day() -> None:
    assert retry.next_delay(1, 0.0) == 4 * SECOND
    assert retry.next_delay(1, 0.999999) == 6 * SECOND
    assert retry.next_delay(9, 0.999999) == DAY


@pytest.mark.parametrize(
    ("asked", "given"),
    [(0, 5 * SECOND), (7 * SECOND, 7 * SECOND), (HOUR, 10 * SECOND), (5 * SECOND, 5 * SECOND)],
)
def test_retry_after_counts_between_the_wait_and_its_double(asked: int, given: int) -> None:
    assert retry.next_delay(1, 0.0, asked) == given


def test_retry_after_never_passes_a_day() -> None:
    assert retry.next_delay(9, 0.5, 2 * DAY) == DAY


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("120", 120_000),
        (" 0 ", 0),
        ("99999999999999999999", DAY),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20_000),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("٣", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, ms: int | None) -> None:
    assert retry.parse_retry_after(text, 10_000) == ms


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, "delivered"), (204, "delivered"), (299, "delivered"), (301, "retry"), (304, "retry"), (400, "retry"),
     (404, "retry"), (410, "gone"), (429, "retry"), (500, "retry"), (None, "retry")],
)  # fmt: skip
def test_what_an_answer_means(status: int | None, verdict: str) -> None:
    assert retry.verdict(status) == verdict


def test_an_overloaded_endpoint_rests_as_a_whole() -> None:
    assert retry.pause_after(500, 60_000) == 0
    assert retry.pause_after(429, None) == 5 * SECOND
    assert retry.pause_after(503, 60_000) == MINUTE
    assert retry.pause_after(429, DAY) == 5 * MINUTE


def test_five_days_of_failures_end_a_subscription() -> None:
    assert not retry.must_disable(None, 9 * DAY)
    assert not retry.must_disable(0, 5 * DAY - 1)
    assert retry.must_disable(0, 5 * DAY)
