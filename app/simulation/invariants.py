"""What must hold, whatever the seed does: checked from outside, at every commit, signature and answer, and at the end.

`Truth` is what an all-seeing observer knows: what was written, what was acknowledged, which State an audience names, who is
dishonest. It reads the disks directly and restates the rules in its own words, so that a fault in the code under test does
not hide itself. Each check names the invariant of ARCHITECTURE.md it stands for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import orjson

from app.domain.at_rest import unseal
from app.domain.encoding import b64u_decode
from app.models import Base
from app.simulation.officers import Written
from app.tlog.checkpoint import Checkpoint
from app.tlog.merkle import Frontier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.domain.statement import Part
    from app.simulation.network import Answer
    from app.simulation.site import Site

DURABLE: Final = "acknowledged is durable"
ONE_ROOT: Final = "one root for a size"
BOTH_DOORS: Final = "both doors agree"
NO_GAP: Final = "no silent gap"
GATE: Final = "one gate"
SAME_ROWS: Final = "replicas with the same leaves have the same rows"
ERASED: Final = "erased is gone"
NOT_KEPT: Final = "a mirror keeps no body of a leaf that does not count"
LINE: Final = "bad input never stops the line"
STORED: Final = "stored before cosigned"
CONVERGENCE: Final = "convergence after the network heals"
NO_FRAME: Final = "nobody can frame an honest State"
SAME_TIME: Final = "every node tells the same time"
FORK_SEEN: Final = "a fork that was shown is found"


class Broken(BaseException):
    """An invariant does not hold. Not an Exception: no loop of the code under test may catch it."""

    def __init__(self, invariant: str, what: str) -> None:
        """Name the invariant and what was seen."""
        super().__init__(f"{invariant}: {what}")
        self.invariant, self.what = invariant, what


@dataclass(slots=True)
class _Seen:
    """What was last found of one log on one disk."""

    size: int = 0
    head_size: int = 0
    frontier: Frontier = field(default_factory=Frontier)


@dataclass(slots=True)
class LogTruth:
    """What is true of one log.

    Attributes:
        leaves: leaf hashes by index, as its honest node first committed them.
        acknowledged: index → leaf hash that a receipt named.
        roots: size → root that its key signed.
        written: what stands at an index, of the officer's.
        refused: leaf hash → the local door's refusal, for leaves that a dishonest node logged all the same.
    """

    honest: bool = True
    leaves: dict[int, bytes] = field(default_factory=dict)
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)
    written: dict[int, Written] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)


class Truth:
    """See the module."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.logs: dict[str, LogTruth] = defaultdict(LogTruth)
        self.contents: dict[bytes, tuple[str, Written]] = {}
        self.erased: dict[str, dict[str, int]] = defaultdict(
            dict
        )  # origin → statement id → index of the erasure
        self.lost: set[tuple[str, int]] = set()
        self.cosigned: dict[tuple[str, str, int], bytes] = {}
        self._seen: dict[tuple[str, str], _Seen] = {}

    # ── what happened ─────────────────────────────────────────────────────────────────────────────────────────────

    def wrote(self, state: str, written: Written) -> None:
        """An officer signed something; from now on its contents may turn up anywhere its audience is."""
        for part in written.parts.values():
            self.contents[part.content] = (state, written)

    def acknowledged(self, site: Site, index: int, written: Written) -> None:
        """A receipt was given."""
        log = self.logs[site.origin]
        leaf_hash = written.statement.leaf_hash
        if log.acknowledged.setdefault(index, leaf_hash) != leaf_hash:
            raise Broken(DURABLE, f"{site.name} gave index {index} to two notices")
        log.written[index] = written
        if log.leaves.get(index) != leaf_hash:
            raise Broken(DURABLE, f"{site.name} acknowledged index {index} before it was committed")

    def restored(self, site: Site, mirrored: int, seen: int, others: list[Site]) -> None:
        """A disk was put back.

        Args:
            mirrored: what no honest mirror holds is lost with it; this is the first such index.
            seen: the largest signed head that an honest node has seen: up to it, no other root may ever be signed.
            others: honest nodes.
        """
        for key in [key for key in self._seen if key[0] == site.name]:
            del self._seen[key]
        log = self.logs[site.origin]
        for book in (log.leaves, log.acknowledged, log.written):
            for index in [index for index in book if index >= mirrored]:
                del book[index]
        # An erasure that is lost erases nothing. Whoever asked for the body meanwhile was given none, and does not ask again.
        erased = self.erased[site.origin]
        undone = {id_ for id_, index in erased.items() if index >= mirrored}
        for id_ in undone:
            del erased[id_]
        self.lost |= {
            (site.origin, i) for i, written in log.written.items() if written.statement.id in undone
        }
        for size in [size for size in log.roots if size > max(mirrored, seen)]:
            del log.roots[size]
        held = {
            index
            for other in others
            for (index,) in other.disk.rows(
                "SELECT idx FROM entries JOIN logs ON logs.id = log_id WHERE origin = ? AND body_state = 'held'",
                site.origin,
            )
        }
        self.lost |= {(site.origin, index) for index in log.written if index not in held}

    def tell_the_same_time(self, sites: list[Site], origins: list[str]) -> None:
        """The times between which the leaves of these honest logs were logged are the same at every node."""
        for origin in origins:
            told: dict[str, list[tuple[Any, ...]]] = {
                site.name: site.disk.rows(
                    "SELECT c.size, c.at FROM confirmations c JOIN logs ON logs.id = c.log_id WHERE origin = ? ORDER BY 1, 2",
                    origin,
                )
                for site in sites
            }
            if len({tuple(rows) for rows in told.values()}) > 1:
                (first, one), *rest = told.items()
                other, two = next((name, rows) for name, rows in rest if rows != one)
                raise Broken(SAME_TIME, f"of {origin} {first} knows {one}, {other} {two}")

    # ── at every commit ───────────────────────────────────────────────────────────────────────────────────────────

    def committed(self, site: Site) -> None:
        """Look at what changed on a disk: logs only grow, by leaves that hash to what was signed."""
        for log_id, origin, size, head_size, head_root, judged, status in site.disk.rows(
            "SELECT id, origin, size, head_size, head_root, judged, status FROM logs"
        ):
            seen = self._seen.setdefault((site.name, origin), _Seen())
            truth = self.logs[origin]
            if truth.honest and status != "ok":
                raise Broken(NO_FRAME, f"{site.name} froze {origin}, whose State is honest")
            if judged > size or (head_size > size and origin == site.origin):
                raise Broken(
                    NO_GAP, f"{site.name} judged {judged}, head {head_size}, of {size} leaves of {origin}"
                )
            if size == seen.size and head_size == seen.head_size:
                continue
            if size < seen.size or head_size < seen.head_size:
                raise Broken(DURABLE, f"{origin} at {site.name} went from {seen.size} to {size} leaves")
            rows = site.disk.rows(
                "SELECT idx, leaf_hash FROM leaves WHERE log_id = ? AND idx >= ? ORDER BY idx",
                log_id,
                seen.size,
            )
            if [idx for idx, _ in rows] != list(range(seen.size, size)):
                raise Broken(NO_GAP, f"{origin} at {site.name} has size {size} and not all of its leaves")
            if truth.honest:
                self._compare(site, origin, truth, rows)
            self._seen[site.name, origin] = self._grown(site, origin, seen, rows, head_size, head_root)

    def _compare(self, site: Site, origin: str, truth: LogTruth, rows: list[tuple[Any, ...]]) -> None:
        for index, leaf_hash in rows:
            if origin != site.origin and index not in truth.leaves:
                raise Broken(
                    NO_GAP, f"{site.name} holds leaf {index} of {origin}, which {origin} never committed"
                )
            if truth.leaves.setdefault(index, leaf_hash) != leaf_hash:
                raise Broken(DURABLE, f"index {index} of {origin} belongs to another leaf at {site.name}")

    def _grown(
        self,
        site: Site,
        origin: str,
        seen: _Seen,
        rows: list[tuple[Any, ...]],
        head_size: int,
        head_root: bytes | None,
    ) -> _Seen:
        frontier = seen.frontier
        if head_size > seen.head_size and seen.size <= head_size <= seen.size + len(rows):
            cut = head_size - seen.size
            frontier = frontier.extend([leaf_hash for _, leaf_hash in rows[:cut]])
            if frontier.root() != head_root:
                raise Broken(
                    ONE_ROOT, f"the head {head_size} of {origin} at {site.name} is not the root of its leaves"
                )
            rows = rows[cut:]
        frontier = frontier.extend([leaf_hash for _, leaf_hash in rows])
        return _Seen(frontier.size, head_size, frontier)

    # ── at every signature ────────────────────────────────────────────────────────────────────────────────────────

    def signs_head(self, site: Site, message: bytes) -> None:
        """A log key is about to sign: the decision must be on the disk, and the only one for its size."""
        checkpoint = Checkpoint.parse(message)
        if not site.honest:
            return
        decided = site.disk.rows(
            "SELECT root FROM heads JOIN logs ON logs.id = heads.log_id WHERE origin = ? AND heads.size = ?",
            checkpoint.origin,
            checkpoint.size,
        )
        if site.disk.raw.in_transaction or decided != [(checkpoint.root,)]:
            raise Broken(ONE_ROOT, f"{site.name} signs size {checkpoint.size} before that is committed")
        roots = self.logs[checkpoint.origin].roots
        if roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise Broken(ONE_ROOT, f"{site.name} signs a second root for size {checkpoint.size}")

    def signs_receipt(self, site: Site, message: bytes) -> None:
        """A witness key is about to cosign: all leaves must be on the disk, and the root theirs."""
        text = message.split(b"\n", 2)[2]
        checkpoint = Checkpoint.parse(text)
        if not site.honest:
            return
        hashes = [
            leaf_hash
            for (leaf_hash,) in site.disk.rows(
                "SELECT leaf_hash FROM leaves JOIN logs ON logs.id = log_id WHERE origin = ? AND idx < ? ORDER BY idx",
                checkpoint.origin,
                checkpoint.size,
            )
        ]
        if len(hashes) < checkpoint.size:
            raise Broken(
                STORED,
                f"{site.name} cosigns size {checkpoint.size} of {checkpoint.origin}, holds {len(hashes)}",
            )
        if Frontier().extend(hashes).root() != checkpoint.root:
            raise Broken(
                STORED, f"{site.name} cosigns a root of {checkpoint.origin} that its leaves do not give"
            )
        key = (site.name, checkpoint.origin, checkpoint.size)
        if self.cosigned.setdefault(key, checkpoint.root) != checkpoint.root:
            raise Broken(
                ONE_ROOT, f"{site.name} cosigns two roots for size {checkpoint.size} of {checkpoint.origin}"
            )

    # ── at every answer ───────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, sender: Site, receiver: Site, path: str, answer: Answer) -> None:
        """An honest node's answer leaves: no body goes to a State that its audience does not name."""
        if path != "/bodies" or answer.status != 200 or not receiver.honest:  # noqa: PLR2004 - OK
            return
        for line in answer.body.splitlines():
            for part in orjson.loads(line).get("parts", {}).values():
                self._may_hold(sender, b64u_decode(part["content"]), f"{receiver.name} gives {sender.name}")

    def _may_hold(self, site: Site, content: bytes, what: str) -> None:
        issuer, written = self.contents[content]
        if not written.may_be_read_by(site.state, issuer):
            raise Broken(GATE, f"{what} a body of {issuer} that is for {sorted(written.audience)}")

    # ── a whole disk ──────────────────────────────────────────────────────────────────────────────────────────────

    def check(self, site: Site) -> None:
        """Everything that must be true of one honest disk at any moment."""
        self.committed(site)
        own = self.logs[site.origin]
        leaves = dict(
            site.disk.rows("SELECT idx, leaf_hash FROM leaves JOIN logs ON logs.id = log_id WHERE is_own")
        )
        for index, leaf_hash in own.acknowledged.items():
            if leaves.get(index) != leaf_hash:
                raise Broken(DURABLE, f"{site.name} no longer holds the acknowledged index {index}")
        for origin, _, part in _opened(site):
            if self.logs[origin].honest:  # a dishonest issuer may give its own to anybody
                self._may_hold(site, part.content, f"{site.name} holds")

    def _check_verdicts(self, site: Site) -> None:
        """Once everybody has the same roster: before, a verdict may wait for it."""
        rows = site.disk.rows(
            "SELECT origin, idx, leaf_hash, fault_code, body_state, body_fault_code FROM entries "
            "JOIN logs ON logs.id = log_id"
        )
        for origin, index, leaf_hash, fault, body_state, body_fault in rows:
            log = self.logs[origin]
            refused = log.refused.get(leaf_hash)
            if origin == site.origin and not log.honest:
                continue
            if leaf_hash in log.refused:
                if refused not in (fault, body_fault) and body_state in ("held", "none"):
                    raise Broken(
                        BOTH_DOORS,
                        f"{origin} {index}: the local door says {refused}, {site.name} {fault or body_fault}",
                    )
            elif log.honest and (fault or body_fault):
                raise Broken(
                    BOTH_DOORS, f"{origin} {index} was accepted there, {site.name} says {fault or body_fault}"
                )

    # ── when all is quiet ─────────────────────────────────────────────────────────────────────────────────────────

    def settled(self, sites: list[Site], closed: frozenset[str] = frozenset()) -> None:
        """After the network healed and everybody had time: everything honest is everywhere, the same, and no more.

        Args:
            closed: logs that cannot go on; their nodes give no bodies before the next epoch.
        """
        heads = {site.origin: site.head(site.origin) for site in sites}
        for site in sites:
            self.check(site)
            self._check_verdicts(site)
            for origin, head in heads.items():
                here = site.head(origin)
                if head.size > 0 and (
                    (here.size, here.root) != (head.size, head.root) or here.judged != here.size
                ):
                    raise Broken(
                        CONVERGENCE,
                        f"{site.name} has {here.judged} judged of {here.size} of {origin}, which has {head.size}",
                    )
            for origin in self.logs:
                here = site.head(origin)
                if origin == site.origin and origin in closed:
                    continue  # what was taken before the disk was lost is never signed
                if here.status == "ok" and here.judged != here.size:
                    raise Broken(LINE, f"{site.name} has judged {here.judged} of {here.size} of {origin}")
            self._bodies_are_where_they_should(site, closed)
            self._what_does_not_count_is_not_kept(site)
            self._erased_is_gone(site)
        self._rows_are_the_same(sites)

    def _bodies_are_where_they_should(self, site: Site, closed: frozenset[str]) -> None:
        rows = site.disk.rows("SELECT origin, idx, body_state FROM entries JOIN logs ON logs.id = log_id")
        for origin, index, state in rows:
            log = self.logs[origin]
            written = log.written.get(index)
            if not log.honest or written is None or not written.parts:
                continue
            if (origin, index) in self.lost or (origin in closed and state == "wanted"):
                continue
            if state == "erased" or written.statement.id in self.erased[origin]:
                continue
            entitled = written.may_be_read_by(site.state, origin[:2].upper())
            if state != ("held" if entitled else "absent"):
                raise Broken(CONVERGENCE, f"the body of {origin} {index} is {state} at {site.name}")

    def _what_does_not_count_is_not_kept(self, site: Site) -> None:
        rows = site.disk.rows(_KEPT, site.state)
        if rows:
            origin, index, fault = rows[0]
            raise Broken(NOT_KEPT, f"{site.name} has the body of {origin} {index}, which is {fault}")

    def _erased_is_gone(self, site: Site) -> None:
        marks = [
            (written.mark, f"{origin} {index}")
            for origin, ids in self.erased.items()
            if self.logs[origin].honest
            for index, written in self.logs[origin].written.items()
            if written.mark and written.statement.id in ids
        ]
        if not marks:
            return
        whole = site.disk.copy()
        for mark, which in marks:
            if mark.encode() in whole:
                raise Broken(
                    ERASED, f"{site.name} still has the text of {which}, which is erased, on its disk"
                )

    def _rows_are_the_same(self, sites: Iterable[Site]) -> None:
        for origin in list(self.logs):
            found: dict[bytes, tuple[str, bytes]] = {}
            for site in sites:
                if origin == site.origin and not site.honest:
                    continue
                group, rows = _digest(site, origin)
                name, first = found.setdefault(group, (site.name, rows))
                if first != rows:
                    raise Broken(SAME_ROWS, f"{name} and {site.name} hold {origin} with different rows")


