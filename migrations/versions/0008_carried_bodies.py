"""Bodies sealed to one State, for other nodes to carry."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before does not know the table and loses nothing."""
    op.create_table(
        "carried_bodies",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("recipient", sa.String(length=2), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_carried_bodies_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "idx", "recipient", name=op.f("pk_carried_bodies")),
    )


def downgrade() -> None:
    """Undo. What was carried is gone; issuers and addressees have the bodies."""
    op.drop_table("carried_bodies")
