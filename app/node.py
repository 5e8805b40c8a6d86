"""One running node: database, keys, roster, the local door and the background loops, wired together.

`Node.open` refuses to start on anything unsafe: settings, key files, a schema that is not current, a log that was never
initialised. `start` runs the loops in this process; with the setting `background = false` only the local door runs here
and `verbale worker` runs the rest.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

import orjson
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app import migrations, tokens
from app.clock import Clock, system_clock
from app.db import Database
from app.domain.errors import NodeFault, NotAllowed, PeerFault, RosterMissing, UnsafeKeyFile, VerbaleError
from app.domain.retention import parse_rules
from app.events import Event, emit
from app.hsm import open_key
from app.intake import Intake, Sequencer, merge
from app.judging import Judged, Judges
from app.keyfiles import load_encryption_key, load_private
from app.loops import Loop
from app.models import EventRow, LogRow, RosterSaidRow
from app.notify.deadlines import deadlines_step
from app.notify.deliver import DeliveryLoop
from app.notify.digest import Recipient, Smtp, digest_step
from app.notify.prune import Pruner
from app.notify.retention import retention_step
from app.notify.setup import WebhookSetup
from app.projections.rejudge import rejudge_log
from app.record import Receipt, record_own
from app.replication import remote, sealed
from app.replication import witness as witnessing
from app.replication.bodies import Given
from app.replication.client import PeerClient, mirror_url
from app.replication.follow import NEAR, StaleHead, advance, follow_step, read_followed
from app.replication.forks import CheckpointFork, contradiction, convict, root_here, take_record
from app.replication.gossip import Vigil
from app.replication.history import compare_history, fetch_history, tell_confirmed
from app.replication.signatures import authenticate_peer, fresh_nonce, target
from app.replication.startup import Gate
from app.replication.witness import WitnessAhead, WitnessEndpoint, WitnessIdentity
from app.retention import Housekeeper
from app.roster import RosterClient
from app.screening.crew import Crew
from app.screening.find import Screener
from app.screening.finder import ScreenerFinder
from app.screening.watch import Watcher, watch_step
from app.setup import FIRST_START
from app.statements import sign_notice
from app.tlog.checkpoint import open_checkpoint
from app.tlog.evidence import Sighting
from app.tlog.merkle import InvalidConsistencyProof
from app.tlog.note import parse as parse_note
from app.tlog.publish import publish_step
from app.tlog.witness import CheckpointForked, OldSizeMismatch, OldSizeTooLarge, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path
    from types import TracebackType

    import httpx
    from sqlalchemy.orm import Session
    from starlette.requests import Request

    from app.domain.keys import PublicKey, Signer
    from app.domain.roster import KeyUse, Roster
    from app.domain.sealing import EncryptionKey
    from app.domain.signed import SignedNotice
    from app.gate import Principal
    from app.settings import Settings
    from app.tlog.checkpoint import Checkpoint

log = logging.getLogger(__name__)


class _HasPublic(Protocol):
    @property
    def public(self) -> PublicKey: ...


K = TypeVar("K", bound=_HasPublic)
C = TypeVar("C", bound=_HasPublic | None)

KEY_FILES: Final = {"log": "log.key", "witness": "witness.key", "transport": "transport.key"}
ENCRYPTION_FILE: Final = "encryption.key"
PUBLISH_INTERVAL_S: Final = 5.0
GATE_INTERVAL_S: Final = 2.0
LOOK_AFTER_INTERVAL_S: Final = 5.0
OFFER_INTERVAL_S: Final = 10.0
RETENTION_INTERVAL_S: Final = 10.0
DEADLINES_INTERVAL_S: Final = 10.0
WATCH_INTERVAL_S: Final = 30.0
WARM_INTERVAL_S: Final = 60.0
EVENTS_INTERVAL_S: Final = 600.0
PRUNE_INTERVAL_S: Final = 3600.0
DIGESTS_INTERVAL_S: Final = 60.0
COSIGN_AGAIN_S: Final = 60
"""An unchanged head that is offered again is cosigned with a new time once the last one is so old."""
SEAL_INTERVAL_S: Final = 5.0
CARRY_INTERVAL_S: Final = 30.0
"""Carried bodies matter when their issuer is down, not in the minute in which they are made."""
COMPARE_INTERVAL_MS: Final = 600_000
"""Between two comparisons of a log's history with another node's mirror of it, a different one each time."""
JOIN_S: Final = 10.0
EARLY: Final = 64
"""Leaves of one offer whose bodies are asked for while the leaves are fetched. More is a flood, which latency is no question of."""
MAX_OTHER_MIRRORS: Final = 3
"""Mirrors tried in one look when the origin does not serve its log."""
MAX_OTHER_HOLDERS: Final = 3
"""Nodes asked for a body when its issuer does not answer: a storm of requests would help nobody."""


class LogNotInitialised(NodeFault):
    """The database holds no own log. A log begins only by `verbale node init`, never by a start on an empty database."""

    code = "log-not-initialised"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The node's own signers. A node without them is never started.

    Attributes:
        encryption: opens bodies that were sealed for this State; None for a node that was made before there were any.
    """

    log: Signer
    witness: Signer
    transport: Signer
    encryption: EncryptionKey | None = None

    @classmethod
    def load(cls, directory: Path, log_key: str = "") -> NodeKeys:
        """Read the key files, the log key from its token if `log_key` names one; raises UnsafeKeyFile with advice."""
        names = {use: str(directory / name) for use, name in KEY_FILES.items()}
        signers = {
            use: open_key(name) for use, name in (names | ({"log": log_key} if log_key else {})).items()
        }
        file = directory / ENCRYPTION_FILE
        return cls(**signers, encryption=load_encryption_key(file) if file.exists() else None)


