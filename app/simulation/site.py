"""One State's node at its place: the disk that stays, the processes that come and go, and the clock on its wall."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.backup import mark_restored
from app.domain.roster import CentralContactTerm, Roster, RosterKey, RosterLog, RosterState
from app.mirrors import Machine
from app.node import Node, Parts
from app.node_keys import NodeKeys
from app.notify.guard import UrlPolicy
from app.notify.keys import WebhookKeys
from app.notify.setup import WebhookSetup
from app.replication.witness import witness_endpoints
from app.settings import Settings
from app.setup import FIRST_START, begin_own_log
from app.simulation.network import Line
from app.simulation.officers import Officer, Written, key
from app.simulation.storage import Disk, Power, PoweredDatabase, PowerLost, empty_database
from app.simulation.virtual import VirtualLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.domain.errors import VerbaleError
    from app.domain.keys import PublicKey, Signer
    from app.mirrors import Followed
    from app.record import Receipt
    from app.simulation.network import Network
    from app.simulation.virtual import Schedule

BEGIN_S: Final = 1_790_000_000
"""2026-09-21T13:33:20Z: virtual time zero, unix seconds."""
DAY_S: Final = 86_400


def origin_of(state: str) -> str:
    """The origin of a State's log."""
    return f"{state.lower()}.sim.example/log/1"


def url_of(state: str) -> str:
    """The address of a State's node."""
    return f"https://{state.lower()}.sim.example"


def settings_of(state: str, folder: Path) -> Settings:
    """A node's settings. `folder` is for what the node keeps in files."""
    return Settings(
        state=state, origin=origin_of(state), data_dir=folder, public_url=url_of(state), background=False
    )


@dataclass(frozen=True, slots=True)
class Watched:
    """A signer whose every signature is looked at before it exists."""

    inner: Signer
    look: Callable[[bytes], None]

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self.inner.public

    def sign(self, message: bytes) -> bytes:
        """Look, then sign."""
        self.look(message)
        return self.inner.sign(message)


