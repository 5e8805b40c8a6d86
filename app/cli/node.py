"""`verbale node`, `serve`, `worker`, `health`: a node's beginning and its processes."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, print_json
from app.domain.errors import NodeFault, PeerFault, UnsafeSettings
from app.process import begin_process

if TYPE_CHECKING:
    from types import FrameType

    from app.settings import Settings

log: Final = logging.getLogger("verbale")

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a node, or look at its settings.")

HEALTH_TIMEOUT_S: Final = 4.0
BACKLOG: Final = 2048
EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where "every address" is reached from here


class AddressInUse(NodeFault):
    """The node cannot listen where its settings say."""

    code = "address-in-use"


class NotAlive(PeerFault):
    """The node does not answer."""

    code = "not-alive"


# ── beginning ─────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def init(
    directory: Annotated[Path, typer.Option("--dir", help="The node's folder; made if missing.")],
    state: Annotated[str, typer.Option(help="Alpha-2 code of the State.")],
    origin: Annotated[str, typer.Option(help="The log's name for ever, like ee.example/log/1.")],
    public_url: Annotated[str, typer.Option(help="Where peers reach the node; no trailing slash.")],
    database_url: Annotated[
        str,
        typer.Option(envvar="VERBALE_DATABASE_URL", help="SQLAlchemy URL; by default SQLite in the folder."),
    ] = "",
    listen_host: Annotated[
        str | None, typer.Option(help="Address to listen on; by default loopback.")
    ] = None,
    listen_port: Annotated[int | None, typer.Option(help="Port to listen on; by default 8480.")] = None,
    roster_source: Annotated[
        list[str] | None,
        typer.Option(help="Where the roster comes from: a URL ending in /roster, or a folder; repeat."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as NAME=VALUE in TOML; repeat.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a node: folder, keys, settings file, database, and the beginning of its log.

    A log begins only here: a node that finds none in its database refuses to start.
    """
    from app.keyfiles import fingerprint  # noqa: PLC0415 - see `app.cli`
    from app.setup import SETTINGS_FILE, init_node, node_cards  # noqa: PLC0415

    values: dict[str, object] = {"state": state, "origin": origin, "public_url": public_url}
    values |= {"database_url": database_url} if database_url else {}
    values |= {"listen_host": listen_host} if listen_host is not None else {}
    values |= {"listen_port": listen_port} if listen_port is not None else {}
    values |= {"roster_sources": _sources(roster_source)} if roster_source else {}
    values |= dict(_setting(text) for text in setting or [])
    settings = init_node(directory, values)
    cards = node_cards(settings)
    file = settings.data_dir / SETTINGS_FILE
    if as_json:
        listed = [{**card.to_dict(), "fingerprint": fingerprint(card.key)} for card in cards]
        print_json(
            {"settings": str(file), "state": settings.state, "origin": settings.origin, "cards": listed}
        )
        return
    print(f"{file}: node of {settings.state} with the log {settings.origin}, size 0.")
    for card in cards:
        print(f"  {card.kid:<18} {fingerprint(card.key)}")
    for line in _next_steps(settings, file):
        print(line)


