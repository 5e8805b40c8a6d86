"""Bugs planted on purpose, to see that a seed finds each: the seam is a copy of the tree, never the code that ships.

    .venv/bin/python -m tests.simulation.mutations          plant each in turn, print the table
    .venv/bin/python -m tests.simulation.mutations --search  look for seeds again, after the simulator changed
    .venv/bin/python -m tests.simulation.mutations gossip    those whose name has one of these words

A mutation names a file, the exact text it replaces and by what. A text that is no longer there fails the run: whoever
changes that line decides what the same bug would be now.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.simulation.faults import Extent

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = 80
"""Seeds tried for one bug before the search gives up."""


@dataclass(frozen=True)
class Mutation:
    """One planted bug, and the run that finds it."""

    name: str
    file: str
    old: str
    new: str
    invariant: str
    seed: int
    states: int = 5
    steps: int = 40
    extent: Extent = "mild"


MUTATIONS = (
    Mutation(
        "cosign before store",
        "app/mirrors.py",
        "            grew = advance(\n                self._db,\n                self._client,\n                mirror,",
        "            from app.tlog.cosignature import cosign\n"
        "            cosign(checkpoint, identity.name, identity.signer, self._clock() // 1000)\n"
        "            grew = advance(\n                self._db,\n                self._client,\n                mirror,",
        "stored before cosigned",
        1,
        states=6,
        steps=60,
    ),
    Mutation(
        "sign before commit",
        "app/tlog/publish.py",
        "            execute(session, _DECIDE, log_id=log_id, size=log.size, root=root, note=None, at=now)\n",
        "            execute(session, _DECIDE, log_id=log_id, size=log.size, root=root, note=None, at=now)\n"
        "            sign_checkpoint(Checkpoint(log.origin, log.size, root), signer)\n",
        "one root for a size",
        1,
    ),
    Mutation(
        "skip the past-size check",
        "app/replication/follow.py",
        "        if ours is not None and ours != checkpoint.root:\n",
        "        if ours is not None and ours != checkpoint.root and checkpoint.size == mirror.head_size:\n",
        "a fork that was shown is found",
        22,
        steps=120,
    ),
    Mutation(
        "trust iat",
        "app/domain/judge.py",
        "    key.check_active(at=statement.iat, index=index)\n",
        "    if index is None or key.suspect_from is None or statement.iat > key.suspect_from:\n"
        "        key.check_active(at=statement.iat, index=index)\n",
        "both doors agree",
        118,
        steps=150,
    ),
    Mutation(
        "serve a body without the gate",
        "app/replication/bodies.py",
        "            may = may_read(principal, issuer=log.state, tlp_rank=tlp_rank, audience=audience)\n",
        "            may = True\n",
        "one gate",
        1,
    ),
    Mutation(
        "reuse an index after restart",
        "app/node.py",
        "        self.log_id = self._own_log()\n",
        "        self.log_id = self._own_log()\n"
        "        from app.tlog.mutant import forget_unsigned\n"
        "        forget_unsigned(self.db, self.log_id)\n",
        "acknowledged is durable",
        2,
    ),
    Mutation(
        "skip the start-up gate",
        "app/replication/startup.py",
        "            elif size == 0 and restored is None and self._marker.exists():\n",
        "            elif size >= 0:\n",
        "acknowledged is durable",
        2,
        steps=100,
        extent="usual",
    ),
    Mutation(
        "forget the history at a restore",
        "app/replication/startup.py",
        "        if is_restored:\n            self._take_history(roster)\n",
        "",
        "every node tells the same time",
        30,
        steps=100,
        extent="usual",
    ),
    Mutation(
        "take the latest time instead of the agreed one",
        "app/tlog/confirm.py",
        "    return Confirmed(checkpoint, agreed_time(list(counted.values())), frozenset(counted), raw)\n",
        "    return Confirmed(checkpoint, max(counted.values()), frozenset(counted), raw)\n",
        "every node tells the same time",
        2,
        steps=100,
        extent="usual",
    ),
    Mutation(
        "believe an accusation",
        "app/tlog/evidence.py",
        '        raise EvidenceRefused("proof", str(error)) from error\n    return evidence.root\n',
        "        del error\n    return evidence.root\n",
        "nobody can frame an honest State",
        6,
        steps=200,
        extent="usual",
    ),
    Mutation(
        "say nothing of a body that does not count here",
        "app/replication/bodies.py",
        "            yield line(index, later=True)\n",
        "            continue\n",
        "convergence after the network heals",
        21,
        states=7,
        steps=100,
        extent="members",
    ),
    Mutation(
        "leave the head under a revoked key",
        "app/node.py",
        "revoked=self._revoked_keys()",
        "revoked=()",
        "every node tells the same time",
        17,
        states=7,
        steps=100,
        extent="members",
    ),
    Mutation(
        "let a stolen witness key go on confirming",
        "app/tlog/confirm.py",
        "        _forget(session, log_id, witness, key_id, until, but=own)\n",
        "        continue\n",
        "every node tells the same time",
        28,
        states=7,
        steps=100,
        extent="members",
    ),
)

FORGET_UNSIGNED = '''"""A start that tidies up: leaves that no head covers yet go, and their indexes are given again."""

from sqlalchemy import delete, select, update

from app.models import EntryRow, LeafRow, LogRow
from app.tlog.merkle import Frontier


def forget_unsigned(db, log_id):
    with db.write() as session:
        size = session.execute(select(LogRow.head_size).where(LogRow.id == log_id)).scalar_one()
        hashes = session.scalars(
            select(LeafRow.leaf_hash).where(LeafRow.log_id == log_id, LeafRow.idx < size).order_by(LeafRow.idx)
        ).all()
        for table in (EntryRow, LeafRow):
            session.execute(delete(table).where(table.log_id == log_id, table.idx >= size))
        frontier = Frontier().extend([bytes(h) for h in hashes])
        session.execute(
            update(LogRow)
            .where(LogRow.id == log_id)
            .values(size=size, judged=size, frontier=frontier.to_bytes() if size else b"")
        )
'''


def plant(mutation: Mutation, folder: Path) -> None:
    """A copy of what ships, with the bug in it."""
    for part in ("app", "migrations"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / mutation.file
    text = path.read_text("utf-8")
    if text.count(mutation.old) != 1:
        raise AssertionError(f"{mutation.name}: {mutation.file} no longer has, once: {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    (folder / "app/tlog/mutant.py").write_text(FORGET_UNSIGNED, "utf-8")


def run(folder: Path, seed: int, states: int, steps: int, *, extent: Extent) -> list[dict[str, Any]]:
    """Play a seed in the copy; what became of it."""
    command = [sys.executable, "-m", "app.cli", "simulate", "--json"]
    numbers = {"--seed": seed, "--states": states, "--steps": steps}
    arguments = [text for name, value in numbers.items() for text in (name, str(value))]
    done = subprocess.run(
        [*command, *arguments, *([] if extent == "usual" else [f"--{extent}"])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    if done.returncode not in (0, 1):
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def find(mutation: Mutation, *, search: bool = False) -> dict[str, Any] | None:
    """Play the mutation's own seed, or search; the outcome that breaks its invariant, or None."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant(mutation, folder)
        for seed in range(1, SEARCHED + 1) if search else (mutation.seed,):
            (outcome,) = run(folder, seed, mutation.states, mutation.steps, extent=mutation.extent)
            if outcome["broken"] is not None:
                return outcome
    return None


def main() -> None:
    """Print the table of docs/simulation.md."""
    print("| planted | seed | invariant named | in step | what was seen |")
    print("| --- | --- | --- | --- | --- |")
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    for mutation in MUTATIONS:
        if words and not any(word in mutation.name for word in words):
            continue
        found = find(mutation, search="--search" in sys.argv)
        if found is None:
            print(f"| {mutation.name} | none | | | |", flush=True)
        else:
            cells = (mutation.name, found["seed"], found["broken"], found["at"], found["what"])
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
