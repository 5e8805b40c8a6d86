"""Rotation and revocation of each kind of key: one step each, the past stays verifiable, nobody's key is taken back."""

from __future__ import annotations

import pytest

from app.domain.roster import CentralContactTerm, KeyUse
from app.keyfiles import generate
from app.roster import DraftSigned, RosterRefused, ceremony, roster_from_repository
from app.roster.review import review
from tests.roster.federation import AT, DAY, Federation, card

OWN_USES: tuple[KeyUse, ...] = ("notices", "log", "witness", "transport")


@pytest.mark.parametrize("use", OWN_USES)
def test_a_states_own_key_is_rotated_in_one_step_and_twice(federation: Federation, use: KeyUse) -> None:
    repository = federation.repository
    for number in (2, 3):
        at = AT + number * DAY // 2
        new = card(generate(), "EE", use, number)
        draft = ceremony.propose_rotation(repository, "rotate", new, at=at, overlap_s=60)
        lines = "\n".join(review(draft).lines)
        assert f"+ State EE: key {new.kid}: {use}" in lines
        assert f"~ State EE: key EE/{new.kid.split('/')[1]}/{number - 1}" in lines
        federation.sign("rotate", [federation.authority["EE"]], at)
        federation.sign("rotate", list(federation.online.values())[:2], at)
        ceremony.publish(repository, "rotate", at=at)
    roster = roster_from_repository(repository, federation.root, AT + 2 * DAY)
    first, second, third = roster.keys_of("EE", use)
    assert (first.active_to, second.active_to, third.active_to) == (
        second.active_from + 60,
        third.active_from + 60,
        None,
    )
    assert first.revoked_at_index is None  # what it signed while it counted stays valid


@pytest.mark.parametrize("use", ["governance", "authority", "online"])
def test_a_key_that_signs_the_roster_is_rotated_in_one_step(federation: Federation, use: str) -> None:
    new = generate()
    made = ceremony.propose_rotation(federation.repository, "rotate", card(new, "NL", use, 2), at=AT)
    assert any(
        f"{use} key NL/{use}/2" in line.lower() or f"NL/{use}/2" in line for line in review(made).lines
    )
    if use == "governance":
        assert set(made.content) == {
            "root",
            "targets",
        }  # targets are signed again with the root that would orphan them
        federation.sign("rotate", federation.governance.values())
        federation.sign("rotate", [new])
        federation.governance["NL"] = new
    if use == "online":
        federation.online["NL"] = new
    if use == "authority":
        federation.authority["NL"] = new
    federation.finish("rotate")
    verified = ceremony.current(federation.repository, federation.root)
    assert verified is not None
    role = {"governance": "root", "authority": "state-nl", "online": "timestamp"}[use]
    kids = {c.kid for c in verified.cards[role]}
    assert f"NL/{use}/2" in kids
    assert f"NL/{use}/1" not in kids


def test_what_cannot_be_replaced_is_named(federation: Federation) -> None:
    repository = federation.repository
    with pytest.raises(RosterRefused, match=r"EE has 0 keys for encryption that count \(none\)"):
        ceremony.propose_rotation(repository, "r", card(generate(), "EE", "encryption"), at=AT)
    with pytest.raises(RosterRefused, match="EE/cp/9 is no key of EE for notices"):
        ceremony.propose_rotation(
            repository, "r", card(generate(), "EE", "notices", 2), at=AT, replaces="EE/cp/9"
        )
    with pytest.raises(RosterRefused, match="is listed twice"):
        ceremony.propose_rotation(repository, "r", card(generate(), "EE", "notices", 1), at=AT)
    with pytest.raises(RosterRefused, match="FI has no document"):
        ceremony.propose_rotation(repository, "r", card(generate(), "FI", "notices"), at=AT)
    ceremony.propose_rotation(repository, "r", card(generate(), "EE", "notices", 2), at=AT, overlap_s=DAY)
    with pytest.raises(RosterRefused, match=r"EE has 2 keys for notices that count \(EE/cp/1, EE/cp/2\)"):
        ceremony.propose_rotation(repository, "r", card(generate(), "EE", "notices", 3), at=AT)


def test_a_key_is_revoked_from_an_index_on_and_for_good(federation: Federation) -> None:
    repository = federation.repository
    draft = ceremony.propose_revocation(
        repository, "steal", "EE/cp/1", at_index=7, suspect_from=AT - DAY, at=AT
    )
    assert any("REVOKED at index 7, suspect from 2026-09-20" in line for line in review(draft).lines)
    federation.finish("steal")
    key = roster_from_repository(repository, federation.root, AT).key("EE", "EE/cp/1")
    assert key is not None
    assert (key.revoked_at_index, key.suspect_from) == (7, AT - DAY)
    with pytest.raises(RosterRefused, match="a revocation is not withdrawn"):
        ceremony.propose_revocation(repository, "later", "EE/cp/1", at_index=9, at=AT)
    ceremony.propose_revocation(repository, "earlier", "EE/cp/1", at_index=5, at=AT)
    with pytest.raises(RosterRefused, match="NL/cp/4 is not listed"):
        ceremony.propose_revocation(repository, "none", "NL/cp/4", at_index=5, at=AT)


def test_a_signed_rotation_no_longer_changes(federation: Federation) -> None:
    ceremony.propose_rotation(federation.repository, "r", card(generate(), "EE", "notices", 2), at=AT)
    federation.sign("r", [federation.authority["EE"]])
    with pytest.raises(DraftSigned):
        ceremony.propose_revocation(federation.repository, "r", "EE/cp/1", at_index=7, at=AT)


def test_the_term_is_handed_over_on_a_day_and_the_old_one_stays(federation: Federation) -> None:
    repository = federation.repository
    ceremony.propose_central_contact(repository, "first", CentralContactTerm("NL", "2026-01-01"), at=AT)
    federation.finish("first")
    ceremony.propose_central_contact(
        repository, "hand-over", CentralContactTerm("EE", "2027-01-01", None, ("JP", "US")), at=AT
    )
    federation.finish("hand-over")
    roster = roster_from_repository(repository, federation.root, AT)
    assert roster.central_contact("2026-12-31") == "NL"
    assert roster.central_contact("2027-01-01") == "EE"
