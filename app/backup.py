"""Backups: one consistent, encrypted copy of what a node cannot get back from others, restored to either engine.

A backup is two files. The *main file* holds every table but two kinds: projections, which are folded again, and the keys of
bodies. The *key file* holds those keys (`body_keys`), and only the newest one is kept: a body that was erased after a main
file was written has no key in a key file that was written after the erasure, so an old main file does not bring it back
(docs/adr/0014). The node's private keys and settings are in neither.

Guarantees: a file is one snapshot of the database, taken while the node runs. It is opened only with its passphrase, and no
byte of it can be changed, dropped, added or moved unnoticed: `read` gives nothing of a chunk that does not authenticate,
and nothing is loaded before the whole file, its manifest and every hash in it have been checked. A restored node knows
that it is one: it signs, takes and shows nothing until it is level with the other States (`app.replication.startup`).

    header    one line of canonical JSON: format, kind, scrypt's salt and costs
    chunks    AES-256-GCM over 64 KiB each (the last may be shorter): u32be length ‖ ciphertext ‖ tag;
              nonce = u88be number ‖ 01 if it is the last, else 00; associated data = SHA-256 of the header
    inside    zlib over lines of JSON: {"table", "columns"}, rows as lists, {"end", "rows", "sha256"}, …, {"manifest"}

The key is scrypt(passphrase, salt); after "STREAM" (Hoang, Reyhanitabar, Rogaway, Vizár 2015), as age does it.
"""

from __future__ import annotations

import os
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import scrypt, sha256
from typing import IO, TYPE_CHECKING, Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import MetaData, Table, func, insert, inspect, select, text, update

from app import migrations
from app.domain.errors import Malformed, NodeFault
from app.domain.json import canonical
from app.models import Base, LogRow, WatchRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy.orm import Session

    from app.db import Database

FORMAT: Final = "verbale/backup/v1"
MAIN, KEYS = "main", "body-keys"
PROJECTIONS: Final = frozenset({"entries", "notices", "notice_terms", "screened_notices"})
KEY_TABLES: Final = frozenset({"body_keys"})
NOT_KEPT: Final = frozenset({"nonces"})
"""Nonces count for five minutes."""

CHUNK: Final = 64 * 2**10
TAG: Final = 16
MAX_HEADER: Final = 4096
SCRYPT: Final = {"n": 2**16, "r": 8, "p": 1}
"""64 MiB and about a quarter of a second: RFC 7914's parameters for files, doubled since."""
MAX_SCRYPT_N: Final = 2**20
ROWS_AT_ONCE: Final = 500
MIN_PASSPHRASE: Final = 12


class BackupRefused(Malformed):
    """The file is no backup, was changed or cut off, or the passphrase is another one. Nothing was written."""

    code = "backup-refused"


