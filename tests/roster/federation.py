"""A small federation on disk, with every private key in memory and a clock that is an argument."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, TargetFile

from app.domain.json import canonical
from app.domain.keys import Ed25519Signer, Es256Signer
from app.domain.roster import ContactPoint, RosterLog
from app.keyfiles import KID_SEGMENTS, KeyCard, generate
from app.roster import Membership, StateDocument, StateKey, VerifiedRoster, ceremony, layout
from app.roster.tufkeys import SignerForTuf

AT = 1_790_000_000
"""2026-09-21: when the federation is founded, unless a test says otherwise."""
DAY = 86_400
CODES = ("EE", "JP", "NL", "US")
NODE_USES = ("notices", "log", "witness", "transport")

Key = Ed25519Signer | Es256Signer


def card(signer: Key, code: str, use: str, number: int = 1) -> KeyCard:
    return KeyCard.make(signer, f"{code}/{KID_SEGMENTS[use]}/{number}", use)


@dataclass
class Federation:
    """Founded by `codes`; JP's governance key is P-256, the others' are Ed25519."""

    repository: Path
    codes: Sequence[str] = CODES
    online_codes: Sequence[str] = ("EE", "NL", "US")
    at: int = AT
    governance: dict[str, Key] = field(default_factory=dict)
    authority: dict[str, Key] = field(default_factory=dict)
    online: dict[str, Key] = field(default_factory=dict)
    node: dict[tuple[str, str], Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for code in self.codes:
            self.governance[code] = generate("ES256" if code == "JP" else "Ed25519")
            self.authority[code] = generate()
            for use in NODE_USES:
                self.node[code, use] = generate()
        for code in self.online_codes:
            self.online[code] = generate()

    def copy(self, to: Path) -> Federation:
        """The same federation in another directory: founding takes a second, copying does not."""
        made = copy.copy(self)
        made.repository = to
        made.governance, made.authority = dict(self.governance), dict(self.authority)
        made.online, made.node = dict(self.online), dict(self.node)
        shutil.copytree(self.repository, to)
        return made

    # Making things.

    def document(self, code: str, **changes: object) -> StateDocument:
        host = f"{code.lower()}.verbale.example"
        made: dict[str, object] = {
            "state": code,
            "url": f"https://{host}",
            "contact_point": ContactPoint(
                "Export control office", f"contact@{host}", "+372 000", ("en",), "9-17 UTC"
            ),
            "logs": (RosterLog(f"{host}/log/1", 1, f"https://{host}/log/1"),),
            "keys": tuple(
                StateKey.of_card(card(self.node[code, use], code, use), active_from=self.at)
                for use in NODE_USES
            ),
            "witness_name": f"{host}/witness",
        }
        return StateDocument(**(made | changes))  # type: ignore[arg-type]  # the test's own values

    def init(self) -> ceremony.Draft:
        return ceremony.init(
            self.repository,
            name="Verbale",
            states=[Membership(code, f"State of {code}", "2023-03-30") for code in self.codes],
            governance=[card(key, code, "governance") for code, key in self.governance.items()],
            online=[card(key, code, "online") for code, key in self.online.items()],
            at=self.at,
        )

    def found(self) -> VerifiedRoster:
        """The whole founding ceremony: every State has a document, everybody needed has signed."""
        self.init()
        for code in self.codes:
            ceremony.propose_state_document(
                self.repository,
                "founding",
                self.document(code),
                authority=[card(self.authority[code], code, "authority")],
                at=self.at,
            )
        return self.finish("founding")

    # Signing.

    def sign(self, draft: str, keys: Iterable[Key], at: int | None = None) -> None:
        for key in keys:
            ceremony.sign(self.repository, draft, key, at=at or self.at)

    def threshold(self) -> list[Key]:
        """As few governance keys as suffice."""
        return list(self.governance.values())[: len(self.governance) // 2 + 1]

    def finish(self, draft: str, at: int | None = None) -> VerifiedRoster:
        """Sign with whoever is needed, and publish."""
        at = at or self.at
        content = ceremony.load_draft(self.repository, draft).content
        if {"root", "targets"} & set(content):
            self.sign(draft, self.threshold(), at)
        self.sign(
            draft, [self.authority[role[-2:].upper()] for role in content if role.startswith("state-")], at
        )
        self.sign(draft, list(self.online.values())[:2], at)
        return ceremony.publish(self.repository, draft, at=at)

    def refresh(self, at: int) -> VerifiedRoster:
        return ceremony.refresh(self.repository, list(self.online.values())[:2], at=at)

    @property
    def root(self) -> bytes:
        """The root that everybody pins."""
        return (self.repository / "metadata" / "1.root.json").read_bytes()

    def files(self) -> dict[str, bytes]:
        """Everything that is served, by path."""
        return {
            path.relative_to(self.repository).as_posix(): path.read_bytes()
            for folder in ("metadata", "targets")
            for path in sorted((self.repository / folder).rglob("*"))
            if path.is_file()
        }


# ── tools of a forger: properly signed metadata that the ceremony would not make ─────────────────────────────────

Files = dict[str, bytes]


def resign(
    federation: Federation, files: Files, role: str, change: Callable[[Any], None], keys: list[Key]
) -> None:
    """Change a role's metadata, sign it properly, and carry its new hash up to the timestamp."""
    path = f"metadata/1.{role}.json"
    metadata: Metadata[Any] = Metadata.from_bytes(files[path])
    change(metadata.signed)
    sign_with(metadata, keys)
    files[path] = metadata.to_bytes()
    if role == "root":
        return
    snapshot: Metadata[Any] = Metadata.from_bytes(files["metadata/1.snapshot.json"])
    meta = snapshot.signed.meta[f"{role}.json"]
    data = TargetFile.from_data(path, files[path])
    meta.length, meta.hashes = data.length, data.hashes
    sign_with(snapshot, list(federation.online.values()))
    files["metadata/1.snapshot.json"] = snapshot.to_bytes()


def sign_with(metadata: Metadata[Any], keys: list[Key]) -> None:
    metadata.signatures.clear()
    for key in keys:
        metadata.sign(SignerForTuf(key), append=True)


def set_state_document(federation: Federation, code: str, change: Callable[[dict[str, Any]], None]) -> Files:
    """The repository's files after the State itself signed a changed document with the right key."""
    files = federation.files()
    name = layout.state_target(code)
    [path] = [p for p in files if p.startswith("targets/states/") and p.endswith(f".{code.lower()}.json")]
    value = json.loads(files.pop(path))
    change(value)
    raw = canonical(value)
    info = TargetFile.from_data(name, raw)
    files[layout.target_path(name, info.hashes["sha256"])] = raw

    def targets(signed: Any) -> None:
        signed.targets = {name: info}

    resign(federation, files, layout.state_role(code), targets, [federation.authority[code]])
    return files


def rotate(federation: Federation, code: str, number: int) -> None:
    new = generate()
    ceremony.propose_governance_key(
        federation.repository,
        "rotate",
        add=card(new, code, "governance", number),
        remove=f"{code}/governance/{number - 1}",
        at=AT,
    )
    federation.sign("rotate", federation.governance.values())
    federation.governance[code] = new
    federation.finish("rotate")
