"""`verbale recall-board`: what was taken back or changed, and who has shown that it knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.common import (
    AsJson,
    NodeUrl,
    SettingsFile,
    TokenFile,
    asking,
    print_json,
    print_table,
)


def recall_board(
    url: NodeUrl = None,
    token: Annotated[
        str | None, typer.Option("--token", help="API token; without one only TLP:CLEAR is seen.")
    ] = None,
    token_file: TokenFile = None,
    issuer: Annotated[str | None, typer.Option(help="Of this State only, alpha-2.")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only what some State has not shown to hold.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many to show; 0 is all.", min=0)] = 50,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show notices that were amended, withdrawn, erased or recalled: which States provably know, since when, and which not."""
    asked = [("missing", str(missing).lower())] + ([("issuer", issuer)] if issuer else [])
    with asking(url, token, token_file, settings_file) as client:
        items, page = client.pages("/v1/recall-board", asked, limit)
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