class NotEmpty(NodeFault):
    """The database to restore into holds something already."""

    code = "database-not-empty"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file holds.

    Attributes:
        revision: of the schema.
        size, head_size, head_root: of the own log; the root is hex.
        created_at: unix ms.
        tables: name → (rows, SHA-256 of their lines, hex).
    """

    kind: str
    origin: str
    state: str
    revision: str
    size: int
    head_size: int
    head_root: str | None
    created_at: int
    tables: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "origin": self.origin,
            "state": self.state,
            "revision": self.revision,
            "size": self.size,
            "head_size": self.head_size,
            "head_root": self.head_root,
            "created_at": self.created_at,
            "tables": {
                name: {"rows": rows, "sha256": digest} for name, (rows, digest) in self.tables.items()
            },
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Manifest:
        """From JSON that was authenticated. Raises BackupRefused."""
        try:
            tables = {name: (int(t["rows"]), str(t["sha256"])) for name, t in value["tables"].items()}
            named = {
                n: value[n]
                for n in (
                    "kind",
                    "origin",
                    "state",
                    "revision",
                    "size",
                    "head_size",
                    "head_root",
                    "created_at",
                )
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise BackupRefused(f"The manifest lacks {error}.") from error
        return cls(**named, tables=tables)


# ── the envelope ──────────────────────────────────────────────────────────────────────────────────────────────────


class Passphrase:
    """A passphrase, and the keys that were derived from it: files are read twice, and a derivation is meant to be slow."""

    def __init__(self, text: bytes) -> None:
        """Take its bytes.

        Raises:
            BackupRefused: it is too short to protect anything.
        """
        if len(text) < MIN_PASSPHRASE:
            raise BackupRefused(
                f"The passphrase has {len(text)} bytes; use at least {MIN_PASSPHRASE}, better a line of random ones."
            )
        self._text, self._derived = text, dict[tuple[bytes, int], bytes]()

    def key(self, header: Mapping[str, Any]) -> bytes:
        """The key of a file with this header. Raises BackupRefused."""
        try:
            salt, costs = b64decode(header["salt"], validate=True), header["scrypt"]
            n, r, p = (costs[name] for name in ("n", "r", "p"))
            known = type(n) is type(r) is type(p) is int and 2**14 <= n <= MAX_SCRYPT_N and r == 8 and p == 1  # noqa: PLR2004
            if known and (salt, n) not in self._derived:
                self._derived[salt, n] = scrypt(
                    self._text, salt=salt, n=n, r=r, p=p, maxmem=2**31 - 1, dklen=32
                )
        except (KeyError, TypeError, ValueError) as error:
            raise BackupRefused("The header of the backup is damaged.") from error
        if not known:
            raise BackupRefused("The header asks for costs that this version does not take.")
        return self._derived[salt, n]


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


class _Writer:
    """Encrypts what is written, chunk by chunk. Only `close` makes the file whole."""

    def __init__(self, file: IO[bytes], kind: str, passphrase: Passphrase) -> None:
        header = {
            "format": FORMAT,
            "kind": kind,
            "salt": b64encode(os.urandom(32)).decode(),
            "scrypt": dict(SCRYPT),
        }
        raw = canonical(header) + b"\n"
        self._file, self._aad, self._seal = file, sha256(raw).digest(), AESGCM(passphrase.key(header))
        self._pending, self._number = bytearray(), 0
        self._deflate = zlib.compressobj(6)
        file.write(raw)

    def write(self, data: bytes) -> None:
        self._pending += self._deflate.compress(data)
        while len(self._pending) > CHUNK:
            self._emit(bytes(self._pending[:CHUNK]), last=False)
            del self._pending[:CHUNK]

    def close(self) -> None:
        self._pending += self._deflate.flush()
        while len(self._pending) > CHUNK:
            self._emit(bytes(self._pending[:CHUNK]), last=False)
            del self._pending[:CHUNK]
        self._emit(bytes(self._pending), last=True)

    def _emit(self, plain: bytes, *, last: bool) -> None:
        sealed = self._seal.encrypt(_nonce(self._number, last=last), plain, self._aad)
        self._file.write(len(sealed).to_bytes(4, "big") + sealed)
        self._number += 1


def _chunks(file: IO[bytes], kind: str, passphrase: Passphrase) -> Iterator[bytes]:
    """The authenticated plaintext, chunk by chunk; raises BackupRefused unless the last one is the last of the file."""
    raw = file.readline(MAX_HEADER)
    try:
        header = orjson.loads(raw)
        if not isinstance(header, dict) or canonical(header) + b"\n" != raw:
            raise BackupRefused("This is no backup, or its header is damaged.")
    except orjson.JSONDecodeError as error:
        raise BackupRefused("This is no backup, or its header is damaged.") from error
    if header.get("format") != FORMAT or header.get("kind") != kind:
        raise BackupRefused(
            f"This is no {FORMAT} file of kind {kind}; it says {header.get('format')!r}, {header.get('kind')!r}."
        )
    unseal, aad, number = AESGCM(passphrase.key(header)), sha256(raw).digest(), 0
    ahead = _sealed(file)
    while ahead is not None:
        sealed, ahead = ahead, _sealed(file)
        try:
            yield unseal.decrypt(_nonce(number, last=ahead is None), sealed, aad)
        except InvalidTag as error:
            where = (
                "The passphrase is another one, or the header was changed"
                if number == 0
                else f"Chunk {number} was changed, or the file was cut off"
            )
            raise BackupRefused(f"{where}.") from error
        number += 1
    if number == 0:
        raise BackupRefused("The backup is cut off after its header.")


def _sealed(file: IO[bytes]) -> bytes | None:
    """The next sealed chunk, or None at the end of the file."""
    prefix = file.read(4)
    if not prefix:
        return None
    length = int.from_bytes(prefix, "big")
    if len(prefix) != 4 or not TAG <= length <= CHUNK + TAG:  # noqa: PLR2004 - u32
        raise BackupRefused("The backup is damaged: a chunk has an impossible length.")
    sealed = file.read(length)
    if len(sealed) != length:
        raise BackupRefused("The backup is cut off within a chunk.")
    return sealed


def _lines(file: IO[bytes], kind: str, passphrase: Passphrase) -> Iterator[bytes]:
    inflate, rest = zlib.decompressobj(), b""
    for chunk in _chunks(file, kind, passphrase):
        try:
            rest += inflate.decompress(chunk)
        except zlib.error as error:
            raise BackupRefused("The backup does not decompress.") from error
        *whole, rest = rest.split(b"\n")
        yield from whole
    if rest or not inflate.eof or inflate.unused_data:
        raise BackupRefused("The backup ends in the middle.")


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tables(kind: str) -> list[Table]:
    """The tables of a file, in an order in which every row's references come before it."""
    left_out = PROJECTIONS | NOT_KEPT
    return [
        table
        for table in Base.metadata.sorted_tables
        if table.name not in left_out and (table.name in KEY_TABLES) == (kind == KEYS)
    ]


