"""Prometheus metrics of a serving process. Labels are templates, codes and the names that operators gave, never ids or values."""

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from api.exposition import Exposition, text_of_process

disable_created_metrics()  # a second series beside each figure, which nobody reads and every scrape stores
PROCESS: Final = CollectorRegistry()  # figures that every process has
REGISTRY: Final = CollectorRegistry()  # figures of serving processes without names, which anybody may read
NAMED: Final = CollectorRegistry()  # figures of serving processes that name directories
_BUILD = Gauge("ledger_build_info", "1, with the release of the process", ["version", "python"], registry=PROCESS)
_BUILD.labels(version("scim-ledger"), platform.python_version()).set(1)
ProcessCollector(registry=PROCESS)
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
_CONNECTIONS = Gauge("ledger_http_connections", "Open connections of clients", registry=REGISTRY)
_CUT = Counter(
    "ledger_http_cut", "Connections that were refused or closed because of the client's behaviour", ["reason"], registry=REGISTRY
)

_SCIM = Counter(
    "ledger_scim_requests_total",
    "SCIM requests by directory, operation and class of status",
    ["directory", "operation", "status"],
    registry=NAMED,
)


_RATE_LIMITED = Counter(
    "ledger_scim_rate_limited", "SCIM requests above the limit of their directory, answered 429", ["directory"], registry=NAMED
)
_SLOWED_DOWN = Counter(
    "ledger_http_slowed", "Requests without a valid token, answered 429 because their address failed too often", registry=REGISTRY
)


@dataclass(eq=False, slots=True)
class ConsumerSeconds(Collector):
    """A histogram of seconds by consumer. One `observe` costs a quarter of the library's, and a batch makes one for each event."""

    name: str
    documentation: str
    bounds: Sequence[float]
    _counts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    _sums: dict[str, float] = field(default_factory=dict[str, float])

    def observe(self, consumer: str, seconds: float) -> None:
        counts = self._counts.get(consumer)
        if counts is None:
            self._sums[consumer] = 0.0  # first, because a thread may be collecting
            counts = self._counts[consumer] = [0] * (len(self.bounds) + 1)
        counts[bisect_left(self.bounds, seconds)] += 1
        self._sums[consumer] += seconds

    def collect(self) -> Iterator[Metric]:
        """The histogram with cumulative buckets, as Prometheus expects."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=["consumer"])
        for consumer, counts in list(self._counts.items()):
            bounds = (*map(str, map(float, self.bounds)), "+Inf")
            family.add_metric([consumer], list(zip(bounds, accumulate(counts), strict=True)), self._sums[consumer])
        yield family


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


def count_rate_limited(directory: str) -> None:
    """Count a request above the limit of its directory."""
    _RATE_LIMITED.labels(directory).inc()


def count_slowed() -> None:
    """Count a request that was slowed because its address failed too often."""
    _SLOWED_DOWN.inc()


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


def show_queue(queued: Callable[[], int]) -> None:
    """Set the function that says how many commands wait for the writer."""
    _QUEUED.set_function(queued)


def serving_figures(process: str) -> Exposition:
    """The figures of a serving process. A thread may ask."""
    return Exposition(text_of_process(process, [PROCESS, REGISTRY]), text_of_process(process, [NAMED]))
