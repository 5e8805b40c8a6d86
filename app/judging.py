"""Judging on every core: threads for the ordinary trickle, processes for a flood.

Checking a signature releases the GIL; parsing, validating and deriving what a notice is found by do not, and they are the
larger part. So a batch of thousands, or a mirror that is far behind, is judged by worker processes that start when they
are needed and end when they have been idle, while the node's own process only fetches and writes. Everything judged here
is a pure function of bytes, roster and time; the state machine is left to `app.record`, which sees the log.
"""

from __future__ import annotations

import logging
import marshal
import os
import pickle
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from app.domain.at_rest import SealedParts
from app.domain.errors import MalformedRequest, NotAllowed, VerbaleError
from app.domain.judge import (
    VerifiedStatement,
    check_not_expired,
    check_openings,
    judge_anchor,
    judge_body,
    judge_main,
    judge_statement,
)
from app.domain.signed import SignedNotice, read_parts, read_signed
from app.domain.statement import MAIN_PART, Part, PartCommitment, Statement, parse
from app.memory import keep_memory, settle_memory
from app.projections.arrival import Arrival
from app.projections.content import Content, content_of
from app.projections.plain import PlainRows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.domain.notices import Notice
    from app.domain.roster import Roster

log = logging.getLogger(__name__)

CHUNK: Final = 64
"""Statements in one task of a thread: long enough to make handing over cheap, short enough to keep every core busy."""
PIECE: Final = 128
"""Statements that a worker process judges together: what the caches of a core hold, and no more memory than many workers may have.
"""
FLOOD: Final = 4096
"""From so many statements on, worker processes pay for their start."""
IDLE_S: Final = 20.0
"""Workers end after so long without work, and give their memory back."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Context:
    """What judging depends on besides the bytes.

    Attributes:
        at: unix seconds; for mirrored leaves each leaf has its own.
        place: row of the log and its State, for leaves that are to be recorded there: they are prepared for it.
    """

    origin: str
    roster: Roster
    at: int = 0
    place: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A posted notice that may be recorded. Made by `judge_posted` only.

    Attributes:
        content: of its main part; None for kinds without a notice.
    """

    statement: Statement
    issuer: str
    parts: Mapping[str, Part]
    content: Content | None


# ── stages ────────────────────────────────────────────────────────────────────────────────────────────────────────
#
# A piece is judged stage by stage, and not notice by notice: reading, checking signatures, validating and deriving are
# different large bodies of code, and each stays in the core's caches while it is used. Measured, a fifth of the time.


def _stage(work: Callable[[Any], R], items: Sequence[Any]) -> list[R | VerbaleError]:
    """Take what has not been refused yet one stage further, in order."""
    done: list[R | VerbaleError] = []
    for item in items:
        if isinstance(item, VerbaleError):
            done.append(item)
            continue
        try:
            done.append(work(item))
        except VerbaleError as refusal:
            done.append(refusal)
    return done


# ── the local door ────────────────────────────────────────────────────────────────────────────────────────────────


def judge_posted(signed: SignedNotice, context: Context) -> Judged:
    """Judge one posted notice.

    Raises:
        Refused: see `app.domain.judge`.
    """
    (outcome,) = judge_posts([signed], context)
    if isinstance(outcome, VerbaleError):
        raise outcome
    return outcome


_Post = tuple[VerifiedStatement, "Mapping[str, Part]"]


def judge_posts(items: Sequence[SignedNotice | bytes], context: Context) -> list[Judged | VerbaleError]:
    """Judge posted notices, given read or as the bytes that came; one outcome each, in order."""

    def read(item: SignedNotice | bytes) -> tuple[Statement, Mapping[str, Part]]:
        signed = read_signed(item) if isinstance(item, bytes) else item
        return parse(signed.statement), signed.parts

    def verify(one: tuple[Statement, Mapping[str, Part]]) -> _Post:
        statement, parts = one
        return _verify_posted(statement, context), parts

    def check_body(one: _Post) -> tuple[_Post, Notice | None]:
        verified, parts = one
        return one, judge_body(verified, parts).notice

    def derive(one: tuple[_Post, Notice | None]) -> Judged:
        (verified, parts), notice = one
        return Judged(verified.statement, verified.issuer, parts, _content(notice, parts))

    statements = _stage(read, items)
    verified = _stage(verify, statements)
    opened = _stage(check_body, verified)
    return _stage(derive, opened)


def _verify_posted(statement: Statement, context: Context) -> VerifiedStatement:
    roster = context.roster
    verified = judge_statement(statement, origin=context.origin, index=None, roster=roster, at=context.at)
    status = roster.states[verified.issuer].status
    if status != "member":
        raise NotAllowed(f"{verified.issuer} is {status} in the roster and cannot issue notices.")
    check_not_expired(statement, at=context.at)
    return verified


