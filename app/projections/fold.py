"""The fold: judged leaves in log order become rows of `entries`, `notices`, `notice_terms`,
`screened_notices`, and events.

Both doors end here. A `Fold` is made for one run of consecutive leaves of one log, inside one write transaction:

    fold = Fold(db, session, log, statements)      loads what the log said about these ids and references
    fold.advance(statement, index)                 the state machine; raises what the door answers or flags
    fold.add(arrival)                              what this leaf changes, in memory
    fold.flush(...)                                writes all of it

Given the same leaves and bodies it makes the same rows, whatever the batches were: `rebuild` relies on that, and a test
compares the two. Only `seq` (order of arrival at this node) and `*_at` differ between nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, select, update

from app import bodies
from app.db import SQLITE_VARIABLES, chunks, execute
from app.domain import events, lifecycle
from app.domain.at_rest import seal_parts
from app.domain.errors import VerbaleError
from app.domain.handling import Tlp
from app.domain.lifecycle import ELSEWHERE, NoticeState
from app.domain.notices import Notice, amended, validate_main
from app.domain.statement import NODE_KINDS, NOTICE_KINDS
from app.events import Event, emit
from app.models import CarriedRow, EntryRow, LogRow, NoticeRow, NoticeTermRow, ScreenedRow
from app.models.notice import UNKNOWN_TLP
from app.projections import lineage, said
from app.projections import plain as plain_columns
from app.projections.content import CONTENT_COLUMNS, Content, content_of, terms
from app.projections.plain import plain_rows
from app.tlog.store import lock_log

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from app.db import Database
    from app.domain.events import EventType
    from app.domain.statement import Statement
    from app.projections.arrival import Arrival
    from app.projections.plain import PlainRows


@dataclass(slots=True)
class _Draft:
    """A row of `notices` in the making, with what is needed to decide its content."""

    values: dict[str, Any]
    is_new: bool
    stored_document: str | None = None  # what the table holds, whose terms go when it does
    content: Content | None = None  # set when the content changed in this fold
    content_changed: bool = False
    touched: bool = False
    document_body: str = (
        "wanted"  # body state of the version `document_idx`; "invalid" if it failed judgement
    )
    patchable: bool = False  # the document at hand is of the version just before `document_idx`
    moved_from: tuple[lineage.Key, str | None] | None = (
        None  # in this fold, from this row of the log before, with its document
    )

    @property
    def document(self) -> dict[str, Any] | None:
        text = self.values["document"]
        return None if text is None else orjson.loads(text)


class _Plain(NamedTuple):
    """A leaf that issues a notice, held and sound: as long as nothing acts on it, its rows follow from it alone."""

    arrival: Arrival
    rows: PlainRows


_NOTICE_COLUMNS: Final = tuple(column.name for column in NoticeRow.__table__.columns)
_ENTRY_COLUMNS: Final = tuple(column.name for column in EntryRow.__table__.columns)
_notice_row: Final = itemgetter(*_NOTICE_COLUMNS)
_entry_row: Final = itemgetter(*_ENTRY_COLUMNS)
NO_CONTENT: Final[dict[str, Any]] = dict.fromkeys(CONTENT_COLUMNS) | {
    "tlp_rank": UNKNOWN_TLP,
    "audience_all": False,
}
_EMPTY_NOTICE: Final[dict[str, Any]] = dict.fromkeys(_NOTICE_COLUMNS) | NO_CONTENT


def _handling(statement: Statement | None, content: Content | None) -> dict[str, Any]:
    """Who may read a body: as the notice says; what a node says by itself (roster, anchor, evidence) is public."""
    if statement is not None and statement.kind in NODE_KINDS:
        return {"tlp_rank": int(Tlp.CLEAR), "audience": "ALL"}
    if content is None:
        return {"tlp_rank": UNKNOWN_TLP, "audience": None}
    return {"tlp_rank": content.tlp_rank, "audience": content.audience}


class Fold:
    """See the module. Implements `lifecycle.History` for its log."""

    def __init__(
        self,
        db: Database,
        session: Session,
        *,
        log_id: int,
        issuer: str,
        statements: Iterable[Statement | None],
    ) -> None:
        """Load ids and referenced versions in two queries, however many statements there are."""
        self._db, self._session, self._log_id, self._issuer = db, session, log_id, issuer
        self._entries: list[dict[str, Any]] = []
        self._bodies: list[bodies.Held] = []
        self._fallen: list[int] = []
        self._drafts: dict[int, _Draft] = {}
        self._plain: dict[bytes, _Plain] = {}
        self._ids: dict[str, bytes] = {}
        self._root_of_hash: dict[bytes, int] = {}
        self._erased: list[int] = []
        self._inherited: dict[
            bytes, dict[str, Any]
        ] = {}  # by leaf hash: rows of logs that this one continues
        self._events: list[Event] = []
        self._said: list[said.Said] = []
        present = [s for s in statements if s is not None]
        self._load_ids([s.id for s in present])
        self._load_notices({s.ref for s in present if s.ref is not None and s.kind != "ack"})

    # ── lifecycle.History ─────────────────────────────────────────────────────────────────────────────────────────

    def statement_with_id(self, statement_id: str) -> bytes | None:
        """See `lifecycle.History`."""
        return self._ids.get(statement_id)

    def notice_with_version(self, leaf_hash: bytes) -> NoticeState | None:
        """See `lifecycle.History`."""
        self._expand(leaf_hash)
        root = self._root_of_hash.get(leaf_hash)
        inherited = self._inherited.get(leaf_hash)
        if root is not None:
            values = self._drafts[root].values
        elif inherited is not None:
            root, values = ELSEWHERE, inherited
        else:
            return None
        return NoticeState(
            root_id=values["id"],
            root_index=root,
            status=values["status"],
            current_index=values["current_idx"],
            current_hash=values["current_hash"],
            version=values["version"],
        )

    def _load_ids(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        rows = execute(self._session, self._db.once(_ids), log=self._log_id, ids=self._db.bound(ids))
        self._ids.update((i, bytes(h)) for i, h in rows if i is not None)

    def _load_notices(self, refs: set[bytes]) -> None:
        roots: set[int] = set()
        for some in chunks(list(refs), SQLITE_VARIABLES):
            rows = self._session.execute(
                select(EntryRow.leaf_hash, EntryRow.root_idx).where(
                    EntryRow.log_id == self._log_id,
                    EntryRow.leaf_hash.in_(some),
                    EntryRow.fault_code.is_(None),
                    # An erasure belongs to its notice, and is no version that anything could act on.
                    EntryRow.kind.in_(NOTICE_KINDS),
                )
            )
            self._root_of_hash.update((bytes(h), r) for h, r in rows if r is not None)
        self._load_inherited([ref for ref in refs if ref not in self._root_of_hash])
        roots.update(self._root_of_hash.values())
        for some_roots in chunks(list(roots), SQLITE_VARIABLES):
            rows_n = self._session.execute(
                select(NoticeRow.__table__, EntryRow.body_state, EntryRow.body_fault_code)
                .join(
                    EntryRow.__table__,
                    (EntryRow.log_id == NoticeRow.log_id) & (EntryRow.idx == NoticeRow.document_idx),
                )
                .where(NoticeRow.log_id == self._log_id, NoticeRow.idx.in_(some_roots))
            )
            for row in rows_n.mappings():
                values = {name: row[name] for name in _NOTICE_COLUMNS}
                values["current_hash"] = bytes(values["current_hash"])
                body = "invalid" if row["body_fault_code"] else row["body_state"]
                self._drafts[values["idx"]] = _Draft(
                    values, is_new=False, stored_document=values["document"], document_body=body
                )

    def _load_inherited(self, refs: Sequence[bytes]) -> None:
        """Versions that stand in logs which this one continues, with their notices as those logs left them."""
        chain = lineage.earlier(self._session, self._log_id) if refs else []
        for before in chain:
            lock_log(self._session, before)
            for some in chunks(refs, SQLITE_VARIABLES - 3):
                rows = self._session.execute(
                    select(EntryRow.leaf_hash, EntryRow.root_idx).where(
                        EntryRow.log_id == before,
                        EntryRow.leaf_hash.in_(some),
                        EntryRow.fault_code.is_(None),
                        EntryRow.kind.in_(NOTICE_KINDS),
                    )
                ).all()
                for leaf_hash, root in rows:
                    if root is None:
                        continue
                    key = lineage.newest(self._session, (before, root))
                    if key[0] == self._log_id:
                        self._root_of_hash[bytes(leaf_hash)] = key[1]
                    elif key[0] in chain:
                        self._inherited[bytes(leaf_hash)] = self._row(key)

    def _row(self, key: lineage.Key) -> dict[str, Any]:
        row = (
            self._session.execute(
                select(NoticeRow.__table__).where(NoticeRow.log_id == key[0], NoticeRow.idx == key[1])
            )
            .mappings()
            .one()
        )
        return {**row, "current_hash": bytes(row["current_hash"])}

    # ── folding ───────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, statement: Statement, index: int) -> NoticeState | None:
        """What the statement, standing at `index`, does to a notice; see `lifecycle.advance` for what is raised."""
        return lifecycle.advance(self, statement, index)

    def check_amendment(self, amendment: Notice, state: NoticeState, ref: bytes) -> None:
        """Check, before it is logged, that an amendment makes a valid notice; a peer's that does not is flagged.

        Raises:
            InapplicableAmendment, InvalidNotice: see `notices.amended`.
        """
        draft = self._drafts.get(state.root_index)
        values = self._inherited[ref] if draft is None else draft.values
        patchable = values["content_idx"] == values["document_idx"]
        amended(orjson.loads(values["document"]) if patchable and values["document"] else None, amendment)

    def add(self, arrival: Arrival, state: NoticeState | None) -> None:
        """Take one leaf into the fold. `state` is what `advance` returned for it; None for a flagged leaf."""
        statement = arrival.statement
        if arrival.body_state == "held" and not arrival.stored:
            self._hold(arrival)
        rows = arrival.rows or plain_rows(arrival, self._log_id, self._issuer)
        if rows is not None and statement is not None:
            self._plain[statement.leaf_hash] = _Plain(arrival, rows)
            self._ids[statement.id] = statement.leaf_hash
            for type_ in events.of_version("issue", rows.type):
                self._event(type_, arrival.index, arrival.index)
            return
        entry = self._entry(arrival, state)
        self._entries.append(entry)
        self._hear(arrival)
        if arrival.stored and arrival.fault is not None:
            self._fallen.append(arrival.index)
        if statement is None or arrival.fault is not None:
            return
        self._ids[statement.id] = statement.leaf_hash
        if state is None:
            if statement.kind == "ack" and arrival.content is not None:
                self._event("acknowledgement.received", arrival.index, None)
            return
        draft = self._advance_draft(arrival, state)
        if statement.kind == "erase":
            self._erase(draft, arrival)
            return
        self._root_of_hash[statement.leaf_hash] = state.root_index
        self._take_content(draft, arrival, entry)

    def _hold(self, arrival: Arrival) -> None:
        sealed, parts = arrival.sealed, arrival.parts
        if sealed is None and parts is not None:
            sealed = seal_parts(arrival.index, parts)
        if sealed is not None:
            self._bodies.append((arrival.index, sealed, arrival.received_at))

    def _expand(self, leaf_hash: bytes) -> None:
        """Make what is needed to act on a notice out of one that was issued in this fold; it has been told of already."""
        plain = self._plain.pop(leaf_hash, None)
        if plain is None:
            return
        arrival, content = plain.arrival, plain.rows.content()
        statement = arrival.statement
        assert statement is not None  # noqa: S101 - it has rows
        arrival.content = content
        state = NoticeState(statement.id, arrival.index, "active", arrival.index, leaf_hash, 1)
        self._entries.append(self._entry(arrival, state))
        draft = self._advance_draft(arrival, state)
        self._root_of_hash[leaf_hash] = arrival.index
        self._put_content(draft, content, arrival.index)

    def _hear(self, arrival: Arrival) -> None:
        """Keep what a node says of itself in a statement of its own."""
        statement, parts = arrival.statement, arrival.parts
        if statement is None or arrival.fault is not None or arrival.body_fault is not None or parts is None:
            return
        heard = said.read(statement.kind, arrival.index, statement.iat, parts)
        if heard is not None:
            self._said.append(heard)

    def _entry(self, arrival: Arrival, state: NoticeState | None) -> dict[str, Any]:
        statement, content = arrival.statement, arrival.content
        fault, body_fault = arrival.fault, arrival.body_fault
        return {
            "log_id": self._log_id,
            "idx": arrival.index,
            "leaf_hash": arrival.leaf_hash,
            "id": statement.id if statement else None,
            "kind": statement.kind if statement else None,
            "kid": statement.kid if statement else None,
            "iat": statement.iat if statement else None,
            "exp": statement.exp if statement else None,
            "ref": statement.ref if statement else None,
            "fault_code": fault.code if fault else None,
            "fault_detail": str(fault)[:1000] if fault else None,
            "root_idx": state.root_index if state else None,
            "version": state.version if state else None,
            "received_at": arrival.received_at,
            "body_state": arrival.body_state,
            "body_type": content.type if content else None,
            "body_fault_code": body_fault.code if body_fault else None,
            "body_fault_detail": str(body_fault)[:1000] if body_fault else None,
            **_handling(statement, content),
        }

    def _advance_draft(self, arrival: Arrival, state: NoticeState) -> _Draft:
        statement = arrival.statement
        assert statement is not None  # noqa: S101 - a state comes from a statement
        draft = self._drafts.get(state.root_index)
        if draft is None and statement.ref is not None:
            draft = self._move(arrival, state, statement.ref)
        if draft is None:
            values = _EMPTY_NOTICE.copy()
            values["log_id"] = self._log_id
            values["idx"] = values["document_idx"] = state.root_index
            values["id"] = state.root_id
            values["issuer"] = self._issuer
            values["iat"] = statement.iat
            values["received_at"] = arrival.received_at
            draft = self._drafts[state.root_index] = _Draft(values, is_new=True)
        draft.touched = True
        values = draft.values
        values["status"] = state.status
        values["version"] = state.version
        values["current_idx"] = state.current_index
        values["current_hash"] = state.current_hash
        values["changed_iat"] = statement.iat
        values["changed_at"] = arrival.received_at
        if statement.kind in ("issue", "amend"):
            # The newest version's `exp` counts: an amendment may set, move or lift it.
            draft.patchable = values["content_idx"] == values["document_idx"]
            if draft.moved_from is not None and values["content_idx"] == arrival.index:
                values["content_idx"] = BEFORE  # until its body is applied
            values["document_idx"] = arrival.index
            values["exp"] = statement.exp
            draft.document_body = "invalid" if arrival.body_fault else arrival.body_state
        return draft

    def _move(self, arrival: Arrival, state: NoticeState, ref: bytes) -> _Draft:
        """Take a notice over from a log that this one continues: what stands there goes on under the leaf at hand."""
        old = self._inherited[ref]
        current = old["content_idx"] is not None and old["content_idx"] == old["document_idx"]
        values = old | {
            "log_id": self._log_id,
            "idx": state.root_index,
            "document_idx": arrival.index,
            "content_idx": arrival.index if current else None if old["content_idx"] is None else BEFORE,
            "from_log_id": old["log_id"],
            "from_idx": old["idx"],
        }
        draft = self._drafts[state.root_index] = _Draft(
            values,
            is_new=True,
            content=inherited_content(old["document"]),
            content_changed=True,
            document_body="invalid" if arrival.body_fault else arrival.body_state,
            moved_from=((old["log_id"], old["idx"]), old["document"]),
        )
        for leaf_hash in [h for h, row in self._inherited.items() if row is old or _key(row) == _key(old)]:
            del self._inherited[leaf_hash]
            self._root_of_hash[leaf_hash] = state.root_index
        return draft

    def _take_content(self, draft: _Draft, arrival: Arrival, entry: dict[str, Any]) -> None:
        """Apply a held body to the notice, and say what happened."""
        statement, content = arrival.statement, arrival.content
        assert statement is not None  # noqa: S101 - see `add`
        root: int = draft.values["idx"]
        if statement.kind == "withdraw":
            if content is not None:
                draft.values["withdrawn_on"] = arrival.notice().document["body"]["effective_on"]
            self._event("notice.withdrawn", arrival.index, root)
            return
        if content is None:
            if arrival.body_state == "absent" and draft.values["content_idx"] is not None:
                self._event("notice.recalled", arrival.index, root)
            return
        if statement.kind == "amend":
            try:
                notice = amended(draft.document if draft.patchable else None, arrival.notice())
            except VerbaleError as fault:
                entry |= {"body_fault_code": fault.code, "body_fault_detail": str(fault)[:1000]}
                draft.document_body = "invalid"
                return
            content = content_of(notice)
        self._put_content(draft, content, arrival.index)
        for type_ in events.of_version(statement.kind, content.type):
            self._event(type_, arrival.index, root)

    @staticmethod
    def _put_content(draft: _Draft, content: Content, index: int) -> None:
        draft.content, draft.content_changed = content, True
        draft.values["content_idx"] = index
        draft.values |= content.named()

    def _erase(self, draft: _Draft, arrival: Arrival) -> None:
        """Forget content and salts of every version; leaves and header facts stay, so every proof still verifies."""
        root: int = draft.values["idx"]
        rank, audience = self._handling(draft)
        draft.values |= NO_CONTENT | {"content_idx": None, "withdrawn_on": None}
        draft.content, draft.content_changed, draft.document_body = None, True, "erased"
        self._erased.append(root)
        for entry in self._entries:
            if entry["root_idx"] == root and entry["fault_code"] is None:
                entry.update(_ERASED_ENTRY)
        gone = {e["idx"] for e in self._entries if e["root_idx"] == root}
        self._bodies = [b for b in self._bodies if b[0] not in gone]
        self._events.append(
            Event("notice.erased", self._log_id, arrival.index, root, tlp_rank=rank, audience=audience)
        )

    def _event(self, type_: EventType, idx: int, root: int | None) -> None:
        self._events.append(Event(type_, self._log_id, idx, root))

    def _handling(self, draft: _Draft) -> tuple[int, str | None]:
        """Label and audience of the version shown so far: only whoever could read it is told of its erasure."""
        content_idx = draft.values["content_idx"]
        if content_idx is None:
            return UNKNOWN_TLP, None
        if draft.values["from_log_id"] is not None:
            shown = inherited_content(draft.values["document"])
            return (UNKNOWN_TLP, None) if shown is None else (shown.tlp_rank, shown.audience)
        for entry in self._entries:
            if entry["idx"] == content_idx:
                return entry["tlp_rank"], entry["audience"]
        rank, audience = self._session.execute(
            select(EntryRow.tlp_rank, EntryRow.audience).where(
                EntryRow.log_id == self._log_id, EntryRow.idx == content_idx
            )
        ).one()
        return rank, audience

    def roots(self) -> set[int]:
        """Indexes of the notices that leaves of this fold belong to."""
        made = {plain.arrival.index for plain in self._plain.values()}
        return made | {root for root, draft in self._drafts.items() if draft.touched}

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def flush(self, *, now: int, live: bool, tell: bool | Container[int] = True) -> None:
        """Write what was added.

        Args:
            now: unix ms, for the events.
            live: False marks the events as history: a first catch-up must not send thousands of alerts.
            tell: False while refolding, when everything has happened before; or the leaves that are news.
        """
        db, session = self._db, self._session
        self._write_entries()
        self._erase_stored()
        self._let_go()
        bodies.store(db, session, self._log_id, self._bodies)
        self._write_notices()
        self._write_screened()
        said.store(db, session, self._log_id, self._said)
        news = self._events
        if not isinstance(tell, bool):
            news = [event for event in news if event.idx in tell]
        if tell is not False:
            emit(db, session, news, now=now, live=live)

    def _write_entries(self) -> None:
        table = EntryRow.__table__
        plain = [plain.rows.entry for plain in self._plain.values()]
        self._db.bulk_insert(self._session, table, plain_columns.ENTRY_COLUMNS, plain)
        rows = [_entry_row(entry) for entry in self._entries]
        self._db.bulk_insert(self._session, table, _ENTRY_COLUMNS, rows)

    def _write_plain(self, seq: Mapping[int, int]) -> None:
        """The rows of notices that this fold issues and nothing in it changes; `seq` by index."""
        rows = [(*plain.rows.notice, seq[plain.arrival.index]) for plain in self._plain.values()]
        self._db.bulk_insert(self._session, NoticeRow.__table__, plain_columns.NOTICE_COLUMNS, rows)

    def _write_notices(self) -> None:
        db, session = self._db, self._session
        touched = [d for d in self._drafts.values() if d.touched]
        for draft in touched:
            draft.values["content_state"] = content_state(
                status=draft.values["status"],
                content_idx=draft.values["content_idx"],
                document_idx=draft.values["document_idx"],
                document_body=draft.document_body,
            )
        new = [d for d in touched if d.is_new]
        for draft in new:
            if draft.moved_from is not None:
                leave(db, session, *draft.moved_from)
        if new or self._plain:
            made = [plain.arrival.index for plain in self._plain.values()] + [d.values["idx"] for d in new]
            seq = dict(zip(sorted(made), count(db.next_values(session, "notices", len(made))), strict=False))
            self._write_plain(seq)
            for draft in new:
                draft.values["seq"] = seq[draft.values["idx"]]
            db.bulk_insert(
                session,
                NoticeRow.__table__,
                _NOTICE_COLUMNS,
                [_notice_row(draft.values) for draft in new],
            )
        old = [d for d in touched if not d.is_new]
        for draft in old:
            session.execute(
                update(NoticeRow)
                .where(NoticeRow.log_id == self._log_id, NoticeRow.idx == draft.values["idx"])
                .values(
                    {c: draft.values[c] for c in _NOTICE_COLUMNS if c not in ("log_id", "idx", "seq", "id")}
                )
            )
        for draft in old:
            if draft.content_changed:
                forget_terms(session, self._log_id, draft.values["idx"], draft.stored_document)
        rows = [row for plain in self._plain.values() for row in plain.rows.terms]
        found = [(d.values["idx"], d.content.terms) for d in touched if d.content is not None]
        log_id = self._log_id
        rows += [(kind, term, log_id, idx, pos) for idx, these in found for kind, term, pos in these]
        rows.sort()  # the table is ordered by term: neighbours go to one page
        db.bulk_insert(session, NoticeTermRow.__table__, plain_columns.TERM_COLUMNS, rows)

    def _write_screened(self) -> None:
        """What parties are screened against, in the transaction that says it; every change takes a number."""
        db, session = self._db, self._session
        touched = [d for d in self._drafts.values() if d.touched]
        changes = len(self._plain) + len(touched)
        if not changes:
            return
        seq = db.next_values(session, SCREENED_COUNTER, changes)
        new = [(*plain.rows.screened, number) for number, plain in enumerate(self._plain.values(), seq)]
        for number, draft in enumerate(touched, seq + len(new)):
            idx, content = draft.values["idx"], draft.content
            if draft.is_new:
                new.append((self._log_id, idx, *screened_values(content), number))
            elif draft.content_changed:
                update_screened(session, self._log_id, idx, number, content)
            else:
                session.connection().execute(_SCREENED_SEQ, {"l": self._log_id, "i": idx, "s": number})
        db.bulk_insert(session, ScreenedRow.__table__, plain_columns.SCREENED_COLUMNS, new)

    def _let_go(self) -> None:
        """Destroy bodies of leaves that do not count any more, unless this is a log of the node's own State.

        A mirror keeps no body of a leaf that does not count, whether it came before or after the roster that says so. The
        issuer's node keeps what it logged: from there it comes back, should a later roster let the leaf count again.
        """
        if not self._fallen:
            return
        own = select(LogRow.id).where(LogRow.is_own, LogRow.state == self._issuer)
        if self._session.execute(own).first() is None:
            for some in chunks(self._fallen, SQLITE_VARIABLES - 1):
                bodies.destroy(self._session, self._log_id, some)

    def _erase_stored(self) -> None:
        for root in self._erased:
            self._erase_versions((self._log_id, root))
            values = self._drafts[root].values
            if values["from_log_id"] is not None:  # and of what the logs before said
                for key in lineage.line(self._session, (values["from_log_id"], values["from_idx"])):
                    self._erase_versions(key)

    def _erase_versions(self, key: lineage.Key) -> None:
        log_id, root = key
        versions = select(EntryRow.idx).where(EntryRow.log_id == log_id, EntryRow.root_idx == root)
        bodies.destroy(self._session, log_id, versions.scalar_subquery())
        self._session.execute(
            delete(CarriedRow).where(
                CarriedRow.log_id == log_id, CarriedRow.idx.in_(versions.scalar_subquery())
            )
        )
        self._session.execute(
            update(EntryRow)
            .where(EntryRow.log_id == log_id, EntryRow.root_idx == root, EntryRow.kind != "erase")
            .values(_ERASED_ENTRY)
        )


def fold_all(fold: Fold, arrivals: Sequence[Arrival]) -> None:
    """Take judged leaves through the state machine into the fold. One that is refused is flagged and kept."""
    for arrival in arrivals:
        state = None
        if arrival.statement is not None and arrival.fault is None:
            try:
                state = fold.advance(arrival.statement, arrival.index)
            except VerbaleError as fault:
                arrival.refuse(fault)
        fold.add(arrival, state)


def _key(row: Mapping[str, Any]) -> lineage.Key:
    return row["log_id"], row["idx"]


def inherited_content(document: str | None) -> Content | None:
    """What a notice is found by whose document another log left; None if it left none."""
    return None if document is None else content_of(validate_main(orjson.loads(document)), document.encode())


def leave(db: Database, session: Session, key: lineage.Key, document: str | None) -> None:
    """Empty the row of a notice that goes on in the next epoch: nobody is shown it there any more."""
    log_id, idx = key
    session.execute(
        update(NoticeRow)
        .where(NoticeRow.log_id == log_id, NoticeRow.idx == idx)
        .values(NO_CONTENT | {"content_idx": None, "content_state": lineage.MOVED})
    )
    forget_terms(session, log_id, idx, document)
    update_screened(session, log_id, idx, db.next_values(session, SCREENED_COUNTER, 1), None)


BEFORE: Final = -1
"""`notices.content_idx` of a notice that shows what an earlier log said, while a newer version's body is on its way."""


