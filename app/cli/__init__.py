"""`verbale`: what an operator and an officer type.

Guarantees: every error a person can cause is one sentence on standard error, never a traceback; exit codes mean the same in
every command (see `EXIT_CODES` and `docs/cli.md`); with `--json` an error is also an object on standard output. Modules
are loaded only for the command that was asked for, so that `verbale --help` and a container's health check are quick.

    0  done, or the check passed            3  this node's own files, settings or database are at fault
    1  refused, or the check failed         4  another node or this one cannot be reached, or answers rubbish
    2  the command line itself is wrong     70 an error nobody foresaw: a fault of the program
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from app.cli.common import DONE, INTERRUPTED, NODE_FAULT, REFUSED, UNFORESEEN, UNREACHABLE, name_settings
from app.domain.errors import NodeFault, PeerFault, VerbaleError

EXIT_CODES: Final = {NodeFault: NODE_FAULT, PeerFault: UNREACHABLE, VerbaleError: REFUSED}
"""Families of errors, the most particular first, and the exit code of each."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "node": ("app.cli.node:app", "Make a node, or look at its settings."),
    "serve": ("app.cli.node:serve", "Run the node: HTTP and, unless a worker does it, the background loops."),
    "worker": ("app.cli.node:worker", "Run the node's background loops in a process of their own."),
    "health": ("app.cli.node:health", "Ask the running node whether it is alive."),
    "keys": ("app.cli.keys:app", "Make, show and check keys of a contact point or a node."),
    "roster": ("app.cli.roster:app", "Membership: propose, review, sign and publish the roster."),
    "token": ("app.cli.token:app", "API tokens of this State's own systems."),
    "webhook": ("app.cli.webhook:app", "Webhooks: endpoints, their health, and the key that signs."),
    "subscription": ("app.cli.subscription:app", "Webhooks of a token of yours, at a node that you name."),
    "watchlist": (
        "app.cli.watchlist:app",
        "Portfolios of a token of yours, screened against every new notice.",
    ),
    "notice": ("app.cli.notice:app", "Write, sign, post and find notices."),
    "screen": ("app.cli.screen:app", "Screen a party against denials, and measure the matcher."),
    "verify": ("app.cli.verify:verify", "Check a proof file offline, against a pinned roster root."),
    "recall-board": (
        "app.cli.recalls:recall_board",
        "What was withdrawn, amended, erased or recalled, and which States know.",
    ),
    "policy": ("app.cli.policy:policy", "Whose cosignatures confirm a log, as a C2SP tlog-policy file."),
    "federation": (
        "app.cli.federation:federation",
        "The federation as a node sees it: sizes, lag, receipts, faults.",
    ),
    "evidence": (
        "app.cli.evidence:app",
        "Evidence against logs and witnesses: look at it, check it offline.",
    ),
    "pouch": ("app.cli.pouch:app", "Carry notices in a file to a State that no wire reaches."),
    "fsck": ("app.cli.store:fsck", "Derive every hash of the stored logs again and name what differs."),
    "rebuild": ("app.cli.store:rebuild", "Drop every table that is a view of the logs and fold it again."),
    "backup": (
        "app.cli.backup:backup",
        "Write an encrypted copy of what a node cannot get back from others.",
    ),
    "restore": ("app.cli.backup:restore", "Restore such a copy into an empty database."),
    "db": ("app.cli.store:db", "The database's schema."),
    "demo": ("app.demo.command:demo", "A federation of four States on this machine."),
    "drill": ("app.drill.command:drill", "Rehearse a disaster with five nodes on this machine."),
    "simulate": (
        "app.simulation.command:simulate",
        "Play whole federations out in virtual time, with faults and malice drawn from a seed.",
    ),
    "soak": ("app.bench.soak_command:soak", "Run for minutes under random kills, then count everything."),
    "bench": ("app.bench.command:bench", "Measure this machine: the federation, or `bench webhooks`."),
}
"""Name → where it is and its line in the help. A command whose module is not installed is not offered."""


