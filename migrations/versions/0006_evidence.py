"""evidence against logs and witnesses, and what is watched of each log."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "evidence",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("type", sa.String(length=10), nullable=False),
        sa.Column("accused", sa.String(length=300), nullable=False),
        sa.Column("convicts", sa.Boolean(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=2), nullable=True),
        sa.Column("leaf_idx", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
    )
    op.create_index("ix_evidence_origin", "evidence", ["origin"])
    op.create_table(
        "evidence_told",
        sa.Column("evidence_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=2), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence_id"], ["evidence.id"], name=op.f("fk_evidence_told_evidence_id_evidence")
        ),
        sa.PrimaryKeyConstraint("evidence_id", "state", name=op.f("pk_evidence_told")),
    )
    op.create_table(
        "branch_leaves",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("root", sa.String(length=64), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_branch_leaves_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "root", "idx", name=op.f("pk_branch_leaves")),
    )
    op.create_table(
        "log_watch",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("pending_note", sa.LargeBinary(), nullable=True),
        sa.Column("frozen_at", sa.BigInteger(), nullable=True),
        sa.Column("frozen_size", sa.BigInteger(), nullable=True),
        sa.Column("served_size", sa.BigInteger(), nullable=False),
        sa.Column("served_note", sa.LargeBinary(), nullable=True),
        sa.Column("shown_size", sa.BigInteger(), nullable=False),
        sa.Column("shown_note", sa.LargeBinary(), nullable=True),
        sa.Column("shown_by", sa.String(length=100), nullable=True),
        sa.Column("shown_at", sa.BigInteger(), nullable=True),
        sa.Column("withheld_at", sa.BigInteger(), nullable=True),
        sa.Column("restored_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_log_watch_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_log_watch")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("log_watch")
    op.drop_table("branch_leaves")
    op.drop_table("evidence_told")
    op.drop_index("ix_evidence_origin", table_name="evidence")
    op.drop_table("evidence")
