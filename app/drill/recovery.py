"""Drill `recovery`: after a fork the States end the log by threshold, and its State goes on in the next epoch.

What people do here they do with the commands of docs/operations.md, and nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from app.demo import fiction
from app.demo.author import Author
from app.drill.by_hand import end_log, verbale
from app.drill.fork import HONEST, KNOWN, LIAR, check_evidence, part_ways
from app.replication.client import mirror_url

if TYPE_CHECKING:
    from pathlib import Path

    from app.drill.field import Field

MENDED: Final = "What everybody knows, put right"
AGAIN: Final = "Said again in the next epoch"


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    common = part_ways(field)
    old = field.origin(LIAR)
    with step("Three of five States end the log where both histories part; Estonia lists its next epoch"):
        seen = [field.log(state, LIAR) for state in HONEST]
        field.holds(
            "all four nodes show the same size and root to end it at",
            {(log["frozen_size"], log["frozen_root"]) for log in seen} == {(common, seen[0]["frozen_root"])},
            "the nodes do not agree on where the histories part",
        )
        new = end_log(field, LIAR, size=common, root=seen[0]["frozen_root"])

        def is_settled() -> bool:
            return all(
                field.titles(s, LIAR) == [KNOWN] and _faults(field, s) == {common: "log-ended"}
                for s in HONEST
            )

        # A node judges again a moment after it has adopted the roster.
        field.wait("all four have settled it", is_settled)
        for state in HONEST:
            report.quote(f"{state}: {field.titles(state, LIAR)}, flagged {_faults(field, state)}")
        field.holds(
            "what one half was told and the other was not is shown by nobody, and flagged as unproven",
            is_settled() and all(field.log(s, LIAR)["confirmed"]["size"] == common for s in HONEST),
            "a node shows what only one history says",
        )
    with step("Estonia's operator goes on in the same folder: verbale node next-epoch"):
        settings = str(field.federation.node(LIAR).settings_file)
        verbale(field, "node", "next-epoch", "--settings", settings)
        field.start(LIAR)
        running = tuple(field.nodes)
        field.wait(
            "everybody follows the new log",
            lambda: all((log := field.log_of(s, new)) is not None and log["size"] > 0 for s in running),
        )
        for state in running:
            report.quote(f"{state}: {new} continues {_continues(field, state, new)}")
        field.holds(
            "its first leaf names the old log, its size and its root, as the States have signed it",
            all(
                _continues(field, s, new) == {"origin": old, "size": common, "stated": True} for s in running
            ),
            "the first leaf does not say what is continued",
        )
    with step("What was said before the fork is put right from the new log, and said to all"):
        item = field.apis["US"].json("/v1/notices", issuer=LIAR)["items"][0]
        document = field.directory / "mended.json"
        document.write_text(json.dumps(item["document"] | {"title": MENDED}), "utf-8")
        node = field.federation.node(LIAR)
        verbale(
            field, "notice", "amend", item["id"], "--url", field.apis[LIAR].url, "--key", str(node.contact_key),
            "--kid", node.contact_kid, "--with", str(document), "--token-file", str(_token(field)),
        )  # fmt: skip
        author = Author(LIAR, new, node.contact_kid, field.author(LIAR).signer)
        field.apis[LIAR].post_notice(author.sign({**fiction.practice(LIAR), "title": AGAIN}))
        field.wait(
            "everybody shows both",
            lambda: all(set(field.titles(s, LIAR)) == {MENDED, AGAIN} for s in running),
        )
        field.wait(
            "a quorum confirms it",
            lambda: all(
                (log := field.log_of(s, new)) is not None and log["confirmed"]["size"] >= log["size"] > 0
                for s in running
            ),
        )
        versions = field.apis["JP"].json(f"/v1/notices/{item['id']}/versions")["items"]
        field.holds(
            "version 1 stands in the old log and version 2 in the new one, both confirmed",
            [(v["origin"], v["standing"]) for v in versions] == [(old, "confirmed"), (new, "confirmed")],
            f"the versions are {[(v['origin'], v['standing']) for v in versions]}",
        )
    with step("One file proves all of it to whoever trusts nobody"):
        proof = field.apis["JP"].json(f"/v1/notices/{item['id']}/proof")
        verbale(
            field,
            "verify",
            str(_write(field, "proof.json", proof)),
            "--roster-root",
            str(field.federation.root),
        )
        field.holds("the proof of both versions verifies offline", kept=True, otherwise="")
        cut = {name: value for name, value in proof.items() if name != "before"}
        refused = verbale(
            field, "verify", str(_write(field, "cut.json", cut)), "--roster-root", str(field.federation.root),
            expect=1,
        )  # fmt: skip
        report.quote(
            f"without what the old log said: {refused.strip().splitlines()[-1] if refused else 'refused'}"
        )
        field.holds("without the part about the old log it does not", kept=True, otherwise="")
    with step("The old log stays, frozen and readable, and the evidence with it"):
        for state in HONEST:
            path = f"{mirror_url('', old)}/checkpoint/{common}"
            field.apis[state].get(path)
            check_evidence(field, state)
        held = field.apis[LIAR].get("/log/1/checkpoint").text.splitlines()[0]
        field.holds(
            "every node serves the head at which it ended, Estonia's own where it always was",
            held == old,
            f"Estonia serves {held}",
        )


def _continues(field: Field, reader: str, origin: str) -> Any:  # noqa: ANN401 - a JSON value
    log = field.log_of(reader, origin)
    return None if log is None else log["continues"]


def _faults(field: Field, reader: str) -> dict[int, str]:
    items = field.apis[reader].json("/v1/federation/faults", state=LIAR, limit=100)["items"]
    return {item["index"]: item["code"] for item in items}


def _token(field: Field) -> Path:
    file = field.directory / "token"
    file.write_text(field.tokens[LIAR], "ascii")
    file.chmod(0o600)
    return file


def _write(field: Field, name: str, value: object) -> Path:
    file = field.directory / name
    file.write_text(json.dumps(value), "utf-8")
    return file
