"""The roster's ceremonies as drills hold them: the States' offline keys lie in the federation's folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.demo.found import GOVERNANCE
from app.keyfiles import card_path, create_key, load_private, read_card
from app.roster import ceremony

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from app.drill.field import Field
    from app.keyfiles import FileSigner, KeyCard


def new_key(directory: Path, state: str, use: str, number: int) -> Path:
    """A new key with its card; returns its file."""
    segment = {"notices": "cp"}.get(use, use)
    file = directory / f"{state.lower()}-{segment}-{number}.key"
    create_key(file, f"{state}/{segment}/{number}", use)
    return file


def cards(file: Path) -> KeyCard:
    """The card beside a key."""
    return read_card(card_path(file))


def offline_key(field: Field, state: str, use: str) -> FileSigner:
    """A State's governance, authority or online key."""
    return load_private(field.federation.directory / GOVERNANCE / f"{state.lower()}-{use}.key")


def finish(field: Field, draft: str, *, authority: str | None = None, governance: Iterable[str] = ()) -> int:
    """Sign a draft with the keys named and the online keys, publish it, and return the roster's version."""
    repository, now = field.federation.repository, int(time.time())
    if authority is not None:
        ceremony.sign(repository, draft, offline_key(field, authority, "authority"), at=now)
    for state in governance:
        ceremony.sign(repository, draft, offline_key(field, state, "governance"), at=now)
    for signer in field.federation.online:
        ceremony.sign(repository, draft, signer, at=now)
    version = ceremony.publish(repository, draft, at=now).roster.version
    field.report.quote(f"Roster version {version} is published")
    return version


def adopt(field: Field, version: int) -> None:
    """Wait until every node that runs has this roster."""
    field.wait(
        f"roster version {version} adopted by {' '.join(field.nodes)}",
        lambda: all(roster_version(field, state) >= version for state in field.nodes),
    )


def roster_version(field: Field, state: str) -> int:
    """The version of the roster that a State's node holds."""
    version: int = field.apis[state].json("/v1/federation")["roster"]["version"]
    return version