def forget_terms(session: Session, log_id: int, idx: int, document: str | None) -> None:
    """Delete the terms that a notice has because of `document`, as it is stored; None: it has none."""
    if document is None:
        return
    gone = terms(validate_main(orjson.loads(document)))
    if gone:
        session.connection().execute(
            _FORGET_TERM,
            [{"k": kind, "t": term, "l": log_id, "i": idx, "p": pos} for kind, term, pos in gone],
        )


def screened_values(content: Content | None) -> tuple[str | None, str | None]:
    """`audience` and `parties` of a row of `screened_notices`."""
    if content is None or content.screened is None:
        return None, None
    return content.audience, content.screened


def update_screened(session: Session, log_id: int, idx: int, seq: int, content: Content | None) -> None:
    """Put other content in a row of `screened_notices`; what an erased notice said is gone from it."""
    audience, parties = screened_values(content)
    session.execute(
        update(ScreenedRow)
        .where(ScreenedRow.log_id == log_id, ScreenedRow.idx == idx)
        .values(seq=seq, audience=audience, parties=parties)
    )


_ENTRIES: Final = EntryRow.__table__.c


def _ids(db: Database) -> Select[Any]:
    """Which of many ids the log holds, unflagged, and the leaf of each."""
    return select(_ENTRIES.id, _ENTRIES.leaf_hash).where(
        _ENTRIES.log_id == bindparam("log"),
        db.any_bound(_ENTRIES.id, "ids"),
        _ENTRIES.fault_code.is_(None),
    )


