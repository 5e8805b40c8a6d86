"""A request for a log's lease: which process of a State's node signs for its log (`app.replication.lease`).

{"for_s": 60, "over": ["<32 hex digits>", …], "run": "<32 hex digits>"}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.domain.errors import MalformedRequest
from app.domain.json import parse_strict

MIN_LEASE_S: Final = 5
MAX_LEASE_S: Final = 600
MAX_OVER: Final = 8
HELD_ELSEWHERE: Final = "log-held"
"""Code of what is wrong with a log that another process of its State's node signs for."""
MAX_REQUEST: Final = 2048
_RUN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process asks for.

    Attributes:
        run: of the process.
        over: runs that have ended for sure.
        for_s: how long the lease is good without renewal, seconds.
    """

    run: str
    over: tuple[str, ...]
    for_s: int

    def encode(self) -> bytes:
        """The request's body."""
        return orjson.dumps({"for_s": self.for_s, "over": list(self.over), "run": self.run})

    @classmethod
    def parse(cls, raw: bytes) -> Claim:
        """Read a request's body.

        Raises:
            MalformedJson, MalformedRequest.
        """
        value = parse_strict(raw)
        if not isinstance(value, dict) or value.keys() != {"for_s", "over", "run"}:
            raise MalformedRequest("A request for a lease has the members for_s, over and run.")
        run, over, for_s = value["run"], value["over"], value["for_s"]
        if not isinstance(over, list) or len(over) > MAX_OVER or not all(map(_is_run, (run, *over))):
            raise MalformedRequest(
                f"run is 32 hexadecimal digits; over is a list of at most {MAX_OVER} of them."
            )
        if type(for_s) is not int or not MIN_LEASE_S <= for_s <= MAX_LEASE_S:
            raise MalformedRequest(f"for_s is a number of seconds from {MIN_LEASE_S} to {MAX_LEASE_S}.")
        return cls(run, tuple(over), for_s)


def _is_run(value: Any) -> bool:  # noqa: ANN401 - anything that JSON can say
    return isinstance(value, str) and _RUN.fullmatch(value) is not None