def _content(notice: Notice | None, parts: Mapping[str, Part]) -> Content | None:
    return None if notice is None else content_of(notice, parts[MAIN_PART].content)


# ── the remote door ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class MirroredLeaf:
    """A stored leaf to be judged, with what a peer gave of its body.

    Attributes:
        received_at: unix ms.
        body: the peer's answer line, unparsed; or parts that are stored here already; None if there is none.
        withheld: the peer answered and gave no body: this State is not entitled to it.
    """

    index: int
    leaf_hash: bytes
    leaf: bytes
    received_at: int
    body: bytes | Mapping[str, Part] | None = None
    withheld: bool = False

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes by its constructor: a tenth of what slotted data classes cost by default."""
        return MirroredLeaf, (
            self.index,
            self.leaf_hash,
            self.leaf,
            self.received_at,
            self.body,
            self.withheld,
        )


def judge_mirrored(leaves: Sequence[MirroredLeaf], context: Context) -> list[Arrival]:
    """Judge mirrored leaves and the bodies given with them. Never raises VerbaleError: the verdict is a flag."""
    arrivals = [_read_leaf(leaf) for leaf in leaves]
    verified = [_verify_leaf(arrival, context) for arrival in arrivals]
    held: list[tuple[Arrival, VerifiedStatement, Mapping[str, Part]]] = []
    for leaf, arrival, statement in zip(leaves, arrivals, verified, strict=True):
        if statement is None or not statement.statement.parts:
            continue
        parts = None if leaf.body is None else _open_body(statement, leaf.body, context.origin, leaf.index)
        if parts is not None:
            arrival.body_state, arrival.parts = "held", parts
            held.append((arrival, statement, parts))
        else:
            arrival.body_state = "absent" if leaf.withheld and leaf.body is None else "wanted"
    # A body that opens its commitment and breaks the rules is held and flagged: the State did sign it.
    notices = [_judge_held(*one, context) for one in held]
    for (arrival, _, parts), notice in zip(held, notices, strict=True):
        try:
            arrival.content = _content(notice, parts)
        except VerbaleError as fault:
            arrival.body_fault = fault
    if context.place is not None:
        for arrival, _, _ in held:
            arrival.prepare(*context.place)
    return arrivals


def _read_leaf(leaf: MirroredLeaf) -> Arrival:
    """The leaf, read before anything else: one with a bad signature is still shown with what it claims."""
    arrival = Arrival(
        index=leaf.index, leaf_hash=leaf.leaf_hash, received_at=leaf.received_at, statement=None
    )
    try:
        arrival.statement = parse(leaf.leaf)
    except VerbaleError as fault:
        arrival.fault = fault
    return arrival


def _verify_leaf(arrival: Arrival, context: Context) -> VerifiedStatement | None:
    if arrival.statement is None:
        return None
    try:
        return judge_statement(
            arrival.statement, origin=context.origin, index=arrival.index, roster=context.roster, at=None
        )
    except VerbaleError as fault:
        arrival.fault = fault
        return None


def _open_body(
    verified: VerifiedStatement, body: bytes | Mapping[str, Part], origin: str, index: int
) -> Mapping[str, Part] | None:
    """The opened parts, or None: a body that does not open its commitment says nothing about the State that logged the
    leaf, only about who served it, and stays wanted.
    """
    try:
        parts = _given_parts(body, origin, index) if isinstance(body, bytes) else body
        check_openings(verified.statement, parts)
    except VerbaleError:
        return None
    return parts


def _judge_held(
    arrival: Arrival, verified: VerifiedStatement, parts: Mapping[str, Part], context: Context
) -> Notice | None:
    try:
        notice = judge_main(verified, parts)
        if verified.statement.kind == "anchor":
            judge_anchor(verified, parts, roster=context.roster, index=arrival.index)
    except VerbaleError as fault:
        arrival.body_fault = fault
        return None
    return notice


def _given_parts(line: bytes, origin: str, index: int) -> dict[str, Part]:
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest("The peer's line is not JSON.") from error
    if not isinstance(given, dict) or given.get("origin") != origin or given.get("index") != index:
        raise MalformedRequest("The peer's line is about another body.")
    return read_parts(given.get("parts"))


# ── cores ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Judges:
    """The pool both doors share.

    Args:
        processes: how many workers a flood may use; 0 means threads only.
    """

    def __init__(self, *, processes: int | None = None) -> None:
        """Start nothing but idle threads."""
        cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(max_workers=max(2, cores), thread_name_prefix="judge")
        self._wanted = cores if processes is None else processes
        self._workers: ProcessPoolExecutor | None = None
        self._last_used = 0.0
        self._lock = threading.Lock()
        self._pickled: tuple[str, bytes] = ("", b"")

    def close(self) -> None:
        """End workers and threads; what they were doing is lost, and was not answered."""
        with self._lock:
            workers, self._workers = self._workers, None
            self._wanted = 0
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def posts(
        self, items: Sequence[SignedNotice | bytes], context: Context, *, flood: bool = False
    ) -> list[Judged | VerbaleError]:
        """Judge posted notices, given read or as the bytes that came; one outcome each, in order."""
        return self._run(judge_posts, items, context, _unpack_posts if flood else None)

    def leaves(
        self, items: Sequence[MirroredLeaf], context: Context, *, flood: bool = False
    ) -> list[Arrival]:
        """Judge mirrored leaves, in order."""
        return self._run(judge_mirrored, items, context, _unpack_leaves if flood else None)

    def expect(self, count: int) -> None:
        """So many leaves are being fetched: if that is a flood, let workers start meanwhile, when a core has little to do."""
        workers = self._processes() if count > FLOOD else None
        if workers is None:
            return
        try:
            for _ in range(self._wanted):
                workers.submit(_be_ready)
        except (BrokenProcessPool, RuntimeError):  # whoever judges finds out
            return

    def _run(
        self,
        work: Callable[[Sequence[T], Context], list[R]],
        items: Sequence[T],
        context: Context,
        unpack: Callable[[Sequence[T], bytes], list[R]] | None,
    ) -> list[R]:
        """Do it in worker processes if `unpack` can read what they answer for a piece, else in threads."""
        if len(items) <= CHUNK and unpack is None:
            return work(items, context)
        workers = None if unpack is None else self._processes()
        if workers is not None and unpack is not None:
            # Handing over costs this process's threads their turns. On two cores a run goes in one task: others are under way.
            size = max(PIECE, -(-len(items) // max(1, self._wanted // 2)))
            pieces = [items[at : at + size] for at in range(0, len(items), size)]
            try:
                head = (context.origin, context.at, context.place, *self._roster(context.roster))
                futures: list[Future[list[bytes]]] = [
                    workers.submit(_in_worker, work, piece, head) for piece in pieces
                ]
                return [
                    one
                    for piece, future in zip(pieces, futures, strict=True)
                    for n, packed in enumerate(future.result())
                    for one in unpack(piece[n * PIECE : (n + 1) * PIECE], packed)
                ]
            except (BrokenProcessPool, RuntimeError) as error:  # a worker was killed, or the pool is closing
                log.warning("worker processes lost", extra={"action": "judges_lost", "why": str(error)[:200]})
                self._drop(workers)
        pieces = [items[at : at + CHUNK] for at in range(0, len(items), CHUNK)]
        return [one for done in self._threads.map(lambda piece: work(piece, context), pieces) for one in done]

    def _roster(self, roster: Roster) -> tuple[str, bytes]:
        if self._pickled[0] != roster.sha256:
            self._pickled = (roster.sha256, pickle.dumps(roster))
        return self._pickled

    def _processes(self) -> ProcessPoolExecutor | None:
        with self._lock:
            self._last_used = time.monotonic()
            if self._workers is None and self._wanted > 0:
                # Spawned, not forked: this process has threads, and a fork would copy their locks in whatever state.
                self._workers = ProcessPoolExecutor(
                    self._wanted,
                    mp_context=get_context("spawn"),
                    initializer=_begin_worker,
                    initargs=(os.getpid(),),
                )
                threading.Thread(target=self._end_when_idle, args=(self._workers,), daemon=True).start()
            return self._workers

    def _end_when_idle(self, workers: ProcessPoolExecutor) -> None:
        while True:
            time.sleep(IDLE_S / 4)
            with self._lock:
                if self._workers is not workers:
                    return
                if time.monotonic() - self._last_used > IDLE_S:
                    self._workers = None
                    break
        workers.shutdown(wait=False)

    def _drop(self, workers: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._workers is workers:
                self._workers = None
        workers.shutdown(wait=False, cancel_futures=True)


# ── what a worker process answers ─────────────────────────────────────────────────────────────────────────────────
#
# Plain values in tuples, as `marshal` writes them: between two processes of one program, a third of what pickling objects
# costs on either side. What the asker has already (a leaf's bytes, a document that is its main part) does not come back.

_MARSHAL: Final = 2
"""The newest version of the format that does not look for equal objects, which costs more than writing them twice."""

_Flat = tuple[Any, ...]


def _flat_error(error: VerbaleError | None) -> bytes | None:
    return None if error is None else pickle.dumps(error)


def _error(flat: bytes | None) -> VerbaleError | None:
    return None if flat is None else pickle.loads(flat)  # noqa: S301 - our own child


def _flat_statement(statement: Statement) -> _Flat:
    return *statement[:10], tuple([tuple(part) for part in statement.parts]), statement.signature


def _statement(flat: _Flat) -> Statement:
    return Statement._make((*flat[:10], tuple([PartCommitment._make(part) for part in flat[10]]), flat[11]))


def _flat_parts(parts: Mapping[str, Part]) -> _Flat:
    return tuple([(name, part.salt, part.content) for name, part in parts.items()])


def _parts(flat: _Flat) -> dict[str, Part]:
    return {name: Part(salt, content) for name, salt, content in flat}


def _flat_content(content: Content | None) -> _Flat | None:
    if content is None:
        return None
    type_, tlp_rank, audience, columns, terms, screened = content
    return type_, tlp_rank, audience, columns[:-1], terms, screened


def _content_of(flat: _Flat | None, parts: Mapping[str, Part] | None) -> Content | None:
    if flat is None or parts is None:
        return None
    type_, tlp_rank, audience, columns, terms, screened = flat
    document = parts[MAIN_PART].content.decode()
    return Content(type_, tlp_rank, audience, (*columns, document), terms, screened)


def _pack_posts(outcomes: Sequence[Judged | VerbaleError]) -> bytes:
    return marshal.dumps(
        [
            _flat_error(one)
            if isinstance(one, VerbaleError)
            else (
                _flat_statement(one.statement),
                one.issuer,
                _flat_parts(one.parts),
                _flat_content(one.content),
            )
            for one in outcomes
        ],
        _MARSHAL,
    )


def _unpack_posts(_items: Sequence[SignedNotice | bytes], packed: bytes) -> list[Judged | VerbaleError]:
    outcomes: list[Judged | VerbaleError] = []
    for flat in marshal.loads(packed):  # noqa: S302 - our own child
        if isinstance(flat, bytes):
            outcomes.append(pickle.loads(flat))  # noqa: S301 - our own child
            continue
        statement, issuer, flat_parts, content = flat
        parts = _parts(flat_parts)
        outcomes.append(Judged(_statement(statement), issuer, parts, _content_of(content, parts)))
    return outcomes


def _pack_leaves(arrivals: Sequence[Arrival]) -> bytes:
    return marshal.dumps(
        [
            (
                None if one.statement is None else _flat_statement(one.statement)[1:],
                _flat_error(one.fault),
                None if one.parts is None else _flat_parts(one.parts),
                _flat_content(one.content),
                _flat_error(one.body_fault),
                one.body_state,
                None if one.rows is None else tuple(one.rows),
                None if one.sealed is None else tuple(one.sealed),
            )
            for one in arrivals
        ],
        _MARSHAL,
    )


def _unpack_leaves(leaves: Sequence[MirroredLeaf], packed: bytes) -> list[Arrival]:
    arrivals: list[Arrival] = []
    for leaf, (statement, fault, flat_parts, content, body_fault, body_state, rows, sealed) in zip(
        leaves,
        marshal.loads(packed),  # noqa: S302 - our own child
        strict=True,
    ):
        parts = None if flat_parts is None else _parts(flat_parts)
        arrivals.append(
            Arrival(
                leaf.index,
                leaf.leaf_hash,
                leaf.received_at,
                None if statement is None else _statement((leaf.leaf, *statement)),
                _error(fault),
                parts,
                _content_of(content, parts),
                _error(body_fault),
                body_state,
                rows=None if rows is None else PlainRows._make(rows),
                sealed=None if sealed is None else SealedParts._make(sealed),
            )
        )
    return arrivals


_PACK: Final[dict[Callable[..., Any], Callable[[Any], bytes]]] = {
    judge_posts: _pack_posts,
    judge_mirrored: _pack_leaves,
}


# ── inside a worker process ───────────────────────────────────────────────────────────────────────────────────────

_known: tuple[str, Any] = ("", None)


def _begin_worker(parent: int) -> None:
    """End with the parent, however it ends: a killed node must not leave workers behind that wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    keep_memory()
    threading.Thread(target=watch, daemon=True).start()
    settle_memory()


def _be_ready() -> None:
    """Started, with everything imported."""


def _in_worker(
    work: Callable[..., list[Any]],
    items: Sequence[Any],
    head: tuple[str, int, tuple[int, str] | None, str, bytes],
) -> list[bytes]:
    """Judge one piece, PIECE by PIECE. The answers become bytes here, on this core, and not in the pool's one thread in the parent."""
    global _known  # noqa: PLW0603 - this process's copy of the roster
    origin, at, place, sha256, blob = head
    if _known[0] != sha256:
        _known = (sha256, pickle.loads(blob))  # noqa: S301 - from our own parent
    context, pack = Context(origin, _known[1], at, place), _PACK[work]
    return [pack(work(items[n : n + PIECE], context)) for n in range(0, len(items), PIECE)]
