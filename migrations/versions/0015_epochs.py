"""Epochs: which log continues which, and which notices went on in the next one."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: the columns may be null."""
    op.add_column("logs", sa.Column("end_size", sa.BigInteger(), nullable=True))
    op.add_column("logs", sa.Column("continues_id", sa.Integer(), nullable=True))
    op.add_column("notices", sa.Column("from_log_id", sa.Integer(), nullable=True))
    op.add_column("notices", sa.Column("from_idx", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_notices_from",
        "notices",
        ["from_log_id", "from_idx"],
        sqlite_where=sa.text("from_log_id IS NOT NULL"),
        postgresql_where=sa.text("from_log_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_notices_from", table_name="notices")
    with op.batch_alter_table("notices") as notices:
        notices.drop_column("from_idx")
        notices.drop_column("from_log_id")
    with op.batch_alter_table("logs") as logs:
        logs.drop_column("continues_id")
        logs.drop_column("end_size")
