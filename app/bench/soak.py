"""The soak: notices flow for minutes while workers, receivers and the server are killed at random; then every event is counted.

One node, its workers and a receiver for each subscription, as processes on loopback. What is to arrive is computed from
what was posted, by the rule of the gate said again here, and from nothing the node says of its deliveries. Guarantees
that every process started here is ended, also when this one is killed (`app.demo.tether`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from app import tokens
from app.bench.federation import BenchFailed
from app.clock import system_clock
from app.db import Database
from app.demo import fiction
from app.demo.api import Api, Posted, wait_until
from app.demo.author import Author
from app.demo.errors import DemoFailed
from app.demo.found import FoundedNode, Member, found
from app.demo.processes import environment
from app.demo.scenario import free_ports
from app.domain.handling import Tlp
from app.gate import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RETRY_S: Final = (
    "1",
    "2",
    "3",
    "5",
    "5",
    "10",
    "10",
    "20",
    "20",
    "20",
    "30",
    "30",
    "30",
    "30",
    "30",
    "60",
    "60",
    "60",
)
"""The schedule of days, in minutes: what counts here is that nothing is lost, not how long it is waited for."""

WORKERS: Final = 2
PATIENCE_S: Final = 700.0
"""The count is taken when so long nothing new has come. A killed worker's leases last ten seconds, an endpoint that was often
down rests for up to ten; and an ordered subscription sends one after another, so its backlog takes as long as it takes."""
POST_S: Final = 300.0
"""How long a batch is sent again: a machine that is busy with other things is no failure of delivery."""

BATCH: Final = 20
CEILINGS: Final = (
    (Tlp.CLEAR, "v1"),
    (Tlp.GREEN, "v1a"),
    (Tlp.AMBER, "both"),
    (Tlp.AMBER_STRICT, "v1"),
    (Tlp.RED, "v1a"),
    (Tlp.RED, "v1"),
)
"""Of the subscriptions: each has a token, a scheme and a receiver of its own; the last one is ordered."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was posted and is to be told."""

    type: str
    index: int
    notice: str
    tlp: Tlp


@dataclass(slots=True)
class Count:
    """The tally of one subscription; all of it must be zero but for the first three."""

    ceiling: str
    signing: str
    expected: int = 0
    arrived: int = 0
    repeated: int = 0
    missing: int = 0
    above_ceiling: int = 0
    unsigned: int = 0
    not_expected: int = 0
    several_ids: int = 0
    out_of_order: int = 0

    @property
    def faults(self) -> int:
        """What must not be."""
        return (
            self.missing
            + self.above_ceiling
            + self.unsigned
            + self.not_expected
            + self.several_ids
            + self.out_of_order
        )


@dataclass(slots=True)
class Tally:
    """What came of a soak."""

    minutes: float
    events: int = 0
    kills: dict[str, int] = field(default_factory=lambda: {"worker": 0, "receiver": 0, "server": 0})
    drained_s: float = 0.0
    subscriptions: list[Count] = field(default_factory=list)
    feed_missing: int = 0
    feed_repeated: int = 0
    feed_not_expected: int = 0

    @property
    def good(self) -> bool:
        """Whether everything arrived and nothing else did."""
        feed = self.feed_missing + self.feed_repeated + self.feed_not_expected
        return self.events > 0 and not feed and not any(count.faults for count in self.subscriptions)

    def as_dict(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self) | {"good": self.good}


class Killable:
    """A process that is killed and started again."""

    def __init__(self, kind: str, command: Sequence[str], log: Path) -> None:
        """Start it."""
        self.kind, self._command, self._log = kind, [sys.executable, *command], log
        self.start()

    def start(self) -> None:
        """Start it, once more."""
        tied = [sys.executable, "-m", "app.demo.tether", str(os.getpid()), *self._command]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                tied, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment(),
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """As a power cut would."""
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """Start it again if it ended by itself: that is no part of this test, and shows in its log."""
        if self._process.poll() is not None:
            self.start()


@dataclass(slots=True)
class Subscriber:
    """A subscription, its receiver, and what the receiver wrote."""

    ceiling: Tlp
    signing: str
    ordered: bool
    api: Api
    cursor: str
    file: Path
    receiver: Killable

    def deliveries(self) -> list[dict[str, Any]]:
        """All whole lines; a kill may have torn one that was never acknowledged."""
        if not self.file.exists():
            return []
        lines = []
        for line in self.file.read_bytes().split(b"\n"):
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines


