"""When to try again: pure arithmetic, with the randomness and the time handed in.

Nine waits from five seconds to a day, 75 hours in all, each stretched or shortened by up to a fifth so that a thousand
deliveries that failed together do not come back together. A receiver's `Retry-After` counts between the wait and its
double. An endpoint that fails for five days without one success is disabled; its owner is told after one day.

The circuit of an endpoint: after five failures in a row it is open. Then nothing goes there until a rest is over, and
after the rest one delivery, to try it; each failure doubles the rest, up to ten minutes, and a success closes the circuit.
Deliveries that wait for a closed circuit use up none of their attempts.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

SCHEDULE_MS: Final[tuple[int, ...]] = (
    5 * SECOND,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
JITTER: Final = 0.2
LONGEST_MS: Final = DAY
DISABLE_AFTER_MS: Final = 5 * DAY
WARN_AFTER_MS: Final = DAY

OPEN_AFTER: Final = 5
"""Failures in a row that open an endpoint's circuit."""

REST_SHORTEST_MS: Final = 30 * SECOND
REST_LONGEST_MS: Final = 10 * MINUTE

PAUSE_SHORTEST_MS: Final = 5 * SECOND
PAUSE_LONGEST_MS: Final = 5 * MINUTE
OVERLOADED: Final = frozenset({429, 502, 503, 504})
"""Answers that mean "slow down": the whole endpoint rests a while, not one delivery only."""

Verdict = Literal["delivered", "retry", "gone"]


def verdict(status: int | None) -> Verdict:
    """What an answer means; None is no answer. Redirects are failures: following one would leave the checked address."""
    if status is None:
        return "retry"
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success
        return "delivered"
    return "gone" if status == 410 else "retry"  # noqa: PLR2004 - Gone: the receiver asks never to be called again


def next_delay(
    attempts: int,
    fraction: float,
    retry_after_ms: int | None = None,
    *,
    schedule_ms: Sequence[int] = SCHEDULE_MS,
) -> int | None:
    """Milliseconds to wait after the `attempts`-th attempt failed, or None when it was the last.

    Args:
        attempts: attempts made so far, at least 1.
        fraction: a random number in [0, 1).
        retry_after_ms: what the receiver asked for, from `parse_retry_after`.
        schedule_ms: the waits, one after each attempt but the last.
    """
    if attempts > len(schedule_ms):
        return None
    base = schedule_ms[attempts - 1]
    jittered = round(base * (1 - JITTER + 2 * JITTER * fraction))
    if retry_after_ms is not None:
        jittered = max(base, min(retry_after_ms, 2 * base))
    return min(jittered, LONGEST_MS)


def pause_after(status: int | None, retry_after_ms: int | None) -> int:
    """Milliseconds for which the endpoint is left alone altogether after this answer."""
    if status not in OVERLOADED:
        return 0
    return max(PAUSE_SHORTEST_MS, min(retry_after_ms or 0, PAUSE_LONGEST_MS))


def is_open(failures: int) -> bool:
    """Whether so many failures in a row keep an endpoint's circuit open."""
    return failures >= OPEN_AFTER


def rest_after(failures: int, fraction: float) -> int:
    """Milliseconds for which nothing goes to an endpoint after so many failures in a row; 0 while its circuit is closed."""
    if not is_open(failures):
        return 0
    rest = min(REST_SHORTEST_MS << min(failures - OPEN_AFTER, 10), REST_LONGEST_MS)
    return round(rest * (1 - JITTER + 2 * JITTER * fraction))


def must_disable(failing_since_ms: int | None, now_ms: int) -> bool:
    """Whether a failure now ends the subscription: the first of an unbroken row of failures was five days ago."""
    return failing_since_ms is not None and now_ms - failing_since_ms >= DISABLE_AFTER_MS


def parse_retry_after(text: str | None, now_ms: int) -> int | None:
    """Read a `Retry-After` header (RFC 9110 section 10.2.3): seconds or a date. None if absent or unreadable."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:10]) * SECOND, LONGEST_MS)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0, min(round(date.timestamp() * 1000) - now_ms, LONGEST_MS))
