"""`verbale subscription`: webhooks of the token that is given, through the API of its node, from anywhere.

The operator's view of all subscriptions, at the node itself, is `verbale webhook`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import quote

import typer

from app.cli.common import (
    DONE,
    REFUSED,
    AsJson,
    asks,
    print_json,
    print_table,
)
from app.domain.errors import Malformed

if TYPE_CHECKING:
    from app.cli.client import NodeClient

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Webhooks of your token, at a node that you name."
)

SubscriptionId = Annotated[
    str, typer.Argument(help="The subscription's id; `verbale subscription list` shows yours.")
]


def _path(subscription_id: str, *rest: str) -> str:
    return "/v1/subscriptions/" + "/".join(quote(part, safe="") for part in (subscription_id, *rest))


@app.command()
@asks("subscribe")
def create(
    client: NodeClient,
    endpoint: Annotated[str, typer.Argument(help="Where to: an https URL of yours.")],
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="NAME=VALUE as of GET /v1/notices; repeat it for more."),
    ] = None,
    event_types: Annotated[
        list[str] | None,
        typer.Option("--event-type", help="Only these; repeat it. None is every type about notices."),
    ] = None,
    signing: Annotated[str, typer.Option("--signing", help="v1, v1a or both.")] = "v1",
    body: Annotated[str, typer.Option("--body", help="thin or full.")] = "thin",
    ordered: Annotated[
        bool, typer.Option("--ordered", help="One after another, in the order of events.")
    ] = False,
    description: Annotated[str | None, typer.Option("--description", help="For you.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Words to find it by; repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Subscribe an endpoint. The secret of a v1 subscription is printed this once."""
    wanted: dict[str, Any] = {"url": endpoint, "signing": signing, "body": body, "ordered": ordered}
    wanted |= {"filter": _filter(filters or []), "event_types": event_types or [], "tags": tags or []}
    if description is not None:
        wanted["description"] = description
    _print_made(client.sent("POST", "/v1/subscriptions", wanted), as_json=as_json)


def _filter(pairs: list[str]) -> dict[str, str | list[str]]:
    """NAME=VALUE pairs as the API takes them; a name that comes twice has alternatives."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise Malformed(f"{pair!r} is no filter. Write it like country=ZM.")
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _print_made(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print(f"id       {made['id']}")
    if made.get("secret"):
        print(f"secret   {made['secret']}   (shown this once)")
    if made.get("public_key"):
        print(f"key      {made['public_key']}")


@app.command("list")
@asks("subscribe")
def list_subscriptions(
    client: NodeClient,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those that carry it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Your token's subscriptions, oldest first."""
    items = client.get("/v1/subscriptions", [] if tag is None else [("tag", tag)])["items"]
    if as_json:
        print_json(items)
        return
    print_table(
        ("Id", "URL", "Status", "Failing since", "Description"),
        [[s["id"], s["url"], s["status"], s["failing_since"], s["description"]] for s in items],
    )


@app.command()
@asks("subscribe")
def show(
    client: NodeClient,
    subscription_id: SubscriptionId,
    as_json: AsJson = False,
) -> None:
    """One subscription, its health, and what waits for it."""
    found = client.get(_path(subscription_id)) | {"counts": client.get(_path(subscription_id, "counts"))}
    if as_json:
        print_json(found)
        return
    counts = found.pop("counts")
    for name, value in {**found, **counts}.items():
        if value is not None and value not in ([], {}):
            print(f"{name:20} {value}")


@app.command()
@asks("subscribe")
def pause(
    client: NodeClient,
    subscription_id: SubscriptionId,
    as_json: AsJson = False,
) -> None:
    """Send nothing until it is resumed; what happens meanwhile is kept."""
    _set_status(client, subscription_id, "paused", as_json=as_json)


@app.command()
@asks("subscribe")
def resume(
    client: NodeClient,
    subscription_id: SubscriptionId,
    as_json: AsJson = False,
) -> None:
    """Send again, and send what was kept."""
    _set_status(client, subscription_id, "active", as_json=as_json)


def _set_status(client: NodeClient, subscription_id: str, status: str, *, as_json: bool) -> None:
    found = client.sent("PATCH", _path(subscription_id), {"status": status})
    if as_json:
        print_json(found)
    else:
        print(f"{found['id']} is {found['status']}")


