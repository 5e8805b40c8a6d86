"""Probes and metrics.

`live` says that the process answers; `ready` that it can do its work. Why it is not ready is told only to callers of this
State who administer it. Metrics hold sizes, lags and counts that the public logs tell anyway, and queues; never a name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy.exc import SQLAlchemyError

from app import migrations
from app.deps import CurrentNode, CurrentPrincipal, node_of
from app.domain.errors import NodeFault, VerbaleError
from app.notify import metrics as webhook_metrics
from app.observability import log
from app.queries import federation as queries
from app.roster.layout import expiry_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from app.deps import Node
    from app.queries.federation import DeliveryView, LogView

router = APIRouter(tags=["health"])

CHECK_EVERY_SECONDS: Final = 2.0
"""A probe writes to the database; whoever asks more often is answered from the last result."""


class NotReady(NodeFault):
    """The node answers and cannot do its work."""

    code = "not-ready"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be so. `detail` is for the operator."""

    name: str
    ok: bool
    detail: str | None = None


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/health/ready")
def ready(request: Request, node: CurrentNode, principal: CurrentPrincipal) -> Response:
    """The node can store, knows the roster, its loops run, and screening answers at once."""
    checks = _checked(request, node)
    ok = all(check.ok for check in checks)
    if principal.state == node.state and "admin" in principal.scopes:
        listed = [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]
        body = {"status": "ready" if ok else "not-ready", "checks": listed}
        return Response(orjson.dumps(body), 200 if ok else 503, media_type="application/json")
    if not ok:
        raise NotReady("This node cannot do its work now. Its operator finds the reason in its log.")
    return Response(orjson.dumps({"status": "ready"}), media_type="application/json")


def _checked(request: Request, node: Node) -> list[Check]:
    state = request.app.state
    known: tuple[float, list[Check]] | None = getattr(state, "readiness", None)
    now = time.monotonic()
    if known is None or now - known[0] >= CHECK_EVERY_SECONDS:
        known = state.readiness = (now, check_node(node))
    return known[1]


def check_node(node: Node) -> list[Check]:
    """Look at everything a node needs to do its work."""
    return [_check_database(node), _check_roster(node), _check_loops(node), _check_screening(node)]


def _check_database(node: Node) -> Check:
    try:
        migrations.check_current(node.db)
        with node.db.write() as session:
            queries.prove_writable(node.db, session)
    except (VerbaleError, SQLAlchemyError, OSError) as error:
        log.error("the database is not usable", extra={"action": "health.database"}, exc_info=error)
        return Check("database", ok=False, detail=f"{type(error).__name__}: see the log")
    return Check("database", ok=True)


def _check_roster(node: Node) -> Check:
    try:
        roster = node.roster()
    except VerbaleError as error:
        return Check("roster", ok=False, detail=str(error))
    if roster.expires * 1000 <= node.clock():
        return Check("roster", ok=False, detail=f"Roster version {roster.version} has expired.")
    now = node.clock() // 1000
    due = [
        f"{role} {level}" if level == "expired" else f"{role} expires {level}"
        for role, end in sorted(roster.expiries.items())
        if (level := expiry_level(role, end, now)) not in ("fine", "refresh now")
    ]
    return Check("roster", ok=True, detail="; ".join([f"version {roster.version}", *due]))


def _check_loops(node: Node) -> Check:
    stopped = node.stopped_loops()
    return Check(
        "loops", ok=not stopped, detail=f"no sign of life: {', '.join(stopped)}" if stopped else None
    )


def _check_screening(node: Node) -> Check:
    detail = "What is screened against is being read." if node.is_warming else None
    return Check("screening", ok=not node.is_warming, detail=detail)


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Prometheus text format. State is read when it is asked for, so nothing has to be kept in step."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(node_of(request)))
    text = generate_latest(registry) + generate_latest(request.app.state.metrics.registry)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