@app.command()
def vouch(
    size: Annotated[
        int,
        typer.Option("--size", min=0, help="Leaves of this log that the other States say they hold at most."),
    ],
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Let the start-up gate open without the witnesses that cannot be reached, once.

    Ask the other States by telephone how many leaves of this node's log they hold. The gate opens only if that is what this
    node holds, and a witness that answers and has more still keeps it closed.
    """
    from sqlalchemy import select  # noqa: PLC0415 - see `app.cli`

    from app.cli.common import open_database  # noqa: PLC0415
    from app.models import LogRow  # noqa: PLC0415
    from app.replication.forks import watch_log  # noqa: PLC0415

    with open_database(load_settings(settings_file)) as database, database.write() as session:
        log_id, origin, held = session.execute(
            select(LogRow.id, LogRow.origin, LogRow.size).where(LogRow.is_own)
        ).one()
        if held != size:
            raise NodeFault(
                f"This node holds {held} leaves of {origin}, and {size} were named: nothing is changed. If the others hold more, the "
                "missing ones have to come from their mirrors first; if they hold fewer, name what is here after asking them again."
            )
        watch_log(database, session, log_id, vouched_size=size)
    if as_json:
        print_json({"origin": origin, "vouched_size": size})
    else:
        print(
            f"The gate of {origin} opens at size {size} without the witnesses that cannot be reached, once."
        )


@app.command("next-epoch")
def next_epoch(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Go on in the next epoch of the own log, after the States have ended the old one. The node must be stopped.

    Keys, tokens, subscriptions, mirrors and the old log stay; the old log can still be read, and its notices be changed from
    the new one. docs/operations.md has the whole way.
    """
    import time  # noqa: PLC0415 - see `app.cli`

    from app.cli.common import open_database, settings_path  # noqa: PLC0415
    from app.cli.store import ServerRuns, answers, newest_roster  # noqa: PLC0415
    from app.setup import SETTINGS_FILE, begin_next_epoch, set_origin  # noqa: PLC0415

    settings = load_settings(settings_file)
    if answers(settings):
        raise ServerRuns(f"A server answers on port {settings.listen_port}. Stop the node first.")
    roster = newest_roster(settings)
    with open_database(settings):
        pass  # its schema is current
    origin = begin_next_epoch(settings, roster, now=time.time_ns() // 1_000_000)
    set_origin(settings_path(settings_file) or settings.data_dir / SETTINGS_FILE, origin)
    if as_json:
        print_json({"ended": settings.origin, "origin": origin})
    else:
        print(f"{settings.origin} has ended. This node's log is {origin} from now on; start it.")


@app.command("begin-anew")
def begin_anew(
    origin: Annotated[str, typer.Argument(help="The ended log, as `verbale federation` names it.")],
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Forget this node's mirror of a log that the States have ended with another history (`end-differs`). The node must be stopped.

    At its next start it fetches the history that they chose, from whoever has it. The evidence stays, and so does what this
    history alone said, as a branch.
    """
    from app.cli.common import open_database  # noqa: PLC0415 - see `app.cli`
    from app.cli.store import ServerRuns, answers, newest_roster  # noqa: PLC0415
    from app.replication import anew  # noqa: PLC0415

    settings = load_settings(settings_file)
    if answers(settings):
        raise ServerRuns(f"A server answers on port {settings.listen_port}. Stop the node first.")
    roster = newest_roster(settings)
    with open_database(settings) as database:
        forgotten = anew.begin_anew(database, origin, roster)
    if as_json:
        print_json({"origin": origin, "forgotten": forgotten})
    else:
        print(
            f"{forgotten} leaves of {origin} were forgotten. Start the node: it fetches what the States chose."
        )


def _sources(given: list[str]) -> list[str]:
    """Folders become absolute: the settings file does not remember from where it was written."""
    return [s if s.startswith(("http://", "https://")) else str(Path(s).resolve()) for s in given]


def _setting(text: str) -> tuple[str, object]:
    from dataclasses import fields  # noqa: PLC0415 - see `app.cli`

    from app.settings import Settings  # noqa: PLC0415

    name, is_pair, value = text.partition("=")
    if not is_pair or name.strip() not in {f.name for f in fields(Settings)}:
        raise UnsafeSettings(f"--set takes NAME=VALUE with a setting of docs/operations.md, not {text!r}.")
    try:
        read: dict[str, object] = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return name.strip(), value
    return name.strip(), read["value"] if read.keys() == {"value"} else value


def _next_steps(settings: Settings, file: Path) -> list[str]:
    code, keys = settings.state.lower(), settings.keys_dir
    cards = " ".join(
        f"--key {shlex.quote(str(keys / f'{use}.key.pub'))}"
        for use in ("log", "witness", "transport", "node", "encryption")
    )
    return [
        "",
        "What to do next:",
        "  1. Where notices will be signed, not here, make the contact point's key:",
        f"       verbale keys new contact-point.key --kid {settings.state}/cp/1 --use notices",
        "  2. Write the State's document with its card and the node's, and propose it to the roster (docs/roster.md):",
        f"       verbale roster state-document --state {settings.state} --origin {settings.origin} \\",
        f"         --url {settings.public_url} \\",
        f"         {cards} \\",
        f"         --key contact-point.key.pub --office … --email … --output {code}.json",
        f"  3. Put the roster's root, obtained out of band and compared by telephone, at {settings.pinned_root}",
        *(
            []
            if settings.roster_sources
            else [
                f'     and name in {file} where the roster comes from: roster_sources = ["https://…/roster"]'
            ]
        ),
        f"  4. Start it:  verbale serve --settings {shlex.quote(str(file))}",
    ]


@app.command()
def show(settings_file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show the settings in force, and what the node holds."""
    from dataclasses import fields  # noqa: PLC0415 - see `app.cli`

    from app.keyfiles import fingerprint  # noqa: PLC0415
    from app.setup import node_cards  # noqa: PLC0415

    settings = load_settings(settings_file)
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    values = {
        n: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
        for n, v in values.items()
    }
    values["database_url"] = _without_password(settings.database)
    cards = node_cards(settings)
    if as_json:
        listed = [{**card.to_dict(), "fingerprint": fingerprint(card.key)} for card in cards]
        print_json({"settings": values, "cards": listed})
        return
    for name, value in values.items():
        print(f"{name:<24} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print()
    for card in cards:
        print(f"{card.kid:<24} {fingerprint(card.key)}")


def _without_password(url: str) -> str:
    from sqlalchemy import make_url  # noqa: PLC0415 - see `app.cli`

    return make_url(url).render_as_string(hide_password=True)


# ── running ───────────────────────────────────────────────────────────────────────────────────────────────────────


def serve(settings_file: SettingsFile = None) -> None:
    """Run the node until SIGTERM or SIGINT: HTTP and, unless a worker does it, the background loops.

    A schema that is older than this version is upgraded first. An empty database, or one that a newer version has used,
    is refused: exit code 3.
    """
    from app.observability import configure_logging  # noqa: PLC0415 - see `app.cli`

    begin_process()
    settings = load_settings(settings_file)
    configure_logging(settings.log_level)
    _end_on_term()
    with _listen(settings) as listener:
        prepare_schema(settings)
        from app.node import Node  # noqa: PLC0415 - see `app.cli`
        from app.server import make_server, run  # noqa: PLC0415

        server = make_server(Node(settings).open())
        extra = {
            "action": "listening",
            "state": settings.state,
            "url": f"http://{_authority(settings)}",
            "public_url": settings.public_url,
        }
        log.info("the node listens", extra=extra)
        run(server, listener)
        if not server.started:
            raise NodeFault("The node did not start; the log above says why.")


def worker(settings_file: SettingsFile = None) -> None:
    """Run the node's background loops until SIGTERM or SIGINT, in a process beside `verbale serve`.

    For nodes whose setting `background` is false; otherwise the server runs the same loops, and this is refused.
    """
    from app.observability import configure_logging  # noqa: PLC0415 - see `app.cli`

    begin_process()
    settings = load_settings(settings_file)
    if settings.background:
        raise UnsafeSettings(
            "The setting background is true, so `verbale serve` runs the loops itself. Set background = false to run them here."
        )
    configure_logging(settings.log_level)
    _end_on_term()
    prepare_schema(settings)
    from app.node import Node  # noqa: PLC0415 - see `app.cli`
    from app.worker import run  # noqa: PLC0415

    run(Node(settings).open())


def prepare_schema(settings: Settings) -> None:
    """Upgrade an older schema, saying so; leave a current one alone.

    Safe means: the database is this program's, not empty, and was not used by a newer version. Each migration is one
    transaction, and on PostgreSQL processes that start together wait for one another; a crash leaves whole migrations.

    Raises:
        LogNotInitialised: the database is empty.
        SchemaNotCurrent: its revision is none that this version knows.
    """
    from app import migrations  # noqa: PLC0415 - see `app.cli`
    from app.db import Database  # noqa: PLC0415

    database = Database(settings.database)
    try:
        current = migrations.current_revision(database)
        known = migrations.revisions()
        if current is None:
            raise _empty(settings)
        if current not in known:
            raise migrations.SchemaNotCurrent(
                f"The database is at schema {current}, which this version does not know: a newer one has used it. Start that "
                "version; nothing was changed."
            )
        if current != known[-1]:
            extra = {"action": "schema_upgraded", "from": current, "to": known[-1]}
            migrations.upgrade(database)
            log.warning("the database was upgraded to this version's schema", extra=extra)
    finally:
        database.dispose()


def _empty(settings: Settings) -> NodeFault:
    from app.node import LogNotInitialised  # noqa: PLC0415 - see `app.cli`

    return LogNotInitialised(
        f"The database {_without_password(settings.database)} is empty. If this node is new, run `verbale node init`. If it is "
        "not, this is the wrong database: restore the right one, since a second tree under one origin is a fork."
    )


def _listen(settings: Settings) -> socket.socket:
    """Bind before anything else is opened: a node that is started twice ends here."""
    host, port = settings.listen_host, settings.listen_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressInUse(
            f"Cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}. Another process may listen there, or the address is not "
            "this machine's."
        ) from error


def _end_on_term() -> None:
    """SIGTERM ends the process with exit code 0, after the server has closed in order."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


# ── health ────────────────────────────────────────────────────────────────────────────────────────────────────────


def health(
    settings_file: SettingsFile = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it can do its work, not only whether it lives.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the configured node whether it is alive. Exit code 0: yes; 4: no."""
    settings = load_settings(settings_file)
    ask_health(settings, "/health/ready" if ready else "/health/live")
    said = "ready" if ready else "live"
    if as_json:
        print_json({"status": said})
    else:
        print(said)


def ask_health(settings: Settings, path: str) -> None:
    """Ask the node of these settings on this machine.

    Raises:
        NotAlive: it does not answer 200 in time.
    """
    import http.client  # noqa: PLC0415 - see `app.cli`

    host = EVERY_ADDRESS.get(settings.listen_host, settings.listen_host)
    connection = http.client.HTTPConnection(host, settings.listen_port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotAlive(
            f"No node answers at http://{_authority(settings)}{path}: {str(error) or type(error).__name__}."
        ) from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise NotAlive(f"http://{_authority(settings)}{path} answers {status}.")


def _authority(settings: Settings) -> str:
    host = EVERY_ADDRESS.get(settings.listen_host, settings.listen_host)
    return f"{f'[{host}]' if ':' in host else host}:{settings.listen_port}"
