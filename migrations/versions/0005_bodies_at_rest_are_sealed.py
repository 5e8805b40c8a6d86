"""bodies at rest are sealed, each leaf's under a key of its own.

The version before cannot read what is sealed: stop it before upgrading.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.domain.at_rest import fresh_key, seal, unseal
from app.domain.statement import Part

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_bodies = sa.table(
    "bodies",
    *(sa.column(name) for name in ("log_id", "idx", "part", "salt", "content", "sealed")),
)
_keys = sa.table("body_keys", sa.column("log_id"), sa.column("idx"), sa.column("key"))


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "body_keys",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_body_keys_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "idx", name=op.f("pk_body_keys")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("bodies") as batch:
        batch.add_column(sa.Column("sealed", sa.LargeBinary(), nullable=True))
    connection = op.get_bind()
    for log_id, idx in _leaves(connection, _bodies.c.sealed.is_(None)):
        key = fresh_key()
        connection.execute(sa.insert(_keys).values(log_id=log_id, idx=idx, key=key))
        for row in _parts(connection, log_id, idx, _bodies.c.salt, _bodies.c.content):
            sealed = seal(key, idx, row.part, Part(bytes(row.salt), bytes(row.content)))
            _change(connection, log_id, idx, row.part, sealed=sealed)
    with op.batch_alter_table("bodies") as batch:
        batch.alter_column("sealed", existing_type=sa.LargeBinary(), nullable=False)
        batch.drop_column("salt")
        batch.drop_column("content")


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("bodies") as batch:
        batch.add_column(sa.Column("salt", sa.LargeBinary(), nullable=True))
        batch.add_column(sa.Column("content", sa.LargeBinary(), nullable=True))
    connection = op.get_bind()
    for log_id, idx in _leaves(connection, _bodies.c.content.is_(None)):
        key = connection.execute(
            sa.select(_keys.c.key).where(_keys.c.log_id == log_id, _keys.c.idx == idx)
        ).scalar_one()
        for row in _parts(connection, log_id, idx, _bodies.c.sealed):
            opened = unseal(bytes(key), idx, row.part, bytes(row.sealed))
            _change(connection, log_id, idx, row.part, salt=opened.salt, content=opened.content)
    with op.batch_alter_table("bodies") as batch:
        batch.alter_column("salt", existing_type=sa.LargeBinary(), nullable=False)
        batch.alter_column("content", existing_type=sa.LargeBinary(), nullable=False)
        batch.drop_column("sealed")
    op.drop_table("body_keys")


def _leaves(connection: sa.Connection, open_: sa.ColumnElement[bool]) -> list[tuple[int, int]]:
    rows = connection.execute(sa.select(_bodies.c.log_id, _bodies.c.idx).where(open_).distinct())
    return [(row.log_id, row.idx) for row in rows]


def _parts(connection: sa.Connection, log_id: int, idx: int, *columns: sa.ColumnElement[object]) -> list[Any]:
    return list(
        connection.execute(
            sa.select(_bodies.c.part, *columns).where(_bodies.c.log_id == log_id, _bodies.c.idx == idx)
        )
    )


def _change(connection: sa.Connection, log_id: int, idx: int, part: str, **values: bytes) -> None:
    connection.execute(
        sa.update(_bodies)
        .where(_bodies.c.log_id == log_id, _bodies.c.idx == idx, _bodies.c.part == part)
        .values(**values)
    )
