"""Changing the roster: draft, review, sign, publish. Files and signatures, no server, no hurry.

A draft is a directory `drafts/<name>/` below the repository that can be mailed or carried: new metadata files without
signatures, and new documents. Each State reads a rendered difference (`app.roster.review`), adds one signature, and passes
it on. When the States' threshold is reached the online keys sign snapshot and timestamp, and `publish` moves everything
into place, the timestamp last: that rename is the moment the new roster exists.

Guarantees: nothing inadmissible can be proposed, signed or published with these functions; a signed draft no longer
changes; a crash at any line leaves the published repository as it was, or, after the last rename, as it should be, and
publishing again finishes the work. No private key enters the repository: callers pass a `Signer`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from app.domain.errors import Malformed, UnacceptableKey
from app.domain.json import canonical, parse_strict
from app.domain.keys import PublicKey, Signer
from app.domain.roster import CentralContactTerm, MembershipStatus, RosterKey, RosterLog
from app.domain.times import utc_day
from app.keyfiles import KeyCard
from app.roster import layout
from app.roster.documents import (
    FederationDocument,
    FrozenLog,
    Membership,
    StateDocument,
    StateKey,
    check_federation_succession,
    check_succession,
    check_together,
)
from app.roster.errors import (
    DraftNotComplete,
    DraftOutdated,
    DraftSigned,
    KeyNotInRole,
    RootWouldOrphanTargets,
    RosterRefused,
)
from app.roster.tufkeys import SignerForTuf, keyid_of, to_tuf
from app.roster.verify import (
    Read,
    VerifiedRoster,
    delegation_cards,
    directory_reader,
    majority,
    role_cards,
    tuf_errors,
    verify,
)

FOUNDING: Final = "founding"
REFRESH: Final = "refresh"
OVERLAP_S: Final = 24 * 3600
"""For how long a rotated key and its successor both count, by default. A stolen key is revoked besides, by index."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_ONLINE: Final = ("snapshot", "timestamp")

AnyMetadata = Metadata[Any]


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: readers see the old bytes or the new, also after a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One ceremony step at a time per repository directory. The lock ends with the process that holds it."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / ".lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ── the draft ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Draft:
    """A draft in memory. Change it only through the `propose_*` functions, which save it.

    Attributes:
        base: the published roster it starts from, or None before the founding.
        content: new root, targets and State metadata, by role.
        sealed: new snapshot and timestamp, by role; made when the content is fully signed.
        documents: new target files, by path below the repository.
        refresh: what a draft without content renews.
    """

    repository: Path
    name: str
    base: VerifiedRoster | None
    refresh: Literal["snapshot", "timestamp"] | None = None
    content: dict[str, AnyMetadata] = field(default_factory=dict)
    sealed: dict[str, AnyMetadata] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.repository / "drafts" / self.name

    # What the roster would say if this draft were published.

    @property
    def root(self) -> Root:
        """The root of the draft, or else the published one."""
        if "root" in self.content:
            return self.content["root"].signed  # type: ignore[no-any-return]  # AnyMetadata
        return self._base().root

    @property
    def targets(self) -> Targets:
        """The top-level targets of the draft, or else the published ones."""
        if "targets" in self.content:
            return self.content["targets"].signed  # type: ignore[no-any-return]  # AnyMetadata
        return self._base().targets

    @property
    def federation(self) -> FederationDocument:
        """The federation document of the draft, or else the published one."""
        if "targets" in self.content:
            return FederationDocument.parse(self._document(self.targets, layout.FEDERATION))
        return self._base().federation

    @property
    def states(self) -> dict[str, StateDocument]:
        """Every State's document: the draft's where it has one."""
        documents = dict(self.base.states) if self.base else {}
        for role, metadata in self.content.items():
            code = layout.code_of_role(role)
            if code is not None:
                documents[code] = StateDocument.parse(
                    self._document(metadata.signed, layout.state_target(code)), state=code
                )
        return documents

    def _base(self) -> VerifiedRoster:
        if self.base is None:
            raise Malformed(f"{self.repository} holds no roster yet. Begin with `verbale roster init`.")
        return self.base

    def _document(self, targets: Targets, name: str) -> bytes:
        if set(targets.targets) != {name}:
            raise RosterRefused(f"The draft must name exactly one target, {name}, in its role.")
        info = targets.targets[name]
        raw = self.read(layout.target_path(name, info.hashes.get("sha256", "")))
        if raw is None:
            raise RosterRefused(f"The draft lacks its document {name}.")
        with tuf_errors(name):
            info.verify_length_and_hashes(raw)
        return raw

    def read(self, path: str) -> bytes | None:
        """Read a file as if the draft were published."""
        if path in self.documents:
            return self.documents[path]
        for role, metadata in (*self.content.items(), *self.sealed.items()):
            if layout.metadata_path(role, metadata.signed.version) == path:
                return metadata.to_bytes()
        if path == "metadata/timestamp.json" and "timestamp" in self.sealed:
            return self.sealed["timestamp"].to_bytes()
        return directory_reader(self.repository)(path)

    def signatures(self) -> bool:
        """Whether anybody has signed anything."""
        return any(metadata.signatures for metadata in (*self.content.values(), *self.sealed.values()))

    def save(self) -> None:
        """Write the draft to its directory; files that no longer belong to it are removed."""
        files = dict(self.documents)
        for role, metadata in (*self.content.items(), *self.sealed.items()):
            files[layout.metadata_path(role, metadata.signed.version)] = metadata.to_bytes()
        files["draft.json"] = canonical(
            {"type": "verbale-roster-draft", "v": 1, "name": self.name, "refresh": self.refresh}
        )
        if self.directory.exists():
            for path in self.directory.rglob("*"):
                if path.is_file() and path.relative_to(self.directory).as_posix() not in files:
                    path.unlink()
        for name, raw in files.items():
            target = self.directory / name
            if not target.is_file() or target.read_bytes() != raw:
                write_atomic(target, raw)


