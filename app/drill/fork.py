"""Drill `fork`: a State signs two histories, shows one to half of the others and one to the rest, and vanishes."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Final

from app.cli import run as verbale
from app.demo import fiction
from app.drill.dishonest import log_and_sign
from app.replication.client import mirror_url
from app.tlog.evidence import Evidence

if TYPE_CHECKING:
    from app.drill.field import Field

LIAR: Final = "EE"
FIRST: Final = ("JP", "NL")
SECOND: Final = ("FI", "US")
HONEST: Final = (*FIRST, *SECOND)
KNOWN: Final = "What everybody knows"
TOLD_FIRST: Final = "Told to JP and NL"


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    part_ways(field)
    with step("The evidence convicts Estonia's log and needs nobody's word"):
        for state in HONEST:
            check_evidence(field, state)
        field.holds(
            f"a record at each of {', '.join(HONEST)} verifies offline with nothing but the pinned roster root",
            kept=True,
            otherwise="",
        )
        refuse_framing(field)
    with step("Everything else goes on"):
        field.post("NL", "From the Netherlands, after")
        field.settle("NL", readers=("FI", "JP", "US"))
        field.holds(
            "the others' logs go on: a notice of the Netherlands is proven and cosigned by FI, JP and US",
            field.titles("US", "NL")[0] == "From the Netherlands, after",
            "the notice of the Netherlands is not found in the United States",
        )
        field.wait(
            "the evidence stands in the logs of the others",
            lambda: all(field.log(s, s)["size"] > (2 if s == "NL" else 0) for s in HONEST),
        )
        report.say("Each of the four has said so in its own log, in a leaf of kind `evidence`.")


def part_ways(field: Field) -> int:
    """The liar signs two histories and is gone; the others find out. Returns the size that both histories share."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia says something that everybody has"):
        field.found()
        field.start()
        field.post(LIAR, KNOWN)
        field.post("NL", "From the Netherlands, before")
        field.settle()
        common = field.log(LIAR, LIAR)["size"]
    with step("Estonia tells Japan and the Netherlands one thing"):
        field.stop(*SECOND)
        copied = field.titles("NL", LIAR)
        field.stop(LIAR)
        copy = field.copy_database(LIAR, "before")
        with field.opened(LIAR) as hand:
            first, _ = log_and_sign(
                hand, field.author(LIAR).sign({**fiction.practice(LIAR), "title": TOLD_FIRST})
            )
        field.start(LIAR, ready=False)
        proven(field, FIRST, first.index + 1)
        field.holds(
            "Japan and the Netherlands have proven it",
            field.titles("NL", LIAR) != copied,
            "it did not arrive",
        )
        field.stop(LIAR, *FIRST)
    with step(
        "and, with the same key and for the same place in its log, another to Finland and the United States"
    ):
        field.put_database(LIAR, copy)
        with field.opened(LIAR) as hand:
            second, head = log_and_sign(
                hand, field.author(LIAR).sign({**fiction.practice(LIAR), "title": "Told to FI and US"})
            )
        report.quote(
            f"{LIAR}'s operator signs a second root for size {head.size}: leaf {second.index} differs"
        )
        field.start(LIAR, *SECOND, ready=False)
        proven(field, SECOND, second.index + 1)
        field.stop(LIAR)
    with step("Estonia is gone; the other four meet again and compare what they were shown"):
        field.start(*FIRST, ready=False)
        field.wait(
            "all four freeze the log", lambda: all(field.log(s, LIAR)["status"] == "frozen" for s in HONEST)
        )
        field.wait(
            "all four know what both histories share",
            lambda: all(field.log(s, LIAR)["frozen_size"] is not None for s in HONEST),
        )
        for state in HONEST:
            log = field.log(state, LIAR)
            report.quote(
                f"{state}: {log['status']}, holds {log['size']} leaves, frozen at {log['frozen_size']}"
            )
        field.holds(
            "every honest node has frozen the log at the last size that a quorum confirmed and both histories share",
            all(field.log(s, LIAR)["frozen_size"] == common for s in HONEST),
            "a log is frozen at another size",
        )
    return int(common)


def proven(field: Field, states: tuple[str, ...], size: int) -> None:
    """Wait until these States have proven and judged the liar's log up to a size."""
    field.wait(
        f"{' '.join(states)} prove {size} leaves",
        lambda: all(
            field.log(s, LIAR)["size"] >= size and field.log(s, LIAR)["judged"] >= size for s in states
        ),
    )


def check_evidence(field: Field, state: str) -> None:
    """Take a State's records and verify one of a fork as a person would: with the command, offline."""
    node = field.federation.node(state)
    records = field.apis[state].json("/evidence")["items"]
    fork = next(r for r in records if r["type"] == "fork" and r["origin"] == field.origin(LIAR))
    file = field.directory / f"{fork['id']}.json"
    file.write_bytes(field.apis[state].get(f"/evidence/{fork['id']}").content)
    roster = str(node.settings.roster_dir)
    command = [
        "evidence",
        "verify",
        str(file),
        "--roster-root",
        str(field.federation.root),
        "--roster",
        roster,
    ]
    with redirect_stdout(StringIO()):  # standard output is the drill's own, with --json one document
        code = verbale([*command, "--json"])
    field.report.quote(f"{state}: verbale evidence verify {fork['id'][:16]}….json: exit code {code}")
    if code != 0:
        field.holds("", kept=False, otherwise=f"the record of {state} does not verify")


def refuse_framing(field: Field) -> None:
    """Bring a node two honest heads of Japan as if they were a fork."""
    head = field.apis["NL"].get(mirror_url("", field.origin("JP")) + "/checkpoint").text
    note = "\n".join(head.split("\n")[:5]) + "\n"
    made = Evidence("fork", field.origin("JP"), note.encode(), note.encode(), bytes(32))
    problem = field.apis["US"].post_raw("/evidence", made.encode(), expect=422)
    field.report.quote(f"US, on a made-up record against Japan: {json.loads(problem)['detail']}")
    field.holds(
        "a false accusation is dropped",
        field.log("US", "JP")["status"] == "ok",
        "Japan's log was frozen by a false accusation",
    )
