"""The life of a notice as its log tells it: issue → amend* → withdraw, then at most an erasure.

This is decided by statement headers alone, since a node outside the audience sees nothing else and must come to the same
result. It is a fold: `advance(history, statement, index)` returns what the statement does or raises why it may not, and
does not know whether the statement arrives at the local or the remote door.

Expiry is not an event: a notice past its `exp` or `valid_until` is expired by the reader's clock. A review date that has
passed makes a notice `review_overdue`, and it stays valid (Regulation (EU) 2021/821, article 16).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol

from app.domain.errors import IdReused, LeafReplayed, NoticeClosed, StaleReference, UnknownReference
from app.domain.statement import NOTICE_KINDS

if TYPE_CHECKING:
    from app.domain.statement import Statement

Status = Literal["active", "withdrawn", "erased"]

ELSEWHERE: Final = -1
"""`root_index` of a notice that stands in the ended log which this one continues. What acts on it first is its root here."""


@dataclass(frozen=True, slots=True)
class NoticeState:
    """Where a notice stands after some prefix of its log.

    Attributes:
        root_id, root_index: of the statement that issued it; `root_id` is the notice's id. For a notice of an ended log,
            `root_index` is that of the first statement about it in this one, or ELSEWHERE before there is any.
        current_index, current_hash: of the newest version (issue, amend or withdraw).
        version: 1 for the issue, plus one for each amendment or withdrawal.
    """

    root_id: str
    root_index: int
    status: Status
    current_index: int
    current_hash: bytes
    version: int


class History(Protocol):
    """What a log said before the statement at hand."""

    def statement_with_id(self, statement_id: str) -> bytes | None:
        """Leaf hash of the valid statement with this id, or None."""
        ...

    def notice_with_version(self, leaf_hash: bytes) -> NoticeState | None:
        """The notice one of whose versions has this leaf hash, as it stands now, or None.

        Also of the logs that this one continues, below the size at which each was ended.
        """
        ...


def check_fresh(history: History, statement: Statement) -> None:
    """Check that the statement is new to its log.

    Raises:
        LeafReplayed: the same bytes stand in the log already.
        IdReused: the id does, under other bytes.
    """
    known = history.statement_with_id(statement.id)
    if known == statement.leaf_hash:
        raise LeafReplayed(f"Statement {statement.id} already stands in this log with the same bytes.")
    if known is not None:
        raise IdReused(
            f"The id {statement.id} already stands in this log under other bytes. Make a new id for every statement; to "
            "change a notice, amend it."
        )


def advance(history: History, statement: Statement, index: int) -> NoticeState | None:
    """What `statement`, standing at `index`, does to a notice of its own log; None if it concerns none.

    Raises:
        LeafReplayed, IdReused: see `check_fresh`.
        UnknownReference: `ref` is no version of a notice in this log (another State's notice, for instance).
        StaleReference: `ref` is an earlier version than the current one.
        NoticeClosed: the notice is withdrawn (only an erasure may follow) or erased (nothing may).
    """
    check_fresh(history, statement)
    if statement.kind == "issue":
        return NoticeState(statement.id, index, "active", index, statement.leaf_hash, 1)
    if statement.kind not in NOTICE_KINDS and statement.kind != "erase":
        return None  # ack, roster, anchor, evidence concern no notice of their own log
    assert statement.ref is not None  # noqa: S101 - `parse` guarantees it for these kinds
    notice = history.notice_with_version(statement.ref)
    if notice is None:
        raise UnknownReference(
            "ref names no version of a notice in this log or one that it continues. Only the State that issued a notice may amend, withdraw or "
            "erase it, in the log that carries it."
        )
    if notice.status == "erased" or (notice.status == "withdrawn" and statement.kind != "erase"):
        raise NoticeClosed(
            f"Notice {notice.root_id} is {notice.status}; nothing can follow. Issue a new notice."
        )
    if statement.ref != notice.current_hash:
        raise StaleReference(
            f"Notice {notice.root_id} has a newer version than the one acted on: refer to leaf hash "
            f"{notice.current_hash.hex()} (version {notice.version}).",
            notice.current_hash.hex(),
        )
    moves = notice.root_index == ELSEWHERE
    root = index if moves else notice.root_index
    if statement.kind == "erase":
        current = index if moves else notice.current_index
        return replace(notice, status="erased", root_index=root, current_index=current)
    return replace(
        notice,
        root_index=root,
        status="withdrawn" if statement.kind == "withdraw" else "active",
        current_index=index,
        current_hash=statement.leaf_hash,
        version=notice.version + 1,
    )
