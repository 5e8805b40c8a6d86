"""what is confirmed, and the history of confirmed checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. A node that was founded before finds its confirmed sizes again with the next cosignatures."""
    op.create_table(
        "confirmations",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_confirmations_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "size", "at", name=op.f("pk_confirmations")),
    )
    with op.batch_alter_table("cosignatures") as batch_op:
        batch_op.add_column(sa.Column("fresh_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("fresh_line", sa.LargeBinary(), nullable=True))
    with op.batch_alter_table("logs") as batch_op:
        for name in ("confirmed_size", "confirmed_told"):
            batch_op.add_column(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("logs") as batch_op:
        batch_op.drop_column("confirmed_told")
        batch_op.drop_column("confirmed_size")
    with op.batch_alter_table("cosignatures") as batch_op:
        batch_op.drop_column("fresh_line")
        batch_op.drop_column("fresh_at")
    op.drop_table("confirmations")
