"""Making a node: its folder, keys, settings file, database and, once and for ever, its log.

A log begins here and nowhere else. A node that finds no log in its database refuses to start instead of beginning a
second tree under the same origin: that is how forks by accident happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from app import migrations
from app.db import Database
from app.domain.errors import NodeFault
from app.keyfiles import KeyCard, create_encryption_key, create_key, read_card
from app.models import LogRow
from app.settings import Settings, load, to_toml

if TYPE_CHECKING:
    from pathlib import Path

NODE_KEYS: Final = ("log", "witness", "transport", "node", "encryption")
"""Uses of the keys that live on the node. The contact point's key is the officer's and is made apart."""
SETTINGS_FILE: Final = "node.toml"
FIRST_START: Final = "first-start"
"""File that says: no leaf of this log was ever signed. The start-up gate (`app.replication.startup`) needs to ask nobody then."""


class NodeExists(NodeFault):
    """The folder holds a node already."""

    code = "node-exists"


def init_node(directory: Path, values: dict[str, object]) -> Settings:
    """Make a node in `directory`.

    Args:
        directory: created if missing; must not hold a node.
        values: settings to write; `data_dir` is set to the folder itself.

    Raises:
        NodeExists: there is a node, or its database has a log of this origin.
        UnsafeSettings: the values do not make valid settings; nothing was written.
    """
    path = directory / SETTINGS_FILE
    if path.exists():
        raise NodeExists(f"{path} exists: this folder holds a node. Choose another folder.")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".draft")
    draft.write_text(to_toml({"data_dir": ".", **values}), "utf-8")
    try:
        settings = load(draft, environment={})
        for use in NODE_KEYS:
            key = settings.keys_dir / f"{use}.key"
            if key.exists():
                continue
            if use == "encryption":
                create_encryption_key(key, f"{settings.state}/{use}/1")
            else:
                create_key(key, f"{settings.state}/{use}/1", use)
        begin_log(settings)
        (directory / FIRST_START).touch(mode=0o600)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return load(path, environment={})


def begin_log(settings: Settings) -> None:
    """Build the schema and begin the own log, of size zero.

    Raises:
        NodeExists: the database holds a log of this origin already.
    """
    db = Database(settings.database)
    try:
        migrations.upgrade(db)
        begin_own_log(db, settings)
    finally:
        db.dispose()


def begin_own_log(db: Database, settings: Settings) -> None:
    """Begin the own log, of size zero, in a database with the current schema.

    Raises:
        NodeExists: the database holds an own log already.
    """
    with db.write() as session:
        if session.execute(select(LogRow.id).where(LogRow.is_own)).first() is not None:
            raise NodeExists("The database holds an own log already. A node has one; use another database.")
        session.add(
            LogRow(
                origin=settings.origin,
                epoch=settings.epoch,
                state=settings.state,
                is_own=True,
                size=0,
                frontier=b"",
                judged=0,
                head_size=0,
                claimed_size=0,
                status="ok",
                backfilled=True,
            )
        )


def node_cards(settings: Settings) -> tuple[KeyCard, ...]:
    """The public halves of the node's keys, for its State's roster document.

    A node made before bodies could be sealed has no encryption key until one is made for it.
    """
    cards = (settings.keys_dir / f"{use}.key.pub" for use in NODE_KEYS)
    return tuple(read_card(card) for card in cards if card.name != "encryption.key.pub" or card.exists())
