"""API tokens: what is stored, what counts, what is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from app import tokens
from app.db import Database
from app.domain.errors import MalformedRequest, NotAuthenticated, NotFound
from app.domain.handling import Tlp
from app.models import ApiTokenRow

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.dispose()


def make(db: Database, **changes: object) -> tuple[tokens.Token, str]:
    values = {
        "name": "licensing",
        "scopes": ["subscribe", "read"],
        "ceiling": Tlp.AMBER,
        "expires_at": NOW_MS + DAY_MS,
    }
    with db.write() as session:
        return tokens.create(session, now_ms=NOW_MS, **(values | changes))  # type: ignore[arg-type]  # per test


def test_a_token_stands_for_its_state_scopes_and_ceiling(db: Database) -> None:
    token, text = make(db)
    principal = tokens.authenticate(db, text, state="EE", now_ms=NOW_MS)
    assert (principal.kind, principal.state, principal.ceiling) == ("token", "EE", Tlp.AMBER)
    assert principal.scopes == {"read", "subscribe"}
    assert principal.id == token.id
    assert text.startswith(f"vbl_{token.id}_")


def test_the_secret_is_stored_nowhere(db: Database) -> None:
    _, text = make(db)
    secret = text.rsplit("_", 1)[1] if text.count("_") == 2 else text.split("_", 2)[2]
    with db.read() as session:
        row = session.scalars(select(ApiTokenRow)).one()
        kept = repr(vars(row)).encode()
    assert secret.encode() not in kept
    assert len(row.secret_hash) == 32


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(db: Database) -> None:
    token, text = make(db)
    _, other = make(db)
    expired_by = NOW_MS + DAY_MS
    said = set()
    altered = [
        "", "vbl_", text[:-1], text[:-1] + ("A" if text[-1] != "A" else "E"), text.upper(), text + "A", "Bearer " + text,
        text.split("_", 2)[0] + "_" + other.split("_", 2)[1] + "_" + text.split("_", 2)[2],
    ]  # fmt: skip
    attempts = [(t, NOW_MS) for t in altered] + [(text, expired_by)]
    for attempt, at in attempts:
        with pytest.raises(NotAuthenticated) as refusal:
            tokens.authenticate(db, attempt, state="EE", now_ms=at)
        said.add(str(refusal.value))
    with db.write() as session:
        assert tokens.revoke(session, token.id, now_ms=NOW_MS + 1).revoked_at == NOW_MS + 1
        assert tokens.revoke(session, token.id, now_ms=NOW_MS + 2).revoked_at == NOW_MS + 1
    with pytest.raises(NotAuthenticated) as refusal:
        tokens.authenticate(db, text, state="EE", now_ms=NOW_MS)
    assert said | {str(refusal.value)} == said
    assert len(said) == 1


def test_use_is_noted_once_a_minute(db: Database) -> None:
    _, text = make(db)

    def noted(at: int) -> int | None:
        tokens.authenticate(db, text, state="EE", now_ms=at)
        with db.read() as session:
            return tokens.listed(session)[0].last_used_at

    assert noted(NOW_MS) == NOW_MS
    assert noted(NOW_MS + 59_999) == NOW_MS
    assert noted(NOW_MS + 60_000) == NOW_MS + 60_000


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": "x" * 101}, {"scopes": []}, {"scopes": ["read", "write"]},
        {"expires_at": NOW_MS}, {"expires_at": NOW_MS + 400 * DAY_MS},
    ],
)  # fmt: skip
def test_a_token_without_name_scope_or_end_is_not_made(db: Database, changes: dict[str, object]) -> None:
    with pytest.raises(MalformedRequest):
        make(db, **changes)


def test_a_token_that_is_not_there_cannot_be_revoked(db: Database) -> None:
    with db.write() as session, pytest.raises(NotFound):
        tokens.revoke(session, "unknown", now_ms=NOW_MS)
