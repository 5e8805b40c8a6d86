"""The start-up gate: before the first signature after a start, ask the witnesses how far the own log is.

The commonest fork is no malice: a node goes on from an old copy of its database and gives indexes away twice. So a node
that starts signs nothing and takes nothing until

    1. a quorum of witnesses has answered what they cosigned last, and their nodes what they have seen (after a restore: all),
    2. they let this process, and no other of this State's, sign for the log (`app.replication.lease`); asked first, so that what
       they show after it is all that another process can have signed,
    3. every head they show is one that the own tree has, or extends what is here; what is missing came from mirrors,
       leaves and the bodies they still hold, and gave the signed root (after a restore: its history of confirmations too),
    4. nothing they show contradicts the own tree. If something does, nothing is ever signed here again.

While the node runs it keeps the lease; once it has lost it to another process, or the roster has revoked its log key, the gate
closes and all is asked anew.

While it is closed posts are answered 503 (`node-starting`); reading, mirroring and witnessing go on. The gate's state is in
the database (`log_watch.closed_at`), and both the sequencer and the publisher look at it in their own transactions, so it
holds for all processes of a node. What a crash leaves behind is a closed gate.

After a restore the same is done for every other State's log (`restored_at`): until this node is level with what the others
show, it cosigns nothing of that log and shows nothing to anybody, since an erasure may have come after the backup.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from app.domain.errors import KeyNotActive, PeerFault, RosterMissing, VerbaleError
from app.events import Event, emit
from app.models import LogRow, WatchRow
from app.replication.client import MAX_CHECKPOINT_BYTES, mirrors_of
from app.replication.follow import advance_from, read_followed
from app.replication.forks import CheckpointFork, contradiction, convict, root_here, watch_log
from app.replication.history import recover_history
from app.replication.lease import Answers, Lease, LogHeld
from app.replication.witness import log_keys
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.cosignature import verify_cosignatures
from app.tlog.evidence import Sighting
from app.tlog.note import Note, names_key
from app.tlog.note import parse as parse_note
from app.tlog.witness import origin_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from app.clock import Clock
    from app.db import Database
    from app.domain.keys import PublicKey
    from app.domain.roster import Roster
    from app.replication.client import PeerClient
    from app.replication.witness import WitnessEndpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one witness says it cosigned last of a log, or its node that it has seen.

    Attributes:
        head: None if there is nothing.
        note: the checkpoint with all its lines.
        is_stored: whether its node says that it has the leaves. A head that was only seen may be all that is left of them.
        key_counts: whether the log key that signed it still does. Under one that was revoked, a head that the witness has not
            cosigned proves nothing: its thief can sign any.
    """

    witness: WitnessEndpoint
    head: Checkpoint | None
    note: Note | None
    is_stored: bool = True
    key_counts: bool = True


def ask_witness(client: PeerClient, witness: WitnessEndpoint, origin: str, roster: Roster) -> Shown:
    """Ask one witness for its last checkpoint of a log.

    Raises:
        PeerFault: no answer, or one without the log's signature and the witness's own: that says nothing.
    """
    shown = _ask_for(client, witness, "checkpoint", origin, roster)
    if shown.note is not None:
        try:
            cosigned = verify_cosignatures(shown.note, witness.keys)
        except VerbaleError as error:
            raise PeerFault(
                f"{witness.name} shows a checkpoint of {origin} that does not verify: {error}"
            ) from error
        if not cosigned:
            raise PeerFault(f"{witness.name} shows a checkpoint of {origin} that it has not cosigned.")
    return shown


def ask_seen(client: PeerClient, witness: WitnessEndpoint, origin: str, roster: Roster) -> Shown:
    """Ask the node of one witness for the largest checkpoint of a log that it has seen, proven there or not.

    It may have stored leaves and died before it cosigned, or have read a head whose leaves never came: a key that signs
    another root for that size has signed two all the same.

    Raises:
        PeerFault: no answer, or one without the log's signature.
    """
    return _ask_for(client, witness, "seen", origin, roster)


