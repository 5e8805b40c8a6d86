r"""The C2SP tlog-policy file: which logs, which witnesses, and how many of them make a checkpoint certain.

Guarantees that what `encode` writes any reader of C2SP tlog-policy understands, and that `parse` refuses what the
specification forbids: names used before they are defined, a member of two groups, duplicate keys, control characters, not
exactly one quorum. Leaves to others: where the keys come from (the roster) and verifying signatures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from app.domain.errors import Malformed, Refused
from app.tlog.cosignature import CosignerKey
from app.tlog.note import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE: Final = b"none"
MAX_POLICY_SIZE: Final = 256 * 1024
MAX_LINES: Final = 4096


class MalformedPolicy(Malformed):
    """The bytes are not a C2SP tlog-policy."""

    code = "malformed-policy"


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A log line."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A witness line: its name inside of the file, its key, and where it takes checkpoints."""

    name: bytes
    key: CosignerKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """A group line: `needed` of its members, which are witnesses or groups defined before it."""

    name: bytes
    needed: int
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it stands in the file. `quorum` is the name of a witness or group, or `none`."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: bytes
    comments: tuple[str, ...] = field(default=(), compare=False)

    def encode(self) -> bytes:
        """The file's bytes: comments, logs, witnesses, groups, quorum."""
        lines = [f"# {comment}".encode() for comment in self.comments]
        lines += [b" ".join(_words(b"log", log.key.encode(), log.url)) for log in self.logs]
        lines += [b" ".join(_words(b"witness", w.name, w.key.encode(), w.url)) for w in self.witnesses]
        for group in self.groups:
            lines.append(b" ".join((b"group", group.name, b"%d" % group.needed, *group.members)))
        return b"\n".join([*lines, b"quorum " + self.quorum]) + b"\n"

    def met_by(self, cosigners: Iterable[CosignerKey]) -> bool:
        """Whether verified cosignatures by these keys make a checkpoint certain."""
        keys = {one.key.raw for one in cosigners}
        given = {w.name: w.key.key.raw in keys for w in self.witnesses}
        for group in self.groups:
            given[group.name] = sum(given[member] for member in group.members) >= group.needed
        return True if self.quorum == NONE else given[self.quorum]

    @classmethod
    def parse(cls, raw: bytes) -> Policy:
        """Read a policy.

        Raises:
            MalformedPolicy: it breaks C2SP tlog-policy; the message names the line.
        """
        if len(raw) > MAX_POLICY_SIZE or not raw.endswith(b"\n"):
            raise MalformedPolicy(f"A policy has at most {MAX_POLICY_SIZE} bytes and ends with a line feed.")
        lines = raw[:-1].split(b"\n")
        if len(lines) > MAX_LINES:
            raise MalformedPolicy(f"A policy has at most {MAX_LINES} lines.")
        reader = _Reader()
        for number, line in enumerate(lines, 1):
            try:
                reader.take(line)
            except Refused as error:
                raise MalformedPolicy(f"Line {number} of the policy: {error}") from error
        if reader.quorum is None:
            raise MalformedPolicy("The policy has no quorum line.")
        return cls(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)


def _words(*words: bytes | str | None) -> list[bytes]:
    return [word.encode() if isinstance(word, str) else word for word in words if word is not None]


class _Reader:
    """Takes lines one by one."""

    def __init__(self) -> None:
        self.logs: list[PolicyLog] = []
        self.witnesses: list[PolicyWitness] = []
        self.groups: list[PolicyGroup] = []
        self.quorum: bytes | None = None
        self._unused: dict[bytes, bool] = {}  # name → whether no group has it yet

    def take(self, line: bytes) -> None:
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in line):  # noqa: PLR2004 - ASCII controls
            raise MalformedPolicy("control characters other than tab and line feed are not allowed.")
        words = line.replace(b"\t", b" ").split(b" ")
        words = [word for word in words if word]
        if not words or words[0].startswith(b"#"):
            return
        kind, rest = words[0], words[1:]
        if kind == b"log" and len(rest) in (1, 2):
            self._log(*rest)
        elif kind == b"witness" and len(rest) in (2, 3):
            self._witness(*rest)
        elif kind == b"group" and len(rest) >= 3:  # noqa: PLR2004 - name, threshold, a member
            self._group(rest[0], rest[1], rest[2:])
        elif kind == b"quorum" and len(rest) == 1:
            self._quorum(rest[0])
        else:
            raise MalformedPolicy(
                "it is none of: log <vkey> [<url>], witness <name> <vkey> [<url>], group <name> <k> <name>…, quorum <name>."
            )

    def _log(self, vkey: bytes, url: bytes | None = None) -> None:
        key = VerifierKey.parse(_text(vkey))
        if any(log.key.key.raw == key.key.raw for log in self.logs):
            raise MalformedPolicy("the log's key stands in the policy already.")
        self.logs.append(PolicyLog(key, None if url is None else _text(url)))

    def _witness(self, name: bytes, vkey: bytes, url: bytes | None = None) -> None:
        key = CosignerKey.parse(_text(vkey))
        if any(witness.key.key.raw == key.key.raw for witness in self.witnesses):
            raise MalformedPolicy("the witness's key stands in the policy already.")
        self._define(name)
        self.witnesses.append(PolicyWitness(name, key, None if url is None else _text(url)))

    def _group(self, name: bytes, threshold: bytes, members: list[bytes]) -> None:
        for member in members:
            if member not in self._unused:
                raise MalformedPolicy("a group names a member that no line before it defines.")
            if not self._unused[member]:
                raise MalformedPolicy("a name is a member of at most one group, once.")
            self._unused[member] = False
        words = {b"all": len(members), b"any": 1}
        if threshold not in words and not (threshold.isdigit() and len(threshold) <= 9):  # noqa: PLR2004 - a bound
            raise MalformedPolicy("a group's threshold is all, any or a whole number.")
        needed = words[threshold] if threshold in words else int(threshold)
        if not 1 <= needed <= len(members):
            raise MalformedPolicy(f"a group of {len(members)} cannot ask for {needed}.")
        self._define(name)
        self.groups.append(PolicyGroup(name, needed, tuple(members)))

    def _quorum(self, name: bytes) -> None:
        if self.quorum is not None:
            raise MalformedPolicy("there is a quorum line already.")
        if name != NONE and name not in self._unused:
            raise MalformedPolicy("the quorum is a name that no line before it defines.")
        self.quorum = name

    def _define(self, name: bytes) -> None:
        if name == NONE or name in self._unused:
            raise MalformedPolicy("the name is taken.")
        self._unused[name] = True


def _text(word: bytes) -> str:
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPolicy("a key or address is not text.") from error
