"""nomenklatura's LogicV2 on candidates from standard input, in an environment of its own: see docs/screening.md.

Takes a line for each query, `{"query": party, "candidates": [party, …]}`; prints the times of scoring as JSON. Imports
nothing of this program, so that any Python that has nomenklatura can run it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> int:
    """See the module."""
    try:
        from followthemoney.proxy import EntityProxy  # noqa: PLC0415 - its absence is told
        from nomenklatura.matching import LogicV2  # noqa: PLC0415
    except ImportError as error:
        print(f"{error}.", file=sys.stderr)
        return 1

    def proxy(party: dict[str, Any], number: int) -> Any:  # noqa: ANN401 - the peer's own type
        return EntityProxy.from_dict({"id": str(number), **party}, cleaned=False)

    asked = [json.loads(line) for line in sys.stdin]
    config = LogicV2.default_config()
    times, pairs = [], 0
    for turn, limit in ((0, 20), (1, len(asked))):  # the first turn warms it up
        for one in asked[:limit]:
            query = proxy(one["query"], 0)
            listed = [proxy(party, n) for n, party in enumerate(one["candidates"], 1)]
            began = time.perf_counter()
            for candidate in listed:
                LogicV2.compare(query, candidate, config)
            if turn:
                times.append((time.perf_counter() - began) * 1000)
                pairs += len(listed)
    times.sort()
    print(
        json.dumps(
            {
                "peer_queries": len(times),
                "peer_candidates": pairs,
                "peer_p50_ms": round(times[len(times) // 2], 2) if times else None,
                "peer_p99_ms": round(times[min(int(len(times) * 0.99), len(times) - 1)], 2)
                if times
                else None,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
