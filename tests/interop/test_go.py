"""Go's sumdb packages, those behind the checksum database of Go's modules, against the log and a mirror of it.

They need Go and Debian's source package of them, no module proxy. Where those are missing, a person's `bin/test` says so
and goes on; with CI set it fails, so that a change can never land unseen by them.
"""

import os
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.interop.live import Live, bent, flip
from tests.interop.served import vkey
from tests.interop.stock_roster import only_key_of

pytestmark = pytest.mark.go

SOURCE = Path(__file__).parent / "go/sumdb.go"
TILE = "inconsistent tile|^entry [0-9]+: invalid transparency proof"
GOPATH = Path("/usr/share/gocode")
ADVICE = "Go's sumdb packages are not here; on Debian: apt-get install golang-go golang-golang-x-mod-dev"


@pytest.fixture(scope="session")
def sumdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    if shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        if os.environ.get("CI", "") not in ("", "0", "false"):
            pytest.fail(ADVICE)
        pytest.skip(f"NOT CHECKED by Go: {ADVICE}")
    program = tmp_path_factory.mktemp("go") / "sumdb"
    environment = os.environ | {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOFLAGS": ""}
    if not environment.keys() & {"HOME", "XDG_CACHE_HOME", "GOCACHE"}:
        environment["GOCACHE"] = str(program.parent / "cache")
    built = subprocess.run(
        ["go", "build", "-o", program, SOURCE], env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return program


def run(sumdb: Path, url: str, key: str, heads: Sequence[int | Path]) -> subprocess.CompletedProcess[str]:
    command = [str(sumdb), url, key, *(str(head) for head in heads)]
    environment = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _submissions(live: Live, directory: Path) -> list[Path]:
    """What our node sent to a foreign witness, as files: proofs that it made itself."""
    files = []
    for number, raw in enumerate(live.foreign.taken):
        if not raw.startswith(b"old 0\n"):
            files.append(directory / f"{number}.submission")
            files[-1].write_bytes(raw)
    return files


@pytest.mark.parametrize("at", ["EE", "NL"], ids=["own", "mirror"])
def test_go_opens_the_heads_and_proves_every_entry(
    live: Live, sumdb: Path, log_vkey: str, tmp_path: Path, at: str
) -> None:
    heads: list[int | Path] = [*live.sizes, *_submissions(live, tmp_path)]
    done = run(sumdb, live.log if at == "EE" else live.mirror(at), log_vkey, heads)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{live.origins['EE']}: 700 entries, {len(heads)} earlier heads, 4 tiles\n"


@pytest.mark.parametrize(
    ("where", "change", "complaint"),
    [
        ("/tile/0/000$", flip(0), TILE),
        ("/tile/0/001$", flip(-1), TILE),
        (r"/tile/0/002\.p/188$", flip(700), TILE),
        (r"/tile/1/000\.p/2$", flip(40), TILE),
        ("/entries/000$", flip(2), "^entry 0: "),
        (r"/entries/002\.p/188$", flip(-1), "^entry 699: "),
        ("/checkpoint$", lambda raw: raw.replace(b"ee.", b"us.", 1), "^checkpoint: "),
        ("/checkpoint$", lambda raw: raw.replace(b"\n700\n", b"\n699\n", 1), "^checkpoint: "),
        ("/checkpoint/300$", lambda raw: raw.replace(b"\n300\n", b"\n301\n", 1), "^checkpoint/300: "),
    ],
    ids=[
        "first tile",
        "full tile",
        "partial",
        "upper tile",
        "leaf",
        "last leaf",
        "origin",
        "size",
        "old head",
    ],
)
def test_go_refuses_a_log_of_which_one_byte_differs(
    live: Live, sumdb: Path, log_vkey: str, where: str, change: Callable[[bytes], bytes], complaint: str
) -> None:
    with bent(live.log, where, change) as url:
        done = run(sumdb, url, log_vkey, live.sizes)
    assert done.returncode == 1
    assert re.search(complaint, done.stderr)


def test_go_refuses_a_consistency_proof_with_one_flipped_bit(
    live: Live, sumdb: Path, log_vkey: str, tmp_path: Path
) -> None:
    # A head that is offered once more comes without a proof: nothing is to be proven between a size and itself.
    submissions = {path: path.read_bytes().split(b"\n", 2) for path in _submissions(live, tmp_path)}
    *_, (last, (first, hash_, rest)) = (item for item in submissions.items() if item[1][1])
    last.write_bytes(b"\n".join([first, b64encode(flip(0)(b64decode(hash_))), rest]))
    done = run(sumdb, live.log, log_vkey, [last])
    assert done.returncode == 1
    assert "invalid transparency proof" in done.stderr


def test_go_refuses_the_log_under_another_name_or_key(
    live: Live, sumdb: Path, documents: dict[str, Any], log_key: bytes
) -> None:
    other = only_key_of(documents["US"], "log")
    for key in (vkey(live.origins["US"], log_key), vkey(live.origins["EE"], other)):
        done = run(sumdb, live.log, key, [])
        assert done.returncode == 1
        assert "note has no verifiable signatures" in done.stderr
