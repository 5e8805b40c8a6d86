"""What screening does on this machine at a size, by a real node on loopback.

    index      from rows of the database to an index that answers, in a process of its own: entities a second, memory
    delta      from a committed change to an index that knows it
    cold       from the start of a node's process until it is ready, and its first answer
    one        one party through HTTP, one after another
    batch      one party a line through `POST /v1/screenings/batch`, and the most memory the node took meanwhile
    scoring    one query against the parties that were compared with it, without search, HTTP and explanation's text
    peer       the same by nomenklatura's LogicV2, where it can be had

The entities are invented (`app.bench.invented`) and written straight into the tables that a fold would write. Sizes are
in MB of 2**20 bytes, times in ms of the wall clock. Beside them stands the time that the node's processes had of a core
(`*_cpu_ms`, `*_cpu_per_s`), which what else the machine does changes less.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson
from sqlalchemy import select, text, update

from app import tokens
from app.bench import invented
from app.bench.federation import (
    START_S,
    BenchFailed,
    Progress,
    cpu_ms,
    free_port,
    resident_mb,
    running,
    until,
)
from app.db import Database
from app.demo.found import Member, found
from app.demo.processes import environment
from app.domain.handling import Tlp
from app.models import LogRow, NoticeRow, ScreenedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.demo.found import FoundedNode

PAGE: Final = 5_000
CHANGES: Final = 100
"""Changes that the time of a delta is measured over."""
WARM: Final = 50
"""Queries before those that are measured."""
LONGEST_S: Final = 1_800.0
YEAR_MS: Final = 365 * 86_400_000
PEER_QUERIES: Final = 200
PEER_CANDIDATES: Final = 50
"""At most: as many as yente hands to LogicV2 for an answer of five. A search here seldom compares so many."""

LIMITS: Final[dict[int, dict[str, tuple[str, float]]]] = {
    100_000: {
        "index_per_s": ("at least", 5_000),
        "delta_ms_median": ("at most", 5),
        "one_p50_ms": ("at most", 10),
        "one_p99_ms": ("at most", 40),
        "batch_per_s": ("at least", 500),
    },
    1_000_000: {
        "index_per_s": ("at least", 5_000),
        "delta_ms_median": ("at most", 5),
        "one_p50_ms": ("at most", 25),
        "one_p99_ms": ("at most", 120),
        "disk_mb": ("at most", 2_000),
        "resident_mb": ("at most", 600),
    },
}
"""What is wanted at a size and above."""
DISK_RESIDENT_MB: Final = 200
"""Of a node that has its index on disk, at any size."""


@dataclass(slots=True)
class Result:
    """All figures of one run. See the module."""

    entities: int
    names: int
    database: str
    write_per_s: float
    disk_mb: float
    index: str = "memory"
    index_per_s: float = 0.0
    index_cpu_per_s: float = 0.0
    index_alone_mb: float = 0.0
    delta_ms: list[float] = field(default_factory=list)
    cold_start_s: float = 0.0
    first_answer_ms: float = 0.0
    idle_mb: float | None = None
    resident_mb: float | None = None
    one_ms: list[float] = field(default_factory=list)
    one_cpu_ms: float | None = None
    hits: int = 0
    batch_parties: int = 0
    batch_per_s: float = 0.0
    batch_cpu_ms: float | None = None
    batch_mb: float | None = None
    peer: dict[str, Any] = field(default_factory=dict)

    def limits(self) -> dict[str, tuple[str, float]]:
        """What is wanted at this size: that of the greatest size that it reaches."""
        reached = [size for size in LIMITS if size <= self.entities]
        wanted = LIMITS[max(reached) if reached else min(LIMITS)]
        return wanted if self.index == "memory" else wanted | {"resident_mb": ("at most", DISK_RESIDENT_MB)}

    def as_dict(self) -> dict[str, Any]:
        """The figures, and the ratio of each to its limit: 1 or less is within it."""
        one, delta = sorted(self.one_ms), sorted(self.delta_ms)
        figures: dict[str, Any] = {
            "entities": self.entities,
            "names": self.names,
            "database": self.database,
            "index": self.index,
            "write_per_s": round(self.write_per_s),
            "disk_mb": round(self.disk_mb, 1),
            "index_per_s": round(self.index_per_s),
            "index_cpu_per_s": round(self.index_cpu_per_s),
            "index_alone_mb": round(self.index_alone_mb, 1),
            "delta_ms_median": _at(delta, 0.5),
            "delta_ms_p99": _at(delta, 0.99),
            "cold_start_s": round(self.cold_start_s, 2),
            "first_answer_ms": round(self.first_answer_ms, 1),
            "idle_mb": self.idle_mb,
            "resident_mb": self.resident_mb,
            "one_p50_ms": _at(one, 0.5),
            "one_p99_ms": _at(one, 0.99),
            "one_cpu_ms": self.one_cpu_ms,
            "queries_with_hits": self.hits,
            "batch_parties": self.batch_parties,
            "batch_per_s": round(self.batch_per_s),
            "batch_cpu_ms": self.batch_cpu_ms,
            "batch_mb": self.batch_mb,
            **self.peer,
        }
        ratios = {}
        for name, (how, limit) in self.limits().items():
            value = figures[name]
            if value:
                ratios[name] = round(value / limit if how == "at most" else limit / value, 3)
        if figures.get("peer_p50_ms"):
            ratios["scoring_p50_to_peer"] = round(figures["scoring_p50_ms"] / figures["peer_p50_ms"], 3)
            ratios["scoring_p99_to_peer"] = round(figures["scoring_p99_ms"] / figures["peer_p99_ms"], 3)
            ratios["one_p50_to_peer"] = round(figures["one_p50_ms"] / figures["peer_p50_ms"], 3)
            ratios["one_p99_to_peer"] = round(figures["one_p99_ms"] / figures["peer_p99_ms"], 3)
        return figures | {"ratios": ratios}


def _at(ordered: Sequence[float], part: float) -> float | None:
    return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)], 2) if ordered else None


# ── the tables ────────────────────────────────────────────────────────────────────────────────────────────────────

_NOTICE: Final = tuple(c.name for c in NoticeRow.__table__.columns)
_SCREENED: Final = ("log_id", "idx", "seq", "audience", "parties")


def fill(db: Database, log_id: int, first: int, count: int, progress: Callable[[int], None]) -> int:
    """Write a denial for each of `count` entities from number `first` on, as a fold does; returns how many names they have."""
    names = 0
    for start in range(first, first + count, PAGE):
        end = min(start + PAGE, first + count)
        parties = [invented.entity(number) for number in range(start, end)]
        names += sum(len(party["names"]) for party in parties)
        notices = [_notice(log_id, n, party) for n, party in enumerate(parties, start)]
        screened = [_screened(log_id, n, party) for n, party in enumerate(parties, start)]
        with db.write() as session:
            db.next_values(session, "screened", end - start)
            db.bulk_insert(session, NoticeRow.__table__, _NOTICE, notices)
            db.bulk_insert(session, ScreenedRow.__table__, _SCREENED, screened)
        progress(end - first)
    return names


def _notice(log_id: int, number: int, party: dict[str, Any]) -> tuple[Any, ...]:
    names, properties = party["names"], {"name": party["names"][:1], **party["properties"]}
    if len(names) > 1:
        properties["alias"] = names[1:]
    body = {
        "action": "refused",
        "denied_on": "2026-01-15",
        "parties": [{"ftm": {"schema": party["schema"], "properties": properties}, "role": "end_user"}],
        "items_scope": "all",
        "destination": "ZM",
        "reasons": ["END_USER_CONCERN"],
        "concerns": [],
        "status": "active",
    }
    given = {
        "log_id": log_id, "idx": number, "seq": number + 1, "id": f"01937f3a-5c00-7000-8000-{number:012x}", "issuer": "EE",
        "status": "active", "version": 1, "current_idx": number, "current_hash": number.to_bytes(32, "big"),
        "document_idx": number, "content_idx": number, "content_state": "current", "iat": 1, "changed_iat": 1,
        "received_at": 1, "changed_at": 1, "tlp_rank": 1, "audience_all": True, "type": "denied_end_user",
        "title": f"Denial {number}", "document": orjson.dumps({"body": body}).decode(),
    }  # fmt: skip
    return tuple(given.get(name) for name in _NOTICE)


def _screened(log_id: int, number: int, party: dict[str, Any]) -> tuple[Any, ...]:
    listed = [{"pos": 0, "role": "end_user", **party}]
    return log_id, number, number + 1, "ALL", orjson.dumps(listed).decode()


def _disk_mb(db: Database, node: FoundedNode) -> float:
    if not db.is_sqlite:
        with db.read() as session:
            return float(session.scalar(text("SELECT pg_database_size(current_database())")) or 0) / 2**20
    with closing(
        sqlite3.connect(str(db.url.database))
    ) as connection:  # what is in the write-ahead log belongs to the file
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(f.stat().st_size for f in node.settings.data_dir.glob("*.db*")) / 2**20


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    directory: Path,
    entities: int,
    *,
    database_url: str,
    asked: int,
    peer: str,
    say: Callable[[str], None],
    progress: Progress,
    index: str = "memory",
) -> Result:
    """Measure everything once, in `directory`, which must be empty.

    Args:
        asked: parties asked one by one; the batch has four times as many.
        peer: a Python that has nomenklatura; "" leaves the peer out.
        index: the setting `screening_index` of the node.

    Raises:
        BenchFailed: the node or the peer did not do what is measured.
    """
    overrides: dict[str, object] = {"screening_index": index}
    if database_url:
        overrides["database_url"] = database_url
    federation = found(directory, [Member("EE", free_port(), overrides)], central="EE", at=int(time.time()))
    node = federation.node("EE")
    db = Database(node.settings.database)
    with db.read() as session:
        log_id = session.scalars(select(LogRow.id).where(LogRow.is_own)).one()
    with progress("Writing", entities) as show:
        began = time.perf_counter()
        names = fill(db, log_id, 0, entities, show)
        wrote = time.perf_counter() - began
    result = Result(
        entities,
        names,
        database_url.split(":", 1)[0] or "sqlite",
        entities / wrote,
        _disk_mb(db, node),
        index=index,
    )
    say("Indexing in a process of its own")
    _index(result, node, log_id)
    parties = list(invented.queries(WARM + asked, entities))
    lines = [orjson.dumps({"party": party}) for party in invented.queries(4 * asked, entities)]
    headers = {"authorization": f"Bearer {_token(db)}"}
    url = f"{node.member.url}/v1/screenings"
    began = time.perf_counter()
    with (
        running(federation, "EE") as nodes,
        httpx.Client(timeout=LONGEST_S, headers=headers) as client,
    ):
        result.idle_mb = resident_mb(nodes["EE"])
        until(
            lambda: client.get(f"{node.member.url}/health/ready").status_code == httpx.codes.OK,
            START_S + entities / 1_000,
            "EE is not ready",
        )
        result.cold_start_s = time.perf_counter() - began
        answers = []
        used: float | None = None
        with progress("One by one", len(parties)) as show:
            for number, party in enumerate(parties):
                taken, answer = _one(client, url, party)
                if number == 0:
                    result.first_answer_ms = taken
                if number == WARM:
                    used = cpu_ms(nodes["EE"])
                if number >= WARM:
                    result.one_ms.append(taken)
                    result.hits += bool(answer["parties"][0]["hits"])
                    answers.append(party)
                show(number + 1)
        result.one_cpu_ms = _each(used, cpu_ms(nodes["EE"]), len(result.one_ms))
        result.resident_mb = resident_mb(nodes["EE"])
        say(f"A batch of {len(lines)} parties")
        used = cpu_ms(nodes["EE"])
        with _most(lambda: resident_mb(nodes["EE"])) as most:
            began = time.perf_counter()
            _batch(client, f"{url}/batch", lines)
            result.batch_per_s = len(lines) / (time.perf_counter() - began)
        result.batch_cpu_ms = _each(used, cpu_ms(nodes["EE"]), len(lines))
        result.batch_parties, result.batch_mb = len(lines), most()
    if peer:
        say("The peer scores the same candidates")
        result.peer = measure_peer(peer, node.settings.database, answers[:PEER_QUERIES])
    return result


def _each(before: float | None, after: float | None, count: int) -> float | None:
    return None if before is None or after is None else round((after - before) / count, 2)


def _token(db: Database) -> str:
    now = time.time_ns() // 1_000_000
    with db.write() as session:
        return tokens.create(
            session, name="bench", scopes=("screen",), ceiling=Tlp.RED, expires_at=now + YEAR_MS, now_ms=now
        )[1]


def _one(client: httpx.Client, url: str, party: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    body = orjson.dumps({"party": party})
    began = time.perf_counter()
    answer = client.post(url, content=body)
    taken = (time.perf_counter() - began) * 1000
    if answer.status_code != httpx.codes.OK:
        raise BenchFailed(f"A screening was refused: {answer.text[:300]}")
    return taken, answer.json()


def _batch(client: httpx.Client, url: str, lines: Sequence[bytes]) -> None:
    """Send all, read all; every line must be answered with 200."""
    answered = 0
    with client.stream("POST", url, content=b"\n".join(lines) + b"\n") as answer:
        for line in answer.iter_lines():
            value = orjson.loads(line)
            if value.get("end"):
                break
            answered += value["status"] == httpx.codes.OK
    if answered != len(lines):
        raise BenchFailed(f"{answered} of {len(lines)} lines were answered.")


@contextmanager
def _most(measure: Callable[[], float | None]) -> Iterator[Callable[[], float | None]]:
    """The greatest of what is measured every tenth of a second until the block ends."""
    found_values: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            value = measure()
            if value is not None:
                found_values.append(value)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: max(found_values, default=None)
    finally:
        over.set()
        thread.join()


def _index(result: Result, node: FoundedNode, log_id: int) -> None:
    """In a process of its own, so that its memory is the index's."""
    folder = str(node.settings.data_dir) if result.index == "disk" else ""
    command = [
        sys.executable,
        "-m",
        "app.bench.screening",
        "index",
        node.settings.database,
        str(log_id),
        str(result.entities),
        folder,
    ]
    answer = subprocess.run(command, capture_output=True, env=environment(), check=False)  # noqa: S603 - our own program
    if answer.returncode:
        raise BenchFailed(f"The index was not made: {answer.stderr.decode()[-500:]}")
    measured = json.loads(answer.stdout)
    result.index_per_s, result.index_cpu_per_s = measured["per_s"], measured["cpu_per_s"]
    result.index_alone_mb = measured["mb"]
    result.delta_ms = measured["delta_ms"]


