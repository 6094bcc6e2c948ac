"""Metrics of the whole ledger, made of what is read from the database: any process can give them, and a scrape has them once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from api.metrics import ConsumerSeconds
from operations.figures import ConsumerFigures, DirectoryFigures, TokenFigures

_REVOCATION_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 86_400)


def revocation_seconds() -> ConsumerSeconds:
    """A histogram from the commit that ends somebody's access to a consumer's acknowledgement; nothing is counted yet."""
    return ConsumerSeconds(
        "ledger_revocation_seconds", "From the end of somebody's access to a consumer's acknowledgement", _REVOCATION_BOUNDS_S
    )


def nameless_families(up: Mapping[str, bool], head: int) -> list[Metric]:
    """Which processes answered, by name, and the last readable position."""
    return [
        _gauge("ledger_process_up", "1 if the process gave its figures in time", ["process"], [((n,), up[n]) for n in up]),
        _gauge("ledger_head_position", "Last readable position", [], [((), head)]),
    ]


def named_families(
    consumers: Sequence[ConsumerFigures], directories: Sequence[DirectoryFigures], tokens: Sequence[TokenFigures]
) -> list[Metric]:
    """The figures of consumers, directories and tokens."""
    return [*_of_consumers(consumers), *_of_directories(directories), _of_tokens(tokens)]


def _of_consumers(found: Sequence[ConsumerFigures]) -> list[Metric]:
    def gauge(name: str, says: str, values: Iterable[float]) -> Metric:
        return _gauge(f"ledger_{name}", says, ["consumer"], [((c.name,), value) for c, value in zip(found, values, strict=True)])

    states = [((c.name, c.state), 1) for c in found]
    exceptions = [((c.name, state), count) for c in found for state, count in c.exceptions.items()]
    return [
        gauge("consumer_lag_events", "Events not yet acknowledged", (c.lag_events for c in found)),
        gauge("consumer_lag_seconds", "Age of the oldest of them", (c.lag_seconds for c in found)),
        _gauge("ledger_consumer_state", "1 for the state a consumer is in", ["consumer", "state"], states),
        _gauge("ledger_consumer_exceptions", "Deliveries of a consumer that are exceptions", ["consumer", "state"], exceptions),
        gauge("replay_events_remaining", "Deliveries that runs have still to send again", (c.replay_remaining for c in found)),
        gauge(
            "consumer_forked",
            "1 while events that the consumer was sent are no longer in the log, and no operator has closed the fork",
            (c.forked for c in found),
        ),
    ]


def _of_directories(found: Sequence[DirectoryFigures]) -> list[Metric]:
    lately = [((d.directory,), d.lately) for d in found]
    surging = [((d.directory,), d.surging) for d in found]
    silent = [((d.directory,), round(d.silent_s)) for d in found if d.silent_s is not None]
    return [
        _gauge("ledger_directory_revocations_last_hour", "Users who lost access in the last hour", ["directory"], lately),
        _gauge("ledger_directory_surge", "1 while that is more than the directory's limit", ["directory"], surging),
        _gauge("ledger_directory_silent_seconds", "Time since the last request of the directory's IdP", ["directory"], silent),
    ]


def _of_tokens(found: Sequence[TokenFigures]) -> Metric:
    left = [((token.role, token.name), round(token.left_s)) for token in found]
    return _gauge("ledger_token_expires_seconds", "Time until a valid token expires", ["role", "name"], left)


def _gauge(name: str, says: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=labels)
    for labelled, value in values:
        family.add_metric(labelled, float(value))
    return family