def current(repository: Path, pinned_root: bytes | None = None) -> VerifiedRoster | None:
    """The published roster, or None before the founding. Expiry is not judged.

    Without `pinned_root` the first root in the directory is taken as it is: enough for a person's own working copy, whose
    signature will only count together with others'.

    Raises:
        As `app.roster.verify.verify`.
    """
    read = directory_reader(repository)
    if read("metadata/timestamp.json") is None:
        return None
    if pinned_root is None:
        versions = sorted(
            int(p.name.split(".")[0]) for p in (repository / "metadata").glob("[0-9]*.root.json")
        )
        pinned_root = read(layout.metadata_path("root", versions[0])) if versions else None
        if pinned_root is None:
            raise RosterRefused(f"{repository} has no root metadata.")
    return verify(read, pinned_root)


def load_draft(repository: Path, name: str, pinned_root: bytes | None = None) -> Draft:
    """Read a draft that others may have written: sizes and names bounded, contents not yet judged.

    Raises:
        Malformed: there is no such draft, or it is not one.
    """
    _check_name(name)
    draft = Draft(repository, name, current(repository, pinned_root))
    try:
        head = parse_strict((draft.directory / "draft.json").read_bytes())
    except OSError as error:
        raise Malformed(
            f"There is no draft {name!r} in {repository}. Begin one with `verbale roster propose`."
        ) from error
    refresh = head.get("refresh") if isinstance(head, dict) else None
    if head != {"type": "verbale-roster-draft", "v": 1, "name": name, "refresh": refresh} or refresh not in {
        None,
        "snapshot",
        "timestamp",
    }:
        raise Malformed(f"{draft.directory} is not a roster draft of version 1 with that name.")
    draft.refresh = refresh
    read = directory_reader(draft.directory)
    for path in sorted(
        p.relative_to(draft.directory).as_posix() for p in draft.directory.rglob("*") if p.is_file()
    ):
        if path == "draft.json":
            continue
        raw = read(path)
        if raw is None or len(raw) > layout.MAX_METADATA:
            raise Malformed(f"The draft holds a file that is none of a roster's, or too large: {path}.")
        if path.startswith("targets/"):
            draft.documents[path] = raw
            continue
        role = path.removeprefix("metadata/").removesuffix(".json").split(".")[-1]
        with tuf_errors(path):
            metadata: AnyMetadata = Metadata.from_bytes(raw)
        expected = role if role in {"root", *_ONLINE} else "targets"
        if metadata.signed.type != expected or layout.metadata_path(role, metadata.signed.version) != path:
            raise Malformed(f"The draft's {path} is not what its name says.")
        part = draft.sealed if role in _ONLINE else draft.content
        if role in part:
            raise Malformed(f"The draft holds two versions of {role}.")
        part[role] = metadata
    return draft


def drafts(repository: Path) -> tuple[str, ...]:
    """Names of the drafts under way."""
    return tuple(sorted(path.parent.name for path in (repository / "drafts").glob("*/draft.json")))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed("A draft's name has 1 to 61 of a-z, 0-9 and hyphens, for instance accession-jp.")


def _open(repository: Path, name: str, pinned_root: bytes | None = None) -> Draft:
    """The draft `name`, new or begun, provided that nobody has signed it yet."""
    _check_name(name)
    if (repository / "drafts" / name / "draft.json").exists():
        draft = load_draft(repository, name, pinned_root)
        if draft.signatures():
            raise DraftSigned(
                f"The draft {name!r} carries signatures, which a change would void. Publish it, or begin another draft."
            )
        return draft
    draft = Draft(repository, name, current(repository, pinned_root))
    if draft.base is None:
        raise Malformed(f"{repository} holds no roster yet. Begin with `verbale roster init`.")
    return draft


# ── editing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _edit(draft: Draft, role: str, at: int) -> Any:  # noqa: ANN401 - Root or Targets, as the caller knows
    """The role's next version within the draft, for changing. Its lifetime starts anew."""
    if role not in draft.content:
        base = draft._base()  # noqa: SLF001 - same module
        path = layout.metadata_path(
            role, base.root.version if role == "root" else base.snapshot.meta[f"{role}.json"].version
        )
        metadata: AnyMetadata = Metadata.from_bytes(base.files[path])
        metadata.signatures.clear()
        metadata.signed.version += 1
        draft.content[role] = metadata
    signed = draft.content[role].signed
    signed.expires = layout.moment(at) + layout.lifetime(role)
    draft.refresh = None
    return signed


