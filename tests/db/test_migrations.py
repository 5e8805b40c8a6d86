"""What is known of the schema without alembic is what alembic says."""

from __future__ import annotations

import subprocess
import sys

from alembic.script import ScriptDirectory

from app import migrations
from app.db import Database


def test_the_revisions_are_those_of_alembic_in_its_order() -> None:
    scripts = ScriptDirectory(str(migrations.SCRIPTS))
    assert migrations.revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


def test_a_database_says_its_revision_and_an_empty_one_that_it_has_none(empty_url: str) -> None:
    db = Database(empty_url)
    try:
        assert migrations.current_revision(db) is None
        migrations.upgrade(db)
        assert migrations.current_revision(db) == migrations.revisions()[-1]
        migrations.check_current(db)
    finally:
        db.dispose()


def test_a_schema_that_is_current_is_left_alone_without_loading_alembic(sqlite_url: str) -> None:
    program = (
        "import sys; from app import migrations; from app.db import Database\n"
        f"migrations.upgrade(Database({sqlite_url!r})); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_node_loads_nothing_that_only_a_command_or_a_migration_needs() -> None:
    """Each of these is some megabytes of every idle node."""
    unwanted = ("alembic", "holidays", "pygments", "rich")
    program = f"import sys, app.cli.node, app.server; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
