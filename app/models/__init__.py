"""Tables only, one metadata for alembic.

Four families, and the difference matters:

* the log (`logs`, `leaves`, `tree_tiles`, `heads`, `cosignatures`, `confirmations`, `bodies`, `body_keys`,
  `carried_bodies`): the truth. Only `app.tlog`, `app.bodies` and `app.replication` write it, and no row of `leaves` or
  `heads` is ever changed;
* projections (`entries`, `notices`, `notice_terms`, `screened_notices`): a fold of the log that `verbale rebuild` drops and makes anew;
* evidence (`evidence`, `evidence_told`, `branch_leaves`, `log_watch`): what was found out about the logs;
* the node's own (`events`, `subscriptions`, `deliveries`, `delivery_attempts`, `deadlines`, `digests`, `api_tokens`, `nonces`, `counters`,
  `screenings`, `watchlists`, `watch_entries`, `watch_hits`): local business.

Times are unix milliseconds when this node measured them (`*_at`), unix seconds when a statement claims them (`iat`, `exp`),
ISO dates where the domain speaks of days.
"""

from app.models.base import Base
from app.models.evidence import BranchLeafRow, EvidenceRow, EvidenceToldRow, WatchRow
from app.models.log import (
    BodyKeyRow,
    BodyRow,
    CarriedRow,
    ConfirmationRow,
    CosignatureRow,
    HeadRow,
    LeafRow,
    LogRow,
    TileRow,
)
from app.models.notice import (
    EntryRow,
    ErasureSaidRow,
    NoticeRow,
    NoticeTermRow,
    RosterSaidRow,
    ScreenedRow,
)
from app.models.screening import ScreeningRow, WatchEntryRow, WatchHitRow, WatchlistRow
from app.models.service import (
    ApiTokenRow,
    AttemptRow,
    CounterRow,
    DeadlineRow,
    DeliveryRow,
    DigestRow,
    EventRow,
    NonceRow,
    SubscriptionRow,
)

__all__ = [
    "ApiTokenRow",
    "AttemptRow",
    "Base",
    "BodyKeyRow",
    "BodyRow",
    "BranchLeafRow",
    "CarriedRow",
    "ConfirmationRow",
    "CosignatureRow",
    "CounterRow",
    "DeadlineRow",
    "DeliveryRow",
    "DigestRow",
    "EntryRow",
    "ErasureSaidRow",
    "EventRow",
    "EvidenceRow",
    "EvidenceToldRow",
    "HeadRow",
    "LeafRow",
    "LogRow",
    "NonceRow",
    "NoticeRow",
    "NoticeTermRow",
    "RosterSaidRow",
    "ScreenedRow",
    "ScreeningRow",
    "SubscriptionRow",
    "TileRow",
    "WatchEntryRow",
    "WatchHitRow",
    "WatchRow",
    "WatchlistRow",
]
