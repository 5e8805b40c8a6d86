"""Signing the own log's head: sequence → integrate → **publish**.

Guarantees one truth per size: (log, size) is the primary key of `heads` and is committed with its root before the key is
asked to sign, so neither a race nor a restart can sign a second root for a size. A crash between the two leaves a head
without a note; the next step signs that same root.

A head whose key is revoked is signed again, with the same size and root, by the key that counts now: whoever comes to the log
would otherwise find nothing that verifies until its next leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, insert, select, update

from app.db import execute
from app.domain.errors import LogCorrupt
from app.models import CosignatureRow, HeadRow, LogRow, WatchRow
from app.tlog import note as notes
from app.tlog.checkpoint import Checkpoint, sign_checkpoint
from app.tlog.cosignature import with_cosignatures
from app.tlog.note import VerifierKey
from app.tlog.store import lock_log

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.keys import PublicKey, Signer


_LOGS, _HEADS, _WATCHED = LogRow.__table__, HeadRow.__table__, WatchRow.__table__
_HEAD: Final = (
    select(_LOGS.c.status, _WATCHED.c.closed_at, _LOGS.c.head_size, _LOGS.c.head_note)
    .outerjoin_from(_LOGS, _WATCHED, _WATCHED.c.log_id == _LOGS.c.id)
    .where(_LOGS.c.id == bindparam("log"))
)
_DECIDED: Final = select(_HEADS.c.root).where(
    _HEADS.c.log_id == bindparam("log"), _HEADS.c.size == bindparam("at_size")
)
_DECIDE: Final = insert(_HEADS)  # type: ignore[arg-type]  # a mapped class's __table__
_SIGNED: Final = (
    update(_HEADS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_HEADS.c.log_id == bindparam("log"), _HEADS.c.size == bindparam("at_size"))
    .values(note=bindparam("new_note"))
)
_PUBLISHED: Final = (
    update(_LOGS)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_LOGS.c.id == bindparam("log"), _LOGS.c.head_size <= bindparam("at_size"))
    .values(
        head_size=bindparam("at_size"),
        head_root=bindparam("new_root"),
        head_note=bindparam("new_note"),
        head_at=bindparam("now"),
        claimed_size=bindparam("at_size"),
    )
)


def publish_step(
    db: Database, log_id: int, signer: Signer, *, now: int, revoked: Collection[PublicKey] = ()
) -> Checkpoint | None:
    """Sign the head of what is committed, if that is new. Returns the checkpoint, or None when there was nothing to sign.

    Args:
        revoked: keys of this log that do not count any more; a head that stands under one of them is new as well.

    Raises:
        LogCorrupt: another root was decided for this size earlier; nothing is signed.
    """
    with db.write() as session:
        log = lock_log(session, log_id)
        status, closed_at, head_size, head_note = execute(session, _HEAD, log=log_id).one()
        if status != "ok" or closed_at is not None:  # frozen, or behind a closed start-up gate
            return None
        is_old = head_note is not None and head_size == log.size
        if is_old and not (revoked and _stands_under(head_note, log.origin, revoked)):
            return None
        root = log.frontier.root()
        decided = execute(session, _DECIDED, log=log_id, at_size=log.size).scalar_one_or_none()
        if decided is None:
            execute(session, _DECIDE, log_id=log_id, size=log.size, root=root, note=None, at=now)
        elif decided != root:
            raise LogCorrupt(
                f"{log.origin} has another root for size {log.size} on record: the leaves changed under a signed head. Nothing "
                "is signed. Restore the log from a mirror; see docs/operations.md."
            )
    # The decision is durable; signing the same bytes twice after a crash here is harmless (Ed25519 is deterministic).
    checkpoint = Checkpoint(log.origin, log.size, root)
    note = sign_checkpoint(checkpoint, signer).encode()
    with db.write() as session:
        execute(session, _SIGNED, log=log_id, at_size=checkpoint.size, new_note=note)
        execute(
            session, _PUBLISHED, log=log_id, at_size=checkpoint.size, new_root=root, new_note=note, now=now
        )
    return checkpoint


def _stands_under(head_note: bytes, origin: str, keys: Collection[PublicKey]) -> bool:
    signed = notes.parse(head_note)
    return any(notes.names_key(signed, VerifierKey(origin, key)) for key in keys)


def head_with_cosignatures(session: Session, log_id: int, size: int | None = None) -> bytes | None:
    """The checkpoint as it is served: the log's lines, then cosignatures (at most 16 for the newest, all for a given size).

    None when no head is signed yet, or none of that size.
    """
    if size is None:
        head = session.execute(
            select(LogRow.head_size, LogRow.head_note).where(LogRow.id == log_id)
        ).one_or_none()
    else:
        head = session.execute(
            select(HeadRow.size, HeadRow.note).where(HeadRow.log_id == log_id, HeadRow.size == size)
        ).one_or_none()
    if head is None or head[1] is None:
        return None
    lines = session.scalars(
        select(CosignatureRow.line)
        .where(CosignatureRow.log_id == log_id, CosignatureRow.size == head[0])
        .order_by(CosignatureRow.witness)
    ).all()
    signed = notes.parse(head[1])
    cosignatures = [s for line in lines for s in notes.parse_signature_lines(line)]
    limit = 16 if size is None else notes.MAX_SIGNATURES
    return with_cosignatures(signed, cosignatures, limit).encode()
