"""`verbale roster`: keys, proposals, reviews and signatures of the roster, and a look at it.

Commands raise VerbaleError; `app.cli` prints it and maps it to an exit code. `check` alone has two codes of its own (10, 11).
Nothing here decides anything: the rules are in `app.roster`.
"""

from __future__ import annotations

import getpass
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from app.cli.keys import ask_pin
from app.domain.encoding import b64u_decode
from app.domain.errors import Malformed, NonCanonicalEncoding, UnsafeKeyFile
from app.domain.roster import CentralContactTerm, ContactPoint, RosterLog
from app.domain.times import utc_day
from app.hsm import open_key
from app.keyfiles import KID_SEGMENTS, card_path, fingerprint, make_key, read_card
from app.roster import ceremony, layout
from app.roster.documents import FrozenLog, Membership, StateDocument, StateKey
from app.roster.founding import subscribing_states
from app.roster.review import day, review, spoken
from app.roster.verify import VerifiedRoster

app = typer.Typer(no_args_is_help=True, help="Membership: propose, review, sign and publish the roster.")
propose = typer.Typer(
    no_args_is_help=True, help="Put a change into a draft. Nothing is signed or published by it."
)
app.add_typer(propose, name="propose")

CHECK_FINE = 0
CHECK_SOON = 10
CHECK_EXPIRED = 11

Repository = Annotated[Path, typer.Argument(help="The roster repository: a directory.")]
DraftName = Annotated[str, typer.Argument(help="The draft's name, for instance accession-jp.")]
At = Annotated[
    int | None,
    typer.Option("--at", help="Unix seconds to use instead of this machine's clock, where that is wrong."),
]
PinnedRoot = Annotated[
    Path | None,
    typer.Option("--roster-root", help="The root you trust; by default the repository's first one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the key's passphrase.")
]
AskPassphrase = Annotated[bool, typer.Option("--ask-passphrase", help="Ask for the key's passphrase.")]


def _now(at: int | None) -> int:
    return int(time.time()) if at is None else at


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise Malformed(f"Cannot read {path}: {error.strerror}.") from error


def _passphrase(file: Path | None, ask: bool) -> bytes | None:
    if file is not None:
        lines = (_read(file) or b"").splitlines()
        if not lines or not lines[0]:
            raise UnsafeKeyFile(f"The first line of {file} is empty. Put the passphrase there.")
        return lines[0]
    return getpass.getpass("Passphrase: ").encode() if ask else None


def _print(value: Any, *, as_json: bool, lines: list[str]) -> None:  # noqa: ANN401 - any JSON value
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for line in lines:
            print(line)


def _current(repository: Path, pinned_root: Path | None) -> VerifiedRoster:
    verified = ceremony.current(repository, _read(pinned_root))
    if verified is None:
        raise Malformed(f"{repository} holds no published roster. Begin with `verbale roster init`.")
    return verified


# ── keys and documents ────────────────────────────────────────────────────────────────────────────────────────────


