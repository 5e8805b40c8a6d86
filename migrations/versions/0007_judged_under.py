"""what a log's leaves were judged under."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("logs") as batch:
        batch.add_column(sa.Column("judged_under", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("logs") as batch:
        batch.drop_column("judged_under")
