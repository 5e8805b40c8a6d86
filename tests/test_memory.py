"""What a flood leaves with the allocator goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.federation.world import World

if TYPE_CHECKING:
    from pathlib import Path

LEFT = """
from app.memory import give_back, keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_memory()
made = [bytes(2_000) for _ in range(50_000)]
last = made.pop()  # at the end of the heap: what is below cannot go back by itself
del made
before = resident()
give_back()
print(before - resident())
"""


# Elsewhere there is nothing to ask: `give_back` does nothing then.
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what keeps it")
def test_what_was_made_and_thrown_away_is_given_back() -> None:
    ended = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=True)
    assert int(ended.stdout) > 50_000_000


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