def _put_document(draft: Draft, targets: Targets, name: str, raw: bytes) -> None:
    previous = targets.targets.get(name)
    info = TargetFile.from_data(name, raw)
    targets.targets = {name: info}
    if previous is not None:
        draft.documents.pop(layout.target_path(name, previous.hashes["sha256"]), None)
    draft.documents[layout.target_path(name, info.hashes["sha256"])] = raw


def _set_federation(draft: Draft, document: FederationDocument, at: int) -> None:
    document.check()
    _put_document(draft, _edit(draft, "targets", at), layout.FEDERATION, document.to_bytes())


def _set_keys(root: Root, roles: Sequence[str], cards: Sequence[KeyCard], threshold: int) -> None:
    """Give `roles` exactly these keys, and forget keys that no role uses any more."""
    keys = {key.keyid: key for key in map(to_tuf, cards)}
    for role in roles:
        root.roles[role] = Role(sorted(keys), threshold)
    root.keys.update(keys)
    used = {keyid for role in root.roles.values() for keyid in role.keyids}
    root.keys = {keyid: key for keyid, key in sorted(root.keys.items()) if keyid in used}


def _check_cards(cards: Sequence[KeyCard], use: str) -> None:
    for card in cards:
        if card.use != use:
            raise UnacceptableKey(f"{card.kid} is a key for {card.use}; {use} is needed here.")
        PublicKey.admit(card.key.alg, card.key.raw)
        card.check()


def check_draft(draft: Draft) -> None:
    """Everything that can be judged before signatures exist. Proposing, signing and publishing all call it.

    Raises:
        RosterRefused, UnacceptableKey, RootWouldOrphanTargets, DraftOutdated
    """
    base = draft.base
    for role, metadata in draft.content.items():
        if base is None:
            published = 0
        elif role == "root":
            published = base.root.version
        else:
            meta = base.snapshot.meta.get(f"{role}.json")
            published = meta.version if meta else 0
        if metadata.signed.version != published + 1:
            raise DraftOutdated(
                f"The draft {draft.name!r} holds version {metadata.signed.version} of {role}, and version {published} is "
                "published by now. Propose the change again."
            )
    cards = role_cards(draft.root)
    authorities = delegation_cards(draft.targets.delegations)
    for role in draft.content:
        if layout.code_of_role(role) is not None and role not in authorities:
            raise RosterRefused(f"The draft holds {role}, to which targets does not delegate.")
    federation, states = draft.federation, draft.states
    if missing := [role for role in authorities if layout.code_of_role(role) not in states]:
        raise RosterRefused(f"Targets delegates to {', '.join(missing)}, of which there is no document.")
    ring: dict[str, PublicKey] = {}
    for card in (card for keys in (*cards.values(), *authorities.values()) for card in keys.values()):
        if ring.setdefault(card.kid, card.key) != card.key:
            raise RosterRefused(f"Two keys that sign the roster are both called {card.kid}.")
    check_together(federation, states, ring)
    if base is not None:
        check_adoption(base, federation, states)
        if "root" in draft.content and "targets" not in draft.content:
            _check_not_orphaned(draft, base)


def check_adoption(
    base: VerifiedRoster, federation: FederationDocument, states: Mapping[str, StateDocument]
) -> None:
    """The rules of succession from a known roster to the next; a client runs them against its last good one.

    Raises:
        RosterRefused
    """
    check_federation_succession(base.federation, federation)
    for code, document in base.states.items():
        if code not in states:
            raise RosterRefused(f"The document of {code} is gone. It stays: its log must remain provable.")
        check_succession(document, states[code])


def _check_not_orphaned(draft: Draft, base: VerifiedRoster) -> None:
    path = layout.metadata_path("targets", base.targets.version)
    published: AnyMetadata = Metadata.from_bytes(base.files[path])
    result = draft.root.get_verification_result("targets", published.signed_bytes, published.signatures)
    idle = set(published.signatures) - set(draft.root.roles["targets"].keyids)
    if not result.verified or idle:
        raise RootWouldOrphanTargets(
            f"Under the new root the published targets would carry {len(result.signed)} of {result.threshold} signatures that "
            "count, and every node would refuse the roster. Re-sign targets in the same draft (leave --no-resign-targets out)."
        )


