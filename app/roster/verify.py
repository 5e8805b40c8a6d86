"""From a pinned root to a roster: the one place where roster metadata becomes believed.

Guarantees, for everything it returns: the whole TUF chain holds from the pinned root (python-tuf's TrustedMetadataSet does
the verifying); on top of TUF, every file is in its one canonical spelling and every signature in it verifies, so that no
byte of any file can be changed unnoticed; thresholds are majorities and no State holds two keys of a role; every key was
admitted; every document obeys `app.roster.documents`. Leaves to others: fetching, rollback against what a node held before
(`app.roster.client`), and what to do when `expires` has passed, unless `at` is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Delegations, Metadata, Role, Root, Snapshot, Targets, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from app.domain.encoding import b64u_decode, b64u_encode
from app.domain.errors import Malformed, MalformedJson, RosterExpired
from app.domain.json import JsonValue, parse_strict
from app.domain.keys import PublicKey
from app.domain.roster import Roster
from app.keyfiles import KeyCard
from app.roster import layout
from app.roster.documents import FederationDocument, StateDocument, build_roster, check_together
from app.roster.errors import RosterNotVerified, RosterRefused
from app.roster.tufkeys import from_tuf, to_tuf

Read = Callable[[str], bytes | None]
"""Reads a file by its path below the repository, for instance `metadata/1.root.json`. None: it is not there."""

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
"""A time at which nothing has expired: expiry is judged at the end and in one place."""

BUNDLE_TYPE: Final = "verbale-roster-bundle"
MAX_BUNDLE_FILES: Final = 2_000

_T = TypeVar("_T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class VerifiedRoster:
    """A roster repository at one version, verified whole.

    Attributes:
        files: every file the verification read, by path, exact bytes; `metadata/timestamp.json` is the last.
        expiries: unix seconds by role name (`root`, `targets`, `snapshot`, `timestamp`, `state-ee`).
        cards: the keys that sign the roster itself, by role name.
        signers: key ids (`EE/governance/1`) whose signatures stand on each role's file.
    """

    roster: Roster
    federation: FederationDocument
    states: Mapping[str, StateDocument]
    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp
    files: Mapping[str, bytes]
    expiries: Mapping[str, int]
    cards: Mapping[str, tuple[KeyCard, ...]]
    signers: Mapping[str, tuple[str, ...]]

    def lapsed(self, at: int) -> tuple[str, ...]:
        """The States whose own document has passed its expiry at `at`: warned of, still read."""
        return tuple(
            code for role, end in self.expiries.items() if (code := layout.code_of_role(role)) and end <= at
        )


@contextmanager
def tuf_errors(what: str) -> Iterator[None]:
    """Turn whatever python-tuf raises on hostile bytes into RosterNotVerified.

    python-tuf documents RepositoryError, yet lets ValueError, TypeError, KeyError and AttributeError through for metadata
    whose members have the wrong JSON types. RuntimeError, its word for a programming mistake, is let through.
    """
    try:
        yield
    except (RepositoryError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error) or type(error).__name__
        raise RosterNotVerified(f"The roster does not verify at {what}: {reason}.") from error


def majority(count: int) -> int:
    """The threshold among `count` keys: floor(n/2)+1."""
    return count // 2 + 1


# ── one file ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _spelling(raw: bytes, path: str) -> Metadata[Root]:
    """Check that a metadata file has the one spelling we write; TUF signs its content, not its bytes.

    The type parameter is a lie that python-tuf's own readers tell too; callers look at `signed.type` first.
    """
    try:
        parse_strict(raw)
    except MalformedJson as error:
        raise RosterNotVerified(f"The roster does not verify at {path}: {error}") from error
    with tuf_errors(path):
        metadata: Metadata[Root] = Metadata.from_bytes(raw)
        same = metadata.to_bytes() == raw and not metadata.unrecognized_fields
        lower = all(
            signature.signature == signature.signature.lower() for signature in metadata.signatures.values()
        )
        extra = any(signature.unrecognized_fields for signature in metadata.signatures.values())
    if not same or not lower or extra:
        raise RosterNotVerified(f"The roster does not verify at {path}: it is not in its canonical spelling.")
    return metadata


def _all_signatures(
    metadata: Metadata[_T], path: str, *delegations: tuple[Role, Mapping[str, KeyCard]]
) -> tuple[str, ...]:
    """Check that every signature in a file is by a key of its role and verifies; return the signers' key ids.

    TUF only counts up to the threshold, so a damaged surplus signature would pass; here nothing in a file is idle.
    """
    signers = []
    for keyid, signature in metadata.signatures.items():
        card = next(
            (cards[keyid] for role, cards in delegations if keyid in role.keyids and keyid in cards), None
        )
        if card is None:
            raise RosterNotVerified(
                f"The roster does not verify at {path}: it is signed by a key that is not in the role."
            )
        try:
            to_tuf(card).verify_signature(signature, metadata.signed_bytes)
        except UnverifiedSignatureError as error:
            raise RosterNotVerified(
                f"The roster does not verify at {path}: the signature of {card.kid} fails."
            ) from error
        signers.append(card.kid)
    return tuple(signers)


# ── who may sign what ─────────────────────────────────────────────────────────────────────────────────────────────


def role_cards(root: Root) -> dict[str, dict[str, KeyCard]]:
    """The admitted keys of the four top-level roles: role name → TUF key id → card.

    Raises:
        RosterRefused: a role's threshold or its keys break the federation's rule.
        UnacceptableKey: a key that may not enter.
    """
    with tuf_errors("root"):
        uses = {"root": "governance", "targets": "governance", "snapshot": "online", "timestamp": "online"}
        cards = {
            role: {keyid: from_tuf(root.get_key(keyid), use) for keyid in root.roles[role].keyids}
            for role, use in uses.items()
        }
        if set(root.keys) != {keyid for keys in cards.values() for keyid in keys} or root.unrecognized_fields:
            raise RosterRefused("The root lists keys or members that no role uses.")
    if set(cards["root"]) != set(cards["targets"]) or set(cards["snapshot"]) != set(cards["timestamp"]):
        raise RosterRefused(
            "Root and targets are signed by the same governance keys, snapshot and timestamp by the same online keys."
        )
    if not root.consistent_snapshot:
        raise RosterRefused("The root must ask for consistent snapshots.")
    for role, keys in cards.items():
        wanted = majority(len(keys)) if uses[role] == "governance" else min(2, len(keys))
        if not keys or root.roles[role].threshold != wanted:
            raise RosterRefused(
                f"The threshold of {role} is {root.roles[role].threshold} of {len(keys)} keys; the rule gives {wanted}."
            )
        owners = [card.state for card in keys.values()]
        if doubled := sorted({owner for owner in owners if owners.count(owner) > 1}):
            raise RosterRefused(f"{', '.join(doubled)} holds two keys of {role}: each State has one voice.")
    return cards


def delegation_cards(delegations: Delegations | None) -> dict[str, dict[str, KeyCard]]:
    """The admitted authority keys: State role name → TUF key id → card.

    Raises:
        RosterRefused: a delegation that is not exactly `state-<cc>` for `states/<cc>.json`.
        UnacceptableKey
    """
    if delegations is None:
        return {}
    if delegations.roles is None or delegations.unrecognized_fields:
        raise RosterRefused("Targets delegates in a way this federation does not use.")
    cards: dict[str, dict[str, KeyCard]] = {}
    for name, role in delegations.roles.items():
        code = layout.code_of_role(name)
        if (
            code is None
            or role.paths != [layout.state_target(code)]
            or not role.terminating
            or role.unrecognized_fields
        ):
            raise RosterRefused(f"The delegation {name!r} is not of the form state-ee for states/ee.json.")
        with tuf_errors(f"the delegation {name}"):
            cards[name] = {keyid: from_tuf(delegations.keys[keyid], "authority") for keyid in role.keyids}
        if not 1 <= role.threshold <= len(cards[name]):
            raise RosterRefused(f"The threshold of {name} cannot be met.")
        if foreign := [card.kid for card in cards[name].values() if card.state != code]:
            raise RosterRefused(f"{name} would be signed by another State's key: {', '.join(foreign)}.")
    if set(delegations.keys) != {keyid for keys in cards.values() for keyid in keys}:
        raise RosterRefused("Targets lists keys that no delegation uses.")
    return cards


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _reference(trusted: TrustedMetadataSet, at: datetime) -> None:
    """Set the time python-tuf compares expiries with; its constructor takes the wall clock and offers no argument."""
    trusted.reference_time = at


def verify(read: Read, pinned_root: bytes, *, at: int | None = None) -> VerifiedRoster:
    """Verify a whole repository and build its roster.

    Args:
        read: gives the bytes of a path below the repository, or None.
        pinned_root: the root metadata this node was installed with; any version of the chain.
        at: unix seconds; when given, an expired top-level role is refused.

    Raises:
        RosterNotVerified: the chain does not hold, or a file is missing.
        RosterRefused, UnacceptableKey, MalformedJson: it holds and says something that may not be said.
        RosterExpired: only with `at`.
    """
    walk = _Walk(read, pinned_root)
    root = walk.roots(pinned_root)
    timestamp, snapshot = walk.versions(root)
    targets, federation = walk.federation(root, snapshot)
    authorities = delegation_cards(targets.delegations)
    roles = targets.delegations.roles if targets.delegations and targets.delegations.roles else {}
    states: dict[str, StateDocument] = {}
    expiries: dict[str, int] = {}
    for name, cards in authorities.items():
        document, expiries[name] = walk.state(snapshot, name, roles[name], cards)
        states[document.state] = document
    if idle := sorted(set(snapshot.meta) - {f"{name}.json" for name in ("targets", *authorities)}):
        raise RosterRefused(f"The snapshot names roles that nobody delegates to: {', '.join(idle)}.")
    check_together(federation, states, _ring((*walk.cards.values(), *authorities.values())))
    top = {"root": root, "timestamp": timestamp, "snapshot": snapshot, "targets": targets}
    expiries |= {role: layout.seconds(signed.expires) for role, signed in top.items()}
    expires = min(expiries[role] for role in top)
    if at is not None and expires <= at:
        raise RosterExpired(expiry_sentence(expiries, at))
    # The snapshot's content names every other version by hash. Its signatures are left out: a mirror that drops a surplus
    # one would otherwise seem to show another roster.
    digest = hashlib.sha256(_snapshot_bytes(snapshot)).hexdigest()
    roster = build_roster(
        federation, states, version=snapshot.version, sha256=digest, expires=expires, expiries=expiries
    )
    keys = (*walk.cards.items(), *authorities.items())
    return VerifiedRoster(
        roster=roster,
        federation=federation,
        states=MappingProxyType(states),
        root=root,
        targets=targets,
        snapshot=snapshot,
        timestamp=timestamp,
        files=MappingProxyType(walk.files_in_order()),
        expiries=MappingProxyType(expiries),
        cards=MappingProxyType({role: tuple(cards.values()) for role, cards in keys}),
        signers=MappingProxyType(walk.signers),
    )


class _Walk:
    """One verification, a method for each step, in this order. Every file is read once and kept.

    Attributes:
        cards: the keys of the top-level roles, as the newest root lists them.
        files, signers: see `VerifiedRoster`.
    """

    def __init__(self, read: Read, pinned_root: bytes) -> None:
        self._read = read
        with tuf_errors("the pinned root"):
            self._trusted = TrustedMetadataSet(pinned_root, EnvelopeType.METADATA)
            _reference(self._trusted, BEGINNING)
        self.files: dict[str, bytes] = {}
        self.signers: dict[str, tuple[str, ...]] = {}
        self.cards: dict[str, dict[str, KeyCard]] = {}

    def roots(self, pinned_root: bytes) -> Root:
        """The root chain, from the pinned version upwards, each signed by the one before and by itself."""
        _spelling(pinned_root, "the pinned root")
        root = self._trusted.root
        self.cards = role_cards(root)
        first = layout.metadata_path("root", root.version)
        if (served := self._read(first)) is not None:
            if served != pinned_root:
                raise RosterNotVerified(f"The roster's {first} is not the root that was pinned.")
            self.files[first] = served
        for version in range(root.version + 1, root.version + 1 + layout.MAX_ROOTS):
            path = layout.metadata_path("root", version)
            if self._read(path) is None:
                break
            before = root.roles["root"], self.cards["root"]
            raw = self.need(path, layout.MAX_METADATA)
            spelled = _spelling(raw, path)
            with tuf_errors(path):
                root = self._trusted.update_root(raw)
            self.cards = role_cards(root)
            itself = root.roles["root"], self.cards["root"]
            self.signers["root"] = _all_signatures(spelled, path, before, itself)
        return root

    def versions(self, root: Root) -> tuple[Timestamp, Snapshot]:
        """Timestamp and snapshot: which versions are current."""
        path = layout.metadata_path("timestamp", 0)
        signed = root.roles["timestamp"], self.cards["timestamp"]
        timestamp = self._take(
            "timestamp", path, self._trusted.update_timestamp, signed, limit=layout.MAX_TIMESTAMP
        )
        path = layout.metadata_path("snapshot", timestamp.snapshot_meta.version)
        signed = root.roles["snapshot"], self.cards["snapshot"]
        snapshot = self._take("snapshot", path, self._trusted.update_snapshot, signed)
        if unpinned := [n for n, meta in snapshot.meta.items() if not meta.hashes or meta.length is None]:
            raise RosterRefused(f"The snapshot names {', '.join(unpinned)} without length and hash.")
        return timestamp, snapshot

    def federation(self, root: Root, snapshot: Snapshot) -> tuple[Targets, FederationDocument]:
        """Top-level targets: exactly the federation document, and the delegations."""
        path = layout.metadata_path("targets", _version(snapshot, "targets"))
        signed = root.roles["targets"], self.cards["targets"]
        targets = self._take("targets", path, self._trusted.update_targets, signed)
        return targets, FederationDocument.parse(_target(self.need, targets, layout.FEDERATION))

    def state(
        self, snapshot: Snapshot, name: str, role: Role, cards: Mapping[str, KeyCard]
    ) -> tuple[StateDocument, int]:
        """A State's own role: exactly its own document, and when it expires (unix seconds).

        That is reported, not enforced: one State that forgets its ceremony must not take the others' roster away, and the
        snapshot proves freshness already.
        """
        code = layout.code_of_role(name)
        assert code is not None  # noqa: S101 - delegation_cards has checked it
        path = layout.metadata_path(name, _version(snapshot, name))
        targets = self._take(
            name,
            path,
            lambda raw: self._trusted.update_delegated_targets(raw, name, "targets"),
            (role, cards),
        )
        if targets.delegations is not None:
            raise RosterRefused(f"{name} delegates further, which a State cannot.")
        raw = _target(self.need, targets, layout.state_target(code))
        return StateDocument.parse(raw, state=code), layout.seconds(targets.expires)

    def files_in_order(self) -> dict[str, bytes]:
        """The files read, the timestamp last: whoever copies in order commits with it."""
        path = layout.metadata_path("timestamp", 0)
        return {name: raw for name, raw in self.files.items() if name != path} | {path: self.files[path]}

    def need(self, path: str, limit: int) -> bytes:
        """Read a file that must be there; `limit` in bytes."""
        raw = self._read(path)
        if raw is None:
            raise RosterNotVerified(f"The roster is incomplete: {path} is missing.")
        if len(raw) > limit:
            raise RosterNotVerified(f"The roster does not verify at {path}: it is larger than {limit} bytes.")
        self.files[path] = raw
        return raw

    def _take(
        self,
        role: str,
        path: str,
        update: Callable[[bytes], _T],
        signed: tuple[Role, Mapping[str, KeyCard]],
        *,
        limit: int = layout.MAX_METADATA,
    ) -> _T:
        raw = self.need(path, limit)
        spelled = _spelling(raw, path)
        with tuf_errors(path):
            taken = update(raw)
        self.signers[role] = _all_signatures(spelled, path, signed)
        return taken


def _ring(roles: Iterable[Mapping[str, KeyCard]]) -> dict[str, PublicKey]:
    """Every key that signs the roster, by key id."""
    ring: dict[str, PublicKey] = {}
    for card in (card for cards in roles for card in cards.values()):
        if ring.setdefault(card.kid, card.key) != card.key:
            raise RosterRefused(f"Two keys that sign the roster are both called {card.kid}.")
    return ring


def expiry_sentence(expiries: Mapping[str, int], at: int) -> str:
    """Say which top-level role has expired, since when, and what to do."""
    role = min(("root", "timestamp", "snapshot", "targets"), key=lambda name: expiries[name])
    remedy = (
        "Refresh it from a node that has a newer one, or have the online keys sign a refresh"
        if role in {"timestamp", "snapshot"}
        else "The States have to hold a signing ceremony"
    )
    when = layout.moment(expiries[role]).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"The roster has expired: its {role} counted until {when}, and it is {layout.moment(at):%Y-%m-%d %H:%M} UTC. "
        f"{remedy}; until then nothing new is confirmed."
    )


def _snapshot_bytes(snapshot: Snapshot) -> bytes:
    return Metadata(snapshot).signed_bytes


def _version(snapshot: Snapshot, role: str) -> int:
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise RosterNotVerified(f"The roster is incomplete: the snapshot does not name {role}.")
    return int(meta.version)


def _target(need: Callable[[str, int], bytes], targets: Targets, name: str) -> bytes:
    """The bytes of the one target that `targets` may name."""
    if set(targets.targets) != {name} or targets.unrecognized_fields:
        raise RosterRefused(
            f"A role must name exactly one target, {name}; it names {', '.join(map(repr, targets.targets))}."
        )
    info = targets.targets[name]
    digest = info.hashes.get("sha256")
    if digest is None or set(info.hashes) != {"sha256"} or info.unrecognized_fields:
        raise RosterRefused(f"The target {name} must be named by its SHA-256 alone.")
    path = layout.target_path(name, digest)
    if not layout.is_served(path):
        raise RosterRefused(f"The target {name} has an impossible hash.")
    raw = need(path, layout.MAX_TARGET)
    with tuf_errors(path):
        info.verify_length_and_hashes(raw)
    return raw


# ── sources: a directory, a bundle ────────────────────────────────────────────────────────────────────────────────


def directory_reader(repository: Path) -> Read:
    """Read from a repository directory; only paths that a roster can hold, and no links out of it."""

    def read(path: str) -> bytes | None:
        if not layout.is_served(path):
            return None
        try:
            with (repository / path).open("rb") as file:
                return file.read(layout.MAX_METADATA + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None

    return read


def roster_from_repository(repository: Path, pinned_root: bytes, at: int | None = None) -> Roster:
    """Verify a repository directory from a pinned root.

    Raises:
        As `verify`.
    """
    return verify(directory_reader(repository), pinned_root, at=at).roster


def export_bundle(repository: Path) -> dict[str, JsonValue]:
    """All files that prove the current roster, as one JSON value: what a proof file carries for offline verification.

    Nothing is verified here: the reader of a bundle verifies it from its own pinned root.

    Raises:
        RosterNotVerified: the repository is incomplete or unreadable.
    """
    read = directory_reader(repository)
    first = next(
        (v for v in range(1, layout.MAX_ROOTS) if read(layout.metadata_path("root", v)) is not None), None
    )
    if first is None:
        raise RosterNotVerified(f"There is no roster at {repository}: it has no root metadata.")
    root = read(layout.metadata_path("root", first))
    assert root is not None  # noqa: S101 - found above
    verified = verify(read, root)
    return {
        "type": BUNDLE_TYPE,
        "v": 1,
        "files": {path: b64u_encode(raw) for path, raw in sorted(verified.files.items())},
    }


def bundle_reader(bundle: JsonValue) -> tuple[Read, frozenset[str]]:
    """A reader over a bundle's files, and their paths.

    Raises:
        RosterNotVerified: it is no bundle.
    """
    if not isinstance(bundle, dict) or set(bundle) != {"type", "v", "files"} or bundle["type"] != BUNDLE_TYPE:
        raise RosterNotVerified("This is not a roster bundle.")
    entries = bundle["files"]
    if (
        bundle["v"] != 1
        or isinstance(bundle["v"], bool)
        or not isinstance(entries, dict)
        or len(entries) > MAX_BUNDLE_FILES
    ):
        raise RosterNotVerified("This is not a roster bundle of version 1.")
    files: dict[str, bytes] = {}
    for path, text in entries.items():
        if not isinstance(path, str) or not layout.is_served(path) or not isinstance(text, str):
            raise RosterNotVerified(f"A roster bundle holds no file {path!r}.")
        try:
            files[path] = b64u_decode(text)
        except Malformed as error:
            raise RosterNotVerified(f"The roster bundle's {path} cannot be decoded: {error}") from error
    return files.get, frozenset(files)


def verify_bundle(bundle: JsonValue, pinned_root: bytes, at: int | None = None) -> VerifiedRoster:
    """Verify a bundle from a pinned root, without network or disk.

    A bundle may begin with roots older than the pinned one (the sender cannot know which one the reader pinned); those are
    not believed and not used. Any other file that the chain does not need is refused.

    Raises:
        As `verify`.
    """
    read, paths = bundle_reader(bundle)
    verified = verify(read, pinned_root, at=at)
    with tuf_errors("the pinned root"):
        pinned: Metadata[Root] = Metadata.from_bytes(pinned_root)
    older = {layout.metadata_path("root", version) for version in range(1, pinned.signed.version)}
    if idle := sorted(paths - set(verified.files) - older):
        raise RosterNotVerified(
            f"The roster bundle holds files its chain does not need: {', '.join(idle[:3])}."
        )
    return verified


def roster_from_bundle(bundle: JsonValue, pinned_root: bytes, at: int | None = None) -> Roster:
    """The roster of a bundle; see `verify_bundle`."""
    return verify_bundle(bundle, pinned_root, at).roster
