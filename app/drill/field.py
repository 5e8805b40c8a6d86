"""Where a drill takes place: five States' nodes as real processes on loopback, which a drill starts, stops and harms.

Guarantees that whatever a drill starts is ended by `close`. Nodes are asked over HTTP only, as anybody would; a drill that
plays a dishonest operator opens that node's own folder while its process is stopped (`opened`).
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from app.demo import fiction, processes
from app.demo.api import Api, Posted, wait_until
from app.demo.author import Author
from app.demo.errors import DemoFailed
from app.demo.found import Federation, Member, found
from app.demo.processes import NodeProcess
from app.demo.scenario import check, free_ports, make_token, overrides
from app.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from app.drill.report import DrillReport

STATES: Final = ("EE", "FI", "JP", "NL", "US")
"""Five: the smallest federation in which a quorum is not everybody (4 witnesses of each log, 3 are a quorum)."""
CENTRAL: Final = "NL"

START_S: Final = 300.0
SETTLE_S: Final = 300.0
"""Upper bounds, for a machine that does other things as well."""

QUICK: Final[dict[str, object]] = {
    "roster_refresh_s": 1,
    "follow_interval_s": 1.0,
    "gossip_interval_s": 2.0,
    "lease_s": 10,
    "peer_timeout_s": 5.0,
}
"""A drill should not wait for the intervals of real life."""


class Field:
    """One drill's federation.

    Attributes:
        directory: empty at the beginning; everything lies below it.
        report: what is printed.
        apis: State → its node, asked with a token that reads all that the State may read.
        nodes: State → its running process.
        notices: how many notices a drill of many makes.
    """

    def __init__(self, directory: Path, report: DrillReport) -> None:
        """Start nothing."""
        self.directory, self.report = directory, report
        self.federation: Federation
        self.apis: dict[str, Api] = {}
        self.nodes: dict[str, NodeProcess] = {}
        self.tokens: dict[str, str] = {}
        self.notices = 0

    def found(self, states: Sequence[str] = STATES) -> None:
        """Make nodes, keys and a roster signed by all. Nothing runs yet."""
        values = {**overrides("", None), **QUICK}
        ports = free_ports(len(states))
        members = [Member(s, port, values) for s, port in zip(states, ports, strict=True)]
        self.federation = found(self.directory / "federation", members, central=CENTRAL, at=int(time.time()))
        for node in self.federation.nodes:
            self.tokens[node.member.state] = make_token(node.settings.database)
        root = json.loads(self.federation.root.read_bytes())["signed"]["roles"]["root"]
        self.report.say(
            f"{len(states)} States: {', '.join(states)}. {root['threshold']} of {len(root['keyids'])} sign the roster."
        )

    # ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, *states: str, ready: bool = True) -> None:
        """Start the processes of these States (of all, if none is named), side by side.

        Args:
            ready: wait until they take notices; else until they answer. A node that starts asks the others' witnesses first,
                so it takes none while too few of them run.
        """
        wanted = states or tuple(n.member.state for n in self.federation.nodes)
        for state in wanted:
            node = self.federation.node(state)
            self.apis.setdefault(state, Api(node, self.tokens[state]))
            self.nodes[state] = NodeProcess(node)
        answers = Api.alive if ready else Api.answers
        self.wait(
            f"{' '.join(wanted)} ready", lambda: all(answers(self.apis[s]) for s in wanted), seconds=START_S
        )

    def stop(self, *states: str) -> None:
        """End the processes of these States in order."""
        processes.stop([self.nodes.pop(state) for state in states])

    def kill(self, state: str) -> None:
        """End a process at once, as a power cut would."""
        self.nodes.pop(state).kill()

    def close(self) -> None:
        """End everything."""
        for api in self.apis.values():
            api.close()
        processes.stop(tuple(self.nodes.values()))

    def watch(self) -> None:
        """Fail if a node has ended by itself."""
        for process in self.nodes.values():
            process.check()

    def wait(self, what: str, condition: Callable[[], bool], *, seconds: float = SETTLE_S) -> None:
        """Wait until it holds; DemoFailed if it does not in time or a node ends meanwhile."""
        with self.report.waiting(what):
            wait_until(what, condition, seconds=seconds, watch=self.watch)

    # ── what people do ────────────────────────────────────────────────────────────────────────────────────────────

    def origin(self, state: str) -> str:
        """Origin of a State's first log."""
        return self.federation.node(state).member.origin

    def author(self, state: str) -> Author:
        """A State's officer, with the contact point's key."""
        return Author.of(self.federation.node(state))

    def post(self, state: str, title: str, **handling: Any) -> Posted:  # noqa: ANN401 - tlp, audience
        """Sign an invented notice with this title and post it at the State's node.

        Args:
            handling: `tlp` and `audience`, by default TLP:GREEN for all.
        """
        main = {**fiction.practice(state), "title": title, **handling}
        posted = self.apis[state].post_notice(self.author(state).sign(main))
        self.report.quote(f"{state} posts “{title}”: leaf {posted.index} of {posted.origin}")
        return posted

    # ── what nodes say ────────────────────────────────────────────────────────────────────────────────────────────

    def log(self, reader: str, state: str) -> dict[str, Any]:
        """What one node says of a State's first log, from `GET /v1/federation`."""
        origin = self.origin(state)
        return self.log_of(reader, origin) or {
            "origin": origin,
            "size": 0,
            "status": "unknown",
            "receipts": [],
        }

    def log_of(self, reader: str, origin: str) -> dict[str, Any] | None:
        """What one node says of a log, or None if it knows none of that origin."""
        kept: list[dict[str, Any]] = self.apis[reader].json("/v1/federation")["logs"]
        return next((log for log in kept if log["origin"] == origin), None)

    def titles(self, reader: str, issuer: str) -> list[str]:
        """Titles of a State's notices that a reader's node shows, newest first."""
        items = self.apis[reader].json("/v1/notices", issuer=issuer, limit=100)["items"]
        return [item["title"] for item in items]

    def cosigned(self, of: str, size: int) -> frozenset[str]:
        """States whose witnesses cosigned the size of a State's log, or more, as its own node knows."""
        return frozenset(r["state"] for r in self.log(of, of)["receipts"] if r["size"] >= size)

    def settle(self, *logs: str, readers: Iterable[str] | None = None) -> None:
        """Wait until the readers (all that run) have proven, judged and cosigned all of the logs of these States.

        Args:
            logs: States whose nodes run; by default all that run.
        """
        for state in logs or tuple(self.nodes):
            own = self.log(state, state)["size"]
            others = frozenset(readers or self.nodes) - {state}

            def done(state: str = state, own: int = own, others: frozenset[str] = others) -> bool:
                views = [self.log(reader, state) for reader in others]
                return self.cosigned(state, own) >= others and all(v["judged"] >= own for v in views)

            self.wait(f"{state}'s {own} leaves proven and cosigned by {' '.join(sorted(others))}", done)

    def holds(self, promise: str, kept: bool, otherwise: str) -> None:
        """Say that a promise was kept, or fail with what is so instead."""
        check(kept, otherwise)
        self.report.kept(promise)

    # ── harm ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def copy_database(self, state: str, name: str) -> Path:
        """Copy a stopped node's SQLite database, as a careless backup would. Returns the folder of the copy."""
        self._must_be_stopped(state)
        target = self.directory / name
        target.mkdir()
        for file in self.federation.node(state).settings.data_dir.glob("verbale.db*"):
            shutil.copy2(file, target / file.name)
        return target

    def put_database(self, state: str, copy: Path) -> None:
        """Put a copied database in the place of a stopped node's."""
        self._must_be_stopped(state)
        home = self.federation.node(state).settings.data_dir
        for file in home.glob("verbale.db*"):
            file.unlink()
        for file in copy.iterdir():
            shutil.copy2(file, home / file.name)

    @contextmanager
    def opened(self, state: str) -> Iterator[Node]:
        """A stopped State's own node, opened in this process with its keys: the hand of a dishonest operator."""
        self._must_be_stopped(state)
        node = Node(self.federation.node(state).settings).open()
        try:
            yield node
        finally:
            node.stop()

    def _must_be_stopped(self, state: str) -> None:
        if state in self.nodes:
            raise DemoFailed(f"The node of {state} runs; the drill has to stop it first.")
