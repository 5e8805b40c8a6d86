"""`verbale watchlist`: stored portfolios of the token that is given, what was found for them, and what a person decided.

Through the API of its node, from anywhere; a list's parties go to that node alone.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from app.cli.common import (
    DONE,
    REFUSED,
    AsJson,
    asks,
    print_json,
    print_table,
    progress,
)
from app.domain.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from app.cli.client import NodeClient

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Portfolios of your token, at a node that you name."
)

WatchlistId = Annotated[str, typer.Argument(help="The list's id; `verbale watchlist list` shows yours.")]
AT_ONCE: Final = 500
"""Parties in one request; a node takes a thousand."""


def _path(*parts: str) -> str:
    return "/".join(("/v1/watchlists", *(quote(part, safe="") for part in parts)))


@app.command()
@asks("screen")
def create(
    client: NodeClient,
    name: Annotated[str, typer.Argument(help="For you.")],
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Least score of a hit; by default the node's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty watch-list. `load` puts parties in."""
    wanted = {"name": name} | ({} if threshold is None else {"threshold": threshold})
    made = client.sent("POST", _path(), wanted)
    if as_json:
        print_json(made)
    else:
        least = "the node's own threshold" if made["threshold"] is None else f"a score of {made['threshold']}"
        print(f"{made['id']}: hits from {least} on")


@app.command("list")
@asks("screen")
def list_watchlists(
    client: NodeClient,
    as_json: AsJson = False,
) -> None:
    """Your token's watch-lists, oldest first."""
    items = client.get(_path())["items"]
    if as_json:
        print_json(items)
        return
    print_table(
        ("Id", "Name", "Threshold", "Parties"),
        [[one["id"], one["name"], one["threshold"], one["entries"]] for one in items],
    )


