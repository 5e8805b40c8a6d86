"""By which roster the history of a log was counted last."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the column."""
    op.add_column("logs", sa.Column("confirmed_under", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("logs", "confirmed_under")