class _Lazy(TyperGroup):
    """A group that imports a command's module when that command is asked for, and for nothing else."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own context
        return [name for name, (where, _) in COMMANDS.items() if _is_installed(where)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - Typer's own types
        """The line for the help; while a shell completes words, the command itself."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return _load(cmd_name) if ctx.resilient_parsing else _placeholder(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - Typer's own types
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest


def _is_installed(where: str) -> bool:
    module = where.partition(":")[0]
    path = Path(__file__).resolve().parent.parent.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py").is_file() or path.is_dir()


def _placeholder(name: str) -> Any:  # noqa: ANN401 - Typer's own types
    def nothing() -> None:
        """Never called: `resolve_command` has put the command in its place."""

    return _command(name, nothing, COMMANDS[name][1])


def _load(name: str) -> Any:  # noqa: ANN401 - Typer's own types
    module, _, attribute = COMMANDS[name][0].partition(":")
    return _command(name, getattr(importlib.import_module(module), attribute))


def _command(name: str, what: Any, line: str | None = None) -> Any:  # noqa: ANN401 - Typer's own types
    """A function or a Typer, as the command `name` of `verbale`."""
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(what, typer.Typer):
        holder.add_typer(what, name=name)
    else:
        holder.command(name, help=line)(what)
    return typer.main.get_group(holder).commands[name]


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the modules that draw boxes take longer to load than everything else together
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from app import __version__  # noqa: PLC0415 - only here

        print(f"verbale {__version__}")
        raise typer.Exit


@app.callback()
def verbale(
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="The node's settings file; by default what VERBALE_SETTINGS names."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    traceback: Annotated[  # noqa: ARG001 - `run` looks for it itself: errors may come before parsing ends
        bool, typer.Option("--traceback", help="For an error nobody foresaw, print where it arose.")
    ] = False,
) -> None:
    """Signed notices between States, replicated and provable."""
    name_settings(settings)


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Nothing but `SystemExit` of a server's end gets through."""
    try:
        outcome = typer.main.get_command(app).main(arguments, prog_name="verbale", standalone_mode=False)
        sys.stdout.flush()
    except VerbaleError as error:
        _say(str(error), error.code, arguments)
        return exit_code(error)
    except typer.TyperException as error:
        return _usage(error, arguments)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _seen_enough()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends the process when it meets one first
            return _seen_enough()
        raise
    except OSError as error:
        _say(
            f"{error.filename}: {error.strerror}." if error.filename else f"{error}.",
            "file-or-network",
            arguments,
        )
        return NODE_FAULT
    except Exception as error:  # noqa: BLE001 - the last resort: a person sees a sentence, a developer asks for more
        return _unforeseen(error, arguments)
    return outcome if isinstance(outcome, int) else DONE


def _seen_enough() -> int:
    """Whoever read our output has closed it. Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    return next((code for family, code in EXIT_CODES.items() if isinstance(error, family)), UNFORESEEN)


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    show = getattr(error, "show", None)
    if type(error).__name__ == "NoArgsIsHelpError" and show is not None:
        show()  # no command was given: the help is the answer
    else:
        _say(f"{error.format_message()} Add --help to see what is taken.", "usage", arguments)
    return error.exit_code


def _unforeseen(error: Exception, arguments: list[str]) -> int:
    database = sys.modules.get("sqlalchemy.exc")
    if database is not None and isinstance(error, database.SQLAlchemyError):
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        _say(f"The database does not do what is asked: {said[0] if said else error}", "database", arguments)
        code = NODE_FAULT
    else:
        _say(
            f"{type(error).__name__}: this should not happen and is a fault of the program. Please report it, with what "
            "`verbale --traceback …` prints.",
            "internal-error",
            arguments,
        )
        code = UNFORESEEN
    if "--traceback" in arguments:
        import traceback  # noqa: PLC0415 - only here

        traceback.print_exception(error)
    return code


def _say(sentence: str, code: str, arguments: list[str]) -> None:
    if "--json" in arguments:
        print(json.dumps({"error": {"code": code, "detail": sentence}}, ensure_ascii=False))
        sys.stdout.flush()
    print(f"error: {sentence}", file=sys.stderr)


def main() -> NoReturn:
    """The entry point `verbale`."""
    sys.exit(run(sys.argv[1:]))
