"""How many witnesses make a checkpoint certain, and what time they agree on."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.quorum import agreed_time, quorum_of
from app.domain.roster import Roster, RosterLog, RosterState
from app.domain.times import TOLERANCE_S, Bracket


def names(count: int) -> list[str]:
    return [f"{i:03}" for i in range(count)]


@pytest.mark.parametrize(
    ("n", "f", "q"),
    [
        (1, 0, 0),
        (2, 0, 1),
        (3, 0, 2),
        (4, 0, 3),
        (5, 1, 3),
        (10, 2, 6),
        (20, 6, 13),
        (25, 7, 16),
        (200, 66, 133),
    ],
)
def test_the_quorum_is_the_smallest_whole_number_above_half_of_witnesses_and_faulty(
    n: int, f: int, q: int
) -> None:
    quorum = quorum_of(names(n - 1))
    assert (quorum.faulty, quorum.needed) == (f, q)
    assert quorum.takes_all is (f < 1)
    if f:
        assert q > (n - 1 + f) / 2 >= q - 1


@given(st.integers(min_value=4, max_value=300))
def test_any_two_quorums_share_an_honest_witness_and_the_honest_alone_are_one(m: int) -> None:
    quorum = quorum_of(names(m))
    assert 2 * quorum.needed - m > quorum.faulty  # the overlap is larger than all that may be dishonest
    assert m - quorum.faulty >= quorum.needed


def test_a_quorum_counts_its_own_witnesses_once_and_nobody_else() -> None:
    quorum = quorum_of(["EE", "JP", "NL", "US"])
    assert quorum.met_by(["EE", "JP", "US"])
    assert not quorum.met_by(["EE", "EE", "JP", "JP"])
    assert not quorum.met_by(["EE", "JP", "FI", "XX"])
    assert not quorum_of([]).met_by(["EE"])


def state(code: str, status: str = "member", *, node: bool = True) -> RosterState:
    logs = (RosterLog(f"{code.lower()}.example/log/1", 1, ""),) if node else ()
    return RosterState(code, code, status=status, logs=logs)  # type: ignore[arg-type]  # one of the three


def test_only_other_members_with_a_node_are_witnesses_of_a_log() -> None:
    listed = [state("EE"), state("JP"), state("NL"), state("US", "suspended"), state("FI", node=False)]
    roster = Roster(1, "", 0, {s.code: s for s in listed})
    assert roster.quorum_for("EE").witnesses == {"JP", "NL"}
    assert roster.quorum_for("US").witnesses == {"EE", "JP", "NL"}
    assert roster.quorum() == 2


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("m", [4, 7, 10, 24])
def test_liars_cannot_move_the_agreed_time_outside_of_what_honest_witnesses_saw(m: int) -> None:
    quorum = quorum_of(names(m))
    honest = list(range(1000, 1000 + quorum.needed - quorum.faulty))
    for lie in itertools.combinations_with_replacement((0, 2**40), quorum.faulty):
        assert 1000 <= agreed_time([*honest, *lie]) <= honest[-1], lie


def test_no_times_have_no_median() -> None:
    with pytest.raises(ValueError, match="no times"):
        agreed_time([])


@pytest.mark.parametrize(
    ("bracket", "iat", "flag"),
    [
        (Bracket(1000, 2000), 1500, None),
        (Bracket(1000, 2000), 1000 - TOLERANCE_S, None),
        (Bracket(1000, 2000), 1000 - TOLERANCE_S - 1, "back-dated"),
        (Bracket(1000, 2000), 2000 + TOLERANCE_S, None),
        (Bracket(1000, 2000), 2000 + TOLERANCE_S + 1, "post-dated"),
        (Bracket(None, 2000), 0, None),
        (Bracket(1000, None), 0, None),
        (Bracket(None, None), 2**40, None),
    ],
)
def test_a_claimed_time_outside_of_the_bracket_is_flagged_once_a_quorum_has_seen_it(
    bracket: Bracket, iat: int, flag: str | None
) -> None:
    assert bracket.flag(iat) == flag
