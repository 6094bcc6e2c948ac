"""What is counted of a request to a receiver: how it ended, in a word of a fixed list, and how long it took."""

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from delivery.lanes import Item
from delivery.transport import Accepted, Gone, Outcome, Rewind

# Errors that are counted by their own word. A receiver chooses its status, so statuses are counted by class.
ERRORS: Final = frozenset(
    {"timeout", "connection_refused", "connection_broken", "tls", "name_not_found", "address_refused", "redirect", "not_sent"}
)
_STATUS: Final = re.compile(r"http_([45])\d\d")


class Attempt(NamedTuple):
    """A request that has ended. `seconds`: until its outcome was known. `accepted`: how many events the receiver took."""

    consumer: str
    outcome: str
    seconds: float
    accepted: int
    latencies: Sequence[float]  # seconds from commit to acceptance of each of these that no replay sent


Observe: TypeAlias = Callable[[Attempt], None]


def attempt(consumer: str, items: Sequence[Item], outcome: Outcome, seconds: float, now: float) -> Attempt:
    """What a request with these events was. `now`: seconds since the epoch, when its outcome was known."""
    if not isinstance(outcome, Accepted):
        return Attempt(consumer, outcome_word(outcome), seconds, 0, ())
    latencies = [max(now - item.at / 1e6, 0.0) for item in items if item.replay is None]
    return Attempt(consumer, outcome_word(outcome), seconds, len(items), latencies)


def outcome_word(outcome: Outcome) -> str:
    """One word of a fixed list, whatever a receiver answers."""
    match outcome:
        case Accepted():
            return "accepted"
        case Gone():
            return "gone"
        case Rewind():
            return "rewound"
        case _:
            status = _STATUS.fullmatch(outcome.error)
            return f"http_{status[1]}xx" if status else outcome.error if outcome.error in ERRORS else "other"
