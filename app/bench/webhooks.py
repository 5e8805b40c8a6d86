"""What the delivery of webhooks does on this machine, against the bare HTTP client it is built on.

    bare       POSTs of the same bytes, to the same receiver, with as many in flight, and nothing behind them: by aiohttp's
               session, as anybody would write them
    own        the same by the node's own way to POST, which stands on the same library and does less
    fan-out    from rows of the outbox to results in the database, everything included; the ratio is the yardstick
    dead       the same with one more endpoint that takes everything and never answers
    latency    from the commit of an event to its arrival, at one event in a tenth of a second, committed by the sending process
               or by another, and at 70 % of the peak
    claims     deliveries claimed a second with 10,000 and with many more waiting, and the memory of a process that does it

They alternate, and ratios are of the best of each: what else the machine does only ever takes away. Each has open connections
and has done everything once before its clock starts. Several
sending processes (`workers`) share the number in flight, so that it stays that of the bare client. The receiver, the
senders and this process are one each; all of it stays on loopback.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from app import migrations
from app.bench import outbox_rows
from app.bench.federation import BenchFailed
from app.bench.sender import pace, setup_of
from app.clock import system_clock
from app.db import Database
from app.models import ApiTokenRow, DeliveryRow, EventRow, SubscriptionRow
from app.notify import claims, outbox, subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.notify.setup import WebhookSetup

ENDPOINTS: Final = 10
LONGEST_S: Final = 300.0
IDLE_EVENTS_PER_S: Final = 10.0
PACED_S: Final = 5.0
SHARE_OF_PEAK: Final = 0.7
FEW: Final = 10_000
CLAIMS: Final = 9
CLAIMED: Final = 1_000
"""So many claims, of so many deliveries each, for one figure of the claim rate."""

WARMING: Final = 20
"""Events before those of the fan-out that is measured: a node has run for days, and has prepared its statements."""

YEAR_MS: Final = 365 * 86_400_000


@dataclass(slots=True)
class Result:
    """All figures of one run: rates in deliveries a second, times in ms, memory in MB."""

    database: str
    deliveries: int
    scheme: str
    workers: int = 1
    bare: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    fan_out: list[float] = field(default_factory=list)
    cpu_bare_us: list[float] = field(default_factory=list)
    cpu_own_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    alive: list[float] = field(default_factory=list)
    beside_dead: list[float] = field(default_factory=list)
    dead_delay_ms: float = 0.0
    idle_ms: list[float] = field(default_factory=list)
    idle_other_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    pending: int = 0
    claims_few: float = 0.0
    claims_many: float = 0.0
    memory_few_mb: float = 0.0
    memory_many_mb: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The figures with their ratios."""
        idle, busy = sorted(self.idle_ms), sorted(self.busy_ms)
        other = sorted(self.idle_other_ms)
        found: dict[str, Any] = {
            "database": self.database,
            "deliveries": self.deliveries,
            "signing": self.scheme,
            "workers": self.workers,
            "bare_per_s": round(max(self.bare)),
            "own_per_s": round(max(self.own)),
            "fan_out_per_s": round(max(self.fan_out)),
            "fan_out_ratio": round(max(self.fan_out) / max(self.bare), 3),
            "fan_out_ratio_own": round(max(self.fan_out) / max(self.own), 3),
            "bare_cpu_us": round(min(self.cpu_bare_us)),
            "own_cpu_us": round(min(self.cpu_own_us)),
            "fan_out_cpu_us": round(min(self.cpu_us)),
            "dead_endpoint_ratio": round(max(self.beside_dead) / max(self.alive), 3),
            "dead_endpoint_delay_ms": round(self.dead_delay_ms, 1),
            "idle_latency_ms_median": round(statistics.median(idle), 1),
            "idle_latency_ms_p99": round(_p99(idle), 1),
            "idle_latency_other_process_ms_median": round(statistics.median(other), 1),
            "idle_latency_other_process_ms_p99": round(_p99(other), 1),
            "busy_latency_ms_median": round(statistics.median(busy), 1),
            "busy_latency_ms_p99": round(_p99(busy), 1),
        }
        if self.claims_many:
            found |= {
                "pending": self.pending,
                "claims_per_s_few": round(self.claims_few),
                "claims_per_s_many": round(self.claims_many),
                "claims_ratio": round(self.claims_many / self.claims_few, 3),
                "memory_mb_few": round(self.memory_few_mb),
                "memory_mb_many": round(self.memory_many_mb),
            }
        return found


def _p99(ordered: list[float]) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


# ── the processes ─────────────────────────────────────────────────────────────────────────────────────────────────


