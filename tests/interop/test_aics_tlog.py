"""aics-tlog, another author's client of C2SP logs, against our log, its mirror, its witnesses and the proofs we send.

It needs a newer Python than our nodes do, so it has an environment of its own, which `scripts/aics_tlog.sh` makes where it
can. Where it cannot, these tests say that they were skipped; what they check, Go's packages and openssl check too.
"""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.live import STATES, Live, bent, flip
from tests.interop.served import Head, ServedLog, read_submission, vkey
from tests.interop.stock_roster import only_key_of

PROGRAM = Path(__file__).parents[2] / ".venv/aics-tlog/bin/aics-tlog"


@pytest.fixture(scope="session")
def key(live: Live, log_vkey: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name the log and its key."""
    if not PROGRAM.exists():
        pytest.skip("NOT CHECKED by aics-tlog: with Python 3.12 or newer, scripts/aics_tlog.sh installs it")
    file = tmp_path_factory.mktemp("aics-tlog") / "log.vkey"
    file.write_text(log_vkey + "\n")
    return ["--vkey-file", str(file), "--origin", live.origins["EE"]]


@pytest.fixture(scope="session")
def witnesses(live: Live, documents: dict[str, Any]) -> list[str]:
    """Options that require the cosignatures of all witnesses of the log."""
    keys = [live.foreign.vkey]
    for state in ("US", "NL"):
        raw = only_key_of(documents[state], "witness")
        keys.append(vkey(documents[state]["witness_name"], raw, kind=4))
    return [*(option for one in keys for option in ("--witness-key", one)), "--quorum", "3"]


def run(*arguments: str | Path) -> dict[str, Any]:
    """Run the command and return its verdict."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert verdict["ok"] is (done.returncode == 0)
    return verdict


def test_aics_tlog_accepts_the_head_with_the_cosignatures_of_all_witnesses(
    live: Live, key: list[str], witnesses: list[str]
) -> None:
    verdict = run("verify-checkpoint", "--tiles", live.log, *key, *witnesses)
    assert (verdict["size"], verdict["cosignatures"], verdict["tiles_ok"]) == (700, 3, True), verdict


def test_aics_tlog_finds_the_mirrors_to_agree_with_the_log(live: Live, key: list[str]) -> None:
    sources = [live.log, *(live.mirror(state) for state in STATES[1:])]
    options = [option for source in sources for option in ("--tiles", source)]
    verdict = run("verify-checkpoint", *options, *key)
    assert [(source["size"], source["ok"]) for source in verdict["sources"]] == [(700, True)] * 3, verdict


@pytest.mark.parametrize("index", [0, 511, 699])
def test_aics_tlog_proves_an_entry_from_the_tiles(
    live: Live, key: list[str], leaves: list[bytes], tmp_path: Path, index: int
) -> None:
    out = tmp_path / "entry"
    verdict = run("verify-inclusion", "--tiles", live.log, *key, "--index", str(index), "--entry-out", out)
    assert verdict["ok"], verdict
    assert out.read_bytes() == leaves[index]


@pytest.mark.parametrize("size", [1, 256, 300])
def test_aics_tlog_finds_an_earlier_head_consistent(
    live: Live, key: list[str], served: ServedLog, tmp_path: Path, size: int
) -> None:
    old = tmp_path / "old"
    old.write_bytes(served.get(f"checkpoint/{size}"))
    verdict = run("verify-consistency", "--tiles", live.log, "--old-checkpoint", old, *key)
    assert (verdict["ok"], verdict["old_size"], verdict["new_size"]) == (True, size, 700), verdict


def _consistency(old: Head, new: Head, path: list[bytes], directory: Path) -> dict[str, Any]:
    proof = directory / "proof"
    proof.write_text("".join(f"{b64encode(one).decode()}\n" for one in path))
    sizes = ["--old-size", str(old.size), "--new-size", str(new.size)]
    roots = ["--old-root", b64encode(old.root).decode(), "--new-root", b64encode(new.root).decode()]
    return run("verify-consistency", *sizes, *roots, "--proof", proof)


@pytest.mark.usefixtures("key")
def test_aics_tlog_accepts_the_proof_that_our_node_sends_to_a_foreign_witness_and_no_other(
    live: Live, served: ServedLog, tmp_path: Path
) -> None:
    old_size, path, new = read_submission(live.foreign.taken[-1])
    old = served.head(old_size)
    assert _consistency(old, new, path, tmp_path)["ok"]
    assert not _consistency(old, new, [flip(9)(path[0]), *path[1:]], tmp_path)["ok"]
    assert not _consistency(served.head(300), new, path, tmp_path)["ok"]


@pytest.mark.parametrize(
    ("where", "change", "complaint"),
    [
        (r"/tile/0/001$", flip(5), "TileVerificationError: tile/0/001"),
        (r"/tile/1/000\.p/2$", flip(5), "TileVerificationError"),
        (r"/entries/001$", flip(-5), "TileVerificationError: tile/entries/001"),
        (r"/checkpoint$", lambda raw: raw.replace(b"ee.", b"us.", 1), "origin mismatch"),
        (r"/checkpoint$", lambda raw: raw.replace(b"\n700\n", b"\n694\n", 1), "signature"),
    ],
    ids=["tile", "upper tile", "leaf", "origin", "size"],
)
def test_aics_tlog_refuses_a_log_of_which_one_byte_differs(
    live: Live, key: list[str], where: str, change: Callable[[bytes], bytes], complaint: str
) -> None:
    with bent(live.log, where, change) as url:
        verdict = run("verify-inclusion", "--tiles", url, *key, "--index", "511")
    assert not verdict["ok"]
    assert complaint in json.dumps(verdict)
