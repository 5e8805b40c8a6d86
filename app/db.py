"""The database: one code path on SQLite and PostgreSQL, and every dialect difference of the project in this file.

Guarantees: `write()` is one transaction that is durable when the block has ended (SQLite: WAL with synchronous=FULL;
PostgreSQL: synchronous commit), and `read()` never waits for a writer. Leaves to others: what is written.

SQLite allows one writer. Threads of one process queue on a lock of ours, which is fair and costs microseconds, instead of
in SQLite's busy handler, which sleeps; processes that share a file meet in the busy handler. Behind the lock one connection writes,
and those that read are others.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    Executable,
    String,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from app.models import CounterRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, CursorResult, Dialect, Engine, FromClause, Select
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.orm.attributes import InstrumentedAttribute
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.sql.dml import Insert
    from sqlalchemy.types import TypeEngine

T = TypeVar("T")
S = TypeVar("S", bound=Executable)
P = ParamSpec("P")

BUSY_TIMEOUT_MS = 30_000
"""How long a process waits for another process's write transaction on one SQLite file."""

MIGRATION_LOCK = 7_236_110
"""PostgreSQL advisory lock: two processes that start at once migrate one after the other."""

MOST_STATEMENTS = 1_000
"""Statements that are kept built; with more than that all are built anew."""

_NEW = re.compile(r"\bnew\.(\w+)")

SQLITE_VARIABLES = 30_000
"""Below SQLite's default limit of 32,766 bound variables; `IN` lists are cut to it."""

ROWS_AT_ONCE = 32
"""Rows of one INSERT on SQLite."""

READING_KIB = 2_000
"""Pages that a connection for reading keeps on SQLite: there may be sixty of them, and the system has the file in memory anyway."""

WRITING_KIB = 8_000
"""The same of the one that writes: what a transaction changes stays there until it is committed."""


