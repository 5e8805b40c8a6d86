"""Which version of a stored party was screened."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: what it stores counts as not screened, and is screened once more."""
    op.add_column(
        "watch_entries", sa.Column("screened", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.execute("UPDATE watch_entries SET screened = version")
    op.create_index(
        "ix_watch_entries_left",
        "watch_entries",
        ["id"],
        sqlite_where=sa.text("screened <> version"),
        postgresql_where=sa.text("screened <> version"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_watch_entries_left", table_name="watch_entries")
    op.drop_column("watch_entries", "screened")
