"""Verbale: signed notices between States, replicated and provable."""

import sys

__version__ = "0.1.0"

# httpx loads its own command line, and with it rich and pygments, wherever rich is installed: six megabytes of every node.
# It goes on without what cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is how an import is refused
