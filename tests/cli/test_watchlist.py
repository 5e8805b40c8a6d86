"""`verbale watchlist`: what a licensing officer does with a portfolio and a token, at a node that answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result, Served
from tests.cli.test_notice import posted, written
from tests.screening.asking import denial

UNTIL = "2027-06-01T00:00:00Z"


@pytest.fixture
def watchlist(estonia: Served, verbale: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """The command, with the options that name the node and a token with the scope `screen`."""
    made = verbale(
        "token", "create", "--name", "licensing", "--scope", "screen", "--json", "--settings", estonia.settings
    ).json  # fmt: skip
    file = tmp_path / "token"
    file.write_text(made["token"] + "\n")
    return lambda *arguments: verbale("watchlist", *arguments, "--url", estonia.url, "--token-file", file)


def party(id_: object, name: str, **more: object) -> str:
    return json.dumps({"id": id_, "name": name, **more})


def test_an_officer_loads_a_portfolio_and_clears_what_is_somebody_else(
    watchlist: Callable[..., Result], verbale: Callable[..., Result], estonia: Served, tmp_path: Path
) -> None:
    listed = posted(
        verbale, estonia, written(tmp_path / "denial.json", denial("Borealis Signals Ltd", tlp="TLP:CLEAR"))
    )["id"]
    assert watchlist("create", "first").out.endswith(": hits from the node's own threshold on\n")
    first = watchlist("create", "second", "--threshold", 0.75).out
    assert first.endswith(": hits from a score of 0.75 on\n")
    for one in watchlist("list", "--json").json:
        watchlist("delete", one["id"], "--yes")
    id_ = watchlist("create", "exporters", "--threshold", 0.8, "--json").json["id"]
    file = tmp_path / "portfolio.ndjson"
    file.write_text("\n".join([party("c-1", "Borealis Signals"), "", party("c-2", "Meridian Optics GmbH")]))
    assert watchlist("load", id_, file, "--json").json == {
        "created": 2,
        "changed": 0,
        "unchanged": 0,
        "refused": [],
    }
    assert watchlist("load", id_, file).out == "0 created, 0 changed, 2 unchanged\n"
    assert [p["ref"] for p in watchlist("parties", id_, "--json").json] == ["c-1", "c-2"]
    assert "Meridian Optics GmbH" in watchlist("parties", id_).out
    assert [one["entries"] for one in watchlist("list", "--json").json] == [2]
    assert id_ in watchlist("list").out

    (hit,) = watchlist("hits", id_, "--json").json
    assert (hit["ref"], hit["notice"]["id"], hit["state"]) == ("c-1", listed, "open")
    assert "Borealis" in watchlist("hits", id_).out
    why = ("--by", "A. Tamm", "--reason", "another company, other country", "--until", UNTIL)
    assert watchlist("clear", id_, hit["id"], *why).out == f"{hit['id']} is cleared until {UNTIL}\n"
    assert watchlist("hits", id_, "--json").json == []
    (quiet,) = watchlist("hits", id_, "--state", "cleared", "--json").json
    assert quiet["clearance"]["reason"] == "another company, other country"
    assert watchlist("reopen", id_, hit["id"]).out == f"{hit['id']} is open\n"

    assert watchlist("forget", id_, "c-1", "--json").json == {"id": "c-1", "deleted": True}
    assert watchlist("hits", id_, "--state", "all", "--json").json == []
    assert watchlist("delete", id_, "--yes").out == f"{id_} is deleted\n"
    assert watchlist("list", "--json").json == []


def test_a_table_of_a_spreadsheet_is_read_and_what_is_not_understood_stops_nothing(
    watchlist: Callable[..., Result], tmp_path: Path
) -> None:
    id_ = watchlist("create", "from a table", "--json").json["id"]
    table = tmp_path / "portfolio.csv"
    table.write_text(
        "\ufeffid,name,schema,country,birthDate\r\n"
        '7,"Meridian, Optics GmbH | Meridiaan OÜ",Company,ee,\r\n'
        "8,Jaan Näide,Spaceship,,\r\n"
        "9,Mari Näide,Person,ee|lv,1971-03-01\r\n",
        encoding="utf-8",
    )
    loaded = watchlist("load", id_, table, "--json")
    assert (loaded.code, loaded.json["created"]) == (1, 2)
    (refused,) = loaded.json["refused"]
    assert (refused["line"], refused["id"]) == (3, "8")
    first, second = watchlist("parties", id_, "--json").json
    assert first["party"]["properties"]["name"] == ["Meridian, Optics GmbH", "Meridiaan OÜ"]
    assert second["party"]["properties"]["country"] == ["ee", "lv"]
    told = watchlist("load", id_, table)
    assert told.code == 1
    assert "line 3: " in told.out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ndjson", '{"id": "1", "name": "A"}\nid,name\n', "Line 2"),
        ("a.csv", "name,country\nA,ee\n", "columns id and name"),
        ("a.csv", "id,name\n1,A,ee\n", "Line 2"),
        ("a.csv", 'id,name\n1,"A\n', "cannot be read"),
        ("a.csv", b"id,name\n1,\xff\n", "cannot be read"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_changes_nothing_and_says_where(
    watchlist: Callable[..., Result], tmp_path: Path, name: str, content: str | bytes | None, said: str
) -> None:
    id_ = watchlist("create", "empty", "--json").json["id"]
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    refused = watchlist("load", id_, tmp_path / name)
    assert (refused.code, refused.out) == (1, "")
    assert said in refused.err
    assert watchlist("parties", id_, "--json").json == []


def test_what_the_node_refuses_is_said(watchlist: Callable[..., Result]) -> None:
    refused = watchlist("hits", "00000000-0000-7000-8000-000000000000")
    assert (refused.code, refused.out) == (1, "")
    id_ = watchlist("create", "one", "--json").json["id"]
    assert "state" in watchlist("hits", id_, "--state", "half").err