class Process:
    """A child that answers lines with lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        """Start it."""
        self._process = subprocess.Popen(  # noqa: S603 - this very Python, our own module
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> Any:  # noqa: ANN401 - any JSON value
        """Its next line."""
        out: IO[str] = self._process.stdout  # type: ignore[assignment]  # it is a pipe
        line = out.readline()
        if not line:
            raise BenchFailed("A process of the benchmark ended. Its error stands above.")
        return line.strip() if line[0].isalpha() else json.loads(line)

    def tell(self, line: str) -> None:
        """Send a line."""
        into: IO[str] = self._process.stdin  # type: ignore[assignment]  # it is a pipe
        into.write(line + "\n")
        into.flush()

    def ask(self, line: str) -> Any:  # noqa: ANN401 - any JSON value
        """Send a line and read the answer."""
        self.tell(line)
        return self.read()

    def end(self) -> None:
        """End of its input: it ends."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """Make sure that it has ended."""
        self.end()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def _running(module: str, *arguments: str) -> Iterator[Process]:
    process = Process(module, *arguments)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def _delivering(database: Database, keys: Path) -> Iterator[Process]:
    url = database.url.render_as_string(hide_password=False)
    with _running("app.bench.sender", "deliver", url, str(keys)) as sender:
        sender.read()
        yield sender


# ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    directory: Path,
    deliveries: int,
    *,
    database_url: str = "",
    rounds: int = 3,
    scheme: str = "v1",
    workers: int = 1,
    many: int,
    say: Callable[[str], None],
) -> Result:
    """Measure. `database_url` names an empty PostgreSQL database; by default SQLite in `directory`.

    Args:
        deliveries: of one round of fan-out.
        workers: sending processes, out of 1, 2 and 4.
        many: deliveries that wait for the second claim rate; 0 leaves the claim rates out.

    Raises:
        BenchFailed: a process did not do what is measured.
    """
    if claims.PER_SUBSCRIPTION % workers:
        raise BenchFailed(
            f"{workers} workers cannot share {claims.PER_SUBSCRIPTION} places of one endpoint: take 1, 2 or 4."
        )
    database = Database(database_url or f"sqlite:///{directory / 'bench.db'}")
    try:
        migrations.upgrade(database)
        result = Result("SQLite" if database.is_sqlite else "PostgreSQL", deliveries, scheme, workers)
        setup = setup_of(directory / "keys")
        outbox_rows.add_log(database)
        token = _token(database)
        with _running("app.bench.receiver") as receiver:
            base = f"http://127.0.0.1:{receiver.read()}"
            urls = [f"{base}/hook/{n}" for n in range(ENDPOINTS)]
            _subscribe(database, setup, token, urls, scheme)
            body = _body(database, setup)
            for n in range(rounds):
                say(f"round {n + 1} of {rounds}: bare, own, fan-out, dead endpoint")
                _bare(result, receiver, urls, deliveries, body)
                _share_places(database, workers)
                rate = _fan_out(
                    database,
                    directory / "keys",
                    receiver,
                    deliveries // ENDPOINTS,
                    ENDPOINTS,
                    result,
                    workers,
                )
                _share_places(database, 1)
                result.fan_out.append(rate)
                _with_dead(database, setup, directory / "keys", receiver, token, base, deliveries, result)
            _latencies(database, setup, directory / "keys", receiver, token, base, result, say)
        if many:
            _claim_rates(database, setup, directory / "keys", many, result, say)
        return result
    finally:
        database.dispose()


def _token(database: Database) -> str:
    now = system_clock()
    with database.write() as session:
        session.add(
            ApiTokenRow(
                id="bench", name="bench", secret_hash=b"", scopes="subscribe", ceiling=4, created_at=now, expires_at=now + YEAR_MS
            )
        )  # fmt: skip
    return "bench"


def _subscribe(
    database: Database, setup: WebhookSetup, token: str, urls: list[str], scheme: str
) -> list[str]:
    with database.write() as session:
        return [
            subscriptions.create(
                session, setup, token, {"url": url, "scheme": scheme}, since=None, now=system_clock()
            )[0].id
            for url in urls
        ]


def _body(database: Database, setup: WebhookSetup) -> bytes:
    """A body as it will be sent; the delivery it belongs to is finished without being sent."""
    outbox_rows.add_events(database, 1)
    outbox.fan_out_step(database, system_clock, setup)
    ready, _ = claims.prepare(database, system_clock(), setup, claims.claim(database, system_clock(), 1))
    _finish_all(database)
    return ready[0].body


def _finish_all(database: Database) -> None:
    with database.write() as session:
        newest = outbox.newest_event(session)
        session.execute(
            update(DeliveryRow).where(DeliveryRow.state == "pending").values(state="dropped", finished_at=0)
        )
        session.execute(
            update(SubscriptionRow).values(fanned_seq=newest, not_before=0, failures=0, failing_since=None)
        )


def _bare(result: Result, receiver: Process, urls: list[str], count: int, body: bytes) -> None:
    in_flight = ENDPOINTS * claims.PER_SUBSCRIPTION
    for kind, rates, cpu_us in (
        ("bare", result.bare, result.cpu_bare_us),
        ("wire", result.own, result.cpu_own_us),
    ):
        receiver.ask("reset")
        with _running(
            "app.bench.sender", kind, ",".join(urls), str(in_flight), str(count), body.decode()
        ) as client:
            found = client.read()
        rates.append(count / found["seconds"])
        cpu_us.append(found["cpu_s"] / count * 1e6)


def _fan_out(
    database: Database,
    keys: Path,
    receiver: Process,
    events: int,
    endpoints: int,
    result: Result | None = None,
    workers: int = 1,
) -> float:
    """Deliveries a second, from the commit of the events to the last arrival."""
    receiver.ask("reset")
    with ExitStack() as stack:
        senders = [stack.enter_context(_delivering(database, keys)) for _ in range(workers)]
        for sender in senders:
            sender.ask("go")
        outbox_rows.add_events(database, WARMING)
        if receiver.ask(f"wait {WARMING * endpoints} {LONGEST_S}") < WARMING * endpoints:
            raise BenchFailed(f"The first deliveries did not arrive in {LONGEST_S:.0f} s.")
        _settle(database)
        receiver.ask("reset")
        for sender in senders:
            sender.ask("mark")
        outbox_rows.add_events(database, events)
        began = time.time()
        wanted = events * endpoints
        if receiver.ask(f"wait {wanted} {LONGEST_S}") < wanted:
            raise BenchFailed(f"Not all of {wanted} deliveries arrived in {LONGEST_S:.0f} s.")
        last = max(at for _, _, at in receiver.ask("report"))
        for sender in senders:
            sender.end()
        cpu_s = sum(sender.read()["cpu_s"] for sender in senders)
    if result is not None:
        result.cpu_us.append(cpu_s / wanted * 1e6)
    _finish_all(database)
    return float(wanted / (last - began))


def _with_dead(
    database: Database,
    setup: WebhookSetup,
    keys: Path,
    receiver: Process,
    token: str,
    base: str,
    deliveries: int,
    result: Result,
) -> None:
    """Nine endpoints alone, then the same nine beside one that never answers."""
    tenth = _subscription(database, f"{base}/hook/{ENDPOINTS - 1}")
    _set_status(database, tenth, "paused")
    events = deliveries // ENDPOINTS
    result.alive.append(_fan_out(database, keys, receiver, events, ENDPOINTS - 1))
    (dead,) = _subscribe(database, setup, token, [f"{base}/dead"], "v1")
    result.beside_dead.append(_fan_out(database, keys, receiver, events, ENDPOINTS - 1))
    _remove(database, token, dead)
    _set_status(database, tenth, "active")
    _finish_all(database)


def _subscription(database: Database, url: str) -> str:
    with database.read() as session:
        return session.scalars(select(SubscriptionRow.id).where(SubscriptionRow.url == url)).one()


def _share_places(database: Database, workers: int) -> None:
    with database.write() as session:
        session.execute(update(SubscriptionRow).values(max_in_flight=claims.PER_SUBSCRIPTION // workers))


def _set_status(database: Database, id_: str, status: str) -> None:
    with database.write() as session:
        session.execute(update(SubscriptionRow).where(SubscriptionRow.id == id_).values(status=status))


def _remove(database: Database, token: str, id_: str) -> None:
    with database.write() as session:
        subscriptions.remove(session, token, id_)


def _latencies(
    database: Database,
    setup: WebhookSetup,
    keys: Path,
    receiver: Process,
    token: str,
    base: str,
    result: Result,
    say: Callable[[str], None],
) -> None:
    say("latency: idle, at 70 % of the peak, beside a dead endpoint")
    result.idle_ms = _paced(database, keys, receiver, IDLE_EVENTS_PER_S)
    result.idle_other_ms = _paced(database, keys, receiver, IDLE_EVENTS_PER_S, here=True)
    peak = max(result.fan_out)
    result.busy_ms = _paced(database, keys, receiver, SHARE_OF_PEAK * peak / ENDPOINTS)
    (dead,) = _subscribe(database, setup, token, [f"{base}/dead"], "v1")
    beside = _paced(database, keys, receiver, IDLE_EVENTS_PER_S)
    _remove(database, token, dead)
    result.dead_delay_ms = max(0.0, _p99(sorted(beside)) - _p99(sorted(result.idle_ms)))


def _paced(
    database: Database, keys: Path, receiver: Process, rate: float, *, here: bool = False
) -> list[float]:
    """Milliseconds from each event's commit to each of its arrivals. `here`: this process commits, not the one that sends."""
    receiver.ask("reset")
    with _delivering(database, keys) as sender:
        sender.ask("go")
        if here:
            committed = pace(database, rate, PACED_S, lambda: None)
        else:
            committed = {int(n): at for n, at in sender.ask(f"pace {rate} {PACED_S}").items()}
        receiver.ask(f"wait {len(committed) * ENDPOINTS} {LONGEST_S}")
        arrived = receiver.ask("report")
        sender.end()
        sender.read()
    _finish_all(database)
    found = [(at - committed[event]) * 1000 for _, event, at in arrived if event in committed]
    if len(found) < len(committed) * ENDPOINTS:
        raise BenchFailed("Some deliveries did not arrive while their latency was measured.")
    return found


