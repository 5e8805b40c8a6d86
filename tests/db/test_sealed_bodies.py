"""The migration that seals bodies keeps every one of them, both ways, on both engines."""

from __future__ import annotations

from sqlalchemy import text

from app import bodies, migrations
from app.db import Database

INSERT = "INSERT INTO bodies (log_id, idx, part, salt, content, held_at) VALUES (1, :idx, :part, :salt, :content, 5)"


def test_bodies_that_are_there_are_sealed_and_can_be_opened_again(empty_url: str) -> None:
    db = Database(empty_url)
    try:
        migrations.upgrade(db, "0004")
        rows = [
            {"idx": idx, "part": part, "salt": b"%d" % idx * 32, "content": b"{}" * idx}
            for idx in (3, 4)
            for part in ("main", "annex")
        ]
        with db.write() as session:
            session.execute(
                text(
                    "INSERT INTO logs (id, origin, state, epoch, is_own, status, size, frontier, judged, head_size, "
                    "backfilled, claimed_size) VALUES (1, 'ee.example/log/1', 'EE', 1, true, 'ok', 0, :f, 0, 0, true, 0)"
                ),
                {"f": b""},
            )
            session.execute(text(INSERT), rows)
        migrations.upgrade(db)
        with db.read() as session:
            found = bodies.opened(session, 1, [3, 4])
            assert b"{}{}{}" not in b"".join(
                bytes(s) for s in session.scalars(text("SELECT sealed FROM bodies"))
            )
        assert {i: {n: (p.salt, p.content) for n, p in parts.items()} for i, parts in found.items()} == {
            i: dict.fromkeys(("annex", "main"), (b"%d" % i * 32, b"{}" * i)) for i in (3, 4)
        }
        migrations.downgrade(db, "0004")
        with db.read() as session:
            again = session.execute(text("SELECT idx, part, salt, content FROM bodies")).all()
        assert sorted((r.idx, r.part, bytes(r.salt), bytes(r.content)) for r in again) == sorted(
            (r["idx"], r["part"], r["salt"], r["content"]) for r in rows
        )
    finally:
        db.dispose()
