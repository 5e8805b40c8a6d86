"""The rules of both doors, as pure functions of bytes, roster and time."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from app.domain.errors import (
    CommitmentMismatch,
    ImplausibleTime,
    KeyNotActive,
    NotAllowed,
    PartsMismatch,
    Refused,
    UnknownKey,
    WrongKeyUse,
    WrongLog,
)
from app.domain.judge import MAX_SKEW_S, check_not_expired, judge_body, judge_statement
from app.domain.roster import Roster, RosterKey, RosterLog, RosterState
from app.domain.statement import Part
from tests import examples
from tests.federation.world import DAY, NOW, Officer, Signed, origin_of, seeded

EE = Officer("EE", seeded("EE/cp/1"))


def roster(**of_the_key: Any) -> Roster:
    """Estonia with a contact-point key and a node key; the Netherlands with a contact-point key."""

    def state(code: str) -> RosterState:
        cp = {"active_from": NOW - DAY} | of_the_key
        keys = (
            RosterKey(f"{code}/cp/1", "notices", seeded(f"{code}/cp/1").public, **cp),
            RosterKey(f"{code}/node/1", "node", seeded(f"{code}/node/1").public, NOW - DAY),
        )
        return RosterState(code, code, logs=(RosterLog(origin_of(code), 1, "http://x"),), keys=keys)

    return Roster(1, "ab" * 32, NOW + DAY, MappingProxyType({code: state(code) for code in ("EE", "NL")}))


def judge(signed: Signed, *, index: int | None = None, at: int = NOW, **of_the_key: Any) -> Any:
    return judge_statement(
        signed.leaf, origin=origin_of("EE"), index=index, roster=roster(**of_the_key), at=at
    )


def test_a_good_statement_is_judged_to_be_its_states() -> None:
    assert judge(EE.sign(examples.denied_end_user())).issuer == "EE"


def test_no_bit_of_a_leaf_can_be_flipped() -> None:
    """Every one: only the exact bytes that were signed pass."""
    signed = EE.sign(examples.denied_end_user())
    known = roster()
    for position in range(len(signed.leaf)):
        for bit in range(8):
            changed = bytearray(signed.leaf)
            changed[position] ^= 1 << bit
            with pytest.raises(Refused):
                judge_statement(bytes(changed), origin=EE.origin, index=None, roster=known, at=NOW)


def test_no_byte_of_a_body_can_be_flipped() -> None:
    signed = EE.sign(examples.best_practice())
    verified = judge(signed)
    part = signed.parts["main"]
    judge_body(verified, signed.parts)
    for position in range(len(part.content)):
        changed = bytearray(part.content)
        changed[position] ^= 1
        with pytest.raises(CommitmentMismatch):
            judge_body(verified, {"main": Part(part.salt, bytes(changed))})
    for position in range(32):
        salt = bytearray(part.salt)
        salt[position] ^= 1
        with pytest.raises(CommitmentMismatch):
            judge_body(verified, {"main": Part(bytes(salt), part.content)})


@pytest.mark.parametrize("parts", [{}, {"scan": Part(b"s" * 32, b"")}])
def test_exactly_the_named_parts_are_opened(parts: dict[str, Part]) -> None:
    signed = EE.sign(examples.best_practice())
    with pytest.raises(PartsMismatch):
        judge_body(judge(signed), parts)
    with pytest.raises(PartsMismatch):
        judge_body(judge(signed), signed.parts | {"scan": Part(b"s" * 32, b"")})


def test_a_statement_counts_in_the_log_it_names_only() -> None:
    with pytest.raises(WrongLog):
        judge(EE.sign(examples.denied_end_user(), log=origin_of("NL")))
    with pytest.raises(NotAllowed):
        judge_statement(
            EE.sign(examples.best_practice(), log="xx.example/log/1").leaf,
            origin="xx.example/log/1",
            index=None,
            roster=roster(),
            at=NOW,
        )


def test_another_states_key_does_not_speak_here() -> None:
    with pytest.raises(UnknownKey):
        judge(EE.sign(examples.denied_end_user(), kid="NL/cp/1", signer=seeded("NL/cp/1")))


@pytest.mark.parametrize(("kind", "main"), [("roster", b"{}"), ("anchor", b"{}"), ("evidence", b"{}")])
def test_a_contact_point_does_not_speak_for_the_node_nor_the_node_for_it(kind: Any, main: bytes) -> None:
    with pytest.raises(WrongKeyUse):
        judge(EE.sign(main, kind))
    assert judge(EE.sign(main, kind, kid="EE/node/1", signer=seeded("EE/node/1"))).issuer == "EE"
    with pytest.raises(WrongKeyUse):
        judge(EE.sign(examples.best_practice(), kid="EE/node/1", signer=seeded("EE/node/1")))


def test_contact_point_and_node_may_both_say_that_something_is_erased() -> None:
    assert judge(EE.sign(None, "erase", ref=b"r" * 32)).issuer == "EE"
    assert (
        judge(EE.sign(None, "erase", ref=b"r" * 32, kid="EE/node/1", signer=seeded("EE/node/1"))).issuer
        == "EE"
    )


@pytest.mark.parametrize(
    ("of_the_key", "counts"),
    [
        ({"active_from": NOW}, True),
        ({"active_from": NOW + 1}, False),
        ({"active_to": NOW + 1}, True),
        ({"active_to": NOW}, False),
        ({"suspect_from": NOW - 60}, True),
    ],
)
def test_a_key_counts_from_its_first_second_and_not_from_its_last(
    of_the_key: dict[str, Any], counts: bool
) -> None:
    signed = EE.sign(examples.best_practice())
    if counts:
        judge(signed, **of_the_key)
    else:
        with pytest.raises(KeyNotActive):
            judge(signed, **of_the_key)


def test_a_revoked_key_counts_below_its_index_and_never_for_a_new_statement() -> None:
    """By index, which is the log's order: a thief of the key can claim any time."""
    signed = EE.sign(examples.best_practice())
    judge(signed, index=4, revoked_at_index=5)
    for index in (5, 6, None):
        with pytest.raises(KeyNotActive):
            judge(signed, index=index, revoked_at_index=5)


def test_a_statement_may_be_a_little_ahead_of_whoever_judges_it() -> None:
    judge(EE.sign(examples.best_practice(), iat=NOW + MAX_SKEW_S))
    with pytest.raises(ImplausibleTime):
        judge(EE.sign(examples.best_practice(), iat=NOW + MAX_SKEW_S + 1))


def test_what_is_over_is_refused_at_the_local_door_alone() -> None:
    verified = judge(EE.sign(examples.best_practice(), exp=NOW + 1))
    check_not_expired(verified.statement, at=NOW)
    with pytest.raises(ImplausibleTime):
        check_not_expired(verified.statement, at=NOW + 1)
    with pytest.raises(ImplausibleTime):
        judge(EE.sign(examples.best_practice(), exp=NOW))


def test_a_body_is_bound_to_its_statement_and_part() -> None:
    """The same content under another id, or as another part, opens nothing."""
    one, two = (
        EE.sign(examples.best_practice(), salt=b"s" * 32),
        EE.sign(examples.best_practice(), salt=b"s" * 32),
    )
    assert one.parts == two.parts
    judge_body(judge(one), two.parts)  # the same salt and bytes, so the same opening: no secret was moved
    changed = {"main": Part(b"s" * 32, two.parts["main"].content + b" ")}
    with pytest.raises(CommitmentMismatch):
        judge_body(judge(one), changed)