# ── proposals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def init(
    repository: Path,
    *,
    name: str,
    states: Sequence[Membership],
    governance: Sequence[KeyCard],
    online: Sequence[KeyCard],
    at: int,
) -> Draft:
    """Begin a federation: a draft `founding` with root, targets and the federation document.

    `governance` holds one key for each founding State; together they are the threshold, floor(n/2)+1. `online` keys sign
    snapshot and timestamp, two of them when there are two or more. With a single online key, whoever holds it can present
    any earlier State of affairs as the newest: right for a demonstration only.

    Raises:
        Malformed: the directory holds a roster or a founding draft already.
        UnacceptableKey, RosterRefused
    """
    with _locked(repository):
        draft = Draft(repository, FOUNDING, None)
        if (repository / "metadata").exists() or draft.directory.exists():
            raise Malformed(
                f"{repository} holds a roster or a founding draft already. Choose an empty directory."
            )
        _check_cards(governance, "governance")
        _check_cards(online, "online")
        codes = {state.code for state in states}
        if strangers := sorted({card.state for card in (*governance, *online)} - codes):
            raise RosterRefused(f"Keys of States that are not listed: {', '.join(strangers)}.")
        root = Root(expires=layout.moment(at) + layout.lifetime("root"), consistent_snapshot=True)
        _set_keys(root, ("root", "targets"), governance, majority(len(governance)))
        _set_keys(root, _ONLINE, online, min(2, len(online)) or 1)
        targets = Targets(expires=layout.moment(at) + layout.lifetime("targets"))
        draft.content = {"root": Metadata(root), "targets": Metadata(targets)}
        _set_federation(draft, FederationDocument(name=name, states=tuple(states)), at)
        check_draft(draft)
        draft.save()
        return draft


