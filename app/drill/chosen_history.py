"""Drill `chosen-history`: after a fork the States end the log with one of its two histories, and whoever holds the other takes it.

The other way out than `recovery`, which ends the log where both histories part: more of what was said is kept, and the
operators of the nodes that hold the other history have to say that theirs may be forgotten.
"""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

from app.domain.encoding import b64u_encode
from app.drill import by_hand
from app.drill.fork import FIRST, HONEST, KNOWN, LIAR, SECOND, TOLD_FIRST, check_evidence, part_ways, proven
from app.replication.client import mirror_url

if TYPE_CHECKING:
    from app.drill.field import Field


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    part_ways(field)
    old = field.origin(LIAR)
    with step("Three of five States end the log with what Japan and the Netherlands were told"):
        size, root = _head(field, FIRST[0], old)
        field.holds(
            f"{' and '.join(FIRST)} hold the same head of it",
            _head(field, FIRST[1], old) == (size, root),
            "they hold different heads",
        )
        by_hand.end_log(field, LIAR, size=size, root=root)
        field.wait(
            "who holds it goes on with it",
            lambda: all(field.titles(s, LIAR) == [TOLD_FIRST, KNOWN] for s in FIRST),
        )
        field.wait(
            f"{' and '.join(SECOND)} see that theirs is the other one",
            lambda: all(_error(field, s) == "end-differs" for s in SECOND),
        )
        for state in HONEST:
            report.quote(f"{state}: {field.titles(state, LIAR)}, {_error(field, state) or 'no error'}")
        field.holds(
            "nobody forgets by itself what it has proven; it says that it holds another history, and what to do",
            all("verbale node begin-anew" in field.log(s, LIAR)["error"]["detail"] for s in SECOND),
            "a node does not say what its operator is to do",
        )
    with step("While a node runs, and of a log that lives, nothing is forgotten"):
        settings = {s: str(field.federation.node(s).settings_file) for s in SECOND}
        by_hand.verbale(field, "node", "begin-anew", old, "--settings", settings[SECOND[0]], expect=3)
        field.stop(*SECOND)
        for state in SECOND:
            living = field.origin(FIRST[0])
            by_hand.verbale(field, "node", "begin-anew", living, "--settings", settings[state], expect=3)
        field.holds("both are refused", kept=True, otherwise="")
    with step(f"The operators of {' and '.join(SECOND)} begin anew: verbale node begin-anew"):
        for state in SECOND:
            by_hand.verbale(field, "node", "begin-anew", old, "--settings", settings[state])
        field.start(*SECOND)
        proven(field, SECOND, size)
        field.wait(
            "all four show the same",
            lambda: all(field.titles(s, LIAR) == [TOLD_FIRST, KNOWN] for s in HONEST),
        )
        heads = {_head(field, s, old) for s in HONEST}
        confirmed = {field.log(s, LIAR)["confirmed"]["size"] for s in HONEST}
        field.holds(
            "all four hold and show the history that the States chose, and it counts as confirmed",
            (heads, confirmed) == ({(size, root)}, {size})
            and "end-differs" not in (_error(field, s) for s in HONEST),
            f"heads {heads}, confirmed {confirmed}, errors {[_error(field, s) for s in HONEST]}",
        )
    with step("The evidence stays, and what the other history said is kept as such"):
        for state in HONEST:
            check_evidence(field, state)
        field.holds("every node still has the record of both heads, and it verifies", kept=True, otherwise="")
        field.stop(*SECOND)
        for state in SECOND:
            by_hand.verbale(field, "fsck", "--settings", settings[state])
        field.holds("everything stored derives again from its leaves", kept=True, otherwise="")


def _head(field: Field, reader: str, origin: str) -> tuple[int, str]:
    """Size of the head of a log that a node serves, and its root as commands take it."""
    _, size, root, *_ = field.apis[reader].get(f"{mirror_url('', origin)}/checkpoint").text.splitlines()
    return int(size), b64u_encode(b64decode(root))


def _error(field: Field, reader: str) -> str | None:
    error = field.log(reader, LIAR)["error"]
    return None if error is None else str(error["code"])
