"""The published vectors of leaves and commitments: they are what the code makes, and the code judges them as they say."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from app.domain.commitment import check_opening
from app.domain.encoding import b64u_decode
from app.domain.errors import CommitmentMismatch, VerbaleError
from app.domain.judge import check_openings, judge_statement
from app.domain.keys import PublicKey
from app.domain.roster import Roster, RosterKey, RosterLog, RosterState
from app.domain.statement import Part
from tests.federation.attacks import ATTACKS
from tests.vectors import generate_statements


def vector(name: str) -> Any:
    return json.loads((generate_statements.FOLDER / name).read_text(encoding="utf-8"))


ACCEPTED, REFUSED, COMMITMENTS = map(vector, ("accepted.json", "refused.json", "commitments.json"))


def judge(leaf: str, context: dict[str, Any]) -> Any:
    """Judge a leaf with nothing but what the vector says."""
    keys = tuple(
        RosterKey(
            kid,
            listed["use"],
            PublicKey.from_text("Ed25519", listed["public"]),
            **{n: v for n, v in listed.items() if n not in ("use", "public")},
        )
        for kid, listed in context["keys"].items()
    )
    origin = context["origin"]
    state = RosterState("EE", "Estonia", logs=(RosterLog(origin, 1, "http://x"),), keys=keys)
    roster = Roster(1, "ab" * 32, context["at"] + 1, MappingProxyType({"EE": state}))
    return judge_statement(leaf.encode(), origin=origin, index=0, roster=roster, at=context["at"])


def test_the_generator_still_makes_the_committed_vectors() -> None:
    made = generate_statements.vectors()
    committed = {name: (generate_statements.FOLDER / name).read_text(encoding="utf-8") for name in made}
    assert made == committed


@pytest.mark.parametrize("kind", ACCEPTED["leaves"])
def test_a_leaf_called_accepted_is_accepted(kind: str) -> None:
    one = ACCEPTED["leaves"][kind]
    statement = judge(one["leaf"], ACCEPTED["context"]).statement
    assert (statement.kind, statement.id, statement.kid) == (kind, one["id"], one["kid"])
    assert statement.leaf_hash.hex() == one["leaf_hash"]
    check_openings(
        statement,
        {n: Part(b64u_decode(p["salt"]), b64u_decode(p["content"])) for n, p in one["parts"].items()},
    )


@pytest.mark.parametrize("name", REFUSED["leaves"])
def test_a_leaf_called_refused_is_refused_with_its_code(name: str) -> None:
    one = REFUSED["leaves"][name]
    with pytest.raises(VerbaleError) as refused:
        judge(one["leaf"], REFUSED["context"])
    assert refused.value.code == one["code"] == ATTACKS[name].mirrored_code


def test_commitments_open_and_near_misses_do_not() -> None:
    first = COMMITMENTS["openings"][0]
    for one in COMMITMENTS["openings"] + COMMITMENTS["different"]:
        values = (b64u_decode(one["salt"]), one["id"], one["part"], b64u_decode(one["content"]))
        check_opening(bytes.fromhex(one["commitment"]), *values)
        if one is not first:
            with pytest.raises(CommitmentMismatch):
                check_opening(bytes.fromhex(first["commitment"]), *values)