def successors(directory: Path, use: str, load: Callable[[Path], K]) -> list[K]:
    """The keys of a use that lie in a node's folder: `log.key`, and `log-2.key` and so on. One that is unsafe is left out.

    Files that were rotated out sign nothing, since the roster has ended their keys; delete them when the new ones work.
    """
    found: list[K] = []
    for path in (directory / f"{use}.key", *sorted(directory.glob(f"{use}-[0-9]*.key"))):
        try:
            if path.exists():
                found.append(load(path))
        except UnsafeKeyFile as error:
            log.warning("key file not used", extra={"action": "key_unsafe", "why": str(error)[:500]})
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node takes from the machine it runs on besides time and network. The simulator brings its own.

    Attributes:
        lock: makes a lock.
        ahead: makes the threads that fetch and judge the next runs of a long catch-up.
        nonce: makes the nonce of a signed request.
    """

    lock: Callable[[], Lock] = threading.Lock
    ahead: Callable[[], Executor] = lambda: ThreadPoolExecutor(remote.AHEAD, thread_name_prefix="ahead")
    nonce: Callable[[], str] = fresh_nonce


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is put together from: by default what its settings name (`Node.from_settings`)."""

    keys: NodeKeys
    db: Database
    roster_client: RosterClient
    webhooks: WebhookSetup


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
    absent_after: int | None = (
        None  # from here on also what was not given is asked for again; None: it is not
    )
    compared: int = 0  # histories of this log that were compared with another mirror's
    compare_at: int = 0  # unix ms
    looks: int = 0