class AtOnce(Executor):
    """Runs what it is given in the caller's task: order is the schedule's alone."""

    @classmethod
    def of(cls, _count: int, _name: str) -> AtOnce:
        """As many threads as one likes."""
        return cls()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        """Run it; a dead process's end passes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's, when it asks for the result
            future.set_exception(error)
        return future


class HeldRoster:
    """The verified roster that a site holds. Stands where `app.roster.RosterClient` does, which has tests of its own."""

    def __init__(self, roster: Roster) -> None:
        """Hold one; `newest` is what its sources have."""
        self.roster = self.newest = roster
        self.outcomes: tuple[()] = ()

    def refresh(self, _at: int) -> Roster:
        """Take the newest."""
        self.roster = self.newest
        return self.roster

    def load_local(self, _at: int) -> Roster:
        """The one held."""
        return self.roster

    def read(self, _path: str) -> None:
        """It has no files."""
        return


@dataclass(slots=True)
class Surroundings:
    """What every site shares."""

    schedule: Schedule
    network: Network
    folder: Path
    note: Callable[[str], None]
    pause: Callable[[], None]
    committed: Callable[[Site], None]
    signs_head: Callable[[Site, bytes], None]
    signs_receipt: Callable[[Site, bytes], None]
    quick: bool = True
    gates: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """How far a site is with a log.

    Attributes:
        size, root: of the newest head that is proven here.
        wanted: bodies that have not come.
    """

    size: int = 0
    root: bytes | None = None
    judged: int = 0
    status: str = "ok"
    wanted: int = 0


_HEAD: Final = (
    "SELECT head_size, head_root, judged, status, "
    "(SELECT count(*) FROM entries WHERE log_id = logs.id AND body_state = 'wanted') FROM logs WHERE origin = ?"
)
_COSIGNED: Final = (
    "SELECT max(c.size) FROM cosignatures c JOIN logs ON logs.id = c.log_id WHERE origin = ? AND witness = ?"
)
_CONFIRMED: Final = "SELECT max(c.size) FROM confirmations c JOIN logs ON logs.id = c.log_id WHERE origin = ?"
_SEEN: Final = (
    "SELECT head_size, served_size, shown_size, pending_note, claimed_note FROM logs "
    "LEFT JOIN log_watch ON log_watch.log_id = logs.id WHERE origin = ?"
)


class Site:
    """See the module.

    Attributes:
        name: the State's code; a secret second node of a State has another name.
        skew_ms: what its clock is ahead.
        honest: whether what it signs and serves is held to the invariants.
        is_lost: whether its disk came back without leaves of a head that others have seen: its log cannot go on.
        busy: names of its loops that are in a step now: a loop is one thread.
        officer: the State's contact point.
    """

    node: Node
    power: Power

    def __init__(
        self, around: Surroundings, state: str, roster: Roster, officer: Officer, *, name: str | None = None
    ) -> None:
        """Set the disk up; `start` runs the first process."""
        self.around, self.state, self.name = around, state, name or state
        self.origin = origin_of(state)
        self.roster_client = HeldRoster(roster)
        self.officer = officer
        self.skew_ms = 0
        self.honest = True
        self.disk = Disk(_begun(state, tuple(roster.states)))
        self.busy: set[str] = set()
        self.generation = 0
        self.nonces = 0
        self.backup: bytes | None = None
        self.is_down = False
        self.is_lost = False
        folder = around.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FIRST_START).touch()
        self.kids = {use: f"{state}/{use}/1" for use in ("log", "witness", "transport")}

    def clock(self) -> int:
        """Unix ms, as this site's clock shows it."""
        return BEGIN_S * 1000 + self.around.schedule.now + self.skew_ms

    @property
    def now_s(self) -> int:
        """Unix seconds, as this site's clock shows it."""
        return self.clock() // 1000

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start the node's process on what is on the disk."""
        around = self.around
        self.generation += 1
        self.power = Power(around.pause)
        self.busy = set()
        settings = settings_of(self.state, around.folder / self.name)
        machine = Machine(
            lock=lambda: VirtualLock(around.schedule),
            threads=AtOnce.of,
            nonce=self._nonce,
            timer=lambda: around.schedule.now / 1000,
        )
        node = Node(settings, clock=self.clock, peer_transport=Line(around.network, self), machine=machine)
        keys = NodeKeys(
            log=Watched(key(self.kids["log"]), lambda message: around.signs_head(self, message)),
            witness=Watched(key(self.kids["witness"]), lambda message: around.signs_receipt(self, message)),
            transport=key(self.kids["transport"]),
        )
        database = PoweredDatabase(self.disk, self.power, lambda: around.committed(self), quick=around.quick)
        node.open(Parts(keys, database, self.roster_client, _webhooks(self.state)))  # type: ignore[arg-type]  # stands in for the client
        self.node = node
        if around.gates:
            node.gate.close()
        node.adopt(self.roster_client.roster)
        if around.gates and node.gate.needs_nobody():
            node.gate.step()

    def kill(self) -> None:
        """End the process between two instructions."""
        self.power.alive = False
        if self.disk.raw.in_transaction:
            self.disk.raw.rollback()

    def _nonce(self) -> str:
        self.nonces += 1
        return f"{self.name}-{self.generation}-{self.nonces}"

    def restore(self, content: bytes) -> None:
        """Put a backup in the place of the disk and start on it, as `verbale restore` and `serve` do."""
        self.disk.replace(content)
        database = PoweredDatabase(self.disk, Power(lambda: None), lambda: None)
        with database.write() as session:
            mark_restored(database, session, self.clock())
        self.start()

    @property
    def is_being_restored(self) -> bool:
        """Whether a log here came from a backup and is not level yet."""
        return bool(self.disk.rows("SELECT 1 FROM log_watch WHERE restored_at IS NOT NULL LIMIT 1"))

    @property
    def is_closed(self) -> bool:
        """Whether the start-up gate is closed."""
        return bool(self.disk.rows("SELECT 1 FROM log_watch WHERE closed_at IS NOT NULL LIMIT 1"))

    # ── steps: each is what one of the node's loops or routes does, in the caller's task ──────────────────────────

    def post(self, written: Written) -> Receipt | VerbaleError:
        """What the local door does with one post."""
        intake, sequencer = self.node.intake, self.node.sequencer
        outcomes = intake.judge([written.signed()])
        future = intake.sequence(outcomes)
        if future is None:
            (refusal,) = outcomes
            return refusal  # type: ignore[return-value]  # nothing judged good is left out of the sequence
        while not future.done():
            sequencer.step()
        (answer,) = future.result()
        return answer

    def run(self, loop: str, step: Callable[[Node], object]) -> None:
        """Run one step of a loop, unless that loop is in a step already or the process is dead.

        Raises:
            VerbaleError: what the loop would have logged.
        """
        if not self.power.alive or loop in self.busy:
            return
        busy = self.busy
        busy.add(loop)
        try:
            step(self.node)
        except PowerLost:
            self.around.note(f"{self.name} died in {loop}")
        finally:
            busy.discard(loop)

    def follow(self, origin: str) -> None:
        """One look at another log."""
        self.run(f"follow {origin}", lambda node: _with(node, origin, node.mirrors.follow))

    def judge(self, origin: str) -> None:
        """Judge what is new of another log, and ask for bodies that are missing."""
        self.run(f"judge {origin}", lambda node: _with(node, origin, node.mirrors.judge))

    def look(self, origin: str) -> None:
        """Follow, and judge whatever came of it, until nothing is new."""
        try:
            self.follow(origin)
        finally:
            self.judge(origin)
            self.judge(origin)

    def head(self, origin: str) -> Head:
        """How far this site is with a log."""
        rows = self.disk.rows(_HEAD, origin)
        return Head(*rows[0]) if rows else Head()

    def pass_gate(self) -> None:
        """Ask the witnesses how far the own log is; level what came from a backup."""
        self.run("gate", lambda node: node.gate.step())

    def gossip(self, state: str) -> None:
        """Hear what another State's witness shows of every log; tell it of evidence; see whether a log is withheld."""

        def step(node: Node) -> None:
            for witness in witness_endpoints(node.roster(), self.state):
                if witness.state == state:  # a suspended State's is not asked
                    node.vigil.hear_from(witness)

        self.run(f"gossip {state}", step)
        self.run("look after", lambda node: node.look_after())

    def stored(self, origin: str) -> int:
        """How many leaves of a log are on the disk."""
        return self.disk.leaves(origin)

    def cosigned(self, origin: str) -> int:
        """The largest size of a log that this site's witness cosigned."""
        rows = self.disk.rows(_COSIGNED, origin, witness_name(self.state))
        return int(rows[0][0] or 0)

    def confirmed(self, origin: str) -> int:
        """The largest size of a log that a quorum has confirmed, as far as this site has told."""
        rows = self.disk.rows(_CONFIRMED, origin)
        return int(rows[0][0] or 0)

    def seen(self, origin: str) -> int:
        """The largest size of a log whose signed head is on the disk, proven or not."""
        rows = self.disk.rows(_SEEN, origin)
        sizes = [size for row in rows for size in row[:3] if size is not None]
        sizes += [int(note.split(b"\n", 2)[1]) for row in rows for note in row[3:] if note is not None]
        return max(sizes, default=0)

    def publish(self) -> None:
        """Sign the newest head."""
        self.run("publish", lambda node: node.publish())

    def offer(self, state: str) -> None:
        """Offer the newest head to another State's witness."""
        self.run(f"offer {state}", lambda node: node.offer(witness_name(state)))


