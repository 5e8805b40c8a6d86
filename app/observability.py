"""What the node tells its operator: JSON log lines, request ids, metrics of requests.

Guarantees that a log line never holds a body, a query or the name of a listed party: requests are named by their route's
template, and of an unforeseen error only its type and where it arose are written, not its message, which may quote data.
Metrics of the node's state are made by `app.routers.health` when they are asked for.
"""

from __future__ import annotations

import logging
import sys
import traceback
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram

from app.domain.errors import NodeFault, PeerFault

if TYPE_CHECKING:
    from contextvars import Token

log: Final = logging.getLogger("verbale")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str:
    """The id of the request at hand, a UUID; a new one outside of any request."""
    return _request_id.get() or str(uuid.uuid4())


def begin_request() -> tuple[str, Token[str | None]]:
    """Give the request at hand a new id. Ids that callers send are not taken over: they could forge log lines."""
    this = str(uuid.uuid4())
    return this, _request_id.set(this)


def end_request(token: Token[str | None]) -> None:
    """Forget the id that `begin_request` gave."""
    _request_id.reset(token)


# ── log lines ─────────────────────────────────────────────────────────────────────────────────────────────────────

_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, action, message, request id, and whatever the call put into `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "action": getattr(record, "action", record.name),
            "message": record.getMessage(),
        }
        current = _request_id.get()
        if current is not None:
            line["request_id"] = current
        line |= {k: v for k, v in vars(record).items() if k not in _RECORD and k != "action"}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return orjson.dumps(line, default=str).decode()


def describe(error: BaseException) -> dict[str, Any]:
    """An error for the log: its type and where it arose. The sentence only of faults, which quote no notice."""
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-12:]]
    described: dict[str, Any] = {"type": type(error).__qualname__, "frames": frames}
    if isinstance(error, (NodeFault, PeerFault, OSError)):
        described["detail"] = str(error)
    if error.__cause__ is not None:
        described["cause"] = describe(error.__cause__)
    return described


def configure_logging(level: str = "INFO") -> None:
    """Send JSON lines of all loggers to standard error. Call once, at the start of a process.

    uvicorn's access log is turned off: it writes query strings, and those hold names.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    for noisy in ("httpx", "httpcore", "alembic"):  # httpx logs each request's address
        logging.getLogger(noisy).setLevel(logging.WARNING)


# ── requests ──────────────────────────────────────────────────────────────────────────────────────────────────────

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics:
    """Counters of one app; a registry of its own, so that several apps fit into one process."""

    def __init__(self) -> None:
        """Register the families."""
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "verbale_http_request_seconds",
            "Time from a request's arrival to the end of its answer",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.answers = Counter(
            "verbale_http_answers",
            "Answers by status class",
            ("method", "route", "status"),
            registry=self.registry,
        )
