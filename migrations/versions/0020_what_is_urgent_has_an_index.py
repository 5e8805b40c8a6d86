"""Events that are told before everything else that waits."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

URGENT = "live AND type IN ('notice.erased', 'notice.recalled', 'notice.withdrawn')"


def upgrade() -> None:
    """Apply. The version before goes on: it does not ask."""
    op.create_index(
        "ix_events_urgent", "events", ["seq"], sqlite_where=sa.text(URGENT), postgresql_where=sa.text(URGENT)
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_events_urgent", table_name="events")