def write(
    db: Database, path: Path, kind: str, passphrase: Passphrase, *, now: int, revision: str
) -> Manifest:
    """Write one file, whole or not at all, from one snapshot of the database. The node may run.

    Args:
        path: replaced if it exists.
        now: unix ms.
        revision: the schema's.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            writer = _Writer(file, kind, passphrase)
            with db.read() as session:
                manifest = _write_tables(session, writer, kind, now, revision)
            writer.write(canonical({"manifest": manifest.to_dict()}) + b"\n")
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _write_tables(session: Session, writer: _Writer, kind: str, now: int, revision: str) -> Manifest:
    own = session.execute(
        select(LogRow.origin, LogRow.state, LogRow.size, LogRow.head_size, LogRow.head_root).where(
            LogRow.is_own
        )
    ).one()
    found: dict[str, tuple[int, str]] = {}
    for table in tables(kind):
        names = [column.name for column in table.columns]
        writer.write(canonical({"table": table.name, "columns": names}) + b"\n")
        rows, digest = 0, sha256()
        result = session.execute(
            select(table).order_by(*table.primary_key.columns), execution_options={"yield_per": ROWS_AT_ONCE}
        )
        for row in result:
            line = orjson.dumps([_plain(value) for value in row]) + b"\n"
            digest.update(line)
            writer.write(line)
            rows += 1
        found[table.name] = (rows, digest.hexdigest())
        writer.write(canonical({"end": table.name, "rows": rows, "sha256": digest.hexdigest()}) + b"\n")
    root = None if own.head_root is None else bytes(own.head_root).hex()
    return Manifest(kind, own.origin, own.state, revision, own.size, own.head_size, root, now, found)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a driver gives
    """A value as JSON: bytes become {"b": base64}; all else is text, a number, a truth value or null."""
    return {"b": b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def _value(value: Any) -> Any:  # noqa: ANN401 - see `_plain`
    return b64decode(value["b"]) if isinstance(value, dict) else value


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


Row = tuple[str, list[str], list[Any]]
"""Table, its columns, one row's values."""


def read(
    path: Path, kind: str, passphrase: Passphrase, take: Callable[[Row], None] = lambda _row: None
) -> Manifest:
    """Read a whole file and check everything in it.

    Args:
        take: given every row, as it comes: before the file's end is known to be whole. Whoever writes somewhere reads
            twice, the first time without it.

    Raises:
        BackupRefused
    """
    with path.open("rb") as file:
        return _read(_lines(file, kind, passphrase), take)


def _read(lines: Iterable[bytes], take: Callable[[Row], None]) -> Manifest:
    found: dict[str, tuple[int, str]] = {}
    manifest: Manifest | None = None
    name, columns, rows, digest = "", list[str](), 0, sha256()
    for line in lines:
        if manifest is not None:
            raise BackupRefused("Something follows the manifest.")
        value = orjson.loads(line)
        if isinstance(value, list) and name:
            digest.update(line + b"\n")
            rows += 1
            take((name, columns, [_value(one) for one in value]))
        elif isinstance(value, dict) and "table" in value and not name:
            name, columns, rows, digest = value["table"], value["columns"], 0, sha256()
        elif isinstance(value, dict) and value.get("end") == name and name:
            found[name] = (rows, digest.hexdigest())
            if (value["rows"], value["sha256"]) != found[name]:
                raise BackupRefused(f"The rows of {name} are not those that were written.")
            name = ""
        elif isinstance(value, dict) and "manifest" in value and not name:
            manifest = Manifest.from_dict(value["manifest"])
        else:
            raise BackupRefused("The backup has lines that no backup has.")
    if manifest is None or manifest.tables != found:
        raise BackupRefused("The manifest is missing, or is not that of these tables.")
    return manifest


