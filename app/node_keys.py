"""A node's own signers: read from its folder, and the newest that the roster counts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from app.domain.errors import UnsafeKeyFile
from app.hsm import open_key
from app.keyfiles import load_encryption_key, load_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.domain.keys import PublicKey, Signer
    from app.domain.roster import KeyUse, Roster
    from app.domain.sealing import EncryptionKey

log = logging.getLogger(__name__)


class _HasPublic(Protocol):
    @property
    def public(self) -> PublicKey: ...


K = TypeVar("K", bound=_HasPublic)
C = TypeVar("C", bound=_HasPublic | None)

KEY_FILES: Final = {"log": "log.key", "witness": "witness.key", "transport": "transport.key"}
ENCRYPTION_FILE: Final = "encryption.key"


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The node's own signers. A node without them is never started.

    Attributes:
        encryption: opens bodies that were sealed for this State; None for a node that was made before there were any.
    """

    log: Signer
    witness: Signer
    transport: Signer
    encryption: EncryptionKey | None = None

    @classmethod
    def load(cls, directory: Path, log_key: str = "") -> NodeKeys:
        """Read the key files, the log key from its token if `log_key` names one; raises UnsafeKeyFile with advice."""
        names = {use: str(directory / name) for use, name in KEY_FILES.items()}
        signers = {
            use: open_key(name) for use, name in (names | ({"log": log_key} if log_key else {})).items()
        }
        file = directory / ENCRYPTION_FILE
        return cls(**signers, encryption=load_encryption_key(file) if file.exists() else None)


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """The folder of a node's keys. Several of one use may lie there: `log.key`, and `log-2.key` and so on.

    Attributes:
        log_key: the token that holds the log key, or "" if it is a file; see `app.hsm`.
    """

    directory: Path
    state: str
    log_key: str = ""

    def counting(self, keys: NodeKeys, roster: Roster, now: int) -> NodeKeys:
        """Of each kind the newest key that lies here and counts in the roster at `now` (unix seconds); the one at hand if none
        does.

        A rotation therefore takes no restart: the new file lies here before the roster lists it, and signs from the moment
        this node adopts that roster.
        """
        return replace(
            keys,
            # A key in a token is changed by naming another in the settings.
            log=keys.log if self.log_key else self._newest(roster, now, "log", keys.log, load_private),
            witness=self._newest(roster, now, "witness", keys.witness, load_private),
            transport=self._newest(roster, now, "transport", keys.transport, load_private),
            encryption=self._newest(roster, now, "encryption", keys.encryption, load_encryption_key),
        )

    def _newest(self, roster: Roster, now: int, use: KeyUse, current: C, load: Callable[[Path], K]) -> C | K:
        counting = {
            key.key: key
            for key in roster.keys_of(self.state, use)
            if key.revoked_at_index is None
            and key.active_from <= now
            and (key.active_to is None or key.active_to > now)
        }
        held = [key for key in self._successors(use, load) if key.public in counting]
        best = max(held, key=lambda key: counting[key.public].active_from, default=None)
        if best is None or (current is not None and best.public == current.public):
            return current
        extra = {"action": "key_changed", "use": use, "kid": counting[best.public].kid}
        log.warning("key changed", extra=extra)
        return best

    def _successors(self, use: str, load: Callable[[Path], K]) -> list[K]:
        """The keys of a use that lie here. One that is unsafe is left out.

        Files that were rotated out sign nothing, since the roster has ended their keys; delete them when the new ones work.
        """
        found: list[K] = []
        for path in (self.directory / f"{use}.key", *sorted(self.directory.glob(f"{use}-[0-9]*.key"))):
            try:
                if path.exists():
                    found.append(load(path))
            except UnsafeKeyFile as error:
                log.warning("key file not used", extra={"action": "key_unsafe", "why": str(error)[:500]})
        return found
