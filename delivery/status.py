"""How a consumer is doing: how far behind, for how long, and what it is stuck on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias, TypedDict

from msgspec import Meta

from database.arrays import int4s, int8s
from database.connections import Connection
from database.queries import load_queries
from delivery.checkpoints import failing, place_of
from delivery.consumers import Consumer
from delivery.forks import ShownFork, open_fork
from delivery.lanes import Ordering
from delivery.log_positions import by_index_alone, database_time
from delivery.pace import UNLIMITED, Finding
from delivery.reports import BLOCKED, EXCEPTION_STATES, HELD, PARKED, RETRYING, WAITING, Exceptional, Place
from delivery.standing import ConsumerState, LimitedBy, Standing, limited_by, shown_state
from delivery.terms import Mode
from ledger.directories import Directory
from ledger.event_data import Count, EventIdText, FromOne, Instant, Subject, Time
from ledger.events import BY_NUMBER
from ledger.feed import Feed, Selection
from ledger.ids import DirectoryNumber
from ledger.rendering import Event, rfc3339
from ledger.sealing import Kek, open_optional

SQL: Final = load_queries(__file__)
ExceptionState: TypeAlias = Annotated[str, Meta(extra_json_schema={"enum": list(EXCEPTION_STATES.values())})]
LAG_COUNTED_MAX: Final = 10_000  # the lag is counted up to here: an exact count of more would cost a long scan


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer is behind. `events` is counted up to LAG_COUNTED_MAX; `oldest` is when the oldest was committed (µs).

    `moves`: those that wait for no operator and for no other event, as far as they are counted.
    """

    place: Place
    head: int
    events: int
    capped: bool
    seconds: float
    oldest: int | None
    by_state: dict[str, int]
    moves: int


async def lag_of(conn: Connection, feed: Feed, consumer: Consumer, directories: Sequence[Directory]) -> Lag:
    """How far a consumer is behind, of the events that are its own."""
    head = await feed.head(conn, Selection())
    place = await place_of(conn, consumer)
    count, first = await count_matching(conn, consumer, consumer.reach(directories), (place.through, head), LAG_COUNTED_MAX)
    rows = await (await conn.execute(SQL["open_counts"], (int4s([consumer.id]),))).fetchall()
    by_state = {EXCEPTION_STATES[state]: count for _, state, count in rows}
    coming, parked = count + len(place.open), by_state.get(EXCEPTION_STATES[PARKED], 0)
    events = coming + sum(by_state.values()) - parked
    oldest = [at for at in (first, *(await _oldest(conn, consumer, place.open))) if at is not None]
    seconds = max(await database_time(conn) - min(oldest), 0) / 1e6 if oldest else 0.0
    since = min(oldest, default=None)
    capped = count >= LAG_COUNTED_MAX
    counted, moves = min(events, LAG_COUNTED_MAX) if capped else events, coming + by_state.get(EXCEPTION_STATES[RETRYING], 0)
    return Lag(place, head, counted, capped, seconds, since, by_state, moves)


async def _oldest(conn: Connection, consumer: Consumer, still: Sequence[int]) -> list[int | None]:
    """When the oldest exception, and the oldest of what is under way, were committed (µs)."""
    row = await (await conn.execute(SQL["oldest_open_time"], (consumer.id,))).fetchone()
    found: list[int | None] = [row[0] if row else None]
    if still:
        found += await times_at(conn, still[:1])
    return found


async def count_matching(
    conn: Connection, consumer: Consumer, reach: Sequence[DirectoryNumber], between: tuple[int, int], limit: int = 2**31 - 1
) -> tuple[int, int | None]:
    """How many events of a consumer's own lie behind the first and up to the second position, counted up to `limit`, and the time of the oldest (µs)."""
    params = (*between, int4s(reach), consumer.mask, limit)
    async with by_index_alone(conn):
        row = await (await conn.cursor(binary=True).execute(SQL["matching_after"], params)).fetchone()
    assert row is not None
    count, oldest = row
    return count, oldest