def propose_state_document(
    repository: Path,
    name: str,
    document: StateDocument,
    *,
    at: int,
    authority: Sequence[KeyCard] = (),
    pinned_root: bytes | None = None,
) -> Draft:
    """Add or replace a State's document; the State's authority key has to sign it.

    With `authority` the delegation is made or changed as well, which the threshold of States has to sign. All keys given
    are equal: one signature of any of them suffices.

    Raises:
        RosterRefused, UnacceptableKey, DraftSigned, DraftOutdated
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        document = StateDocument.parse(document.to_bytes())  # whoever built it, it passes the same door
        role, target = layout.state_role(document.state), layout.state_target(document.state)
        delegations = draft.targets.delegations
        known = delegations is not None and role in (delegations.roles or {})
        if authority:
            _check_cards(authority, "authority")
            _delegate(_edit(draft, "targets", at), role, target, authority)
        elif not known:
            raise RosterRefused(
                f"{document.state} has no authority key yet. Give the card of one: its State signs with it."
            )
        if role not in draft.content and (draft.base is None or document.state not in draft.base.states):
            draft.content[role] = Metadata(Targets(version=1))
        _put_document(draft, _edit(draft, role, at), target, document.to_bytes())
        check_draft(draft)
        draft.save()
        return draft


def _delegate(targets: Targets, role: str, target: str, authority: Sequence[KeyCard]) -> None:
    keys = {key.keyid: key for key in map(to_tuf, authority)}
    old = targets.delegations
    roles = dict(old.roles or {}) if old else {}
    roles[role] = DelegatedRole(role, sorted(keys), 1, terminating=True, paths=[target])
    every = {**(old.keys if old else {}), **keys}
    used = {keyid for delegated in roles.values() for keyid in delegated.keyids}
    targets.delegations = Delegations(
        {keyid: key for keyid, key in sorted(every.items()) if keyid in used}, dict(sorted(roles.items()))
    )


def propose_membership(
    repository: Path,
    name: str,
    code: str,
    status: MembershipStatus,
    *,
    at: int,
    state: Membership | None = None,
    ends: Mapping[str, int] | None = None,
    left: str | None = None,
    pinned_root: bytes | None = None,
) -> Draft:
    """Set a State's membership status, or list a new State (`state`).

    Args:
        ends: of a State that is suspended or withdrawn: for each of its logs, the first index that does not count. Take
            the size that a quorum has confirmed: what was said as a member stays said.
        left: the first day, ISO, of which its witness vouches for nothing; the day of `at` unless given. An earlier one,
            for a witness that was not honest, takes from other logs' histories what it cosigned since.

    Raises:
        RosterRefused: unknown State, one that is listed already, a log without its end, a member with a day on which it
            left, or such a day before it joined or still to come.
    """
    if status == "member" and left is not None:
        raise RosterRefused(f"{code} is to be a member: it has not left.")
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        federation = draft.federation
        if state is not None:
            if federation.member(state.code) is not None:
                raise RosterRefused(f"{state.code} is listed already.")
            states = tuple(sorted((*federation.states, state), key=lambda s: s.code))
        elif federation.member(code) is None:
            raise RosterRefused(f"{code} is not a State of this federation.")
        else:
            over = _ends(draft, code, status, ends or {})
            gone = None if status == "member" else left or utc_day(at)
            if gone is not None and gone > utc_day(at):
                raise RosterRefused(f"{code} cannot have left on {gone}, a day that is still to come.")
            states = tuple(
                replace(s, status=status, ends=over, left=gone) if s.code == code else s
                for s in federation.states
            )
        _set_federation(draft, replace(federation, states=states), at)
        check_draft(draft)
        draft.save()
        return draft


def _ends(
    draft: Draft, code: str, status: MembershipStatus, ends: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    document = draft.states.get(code)
    listed = [log.origin for log in document.logs] if document and status != "member" else []
    if missing := [origin for origin in listed if origin not in ends]:
        raise RosterRefused(
            f"Say from which index on {code} does not count, for each of its logs: {', '.join(missing)} is missing. Take the "
            "size that a quorum has confirmed."
        )
    return tuple(sorted(ends.items())) if status != "member" else ()


# ── a State's keys ────────────────────────────────────────────────────────────────────────────────────────────────


def propose_rotation(
    repository: Path,
    name: str,
    card: KeyCard,
    *,
    at: int,
    replaces: str | None = None,
    overlap_s: int = OVERLAP_S,
    pinned_root: bytes | None = None,
) -> Draft:
    """List a new key and end the one it replaces: every kind of key that a State holds, in one step.

    What the old key signed while it counted stays valid. Keys of the State document need that State's authority key;
    authority, governance and online keys the majority.

    Args:
        card: the new key; its use says what is rotated.
        replaces: the key id to end; may be left out where the State has one key of that use that still counts.
        overlap_s: how long both count. Not zero, unless everybody who signs with the old key has stopped: what its State's
            node still accepts under it, until the node adopts the new roster, would be flagged everywhere.

    Raises:
        RosterRefused: no key to replace, several, or one that is not of that State and use; and as the other proposals.
        UnacceptableKey, DraftSigned, DraftOutdated
    """
    options: dict[str, Any] = {"at": at, "pinned_root": pinned_root}
    if card.use == "governance":
        return propose_governance_key(
            repository,
            name,
            add=card,
            remove=replaces or _only_signer(repository, name, card, pinned_root),
            **options,
        )
    if card.use == "online":
        old = replaces or _only_signer(repository, name, card, pinned_root)
        cards = role_cards(_open(repository, name, pinned_root).root)["timestamp"].values()
        return propose_online_keys(repository, name, [*(c for c in cards if c.kid != old), card], **options)
    document = _document_of(repository, name, card.state, pinned_root)
    if card.use == "authority":
        return propose_state_document(repository, name, document, authority=[card], **options)
    standing = [k.entry for k in document.keys if k.entry.use == card.use and _stands(k.entry, at)]
    old_kid = replaces or _one([key.kid for key in standing], card)
    if old_kid not in {key.entry.kid for key in document.keys if key.entry.use == card.use}:
        raise RosterRefused(f"{old_kid} is no key of {card.state} for {card.use}.")
    keys = [
        replace(k, entry=replace(k.entry, active_to=max(at + overlap_s, k.entry.active_from + 1)))
        if k.entry.kid == old_kid and k.entry in standing  # one that is revoked in the same draft has its end
        else k
        for k in document.keys
    ]
    new = StateKey.of_card(card, active_from=at)
    return propose_state_document(repository, name, replace(document, keys=(*keys, new)), **options)


def propose_revocation(
    repository: Path,
    name: str,
    kid: str,
    *,
    at_index: int | None,
    at: int,
    suspect_from: int | None = None,
    pinned_root: bytes | None = None,
) -> Draft:
    """Revoke a key of a State document from an index of that State's log on, for good.

    Args:
        at_index: the first index at which it does not count; leaves below stay valid. None of a key that signs neither leaves
            nor heads, for which it means nothing.
        suspect_from: unix seconds; what it signed since is shown as to be reconfirmed, although it counts.

    Raises:
        RosterRefused: no such key, one that needs an index, or it is revoked from an earlier index already.
    """
    document = _document_of(repository, name, kid[:2], pinned_root)
    use = next((key.entry.use for key in document.keys if key.entry.kid == kid), None)
    if use is None:
        raise RosterRefused(f"{kid} is not listed in the document of {kid[:2]}.")
    if at_index is None and use in ("notices", "node", "log"):
        raise RosterRefused(f"Say from which index of its State's log on {kid} does not count (--at-index).")
    keys = tuple(
        replace(
            k,
            entry=replace(
                k.entry,
                revoked_at_index=at_index or 0,
                suspect_from=suspect_from if suspect_from is not None else k.entry.suspect_from,
            ),
        )
        if k.entry.kid == kid
        else k
        for k in document.keys
    )
    return propose_state_document(
        repository, name, replace(document, keys=keys), at=at, pinned_root=pinned_root
    )


def _document_of(repository: Path, name: str, code: str, pinned_root: bytes | None) -> StateDocument:
    document = _open(repository, name, pinned_root).states.get(code)
    if document is None:
        raise RosterRefused(f"{code} has no document in the roster yet. Propose one first.")
    return document


def _stands(key: RosterKey, at: int) -> bool:
    return key.revoked_at_index is None and (key.active_to is None or key.active_to > at)


def _only_signer(repository: Path, name: str, card: KeyCard, pinned_root: bytes | None) -> str:
    role = "root" if card.use == "governance" else "timestamp"
    cards = role_cards(_open(repository, name, pinned_root).root)[role].values()
    return _one([c.kid for c in cards if c.state == card.state], card)


def _one(kids: Sequence[str], card: KeyCard) -> str:
    if len(kids) != 1:
        raise RosterRefused(
            f"{card.state} has {len(kids)} keys for {card.use} that count ({', '.join(kids) or 'none'}). Name the one that "
            f"{card.kid} replaces."
        )
    return kids[0]


# ── the federation's business ─────────────────────────────────────────────────────────────────────────────────────


def propose_central_contact(
    repository: Path, name: str, term: CentralContactTerm, *, at: int, pinned_root: bytes | None = None
) -> Draft:
    """Add a term of the central contact; a term before it that is still open ends on the day this one begins.

    Raises:
        RosterRefused: unknown or suspended State, or terms that overlap.
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        federation = draft.federation
        member = federation.member(term.state)
        if member is None or member.status != "member":
            raise RosterRefused(f"{term.state} is not a member, so it cannot be the central contact.")
        terms = [t for t in federation.terms if t.start < term.start]
        if terms and terms[-1].end is None:
            terms[-1] = replace(terms[-1], end=term.start)
        _set_federation(draft, replace(federation, terms=(*terms, term)), at)
        check_draft(draft)
        draft.save()
        return draft


