"""What the demo does, step by step, each asserted: a step that does not hold raises DemoFailed with the reason.

The nodes are asked over HTTP only, as anybody would; what is verified offline is verified in this process, which has
nothing of the federation but the pinned root.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from app import tokens
from app.clock import system_clock
from app.db import Database
from app.demo import fiction, processes
from app.demo.api import Api, Posted, wait_until
from app.demo.author import Author
from app.demo.errors import DemoFailed
from app.demo.found import Federation, Member, found, reopen
from app.demo.member_system import Arrived, MemberSystem, fault_of
from app.demo.processes import NodeProcess
from app.domain.handling import Tlp
from app.domain.json import parse_strict
from app.gate import SCOPES
from app.interop import bis
from app.keyfiles import read_card
from app.proofs import ProofRefused, Proven, verify_proof
from app.replication.client import mirror_url
from app.roster import ceremony
from app.roster.ceremony import write_atomic
from app.tlog.note import VerifierKey
from app.tlog.tiles import TILE_WIDTH, BundlePath, bundle_width, decode_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.demo.report import Report

STATES: Final = ("US", "EE", "NL", "JP")
CENTRAL: Final = "NL"
LISTER: Final = "US"
SOUGHT: Final = "Candiru"
SOUGHT_RECORD: Final = "us-el-69ccd443f181"

STATE_FILE: Final = "demo.json"
"""What a later run needs to go on; written once everything is posted."""
FEDERATION_FILE: Final = "federation.json"

BATCH: Final = 512
START_S: Final = 60.0
CONVERGE_S: Final = 120.0
ARRIVE_S: Final = 30.0
TOKEN_MS: Final = 360 * 86_400_000
REFRESH_S: Final = 86_400
"""The roster's timestamp counts for a week; one process holds the demo's online keys and renews it every day."""


@dataclass(slots=True)
class Kept:
    """What is remembered between two runs in one folder.

    Attributes:
        tokens: State -> token that reads all that the State may read.
        listed: notices imported.
        restricted: id and index of the notice that the United States may not see.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    listed: int = 0
    restricted: tuple[str, int] = ("", 0)


