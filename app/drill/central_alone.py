"""Drill `central-alone`: the central contact, which hosts the roster, tries to suspend a State with its own keys alone."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any, Final

from tuf.api.metadata import Metadata, MetaFile

from app.demo.errors import DemoFailed
from app.domain.errors import VerbaleError
from app.drill.ceremonies import adopt, finish, offline_key, roster_version
from app.drill.field import CENTRAL
from app.roster import ceremony, layout
from app.roster.tufkeys import SignerForTuf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.domain.keys import Signer
    from app.drill.field import Field

TARGET: Final = "US"
MAJORITY: Final = ("EE", "FI", "JP")


def run(field: Field) -> None:
    """See the module."""
    step, report = field.report.step, field.report
    with step(f"Five States found a federation; {CENTRAL} is the central contact and hosts the roster"):
        field.found()
        field.start()
        field.post(TARGET, "Before")
        field.settle()
        version = roster_version(field, TARGET)
        end = field.log(TARGET, TARGET)["size"]
        ends = {field.origin(TARGET): end}
    repository = field.federation.repository
    with step(f"{CENTRAL} proposes to suspend {TARGET}, and signs alone"):
        now = int(time.time())
        ceremony.propose_membership(repository, "coup", TARGET, "suspended", ends=ends, at=now)
        ceremony.sign(repository, "coup", offline_key(field, CENTRAL, "governance"), at=now)
        refusal = _refused(lambda: ceremony.publish(repository, "coup", at=now))
        report.quote(f"publish: {refusal}")
        field.holds(
            "one State's signature publishes nothing",
            refusal.startswith("draft-not-complete"),
            "the draft was published",
        )
    with step(
        f"{CENTRAL} writes the files itself: it hosts them, and has bribed the holder of one online key"
    ):
        kept = field.directory / "honest-roster"
        shutil.copytree(repository, kept)
        for what, bribed in (("with its own keys", ()), ("with one of the two online keys", ("EE",))):
            _forge(field, repository, "coup", [offline_key(field, s, "online") for s in bribed])
            report.quote(f"The forged roster lies at every node's source, signed {what}")
            _look_twice(field)
            _unmoved(field, version, f"signed {what}")
            shutil.rmtree(repository)
            shutil.copytree(kept, repository)
    with step("and, with that key, counts the snapshot up so that honest ones will look old"):
        _fast_forward(repository, offline_key(field, "EE", "online"))
        _look_twice(field)
        _unmoved(field, version, "of a snapshot a thousand versions ahead, signed by one key of two")
        shutil.rmtree(repository)
        shutil.copytree(kept, repository)
    with step(f"{TARGET} is a member as before"):
        field.post(TARGET, "After")
        field.settle(TARGET)
        others = [s for s in field.nodes if s != TARGET]
        field.holds(
            f"{TARGET}'s notice is proven, cosigned and found by all others, {CENTRAL} included",
            all(field.titles(s, TARGET) == ["After", "Before"] for s in others),
            f"a notice of {TARGET} is not found",
        )
    with step("Three of five may do what one may not"):
        end = field.log(TARGET, TARGET)["size"]
        ceremony.propose_membership(
            repository,
            "by-majority",
            TARGET,
            "suspended",
            ends={field.origin(TARGET): end},
            at=int(time.time()),
        )
        adopt(field, finish(field, "by-majority", governance=MAJORITY))
        refused = _refused(lambda: field.post(TARGET, "Suspended"))
        report.quote(f"{TARGET}'s own node: {refused[:160]}")
        field.holds(
            "the threshold suspends, and what was said as a member stays found and proven",
            "403" in refused and all(field.titles(s, TARGET) == ["After", "Before"] for s in others),
            "the suspension took effect in another way",
        )


def _refused(act: Any) -> str:  # noqa: ANN401 - any step
    try:
        act()
    except DemoFailed as refusal:
        return str(refusal)
    except VerbaleError as refusal:
        return f"{refusal.code}: {refusal}"
    return "accepted"


def _forge(field: Field, repository: Path, name: str, online: Sequence[Signer]) -> None:
    """Publish the draft by hand: its files as they are, sealed with the keys at hand, past every check of the ceremony."""
    draft = ceremony.load_draft(repository, name)
    ceremony._seal(draft, int(time.time()))  # noqa: SLF001 - a forger does not ask
    for metadata in draft.sealed.values():
        metadata.sign(SignerForTuf(offline_key(field, CENTRAL, "governance")), append=True)
        for signer in online:
            metadata.sign(SignerForTuf(signer), append=True)
    for path, raw in draft.documents.items():
        ceremony.write_atomic(repository / path, raw)
    for role, metadata in (*draft.content.items(), *draft.sealed.items()):
        ceremony.write_atomic(
            repository / layout.metadata_path(role, metadata.signed.version), metadata.to_bytes()
        )


def _fast_forward(repository: Path, signer: Signer) -> None:
    folder = repository / "metadata"
    newest = max(folder.glob("*.snapshot.json"), key=lambda path: int(path.name.split(".")[0]))
    snapshot: Metadata[Any] = Metadata.from_bytes(newest.read_bytes())
    timestamp: Metadata[Any] = Metadata.from_bytes((folder / "timestamp.json").read_bytes())
    snapshot.signed.version += 1000
    timestamp.signed.version += 1000
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    for metadata in (snapshot, timestamp):
        metadata.signatures.clear()
        metadata.sign(SignerForTuf(signer), append=True)
    ceremony.write_atomic(folder / f"{snapshot.signed.version}.snapshot.json", snapshot.to_bytes())
    ceremony.write_atomic(folder / "timestamp.json", timestamp.to_bytes())


def _look_twice(field: Field) -> None:
    """Wait until every node has looked at what its source serves now, and refused it."""

    def refused(state: str) -> int:
        log = field.federation.node(state).settings.data_dir / "node.log"
        return log.read_text("utf-8", errors="replace").count("roster_refresh_failed")

    before = {state: refused(state) for state in field.nodes}
    field.wait(
        "every node has refused the source twice",
        lambda: all(refused(state) >= before[state] + 2 for state in field.nodes),
    )


def _unmoved(field: Field, version: int, what: str) -> None:
    versions = {state: roster_version(field, state) for state in field.nodes}
    members = {
        state: next(s for s in field.apis[state].json("/v1/states")["items"] if s["state"] == TARGET)[
            "membership"
        ]
        for state in field.nodes
    }
    field.holds(
        f"no node, not even {CENTRAL}'s, takes the roster {what}",
        set(versions.values()) == {version} and set(members.values()) == {"member"},
        f"some node moved: {versions}, {members}",
    )