def propose_frozen_log(
    repository: Path, name: str, frozen: FrozenLog, *, at: int, pinned_root: bytes | None = None
) -> Draft:
    """Freeze a log by threshold, whatever its State says: the answer to a stolen log key.

    Raises:
        RosterRefused: no State lists that origin.
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        if not any(
            log.origin == frozen.origin for document in draft.states.values() for log in document.logs
        ):
            raise RosterRefused(f"No State lists the log {frozen.origin}.")
        federation = draft.federation
        others = tuple(f for f in federation.frozen if f.origin != frozen.origin)
        _set_federation(draft, replace(federation, frozen=(*others, frozen)), at)
        check_draft(draft)
        draft.save()
        return draft


def propose_next_epoch(
    repository: Path,
    name: str,
    origin: str,
    *,
    at: int,
    url: str | None = None,
    pinned_root: bytes | None = None,
) -> Draft:
    """List a State's next log, which continues the one that the States have ended; signed by that State's authority key.

    Args:
        origin: of the new log: the old one's with a higher epoch, `ee.example/log/2`.
        url: where it is served; by default `log/<epoch>` at the State's node.

    Raises:
        RosterRefused: no State lists a log of that host, or the States have not ended the newest one.
    """
    host, _, epoch = origin.rpartition("/")
    draft = _open(repository, name, pinned_root)
    document = next(
        (d for d in draft.states.values() for log in d.logs if log.origin.rpartition("/")[0] == host), None
    )
    if document is None or not epoch.isdecimal():
        raise RosterRefused(f"No State lists a log of which {origin} could be the next epoch.")
    newest = max(document.logs, key=lambda log: log.epoch)
    if not any(f.origin == newest.origin and f.size is not None for f in draft.federation.frozen):
        raise RosterRefused(
            f"The States have not ended {newest.origin}. First have the majority sign: verbale roster propose freeze-log "
            f"… {newest.origin} --size N --root ROOT"
        )
    if int(epoch) <= newest.epoch:
        raise RosterRefused(f"The next epoch of {newest.origin} has a number above {newest.epoch}.")
    logs = tuple(replace(log, status="closed") if log == newest else log for log in document.logs)
    begun = RosterLog(origin, int(epoch), url or f"{document.url}/log/{epoch}")
    return propose_state_document(
        repository, name, replace(document, logs=(*logs, begun)), at=at, pinned_root=pinned_root
    )


def propose_governance_key(
    repository: Path,
    name: str,
    *,
    at: int,
    add: KeyCard | None = None,
    remove: str | None = None,
    resign_targets: bool = True,
    pinned_root: bytes | None = None,
) -> Draft:
    """Add, remove or (both) replace a governance key, by its key id. The threshold follows: floor(n/2)+1.

    The root needs the threshold of the old keys and of the new; targets are put into the same draft for re-signing unless
    `resign_targets` is False, which is refused where it would orphan them.

    Raises:
        RosterRefused, UnacceptableKey, RootWouldOrphanTargets
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        cards = list(role_cards(draft.root)["root"].values())
        if remove is not None:
            if remove not in {card.kid for card in cards}:
                raise RosterRefused(
                    f"{remove} is not a governance key. There are: {', '.join(sorted(c.kid for c in cards))}."
                )
            cards = [card for card in cards if card.kid != remove]
        if add is not None:
            _check_cards((add,), "governance")
            if draft.federation.member(add.state) is None:
                raise RosterRefused(f"{add.state} is not a State of this federation.")
            if add.kid in {card.kid for card in draft._base().cards["root"]}:  # noqa: SLF001 - same module
                raise RosterRefused(
                    f"{add.kid} is taken. A key id names one key for ever; count the number up."
                )
            cards.append(add)
        if not cards:
            raise RosterRefused("A federation needs at least one governance key.")
        _set_keys(_edit(draft, "root", at), ("root", "targets"), cards, majority(len(cards)))
        if resign_targets:
            _edit(draft, "targets", at)
        check_draft(draft)
        draft.save()
        return draft


