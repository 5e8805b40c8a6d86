"""Drafts, signatures and publication."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import Malformed, RosterExpired, UnacceptableKey
from app.domain.json import canonical
from app.domain.keys import Ed25519Signer
from app.domain.roster import CentralContactTerm, MembershipStatus, RosterLog, RosterState
from app.domain.times import utc_day
from app.keyfiles import KeyCard, generate
from app.roster import (
    DraftNotComplete,
    DraftOutdated,
    DraftSigned,
    FrozenLog,
    KeyNotInRole,
    Membership,
    RootWouldOrphanTargets,
    RosterRefused,
    StateDocument,
    StateKey,
    ceremony,
    roster_from_repository,
)
from app.roster.documents import FederationDocument
from app.roster.review import review
from tests.roster.federation import AT, DAY, Federation, card


def test_a_founded_federation_reads_back_what_was_proposed(federation: Federation) -> None:
    roster = roster_from_repository(federation.repository, federation.root, AT)
    assert roster.version == 1
    assert sorted(roster.states) == ["EE", "JP", "NL", "US"]
    assert roster.expires == AT + 7 * DAY
    key = roster.key("EE", "EE/cp/1")
    assert key is not None
    assert key.key == federation.node["EE", "notices"].public
    state = roster.state_of_origin("jp.verbale.example/log/1")
    assert state is not None
    assert state.code == "JP"
    assert state.contact_point is not None
    assert state.contact_point.office == "Export control office"


def test_threshold_minus_one_is_refused_and_the_missing_are_named(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    federation.init()
    federation.sign("founding", federation.threshold()[:-1])
    with pytest.raises(DraftNotComplete, match=r"root needs 1 more of NL/governance/1, US/governance/1"):
        ceremony.publish(federation.repository, "founding", at=AT)
    with pytest.raises(DraftNotComplete):
        federation.sign("founding", [federation.online["EE"]])
    assert not (federation.repository / "metadata").exists()


def test_one_online_key_of_three_publishes_nothing(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    federation.init()
    federation.sign("founding", federation.threshold())
    with pytest.raises(DraftNotComplete, match="online keys"):
        ceremony.publish(federation.repository, "founding", at=AT)
    federation.sign("founding", [federation.online["EE"]])
    with pytest.raises(DraftNotComplete, match="snapshot needs 1 more"):
        ceremony.publish(federation.repository, "founding", at=AT)
    federation.sign("founding", [federation.online["US"]])
    assert ceremony.publish(federation.repository, "founding", at=AT).roster.version == 1


def test_a_refresh_by_one_online_key_is_refused(federation: Federation) -> None:
    before = federation.files()
    with pytest.raises(DraftNotComplete):
        ceremony.refresh(federation.repository, [federation.online["EE"]], at=AT + DAY)
    assert federation.files() == before


def test_signing_twice_with_one_key_does_not_count_twice(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    federation.init()
    key = federation.governance["EE"]
    assert ceremony.sign(federation.repository, "founding", key, at=AT) == ("root", "targets")
    assert ceremony.sign(federation.repository, "founding", key, at=AT) == ()
    status = ceremony.signature_status(ceremony.load_draft(federation.repository, "founding"))
    assert [(s.role, s.signed, s.needed) for s in status] == [
        ("root", ("EE/governance/1",), 2),
        ("targets", ("EE/governance/1",), 2),
    ]


def test_a_key_outside_the_role_is_refused_and_leaves_no_signature(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    for stranger in (generate(), federation.node["EE", "notices"], federation.authority["EE"]):
        with pytest.raises(KeyNotInRole, match="EE/governance/1"):
            ceremony.sign(federation.repository, "suspend", stranger, at=AT)
    assert not ceremony.load_draft(federation.repository, "suspend").signatures()


def test_the_central_contact_alone_cannot_suspend_a_state(federation: Federation) -> None:
    ceremony.propose_central_contact(
        federation.repository, "term", CentralContactTerm("NL", "2026-01-01"), at=AT
    )
    federation.finish("term")
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("suspend", [federation.governance["NL"]])
    with pytest.raises(DraftNotComplete):
        federation.sign("suspend", [federation.online["NL"]])
    with pytest.raises(DraftNotComplete):
        ceremony.publish(federation.repository, "suspend", at=AT)
    assert roster_from_repository(federation.repository, federation.root, AT).states["JP"].status == "member"


def test_a_state_document_signed_by_another_states_authority_key_is_refused(federation: Federation) -> None:
    ceremony.propose_state_document(
        federation.repository, "move", federation.document("EE", url="https://new.example"), at=AT
    )
    with pytest.raises(KeyNotInRole, match="EE/authority/1"):
        ceremony.sign(federation.repository, "move", federation.authority["JP"], at=AT)


def test_a_state_changes_its_own_document_without_the_threshold(federation: Federation) -> None:
    ceremony.propose_state_document(
        federation.repository, "move", federation.document("EE", url="https://new.example"), at=AT
    )
    draft = ceremony.load_draft(federation.repository, "move")
    assert set(draft.content) == {"state-ee"}
    assert review(draft).lines == ("~ State EE: node: https://ee.verbale.example → https://new.example",)
    federation.finish("move")
    roster = roster_from_repository(federation.repository, federation.root, AT)
    assert roster.version == 2
    assert roster.states["EE"].url == "https://new.example"


def test_a_state_cannot_appoint_itself(federation: Federation) -> None:
    newcomer = Federation(federation.repository, codes=("FI",), online_codes=())
    with pytest.raises(RosterRefused, match="authority key"):
        ceremony.propose_state_document(federation.repository, "accede", newcomer.document("FI"), at=AT)
    with pytest.raises(RosterRefused, match="not a State of this federation"):
        ceremony.propose_state_document(
            federation.repository,
            "accede",
            newcomer.document("FI"),
            authority=[card(newcomer.authority["FI"], "FI", "authority")],
            at=AT,
        )


def test_a_states_document_is_never_delegated_to_another_states_key(federation: Federation) -> None:
    with pytest.raises(RosterRefused, match="another State's key: JP/authority/2"):
        ceremony.propose_state_document(
            federation.repository,
            "annex",
            federation.document("EE"),
            authority=[card(generate(), "JP", "authority", 2)],
            at=AT,
        )


def test_a_lost_authority_key_is_replaced_by_the_majority(federation: Federation) -> None:
    new = generate()
    ceremony.propose_state_document(
        federation.repository,
        "replace",
        federation.document("EE"),
        authority=[card(new, "EE", "authority", 2)],
        at=AT,
    )
    lines = review(ceremony.load_draft(federation.repository, "replace")).lines
    assert [line[:37] for line in lines] == [
        "- State EE: authority key EE/authorit",
        "+ State EE: authority key EE/authorit",
    ]
    with pytest.raises(KeyNotInRole):
        federation.sign("replace", [federation.authority["EE"]])
    federation.authority["EE"] = new
    federation.finish("replace")
    assert roster_from_repository(federation.repository, federation.root, AT).version == 2


def test_accession_takes_the_threshold_and_the_new_states_own_signature(federation: Federation) -> None:
    newcomer = Federation(federation.repository, codes=("FI",), online_codes=())
    repository = federation.repository
    ceremony.propose_membership(
        repository, "accede", "FI", "member", at=AT, state=Membership("FI", "Finland", "2026-09-21")
    )
    ceremony.propose_state_document(
        repository,
        "accede",
        newcomer.document("FI"),
        authority=[card(newcomer.authority["FI"], "FI", "authority")],
        at=AT,
    )
    federation.sign("accede", federation.threshold())
    with pytest.raises(DraftNotComplete, match="state-fi needs 1 more of FI/authority/1"):
        ceremony.publish(repository, "accede", at=AT)
    federation.authority["FI"] = newcomer.authority["FI"]
    federation.finish("accede")
    roster = roster_from_repository(repository, federation.root, AT)
    assert [s.code for s in roster.nodes()] == ["EE", "FI", "JP", "NL", "US"]


def test_a_state_leaves_on_a_day_which_is_given_and_its_return_forgets_it(federation: Federation) -> None:
    ends = {"jp.verbale.example/log/1": 5}

    def published(name: str, status: MembershipStatus, **options: Any) -> RosterState:
        ceremony.propose_membership(federation.repository, name, "JP", status, at=AT, **options)
        (line,) = review(ceremony.load_draft(federation.repository, name)).lines
        assert (f"left {options.get('left', utc_day(AT))}" in line.rpartition("→")[2]) == (status != "member")
        federation.sign(name, federation.threshold())
        federation.finish(name)
        return roster_from_repository(federation.repository, federation.root, AT).states["JP"]

    assert published("out", "suspended", ends=ends).left == utc_day(AT)
    assert published("earlier", "withdrawn", ends=ends, left="2026-01-31").left == "2026-01-31"
    assert published("back", "member").left is None
    with pytest.raises(RosterRefused, match="has not left"):
        ceremony.propose_membership(federation.repository, "odd", "JP", "member", at=AT, left="2026-01-31")
    for day, why in (
        ("1 Jan 2026", "not a date"),
        ("2023-01-01", "before it joined"),
        ("2099-01-01", "to come"),
    ):
        with pytest.raises(RosterRefused, match=why):
            ceremony.propose_membership(
                federation.repository, "odd", "JP", "suspended", ends=ends, at=AT, left=day
            )


def test_the_review_warns_of_a_witness_key_revoked_without_a_time_and_only_of_a_new_one(
    federation: Federation,
) -> None:
    def warned(name: str) -> bool:
        warnings = review(ceremony.load_draft(federation.repository, name)).warnings
        return any("EE/witness/1 is revoked without a time" in line for line in warnings)

    ceremony.propose_revocation(federation.repository, "void", "EE/witness/1", at_index=None, at=AT)
    assert warned("void")
    federation.finish("void")
    ceremony.propose_revocation(federation.repository, "next", "JP/cp/1", at_index=4, at=AT)
    assert not warned("next")


def test_a_document_of_an_earlier_version_does_not_say_when_a_state_left(federation: Federation) -> None:
    ends = {"jp.verbale.example/log/1": 5}
    ceremony.propose_membership(federation.repository, "out", "JP", "suspended", ends=ends, at=AT)
    document = ceremony.load_draft(federation.repository, "out").federation
    said = document.to_json()
    now = FederationDocument.parse(canonical(said))
    assert [s.left for s in now.states if s.code == "JP"] == [utc_day(AT)]
    for state in said["states"]:
        state.pop("left", None)
    before = FederationDocument.parse(canonical(said))
    assert [s.left for s in before.states if s.code == "JP"] == [None]
    for state in said["states"]:
        state["left"] = "2026-01-31"
    with pytest.raises(RosterRefused):  # of a member
        FederationDocument.parse(canonical(said))


def test_a_signed_draft_no_longer_changes(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("suspend", [federation.governance["EE"]])
    with pytest.raises(DraftSigned):
        ceremony.propose_membership(
            federation.repository, "suspend", "NL", "suspended", ends={"nl.verbale.example/log/1": 5}, at=AT
        )


def test_a_draft_that_was_overtaken_must_be_proposed_again(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "one", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    ceremony.propose_membership(
        federation.repository, "two", "NL", "suspended", ends={"nl.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("two", federation.threshold())
    federation.finish("one")
    with pytest.raises(DraftOutdated, match="Propose the change again"):
        federation.sign("two", [federation.online["EE"]])
    with pytest.raises(DraftOutdated):
        ceremony.publish(federation.repository, "two", at=AT)


def test_a_refresh_during_a_ceremony_only_costs_the_online_keys_a_second_visit(
    federation: Federation,
) -> None:
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("suspend", federation.threshold())
    federation.sign("suspend", [federation.online["EE"], federation.online["NL"]])
    federation.refresh(AT + DAY)
    with pytest.raises(DraftOutdated, match="sign it once more"):
        ceremony.publish(federation.repository, "suspend", at=AT + DAY)
    federation.sign("suspend", [federation.online["EE"], federation.online["NL"]], AT + DAY)
    ceremony.publish(federation.repository, "suspend", at=AT + DAY)
    assert (
        roster_from_repository(federation.repository, federation.root, AT + DAY).states["JP"].status
        == "suspended"
    )


def test_publishing_what_has_expired_is_refused(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("suspend", federation.threshold())
    federation.sign("suspend", list(federation.online.values())[:2])
    with pytest.raises(RosterExpired, match="timestamp"):
        ceremony.publish(federation.repository, "suspend", at=AT + 8 * DAY)


def test_the_daily_refresh_leaves_the_roster_and_renews_the_snapshot_when_half_its_life_is_gone(
    federation: Federation,
) -> None:
    first = federation.refresh(AT + DAY)
    assert (first.roster.version, first.timestamp.version) == (1, 2)
    second = federation.refresh(AT + 8 * DAY)
    assert (second.roster.version, second.timestamp.version) == (2, 3)
    assert second.roster.expires == AT + 15 * DAY


def test_terms_of_the_central_contact_follow_each_other_without_a_gap(federation: Federation) -> None:
    repository = federation.repository
    ceremony.propose_central_contact(
        repository, "a", CentralContactTerm("NL", "2026-01-01", None, ("US",)), at=AT
    )
    federation.finish("a")
    ceremony.propose_central_contact(
        repository, "b", CentralContactTerm("EE", "2027-01-01", "2028-01-01"), at=AT
    )
    federation.finish("b")
    roster = roster_from_repository(repository, federation.root, AT)
    contacts = [roster.central_contact(on) for on in ("2025-12-31", "2026-12-31", "2027-01-01", "2028-01-01")]
    assert contacts == [None, "NL", "EE", None]
    with pytest.raises(RosterRefused, match="overlap"):
        ceremony.propose_central_contact(repository, "c", CentralContactTerm("US", "2027-06-01"), at=AT)
    with pytest.raises(RosterRefused, match="not a member"):
        ceremony.propose_central_contact(repository, "c", CentralContactTerm("FI", "2029-06-01"), at=AT)


def test_a_log_is_frozen_by_threshold_whatever_its_state_says(federation: Federation) -> None:
    frozen = FrozenLog("ee.verbale.example/log/1", "2026-09-22", "log key stolen")
    ceremony.propose_frozen_log(federation.repository, "freeze", frozen, at=AT)
    federation.finish("freeze")
    log = roster_from_repository(federation.repository, federation.root, AT).log("ee.verbale.example/log/1")
    assert log is not None
    assert log.status == "frozen"
    with pytest.raises(RosterRefused, match="No State lists"):
        ceremony.propose_frozen_log(
            federation.repository, "freeze", FrozenLog("xx.example/log/1", "2026-09-22", "x"), at=AT
        )


# ── governance keys ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_governance_key_rotates_with_targets_signed_again_in_the_same_step(federation: Federation) -> None:
    new = generate()
    ceremony.propose_governance_key(
        federation.repository,
        "rotate",
        add=card(new, "EE", "governance", 2),
        remove="EE/governance/1",
        at=AT,
    )
    draft = ceremony.load_draft(federation.repository, "rotate")
    assert set(draft.content) == {"root", "targets"}
    assert any(line.startswith("+ Governance key EE/governance/2") for line in review(draft).lines)
    old = federation.governance["EE"]
    federation.governance["EE"] = new  # three of four, among them the new key: two of the old ones
    federation.sign("rotate", federation.threshold())
    with pytest.raises(DraftNotComplete, match="root needs 1 more"):
        ceremony.publish(federation.repository, "rotate", at=AT)
    federation.sign("rotate", [federation.governance["US"]])
    federation.sign("rotate", list(federation.online.values())[:2])
    verified = ceremony.publish(federation.repository, "rotate", at=AT)
    assert verified.root.version == 2
    assert roster_from_repository(federation.repository, federation.root, AT).version == 2
    ceremony.propose_membership(
        federation.repository, "next", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    with pytest.raises(KeyNotInRole):
        ceremony.sign(federation.repository, "next", old, at=AT)


def test_a_root_rotation_that_would_orphan_targets_is_refused_with_advice(federation: Federation) -> None:
    with pytest.raises(RootWouldOrphanTargets, match="Re-sign targets in the same draft"):
        ceremony.propose_governance_key(
            federation.repository,
            "rotate",
            add=card(generate(), "EE", "governance", 2),
            remove="EE/governance/1",
            resign_targets=False,
            at=AT,
        )
    assert ceremony.drafts(federation.repository) == ()


def test_a_state_has_one_voice(federation: Federation) -> None:
    with pytest.raises(RosterRefused, match="one voice"):
        ceremony.propose_governance_key(
            federation.repository, "stuff", add=card(generate(), "EE", "governance", 2), at=AT
        )


def test_the_threshold_follows_the_number_of_keys(federation: Federation) -> None:
    ceremony.propose_governance_key(federation.repository, "leave", remove="US/governance/1", at=AT)
    assert (
        "~ Governance threshold: 3 of 4 → 2 of 3"
        in review(ceremony.load_draft(federation.repository, "leave")).lines
    )
    federation.finish("leave")


def test_online_keys_rotate_and_the_old_ones_sign_nothing_more(federation: Federation) -> None:
    old = federation.online
    fresh = {code: generate() for code in ("EE", "JP")}
    cards = [card(key, code, "online", 2) for code, key in fresh.items()]
    ceremony.propose_online_keys(federation.repository, "online", cards, at=AT)
    federation.sign("online", federation.threshold())
    with pytest.raises(KeyNotInRole):
        federation.sign("online", [old["EE"]])
    federation.online = dict(fresh)
    federation.finish("online")
    federation.refresh(AT + DAY)
    assert roster_from_repository(federation.repository, federation.root, AT + DAY).version == 2


def test_roles_are_renewed_before_they_expire(federation: Federation) -> None:
    ceremony.propose_renewal(
        federation.repository, "renew", ["root", "targets", "state-jp"], at=AT + 60 * DAY
    )
    verified = federation.finish("renew", AT + 60 * DAY)
    assert verified.expiries["root"] == AT + (60 + 365) * DAY
    assert verified.expiries["state-jp"] == AT + (60 + 180) * DAY
    assert verified.expiries["state-ee"] == AT + 180 * DAY
    with pytest.raises(RosterRefused, match="no role"):
        ceremony.propose_renewal(federation.repository, "again", ["state-fi"], at=AT)


# ── what may not be proposed ──────────────────────────────────────────────────────────────────────────────────────


def with_key(document: StateDocument, key: StateKey) -> StateDocument:
    return replace(document, keys=(*document.keys, key))


def test_a_past_key_is_never_removed(federation: Federation) -> None:
    document = federation.document("EE")
    with pytest.raises(RosterRefused, match=r"EE/cp/1 is missing\. Past keys stay listed"):
        ceremony.propose_state_document(
            federation.repository, "drop", replace(document, keys=document.keys[1:]), at=AT
        )


def test_a_key_id_names_one_key_for_ever(federation: Federation) -> None:
    document = federation.document("EE")
    other = StateKey.of_card(card(generate(), "EE", "notices"), active_from=AT)
    with pytest.raises(RosterRefused, match="was changed"):
        ceremony.propose_state_document(
            federation.repository, "swap", replace(document, keys=(other, *document.keys[1:])), at=AT
        )


def test_a_revocation_is_not_withdrawn(federation: Federation) -> None:
    document = federation.document("EE")

    def revoked_at(index: int | None) -> StateDocument:
        key = document.keys[0]
        return replace(
            document,
            keys=(StateKey(replace(key.entry, revoked_at_index=index), key.proof), *document.keys[1:]),
        )

    ceremony.propose_state_document(federation.repository, "revoke", revoked_at(100), at=AT)
    assert "REVOKED at index 100" in review(ceremony.load_draft(federation.repository, "revoke")).lines[0]
    federation.finish("revoke")
    for later in (None, 101):
        with pytest.raises(RosterRefused, match="not withdrawn"):
            ceremony.propose_state_document(federation.repository, "undo", revoked_at(later), at=AT)
    ceremony.propose_state_document(federation.repository, "earlier", revoked_at(50), at=AT)


def test_an_origin_belongs_to_one_state(federation: Federation) -> None:
    stolen = federation.document(
        "EE", logs=(RosterLog("jp.verbale.example/log/1", 1, "https://ee.example/log/1"),)
    )
    with pytest.raises(RosterRefused):
        ceremony.propose_state_document(federation.repository, "steal", stolen, at=AT)
    both = federation.document(
        "EE",
        logs=(
            *federation.document("EE").logs,
            RosterLog("jp.verbale.example/log/2", 2, "https://ee.example/log/2", "closed"),
            RosterLog("jp.verbale.example/log/3", 3, "https://ee.example/log/3", "closed"),
        ),
    )
    ceremony.propose_state_document(federation.repository, "first", both, at=AT)
    federation.finish("first")
    jp = federation.document("JP", logs=(*federation.document("JP").logs, replace(both.logs[1])))
    with pytest.raises(RosterRefused, match="claimed by EE and by JP"):
        ceremony.propose_state_document(federation.repository, "second", jp, at=AT)


def test_a_key_serves_one_state_and_one_use(federation: Federation) -> None:
    shared = federation.node["JP", "notices"]
    for use in ("notices", "webhook"):
        key = StateKey.of_card(card(shared, "EE", use, 9), active_from=AT)
        with pytest.raises(RosterRefused, match="are the same key"):
            ceremony.propose_state_document(
                federation.repository, "share", with_key(federation.document("EE"), key), at=AT
            )
    governance = StateKey.of_card(card(federation.governance["EE"], "EE", "notices", 9), active_from=AT)
    with pytest.raises(RosterRefused, match="are the same key"):
        ceremony.propose_state_document(
            federation.repository, "share", with_key(federation.document("EE"), governance), at=AT
        )


def test_a_state_that_leaves_stays_listed(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "leave", "JP", "withdrawn", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.finish("leave")
    roster = roster_from_repository(federation.repository, federation.root, AT)
    assert roster.states["JP"].status == "withdrawn"
    assert roster.key("JP", "JP/cp/1") is not None
    assert "JP" not in roster.members()


def test_a_card_of_another_use_is_no_governance_key(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    with pytest.raises(UnacceptableKey, match="governance is needed"):
        ceremony.init(
            tmp_path / "roster",
            name="Verbale",
            states=[Membership("EE", "Estonia", "2023-03-30")],
            governance=[card(federation.governance["EE"], "EE", "notices")],
            online=[card(federation.online["EE"], "EE", "online")],
            at=AT,
        )


def test_a_card_whose_proof_was_copied_from_another_key_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "roster")
    honest = card(federation.governance["EE"], "EE", "governance")
    forged = KeyCard(honest.kid, honest.use, generate().public, honest.proof)
    with pytest.raises(UnacceptableKey, match="proof of possession"):
        ceremony.init(
            tmp_path / "roster",
            name="Verbale",
            states=[Membership("EE", "Estonia", "2023-03-30")],
            governance=[forged],
            online=[card(federation.online["EE"], "EE", "online")],
            at=AT,
        )


def test_a_directory_is_founded_once(federation: Federation) -> None:
    with pytest.raises(Malformed, match="already"):
        federation.init()


@pytest.mark.parametrize("name", ["", "../escape", "UPPER", "a/b", ".hidden", "x" * 62])
def test_a_draft_name_is_no_path(federation: Federation, name: str) -> None:
    with pytest.raises(Malformed):
        ceremony.propose_membership(
            federation.repository, name, "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
        )


def test_a_stray_file_in_a_draft_is_refused(federation: Federation) -> None:
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    (federation.repository / "drafts" / "suspend" / "metadata" / "notes.txt").write_text("hello")
    with pytest.raises(Malformed, match="none of a roster's"):
        federation.sign("suspend", federation.threshold())


def test_a_draft_altered_on_its_way_is_noticed_by_the_next_signer(federation: Federation) -> None:
    ceremony.propose_state_document(
        federation.repository, "move", federation.document("EE", url="https://new.example"), at=AT
    )
    [path] = (federation.repository / "drafts" / "move" / "targets" / "states").iterdir()
    path.write_bytes(path.read_bytes().replace(b"new.example", b"bad.example"))
    with pytest.raises(RosterRefused.__mro__[1]):
        federation.sign("move", [federation.authority["EE"]])


def test_a_crash_before_the_last_rename_leaves_the_old_roster_and_publishing_again_finishes(
    federation: Federation, tmp_path: Path
) -> None:
    before = (federation.repository / "metadata" / "timestamp.json").read_bytes()
    ceremony.propose_membership(
        federation.repository, "suspend", "JP", "suspended", ends={"jp.verbale.example/log/1": 5}, at=AT
    )
    federation.sign("suspend", federation.threshold())
    federation.sign("suspend", list(federation.online.values())[:2])
    draft = federation.repository / "drafts" / "suspend"
    for path in draft.rglob("*.json"):  # as after a crash: every file in place but the timestamp
        relative = path.relative_to(draft)
        if path.name not in {"timestamp.json", "draft.json"}:
            (federation.repository / relative).write_bytes(path.read_bytes())
    assert (federation.repository / "metadata" / "timestamp.json").read_bytes() == before
    assert roster_from_repository(federation.repository, federation.root, AT).version == 1
    ceremony.publish(federation.repository, "suspend", at=AT)
    assert roster_from_repository(federation.repository, federation.root, AT).version == 2


def test_no_private_key_enters_the_repository(federation: Federation) -> None:
    everything = b"".join(path.read_bytes() for path in federation.repository.rglob("*") if path.is_file())
    keys = [*federation.governance.values(), *federation.online.values(), *federation.node.values()]
    for key in keys:
        secret = (
            key.private.private_bytes_raw()
            if isinstance(key, Ed25519Signer)
            else key.private.private_numbers().private_value.to_bytes(32, "big")
        )
        assert secret not in everything
        assert secret.hex().encode() not in everything
    assert b"PRIVATE KEY" not in everything
