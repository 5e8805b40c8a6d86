"""What can go wrong, in the words of the trade.

::

    VerbaleError
    ├── Refused                the input is at fault; nothing was changed
    │   ├── Malformed          it cannot be read: JSON, base64url, a statement, a cursor
    │   ├── InvalidSignature   it can be read, and the signature does not hold
    │   ├── NotAllowed         who asks may not do this
    │   ├── Conflict           it contradicts what the log already holds
    │   └── TooLarge           it passes a limit
    ├── PeerFault              another node answered something that does not verify
    └── NodeFault              this node's own files, settings or database are not as they must be

An error states a fact and carries values; it knows nothing of HTTP. `app.problems` maps families and codes to problem
documents, `app.cli` maps them to exit codes. `str(error)` is one sentence or two for a person: what is wrong, what to do.
`code` is stable: outsiders match on it, and `docs/problems.md` explains each.
"""

from __future__ import annotations

from typing import ClassVar, Final

_SHOWN: Final = 3
"""Faults of a notice that fit into one sentence; all of them are in `InvalidNotice.errors`."""


class VerbaleError(Exception):
    """The root. Programming mistakes are not VerbaleErrors: they stay AssertionError, TypeError and the like."""

    code: ClassVar[str] = "error"

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as what it is, whatever arguments its class was made with."""
        return _remade, (type(self), self.args, self.__dict__)


class Refused(VerbaleError):
    """The input is at fault; nothing was changed."""

    code = "refused"


class PeerFault(VerbaleError):
    """Another node answered something that does not verify. Never raised for our own data."""

    code = "peer-fault"


class NodeFault(VerbaleError):
    """This node's own files, settings or database are not as they must be. The operator has to act."""

    code = "node-fault"


# ── the input cannot be read ──────────────────────────────────────────────────────────────────────────────────────


class Malformed(Refused):
    """The bytes are not what the format asks for."""

    code = "malformed"


class MalformedJson(Malformed):
    """Not strict JSON: bad UTF-8, duplicate members, NaN, too deep, trailing text."""

    code = "malformed-json"


class NonCanonicalEncoding(Malformed):
    """Base64url that does not decode and re-encode to the same text."""

    code = "non-canonical-encoding"


class MalformedStatement(Malformed):
    """A leaf that breaks the format of `docs/protocol.md`."""

    code = "malformed-statement"


class MalformedRequest(Malformed):
    """A request that does not have the documented shape."""

    code = "malformed-request"


class InvalidCursor(Malformed):
    """A cursor this node did not make, or made for another query."""

    code = "invalid-cursor"


class InvalidFilter(Malformed):
    """A query parameter that is unknown or has a value outside its vocabulary."""

    code = "invalid-filter"


class InvalidNotice(Malformed):
    """The main part does not follow the schema of its type.

    Attributes:
        errors: pairs (JSON pointer, detail), in document order.
    """

    code = "invalid-notice"

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        """Keep every error: an officer mends them in one go."""
        self.errors = errors
        shown = "; ".join(f"{pointer or '/'}: {detail}" for pointer, detail in errors[:_SHOWN])
        more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
        super().__init__(f"The notice does not follow its schema. {shown}{more}")


class UnknownNoticeType(Malformed):
    """A type this version does not know. From a peer it is kept and flagged; locally it is refused."""

    code = "unknown-notice-type"


class UnknownSchemaVersion(Malformed):
    """A known type in a schema version this version does not know. From a peer it is kept and flagged."""

    code = "unknown-schema-version"


class TooLarge(Refused):
    """A limit of this node was passed. Limits are settings; see `docs/operations.md`."""

    code = "too-large"


# ── keys and signatures ───────────────────────────────────────────────────────────────────────────────────────────


class InvalidSignature(Refused):
    """The signature does not hold under the named key."""

    code = "invalid-signature"


class UnacceptableKey(Refused):
    """A public key that must not enter a roster: small order, not canonical, wrong length, no proof of possession."""

    code = "unacceptable-key"


class UnknownKey(Refused):
    """The roster does not list this key for that State."""

    code = "unknown-key"


class KeyNotActive(Refused):
    """The roster lists the key, and it does not count here: not yet valid, expired or revoked."""

    code = "key-not-active"


