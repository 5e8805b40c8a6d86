"""What this node keeps of the logs of others: followed, judged, witnessed, and the bodies that belong to them.

One `Followed` for each log that the roster lists, with a loop that looks for what is new and one that judges it. The own log
comes in only where other nodes give it back: bodies, and leaves after a restore. Guarantees: a log grows here under its lock
alone, by proven leaves; it is cosigned after they are stored, never before; a fork ends its growth. Leaves to others: when the
node may sign at all (`app.replication.startup`), what other witnesses show (`app.replication.gossip`), what is asked at all
(`app.node`).
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import select

from app.domain.errors import NotAllowed, PeerFault
from app.loops import Loop
from app.models import LogRow
from app.projections.rejudge import rejudge_log
from app.replication import remote, sealed
from app.replication import witness as witnessing
from app.replication.bodies import Given
from app.replication.client import mirror_url
from app.replication.follow import NEAR, StaleHead, advance, follow_step, note_claim, read_followed
from app.replication.forks import CheckpointFork, contradiction, convict, root_here, take_record
from app.replication.history import compare_history, fetch_history, tell_confirmed
from app.replication.signatures import fresh_nonce
from app.replication.witness import WitnessIdentity
from app.tlog.checkpoint import open_checkpoint
from app.tlog.evidence import Sighting
from app.tlog.merkle import InvalidConsistencyProof
from app.tlog.note import parse as parse_note
from app.tlog.witness import CheckpointForked, OldSizeMismatch, OldSizeTooLarge, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future
    from types import TracebackType

    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster
    from app.domain.sealing import EncryptionKey
    from app.judging import Judges
    from app.node_keys import NodeKeys
    from app.replication.client import PeerClient
    from app.screening.watch import Watcher
    from app.settings import Settings
    from app.tlog.checkpoint import Checkpoint
    from app.tlog.note import Note

log = logging.getLogger(__name__)

COSIGN_AGAIN_S: Final = 60
"""An unchanged head that is offered again is cosigned with a new time once the last one is so old."""
COMPARE_INTERVAL_MS: Final = 600_000
"""Between two comparisons of a log's history with another node's mirror of it, a different one each time."""
EARLY: Final = 64
"""Leaves of one offer whose bodies are asked for while the leaves are fetched. More is a flood, which latency is no question of."""
MAX_OTHER_MIRRORS: Final = 3
"""Mirrors tried in one look when the origin does not serve its log."""
MAX_OTHER_HOLDERS: Final = 3
"""Nodes asked for a body when its issuer does not answer: a storm of requests would help nobody."""


class Lock(Protocol):
    """A `threading.Lock`, or what stands for one where threads are simulated."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; False if that took longer than `timeout` seconds."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    def __enter__(self) -> bool:
        """Take it, however long that takes."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give it back."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node takes from the machine it runs on besides time and network. The simulator brings its own.

    Attributes:
        lock: makes a lock.
        threads: makes so many threads under a name: for what is asked and judged while something else goes on.
        nonce: makes the nonce of a signed request.
        timer: seconds from any beginning, for how long a peer's answer may take.
    """

    lock: Callable[[], Lock] = threading.Lock
    threads: Callable[[int, str], Executor] = ThreadPoolExecutor
    nonce: Callable[[], str] = fresh_nonce
    timer: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Early:
    """Bodies that were asked for when their leaves were offered, while the leaves were still fetched."""

    indexes: range
    answer: Future[Given | None]


@dataclass(slots=True)
class Followed:
    """A foreign log with what this process runs for it."""

    log_id: int
    origin: str
    state: str
    lock: Lock = field(default_factory=threading.Lock)
    follower: Loop | None = None
    judge: Loop | None = None
    judging: Lock = field(default_factory=threading.Lock)
    early: Early | None = None
    wanted_after: int = -1
    compared: int = 0  # histories of this log that were compared with another mirror's
    compare_at: int = 0  # unix ms
    looks: int = 0


