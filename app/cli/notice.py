"""`verbale notice`: writing, signing, posting and finding notices.

Signing needs the contact point's key and no node; posting needs a node and no key. They can be two machines, joined by
the file that `sign` prints. Nothing here decides whether a notice is good: the node does; `sign` and `check` say
beforehand what it would answer.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from app.cli.common import AsJson, TokenFile, print_json, print_table, progress, read_file, read_token, warn
from app.domain.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from app.cli.client import NodeClient
    from app.domain.keys import Signer
    from app.statements import Attachment, Wire

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write, sign, post and find notices.")

Kind = Literal["issue", "amend", "withdraw", "ack", "erase"]

POST_LINES: Final = 500
POST_BYTES: Final = 8 * 2**20
"""One request carries so many lines or bytes of a batch, whichever is less: one commit's worth, and the bar moves."""
BUSY_TRIES: Final = 8
MAX_LINE: Final = 64 * 2**20
HASH_HEX, HASH_B64U = 64, 43

Url = Annotated[str, typer.Option("--url", help="The node's address, like https://node.example.")]
Token = Annotated[str | None, typer.Option("--token", help="API token; without it only TLP:CLEAR is seen.")]
Key = Annotated[
    str, typer.Option("--key", help="The contact point's private key: a file, or a pkcs11: URI (RFC 7512).")
]
Kid = Annotated[str, typer.Option("--kid", help="The key's id in the roster, like EE/cp/1.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the key's passphrase.")
]
Expiry = Annotated[
    str | None,
    typer.Option("--exp", help="When it ends by itself: a date, a time with offset, or unix seconds."),
]
NoticeId = Annotated[str, typer.Argument(help="The notice's id.")]
LogOrigin = Annotated[str | None, typer.Option("--log", help="The log meant, where two States used one id.")]


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def new(
    notice_type: Annotated[str, typer.Argument(metavar="TYPE", help="Like denied_end_user.")],
    issuer: Annotated[str, typer.Option(help="Alpha-2 code to fill in.")] = "",
    full: Annotated[bool, typer.Option("--full", help="With every optional member.")] = False,
) -> None:
    """Print a template of a notice, to be filled in. It shows the shape and is no valid notice yet."""
    from app.cli.template import template  # noqa: PLC0415 - see `app.cli`

    print_json(template(notice_type, issuer=issuer, full=full))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The main part as JSON, - for standard input.")],
    as_json: AsJson = False,
) -> None:
    """Check a main part against the schema of its type, before it is signed."""
    from app.domain.notices import parse_main  # noqa: PLC0415 - see `app.cli`

    notice = parse_main(read_file(file))
    if as_json:
        print_json({"type": notice.type, "issuer": notice.issuer, "kind": notice.kind})
    else:
        print(f"A valid {notice.type} of {notice.issuer}; sign it with --kind {notice.kind}.")