async def acked_events(conn: Connection, consumer: Consumer, place: Place, reach: Sequence[DirectoryNumber]) -> tuple[int, bool]:
    """How many events a consumer has acknowledged in its current reading, counted up to LAG_COUNTED_MAX, and whether it may be more.

    A seek and a change of the filter begin a new reading. What is under way, an exception or skipped is not acknowledged.
    """
    row = await (await conn.cursor(binary=True).execute(SQL["reading"], (consumer.id, place.epoch))).fetchone()
    assert row is not None, "each place belongs to a reading"
    start, unsettled = row
    count, _ = await count_matching(conn, consumer, reach, (start, place.through), LAG_COUNTED_MAX)
    return max(0, count - len(place.open) - unsettled), count >= LAG_COUNTED_MAX


async def times_at(conn: Connection, positions: Sequence[int]) -> list[int]:
    """When the events at these positions were committed (µs); those that are not in the log are left out."""
    rows = await (await conn.cursor(binary=True).execute(SQL["times_at"], (int8s(positions),))).fetchall()
    return [at for (at,) in rows]


async def revocations_acked_after(conn: Connection, seen: int, limit: int) -> list[tuple[int, str, float]]:
    """Acknowledged revocations, at most `limit`: (id, consumer, seconds) with ids after `seen`."""
    return await (await conn.cursor(binary=True).execute(SQL["revocations_acked_after"], (seen, limit))).fetchall()


async def revocation_seconds(conn: Connection, consumer: Consumer) -> "RevocationSeconds | None":
    """p50 and p99 of the time from the end of somebody's access to this consumer's acknowledgement, of the last 30 days."""
    row = await (await conn.execute(SQL["revocation_seconds"], (int4s([consumer.id]),))).fetchone()
    if row is None:
        return None
    p50, p99 = row
    return {"p50": round(p50, 6), "p99": round(p99, 6)}


class RevocationSeconds(TypedDict):
    """Seconds from the end of somebody's access to this consumer's acknowledgement, of the last 30 days."""

    p50: float
    p99: float


class FailedDelivery(TypedDict):
    """A delivery that failed: which event, since when, how often it was tried, the last answer. `reason`: why an operator parked it."""

    event_id: EventIdText
    type: str
    subject: Subject
    position: FromOne
    state: ExceptionState
    since: Time | None
    attempts: Count
    last_error: str | None
    next_attempt_at: Time | None
    reason: str | None
    last_answer: str | None


class ConsumerStatus(TypedDict):
    """A consumer: what it gets, and how it stands. The counts from `blocked` to `parked` are of deliveries; `url` is null if it pulls."""

    object: Literal["consumer"]
    name: str
    mode: Mode
    ordering: Ordering
    directories: list[str]
    types: list[str]
    batch_max: FromOne
    url: str | None
    retry_schedule: list[Count]
    created_at: Instant
    state: ConsumerState
    position: Annotated[
        Count, Meta(description="Nothing up to here is merely under way: it is acknowledged, or counted below as an exception.")
    ]
    acked_position: Annotated[Count, Meta(description="The same as `position`.")]
    acked_events: Annotated[Count, Meta(description="Acknowledged since the last seek or change of the filter, up to 10 000.")]
    acked_events_capped: bool
    head_position: Count
    lag_events: Count
    lag_events_capped: bool
    lag_seconds: float
    oldest_unacked_at: Time | None
    blocked_on: FailedDelivery | None
    blocked: Count
    retrying: Count
    waiting: Count
    held: Count
    parked: Count
    revocation_seconds: RevocationSeconds | None
    limited_by: LimitedBy | None
    forked: ShownFork | None