class Scenario:
    """One run. `close` ends all that it started."""

    def __init__(self, directory: Path, report: Report) -> None:
        """Start nothing."""
        self.directory, self.report = directory, report
        self.federation: Federation
        self.kept = Kept()
        self.apis: dict[str, Api] = {}
        self.nodes: dict[str, NodeProcess] = {}
        self._said: dict[str, str] = {}
        self._refreshed = time.monotonic()

    def run(self, *, records: int | None, database_url: str | None, port_base: int | None) -> None:
        """All steps: from nothing, or from what an earlier run left in the folder.

        Args:
            records: how many of the records to import; None is all.
            database_url: template with `{state}`; None is SQLite.
            port_base: port of the first node; None is any free ports.

        Raises:
            VerbaleError: what did not hold; `report.at` names the step.
        """
        step = self.report.step
        if (self.directory / STATE_FILE).exists():
            with step("The federation of this folder starts again"):
                self.resume()
                self.start()
        else:
            with step("Four States found a federation"):
                self.found(database_url, port_base)
                self.start()
            with step("The United States lists denied end-users"):
                self.list_end_users(records)
            with step("Estonia, the Netherlands and Japan issue, amend, acknowledge and withdraw"):
                self.exchange()
        with step("Every node proves the same logs"):
            self.converge()
        with step("A restricted notice reaches its audience and nobody else"):
            self.restricted()
        with step("The central contact finds a listed party and verifies the proof offline"):
            self.verify()
        if self._said:
            with step("A member system in Japan is told by webhook"):
                self.webhook()
            with step("Every node proves the same logs, again"):
                self.converge()

    def close(self) -> None:
        """End the nodes."""
        for api in self.apis.values():
            api.close()
        processes.stop(tuple(self.nodes.values()))

    # ── 1 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def found(self, database_url: str | None, port_base: int | None) -> None:
        """Nodes, keys, roster, tokens."""
        ports = range(port_base, port_base + len(STATES)) if port_base else free_ports(len(STATES))
        members = [Member(s, port, overrides(s, database_url)) for s, port in zip(STATES, ports, strict=True)]
        try:
            self.federation = found(self.directory, members, central=CENTRAL, at=int(time.time()))
            for node in self.federation.nodes:
                self.kept.tokens[node.member.state] = make_token(node.settings.database)
        except SQLAlchemyError as error:
            raise DemoFailed(
                f"A database cannot be used: {error}. With --database-url, each node needs an empty database of its own."
            ) from error

    def resume(self) -> None:
        """Take up what is in the folder."""
        value = json.loads((self.directory / STATE_FILE).read_bytes())
        self.kept = Kept(value["tokens"], value["listed"], tuple(value["restricted"]))
        self.federation = reopen(self.directory)
        (self.directory / FEDERATION_FILE).unlink(missing_ok=True)
        self.renew_roster()

    def renew_roster(self) -> None:
        """Sign a new timestamp, so that the roster does not expire under a demo that is kept for long."""
        ceremony.refresh(self.federation.repository, self.federation.online, at=int(time.time()))
        self._refreshed = time.monotonic()

    def start(self) -> None:
        """Start the nodes, side by side, and wait until they are ready."""
        for state in STATES:
            node = self.federation.node(state)
            self.apis[state] = Api(node, self.kept.tokens[state])
            self.nodes[state] = NodeProcess(node)
        with self.report.waiting("starting four nodes"):
            wait_until(
                "all four nodes ready",
                lambda: all(api.alive() for api in self.apis.values()),
                seconds=START_S,
                watch=self.watch,
            )
        rows = [(s, self.apis[s].url, self.apis[s].origin, str(self.nodes[s].pid)) for s in STATES]
        self.report.table(("State", "node", "log", "process"), rows)
        root = json.loads(self.federation.root.read_bytes())["signed"]["roles"]["root"]
        self.report.say(
            f"The roster is a threshold document: {root['threshold']} of {len(root['keyids'])} States sign its root."
        )
        directory = self.apis[CENTRAL].json("/v1/states")
        check(
            directory["central_contact"] == CENTRAL,
            f"{CENTRAL} is not the central contact in its own directory",
        )
        self.report.say(
            f"{CENTRAL} holds the central-contact term. That is this demo's assignment: no published source"
        )
        self.report.say("names the holder.")

    def watch(self) -> None:
        """Fail if a node has ended."""
        for process in self.nodes.values():
            process.check()

    # ── 2 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def list_end_users(self, records: int | None) -> None:
        """Sign the public records with the officer's key and post them, a batch at a time."""
        author, api = Author.of(self.federation.node(LISTER)), self.apis[LISTER]
        chosen = choose(records)
        began = time.monotonic()
        with (
            self.report.progress("signing and posting", len(chosen)) as advance,
            ThreadPoolExecutor(1) as pen,
        ):
            # The officer signs the next batch while the node records this one.
            for signed in pen.map(
                lambda batch: [author.sign(bis.main_part(r)) for r in batch], batches_of(chosen)
            ):
                advance(len(api.post_batch(signed)))
        self.kept.listed = len(chosen)
        rate = len(chosen) / (time.monotonic() - began)
        total = api.json("/v1/notices", issuer=LISTER, type="denied_end_user", limit=1)["total"]
        check(total == len(chosen), f"{LISTER} shows {total} of {len(chosen)} notices")
        self.report.say(f"{total} notices from the {bis.SOURCE} (public domain),")
        self.report.say(f"each signed by {author.kid}, judged and durable: {rate:.0f} a second.")

    # ── 3 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self) -> None:
        """Fictional notices of the others."""
        ee, nl, jp = (Author.of(self.federation.node(s)) for s in ("EE", "NL", "JP"))
        threat = self.say_as(ee, fiction.lanternfish_threat())
        amended = self.say_as(ee, fiction.lanternfish_amendment(threat.id, threat.hash_text), ref=threat.hash)
        self.say_as(nl, fiction.practice("NL"))
        self.say_as(jp, fiction.emotion_proposal())
        crane = self.say_as(jp, fiction.paper_crane_threat())
        self.say_as(jp, fiction.paper_crane_withdrawal(crane.id, crane.hash_text), ref=crane.hash)
        secret = self.say_as(ee, fiction.consultation())
        wait_until(
            f"the amended notice {threat.id} at NL",
            lambda: self.version_at("NL", threat.id) == 2,  # noqa: PLR2004 - issued, amended
            seconds=ARRIVE_S,
            watch=self.watch,
        )
        self.say_as(nl, fiction.lanternfish_acknowledgement(threat.id, amended.hash_text), ref=amended.hash)
        wait_until(
            "NL's acknowledgement at EE",
            lambda: (
                [
                    a["state"]
                    for a in self.apis["EE"].json(f"/v1/notices/{threat.id}/receipts")["acknowledgements"]
                ]
                == ["NL"]
            ),
            seconds=ARRIVE_S,
            watch=self.watch,
        )
        self._said = {"threat": threat.id, "crane": crane.id}
        self.kept.restricted = (secret.id, secret.index)
        write_private(self.directory / STATE_FILE, asdict(self.kept))

    def say_as(self, author: Author, main: dict[str, Any], *, ref: bytes | None = None) -> Posted:
        """Sign, post, and tell."""
        receipt = self.apis[author.state].post_notice(author.sign(main, ref=ref))
        self.report.quote(f"{author.state}  {main['type']:<21} {main['tlp']:<11} {main['title']}")
        return receipt

    def version_at(self, state: str, notice_id: str) -> int | None:
        """The version of a notice that a State's node shows, or None."""
        items = self.apis[state].json("/v1/notices", type="technology_threat", status="all")["items"]
        return next((item["version"] for item in items if item["id"] == notice_id), None)

    # ── 4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def converge(self) -> None:
        """Wait until every node has proven and judged all of every log, and every other witness has cosigned it."""
        views: dict[str, dict[str, Any]] = {}

        def same() -> bool:
            for state, api in self.apis.items():
                views[state] = {log["origin"]: log for log in api.json("/v1/federation")["logs"]}
            return all(self.complete(views, state) for state in STATES)

        with self.report.waiting("waiting until every node has proven, judged and cosigned everything"):
            wait_until("every node in step with every log", same, seconds=CONVERGE_S, watch=self.watch)
        rows = []
        for state in STATES:
            origin = self.apis[state].origin
            log = views[state][origin]
            heads = {self.checkpoint(reader, state) for reader in STATES}
            check(len(heads) == 1, f"the nodes hold different heads of {origin}")
            cosigned = " ".join(receipt["state"] for receipt in log["receipts"] if receipt["complete"])
            sizes = [str(views[reader][origin]["size"]) for reader in STATES]
            rows.append((origin, *sizes, heads.pop()[:8] + "…", cosigned))
        self.report.table(("leaves proven of", *STATES, "root hash", "cosigned by"), rows, right=STATES)
        listed = self.kept.listed
        for state, api in self.apis.items():
            total = api.json("/v1/notices", issuer=LISTER, type="denied_end_user", limit=1)["total"]
            check(total == listed, f"{state} shows {total} of the {listed} denied end-users")
        faults = sum(log["faults"] for view in views.values() for log in view.values())
        check(faults == 0, f"{faults} leaves failed judgement: see /v1/federation/faults")
        self.report.say(
            f"All {listed} denied end-users are judged and can be found at every node; no faults."
        )

    def complete(self, views: dict[str, dict[str, Any]], state: str) -> bool:
        """Whether everybody is done with this State's log."""
        origin = self.apis[state].origin
        if any(origin not in view for view in views.values()):
            return False
        own = views[state][origin]
        others = {s for s in STATES if s != state}
        return own["head_size"] == own["size"] and (
            all(view[origin]["size"] == view[origin]["judged"] == own["size"] for view in views.values())
            and {receipt["state"] for receipt in own["receipts"] if receipt["complete"]} >= others
        )

    def checkpoint(self, reader: str, state: str) -> str:
        """The root hash of a State's log, as `reader` serves it."""
        origin = self.apis[state].origin
        base = "/log/1" if reader == state else mirror_url("", origin)
        _, _, root = self.apis[reader].get(f"{base}/checkpoint").text.split("\n")[:3]
        return root

    # ── 5 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def restricted(self) -> None:
        """EE's consultation is TLP:RED for NL and JP."""
        notice_id, index = self.kept.restricted
        issuer, outside = self.apis["EE"], self.apis[LISTER]
        wait_until(
            "the restricted notice at NL and JP",
            lambda: all(notice_id in self.ids_of(self.apis[s], issuer="EE") for s in ("NL", "JP")),
            seconds=ARRIVE_S,
            watch=self.watch,
        )
        title = self.apis["NL"].json(f"/v1/notices/{notice_id}")["title"]
        self.report.quote(f"TLP:RED for NL and JP: {title}")
        counts = {
            s: self.apis[s].json("/v1/notices", issuer="EE", status="all", limit=1)["total"] for s in STATES
        }
        self.report.table(
            ("notices of EE seen by", *STATES), [("", *map(str, counts.values()))], right=STATES
        )
        check(counts["EE"] == counts["NL"] == counts["JP"], f"EE, NL and JP count differently: {counts}")
        check(counts[LISTER] == counts["EE"] - 1, f"{LISTER} counts {counts[LISTER]} notices of EE")
        check(notice_id not in self.ids_of(outside, issuer="EE"), f"{LISTER} lists the restricted notice")
        outside.get(f"/v1/notices/{notice_id}", expect=404)
        outside.get(f"/v1/notices/{notice_id}/proof", expect=404)
        here, there = (self.leaf(api, issuer, index) for api in (issuer, outside))
        check(here == there, f"{LISTER}'s mirror holds another leaf {index} of EE than EE")
        self.report.say(
            f"At {LISTER} it is in no list and no count, and asking for it by id answers 404, as an unknown id does."
        )
        self.report.say(
            f"{LISTER} still mirrors its leaf (number {index} of EE's log): a commitment that tells nothing, so that"
        )
        self.report.say("EE cannot deny later what it told the others.")

    def ids_of(self, api: Api, **filters: str) -> set[str]:
        """Ids of what a node lists."""
        return {item["id"] for item in api.json("/v1/notices", status="all", limit=200, **filters)["items"]}

    def leaf(self, reader: Api, issuer: Api, index: int) -> bytes:
        """One leaf of a log, from the entry bundle that `reader` serves."""
        base = "/log/1" if reader is issuer else mirror_url("", issuer.origin)
        size = int(reader.get(f"{base}/checkpoint").text.split("\n")[1])
        number, offset = divmod(index, TILE_WIDTH)
        width = bundle_width(size, number)
        raw = reader.get(f"{base}/{BundlePath(number, width)}").content
        return decode_bundle(raw, width)[offset]

    # ── 6 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def verify(self) -> None:
        """NL searches by name, takes the proof, and checks it against the pinned root alone."""
        api = self.apis[CENTRAL]
        began = time.monotonic()
        found = api.json("/v1/notices", party=SOUGHT)
        took = (time.monotonic() - began) * 1000
        check(found["total"] == 1, f"{CENTRAL} finds {found['total']} notices for {SOUGHT}, expected 1")
        hit = found["items"][0]
        party = hit["document"]["body"]["parties"][0]["ftm"]["properties"]
        self.report.quote(
            f"GET /v1/notices?party={SOUGHT} at {CENTRAL}: {found['total']} hit in {took:.0f} ms"
        )
        self.report.table(
            (),
            [
                ("notice", hit["title"]),
                ("names", "; ".join(party["name"] + party.get("alias", []))),
                ("address", "; ".join(party.get("address", []))),
                ("source", hit["document"]["body"]["public_listing"]["citation"]),
                ("issued by", f"{hit['issuer']}, leaf {hit['index']} of {hit['origin']}"),
            ],
        )
        root, proofs = self.federation.root.read_bytes(), list[bytes]()

        def confirmed() -> bool:
            # What the other witnesses signed since reaches a mirror when it next looks at the log, within seconds.
            proofs[:] = [api.get(f"/v1/notices/{hit['id']}/proof").content]
            return verify_proof(parse_strict(proofs[0]), root).confirmed

        wait_until("a proof with a quorum's cosignatures", confirmed, seconds=ARRIVE_S, watch=self.watch)
        raw = proofs[0]
        proven = verify_proof(parse_strict(raw), root)
        check(proven.notice == hit["id"], "the proof is of another notice")
        file = self.directory / "proofs" / f"{SOUGHT.lower()}.json"
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, raw)
        self.report.say("Verified without network and database, with the pinned roster root alone:")
        for number, line in enumerate(checks(proven), 1):
            self.report.quote(f"  {number}. {line}")
        self.report.quote(f"One letter of the body changed: refused. {refusal(raw, root)}")
        self.report.quote(f"verbale verify {file} --roster-root {self.federation.root}")

    # ── 7 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def webhook(self) -> None:
        """A member system of JP subscribes to one supplier; EE issues two notices, one of them about it."""
        api, author = self.apis["JP"], Author.of(self.federation.node("EE"))
        with ExitStack() as stack:
            receiver = MemberSystem()
            stack.callback(receiver.close)
            wanted = {"party": "Saffron Net", "type": "technology_threat"}
            made = api.post(
                "/v1/subscriptions", {"url": receiver.url, "event_types": ["notice.issued"], "filter": wanted}
            )
            receiver.secret = made["secret"]
            stack.callback(api.delete, f"/v1/subscriptions/{made['id']}")
            self.report.quote(
                f"Subscribed at JP: notice.issued where {' and '.join(map('='.join, wanted.items()))}"
            )
            self.say_as(author, fiction.practice("EE"))
            posted = self.say_as(author, fiction.saffron_threat())
            recorded = time.monotonic()
            arrived = self.next_arrival(receiver)
            check(arrived.fault is None, f"the delivery does not verify: {arrived.fault}")
            data = arrived.event["data"]
            check(data["id"] == posted.id, "the delivery is about another notice")
            changed = arrived.body.replace(b"notice.issued", b"notice.amended")
            check(
                fault_of(receiver.secret, arrived.headers, changed, now=time.time()) is not None,
                "a changed delivery verifies too",
            )
            title = api.json(f"/v1/notices/{data['id']}")["title"]
            ms = (arrived.at - recorded) * 1000
            self.report.say(
                f"Arrived {ms:.0f} ms after EE answered 201, and its signature (Standard Webhooks, v1) verifies:"
            )
            self.report.quote(f"  webhook-id {arrived.headers['webhook-id']}")
            self.report.quote(
                f"  {arrived.event['type']} {data['type']} {data['tlp']} of {data['issuer']}, {data['origin']} leaf {data['index']}"
            )
            self.report.quote(f"  fetched with the member system's token: {title}")
            check(receiver.arrived.empty(), "more than one delivery arrived")
            self.report.say(
                "The other notice did not match and was not sent. One letter changed: the signature does not hold."
            )

    def next_arrival(self, receiver: MemberSystem) -> Arrived:
        """The next delivery."""
        arrived: list[Arrived] = []

        def came() -> bool:
            try:
                arrived.append(receiver.arrived.get_nowait())
            except queue.Empty:
                return False
            return True

        wait_until("a webhook at the member system", came, seconds=ARRIVE_S, watch=self.watch)
        return arrived[0]

    # ── at the end ────────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self) -> dict[str, Any]:
        """The federation for programs; what `federation.json` holds."""
        nodes = []
        for state in STATES:
            node = self.federation.node(state)
            vkey = VerifierKey(node.member.origin, read_card(node.settings.keys_dir / "log.key.pub").key)
            nodes.append(
                {
                    "state": state,
                    "url": node.member.url,
                    "token": self.kept.tokens[state],
                    "origin": self.apis[state].origin,
                    "log_key": vkey.encode(),
                    "contact_key": str(node.contact_key.resolve()),
                    "contact_kid": node.contact_kid,
                    "settings": str(node.settings_file.resolve()),
                }
            )
        return {"roster_root": str(self.federation.root.resolve()), "nodes": nodes}

    def publish(self) -> Path:
        """Write `federation.json`: whoever waits for it finds it whole, and the nodes ready."""
        path = self.directory / FEDERATION_FILE
        write_private(path, self.describe())
        return path

    def keep_running(self) -> None:
        """Until interrupted: renew the roster, and tell when a node ends."""
        told: set[str] = set()
        while True:
            time.sleep(0.5)
            if time.monotonic() - self._refreshed > REFRESH_S:
                self.renew_roster()
            for state, process in self.nodes.items():
                how = process.ended()
                if how is not None and state not in told:
                    told.add(state)
                    command = " ".join(processes.serve_command(process.node.settings_file))
                    self.report.quote(f"{state} was {how}. To start it again: {command}")


# ── parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check(holds: bool, otherwise: str) -> None:
    """Raise DemoFailed with what is so instead."""
    if not holds:
        raise DemoFailed(otherwise[0].upper() + otherwise[1:] + ".")


def overrides(state: str, database_url: str | None) -> dict[str, object]:
    """Settings of a demo node: webhooks may reach this machine, and the database is as asked for."""
    values: dict[str, object] = {"webhook_allow_http": True, "webhook_allow_networks": ["127.0.0.0/8"]}
    if database_url is not None:
        values["database_url"] = database_url.replace("{state}", state.lower())
    return values


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def make_token(database: str) -> str:
    """A token with every scope, up to TLP:RED, as `verbale token create` makes one at the node."""
    db, now = Database(database), system_clock()
    try:
        with db.write() as session:
            _, text = tokens.create(
                session,
                name="Verbale demo",
                scopes=SCOPES,
                ceiling=Tlp.RED,
                expires_at=now + TOKEN_MS,
                now_ms=now,
            )
    finally:
        db.dispose()
    return text


def choose(records: int | None) -> list[dict[str, Any]]:
    """All records, or as many from the top of the file; the one that is looked for later is always among them."""
    everything = list(bis.records())
    if records is None or records >= len(everything):
        return everything
    chosen = [r for r in everything if r["id"] != SOUGHT_RECORD][: records - 1]
    return [*chosen, *(r for r in everything if r["id"] == SOUGHT_RECORD)]