def _ask_for(client: PeerClient, witness: WitnessEndpoint, what: str, origin: str, roster: Roster) -> Shown:
    is_stored = what == "checkpoint"
    raw = client.get(f"{witness.url}/{origin_hash(origin)}/{what}", limit=MAX_CHECKPOINT_BYTES)
    if raw is None:
        return Shown(witness, None, None, is_stored=is_stored)
    try:
        size = Checkpoint.parse(parse_note(raw).text).size
        head, note = open_checkpoint(raw, log_keys(roster, origin, settled=size), origin)
    except VerbaleError as error:
        raise PeerFault(
            f"{witness.name} shows a checkpoint of {origin} that does not verify: {error}"
        ) from error
    counts = any(names_key(note, key) for key in log_keys(roster, origin))
    return Shown(witness, head, note, is_stored=is_stored, key_counts=counts)


class Gate:
    """See the module. One for each process that publishes; the other processes only read what it writes."""

    def __init__(
        self,
        db: Database,
        client: PeerClient,
        *,
        log_id: int,
        origin: str,
        state: str,
        clock: Clock,
        roster: Callable[[], Roster],
        witnesses: Callable[[], Sequence[WitnessEndpoint]],
        executor: Callable[[], Executor],
        marker: Path,
        judge: Callable[[int], None],
        lease_s: int,
        log_key: Callable[[], PublicKey],
    ) -> None:
        """Ask nobody yet.

        Args:
            executor: makes the threads in which witnesses are asked side by side.
            marker: file that `node init` leaves: no leaf was ever signed. It goes with the first, and no backup of the database
                brings it back.
            judge: judges and projects all that is stored of a log, fetching bodies; by the log's row id.
            lease_s: how long the lease of the log is good without renewal.
            log_key: the key that this process would sign heads with now.
        """
        self._db, self._client, self._clock = db, client, clock
        self._log_id, self._origin, self._state = log_id, origin, state
        self._roster, self._witnesses, self._executor = roster, witnesses, executor
        self._marker, self._judge, self._log_key = marker, judge, log_key
        self.lease = Lease(
            client,
            origin=origin,
            state=state,
            clock=clock,
            roster=roster,
            witnesses=witnesses,
            executor=executor,
            for_s=lease_s,
        )
        self._stopped = False
        self._has_opened = False  # this process, and it has not given way since
        self.why = ""
        """What it waits for, for people; empty while it is open."""

    def close(self) -> None:
        """Close it: at every start, before anything is signed or taken."""
        with self._db.write() as session:
            watch_log(self._db, session, self._log_id, closed_at=self._clock())
        self.why = "It asks the other States' witnesses how far its log is."

    def stop(self, code: str, why: str) -> None:
        """Close it for as long as this process lives: somebody else signs with this log's key. A new start asks again."""
        if self._stopped:
            return
        self._stopped, self.why = True, why
        now = self._clock()
        with self._db.write() as session:
            watch_log(self._db, session, self._log_id, closed_at=now)
            session.execute(
                update(LogRow)
                .where(LogRow.id == self._log_id)
                .values(error_code=code, error_detail=why[:1000], error_at=now)
            )
            detail = {"code": code, "origin": self._origin}
            emit(self._db, session, [Event("log.fault", log_id=self._log_id, detail=detail)], now=now)
        log.error("the own log is stopped", extra={"action": "log_stopped", "code": code, "why": why[:500]})

    @property
    def is_open(self) -> bool:
        """Whether this process may sign and take notices, as the database has it now."""
        with self._db.read() as session:
            status, closed = session.execute(
                select(LogRow.status, WatchRow.closed_at)
                .outerjoin(WatchRow, WatchRow.log_id == LogRow.id)
                .where(LogRow.id == self._log_id)
            ).one()
        return status == "ok" and closed is None

    def needs_nobody(self) -> bool:
        """Whether it can open without asking: this log was never signed, or it has no witness."""
        with self._db.read() as session:
            size = session.execute(select(LogRow.size).where(LogRow.id == self._log_id)).scalar_one()
        try:
            alone = not self._roster().quorum_for(self._state).witnesses and not self._witnesses()
        except RosterMissing:
            alone = False
        return alone or (size == 0 and self._marker.exists())

    # ── the rule ──────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> bool:
        """Ask, recover, and open if all is well. Returns False: whoever calls it waits before the next try.

        Raises:
            CheckpointFork: the own key has signed two histories; the log is frozen here and the record kept.
        """
        with self._db.read() as session:
            size, status, closed, vouched, restored = session.execute(
                select(
                    LogRow.size,
                    LogRow.status,
                    WatchRow.closed_at,
                    WatchRow.vouched_size,
                    WatchRow.restored_at,
                )
                .outerjoin(WatchRow, WatchRow.log_id == LogRow.id)
                .where(LogRow.id == self._log_id)
            ).one()
        if self._stopped or status != "ok":
            return False
        if closed is not None:
            if self._is_revoked():
                self._tell_revoked(alarm=False)
            elif size == 0 and restored is None and self._marker.exists():
                self._open("first start: nothing was ever signed")
            else:
                try:
                    self._try_to_open(vouched, is_restored=restored is not None)
                except CheckpointFork as fork:
                    self.stop(fork.code, str(fork))
                    raise
        self._level_restored()
        return False

    def _try_to_open(self, vouched: int | None, *, is_restored: bool) -> None:
        try:
            roster = self._roster()
        except RosterMissing as error:
            self.why = str(error)
            return
        lease = self.lease.ask()  # first: what is shown after it is given cannot be outrun by another process
        silent: dict[str, str] = {}
        shown = self._ask(self._origin, roster, seen=True, silent=silent)
        for one in sorted(shown, key=lambda s: s.head.size if s.head else 0):
            if not self._is_level(one, roster):
                return
        needed = roster.quorum_for(self._state)
        wanted = len(needed.witnesses) if is_restored else needed.needed
        answered = {one.witness.state for one in shown if not one.is_stored} & needed.witnesses
        with self._db.read() as session:
            size = session.execute(select(LogRow.size).where(LogRow.id == self._log_id)).scalar_one()
        if len(answered) < wanted and vouched != size:
            missing = sorted(needed.witnesses - answered)
            said = "".join(f" {state}: {silent[state]}" for state in missing if state in silent)
            self.why = (
                f"{len(answered)} of the {wanted} States' witnesses it needs have answered; {', '.join(missing)} have not. If they "
                f"cannot be reached, ask them by telephone: see docs/operations.md.{said}"
            )[:2000]
            log.warning("waiting for witnesses", extra={"action": "gate_waits", "why": self.why})
            return
        if not self._may_hold(lease, is_vouched=vouched == size):
            log.warning("waiting for the lease", extra={"action": "gate_waits", "why": self.why})
            return
        if is_restored:
            self._take_history(roster)
        self._open(
            f"{len(answered)} witnesses agree" if vouched != size else "the operator vouches for the size"
        )

    def _ask(
        self, origin: str, roster: Roster, *, seen: bool = False, silent: dict[str, str] | None = None
    ) -> list[Shown]:
        """What the witnesses of a log cosigned last, of those that answer.

        Args:
            seen: also what their nodes have seen of it; a foreign witness has no node. Whoever answers the first alone has not
                answered, and what it showed counts.
            silent: filled with who gave no answer, and why.
        """

        def ask(witness: WitnessEndpoint) -> list[Shown]:
            found: list[Shown] = []
            try:
                found.append(ask_witness(self._client, witness, origin, roster))
                if seen and witness.state is not None:
                    found.append(ask_seen(self._client, witness, origin, roster))
            except PeerFault as fault:
                if silent is not None:
                    silent[witness.state or witness.name] = str(fault)[:300]
            return found

        listed = roster.state_of_origin(origin)
        others = [w for w in self._witnesses() if listed is None or w.state != listed.code]
        with self._executor() as pool:
            return [one for some in pool.map(ask, others) for one in some]

    def _is_level(self, shown: Shown, roster: Roster) -> bool:
        """Hold what a witness shows against the own tree, and fetch what is missing. False: not level, and `why` says so."""
        if shown.head is None or shown.note is None:
            return True
        with self._db.read() as session:
            ours = root_here(session, self._log_id, shown.head.size)
        if ours is None:
            self._recover(shown.head, shown.note, roster)
            with self._db.read() as session:
                ours = root_here(session, self._log_id, shown.head.size)
        if ours != shown.head.root and not shown.is_stored and not shown.key_counts:
            log.warning(
                "a head under a revoked key is left aside",
                extra={"action": "gate_ignores", "witness": shown.witness.name, "size": shown.head.size},
            )
            return True
        if ours is None:
            self.why = (
                f"{shown.witness.name} holds {shown.head.size} leaves of this log, and no mirror gives the missing ones now. It is "
                "tried again."
                if shown.is_stored
                else f"{shown.witness.name} has seen a head of {shown.head.size} leaves, signed with this log's key, and no mirror gives "
                "the missing ones now. It is tried again. If nobody has them any more, this log cannot go on: the States end it, and "
                "the next epoch begins. See docs/operations.md."
            )
            return False
        if ours == shown.head.root:
            return True
        self.compare_own(shown, roster)
        return False

    def _recover(self, head: Checkpoint, note: Note, roster: Roster) -> None:
        """Fetch the missing leaves of the own log from any mirror; what is stored is proven against the signed head."""
        log.warning(
            "the own log is behind",
            extra={"action": "log_recovering", "origin": self._origin, "size": head.size},
        )
        self._fetch(self._log_id, self._origin, head, note, roster)
        self._judge(self._log_id)

    def _fetch(self, log_id: int, origin: str, head: Checkpoint, note: Note, roster: Roster) -> None:
        """Bring a log up to a head from any mirror of it; if none gives it now, it is asked for again.

        Raises:
            CheckpointFork: its key has signed two histories.
        """
        mirrors = mirrors_of(roster, origin, but=self._state)
        try:
            advance_from(
                self._db,
                self._client,
                log_id,
                mirrors,
                head,
                note,
                roster=roster,
                clock=self._clock,
                state=self._state,
            )
        except CheckpointFork:
            raise
        except PeerFault as fault:
            log.info(
                "no mirror gives it now",
                extra={"action": "gate_waits", "origin": origin, "why": str(fault)[:300]},
            )

    def _take_history(self, roster: Roster) -> None:
        """Take back from mirrors what was confirmed of the own log after the backup: the times of its leaves rest on it."""
        for mirror in mirrors_of(roster, self._origin, but=self._state):
            recover_history(self._db, self._client, self._log_id, mirror, roster, self._roster)

    def _may_hold(self, lease: Answers, *, is_vouched: bool) -> bool:
        """Whether this process may sign as far as the lease goes; if not, `why` says so."""
        if self.lease.is_current():
            return True
        if lease.refused:
            self._tell_held(lease.refused, alarm=False)
            return False
        if is_vouched:
            return True
        said = "; ".join(f"{state}: {word}" for state, word in sorted(lease.silent.items()))
        self.why = f"Too few States' nodes let this process sign for the log. {said}"[:1000]
        return False

    def _open(self, because: str) -> None:
        with self._db.write() as session:
            watch_log(self._db, session, self._log_id, closed_at=None, vouched_size=None, restored_at=None)
            session.execute(
                update(LogRow)
                .where(LogRow.id == self._log_id, LogRow.error_code.in_((LogHeld.code, KeyNotActive.code)))
                .values(error_code=None, error_detail=None, error_at=None)
            )
        self.why, self._has_opened = "", True
        log.info("the own log is open", extra={"action": "gate_opened", "why": because})

    # ── while running ─────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self) -> bool:
        """Renew the lease; close the gate if another process has it, or if the log key was revoked. Returns False: whoever calls
        it waits.

        A gate that another process on this database has opened is that one's to close: a second worker elsewhere waits for its
        turn and harms nobody.
        """
        if self.is_open:  # while it is closed each step asks
            if self._is_revoked():
                self._close_for_key()
                return False
            answers = self.lease.ask()
            if answers.refused and not self.lease.is_current() and self._has_opened:
                self._give_way(answers.refused)
        return False

    def may_sign(self) -> bool:
        """Whether this process may sign a head now. If its lease is over, for instance since the machine slept, it asks first.

        A node that nobody answers signs: a State that is cut off keeps its log.
        """
        if self._is_revoked():
            self._close_for_key()
            return False
        if not self.lease.is_due():
            return True
        self.hold()
        return self.is_open

    def _give_way(self, to: frozenset[str]) -> None:
        """Close it until the other process is gone."""
        self._has_opened = False
        self._tell_held(to, alarm=True)
        log.error(
            "another process signs for the own log",
            extra={"action": "log_held", "code": LogHeld.code, "why": self.why},
        )

    def _tell_held(self, by: frozenset[str], *, alarm: bool) -> None:
        """Say that another process signs for the log, where operators and officers look.

        Args:
            by: States whose nodes say so.
            alarm: it was open: close it, and tell it as an event. A start may be refused because the process before it ended a
                moment ago.
        """
        why = (
            f"Another process signs for {self._origin}, by what the nodes of {', '.join(sorted(by))} say: this State's node runs "
            f"twice, or did until just now. This one takes and signs nothing before the other has not been heard of for "
            f"{self.lease.for_s} s. See log-held in docs/operations.md."
        )
        self._tell(LogHeld.code, why, alarm=alarm)

    def _is_revoked(self) -> bool:
        """Whether the roster in force has revoked the key that this process would sign with."""
        try:
            listed = self._roster().keys_of(self._state, "log")
        except RosterMissing:
            return False
        revoked = {entry.key for entry in listed if entry.revoked_at_index is not None}
        return bool(revoked) and self._log_key() in revoked

    def _close_for_key(self) -> None:
        """Close it until this node has a log key that counts; nobody would take what it signs."""
        if not self.is_open:
            return
        self._has_opened = False
        self._tell_revoked(alarm=True)
        log.error(
            "the log key is revoked",
            extra={"action": "log_key_revoked", "code": KeyNotActive.code, "why": self.why},
        )

    def _tell_revoked(self, *, alarm: bool) -> None:
        why = (
            f"The roster in force has revoked the key with which this node signs {self._origin}. Nothing is signed or taken here "
            "until it has one that counts: make one (verbale keys rotate log), have it listed, and it goes on by itself. See "
            "docs/operations.md."
        )
        self._tell(KeyNotActive.code, why, alarm=alarm)

    def _tell(self, code: str, why: str, *, alarm: bool) -> None:
        """Say why it is closed; with `alarm` close it, and tell it as an event."""
        now, self.why = self._clock(), why
        fault = {"error_code": code, "error_detail": why[:1000], "error_at": now}
        with self._db.write() as session:
            session.execute(update(LogRow).where(LogRow.id == self._log_id).values(fault))
            if alarm:
                watch_log(self._db, session, self._log_id, closed_at=now)
                detail = {"code": code, "origin": self._origin}
                emit(self._db, session, [Event("log.fault", log_id=self._log_id, detail=detail)], now=now)

    def forget_first_start(self) -> None:
        """A leaf was signed: from now on every start asks."""
        self._marker.unlink(missing_ok=True)

    def look(self, witness: WitnessEndpoint) -> None:
        """Ask one witness whether it knows more of the own log than this node, or something else.

        Raises:
            PeerFault: it says nothing that verifies; CheckpointFork: it shows another history, and this log is frozen.
        """
        roster = self._roster()
        shown = ask_witness(self._client, witness, self._origin, roster)
        self.compare_own(shown, roster)

    def compare_own(self, shown: Shown, roster: Roster) -> None:
        """Hold a head of the own log that somebody shows against the own tree; stop at once if it is not in it.

        Raises:
            CheckpointFork: the own key signed two histories.
        """
        head, note = shown.head, shown.note
        if head is None or note is None:
            return
        with self._db.read() as session:
            ours = root_here(session, self._log_id, head.size)
            own = read_followed(session, self._log_id)
        if ours == head.root or own.status != "ok":
            return
        if ours is None and not self.is_open:
            return  # that is what the gate is closed for: it fetches what is missing, and opens
        if ours is None:
            self.stop(
                "witness-ahead",
                f"{shown.witness.name} shows size {head.size} of {self._origin}, signed with its key, and this node holds {own.size}: "
                "another process signs for it, or the database was replaced by an older one. Nothing is signed or taken here until "
                "the next start. See docs/operations.md.",
            )
            return
        seen = [Sighting(self._clock() // 1000, self._state, f"witness {shown.witness.name}"[:200])]
        found = None
        if own.head_note is not None:
            sources = mirrors_of(roster, self._origin, but=self._state)
            found = contradiction(
                self._db,
                self._client,
                own.id,
                parse_note(own.head_note),
                note,
                sources=sources,
                roster=roster,
                seen=seen,
            )
        if found is not None:
            fork = convict(self._db, found, roster=roster, now=self._clock())
            self.stop(fork.code, str(fork))
            raise fork
        self.stop(
            "own-log-differs",
            f"{shown.witness.name} shows a head of {self._origin}, signed with its key, that the leaves stored here do not give. "
            "Nothing is signed or taken here. See docs/operations.md.",
        )

    # ── after a restore: the other logs ───────────────────────────────────────────────────────────────────────────

    def _level_restored(self) -> None:
        """Bring each other log that came from a backup up to what the others show."""
        with self._db.read() as session:
            logs = session.execute(
                select(LogRow.id, LogRow.origin)
                .join(WatchRow, WatchRow.log_id == LogRow.id)
                .where(WatchRow.restored_at.is_not(None), LogRow.id != self._log_id)
            ).all()
        for log_id, origin in logs:
            try:
                self._level(log_id, origin)
            except VerbaleError as error:
                log.warning(
                    "not level yet", extra={"action": "gate_waits", "origin": origin, "why": str(error)[:300]}
                )

    def _level(self, log_id: int, origin: str) -> None:
        roster = self._roster()
        listed = roster.state_of_origin(origin)
        shown = self._ask(origin, roster)
        try:
            for one in sorted(shown, key=lambda s: s.head.size if s.head else 0):
                if one.head is not None and one.note is not None:
                    self._fetch(log_id, origin, one.head, one.note, roster)
        except (
            CheckpointFork
        ) as fork:  # the record is kept; the log is frozen, and as level as it will ever be
            extra = {"action": "log_forked", "origin": origin, "why": str(fork)[:300]}
            log.warning("a log forked while this node was away", extra=extra)
        self._judge(log_id)
        reached = max((one.head.size for one in shown if one.head is not None), default=0)
        needed = roster.quorum_for(listed.code if listed else self._state)
        # This node is one of that log's witnesses and does not ask itself.
        answered = {one.witness.state for one in shown} & needed.witnesses
        with self._db.read() as session:
            size, judged, head_size, status = session.execute(
                select(LogRow.size, LogRow.judged, LogRow.head_size, LogRow.status).where(LogRow.id == log_id)
            ).one()
        if status == "frozen":
            reached = head_size
        if size >= reached and judged >= reached and len(answered) >= needed.needed - 1:
            with self._db.write() as session:
                watch_log(self._db, session, log_id, restored_at=None)
            log.info("a restored log is level", extra={"action": "log_level", "origin": origin, "size": size})
