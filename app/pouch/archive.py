"""The file of a pouch: a line with a digest, then a zip archive (APPNOTE 6.3) whose names are the paths of the wire.

    verbale-pouch/v1 <hex SHA-256 of everything after this line>

Guarantees: a file that opens is, byte for byte, the one that was written, or was rewritten on purpose; names are few,
known and unique; nothing is read beyond a limit given by the reader. Nothing is ever extracted to a path. Leaves to
others: whether what it carries is true.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from app.domain.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC: Final = b"verbale-pouch/v1 "
_HEAD_BYTES: Final = len(MAGIC) + 64 + 1
_STEP: Final = 2**20
MAX_MEMBERS: Final = 500_000
"""A log of ten million leaves for each of two hundred States stays below; a directory of millions would be an attack."""
MAX_NAME: Final = 200
_NAME: Final = re.compile(
    r"pouch\.json"
    r"|roster/(?:metadata|targets)/[a-z0-9./-]+\.json"
    r"|log/[0-9a-f]{64}/(?:checkpoint(?:/[0-9]+)?|history|tile/[a-z0-9/.]+|bodies/[0-9]{16}-[0-9]{16}\.ndjson)"
)
_UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
"""What `zipfile` raises for an archive that is none, is cut off, or uses what this reader does not (encryption, versions)."""
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""A pouch says in `pouch.json` when it was packed; the members say nothing, so that equal contents are equal bytes."""


class PouchDamaged(Refused):
    """The bytes of the file are not those that were written: it was cut off or altered on its way."""

    code = "pouch-damaged"


class PouchMalformed(Refused):
    """The file holds what no pouch holds."""

    code = "pouch-malformed"


class PouchExists(Refused):
    """A file stands where the pouch is to go."""

    code = "pouch-exists"


class Writer:
    """Adds members to a pouch that is being written; see `writing`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        """Write into `archive`."""
        self._archive = archive

    def add(self, name: str, content: bytes) -> None:
        """Add one member; a name is used once."""
        member = zipfile.ZipInfo(name, _NO_TIME)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = 0o600 << 16
        self._archive.writestr(member, content)


@contextmanager
def writing(path: Path, show: Callable[[int], None] = lambda _: None) -> Iterator[Writer]:
    """Write a pouch to `path`, which must not exist. It appears there whole, or not at all.

    A crash leaves a file `.pouch-…` beside it, which can be deleted.

    Args:
        show: told how many bytes of the digest are done.

    Raises:
        PouchExists: something is there already.
    """
    if path.exists():
        raise PouchExists(f"{path} exists. A pouch is never overwritten: choose another name.")
    descriptor, name = tempfile.mkstemp(prefix=".pouch-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            file.write(MAGIC + b"0" * 64 + b"\n")
            with zipfile.ZipFile(file, "w") as archive:
                yield Writer(archive)
            digest = _digest(file, show)
            file.seek(0)
            file.write(MAGIC + digest + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)  # unlike rename, never over something that came meanwhile
        except FileExistsError as error:
            raise PouchExists(f"{path} exists. A pouch is never overwritten: choose another name.") from error
    finally:
        Path(name).unlink()


def _digest(file: BinaryIO, show: Callable[[int], None]) -> bytes:
    digest = hashlib.sha256()
    file.seek(_HEAD_BYTES)
    done = 0
    while piece := file.read(_STEP):
        digest.update(piece)
        done += len(piece)
        show(done)
    return digest.hexdigest().encode("ascii")


class Pouch:
    """A pouch opened for reading; see `opened`."""

    def __init__(self, archive: zipfile.ZipFile, digest: str) -> None:
        """Read from `archive`."""
        self._archive = archive
        self.digest = digest
        self.names: tuple[str, ...] = tuple(info.filename for info in archive.infolist())
        self._infos = {info.filename: info for info in archive.infolist()}

    def read(self, name: str, limit: int) -> bytes | None:
        """One member, or None if there is none of that name.

        Raises:
            PouchMalformed: larger than `limit` bytes when unpacked, or unreadable.
        """
        info = self._infos.get(name)
        if info is None:
            return None
        try:
            with self._archive.open(info) as member:
                content = member.read(limit + 1)
        except _UNREADABLE as error:
            raise PouchMalformed(f"{name} in the pouch cannot be read: {error}.") from error
        if len(content) > limit:
            raise PouchMalformed(f"{name} in the pouch is larger than the {limit} bytes it may have.")
        return content


@contextmanager
def opened(path: Path, show: Callable[[int], None] = lambda _: None) -> Iterator[Pouch]:
    """Open a pouch whose bytes are those that were written.

    Args:
        show: told how many bytes have been compared with the digest.

    Raises:
        PouchDamaged: no pouch, cut off, or altered.
        PouchMalformed: whole, and yet not what a pouch holds.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise PouchDamaged(f"Cannot read {path}: {error.strerror}.") from error
    with file:
        head = file.read(_HEAD_BYTES)
        if not head.startswith(MAGIC) or not head.endswith(b"\n"):
            raise PouchDamaged(f"{path} is not a pouch: it does not begin with {MAGIC.decode()!r}.")
        if _digest(file, show) != head[len(MAGIC) : -1]:
            raise PouchDamaged(
                f"{path} was cut off or altered on its way: its digest differs. Carry it again."
            )
        try:
            archive = zipfile.ZipFile(file)
        except _UNREADABLE as error:
            raise PouchMalformed(f"{path} holds no archive: {error}.") from error
        with archive:
            _check_names(archive, path)
            yield Pouch(archive, head[len(MAGIC) : -1].decode("ascii"))


def _check_names(archive: zipfile.ZipFile, path: Path) -> None:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise PouchMalformed(f"{path} has {len(infos)} members; a pouch has at most {MAX_MEMBERS}.")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if len(name) > MAX_NAME or not _NAME.fullmatch(name) or ".." in name:
            raise PouchMalformed(f"{path} holds {name[:80]!r}, which is nothing that a pouch carries.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PouchMalformed(f"{path} holds {name} in a compression that no pouch uses.")
        if name in seen:
            raise PouchMalformed(f"{path} holds {name} twice.")
        seen.add(name)


def size_of(path: Path) -> int:
    """Bytes to compare with the digest, for a progress bar; 0 if it cannot be told."""
    try:
        return max(path.stat().st_size - _HEAD_BYTES, 0)
    except OSError:
        return 0