@app.command("test")
@asks("subscribe")
def try_out(
    client: NodeClient,
    subscription_id: SubscriptionId,
    as_json: AsJson = False,
) -> None:
    """Let the node send a test event now. Code 1 if it does not arrive."""
    attempt = client.sent("POST", _path(subscription_id, "test"))
    _end_with(attempt, as_json=as_json)


def _end_with(attempt: dict[str, Any], *, as_json: bool) -> NoReturn:
    if as_json:
        print_json(attempt)
    else:
        word = "delivered" if attempt["delivered"] else "not delivered"
        print(f"{word}: {attempt['status'] or attempt['error']}, {attempt['duration_ms']} ms")
    raise typer.Exit(DONE if attempt["delivered"] else REFUSED)


@app.command()
@asks("subscribe")
def replay(
    client: NodeClient,
    subscription_id: SubscriptionId,
    delivery: Annotated[
        str | None, typer.Option("--delivery", help="This one, now. Code 1 if it does not arrive.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that were given up.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="Made at this time or later (RFC 3339).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Made before this time.")] = None,
    after: Annotated[
        str | None,
        typer.Option("--after", help="Of events after this cursor of the feed, told before or not."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send again: one delivery now, or many in the queue, each under its own id. All that is given must hold."""
    given = {"since": since, "until": until, "after": after}
    wanted = {name: value for name, value in given.items() if value is not None} | (
        {"failed": True} if failed else {}
    )
    if (delivery is not None) == bool(wanted):
        raise Malformed("Say which: --delivery for one, or --failed, --since, --until, --after for many.")
    if delivery is not None:
        _end_with(
            client.sent("POST", _path(subscription_id, "deliveries", delivery, "replay")),
            as_json=as_json,
        )
    count, more = 0, True
    while more:
        queued = client.sent("POST", _path(subscription_id, "replay"), wanted)
        count += queued["count"]
        more = queued["more"] and queued["count"] > 0
    if as_json:
        print_json({"count": count})
    else:
        print(f"{count} deliveries are queued again")


@app.command()
@asks("subscribe")
def deliveries(
    client: NodeClient,
    subscription_id: SubscriptionId,
    delivery: Annotated[
        str | None, typer.Option("--delivery", help="This one, with every attempt at it.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only pending, delivered, failed or dropped ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many to show; 0 is all.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The delivery log, newest event first."""
    if delivery is not None:
        _print_delivery(client.get(_path(subscription_id, "deliveries", delivery)), as_json=as_json)
        return
    asked = [("state", state)] if state is not None else []
    items, _ = client.pages(_path(subscription_id, "deliveries"), asked, limit)
    if as_json:
        print_json(items)
        return
    print_table(
        ("Id", "Event", "State", "Attempts", "Made", "Last", "ms"),
        [
            [d["id"], d["event_type"], d["state"], d["attempts"], d["created_at"], d["last_error"] or d["last_status"],
             d["last_duration_ms"]]
            for d in items
        ],
    )  # fmt: skip


def _print_delivery(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print(f"{found['id']}: {found['event_type']}, {found['state']} after {found['attempts']} attempts")
    print_table(
        ("At", "ms", "Status", "Error"),
        [[a["ended_at"], a["duration_ms"], a["status"], a["error"]] for a in found["log"]],
    )


@app.command("rotate-secret")
@asks("subscribe")
def rotate_secret(
    client: NodeClient,
    subscription_id: SubscriptionId,
    overlap_hours: Annotated[
        int,
        typer.Option("--overlap-hours", min=0, help="So long the old secret signs beside it; 0 ends it now."),
    ] = 24,
    signing: Annotated[
        str | None, typer.Option("--signing", help="The signing from now on: v1, v1a or both.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new secret, printed this once."""
    wanted: dict[str, Any] = {"overlap_hours": overlap_hours} | (
        {} if signing is None else {"signing": signing}
    )
    _print_made(client.sent("POST", _path(subscription_id, "rotate"), wanted), as_json=as_json)


@app.command()
@asks("subscribe")
def delete(
    client: NodeClient,
    subscription_id: SubscriptionId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a subscription and forget its deliveries."""
    if not yes:
        typer.confirm(f"End {subscription_id} and forget its deliveries?", abort=True, err=True)
    client.send("DELETE", _path(subscription_id))
    if as_json:
        print_json({"id": subscription_id, "deleted": True})
    else:
        print(f"{subscription_id} is deleted")
