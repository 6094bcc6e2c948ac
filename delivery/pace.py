"""Finds what limits a consumer that is behind, once a second, and says in words what would help. Pure."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

LOOKS: Final = 15  # the most frequent finding of so many looks is shown
SHARE: Final = 0.2  # weight of the newest value in a running mean
RATE_MIN: Final = 0.001  # events a second; less is 0, or a quiet consumer's mean would in minutes be too small to be stored
UNLIMITED, ANSWER_TIME, ORDER, RATE, OURS, FAILURES, EXCEPTIONS = range(7)
OPEN_MAX: Final = 200_000  # exceptions of a consumer; beyond, reading stops, and it is said
BATCH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """What limits a consumer, with running means: seconds until an answer, seconds from an answer until it is recorded, events a second."""

    limit: int
    answer_s: float
    record_s: float
    events_s: float


@dataclass(slots=True)
class Pace:
    """Collects what the deliveries of one consumer show."""

    _answer_s: float | None = None
    _record_s: float | None = None
    _events_s: float = 0.0
    _events: int = 0
    _looked: float | None = None
    _looks: deque[int] = field(default_factory=lambda: deque[int](maxlen=LOOKS))

    def answered(self, seconds: float) -> None:
        """A request was answered, or given up."""
        self._answer_s = _mean(self._answer_s, seconds)

    def recorded(self, seconds: float, events: int) -> None:
        """So many accepted events are on record."""
        self._record_s = _mean(self._record_s, seconds)
        self._events += events

    def look(self, limit: int, now: float) -> Finding:
        """Add what limits it in this moment; gives what has limited it lately."""
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        if passed > 0:
            rate = _mean(self._events_s, self._events / passed)
            self._events_s = rate if rate >= RATE_MIN else 0.0
            self._events = 0
        self._looks.append(limit)
        ((most, _),) = Counter(self._looks).most_common(1)
        return Finding(most, self._answer_s or 0.0, self._record_s or 0.0, self._events_s)


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + SHARE * (new - before)


@dataclass(frozen=True, slots=True)
class Moment:
    """A consumer in one moment, as its deliveries see it. All but `under_way` and `open` are of events that wait."""

    open: int  # events that are read and not settled
    under_way: int  # of these
    full: bool  # as many requests are under way as may be
    ready: bool  # live ones that may go now
    doubt: bool  # the receiver takes nothing
    retries: bool
    paced: bool  # of a replay, until its rate allows them
    unread: bool  # there is more in the log
    crowded: bool = False  # as many exceptions as may be: nothing more is read


def limit_of(moment: Moment) -> int:
    """What keeps the next event from going."""
    if moment.crowded and moment.unread:
        return EXCEPTIONS
    if moment.doubt:
        return FAILURES
    if moment.full:
        return ANSWER_TIME
    if moment.ready:
        return OURS
    if moment.paced:
        return RATE
    if moment.open > moment.under_way > 0:
        return ORDER
    if moment.retries and not moment.under_way:
        return FAILURES
    return OURS if moment.unread else UNLIMITED


NAMES: Final = {
    ANSWER_TIME: "answer_time",
    ORDER: "order",
    RATE: "rate",
    OURS: "ours",
    FAILURES: "failures",
    EXCEPTIONS: "exceptions",
}


def advice(found: Finding, *, ordering: str, batch_max: int) -> str:
    """What limits it, and what would help, for whoever runs the receiver or this service."""
    cycle = found.answer_s + found.record_s
    most = f"{batch_max / cycle:,.0f} events/s" if cycle else "what the answers allow"
    takes = f"the receiver answers in {found.answer_s * 1000:,.0f} ms" if found.answer_s else "the receiver has not answered yet"
    batches = f"`batch_max` (now {batch_max}, up to {BATCH_MAX}) sends more in one request" if batch_max < BATCH_MAX else ""
    match found.limit:
        case limit if limit == ORDER and ordering == "directory":
            says = f"One delivery at a time in each directory, and {takes}: at most {most} for each"
            helps = [batches, "`ordering: subject` sends those of different users and groups side by side", "a faster answer"]
        case limit if limit == ORDER:
            says = f"Events of one user or group wait for each other, and {takes}"
            helps = [batches, "a faster answer"]
        case limit if limit == ANSWER_TIME:
            says = f"All requests that may be under way at once are, and {takes}"
            helps = [batches, "a receiver that answers when it has stored an event, before it works on it"]
        case limit if limit == RATE:
            says, helps = "A replay keeps to its rate", ["another run with a higher `rate_per_second`"]
        case limit if limit == FAILURES:
            says, helps = "The receiver refuses, or does not answer", ["its last answer, in `blocked_on` or GET …/blocked"]
        case limit if limit == EXCEPTIONS:
            says = (
                f"As many events as may ({OPEN_MAX:,}) are blocked, held, retried or wait behind such: nothing after them is read, "
                "the end of somebody's access included"
            )
            helps = ["retry, park or skip what is blocked (GET …/blocked)", "release what is held"]
        case _:
            says = f"The receiver waits for this service: {found.record_s * 1000:,.0f} ms to record a delivery, and reading"
            helps = [
                batches,
                "another delivery process (`LEDGER_DELIVERY_WORKERS`) where it serves many consumers",
                "a faster database",
            ]
    return f"{says}. What helps: {'; '.join(filter(None, helps))}."
