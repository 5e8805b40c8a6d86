"""Events of every kind: a detail, an owner, and no leaf where none is concerned."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it names no new column, and reads no event without a log."""
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.alter_column("log_id", existing_type=sa.Integer(), nullable=True)
        batch_op.alter_column("idx", existing_type=sa.BigInteger(), nullable=True)
        batch_op.add_column(sa.Column("detail", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("owner", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("tlp_rank", sa.SmallInteger(), nullable=True))
        batch_op.add_column(sa.Column("audience", sa.Text(), nullable=True))
        batch_op.create_index(
            "ix_events_owner",
            ["owner", "seq"],
            unique=False,
            sqlite_where=sa.text("owner IS NOT NULL"),
            postgresql_where=sa.text("owner IS NOT NULL"),
        )


def downgrade() -> None:
    """Undo. Events without a leaf are forgotten: the version before has no place for them."""
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_events_owner",
            sqlite_where=sa.text("owner IS NOT NULL"),
            postgresql_where=sa.text("owner IS NOT NULL"),
        )
        batch_op.drop_column("audience")
        batch_op.drop_column("tlp_rank")
        batch_op.drop_column("owner")
        batch_op.drop_column("detail")
    op.execute(
        sa.text("DELETE FROM deliveries WHERE event_seq IN (SELECT seq FROM events WHERE idx IS NULL)")
    )
    op.execute(sa.text("DELETE FROM events WHERE idx IS NULL"))
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.alter_column("idx", existing_type=sa.BigInteger(), nullable=False)
        batch_op.alter_column("log_id", existing_type=sa.Integer(), nullable=False)