class WrongKeyUse(Refused):
    """The key is listed for another use, for instance a log key that signs a notice."""

    code = "wrong-key-use"


# ── what a statement says against the log ─────────────────────────────────────────────────────────────────────────


class CommitmentMismatch(Refused):
    """A body part does not open the commitment its statement makes."""

    code = "commitment-mismatch"


class PartsMismatch(Refused):
    """The parts that came are not the parts the statement names."""

    code = "parts-mismatch"


class WrongLog(Refused):
    """The statement was signed for another log."""

    code = "wrong-log"


class IssuerMismatch(Refused):
    """The body names an issuer other than the State whose log carries it."""

    code = "issuer-mismatch"


class KindMismatch(Refused):
    """The statement's kind and the body's type contradict each other."""

    code = "kind-mismatch"


class ReferenceMismatch(Refused):
    """The body refers to another notice or version than the statement's `ref`."""

    code = "reference-mismatch"


class ImplausibleTime(Refused):
    """`iat` or `exp` cannot be right: in the future, or over before it begins."""

    code = "implausible-time"


class Conflict(Refused):
    """It contradicts what the log already holds."""

    code = "conflict"


class IdReused(Conflict):
    """The id already stands in this log under other bytes."""

    code = "id-reused"


class LeafReplayed(Conflict):
    """The very same leaf already stands earlier in this log."""

    code = "leaf-replayed"


class UnknownReference(Conflict):
    """`ref` names no version of a notice in this log."""

    code = "unknown-reference"


class StaleReference(Conflict):
    """`ref` names a version that is no longer the current one.

    Attributes:
        current: leaf hash of the current version, hex.
    """

    code = "stale-reference"

    def __init__(self, message: str, current: str = "") -> None:
        """Keep the hash: problem documents carry it."""
        self.current = current
        super().__init__(message)


class NoticeClosed(Conflict):
    """The notice is withdrawn or erased: nothing can follow."""

    code = "notice-closed"


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────────────


class LogEnded(Refused):
    """The States have ended this log at a size, after it had signed two histories; what stands from there on is unproven."""

    code = "log-ended"


class ContinuationMismatch(Refused):
    """The first leaf of an epoch does not name the log that the roster says it continues, or another leaf does."""

    code = "continuation-mismatch"


class NotAllowed(Refused):
    """Who asks may not do this."""

    code = "not-allowed"


class NotAuthenticated(Refused):
    """A credential is missing, unknown, expired or revoked."""

    code = "not-authenticated"


class NotFound(Refused):
    """It does not exist for whoever asks. The same answer whether it is hidden or was never there."""

    code = "not-found"


class Busy(Refused):
    """This node cannot take more right now; trying again later is right."""

    code = "busy"


class NodeStarting(Busy):
    """The node has started and does not know yet whether its log is as far as the other States' witnesses have it."""

    code = "node-starting"


class NodeRestored(Busy):
    """The node was restored from a backup and is not level with the others yet: something may have been erased since."""

    code = "node-restored"


class LogStopped(Busy):
    """The own log takes and signs nothing any more: it contradicts what its key has signed."""

    code = "log-stopped"


# ── the node itself ───────────────────────────────────────────────────────────────────────────────────────────────


class UnsafeSettings(NodeFault):
    """Settings are unknown, contradictory or unsafe."""

    code = "unsafe-settings"


class UnsafeKeyFile(NodeFault):
    """A private key file is missing, readable by others, a sample, or not a key."""

    code = "unsafe-key-file"


class BodyUnreadable(NodeFault):
    """A stored body does not open with the key stored for it."""

    code = "body-unreadable"


class LogCorrupt(NodeFault):
    """Stored leaves, tiles or heads do not hash to each other."""

    code = "log-corrupt"


class RosterExpired(NodeFault):
    """The roster's metadata is past its expiry: reading goes on, nothing new is confirmed."""

    code = "roster-expired"


class RosterMissing(NodeFault):
    """This node holds no verified roster yet."""

    code = "roster-missing"


def _remade(kind: type[VerbaleError], args: tuple[object, ...], state: dict[str, object]) -> VerbaleError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
