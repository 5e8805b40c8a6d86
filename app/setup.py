"""Making a node: its folder, keys, settings file, database and, once and for ever, its log.

A log begins here and nowhere else. A node that finds no log in its database refuses to start instead of beginning a
second tree under the same origin: that is how forks by accident happen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from app import migrations
from app.db import Database
from app.domain.errors import NodeFault, UnsafeSettings
from app.keyfiles import KeyCard, create_encryption_key, create_key, read_card
from app.models import LogRow, WatchRow
from app.settings import Settings, load, to_toml
from app.tlog.merkle import tree_root
from app.tlog.store import node_reader

if TYPE_CHECKING:
    from pathlib import Path

    from app.domain.roster import Roster

NODE_KEYS: Final = ("log", "witness", "transport", "node", "encryption")
"""Uses of the keys that live on the node. The contact point's key is the officer's and is made apart."""
SETTINGS_FILE: Final = "node.toml"
FIRST_START: Final = "first-start"
"""File that says: no leaf of this log was ever signed. The start-up gate (`app.replication.startup`) needs to ask nobody then."""


class NotEnded(NodeFault):
    """The roster does not say that the own log has ended and goes on in the next epoch, or it is not the log that is here."""

    code = "not-ended"


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
        session.add(_empty_log(settings.origin, settings.epoch, settings.state))


def _empty_log(origin: str, epoch: int, state: str) -> LogRow:
    return LogRow(
        origin=origin,
        epoch=epoch,
        state=state,
        is_own=True,
        size=0,
        frontier=b"",
        judged=0,
        head_size=0,
        claimed_size=0,
        status="ok",
        backfilled=True,
    )


def begin_next_epoch(settings: Settings, roster: Roster, *, now: int) -> str:
    """Go on with the next epoch of the own log in the same folder and database. Returns the new origin.

    The old log becomes a mirror of itself: frozen, readable, served as before. Everything else stays. The node must be stopped.
    Killed on the way, it is run again.

    Args:
        roster: in which the States have ended the log and the State lists the next.
        now: unix ms.

    Raises:
        NotEnded: the roster does not say so (yet), or the log here is not the one that was ended.
    """
    origins = {log.origin: log for log in roster.states[settings.state].logs}
    after = next(
        (
            log
            for log in origins.values()
            if log.status == "active" and (before := roster.continued(log.origin)) is not None
            if before.origin == settings.origin
        ),
        None,
    )
    if after is None:
        raise NotEnded(
            f"By the roster (version {roster.version}) no log continues {settings.origin}. First the majority ends it (verbale roster "
            "propose freeze-log … --size --root), then its State lists the next (verbale roster propose next-epoch)."
        )
    end, root = origins[settings.origin].end or 0, origins[settings.origin].end_root
    db = Database(settings.database)
    try:
        with db.write() as session:
            old = session.execute(
                select(LogRow.id, LogRow.size).where(LogRow.origin == settings.origin)
            ).one_or_none()
            if old is None or (old.size >= end and tree_root(node_reader(session, old.id), end) != root):
                raise NotEnded(
                    f"The database does not hold {settings.origin} as the States have ended it at size {end}. Make a new node for "
                    f"{after.origin} in a folder of its own: verbale node init."
                )
            new = session.execute(
                select(LogRow.id, LogRow.size, LogRow.is_own).where(LogRow.origin == after.origin)
            ).one_or_none()
            if new is not None and new.size > 0 and not new.is_own:
                raise NotEnded(f"{after.origin} has {new.size} leaves already: another node has begun it.")
            session.execute(
                update(LogRow).where(LogRow.id == old.id).values(is_own=False, status="frozen", end_size=end)
            )
            if new is None:
                session.add(_empty_log(after.origin, after.epoch, settings.state))
            else:
                session.execute(
                    update(LogRow)
                    .where(LogRow.id == new.id)
                    .values(is_own=True, status="ok", backfilled=True)
                )
            watched = session.execute(select(WatchRow).where(WatchRow.log_id == old.id)).scalar_one_or_none()
            if watched is not None:
                watched.closed_at, watched.frozen_at = None, watched.frozen_at or now
    finally:
        db.dispose()
    (settings.data_dir / FIRST_START).touch(mode=0o600)
    return after.origin


def set_origin(file: Path, origin: str) -> None:
    """Write another origin into a settings file; everything else in it stays as it is.

    Raises:
        UnsafeSettings: the file does not set it on a line of its own.
    """
    text, count = re.subn(
        r'(?m)^origin\s*=\s*"[^"\n]*"', f'origin = "{origin}"', file.read_text("utf-8"), count=1
    )
    if count != 1:
        raise UnsafeSettings(f'{file} has no line origin = "…". Set it to "{origin}" by hand.')
    draft = file.with_suffix(".draft")
    draft.write_text(text, "utf-8")
    draft.replace(file)


def node_cards(settings: Settings) -> tuple[KeyCard, ...]:
    """The public halves of the node's keys, for its State's roster document.

    A node made before bodies could be sealed has no encryption key until one is made for it.
    """
    cards = (settings.keys_dir / f"{use}.key.pub" for use in NODE_KEYS)
    return tuple(read_card(card) for card in cards if card.name != "encryption.key.pub" or card.exists())
