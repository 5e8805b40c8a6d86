"""Drill `cut-off`: a State is away while the others say a great deal, comes back, and has all of it, proven.

How much is the option `--notices`; a withdrawal is among it, since that is what must not be missed.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from app.demo import fiction
from app.domain.json import parse_strict
from app.timing import verify_time

if TYPE_CHECKING:
    from app.drill.field import Field

AWAY: Final = "JP"
TALKER: Final = "EE"
BATCH: Final = 5000
PROVEN: Final = 7
"""Leaves, spread over what came meanwhile, whose times are proven from what the returned node serves."""
CATCH_UP_S: Final = 1800.0


def run(field: Field) -> None:
    """See the module."""
    step, report, count = field.report.step, field.report, field.notices
    with step("Five States found a federation; Japan holds a notice of Estonia"):
        field.found()
        field.start()
        doomed = field.post(TALKER, "What will be withdrawn")
        field.settle(TALKER)
        before = field.log(AWAY, TALKER)["size"]
    with step(f"Japan is cut off; Estonia issues {count:,} notices and withdraws the first"):
        field.stop(AWAY)
        author, api = field.author(TALKER), field.apis[TALKER]
        for start in range(0, count, BATCH):
            titles = range(start, min(start + BATCH, count))
            api.post_batch(
                [author.sign({**fiction.practice(TALKER), "title": f"Practice {n:06}"}) for n in titles]
            )
        main = {**fiction.paper_crane_withdrawal(doomed.id, doomed.hash_text), "issuer": TALKER}
        gone = api.post_notice(author.sign(main, ref=doomed.hash))
        report.quote(f"{TALKER}: leaf {gone.index} withdraws leaf {doomed.index}")
        others = tuple(state for state in field.nodes if state != TALKER)
        field.settle(TALKER, readers=others)
    with step("Everything goes on without Japan, and everybody knows that it does not know"):
        own = field.log(TALKER, TALKER)
        field.holds(
            f"all {own['size']:,} leaves are confirmed by a quorum without Japan",
            own["confirmed"]["size"] == own["size"],
            f"confirmed is {own['confirmed']['size']} of {own['size']}",
        )
        (shown,) = _board(field, TALKER)
        field.holds(
            "the recall board names Japan, and nobody else, as not knowing of the withdrawal",
            shown["newest"]["unproven"] == [AWAY],
            f"the board says {shown['newest']['unproven']}",
        )
    with step("Japan comes back"):
        began = time.monotonic()
        field.start(AWAY)

        def has_all() -> bool:
            log = field.log(AWAY, TALKER)
            return bool(
                log["judged"] == own["size"] and log["confirmed"]["size"] == own["size"] and log["in_step"]
            )

        field.wait(f"{AWAY} has {own['size'] - before:,} leaves", has_all, seconds=CATCH_UP_S)
        report.say(f"Caught up in {time.monotonic() - began:.0f} s, by itself.")
        field.wait(f"{TALKER} has Japan's cosignature", lambda: AWAY in field.cosigned(TALKER, own["size"]))
    with step("What Japan has is what Estonia signed"):
        mirror = f"/mirror/{sha256(field.origin(TALKER).encode()).hexdigest()}"
        theirs, ours = (
            field.apis[s].get(path).content.split(b"\n")[:3]
            for s, path in ((TALKER, "/log/1/checkpoint"), (AWAY, f"{mirror}/checkpoint"))
        )
        field.holds("the root of Japan's mirror is the one that Estonia signed", theirs == ours, f"{ours!r}")
        root = field.federation.root.read_bytes()
        indexes = sorted({before + n * (own["size"] - before - 1) // PROVEN for n in range(PROVEN + 1)})
        for index in indexes:
            timed = verify_time(parse_strict(field.apis[AWAY].get(f"{mirror}/time/{index}").content), root)
            flag = timed.logged.flag(timed.statement.iat)
            report.quote(
                f"leaf {index}: logged before {_time(timed.logged.before)}, {flag or 'as it claims'}"
            )
        report.kept(f"{len(indexes)} leaves, and when they were logged, proven from Japan's files alone")
        statuses = field.apis[AWAY].json("/v1/notices", issuer=TALKER, limit=1)["total"]
        field.holds(f"Japan's officers find {count:,} notices", statuses == count, f"they find {statuses}")
        withdrawn = field.apis[AWAY].json(f"/v1/notices/{doomed.id}")["status"]
        field.holds("and the first one withdrawn", withdrawn == "withdrawn", f"it is {withdrawn}")
        (shown,) = _board(field, TALKER)
        field.holds(
            "the recall board says that all know", shown["complete"] is True, json.dumps(shown["newest"])
        )


def _time(seconds: int | None) -> str:
    return "?" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _board(field: Field, reader: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = field.apis[reader].json("/v1/recall-board")["items"]
    return items
