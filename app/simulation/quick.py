"""Sessions that spare SQLAlchemy's work for each statement: a simulated node would otherwise spend three quarters of its time there.

A statement is compiled by SQLAlchemy once for each form it has, into the text and the conversions that it would have had
anyway; from then on its values are bound and its rows read here, straight on the driver's connection. What is not a plain
statement (rows of mapped classes, lists of values, windows of rows) goes the usual way. The same seed has the same trace
with these sessions and without (`tests/simulation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler


@dataclass(frozen=True, slots=True)
class _Plain:
    """One form of a statement, ready to run.

    Attributes:
        names: bound names in the order of the text's marks, each with the conversion of its value.
        columns: conversions of a row's values, None if there is none to convert.
    """

    compiled: SQLCompiler
    text: str
    names: tuple[tuple[str, Callable[[Any], Any] | None], ...]
    columns: tuple[Callable[[Any], Any] | None, ...] | None
    metadata: SimpleResultMetaData


_FORMS: Final[dict[tuple[Any, ...], _Plain | None]] = {}
"""Form of a statement → how it runs; None if it goes the usual way. One for all databases: they have one schema."""

_BUILT: Final[dict[int, tuple[Select[Any], _Plain | None]]] = {}
"""The same by `id`, for queries that were built once and live as long as the process (`app.db.execute`); held, so that no
other statement can have the number."""


class QuickSession(Session):
    """See the module. Only for a database that lives in its one connection.

    A session made with `info={"reads": connection}` begins no transaction before a statement goes the usual way: whoever
    reads lets nobody else run meanwhile, so what it reads is a snapshot.
    """

    _raw: sqlite3.Connection | None = None

    def execute(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401 - any statement
        """Run a statement; see `Session.execute`."""
        if kwargs or not (params is None or type(params) is dict) or not _is_plain(statement, params, self):
            return super().execute(statement, params, **kwargs)
        key = statement._generate_cache_key()  # noqa: SLF001 - as the engine itself does
        if key is None:
            return super().execute(statement, params)
        try:
            plain = _FORMS[key.key]
        except KeyError:
            plain = _FORMS[key.key] = _compile(statement, key, self.get_bind().dialect)
        if plain is None:
            return super().execute(statement, params)
        return self.run(plain, plain.compiled.construct_params(params, extracted_parameters=key.bindparams))

    def run(self, plain: _Plain, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a result of rows
        """Bind, execute, read all rows."""
        if self._raw is None:
            self._raw = self.info.get("reads") or super().connection().connection.driver_connection
        bound = [values[name] if convert is None else convert(values[name]) for name, convert in plain.names]
        rows: list[Any] = self._raw.execute(plain.text, bound).fetchall()  # type: ignore[union-attr]  # set above
        if plain.columns is not None:
            rows = [_converted(row, plain.columns) for row in rows]
        return IteratorResult(plain.metadata, iter(rows))

    def connection(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as Session.connection has it
        """The connection, which runs queries that were built once as quickly."""
        if arguments or options:
            return super().connection(*arguments, **options)
        return _Line(self, super().connection)

    def scalars(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        """First column of each row; see `Session.scalars`."""
        return self.execute(statement, params, **kwargs).scalars()

    def scalar(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        """First column of the first row; see `Session.scalar`."""
        return self.execute(statement, params, **kwargs).scalar()


@dataclass(frozen=True, slots=True)
class _Line:
    """Stands for a session's connection, which is taken only when something goes the usual way."""

    session: QuickSession
    usual: Callable[[], Connection]

    def execute(self, statement: Any, values: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as Connection.execute has it
        """Run a statement; see `Connection.execute`."""
        if options or type(values) is not dict or not isinstance(statement, Select):
            return self.usual().execute(statement, values, **options)
        try:
            _, plain = _BUILT[id(statement)]
        except KeyError:
            key = statement._generate_cache_key()  # noqa: SLF001 - as the engine itself does
            plain = _compile(statement, key, self.session.get_bind().dialect)
            _BUILT[id(statement)] = statement, plain
        if plain is None:
            return self.usual().execute(statement, values)
        return self.session.run(plain, plain.compiled.construct_params(values))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the connection's own
        return getattr(self.usual(), name)


def _converted(row: Sequence[Any], columns: Sequence[Callable[[Any], Any] | None]) -> tuple[Any, ...]:
    return tuple(value if c is None else c(value) for value, c in zip(row, columns, strict=True))


def _is_plain(statement: Any, params: Any, session: Session) -> bool:  # noqa: ANN401
    if isinstance(statement, Select):
        return not statement._execution_options  # noqa: SLF001
    if isinstance(statement, Update | Delete):  # a row that is held as an object would have to be told
        return params is None and not session.identity_map
    return isinstance(statement, Insert) and params is None and not statement._propagate_attrs  # noqa: SLF001


def _compile(statement: Any, key: Any, dialect: Dialect) -> _Plain | None:  # noqa: ANN401
    if isinstance(statement, Select) and any(
        isinstance(column["type"], type) for column in statement.column_descriptions
    ):
        return None  # rows of a mapped class
    compiled = statement._compiler(dialect, cache_key=key, column_keys=[])  # noqa: SLF001 - as the engine itself does
    if compiled.post_compile_params or compiled.insert_prefetch or compiled.update_prefetch:
        return None
    processors = compiled._bind_processors  # noqa: SLF001
    names = tuple((name, processors.get(name)) for name in compiled.positiontup or ())
    if any(isinstance(convert, tuple) for _, convert in names):
        return None
    results = compiled._result_columns  # noqa: SLF001
    columns = tuple(column.type._cached_result_processor(dialect, None) for column in results)  # noqa: SLF001
    keys = [column.keyname for column in results]
    if isinstance(statement, Select):
        keys = [column["name"] for column in statement.column_descriptions]
    return _Plain(
        compiled, compiled.string, names, columns if any(columns) else None, SimpleResultMetaData(keys)
    )