class Node:
    """See the module. Implements `app.deps.Node`."""

    def __init__(  # the seams
        self,
        settings: Settings,
        *,
        clock: Clock = system_clock,
        peer_transport: httpx.BaseTransport | None = None,
        machine: Machine | None = None,
        carriers: Sequence[str] = (),
    ) -> None:
        """Open nothing yet.

        Args:
            clock: unix ms; the node's only source of time for what it signs and decides.
            peer_transport: HTTP to peers; None is the network.
            machine: None is the one this process runs on.
            carriers: where bodies may be had besides at the roster's nodes: a pouch.
        """
        self.settings, self.clock = settings, clock
        self.state, self.origin = settings.state, settings.origin
        self._transport = peer_transport
        self.db: Database
        self.screener: Screener
        self.finder: ScreenerFinder
        self.crew: Crew
        self.is_warming = False
        self.watcher: Watcher
        self.keys: NodeKeys
        self.log_id: int
        self.roster_client: RosterClient
        self.webhooks: WebhookSetup
        self.judges = Judges()
        self._machine, self._carriers = machine or Machine(), tuple(carriers)
        self._own_wanted_after = -1
        self._ahead = self._machine.ahead()
        self._loops: list[Loop] = []
        self._followed: dict[str, Followed] = {}
        self._offerers: dict[str, Loop] = {}
        self._members_lock = self._machine.lock()
        self._deliveries: DeliveryLoop | None = None
        self._keys_from_files = False
        self.sequencer: Sequencer
        self._adopted: str | None = None
        self._watchers: list[Callable[[], None]] = []
        self._has_loops = False
        self.gate: Gate
        self.vigil: Vigil
        self._gossips: dict[str, Loop] = {}

    # ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, parts: Parts | None = None) -> Node:
        """Put the node together and load the roster kept; connect nothing to the network.

        Args:
            parts: None is what the settings name.

        Raises:
            NodeFault: unsafe key files, schema not current, log not initialised; the message says what to do.
        """
        settings = self.settings
        from_files = parts is None
        parts = parts or self.from_settings()
        self._keys_from_files = from_files
        self.keys, self.db = parts.keys, parts.db
        self.roster_client, self.webhooks = parts.roster_client, parts.webhooks
        self.screener = Screener(self.db)
        self.finder = ScreenerFinder(self.screener)
        self.crew = Crew(settings.database, self.screener)
        self.watcher = Watcher(self.db)
        self.log_id = self._own_log()
        try:
            self.roster_client.load_local(self.clock() // 1000)
        except RosterMissing as error:
            log.warning("no roster yet", extra={"action": "roster_missing", "why": str(error)})
        self.client = PeerClient(
            self.clock,
            signer=self.keys.transport,
            kid=self.kid("transport", self.keys.transport),
            timeout_s=settings.peer_timeout_s,
            transport=self._transport,
            nonce=self._machine.nonce,
        )
        self.sequencer = Sequencer(
            self.db, self.log_id, self.clock, self._on_commit, self.roster, self.watcher
        )
        self.housekeeper = Housekeeper(
            self.db,
            log_id=self.log_id,
            origin=self.origin,
            clock=self.clock,
            roster=self.roster,
            rules=parse_rules(settings.retention),
            signer=self._node_key,
        )
        self.intake = Intake(self.sequencer, self.judges, self.origin, self.roster, self.clock)
        self.gate = Gate(
            self.db,
            self.client,
            log_id=self.log_id,
            origin=self.origin,
            state=self.state,
            clock=self.clock,
            roster=self.roster,
            witnesses=self._witnesses,
            executor=self._machine.ahead,
            marker=settings.data_dir / FIRST_START,
            judge=self._judge_all,
        )
        self.vigil = Vigil(
            self.db,
            self.client,
            log_id=self.log_id,
            origin=self.origin,
            state=self.state,
            clock=self.clock,
            roster=self.roster,
            gate=self.gate,
            say=self.say,
            on_growth=self._grew,
            cleaned=lambda: self.housekeeper.cleaned,
        )
        return self

    def _witnesses(self) -> tuple[WitnessEndpoint, ...]:
        return witnessing.witness_endpoints(self.roster(), self.state, self.settings.witnesses)

    def from_settings(self) -> Parts:
        """Load keys, check the database, read the pinned root.

        Raises:
            NodeFault: see `open`.
        """
        settings = self.settings
        keys = NodeKeys.load(settings.keys_dir, settings.log_key)
        db = Database(settings.database)
        migrations.check_current(db)
        try:
            pinned = settings.pinned_root.read_bytes()
        except OSError as error:
            raise UnsafeKeyFile(
                f"The pinned roster root {settings.pinned_root} cannot be read: {error.strerror}. Obtain it from the federation "
                "out of band and place it there."
            ) from error
        roster_client = RosterClient(settings.roster_dir, self._roster_sources(), pinned)
        return Parts(keys, db, roster_client, WebhookSetup.of(settings))

    def _roster_sources(self) -> tuple[str | Path, ...]:
        from pathlib import Path  # noqa: PLC0415 - a type at run time only here

        return tuple(
            s if s.startswith(("http://", "https://")) else Path(s) for s in self.settings.roster_sources
        )

    def _own_log(self) -> int:
        with self.db.read() as session:
            log_id = session.execute(
                select(LogRow.id).where(LogRow.origin == self.origin, LogRow.is_own)
            ).scalar_one_or_none()
        if log_id is None:
            raise LogNotInitialised(
                f"The database holds no log {self.origin}. If this node is new, run `verbale node init`. If it is not, this is the "
                "wrong database: restore the right one, since a second tree under one origin is a fork."
            )
        return log_id

    def kid(self, use: str, signer: Signer) -> str:
        """The key id under which the roster lists a signer of this node; a first one is assumed while it lists none."""
        try:
            roster = self.roster()
        except RosterMissing:
            return f"{self.state}/{use}/1"
        for key in roster.keys_of(self.state, use):  # type: ignore[arg-type]  # a use by its name
            if key.key == signer.public:
                return key.kid
        return f"{self.state}/{use}/1"

    # ── roster ────────────────────────────────────────────────────────────────────────────────────────────────────

    def roster(self) -> Roster:
        """The verified roster in force, expired or not.

        Raises:
            RosterMissing: there is none yet.
        """
        return self.roster_client.roster

    def roster_is_fresh(self) -> bool:
        """Whether there is a roster that has not expired: only then is anything confirmed."""
        try:
            return self.roster().expires > self.clock() // 1000
        except RosterMissing:
            return False

    def refresh_roster(self) -> bool:
        """Look for a newer roster and adopt it; then follow and witness whom it lists."""
        try:
            roster = self.roster_client.refresh(self.clock() // 1000)
        except VerbaleError as error:
            log.warning(
                "roster not refreshed", extra={"action": "roster_refresh_failed", "why": str(error)[:500]}
            )
            try:
                roster = self.roster()
            except RosterMissing:
                return False
        self.adopt(roster)
        return False

    def reload_roster(self) -> bool:
        """Read what the worker has adopted since."""
        self.adopt(self.roster_client.load_local(self.clock() // 1000))
        return False

    def adopt(self, roster: Roster) -> None:
        """Begin to follow and to offer to every node the roster lists. Idempotent."""
        if roster.sha256 == self._adopted:
            return
        with self._members_lock:
            others = [
                (listed.origin, listed.epoch, state.code)
                for state in roster.nodes()
                for listed in state.logs
                if listed.origin != self.origin and listed.origin not in self._followed
            ]
            ids = self._mirrors(others)
            for origin, _, code in others:
                self._follow(ids[origin], origin, code)
            if self._has_loops:
                for endpoint in witnessing.witness_endpoints(roster, self.state, self.settings.witnesses):
                    self._offer_to(endpoint)
                    self._hear_from(endpoint)
            self._adopted = roster.sha256
        self._rejudge(self.log_id, roster)
        if self._has_loops:
            self._tell_of_roster(roster)
        self.keys = self._counting_keys(roster)
        self.client.identify(self.kid("transport", self.keys.transport), self.keys.transport)
        log.info("roster adopted", extra={"action": "roster_adopted", "version": roster.version})

    def _tell_of_roster(self, roster: Roster) -> None:
        """Emit `roster.changed`, once for each roster adopted, also over restarts, as long as the last such event is kept."""
        with self.db.write() as session:
            last = session.execute(
                select(EventRow.detail)
                .where(EventRow.type == "roster.changed")
                .order_by(EventRow.seq.desc())
                .limit(1)
            ).scalar_one_or_none()
            told = orjson.loads(last) if last is not None else {}
            if told.get("sha256") == roster.sha256:
                return
            detail = {"version": roster.version, "sha256": roster.sha256, "previous": told.get("version")}
            emit(self.db, session, [Event("roster.changed", detail=detail)], now=self.clock())
        self.wake_deliveries()

    def _counting_keys(self, roster: Roster) -> NodeKeys:
        """Of each kind the newest key that lies here and counts in the roster; the one at hand if none does.

        A rotation therefore takes no restart: the new file lies here before the roster lists it, and signs from the moment
        this node adopts that roster.
        """
        if not self._keys_from_files:
            return self.keys
        keys = self.keys
        return replace(
            keys,
            # A key in a token is changed by naming another in the settings.
            log=keys.log if self.settings.log_key else self._newest(roster, "log", keys.log, load_private),
            witness=self._newest(roster, "witness", keys.witness, load_private),
            transport=self._newest(roster, "transport", keys.transport, load_private),
            encryption=self._newest(roster, "encryption", keys.encryption, load_encryption_key),
        )

    def _newest(self, roster: Roster, use: KeyUse, current: C, load: Callable[[Path], K]) -> C | K:
        now = self.clock() // 1000
        counting = {
            key.key: key
            for key in roster.keys_of(self.state, use)
            if key.revoked_at_index is None
            and key.active_from <= now
            and (key.active_to is None or key.active_to > now)
        }
        held = [key for key in successors(self.settings.keys_dir, use, load) if key.public in counting]
        best = max(held, key=lambda key: counting[key.public].active_from, default=None)
        if best is None or (current is not None and best.public == current.public):
            return current
        extra = {"action": "key_changed", "use": use, "kid": counting[best.public].kid}
        log.warning("key changed", extra=extra)
        return best

    def _rejudge(self, log_id: int, roster: Roster) -> int:
        """Bring the verdicts of a log up to the roster. Returns how many leaves count again."""
        done = rejudge_log(self.db, log_id, judge=self.judges.leaves, roster=roster, now=self.clock())
        if done is not None and done.folded:
            extra = {
                "action": "leaves_rejudged",
                "origin": done.origin,
                "cleared": done.cleared,
                "flagged": done.flagged,
                "version": roster.version,
            }
            log.warning("leaves judged again", extra=extra)
            self.wake_deliveries()
        return 0 if done is None else done.cleared

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the local door, and the loops unless a worker runs them."""
        self.sequencer.start()
        self.is_warming = self._is_screened()
        if self.settings.background:
            self.start_background()
        else:
            # The worker fetches the roster and follows; this process reads what it kept, and witnesses what is offered here.
            self._loops = [Loop("roster", self.reload_roster, interval_s=self.settings.roster_refresh_s)]
            self._loops[0].start()
        warm = Loop("screening", self.warm_screening, interval_s=WARM_INTERVAL_S)
        self._loops.append(warm)
        warm.start()

    def _is_screened(self) -> bool:
        """Whether somebody may ask this node to screen: a node that nobody asks does without the index's memory."""
        with self.db.read() as session:
            return tokens.exist_with(session, "screen", now_ms=self.clock())

    def warm_screening(self) -> bool:
        """Have what is screened against in memory, and in step, before anybody asks."""
        if self._is_screened():
            self.screener.refresh()
        self.is_warming = False
        return False

    def start_background(self) -> None:
        """Start the loops: publish, offer, follow, judge, roster, deadlines, events, portfolios, prune, webhooks."""
        self._has_loops = True
        self.gate.close()  # before anything is signed or taken: the witnesses say how far the own log is
        publisher = Loop("publish", self.publish, interval_s=PUBLISH_INTERVAL_S)
        self._publisher = publisher
        self._loops = [
            publisher,
            Loop("gate", self.pass_gate, interval_s=GATE_INTERVAL_S),
            Loop("look after", self.look_after, interval_s=LOOK_AFTER_INTERVAL_S),
            Loop("roster", self.refresh_roster, interval_s=self.settings.roster_refresh_s),
            Loop("deadlines", self.tell_deadlines, interval_s=DEADLINES_INTERVAL_S),
            Loop("retention", self.keep_house, interval_s=RETENTION_INTERVAL_S),
            Loop("events", self.forget_events, interval_s=EVENTS_INTERVAL_S),
            Loop(
                "prune", Pruner(self.db, self.clock, self.webhooks.keep_ms).step, interval_s=PRUNE_INTERVAL_S
            ),
            Loop("seal", self.seal, interval_s=SEAL_INTERVAL_S),
            Loop("carry", self.carry, interval_s=CARRY_INTERVAL_S),
            Loop("portfolios", self.look_after_portfolios, interval_s=WATCH_INTERVAL_S),
        ]
        if self.settings.mail_digests:
            self._loops.append(self._digests())
        self._deliveries = DeliveryLoop(self.db, self.clock, self.webhooks)
        try:
            self.adopt(self.roster())
        except (
            RosterMissing
        ):  # a first start: without a roster nothing else can begin, so look for it at once
            self.refresh_roster()
        if self.gate.needs_nobody():
            self.gate.step()
        for loop in self._loops:
            loop.start()
        self._deliveries.start()

    def stop(self) -> None:
        """End everything in order: no new notices, what is queued is committed, loops end after their step."""
        self.sequencer.stop()
        loops = self.all_loops()
        for loop in loops:
            loop.stop()
        if self._deliveries is not None:
            self._deliveries.stop()
        self.client.close()
        for loop in loops:
            loop.join(JOIN_S)
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self.judges.close()
        self.crew.close()
        self.db.dispose()

    def all_loops(self) -> list[Loop]:
        """Every loop of this process."""
        with self._members_lock:
            followed = [loop for f in self._followed.values() for loop in (f.follower, f.judge) if loop]
            return [*self._loops, *followed, *self._offerers.values(), *self._gossips.values()]

    def stopped_loops(self) -> list[str]:
        """Names of loops that should run and show no life."""
        stuck = [loop.name for loop in self.all_loops() if loop.is_stuck()]
        if self._deliveries is not None and self._deliveries.is_stuck():
            stuck.append(self._deliveries.name)
        return stuck

    # ── the local door ────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, signed: SignedNotice) -> Receipt:
        """Judge and record one notice; returns when it is durable. Raises Refused."""
        answer = (await self.submit_many([signed]))[0]
        if isinstance(answer, VerbaleError):
            raise answer
        return answer

    async def submit_many(self, notices: Sequence[SignedNotice | bytes]) -> list[Receipt | VerbaleError]:
        """Judge and record many, read or as the bytes that came; one answer each, in order, after the commit."""
        return await self.record_posts(await self.judge_posts(notices))

    async def judge_posts(
        self, notices: Sequence[SignedNotice | bytes], *, flood: bool = False
    ) -> list[Judged | VerbaleError]:
        """The first half of `submit_many`: judge, on every core. Two windows may be judged at once."""
        return await run_in_threadpool(self.intake.judge, notices, flood=flood)

    async def record_posts(self, outcomes: Sequence[Judged | VerbaleError]) -> list[Receipt | VerbaleError]:
        """The second half: append the good ones in order; returns after the commit."""
        future = self.intake.sequence(outcomes)
        if future is None:
            return merge(outcomes, [])
        recorded = await asyncio.wrap_future(future)
        return merge(outcomes, recorded)

    def watch(self, hint: Callable[[], None]) -> None:
        """Call `hint`, from any thread, when this process has written events. It must not block."""
        self._watchers.append(hint)

    def _on_commit(self) -> None:
        """After a commit of the own log."""
        if self.settings.background:
            self._publisher.wake()
        self.wake_deliveries()

    def wake_deliveries(self) -> None:
        """Hint that the outbox has something."""
        for hint in self._watchers:
            hint()
        if self._deliveries is not None:
            self._deliveries.wake()

    def forget_events(self) -> bool:
        """Forget events that are past their time."""
        return retention_step(self.db, self.clock, self.settings.event_retention_days)

    def _digests(self) -> Loop:
        """The loop that writes to people. Raises UnsafeSettings."""
        recipients = [Recipient.parse(text) for text in self.settings.mail_digests]
        smtp, sender = Smtp.of(self.settings), self.settings.mail_from
        return Loop(
            "digests",
            lambda: digest_step(self.db, self.clock, self.webhooks, recipients, sender, smtp),
            interval_s=DIGESTS_INTERVAL_S,
        )

    def tell_deadlines(self) -> bool:
        """Emit what the clock has made happen."""
        more = deadlines_step(self.db, self.clock)
        if more:
            self.wake_deliveries()
        return more

    def look_after_portfolios(self) -> bool:
        """Tell what clearances that are over mean for portfolios, and match what could not be matched in its time."""
        more = watch_step(self.watcher, self.db, now=self.clock())
        if more:
            self.wake_deliveries()
        return more

    async def authenticate_peer(self, request: Request) -> Principal:
        """The State whose key signed the request (RFC 9421). The body must be read already, or is read here, bounded."""
        body = await request.body()
        url = target(self.settings.public_url, request.url.path, request.url.query)
        headers = {name.lower(): value for name, value in request.headers.items()}
        return await run_in_threadpool(self.authenticate, request.method, url, headers, body)

    def authenticate(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Principal:
        """The State whose key signed a request; `url` as it was asked for, header names in lower case.

        Raises:
            NotAuthenticated, NotAllowed: see `app.replication.signatures.authenticate_peer`.
        """
        principal = authenticate_peer(
            self.db,
            method=method,
            url=url,
            headers=headers,
            body=body,
            roster=self.roster(),
            now=self.clock(),
        )
        self._heard_from(principal.state)
        return principal

    def _heard_from(self, state: str | None) -> None:
        """Any inbound contact of a peer ends the pause that an outage of it caused."""
        with self._members_lock:
            loops = [f.follower for f in self._followed.values() if f.state == state and f.follower]
        for loop in loops:
            if loop.failures:
                loop.wake()

    # ── publishing and offering ───────────────────────────────────────────────────────────────────────────────────

    def publish(self) -> bool:
        """Sign the newest head, then tell every witness."""
        checkpoint = publish_step(self.db, self.log_id, self.keys.log, now=self.clock())
        if checkpoint is None:
            return False
        if checkpoint.size > 0:
            self.gate.forget_first_start()
        with self._members_lock:
            offerers = list(self._offerers.values())
        for loop in offerers:
            loop.wake()
        return True

    def _offer_to(self, endpoint: WitnessEndpoint) -> None:
        if endpoint.name in self._offerers:
            return

        loop = self._offerers[endpoint.name] = Loop(
            f"offer {endpoint.name}", lambda: self.offer(endpoint.name), interval_s=OFFER_INTERVAL_S
        )
        loop.start()

    def offer(self, witness: str) -> bool:
        """Offer the newest head to the witness of that name. True if there was something to offer."""
        # Read afresh: a rotated key or a new address comes with a new roster.
        roster = self.roster()
        current = next((e for e in self._witnesses() if e.name == witness), None)
        if current is None:
            return False
        try:
            return witnessing.offer_step(self.db, self.client, current, self.log_id, roster, now=self.clock())
        except (PeerFault, WitnessAhead):
            self.gate.look(
                current
            )  # a refusal alone says nothing; what it has cosigned, under our own key, does
            raise

    def _hear_from(self, endpoint: WitnessEndpoint) -> None:
        if endpoint.name in self._gossips:
            return

        def step() -> bool:
            current = next((e for e in self._witnesses() if e.name == endpoint.name), None)
            return current is not None and self.vigil.hear_from(current)

        loop = self._gossips[endpoint.name] = Loop(
            f"gossip {endpoint.name}", step, interval_s=self.settings.gossip_interval_s
        )
        loop.start()

    def pass_gate(self) -> bool:
        """Ask the witnesses while the gate is closed; once it opens, sign and go on."""
        before = self.gate.is_open
        self.gate.step()
        if not before and self.gate.is_open:
            self._publisher.wake()
        return False

    def say(self, kind: str, main: dict[str, Any]) -> int | None:
        """Log a statement of the node itself, signed with `node.key`; its index, or None if it cannot be said now."""
        try:
            signer = load_private(self.settings.keys_dir / "node.key")
        except UnsafeKeyFile as error:
            log.warning("the node cannot speak", extra={"action": "node_silent", "why": str(error)[:300]})
            return None
        wire = sign_notice(
            main,
            signer,
            self.kid("node", signer),
            self.origin,
            kind=kind,  # type: ignore[arg-type]  # one of NODE_KINDS
            at=self.clock() // 1000,
        )
        (judged,) = self.intake.judge([orjson.dumps(wire)])
        if isinstance(judged, Judged):
            with self.db.write() as session:
                (answer,) = record_own(self.db, session, self.log_id, [judged], now=self.clock())
        else:
            answer = judged
        if isinstance(answer, VerbaleError):
            log.warning("the node cannot speak", extra={"action": "node_silent", "why": str(answer)[:300]})
            return None
        if self._has_loops:
            self._publisher.wake()
            self.wake_deliveries()
        return answer.index

    def _grew(self, log_id: int) -> None:
        """A log grew by what another node showed."""
        followed = next((f for f in self._followed.values() if f.log_id == log_id), None)
        if followed is not None:
            self._after_growth(followed, grew=True)

    def _judge_all(self, log_id: int) -> None:
        """Judge all that is stored of a log, asking for bodies; for the own log, of every State that may hold them."""
        followed = next((f for f in self._followed.values() if f.log_id == log_id), None)
        if followed is not None:
            while self.judge(followed):
                pass
            return
        self._judge_earlier()
        while remote.judge_step(
            self.db,
            log_id,
            roster=self.roster(),
            judges=self.judges,
            bodies=self._ask_for_own_bodies,
            clock=self.clock,
            ahead=self._ahead,
        ):
            pass

    def _judge_earlier(self) -> None:
        """Judge the logs that the own one continues, which tell what its statements act on."""
        roster, chain = self.roster(), []
        before = roster.continued(self.origin)
        while before is not None:
            chain.append(before.origin)
            before = roster.continued(before.origin)
        for origin in reversed(chain):
            followed = self._followed.get(origin)
            while followed is not None and self.judge(followed):
                pass

    def _ask_for_own_bodies(self, indexes: Sequence[int]) -> Given | None:
        """Bodies of the own log that this node has lost, from whoever was in their audience."""
        others = [s.url for s in self.roster().nodes() if s.url and s.code != self.state]
        return self._ask_holders(others, self.origin, indexes)

    def look_after(self) -> bool:
        """What has to be done now and then; also ask once more for bodies of the own log that a restore lost."""
        self.vigil.look_after()
        found = remote.fetch_missing(
            self.db,
            self.log_id,
            roster=self.roster(),
            judges=self.judges,
            bodies=self._ask_for_own_bodies,
            clock=self.clock,
            after=self._own_wanted_after,
        )
        self._own_wanted_after = found.last if found is not None and found.answered else -1
        return False

    # ── following ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, log_id: int, origin: str, state: str) -> None:
        lock = self._machine.lock
        followed = self._followed[origin] = Followed(log_id, origin, state, lock(), judging=lock())
        if not self._has_loops:
            return
        followed.follower = Loop(
            f"follow {origin}", lambda: self.follow(followed), interval_s=self.settings.follow_interval_s
        )
        followed.judge = Loop(
            f"judge {origin}",
            lambda: self._judge_in_turn(followed),
            interval_s=self.settings.follow_interval_s,
        )
        followed.follower.start()
        followed.judge.start()

    def followed(self, origin: str) -> Followed | None:
        """What this node keeps of a foreign log that the roster adopted lists, or None."""
        return self._followed.get(origin)

    def _mirror(self, origin: str, epoch: int, state: str) -> int:
        return self._mirrors([(origin, epoch, state)])[origin]

    def _mirrors(self, others: Sequence[tuple[str, int, str]]) -> dict[str, int]:
        """Origin → row id of every log this node keeps, those of `others` (origin, epoch, State) begun if they are new."""
        with self.db.read() as session:
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
        with self.db.write() as session:
            session.execute(self.db.insert_ignore(LogRow.__table__), new)
            return _ids(session)

    def sources(self, followed: Followed) -> tuple[str, ...]:
        """Where to look for a log now: its origin, then a few other nodes' mirrors of it, other ones each time.

        A few: while a State of 200 is down, everybody asking everybody for it would be 40,000 requests a look.
        """
        roster = self.roster()
        listed = roster.log(followed.origin)
        others = [
            mirror_url(s.url, followed.origin)
            for s in roster.nodes()
            if s.url and s.code not in (self.state, followed.state) and s.status == "member"
        ]
        if len(others) > MAX_OTHER_MIRRORS:
            first = followed.looks * MAX_OTHER_MIRRORS % len(others)
            others = (others[first:] + others[:first])[:MAX_OTHER_MIRRORS]
        return ((listed.url,) if listed else ()) + tuple(others)

    def follow(self, followed: Followed) -> bool:
        """One look at a log: at its origin, or at a mirror of it when the origin cannot be reached or serves rubbish."""
        roster = self.roster()
        with self.db.read() as session:
            if read_followed(session, followed.log_id).status == "frozen":
                return False
        first: PeerFault | None = None
        followed.looks += 1
        for source in self.sources(followed):
            try:
                with followed.lock:
                    grew = follow_step(
                        self.db,
                        self.client,
                        followed.log_id,
                        source,
                        roster,
                        clock=self.clock,
                        state=self.state,
                        expect=self.judges.expect,
                    )
            except CheckpointFork as fork:
                witnessing.set_log_error(self.db, followed.log_id, fork, now=self.clock())
                raise
            except PeerFault as fault:
                if isinstance(fault, StaleHead) and first is not None:
                    continue  # a mirror that lags is no fault
                first = first or fault
                continue
            self._after_growth(followed, grew=grew)
            self._take_history(followed, source, roster)
            if first is not None:  # a mirror helped; the origin's trouble stays visible
                witnessing.set_log_error(self.db, followed.log_id, first, now=self.clock())
            return False
        if first is not None:
            witnessing.set_log_error(self.db, followed.log_id, first, now=self.clock())
            raise first
        return False

    def _take_history(self, followed: Followed, source: str, roster: Roster) -> None:
        """Copy what is new of a log's history; now and then compare it with what another node has of it."""
        fetch_history(self.db, self.client, followed.log_id, source, roster)
        others = self.sources(followed)[1:]
        if others and self.clock() >= followed.compare_at:
            other = others[followed.compared % len(others)]
            followed.compared += 1
            followed.compare_at = self.clock() + COMPARE_INTERVAL_MS
            compare_history(self.db, self.client, followed.log_id, other, roster)
        self._tell_confirmed(followed.log_id)

    def _tell_confirmed(self, log_id: int) -> None:
        if tell_confirmed(self.db, log_id, now=self.clock()):
            self.wake_deliveries()

    def _after_growth(self, followed: Followed, *, grew: bool, asked: bool = False) -> None:
        if grew and followed.judge is not None:
            followed.judge.wake()
        if self.roster_is_fresh():
            self._cosign(followed.log_id, asked=asked)

    def _cosign(self, log_id: int, *, asked: bool) -> None:
        """Cosign the newest head. One cosigned before gets a new time only if its log asks."""
        with self.db.read() as session:
            origin, head = session.execute(
                select(LogRow.origin, LogRow.head_size).where(LogRow.id == log_id)
            ).one()
        listed = self.roster().log(origin)
        if listed is None or listed.status != "active":
            return  # mirrored on, since history stays provable; confirmed no more
        now = self.clock()
        since = now // 1000 - COSIGN_AGAIN_S if asked else None
        if witnessing.cosignature_line(self.db, log_id, head, self.witness.name, since=since) is None:
            witnessing.cosign_head(self.db, log_id, self.witness, self.roster(), now=now)

    @property
    def witness(self) -> WitnessIdentity:
        """This node's witness, under the name the roster gives it."""
        name = self.roster().states[self.state].witness_name or f"{self.origin.split('/', 1)[0]}/witness"
        return WitnessIdentity(name, self.keys.witness, self.state)

    def judge(self, followed: Followed) -> bool:
        """Judge what is new of a log; when nothing is, ask again for bodies that are missing."""

        def bodies(indexes: Sequence[int]) -> Given | None:
            early, followed.early = followed.early, None
            # One that still waits for a thread is not waited for: those who judge may be holding all of them.
            if early is not None and list(early.indexes) == list(indexes) and not early.answer.cancel():
                return early.answer.result()
            return self._ask_for_bodies(followed, indexes)

        roster = self.roster()
        if self._rejudge(followed.log_id, roster):
            followed.absent_after = -1
        judged = remote.judge_step(
            self.db,
            followed.log_id,
            roster=roster,
            judges=self.judges,
            bodies=bodies,
            clock=self.clock,
            ahead=self._ahead,
            watch=self.watcher,
        )
        if judged:
            self._tell_confirmed(followed.log_id)
            self.wake_deliveries()
            return True
        found = self._ask_again(followed, roster, bodies)
        if found is not None and found.settled:
            self.wake_deliveries()
        # What nobody had just now is no reason to hurry: the next look asks for the ones after it.
        return found is not None and found.settled > 0

    def _ask_again(
        self, followed: Followed, roster: Roster, bodies: Callable[[Sequence[int]], Given | None]
    ) -> remote.Asked | None:
        """Ask once more for bodies that are wanted; when none is, and this roster lets leaves count again, also for those that
        were not given: their issuer gives none while it still holds a roster under which they do not count.
        """

        def ask(state: Literal["wanted", "absent"], after: int) -> remote.Asked | None:
            return remote.fetch_missing(
                self.db,
                followed.log_id,
                roster=roster,
                judges=self.judges,
                bodies=bodies,
                clock=self.clock,
                state=state,
                after=after,
                watch=self.watcher,
            )

        found = ask("wanted", followed.wanted_after)
        followed.wanted_after = found.last if found is not None and found.answered else -1
        if found is None and followed.absent_after is not None and self._is_said(followed.state, roster):
            found = ask("absent", followed.absent_after)
            if found is None:
                followed.absent_after = None
            elif found.answered:
                followed.absent_after = found.last
        return found

    def _is_said(self, state: str, roster: Roster) -> bool:
        """Whether a State's node has said in a log of it that it follows this roster, or one after it."""
        with self.db.read() as session:
            said = session.execute(
                select(RosterSaidRow.idx)
                .join(LogRow, LogRow.id == RosterSaidRow.log_id)
                .where(LogRow.state == state, RosterSaidRow.version >= roster.version)
                .limit(1)
            ).first()
        return said is not None

    def _ask_early(self, followed: Followed, start: int, end: int) -> None:
        """Ask for the bodies of leaves that were offered a moment ago. They are judged, or dropped, when the leaves are here."""
        if followed.judge is None or not 0 < end - start <= EARLY:
            return
        indexes = range(start, end)
        answer = self._ahead.submit(self._ask_for_bodies, followed, indexes)
        followed.early = Early(indexes, answer)

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

    def _ask_for_bodies(self, followed: Followed, indexes: Sequence[int]) -> Given | None:
        """Ask the issuer; if it cannot be reached, other nodes, any of which may hold a body and give it to whom it is for.

        Only the issuer's silence about a body means that it is not for this State: another node may simply not hold it.
        """
        roster = self.roster()
        url = roster.states[followed.state].url
        listed = roster.log(followed.origin)
        if listed is not None and listed.end is not None:  # its State may have begun anew with nothing of it
            holders = [s.url for s in roster.nodes() if s.url and s.code != self.state]
            return self._ask_holders((*self._carriers, *holders), followed.origin, indexes)
        given = None if url is None else remote.ask_node(self.client, url, followed.origin, indexes)
        if given is not None:
            return given
        others = [s.url for s in roster.nodes() if s.url and s.code not in (self.state, followed.state)]
        return self._ask_holders((*self._carriers, *others[:MAX_OTHER_HOLDERS]), followed.origin, indexes)

    def _ask_holders(self, holders: Sequence[str], origin: str, indexes: Sequence[int]) -> Given | None:
        """Ask whoever may hold or carry bodies, one after the other, for what is still missing; None if nobody answered."""
        keys = self._encryption_keys()
        lines: dict[int, bytes] = {}
        answered = False
        for holder in holders:
            missing = [index for index in indexes if index not in lines]
            if not missing:
                break
            given = remote.ask_node(self.client, holder, origin, missing, keys)
            if given is not None:
                answered = True
                lines |= given.lines
        return Given(lines, frozenset()) if answered else None

    def _encryption_keys(self) -> dict[str, EncryptionKey]:
        """This State's encryption keys by the key ids under which the roster lists them."""
        own = self.keys.encryption
        if own is None:
            return {}
        listed = self.roster().keys_of(self.state, "encryption")
        return {key.kid: own for key in listed if key.key == own.public}

    # ── sealed bodies ─────────────────────────────────────────────────────────────────────────────────────────────

    def keep_house(self) -> bool:
        """Erase what is over for long enough; then let what was erased leave the files."""
        more = self.housekeeper.step()
        self.wake_deliveries()
        return more

    def _node_key(self) -> tuple[Signer, str]:
        signer = load_private(self.settings.keys_dir / "node.key")
        return signer, self.kid("node", signer)

    def seal(self) -> bool:
        """Seal the own log's restricted bodies, so that other nodes can carry them."""
        return sealed.seal_step(self.db, self.log_id, self.roster(), now=self.clock())

    def carry(self) -> bool:
        """Fetch what other States sealed since the last look, one log after the other."""
        more = False
        if not self.settings.carry_mb:
            return False
        roster = self.roster()
        for followed in list(self._followed.values()):
            state = roster.states[followed.state]
            if state.url is None or state.status != "member" or state.code == self.state:
                continue
            try:
                more |= sealed.carry_step(
                    self.db,
                    self.client,
                    followed.log_id,
                    state.url,
                    state=self.state,
                    limit_bytes=self.settings.carry_mb * 2**20,
                    keep_days=self.settings.carry_days,
                    now=self.clock(),
                )
            except PeerFault as fault:  # one issuer that is down keeps nobody from carrying the others'
                log.info(
                    "sealed bodies not fetched",
                    extra={"action": "carry_failed", "origin": followed.origin, "why": str(fault)[:300]},
                )
        return more

    def suspect(self, submission: Submission, where: str = "offer") -> None:
        """Hold an offered head that was refused against what is proven here: its log may have signed two histories.

        A head that is larger than what is stored is left to the follower, which looks at once.
        """
        roster, origin = self.roster(), submission.claimed_origin()
        followed = self._followed.get(origin)
        if followed is None:
            return
        offered, note = open_checkpoint(submission.checkpoint, witnessing.log_keys(roster, origin), origin)
        with self.db.read() as session:
            mirror = read_followed(session, followed.log_id)
            ours = root_here(session, followed.log_id, offered.size)
        if ours is None and followed.follower is not None:
            followed.follower.wake()
        if ours is None or ours == offered.root or mirror.head_note is None:
            return
        seen = [Sighting(self.clock() // 1000, self.state, where)]
        sources = self.sources(followed)
        found = contradiction(
            self.db,
            self.client,
            mirror.id,
            parse_note(mirror.head_note),
            note,
            sources=sources,
            roster=roster,
            seen=seen,
        )
        if found is not None:
            fork = convict(self.db, found, roster=roster, now=self.clock())
            witnessing.set_log_error(self.db, followed.log_id, fork, now=self.clock())

    def take_evidence(self, raw: bytes) -> tuple[str, bool]:
        """Judge a record that somebody brings; id and whether it is new. Raises EvidenceRefused."""
        return take_record(self.db, raw, roster=self.roster(), source=None, now=self.clock())

    # ── as a witness ──────────────────────────────────────────────────────────────────────────────────────────────

    def take_submission(self, submission: Submission) -> tuple[Checkpoint, bytes | None]:
        """Answer `add-checkpoint`: store what is new, then cosign. The line is None if that takes longer than a caller waits.

        Raises:
            See `app.replication.witness.open_submission` and `app.tlog.witness`.
        """
        identity, roster = self.witness, self.roster()
        try:
            log_id, checkpoint, note = witnessing.open_submission(self.db, submission, roster, identity.name)
        except (CheckpointForked, OldSizeMismatch, OldSizeTooLarge, InvalidConsistencyProof):
            self.suspect(submission)
            raise
        listed = roster.log(checkpoint.origin)
        if listed is None or listed.status != "active":
            raise NotAllowed(
                f"The roster lists {checkpoint.origin} as {listed.status if listed else 'unknown'}."
            )
        followed = self._followed.get(checkpoint.origin)
        if followed is None or not self.roster_is_fresh():
            return checkpoint, None
        with self.db.read() as session:
            mirror = read_followed(session, log_id)
        if checkpoint.size - mirror.size > NEAR or not followed.lock.acquire(
            timeout=self.settings.peer_timeout_s / 2
        ):
            if followed.follower is not None:
                followed.follower.wake()
            return checkpoint, None
        try:
            with self.db.read() as session:
                mirror = read_followed(session, log_id)
            if mirror.status != "ok":
                raise NotAllowed(
                    f"{checkpoint.origin} is {mirror.status} here: it signed heads that contradict each other."
                )
            self._ask_early(followed, mirror.size, checkpoint.size)
            grew = advance(
                self.db,
                self.client,
                mirror,
                self.sources(followed)[0],
                checkpoint,
                note,
                roster=roster,
                clock=self.clock,
                state=self.state,
            )
        except CheckpointFork as fork:
            witnessing.set_log_error(self.db, log_id, fork, now=self.clock())
            raise
        finally:
            followed.lock.release()
        judged = grew and self._judge_at_once(followed)
        self._after_growth(followed, grew=grew and not judged, asked=True)
        return checkpoint, witnessing.cosignature_line(self.db, log_id, checkpoint.size, identity.name)


def _ids(session: Session) -> dict[str, int]:
    """Origin → row id of every log."""
    return {row.origin: row.id for row in session.execute(select(LogRow.origin, LogRow.id))}