class Database:
    """Two kinds of session, and their engines: on SQLite one each, else they share one.

    Args:
        url: SQLAlchemy URL: `sqlite:///path` or `postgresql+psycopg://…` (several hosts allowed, libpq syntax).
    """

    def __init__(self, url: str, *, pool_size: int = 20, engine: Engine | None = None) -> None:
        """Open nothing yet; the first session connects.

        Args:
            url: see the class.
            pool_size: connections kept open.
            engine: brought along, for a database in memory, which lives in its one connection: then no two transactions
                may be open at once, and whoever calls sees to that.
        """
        self.url: URL = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.Lock() if self.is_sqlite else None
        self._statements: dict[Any, Any] = {}
        self._marker: sqlite3.Connection | None = None
        self._marking = threading.Lock()
        self.engine: Engine
        self.write_engine: Engine
        if engine is not None:
            self.engine = self.write_engine = engine
            if self.is_sqlite:
                _listen_sqlite(engine, WRITING_KIB)
        else:
            self.engine = self._connected(pool_size, 40, READING_KIB)
            # SQLite throws away what a connection has cached as soon as another one writes. So one alone does, and keeps its pages.
            self.write_engine = self._connected(1, 0, WRITING_KIB) if self.is_sqlite else self.engine
        self._write_sessions = sessionmaker(
            self.write_engine.execution_options(verbale_write=True), autoflush=False, expire_on_commit=False
        )
        options: dict[str, Any] = {"verbale_write": False}
        if not self.is_sqlite:
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._read_sessions = sessionmaker(self.engine.execution_options(**options), autoflush=False)

    def _connected(self, pool_size: int, overflow: int, cache_kib: int) -> Engine:
        engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=overflow,
            pool_use_lifo=True,  # who comes next gets the connection whose pages are warm
            pool_pre_ping=not self.is_sqlite,
            hide_parameters=True,  # an error's message must not carry a body or a party's name into a log
        )
        if self.is_sqlite:
            _listen_sqlite(engine, cache_kib)
        return engine

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction: committed when the block ends, rolled back when it raises.

        A crash before the commit leaves nothing of it behind. No network call, no sleep inside: others wait.
        """
        if self._writer is not None:
            with self._writer, self._write_sessions.begin() as session:
                yield session
        else:
            with self._write_sessions.begin() as session:
                yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent snapshot for reading; it never commits."""
        with self._read_sessions() as session:
            yield session

    def insert_ignore(self, table: FromClause) -> Insert:
        """An INSERT that skips rows whose key exists (`ON CONFLICT DO NOTHING`)."""
        insert: Insert | None = self._statements.get(table)
        if insert is None:
            new: Any = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)  # type: ignore[arg-type]  # a mapped class's __table__
            insert = self._statements[table] = new.on_conflict_do_nothing()
        return insert

    def upsert(self, table: FromClause, key: Sequence[str], changed: Sequence[str]) -> Insert:
        """An INSERT that updates the columns `changed` where the key exists."""
        wanted = (table, *key, None, *changed)
        result: Insert | None = self._statements.get(wanted)
        if result is None:
            insert: Any = sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)  # type: ignore[arg-type]
            result = self._statements[wanted] = insert.on_conflict_do_update(
                index_elements=list(key), set_={name: insert.excluded[name] for name in changed}
            )
        return result

    def bulk_insert(
        self, session: Session, table: FromClause, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert many rows through the driver: COPY on PostgreSQL, executemany on SQLite.

        This is the append path's inner loop; SQLAlchemy's per-row work would be most of its cost. Values must be what the
        driver takes: int, str, bytes, bool, None.
        """
        if not rows:
            return
        name = table.name  # type: ignore[attr-defined]  # every table of ours has one
        names = ", ".join(f'"{c}"' for c in columns)
        cursor = session.connection().connection.cursor()
        try:
            if self.is_sqlite:
                into = f'INSERT INTO "{name}" ({names}) VALUES '  # noqa: S608 - our own names
                self._insert(cursor, into, len(columns), rows)
            else:
                with cursor.copy(f'COPY "{name}" ({names}) FROM STDIN') as copy:
                    for row in rows:
                        copy.write_row(row)
        finally:
            cursor.close()

    @staticmethod
    def _insert(cursor: Any, into: str, width: int, rows: Sequence[Sequence[Any]]) -> None:  # noqa: ANN401 - a driver cursor
        """SQLite, some rows a statement: the driver gives up Python's lock at each, and where threads want it, it is a while before it
        has it again.
        """
        marks = f"({', '.join('?' * width)})"
        many = into + ", ".join([marks] * ROWS_AT_ONCE)
        whole = len(rows) - len(rows) % ROWS_AT_ONCE
        for at in range(0, whole, ROWS_AT_ONCE):
            cursor.execute(many, list(chain.from_iterable(rows[at : at + ROWS_AT_ONCE])))
        cursor.executemany(into + marks, rows[whole:])

    def bulk_update(
        self,
        session: Session,
        table: FromClause,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        where: str,
    ) -> None:
        """Change many rows, each to values of its own, in one go through the driver.

        Args:
            columns: names; in `where` they stand for a row's values as `new.name`, and those that begin with `_` are only
                for that. The others are set.
            rows: values in the order of `columns`.
            where: condition with `old` for the table: our own text, never anybody's input.
        """
        if not rows:
            return
        name = table.name  # type: ignore[attr-defined]  # every table of ours has one
        cursor = session.connection().connection.cursor()
        try:
            if self.is_sqlite:
                # One statement run for each row: through `json_each` a row costs twice as much.
                place = {c: f"?{n}" for n, c in enumerate(columns, 1)}
                setting = ", ".join(f'"{c}" = {place[c]}' for c in columns if not c.startswith("_"))
                where = _NEW.sub(lambda found: place[found[1]], where)
                cursor.executemany(f'UPDATE "{name}" AS old SET {setting} WHERE {where}', rows)  # noqa: S608 - our own names
            else:
                types = {c.name: c.type.compile(self.engine.dialect) for c in table.columns}
                arrays = ", ".join(f"%s::{types[c.removeprefix('_')]}[]" for c in columns)
                setting = ", ".join(f'"{c}" = new."{c}"' for c in columns if not c.startswith("_"))
                named = ", ".join(f'"{c}"' for c in columns)
                cursor.execute(
                    f'UPDATE "{name}" AS old SET {setting} FROM unnest({arrays}) AS new({named}) WHERE {where}',  # noqa: S608 - our own names
                    [list(column) for column in zip(*rows, strict=True)],
                )
        finally:
            cursor.close()

    def once(self, make: Callable[Concatenate[Database, P], S], *arguments: P.args, **named: P.kwargs) -> S:
        """The statement that `make` builds for this database and these arguments, built once: see `execute`."""
        wanted = (make, arguments, *named.items())
        statement: S | None = self._statements.get(wanted)
        if statement is None:
            if len(self._statements) >= MOST_STATEMENTS:  # arguments may be callers, and those come and go
                self._statements.clear()
            statement = self._statements[wanted] = make(self, *arguments, **named)
        return statement

    def any_of(self, column: InstrumentedAttribute[Any], values: Sequence[str]) -> ColumnElement[bool]:
        """Whether a text column has one of many values: one bound value however many there are, and one cached statement."""
        return self._any(column, None, value=self.bound(values))

    def any_bound(self, column: Any, name: str, type_: type[TypeEngine[Any]] = String) -> ColumnElement[bool]:  # noqa: ANN401 - a column
        """The same of the values bound to `name` when the statement is executed: see `bound`.

        Args:
            type_: of the values: text, or whole numbers.
        """
        return self._any(column, name, type_)

    def bound(self, values: Sequence[T]) -> str | list[T]:
        """Values for `any_bound`."""
        return json.dumps(values) if self.is_sqlite else list(values)

    def _any(
        self,
        column: Any,  # noqa: ANN401 - a column
        name: str | None,
        type_: type[TypeEngine[Any]] = String,
        **value: Any,  # noqa: ANN401 - a bound value
    ) -> ColumnElement[bool]:
        if self.is_sqlite:
            each = func.json_each(bindparam(name, type_=String, **value)).table_valued("value")
            found: ColumnElement[bool] = column.in_(select(each.c.value))
        else:
            found = column == any_(bindparam(name, type_=postgresql.ARRAY(type_), **value))
        return found

    def skip_locked(self) -> dict[str, Any]:
        """Arguments for `with_for_update` that let several workers claim rows; SQLite's single writer needs none."""
        return {"skip_locked": True}

    def next_values(self, session: Session, counter: str, count: int) -> int:
        """Take `count` consecutive numbers; return the first.

        The counter's row stays locked until commit, so numbers become visible in order: a reader that has seen n has seen
        everything below n. Take them late in a transaction.
        """
        taken = execute(session, _NEXT_VALUES, counter=counter, count=count).scalar_one_or_none()
        if taken is None:
            session.execute(self.insert_ignore(CounterRow.__table__).values(name=counter, value=0))
            return self.next_values(session, counter, count)
        return int(taken) - count + 1

    def count(self, session: Session, added: Mapping[str, int]) -> None:
        """Add to counters, making those that are new; their rows stay locked until commit."""
        if not added:
            return
        # In one order: two transactions must not wait for each other in a ring.
        rows = [{"name": name, "value": added[name]} for name in sorted(added)]
        session.connection().execute(self.once(_count), rows)

    def mark(self) -> object | None:
        """Something that differs after every commit, whoever makes it, in microseconds; None: it cannot be had.

        SQLite counts commits in the memory that all processes share (`PRAGMA data_version`), and does so when what was
        committed can be read. Its files tell too early: they have changed while a commit is still being made durable.
        """
        if not self.is_sqlite or not self.url.database:
            return None
        with self._marking:
            try:
                if self._marker is None:
                    self._marker = sqlite3.connect(  # of its own: a connection does not count its own commits
                        f"file:{quote(self.url.database)}?mode=rw",
                        uri=True,
                        isolation_level=None,
                        check_same_thread=False,
                    )
                ((commits,),) = self._marker.execute("PRAGMA data_version").fetchall()
            except sqlite3.Error:
                return None
            return int(commits)

    def size_bytes(self) -> int | None:
        """Bytes on disk, or None when the server does not tell."""
        if self.is_sqlite:
            path = Path(self.url.database or "")
            return sum(p.stat().st_size for p in (path, path.with_name(path.name + "-wal")) if p.exists())
        with self.read() as session:
            return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def scrub(self, tables: Sequence[str]) -> bool:
        """After an erasure: give up the last copies of what was deleted from `tables`. Returns whether all of them are gone.

        SQLite: pages in the file were overwritten at the deletion; the write-ahead log that still holds old ones is copied
        into the file and cut to nothing, which must wait (False) while a reader needs it. PostgreSQL: VACUUM frees the dead
        rows, and what is freed is overwritten when the space is used again. Neither reaches below the file system.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if self.is_sqlite:
                with self._writer or nullcontext():
                    cursor = connection.connection.cursor()
                    busy, in_log, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    cursor.close()
                return not busy and in_log <= 0
            for table in tables:
                connection.exec_driver_sql(f'VACUUM "{table}"')
            return True

    def give_back(self) -> None:
        """Have the connection that writes free the pages it keeps, on SQLite; a transaction under way is waited for."""
        if self._writer is None or self.write_engine is self.engine:
            return
        with self._writer, self.write_engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA shrink_memory").close()

    def dispose(self) -> None:
        """Close all connections: those at rest now, and each that a thread still uses when that gives it back."""
        with self._marking:
            marker, self._marker = self._marker, None
            if marker is not None:
                marker.close()
        for engine in {self.engine, self.write_engine}:
            pool = engine.pool
            engine.dispose()
            # What comes back later would lie in a pool that nobody has any more, and stay open until it is collected.
            event.listen(pool, "checkin", _close_late)
            pool.dispose()


def _close_late(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    if connection is not None:
        record.invalidate()


def execute(session: Session, statement: Executable, **values: Any) -> CursorResult[*tuple[Any, ...]]:  # noqa: ANN401 - bound values
    """Execute a statement that was built once, when its module was imported, with the values of this time.

    For what runs at every notice: building a statement out of mapped attributes and passing it through the session costs
    several times what SQLite takes to execute it. Such statements are over `__table__`, and their values are bound by name.
    """
    return session.connection().execute(statement, values)


def fetch(session: Session, statement: Select[*tuple[Any, ...]], **values: Any) -> list[Any]:  # noqa: ANN401 - bound values
    """All rows of a SELECT that was built once, as named tuples, straight from the driver.

    For what a caller waits for and what is asked a thousand times over: SQLAlchemy's own way from statement to rows costs ten
    times what SQLite takes to find a few of them. The text, the types of values and of columns are SQLAlchemy's. The
    statement must be kept by whoever built it, and its lists be spelled out: one that is expanded when executed is refused.
    """
    connection = session.connection()
    ready = _ready(statement, connection.dialect)
    cursor = connection.connection.cursor()
    bound = ready.bound(values)
    try:
        for hears in connection.dispatch.before_cursor_execute:  # as of every other statement
            hears(connection, cursor, ready.text, bound, None, False)
        cursor.execute(ready.text, bound)
        rows = cursor.fetchall()
    finally:
        cursor.close()
    if ready.processors:
        return [ready.row(*_processed(row, ready.processors)) for row in rows]
    return [ready.row(*row) for row in rows]


class _Ready(NamedTuple):
    """A statement as the driver takes it.

    Attributes:
        names: of its values, in the order of their places; None: the driver takes them by name.
        given: those that are in the statement itself.
        processors: (place, function) of the columns whose type is not the driver's.
    """

    text: str
    names: tuple[str, ...] | None
    given: dict[str, Any]
    row: Callable[..., Any]
    processors: tuple[tuple[int, Callable[[Any], Any]], ...]

    def bound(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what a driver takes
        every = {**self.given, **values}
        return every if self.names is None else tuple([every[name] for name in self.names])


@lru_cache(maxsize=1024)
def _ready(statement: Select[*tuple[Any, ...]], dialect: Dialect) -> _Ready:
    compiled: Any = statement.compile(dialect=dialect)
    if compiled.post_compile_params or compiled.literal_execute_params:
        raise TypeError("a statement for `fetch` has a list that is expanded only when it is executed")
    columns = list(statement.selected_columns)
    made = ((n, c.type.dialect_impl(dialect).result_processor(dialect, None)) for n, c in enumerate(columns))
    row = NamedTuple("Row", [(column.key, Any) for column in columns])  # type: ignore[misc]  # its members are the columns
    given = {
        name: value
        for name, value in compiled.construct_params(_check=False).items()
        if not compiled.binds[name].required
    }
    names = tuple(compiled.positiontup) if compiled.positional else None
    return _Ready(compiled.string, names, given, row, tuple((n, how) for n, how in made if how is not None))


def _processed(row: Sequence[Any], processors: Iterable[tuple[int, Callable[[Any], Any]]]) -> list[Any]:
    values = list(row)
    for place, process in processors:
        values[place] = process(values[place])
    return values


_COUNTERS = CounterRow.__table__.c
_NEXT_VALUES = (
    update(CounterRow.__table__)  # type: ignore[arg-type]  # a mapped class's __table__
    .where(_COUNTERS.name == bindparam("counter"))
    .values(value=_COUNTERS.value + bindparam("count"))
    .returning(_COUNTERS.value)
)


def _count(db: Database) -> Insert:
    table = CounterRow.__table__
    new: Any = sqlite.insert(table) if db.is_sqlite else postgresql.insert(table)  # type: ignore[arg-type]  # a mapped class's __table__
    counted: Insert = new.on_conflict_do_update(
        index_elements=["name"], set_={"value": _COUNTERS.value + new.excluded.value}
    )
    return counted


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Cut a sequence into runs of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _listen_sqlite(engine: Engine, cache_kib: int) -> None:
    event.listen(engine, "connect", partial(_configure_sqlite, cache_kib))
    event.listen(engine, "begin", _begin_sqlite)


def _configure_sqlite(cache_kib: int, connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver connection
    connection.isolation_level = None  # the driver must not begin transactions on its own: we say BEGIN below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # 201 means durable, power loss included
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute(f"PRAGMA cache_size = -{cache_kib}")
    # A checkpoint copies changed pages into the file: with the default of 4 MB that is most of what a long batch does.
    cursor.execute("PRAGMA wal_autocheckpoint = 8000")
    cursor.execute("PRAGMA temp_store = MEMORY")
    # What is deleted is overwritten with zeros, in pages that go on being used as well as in free ones: an erased notice
    # must not be legible in the file. The write-ahead log is emptied by `scrub`.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:  # noqa: ANN401 - an SQLAlchemy connection
    # A transaction that starts as a reader and then writes can fail with "database is locked" at once: a write
    # transaction says so from the start.
    writes = connection.get_execution_options().get("verbale_write", True)
    connection.connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
