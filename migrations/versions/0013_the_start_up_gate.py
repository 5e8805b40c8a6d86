"""the start-up gate: when the own log was closed, and what its operator vouches for."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("log_watch") as table:
        table.add_column(sa.Column("closed_at", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("vouched_size", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("log_watch") as table:
        table.drop_column("vouched_size")
        table.drop_column("closed_at")
