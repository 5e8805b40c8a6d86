"""What a dishonest operator does with the node's own keys and database, past everything that guards an honest one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.domain.errors import VerbaleError
from app.judging import Context, Judged
from app.record import record_own
from app.tlog.publish import publish_step

if TYPE_CHECKING:
    from app.node import Node
    from app.record import Receipt
    from app.tlog.checkpoint import Checkpoint


def log_and_sign(node: Node, line: bytes) -> tuple[Receipt, Checkpoint]:
    """Append one signed notice to the own log and sign the new head, asking no witness and no gate.

    Args:
        node: an opened node that does not run.
        line: the notice as it would be posted.
    """
    now = node.clock()
    (judged,) = node.judges.posts([line], Context(node.origin, node.roster(), now // 1000))
    if not isinstance(judged, Judged):
        raise judged
    with node.db.write() as session:
        (receipt,) = record_own(node.db, session, node.log_id, [judged], now=now)
    if isinstance(receipt, VerbaleError):
        raise receipt
    checkpoint = publish_step(node.db, node.log_id, node.keys.log, now=now)
    assert checkpoint is not None  # noqa: S101 - something was appended just now
    return receipt, checkpoint