# ── signing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def sign(
    key: Key,
    kid: Kid,
    origin: Annotated[str, typer.Option(help="The log it is signed for, like ee.example/log/1.")],
    file: Annotated[
        Path | None, typer.Argument(help="The main part as JSON, - for standard input; none to erase.")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What it does.")] = "issue",
    ref: Annotated[
        str | None, typer.Option(help="Leaf hash of the version acted on, hex or base64url; not for issue.")
    ] = None,
    exp: Expiry = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(help="One more part, PART=PATH:MEDIA/TYPE; the notice lists it too. Repeat."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,  # noqa: ARG001 - the output is JSON anyway; errors become JSON too
) -> None:
    """Sign a notice and print what is to be posted: the statement and its opened parts, on one line.

    The bytes of FILE are committed to exactly as they are. What a node would object to is said as a warning.
    """
    from app.statements import sign_notice  # noqa: PLC0415 - see `app.cli`

    wire = sign_notice(
        _main_part(file, kind),
        _signer(key, passphrase_file),
        kid,
        origin,
        kind=kind,
        ref=_hash(ref),
        exp=_moment(exp),
        attachments=[_attachment(text) for text in attach or []],
    )
    _forewarn(wire)
    print(json.dumps(wire, separators=(",", ":")))


def _main_part(file: Path | None, kind: str) -> bytes | None:
    from app.domain.json import parse_strict  # noqa: PLC0415 - see `app.cli`

    if kind == "erase":
        if file is not None:
            raise typer.BadParameter("an erasure has no body: leave FILE out")
        return None
    if file is None:
        raise typer.BadParameter("FILE is missing: the main part as JSON, or - for standard input")
    raw = read_file(file)
    if not isinstance(parse_strict(raw), dict):
        raise Malformed("The main part of a notice is a JSON object.")
    return raw


def _forewarn(wire: Wire) -> None:
    from app.statements import forejudge  # noqa: PLC0415 - see `app.cli`

    try:
        forejudge(wire)
    except Refused as refusal:
        warn(f"a node will refuse this ({refusal.code}). {refusal}")


def _signer(key: str, passphrase_file: Path | None) -> Signer:
    from app.cli.keys import ask_pin, passphrase_of  # noqa: PLC0415 - `notice` may be asked for help without `keys`
    from app.hsm import open_key  # noqa: PLC0415

    return open_key(key, passphrase=passphrase_of(passphrase_file), ask_pin=ask_pin)


def _hash(text: str | None) -> bytes | None:
    """A leaf hash as hex or base64url."""
    from app.domain.encoding import b64u_decode  # noqa: PLC0415 - see `app.cli`

    if text is None:
        return None
    if len(text) == HASH_HEX:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    if len(text) != HASH_B64U:
        raise Malformed(
            f"--ref takes a leaf hash: {HASH_HEX} hex digits or {HASH_B64U} characters of base64url."
        )
    return b64u_decode(text)


def _moment(text: str | None) -> int | None:
    """Unix seconds of a date (its beginning, UTC), a time with its offset, or unix seconds."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text[:20])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None and len(text) == len("2026-01-31"):
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment.tzinfo is None:
        raise Malformed(f"--exp takes 2027-01-31, 2027-01-31T12:00:00Z or unix seconds, not {text!r}.")
    return int(moment.timestamp())


def _attachment(text: str) -> Attachment:
    from app.statements import Attachment  # noqa: PLC0415 - see `app.cli`

    name, _, rest = text.partition("=")
    path, _, media_type = rest.rpartition(":")
    if not name or not path or "/" not in media_type:
        raise Malformed(
            f"--attach takes PART=PATH:MEDIA/TYPE, like annex=annex.pdf:application/pdf, not {text!r}."
        )
    return Attachment(name, media_type, read_file(Path(path)))


# ── posting ───────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def post(
    file: Annotated[
        Path,
        typer.Argument(help="What `sign` printed: one notice, or many, one a line; - for standard input."),
    ],
    url: Url,
    as_json: AsJson = False,
) -> None:
    """Post signed notices. Exit code 1 when any was refused; each refusal is printed.

    Posting the same bytes again is safe: they are answered with the receipt they have. With --json the answer is a
    receipt for one notice, and for a batch one line for each, as the node gives them.
    """
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    lines = _lines(file)
    first, second = next(lines, None), next(lines, None)
    if first is None:
        raise Malformed(f"{file} is empty. Give it what `verbale notice sign` printed.")
    with node_client(url) as client:
        if second is None:
            _post_one(client, first, as_json=as_json)
            return
        every: Iterable[bytes] = chain((first, second), lines)
        if not _is_json(first):
            # One notice printed over several lines, or a batch whose first line is damaged: only the whole can tell.
            every = list(every)
            if _is_json(b"".join(every)):
                _post_one(client, b"".join(every), as_json=as_json)
                return
        _post_batch(client, every, _count_lines(file), as_json=as_json)


def _lines(file: Path) -> Iterator[bytes]:
    """Lines with their line feeds; blank ones at the very end do not count."""
    if str(file) == "-":
        yield from _without_blank_end(sys.stdin.buffer)
        return
    try:
        with file.open("rb") as opened:
            yield from _without_blank_end(opened)
    except OSError as error:
        raise Malformed(f"Cannot read {file}: {error.strerror}.") from error


def _without_blank_end(opened: Any) -> Iterator[bytes]:  # noqa: ANN401 - a binary stream
    blank: list[bytes] = []
    while line := opened.readline(MAX_LINE):
        if line.strip():
            yield from blank
            blank = []
            yield line
        else:
            blank.append(line)


def _count_lines(file: Path) -> int:
    """For the progress bar; 0 when it cannot be told beforehand."""
    if str(file) == "-" or not file.is_file():
        return 0
    with file.open("rb") as opened:
        return sum(piece.count(b"\n") for piece in iter(lambda: opened.read(2**20), b""))


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def _post_one(client: NodeClient, raw: bytes, *, as_json: bool) -> None:
    response = client.send("POST", "/v1/notices", content=raw, headers={"content-type": "application/json"})
    receipt = response.json()
    if as_json:
        print_json(receipt)
        return
    known = "" if response.status_code == 201 else ", as before"  # noqa: PLR2004 - HTTP Created
    print(f"Notice {receipt['id']} stands at index {receipt['index']} of {receipt['origin']}{known}.")
    print(f"Leaf hash {receipt['leaf_hash']}")


class SomeRefused(Refused):
    """Some of a batch was refused."""

    code = "some-refused"


def _post_batch(client: NodeClient, lines: Iterable[bytes], total: int, *, as_json: bool) -> None:
    from app.cli.client import problem_code, problem_sentence  # noqa: PLC0415 - see `app.cli`

    done, created, known, refused = 0, 0, 0, 0
    began = time.monotonic()
    with progress("Posting", total) as show:
        for window in _windows(lines):
            for answer in _post_window(client, window):
                number = done + answer["line"]
                if as_json:
                    print(json.dumps(answer | {"line": number}, separators=(",", ":"), ensure_ascii=False))
                problem = answer.get("problem")
                if problem is None:
                    created += answer["status"] == 201  # noqa: PLR2004 - HTTP Created
                    known += answer["status"] != 201  # noqa: PLR2004
                    continue
                refused += 1
                print(
                    f"line {number}: {answer['status']} {problem_code(problem)}: {problem_sentence(problem)}",
                    file=sys.stderr,
                )
            done += len(window)
            show(done)
    if not as_json:
        seconds = max(time.monotonic() - began, 0.001)
        said = f", {known} stood there already" if known else ""
        print(
            f"{created} notices posted{said}, {refused} refused ({(created + known) / seconds:.0f} a second)."
        )
    if refused:
        raise SomeRefused(f"{refused} of {done} notices were refused; the others are stored.")


def _windows(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    window: list[bytes] = []
    size = 0
    for line in lines:
        if window and (len(window) >= POST_LINES or size + len(line) > POST_BYTES):
            yield window
            window, size = [], 0
        window.append(line)
        size += len(line)
    if window:
        yield window


def _post_window(client: NodeClient, window: list[bytes]) -> list[dict[str, Any]]:
    """One answer for each line; what a busy node did not take is sent again."""
    from app.cli.client import NotANode  # noqa: PLC0415 - see `app.cli`

    answers: dict[int, dict[str, Any]] = {}
    waiting = list(range(len(window)))
    for attempt in range(BUSY_TRIES):
        body = b"".join(window[n].rstrip(b"\r\n") + b"\n" for n in waiting)
        response = client.send(
            "POST", "/v1/notices/batch", content=body, headers={"content-type": "application/x-ndjson"}
        )
        try:
            given = [json.loads(line) for line in response.text.splitlines()]
            for answer in given:
                place = waiting[answer["line"] - 1]
                answers[place] = answer | {"line": place + 1}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise NotANode(
                "The node's answer to the batch cannot be read. Post it again: what is stored stays stored."
            ) from error
        waiting = [n for n in range(len(window)) if n not in answers or answers[n]["status"] == 503]  # noqa: PLR2004 - busy
        if not waiting:
            break
        time.sleep(min(0.25 * 2**attempt, 5.0))
    missing = [n for n in range(len(window)) if n not in answers]
    if missing:
        raise NotANode(f"The node gave no answer for {len(missing)} lines of the batch. Post it again.")
    return [answers[n] for n in range(len(window))]


# ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE: Final = 1000


@app.command("list")
def list_notices(
    url: Url,
    token: Token = None,
    token_file: TokenFile = None,
    party: Annotated[list[str] | None, typer.Option(help="Words of one name of a party.")] = None,
    notice_type: Annotated[
        list[str] | None, typer.Option("--type", help="Like denied_end_user; repeat.")
    ] = None,
    issuer: Annotated[list[str] | None, typer.Option(help="State that issued it; repeat.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="active, expired, withdrawn, erased, recalled or all.")
    ] = None,
    code: Annotated[list[str] | None, typer.Option(help="Control-list code or its beginning.")] = None,
    country: Annotated[list[str] | None, typer.Option(help="Of a party or a destination.")] = None,
    concern: Annotated[list[str] | None, typer.Option(help="Human-rights concern code.")] = None,
    tlp: Annotated[list[str] | None, typer.Option(help="Label, like TLP:AMBER.")] = None,
    standing: Annotated[
        list[str] | None, typer.Option(help="confirmed (by a quorum of witnesses), provisional or unproven.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Words that occur anywhere.")] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Any other parameter of /v1/notices, as NAME=VALUE; repeat."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to show; 0 is all.", min=0)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find notices, newest arrival first. Values of one option are alternatives, options narrow each other."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    given = {
        "party": party,
        "type": notice_type,
        "issuer": issuer,
        "status": status,
        "code": code,
        "country": country,
        "concern": concern,
        "tlp": tlp,
        "standing": standing,
        "text": text,
    }
    params = [(name, value) for name, values in given.items() for value in values or ()]
    params += [_pair(text) for text in other or []]
    with node_client(url, read_token(token, token_file)) as client:
        items, page = client.pages("/v1/notices", params, limit, largest=PAGE)
    total = page["total"]
    if as_json:
        print_json({"items": items, "total": total})
        return
    rows = [
        (
            n["id"],
            n["issuer"],
            n["type"],
            n["status"],
            n["standing"],
            n["tlp"],
            (n["issued_at"] or "")[:10],
            n["title"],
        )
        for n in items
    ]
    if rows:
        print_table(("Id", "State", "Type", "Status", "Standing", "TLP", "Issued", "Title"), rows)
    print(f"{len(items)} of {total} notices." if len(items) < total else f"{total} notices.")


def _pair(text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair or name in ("limit", "cursor"):
        raise Malformed(f"--filter takes NAME=VALUE, a parameter of /v1/notices, not {text!r}.")
    return name, value


def _fetch(client: NodeClient, notice_id: str, log: str | None) -> dict[str, Any]:
    from app.cli.client import NotANode, notice_path  # noqa: PLC0415 - see `app.cli`

    found = client.get(notice_path(notice_id), [("origin", log)] if log else [])
    if not isinstance(found, dict) or "leaf_hash" not in found:
        raise NotANode("The node answered something that is no notice.")
    return found


@app.command()
def show(
    notice_id: NoticeId,
    url: Url,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    as_json: AsJson = False,
) -> None:
    """Show one notice: where it stands, which States hold it, and its document."""
    from app.cli.client import node_client, notice_path  # noqa: PLC0415 - see `app.cli`

    with node_client(url, read_token(token, token_file)) as client:
        notice = _fetch(client, notice_id, log)
        if as_json:
            print_json(notice)
            return
        receipts = client.get(notice_path(notice["id"], "/receipts"), [("origin", notice["origin"])])
    overdue = ", review overdue" if notice["review_overdue"] else ""
    stale = ", a newer version is on its way" if notice["stale"] else ""
    print(notice["title"] or "(no content)")
    print(
        f"  {notice['type'] or 'notice'} of {notice['issuer']}, {notice['status']}{overdue}{stale}, {notice['tlp'] or 'no label'}"
    )
    print(f"  id         {notice['id']}, version {notice['version']}")
    print(f"  log        {notice['origin']}, index {notice['index']}")
    print(f"  leaf hash  {notice['leaf_hash']}")
    print(
        f"  issued     {notice['issued_at']}; changed {notice['changed_at']}; received here {notice['received_at']}"
    )
    print(f"  standing   {notice['standing']}; {_logged(notice['logged'])}")
    holders = [s["state"] for s in receipts["states"] if s["holds"] == "current"]
    waiting = [s["state"] for s in receipts["states"] if s["holds"] != "current"]
    unproven = f"; not proven: {', '.join(waiting)}" if waiting else ""
    print(f"  held by    {', '.join(holders) or 'nobody yet'}{unproven}")
    if notice["document"] is not None:
        print()
        print_json(notice["document"])


def _logged(logged: dict[str, Any]) -> str:
    """When the newest version was logged, in words."""
    if logged["before"] is None:
        return "when it was logged is not confirmed yet"
    since = f"after {logged['after']} and " if logged["after"] else ""
    flag = f"; {logged['flag']}" if logged["flag"] else ""
    return f"logged {since}before {logged['before']}{flag}"


@app.command()
def proof(
    notice_id: NoticeId,
    url: Url,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; by default standard output.")
    ] = None,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    as_json: AsJson = False,  # noqa: ARG001 - the output is JSON anyway; errors become JSON too
) -> None:
    """Fetch a notice's proof, for `verbale verify`."""
    from app.cli.client import node_client, notice_path  # noqa: PLC0415 - see `app.cli`

    with node_client(url, read_token(token, token_file)) as client:
        found = client.send("GET", notice_path(notice_id, "/proof"), params=[("origin", log)] if log else [])
    if output is None:
        print(found.text)
    else:
        output.write_bytes(found.content)
        print(
            f"{output}: {len(found.content)} bytes. Check it with: verbale verify {output} --roster-root ROOT"
        )


# ── what follows a notice ─────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def amend(
    notice_id: NoticeId,
    url: Url,
    key: Key,
    kid: Kid,
    document: Annotated[
        Path, typer.Option("--with", help="The whole new document as JSON, - for standard input.")
    ],
    reason: Annotated[
        Literal["correction", "new_information", "renewal", "status_change"], typer.Option(help="Why.")
    ] = "new_information",
    explanation: Annotated[str | None, typer.Option(help="In words, for the readers.")] = None,
    renewal_number: Annotated[int | None, typer.Option(help="For a renewal: the how manieth.", min=1)] = None,
    exp: Expiry = None,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace a notice by a new version: fetches the current one, signs the amendment and posts it.

    Without --exp the new version does not end by itself, whatever the old one said.
    """
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`
    from app.domain.json import parse_strict  # noqa: PLC0415
    from app.statements import amendment  # noqa: PLC0415

    replacement = parse_strict(read_file(document))
    if not isinstance(replacement, dict):
        raise Malformed("The new document is a JSON object.")
    signer = _signer(key, passphrase_file)
    with node_client(url, read_token(token, token_file)) as client:
        notice = _fetch(client, notice_id, log)
        main = amendment(notice, replacement, reason=reason, explanation=explanation)
        if renewal_number is not None:
            main["body"]["renewal_number"] = renewal_number
        _follow(client, notice, main, signer, kid, "amend", exp=_moment(exp), as_json=as_json)


@app.command()
def withdraw(
    notice_id: NoticeId,
    url: Url,
    key: Key,
    kid: Kid,
    reason: Annotated[str, typer.Option(help="In words, for the readers.")],
    kind: Annotated[
        Literal["revoked", "issued_in_error", "delisted", "superseded", "expired"],
        typer.Option(help="Which kind of end."),
    ] = "revoked",
    effective_on: Annotated[str | None, typer.Option(help="Date; by default today, UTC.")] = None,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """End a notice. It is hidden from default searches and kept for audit."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`
    from app.statements import withdrawal  # noqa: PLC0415

    signer = _signer(key, passphrase_file)
    day = effective_on or datetime.now(UTC).date().isoformat()
    with node_client(url, read_token(token, token_file)) as client:
        notice = _fetch(client, notice_id, log)
        main = withdrawal(notice, kind=kind, reason=reason, effective_on=day)
        _follow(client, notice, main, signer, kid, "withdraw", as_json=as_json)


@app.command()
def ack(
    notice_id: NoticeId,
    url: Annotated[str, typer.Option("--url", help="The address of the acknowledging State's own node.")],
    key: Key,
    kid: Kid,
    origin: Annotated[str, typer.Option(help="The acknowledging State's own log, like ee.example/log/1.")],
    office: Annotated[str, typer.Option(help="The office that acknowledges.")],
    email: Annotated[str, typer.Option(help="Where it is reached.")],
    state: Annotated[
        Literal["received", "under_review", "actioned", "no_action", "cannot_share"],
        typer.Option(help="What is said."),
    ] = "received",
    note: Annotated[str | None, typer.Option(help="In words.")] = None,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge another State's notice, in the own log and to whom the notice was addressed."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`
    from app.statements import acknowledgement  # noqa: PLC0415

    signer = _signer(key, passphrase_file)
    contact = {"role": "point_of_contact", "office": office, "email": email}
    with node_client(url, read_token(token, token_file)) as client:
        notice = _fetch(client, notice_id, log)
        main = acknowledgement(notice, issuer=kid[:2], state=state, contact=contact, note=note)
        _follow(client, notice | {"origin": origin}, main, signer, kid, "ack", as_json=as_json)


@app.command()
def erase(
    notice_id: NoticeId,
    url: Url,
    key: Key,
    kid: Kid,
    token: Token = None,
    token_file: TokenFile = None,
    log: LogOrigin = None,
    passphrase_file: PassphraseFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have the content of every version of a notice deleted, at every node. It cannot be taken back."""
    from app.cli.client import node_client  # noqa: PLC0415 - see `app.cli`

    signer = _signer(key, passphrase_file)
    with node_client(url, read_token(token, token_file)) as client:
        notice = _fetch(client, notice_id, log)
        if not yes:
            typer.confirm(f"Erase {notice['title']!r} ({notice['id']}) for good?", abort=True, err=True)
        _follow(client, notice, None, signer, kid, "erase", as_json=as_json)


def _continuing(client: NodeClient, origin: str) -> str:
    """The log in which a notice of this one can be changed: itself, or the epoch in which its State goes on after a fork."""
    logs = client.get("/v1/federation")["logs"]
    after = {log["continues"]["origin"]: log["origin"] for log in logs if log["continues"] is not None}
    while origin in after:
        origin = after.pop(origin)
    return origin


def _follow(
    client: NodeClient,
    notice: dict[str, Any],
    main: dict[str, Any] | None,
    signer: Signer,
    kid: str,
    kind: Kind,
    *,
    exp: int | None = None,
    as_json: bool,
) -> None:
    """Sign a statement about a notice's current version, and post it."""
    from app.statements import forejudge, sign_notice  # noqa: PLC0415 - see `app.cli`

    origin = notice["origin"] if kind == "ack" else _continuing(client, notice["origin"])
    wire = sign_notice(main, signer, kid, origin, kind=kind, ref=notice["leaf_hash"], exp=exp)
    forejudge(wire)
    _post_one(client, json.dumps(wire).encode(), as_json=as_json)
