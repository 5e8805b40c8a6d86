"""Names, limits and lifetimes of the roster's TUF repository.

The delegated role of a State is called `state-ee`, not `states/ee`: role names become file names, a stock client asks for
a slash as `%2F`, and web servers decode that into a directory that does not exist.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

FEDERATION: Final = "federation.json"
"""The one target of the top-level targets role."""

LIFETIMES: Final[dict[str, timedelta]] = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "state": timedelta(days=180),
    "snapshot": timedelta(days=14),
    "timestamp": timedelta(days=7),
}
"""How long each role's metadata counts from its last signing ceremony."""

WARN_DAYS: Final = (60, 30, 14)
"""Days before expiry at which people are told, ever more loudly."""

MAX_METADATA: Final = 1024 * 1024
"""Root and targets of 200 States with 4 keys each take about 300 KB."""

MAX_TIMESTAMP: Final = 16 * 1024
MAX_TARGET: Final = 256 * 1024
"""A State document with 200 past keys takes about 80 KB."""

MAX_ROOTS: Final = 256
"""Root versions followed in one go; the figure python-tuf uses."""

_STATE_ROLE: Final = re.compile(r"state-([a-z]{2})")
_SERVED: Final = re.compile(
    r"metadata/(?:[1-9][0-9]{0,9}\.(?:root|targets|snapshot|state-[a-z]{2})|timestamp)\.json"
    r"|targets/(?:states/)?[0-9a-f]{64}\.(?:federation|[a-z]{2})\.json"
)


def state_role(code: str) -> str:
    """`EE` → `state-ee`."""
    return f"state-{code.lower()}"


def code_of_role(role: str) -> str | None:
    """`state-ee` → `EE`; None for a role that is no State's."""
    match = _STATE_ROLE.fullmatch(role)
    return match[1].upper() if match else None


def state_target(code: str) -> str:
    """`EE` → `states/ee.json`."""
    return f"states/{code.lower()}.json"


def metadata_path(role: str, version: int) -> str:
    """Path of a role's metadata below the repository, as TUF's consistent snapshots name it."""
    return "metadata/timestamp.json" if role == "timestamp" else f"metadata/{version}.{role}.json"


def target_path(name: str, sha256: str) -> str:
    """Path of a target file below the repository, prefixed with its hash."""
    directory, separator, base = name.rpartition("/")
    return f"targets/{directory}{separator}{sha256}.{base}"


def is_served(path: str) -> bool:
    """Whether `path` (relative, below `/roster/`) is one that a roster repository can hold."""
    return _SERVED.fullmatch(path) is not None


def lifetime(role: str) -> timedelta:
    """Lifetime of a role's metadata."""
    return LIFETIMES["state" if code_of_role(role) else role]


def moment(at: int) -> datetime:
    """Unix seconds as the aware UTC datetime that python-tuf wants."""
    return datetime.fromtimestamp(at, UTC)


def seconds(when: datetime) -> int:
    """The reverse of `moment`."""
    return int(when.timestamp())


def expiry_level(role: str, expires: int, at: int) -> str:
    """`fine`, `within 60 days`, `within 30 days`, `within 14 days` or `expired`; short-lived roles warn in their last third."""
    if expires <= at:
        return "expired"
    whole = lifetime(role).total_seconds()
    if role in {"snapshot", "timestamp"}:
        return "fine" if expires - at > whole / 3 else "refresh now"
    return next((f"within {days} days" for days in sorted(WARN_DAYS) if expires - at <= days * 86400), "fine")
