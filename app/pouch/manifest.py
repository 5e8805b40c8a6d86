"""What a pouch says of itself: for people and for progress bars. Nothing is believed because it stands here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from app.domain.errors import VerbaleError
from app.domain.json import canonical, parse_strict
from app.domain.statement import is_origin
from app.pouch.archive import PouchMalformed

if TYPE_CHECKING:
    from app.pouch.archive import Pouch

NAME: Final = "pouch.json"
MAX_BYTES: Final = 2**20
_CODE: Final = re.compile(r"[A-Z]{2}")
_MOST: Final = 2**53


@dataclass(frozen=True, slots=True)
class Carried:
    """One log in a pouch: its leaves [start, end), and how many bodies are with it, public and sealed."""

    origin: str
    start: int
    end: int
    public: int
    sealed: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`pouch.json`.

    Attributes:
        by: the State whose node packed it.
        to: the State it is for.
        at: unix seconds.
    """

    by: str
    to: str
    at: int
    roster_version: int
    logs: tuple[Carried, ...]

    def to_bytes(self) -> bytes:
        """RFC 8785."""
        return canonical(
            {
                "v": 1,
                "by": self.by,
                "for": self.to,
                "at": self.at,
                "roster": self.roster_version,
                "logs": [
                    {"origin": c.origin, "from": c.start, "to": c.end, "public": c.public, "sealed": c.sealed}
                    for c in self.logs
                ],
            }
        )


def read_manifest(pouch: Pouch) -> Manifest:
    """The manifest of an opened pouch.

    Raises:
        PouchMalformed: there is none, or it is none.
    """
    raw = pouch.read(NAME, MAX_BYTES)
    if raw is None:
        raise PouchMalformed(f"The pouch holds no {NAME}.")
    try:
        value = parse_strict(raw)
        return _manifest(value)
    except (VerbaleError, KeyError, TypeError, AttributeError) as error:
        raise PouchMalformed(f"{NAME} is not the table of contents of a pouch: {error}.") from error


def _manifest(value: Any) -> Manifest:  # noqa: ANN401 - any JSON value
    if value.keys() != {"v", "by", "for", "at", "roster", "logs"} or value["v"] != 1:
        raise PouchMalformed("its members are not those of version 1")
    logs = tuple(_carried(entry) for entry in value["logs"])
    if len({carried.origin for carried in logs}) != len(logs):
        raise PouchMalformed("it names a log twice")
    return Manifest(
        _code(value["by"]), _code(value["for"]), _number(value["at"]), _number(value["roster"]), logs
    )


def _carried(value: Any) -> Carried:  # noqa: ANN401
    if value.keys() != {"origin", "from", "to", "public", "sealed"} or not is_origin(value["origin"]):
        raise PouchMalformed("a log in it is none")
    start, end = _number(value["from"]), _number(value["to"])
    if start > end:
        raise PouchMalformed("a log in it ends before it begins")
    return Carried(value["origin"], start, end, _number(value["public"]), _number(value["sealed"]))


def _code(value: object) -> str:
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise PouchMalformed("a State in it is no two-letter code")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise PouchMalformed("a number in it is none")
    return value


def log_prefix(origin: str) -> str:
    """Where a log's members lie: under the hash by which mirrors serve it."""
    return f"log/{sha256(origin.encode()).hexdigest()}"
