"""One run: a federation that a seed plays out.

    sites start ▸ N steps, each drawn from the seed: work, faults, malice ▸ everything heals ▸ quiet ▸ the whole is checked

Same seed, same code: the same run to the last byte, in any process. The order of events, every delay and every fault come
from the seed; the code under test is given its clock, network, disk, locks and randomness from here.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from app.domain.errors import Busy, NodeFault, PeerFault, Refused, VerbaleError
from app.domain.roster import RosterKey
from app.domain.states import ISO_3166_1, STATES
from app.domain.times import utc_day
from app.simulation import faults, malice
from app.simulation.invariants import CONVERGENCE, LINE, Broken, Truth
from app.simulation.network import Network, Weather
from app.simulation.officers import ALL, Officer, Written, key
from app.simulation.site import BEGIN_S, DAY_S, Head, Site, Surroundings, first_roster, origin_of, url_of
from app.simulation.storage import PowerLost, leaves_in
from app.simulation.virtual import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.domain.roster import KeyUse
    from app.simulation.faults import Extent
    from app.simulation.network import Answer

QUIET_ROUNDS: Final = 12
"""Rounds in which everybody looks at everybody after all faults are over; a federation that has not met by then never will."""
GATE_ROUNDS: Final = 60
"""Tries that a gate has then: a corrupt relay spoils half of what it is asked, and after a restore every State must answer twice."""
STEP_MS: Final = 150
"""Mean virtual time between two steps."""
CHECK_EVERY: Final = 50
"""Steps between two checks of whole disks; what changes is checked at every commit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        trace: hex digest of everything that happened.
        broken: the invariant that did not hold, or None; `what` says what was seen, `at` in which step.
    """

    seed: int
    states: int
    steps: int
    trace: str
    messages: int
    notices: int
    virtual_s: int
    broken: str | None = None
    what: str = ""
    at: int = 0


@dataclass(slots=True)
class Notice:
    """One notice of an officer, as the officer knows it."""

    root: Written
    current: Written
    closed: bool = False
    versions: list[Written] = field(default_factory=list)


class World:
    """A federation under one seed. `play` runs it once."""

    def __init__(
        self,
        seed: int,
        states: int,
        steps: int,
        *,
        trace: Callable[[str], None] | None = None,
        faultless: bool = False,
        quick: bool = True,
        extent: Extent = "usual",
    ) -> None:
        """Set it up.

        Args:
            seed: decides everything else.
            states: how many, 4 or more.
            steps: how many events before everything heals.
            trace: takes each line of what happens.
            faultless: nobody is dishonest.
            extent: what may happen.
            quick: sessions spare what SQLAlchemy does for each statement; the run is the same without.
        """
        self.seed, self.steps, self.extent = seed, steps, extent
        self.rng = random.Random(f"verbale simulation {seed}")  # noqa: S311 - replayed, not secret
        self.schedule = Schedule()
        self.truth = Truth()
        self.digest = sha256()
        self._trace = trace
        self.at = 0
        self.network = Network(self.schedule, self.rng, self.note)
        self.network.find, self.network.inspect = self._find, self._inspect
        self.folder = Path(tempfile.mkdtemp(prefix="verbale-simulation-"))
        self.around = Surroundings(
            self.schedule,
            self.network,
            self.folder,
            self.note,
            self._pause,
            self._committed,
            self.truth.signs_head,
            self.truth.signs_receipt,
            quick,
            gates=not self.mild,
        )
        self.codes = _codes(states)
        self.roster = first_roster(self.codes)
        self.sites: dict[str, Site] = {}
        self.twins: dict[str, tuple[Site, frozenset[str]]] = {}
        self.two_faced: set[str] = set()
        self.notices: dict[str, list[Notice]] = {}
        self.unanswered: list[tuple[Site, Written, Notice | None, str]] = []
        self.given = 0
        self.plan = faults.Plan.draw(self.rng, self.codes, faultless=faultless)
        self._by_netloc = {url_of(code).removeprefix("https://"): code for code in self.codes}

    @property
    def mild(self) -> bool:
        """Whether the harder faults are left out."""
        return self.extent == "mild"

    # ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────

    def play(self) -> Outcome:
        """Run it to its end, or to the first invariant that does not hold."""
        broken: Broken | None = None
        try:
            self.begin()
            self.network.weather = self.plan.weather(self.rng)
            for step in range(1, self.steps + 1):
                self.at = step
                self.schedule.run(self.schedule.now + 1 + int(self.rng.expovariate(1 / STEP_MS)))
                faults.step(self)
                if step % CHECK_EVERY == 0:
                    self._check_all()
            self.at = self.steps + 1
            self._heal()
            if not self.mild:
                malice.check_gossip(self)
            self._settle()
            if not self.mild:
                self._confirm()
            lost = frozenset(site.origin for site in self.sites.values() if site.is_lost)
            self.truth.settled([site for site in self.sites.values() if site.honest], lost)
            malice.check_forks(self)
        except Broken as found:
            broken = found
        finally:
            self.close()
        return Outcome(
            self.seed,
            len(self.codes),
            self.steps,
            self.digest.hexdigest(),
            self.network.traffic.messages,
            self.given,
            self.schedule.now // 1000,
            broken.invariant if broken else None,
            broken.what if broken else "",
            self.at,
        )

    def close(self) -> None:
        """End all tasks and forget all disks."""
        self.schedule.close()
        for site in (*self.sites.values(), *(twin for twin, _ in self.twins.values())):
            site.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Start every site."""
        for code in self.codes:
            officer = Officer(code, origin_of(code), self.rng, f"{code}/cp/1")
            site = self.sites[code] = Site(self.around, code, self.roster, officer)
            site.honest = self.truth.logs[site.origin].honest = code not in self.plan.dishonest
            self.notices[code] = []
            self.do(site, lambda site=site: site.start())  # type: ignore[misc]  # bound at once
        self.schedule.run()

    def note(self, line: str) -> None:
        """One line of the trace: it goes into the digest, and to whoever reads along."""
        line = f"{self.schedule.now:>8} {line}"
        self.digest.update(line.encode() + b"\n")
        if self._trace is not None:
            self._trace(line)

    def do(self, site: Site, what: Callable[[], object], *, after: int = 0) -> None:
        """Run something of a site's as a task; faults of peers are what a loop would log, anything else is a finding."""

        def task() -> None:
            try:
                what()
            except PowerLost:
                pass
            except (PeerFault, NodeFault, Refused) as fault:
                self.note(f"{site.name} {type(fault).__name__}")
            except Exception as error:
                raise Broken(LINE, f"{site.name} met {type(error).__name__}: {error}") from error

        self.schedule.spawn(task, after=after)

    # ── what the seams call ───────────────────────────────────────────────────────────────────────────────────────

    def _find(self, sender: str, netloc: str) -> Site | None:
        code = self._by_netloc.get(netloc)
        if code is None:
            return None
        twin = self.twins.get(code)
        site = twin[0] if twin is not None and sender in twin[1] else self.sites[code]
        return site if site.power.alive else None

    def _inspect(self, sender: Site, receiver: Site, request: object, answer: Answer) -> Answer:
        path: str = request.url.path  # type: ignore[attr-defined]  # an httpx request
        self.truth.answered(sender, receiver, path, answer)
        return malice.bend(self, receiver, path, request.content, answer)  # type: ignore[attr-defined]

    def _pause(self) -> None:
        """At a storage step: now and then others run first, as on a machine with many threads."""
        if self.rng.randrange(8) == 0:
            self.schedule.sleep(self.rng.randrange(1, 10))

    def _committed(self, site: Site) -> None:
        if site.honest:
            self.truth.committed(site)

    # ── officers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def audience(self, state: str) -> str | frozenset[str]:
        """Whom a notice is for: all, or a few."""
        if self.rng.randrange(3) == 0:
            return ALL
        others = [code for code in self.codes if code != state and code in STATES]
        return frozenset(self.rng.sample(others, min(len(others), self.rng.randrange(1, 5))))

    def write(self, site: Site) -> tuple[Written, Notice | None, str]:
        """What an officer writes next: (statement, the notice it is about, what it does)."""
        rng, officer, at = self.rng, site.officer, site.now_s
        mine = [notice for notice in self.notices[site.state] if not notice.closed]
        kind = rng.choices(("issue", "amend", "withdraw", "erase", "ack"), (6, 3, 1, 1, 2))[0]
        theirs = [
            n for code, some in self.notices.items() if code != site.state for n in some if not n.closed
        ]
        if kind == "ack" and theirs:
            of = rng.choice(theirs)
            if of.current.may_be_read_by(site.state, of.current.statement.log[:2].upper()):
                return officer.acknowledge(at, of.current, of.root.statement.id), None, "ack"
        if kind in ("amend", "withdraw", "erase") and mine:
            of = rng.choice(mine)
            root = of.root.statement.id
            if kind == "amend":
                return officer.amend(at, of.current, root, self.audience(site.state)), of, kind
            if kind == "withdraw":
                return officer.withdraw(at, of.current, root), of, kind
            return officer.erase(at, of.current), of, kind
        return officer.issue(at, self.audience(site.state)), None, "issue"

    def post(self, site: Site) -> None:
        """An officer writes and posts; one that is not answered keeps what it wrote, to send the same bytes again."""
        written, of, kind = self.write(site)
        self.truth.wrote(site.state, written)
        if of is not None:
            of.closed = True  # one change at a time: reopened by the answer
        self.send(site, written, of, kind)

    def send(self, site: Site, written: Written, of: Notice | None, kind: str) -> None:
        """Post, and take the answer."""
        mine = (site, written, of, kind)
        self.unanswered.append(mine)
        if not site.power.alive:
            return
        answer = site.post(written)
        if isinstance(answer, Busy):
            return
        self.unanswered.remove(mine)
        if isinstance(answer, VerbaleError):
            self.note(f"{site.name} refuses its officer's {kind}: {answer.code}")
            if of is not None:
                of.closed = False
            return
        self.note(f"{site.name} acknowledges {kind} {answer.index}")
        self.given += 1
        if site.honest:
            self.truth.acknowledged(site, answer.index, written)
        if kind == "issue":
            self.notices[site.state].append(Notice(written, written, versions=[written]))
        elif of is not None:
            of.versions.append(written)
            if kind == "erase":
                self.truth.erased[site.origin] |= {v.statement.id: answer.index for v in of.versions}
            elif kind == "amend":
                of.current, of.closed = written, False

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_all(self) -> None:
        for site in self.sites.values():
            if site.honest:
                self.truth.check(site)

    def _heal(self) -> None:
        """All faults are over: clocks are set, wires mended, machines started, and officers send what was not answered."""
        self.note("heal")
        self.network.cut.clear()
        self.network.weather = Weather(slowest_ms=5)
        self.two_faced = set(self.twins)
        for twin, _ in self.twins.values():
            twin.kill()
        self.schedule.run()
        self.twins.clear()
        for site in self.sites.values():
            if site.state not in self.roster.members():
                self.take_back(site)
        for site in self.sites.values():
            site.skew_ms = 0
            site.roster_client.newest = self.roster
            if site.is_down:
                self.do(site, lambda site=site: self.restore(site))  # type: ignore[misc]  # bound at once
            elif not site.power.alive:
                self.do(site, site.start)
        self.schedule.run()
        for site in self.sites.values():
            self.do(site, lambda site=site: site.node.refresh_roster())  # type: ignore[misc]  # bound at once
        waiting, self.unanswered = self.unanswered, []
        self._open_gates()
        for site, written, of, kind in waiting:
            self.do(site, lambda s=site, w=written, o=of, k=kind: self.send(s, w, o, k))  # type: ignore[misc]
        self.schedule.run()
        # A log that signed two histories is stopped, at its own node too: whoever posts there is told so, for good. So is
        # one that lost leaves under a signed head.
        unanswered = [
            post for post in self.unanswered if post[0].state not in self.two_faced and not post[0].is_lost
        ]
        if unanswered:
            raise Broken(LINE, f"{len(unanswered)} posts get no answer although nothing is wrong")

    def _open_gates(self) -> None:
        """With everybody there, every honest log may grow again soon. One that never will takes back what there is of it."""
        for site in self.sites.values():
            if site.is_lost and site.honest:
                self.do(site, site.pass_gate)
        self.schedule.run()
        waiting: list[Site] = []
        for _ in range(GATE_ROUNDS):
            waiting = [
                site
                for site in self.sites.values()
                if (site.is_closed or site.is_being_restored) and not site.is_lost
            ]
            if self.mild or not waiting:
                return
            for site in waiting:
                self.do(site, site.pass_gate)
            self.schedule.run()
        stuck = [site for site in waiting if site.honest and (site.is_closed or site.is_being_restored)]
        if stuck:
            raise Broken(
                CONVERGENCE, f"{stuck[0].name} stays closed: {stuck[0].node.gate.why or 'not level'}"
            )

    def _confirm(self) -> None:
        """Every honest log is offered to all, and its history goes round; then all tell the same time."""
        logs = [
            site
            for site in self.sites.values()
            if site.honest and site.head(site.origin).size > 0 and not site.is_lost
        ]
        for site in logs:
            for code in self.codes:
                if code != site.state:
                    self.do(site, lambda s=site, c=code: s.offer(c))  # type: ignore[misc]  # bound at once
        self.schedule.run()
        for site in self.sites.values():
            for log in logs:
                if log is not site and site.honest:
                    self.do(site, lambda s=site, o=log.origin: s.follow(o))  # type: ignore[misc]
        self.schedule.run()
        honest = [site for site in self.sites.values() if site.honest]
        self.truth.tell_the_same_time(honest, [log.origin for log in logs])

    def _settle(self) -> None:
        """Rounds of looking, until a whole round has nothing to do. Looks that could find nothing are left out."""
        for round_ in range(QUIET_ROUNDS):
            before = self.network.traffic.messages
            for site in self.sites.values():
                self.do(site, site.publish)
            self.schedule.run()
            heads = {site.origin: site.head(site.origin) for site in self.sites.values()}
            for site in self.sites.values():
                for origin, head in heads.items():
                    again = round_ == 0 and origin[:2].upper() in self.two_faced
                    if origin == site.origin or head.size == site.head(origin).size == 0:
                        continue
                    if again or self._is_behind(site, origin, head):
                        self.do(site, lambda s=site, o=origin: s.look(o))  # type: ignore[misc]  # bound at once
                    elif round_ == 0:  # a new roster may judge otherwise
                        self.do(site, lambda s=site, o=origin: s.judge(o))  # type: ignore[misc]
            self.schedule.run()
            if self.network.traffic.messages == before:
                return
        raise Broken(CONVERGENCE, f"there is still something to fetch after {QUIET_ROUNDS} rounds")

    def _is_behind(self, site: Site, origin: str, head: Head) -> bool:
        """Whether another look could bring something. A log in which nothing was ever written brings nothing."""
        here = site.head(origin)
        if head.size == 0 or here.status != "ok":
            return False
        if not self.truth.logs[origin].honest:
            return here.size < head.size
        if self.sites[origin[:2].upper()].is_lost:  # and gives no body before it goes on in the next epoch
            return here.size < head.size or here.judged < here.size
        return here.size < head.size or here.judged < here.size or here.wanted > 0

    # ── backups ───────────────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, site: Site) -> None:
        """A node that was down starts on its backup. What neither that nor an honest mirror has of its log is lost, and nothing
        else may be.

        If only a dishonest node has more of it, or has seen a larger head, nobody can say what is lost: then the disk turns
        out to be whole. If an honest one has seen a head whose leaves are lost, the log must stay closed for good.
        """
        backup, site.backup, site.is_down = site.backup, None, False
        if backup is None:
            raise RuntimeError("there is no backup")
        others = [other for other in self.sites.values() if other is not site]
        honest = [other for other in others if other.honest]
        mirrored = max(other.stored(site.origin) for other in honest)
        seen = max(other.seen(site.origin) for other in honest)
        if (
            max(other.stored(site.origin) for other in others) > mirrored
            or max(other.seen(site.origin) for other in others) > seen
        ):
            self.note(f"{site.name} has its disk back")
            site.start()
            return
        had = site.stored(site.origin)
        self.note(f"{site.name} starts on a backup; {mirrored} of its {had} leaves are mirrored")
        mirrored = max(
            mirrored, leaves_in(backup, site.origin)
        )  # the backup may hold more of it than any mirror
        self.truth.restored(site, mirrored, seen, honest)
        site.is_lost = seen > mirrored
        if site.is_lost:
            self.note(f"{site.name} can never sign again: a head of size {seen} was seen")
        site.restore(backup)

    # ── membership ────────────────────────────────────────────────────────────────────────────────────────────────

    def rotate(self, site: Site) -> None:
        """Replace a contact point's key. The State's own node adopts it first; the others when they look."""
        officer = site.officer
        officer.rotations += 1
        old, new = officer.kid, f"{site.state}/cp/{officer.rotations + 1}"
        ((size,),) = site.disk.rows("SELECT size FROM logs WHERE is_own")
        keys = tuple(
            replace(k, revoked_at_index=size, suspect_from=BEGIN_S) if k.kid == old else k
            for k in self.roster.states[site.state].keys
        )
        fresh = RosterKey(new, "notices", key(new).public, BEGIN_S - 30 * DAY_S)
        self.change_roster(site.state, keys=(*keys, fresh))
        officer.kid = new
        site.roster_client.newest = self.roster
        self.note(f"{site.state} signs with {new} from index {size} on")
        site.node.refresh_roster()

    def rotate_node_key(self, site: Site, use: KeyUse, *, revoke: bool = False) -> None:
        """Give a node another log, witness or transport key: it lies there before the roster lists it, and a start takes it up.

        Args:
            revoke: the old one, from the index that its log has reached and from now on.
        """
        number = int(site.kids[use].rsplit("/", 1)[1]) + 1
        new = f"{site.state}/{use}/{number}"
        fresh = RosterKey(new, use, key(new).public, BEGIN_S - 30 * DAY_S)
        keys = self.roster.states[site.state].keys
        if revoke:
            ((size,),) = site.disk.rows("SELECT size FROM logs WHERE is_own")
            at = BEGIN_S + self.schedule.now // 1000
            old = site.kids[use]
            keys = tuple(
                replace(k, revoked_at_index=size, suspect_from=at) if k.kid == old else k for k in keys
            )
            self.note(f"{old} is revoked from index {size} on")
        self.change_roster(site.state, keys=(*keys, fresh))
        site.kids[use] = new
        self.note(f"{site.state} signs with {new}")
        site.kill()
        site.roster_client.roster = site.roster_client.newest = self.roster
        site.start()

    def suspend(self, site: Site) -> None:
        """The other States suspend one: what of its log is not confirmed yet does not count until it is taken back."""
        end = max(other.confirmed(site.origin) for other in self.sites.values() if other.honest)
        today = utc_day(BEGIN_S + self.schedule.now // 1000)
        self.change_roster(site.state, status="suspended", ends=((site.origin, end),), left=today)
        self.note(f"{site.state} is suspended; {end} of its leaves count")

    def take_back(self, site: Site) -> None:
        """It is a member again, and all that it logged counts."""
        self.change_roster(site.state, status="member", ends=(), left=None)
        self.note(f"{site.state} is a member again")

    def change_roster(self, state: str, **changes: object) -> None:
        """A new version of the roster, in which one State differs; sites adopt it when the seed says."""
        states = dict(self.roster.states)
        states[state] = replace(states[state], **changes)  # type: ignore[arg-type]
        version = self.roster.version + 1
        self.roster = replace(
            self.roster, version=version, sha256=f"{version:064x}", states=MappingProxyType(states)
        )


def _codes(count: int) -> tuple[str, ...]:
    """Subscribing States first; beyond them other codes, whose nodes mirror and witness."""
    known = sorted(STATES)
    others = sorted(code for code in ISO_3166_1 if code not in STATES)
    return tuple((known + others)[:count])
