"""The federation that outside verifiers look at, and the roster as python-tuf's own client gets it from one of its nodes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.live import STATES, Live, founded
from tests.interop.served import ServedLog, vkey
from tests.interop.stock_roster import download, only_key_of


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three nodes, running, done with their work. Tests only read."""
    with founded(tmp_path_factory.mktemp("interop")) as running:
        yield running


@pytest.fixture(scope="session")
def documents(live: Live, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """State → its document, by python-tuf's client from NL's node and the pinned root: where every key here comes from."""
    names = [f"states/{state.lower()}.json" for state in STATES]
    files = download(f"{live.urls['NL']}/roster", live.root, tmp_path_factory.mktemp("roster"), names)
    return {state: json.loads(files[name]) for state, name in zip(STATES, names, strict=True)}


@pytest.fixture(scope="session")
def log_key(live: Live, documents: dict[str, Any]) -> bytes:
    """The raw Ed25519 key of EE's log."""
    return only_key_of(documents["EE"], "log")


@pytest.fixture(scope="session")
def log_vkey(live: Live, log_key: bytes) -> str:
    """The verifier key of EE's log."""
    return vkey(live.origins["EE"], log_key)


@pytest.fixture
def served(live: Live) -> Iterator[ServedLog]:
    """EE's log, read as anybody may."""
    with ServedLog(live.log) as log:
        yield log


@pytest.fixture(scope="session")
def leaves(live: Live) -> list[bytes]:
    """All of EE's leaves, from its entry bundles."""
    with ServedLog(live.log) as log:
        return log.leaves(log.head().size)
