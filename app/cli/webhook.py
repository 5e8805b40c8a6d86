"""`verbale webhook`: subscriptions of this State's systems, as their operator sees them. Secrets are never shown."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import (
    DONE,
    REFUSED,
    AsJson,
    SettingsFile,
    load_settings,
    open_database,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from app.models import SubscriptionRow
    from app.notify.keys import SigningKey
    from app.notify.subscriptions import Counts

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Webhooks: endpoints, their health, and the key that signs.",
)

HOUR_MS = 3_600_000
SubscriptionId = Annotated[
    str, typer.Argument(help="The subscription's id; `verbale webhook list` shows all.")
]


def _now() -> int:
    return time.time_ns() // 1_000_000


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wire(row: SubscriptionRow, counts: Counts) -> dict[str, Any]:
    return {
        "id": row.id,
        "token": row.token_id,
        "url": row.url,
        "description": row.description,
        "status": row.status,
        "reason": row.status_reason,
        "failing_since": _time(row.failing_since),
        "verified_at": _time(row.verified_at),
        "told": counts.told,
        "pending": counts.pending,
        "failed": counts.failed,
        "events_ahead": counts.events_ahead,
        "oldest_pending_at": _time(counts.oldest_pending_at),
        "median_ms": counts.median_ms,
    }


@app.command("list")
def list_subscriptions(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """All subscriptions with what waits and what failed, those in trouble first."""
    from sqlalchemy import select  # noqa: PLC0415 - see `app.cli`

    from app.models import SubscriptionRow  # noqa: PLC0415
    from app.notify import subscriptions  # noqa: PLC0415

    with open_database(load_settings(settings_file)) as database, database.read() as session:
        rows = session.scalars(select(SubscriptionRow).order_by(SubscriptionRow.id)).all()
        found = [_wire(row, subscriptions.counts(session, row)) for row in rows]
    found.sort(key=lambda one: (one["status"] == "active" and one["failing_since"] is None, one["id"]))
    if as_json:
        print_json(found)
        return
    print_table(
        ("Id", "Token", "URL", "Status", "Failing since", "Waiting", "Failed", "Median ms"),
        [
            [s["id"], s["token"], s["url"], s["status"], s["failing_since"], s["pending"], s["failed"], s["median_ms"]]
            for s in found
        ],
    )  # fmt: skip


@app.command("test")
def try_out(
    subscription_id: SubscriptionId, settings_file: SettingsFile = None, as_json: AsJson = False
) -> None:
    """Send a test event to an endpoint now, from this machine. Code 1 if it does not arrive; nothing is changed."""
    from app.clock import system_clock  # noqa: PLC0415 - see `app.cli`
    from app.notify import subscriptions  # noqa: PLC0415
    from app.notify.deliver import send_once  # noqa: PLC0415
    from app.notify.setup import WebhookSetup  # noqa: PLC0415

    settings = load_settings(settings_file)
    with open_database(settings) as database, database.read() as session:
        ready = subscriptions.trial(subscriptions.any_one(session, subscription_id), _now())
    attempt = asyncio.run(send_once(WebhookSetup.of(settings), system_clock, ready))
    arrived = attempt.verdict == "delivered"
    if as_json:
        print_json(
            {
                "delivered": arrived,
                "status": attempt.status,
                "error": attempt.error,
                "duration_ms": attempt.ms,
            }
        )
    else:
        print(
            f"{'delivered' if arrived else 'not delivered'}: {attempt.status or attempt.error}, {attempt.ms} ms"
        )
    raise typer.Exit(DONE if arrived else REFUSED)


@app.command()
def replay(
    subscription_id: SubscriptionId,
    failed: Annotated[bool, typer.Option("--failed", help="Only what was given up.")] = False,
    since: Annotated[datetime | None, typer.Option(help="Made at this time (UTC) or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Made before this time (UTC).")] = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Queue deliveries of an endpoint again, under their own ids: all that failed, or a range of time."""
    from app.notify import subscriptions  # noqa: PLC0415 - see `app.cli`

    chosen = subscriptions.Chosen(failed, _ms(since), _ms(until))
    queued, more = 0, True
    with open_database(load_settings(settings_file)) as database:
        while more:
            with database.write() as session:
                row = subscriptions.any_one(session, subscription_id)
                count, more = subscriptions.replay_many(session, row, chosen, _now())
            queued += count
    if as_json:
        print_json({"count": queued})
    else:
        print(f"{queued} deliveries are queued again.")


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


@app.command()
def keys(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """The keys that sign `v1a`, as `/v1/webhook-keys` publishes them."""
    from app.notify.keys import WebhookKeys  # noqa: PLC0415 - see `app.cli`

    settings = load_settings(settings_file)
    _print_keys(WebhookKeys.open(settings.keys_dir, settings.state).published(_now()), as_json=as_json)


@app.command("rotate-key")
def rotate_key(
    ahead_hours: Annotated[
        int, typer.Option(min=0, max=720, help="Hours for which the new key is published before it signs.")
    ] = 24,
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=720, help="Hours for which the old key signs beside the new one.")
    ] = 24,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key for `v1a`. Running processes notice by themselves; receivers fetch it in time."""
    from app.notify.keys import rotate  # noqa: PLC0415 - see `app.cli`

    settings = load_settings(settings_file)
    ring = rotate(
        settings.keys_dir,
        settings.state,
        _now(),
        ahead_ms=ahead_hours * HOUR_MS,
        overlap_ms=overlap_hours * HOUR_MS,
    )
    _print_keys(list(reversed(ring)), as_json=as_json)


def _print_keys(ring: list[SigningKey], *, as_json: bool) -> None:
    from app.notify.signing import public_text  # noqa: PLC0415 - see `app.cli`

    found = [
        {
            "kid": key.kid,
            "public_key": public_text(key.signer.public),
            "valid_from": _time(key.since),
            "valid_until": _time(key.until),
        }
        for key in ring
    ]
    if as_json:
        print_json(found)
        return
    print_table(("Key", "Public key", "Signs from", "Signs until"), [list(one.values()) for one in found])
