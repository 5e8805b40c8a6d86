"""`verbale keys`: keys of a contact point or a node, and the cards by which their public halves travel."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from app.cli.common import AsJson, SettingsFile, load_settings, print_json, read_file
from app.domain.errors import Malformed, UnacceptableKey, UnsafeKeyFile

if TYPE_CHECKING:
    from app.domain.roster import Roster
    from app.keyfiles import KeyCard
    from app.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, show and check keys of a contact point or a node.",
)

MAX_KEY_BYTES: Final = 64 * 2**10

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the key's passphrase.")
]


def passphrase_of(file: Path | None) -> bytes | None:
    """The first line of a passphrase file; None without one.

    Raises:
        UnsafeKeyFile: it is empty.
    """
    if file is None:
        return None
    lines = read_file(file, limit=MAX_KEY_BYTES).splitlines()
    if not lines or not lines[0]:
        raise UnsafeKeyFile(f"The first line of {file} is empty. Put the passphrase there.")
    return lines[0]


def ask_pin() -> str:
    """Ask a person for a token's PIN; it is shown nowhere."""
    return getpass.getpass("PIN of the token: ")


@app.command()
def card(
    key: Annotated[str, typer.Argument(help="The key: a pkcs11: URI (RFC 7512), or a file.")],
    output: Annotated[Path, typer.Argument(help="Where the card goes, for instance ee-cp.pub.")],
    kid: Annotated[str, typer.Option(help="The key's id, like EE/cp/1.")],
    use: Annotated[str, typer.Option(help="notices (a contact point), log, …")] = "notices",
    as_json: AsJson = False,
) -> None:
    """Write the card of a key that lies in a token: its public half, with proof that you hold the private one."""
    from app.hsm import open_key  # noqa: PLC0415 - see `app.cli`
    from app.keyfiles import KeyCard, write_exclusive  # noqa: PLC0415 - see `app.cli`

    made = KeyCard.make(open_key(key, ask_pin=ask_pin), kid, use)
    try:
        write_exclusive(output, made.to_line(), mode=0o644)
    except FileExistsError as error:
        raise UnsafeKeyFile(f"{output} exists already. Choose another name.") from error
    _show(made, None, as_json=as_json)


