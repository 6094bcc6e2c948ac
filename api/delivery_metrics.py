"""Prometheus metrics of a delivery process: how requests to receivers end, and how late events arrive."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from api.exposition import Exposition, text_of_process
from api.metrics import PROCESS, ConsumerSeconds
from delivery.attempts import Attempt

DELIVERIES: Final = CollectorRegistry()
_ATTEMPTS = Counter("ledger_deliveries_total", "Requests to receivers by outcome", ["consumer", "outcome"], registry=DELIVERIES)
_EVENTS = Counter(
    "ledger_delivered_events_total", "Events that receivers accepted, those of replays too", ["consumer"], registry=DELIVERIES
)
# Fine around what is promised (half within 20 ms, 99 of 100 within 100 ms), and up to a day for a receiver that was away.
_LATENCY: Final = ConsumerSeconds(
    "ledger_delivery_latency_seconds", "From an event's commit to its acceptance, without replays",
    (0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400),
)  # fmt: skip
_ANSWER: Final = ConsumerSeconds(
    "ledger_delivery_answer_seconds", "Until a request to a receiver had its outcome",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)  # fmt: skip
DELIVERIES.register(_LATENCY)
DELIVERIES.register(_ANSWER)


def observe_attempt(attempt: Attempt) -> None:
    """Count a request to a receiver."""
    _ATTEMPTS.labels(attempt.consumer, attempt.outcome).inc()
    _ANSWER.observe(attempt.consumer, attempt.seconds)
    if attempt.accepted:
        _EVENTS.labels(attempt.consumer).inc(attempt.accepted)
    for seconds in attempt.latencies:
        _LATENCY.observe(attempt.consumer, seconds)


def delivery_figures(process: str) -> Exposition:
    """The figures of a delivery process. A thread may ask."""
    return Exposition(text_of_process(process, [PROCESS]), text_of_process(process, [DELIVERIES]))
