"""Replays of deliveries (docs/consumers.md, "Seek and replay"): plan, start, follow, pause, resume, cancel."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import anyio.to_thread

from database.connections import Connection
from delivery.audit import readings_of
from delivery.consumers import Consumer, consumers
from delivery.runs import Range, ReplayRefusedError, Run, Superseded
from delivery.status import times_at
from ledger.commands import parse_id
from ledger.feed import Selection, rfc3339
from ledger.ids import Position
from operations import places
from operations.admin_commands import record
from operations.admission import on_consumer, on_replay, operation, owned, reached_consumer, reached_replay, reaches_run
from operations.caller import Caller
from operations.open_ledger import OpenLedger
from operations.refusals import ConflictError, NotFoundError, invalid, mask_of
from replay.redeliver import Plan, moved, plan, run_of, runs_of, started

RATE_ASSUMED = 500  # deliveries a second, to estimate a run that has no rate
RUNS_READ_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The request for a replay. `start` and `to`: positions, seq:N of one directory, instants, event ids or cursors."""

    name: str
    start: str
    to: str | None
    types: tuple[str, ...] | None
    subjects: tuple[str, ...] | None
    directories: tuple[str, ...] | None
    rate_per_second: int | None
    superseded: Superseded
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The plan of a run: number of events, the first and the last one, the range as positions and times.

    `already_acked` of the events were acknowledged. `not_acked` counts the others by reason, as in the consumer's audit.
    """

    run: Run
    first: str | None
    last: str | None
    from_time: str | None
    to_time: str | None
    already_acked: int
    not_acked: dict[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def estimated_s(self) -> int:
        return estimate(self.run)


@on_consumer("replays.create")
async def create(
    ledger: OpenLedger, caller: Caller, consumer: Consumer, wanted: Wanted, *, dry_run: bool
) -> tuple[Preview, Run | None]:
    """Plan a run, and start it unless it is a dry run.

    Raises ConflictError if the consumer pulls, ReplayRefusedError for an impossible range.
    """
    if consumer.definition.mode == "pull" and not dry_run:
        raise ConflictError("A consumer that pulls reads again after a seek: POST /v1/consumers/{name}/seek.", "not_a_webhook")
    async with ledger.connection() as conn:
        head = Position(await ledger.feed.head(conn, Selection()))
        where = await _range(ledger, conn, caller, consumer, wanted, head)
        planned = await plan(conn, where, head)
        now = datetime.fromtimestamp(ledger.clock() / 1e6, UTC)
        run = Run(
            ledger.new_id(), wanted.name, consumer.id, consumer.name, where, head, wanted.rate_per_second, wanted.reason, "running",
            len(planned.events), planned.superseded, now, None, 0, where.after, (), None,
        )  # fmt: skip
        preview = Preview(
            run, *await _ends(ledger, conn, planned), *await _times(conn, where), *await _acked(ledger, conn, consumer, planned),
            warnings=_warnings(consumer),
        )  # fmt: skip
    if dry_run:
        return preview, None
    positions = [event.position for event in planned.events]
    await record(ledger, caller, started(consumer, run, positions, kek=ledger.kek, random=ledger.entropy))
    return preview, await _run(ledger, run.id)


async def _range(ledger: OpenLedger, conn: Connection, caller: Caller, consumer: Consumer, wanted: Wanted, head: int) -> Range:
    """Resolve the words of the request to positions."""
    every = await ledger.directories.all(conn)
    reach = set(consumer.reach(every))
    named = [d for d in every if d.slug in (wanted.directories or consumer.definition.directories)]
    chosen = [d for d in (every if wanted.directories is None else named) if d.id in reach]
    if wanted.directories is not None and len(chosen) < len(set(wanted.directories)):
        raise ReplayRefusedError("`directories` names one that this consumer does not read.")
    asked = mask_of(wanted.types) if wanted.types else -1
    reads = Selection(directories=frozenset(d.id for d in chosen))
    after = await places.before(ledger, conn, caller, wanted.start, named, reads)
    through = await places.through(ledger, conn, caller, wanted.to, named, reads) if wanted.to is not None else head
    if through < after:
        raise ReplayRefusedError("`to` lies before `from`.")
    subjects = _subjects(wanted.subjects)
    return Range(
        after, Position(min(through, head)), asked & consumer.mask, tuple(d.id for d in chosen), subjects, wanted.superseded
    )


def _subjects(texts: tuple[str, ...] | None) -> tuple[UUID, ...] | None:
    if texts is None:
        return None
    ids = [parse_id(text) for text in texts]
    if None in ids:
        raise invalid("subjects", "are not all ids of users or groups (UUIDs)", code="invalid_subject")
    return tuple(number for number in ids if number is not None)


def _warnings(consumer: Consumer) -> tuple[str, ...]:
    """What keeps a run waiting although it is started, or from being started."""
    if consumer.definition.mode == "pull":
        return (
            "A replay sends to webhooks only, so this plan cannot be run: the consumer pulls. POST /v1/consumers/{name}/seek lets it read again.",
        )
    match consumer.state:
        case "active":
            return ()
        case "paused":
            return ("The consumer is paused, so the run waits. POST /v1/consumers/{name}/resume lets both go on.",)
        case _:
            why = "The consumer is disabled because its receiver answered 410, so the run waits."
            return (f"{why} POST /v1/consumers/{{name}}/resume lets both go on.",)


async def _ends(ledger: OpenLedger, conn: Connection, planned: Plan) -> tuple[str | None, str | None]:
    """The ids of the first and the last event."""
    if not planned.events:
        return None, None
    ends = [(planned.events[n].directory, planned.events[n].seq) for n in (0, -1)]
    first, last = await ledger.feed.at(conn, ends, rendered=False)
    return str(first.id), str(last.id)


async def _times(conn: Connection, where: Range) -> tuple[str | None, str | None]:
    """The times at which the range begins and ends, so that a caller sees how its words were understood."""
    times = await times_at(conn, [where.after + 1, where.through])
    return (rfc3339(times[0]), rfc3339(times[1])) if len(times) == 2 else (None, None)


async def _acked(ledger: OpenLedger, conn: Connection, consumer: Consumer, planned: Plan) -> tuple[int, dict[str, int]]:
    """How many of the events were acknowledged, and how many not, by reason."""
    readings = await readings_of(conn, ledger.kek, consumer, await ledger.directories.all(conn))
    verdicts = await anyio.to_thread.run_sync(
        lambda: Counter(readings.verdict(event.position, event.directory, event.kind)[0] for event in planned.events)
    )
    return verdicts[None], {why: count for why, count in verdicts.items() if why is not None}


async def _run(ledger: OpenLedger, number: UUID) -> Run:
    async with ledger.connection() as conn:
        found = await run_of(conn, ledger.kek, number)
    assert found is not None, "runs are kept"
    return found


@operation("replays.list")
async def list_runs(ledger: OpenLedger, caller: Caller, consumer: str | None, limit: int, after: str | None = None) -> list[Run]:
    """The runs of the caller's consumers, or of one of them, newest first, behind the run `after`. Raises InvalidFieldsError for one that the caller does not reach."""
    target = await reached_consumer(ledger, caller, consumer) if consumer is not None else None
    behind = await _reached_run(ledger, caller, after) if after is not None else None
    async with ledger.connection() as conn:
        read = limit if caller.everywhere else RUNS_READ_MAX
        runs = await runs_of(conn, ledger.kek, target.id if target else None, limit=read, after=behind)
        if target is None and not caller.everywhere:
            mine = {found.id for found in await owned(ledger, conn, caller, await consumers(conn))}
            runs = [run for run in runs if run.consumer in mine]
        if target is not None or not caller.everywhere:
            runs = [run for run in runs if await reaches_run(ledger, conn, caller, run)]
        return runs[:limit]