# ── claims ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _claim_rates(
    database: Database,
    setup: WebhookSetup,
    keys: Path,
    many: int,
    result: Result,
    say: Callable[[str], None],
) -> None:
    """Claims among few that wait, then among many."""
    say(f"claims: {FEW:,} and {many:,} waiting")
    result.pending = many
    _fill(database, FEW)
    result.claims_few, result.memory_few_mb = _claim_rate(database, setup), _memory(database, keys)
    _fill(database, many)
    result.claims_many, result.memory_many_mb = _claim_rate(database, setup), _memory(database, keys)


def _fill(database: Database, count: int) -> None:
    """Make `count` deliveries wait, spread over the endpoints, with ids made in runs of events as a fan-out makes them."""
    now = system_clock()
    with database.write() as session:
        session.execute(update(DeliveryRow).values(state="dropped", finished_at=now))
        ids = session.scalars(select(SubscriptionRow.id).order_by(SubscriptionRow.id)).all()
        first = outbox.newest_event(session) + 1
        log_id = session.scalars(select(EventRow.log_id).limit(1)).one()
        events = -(-count // len(ids))
        database.next_values(session, "events", events)
        database.bulk_insert(
            session,
            EventRow.__table__,
            ("seq", "type", "log_id", "idx", "root_idx", "at", "live"),
            [(first + n, "notice.issued", log_id, 0, 0, now, True) for n in range(events)],
        )
    for id_ in ids:
        with database.write() as session:
            database.bulk_insert(
                session,
                DeliveryRow.__table__,
                (
                    "id",
                    "subscription_id",
                    "event_seq",
                    "number",
                    "lane",
                    "state",
                    "due_at",
                    "leased_until",
                    "attempts",
                    "created_at",
                    "recalled",
                ),
                [
                    (
                        outbox.new_id(now - (events - n) // outbox.EVENTS_PER_RUN),
                        id_,
                        first + n,
                        first + n,
                        1,
                        "pending",
                        now,
                        0,
                        0,
                        now,
                        False,
                    )
                    for n in range(events)
                ],
            )
    with database.write() as session:
        session.execute(
            update(SubscriptionRow).values(
                fanned_seq=first + events, not_before=0, failures=0, failing_since=None
            )
        )
    _settle(database)


def _settle(database: Database) -> None:
    """What an engine does by itself soon after many rows were written: PostgreSQL counts them, without which it takes the table for
    an empty one; SQLite copies its write-ahead log into the file.
    """
    if database.is_sqlite:
        database.scrub(())
    else:
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("ANALYZE")


def _claim_rate(database: Database, setup: WebhookSetup) -> float:
    """Claims as a worker makes them while its endpoints are quick, with the gate asked for each; the best of some."""
    best = 0.0
    ids = _ids(database)
    quick = {id_: claims.Busy(0, CLAIMED // len(ids)) for id_ in ids}
    for _ in range(CLAIMS):
        began = time.monotonic()
        rows = claims.claim(database, system_clock(), CLAIMED, busy=quick)
        if len(rows) < CLAIMED // 2:
            raise BenchFailed("Too little could be claimed, although deliveries wait.")
        claims.prepare(database, system_clock(), setup, rows)
        best = max(best, len(rows) / (time.monotonic() - began))
    return best


def _ids(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(SubscriptionRow.id)))


def _memory(database: Database, keys: Path) -> float:
    """Most memory that a sender takes in a few seconds of it. Its endpoints are gone: it claims, fails and rests."""
    with _delivering(database, keys) as sender:
        sender.ask("go")
        time.sleep(2)
        sender.end()
        return float(sender.read()["memory_mb"])
