"""Founding a small federation in a folder: nodes, keys of every kind, and a roster signed by the ceremony's own steps.

Everything is made as real States would make it, with the same functions; only that one hand holds all the keys. Assigning
the central contact's term is the demo's doing: no published source names the State that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.domain.roster import CentralContactTerm, ContactPoint, RosterLog
from app.domain.states import STATES
from app.keyfiles import FileSigner, KeyCard, card_path, create_key, load_private, read_card
from app.roster import ceremony
from app.roster.documents import StateDocument, StateKey
from app.roster.founding import subscribing_states
from app.settings import load
from app.setup import SETTINGS_FILE, init_node, node_cards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from app.settings import Settings

GRACE_S: Final = 3600
"""Keys count from an hour before the founding, so that clocks that differ a little do not refuse the first notices."""

# Where things lie in the federation's folder.
ROSTER: Final = "roster"
GOVERNANCE: Final = "governance"
ROOT_FILE: Final = "root.json"
OFFICER_KEY: Final = "officer/contact-point.key"


@dataclass(frozen=True, slots=True)
class Member:
    """One State of the federation to be founded.

    Attributes:
        port: on loopback.
        overrides: settings beyond the defaults, for instance `database_url`.
    """

    state: str
    port: int
    overrides: Mapping[str, object] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """A name for origins and keys; fictional, it is never looked up."""
        return f"{self.state.lower()}.verbale.example"

    @property
    def url(self) -> str:
        """Where the node is reached."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        """Origin of its log."""
        return f"{self.host}/log/1"


@dataclass(frozen=True, slots=True)
class FoundedNode:
    """A node ready to be served."""

    member: Member
    settings: Settings
    contact_key: Path
    contact_kid: str

    @property
    def settings_file(self) -> Path:
        """What `verbale serve` needs."""
        return self.settings.data_dir / SETTINGS_FILE


@dataclass(frozen=True, slots=True)
class Federation:
    """A founded federation.

    Attributes:
        root: file of the pinned roster root.
        repository: the roster's working repository (a node serves its own verified copy).
        online: keys that renew the roster's timestamp.
    """

    directory: Path
    root: Path
    repository: Path
    nodes: tuple[FoundedNode, ...]
    online: tuple[FileSigner, ...]

    def node(self, state: str) -> FoundedNode:
        """The node of a State."""
        return next(n for n in self.nodes if n.member.state == state)


def found(directory: Path, members: Sequence[Member], *, central: str, at: int) -> Federation:
    """Make the nodes and the roster. `directory` must be empty or missing.

    Args:
        central: the State that holds the demo's central-contact term.
        at: unix seconds.

    Raises:
        NodeExists, Malformed: the folder holds a federation already.
    """
    repository = directory / ROSTER
    governance_dir = directory / GOVERNANCE
    governance = {m.state: _key(governance_dir, m.state, "governance") for m in members}
    authority = {m.state: _key(governance_dir, m.state, "authority") for m in members}
    online = [_key(governance_dir, m.state, "online") for m in members[:2]]
    nodes = tuple(_node(directory, m, repository) for m in members)

    ceremony.init(
        repository,
        name="Verbale demo",
        states=subscribing_states(),
        governance=[card for _, card in governance.values()],
        online=[card for _, card in online],
        at=at,
    )
    for node in nodes:
        state = node.member.state
        ceremony.propose_state_document(
            repository, ceremony.FOUNDING, _document(node, at), at=at, authority=[authority[state][1]]
        )
    today = datetime.fromtimestamp(at, UTC).date()
    term = CentralContactTerm(
        central, today.isoformat(), (today + timedelta(days=365)).isoformat(), tuple(m.state for m in members)
    )
    ceremony.propose_central_contact(repository, ceremony.FOUNDING, term, at=at)
    for signer, _ in (*governance.values(), *authority.values(), *online):
        ceremony.sign(repository, ceremony.FOUNDING, signer, at=at)
    ceremony.publish(repository, ceremony.FOUNDING, at=at)

    root = directory / ROOT_FILE
    root.write_bytes((repository / "metadata" / "1.root.json").read_bytes())
    for node in nodes:
        node.settings.pinned_root.write_bytes(root.read_bytes())
    return Federation(directory, root, repository, nodes, tuple(signer for signer, _ in online))


def _key(directory: Path, state: str, use: str) -> tuple[FileSigner, KeyCard]:
    return create_key(directory / f"{state.lower()}-{use}.key", f"{state}/{use}/1", use)


def _node(directory: Path, member: Member, repository: Path) -> FoundedNode:
    code = member.state.lower()
    settings = init_node(
        directory / code,
        {
            "state": member.state,
            "origin": member.origin,
            "public_url": member.url,
            "listen_port": member.port,
            "roster_sources": [str(repository.resolve())],
            "insecure_demo": True,
            **member.overrides,
        },
    )
    contact_key = directory / code / OFFICER_KEY
    kid = f"{member.state}/cp/1"
    create_key(contact_key, kid, "notices")
    return FoundedNode(member, settings, contact_key, kid)


def _document(node: FoundedNode, at: int) -> StateDocument:
    member = node.member
    cards = (read_card(card_path(node.contact_key)), *node_cards(node.settings))
    return StateDocument(
        state=member.state,
        url=member.url,
        contact_point=ContactPoint(
            office=f"Demo contact point of {STATES[member.state].name}",
            email=f"contact@{member.host}",
            languages=("en",),
        ),
        logs=(RosterLog(member.origin, 1, f"{member.url}/log/1"),),
        keys=tuple(StateKey.of_card(card, active_from=at - GRACE_S) for card in cards),
        witness_name=f"{member.host}/witness",
    )


def reopen(directory: Path) -> Federation:
    """A federation that `found` made in `directory`, with its keys, ports and data.

    Raises:
        UnsafeKeyFile, UnsafeSettings: files are missing or were changed.
    """
    nodes = []
    for file in sorted(directory.glob(f"*/{SETTINGS_FILE}")):
        settings = load(file, environment={})
        member = Member(settings.state, settings.listen_port)
        contact_key = file.parent / OFFICER_KEY
        nodes.append(FoundedNode(member, settings, contact_key, read_card(card_path(contact_key)).kid))
    online = tuple(load_private(key) for key in sorted((directory / GOVERNANCE).glob("*-online.key")))
    return Federation(directory, directory / ROOT_FILE, directory / ROSTER, tuple(nodes), online)
