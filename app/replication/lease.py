"""Who signs for a log: a lease that the other States' nodes give to one process at a time.

A node that is started twice, from a copy of its disk or of its machine, would sign two roots for one size: both are
level with what the witnesses have (`app.replication.startup`), and neither knows of the other. So a process signs for its
log only while a quorum of the other States' nodes says that it is the one:

    giving     a node gives the lease to whoever asks, unless another run has it and renewed it within its time
    holding    before its start-up gate opens, and all the time after, a node has it of a quorum. Two quorums share an
               honest node, so two processes cannot both have one
    losing     a process that has it of no quorum any more, and that anybody refuses, closes its gate and asks until it has it

It is asked for beside everything else, never in a commit's way, and **a node that nobody answers goes on**: a State that is cut
off keeps its log. What that costs is in docs/adr/0028. A run whose end is certain (`app.place`) is named as over, so that a
killed process's successor need not wait. A lease says nothing of a log to anybody but its own nodes: it proves nothing, is
kept by no third party, and a State that lies to itself with it can do no more than it could without.

    POST /witness/<hex SHA-256 of the origin>/lease, signed with the transport key (RFC 9421)
    {"for_s": 60, "over": ["<32 hex digits>", …], "run": "<32 hex digits>"}
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from app.domain.errors import Conflict, PeerFault, RosterMissing
from app.domain.lease import HELD_ELSEWHERE, Claim
from app.models import WatchRow
from app.replication.forks import watch_log
from app.tlog.witness import origin_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.place import Place
    from app.replication.client import PeerClient
    from app.replication.witness import WitnessEndpoint

MAX_ANSWER: Final = 16 * 2**10
RENEWALS: Final = 3
"""In the time of one lease: two may be lost without losing it."""
_GIVEN: Final = frozenset({200, 404, 405})
"""A node of a version without leases, or that does not follow this log yet, refuses nobody."""
_REFUSED: Final = 409


class LogHeld(Conflict):
    """Another process has the lease of this log."""

    code = HELD_ELSEWHERE


def give(db: Database, log_id: int, claim: Claim, *, now: int) -> None:
    """Give the lease of a log to a run of its State, or renew it. `now` is unix ms.

    A crash before the answer leaves it given: the same run asks again and has it.

    Raises:
        LogHeld: another run has it, which is not known to be over, for as long as the message says.
    """
    refusal: str | None = None
    with db.write() as session:
        watch_log(db, session, log_id)
        row = session.execute(
            select(WatchRow.held_by, WatchRow.held_at, WatchRow.held_s)
            .where(WatchRow.log_id == log_id)
            .with_for_update()
        ).one()
        if row.held_by is not None and row.held_by not in (claim.run, *claim.over):
            age = now - row.held_at
            if age < 0:
                # This clock was set back: it counts from now on, or the holder might have it for hours.
                watch_log(db, session, log_id, held_at=now)
                age = 0
            left = row.held_s * 1000 - age
            if left > 0:
                refusal = (
                    f"Another process signs for this log and was heard of {age // 1000} s ago. If it is not heard of again, "
                    f"this one may follow in {-(-left // 1000)} s."
                )
        if refusal is None:
            watch_log(db, session, log_id, held_by=claim.run, held_at=now, held_s=claim.for_s)
    if refusal is not None:
        raise LogHeld(refusal)


@dataclass(frozen=True, slots=True)
class Answers:
    """Who said what to one round of asking. States by their codes.

    Attributes:
        silent: who gave no answer that counts, and why, for people.
    """

    given: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    silent: Mapping[str, str] = field(default_factory=dict)


class Lease:
    """This process's lease of its own log. Without a place nothing is asked for: tools and tests open nodes without loops."""

    def __init__(
        self,
        client: PeerClient,
        *,
        origin: str,
        state: str,
        clock: Clock,
        roster: Callable[[], Roster],
        witnesses: Callable[[], Sequence[WitnessEndpoint]],
        executor: Callable[[], Executor],
        for_s: int,
    ) -> None:
        """Ask nobody yet.

        Args:
            executor: makes the threads in which the others are asked side by side.
            for_s: how long it is good without renewal.
        """
        self._client, self._origin, self._state, self._clock = client, origin, state, clock
        self._roster, self._witnesses, self._executor = roster, witnesses, executor
        self.for_s = for_s
        self.place: Place | None = None
        self._given_at: dict[str, int] = {}
        self._asked_at: int | None = None
        self._lock = threading.Lock()

    @property
    def renew_every_s(self) -> float:
        """Seconds between two rounds."""
        return self.for_s / RENEWALS

    def is_current(self) -> bool:
        """Whether a quorum gave it within its time, as this clock counts from before it was asked for."""
        if self.place is None:
            return True
        try:
            roster = self._roster()
        except RosterMissing:
            return False
        if not self._is_asked_of_members(roster):
            return True
        quorum = roster.quorum_for(self._state)
        since = self._clock() - self.for_s * 1000
        given = {state for state, at in self._given_at.items() if since < at <= self._clock()}
        return len(given & quorum.witnesses) >= quorum.needed

    def is_due(self) -> bool:
        """Whether the others should be asked before anything more is signed: it is over, and they were not asked just now."""
        if self.is_current():
            return False
        asked = self._asked_at
        return asked is None or not 0 <= self._clock() - asked < self.renew_every_s * 1000

    def ask(self) -> Answers:
        """Ask every other State's node for it, or to renew it."""
        place = self.place
        if place is None:
            return Answers()
        with self._lock:  # one round at a time: what the later one hears is what counts
            body = Claim(place.run, place.over, self.for_s).encode()
            before = self._clock()
            self._asked_at = before
            try:
                asked = self._witnesses() if self._is_asked_of_members(self._roster()) else ()
            except RosterMissing:
                asked = ()
            others = {w.state: w.url for w in asked if w.state is not None and w.state != self._state}
            with self._executor() as pool:
                said = dict(
                    zip(others, pool.map(lambda url: self._ask_one(url, body), others.values()), strict=True)
                )
            answers = Answers(
                frozenset(state for state, word in said.items() if word is True),
                frozenset(state for state, word in said.items() if word is False),
                {state: word for state, word in said.items() if isinstance(word, str)},
            )
            for state in answers.given:
                self._given_at[state] = before
            for state in answers.refused:
                self._given_at.pop(state, None)
        return answers

    def _is_asked_of_members(self, roster: Roster) -> bool:
        """A State that is no member, not yet or suspended, is answered by nobody; what it logs meanwhile counts nowhere."""
        own = roster.states.get(self._state)
        return own is not None and own.status == "member"

    def _ask_one(self, witness: str, body: bytes) -> bool | str:
        """Whether the node of the witness at this address gives it; else, for people, why that is not known."""
        url = f"{witness}/{origin_hash(self._origin)}/lease"
        try:
            status, answer = self._client.post(url, body, limit=MAX_ANSWER, signed=True)
        except PeerFault as fault:
            return str(fault)[:300]
        if status in _GIVEN or status == _REFUSED:
            return status in _GIVEN
        return f"status {status} {answer[:300].decode(errors='replace')}"
