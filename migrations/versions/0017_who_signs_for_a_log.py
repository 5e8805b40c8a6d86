"""Who signs for a log: the run that holds its lease; and which head was seen of it without its leaves."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the columns."""
    op.add_column("log_watch", sa.Column("claimed_note", sa.LargeBinary(), nullable=True))
    op.add_column("log_watch", sa.Column("held_by", sa.String(length=32), nullable=True))
    op.add_column("log_watch", sa.Column("held_at", sa.BigInteger(), nullable=True))
    op.add_column("log_watch", sa.Column("held_s", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("log_watch", "held_s")
    op.drop_column("log_watch", "held_at")
    op.drop_column("log_watch", "held_by")
    op.drop_column("log_watch", "claimed_note")