@app.command()
def keygen(
    path: Annotated[
        Path, typer.Argument(help="Where the private key goes; its card goes beside it as PATH.pub.")
    ],
    kid: Annotated[str, typer.Option(help="The key's id, for instance EE/governance/1.")],
    use: Annotated[str, typer.Option(help=f"One of: {', '.join(KID_SEGMENTS)}.")],
    alg: Annotated[
        Literal["Ed25519", "ES256", "X-Wing", "X25519"] | None,
        typer.Option(help="Ed25519 by default, or ES256 (ECDSA on P-256); for encryption X-Wing, or X25519."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    as_json: AsJson = False,
) -> None:
    """Make a key: a private file (mode 0600, never overwritten) and a card that can be mailed."""
    card = make_key(path, kid, use, alg=alg, passphrase=_passphrase(passphrase_file, ask_passphrase))
    lines = [f"{card.kid}: private key {path}, card {card_path(path)}", f"Fingerprint {spoken(card.key)}"]
    value = {
        **card.to_dict(),
        "private": str(path),
        "card": str(card_path(path)),
        "fingerprint": fingerprint(card.key),
    }
    _print(value, as_json=as_json, lines=lines)


@app.command("state-document")
def state_document(
    state: Annotated[str, typer.Option(help="The State's code, for instance EE.")],
    output: Annotated[Path, typer.Option(help="Where the document goes.")],
    key: Annotated[list[Path] | None, typer.Option(help="A card to list; repeat for each key.")] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Start from what is published there: past keys stay.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The node's base URL.")] = None,
    origin: Annotated[
        str | None, typer.Option(help="The log's origin, for instance ee.example/log/1.")
    ] = None,
    log_url: Annotated[str | None, typer.Option(help="The log's base URL; by default URL/log/EPOCH.")] = None,
    witness_name: Annotated[str | None, typer.Option(help="The name this node cosigns under.")] = None,
    office: Annotated[str | None, typer.Option(help="The contact point: an office, not a person.")] = None,
    email: Annotated[str | None, typer.Option()] = None,
    phone: Annotated[str | None, typer.Option()] = None,
    language: Annotated[list[str] | None, typer.Option(help="Repeat for each, for instance en.")] = None,
    hours: Annotated[str | None, typer.Option(help="When somebody answers, with the time zone.")] = None,
    end: Annotated[
        list[str] | None, typer.Option(help="End this listed key now; repeat for each key id.")
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write a State's document from the cards of its keys, ready for `propose state-document`."""
    moment = _now(at)
    document = StateDocument(state)
    if repository is not None and (published := ceremony.current(repository)) is not None:
        document = published.states.get(state, document)
    keys = list(document.keys)
    for kid in end or []:
        if kid not in {k.entry.kid for k in keys}:
            raise Malformed(f"{kid} is not listed in the published document of {state}.")
    keys = [_ended(k, moment) if k.entry.kid in (end or []) else k for k in keys]
    cards = [read_card(path) for path in key or []]
    keys += [StateKey.of_card(card, active_from=moment) for card in cards]
    url = url or document.url
    logs = list(document.logs)
    if origin is not None:
        epoch = int(origin.rpartition("/")[2]) if origin.rpartition("/")[2].isdigit() else 0
        logs = [log for log in logs if log.origin != origin]
        logs.append(RosterLog(origin, epoch, log_url or f"{url}/log/{epoch}"))
    contact = document.contact_point
    if office is not None and email is not None:
        contact = ContactPoint(office, email, phone, tuple(language or ()), hours)
    document = StateDocument(
        state, url, contact, tuple(logs), tuple(keys), witness_name or document.witness_name
    )
    document = StateDocument.parse(document.to_bytes())
    output.write_bytes(document.to_bytes())
    lines = [f"{output}: document of {state} with {len(keys)} keys. Review it, then propose it."]
    _print(document.to_json(), as_json=as_json, lines=lines)


def _ended(key: StateKey, at: int) -> StateKey:
    return replace(key, entry=replace(key.entry, active_to=at))


@app.command()
def init(
    repository: Repository,
    name: Annotated[str, typer.Option(help="The federation's name.")],
    governance: Annotated[list[Path], typer.Option(help="The card of a founder's governance key; repeat.")],
    online: Annotated[
        list[Path], typer.Option(help="The card of an online key; two or more outside a demo.")
    ],
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Begin a federation of the Subscribing States: makes the draft `founding`, to be signed by its founders."""
    draft = ceremony.init(
        repository,
        name=name,
        states=subscribing_states(),
        governance=[read_card(path) for path in governance],
        online=[read_card(path) for path in online],
        at=_now(at),
    )
    _show_draft(draft, as_json)


# ── proposals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _show_draft(draft: ceremony.Draft, as_json: bool) -> None:
    made = review(draft)
    lines = list(made.lines) or ["No change in content."]
    lines += ["", "Would publish:", *(f"  {line}" for line in made.renewals)]
    if made.warnings:
        lines += ["", *(f"Warning: {line}" for line in made.warnings)]
    lines += ["", "Signatures:"]
    for s in made.signatures:
        more = f"needs {s.needed} more of {', '.join(s.missing)}" if s.needed else "complete"
        lines.append(f"  {s.role}: {len(s.signed)} ({', '.join(s.signed) or 'none'}), {more}")
    if not draft.sealed:
        lines.append("  then the online keys sign snapshot and timestamp")
    _print(made.to_json(), as_json=as_json, lines=lines)


@propose.command("state-document")
def propose_state_document(
    repository: Repository,
    draft: DraftName,
    document: Annotated[Path, typer.Argument(help="The State document.")],
    authority: Annotated[
        list[Path] | None,
        typer.Option(help="Card of the State's authority key: on accession, or to replace it."),
    ] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Add or replace a State's own document."""
    parsed = StateDocument.parse(_read(document) or b"", strict=False)
    made = ceremony.propose_state_document(
        repository,
        draft,
        parsed,
        at=_now(at),
        authority=[read_card(path) for path in authority or []],
        pinned_root=_read(pinned_root),
    )
    _show_draft(made, as_json)


@propose.command("membership")
def propose_membership(
    repository: Repository,
    draft: DraftName,
    code: Annotated[str, typer.Argument(help="The State's code.")],
    status: Annotated[Literal["member", "suspended", "withdrawn"], typer.Argument()],
    accede: Annotated[str | None, typer.Option(help="For a new State: its name.")] = None,
    joined: Annotated[
        str | None, typer.Option(help="For a new State: the day it joined, like 2026-05-01.")
    ] = None,
    end: Annotated[
        list[str] | None,
        typer.Option(help="ORIGIN=INDEX, the first leaf that does not count; for each log, unless a member."),
    ] = None,
    left: Annotated[
        str | None,
        typer.Option(
            help="Unless a member: the first day of which its witness vouches for nothing; today if not given."
        ),
    ] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Set a State's status, or list a new State (--accede NAME --joined DATE)."""
    if (accede is None) != (joined is None):
        raise Malformed("A new State needs both --accede and --joined.")
    state = Membership(code, accede, joined, status) if accede is not None and joined is not None else None
    made = ceremony.propose_membership(
        repository,
        draft,
        code,
        status,
        at=_now(at),
        state=state,
        ends=dict(_end(text) for text in end or []),
        left=left,
        pinned_root=_read(pinned_root),
    )
    _show_draft(made, as_json)


def _end(text: str) -> tuple[str, int]:
    origin, _, index = text.rpartition("=")
    if not origin or not index.isascii() or not index.isdigit():
        raise Malformed(f"{text!r} is not ORIGIN=INDEX, like ee.example/log/1=2046.")
    return origin, int(index)


@app.command()
def rotate(
    repository: Repository,
    draft: DraftName,
    card: Annotated[Path, typer.Argument(help="The new key's card (.pub); its use says what is rotated.")],
    replaces: Annotated[
        str | None, typer.Option(help="Key id to end; needed where several of that use count.")
    ] = None,
    overlap: Annotated[int, typer.Option(help="Hours for which both keys count.", min=0)] = 24,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List a new key and end the one it replaces, whatever its kind; then review, sign and publish.

    A State's own keys need its authority key; authority, governance and online keys need the majority.
    """
    made = ceremony.propose_rotation(
        repository,
        draft,
        read_card(card),
        at=_now(at),
        replaces=replaces,
        overlap_s=overlap * 3600,
        pinned_root=_read(pinned_root),
    )
    _show_draft(made, as_json)


@app.command()
def revoke(
    repository: Repository,
    draft: DraftName,
    kid: Annotated[str, typer.Argument(help="The key's id, for instance EE/cp/1.")],
    at_index: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="First index of the State's log at which it does not count; of a key that signs no leaf and no head: 0.",
        ),
    ] = None,
    suspect_from: Annotated[
        int | None,
        typer.Option(
            help="Unix seconds: what it signed since is shown as to be reconfirmed. Of a witness key: what it cosigned before "
            "still tells the time."
        ),
    ] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a State's key from an index on, for good: the answer to a stolen one. Leaves below the index stay valid."""
    made = ceremony.propose_revocation(
        repository,
        draft,
        kid,
        at_index=at_index,
        suspect_from=suspect_from,
        at=_now(at),
        pinned_root=_read(pinned_root),
    )
    _show_draft(made, as_json)


@propose.command("central-contact")
def propose_central_contact(
    repository: Repository,
    draft: DraftName,
    state: Annotated[str, typer.Argument(help="The State's code.")],
    start: Annotated[str, typer.Argument(help="First day, like 2027-01-01.")],
    until: Annotated[
        str | None, typer.Option("--until", help="First day after the term; open if left out.")
    ] = None,
    confirmed_by: Annotated[list[str] | None, typer.Option(help="A State that confirmed it; repeat.")] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Add a term of the central contact; an open term before it ends the day this one begins."""
    term = CentralContactTerm(state, start, until, tuple(confirmed_by or ()))
    made = ceremony.propose_central_contact(
        repository, draft, term, at=_now(at), pinned_root=_read(pinned_root)
    )
    _show_draft(made, as_json)


@propose.command("governance-key")
def propose_governance_key(
    repository: Repository,
    draft: DraftName,
    add: Annotated[Path | None, typer.Option(help="Card of the new key.")] = None,
    remove: Annotated[
        str | None, typer.Option(help="Key id to remove; with --add, the key it replaces.")
    ] = None,
    resign_targets: Annotated[
        bool, typer.Option(help="Put targets into the draft for re-signing under the new root.")
    ] = True,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Add, remove or replace a State's governance key; the threshold follows."""
    if add is None and remove is None:
        raise Malformed("Give --add, --remove or both.")
    made = ceremony.propose_governance_key(
        repository,
        draft,
        at=_now(at),
        add=read_card(add) if add else None,
        remove=remove,
        resign_targets=resign_targets,
        pinned_root=_read(pinned_root),
    )
    _show_draft(made, as_json)


@propose.command("online-keys")
def propose_online_keys(
    repository: Repository,
    draft: DraftName,
    online: Annotated[list[Path], typer.Argument(help="Cards of all online keys from now on.")],
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys that sign snapshot and timestamp."""
    cards = [read_card(path) for path in online]
    made = ceremony.propose_online_keys(repository, draft, cards, at=_now(at), pinned_root=_read(pinned_root))
    _show_draft(made, as_json)


@propose.command("freeze-log")
def propose_freeze_log(
    repository: Repository,
    draft: DraftName,
    origin: Annotated[str, typer.Argument(help="The log's origin.")],
    reason: Annotated[str, typer.Option(help="Why, for those who sign.")],
    size: Annotated[
        int | None,
        typer.Option(min=0, help="End it for good at this size; with --root. Leaves beyond do not count."),
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="The root at that size, as `verbale federation` shows it (base64url).")
    ] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Freeze a log by threshold, for instance after its key was stolen; and say at which size it has ended."""
    if (size is None) != (root is None):
        raise typer.BadParameter("give --size and --root together")
    moment = _now(at)
    since = utc_day(moment)
    try:
        digest = None if root is None else b64u_decode(root)
    except NonCanonicalEncoding as error:
        raise typer.BadParameter(
            "--root is no base64url: take it as `verbale federation` prints it"
        ) from error
    frozen = FrozenLog(origin, since, reason, size, digest)
    made = ceremony.propose_frozen_log(repository, draft, frozen, at=moment, pinned_root=_read(pinned_root))
    _show_draft(made, as_json)


@propose.command("next-epoch")
def propose_next_epoch(
    repository: Repository,
    draft: DraftName,
    origin: Annotated[str, typer.Argument(help="The new log's origin, for instance ee.example/log/2.")],
    url: Annotated[
        str | None, typer.Option(help="Where it is served; by default log/<epoch> at the State's node.")
    ] = None,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List a State's next log, which continues the one that the States have ended."""
    made = ceremony.propose_next_epoch(
        repository, draft, origin, at=_now(at), url=url, pinned_root=_read(pinned_root)
    )
    _show_draft(made, as_json)


@propose.command("renewal")
def propose_renewal(
    repository: Repository,
    draft: DraftName,
    roles: Annotated[list[str], typer.Argument(help="root, targets or state-<cc>.")],
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Have roles signed again unchanged, before they expire."""
    made = ceremony.propose_renewal(repository, draft, roles, at=_now(at), pinned_root=_read(pinned_root))
    _show_draft(made, as_json)


@propose.command("refresh")
def propose_refresh(
    repository: Repository,
    draft: Annotated[str, typer.Argument(help="The draft's name.")] = ceremony.REFRESH,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Renew the timestamp, and the snapshot when due; the online keys sign it."""
    made = ceremony.propose_refresh(repository, draft, at=_now(at), pinned_root=_read(pinned_root))
    _show_draft(made, as_json)


# ── reading, signing, publishing ──────────────────────────────────────────────────────────────────────────────────


@app.command("review")
def review_command(
    repository: Repository, draft: DraftName, pinned_root: PinnedRoot = None, as_json: AsJson = False
) -> None:
    """Show what a draft changes, line by line, and who has signed it. Read this before you sign."""
    _show_draft(ceremony.load_draft(repository, draft, _read(pinned_root)), as_json)


@app.command()
def sign(
    repository: Repository,
    draft: DraftName,
    key: Annotated[str, typer.Option(help="The private key: a file, or a pkcs11: URI (RFC 7512).")],
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Add one key's signature to a draft."""
    signer = open_key(key, passphrase=_passphrase(passphrase_file, ask_passphrase), ask_pin=ask_pin)
    roles = ceremony.sign(repository, draft, signer, at=_now(at), pinned_root=_read(pinned_root))
    text = f"Signed {', '.join(roles)}." if roles else "This key had signed already; nothing changed."
    made = ceremony.load_draft(repository, draft, _read(pinned_root))
    lines = [text]
    lines += [
        f"{s.role} needs {s.needed} more of {', '.join(s.missing)}"
        for s in ceremony.signature_status(made)
        if s.needed
    ]
    _print({"signed": list(roles), "review": review(made).to_json()}, as_json=as_json, lines=lines)


@app.command()
def publish(
    repository: Repository,
    draft: DraftName,
    pinned_root: PinnedRoot = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Verify a fully signed draft as a stranger would, and make it the roster."""
    verified = ceremony.publish(repository, draft, at=_now(at), pinned_root=_read(pinned_root))
    roster = verified.roster
    lines = [f"Roster version {roster.version} is published; it counts until {day(roster.expires)}."]
    _print(
        {"version": roster.version, "sha256": roster.sha256, "expires": roster.expires},
        as_json=as_json,
        lines=lines,
    )


@app.command()
def show(
    repository: Repository, pinned_root: PinnedRoot = None, at: At = None, as_json: AsJson = False
) -> None:
    """Show the published roster: States, nodes, keys, terms, and drafts under way."""
    verified = _current(repository, pinned_root)
    roster = verified.roster
    today = utc_day(_now(at))
    holder = roster.central_contact(today)
    if as_json:
        value = {
            "version": roster.version,
            "sha256": roster.sha256,
            "expires": roster.expires,
            "expiries": dict(verified.expiries),
            "central_contact": holder,
            "quorum": roster.quorum(),
            "federation": verified.federation.to_json(),
            "states": {code: document.to_json() for code, document in sorted(verified.states.items())},
            "drafts": list(ceremony.drafts(repository)),
        }
        _print(value, as_json=True, lines=[])
        return
    table = Table(title=f"{verified.federation.name}, roster version {roster.version}")
    for column in ("State", "Name", "Status", "Joined", "Node", "Keys"):
        table.add_column(column)
    for state in roster.states.values():
        name = f"{state.name} (central contact)" if state.code == holder else state.name
        keys = ", ".join(key.kid.partition("/")[2] for key in state.keys)
        table.add_row(state.code, name, state.status, state.joined, state.url or "", keys)
    console = Console()
    console.print(table)
    console.print(
        f"Counts until {day(roster.expires)}. Quorum {roster.quorum()}. SHA-256 {roster.sha256}",
        soft_wrap=True,
    )
    if under_way := ceremony.drafts(repository):
        console.print(f"Drafts under way: {', '.join(under_way)}")


@app.command()
def check(
    repository: Repository, pinned_root: PinnedRoot = None, at: At = None, as_json: AsJson = False
) -> None:
    """Verify the published roster and warn before anything in it expires.

    Exit code 0: nothing to do. 10: something expires within 60 days (root, targets, States) or within a third of its
    lifetime (snapshot, timestamp). 11: something has expired. 1: the roster does not verify.
    """
    verified = _current(repository, pinned_root)
    moment = _now(at)
    entries: list[dict[str, str | int]] = []
    lines = []
    worst = CHECK_FINE
    for role, end in sorted(verified.expiries.items(), key=lambda item: item[1]):
        level, days = layout.expiry_level(role, end, moment), (end - moment) // 86400
        worst = max(worst, {"fine": CHECK_FINE, "expired": CHECK_EXPIRED}.get(level, CHECK_SOON))
        entries.append({"role": role, "expires": end, "days": days, "level": level})
        lines.append(f"{role}: {level}, counts until {day(end)} ({days} days)")
    _print({"version": verified.roster.version, "roles": entries}, as_json=as_json, lines=lines)
    if worst:
        raise typer.Exit(worst)
