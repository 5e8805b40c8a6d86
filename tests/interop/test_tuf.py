"""python-tuf's own client, with nothing of ours in it, against the roster that a running node serves."""

import json
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.ngclient import Updater

from tests.interop.live import STATES, Live, bent, flip
from tests.interop.stock_roster import download

NAMES = ["federation.json", *(f"states/{state.lower()}.json" for state in STATES)]


@pytest.mark.parametrize("at", STATES)
def test_the_stock_client_gets_the_whole_roster_from_every_node(live: Live, tmp_path: Path, at: str) -> None:
    files = download(f"{live.urls[at]}/roster", live.root, tmp_path, NAMES)
    federation = json.loads(files["federation.json"])
    assert {term["state"] for term in federation["central_contact"]} == {"NL"}
    for state in STATES:
        document = json.loads(files[f"states/{state.lower()}.json"])
        assert (document["state"], document["url"]) == (state, live.urls[state])
        assert [log["origin"] for log in document["logs"]] == [live.origins[state]]


@pytest.mark.parametrize(
    "where",
    [
        r"targets/.*federation\.json",
        r"targets/.*ee\.json",
        r"metadata/timestamp\.json",
        r"metadata/.*snapshot\.json",
        r"metadata/.*targets\.json",
        r"metadata/.*state-ee\.json",
    ],
)
def test_the_stock_client_refuses_a_roster_with_one_flipped_bit(
    live: Live, tmp_path: Path, where: str
) -> None:
    with bent(f"{live.urls['NL']}/roster", where, flip(40)) as url, pytest.raises(RepositoryError):
        download(url, live.root, tmp_path, NAMES)


def test_the_stock_client_refuses_the_roster_under_another_root(live: Live, tmp_path: Path) -> None:
    other = json.loads(live.root)
    other["signatures"][0]["sig"] = other["signatures"][1]["sig"]
    other["signatures"] = other["signatures"][:1]
    with pytest.raises(RepositoryError):
        Updater(str(tmp_path), f"{live.urls['NL']}/roster/metadata/", bootstrap=json.dumps(other).encode())
