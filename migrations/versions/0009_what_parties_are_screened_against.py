"""what parties are screened against."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BATCH = 1000


def upgrade() -> None:
    """Apply, and fill the table from the notices that are there."""
    table = op.create_table(
        "screened_notices",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=True),
        sa.Column("parties", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_screened_notices_log_id_logs")),
        sa.PrimaryKeyConstraint("log_id", "idx", name=op.f("pk_screened_notices")),
        sa.UniqueConstraint("seq", name=op.f("uq_screened_notices_seq")),
    )
    _fill(op.get_bind(), table)


def _fill(connection: sa.Connection, table: sa.Table) -> None:
    """One row for each notice, as the fold writes them; `seq` is the order of arrival."""
    from app.domain.json import parse_strict  # noqa: PLC0415 - only where there is something to fill
    from app.domain.notices import validate_main  # noqa: PLC0415
    from app.projections.content import content_of  # noqa: PLC0415
    from app.projections.fold import screened_values  # noqa: PLC0415

    last = 0
    page = sa.text(
        "SELECT log_id, idx, seq, document FROM notices WHERE seq > :last ORDER BY seq LIMIT :batch"
    )
    while rows := connection.execute(page, {"last": last, "batch": BATCH}).all():
        values = []
        for log_id, idx, seq, document in rows:
            content = None if document is None else content_of(validate_main(parse_strict(document.encode())))
            audience, parties = screened_values(content)
            values.append(
                {"log_id": log_id, "idx": idx, "seq": seq, "audience": audience, "parties": parties}
            )
        connection.execute(table.insert(), values)
        last = rows[-1].seq
    if last:
        counter = sa.table("counters", sa.column("name"), sa.column("value"))
        connection.execute(counter.insert().values(name="screened", value=last))


def downgrade() -> None:
    """Take back."""
    op.drop_table("screened_notices")
