"""What a flood leaves with the allocator goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.federation.world import World

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = """
import sys
from sqlalchemy import text
from app.db import Database
from app.memory import give_back, keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_memory()
"""
LEFT = """
made = [bytes(2_000) for _ in range(50_000)]
last = made.pop()  # at the end of the heap: what is below cannot go back by itself
del made
before = resident()
give_back()
print(before - resident())
"""
CACHED = """
db = Database("sqlite:///" + sys.argv[1])
with db.write() as session:
    session.execute(text("CREATE TABLE t (a)"))
    for _ in range(3_000):
        session.execute(text("INSERT INTO t VALUES (randomblob(4000))"))
give_back()
before = resident()
db.give_back()
give_back()
print(before - resident())
with db.write() as session:
    assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 3_000
"""


# Elsewhere there is nothing to ask of the allocator, and nowhere to read what is resident: `give_back` does nothing then.
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what keeps it")
@pytest.mark.parametrize(
    ("program", "least"), [(LEFT, 50_000_000), (CACHED, 4_000_000)], ids=["made", "cached"]
)
def test_what_is_kept_for_the_next_time_is_given_back(tmp_path: Path, program: str, least: int) -> None:
    command = [sys.executable, "-c", BEGIN + program, str(tmp_path / "node.sqlite")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ended.stdout) > least


def test_a_node_gives_back_what_its_database_keeps_as_well(tmp_path: Path, templates: Path) -> None:
    world = World(tmp_path, templates)
    ee = world.make("EE")
    said: list[str] = []
    with ee.db.write() as session:
        connection = session.connection().connection.driver_connection
    assert connection is not None
    connection.set_trace_callback(said.append)
    ee.node.give_back()
    assert said == ["PRAGMA shrink_memory"]
    world.close()


def test_a_node_that_tells_nobody_does_without_the_client_that_would() -> None:
    """Seven megabytes of it."""
    program = "import sys, app.main, app.node; print('aiohttp' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
