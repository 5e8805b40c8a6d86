"""`verbale federation`: how far every State's log is, as one node sees it."""

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


def federation(
    url: NodeUrl = None,
    token: Annotated[
        str | None, typer.Option("--token", help="API token; details of errors need one.")
    ] = None,
    token_file: TokenFile = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show per State: leaves proven here, lag, receipts, faults; and the roster in force."""
    with asking(url, token, token_file, settings_file) as client:
        found = client.get("/v1/federation")
    if as_json:
        print_json(found)
        return
    rows = [_row(log) for log in found["logs"]]
    print_table(
        (
            "State",
            "Log",
            "Leaves",
            "Judged",
            "Behind",
            "Confirmed",
            "Receipts",
            "Faults",
            "Clock",
            "Standing",
        ),
        rows,
    )
    roster = found["roster"]
    print(
        f"As {found['state']} sees it at {found['now']}. Central contact: {found['central_contact'] or 'none'}. "
        f"Roster version {roster['version']}, counts until {roster['expires']}."
    )
    print(f"Quorum: {found['quorum_rule']}")
    for log in found["logs"]:
        for witness in log["foreign_witnesses"]:
            print(
                f"foreign witness {witness['name']}: size {witness['size']} of {log['origin']}, {witness['at']}. "
                "It counts for no quorum."
            )
    for log in found["logs"]:
        if log["frozen_root"] is not None:
            print(f"frozen {log['origin']}: size {log['frozen_size']}, root {log['frozen_root']}")
        if (before := log["continues"]) is not None:
            said = "as its first leaf says" if before["stated"] else "and its first leaf does not say so"
            print(f"{log['origin']} continues {before['origin']} from size {before['size']}, {said}")
    for warning in roster["warnings"]:
        print(f"warning: {warning['detail']}")
    for origin in found["not_followed"]:
        print(f"not followed yet: {origin}")


def _row(log: dict[str, Any]) -> list[object]:
    lag, error, confirmed = log["lag"], log["error"], log["confirmed"]
    behind = "" if not lag["leaves"] else f"{lag['leaves']} leaves, {lag['seconds']:.0f} s"
    complete = sum(receipt["complete"] for receipt in log["receipts"])
    skew = "" if log["skew_ms"] is None else f"{log['skew_ms'] / 1000:+.1f} s"
    standing = "own" if log["own"] else log["status"]
    if error is not None:
        standing = f"{standing}: {error.get('detail') or error['code']}"
    return [
        log["state"],
        log["origin"],
        log["size"],
        log["judged"],
        behind,
        confirmed["size"]
        if not confirmed["lag_leaves"]
        else f"{confirmed['size']}, {confirmed['lag_leaves']} to go",
        f"{complete} of {confirmed['quorum']}",
        log["faults"] or "",
        skew,
        standing,
    ]
