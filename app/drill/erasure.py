"""Drill `erasure`: a notice about a person was wrong and must be gone, also from the State that was away meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.demo.errors import DemoFailed
from app.domain.errors import VerbaleError
from app.domain.statement import sign
from app.proofs import verify_proof
from app.statements import uuid7

if TYPE_CHECKING:
    from app.demo.api import Posted
    from app.drill.field import Field

ISSUER: Final = "EE"
AWAY: Final = "NL"
ADDRESSED: Final = ("EE", "JP", "NL")
WRONG: Final = "Kanaarilind Silmapiiri, wrongly named"
"""A title with a name that occurs nowhere else: what must not be legible any more."""
KEPT: Final = "Named rightly"


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step("Five States found a federation; Estonia tells JP and NL of somebody"):
        field.found()
        field.start()
        kept = field.post(ISSUER, KEPT)
        wrong = field.post(ISSUER, WRONG, tlp="TLP:AMBER", audience=list(ADDRESSED))
        field.settle()
        readers = [s for s in field.nodes if WRONG in field.titles(s, ISSUER)]
        report.quote(
            f"{' '.join(readers)} read it; {' '.join(s for s in field.nodes if s not in readers)} do not"
        )
        field.holds(
            "only the audience has the body",
            readers == list(ADDRESSED),
            f"{readers} read what is for {ADDRESSED}",
        )
        before = {s: _legible(field, s) for s in ADDRESSED}
        field.stop(AWAY)
        report.quote(f"{AWAY} is cut off from here on")
    with step("The name was wrong: Estonia erases the notice"):
        erasure = _erase(field, wrong)
        field.settle(ISSUER)
        running = tuple(field.nodes)
        field.wait("nobody finds it", lambda: all(field.titles(s, ISSUER) == [KEPT] for s in running))
        field.holds(
            "gone from every search, feed and list of the States that run",
            all(WRONG not in field.apis[s].get("/v1/notices").text for s in running),
            "somebody still shows it",
        )
    with step("What remains is provable"):
        for state in running:
            proof = field.apis[state].json(f"/v1/notices/{kept.id}/proof")
            field.holds(
                f"the proof of the other notice, made by {state}, verifies from the pinned root",
                _verifies(field, proof),
                "a proof broke",
            )
        size = field.log(ISSUER, ISSUER)["size"]
        field.holds(
            "the erasure is one leaf more, and nothing was taken out of the log",
            wrong.index < erasure.index < size,
            f"the log has {size} leaves",
        )
    with step(f"{AWAY} comes back, with the body on its disk"):
        field.start(AWAY)
        field.settle(ISSUER)
        field.wait(f"{AWAY} has erased it", lambda: field.titles(AWAY, ISSUER) == [KEPT])
        field.holds(
            f"{AWAY} obeys an erasure it was not there for",
            not _given(field, AWAY, wrong),
            "it still shows it",
        )
        asked = {s: _given(field, s, wrong) for s in ADDRESSED}
        field.holds("no State gives the body to anybody", not any(asked.values()), f"given: {asked}")
    with step("The files on every disk"):
        field.wait(
            "the databases are cleaned", lambda: not any(_legible(field, s) for s in field.nodes), seconds=60
        )
        field.stop(*tuple(field.nodes))
        after = {n.member.state: _legible(field, n.member.state) for n in field.federation.nodes}
        report.quote(f"legible before in: { {s: files for s, files in before.items() if files} }")
        report.quote(f"legible after in: { {s: files for s, files in after.items() if files} or 'none' }")
        field.holds(
            "no file of any node holds the name: table, free page, write-ahead log or log file",
            all(before.values()) and not any(after.values()),
            f"legible in {after}",
        )


def _erase(field: Field, notice: Posted) -> Posted:
    author = field.author(ISSUER)
    statement = sign(
        author.signer,
        kid=author.kid,
        log=author.origin,
        statement_id=uuid7(),
        kind="erase",
        iat=int(time.time()),
        parts=(),
        ref=notice.hash,
    )
    line = orjson.dumps({"statement": statement.leaf.decode(), "parts": {}})
    posted = field.apis[ISSUER].post_notice(line)
    field.report.quote(f"{ISSUER} logs an erasure of leaf {notice.index}: leaf {posted.index}")
    return posted


def _given(field: Field, state: str, notice: Posted) -> bool:
    """Whether a State's node still shows the erased notice or any version of it."""
    for path in (f"/v1/notices/{notice.id}", f"/v1/notices/{notice.id}/versions"):
        try:
            field.apis[state].get(path, expect=404)
        except DemoFailed:
            return True
    return False


def _verifies(field: Field, proof: Any) -> bool:  # noqa: ANN401 - a JSON value
    try:
        verify_proof(proof, field.federation.root.read_bytes())
    except VerbaleError as fault:
        field.report.quote(str(fault))
        return False
    return True


def _legible(field: Field, state: str) -> list[str]:
    """Files of a State's node in which the name stands."""
    words = (WRONG[:12].encode(), WRONG[:12].lower().encode())
    found = []
    for path in sorted(field.federation.node(state).settings.data_dir.rglob("*")):
        try:
            if path.is_file() and any(word in path.read_bytes() for word in words):
                found.append(path.name)
        except FileNotFoundError:  # SQLite's own files come and go
            continue
    return found
