"""Drill `restored-backup`: a node is started from yesterday's copy of its database, by somebody who knows no better."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from app.demo import fiction
from app.replication.client import mirror_url

if TYPE_CHECKING:
    from app.drill.field import Field

UNLUCKY: Final = "EE"
OTHERS: Final = ("FI", "JP", "NL", "US")


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia says two things, and its disk is copied in between"):
        field.found()
        field.start()
        field.post(UNLUCKY, "Before the copy")
        field.settle(UNLUCKY)
        field.stop(UNLUCKY)
        copy = field.copy_database(UNLUCKY, "yesterday")
        field.start(UNLUCKY)
        field.post(UNLUCKY, "After the copy")
        secret = field.post(UNLUCKY, "After the copy, for Japan alone", tlp="TLP:RED", audience=["JP"])
        field.settle(UNLUCKY)
        size = field.log(UNLUCKY, UNLUCKY)["size"]
        heads = {s: head(field, s) for s in OTHERS}
    with step(
        "The disk dies; yesterday's copy is put in its place while only one other State can be reached"
    ):
        field.stop(UNLUCKY, "FI", "JP", "US")
        field.put_database(UNLUCKY, copy)
        field.start(UNLUCKY, ready=False)
        stale = field.log(UNLUCKY, UNLUCKY)["size"]
        report.quote(f"{UNLUCKY} holds {stale} of the {size} leaves that it has signed for")
        line = field.author(UNLUCKY).sign({**fiction.practice(UNLUCKY), "title": "Too early"})
        answer = field.apis[UNLUCKY].post_raw("/v1/notices", line, expect=503)
        report.quote(f"{UNLUCKY} answers a post with 503: {json.loads(answer)['detail']}")
        field.holds(
            "the node takes and signs nothing before a quorum of witnesses has answered",
            field.log(UNLUCKY, UNLUCKY)["head_size"] <= size,
            "the restored node signed a new head",
        )
    with step("The other States are back"):
        field.start("FI", "JP", "US", ready=False)
        field.wait(f"{UNLUCKY} takes notices again", field.apis[UNLUCKY].alive)
        own = field.log(UNLUCKY, UNLUCKY)
        field.holds(
            f"the node has all {size} leaves again, from the others' mirrors",
            own["size"] == own["judged"] == size,
            f"the node holds {own['size']} leaves, {own['judged']} judged, of {size}",
        )
        # The leaves may have come from the one State that was there all the time; then the body is asked for again every 5 s.
        every = ["After the copy, for Japan alone", "After the copy", "Before the copy"]
        field.wait("the bodies are back", lambda: field.titles(UNLUCKY, UNLUCKY) == every)
        field.holds(
            "and the bodies, also the one that only Japan was given",
            field.titles(UNLUCKY, UNLUCKY) == every,
            f"it shows {field.titles(UNLUCKY, UNLUCKY)}",
        )
        same = field.apis[UNLUCKY].json(f"/v1/notices/{secret.id}/proof")
        report.quote(
            f"{UNLUCKY} proves the notice for Japan at index {same['statements'][0]['index']}, where it was"
        )
    with step("Estonia goes on where it was"):
        field.post(UNLUCKY, "After the repair")
        field.settle(UNLUCKY)
        records = [one for s in (*OTHERS, UNLUCKY) for one in field.apis[s].json("/evidence")["items"]]
        # Whoever looked before the node was level saw an older head than before, and may have reported that: see `gossip`.
        reports = [one for one in records if one["type"] == "rollback" and not one["convicts"]]
        report.quote(
            f"{len(reports)} reports that {UNLUCKY} served an older head for a while; they convict nobody"
        )
        field.holds(
            "nobody saw a second root for any size: no log is frozen and nothing convicts anybody",
            all(field.log(s, UNLUCKY)["status"] == "ok" for s in (*OTHERS, UNLUCKY)) and records == reports,
            "a log was frozen, or evidence was found",
        )
        field.holds(
            "every head from before is still served, with the same root",
            all(at_size(field, s, size) == heads[s] for s in OTHERS),
            "a head from before has another root now",
        )


def head(field: Field, state: str) -> str:
    """The root of the newest head of the unlucky State's log, as a State's mirror serves it."""
    return at_size(field, state, field.log(state, UNLUCKY)["head_size"])


def at_size(field: Field, state: str, size: int) -> str:
    """The root of a head, as a State's mirror serves it."""
    mirror = mirror_url("", field.origin(UNLUCKY))
    return field.apis[state].get(f"{mirror}/checkpoint/{size}").text.split("\n")[2]
