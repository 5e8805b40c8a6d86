"""Events are forgotten: a delivery names its event by number, without a foreign key.

Checking one would look through all deliveries for each event that is deleted, or need an index that every delivery pays
for. `app/notify/retention.py` deletes no event that a delivery names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

FOREIGN_KEY = "fk_deliveries_event_seq_events"


def upgrade() -> None:
    """Apply. The version before goes on."""
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(FOREIGN_KEY, type_="foreignkey")


def downgrade() -> None:
    """Undo."""
    op.execute(sa.text("DELETE FROM deliveries WHERE event_seq NOT IN (SELECT seq FROM events)"))
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_foreign_key(FOREIGN_KEY, "events", ["event_seq"], ["seq"])
