"""What a node costs that screens nothing."""

import subprocess
import sys


def test_a_node_loads_no_arrays_before_it_screens() -> None:
    command = "import sys, app.main, app.node, app.server; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