class Mirrors:
    """See the module."""

    def __init__(
        self,
        db: Database,
        client: PeerClient,
        *,
        settings: Settings,
        log_id: int,
        clock: Clock,
        roster: Callable[[], Roster],
        is_fresh: Callable[[], bool],
        keys: Callable[[], NodeKeys],
        judges: Judges,
        watcher: Watcher,
        wake: Callable[[], None],
        machine: Machine,
        carriers: Sequence[str] = (),
    ) -> None:
        """Follow nothing yet.

        Args:
            log_id: of the own log.
            is_fresh: whether the roster has not expired; only then is anything cosigned.
            keys: the node's signers now; a rotation changes them.
            wake: hints that there may be events to deliver.
            carriers: where bodies may be had besides at the roster's nodes: a pouch.
        """
        self._db, self._client, self._settings, self._clock = db, client, settings, clock
        self._state, self._origin, self._log_id = settings.state, settings.origin, log_id
        self._roster, self._is_fresh, self._keys = roster, is_fresh, keys
        self._judges, self._watcher, self._wake = judges, watcher, wake
        self._machine, self._carriers = machine, tuple(carriers)
        self._ahead = machine.threads(remote.AHEAD, "ahead")
        self._lock = machine.lock()
        self._followed: dict[str, Followed] = {}
        self._own_wanted_after = -1

    # ── whom it follows ───────────────────────────────────────────────────────────────────────────────────────────

    def adopt(self, roster: Roster, *, loops: bool) -> None:
        """Begin to follow every log that the roster lists and that is not followed yet; `loops`: by loops of its own."""
        with self._lock:
            others = [
                (listed.origin, listed.epoch, state.code)
                for state in roster.nodes()
                for listed in state.logs
                if listed.origin != self._origin and listed.origin not in self._followed
            ]
            ids = self._rows(others)
            for origin, _, code in others:
                self._follow(ids[origin], origin, code, loops=loops)

    def loops(self) -> list[Loop]:
        """The loops of all logs."""
        with self._lock:
            return [loop for f in self._followed.values() for loop in (f.follower, f.judge) if loop]

    def close(self) -> None:
        """End the threads that fetch ahead."""
        self._ahead.shutdown(wait=False, cancel_futures=True)

    def _follow(self, log_id: int, origin: str, state: str, *, loops: bool) -> None:
        lock = self._machine.lock
        followed = self._followed[origin] = Followed(log_id, origin, state, lock(), judging=lock())
        if not loops:
            return
        followed.follower = Loop(
            f"follow {origin}", lambda: self.follow(followed), interval_s=self._settings.follow_interval_s
        )
        followed.judge = Loop(
            f"judge {origin}",
            lambda: self._judge_in_turn(followed),
            interval_s=self._settings.follow_interval_s,
        )
        followed.follower.start()
        followed.judge.start()

    def followed(self, origin: str) -> Followed | None:
        """What this node keeps of a foreign log that the roster adopted lists, or None."""
        return self._followed.get(origin)

    def mirror(self, origin: str, epoch: int, state: str) -> Followed:
        """What is kept of one log, begun without loops if it is not followed yet."""
        if origin not in self._followed:
            self._follow(self._rows([(origin, epoch, state)])[origin], origin, state, loops=False)
        return self._followed[origin]

    def _rows(self, others: Sequence[tuple[str, int, str]]) -> dict[str, int]:
        """Origin → row id of every log this node keeps, those of `others` (origin, epoch, State) begun if they are new."""
        with self._db.read() as session:
            ids = _ids(session)
        new = [
            {
                "origin": origin,
                "epoch": epoch,
                "state": state,
                "is_own": False,
                "status": "ok",
                "size": 0,
                "frontier": b"",
                "judged": 0,
                "head_size": 0,
                "claimed_size": 0,
                "backfilled": False,
            }
            for origin, epoch, state in others
            if origin not in ids
        ]
        if not new:
            return ids
        with self._db.write() as session:
            session.execute(self._db.insert_ignore(LogRow.__table__), new)
            return _ids(session)

    def heard_from(self, state: str | None) -> None:
        """Any inbound contact of a peer ends the pause that an outage of it caused."""
        with self._lock:
            loops = [f.follower for f in self._followed.values() if f.state == state and f.follower]
        for loop in loops:
            if loop.failures:
                loop.wake()

    def sources(self, followed: Followed) -> tuple[str, ...]:
        """Where to look for a log now: its origin, then a few other nodes' mirrors of it, other ones each time.

        A few: while a State of 200 is down, everybody asking everybody for it would be 40,000 requests a look.
        """
        roster = self._roster()
        listed = roster.log(followed.origin)
        others = [
            mirror_url(s.url, followed.origin)
            for s in roster.nodes()
            if s.url and s.code not in (self._state, followed.state) and s.status == "member"
        ]
        if len(others) > MAX_OTHER_MIRRORS:
            first = followed.looks * MAX_OTHER_MIRRORS % len(others)
            others = (others[first:] + others[:first])[:MAX_OTHER_MIRRORS]
        return ((listed.url,) if listed else ()) + tuple(others)

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, followed: Followed) -> bool:
        """One look at a log: at its origin, or at a mirror of it when the origin cannot be reached or serves rubbish."""
        roster = self._roster()
        with self._db.read() as session:
            if read_followed(session, followed.log_id).status == "frozen":
                return False
        first: PeerFault | None = None
        followed.looks += 1
        for source in self.sources(followed):
            try:
                with followed.lock:
                    grew = follow_step(
                        self._db,
                        self._client,
                        followed.log_id,
                        source,
                        roster,
                        clock=self._clock,
                        state=self._state,
                        expect=self._judges.expect,
                    )
            except CheckpointFork as fork:
                witnessing.set_log_error(self._db, followed.log_id, fork, now=self._clock())
                raise
            except PeerFault as fault:
                if isinstance(fault, StaleHead) and first is not None:
                    continue  # a mirror that lags is no fault
                first = first or fault
                continue
            self._after_growth(followed, grew=grew)
            self._take_history(followed, source, roster)
            if first is not None:  # a mirror helped; the origin's trouble stays visible
                witnessing.set_log_error(self._db, followed.log_id, first, now=self._clock())
            return False
        if first is not None:
            witnessing.set_log_error(self._db, followed.log_id, first, now=self._clock())
            raise first
        return False

    def _take_history(self, followed: Followed, source: str, roster: Roster) -> None:
        """Copy what is new of a log's history; now and then compare it with what another node has of it."""
        fetch_history(self._db, self._client, followed.log_id, source, roster, self._roster)
        others = self.sources(followed)[1:]
        if others and self._clock() >= followed.compare_at:
            other = others[followed.compared % len(others)]
            followed.compared += 1
            followed.compare_at = self._clock() + COMPARE_INTERVAL_MS
            compare_history(self._db, self._client, followed.log_id, other, roster, self._roster)
        self.tell_confirmed(followed.log_id)

    def tell_confirmed(self, log_id: int) -> None:
        """Tell subscribers, once, of what a quorum of witnesses has confirmed of a log since it was last told."""
        if tell_confirmed(self._db, log_id, now=self._clock()):
            self._wake()

    def _after_growth(self, followed: Followed, *, grew: bool, asked: bool = False) -> None:
        if grew and followed.judge is not None:
            followed.judge.wake()
        if self._is_fresh():
            self._cosign(followed.log_id, asked=asked)

    def grew(self, log_id: int) -> None:
        """A log grew by what another node showed."""
        followed = next((f for f in self._followed.values() if f.log_id == log_id), None)
        if followed is not None:
            self._after_growth(followed, grew=True)

    def _cosign(self, log_id: int, *, asked: bool) -> None:
        """Cosign the newest head. One cosigned before gets a new time only if its log asks."""
        with self._db.read() as session:
            origin, head = session.execute(
                select(LogRow.origin, LogRow.head_size).where(LogRow.id == log_id)
            ).one()
        listed = self._roster().log(origin)
        if listed is None or listed.status != "active":
            return  # mirrored on, since history stays provable; confirmed no more
        now = self._clock()
        since = now // 1000 - COSIGN_AGAIN_S if asked else None
        if witnessing.cosignature_line(self._db, log_id, head, self.witness.name, since=since) is None:
            witnessing.cosign_head(self._db, log_id, self.witness, self._roster(), now=now)

    @property
    def witness(self) -> WitnessIdentity:
        """This node's witness, under the name the roster gives it."""
        name = self._roster().states[self._state].witness_name or f"{self._origin.split('/', 1)[0]}/witness"
        return WitnessIdentity(name, self._keys().witness, self._state)

    # ── judging ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, followed: Followed) -> bool:
        """Judge what is new of a log; when nothing is, ask again for bodies that are missing."""

        def bodies(indexes: Sequence[int]) -> Given | None:
            early, followed.early = followed.early, None
            # One that still waits for a thread is not waited for: those who judge may be holding all of them.
            if early is not None and list(early.indexes) == list(indexes) and not early.answer.cancel():
                return early.answer.result()
            return self._ask_for_bodies(followed, indexes)

        roster = self._roster()
        self.rejudge(followed.log_id, roster)
        judged = remote.judge_step(
            self._db,
            followed.log_id,
            roster=roster,
            judges=self._judges,
            bodies=bodies,
            clock=self._clock,
            ahead=self._ahead,
            watch=self._watcher,
        )
        if judged:
            self.tell_confirmed(followed.log_id)
            self._wake()
            return True
        found = self._ask_again(followed, roster, bodies)
        if found is not None and found.settled:
            self._wake()
        # What nobody had just now is no reason to hurry: the next look asks for the ones after it.
        return found is not None and found.settled > 0

    def _judge_in_turn(self, followed: Followed) -> bool:
        with followed.judging:
            return self.judge(followed)

    def _judge_at_once(self, followed: Followed) -> bool:
        """Judge leaves that an offer brought in the offer's own thread, if their bodies are here; otherwise the loop does.

        What is seen by people then comes before the cosignature that the offer waits for.
        """
        early = followed.early
        if early is None or not early.answer.done() or not followed.judging.acquire(blocking=False):
            return False
        try:
            self.judge(followed)
        except Exception:  # a cosignature does not wait for a verdict: the loop tries again
            log.exception("judging failed", extra={"action": "judge_failed", "origin": followed.origin})
            return False
        finally:
            followed.judging.release()
        return True

    def judge_all(self, log_id: int) -> None:
        """Judge all that is stored of a log, asking for bodies; for the own log, of every State that may hold them."""
        followed = next((f for f in self._followed.values() if f.log_id == log_id), None)
        if followed is not None:
            while self.judge(followed):
                pass
            return
        self._judge_earlier()
        while remote.judge_step(
            self._db,
            log_id,
            roster=self._roster(),
            judges=self._judges,
            bodies=self._ask_for_own_bodies,
            clock=self._clock,
            ahead=self._ahead,
        ):
            pass

    def _judge_earlier(self) -> None:
        """Judge the logs that the own one continues, which tell what its statements act on."""
        roster, chain = self._roster(), []
        before = roster.continued(self._origin)
        while before is not None:
            chain.append(before.origin)
            before = roster.continued(before.origin)
        for origin in reversed(chain):
            followed = self._followed.get(origin)
            while followed is not None and self.judge(followed):
                pass

    def rejudge(self, log_id: int, roster: Roster) -> None:
        """Bring the verdicts of a log up to the roster."""
        done = rejudge_log(self._db, log_id, judge=self._judges.leaves, roster=roster, now=self._clock())
        if done is not None and done.folded:
            extra = {
                "action": "leaves_rejudged",
                "origin": done.origin,
                "cleared": done.cleared,
                "flagged": done.flagged,
                "version": roster.version,
            }
            log.warning("leaves judged again", extra=extra)
            self._wake()

    # ── bodies ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask_early(self, followed: Followed, start: int, end: int) -> None:
        """Ask for the bodies of leaves that were offered a moment ago. They are judged, or dropped, when the leaves are here."""
        if followed.judge is None or not 0 < end - start <= EARLY:
            return
        indexes = range(start, end)
        answer = self._ahead.submit(self._ask_for_bodies, followed, indexes)
        followed.early = Early(indexes, answer)

    def _ask_again(
        self, followed: Followed, roster: Roster, bodies: Callable[[Sequence[int]], Given | None]
    ) -> remote.Asked | None:
        """Ask once more for bodies that are wanted."""
        found = remote.fetch_missing(
            self._db,
            followed.log_id,
            roster=roster,
            judges=self._judges,
            bodies=bodies,
            clock=self._clock,
            after=followed.wanted_after,
            watch=self._watcher,
        )
        followed.wanted_after = found.last if found is not None and found.answered else -1
        return found

    def _ask_for_bodies(self, followed: Followed, indexes: Sequence[int]) -> Given | None:
        """Ask the issuer; if it cannot be reached, other nodes, any of which may hold a body and give it to whom it is for.

        Only the issuer's silence about a body means that it is not for this State: another node may simply not hold it.
        """
        roster = self._roster()
        url = roster.states[followed.state].url
        listed = roster.log(followed.origin)
        if listed is not None and listed.end is not None:  # its State may have begun anew with nothing of it
            holders = [s.url for s in roster.nodes() if s.url and s.code != self._state]
            return self._ask_holders((*self._carriers, *holders), followed.origin, indexes)
        given = None if url is None else remote.ask_node(self._client, url, followed.origin, indexes)
        if given is not None:
            return given
        others = [s.url for s in roster.nodes() if s.url and s.code not in (self._state, followed.state)]
        return self._ask_holders((*self._carriers, *others[:MAX_OTHER_HOLDERS]), followed.origin, indexes)

    def _ask_for_own_bodies(self, indexes: Sequence[int]) -> Given | None:
        """Bodies of the own log that this node has lost, from whoever was in their audience."""
        others = [s.url for s in self._roster().nodes() if s.url and s.code != self._state]
        return self._ask_holders(others, self._origin, indexes)

    def ask_for_own(self) -> None:
        """Ask once more for bodies of the own log that a restore lost."""
        found = remote.fetch_missing(
            self._db,
            self._log_id,
            roster=self._roster(),
            judges=self._judges,
            bodies=self._ask_for_own_bodies,
            clock=self._clock,
            after=self._own_wanted_after,
        )
        self._own_wanted_after = found.last if found is not None and found.answered else -1

    def _ask_holders(self, holders: Sequence[str], origin: str, indexes: Sequence[int]) -> Given | None:
        """Ask whoever may hold or carry bodies, one after the other, for what is still missing; None if nobody answered."""
        keys = self._encryption_keys()
        lines: dict[int, bytes] = {}
        answered = False
        for holder in holders:
            missing = [index for index in indexes if index not in lines]
            if not missing:
                break
            given = remote.ask_node(self._client, holder, origin, missing, keys)
            if given is not None:
                answered = True
                lines |= given.lines
        return Given(lines, frozenset()) if answered else None

    def _encryption_keys(self) -> dict[str, EncryptionKey]:
        """This State's encryption keys by the key ids under which the roster lists them."""
        own = self._keys().encryption
        if own is None:
            return {}
        listed = self._roster().keys_of(self._state, "encryption")
        return {key.kid: own for key in listed if key.key == own.public}

    def carry(self) -> bool:
        """Fetch what other States sealed since the last look, one log after the other."""
        more = False
        if not self._settings.carry_mb:
            return False
        roster = self._roster()
        for followed in list(self._followed.values()):
            state = roster.states[followed.state]
            if state.url is None or state.status != "member" or state.code == self._state:
                continue
            try:
                more |= sealed.carry_step(
                    self._db,
                    self._client,
                    followed.log_id,
                    state.url,
                    state=self._state,
                    limit_bytes=self._settings.carry_mb * 2**20,
                    keep_days=self._settings.carry_days,
                    now=self._clock(),
                )
            except PeerFault as fault:  # one issuer that is down keeps nobody from carrying the others'
                log.info(
                    "sealed bodies not fetched",
                    extra={"action": "carry_failed", "origin": followed.origin, "why": str(fault)[:300]},
                )
        return more

    # ── as a witness ──────────────────────────────────────────────────────────────────────────────────────────────────

    def take_submission(self, submission: Submission) -> tuple[Checkpoint, bytes | None]:
        """Answer `add-checkpoint`: store what is new, then cosign. The line is None if that takes longer than a caller waits.

        Raises:
            See `app.replication.witness.open_submission` and `app.tlog.witness`.
        """
        identity, roster = self.witness, self._roster()
        try:
            log_id, checkpoint, note = witnessing.open_submission(self._db, submission, roster, identity.name)
        except (CheckpointForked, OldSizeMismatch, OldSizeTooLarge, InvalidConsistencyProof):
            self.suspect(submission)
            raise
        listed = roster.log(checkpoint.origin)
        if listed is None or listed.status != "active":
            raise NotAllowed(
                f"The roster lists {checkpoint.origin} as {listed.status if listed else 'unknown'}."
            )
        followed = self._followed.get(checkpoint.origin)
        with self._db.read() as session:
            mirror = read_followed(session, log_id)
        if followed is None or not self._is_fresh():
            self._note_offered(mirror.size, log_id, checkpoint, note)
            return checkpoint, None
        if checkpoint.size - mirror.size > NEAR or not followed.lock.acquire(
            timeout=self._settings.peer_timeout_s / 2
        ):
            self._note_offered(mirror.size, log_id, checkpoint, note)
            if followed.follower is not None:
                followed.follower.wake()
            return checkpoint, None
        try:
            with self._db.read() as session:
                mirror = read_followed(session, log_id)
            if mirror.status != "ok":
                raise NotAllowed(
                    f"{checkpoint.origin} is {mirror.status} here: it signed heads that contradict each other."
                )
            self._ask_early(followed, mirror.size, checkpoint.size)
            grew = advance(
                self._db,
                self._client,
                mirror,
                self.sources(followed)[0],
                checkpoint,
                note,
                roster=roster,
                clock=self._clock,
                state=self._state,
            )
        except CheckpointFork as fork:
            witnessing.set_log_error(self._db, log_id, fork, now=self._clock())
            raise
        finally:
            followed.lock.release()
        judged = grew and self._judge_at_once(followed)
        self._after_growth(followed, grew=grew and not judged, asked=True)
        return checkpoint, witnessing.cosignature_line(self._db, log_id, checkpoint.size, identity.name)

    def _note_offered(self, size: int, log_id: int, offered: Checkpoint, note: Note) -> None:
        """Keep a head in mind that is not looked at now: who signed it has signed it."""
        if offered.size > size:
            note_claim(self._db, log_id, offered, note)

    def suspect(self, submission: Submission, where: str = "offer") -> None:
        """Hold an offered head that was refused against what is proven here: its log may have signed two histories.

        A head that is larger than what is stored is left to the follower, which looks at once.
        """
        roster, origin = self._roster(), submission.claimed_origin()
        followed = self._followed.get(origin)
        if followed is None:
            return
        offered, note = open_checkpoint(submission.checkpoint, witnessing.log_keys(roster, origin), origin)
        with self._db.read() as session:
            mirror = read_followed(session, followed.log_id)
            ours = root_here(session, followed.log_id, offered.size)
        if ours is None:
            self._note_offered(mirror.size, followed.log_id, offered, note)
            if followed.follower is not None:
                followed.follower.wake()
        if ours is None or ours == offered.root or mirror.head_note is None:
            return
        seen = [Sighting(self._clock() // 1000, self._state, where)]
        sources = self.sources(followed)
        found = contradiction(
            self._db,
            self._client,
            mirror.id,
            parse_note(mirror.head_note),
            note,
            sources=sources,
            roster=roster,
            seen=seen,
        )
        if found is not None:
            fork = convict(self._db, found, roster=roster, now=self._clock())
            witnessing.set_log_error(self._db, followed.log_id, fork, now=self._clock())

    def take_evidence(self, raw: bytes) -> tuple[str, bool]:
        """Judge a record that somebody brings; id and whether it is new. Raises EvidenceRefused."""
        return take_record(self._db, raw, roster=self._roster(), source=None, now=self._clock())


def _ids(session: Session) -> dict[str, int]:
    """Origin → row id of every log."""
    return {row.origin: row.id for row in session.execute(select(LogRow.origin, LogRow.id))}
