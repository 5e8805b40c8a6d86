"""`verbale token`: API tokens of this State's own systems. Whoever can read the node's settings may make them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, open_database, print_json, print_table

if TYPE_CHECKING:
    from app.tokens import Token

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API tokens of this State's own systems.")

DAY_MS = 86_400_000


def _now() -> int:
    return time.time_ns() // 1_000_000


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wire(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "ceiling": token.ceiling.label,
        "created_at": _time(token.created_at),
        "expires_at": _time(token.expires_at),
        "revoked_at": _time(token.revoked_at),
        "last_used_at": _time(token.last_used_at),
    }


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Which system holds it.")],
    scope: Annotated[list[str], typer.Option(help="read, screen, subscribe or admin; repeat for each.")],
    ceiling: Annotated[str, typer.Option(help="Highest label it may see, like TLP:AMBER.")] = "TLP:GREEN",
    days: Annotated[int, typer.Option(help="Days until it expires, at most 366.")] = 90,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once: only a hash of it is kept."""
    from app import tokens  # noqa: PLC0415 - see `app.cli`
    from app.domain.handling import Tlp  # noqa: PLC0415

    level, now = Tlp.parse(ceiling), _now()
    with open_database(load_settings(settings_file)) as database, database.write() as session:
        token, text = tokens.create(
            session, name=name, scopes=scope, ceiling=level, expires_at=now + days * DAY_MS, now_ms=now
        )
    if as_json:
        print_json({"token": text, **_wire(token)})
    else:
        print(text)


@app.command("list")
def list_tokens(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """All tokens, newest first, without their secrets."""
    from app import tokens  # noqa: PLC0415 - see `app.cli`

    with open_database(load_settings(settings_file)) as database, database.read() as session:
        found = [_wire(token) for token in tokens.listed(session)]
    if as_json:
        print_json(found)
        return
    rows = [
        [t["id"], t["name"], " ".join(t["scopes"]), t["ceiling"], _standing(t), t["last_used_at"]]
        for t in found
    ]
    print_table(("Id", "Name", "Scopes", "Ceiling", "Standing", "Last used"), rows)


def _standing(token: dict[str, Any]) -> str:
    if token["revoked_at"]:
        return f"revoked {token['revoked_at']}"
    expired = token["expires_at"] <= (_time(_now()) or "")
    return f"{'expired' if expired else 'expires'} {token['expires_at']}"


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="The token's id, or the token itself.")],
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """End a token now."""
    from app import tokens  # noqa: PLC0415 - see `app.cli`

    plain = token_id.split("_")[1] if token_id.startswith("vbl_") and token_id.count("_") > 1 else token_id
    with open_database(load_settings(settings_file)) as database, database.write() as session:
        token = tokens.revoke(session, plain, now_ms=_now())
    if as_json:
        print_json(_wire(token))
    else:
        print(f"Token {token.id} ({token.name}) is revoked since {_time(token.revoked_at)}.")
