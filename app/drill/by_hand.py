"""What people do in a drill with the commands of the documentation, and nothing else."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from app.cli import run
from app.demo.errors import DemoFailed
from app.demo.found import GOVERNANCE
from app.drill.ceremonies import adopt

if TYPE_CHECKING:
    from app.drill.field import Field

MAJORITY: Final = ("FI", "NL", "US")
"""Three of five States, who may do what one may not."""


def verbale(field: Field, *words: str, expect: int = 0) -> str:
    """Run a command as a person would; returns what it printed.

    Raises:
        DemoFailed: its exit code is another one than `expect`.
    """
    printed = StringIO()
    with redirect_stdout(printed):  # standard output is the drill's own, with --json one document
        code = run(list(words))
    field.report.quote(f"verbale {' '.join(words[:3])} …: exit code {code}")
    if code != expect:
        raise DemoFailed(
            f"verbale {' '.join(words)} ended with exit code {code}: {printed.getvalue()[-500:]}"
        )
    return printed.getvalue()


def sign(field: Field, draft: str, *names: str) -> int:
    """Review a draft, sign it with these offline keys and the online ones, and publish it; the roster's version."""
    repository, keys = str(field.federation.repository), field.federation.directory / GOVERNANCE
    verbale(field, "roster", "review", repository, draft)
    for name in (*names, *(f"{state.lower()}-online" for state in ("EE", "FI"))):
        verbale(field, "roster", "sign", repository, draft, "--key", str(keys / f"{name}.key"))
    verbale(field, "roster", "publish", repository, draft)
    shown: dict[str, Any] = json.loads(verbale(field, "roster", "show", repository, "--json"))
    version: int = shown["version"]
    return version


def end_log(field: Field, state: str, *, size: int, root: str) -> str:
    """Three States end a State's log at this size and root, its State lists the next epoch; its origin, once all have the roster."""
    repository, old = str(field.federation.repository), field.origin(state)
    new = old.replace("/log/1", "/log/2")
    verbale(
        field, "roster", "propose", "freeze-log", repository, "end", old, "--reason", "two histories",
        "--size", str(size), "--root", root,
    )  # fmt: skip
    sign(field, "end", *(f"{one.lower()}-governance" for one in MAJORITY))
    verbale(field, "roster", "propose", "next-epoch", repository, "epoch", new)
    adopt(field, sign(field, "epoch", f"{state.lower()}-authority"))
    return new