def run(
    folder: Path, minutes: float, *, database_url: str | None, seed: int, say: Callable[[str], None]
) -> Tally:
    """Soak for some minutes, wait for what is under way, count.

    Args:
        folder: an empty or missing folder, for the node and everything else.
        database_url: PostgreSQL instead of SQLite; an empty database.
        seed: of everything random here.

    Raises:
        BenchFailed: a node did not start, or refused what is to be posted.
    """
    try:
        with ExitStack() as stack:
            return _Soak(folder, minutes, database_url, seed, say, stack).run()
    except DemoFailed as failure:
        raise BenchFailed(str(failure)) from failure


class _Soak:
    def __init__(
        self,
        folder: Path,
        minutes: float,
        database_url: str | None,
        seed: int,
        say: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._folder, self._say, self._stack = folder, say, stack
        self._chance = random.Random(seed)  # noqa: S311 - a run that can be had again
        self._seed = seed
        self.tally = Tally(minutes)
        self._posted: list[Event] = []
        self._open: list[tuple[Posted, Tlp]] = []  # notices that may be withdrawn
        self._node = self._found(database_url)
        self._author = Author.of(self._node)

    # ── the stage ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _found(self, database_url: str | None) -> FoundedNode:
        (port,) = free_ports(1)
        overrides: dict[str, object] = {
            "webhook_allow_http": True,
            "webhook_allow_networks": ["127.0.0.0/8"],
            "webhook_retry_s": list(RETRY_S),
            "background": False,
            "log_level": "WARNING",
        }
        if database_url is not None:
            overrides["database_url"] = database_url
        federation = found(
            self._folder / "federation", [Member("EE", port, overrides)], central="EE", at=int(time.time())
        )
        return federation.nodes[0]

    def _start(self) -> None:
        settings = str(self._node.settings_file)
        node = ["-m", "app.cli", "--traceback"]
        self._server = self._killable("server", [*node, "serve", "--settings", settings])
        self._workers = [  # they fetch the roster, without which the server takes nothing
            self._killable("worker", [*node, "worker", "--settings", settings], n) for n in range(WORKERS)
        ]
        public = Api(self._node, self._token(Tlp.RED), patience_s=POST_S)
        wait_until("the server answers", public.alive, seconds=60, watch=self._server.check)
        self._api = public
        self._subscribers = [
            self._subscriber(n, ceiling, signing) for n, (ceiling, signing) in enumerate(CEILINGS)
        ]

    def _killable(self, kind: str, command: Sequence[str], number: int = 0) -> Killable:
        process = Killable(kind, command, self._folder / f"{kind}-{number}.log")
        self._stack.callback(process.kill)
        return process

    def _token(self, ceiling: Tlp) -> str:
        db, now = Database(self._node.settings.database), system_clock()
        try:
            with db.write() as session:
                _, text = tokens.create(
                    session,
                    name="soak",
                    scopes=SCOPES,
                    ceiling=ceiling,
                    expires_at=now + 86_400_000,
                    now_ms=now,
                )
        finally:
            db.dispose()
        return text

    def _subscriber(self, number: int, ceiling: Tlp, signing: str) -> Subscriber:
        api = Api(self._node, self._token(ceiling))
        self._stack.callback(api.close)
        (port,) = free_ports(1)
        ordered = number == len(CEILINGS) - 1
        wanted = {
            "url": f"http://127.0.0.1:{port}/hook",
            "signing": signing,
            "ordered": ordered,
            "event_types": ["notice.issued", "notice.withdrawn"],
        }
        made = api.post("/v1/subscriptions", wanted)
        file = self._folder / f"received-{number}.jsonl"
        command = ["-m", "app.bench.soak_receiver", str(port), str(file), f"{self._seed}-{number}"]
        receiver = self._killable(
            "receiver", [*command, made["secret"] or "-", made["public_key"] or "-"], number
        )
        cursor = api.json("/v1/feed", cursor="newest")["next"]
        return Subscriber(ceiling, signing, ordered, api, cursor, file, receiver)

    # ── the play ──────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Tally:
        self._start()
        self._say(f"posting for {self.tally.minutes:g} minutes, with kills")
        end = time.monotonic() + self.tally.minutes * 60
        next_kill = time.monotonic() + 2
        while time.monotonic() < end:
            self._post()
            if time.monotonic() >= next_kill:
                self._kill()
                next_kill = time.monotonic() + self._chance.uniform(1, 6)
            for process in self._everybody():
                process.check()
            time.sleep(self._chance.uniform(0.05, 0.4))
        self.tally.events = len(self._posted)
        self._say(f"{len(self._posted)} events; waiting for what is under way")
        began = time.monotonic()
        left, since = -1, began
        while (missing := sum(len(self._missing(s)) for s in self._subscribers)) and (
            missing != left or time.monotonic() < since + PATIENCE_S
        ):
            if missing != left:
                left, since = missing, time.monotonic()
            for process in self._everybody():
                process.check()
            time.sleep(1)
        self.tally.drained_s = round(time.monotonic() - began, 1)
        self.tally.subscriptions = [self._count(s) for s in self._subscribers]
        for subscriber in self._subscribers:
            self._count_feed(subscriber)
        return self.tally

    def _everybody(self) -> list[Killable]:
        return [self._server, *self._workers, *(s.receiver for s in self._subscribers)]

    def _post(self) -> None:
        """A batch of new notices and withdrawals, of every label."""
        lines: list[bytes] = []
        about: list[tuple[str, Tlp, str | None]] = []
        for _ in range(self._chance.randint(1, BATCH)):
            if self._open and self._chance.random() < 0.25:  # noqa: PLR2004 - a quarter are withdrawn
                posted, tlp = self._open.pop(self._chance.randrange(len(self._open)))
                main = (
                    fiction.paper_crane_withdrawal(posted.id, posted.hash_text)
                    | {"issuer": "EE"}
                    | _handling(tlp)
                )
                lines.append(self._author.sign(main, ref=posted.hash))
                about.append(("notice.withdrawn", tlp, posted.id))
            else:
                tlp = self._chance.choice(list(Tlp))
                lines.append(self._author.sign(fiction.practice("EE") | _handling(tlp)))
                about.append(("notice.issued", tlp, None))
        for posted, (type_, tlp, notice) in zip(self._api.post_batch(lines), about, strict=True):
            self._posted.append(Event(type_, posted.index, notice or posted.id, tlp))
            if notice is None:
                self._open.append((posted, tlp))

    def _kill(self) -> None:
        lot = self._chance.random()
        if lot < 0.05:  # noqa: PLR2004 - the server now and then
            victim = self._server
        elif lot < 0.5:  # noqa: PLR2004
            victim = self._chance.choice(self._workers)
        else:
            victim = self._chance.choice(self._subscribers).receiver
        victim.kill()
        self.tally.kills[victim.kind] += 1
        victim.start()

    # ── the count ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _expected(self, subscriber: Subscriber) -> set[tuple[str, int]]:
        return {(e.type, e.index) for e in self._posted if e.tlp <= subscriber.ceiling}

    def _missing(self, subscriber: Subscriber) -> set[tuple[str, int]]:
        came = {_named(json.loads(d["body"])) for d in subscriber.deliveries()}
        return self._expected(subscriber) - came

    def _count(self, subscriber: Subscriber) -> Count:
        count = Count(subscriber.ceiling.label, subscriber.signing)
        expected = self._expected(subscriber)
        label = {e.notice: e.tlp for e in self._posted}
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        last = -1
        for delivery in subscriber.deliveries():
            count.unsigned += not delivery["genuine"]
            body = json.loads(delivery["body"])
            name = _named(body)
            count.repeated += delivery["id"] in ids[name]
            if name not in expected:
                above = label.get(body["data"].get("id"), Tlp.CLEAR) > subscriber.ceiling
                count.above_ceiling += above
                count.not_expected += not above
            if subscriber.ordered and not ids[name]:
                count.out_of_order += name[1] < last
                last = max(last, name[1])
            ids[name].add(delivery["id"])
        count.expected, count.arrived = len(expected), len(expected & ids.keys())
        count.missing = len(expected - ids.keys())
        count.several_ids = sum(len(each) > 1 for each in ids.values())
        return count

    def _count_feed(self, subscriber: Subscriber) -> None:
        """The feed is to hold the same, from the cursor before the first event on."""
        came: list[tuple[str, int]] = []
        cursor, more = subscriber.cursor, True
        while more:
            page = subscriber.api.json("/v1/feed", cursor=cursor, limit=1000)
            came += [
                _named(item)
                for item in page["items"]
                if item["type"] in ("notice.issued", "notice.withdrawn")
            ]
            cursor, more = page["next"], page["more"]
        expected = self._expected(subscriber)
        self.tally.feed_missing += len(expected - set(came))
        self.tally.feed_repeated += len(came) - len(set(came))
        self.tally.feed_not_expected += len(set(came) - expected)


def _named(event: dict[str, Any]) -> tuple[str, int]:
    return event["type"], event["data"].get("index") if event["data"].get("index") is not None else -1


def _handling(tlp: Tlp) -> dict[str, Any]:
    return {"tlp": tlp.label, "audience": "ALL" if tlp < Tlp.AMBER_STRICT else ["EE", "NL"]}
