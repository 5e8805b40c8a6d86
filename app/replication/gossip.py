"""Gossip: what others show of every log is held against what is proven here, and what convicts anybody is passed on.

For each other State one loop (`hear_from`): read what its witness cosigned last of every log, and the `anchor` leaves of its
own; tell its node of evidence it has not taken yet. For the node itself one loop (`look_after`): the size at which a frozen
log is frozen, heads that are withheld, bodies of the own log that are missing, the node's own statements.

Guarantees: a log that shows different heads to different States is found out as soon as two honest nodes can reach each
other. A peer that serves rubbish is logged and accuses nobody. Each peer has its own loop: one that hangs delays no other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, literal_column, select, update

from app import bodies as stored_bodies
from app.domain.encoding import b64u_encode
from app.domain.epochs import continuation
from app.domain.errors import MalformedJson, PeerFault, VerbaleError
from app.domain.json import parse_strict
from app.events import Event, emit
from app.models import (
    EntryRow,
    ErasureSaidRow,
    EventRow,
    EvidenceRow,
    EvidenceToldRow,
    LogRow,
    RosterSaidRow,
    WatchRow,
)
from app.projections.said import MAX_ERASURES
from app.replication.client import MAX_CHECKPOINT_BYTES, mirror_url, mirrors_of
from app.replication.follow import advance_from, read_followed
from app.replication.forks import (
    MAX_RECORDS,
    CheckpointFork,
    EndDiffers,
    EndMissing,
    bad_leaves_known,
    contradiction,
    convict,
    keep,
    own_lines,
    prefix_of,
    remote_nodes,
    report_bad_leaf,
    root_here,
    settle_ended,
    settle_frozen,
    verified,
    watch_log,
)
from app.replication.startup import Shown, ask_witness
from app.replication.witness import WitnessEndpoint, collect_cosignatures, log_keys, set_log_error
from app.tlog.checkpoint import Checkpoint, open_checkpoint
from app.tlog.evidence import Evidence, Sighting
from app.tlog.note import Note
from app.tlog.note import parse as parse_note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from app.clock import Clock
    from app.db import Database
    from app.domain.roster import Roster, RosterLog
    from app.replication.client import PeerClient
    from app.replication.startup import Gate

log = logging.getLogger(__name__)

WITHHELD_MS: Final = 30 * 60_000
"""A head that others show and its own log does not serve for so long is reported as withheld."""
ANCHOR_S: Final = 3600
BAD_LEAF: Final = ("malformed-statement", "wrong-log")
"""Faults of a leaf that anybody can see without a roster: its log's key signed a head over it, and that convicts."""
_IS_ANCHOR: Final = EntryRow.kind == literal_column("'anchor'")
"""Not bound: there is an index of anchors."""
MAX_ANCHORS: Final = 48
"""Anchors of one log read in one round: two days of them."""
MAX_ANSWER: Final = 16 * 2**10
TAKEN, REFUSED_FOR_GOOD = (200, 201), (404, 405, 413, 422)