LOCAL: Final = frozenset({"log_id", "seq", "received_at", "changed_at", "held_at", "at", "live"})
"""What may differ between nodes: local numbers, order and times of arrival."""
SHARED_TABLES: Final = ("entries", "notices", "notice_terms")


def _columns(table: str) -> str:
    return ", ".join(f'"{c.name}"' for c in Base.metadata.tables[table].columns if c.name not in LOCAL)


_SELECTS: Final = {
    table: f"SELECT {_columns(table)} FROM {table} WHERE log_id = (SELECT id FROM logs WHERE origin = ?)"  # noqa: S608 - our own names
    for table in SHARED_TABLES
}
_STANDING: Final = "SELECT leaf_hash, body_state FROM entries WHERE log_id = (SELECT id FROM logs WHERE origin = ?) ORDER BY idx"
_COUNTING: Final = (
    "SELECT e.idx FROM entries e JOIN logs ON logs.id = e.log_id WHERE fault_code IS NULL AND origin = ?"
)
_KEPT: Final = (
    "SELECT origin, e.idx, fault_code FROM entries e JOIN bodies b ON b.log_id = e.log_id AND b.idx = e.idx "
    "JOIN logs ON logs.id = e.log_id WHERE fault_code IS NOT NULL AND state <> ?"
)


def _digest(site: Site, origin: str) -> tuple[bytes, bytes]:
    """(what a node was given of a log, what it made of it): equal first halves must have equal second halves."""
    group = sha256(repr(site.disk.rows(_STANDING, origin)).encode()).digest()
    rows = sha256()
    counting = {
        index for (index,) in site.disk.rows(_COUNTING, origin)
    }  # of the rest its issuer alone keeps bodies
    held = [(index, part) for of, index, part in _opened(site) if of == origin and index in counting]
    rows.update(repr(held).encode())
    for table, select in _SELECTS.items():
        rows.update(table.encode())
        for row in sorted(map(repr, site.disk.rows(select, origin))):
            rows.update(row.encode())
    return group, rows.digest()


def _opened(site: Site) -> list[tuple[str, int, Part]]:
    """Every body on a disk: (origin, index, part)."""
    return [
        (origin, index, unseal(key, index, part, sealed))
        for origin, index, part, sealed, key in site.disk.rows(
            "SELECT origin, b.idx, part, sealed, key FROM bodies b JOIN body_keys k ON k.log_id = b.log_id AND k.idx = b.idx "
            "JOIN logs ON logs.id = b.log_id ORDER BY origin, b.idx, part"
        )
    ]
