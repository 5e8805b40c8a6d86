"""The proofs that transparency-dev/merkle, the library under most Go logs, accepts and refuses."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from app.tlog.merkle import (
    InvalidConsistencyProof,
    InvalidInclusionProof,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tlog/transparency-dev-merkle.json").read_text())

# They refuse any proof from size 0, where any new root would do. C2SP tlog-witness wants it accepted with an empty
# proof, "because the empty tree is consistent with any tree", and so do we.
ACCEPTED_HERE = {"additional/size1-is-zero-and-size2-is-not-zero"}


def hashes(case: dict[str, Any]) -> list[bytes]:
    return [b64decode(one) for one in case["proof"] or []]


def root(text: str | None) -> bytes:
    """Where the root does not matter they write a phrase; our roots always have 32 bytes."""
    raw = b64decode(text or "")
    return raw.ljust(32) if raw.startswith(b"don't care") else raw


@pytest.mark.parametrize("name", VECTORS["consistency"])
def test_consistency_as_transparency_dev_judges_it(name: str) -> None:
    case = VECTORS["consistency"][name]
    roots = root(case["root1"]), root(case["root2"])
    if case["wantErr"] and name not in ACCEPTED_HERE:
        with pytest.raises(InvalidConsistencyProof):
            verify_consistency(case["size1"], roots[0], case["size2"], roots[1], hashes(case))
    else:
        verify_consistency(case["size1"], roots[0], case["size2"], roots[1], hashes(case))


@pytest.mark.parametrize("name", VECTORS["inclusion"])
def test_inclusion_as_transparency_dev_judges_it(name: str) -> None:
    case = VECTORS["inclusion"][name]
    leaf, root = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
    if case["wantErr"]:
        with pytest.raises(InvalidInclusionProof):
            verify_inclusion(leaf, case["leafIdx"], case["treeSize"], hashes(case), root)
    else:
        verify_inclusion(leaf, case["leafIdx"], case["treeSize"], hashes(case), root)
