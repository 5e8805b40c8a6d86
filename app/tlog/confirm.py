"""What is confirmed of a log, and the history of its confirmed checkpoints.

A size is confirmed when a quorum of States' witnesses cosigned the one checkpoint of that size; then every leaf below it
is. So one number for each log says it of all its notices (`logs.confirmed_size`), and it never falls.

The log's own node also keeps each confirmed checkpoint as it stood when it was confirmed (`confirmations`): the log's
signature and the quorum's, unchanged from then on. It serves them, mirrors check and copy them, and the time of a leaf
is told from them alone (`app.domain.times`), so that every node and every outsider tells the same time. Any further
confirmed checkpoint can only narrow the bracket of a leaf: an origin that leaves some out makes its own notices' times
vaguer, and cannot move them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, literal, select, update

from app.domain.errors import Refused
from app.domain.quorum import agreed_time
from app.domain.times import Bracket
from app.models import ConfirmationRow, CosignatureRow, HeadRow, LogRow
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.cosignature import CosignerKey, cosigned_at, verify_cosignatures, with_cosignatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ScalarSelect
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.quorum import Quorum
    from app.tlog.note import VerifierKey

REFRESH_S: Final = 600
"""A head that stands still is cosigned again after so many seconds: the next leaf cannot claim to be older than that."""

HISTORY_PAGE: Final = 64
"""Confirmed checkpoints in one answer: 160 kB in a federation of 25."""


class ConfirmationRefused(Refused):
    """A checkpoint in a history is not what it should be: not signed, not of this tree, or not cosigned by a quorum."""

    code = "confirmation-refused"


# ── the log's own node ────────────────────────────────────────────────────────────────────────────────────────────


def confirm(db: Database, session: Session, log_id: int, size: int, quorum: Quorum) -> bool:
    """Look whether `size` is confirmed now, in the transaction that stored cosignatures over it.

    For the own log the confirmed checkpoint is kept for its history. Returns whether the confirmed size grew.
    """
    log = session.execute(select(LogRow.is_own, LogRow.confirmed_size).where(LogRow.id == log_id)).one()
    if size < log.confirmed_size or (size == log.confirmed_size and size > 0):
        return False
    states = session.scalars(
        select(CosignatureRow.state).where(CosignatureRow.log_id == log_id, CosignatureRow.size == size)
    ).all()
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
    """Raise the confirmed size; it never falls. Returns whether it grew."""
    grew = session.execute(
        update(LogRow)
        .where(LogRow.id == log_id, LogRow.confirmed_size < size)
        .values(confirmed_size=size)
        .returning(LogRow.id)
    ).one_or_none()
    return grew is not None


def _keep(db: Database, session: Session, log_id: int, size: int, quorum: Quorum) -> None:
    """Keep the checkpoint of a size with the newest cosignatures of the quorum's States, if there are enough."""
    head = session.execute(
        select(HeadRow.note).where(HeadRow.log_id == log_id, HeadRow.size == size)
    ).scalar_one_or_none()
    if head is None:
        return
    rows = session.execute(
        select(CosignatureRow.state, CosignatureRow.line, CosignatureRow.fresh_line)
        .where(CosignatureRow.log_id == log_id, CosignatureRow.size == size)
        .order_by(CosignatureRow.witness)
    ).all()
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


def _store(db: Database, session: Session, log_id: int, found: Sequence[tuple[int, int, bytes]]) -> int:
    before = _count(session, log_id)
    session.execute(
        db.insert_ignore(ConfirmationRow.__table__),
        [{"log_id": log_id, "size": size, "at": at, "note": note} for size, at, note in found],
    )
    return _count(session, log_id) - before


def _count(session: Session, log_id: int) -> int:
    return session.execute(
        select(func.count()).select_from(ConfirmationRow).where(ConfirmationRow.log_id == log_id)
    ).scalar_one()


# ── serving and taking ────────────────────────────────────────────────────────────────────────────────────────────


def read_history(session: Session, log_id: int, after: int) -> list[bytes]:
    """Confirmed checkpoints of sizes above `after`, ascending, one page. A size is never cut in two."""
    rows = session.execute(
        select(ConfirmationRow.size, ConfirmationRow.note)
        .where(ConfirmationRow.log_id == log_id, ConfirmationRow.size > after)
        .order_by(ConfirmationRow.size, ConfirmationRow.at)
        .limit(HISTORY_PAGE + 1)
    ).all()
    if len(rows) > HISTORY_PAGE:
        cut = rows[HISTORY_PAGE].size
        rows = [row for row in rows[:HISTORY_PAGE] if row.size < cut] or rows[:HISTORY_PAGE]
    return [bytes(row.note) for row in rows]


def open_confirmation(
    raw: bytes,
    *,
    keys: Iterable[VerifierKey],
    origin: str,
    witnesses: Mapping[CosignerKey, str],
    quorum: Quorum,
) -> tuple[Checkpoint, int]:
    """Verify a confirmed checkpoint. Returns it and its time, unix seconds.

    Its time is the median over the States that cosigned it, each counted once, with the latest time it gives.

    Args:
        keys: the log's.
        witnesses: cosigner key → its State.
        quorum: who has to have cosigned it.

    Raises:
        MalformedNote, MalformedCheckpoint, UnexpectedOrigin, InvalidNoteSignature, NoKnownSignature: see `open_checkpoint`.
        ConfirmationRefused: too few States of the quorum cosigned it.
    """
    checkpoint, note = open_checkpoint(raw, keys, origin)
    times: dict[str, int] = {}
    for cosignature in verify_cosignatures(note, witnesses):
        state = witnesses[
            next(k for k in witnesses if (k.name, k.key_id) == (cosignature.name, cosignature.key_id))
        ]
        if state in quorum.witnesses:
            times[state] = max(cosignature.at, times.get(state, 0))
    if not quorum.met_by(times):
        raise ConfirmationRefused(
            f"The checkpoint of size {checkpoint.size} of {origin} is cosigned by {len(times)} of the States whose witnesses "
            f"count, and {quorum.needed} are needed."
        )
    return checkpoint, agreed_time(list(times.values()))


def take_confirmations(
    db: Database, session: Session, log_id: int, found: Sequence[tuple[Checkpoint, int, bytes]]
) -> int:
    """Keep verified confirmed checkpoints, whose roots the caller compared with the stored tree. Returns how many were new."""
    if not found:
        return 0
    set_confirmed(session, log_id, max(checkpoint.size for checkpoint, _, _ in found))
    return _store(db, session, log_id, [(checkpoint.size, at, note) for checkpoint, at, note in found])


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