def batches_of(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As the node takes them: one window of the batch door each."""
    return (records[start : start + BATCH] for start in range(0, len(records), BATCH))


def checks(proven: Proven) -> Iterator[str]:
    """What `verify_proof` established, in its order."""
    index, kind, _, kid, notice = proven.versions[-1]
    yield f"roster        version {proven.roster_version} follows from the pinned root"
    yield f"checkpoint    {proven.origin}, size {proven.size}, signed by the log key that the roster lists"
    yield f"cosignatures  {', '.join(sorted(proven.cosigned_by))}; a quorum is {proven.quorum.needed}"
    yield f"inclusion     leaf {index} is in that tree"
    yield f"signature     {kid}, a contact-point key that counted at that place"
    yield f"life          {kind}; {proven.status}, {len(proven.versions)} version"
    title = notice.document["title"] if notice else "not given"
    yield f"commitment    the body opens it and follows its schema: {title}"


def refusal(raw: bytes, root: bytes) -> str:
    """What verifying says of the same file with one character of the body changed."""
    proof: Any = parse_strict(raw)
    content = proof["statements"][0]["parts"]["main"]["content"]
    middle = len(content) // 2
    other = "A" if content[middle] != "A" else "B"
    proof["statements"][0]["parts"]["main"]["content"] = content[:middle] + other + content[middle + 1 :]
    try:
        verify_proof(proof, root)
    except ProofRefused as refused:
        return str(refused).split(":", 2)[0] + " does not hold."
    raise DemoFailed("A proof file with a changed body verifies.")


def write_private(path: Path, value: dict[str, Any]) -> None:
    """Write JSON that holds tokens: whole or not at all, and for its owner only."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    draft.replace(path)
