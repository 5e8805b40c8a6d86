"""What is confirmed of a log, and the history of its confirmed checkpoints.

A size is confirmed when a quorum of States' witnesses cosigned the one checkpoint of that size; then every leaf below it
is. So one number for each log says it of all its notices (`logs.confirmed_size`). It falls for one reason only: the log has
signed two histories, and what was confirmed reaches beyond what they share (`settle_confirmed`).

The log's own node also keeps each confirmed checkpoint as it stood when it was confirmed (`confirmations`): the log's
signature and the quorum's, unchanged from then on. It serves them, mirrors check and copy them, and the time of a leaf
is told from them alone (`app.domain.times`), so that every node and every outsider tells the same time. Any further
confirmed checkpoint can only narrow the bracket of a leaf: an origin that leaves some out makes its own notices' times
vaguer, and cannot move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, literal, literal_column, select, tuple_, update

from app.db import execute
from app.domain.errors import Malformed, Refused
from app.domain.quorum import agreed_time
from app.domain.times import Bracket
from app.models import ConfirmationRow, CosignatureRow, HeadRow, LogRow
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.cosignature import CosignerKey, cosigned_at, verify_cosignatures, with_cosignatures
from app.tlog.store import read_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import ScalarSelect
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.quorum import Quorum
    from app.domain.roster import Roster
    from app.tlog.note import VerifierKey

REFRESH_S: Final = 600
"""A head that stands still is cosigned again after so many seconds: the next leaf cannot claim to be older than that."""

CEREMONY_S: Final = 30 * 86_400
"""So long a change of who witnesses may take from the time it gives to the last node's adopting it."""

HISTORY_PAGE: Final = 64
"""Confirmed checkpoints in one answer: 160 kB in a federation of 25."""


class ConfirmationRefused(Refused):
    """A checkpoint in a history is not what it should be: not signed, not of this tree, or not cosigned by a quorum."""

    code = "confirmation-refused"


class MalformedHistory(Malformed):
    """The bytes are not a page of a log's history."""

    code = "malformed-history"


