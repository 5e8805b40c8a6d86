"""What a seed may do to a federation: work and accidents, drawn one step at a time. Malice is `app.simulation.malice`'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from app.domain.states import STATES
from app.simulation import malice
from app.simulation.network import Weather

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from app.domain.roster import KeyUse
    from app.simulation.site import Site
    from app.simulation.world import World

HOUR_MS: Final = 3_600_000
MAX_ROTATIONS: Final = 3
MAX_SUSPENDED: Final = 2
"""States that are no members at one time."""

Extent = Literal["mild", "usual", "members"]
"""What may happen in a run. mild: no start-up gate, no backup is restored, nobody gossips or accuses, and node keys stay.
members: everything, and States are suspended and taken back, and keys of nodes are revoked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the seed decided before anything began.

    Attributes:
        posters: States whose officers write.
        dishonest: States whose nodes may do anything, with what each does; at most f of them.
        rough: whether the network is bad.
    """

    posters: tuple[str, ...]
    dishonest: Mapping[str, frozenset[str]]
    rough: bool

    @classmethod
    def draw(cls, rng: random.Random, codes: tuple[str, ...], *, faultless: bool = False) -> Plan:
        """Draw one."""
        issuers = [code for code in codes if code in STATES]
        posters = tuple(rng.sample(issuers, rng.randrange(2, min(5, len(issuers)) + 1)))
        faulty = (len(codes) - 2) // 3  # f of m = n - 1 witnesses
        bad = [] if faultless else rng.sample(codes, rng.randrange(min(faulty, 3) + 1))
        if bad and rng.randrange(2):
            bad[0] = posters[-1]  # a log that nobody writes to has little to lie about
        return cls(posters, {code: malice.draw(rng) for code in bad}, rng.randrange(3) > 0)

    def weather(self, rng: random.Random) -> Weather:
        """How the network is at first."""
        if not self.rough:
            return Weather()
        return Weather(
            lost=rng.choice((0, 20, 100)),
            answer_lost=rng.choice((0, 20, 100)),
            doubled=rng.choice((0, 20, 100)),
            slowest_ms=rng.choice((20, 200, 2000)),
        )


def step(world: World) -> None:
    """One step of the run."""
    steps, weights = zip(*_OF_EXTENT[world.extent], strict=True)
    chosen: Callable[[World], None] = world.rng.choices(steps, weights)[0]
    chosen(world)


def _site(world: World) -> Site:
    return world.sites[world.rng.choice(world.codes)]


def _poster(world: World) -> Site:
    return world.sites[world.rng.choice(world.plan.posters)]


def _work_post(world: World) -> None:
    site = _poster(world)
    if site.power.alive:
        world.do(site, lambda: world.post(site))


def _work_publish(world: World) -> None:
    site = _poster(world)
    world.do(site, lambda: _publish_and_offer(world, site))


def _publish_and_offer(world: World, site: Site) -> None:
    site.publish()
    others = [code for code in world.codes if code != site.state]
    for code in world.rng.sample(others, min(len(others), world.rng.randrange(0, 5))):
        world.do(site, lambda code=code: site.offer(code))  # type: ignore[misc]  # bound at once


def _work_follow(world: World) -> None:
    site = _site(world)
    for origin in _some_origins(world, site, 3):
        world.do(site, lambda origin=origin: site.look(origin))  # type: ignore[misc]  # bound at once


def _some_origins(world: World, site: Site, count: int) -> list[str]:
    """Logs to look at: mostly those in which something is written."""
    rng = world.rng
    codes = world.plan.posters if rng.randrange(8) else world.codes
    others = [code for code in codes if code != site.state]
    return [world.sites[code].origin for code in rng.sample(others, min(len(others), count))]


def _work_judge(world: World) -> None:
    site = _site(world)
    for origin in _some_origins(world, site, 1):
        world.do(site, lambda origin=origin: site.judge(origin))  # type: ignore[misc]


def _fault_crash(world: World) -> None:
    """A process dies: at once, or at one of its next storage steps."""
    site = _poster(world) if world.rng.randrange(2) else _site(world)
    if not site.power.alive:
        return
    count = world.rng.randrange(0, 25)
    if count == 0:
        world.note(f"{site.name} killed")
        site.kill()
    else:
        world.note(f"{site.name} to die at storage step {count}")
        site.power.steps_left = count
    power = site.power

    def restart() -> None:
        if site.power is power and not site.is_down:
            site.kill()
            world.note(f"{site.name} starts again")
            site.start()

    world.do(site, restart, after=world.rng.randrange(200, 20_000))


def _fault_partition(world: World) -> None:
    """The States fall apart into two groups, or one is cut off; or everything is one again."""
    rng, cut = world.rng, world.network.cut
    if cut and rng.randrange(2):
        cut.clear()
        world.note("wires mended")
        return
    size = 1 if rng.randrange(2) else rng.randrange(1, len(world.codes))
    inside = set(rng.sample(world.codes, size))
    cut |= {frozenset((a, b)) for a in sorted(inside) for b in world.codes if b not in inside}
    world.note(f"cut off: {' '.join(sorted(inside))}")


def _fault_weather(world: World) -> None:
    world.network.weather = world.plan.weather(world.rng)


def _fault_clock(world: World) -> None:
    """A clock is set wrong, by seconds or by hours; or right again."""
    site = _site(world)
    rng = world.rng
    largest = rng.choice((0, 2000, 200_000, 6 * HOUR_MS))
    site.skew_ms = rng.randrange(-largest, largest + 1)
    world.note(f"{site.name}'s clock is off by {site.skew_ms} ms")


def _fault_rotate(world: World) -> None:
    """A State gives its contact point a new key and revokes the old one, at the index its log has reached."""
    site = _poster(world)
    if not site.honest or not site.power.alive or site.officer.rotations >= MAX_ROTATIONS:
        return
    world.do(site, lambda: world.rotate(site))


def _fault_adopt(world: World) -> None:
    """A node looks for the roster."""
    site = _site(world)
    if site.power.alive:
        site.roster_client.newest = world.roster
        world.do(site, lambda: site.run("roster", lambda node: node.refresh_roster()))


def _work_gate(world: World) -> None:
    """Nodes whose gate is closed, or that are not level after a restore, ask again."""
    for site in world.sites.values():
        if site.power.alive and (site.is_closed or site.is_being_restored):
            world.do(site, site.pass_gate)


def _work_gossip(world: World) -> None:
    site = _site(world)
    code = world.rng.choice([code for code in world.codes if code != site.state])
    if site.power.alive:
        world.do(site, lambda: site.gossip(code))


def _rests_on(other: Site, site: Site) -> bool:
    """Whether what this site knows of another's log may be all that is left of it: then no second disk is lost."""
    if other.is_lost:
        return site.seen(other.origin) > other.stored(other.origin)
    return other.is_down or other.is_closed or other.is_being_restored