async def _reached_run(ledger: OpenLedger, caller: Caller, text: str) -> UUID:
    try:
        return (await reached_replay(ledger, caller, text)).id
    except NotFoundError:
        raise invalid("after", "is not the `list_metadata.after` of a page") from None


@on_replay("replays.show")
async def show(_ledger: OpenLedger, _caller: Caller, run: Run) -> Run:
    """The current state of one run."""
    return run


@on_replay("replays.pause")
async def pause(ledger: OpenLedger, caller: Caller, run: Run) -> Run:
    """Send no more events until resumed. Raises StateError if the run has ended."""
    return await _record_run_state(ledger, caller, run, "paused")


@on_replay("replays.resume")
async def resume(ledger: OpenLedger, caller: Caller, run: Run) -> Run:
    """Continue a paused run. Raises StateError if the run has ended."""
    return await _record_run_state(ledger, caller, run, "running")


@on_replay("replays.cancel")
async def cancel(ledger: OpenLedger, caller: Caller, run: Run) -> Run:
    """End a run; sent events stay sent. Raises StateError if it has finished or failed."""
    return await _record_run_state(ledger, caller, run, "cancelled")


async def _record_run_state(
    ledger: OpenLedger, caller: Caller, run: Run, state: Literal["running", "paused", "cancelled"]
) -> Run:
    if run.state != state:
        await record(ledger, caller, moved(run, state))
    return await _run(ledger, run.id)


def estimate(run: Run) -> int:
    """Seconds that a run will take at its rate, or at an assumed one."""
    return math.ceil(run.total / (run.rate_per_second or RATE_ASSUMED))


def seconds_left(run: Run, now: int) -> int | None:
    """Seconds until a run is done, by its rate or by what it did since it began; None if it is not running. `now` in µs."""
    if run.state != "running":
        return None
    left = run.total - run.done
    if run.rate_per_second is not None:
        return math.ceil(left / run.rate_per_second)
    seconds = now / 1e6 - run.created_at.timestamp()
    return math.ceil(left * seconds / run.done) if run.done and seconds > 0 else estimate(run)
