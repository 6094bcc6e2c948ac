"""What deliveries put on record of a consumer, as values: its place in the log, its exceptions, and the report that changes both. No IO."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from delivery.backoff import DELAY_S_MAX, JITTER
from ledger.clocks import microseconds
from ledger.cursor import START, Anchor
from ledger.events import Fact, bits, numbers
from ledger.ids import DirectoryNumber, Position, Seq

WAITING, RETRYING, BLOCKED, HELD, PARKED = 1, 2, 3, 4, 5
EXCEPTION_STATES: Final = {WAITING: "waiting", RETRYING: "retrying", BLOCKED: "blocked", HELD: "held", PARKED: "parked"}
# What ends somebody's access, and so has a time to its acknowledgement.
REVOCATION_KINDS: Final = numbers(Fact.REVOCATION)
REVOCATIONS: Final = bits(Fact.REVOCATION)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a consumer is: settled up to `through`, but what is in `open`; `low` is the last position below all of these."""

    epoch: int
    low: Position
    through: Position
    open: tuple[Position, ...] = ()
    at: Any = None
    start: int = 0  # where the epoch began, and when
    began: datetime | None = None
    leaf: bytes | None = None  # what stood at `through`; None where an earlier release wrote it

    def reading(self, consumer: UUID) -> bytes:
        """What tells this epoch of this consumer from any other, also from one of the same number after a restore."""
        assert self.began is not None, "as it was read"
        return b"%b %d %d %d" % (consumer.bytes, self.epoch, self.start, microseconds(self.began))


@dataclass(slots=True)
class Exceptional:
    """An event that is neither delivered nor simply next. Times are seconds since the epoch; `answer` is sealed, the receiver's."""

    position: Position
    directory: DirectoryNumber
    seq: Seq
    state: int
    attempts: int = 0
    since: float | None = None
    next_at: float | None = None
    error: str | None = None
    answer: bytes | None = field(default=None, repr=False)
    sealed_reason: bytes | None = field(default=None, repr=False)  # an operator's, of a parked one
    replay: UUID | None = None
    tried_at: float | None = None  # when the last attempt failed
    asked_s: float | None = None  # for how long after it the receiver asked to be left alone

    @property
    def not_before(self) -> float:
        """Until when the receiver asked to be left alone with it; 0 where it did not."""
        return (self.tried_at or 0.0) + self.asked_s if self.asked_s else 0.0

    def read_at(self, now: float) -> None:
        """What was stored by a clock that says less by now, or by another one that is ahead, waits no longer than it would have."""
        if self.tried_at is not None and self.tried_at > now:
            self.set_back(self.tried_at - now)
        if self.next_at is not None:
            self.next_at = min(self.next_at, now + DELAY_S_MAX * (1 + JITTER))

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much."""
        self.next_at = None if self.next_at is None else self.next_at - seconds
        self.tried_at = None if self.tried_at is None else self.tried_at - seconds


@dataclass(slots=True)
class Report:
    """What became of a consumer's deliveries since the last report, and where it stands. `fence` is that of its lease.

    `read_to` is where reading the log for it ended: a report that was read from another log than there is now is left out.
    """

    consumer: int
    fence: int
    place: Place
    settled: list[Position] = field(default_factory=list[Position])  # positions whose rows go
    replayed: list[Position] = field(default_factory=list[Position])  # positions that only a run delivered
    begun: list[Exceptional] = field(default_factory=list[Exceptional])
    went_on: list[Exceptional] = field(default_factory=list[Exceptional])
    revocations: list[tuple[DirectoryNumber, Seq, int]] = field(
        default_factory=list[tuple[DirectoryNumber, Seq, int]]
    )  # (directory, seq, µs)
    replays: list[tuple[UUID, int, Position, tuple[Position, ...]]] = field(
        default_factory=list[tuple[UUID, int, Position, tuple[Position, ...]]]
    )
    read_to: Anchor = START
