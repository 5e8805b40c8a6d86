"""webhooks: lanes, order, circuits, own headers and certificates, the log of attempts.

Everything that is added has a default, so the version before still runs on it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_PENDING = sa.text("state = 'pending'")
_ENDED = sa.text("state IN ('failed', 'dropped')")


def _due(columns: list[str]) -> None:
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        columns,
        unique=False,
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    )


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("subscriptions") as table:
        table.add_column(sa.Column("tags", sa.Text(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("payload", sa.String(length=8), nullable=False, server_default="thin"))
        table.add_column(sa.Column("ordered", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("max_in_flight", sa.Integer(), nullable=False, server_default="4"))
        table.add_column(sa.Column("per_minute", sa.Integer(), nullable=True))
        table.add_column(sa.Column("old_secrets", sa.Text(), nullable=True))
        table.add_column(sa.Column("headers", sa.LargeBinary(), nullable=True))
        table.add_column(sa.Column("ca", sa.Text(), nullable=True))
        table.add_column(sa.Column("client_cert", sa.LargeBinary(), nullable=True))
        table.add_column(sa.Column("verified_at", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("top_seq", sa.BigInteger(), nullable=False, server_default="0"))
        table.add_column(sa.Column("told", sa.BigInteger(), nullable=False, server_default="0"))
        table.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("warned_at", sa.BigInteger(), nullable=True))
    # What was fanned out already must not be given a second delivery when a place in the outbox is set back.
    op.execute("UPDATE subscriptions SET top_seq = fanned_seq")
    with op.batch_alter_table("deliveries") as table:
        table.add_column(sa.Column("number", sa.BigInteger(), nullable=False, server_default="0"))
        table.add_column(sa.Column("lane", sa.SmallInteger(), nullable=False, server_default="1"))
        table.add_column(sa.Column("recalled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.drop_index("ix_deliveries_due", table_name="deliveries")
    _due(["subscription_id", "lane", "due_at", "event_seq"])
    op.create_index(
        "ix_deliveries_ended",
        "deliveries",
        ["subscription_id", "state", "event_seq"],
        unique=False,
        sqlite_where=_ENDED,
        postgresql_where=_ENDED,
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.Integer(), nullable=False),
        sa.Column("ms", sa.Integer(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("signatures", sa.SmallInteger(), nullable=False),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=40), nullable=True),
        sa.Column("head", sa.Text(), nullable=True),
        sa.Column("excerpt", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "at", "nonce", name=op.f("pk_delivery_attempts")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("delivery_attempts")
    op.drop_index("ix_deliveries_ended", table_name="deliveries")
    op.drop_index("ix_deliveries_due", table_name="deliveries")
    _due(["subscription_id", "due_at"])
    with op.batch_alter_table("deliveries") as table:
        for name in ("recalled", "lane", "number"):
            table.drop_column(name)
    with op.batch_alter_table("subscriptions") as table:
        for name in (
            "warned_at",
            "failures",
            "told",
            "top_seq",
            "verified_at",
            "client_cert",
            "ca",
            "headers",
            "old_secrets",
            "per_minute",
            "max_in_flight",
            "ordered",
            "payload",
            "tags",
        ):
            table.drop_column(name)