async def status_of(
    conn: Connection,
    feed: Feed,
    kek: Kek,
    consumer: Consumer,
    directories: Sequence[Directory],
    reaches: Callable[[str], bool],
) -> ConsumerStatus:
    """The status of a consumer (docs/consumers.md, "Status") with its definition, as a caller sees it who `reaches` these directories."""
    lag = await lag_of(conn, feed, consumer, directories)
    acked, capped = await acked_events(conn, consumer, lag.place, consumer.reach(directories))
    stuck, fork = await failing(conn, consumer), await open_fork(conn, consumer.id, reaches)
    d = consumer.definition
    return {
        "object": "consumer", "name": consumer.name, "mode": d.mode, "ordering": d.ordering, "directories": list(d.directories),
        "types": list(d.types), "batch_max": d.batch_max, "url": consumer.url(kek), "retry_schedule": list(d.retry_schedule),
        "created_at": consumer.created_at,
        "state": state_shown(consumer, lag),
        "position": lag.place.low, "acked_position": lag.place.low, "acked_events": acked, "acked_events_capped": capped, "head_position": lag.head, "lag_events": lag.events, "lag_events_capped": lag.capped,
        "lag_seconds": round(lag.seconds, 3), "oldest_unacked_at": rfc3339(lag.oldest) if lag.oldest is not None else None,
        "blocked_on": (await shown(conn, feed, kek, consumer, [stuck]))[0] if stuck is not None else None,
        "blocked": lag.by_state.get(EXCEPTION_STATES[BLOCKED], 0), "retrying": lag.by_state.get(EXCEPTION_STATES[RETRYING], 0), "waiting": lag.by_state.get(EXCEPTION_STATES[WAITING], 0),
        "held": lag.by_state.get(EXCEPTION_STATES[HELD], 0), "parked": lag.by_state.get(EXCEPTION_STATES[PARKED], 0),
        "revocation_seconds": await revocation_seconds(conn, consumer), "limited_by": await _limited_by(conn, consumer, lag),
        "forked": None if fork is None else fork.shown(),
    }  # fmt: skip


async def _limited_by(conn: Connection, consumer: Consumer, lag: Lag) -> LimitedBy | None:
    d = consumer.definition
    row = await (await conn.execute(SQL["pace_of"], (consumer.id,))).fetchone()
    seen = None
    if row is not None:
        limit, *figures = row
        seen = Finding(limit or UNLIMITED, *(figure or 0.0 for figure in figures))
    return limited_by(Standing(consumer.state, d.mode != "pull", d.ordering, d.batch_max, lag.seconds, lag.moves), seen)


def state_shown(consumer: Consumer, lag: Lag) -> str:
    """The state of a consumer, as status and metrics have it."""
    return shown_state(
        consumer.state,
        blocked=lag.by_state.get(EXCEPTION_STATES[BLOCKED], 0),
        retrying=lag.by_state.get(EXCEPTION_STATES[RETRYING], 0),
    )


async def shown(conn: Connection, feed: Feed, kek: Kek, consumer: Consumer, some: Sequence[Exceptional]) -> list[FailedDelivery]:
    """A few exceptions as an operator sees them."""
    return rows_of(kek, consumer, some, await feed.at(conn, [(e.directory, e.seq) for e in some], rendered=False))


def rows_of(kek: Kek, consumer: Consumer, some: Sequence[Exceptional], events: Sequence[Event]) -> list[FailedDelivery]:
    """Exceptions with their events: which event, since when, how often, the last answer. No attributes of the event."""
    found: list[FailedDelivery] = []
    for exceptional, event in zip(some, events, strict=True):
        kind = BY_NUMBER[event.kind]
        entry: FailedDelivery = {
            "event_id": str(event.id), "type": kind.topic, "subject": {"type": kind.subject, "id": str(event.obj)}, "position": exceptional.position,
            "state": EXCEPTION_STATES[exceptional.state], "since": _time(exceptional.since), "attempts": exceptional.attempts,
            "last_error": exceptional.error, "next_attempt_at": _time(exceptional.next_at), "reason": open_optional(kek, exceptional.sealed_reason, kind="parked", owner=consumer.uuid),
            "last_answer": open_optional(kek, exceptional.answer, kind="answer", owner=consumer.uuid),
        }  # fmt: skip
        found.append(entry)
    return found


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(round(seconds * 1_000_000))
