"""Deadlines: how far time was looked at, and an index for what has expired."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the table."""
    op.create_table(
        "deadlines",
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("to", sa.BigInteger(), nullable=False),
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("type", name=op.f("pk_deadlines")),
    )
    op.create_index(
        "ix_notices_exp",
        "notices",
        ["exp"],
        unique=False,
        sqlite_where=sa.text("exp IS NOT NULL"),
        postgresql_where=sa.text("exp IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(
        "ix_notices_exp",
        table_name="notices",
        sqlite_where=sa.text("exp IS NOT NULL"),
        postgresql_where=sa.text("exp IS NOT NULL"),
    )
    op.drop_table("deadlines")
