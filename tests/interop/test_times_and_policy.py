"""When a leaf was logged, and whose word confirms it, from the files that running nodes serve and the pinned root alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import run
from app.domain.errors import VerbaleError
from app.domain.json import parse_strict
from app.timing import verify_time
from app.tlog.checkpoint import open_checkpoint
from app.tlog.cosignature import verify_cosignatures
from app.tlog.policy import Policy
from app.tlog.proof import TlogProof
from tests.interop.live import Live, client


def fetch(url: str) -> bytes:
    with client() as asking:
        response = asking.get(url)
        assert response.status_code == httpx.codes.OK, response.text
        return response.content


@pytest.fixture
def verify(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """`verbale verify … --json` with the pinned root."""
    root = tmp_path / "root.json"
    root.write_bytes(live.root)

    def call(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run(["verify", *arguments, "--roster-root", str(root), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("index", [0, 1, 300, 699])
def test_the_time_of_a_leaf_is_proven_by_the_log_and_by_every_mirror_alike(
    live: Live, verify: Callable[..., tuple[int, Any]], index: int
) -> None:
    code, said = verify("--time", f"{live.log}/time/{index}")
    (version,) = said["versions"]
    assert (code, said["times_fit"], version["index"], version["flag"]) == (0, True, index, None), said
    for state in ("US", "NL"):
        assert verify("--time", f"{live.mirror(state)}/time/{index}") == (0, said)


def test_a_proof_file_tells_the_time_of_its_versions(
    live: Live, verify: Callable[..., tuple[int, Any]], tmp_path: Path
) -> None:
    headers = {"authorization": f"Bearer {live.token}"}
    with client(base_url=live.urls["EE"], headers=headers) as ee:
        notice = ee.get("/v1/notices", params={"limit": 1}).json()["items"][0]
        proof = ee.get(f"/v1/notices/{notice['id']}/proof").json()
    code, said = verify("--time", f"{live.urls['EE']}/v1/notices/{notice['id']}/proof", "--token", live.token)
    assert (code, said["times_fit"], said["confirmed"]) == (0, True, True), said
    shown = {"after": said["versions"][-1]["logged_after"], "before": said["versions"][-1]["logged_before"]}
    assert shown | {"flag": None} == notice["logged"]

    del proof["history"]
    file = tmp_path / "without-history.json"
    file.write_text(json.dumps(proof))
    code, said = verify("--time", str(file))
    assert (code, said["times_fit"]) == (1, False)  # nothing is proven of its time; all else is
    assert verify(str(file))[0] == 0


def test_a_changed_byte_of_a_time_file_is_refused_and_named(live: Live) -> None:
    raw = fetch(f"{live.log}/time/300")
    verify_time(parse_strict(raw), live.root)
    head = raw.index(b'"roster"')  # the roster's own bytes are flipped in tests/roster
    steps = set()
    for at in range(0, head, 13):
        changed = bytearray(raw)
        changed[at] ^= 1 + at % 2 * 0x1F
        try:
            verify_time(parse_strict(bytes(changed)), live.root)
        except VerbaleError as refusal:
            steps.add(getattr(refusal, "step", refusal.code))
        else:
            pytest.fail(f"byte {at} may be {changed[at]:#x}: {bytes(changed[at - 20 : at + 20])!r}")
    assert {"signature", "history", "inclusion"} <= steps


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (lambda f: f.update({"with": f["without"]}), "history"),
        (lambda f: f.update({"without": f["with"]}), "history"),
        (lambda f: f.update(index=f["index"] + 1), "inclusion"),
        (lambda f: f.update(index=True), "format"),
        (lambda f: f.update(index=-1), "format"),
        (lambda f: f.update(origin="us.example/log/1"), "roster"),
        (lambda f: f.update(statement=None), "signature"),
        (lambda f: f.update(inclusion=None), "inclusion"),
        (lambda f: f.update(inclusion=[1]), "inclusion"),
        (lambda f: f["inclusion"].pop(), "inclusion"),
        (lambda f: f.update({"with": 7}), "format"),
        (lambda f: f.update(more=1), "format"),
        (lambda f: f.pop("without"), "format"),
    ],
)
def test_a_time_file_that_says_something_else_is_refused_at_the_step_that_sees_it(
    live: Live, change: Callable[[dict[str, Any]], Any], step: str
) -> None:
    file = json.loads(fetch(f"{live.log}/time/300"))
    change(file)
    with pytest.raises(VerbaleError) as refusal:
        verify_time(file, live.root)
    assert getattr(refusal.value, "step", None) == step


def test_the_policy_that_is_served_accepts_what_is_confirmed_and_names_the_foreign_witness(
    live: Live,
) -> None:
    policy = Policy.parse(fetch(f"{live.log}/policy"))
    raw = fetch(f"{live.log}/checkpoint/700")
    keys = [log.key for log in policy.logs]
    _, note = open_checkpoint(raw, keys, live.origins["EE"])
    by_key = {w.key: verify_cosignatures(note, [w.key]) for w in policy.witnesses}
    assert policy.met_by(key for key, found in by_key.items() if found)
    names = [w.name.decode() for w in policy.witnesses]
    assert names == ["NL/witness/1", "US/witness/1", live.foreign.vkey.split("+")[0]]
    foreign = policy.witnesses[-1].key
    assert by_key[foreign]  # its cosignature is kept and served
    assert not policy.met_by([foreign, policy.witnesses[0].key])  # and does not count

    # The same of a mirror, and of the tlog-proof that it goes with.
    assert [log.key for log in Policy.parse(fetch(f"{live.mirror('US')}/policy")).logs] == keys
    proof = TlogProof.parse(fetch(f"{live.log}/proof/7"))
    _, note = open_checkpoint(proof.checkpoint, keys, live.origins["EE"])
    assert policy.met_by(w.key for w in policy.witnesses if verify_cosignatures(note, [w.key]))


def test_the_federation_shows_the_foreign_witness_apart(live: Live) -> None:
    with client(base_url=live.urls["EE"]) as ee:
        log = next(log for log in ee.get("/v1/federation").json()["logs"] if log["own"])
    assert [w["name"] for w in log["foreign_witnesses"]] == [live.foreign.vkey.split("+")[0]]
    assert [r["state"] for r in log["receipts"]] == ["NL", "US"]
    assert (log["confirmed"]["size"], log["confirmed"]["witnesses"], log["confirmed"]["quorum"]) == (
        700,
        2,
        2,
    )
