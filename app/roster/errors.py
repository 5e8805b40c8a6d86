"""What can be wrong with a roster, a draft of one, or a source of one.

::

    Refused
    ├── RosterRefused           the metadata verifies, or needs no verifying yet, and says something that may not be said
    ├── RosterNotVerified       signatures, versions or hashes do not hold up from the pinned root
    ├── DraftNotComplete        signatures are still missing
    ├── KeyNotInRole            this key signs nothing in this draft
    └── RootWouldOrphanTargets  a new root under which the current targets would no longer verify
    Conflict
    ├── DraftOutdated           the repository moved on since the draft was made
    └── DraftSigned             the draft carries signatures that a change would void
    PeerFault
    └── RosterSourceFault       every source that answered served a roster that does not verify
"""

from __future__ import annotations

from app.domain.errors import Conflict, PeerFault, Refused


class RosterRefused(Refused):
    """The roster or draft says something that may not be said: a bad key, another State's origin, a dropped key."""

    code = "roster-refused"


class RosterNotVerified(Refused):
    """The TUF chain from the pinned root does not hold."""

    code = "roster-not-verified"


class DraftNotComplete(Refused):
    """Signatures are missing; the message says whose."""

    code = "draft-not-complete"


class KeyNotInRole(Refused):
    """The key may sign none of the files of this draft."""

    code = "key-not-in-role"


class RootWouldOrphanTargets(Refused):
    """A root rotation that leaves targets with too few valid signatures."""

    code = "root-would-orphan-targets"


class DraftOutdated(Conflict):
    """The repository has moved on since the draft was made."""

    code = "draft-outdated"


class DraftSigned(Conflict):
    """The draft is signed already, so it can no longer be changed."""

    code = "draft-signed"


class RosterSourceFault(PeerFault):
    """Every source that answered served a roster that does not verify or may not be adopted."""

    code = "roster-source-fault"