class Vigil:
    """See the module."""

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
        gate: Gate,
        say: Callable[[str, dict[str, Any]], int | None],
        on_growth: Callable[[int], None],
        cleaned: Callable[[], int | None],
    ) -> None:
        """Ask nobody yet.

        Args:
            say: logs a statement of the node itself (kind, main part); its index, or None if it cannot now.
            on_growth: called with the row id of a log that grew by what somebody showed.
            cleaned: the newest event up to which erased bodies have left the files as well, or None.
        """
        self._db, self._client, self._clock = db, client, clock
        self._log_id, self._origin, self._state = log_id, origin, state
        self._roster, self._gate, self._say, self._on_growth = roster, gate, say, on_growth
        self._anchored: dict[int, int] = {}
        self._since = clock()
        self._cleaned = cleaned
        self._looked: dict[int, int] = {}  # log → its leaves below this index were looked at for bad ones
        self._erased_upto: int | None = None  # event up to which erasures have been spoken of
        self._follows: str | None = None  # digest of the roster that was spoken of last
        self._first: str | None = None  # of the one in force at the start

    # ── one peer ──────────────────────────────────────────────────────────────────────────────────────────────────

    def hear_from(self, witness: WitnessEndpoint) -> bool:
        """Read what one State's witness shows of every log, and its anchors; tell it of evidence. Returns False.

        Raises:
            PeerFault: it does not answer at all.
        """
        roster = self._roster()
        with self._db.read() as session:
            logs = session.execute(
                select(LogRow.id, LogRow.origin, LogRow.state, LogRow.is_own, LogRow.status).order_by(
                    LogRow.id
                )
            ).all()
        last: PeerFault | None = None
        answered = False
        for log_id, origin, state, is_own, status in logs:
            if state == witness.state or roster.log(origin) is None or (status != "ok" and not is_own):
                continue
            try:
                shown = ask_witness(self._client, witness, origin, roster)
                answered = True
                if is_own:
                    self._gate.compare_own(shown, roster)
                else:
                    self.take_shown(log_id, shown, roster)
            except CheckpointFork as fork:
                set_log_error(self._db, log_id, fork, now=self._clock())
            except PeerFault as fault:
                last = fault
                log.info(
                    "nothing heard",
                    extra={"action": "gossip_failed", "origin": origin, "why": str(fault)[:300]},
                )
        if witness.state is not None:
            self._read_anchors(witness.state, roster)
            self._tell(witness)
        if last is not None and not answered:
            raise last
        return False

    def take_shown(self, log_id: int, shown: Shown, roster: Roster) -> None:
        """A foreign log's head that a witness shows.

        Raises:
            PeerFault: see `take_head`.
        """
        if shown.head is None or shown.note is None:
            return
        peer = roster.states.get(shown.witness.state or "")
        mirror = () if peer is None or peer.url is None else (mirror_url(peer.url, shown.head.origin),)
        who = shown.witness.state or shown.witness.name
        self.take_head(log_id, shown.head, shown.note, roster, where=f"witness {who}"[:100], mirrors=mirror)

    def take_head(
        self,
        log_id: int,
        head: Checkpoint,
        note: Note,
        roster: Roster,
        *,
        where: str,
        mirrors: Sequence[str] = (),
    ) -> None:
        """Hold a verified head of a foreign log, wherever it was seen, against what is proven here.

        Args:
            mirrors: where the tree under it can be had besides at its origin.

        Raises:
            CheckpointFork: it contradicts what the log signed before; the record is kept and the log frozen.
            PeerFault: nobody gives what is needed to tell; it is asked for again.
        """
        with self._db.read() as session:
            ours = root_here(session, log_id, head.size)
            mirror = read_followed(session, log_id)
        if mirror.status != "ok":
            return
        listed = roster.log(head.origin)
        sources = (*mirrors, *((listed.url,) if listed else ()))
        if ours is None:
            self._note_shown(log_id, head, note, where)
            self._grow(log_id, head, note, roster, sources)
        elif ours != head.root and mirror.head_note is not None:
            found = contradiction(
                self._db,
                self._client,
                log_id,
                parse_note(mirror.head_note),
                note,
                sources=sources,
                roster=roster,
                seen=[Sighting(self._clock() // 1000, self._state, where)],
            )
            if found is not None:
                raise convict(self._db, found, roster=roster, now=self._clock())
        elif ours == head.root:
            self._note_shown(log_id, head, note, where)
            collect_cosignatures(self._db, log_id, head.size, note, roster)

    def _grow(
        self, log_id: int, head: Checkpoint, note: Note, roster: Roster, sources: Sequence[str]
    ) -> None:
        grew = advance_from(
            self._db,
            self._client,
            log_id,
            sources,
            head,
            note,
            roster=roster,
            clock=self._clock,
            state=self._state,
        )
        if grew:
            self._on_growth(log_id)

    def _note_shown(self, log_id: int, head: Checkpoint, note: Note, where: str) -> None:
        """Remember the first time that a head was shown which its own log does not serve."""
        with self._db.read() as session:
            row = session.execute(
                select(WatchRow.served_size, WatchRow.shown_size).where(WatchRow.log_id == log_id)
            ).one_or_none()
        served, shown = row if row is not None else (0, 0)
        if head.size <= served or served < shown <= head.size:
            return  # it serves it; or an earlier one is missing already, and the time runs since then
        with self._db.write() as session:
            watch_log(
                self._db,
                session,
                log_id,
                shown_size=head.size,
                shown_note=note.encode(),
                shown_by=where,
                shown_at=self._clock(),
            )

    # ── anchors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_anchors(self, state: str, roster: Roster) -> None:
        with self._db.read() as session:
            mine = session.scalars(
                select(LogRow.id).where(LogRow.state == state, LogRow.is_own.is_(False))
            ).all()
            found: dict[int, dict[int, bytes]] = {}
            for log_id in mine:
                indexes = session.scalars(
                    select(EntryRow.idx)
                    .where(
                        EntryRow.log_id == log_id,
                        _IS_ANCHOR,
                        EntryRow.fault_code.is_(None),
                        EntryRow.body_state == "held",
                        EntryRow.idx > self._anchored.get(log_id, -1),
                    )
                    .order_by(EntryRow.idx.desc())
                    .limit(MAX_ANCHORS)
                ).all()
                found[log_id] = stored_bodies.main_parts(session, log_id, indexes)
        for log_id, mains in found.items():
            for index, main in sorted(mains.items()):
                self.take_anchor(main, state, roster)
                self._anchored[log_id] = index

    def take_anchor(self, main: bytes, state: str, roster: Roster) -> None:
        """Hold every head that a State's anchor names against what is proven here. What cannot be read is passed over."""
        for origin, raw in anchored_heads(main):
            with self._db.read() as session:
                row = session.execute(
                    select(LogRow.id, LogRow.is_own).where(LogRow.origin == origin)
                ).one_or_none()
            if row is None or roster.log(origin) is None:
                continue
            try:
                head, note = open_checkpoint(raw, log_keys(roster, origin), origin)
                if row.is_own:
                    shown = Shown(WitnessEndpoint(f"anchor {state}", (), "", state), head, note)
                    self._gate.compare_own(shown, roster)
                else:
                    self.take_head(row.id, head, note, roster, where=f"anchor {state}")
            except CheckpointFork as fork:
                set_log_error(self._db, row.id, fork, now=self._clock())
            except VerbaleError as error:
                extra = {"action": "gossip_failed", "origin": origin, "why": str(error)[:300]}
                log.info("an anchored head cannot be used", extra=extra)

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, witness: WitnessEndpoint) -> None:
        """Bring a State's node every convicting record that it has not taken yet."""
        state = witness.state
        with self._db.read() as session:
            told = and_(EvidenceToldRow.evidence_id == EvidenceRow.id, EvidenceToldRow.state == state)
            rows = session.execute(
                select(EvidenceRow.id, EvidenceRow.record)
                .outerjoin(EvidenceToldRow, told)
                .where(EvidenceRow.convicts, EvidenceToldRow.state.is_(None))
                .order_by(EvidenceRow.at, EvidenceRow.id)
            ).all()
        base = witness.url.removesuffix("/witness")
        for record, raw in rows:
            status, _ = self._client.post(f"{base}/evidence", bytes(raw), limit=MAX_ANSWER)
            if status in TAKEN or status in REFUSED_FOR_GOOD:
                with self._db.write() as session:
                    session.execute(
                        self._db.insert_ignore(EvidenceToldRow.__table__).values(
                            evidence_id=record, state=state, at=self._clock()
                        )
                    )
            extra = {"action": "evidence_told", "evidence": record, "to": state, "status": status}
            log.info("evidence told", extra=extra)

    # ── this node ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look_after(self) -> bool:
        """What has to be done now and then, whoever the peers are. Returns False."""
        roster = self._roster()
        self._settle(roster)
        self._settle_ended(roster)
        self._report_bad_leaves(roster)
        self._look_for_withheld(roster)
        if self._gate.is_open:
            if not self._begin(roster):
                return False
            self._log_evidence()
            self._anchor(roster)
            self._say_roster(roster)
            self._say_erasures()
        return False

    def _settle(self, roster: Roster) -> None:
        with self._db.read() as session:
            open_ones = session.execute(
                select(LogRow.id, LogRow.origin)
                .join(WatchRow, WatchRow.log_id == LogRow.id)
                .where(WatchRow.frozen_at.is_not(None), WatchRow.frozen_size.is_(None))
            ).all()
        for log_id, origin in open_ones:
            settle_frozen(self._db, self._client, log_id, sources=self._sources(origin, roster))

    def _sources(self, origin: str, roster: Roster) -> list[str]:
        """Everybody who may serve a log's tiles: its origin, then every other State's mirror."""
        listed = roster.log(origin)
        return [*([listed.url] if listed else []), *mirrors_of(roster, origin, but=self._state)]

    def _settle_ended(self, roster: Roster) -> None:
        """Logs that the States have ended: exactly what stands below their end, here as everywhere."""
        with self._db.read() as session:
            kept = {
                row.origin: row
                for row in session.execute(select(LogRow.id, LogRow.origin, LogRow.is_own, LogRow.error_code))
            }
        for state in roster.nodes():
            for listed in state.logs:
                if listed.end is None or listed.origin not in kept:
                    continue
                log_id, _, is_own, error = kept[listed.origin]
                now = self._clock()
                fault = settle_ended(self._db, log_id, listed, now=now)
                if isinstance(fault, EndMissing) and not is_own:
                    fault = self._take_end(log_id, listed, roster) or settle_ended(
                        self._db, log_id, listed, now=now
                    )
                if fault is not None and fault.code != error:
                    set_log_error(self._db, log_id, fault, now=now)
                elif fault is None and error in (EndMissing.code, EndDiffers.code, CheckpointFork.code):
                    set_log_error(self._db, log_id, None, now=now)

    def _take_end(self, log_id: int, listed: RosterLog, roster: Roster) -> EndDiffers | None:
        """Fetch what is missing of an ended log, from whoever serves the head at which the States have ended it.

        Returns:
            EndDiffers if what is stored here is proven to be no beginning of that.
        """
        with self._db.read() as session:
            size = session.execute(select(LogRow.size).where(LogRow.id == log_id)).scalar_one()
            ours = root_here(session, log_id, size)
        for source in self._sources(listed.origin, roster):
            try:
                raw = self._client.get(f"{source}/checkpoint/{listed.end}", limit=MAX_CHECKPOINT_BYTES)
                if raw is None:
                    continue
                keys = log_keys(roster, listed.origin, settled=listed.end)
                head, note = open_checkpoint(raw, keys, listed.origin)
                if (head.size, head.root) != (listed.end, listed.end_root):
                    continue
                node = remote_nodes(self._client, source, head.size)
                if size and prefix_of(node, size, head)[0] != ours:
                    return EndDiffers.of(listed)
                self._grow(log_id, head, note, roster, [source])
            except VerbaleError as error:
                extra = {"action": "gossip_failed", "origin": listed.origin, "why": str(error)[:300]}
                log.info("the end of a log cannot be had here", extra=extra)
                continue
            break
        return None

    def _report_bad_leaves(self, roster: Roster) -> None:
        """Keep a record of each leaf of another log that is none, a few for each log; it goes to the others as any evidence.

        Such a leaf is one for good, whatever roster comes: each is looked at once.
        """
        with self._db.read() as session:
            logs = session.execute(
                select(LogRow.id, LogRow.origin, LogRow.judged, LogRow.head_size).where(
                    LogRow.is_own.is_(False), LogRow.head_note.is_not(None)
                )
            ).all()
            found: list[tuple[int, int]] = []
            for log_id, origin, judged, head_size in logs:
                start, end = self._looked.get(log_id, 0), min(judged, head_size)
                if end <= start or roster.log(origin) is None:
                    continue
                self._looked[log_id] = end
                bad = session.scalars(
                    select(EntryRow.idx)
                    .where(
                        EntryRow.log_id == log_id,
                        EntryRow.idx >= start,
                        EntryRow.idx < end,
                        EntryRow.fault_code.in_(BAD_LEAF),
                    )
                    .order_by(EntryRow.idx)
                    .limit(MAX_RECORDS)
                ).all()
                known = bad_leaves_known(session, origin) if bad else set()
                found += [(log_id, index) for index in bad if index not in known]
        for log_id, index in found:
            report_bad_leaf(self._db, log_id, index, roster=roster, now=self._clock())

    def _look_for_withheld(self, roster: Roster) -> None:
        now = self._clock()
        with self._db.read() as session:
            rows = session.execute(
                select(WatchRow, LogRow.origin)
                .join(LogRow, LogRow.id == WatchRow.log_id)
                .where(WatchRow.shown_size > 0)
            ).all()
            late = [(row.log_id, origin, row) for row, origin in rows]
            session.expunge_all()
        for log_id, origin, row in late:
            if row.shown_size <= row.served_size:
                with self._db.write() as session:
                    watch_log(
                        self._db,
                        session,
                        log_id,
                        shown_size=0,
                        shown_note=None,
                        shown_at=None,
                        withheld_at=None,
                    )
            elif row.withheld_at is None and now - (row.shown_at or now) >= WITHHELD_MS:
                self._report_withheld(log_id, origin, row, roster)

    def _report_withheld(self, log_id: int, origin: str, row: WatchRow, roster: Roster) -> None:
        now = self._clock()
        seen = [Sighting((row.shown_at or now) // 1000, self._state, row.shown_by or "unknown")]
        with self._db.write() as session:
            watch_log(self._db, session, log_id, withheld_at=now)
            if row.served_note is not None and row.shown_note is not None:
                made = Evidence(
                    "withheld",
                    origin,
                    own_lines(parse_note(row.served_note), origin),
                    own_lines(parse_note(row.shown_note), origin),
                    None,
                    (),
                    tuple(seen),
                )
                # A key may have changed since: the alarm is given all the same.
                if (verdict := verified(made, roster)) is not None:
                    keep(session, verdict, source=None, now=now)
            detail = {
                "code": "checkpoint-withheld",
                "origin": origin,
                "shown_by": row.shown_by,
                "size": row.shown_size,
            }
            emit(self._db, session, [Event("log.fault", log_id=log_id, detail=detail)], now=now)
        log.error(
            "a head is withheld",
            extra={
                "action": "checkpoint_withheld",
                "origin": origin,
                "size": row.shown_size,
                "shown_by": row.shown_by,
            },
        )

    def _begin(self, roster: Roster) -> bool:
        """The first leaf of an epoch that continues another says so. False while it cannot be said."""
        before = roster.continued(self._origin)
        if before is None:
            return True
        with self._db.read() as session:
            size = session.execute(select(LogRow.size).where(LogRow.id == self._log_id)).scalar_one()
        if size > 0:
            return True
        return self._say("anchor", {**anchor([]), "continues": continuation(before)}) is not None

    def _log_evidence(self) -> None:
        """Say in the own log, once for each record, that it exists: it can be hidden from nobody any more."""
        with self._db.read() as session:
            rows = session.execute(
                select(EvidenceRow.id, EvidenceRow.type, EvidenceRow.origin, EvidenceRow.accused)
                .where(EvidenceRow.convicts, EvidenceRow.leaf_idx.is_(None))
                .order_by(EvidenceRow.at, EvidenceRow.id)
            ).all()
        for record, kind, origin, accused in rows:
            if origin == self._origin:
                continue
            index = self._say(
                "evidence", {"accused": accused, "evidence": record, "origin": origin, "type": kind, "v": 1}
            )
            if index is None:
                return
            with self._db.write() as session:
                session.execute(update(EvidenceRow).where(EvidenceRow.id == record).values(leaf_idx=index))

    def _anchor(self, roster: Roster) -> None:
        """Once an hour, name the newest head of every other log in the own log."""
        with self._db.read() as session:
            last = session.execute(
                select(EntryRow.iat)
                .where(EntryRow.log_id == self._log_id, _IS_ANCHOR)
                .order_by(EntryRow.idx.desc())
                .limit(1)
            ).scalar_one_or_none()
            if self._clock() - max(self._since, (last or 0) * 1000) < ANCHOR_S * 1000:
                return
            heads = session.execute(
                select(LogRow.origin, LogRow.head_size, LogRow.head_root, LogRow.head_note)
                .where(LogRow.is_own.is_(False), LogRow.head_note.is_not(None), LogRow.status == "ok")
                .order_by(LogRow.origin)
            ).all()
        named = [(o, s, bytes(r), bytes(n)) for o, s, r, n in heads if r and n and roster.log(o) is not None]
        if named:
            self._say("anchor", anchor(named))

    def _say_roster(self, roster: Roster) -> None:
        """Log which roster is followed: at once when another one comes, and an hour after a start if it was not said before."""
        if self._follows == roster.sha256:
            return
        with self._db.read() as session:
            last = session.execute(
                select(RosterSaidRow.version, RosterSaidRow.sha256)
                .where(RosterSaidRow.log_id == self._log_id)
                .order_by(RosterSaidRow.idx.desc())
                .limit(1)
            ).one_or_none()
        if last is not None and last.sha256 == roster.sha256:
            self._follows = roster.sha256
            return
        if last is None and self._follows is None:
            if self._first is None:
                self._first = roster.sha256
            if self._first == roster.sha256 and self._clock() - self._since < ANCHOR_S * 1000:
                return
        if self._say("roster", {"v": 1, "version": roster.version, "sha256": roster.sha256}) is not None:
            self._follows = roster.sha256

    def _say_erasures(self) -> None:
        """Log, once bodies that were erased have left the files too, that this node has carried those erasures out."""
        upto = self._cleaned()
        if upto is None or upto == self._erased_upto:
            return
        with self._db.read() as session:
            erased = _erasures(session, self._erased_upto, upto)
            rows = session.execute(
                select(ErasureSaidRow.origin, func.max(ErasureSaidRow.below))
                .where(ErasureSaidRow.log_id == self._log_id)
                .group_by(ErasureSaidRow.origin)
            )
            said = {origin: below for origin, below in rows}  # noqa: C416 - Row to tuple
        new = [
            {"origin": origin, "below": below}
            for origin, below in sorted(erased.items())
            if below > said.get(origin, 0)
        ]
        for at in range(0, len(new), MAX_ERASURES):
            if self._say("anchor", {**anchor([]), "erased": new[at : at + MAX_ERASURES]}) is None:
                return
        self._erased_upto = upto


def _erasures(session: Session, since: int | None, upto: int) -> dict[str, int]:
    """Origin → one above the last leaf that erased something, of the erasures told by events in (since, upto].

    On the first look after a start, since events are forgotten: of all leaves.
    """
    if since is None:
        rows = session.execute(
            select(LogRow.origin, func.max(EntryRow.idx))
            .join(LogRow, LogRow.id == EntryRow.log_id)
            .where(EntryRow.kind == "erase", EntryRow.fault_code.is_(None))
            .group_by(LogRow.origin)
        )
    else:
        rows = session.execute(
            select(LogRow.origin, func.max(EventRow.idx))
            .join(LogRow, LogRow.id == EventRow.log_id)
            .where(EventRow.seq > since, EventRow.seq <= upto, EventRow.type == "notice.erased")
            .group_by(LogRow.origin)
        )
    return {origin: index + 1 for origin, index in rows}


def anchor(heads: Sequence[tuple[str, int, bytes, bytes]]) -> dict[str, Any]:
    """The main part of an `anchor`: (origin, size, root, checkpoint) of each log."""
    return {
        "v": 1,
        "logs": [
            {"origin": origin, "size": size, "root": b64u_encode(root), "checkpoint": note.decode()}
            for origin, size, root, note in heads
        ],
    }


def anchored_heads(main: bytes) -> list[tuple[str, bytes]]:
    """(origin, checkpoint) of each log that an anchor names; what cannot be read is left out."""
    try:
        value = parse_strict(main)
    except MalformedJson:
        return []
    logs = value.get("logs") if isinstance(value, dict) else None
    return [
        (one["origin"], one["checkpoint"].encode())
        for one in (logs if isinstance(logs, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("origin"), str)
        and isinstance(one.get("checkpoint"), str)
    ]
