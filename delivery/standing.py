"""How a consumer stands, in words: its state, and what limits it while it is behind. Pure."""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, TypedDict

from msgspec import Meta

from delivery.pace import NAMES, UNLIMITED, Finding, advice

ACTIVE, RETRYING, PAUSED, BLOCKED, DISABLED = "active", "retrying", "paused", "blocked", "disabled"
STATES: Final = (ACTIVE, RETRYING, PAUSED, BLOCKED, DISABLED)
ConsumerState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(STATES)})]
APPLICATION, NO_PROCESS = "application", "no_process"
LIMITS: Final = (*NAMES.values(), APPLICATION, NO_PROCESS)  # every word of `limited_by`
LimitName: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(LIMITS)})]
LAGGING_S: Final = 5.0  # a consumer that is behind for longer shows what limits it
_SLOW: Final = (
    "The application acknowledges more slowly than events come, or not at all. Does it run, and does it acknowledge what it has done "
    "(POST …/ack)? What helps: start it; if it runs, larger pages, or work on several events of a page at once."
)
_NOBODY: Final = (
    "No process delivers for it. What helps: wait a minute after a start or a new consumer; then LEDGER_DELIVERY_WORKERS above 0 on one of the "
    "machines; where it is, the log of the service says what stops its delivery processes (`worker_look_failed`, `worker_away`, `worker_died`)."
)


def shown_state(asked: str, *, blocked: int, retrying: int) -> str:
    """The state that is shown: what an operator or the receiver asked for (`asked`), else the worst of what became of deliveries."""
    if asked != ACTIVE:
        return asked
    if blocked:
        return BLOCKED
    return RETRYING if retrying else ACTIVE


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a consumer. `seconds`: how far it is behind; `moves`: how many events wait for nobody's decision, and for no other event."""

    asked: str
    pushed: bool
    ordering: str
    batch_max: int
    seconds: float
    moves: int


class LimitedBy(TypedDict):
    """What limits a consumer that is behind, and what would help. The figures are of the last minute, null where nothing is sent."""

    what: LimitName
    answer_ms: float | None
    events_per_second: float | None
    advice: str


def limited_by(standing: Standing, seen: Finding | None) -> LimitedBy | None:
    """What limits a consumer that is behind, and what would help; None where it is not behind, or is paused, or waits for an operator alone.

    `seen`: what whoever delivers for it sees; None where nobody does.
    """
    if standing.asked != ACTIVE or standing.seconds < LAGGING_S or not standing.moves:
        return None
    if not standing.pushed:
        return _limit(APPLICATION, _SLOW)
    if seen is None:
        return _limit(NO_PROCESS, _NOBODY)
    if seen.limit == UNLIMITED:
        return None
    says = advice(seen, ordering=standing.ordering, batch_max=standing.batch_max)
    return _limit(NAMES[seen.limit], says, answer_ms=round(seen.answer_s * 1000, 1), events_per_second=round(seen.events_s, 1))


def _limit(what: str, says: str, *, answer_ms: float | None = None, events_per_second: float | None = None) -> LimitedBy:
    return {"what": what, "answer_ms": answer_ms, "events_per_second": events_per_second, "advice": says}
