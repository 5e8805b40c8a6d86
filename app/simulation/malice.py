"""What a dishonest State's node may do: at most f of them, and none of the others may be the worse for it.

two-faced   its log has a second history, shown to some States only
smuggler    it logs what no local door would take: forged, stale, under a revoked key, with a body that breaks the rules
liar        its witness cosigns whatever it is offered and stores nothing
corrupt     what it relays has flipped bytes
withholder  it gives no bodies
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import update

from app import bodies
from app.domain.at_rest import seal_parts
from app.domain.errors import VerbaleError
from app.domain.statement import hash_leaf
from app.models import EntryRow, LogRow
from app.simulation.invariants import FORK_SEEN, Broken
from app.simulation.network import Answer
from app.simulation.officers import ALL, Written, key
from app.simulation.site import Site, url_of, witness_name
from app.simulation.storage import Disk
from app.tlog.checkpoint import Checkpoint
from app.tlog.cosignature import cosign
from app.tlog.evidence import Evidence
from app.tlog.note import parse as parse_note
from app.tlog.store import append_leaves, lock_log
from app.tlog.witness import Submission

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from app.simulation.world import World

KINDS: Final = ("two-faced", "smuggler", "liar", "corrupt", "withholder")


def draw(rng: random.Random) -> frozenset[str]:
    """What one dishonest node does."""
    return frozenset(rng.sample(KINDS, rng.randrange(1, 4)))


def step(world: World) -> None:
    """One act of malice, if there is anybody to do it."""
    acts = [
        (world.sites[code], kind)
        for code, kinds in world.plan.dishonest.items()
        for kind in sorted(kinds)
        if kind in _ACTS
    ]
    if not acts:
        return
    site, kind = world.rng.choice(acts)
    if site.power.alive:
        _ACTS[kind](world, site)


# ── false accusations ─────────────────────────────────────────────────────────────────────────────────────────────


def accuse(world: World) -> None:
    """A dishonest node brings a record of a fork that never was: true heads of an honest log, and a root made up."""
    accusers = [world.sites[code] for code in world.plan.dishonest if world.sites[code].power.alive]
    accused = [
        (site.origin, heads)
        for site in world.sites.values()
        if site.honest and len(heads := _signed(site.disk, site.origin)) > 1
    ]
    if not accusers or not accused:
        return
    rng = world.rng
    site, (origin, heads) = rng.choice(accusers), rng.choice(accused)
    older, newer = sorted(rng.sample(range(len(heads)), 2))
    record = Evidence(
        "fork", origin, heads[older], heads[newer], rng.randbytes(32), (rng.randbytes(32),)
    ).encode()
    world.note(f"{site.name} accuses {origin}")
    for code in rng.sample(world.codes, 3):
        if code != site.state:
            url = f"{url_of(code)}/evidence"
            world.do(site, lambda url=url: site.node.client.post(url, record, limit=2**14))  # type: ignore[misc]


def _signed(disk: Disk, origin: str) -> list[bytes]:
    sql = "SELECT note FROM heads JOIN logs ON logs.id = log_id WHERE origin = ? AND note IS NOT NULL AND heads.size > 0 ORDER BY heads.size"
    return [bytes(note) for (note,) in disk.rows(sql, origin)]


# ── two histories ─────────────────────────────────────────────────────────────────────────────────────────────────


def _be_two_faced(world: World, site: Site) -> None:
    """Begin a second history; from then on, let it grow and show it."""
    if site.state not in world.twins:
        others = [code for code in world.codes if code != site.state]
        shown_to = frozenset(world.rng.sample(others, world.rng.randrange(1, len(others))))
        twin = Site(world.around, site.state, world.roster, site.officer, name=f"{site.state}~")
        twin.honest = False
        twin.disk.replace(site.disk.copy())
        world.twins[site.state] = (twin, shown_to)
        world.note(f"{site.state} has a second history for {' '.join(sorted(shown_to))}")
        world.do(twin, twin.start)
        return
    twin, shown_to = world.twins[site.state]
    world.do(twin, lambda: world.post(twin))
    world.do(twin, twin.publish, after=500)
    for code in world.rng.sample(sorted(shown_to), min(3, len(shown_to))):
        world.do(twin, lambda code=code: twin.offer(code), after=1000)  # type: ignore[misc]  # bound at once


def check_forks(world: World) -> None:
    """Whoever holds what contradicts the history that is shown in the end must have found the fork.

    A longer history is no contradiction: the log went back, and nobody can tell a fork from that.

    Raises:
        Broken: a State that was shown both histories goes on as if there were one.
    """
    for state in world.two_faced:
        shown = world.sites[state]
        leaves = _leaves(shown.disk, shown.origin)
        for site in world.sites.values():
            if not site.honest:
                continue
            held = _leaves(site.disk, shown.origin)
            if held[: len(leaves)] != leaves[: len(held)] and site.head(shown.origin).status == "ok":
                raise Broken(
                    FORK_SEEN, f"{site.name} was shown two histories of {shown.origin} and noticed nothing"
                )


def check_gossip(world: World) -> None:
    """Two honest States that cosigned different histories find the fork when they speak with each other, and with nobody else.

    The log's own nodes are off meanwhile: whoever lies to them may never be heard of again.

    Raises:
        Broken: they have spoken, and one of them goes on as if there were one history.
    """
    for state in sorted(world.two_faced):
        liar = world.sites[state]
        pair = _deceived(world, liar.origin)
        if pair is None:
            continue
        liar.kill()
        for a, b in (pair, pair[::-1]):
            world.do(a, lambda a=a, b=b: a.gossip(b.state))  # type: ignore[misc]  # bound at once
            world.schedule.run()
        for site in pair:
            if site.head(liar.origin).status == "ok":
                raise Broken(
                    FORK_SEEN,
                    f"{pair[0].name} and {pair[1].name} were shown two histories of {liar.origin}, spoke, and {site.name} noticed nothing",
                )
        world.do(liar, liar.start)
        world.schedule.run()


def _deceived(world: World, origin: str) -> tuple[Site, Site] | None:
    """Two honest sites whose cosigned histories of a log contradict each other, if there are."""
    honest = [site for site in world.sites.values() if site.honest]
    cosigned = [(site, _leaves(site.disk, origin)[: site.cosigned(origin)]) for site in honest]
    for a, one in cosigned:
        for b, other in cosigned:
            if one[: len(other)] != other[: len(one)]:
                return a, b
    return None


def _leaves(disk: Disk, origin: str) -> list[bytes]:
    rows = disk.rows(
        "SELECT leaf_hash FROM leaves JOIN logs ON logs.id = log_id WHERE origin = ? AND idx < head_size ORDER BY idx",
        origin,
    )
    return [leaf_hash for (leaf_hash,) in rows]


# ── what no local door would take ─────────────────────────────────────────────────────────────────────────────────


def _smuggle(world: World, site: Site) -> None:
    forgery = world.rng.choice(_FORGERIES)
    if forgery is _under_a_revoked_key and site.officer.rotations == 0:
        world.do(site, lambda: world.rotate(site))
        return
    written = forgery(world, site)
    world.truth.wrote(site.state, written)
    (outcome,) = site.node.intake.judge([written.signed()])
    if not isinstance(outcome, VerbaleError):
        return  # no forgery after all: a key that is not revoked yet, for instance
    world.truth.logs[site.origin].refused[written.statement.leaf_hash] = outcome.code
    world.note(f"{site.name} logs what is {outcome.code}")
    world.do(site, lambda: append_raw(site, written))


def append_raw(site: Site, written: Written) -> None:
    """Put a leaf and its body into the site's log past the local door."""
    node, now = site.node, site.clock()
    leaf_hash = hash_leaf(written.statement.leaf)
    with node.db.write() as session:
        log = lock_log(session, node.log_id)
        append_leaves(node.db, session, log, [(leaf_hash, written.statement.leaf)], at=now)
        entry = EntryRow(
            log_id=log.id,
            idx=log.size,
            leaf_hash=leaf_hash,
            received_at=now,
            body_state="held",
            tlp_rank=0,
            audience=ALL,
        )
        session.add(entry)
        session.flush()
        bodies.store(node.db, session, log.id, [(log.size, seal_parts(log.size, written.parts), now)])
        session.execute(update(LogRow).where(LogRow.id == log.id).values(judged=LogRow.size))


