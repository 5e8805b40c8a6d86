"""The vocabulary of events: what a node tells those who asked to be told, by webhook, feed, stream or mail.

A type keeps its name and its meaning for good. Adding one is a minor change: a receiver ignores types it does not know.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

EventType = Literal[
    # What became of a notice. `expired` and `review_overdue` come from the clock, `confirmed` from cosignatures.
    "notice.issued",
    "notice.amended",
    "notice.withdrawn",
    "notice.expired",
    "notice.review_overdue",
    "notice.recalled",
    "notice.erased",
    "notice.confirmed",
    # The same, for those who want to hear of nothing else: told beside `notice.issued` of the same leaf.
    "question.asked",
    "question.answered",
    "consultation.requested",
    "consultation.answered",
    "consultation.closed",
    "acknowledgement.received",
    # For one caller alone.
    "watchlist.matched",
    "subscription.failing",
    "subscription.disabled",
    "subscription.recovered",
    # The federation itself; no notice is concerned.
    "log.fault",
    "roster.changed",
]

EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)

PRIVATE: Final[frozenset[EventType]] = frozenset(
    {"watchlist.matched", "subscription.failing", "subscription.disabled", "subscription.recovered"}
)
"""Types that name an owner, and are for it alone."""

WITHOUT_NOTICE: Final[frozenset[EventType]] = frozenset(
    {
        "subscription.failing",
        "subscription.disabled",
        "subscription.recovered",
        "log.fault",
        "roster.changed",
    }
)
"""Types that concern no notice. No filter over notices selects them; their type alone does."""

URGENT: Final[frozenset[EventType]] = frozenset({"notice.withdrawn", "notice.recalled", "notice.erased"})
"""Told before everything else that waits: somebody may be acting on what is no longer so."""

OF_KIND: Final[dict[str, EventType]] = {
    "issue": "notice.issued",
    "amend": "notice.amended",
    "withdraw": "notice.withdrawn",
}

OF_NOTICE_TYPE: Final[dict[str, EventType]] = {
    "question": "question.asked",
    "answer": "question.answered",
    "consultation_request": "consultation.requested",
    "consultation_response": "consultation.answered",
    "consultation_outcome": "consultation.closed",
}


def of_version(kind: str, notice_type: str | None) -> tuple[EventType, ...]:
    """What happened when a version of a notice came with its content.

    Args:
        kind: of the statement: issue, amend or withdraw.
        notice_type: of the notice; None if it is not known here.
    """
    own = OF_NOTICE_TYPE.get(notice_type or "") if kind == "issue" else None
    return (OF_KIND[kind],) if own is None else (OF_KIND[kind], own)