@app.command()
def new(
    file: Annotated[
        Path, typer.Argument(help="Where the private key goes; its card goes beside it as FILE.pub.")
    ],
    kid: Annotated[str, typer.Option(help="The key's id, like EE/cp/1.")],
    use: Annotated[
        str, typer.Option(help="notices (a contact point), log, witness, transport, node, encryption, …")
    ] = "notices",
    alg: Annotated[
        Literal["Ed25519", "ES256", "X-Wing", "X25519"] | None,
        typer.Option(help="Ed25519 by default, or ES256 (ECDSA on P-256); for encryption X-Wing, or X25519."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key: a private file (mode 0600, never overwritten) and a card that can be mailed."""
    from app.keyfiles import make_key  # noqa: PLC0415 - see `app.cli`

    card = make_key(file, kid, use, alg=alg, passphrase=passphrase_of(passphrase_file))
    _show(card, file, as_json=as_json)


@app.command()
def rotate(
    use: Annotated[str, typer.Argument(help="log, witness, transport, node or encryption.")],
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the node's next key of a kind, beside the one in use. The node changes over when the roster lists the new one."""
    from app.keyfiles import make_key  # noqa: PLC0415 - see `app.cli`
    from app.setup import NODE_KEYS  # noqa: PLC0415 - see `app.cli`

    if use not in NODE_KEYS:
        raise Malformed(
            f"A node holds keys for {', '.join(NODE_KEYS)}; other keys are made with `verbale keys new`."
        )
    settings = load_settings(settings_file)
    numbers = [_number(path, use) for path in settings.keys_dir.glob(f"{use}*.key.pub")]
    roster = _roster(settings)
    if roster is not None:
        numbers += [int(key.kid.rpartition("/")[2]) for key in roster.keys_of(settings.state, use)]  # type: ignore[arg-type]
    number = max(numbers, default=0) + 1
    file = settings.keys_dir / f"{use}-{number}.key"
    card = make_key(file, f"{settings.state}/{use}/{number}", use)
    _show(card, file, as_json=as_json)
    if not as_json:
        print(
            f"Next: verbale roster rotate DIR DRAFT {file}.pub; review, sign and publish it. No restart is needed."
        )


def _number(card: Path, use: str) -> int:
    """The number of the key whose card this is, by its key id."""
    from app.keyfiles import read_card  # noqa: PLC0415 - see `app.cli`

    read = read_card(card)
    return int(read.kid.rpartition("/")[2]) if read.use == use else 0


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A private key with its card beside it, or a card (.pub).")],
    as_json: AsJson = False,
) -> None:
    """Show a key's card and its fingerprint."""
    from app.keyfiles import card_path, read_card  # noqa: PLC0415 - see `app.cli`

    is_private = file.suffix != ".pub"
    card = read_card(card_path(file) if is_private else file)
    _show(card, file if is_private else None, as_json=as_json)


def _show(card: KeyCard, private: Path | None, *, as_json: bool) -> None:
    from app.keyfiles import card_path, fingerprint  # noqa: PLC0415 - see `app.cli`

    if as_json:
        where = {} if private is None else {"private": str(private), "card": str(card_path(private))}
        print_json({**card.to_dict(), **where, "fingerprint": fingerprint(card.key)})
        return
    if private is not None:
        print(f"{card.kid}, {card.use}, {card.key.alg}: private key {private}, card {card_path(private)}")
    else:
        print(f"{card.kid}, {card.use}, {card.key.alg}")
    print(card.to_line().decode().strip())
    digits = fingerprint(card.key)
    print("Fingerprint " + " ".join(digits[at : at + 8] for at in range(0, len(digits), 8)))


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Private keys; by default those of the node.")
    ] = None,
    settings_file: SettingsFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Check that private keys can be used: permissions, format, that the card beside each is its own.

    Without files, check the node's keys, and whether the roster the node holds lists them. Exit code 0: all is well.
    """
    if files:
        checked = [_check(file, None, passphrase_of(passphrase_file)) for file in files]
    else:
        from app.node_keys import ENCRYPTION_FILE, KEY_FILES  # noqa: PLC0415 - see `app.cli`

        settings = load_settings(settings_file)
        roster = _roster(settings)
        names = [*KEY_FILES.values(), "node.key"]
        checked = [_check(settings.keys_dir / name, roster, None, listed=True) for name in names]
        if (settings.keys_dir / ENCRYPTION_FILE).exists():
            checked.append(_check(settings.keys_dir / ENCRYPTION_FILE, roster, None, listed=True))
    if as_json:
        print_json(checked)
        return
    for key in checked:
        print(f"{key['kid']}: {key['file']} is sound; {key['roster']}")


def _check(
    file: Path, roster: Roster | None, passphrase: bytes | None, *, listed: bool = False
) -> dict[str, Any]:
    from app.keyfiles import (  # noqa: PLC0415 - see `app.cli`
        card_path,
        fingerprint,
        load_encryption_key,
        load_private,
        read_card,
    )

    card = read_card(card_path(file))
    if card.use == "encryption":
        public = load_encryption_key(file).public
    else:
        public = load_private(file, passphrase=passphrase).public
    if card.key != public:
        raise UnacceptableKey(
            f"The card {card_path(file)} is another key's than {file}. Find the right pair."
        )
    standing = "the roster was not asked"
    if listed and roster is None:
        standing = "the node holds no roster yet"
    elif roster is not None:
        entry = roster.key(card.state, card.kid)
        same = entry is not None and entry.key == card.key
        standing = f"roster version {roster.version} {'lists it' if same else 'does not list it'}"
    return {"file": str(file), "kid": card.kid, "fingerprint": fingerprint(card.key), "roster": standing}


def _roster(settings: Settings) -> Roster | None:
    from app.cli.store import kept_roster  # noqa: PLC0415 - see `app.cli`

    return kept_roster(settings)
