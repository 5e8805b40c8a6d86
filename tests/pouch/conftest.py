"""Two States with a wire between them and one without: founded with a real roster, driven step by step."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from app.demo.found import Federation, Member, found
from app.domain.errors import VerbaleError
from app.domain.keys import Signer
from app.keyfiles import load_private
from app.models import EntryRow, LogRow
from app.node import Node
from app.settings import Settings
from app.setup import begin_log
from app.statements import sign_notice
from tests import examples


def clock() -> int:
    """The machine's time, unix ms: officers sign by it, and these tests are about nothing that depends on it."""
    return int(time.time() * 1000)


@dataclass
class State:
    """One State's node, opened when something is done with it."""

    code: str
    settings: Settings
    signer: Signer
    root: Path

    @property
    def origin(self) -> str:
        return self.settings.origin

    def opened(self) -> Node:
        node = Node(self.settings, clock=clock).open()
        node.refresh_roster()
        return node

    def post(self, titles: Sequence[str], **overrides: Any) -> None:
        """Post notices with these titles, and sign the head."""
        lines = [
            orjson.dumps(
                sign_notice(
                    examples.denied_end_user(issuer=self.code, title=title, **overrides),
                    self.signer,
                    f"{self.code}/cp/1",
                    self.origin,
                )
            )
            for title in titles
        ]
        node = self.opened()
        assert node.sequencer is not None
        node.sequencer.start()
        try:
            answers = asyncio.run(node.submit_many(lines))
            assert not [a for a in answers if isinstance(a, VerbaleError)]
            node.publish()
        finally:
            node.stop()

    def seal(self) -> None:
        node = self.opened()
        try:
            while node.seal():
                pass
        finally:
            node.stop()

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Origin → proven, judged."""
        with self.database() as db, db.read() as session:
            rows = session.execute(select(LogRow.origin, LogRow.head_size, LogRow.judged)).all()
        return {row.origin: (row.head_size, row.judged) for row in rows}

    def body_states(self, origin: str) -> list[str]:
        with self.database() as db, db.read() as session:
            return list(
                session.scalars(
                    select(EntryRow.body_state)
                    .join(LogRow, LogRow.id == EntryRow.log_id)
                    .where(LogRow.origin == origin)
                    .order_by(EntryRow.idx)
                )
            )

    def database(self) -> Any:
        from app.cli.common import open_database

        return open_database(self.settings)


@dataclass
class Three:
    """EE and US are connected; NL hears of them by pouch alone."""

    federation: Federation
    ee: State
    nl: State
    us: State


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    members = [Member(code, 1000 + n) for n, code in enumerate(("EE", "NL", "US"))]
    return found(tmp_path_factory.mktemp("pouch") / "federation", members, central="NL", at=clock() // 1000)


@pytest.fixture
def three(founded: Federation, tmp_path: Path) -> Three:
    return _three(founded, tmp_path, lambda _: None)


@pytest.fixture(params=["sqlite", "postgresql"])
def three_on_both(request: pytest.FixtureRequest, founded: Federation, tmp_path: Path) -> Three:
    if request.param == "sqlite":
        return _three(founded, tmp_path, lambda _: None)
    fresh: Callable[[str | None], str] = request.getfixturevalue("fresh_pg_database")
    schema = request.getfixturevalue("migrated_postgresql")
    return _three(founded, tmp_path, lambda _: fresh(schema))


def _three(founded: Federation, tmp_path: Path, url: Callable[[str], str | None]) -> Three:
    states = (copied(founded, code, tmp_path, url(code)) for code in ("EE", "NL", "US"))
    return Three(founded, *states)


def copied(founded: Federation, code: str, directory: Path, url: str | None = None) -> State:
    """A founded State's node in a folder of its own, and on its own database if one is given."""
    node = founded.node(code)
    target = directory / code.lower()
    shutil.copytree(node.settings.data_dir, target)
    settings = replace(node.settings, data_dir=target, background=False)
    if url is not None:
        settings = replace(settings, database_url=url)
        begin_log(settings)
    return State(code, settings, load_private(node.contact_key), founded.root)