SCREENED_COUNTER: Final = "screened"
"""Numbers the changes of `screened_notices`. Taken before the number of an event, everywhere: locks have one order."""
SCREENED_EPOCH: Final = "screened-epoch"
"""Counts refoldings after which rows may be gone for good, for those who hold an index of them in memory."""
_SCREENED_SEQ: Final = (
    update(ScreenedRow)
    .where(ScreenedRow.log_id == bindparam("l"), ScreenedRow.idx == bindparam("i"))
    .values(seq=bindparam("s"))
)
_FORGET_TERM: Final = delete(NoticeTermRow).where(
    NoticeTermRow.kind == bindparam("k"),
    NoticeTermRow.term == bindparam("t"),
    NoticeTermRow.log_id == bindparam("l"),
    NoticeTermRow.idx == bindparam("i"),
    NoticeTermRow.pos == bindparam("p"),
)
_ERASED_ENTRY: Final[dict[str, Any]] = {
    "body_state": "erased",
    "body_type": None,
    "body_fault_code": None,
    "body_fault_detail": None,
    "tlp_rank": UNKNOWN_TLP,
    "audience": None,
}


def content_state(*, status: str, content_idx: int | None, document_idx: int, document_body: str) -> str:
    """How the document this node shows relates to the newest version: the values of `notices.content_state`.

    `recalled` hides: a newer version exists that this State is not entitled to. `stale` still shows, marked: the newer
    version's body is on its way, and an officer must not lose sight of a denial because a line is down.
    """
    if status == "erased":
        return "erased"
    if content_idx == document_idx:
        return "current"
    if document_body == "invalid":
        return "invalid"
    if content_idx is None:
        return "none"
    return "recalled" if document_body == "absent" else "stale"
