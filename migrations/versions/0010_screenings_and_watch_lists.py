"""Screenings that are kept, and watch-lists."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The version before goes on: it does not name the tables."""
    op.create_table(
        "screenings",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("parties", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=True),
        sa.Column("found", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_tokens.id"], name=op.f("fk_screenings_token_id_api_tokens")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_screenings")),
    )
    op.create_index(op.f("ix_screenings_at"), "screenings", ["at"], unique=False)
    op.create_index("ix_screenings_token_id", "screenings", ["token_id", "id"], unique=False)
    op.create_table(
        "watchlists",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_tokens.id"], name=op.f("fk_watchlists_token_id_api_tokens")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watchlists")),
    )
    op.create_index(op.f("ix_watchlists_token_id"), "watchlists", ["token_id"], unique=False)
    op.create_table(
        "watch_entries",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("watchlist_id", sa.String(length=36), nullable=False),
        sa.Column("ref", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("party", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["watchlist_id"], ["watchlists.id"], name=op.f("fk_watch_entries_watchlist_id_watchlists")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_entries")),
        sa.UniqueConstraint("seq", name=op.f("uq_watch_entries_seq")),
    )
    op.create_index(
        "ix_watch_entries_watchlist_id_ref", "watch_entries", ["watchlist_id", "ref"], unique=True
    )
    op.create_table(
        "watch_hits",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("entry_version", sa.Integer(), nullable=False),
        sa.Column("notice_version", sa.Integer(), nullable=False),
        sa.Column("matched_at", sa.BigInteger(), nullable=False),
        sa.Column("cleared_by", sa.String(length=200), nullable=True),
        sa.Column("cleared_reason", sa.String(length=2000), nullable=True),
        sa.Column("cleared_at", sa.BigInteger(), nullable=True),
        sa.Column("cleared_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["watch_entries.id"], name=op.f("fk_watch_hits_entry_id_watch_entries")
        ),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_watch_hits_log_id_logs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_hits")),
    )
    op.create_index("ix_watch_hits_entry_id", "watch_hits", ["entry_id", "log_id", "idx"], unique=True)
    op.create_index("ix_watch_hits_log_id_idx", "watch_hits", ["log_id", "idx"], unique=False)


def downgrade() -> None:
    """Take back: portfolios and decisions are lost."""
    for table in ("watch_hits", "watch_entries", "watchlists", "screenings"):
        op.drop_table(table)