@app.command()
@asks("screen")
def load(
    client: NodeClient,
    watchlist_id: WatchlistId,
    file: Annotated[
        Path,
        typer.Argument(
            help="Parties, each with an id of yours. NDJSON: one a line, as POST /v1/screenings takes it. CSV: columns id, name and, "
            "if you have them, schema, country, birthDate, … (several values with | between)."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Put parties in, or others in their place, by your ids. It may be run again: what is there like that stays as it is.

    Exit code 1 if a party was not understood; the others are in.
    """
    parties = list(_read(file))
    counts = {"created": 0, "changed": 0, "unchanged": 0}
    refused: list[dict[str, Any]] = []
    with progress("Parties", len(parties)) as show:
        for at in range(0, len(parties), AT_ONCE):
            some = parties[at : at + AT_ONCE]
            items = client.sent("POST", _path(watchlist_id, "entries"), {"parties": [p for _, p in some]})[
                "items"
            ]
            for (line, _), item in zip(some, items, strict=True):
                if "state" in item:
                    counts[item["state"]] += 1
                else:
                    refused.append({"line": line, "id": item["ref"], "errors": item["errors"]})
            show(at + len(some))
    if as_json:
        print_json({**counts, "refused": refused})
    else:
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
        for one in refused:
            why = "; ".join(f"{e['pointer'] or '/'}: {e['detail']}" for e in one["errors"])
            print(f"line {one['line']}: {why}")
    raise typer.Exit(REFUSED if refused else DONE)


def _read(file: Path) -> Iterator[tuple[int, Any]]:
    """The parties of a file with the line each begins on.

    Raises:
        Malformed: the file cannot be read, or is neither.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                yield from _csv(lines)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line, f"Line {number} of {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"{file} cannot be read: {error}") from error


def _parsed(line: str, where: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"{where} is no JSON: {error}. A table is read from a file that ends in .csv."
        ) from error


def _csv(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    table = csv.DictReader(lines, strict=True)
    try:
        if not {"id", "name"} <= set(table.fieldnames or ()):
            raise Malformed("The table needs the columns id and name in its first line.")
        for row in table:
            if None in row or None in row.values():
                raise Malformed(f"Line {table.line_num} has other columns than the first line of the table.")
            values = {
                name: [value.strip() for value in text.split("|") if value.strip()]
                for name, text in row.items()
            }
            party: dict[str, Any] = {"id": row["id"].strip()}
            if values.get("schema"):
                party["schema"] = values["schema"][0]
            party["properties"] = {
                name: given for name, given in values.items() if given and name not in ("id", "schema")
            }
            yield table.line_num, party
    except csv.Error as error:
        raise Malformed(f"Line {table.line_num} of the table cannot be read: {error}.") from error


@app.command()
@asks("screen")
def parties(
    client: NodeClient,
    watchlist_id: WatchlistId,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many to show; 0 is all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The stored parties, by your ids."""
    items, _ = client.pages(_path(watchlist_id, "entries"), [], limit)
    if as_json:
        print_json(items)
        return
    print_table(
        ("Id", "Name", "Schema", "Changed"),
        [
            [
                one["ref"],
                ", ".join(one["party"].get("properties", {}).get("name", [])),
                one["party"].get("schema"),
                one["changed_at"],
            ]
            for one in items
        ],
    )


@app.command()
@asks("screen")
def forget(
    client: NodeClient,
    watchlist_id: WatchlistId,
    party: Annotated[str, typer.Argument(help="Your id of the party.")],
    as_json: AsJson = False,
) -> None:
    """Delete a stored party with its hits and decisions, for good."""
    client.send("DELETE", _path(watchlist_id, "entries", party))
    if as_json:
        print_json({"id": party, "deleted": True})
    else:
        print(f"{party} is forgotten")


@app.command()
@asks("screen")
def hits(
    client: NodeClient,
    watchlist_id: WatchlistId,
    state: Annotated[str, typer.Option("--state", help="open, cleared or all.")] = "open",
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many to show; 0 is all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Notices, valid now, that may be about a stored party; the newest match first."""
    items, _ = client.pages(_path(watchlist_id, "hits"), [("state", state)], limit)
    if as_json:
        print_json(items)
        return
    print_table(
        ("Hit", "Party", "Score", "Denied", "By", "Notice", "State", "Until"),
        [
            [
                one["id"],
                one["ref"],
                one["score"],
                one["party"]["properties"].get("name", [""])[0],
                one["notice"]["issuer"],
                one["notice"]["id"],
                one["state"],
                (one["clearance"] or {}).get("until"),
            ]
            for one in items
        ],
    )


@app.command()
@asks("screen")
def clear(
    client: NodeClient,
    watchlist_id: WatchlistId,
    hit: Annotated[str, typer.Argument(help="The hit's id; `verbale watchlist hits` shows it.")],
    by: Annotated[str, typer.Option("--by", help="Who has looked.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is somebody else, or does not matter.")],
    until: Annotated[
        str, typer.Option("--until", help="Quiet until then (RFC 3339), at most three years ahead.")
    ],
    as_json: AsJson = False,
) -> None:
    """Keep a hit quiet after a person has looked. It is heard again when the time is over, or the notice or the party changes."""
    wanted = {"by": by, "reason": reason, "until": until}
    found = client.sent("PUT", _path(watchlist_id, "hits", hit, "clearance"), wanted)
    _print_hit(found, as_json=as_json)


@app.command()
@asks("screen")
def reopen(
    client: NodeClient,
    watchlist_id: WatchlistId,
    hit: Annotated[str, typer.Argument(help="The hit's id.")],
    as_json: AsJson = False,
) -> None:
    """Take a clearance back."""
    found = client.sent("DELETE", _path(watchlist_id, "hits", hit, "clearance"))
    _print_hit(found, as_json=as_json)


def _print_hit(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found["clearance"]:
        print(f"{found['id']} is cleared until {found['clearance']['until']}")
    else:
        print(f"{found['id']} is open")


@app.command()
@asks("screen")
def delete(
    client: NodeClient,
    watchlist_id: WatchlistId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a watch-list with its parties, hits and decisions, for good."""
    if not yes:
        typer.confirm(f"Delete {watchlist_id} with all its parties and decisions?", abort=True, err=True)
    client.send("DELETE", _path(watchlist_id))
    if as_json:
        print_json({"id": watchlist_id, "deleted": True})
    else:
        print(f"{watchlist_id} is deleted")