def _fault_restore(world: World) -> None:
    """A backup is made; or the disk is lost, and after a while the node starts on the backup it has."""
    site = _poster(world) if world.rng.randrange(4) else _site(world)
    if not site.honest or not site.power.alive or site.is_being_restored:
        return
    if site.backup is None:
        site.backup = site.disk.copy()
        world.note(f"{site.name} is backed up")
        return
    if any(_rests_on(other, site) for other in world.sites.values() if other.honest and other is not site):
        return
    site.kill()
    site.is_down = True
    world.note(f"{site.name} has lost its disk")
    # Whoever still waits for an answer of it has given up by then.
    world.do(
        site, lambda: world.restore(site) if site.is_down else None, after=world.rng.randrange(25_000, 60_000)
    )


def _fault_node_key(world: World) -> None:
    """A node gets another key of one kind."""
    site = _poster(world)
    use: KeyUse = world.rng.choice(("log", "witness", "transport"))
    if site.honest and site.power.alive and site.kids[use].endswith("/1"):
        world.do(site, lambda: world.rotate_node_key(site, use))


def _fault_suspend(world: World) -> None:
    """The States suspend one of them: what a quorum has not confirmed of its log does not count until it is taken back."""
    site, standing = _site(world), world.roster.members()
    left = standing - {site.state}
    if site.state not in standing or len(world.codes) - len(left) > MAX_SUSPENDED:
        return
    # The dishonest that stay must still be so few that the others do not need them.
    if len(left & world.plan.dishonest.keys()) > (len(left) - 2) // 3:
        return
    world.suspend(site)


def _fault_take_back(world: World) -> None:
    """A suspended State is a member again."""
    away = [code for code in world.codes if code not in world.roster.members()]
    if away:
        world.take_back(world.sites[world.rng.choice(away)])


def _fault_revoke(world: World) -> None:
    """A node's key is stolen: it gets another, and the old one is revoked."""
    site = _poster(world) if world.rng.randrange(2) else _site(world)
    use: KeyUse = world.rng.choice(("log", "witness", "witness", "transport"))
    if site.honest and site.power.alive and site.kids[use].endswith("/1"):
        world.do(site, lambda: world.rotate_node_key(site, use, revoke=True))


def _malice(world: World) -> None:
    malice.step(world)


_STEPS: Final[tuple[tuple[Callable[[World], None], int], ...]] = (
    (_work_post, 20),
    (_work_publish, 18),
    (_work_follow, 40),
    (_work_judge, 10),
    (_fault_crash, 6),
    (_fault_partition, 2),
    (_fault_weather, 1),
    (_fault_clock, 3),
    (_fault_rotate, 1),
    (_fault_adopt, 6),
    (_malice, 8),
)
_ALL_STEPS: Final = (
    *_STEPS,
    (_work_gate, 20),
    (_work_gossip, 6),
    (_fault_restore, 6),
    (_fault_node_key, 1),
    (malice.accuse, 2),
)
_MEMBER_STEPS: Final = (
    *_ALL_STEPS,
    (_fault_suspend, 3),
    (_fault_take_back, 4),
    (_fault_revoke, 2),
)
_OF_EXTENT: Final = {"mild": _STEPS, "usual": _ALL_STEPS, "members": _MEMBER_STEPS}
