"""Time files: when one leaf was logged, and whether what it claims fits, proven to somebody who trusts nobody.

A time file is made of public things only: the leaf, the two confirmed checkpoints that bracket it, a proof that the later
one holds it, and the roster. `verify_time` needs it and a pinned roster root, no network, and checks in this order:

    1. roster        the TUF chain from the pinned root
    2. signature     the leaf is a statement of that log, by a key that counted at its index
    3. history       both checkpoints: the log's signature, and a quorum of cosignatures, each with its time
    4. inclusion     the later one holds the leaf at its index; the earlier one is too small to

The log that served the file can leave confirmed checkpoints out and so make a bracket wider; it cannot move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import NotFound, Refused
from app.domain.judge import judge_statement
from app.domain.statement import is_origin
from app.domain.times import Bracket
from app.models import LeafRow, LogRow
from app.proofs import ProofRefused, open_history
from app.roster import export_bundle, roster_from_bundle
from app.tlog.checkpoint import Checkpoint
from app.tlog.confirm import bracket_notes
from app.tlog.merkle import inclusion_proof, verify_inclusion
from app.tlog.note import parse as parse_note
from app.tlog.store import node_reader

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from app.domain.statement import Statement

FORMAT: Final = "verbale/time/v1"
_MEMBERS: Final = frozenset(
    {"format", "origin", "index", "statement", "without", "with", "inclusion", "roster"}
)


def make_time_file(session: Session, *, log_id: int, index: int, repository: Path) -> dict[str, Any]:
    """The time file of one leaf.

    Raises:
        NotFound: there is no such leaf, or no confirmed checkpoint holds it yet.
    """
    origin = session.execute(select(LogRow.origin).where(LogRow.id == log_id)).scalar_one()
    leaf = session.execute(
        select(LeafRow.leaf).where(LeafRow.log_id == log_id, LeafRow.idx == index)
    ).scalar_one_or_none()
    without, with_it = bracket_notes(session, log_id, index)
    if leaf is None or with_it is None:
        raise NotFound("No confirmed checkpoint holds that index yet.")
    size = Checkpoint.parse(parse_note(with_it).text).size
    return {
        "format": FORMAT,
        "origin": origin,
        "index": index,
        "statement": bytes(leaf).decode(),
        "without": None if without is None else without.decode(),
        "with": with_it.decode(),
        "inclusion": [b64u_encode(h) for h in inclusion_proof(node_reader(session, log_id), index, size)],
        "roster": export_bundle(repository),
    }


@dataclass(frozen=True, slots=True)
class Timed:
    """What a time file proves: between which times the statement was logged."""

    issuer: str
    origin: str
    index: int
    statement: Statement
    logged: Bracket
    roster_version: int


def verify_time(file: Any, pinned_root: bytes, *, at: int | None = None) -> Timed:  # noqa: ANN401 - parsed JSON
    """Check a time file offline; the module lists the checks.

    Args:
        file: the parsed file.
        pinned_root: bytes of the roster's root metadata, obtained out of band.
        at: unix seconds; if given, the roster must not have expired then.

    Raises:
        ProofRefused: naming the check that failed.
    """
    if not isinstance(file, dict) or file.keys() != _MEMBERS or file["format"] != FORMAT:
        raise ProofRefused("format", f"this is not a time file of {FORMAT}.")
    origin, index = file["origin"], file["index"]
    if not isinstance(origin, str) or not is_origin(origin) or type(index) is not int or index < 0:
        raise ProofRefused("format", "origin or index is not that of a leaf.")
    try:
        roster = roster_from_bundle(file["roster"], pinned_root, at)
    except Refused as error:
        raise ProofRefused("roster", str(error)) from error
    state = roster.state_of_origin(origin)
    if state is None:
        raise ProofRefused("roster", f"the roster lists no log {origin}.")
    try:
        leaf = file["statement"].encode()
        statement = judge_statement(leaf, origin=origin, index=index, roster=roster, at=None).statement
    except (Refused, AttributeError, UnicodeEncodeError) as error:
        raise ProofRefused("signature", f"statement at index {index}: {error}") from error
    after = before = None
    if file["without"] is not None:
        ((size, after),) = open_history([file["without"]], roster, origin)
        if size > index:
            raise ProofRefused("history", f"the checkpoint of size {size} is not one without index {index}.")
    ((size, before),) = open_history([file["with"]], roster, origin)
    if size <= index:
        raise ProofRefused("history", f"the checkpoint of size {size} does not reach index {index}.")
    root = Checkpoint.parse(parse_note(file["with"].encode()).text).root
    try:
        verify_inclusion(statement.leaf_hash, index, size, [b64u_decode(h) for h in file["inclusion"]], root)
    except (Refused, TypeError, AttributeError) as error:
        raise ProofRefused("inclusion", f"statement at index {index}: {error}") from error
    return Timed(state.code, origin, index, statement, Bracket(after, before), roster.version)