def propose_online_keys(
    repository: Path, name: str, cards: Sequence[KeyCard], *, at: int, pinned_root: bytes | None = None
) -> Draft:
    """Replace the online keys: two of them must sign snapshot and timestamp, one where there is only one.

    Raises:
        RosterRefused, UnacceptableKey
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        _check_cards(cards, "online")
        _set_keys(_edit(draft, "root", at), _ONLINE, cards, min(2, len(cards)) or 1)
        check_draft(draft)
        draft.save()
        return draft


def propose_renewal(
    repository: Path, name: str, roles: Sequence[str], *, at: int, pinned_root: bytes | None = None
) -> Draft:
    """Sign `root`, `targets` or `state-ee` again unchanged, with a new lifetime.

    Raises:
        RosterRefused: an unknown role.
    """
    with _locked(repository):
        draft = _open(repository, name, pinned_root)
        base = draft._base()  # noqa: SLF001 - same module
        for role in roles:
            if role not in {"root", "targets"} and f"{role}.json" not in base.snapshot.meta:
                raise RosterRefused(f"There is no role {role}. Use root, targets or state-<cc>.")
            _edit(draft, role, at)
        check_draft(draft)
        draft.save()
        return draft


def propose_refresh(
    repository: Path, name: str = REFRESH, *, at: int, pinned_root: bytes | None = None
) -> Draft:
    """Renew the timestamp, and the snapshot when less than half of its lifetime is left. Online keys suffice."""
    with _locked(repository):
        _check_name(name)
        draft = Draft(repository, name, current(repository, pinned_root))
        base = draft._base()  # noqa: SLF001 - same module
        if draft.directory.exists() and load_draft(repository, name, pinned_root).content:
            raise Malformed(f"The draft {name!r} changes the roster; a refresh needs a draft of its own.")
        left = base.snapshot.expires - layout.moment(at)
        draft.refresh = "snapshot" if left < layout.lifetime("snapshot") / 2 else "timestamp"
        draft.save()
        return draft


# ── signatures ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Signatures:
    """How far the signing of one file is. `missing` lists key ids that may still sign, of which `needed` more must."""

    role: str
    version: int
    threshold: int
    signed: tuple[str, ...]
    missing: tuple[str, ...]
    needed: int


def _delegators(draft: Draft, role: str) -> list[tuple[Any, dict[str, KeyCard]]]:
    """Who must be satisfied with a role's signatures: (root or targets, the role's cards); two for a new root."""
    root = draft.root
    if role == "root" and draft.base is not None:
        return [(draft.base.root, role_cards(draft.base.root)["root"]), (root, role_cards(root)["root"])]
    if role in {"root", "targets", *_ONLINE}:
        return [(root, role_cards(root)[role])]
    return [(draft.targets, delegation_cards(draft.targets.delegations)[role])]


def signature_status(draft: Draft) -> tuple[Signatures, ...]:
    """How far each file's signing is; snapshot and timestamp appear once the draft is sealed."""
    status = []
    for role, metadata in (*draft.content.items(), *draft.sealed.items()):
        signed: dict[str, None] = {}
        missing: dict[str, None] = {}
        needed = threshold = 0
        for delegator, cards in _delegators(draft, role):
            result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            signed |= dict.fromkeys(cards[keyid].kid for keyid in result.signed)
            missing |= dict.fromkeys(cards[keyid].kid for keyid in result.unsigned)
            needed, threshold = max(needed, result.missing), max(threshold, result.threshold)
        status.append(
            Signatures(
                role,
                metadata.signed.version,
                threshold,
                tuple(sorted(signed)),
                tuple(sorted(missing)),
                needed,
            )
        )
    return tuple(status)


def _content_complete(draft: Draft) -> bool:
    return all(s.needed == 0 for s in signature_status(draft) if s.role not in _ONLINE)


def _lacking(draft: Draft) -> str:
    return "; ".join(
        f"{s.role} needs {s.needed} more of {', '.join(s.missing)}"
        for s in signature_status(draft)
        if s.needed
    )


def _seal(draft: Draft, at: int) -> None:
    """Make the snapshot and timestamp of a fully signed draft. The snapshot names every file by hash, signatures included."""
    base = draft.base
    expiry = {role: layout.moment(at) + layout.lifetime(role) for role in _ONLINE}
    draft.sealed = {}
    version = base.snapshot.version if base else 0
    if draft.content or draft.refresh == "snapshot" or base is None:
        meta = dict(base.snapshot.meta) if base else {}
        for role, metadata in draft.content.items():
            if role != "root":
                meta[f"{role}.json"] = MetaFile.from_data(
                    metadata.signed.version, metadata.to_bytes(), ["sha256"]
                )
        version += 1
        snapshot = Snapshot(version=version, expires=expiry["snapshot"], meta=dict(sorted(meta.items())))
        draft.sealed["snapshot"] = Metadata(snapshot)
    # The timestamp names the snapshot by version alone, so that both can be signed in one visit. Snapshot and timestamp
    # have the same keys and threshold: whoever could forge a second snapshot could forge the timestamp over it.
    timestamp = Timestamp(
        version=(base.timestamp.version if base else 0) + 1,
        expires=expiry["timestamp"],
        snapshot_meta=MetaFile(version),
    )
    draft.sealed["timestamp"] = Metadata(timestamp)


def _seal_is_current(draft: Draft) -> bool:
    base = draft.base
    if "timestamp" not in draft.sealed:
        return False
    versions = {
        "timestamp": (base.timestamp.version if base else 0) + 1,
        "snapshot": (base.snapshot.version if base else 0) + 1,
    }
    return all(metadata.signed.version == versions[role] for role, metadata in draft.sealed.items())


