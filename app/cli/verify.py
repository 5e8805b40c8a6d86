"""`verbale verify`: what a proof file proves, with no network and no node."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.common import MAX_INPUT_BYTES, REFUSED, AsJson, print_json, read_file
from app.domain.errors import Malformed, VerbaleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from app.domain.notices import Notice
    from app.domain.times import Bracket
    from app.proofs import Proven
    from app.timing import Timed

STEPS: Final = {
    "format": "the file is a proof of a known format",
    "roster": "the roster follows from the pinned root",
    "checkpoint": "the log's key, as the roster lists it, signed the checkpoint",
    "cosignatures": "every witness's cosignature over the checkpoint holds",
    "history": "the checkpoints that tell the time are confirmed by quorums",
    "inclusion": "each statement stands in that log, at its index",
    "signature": "each statement was signed by a contact-point key that counted there",
    "life": "the versions follow each other as they may",
    "commitment": "each body is the one its statement committed to, and follows its schema",
}
"""In the order of `app.proofs`; the first is numbered 0. From `inclusion` on each statement passes all of them in turn."""
TIME_STEPS: Final = {
    "format": "the file is a time file of a known format",
    "roster": "the roster follows from the pinned root",
    "signature": "the statement was signed by a key of the State that counted at its index",
    "history": "both checkpoints are signed by the log and confirmed by quorums",
    "inclusion": "the later checkpoint holds the statement at its index, the earlier one does not",
}
"""In the order of `app.timing`."""
_WHOLE: Final = ("format", "roster", "checkpoint", "cosignatures", "history")
"""Steps that are over before the next begins: of these a refusal can say which have passed."""


def verify(
    file: Annotated[
        str, typer.Argument(metavar="PROOF|URL", help="The file, - for standard input, or where to fetch it.")
    ],
    roster_root: Annotated[
        Path, typer.Option("--roster-root", help="The roster's root, obtained out of band.")
    ],
    at: Annotated[
        int | None,
        typer.Option("--at", help="Unix seconds at which the roster must not have expired; by default any."),
    ] = None,
    time: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Check when it was logged: a proof file, or a time file of a log (…/log/1/time/17). Exit code 1 unless "
            "every claimed time lies within what a quorum of witnesses saw.",
        ),
    ] = False,
    token: Annotated[str | None, typer.Option("--token", help="API token, to fetch with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a notice's proof offline. Exit code 0: proven; 1: refused, with the step that failed."""
    from app.domain.json import parse_strict  # noqa: PLC0415 - see `app.cli`
    from app.proofs import verify_proof  # noqa: PLC0415
    from app.timing import FORMAT, verify_time  # noqa: PLC0415

    pinned = read_file(roster_root)
    parsed = parse_strict(_read(file, token))
    if time and isinstance(parsed, dict) and parsed.get("format") == FORMAT:
        with _refusals(TIME_STEPS, as_json=as_json):
            timed = verify_time(parsed, pinned, at=at)
        _say_times(TIME_STEPS, _described_time(timed), as_json=as_json)
        return
    with _refusals(STEPS, as_json=as_json):
        proven = verify_proof(parsed, pinned, at=at)
    described = _describe(proven)
    if time:
        _say_times(STEPS, described, as_json=as_json)
        return
    if as_json:
        print_json({"proven": True, "passed": list(STEPS), **described})
        return
    _print_steps(STEPS, list(STEPS))
    print()
    for line in _lines(proven, described):
        print(line)


def _read(file: str, token: str | None) -> bytes:
    """The bytes of a file, of standard input, or of what an address answers."""
    if not file.startswith(("http://", "https://")):
        return read_file(Path(file))
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    base, slash, path = file.partition("://")[2].partition("/")
    with node_client(f"{file.partition('://')[0]}://{base}", token) as client:
        raw = client.send("GET", f"{slash}{path}").content
    if len(raw) > MAX_INPUT_BYTES:
        raise Malformed(f"{file} is larger than {MAX_INPUT_BYTES} bytes.")
    return raw


@contextmanager
def _refusals(steps: Mapping[str, str], *, as_json: bool) -> Iterator[None]:
    """Say which steps passed and which failed."""
    from app.proofs import ProofRefused  # noqa: PLC0415 - see `app.cli`

    try:
        yield
    except ProofRefused as refusal:
        names = list(steps)
        before = names[: names.index(refusal.step)] if refusal.step in names else []
        passed = [step for step in before if step in _WHOLE or steps is TIME_STEPS]
        if as_json:
            error = {"code": refusal.code, "detail": str(refusal)}
            print_json({"proven": False, "passed": passed, "failed": refusal.step, "error": error})
            raise typer.Exit(REFUSED) from refusal
        _print_steps(steps, passed)
        number = names.index(refusal.step) if refusal.step in names else 0
        print(f"FAILED {number}. {steps.get(refusal.step, refusal.step)}")
        raise


def _described_time(timed: Timed) -> dict[str, Any]:
    said = timed.statement
    return {
        "issuer": timed.issuer,
        "origin": timed.origin,
        "versions": [_version(timed.index, said.kind, said.iat, said.kid, timed.logged)],
        "roster_version": timed.roster_version,
    }


def _version(index: int, kind: str, iat: int, kid: str, logged: Bracket) -> dict[str, Any]:
    return {
        "index": index,
        "kind": kind,
        "claimed_at": _time(iat),
        "kid": kid,
        "logged_after": None if logged.after is None else _time(logged.after),
        "logged_before": None if logged.before is None else _time(logged.before),
        "flag": logged.flag(iat),
    }


def _say_times(steps: Mapping[str, str], described: dict[str, Any], *, as_json: bool) -> None:
    """Print brackets. The check fails if a claimed time lies outside of its bracket, or none is proven."""
    versions = described["versions"]
    fits = all(v["logged_before"] is not None and v["flag"] is None for v in versions)
    if as_json:
        print_json({"proven": True, "passed": list(steps), "times_fit": fits, **described})
    else:
        _print_steps(steps, list(steps))
        print()
        print(f"{described['issuer']}, {described['origin']}")
        for version in versions:
            print(f"  index {version['index']}, {version['kind']}, claimed {version['claimed_at']}")
            print(f"    {_said_of(version)}")
    if not fits:
        raise typer.Exit(REFUSED)


def _said_of(version: dict[str, Any]) -> str:
    if version["logged_before"] is None:
        return "when it was logged is not proven: no confirmed checkpoint in the file holds it"
    since = (
        f"after {version['logged_after']}" if version["logged_after"] else "no earlier confirmed checkpoint"
    )
    verdict = version["flag"] or "the claimed time fits"
    return f"logged {since}, before {version['logged_before']}: {verdict}"


def _print_steps(steps: Mapping[str, str], passed: Sequence[str]) -> None:
    for step in passed:
        print(f"ok     {list(steps).index(step)}. {steps[step]}")


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
            _version(index, kind, iat, kid, logged) | {"body_given": notice is not None}
            for (index, kind, iat, kid, notice), logged in zip(proven.versions, proven.logged, strict=True)
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
    for version in described["versions"]:
        lines += [
            f"  {version['kind']:<11} index {version['index']}, claimed {version['claimed_at']}, signed by {version['kid']}",
            f"              {_said_of(version)}",
        ]
    lines += [
        f"  cosigners   {len(proven.cosigned_by)} of {proven.quorum.needed}: {cosigners}",
        f"  standing    {standing}",
        f"  roster      version {proven.roster_version}",
    ]
    return lines


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(min(seconds, _LAST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_LAST: Final = 253_402_300_799
"""The last second of the year 9999: a statement may claim a later one, and no calendar names it."""
