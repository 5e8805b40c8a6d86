"""The statements by which nodes name each other's heads, which are looked for every few seconds."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

ANCHORS = "kind = 'anchor'"


def upgrade() -> None:
    """Apply. The version before goes on: it does not ask."""
    op.create_index(
        "ix_entries_anchors",
        "entries",
        ["log_id", "idx"],
        sqlite_where=sa.text(ANCHORS),
        postgresql_where=sa.text(ANCHORS),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_entries_anchors", table_name="entries")