def _with(node: Node, origin: str, step: Callable[[Followed], object]) -> None:
    """One step with a log; none while a process that has just started follows nothing yet."""
    followed = node.mirrors.followed(origin)
    if followed is not None:
        step(followed)


def witness_name(state: str) -> str:
    """The name under which a State's witness cosigns."""
    return f"{state.lower()}.sim.example/witness"


def listed(state: str) -> RosterState:
    """A State's entry in the first roster."""
    uses = {"log": "log", "witness": "witness", "transport": "transport", "cp": "notices"}
    return RosterState(
        state,
        state,
        joined="2023-03-30",
        url=url_of(state),
        logs=(RosterLog(origin_of(state), 1, f"{url_of(state)}/log/1"),),
        keys=tuple(
            RosterKey(f"{state}/{name}/1", use, key(f"{state}/{name}/1").public, BEGIN_S - 30 * DAY_S)  # type: ignore[arg-type]  # a use by its name
            for name, use in uses.items()
        ),
        witness_name=witness_name(state),
    )


@cache
def first_roster(codes: tuple[str, ...]) -> Roster:
    """The roster with which a federation of these States begins."""
    states = MappingProxyType({code: listed(code) for code in codes})
    terms = (CentralContactTerm(codes[0], "2026-01-01"),)
    return Roster(1, f"{1:064x}", BEGIN_S + 300 * DAY_S, states, terms)


@cache
def _begun(state: str, codes: tuple[str, ...]) -> bytes:
    """The database of a node that knows the first roster of a federation and has heard nothing yet.

    Made once for each State in a process, by the code that ships, outside of any run.
    """
    disk = Disk(empty_database())
    database = PoweredDatabase(disk, Power(lambda: None), lambda: None)
    settings = settings_of(state, Path())
    begin_own_log(database, settings)
    keys = NodeKeys(key(f"{state}/log/1"), key(f"{state}/witness/1"), key(f"{state}/transport/1"))
    machine = Machine(threads=AtOnce.of)
    node = Node(settings, machine=machine)
    node.open(Parts(keys, database, HeldRoster(first_roster(codes)), _webhooks(state)))  # type: ignore[arg-type]  # stands in for the client
    node.adopt(node.roster())
    content = disk.copy()
    disk.close()
    return content


@cache
def _webhooks(state: str) -> WebhookSetup:
    """Webhooks with no keys on disk: nobody subscribes here."""
    keys = WebhookKeys(Path(), state, (), AESGCM(bytes(32)))
    return WebhookSetup(state, url_of(state), UrlPolicy.of(()), keys)
