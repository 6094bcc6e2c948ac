"""How deliveries reach a receiver: the seam between what goes next and the wire. What becomes of an event is decided above it.

A transport is a module of delivery/transports. docs/architecture.md shows how one is added; tests/transports.py is the suite that each
must pass. It keeps nothing of a consumer, and holds no events back: order, retries and leases are the dispatcher's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import UUID

from ledger.ids import Seq


def always() -> bool:
    """Say that a batch may always leave: no other process can have taken over."""
    return True


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver: where it is, and what deliveries to it are signed with, the newest secret first."""

    address: str = field(repr=False)  # it may hold a secret or a name
    secrets: Sequence[str] = field(default=(), repr=False)


class Outgoing(NamedTuple):
    """An event as it is sent. `json` is its public form (docs/events.md); `at` is its time in µs since the epoch."""

    id: str
    topic: str
    seq: Seq
    at: int
    json: bytes

    def __repr__(self) -> str:
        """Without its JSON, which names persons."""
        return f"Outgoing({self.id})"


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes in one request, in order; at least one event. The receiver takes all of it or nothing.

    `single`: the consumer takes events one by one. `attempt` counts from 1. `replay` is the run that sends it again. `previous_seq`: of
    a consumer in order of the directory, the seq that it was sent last. `trace`: the trace context that the receiver goes on with. `may_leave` is asked when everything else is done, directly
    before the first byte: meanwhile another process may have taken over.
    """

    events: Sequence[Outgoing]
    single: bool = True
    attempt: int = 1
    replay: UUID | None = None
    previous_seq: Seq | None = None
    trace: bytes | None = None
    may_leave: Callable[[], bool] = always


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receiver has it, and will not be sent it again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The receiver has not taken it, as far as is known. `error` is one word of ours, `answer` what an operator may read of its words."""

    error: str
    answer: str = field(default="", repr=False)
    after_s: float | None = None  # it asks to be left alone with it for so long
    asks_all: bool = False  # and with everything else
    away: bool = False  # nobody is there: another event would have fared no better
    may_have_arrived: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver says that it is gone for good: nothing is sent to it until an operator resumes it."""


@dataclass(frozen=True, slots=True)
class Rewind:
    """A receiver that gets events in order of the directory lacks those after `seq`. If they cannot be sent again, `otherwise` applies."""

    seq: Seq
    otherwise: Retry


Outcome = Accepted | Retry | Gone | Rewind


class TooLateError(Exception):
    """`may_leave` said no, so nothing was sent."""


class Transport(Protocol):
    """Sends batches; one for a process, which all consumers of its mode share."""

    async def send(self, target: Target, batch: Batch) -> Outcome:
        """Send a batch within the time limit that the transport was made with. Whatever happens is an Outcome, but TooLateError."""
        ...

    async def close(self) -> None:
        """End connections that are still open."""
        ...
