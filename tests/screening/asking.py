"""Asking a node over HTTP, as member systems do."""

from __future__ import annotations

import json
from typing import Any

import httpx

from app import tokens
from app.domain.handling import Tlp
from tests import examples
from tests.federation.world import DAY, Peer

ACME: dict[str, Any] = {"schema": "Company", "properties": {"name": ["Borealis Signals Ltd"]}}


def token(peer: Peer, ceiling: Tlp = Tlp.RED, *scopes: str) -> dict[str, str]:
    """A fresh token's header; its scope is `screen` unless others are named."""
    with peer.db.write() as session:
        _, text = tokens.create(
            session,
            name="test",
            scopes=scopes or ("screen",),
            ceiling=ceiling,
            expires_at=peer.world.clock() + 100 * DAY * 1000,
            now_ms=peer.world.clock(),
        )
    return {"authorization": f"Bearer {text}"}


def denial(*names: str, role: str = "end_user", code: str = "5A001.j", **overrides: Any) -> dict[str, Any]:
    """A denial of one party."""
    body = {
        "parties": [{**examples.party(names[0], role), **overrides.pop("party", {})}],
        "items": [examples.item(code)],
        **overrides.pop("body", {}),
    }
    body["parties"][0]["ftm"]["properties"]["name"] = list(names)
    return examples.denied_end_user(body=body, **overrides)


def application(name: str = "Borealis Signals Ltd", **overrides: Any) -> dict[str, Any]:
    """An application for what `denial` denies."""
    base = {
        "parties": {"end_user": [{"schema": "Company", "properties": {"name": [name]}}]},
        "items": [examples.item()],
        "destination": "ZM",
        "stated_end_use": "Network planning",
    }
    return base | overrides


def screen(peer: Peer, document: Any, headers: dict[str, str], **params: Any) -> httpx.Response:
    """Post one screening; bytes go as they are."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return peer.request("POST", "/v1/screenings", content=raw, headers=headers, params=params)


def batch(peer: Peer, lines: bytes, headers: dict[str, str], **params: Any) -> list[dict[str, Any]]:
    """Post a batch; the answer's lines."""
    answer = peer.request("POST", "/v1/screenings/batch", content=lines, headers=headers, params=params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]