def _forged(world: World, site: Site) -> Written:
    """Signed by somebody else's key."""
    return _signed_with(world, site, f"{site.state}/forger/1")


def _under_a_revoked_key(world: World, site: Site) -> Written:
    """Signed by a thief with the first key, and dated to when that key was good."""
    return _signed_with(world, site, f"{site.state}/cp/1", earlier_s=7200)


def _signed_with(world: World, site: Site, label: str, earlier_s: int = 0) -> Written:
    officer = replace(site.officer, kid=f"{site.state}/cp/1", signer=key(label))
    return officer.issue(site.now_s - earlier_s, world.audience(site.state))


def _for_another_log(world: World, site: Site) -> Written:
    """Signed for another log."""
    other = world.rng.choice([code for code in world.codes if code != site.state])
    return replace(site.officer, origin=world.sites[other].origin).issue(site.now_s, ALL)


def _in_anothers_name(world: World, site: Site) -> Written:
    """A body that says another State wrote it."""
    other = world.rng.choice([code for code in world.plan.posters if code != site.state])
    return replace(site.officer, speaks_for=other).issue(site.now_s, ALL)


_FORGERIES: Final[tuple[Callable[[World, Site], Written], ...]] = (
    _forged,
    _under_a_revoked_key,
    _for_another_log,
    _in_anothers_name,
)
_ACTS: Final[dict[str, Callable[[World, Site], None]]] = {"two-faced": _be_two_faced, "smuggler": _smuggle}


# ── what is answered ──────────────────────────────────────────────────────────────────────────────────────────────


def bend(world: World, receiver: Site, path: str, content: bytes, answer: Answer) -> Answer:
    """What a dishonest receiver makes of its answer."""
    kinds = world.plan.dishonest.get(receiver.state, frozenset())
    if receiver.state in world.two_faced:
        return answer  # at the end its last history is served as it is: a fork has to be seen to be found
    if "liar" in kinds and path == "/witness/add-checkpoint":
        return _cosign_anything(receiver, content, answer)
    if "withholder" in kinds and path == "/bodies":
        return Answer(200, b"", answer.date)
    if "corrupt" in kinds and answer.status == 200 and answer.body and world.rng.randrange(2):  # noqa: PLR2004 - OK
        at = world.rng.randrange(len(answer.body))
        flipped = bytes((answer.body[at] ^ 1 << world.rng.randrange(8),))
        return Answer(200, answer.body[:at] + flipped + answer.body[at + 1 :], answer.date)
    return answer


def _cosign_anything(receiver: Site, content: bytes, answer: Answer) -> Answer:
    checkpoint = Checkpoint.parse(parse_note(Submission.parse(content).checkpoint).text)
    line = cosign(checkpoint, witness_name(receiver.state), key(receiver.kids["witness"]), receiver.now_s)
    return Answer(200, line.line(), answer.date)
