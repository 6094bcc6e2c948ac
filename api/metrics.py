"""Prometheus metrics. Labels are templates, codes and the names that operators gave, never ids or values."""

import platform
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from operations.figures import ConsumerFigures, DirectoryFigures, TokenFigures

disable_created_metrics()  # a second series beside each figure, which nobody reads and every scrape stores
REGISTRY: Final = CollectorRegistry()  # figures without names, which anybody may read
NAMED: Final = CollectorRegistry()  # figures that name directories and consumers
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
_DROPPED = Counter("ledger_journal_dropped", "Dropped entries of the journal of requests", registry=REGISTRY)
_HEAD = Gauge("ledger_head_position", "Last readable position", registry=REGISTRY)

_CONNECTIONS = Gauge("ledger_http_connections", "Open connections of clients", registry=REGISTRY)
_CUT = Counter(
    "ledger_http_cut", "Connections that were refused or closed because of the client's behaviour", ["reason"], registry=REGISTRY
)

_LAG_EVENTS = Gauge("ledger_consumer_lag_events", "Events not yet acknowledged", ["consumer"], registry=NAMED)
_LAG_SECONDS = Gauge("ledger_consumer_lag_seconds", "Age of the oldest of them", ["consumer"], registry=NAMED)
_STATE = Gauge("ledger_consumer_state", "1 for the state a consumer is in", ["consumer", "state"], registry=NAMED)
_OPEN = Gauge("ledger_consumer_exceptions", "Deliveries of a consumer that are exceptions", ["consumer", "state"], registry=NAMED)
_REPLAYED = Gauge("ledger_replay_events_remaining", "Deliveries that runs have still to send again", ["consumer"], registry=NAMED)
_FORKED = Gauge(
    "ledger_consumer_forked",
    "1 while events that the consumer was sent are no longer in the log, and no operator has closed the fork",
    ["consumer"],
    registry=NAMED,
)
_REVOCATIONS = Gauge(
    "ledger_directory_revocations_last_hour", "Users who lost access in the last hour", ["directory"], registry=NAMED
)
_SURGE = Gauge("ledger_directory_surge", "1 while that is more than the directory's limit", ["directory"], registry=NAMED)
_SILENT = Gauge(
    "ledger_directory_silent_seconds", "Time since the last request of the directory's IdP", ["directory"], registry=NAMED
)
_EXPIRES = Gauge("ledger_token_expires_seconds", "Time until a valid token expires", ["role", "name"], registry=NAMED)
_SCIM = Counter(
    "ledger_scim_requests_total",
    "SCIM requests by directory, operation and class of status",
    ["directory", "operation", "status"],
    registry=NAMED,
)
_BUILD = Gauge("ledger_build_info", "1, with the release of this process", ["version", "python"], registry=REGISTRY)
_BUILD.labels(version("scim-ledger"), platform.python_version()).set(1)
ProcessCollector(registry=REGISTRY)


@dataclass(eq=False, slots=True)
class RevocationSeconds(Collector):
    """Histogram of the seconds from a commit that ends access to a consumer's acknowledgement, from table revocation_acks."""

    bounds: Sequence[float] = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 86_400)
    seen: int = 0  # the last row that was counted
    counts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    sums: dict[str, float] = field(default_factory=dict[str, float])

    def count(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Add new rows (id, consumer, seconds) since the last scrape."""
        for number, consumer, seconds in rows:
            self.seen = max(self.seen, number)
            counts = self.counts.setdefault(consumer, [0] * (len(self.bounds) + 1))
            counts[bisect_left(self.bounds, seconds)] += 1
            self.sums[consumer] = self.sums.get(consumer, 0.0) + seconds

    def collect(self) -> Iterator[Metric]:
        """The histogram with cumulative buckets, as Prometheus expects."""
        family = HistogramMetricFamily(
            "ledger_revocation_seconds", "From the end of somebody's access to a consumer's acknowledgement", labels=["consumer"]
        )
        for consumer, counts in self.counts.items():
            total, buckets = 0, list[tuple[str, float]]()
            for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric([consumer], buckets, self.sums[consumer])
        yield family


REVOCATION_SECONDS: Final = RevocationSeconds()
NAMED.register(REVOCATION_SECONDS)


def show_consumers(figures: Iterable[ConsumerFigures]) -> None:
    """Set the gauges of consumers; those of deleted consumers disappear."""
    for gauge in (_LAG_EVENTS, _LAG_SECONDS, _STATE, _OPEN, _REPLAYED, _FORKED):
        gauge.clear()
    for consumer in figures:
        _LAG_EVENTS.labels(consumer.name).set(consumer.lag_events)
        _LAG_SECONDS.labels(consumer.name).set(consumer.lag_seconds)
        _STATE.labels(consumer.name, consumer.state).set(1)
        _REPLAYED.labels(consumer.name).set(consumer.replay_remaining)
        _FORKED.labels(consumer.name).set(int(consumer.forked))
        for state, count in consumer.exceptions.items():
            _OPEN.labels(consumer.name, state).set(count)


def show_directories(figures: Iterable[DirectoryFigures]) -> None:
    """Set the gauges of directories."""
    for gauge in (_REVOCATIONS, _SURGE, _SILENT):
        gauge.clear()
    for directory in figures:
        if directory.silent_s is not None:
            _SILENT.labels(directory.directory).set(round(directory.silent_s))
        _REVOCATIONS.labels(directory.directory).set(directory.lately)
        _SURGE.labels(directory.directory).set(int(directory.surging))


def show_tokens(figures: Iterable[TokenFigures]) -> None:
    """Set the gauges of tokens; those of revoked and expired ones disappear."""
    _EXPIRES.clear()
    for token in figures:
        _EXPIRES.labels(token.role, token.name).set(round(token.left_s))


# Label children are cached, because each labels() call takes a lock and makes a tuple.
_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
_scim_children: dict[tuple[str, str, str, int], Counter] = {}


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_shown(method: str) -> str:
    """The method for labels, logs and the journal. An unknown method is replaced, because a client can send any word."""
    return method if method in _METHODS else "-"


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request."""
    method = method_shown(method)
    found = _children.get((method, route, status))
    if found is None:
        found = _children[method, route, status] = (_REQUESTS.labels(method, route, str(status)), _SECONDS.labels(method, route))
    found[0].inc()
    found[1].observe(seconds)


def observe_scim(directory: str, method: str, route: str, status: int) -> None:
    """Count a SCIM request of a directory."""
    key = (directory, method_shown(method), route, status // 100)
    found = _scim_children.get(key)
    if found is None:
        operation = f"{key[1]} /{route.partition('/v2')[2].removeprefix('/')}"
        found = _scim_children[key] = _SCIM.labels(directory, operation, f"{status // 100}xx")
    found.inc()


def observe_batch(commands: int, seconds: float) -> None:
    """Count a write transaction."""
    _BATCH.observe(commands)
    _BATCH_SECONDS.observe(seconds)


def count_dropped(entries: int) -> None:
    """Count dropped entries of the journal."""
    _DROPPED.inc(entries)


def count_cut(reason: str) -> None:
    """Count a connection that was refused or ended."""
    _CUT.labels(reason).inc()


def show_connections(count: int) -> None:
    """Set the gauge of open connections."""
    _CONNECTIONS.set(count)


def exposition(queued: int, head: int) -> bytes:
    """The text of /metrics without the figures that name directories or consumers."""
    _QUEUED.set(queued)
    _HEAD.set(head)
    return generate_latest(REGISTRY)


def named_exposition() -> bytes:
    """The text of the figures that name directories or consumers."""
    return generate_latest(NAMED)
