"""One running node: database, keys, roster, the local door and the background loops, wired together.

`Node.open` refuses to start on anything unsafe: settings, key files, a schema that is not current, a log that was never
initialised. `start` runs the loops in this process; with the setting `background = false` only the local door runs here
and `verbale worker` runs the rest.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from app import migrations, tokens
from app.clock import Clock, system_clock
from app.db import Database
from app.domain.errors import NodeFault, PeerFault, RosterMissing, UnsafeKeyFile, VerbaleError
from app.domain.retention import parse_rules
from app.events import Event, emit
from app.intake import Intake, Sequencer, merge
from app.judging import Judged, Judges
from app.keyfiles import load_private
from app.loops import Loop
from app.memory import give_back
from app.mirrors import Machine, Mirrors
from app.models import EventRow, LogRow
from app.node_keys import KeyFolder, NodeKeys
from app.notify.deadlines import deadlines_step
from app.notify.deliver import DeliveryLoop
from app.notify.digest import Recipient, Smtp, digest_step
from app.notify.prune import Pruner
from app.notify.retention import retention_step
from app.notify.setup import WebhookSetup
from app.place import Place
from app.record import Receipt, record_own
from app.replication import sealed
from app.replication import witness as witnessing
from app.replication.client import FETCHING, PeerClient
from app.replication.gossip import Vigil
from app.replication.signatures import authenticate_peer, target
from app.replication.startup import Gate
from app.replication.witness import WitnessAhead, WitnessEndpoint, WitnessIdentity
from app.retention import Housekeeper
from app.roster import RosterClient
from app.screening import watchlists
from app.screening.crew import Crew
from app.screening.find import Screener
from app.screening.finder import ScreenerFinder
from app.screening.watch import Watcher, watch_step
from app.setup import FIRST_START
from app.statements import sign_notice
from app.tlog.publish import publish_step
from app.tlog.witness import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import httpx
    from starlette.requests import Request

    from app.domain.keys import PublicKey, Signer
    from app.domain.roster import Roster
    from app.domain.signed import SignedNotice
    from app.gate import Principal
    from app.settings import Settings
    from app.tlog.checkpoint import Checkpoint

log = logging.getLogger(__name__)


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
SEAL_INTERVAL_S: Final = 5.0
MEMORY_INTERVAL_S: Final = 30.0
CARRY_INTERVAL_S: Final = 30.0
"""Carried bodies matter when their issuer is down, not in the minute in which they are made."""
ASKED_AT_ONCE: Final = 8
"""Witnesses that a node which starts asks side by side: some may be away, and each of those takes a time-out."""
JOIN_S: Final = 10.0


class LogNotInitialised(NodeFault):
    """The database holds no own log. A log begins only by `verbale node init`, never by a start on an empty database."""

    code = "log-not-initialised"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is put together from: by default what its settings name (`Node.from_settings`)."""

    keys: NodeKeys
    db: Database
    roster_client: RosterClient
    webhooks: WebhookSetup


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
        self._loops: list[Loop] = []
        self._offerers: dict[str, Loop] = {}
        self._members_lock = self._machine.lock()
        self._deliveries: DeliveryLoop | None = None
        self._key_folder: KeyFolder | None = None  # None: keys that were given, not read
        self.sequencer: Sequencer
        self._adopted: str | None = None
        self._watchers: list[Callable[[], None]] = []
        self._has_loops = False
        self.gate: Gate
        self.vigil: Vigil
        self.mirrors: Mirrors
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
        if parts is None:
            self._key_folder = KeyFolder(settings.keys_dir, self.state, settings.log_key)
            parts = self.from_settings()
        self.keys, self.db = parts.keys, parts.db
        self.roster_client, self.webhooks = parts.roster_client, parts.webhooks
        self.screener = Screener(self.db, settings.data_dir if settings.screening_index == "disk" else None)
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
            threads=self._machine.threads(FETCHING, "fetch"),
            timer=self._machine.timer,
        )
        self.mirrors = Mirrors(
            self.db,
            self.client,
            settings=settings,
            log_id=self.log_id,
            clock=self.clock,
            roster=self.roster,
            is_fresh=self.roster_is_fresh,
            keys=lambda: self.keys,
            judges=self.judges,
            watcher=self.watcher,
            wake=self.wake_deliveries,
            machine=self._machine,
            carriers=self._carriers,
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
            executor=partial(self._machine.threads, ASKED_AT_ONCE, "ask"),
            marker=settings.data_dir / FIRST_START,
            judge=self.mirrors.judge_all,
            lease_s=settings.lease_s,
            log_key=lambda: self.keys.log.public,
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
            on_growth=self.mirrors.grew,
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
        self.mirrors.adopt(roster, loops=self._has_loops)
        with self._members_lock:
            if self._has_loops:
                for endpoint in witnessing.witness_endpoints(roster, self.state, self.settings.witnesses):
                    self._offer_to(endpoint)
                    self._hear_from(endpoint)
            self._adopted = roster.sha256
        self.mirrors.rejudge(self.log_id, roster)
        if self._has_loops:
            self._tell_of_roster(roster)
        if self._key_folder is not None:
            self.keys = self._key_folder.counting(self.keys, roster, self.clock() // 1000)
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

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the local door, and the loops unless a worker runs them."""
        self.sequencer.start()
        self.is_warming = self._is_screened()
        if self.settings.background:
            self.start_background()
        else:
            # The worker fetches the roster and follows; this process reads what it kept, and witnesses what is offered here.
            self._loops = [
                Loop("roster", self.reload_roster, interval_s=self.settings.roster_refresh_s),
                Loop("memory", self.give_back, interval_s=MEMORY_INTERVAL_S),
            ]
            for loop in self._loops:
                loop.start()
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
        self.gate.lease.place = Place.take(self.settings.data_dir)
        self._has_loops = True
        self.gate.close()  # before anything is signed or taken: the witnesses say how far the own log is
        publisher = Loop("publish", self.publish, interval_s=PUBLISH_INTERVAL_S)
        self._publisher = publisher
        self._loops = [
            publisher,
            Loop("gate", self.pass_gate, interval_s=GATE_INTERVAL_S),
            Loop("lease", self.gate.hold, interval_s=self.gate.lease.renew_every_s),
            Loop("look after", self.look_after, interval_s=LOOK_AFTER_INTERVAL_S),
            Loop("roster", self.refresh_roster, interval_s=self.settings.roster_refresh_s),
            Loop("deadlines", self.tell_deadlines, interval_s=DEADLINES_INTERVAL_S),
            Loop("retention", self.keep_house, interval_s=RETENTION_INTERVAL_S),
            Loop("events", self.forget_events, interval_s=EVENTS_INTERVAL_S),
            Loop(
                "prune", Pruner(self.db, self.clock, self.webhooks.keep_ms).step, interval_s=PRUNE_INTERVAL_S
            ),
            Loop("seal", self.seal, interval_s=SEAL_INTERVAL_S),
            Loop("carry", self.mirrors.carry, interval_s=CARRY_INTERVAL_S),
            Loop("portfolios", self.look_after_portfolios, interval_s=WATCH_INTERVAL_S),
            Loop("memory", self.give_back, interval_s=MEMORY_INTERVAL_S),
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
        self.mirrors.close()
        self.judges.close()
        self.crew.close()
        self.db.dispose()
        if self.gate.lease.place is not None:
            self.gate.lease.place.leave()

    def all_loops(self) -> list[Loop]:
        """Every loop of this process."""
        with self._members_lock:
            others = [*self._offerers.values(), *self._gossips.values()]
        return [*self._loops, *self.mirrors.loops(), *others]

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

    def give_back(self) -> bool:
        """Give the system back what a flood left, once it is over."""
        self.db.give_back()
        give_back()
        return False

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
        """Tell what clearances that are over mean for portfolios, and match what could not be matched in its time.

        Also screen the parties that were stored and whose screening a crash prevented.
        """
        left = watchlists.screen_left(self.db, self.finder, self.state, now=self.clock())
        more = watch_step(self.watcher, self.db, now=self.clock()) or left
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
        self.mirrors.heard_from(principal.state)
        return principal

    # ── publishing and offering ───────────────────────────────────────────────────────────────────────────────────

    def publish(self) -> bool:
        """Sign the newest head, then tell every witness."""
        if not self.gate.may_sign():
            return False
        checkpoint = publish_step(
            self.db, self.log_id, self.keys.log, now=self.clock(), revoked=self._revoked_keys()
        )
        if checkpoint is None:
            return False
        if checkpoint.size > 0:
            self.gate.forget_first_start()
        with self._members_lock:
            offerers = list(self._offerers.values())
        for loop in offerers:
            loop.wake()
        return True

    def _revoked_keys(self) -> frozenset[PublicKey]:
        """Of the own log."""
        try:
            return witnessing.revoked_log_keys(self.roster(), self.origin)
        except RosterMissing:
            return frozenset()

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
            # A refusal alone says nothing; what it has cosigned, under our own key, does.
            self.gate.look(current)
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

    # ── housekeeping ──────────────────────────────────────────────────────────────────────────────────────────────

    def look_after(self) -> bool:
        """What has to be done now and then; also ask once more for bodies of the own log that a restore lost."""
        self.vigil.look_after()
        self.mirrors.ask_for_own()
        return False

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

    # ── what other nodes bring: see `app.mirrors` ─────────────────────────────────────────────────────────────────

    @property
    def witness(self) -> WitnessIdentity:
        """This node's witness, under the name the roster gives it."""
        return self.mirrors.witness

    def take_submission(self, submission: Submission) -> tuple[Checkpoint, bytes | None]:
        """Answer `add-checkpoint`; see `Mirrors.take_submission`."""
        return self.mirrors.take_submission(submission)

    def take_evidence(self, raw: bytes) -> tuple[str, bool]:
        """Judge a record that somebody brings; see `Mirrors.take_evidence`."""
        return self.mirrors.take_evidence(raw)
