"""The published vectors: they are what the code makes, the code accepts them, and refuses what they call refused."""

import json
from typing import Any

import pytest

from app.domain.errors import Refused
from app.tlog.checkpoint import open_checkpoint
from app.tlog.cosignature import CosignerKey, verify_cosignatures
from app.tlog.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from app.tlog.note import VerifierKey
from app.tlog.proof import TlogProof, verify_proof
from app.tlog.tiles import (
    BundlePath,
    MalformedBundle,
    MalformedTilePath,
    TilePath,
    decode_bundle,
    parse_tile_path,
)
from app.tlog.witness import Submission, judge_submission, parse_cosignatures
from tests.vectors import generate_tlog


def vector(name: str) -> Any:
    return json.loads((generate_tlog.FOLDER / name).read_text(encoding="utf-8"))


CHECKPOINTS, PROOFS, TILES, WITNESS, MERKLE = map(
    vector, ("checkpoint.json", "proof.json", "tiles.json", "witness.json", "merkle.json")
)
ORIGIN = generate_tlog.ORIGIN
LOG = [VerifierKey.parse(CHECKPOINTS["keys"]["log"]["vkey"])]
COSIGNERS = [CosignerKey.parse(CHECKPOINTS["keys"]["witness"]["vkey"])]


def test_the_generator_still_makes_the_committed_vectors() -> None:
    made = generate_tlog.vectors()
    committed = {name: (generate_tlog.FOLDER / name).read_text(encoding="utf-8") for name in made}
    assert made == committed


def test_the_checkpoints_verify() -> None:
    for name, cosigned in (("empty", 0), ("signed", 0), ("cosigned", 1)):
        head, note = open_checkpoint(CHECKPOINTS[name].encode(), LOG, ORIGIN)
        assert head.root.hex() == MERKLE["roots"][str(head.size)]
        assert [held.at for held in verify_cosignatures(note, COSIGNERS)] == [
            CHECKPOINTS["cosigned_at"]
        ] * cosigned


@pytest.mark.parametrize("name", CHECKPOINTS["refused"])
def test_a_checkpoint_called_refused_is_refused(name: str) -> None:
    raw = CHECKPOINTS["refused"][name].encode()
    assert raw != CHECKPOINTS["cosigned"].encode()
    with pytest.raises(Refused):
        verify_cosignatures(open_checkpoint(raw, LOG, ORIGIN)[1], COSIGNERS)


def test_the_merkle_proofs_verify() -> None:
    roots = {int(size): bytes.fromhex(root) for size, root in MERKLE["roots"].items()}
    frontier = Frontier()
    for size in range(701):
        if size in roots:
            assert frontier.root() == roots[size]
        frontier = frontier.extend([leaf_hash(b"entry %d" % size)])
    for case in MERKLE["inclusion"]:
        leaf, proof = leaf_hash(b"entry %d" % case["index"]), [bytes.fromhex(one) for one in case["proof"]]
        verify_inclusion(leaf, case["index"], case["size"], proof, roots[case["size"]])
    for case in MERKLE["consistency"]:
        proof = [bytes.fromhex(one) for one in case["proof"]]
        verify_consistency(case["old"], roots[case["old"]], case["new"], roots[case["new"]], proof)


def test_the_paths_and_bundles_are_read() -> None:
    for case in TILES["paths"]:
        assert parse_tile_path(case["path"]) == TilePath(case["level"], case["index"], case["width"])
    for case in TILES["bundle_paths"]:
        assert parse_tile_path(case["path"]) == BundlePath(case["index"], case["width"])
    bundle = TILES["bundle"]
    assert decode_bundle(bytes.fromhex(bundle["hex"]), 3) == [one.encode() for one in bundle["entries"]]


def test_the_paths_and_bundles_called_refused_are_refused() -> None:
    for path in TILES["refused_paths"]:
        with pytest.raises(MalformedTilePath):
            parse_tile_path(path)
    for name, encoded in TILES["refused_bundles"].items():
        with pytest.raises(MalformedBundle):
            decode_bundle(bytes.fromhex(encoded), int(name.split()[1].rstrip(",")))


def test_the_offline_proofs_verify() -> None:
    for name in ("proof", "with_extra"):
        proof = TlogProof.parse(PROOFS[name].encode())
        _, note = verify_proof(proof, leaf_hash(PROOFS["entry"].encode()), LOG, ORIGIN)
        assert len(verify_cosignatures(note, COSIGNERS)) == 1


@pytest.mark.parametrize("name", PROOFS["refused"])
def test_an_offline_proof_called_refused_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        verify_proof(
            TlogProof.parse(PROOFS["refused"][name].encode()),
            leaf_hash(PROOFS["entry"].encode()),
            LOG,
            ORIGIN,
        )


def test_the_witness_exchange_ends_in_a_cosignature() -> None:
    before, _ = open_checkpoint(WITNESS["cosigned_before"].encode(), LOG, ORIGIN)
    head, _ = judge_submission(Submission.parse(WITNESS["request"].encode()), LOG, ORIGIN, before)
    answer = parse_cosignatures(WITNESS["answer_200"].encode(), head)
    assert len(verify_cosignatures(answer, COSIGNERS)) == 1
    assert judge_submission(Submission.parse(WITNESS["first_request"].encode()), LOG, ORIGIN, None)[0] == head