_LOGS, _HEADS, _COSIGNED = LogRow.__table__, HeadRow.__table__, CosignatureRow.__table__
_KEPT, _OTHER = ConfirmationRow.__table__, ConfirmationRow.__table__.alias()
_OF_SIZE: Final = (_COSIGNED.c.log_id == bindparam("log"), _COSIGNED.c.size == bindparam("at_size"))
_CONFIRMED: Final = select(_LOGS.c.is_own, _LOGS.c.confirmed_size).where(_LOGS.c.id == bindparam("log"))
_STATES: Final = select(_COSIGNED.c.state).where(*_OF_SIZE)
_CONFIRM: Final = (
    update(_LOGS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(
        _LOGS.c.id == bindparam("log"),
        _LOGS.c.confirmed_size < bindparam("at_size"),
        _LOGS.c.status != literal_column("'frozen'"),
    )
    .values(confirmed_size=bindparam("at_size"))
    .returning(_LOGS.c.id)
)
_LINES: Final = (
    select(_COSIGNED.c.state, _COSIGNED.c.line, _COSIGNED.c.fresh_line)
    .where(*_OF_SIZE)
    .order_by(_COSIGNED.c.witness)
)
_SAME: Final = (_OTHER.c.log_id == bindparam("log"), _OTHER.c.size == bindparam("at_size"))
_DROP: Final = delete(_KEPT).where(  # type: ignore[arg-type]  # a mapped class's __table__
    _KEPT.c.log_id == bindparam("log"),
    _KEPT.c.size == bindparam("at_size"),
    _KEPT.c.at == bindparam("at_time"),
)
_BETWEEN: Final = delete(_KEPT).where(  # type: ignore[arg-type]  # a mapped class's __table__
    _KEPT.c.log_id == bindparam("log"),
    _KEPT.c.size == bindparam("at_size"),
    _KEPT.c.at > select(func.min(_OTHER.c.at)).where(*_SAME).scalar_subquery(),
    _KEPT.c.at < select(func.max(_OTHER.c.at)).where(*_SAME).scalar_subquery(),
)


# ── the log's own node ────────────────────────────────────────────────────────────────────────────────────────────


def confirm(db: Database, session: Session, log_id: int, size: int, quorum: Quorum) -> bool:
    """Look whether `size` is confirmed now, in the transaction that stored cosignatures over it.

    For the own log the confirmed checkpoint is kept for its history. Returns whether the confirmed size grew.
    """
    log = execute(session, _CONFIRMED, log=log_id).one()
    if size < log.confirmed_size or (size == log.confirmed_size and size > 0):
        return False
    states = execute(session, _STATES, log=log_id, at_size=size).scalars().all()
    if not quorum.met_by(state for state in states if state is not None):
        return False
    if log.is_own:
        previous = log.confirmed_size if size > 0 else None
        if previous is not None:
            _keep(
                db, session, log_id, previous, quorum
            )  # cosigned again meanwhile: a later time without what is new
        _keep(db, session, log_id, size, quorum)
    return set_confirmed(session, log_id, size)


def set_confirmed(session: Session, log_id: int, size: int) -> bool:
    """Raise the confirmed size, unless the log is frozen: then it stays where it was settled. Returns whether it grew."""
    return execute(session, _CONFIRM, log=log_id, at_size=size).one_or_none() is not None


def settle_confirmed(session: Session, log_id: int, size: int, *, ended: bool = False) -> None:
    """Settle what is confirmed of a frozen log.

    Args:
        size: what both its histories share; or, if `ended`, where the States have ended it: then all below it is confirmed by
            their threshold, whatever witnesses said.
    """
    above = LogRow.confirmed_size != size if ended else LogRow.confirmed_size > size
    session.execute(update(LogRow).where(LogRow.id == log_id, above).values(confirmed_size=size))


def _keep(db: Database, session: Session, log_id: int, size: int, quorum: Quorum) -> None:
    """Keep the checkpoint of a size with the newest cosignatures of the quorum's States, if there are enough."""
    head = read_note(session, log_id, size)
    if head is None:
        return
    rows = execute(session, _LINES, log=log_id, at_size=size).all()
    lines = {
        state: notes.parse_signature_lines(fresh or line)[0]
        for state, line, fresh in rows
        if state in quorum.witnesses
    }
    if not quorum.met_by(lines):
        return
    note = with_cosignatures(notes.parse(head), lines.values(), notes.MAX_SIGNATURES)
    _store(
        db,
        session,
        log_id,
        [(size, agreed_time([cosigned_at(one) for one in lines.values()]), note.encode())],
    )


def _store(db: Database, session: Session, log_id: int, found: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep confirmed checkpoints as (size, time, note); of each size the earliest and the latest: others tell nothing more."""
    if not found:
        return
    session.connection().execute(
        db.insert_ignore(ConfirmationRow.__table__),
        [{"log_id": log_id, "size": size, "at": at, "note": note} for size, at, note in found],
    )
    for size in {size for size, _, _ in found}:
        execute(session, _BETWEEN, log=log_id, at_size=size)


# ── serving and taking ────────────────────────────────────────────────────────────────────────────────────────────


def read_history(session: Session, log_id: int, start: int) -> list[bytes]:
    """Confirmed checkpoints of size `start` and above, ascending, one page. A size is never cut in two."""
    rows = session.execute(
        select(ConfirmationRow.size, ConfirmationRow.note)
        .where(ConfirmationRow.log_id == log_id, ConfirmationRow.size >= start)
        .order_by(ConfirmationRow.size, ConfirmationRow.at)
        .limit(HISTORY_PAGE + 1)
    ).all()
    if len(rows) > HISTORY_PAGE:
        rows = [row for row in rows if row.size < rows[HISTORY_PAGE].size]
    return [bytes(row.note) for row in rows]


def encode_history(found: Iterable[bytes]) -> bytes:
    """The bytes of one page: each checkpoint led by its length as u16be, as in an entry bundle (C2SP tlog-tiles)."""
    return b"".join(len(note).to_bytes(2, "big") + note for note in found)


def decode_history(raw: bytes) -> list[bytes]:
    """Read a page of a history.

    Raises:
        MalformedHistory: it is cut off, or holds more than a page.
    """
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        if end > len(raw) or len(found) == HISTORY_PAGE:
            raise MalformedHistory(
                f"A page of a history holds at most {HISTORY_PAGE} checkpoints, each led by its length in two bytes."
            )
        found.append(raw[at + 2 : end])
        at = end
    return found


@dataclass(frozen=True, slots=True)
class Confirmer:
    """Whose a witness key is, for confirmed checkpoints of the past.

    Attributes:
        until: of a revoked key: unix seconds, the first at which its cosignatures do not count; None: they all do.
    """

    state: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A confirmed checkpoint that was verified.

    Attributes:
        at: its time, unix seconds: the median over the States that cosigned it.
        states: those States.
        note: the bytes.
    """

    checkpoint: Checkpoint
    at: int
    states: frozenset[str]
    note: bytes


def open_confirmation(
    raw: bytes,
    *,
    keys: Callable[[int], Iterable[VerifierKey]],
    origin: str,
    witnesses: Mapping[CosignerKey, Confirmer],
    quorum_at: Callable[[int], Quorum],
) -> Confirmed:
    """Verify a confirmed checkpoint.

    Args:
        keys: the log's that count for a confirmed checkpoint of a size.
        witnesses: every witness key that counts, or once did.
        quorum_at: who had to cosign at a time, unix seconds.

    Raises:
        MalformedNote, MalformedCheckpoint, UnexpectedOrigin, InvalidNoteSignature, NoKnownSignature: see `open_checkpoint`.
        ConfirmationRefused: too few States of the quorum cosigned it.
    """
    size = Checkpoint.parse(notes.parse(raw).text).size
    checkpoint, note = open_checkpoint(raw, keys(size), origin)
    held = [(one.name, one.key_id, one.at) for one in verify_cosignatures(note, witnesses)]
    counted = _counted(held, _by_id(witnesses), quorum_at)
    if counted is None:
        raise ConfirmationRefused(
            f"The checkpoint of size {checkpoint.size} of {origin} is not confirmed: too few of the States whose witnesses "
            "counted at its time cosigned it."
        )
    return Confirmed(checkpoint, agreed_time(list(counted.values())), frozenset(counted), raw)


def _by_id(witnesses: Mapping[CosignerKey, Confirmer]) -> Mapping[tuple[str, bytes], Confirmer]:
    return {(key.name, key.key_id): confirmer for key, confirmer in witnesses.items()}


def _counted(
    cosignatures: Iterable[tuple[str, bytes, int]],
    confirmers: Mapping[tuple[str, bytes], Confirmer],
    quorum_at: Callable[[int], Quorum],
) -> dict[str, int] | None:
    """The States that confirmed a checkpoint, each with the latest time it gives; None if they are too few.

    Args:
        cosignatures: key name, key id and time of each, verified.

    They are a quorum of those that counted at the checkpoint's time, or a little earlier: until the last node has
    adopted a roster that takes a witness in or leaves one out, logs are confirmed by the one before.
    """
    times: dict[str, int] = {}
    for name, key_id, at in cosignatures:
        confirmer = confirmers.get((name, key_id))
        if confirmer is not None and (confirmer.until is None or at < confirmer.until):
            times[confirmer.state] = max(at, times.get(confirmer.state, 0))
    if not times:
        return None
    at = agreed_time(list(times.values()))
    for moment in (at, at - CEREMONY_S):
        quorum = quorum_at(moment)
        counted = {state: seen for state, seen in times.items() if state in quorum.witnesses}
        if quorum.met_by(counted):
            return counted
    return None


def take_confirmations(
    db: Database, session: Session, log_id: int, found: Sequence[Confirmed], quorum: Quorum
) -> None:
    """Keep verified confirmed checkpoints, whose roots the caller compared with the stored tree.

    Args:
        quorum: of today: what is to raise the confirmed size must satisfy it too, as times in cosignatures of a few
            dishonest founders could name a day before the others joined.
    """
    _store(db, session, log_id, [(c.checkpoint.size, c.at, c.note) for c in found])
    sizes = [c.checkpoint.size for c in found if quorum.met_by(c.states)]
    if sizes:
        set_confirmed(session, log_id, max(sizes))


# ── when the roster changes ───────────────────────────────────────────────────────────────────────────────────────


def confirmers(roster: Roster) -> dict[CosignerKey, Confirmer]:
    """Every witness key by which confirmed checkpoints of the past are told.

    A key that was revoked counts for what it cosigned before `suspect_from`, as it says; one revoked without a time counts
    for nothing.
    """
    return {
        CosignerKey(state.witness_name, key.key): Confirmer(
            state.code, None if key.revoked_at_index is None else key.suspect_from or 0
        )
        for state in roster.nodes()
        if state.witness_name
        for key in roster.keys_of(state.code, "witness")
    }


@dataclass(frozen=True, slots=True)
class Recount:
    """What a roster changes in the history that is kept of a log.

    Attributes:
        dropped: (size, time) of rows that no quorum confirms any more.
        kept: (size, time, note) of those of them that one still does, at another time.
        fallen: (witness, key id, unix seconds) of revoked keys: what was cosigned under them from then on does not count.
    """

    dropped: Sequence[tuple[int, int]] = ()
    kept: Sequence[tuple[int, int, bytes]] = ()
    fallen: Sequence[tuple[str, bytes, int]] = ()


def recount(session: Session, log_id: int, state: str, roster: Roster) -> Recount:
    """Count the kept history of a log of `state` again, by another roster; signatures were verified when it was taken.

    So that a node which was there tells the times that one which comes later can verify.
    """
    by_id = _by_id(confirmers(roster))
    fallen = [(*who, one.until) for who, one in by_id.items() if one.until is not None]
    dropped: list[tuple[int, int]] = []
    kept: list[tuple[int, int, bytes]] = []
    key = tuple_(ConfirmationRow.size, ConfirmationRow.at)
    last = (-1, -1)
    while True:
        rows = session.execute(
            select(ConfirmationRow.size, ConfirmationRow.at, ConfirmationRow.note)
            .where(ConfirmationRow.log_id == log_id, key > last)
            .order_by(ConfirmationRow.size, ConfirmationRow.at)
            .limit(HISTORY_PAGE)
        ).all()
        for size, at, raw in rows:
            note = notes.parse(bytes(raw))
            lines = [
                (one.name, one.key_id, cosigned_at(one))
                for one in note.signatures
                if (one.name, one.key_id) in by_id
            ]
            counted = _counted(lines, by_id, partial(roster.quorum_for, state))
            now = None if counted is None else agreed_time(list(counted.values()))
            if now == at:
                continue
            dropped.append((size, at))
            if now is not None:
                kept.append((size, now, note.encode()))
        if len(rows) < HISTORY_PAGE:
            return Recount(dropped, kept, fallen)
        last = (rows[-1].size, rows[-1].at)


def apply_recount(db: Database, session: Session, log_id: int, found: Recount) -> None:
    """Write what `recount` found. What is confirmed stays so: it is history that tells other times, or none.

    Cosignatures under a revoked key are forgotten, or they would go on confirming what came after; with its next key the
    witness gives others. Those of this node itself stay: they are what keeps it from cosigning a second root.
    """
    if found.dropped:
        session.connection().execute(
            _DROP, [{"log": log_id, "at_size": size, "at_time": at} for size, at in found.dropped]
        )
    _store(db, session, log_id, found.kept)
    own = session.execute(select(LogRow.state).where(LogRow.is_own)).scalar()
    for witness, key_id, until in found.fallen:
        _forget(session, log_id, witness, key_id, until, but=own)


def _forget(
    session: Session, log_id: int, witness: str, key_id: bytes, until: int, *, but: str | None
) -> None:
    """Forget what a witness cosigned under one key from `until` on, except for the State `but`."""

    def fell(line: bytes | None, at: int | None) -> bool:
        if line is None or at is None or at < until:
            return False
        return notes.parse_signature_lines(line)[0].key_id == key_id

    rows = session.scalars(
        select(CosignatureRow).where(
            CosignatureRow.log_id == log_id,
            CosignatureRow.witness == witness,
            func.coalesce(CosignatureRow.fresh_at, CosignatureRow.timestamp) >= until,
            func.coalesce(CosignatureRow.state, "") != (but or ""),
        )
    ).all()
    for row in rows:
        if fell(row.fresh_line, row.fresh_at):
            row.fresh_at = row.fresh_line = None
        if not fell(row.line, row.timestamp):
            continue
        if row.fresh_line is None or row.fresh_at is None:
            session.delete(row)
        else:
            row.timestamp, row.line = row.fresh_at, row.fresh_line
            row.fresh_at = row.fresh_line = None
    session.flush()


# ── reading the time ──────────────────────────────────────────────────────────────────────────────────────────────


def bracket_columns(log_id: Any, idx: Any) -> tuple[ScalarSelect[int], ScalarSelect[int]]:  # noqa: ANN401 - columns
    """T1 and T2 of a leaf as SQL, for the columns that name it: two look-ups in the key of `confirmations`."""
    near = ConfirmationRow.__table__.alias()
    first = ConfirmationRow.__table__.alias()
    after = (
        select(near.c.at)
        .where(near.c.log_id == log_id, near.c.size <= idx)
        .order_by(near.c.size.desc(), near.c.at.desc())
        .limit(1)
        .scalar_subquery()
    )
    before = (
        select(first.c.at)
        .where(first.c.log_id == log_id, first.c.size > idx)
        .order_by(first.c.size, first.c.at)
        .limit(1)
        .scalar_subquery()
    )
    return after, before


def bracket_of(session: Session, log_id: int, index: int) -> Bracket:
    """When the leaf at `index` was logged, as far as this node knows."""
    after, before = bracket_columns(literal(log_id), literal(index))
    return Bracket(*session.execute(select(after, before)).one())


def bracket_notes(session: Session, log_id: int, index: int) -> tuple[bytes | None, bytes | None]:
    """The two confirmed checkpoints that bracket a leaf."""
    of_log = select(ConfirmationRow.note).where(ConfirmationRow.log_id == log_id)
    before = session.execute(
        of_log.where(ConfirmationRow.size <= index)
        .order_by(ConfirmationRow.size.desc(), ConfirmationRow.at.desc())
        .limit(1)
    ).scalar_one_or_none()
    after = session.execute(
        of_log.where(ConfirmationRow.size > index).order_by(ConfirmationRow.size, ConfirmationRow.at).limit(1)
    ).scalar_one_or_none()
    return before, after
