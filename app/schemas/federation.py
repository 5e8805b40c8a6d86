"""Wire shapes of `/v1/federation`."""

from __future__ import annotations

from pydantic import Field

from app.models import EvidenceRow
from app.queries.notices import rfc3339
from app.schemas.notices import Shape


class LagOut(Shape):
    """How far behind this node is."""

    leaves: int = Field(description="leaves the origin signed that are not proven here yet")
    seconds: float = Field(description="age of the newest proven head while behind, otherwise 0")


class LogReceiptOut(Shape):
    """A State's newest cosignature over the log."""

    state: str
    size: int
    at: str
    complete: bool = Field(description="covers the newest head")


class ForeignWitnessOut(Shape):
    """The newest cosignature of a witness outside the roster. It counts for no quorum."""

    name: str
    size: int
    at: str


class ConfirmedOut(Shape):
    """What a quorum of witnesses vouches for."""

    size: int = Field(description="leaves below are confirmed; at and above they are provisional")
    at: str | None = Field(description="when, by the witnesses' clocks")
    lag_leaves: int = Field(description="leaves the log signed that are not confirmed yet")
    witnesses: int = Field(description="m: States whose witnesses count for this log")
    faulty: int = Field(description="f: how many of them may be dishonest or broken")
    quorum: int = Field(description="q: how many must cosign one checkpoint")
    takes_all: bool = Field(description="the federation is too small for f of 1: every witness must cosign")


class LogErrorOut(Shape):
    """What keeps this node from following the log."""

    code: str
    since: str | None
    detail: str | None = Field(None, description="only for callers of a State")


class EvidenceOut(Shape):
    """One record of evidence; `/evidence/{id}` gives it."""

    id: str = Field(description="SHA-256 of the record, hex")
    type: str = Field(description="fork, cosigner, badleaf, rollback or withheld")
    origin: str
    accused: str = Field(description="the log's origin, or the name of a witness")
    convicts: bool = Field(description="whether the accused signed a contradiction; otherwise it is a report")
    at: str = Field(description="when this node found it or was given it")
    found_by: str | None = Field(description="the State that gave it; null: found here")

    @classmethod
    def of(cls, row: EvidenceRow) -> EvidenceOut:
        """From a row."""
        return cls(
            id=row.id,
            type=row.type,
            origin=row.origin,
            accused=row.accused,
            convicts=row.convicts,
            at=rfc3339(row.at),
            found_by=row.source,
        )


class EvidenceListOut(Shape):
    """Evidence, newest first."""

    items: list[EvidenceOut]


class ContinuesOut(Shape):
    """An ended log, and where it ended."""

    origin: str
    size: int
    stated: bool = Field(description="whether the first leaf says the same")


class FollowsOut(Shape):
    """The roster that a node says it follows."""

    version: int
    sha256: str
    index: int
    at: str


class LogOut(Shape):
    """How far this node is with one log."""

    state: str
    origin: str
    epoch: int
    own: bool
    status: str = Field(description="ok or frozen")
    size: int = Field(description="leaves stored and proven here")
    judged: int = Field(description="of those, judged and findable")
    head_size: int
    head_at: str | None
    claimed_size: int = Field(description="largest size the origin signed, as far as is known here")
    lag: LagOut
    in_step: bool
    skew_ms: int | None = Field(description="the origin's clock minus ours")
    last_contact: str | None
    silent_seconds: float | None
    backfilled: bool
    faults: int = Field(description="leaves that failed judgement; /v1/federation/faults lists them")
    frozen_size: int | None = Field(
        description="of a frozen log: the last size that a quorum confirmed and that both its histories share; null: not known yet"
    )
    frozen_root: str | None = Field(description="the root at that size (base64url)")
    continues: ContinuesOut | None = Field(
        description="the ended log of this State whose notices this one continues, by the roster"
    )
    follows: FollowsOut | None = Field(
        description="the roster that this log's node says it follows, in its newest leaf of kind roster"
    )
    withheld: bool = Field(
        description="others show a larger head than the log's own node has served for 30 minutes"
    )
    evidence: list[str] = Field(description="ids of records about this log; /evidence/{id} gives one")
    receipts: list[LogReceiptOut]
    foreign_witnesses: list[ForeignWitnessOut]
    confirmed: ConfirmedOut
    error: LogErrorOut | None


class WarningOut(Shape):
    """Something an operator should see to."""

    code: str
    detail: str


class RosterLeafOut(Shape):
    """A leaf of kind `roster`."""

    state: str
    origin: str
    index: int


class RosterSaidOut(Shape):
    """One of several rosters of a version, and who says that it follows it; none: this node does."""

    sha256: str
    leaves: list[RosterLeafOut]


class ContradictionOut(Shape):
    """A version of which there are several rosters."""

    version: int
    rosters: list[RosterSaidOut]


class RosterOut(Shape):
    """The roster in force."""

    version: int
    sha256: str
    expires: str
    warnings: list[WarningOut]
    contradictions: list[ContradictionOut] = Field(
        description="versions of which States follow different rosters, by what their nodes say in their logs"
    )


class FederationOut(Shape):
    """The federation as this node sees it."""

    state: str
    now: str
    central_contact: str | None
    quorum: int = Field(description="q: how many witnesses must cosign a checkpoint of this node's own log")
    faulty: int = Field(description="f: how many of them may be dishonest or broken")
    witnesses: int = Field(description="m: States whose witnesses count")
    quorum_rule: str = Field(description="the same in one sentence")
    accepting: bool = Field(
        description="whether this node takes notices: not while it asks witnesses how far its log is, nor once that is frozen"
    )
    roster: RosterOut
    logs: list[LogOut]
    not_followed: list[str] = Field(description="origins in the roster that this node keeps nothing of yet")


class FaultOut(Shape):
    """One leaf, or its body, that failed judgement. It stands in the log all the same."""

    state: str
    origin: str
    index: int
    leaf_hash: str
    part: str = Field(description="statement or body")
    code: str
    detail: str | None
    received_at: str


class FaultsOut(Shape):
    """Faults in log order."""

    items: list[FaultOut]
    next: str | None
    total: int
