"""What nodes say of themselves: erasures they have carried out, rosters they follow."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the tables."""
    op.create_table(
        "erasures_said",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("below", sa.BigInteger(), nullable=False),
        sa.Column("iat", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_erasures_said_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "idx", "origin", name=op.f("pk_erasures_said")),
    )
    op.create_index("ix_erasures_said_origin_below", "erasures_said", ["origin", "below"])
    op.create_table(
        "rosters_said",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("iat", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_rosters_said_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "idx", name=op.f("pk_rosters_said")),
    )
    op.create_index("ix_rosters_said_version", "rosters_said", ["version"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("rosters_said")
    op.drop_table("erasures_said")
