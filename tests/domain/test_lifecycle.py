"""The state machine against a model that knows nothing of hashes: issue → amend* → withdraw, then at most an erasure."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import IdReused, LeafReplayed, NoticeClosed, StaleReference, UnknownReference
from app.domain.lifecycle import NoticeState, advance
from app.domain.statement import Statement
from tests import examples
from tests.federation.world import Officer, seeded

EE = Officer("EE", seeded("EE/cp/1"))


@dataclass
class Memory:
    """The simplest history: two dictionaries."""

    ids: dict[str, bytes] = field(default_factory=dict)
    roots: dict[bytes, str] = field(default_factory=dict)
    notices: dict[str, NoticeState] = field(default_factory=dict)
    size: int = 0

    def statement_with_id(self, statement_id: str) -> bytes | None:
        return self.ids.get(statement_id)

    def notice_with_version(self, leaf_hash: bytes) -> NoticeState | None:
        root = self.roots.get(leaf_hash)
        return None if root is None else self.notices[root]

    def take(self, statement: Statement) -> NoticeState | None:
        state = advance(self, statement, self.size)
        self.size += 1
        self.ids[statement.id] = statement.leaf_hash
        if state is not None:
            self.notices[state.root_id] = state
            if statement.kind != "erase":
                self.roots[statement.leaf_hash] = state.root_id
        return state


def issue() -> Statement:
    return EE.sign(examples.best_practice()).statement


def act(kind: str, ref: bytes) -> Statement:
    """A header of any kind; the state machine never sees a body."""
    return EE.sign(None if kind == "erase" else b"{}", kind, ref=ref).statement  # type: ignore[arg-type]


def test_a_whole_life() -> None:
    log = Memory()
    first = issue()
    state = log.take(first)
    assert (state.status, state.version, state.root_id, state.root_index) == ("active", 1, first.id, 0)  # type: ignore[union-attr]
    second = act("amend", first.leaf_hash)
    state = log.take(second)
    assert (state.status, state.version, state.root_id, state.current_index) == ("active", 2, first.id, 1)  # type: ignore[union-attr]
    third = act("withdraw", second.leaf_hash)
    state = log.take(third)
    assert (state.status, state.version, state.current_hash) == ("withdrawn", 3, third.leaf_hash)  # type: ignore[union-attr]
    state = log.take(act("erase", third.leaf_hash))
    assert (state.status, state.version, state.current_hash) == ("erased", 3, third.leaf_hash)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["amend", "withdraw", "erase"])
def test_only_a_version_in_this_log_can_be_acted_on(kind: str) -> None:
    log = Memory()
    log.take(issue())
    with pytest.raises(UnknownReference):
        log.take(act(kind, issue().leaf_hash))


@pytest.mark.parametrize("kind", ["amend", "withdraw", "erase"])
def test_only_the_newest_version_can_be_acted_on(kind: str) -> None:
    log = Memory()
    first = issue()
    log.take(first)
    log.take(act("amend", first.leaf_hash))
    with pytest.raises(StaleReference, match="version 2"):
        log.take(act(kind, first.leaf_hash))


@pytest.mark.parametrize("kind", ["amend", "withdraw"])
def test_nothing_but_an_erasure_follows_a_withdrawal(kind: str) -> None:
    log = Memory()
    first = issue()
    log.take(first)
    end = act("withdraw", first.leaf_hash)
    log.take(end)
    for ref in (first.leaf_hash, end.leaf_hash):
        with pytest.raises(NoticeClosed):
            log.take(act(kind, ref))


@pytest.mark.parametrize("kind", ["amend", "withdraw", "erase"])
def test_nothing_follows_an_erasure(kind: str) -> None:
    log = Memory()
    first = issue()
    log.take(first)
    log.take(act("erase", first.leaf_hash))
    with pytest.raises(NoticeClosed):
        log.take(act(kind, first.leaf_hash))


def test_the_same_bytes_again_are_a_replay_and_the_same_id_is_not() -> None:
    log = Memory()
    first = issue()
    log.take(first)
    with pytest.raises(LeafReplayed):
        log.take(first)
    other = EE.sign(examples.best_practice(), statement_id=first.id).statement
    with pytest.raises(IdReused):
        log.take(other)


def test_an_acknowledgement_refers_to_any_log_and_changes_no_notice() -> None:
    log = Memory()
    first = issue()
    log.take(first)
    assert log.take(act("ack", first.leaf_hash)) is None
    assert log.take(act("ack", b"x" * 32)) is None
    assert log.notices[first.id].version == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["issue", "amend", "withdraw", "erase", "ack"]), st.integers(0, 9)),
        max_size=25,
    )
)
def test_any_sequence_leads_where_the_model_says(steps: list[tuple[str, int]]) -> None:
    """The model: for each notice its versions and whether it is open; refs are picked among all leaves ever made."""
    log = Memory()
    leaves: list[Statement] = []
    versions: dict[str, list[bytes]] = {}
    status: dict[str, str] = {}
    for kind, pick in steps:
        if kind == "issue" or not leaves:
            made = issue()
            log.take(made)
            leaves.append(made)
            versions[made.id], status[made.id] = [made.leaf_hash], "active"
            continue
        target = leaves[pick % len(leaves)].leaf_hash
        made = act(kind, target)
        owner = next((n for n, hashes in versions.items() if target in hashes), None)
        allowed = kind == "ack" or (
            owner is not None
            and versions[owner][-1] == target
            and status[owner] in (("active", "withdrawn") if kind == "erase" else ("active",))
        )
        if not allowed:
            with pytest.raises((UnknownReference, StaleReference, NoticeClosed)):
                log.take(made)
            continue
        log.take(made)
        leaves.append(made)
        if kind in ("amend", "withdraw"):
            versions[owner].append(made.leaf_hash)  # type: ignore[index]  # allowed, so owned
        if kind in ("withdraw", "erase"):
            status[owner] = {"withdraw": "withdrawn", "erase": "erased"}[kind]  # type: ignore[index]
    assert {n.root_id: n.status for n in log.notices.values()} == status
    assert {n.root_id: n.version for n in log.notices.values()} == {n: len(v) for n, v in versions.items()}