def restore(
    db: Database, main: Path, keys: Path | None, passphrase: Passphrase, *, origin: str, now: int
) -> Manifest:
    """Load a backup into an empty database of either engine, in one transaction.

    What was restored is marked so: nothing of it is signed, taken or shown before the node is level with the others.

    Args:
        keys: the newest key file; without it no body can be opened, and all are asked for again.
        origin: of the node that is restored.
        now: unix ms.

    Raises:
        BackupRefused: a file does not verify, or is another node's; nothing was written.
        NotEmpty: the database holds tables already.
    """
    manifest = read(main, MAIN, passphrase)
    if manifest.origin != origin:
        raise BackupRefused(f"This is the backup of {manifest.origin}, and the settings are of {origin}.")
    if keys is not None and read(keys, KEYS, passphrase).origin != origin:
        raise BackupRefused("The key file is another node's.")
    if inspect(db.engine).get_table_names():
        raise NotEmpty(
            "The database holds tables already. Restore into an empty one; nothing is ever overwritten."
        )
    migrations.upgrade(db, manifest.revision)  # as it was then; it is brought up to date below
    there = MetaData()
    there.reflect(db.engine)
    with db.write() as session:
        loader = _Loader(session, there)
        read(main, MAIN, passphrase, loader.take)
        loader.flush()
        if keys is not None:
            sealed = _with_bodies(session, there)
            read(keys, KEYS, passphrase, lambda row: loader.take(row) if _belongs(row, sealed) else None)
            loader.flush()
        _after(session, db, there)
    migrations.upgrade(db)
    with db.write() as session:
        mark_restored(db, session, now)
    return manifest


class _Loader:
    """Inserts rows, some hundreds at a time."""

    def __init__(self, session: Session, there: MetaData) -> None:
        self._session, self._there = session, there
        self._name, self._rows = "", list[dict[str, Any]]()

    def take(self, row: Row) -> None:
        name, columns, values = row
        if name != self._name or len(self._rows) >= ROWS_AT_ONCE:
            self.flush()
            self._name = name
        self._rows.append(dict(zip(columns, values, strict=True)))

    def flush(self) -> None:
        if self._rows:
            self._session.execute(insert(self._there.tables[self._name]), self._rows)
        self._rows = []


def _with_bodies(session: Session, there: MetaData) -> set[tuple[int, int]]:
    bodies = there.tables["bodies"]
    return {
        (log_id, idx) for log_id, idx in session.execute(select(bodies.c.log_id, bodies.c.idx).distinct())
    }


def _belongs(row: Row, sealed: set[tuple[int, int]]) -> bool:
    """Whether a key has its body in the main file: a newer key file holds keys of bodies that came later."""
    _, columns, values = row
    named = dict(zip(columns, values, strict=True))
    return (named["log_id"], named["idx"]) in sealed


def _after(session: Session, db: Database, there: MetaData) -> None:
    """Bodies without a key are gone; PostgreSQL's own counters go on from the largest number loaded."""
    bodies, keys = there.tables["bodies"], there.tables["body_keys"]
    held = select(keys.c.idx).where(keys.c.log_id == bodies.c.log_id, keys.c.idx == bodies.c.idx)
    session.execute(bodies.delete().where(~held.exists()))
    if db.is_sqlite:
        return
    for table in there.tables.values():
        for column in table.primary_key.columns:
            sequence = session.execute(
                text("SELECT pg_get_serial_sequence(:table, :column)"),
                {"table": table.name, "column": column.name},
            ).scalar_one()
            if sequence is not None:
                largest = session.execute(select(func.max(column))).scalar_one()
                if largest is not None:
                    session.execute(
                        text("SELECT setval(:sequence, :largest)"), {"sequence": sequence, "largest": largest}
                    )


def mark_restored(db: Database, session: Session, now: int) -> None:
    """Say of every log that it came from a backup, and close the own one."""
    for log_id, is_own in session.execute(select(LogRow.id, LogRow.is_own)).all():
        session.execute(
            db.insert_ignore(WatchRow.__table__).values(log_id=log_id, served_size=0, shown_size=0)
        )
        values = {"restored_at": now, "closed_at": now} if is_own else {"restored_at": now}
        session.execute(update(WatchRow).where(WatchRow.log_id == log_id).values(values))
