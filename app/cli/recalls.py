"""`verbale recall-board`: what was taken back or changed, and who has shown that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, print_json, print_table, read_file

PAGE = 200


def recall_board(
    url: Annotated[
        str | None, typer.Option("--url", help="The node's address; by default that of the settings.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="API token; without one only TLP:CLEAR is seen.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the token.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(help="Of this State only, alpha-2.")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only what some State has not shown to hold.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many to show; 0 is all.", min=0)] = 50,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show notices that were amended, withdrawn, erased or recalled: which States provably know, since when, and which not."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    if token_file is not None:
        token = read_file(token_file, limit=4096).decode("utf-8", "replace").strip()
    asked = [("missing", str(missing).lower())] + ([("issuer", issuer)] if issuer else [])
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    with node_client(url or load_settings(settings_file).public_url, token) as client:
        while True:
            size = min(PAGE, limit - len(items)) if limit else PAGE
            page = client.get(
                "/v1/recall-board", [*asked, ("limit", str(size))] + ([("cursor", cursor)] if cursor else [])
            )
            items += page["items"]
            cursor = page["next"]
            if cursor is None or (limit and len(items) >= limit):
                break
    if as_json:
        print_json({"items": items, "total": page["total"]})
        return
    if items:
        print_table(
            (
                "Notice",
                "State",
                "What",
                "Since",
                "Standing",
                "Hold it",
                "Not proven",
                "Acknowledged",
                "Recalled from",
                "Say erased",
            ),
            [_row(item) for item in items],
        )
    total = page["total"]
    print(f"{len(items)} of {total} on the board." if len(items) < total else f"{total} on the board.")


def _row(item: dict[str, Any]) -> list[object]:
    newest = item["newest"]
    holders = ", ".join(f"{h['state']} {h['at'][:16].replace('T', ' ')}" for h in newest["holders"])
    what = item["status"] if item["status"] in ("withdrawn", "erased", "recalled") else "amended"
    return [
        f"{item['title'] or '(nothing to show)'}\n{item['id']}",
        item["issuer"],
        what,
        item["changed_at"][:16].replace("T", " "),
        newest["standing"],
        holders,
        ", ".join(newest["unproven"]),
        ", ".join(newest["acknowledged"]),
        ", ".join(newest["recalled_from"]),
        ", ".join(f"{one['state']} {one['at'][:16].replace('T', ' ')}" for one in newest["erased_by"]),
    ]
