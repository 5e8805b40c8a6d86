"""Membership: a TUF repository that the States sign by threshold, and the client that keeps a node's copy fresh.

See `docs/roster.md` for the layout and the ceremony. The rest of the node reads only the pure `app.domain.roster.Roster`.
"""

from app.roster.client import HttpFetcher, RosterClient, SourceOutcome
from app.roster.documents import FederationDocument, FrozenLog, Membership, StateDocument, StateKey
from app.roster.errors import (
    DraftNotComplete,
    DraftOutdated,
    DraftSigned,
    KeyNotInRole,
    RootWouldOrphanTargets,
    RosterNotVerified,
    RosterRefused,
    RosterSourceFault,
)
from app.roster.verify import (
    VerifiedRoster,
    export_bundle,
    roster_from_bundle,
    roster_from_repository,
    verify,
    verify_bundle,
)

__all__ = [
    "DraftNotComplete",
    "DraftOutdated",
    "DraftSigned",
    "FederationDocument",
    "FrozenLog",
    "HttpFetcher",
    "KeyNotInRole",
    "Membership",
    "RootWouldOrphanTargets",
    "RosterClient",
    "RosterNotVerified",
    "RosterRefused",
    "RosterSourceFault",
    "SourceOutcome",
    "StateDocument",
    "StateKey",
    "VerifiedRoster",
    "export_bundle",
    "roster_from_bundle",
    "roster_from_repository",
    "verify",
    "verify_bundle",
]