def sign(
    repository: Path, name: str, signer: Signer, *, at: int, pinned_root: bytes | None = None
) -> tuple[str, ...]:
    """Add one key's signature to every file of the draft that it may sign; return those roles.

    Governance and authority keys sign the content; online keys sign snapshot and timestamp once the content has all the
    signatures it needs. Signing twice changes nothing and returns ().

    Raises:
        KeyNotInRole: the key is in none of the draft's roles, or the draft has no more need of it.
        DraftNotComplete: an online key came before the States had signed.
        RosterRefused, UnacceptableKey, DraftOutdated, RootWouldOrphanTargets: the draft must not be signed by anybody.
    """
    with _locked(repository):
        draft = load_draft(repository, name, pinned_root)
        check_draft(draft)
        keyid = keyid_of(signer.public)
        online = keyid in role_cards(draft.root)["timestamp"]
        if online:
            if not _content_complete(draft):
                raise DraftNotComplete(f"The draft {name!r} is not ready for online keys: {_lacking(draft)}.")
            if not _seal_is_current(draft):
                _seal(draft, at)
            part = draft.sealed
        else:
            part = {
                role: metadata
                for role, metadata in draft.content.items()
                if any(keyid in cards for _, cards in _delegators(draft, role))
            }
            if not part:
                able = sorted(
                    {
                        card.kid
                        for role in draft.content
                        for _, cards in _delegators(draft, role)
                        for card in cards.values()
                    }
                )
                raise KeyNotInRole(
                    f"This key may sign nothing in the draft {name!r}. Keys that may: {', '.join(able) or 'online keys only'}."
                )
            if draft.sealed:
                raise KeyNotInRole(
                    f"The draft {name!r} has all the States' signatures it needs. Only online keys sign it now."
                )
        done = []
        for role, metadata in part.items():
            if keyid not in metadata.signatures:
                metadata.sign(SignerForTuf(signer), append=True)
                done.append(role)
        draft.save()
        return tuple(done)


def publish(repository: Path, name: str, *, at: int, pinned_root: bytes | None = None) -> VerifiedRoster:
    """Make a fully signed draft the roster. Verifies all of it first, as a stranger would.

    Raises:
        DraftNotComplete: signatures are missing.
        DraftOutdated: something else was published since the online keys signed.
        RosterExpired: what would be published has expired already.
        RosterRefused, RosterNotVerified, UnacceptableKey
    """
    with _locked(repository):
        draft = load_draft(repository, name, pinned_root)
        check_draft(draft)
        if not _content_complete(draft):
            raise DraftNotComplete(f"The draft {name!r} cannot be published yet: {_lacking(draft)}.")
        if not draft.sealed:
            keys = sorted(card.kid for card in role_cards(draft.root)["timestamp"].values())
            raise DraftNotComplete(
                f"The draft {name!r} still has to be signed by the online keys: {', '.join(keys)}."
            )
        if not _seal_is_current(draft):
            raise DraftOutdated(
                f"The roster was refreshed since the online keys signed the draft {name!r}. Have them sign it once more."
            )
        if any(s.needed for s in signature_status(draft)):
            raise DraftNotComplete(f"The draft {name!r} cannot be published yet: {_lacking(draft)}.")
        pinned = pinned_root or _first_root(draft.read)
        verified = verify(draft.read, pinned, at=at)
        # Documents first, then the files that name them, the timestamp last. A crash before the last rename leaves files
        # that nothing names yet; publishing again writes the same bytes. Only a new root shows earlier, and it accepts the
        # old targets or comes with new ones; with new online keys, clients retry until the timestamp follows.
        files = dict(sorted(verified.files.items(), key=_publish_order))
        for path, raw in files.items():
            target = repository / path
            if not target.is_file() or target.read_bytes() != raw:
                write_atomic(target, raw)
        shutil.rmtree(draft.directory)
        return verified


def _publish_order(entry: tuple[str, bytes]) -> tuple[int, str]:
    path = entry[0]
    if path.startswith("targets/"):
        return 0, path
    if path.endswith(".root.json"):
        return 2, f"{int(path.removeprefix('metadata/').split('.')[0]):010d}"
    return (3 if path == "metadata/timestamp.json" else 1), path


def _first_root(read: Read) -> bytes:
    for version in range(1, layout.MAX_ROOTS):
        raw = read(layout.metadata_path("root", version))
        if raw is not None:
            return raw
    raise RosterRefused("The draft and the repository hold no root metadata.")


def refresh(
    repository: Path, signers: Sequence[Signer], *, at: int, pinned_root: bytes | None = None
) -> VerifiedRoster:
    """Renew timestamp and snapshot in one go, where one process holds the online keys (a demonstration, or one operator).

    Raises:
        As `sign` and `publish`.
    """
    propose_refresh(repository, at=at, pinned_root=pinned_root)
    for signer in signers:
        sign(repository, REFRESH, signer, at=at, pinned_root=pinned_root)
    return publish(repository, REFRESH, at=at, pinned_root=pinned_root)
