"""Who is who: the pure view of the roster that judging, the gate and replication read.

`app.roster` builds it from verified TUF metadata; nothing here verifies anything. Every collection is immutable, so one
`Roster` can be shared by all threads and replaced as a whole when a new version is adopted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from app.domain.errors import KeyNotActive, UnknownKey, WrongKeyUse
from app.domain.quorum import Quorum, quorum_of
from app.domain.times import utc_day

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.domain.keys import PublicKey

KeyUse = Literal["notices", "node", "log", "witness", "transport", "encryption", "webhook"]
KEY_USES: Final[tuple[KeyUse, ...]] = (
    "notices",
    "node",
    "log",
    "witness",
    "transport",
    "encryption",
    "webhook",
)
CLOCKS_S: Final = 86_400
"""A witness counts from so long before its first key begins: clocks differ, and a new federation is at work at once."""

MembershipStatus = Literal["member", "suspended", "withdrawn"]
LogStatus = Literal["active", "frozen", "closed"]


@dataclass(frozen=True, slots=True)
class RosterKey:
    """One key of a State. Past keys stay listed for ever: history must remain verifiable.

    Attributes:
        kid: for instance `EE/cp/1`.
        active_from: unix seconds; a statement's `iat` before it does not count.
        active_to: unix seconds, exclusive, or None.
        revoked_at_index: the first log index at which the key no longer counts, or None.
        suspect_from: unix seconds from which earlier notices should be reconfirmed, or None.
    """

    kid: str
    use: KeyUse
    key: PublicKey
    active_from: int
    active_to: int | None = None
    revoked_at_index: int | None = None
    suspect_from: int | None = None

    def check_active(self, *, at: int, index: int | None) -> None:
        """Check that the key counts for a statement claimed at `at` (unix s) that stands, or would stand, at `index`.

        `index` None means a request rather than a leaf: then a revoked key never counts.

        Raises:
            KeyNotActive: not yet valid, expired or revoked.
        """
        if at < self.active_from:
            raise KeyNotActive(f"Key {self.kid} is not valid yet at the time given. Sign with a key that is.")
        if self.active_to is not None and at >= self.active_to:
            raise KeyNotActive(f"Key {self.kid} has expired. Sign with the State's current key.")
        if self.revoked_at_index is not None and (index is None or index >= self.revoked_at_index):
            raise KeyNotActive(f"Key {self.kid} is revoked. Sign with the State's current key.")


@dataclass(frozen=True, slots=True)
class RosterLog:
    """One log of a State. Identity is the origin; `url` is where its tiles are served, without a trailing slash.

    Attributes:
        end: of a log that the States have ended, by threshold: its final size. Leaves from there on do not count, and the
            State's next epoch continues what stands below.
        end_root: the root at that size.
    """

    origin: str
    epoch: int
    url: str
    status: LogStatus = "active"
    end: int | None = None
    end_root: bytes | None = None


@dataclass(frozen=True, slots=True)
class ContactPoint:
    """The office that speaks for a State; an office, not a person."""

    office: str
    email: str
    phone: str | None = None
    languages: tuple[str, ...] = ()
    hours: str | None = None


@dataclass(frozen=True, slots=True)
class RosterState:
    """One Subscribing State. Without `url` and `logs` it is known by name only.

    Attributes:
        ends: of a State that is no member: by origin, the first index that does not count. A log that is not named was
            begun since, and counts not at all.
        left: of a State that is no member: the first day, ISO, of which its witness vouches for nothing. None: it vouches
            for no day at all.
    """

    code: str
    name: str
    status: MembershipStatus = "member"
    joined: str | None = None
    url: str | None = None
    contact_point: ContactPoint | None = None
    logs: tuple[RosterLog, ...] = ()
    keys: tuple[RosterKey, ...] = ()
    witness_name: str | None = None
    ends: tuple[tuple[str, int], ...] = ()
    left: str | None = None

    def end_of(self, origin: str) -> int | None:
        """The first index of a log that does not count because the State is no member, or None."""
        return None if self.status == "member" else dict(self.ends).get(origin, 0)


@dataclass(frozen=True, slots=True)
class CentralContactTerm:
    """A dated term: `start` inclusive, `end` exclusive or None; ISO dates."""

    state: str
    start: str
    end: str | None = None
    confirmed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roster:
    """The membership of the federation at one version.

    Attributes:
        version: of the snapshot, which grows with every change of any document.
        sha256: hex digest of the snapshot's signed part, which names exactly this roster.
        expires: unix seconds: the earliest expiry of the top-level metadata that carries it.
        expiries: unix seconds, of each metadata file by its role: root, targets, snapshot, timestamp, state-ee.
    """

    version: int
    sha256: str
    expires: int
    states: Mapping[str, RosterState]
    terms: tuple[CentralContactTerm, ...] = field(default=())
    expiries: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes with plain dicts inside: read-only mappings cannot be pickled."""
        values = (getattr(self, one.name) for one in fields(self))
        return Roster, tuple(dict(v) if isinstance(v, MappingProxyType) else v for v in values)

    @cached_property
    def _keys(self) -> Mapping[tuple[str, str], RosterKey]:
        return MappingProxyType({(s.code, k.kid): k for s in self.states.values() for k in s.keys})

    @cached_property
    def suspects(self) -> Mapping[tuple[str, str], int]:
        """Of keys whose State does not vouch for all they signed: (State, key id) → unix seconds since when."""
        return MappingProxyType(
            {of: key.suspect_from for of, key in self._keys.items() if key.suspect_from is not None}
        )

    @cached_property
    def _origins(self) -> Mapping[str, tuple[RosterState, RosterLog]]:
        return MappingProxyType({log.origin: (s, log) for s in self.states.values() for log in s.logs})

    def state_of_origin(self, origin: str) -> RosterState | None:
        """The State whose log `origin` is, or None."""
        found = self._origins.get(origin)
        return found[0] if found else None

    def log(self, origin: str) -> RosterLog | None:
        """The log named `origin`, or None."""
        found = self._origins.get(origin)
        return found[1] if found else None

    def key(self, state: str, kid: str) -> RosterKey | None:
        """The key `kid` of `state`, or None."""
        return self._keys.get((state, kid))

    def require_key(self, state: str, kid: str, uses: tuple[KeyUse, ...]) -> RosterKey:
        """The key `kid` of `state` if it is listed for one of `uses`. Whether it is active is the caller's question.

        Raises:
            UnknownKey: not listed for that State.
            WrongKeyUse: listed for another use.
        """
        key = self._keys.get((state, kid))
        if key is None:
            raise UnknownKey(
                f"The roster (version {self.version}) lists no key {kid} for {state}. Sign with a listed key, or have the "
                "key added to the State's roster document first."
            )
        if key.use not in uses:
            raise WrongKeyUse(f"Key {kid} is listed for {key.use!r}, not for {' or '.join(uses)}.")
        return key

    def judges_by(self, origin: str) -> str:
        """A digest of all that leaves of a log are judged by. Equal digests: equal verdicts."""
        state = self.state_of_origin(origin)
        if state is None:
            return ""
        keys = [
            (k.kid, k.use, k.key.alg, k.key.raw.hex(), k.active_from, k.active_to, k.revoked_at_index)
            for k in state.keys
        ]
        said: tuple[object, ...] = (state.code, state.end_of(origin), sorted(keys, key=repr))
        listed, before = self.log(origin), self.continued(origin)
        if listed is not None and listed.end is not None:
            said = (*said, listed.end)
        if before is not None:  # and by what the log says that this one continues
            said = (*said, before.origin, before.end, self.judges_by(before.origin))
        return sha256(repr(said).encode()).hexdigest()

    def continued(self, origin: str) -> RosterLog | None:
        """The log that `origin` continues: its State's epoch just before, if the States have ended that; or None."""
        state, listed = self.state_of_origin(origin), self.log(origin)
        if state is None or listed is None:
            return None
        earlier = [log for log in state.logs if log.epoch < listed.epoch]
        before = max(earlier, key=lambda log: log.epoch, default=None)
        return before if before is not None and before.end is not None else None

    def keys_of(self, state: str, use: KeyUse) -> tuple[RosterKey, ...]:
        """All keys of `state` for `use`, past ones included."""
        entry = self.states.get(state)
        return tuple(k for k in entry.keys if k.use == use) if entry else ()

    def nodes(self) -> tuple[RosterState, ...]:
        """The States that run a node: they have a log."""
        return tuple(s for s in self.states.values() if s.logs)

    def members(self) -> frozenset[str]:
        """Codes of the States that are members now: neither suspended nor withdrawn."""
        return frozenset(s.code for s in self.states.values() if s.status == "member")

    def central_contact(self, on: str) -> str | None:
        """The State that holds the central-contact term on an ISO date, or None."""
        for term in self.terms:
            if term.start <= on and (term.end is None or on < term.end):
                return term.state
        return None

    def quorum(self) -> int:
        """How many witnesses confirm a checkpoint of a member's log; see `app.domain.quorum`."""
        members = sum(1 for s in self.nodes() if s.status == "member")
        return quorum_of(str(n) for n in range(members - 1)).needed

    def quorum_for(self, state: str, at: int | None = None) -> Quorum:
        """Who confirms the log of `state`: the nodes of all other members. A suspended State's witness is not asked.

        Args:
            at: unix seconds; then those that were members with a node at that time, as far as this roster tells: whose
                first witness key counts from then or earlier, and who had joined and not left.
        """
        if at is None:
            return quorum_of(s.code for s in self.nodes() if s.code != state and s.status == "member")
        day = utc_day(at)
        return quorum_of(s.code for s in self.nodes() if s.code != state and self._stood(s, at, day))

    def _stood(self, state: RosterState, at: int, day: str) -> bool:
        begun = self._witnessing_since.get(state.code)
        if begun is None or at < begun - CLOCKS_S or (state.joined is not None and day < state.joined):
            return False
        return state.status == "member" or (state.left is not None and day < state.left)

    @cached_property
    def _witnessing_since(self) -> Mapping[str, int]:
        """State → when its first witness key begins, unix seconds."""
        return MappingProxyType(
            {
                code: min(key.active_from for key in keys)
                for code in self.states
                if (keys := self.keys_of(code, "witness"))
            }
        )

    @cached_property
    def confirms_by(self) -> str:
        """A digest of all by which confirmed checkpoints of the past are counted. Equal digests: equal times of leaves."""
        said = [
            (
                (s.code, s.status, s.joined, s.left, self._witnessing_since.get(s.code), s.witness_name),
                [
                    (key.key.raw.hex(), key.suspect_from)
                    for key in self.keys_of(s.code, "witness")
                    if key.revoked_at_index is not None
                ],
            )
            for s in self.nodes()
        ]
        return sha256(repr(sorted(said, key=repr)).encode()).hexdigest()