class NodeCollector:
    """The node's state as metrics, read in one snapshot."""

    def __init__(self, node: Node) -> None:
        """Remember whom to ask."""
        self._node = node

    def collect(self) -> Iterable[Metric]:
        """Read and describe."""
        now_ms = self._node.clock()
        with self._node.db.read() as session:
            kept = queries.logs(session)
            webhooks = queries.webhooks(session)
            attempts = list(webhook_metrics.read(session))
        yield from attempts
        yield from _of_logs(kept, now_ms)
        yield from _of_webhooks(webhooks, now_ms)
        size = self._node.db.size_bytes()
        if size is not None:
            yield _gauge("verbale_database_bytes", "Size of the database on disk", size)
        try:
            roster = self._node.roster()
        except VerbaleError:
            return
        yield _gauge("verbale_roster_version", "Version of the roster in force", roster.version)
        yield _gauge(
            "verbale_roster_expiry_seconds",
            "Seconds until the roster expires; negative after",
            roster.expires - now_ms / 1000,
        )
        roles = GaugeMetricFamily(
            "verbale_roster_role_expiry_seconds",
            "Seconds until a metadata file of the roster expires; negative after",
            labels=["role"],
        )
        for role, end in sorted(roster.expiries.items()):
            roles.add_metric([role], end - now_ms / 1000)
        yield roles


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _of_webhooks(found: DeliveryView, now_ms: int) -> Iterator[Metric]:
    age = 0.0 if found.oldest is None else max(0, now_ms - found.oldest) / 1000
    yield _gauge("verbale_deliveries_pending", "Webhook deliveries that wait", found.pending)
    yield _gauge(
        "verbale_events_ahead",
        "Events that the subscription which is furthest behind has not come to yet",
        found.events_ahead,
    )
    yield _gauge("verbale_deliveries_oldest_seconds", "Age of the oldest thing that waits to be told", age)
    yield _gauge(
        "verbale_deliveries_failed", "Webhook deliveries that were given up: dead letters", found.failed
    )
    yield _gauge(
        "verbale_subscriptions_failing", "Active subscriptions whose last attempt failed", found.failing
    )
    by_status = GaugeMetricFamily("verbale_subscriptions", "Webhook subscriptions", labels=("status",))
    for status in ("active", "paused", "disabled"):
        by_status.add_metric((status,), found.subscriptions.get(status, 0))
    yield by_status


def _of_logs(kept: list[LogView], now_ms: int) -> Iterator[Metric]:
    def family(name: str, text: str, value: Any) -> Metric:  # noqa: ANN401 - a function of a log
        made = GaugeMetricFamily(name, text, labels=("state", "origin"))
        for one in kept:
            measured = value(one)
            if measured is not None:
                made.add_metric((one.state, one.origin), measured)
        return made

    yield family("verbale_log_size", "Leaves stored and proven here", lambda v: v.size)
    yield family("verbale_log_head_size", "Size of the newest verified or signed head", lambda v: v.head_size)
    yield family(
        "verbale_log_lag_leaves", "Leaves the origin signed that are not proven here", lambda v: v.lag_leaves
    )
    yield family(
        "verbale_log_lag_seconds",
        "Age of the newest proven head while behind",
        lambda v: v.lag_seconds(now_ms),
    )
    yield family(
        "verbale_log_unjudged", "Leaves stored and not judged yet", lambda v: max(0, v.size - v.judged)
    )
    yield family("verbale_log_pending_bodies", "Bodies that have not come yet", lambda v: v.pending_bodies)
    yield family(
        "verbale_log_clock_skew_seconds",
        "The origin's clock minus ours",
        lambda v: None if v.skew_ms is None else v.skew_ms / 1000,
    )
    yield family(
        "verbale_log_silent_seconds",
        "Since the origin's last answer that verified",
        lambda v: None if v.is_own or v.contact_at is None else max(0, now_ms - v.contact_at) / 1000,
    )
    yield family(
        "verbale_log_error",
        "1 while something keeps this node from following",
        lambda v: int(v.error_code is not None),
    )
    yield family(
        "verbale_log_frozen",
        "1 if the log signed two histories, or the own log may not grow",
        lambda v: int(v.status != "ok" or v.closed),
    )
    yield family("verbale_log_withheld", "1 while a head is withheld", lambda v: int(v.withheld))
    yield family("verbale_evidence_records", "Records of evidence about the log", lambda v: len(v.evidence))
    verdicts = CounterMetricFamily(
        "verbale_leaves_judged", "Leaves by verdict", labels=("state", "origin", "verdict")
    )
    for one in kept:
        verdicts.add_metric((one.state, one.origin, "accepted"), max(0, one.judged - one.faults))
        verdicts.add_metric((one.state, one.origin, "flagged"), one.faults)
    yield verdicts
    receipts = GaugeMetricFamily(
        "verbale_receipt_size", "Largest size a State cosigned", labels=("origin", "witness")
    )
    for one in kept:
        for state, (size, _) in sorted(one.receipts.items()):
            receipts.add_metric((one.origin, state), size)
    yield receipts
