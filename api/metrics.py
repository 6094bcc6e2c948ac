"""Prometheus metrics. Labels are templates and codes, never ids or values."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry()
_REQUESTS = Counter(
    "ledger_http_requests_total", "Requests by route and status", ["method", "route", "status"], registry=REGISTRY
)
_SECONDS = Histogram("ledger_http_request_seconds", "Time to answer", ["method", "route"], registry=REGISTRY)
_BATCH = Histogram(
    "ledger_write_batch_commands",
    "Commands of one write transaction",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
_BATCH_SECONDS = Histogram("ledger_write_batch_seconds", "Time of one write transaction", registry=REGISTRY)
_QUEUED = Gauge("ledger_write_queue_commands", "Commands waiting for the writer", registry=REGISTRY)
_DROPPED = Counter("ledger_journal_dropped", "Entries of the journal of requests that were not kept", registry=REGISTRY)
_HEAD = Gauge("ledger_head_position", "Last readable position", registry=REGISTRY)

# Label children are looked up once: labels() takes a lock and a tuple each time.
_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request."""
    found = _children.get((method, route, status))
    if found is None:
        found = _children[method, route, status] = (_REQUESTS.labels(method, route, str(status)), _SECONDS.labels(method, route))
    found[0].inc()
    found[1].observe(seconds)


def observe_batch(commands: int, seconds: float) -> None:
    """Count a write transaction."""
    _BATCH.observe(commands)
    _BATCH_SECONDS.observe(seconds)


def count_dropped(entries: int) -> None:
    """Count entries of the journal that were given up."""
    _DROPPED.inc(entries)


def exposition(queued: int, head: int) -> bytes:
    """The text of /metrics."""
    _QUEUED.set(queued)
    _HEAD.set(head)
    return generate_latest(REGISTRY)