def measure_peer(python: str, database: str, parties: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """LogicV2's times in an environment that has it, and this program's for the same: scoring, without search and HTTP."""
    from app.bench.peer import candidates, own_times  # noqa: PLC0415 - it loads an index

    listed = candidates(database, parties, PEER_CANDIDATES)
    own = sorted(own_times(listed))
    script = Path(__file__).with_name("peer_logic_v2.py")
    try:
        answer = subprocess.run(  # noqa: S603 - what the caller named
            [python, str(script)],
            input=b"\n".join(map(orjson.dumps, listed)),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise BenchFailed(f"--peer {python} cannot be run: {error.strerror}.") from error
    if answer.returncode:
        raise BenchFailed(
            f"{python} has no nomenklatura that works: {answer.stderr.decode()[-300:]} See docs/screening.md, “The peer”."
        )
    measured: dict[str, Any] = json.loads(answer.stdout)
    return {"scoring_p50_ms": _at(own, 0.5), "scoring_p99_ms": _at(own, 0.99), **measured}


# ── in the process that indexes ───────────────────────────────────────────────────────────────────────────────────


def _own_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


def index_main(database: str, log_id: int, entities: int, folder: str) -> dict[str, Any]:
    """Load the index, then change it."""
    from app.screening.find import Screener  # noqa: PLC0415 - its memory is what is measured

    db = Database(database)
    screener = Screener(db, Path(folder) if folder else None)
    before = _own_mb()
    began, used = time.perf_counter(), time.process_time()
    held = screener.refresh()
    took, cpu = time.perf_counter() - began, time.process_time() - used
    if held != entities:
        raise BenchFailed(f"The index holds {held} of {entities} parties.")
    alone = _own_mb() - before
    times = []
    for number in range(CHANGES):
        changed = entities - 1 - number
        with db.write() as session:
            seq = db.next_values(session, "screened", 1)
            session.execute(
                update(ScreenedRow)
                .where(ScreenedRow.log_id == log_id, ScreenedRow.idx == changed)
                .values(seq=seq)
            )
        began = time.perf_counter()
        screener.refresh()
        times.append((time.perf_counter() - began) * 1000)
    return {"per_s": held / took, "cpu_per_s": held / cpu, "mb": alone, "delta_ms": times}


if __name__ == "__main__":
    print(json.dumps(index_main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
