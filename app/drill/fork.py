"""Drill `fork`: a State signs two histories, shows one to half of the others and one to the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.demo import fiction
from app.drill.dishonest import log_and_sign

if TYPE_CHECKING:
    from app.drill.field import Field

LIAR: Final = "EE"
FIRST: Final = ("JP", "NL")
SECOND: Final = ("FI", "US")


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia says something that everybody has"):
        field.found()
        field.start()
        field.post(LIAR, "What everybody knows")
        field.post("NL", "From the Netherlands, before")
        field.settle()
        common = field.log(LIAR, LIAR)["size"]
    with step("Estonia tells Japan and the Netherlands one thing"):
        field.stop(LIAR, *SECOND)
        copy = field.copy_database(LIAR, "before")
        field.start(LIAR)
        field.post(LIAR, "Told to JP and NL")
        field.settle(LIAR, readers=FIRST)
        field.stop(LIAR, *FIRST)
    with step(
        "and, with the same key and for the same place in its log, another to Finland and the United States"
    ):
        field.put_database(LIAR, copy)
        with field.opened(LIAR) as hand:
            main = {**fiction.practice(LIAR), "title": "Told to FI and US"}
            receipt, head = log_and_sign(hand, field.author(LIAR).sign(main))
        report.quote(
            f"{LIAR}'s operator signs a second root for size {head.size}: leaf {receipt.index} differs"
        )
        field.start(LIAR, *SECOND)
        field.settle(LIAR, readers=SECOND)
    with step("The halves meet again"):
        field.start(*FIRST)
        field.wait(
            f"{' '.join(FIRST)} notice", lambda: all(field.log(s, LIAR)["status"] == "frozen" for s in FIRST)
        )
        for state in FIRST:
            log = field.log(state, LIAR)
            report.quote(f"{state}: {log['status']} at {log['size']}, {log['error']['code']}")
        field.holds(
            f"{' and '.join(FIRST)} have frozen the log that contradicts itself",
            all(field.log(s, LIAR)["size"] >= common for s in FIRST),
            "what was proven before was lost",
        )
    with step("Everything else goes on"):
        field.post("NL", "From the Netherlands, after")
        field.settle("NL", readers=("FI", "JP", "US"))
        field.holds(
            "the others' logs go on: a notice of the Netherlands is proven and cosigned by FI, JP and US",
            field.titles("US", "NL")[0] == "From the Netherlands, after",
            "the notice of the Netherlands is not found in the United States",
        )
