"""The proof under version control still verifies: what was proven once stays proven under every later version."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.json import parse_strict
from app.keyfiles import fingerprint, read_card
from app.proofs import ProofRefused, verify_proof

ROOT = Path(__file__).resolve().parents[2]
PROOF = ROOT / "docs" / "examples" / "candiru.json"
PINNED = ROOT / "keys" / "root.json"


def test_the_sample_proof_verifies_under_the_root_in_keys() -> None:
    proven = verify_proof(parse_strict(PROOF.read_bytes()), PINNED.read_bytes())
    assert (proven.issuer, proven.status, proven.confirmed) == ("US", "active", True)
    notice = proven.versions[0][4]
    assert notice is not None
    assert notice.document["title"] == "Entity List: Candiru"


def test_the_sample_proof_does_not_verify_under_a_changed_root() -> None:
    changed = PINNED.read_bytes().replace(b'"threshold":3', b'"threshold":1')
    assert changed != PINNED.read_bytes()
    with pytest.raises(ProofRefused):
        verify_proof(parse_strict(PROOF.read_bytes()), changed)


def test_the_public_keys_in_keys_are_those_of_four_contact_points() -> None:
    cards = [read_card(path) for path in sorted((ROOT / "keys").glob("*.pub"))]
    assert [card.kid for card in cards] == ["EE/cp/1", "JP/cp/1", "NL/cp/1", "US/cp/1"]
    assert len({fingerprint(card.key) for card in cards}) == 4
