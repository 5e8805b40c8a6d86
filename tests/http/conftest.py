"""A node's routes on both engines, without its loops. A file whose tests need another node has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.edge_node import Client, EdgeNode, make_app, open_node


@pytest.fixture
def node(database_url: str) -> Iterator[EdgeNode]:
    opened = open_node(database_url)
    yield opened
    opened.db.dispose()


@pytest.fixture
def client(node: EdgeNode) -> Client:
    return Client(make_app(node))
