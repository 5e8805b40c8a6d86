"""`verbale verify`: what a proof file proves, with no network and no node."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import REFUSED, AsJson, print_json, read_file
from app.domain.errors import VerbaleError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.domain.notices import Notice
    from app.proofs import Proven

STEPS: Final = {
    "format": "the file is a proof of a known format",
    "roster": "the roster follows from the pinned root",
    "checkpoint": "the log's key, as the roster lists it, signed the checkpoint",
    "cosignatures": "every witness's cosignature over the checkpoint holds",
    "inclusion": "each statement stands in that log, at its index",
    "signature": "each statement was signed by a contact-point key that counted there",
    "life": "the versions follow each other as they may",
    "commitment": "each body is the one its statement committed to, and follows its schema",
}
"""In the order of `app.proofs`; the first is numbered 0. From `inclusion` on each statement passes all of them in turn."""
_WHOLE: Final = ("format", "roster", "checkpoint", "cosignatures")
"""Steps that are over before the next begins: of these a refusal can say which have passed."""


def verify(
    file: Annotated[Path, typer.Argument(metavar="PROOF", help="The proof file, - for standard input.")],
    roster_root: Annotated[
        Path, typer.Option("--roster-root", help="The roster's root, obtained out of band.")
    ],
    at: Annotated[
        int | None,
        typer.Option("--at", help="Unix seconds at which the roster must not have expired; by default any."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a notice's proof offline. Exit code 0: proven; 1: refused, with the step that failed."""
    from app.domain.json import parse_strict  # noqa: PLC0415 - see `app.cli`
    from app.proofs import ProofRefused, verify_proof  # noqa: PLC0415

    pinned = read_file(roster_root)
    try:
        proven = verify_proof(parse_strict(read_file(file)), pinned, at=at)
    except ProofRefused as refusal:
        passed = [step for step in _before(refusal.step) if step in _WHOLE]
        if as_json:
            error = {"code": refusal.code, "detail": str(refusal)}
            print_json({"proven": False, "passed": passed, "failed": refusal.step, "error": error})
            raise typer.Exit(REFUSED) from refusal
        _print_steps(passed)
        print(f"FAILED {_number(refusal.step)}. {STEPS.get(refusal.step, refusal.step)}")
        raise
    described = _describe(proven)
    if as_json:
        print_json({"proven": True, "passed": list(STEPS), **described})
        return
    _print_steps(list(STEPS))
    print()
    for line in _lines(proven, described):
        print(line)


def _before(step: str) -> Sequence[str]:
    names = list(STEPS)
    return names[: names.index(step)] if step in names else ()


def _number(step: str) -> int:
    return list(STEPS).index(step) if step in STEPS else 0


def _print_steps(steps: Sequence[str]) -> None:
    for step in steps:
        print(f"ok     {_number(step)}. {STEPS[step]}")


def _describe(proven: Proven) -> dict[str, Any]:
    from app.domain.states import STATES  # noqa: PLC0415 - see `app.cli`

    title, notice_type, tlp = _content(proven)
    state = STATES.get(proven.issuer)
    return {
        "notice": proven.notice,
        "issuer": proven.issuer,
        "issuer_name": state.name if state else None,
        "type": notice_type,
        "title": title,
        "tlp": tlp,
        "status": proven.status,
        "origin": proven.origin,
        "versions": [
            {
                "index": index,
                "kind": kind,
                "claimed_at": _time(iat),
                "kid": kid,
                "body_given": notice is not None,
            }
            for index, kind, iat, kid, notice in proven.versions
        ],
        "size": proven.size,
        "cosigned_by": {code: _time(when) for code, when in sorted(proven.cosigned_by.items())},
        "quorum": proven.quorum.needed,
        "confirmed": proven.confirmed,
        "roster_version": proven.roster_version,
    }


def _content(proven: Proven) -> tuple[str | None, str | None, str | None]:
    """Title, type and label of the newest version whose body the file gives."""
    from app.domain.notices import amended  # noqa: PLC0415 - see `app.cli`

    current: Notice | None = None
    previous: Notice | None = None  # the version just before, if its body is given
    for _, kind, _, _, notice in proven.versions:
        if kind not in ("issue", "amend"):
            continue
        made: Notice | None = notice
        if kind == "amend" and notice is not None:
            try:
                made = amended(previous.document if previous else None, notice)
            except VerbaleError:  # flagged at every node as well; the version before it is what counts
                made = None
        previous, current = made, made or current
    return (current.title, current.type, current.handling.tlp.label) if current else (None, None, None)


def _lines(proven: Proven, described: dict[str, Any]) -> list[str]:
    title = described["title"] or "(the file gives no body to read it from)"
    named = f"{described['issuer_name']} ({proven.issuer})" if described["issuer_name"] else proven.issuer
    cosigners = ", ".join(described["cosigned_by"]) or "nobody"
    standing = (
        "confirmed" if proven.confirmed else "provisional: the log's own word until more witnesses cosign"
    )
    lines = [
        "Proven:",
        f"  issuer      {named}",
        f"  title       {title}",
        f"  type        {described['type'] or 'unknown'}, {described['tlp'] or 'no label shown'}",
        f"  status      {proven.status}, as of log size {proven.size}; a later version may exist beyond it",
        f"  notice      {proven.notice}",
        f"  log         {proven.origin}",
    ]
    lines += [
        f"  {version['kind']:<11} index {version['index']}, claimed {version['claimed_at']}, signed by {version['kid']}"
        for version in described["versions"]
    ]
    lines += [
        f"  cosigners   {len(proven.cosigned_by)} of {proven.quorum.needed}: {cosigners}",
        f"  standing    {standing}",
        f"  roster      version {proven.roster_version}",
    ]
    return lines


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
