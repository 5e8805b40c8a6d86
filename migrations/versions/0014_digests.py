"""Digests: how far each person's mail has come."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the table."""
    op.create_table(
        "digests",
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("check", sa.BigInteger(), nullable=False),
        sa.Column("upto_seq", sa.BigInteger(), nullable=True),
        sa.Column("upto_check", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_digests")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("digests")
