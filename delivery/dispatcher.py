"""The deliveries of one consumer, while this process holds its lease.

The state in memory is what lanes.py says about the open events; what must survive is recorded before the next event of a lane
leaves (checkpoint_writer.py), so a killed process repeats at most what was under way or accepted but not yet on record.

    window        events from the log that are simply next: they hold back `low`
    exceptional   events with a row of their own: tried in vain, blocked, held, or waiting behind such a one; `low` passes them
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog

from database.arrays import int8s
from database.connections import LOST, Connection
from database.queries import load_queries
from delivery import consumers as acts
from delivery.audit import Readings, readings_of
from delivery.checkpoints import exceptions, place_of
from delivery.consumers import Consumer
from delivery.forks import Trail
from delivery.lanes import Item, Lanes, rebuilt
from delivery.pace import OPEN_MAX, Finding, Pace, limit_of
from delivery.replays import Replays
from delivery.reports import BLOCKED, HELD, PARKED, RETRYING, REVOCATION_KINDS, WAITING, Exceptional, Place, Report
from delivery.runs import Planned, Run
from delivery.scheduler import Open, Replay, Scheduler, attempts_of, failed, state_of
from delivery.surge_control import held_commits
from delivery.surge_policy import Limit
from delivery.transport import Accepted, Batch, Gone, Outgoing, Retry, Rewind, Target, TooLateError, Transport
from ledger.commands import RecordFacts
from ledger.cursor import START, Anchor
from ledger.directories import Directories
from ledger.events import BY_NUMBER, CONSUMER, DELIVERY_BLOCKED, DIRECTORY_CLOSED, OPERATOR, Body, Draft
from ledger.feed import CursorAheadError, CursorForkedError, Feed, Selection
from ledger.refused import OvertakenError
from ledger.rendering import BODIES_BYTES_MAX, Event
from ledger.sealing import Kek, seal_note
from ledger.tail import Tail

SQL: Final = load_queries(__file__)
WINDOW_MAX: Final = 1_000  # events read ahead of the low watermark
OPEN_IN_DOUBT_MAX: Final = 20_000  # the same while nobody seems to be there: far enough to find leavers
PAUSE_MAX_S: Final = 60.0  # how long a 429 holds up what it was not said of
PAGE: Final = 500
PREFETCH: Final = 100  # events whose JSON is fetched together
HELD_BYTES_MAX: Final = BODIES_BYTES_MAX  # JSON of a consumer's open events in memory; what is beyond is fetched when it goes
SEND_MARGIN_S: Final = 1.0  # of lease that must be left beyond the timeout when a request begins
REWINDS_MAX: Final = 3  # of a directory in an hour
REWIND_EVENTS_MAX: Final = 1_000
JUDGED_AGAIN_S: Final = 15.0  # after the brake could not say in time what it holds
CLOCK_SET_S: Final = 1.0  # back in one look; less is a clock that is corrected slowly
NOTE_S: Final = 1.0  # how often passing over events of others is put on record
_log = structlog.get_logger("delivery.dispatcher")


class LeaseLostError(Exception):
    """Another process delivers for this consumer now, or it was moved: what was under way is not ours to record."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What deliveries need of their process; handed in by the wiring."""

    connection: Callable[[], AbstractAsyncContextManager[Connection]]
    feed: Feed
    directories: Directories
    kek: Kek
    tail: Tail
    transports: Mapping[str, Transport]  # by the mode of a consumer
    timeout_s: float
    act: Callable[[RecordFacts], Awaitable[None]]
    record: "Callable[[Dispatcher], Awaitable[None]]"
    limits: Mapping[int, Limit]
    clock: Callable[[], float]
    steady: Callable[[], float]  # nobody sets it, and it goes on while the process is stopped
    random: Callable[[], float]
    entropy: Callable[[int], bytes]
    replays: Replays
    trails: Mapping[UUID, Trail]  # of every consumer that there is: one that is new gets its own by being asked for


class Dispatcher:
    """Delivers to one webhook consumer. Raises LeaseLostError out of run()."""

    def __init__(self, parts: Parts, consumer: Consumer, fence: int) -> None:
        self._parts = parts
        self.consumer = consumer
        self.fence = fence
        self.lease_until = 0.0  # of the steady clock; the worker sets it with each renewal
        self.not_before = 0.0  # until then the receiver asked for nothing at all; the worker keeps it with the lease
        self.arrival = asyncio.Event()  # something may have come, or changed
        url = consumer.url(parts.kek)
        assert url is not None, "a consumer that is pushed to has a URL"
        self._transport = parts.transports[consumer.definition.mode]
        self._target = Target(url, consumer.secrets(parts.kek))  # once, not for each delivery
        self._stopping = False
        self._lost = False
        self._lanes = Lanes(consumer.definition.ordering)
        self._open: dict[int, Open] = {}
        self._window: dict[int, None] = {}
        self._held_bytes = 0  # JSON of open events
        self._sent_bytes = 0  # of that, what is under way
        self._fetching = False  # of the batches under way at most one waits for its JSON
        self._replays: dict[UUID, Replay] = {}
        self._read_to = START
        self._through = 0
        self._judge_at = math.inf  # of the steady clock: when the brake is asked again
        self._readings: Readings | None = None  # what it had acknowledged when its runs were taken up
        self._trail = parts.trails[consumer.uuid]
        self._known_to = 0  # no change of the consumer up to here is unknown to us
        self._epoch = consumer.epoch
        self._scheduler = Scheduler(consumer.definition, self._open, self._replays)
        self._pace = Pace()
        self._previous: dict[int, int] = {}
        self._rewinds: defaultdict[int, deque[float]] = defaultdict(deque)
        self._ahead = parts.clock() - parts.steady()  # of the clock, before the steady one
        self._tasks: set[asyncio.Task[None]] = set()
        self._report = Report(consumer.id, fence, Place(consumer.epoch, 0, 0))
        self._reported = -1
        self._noted = 0.0

    # -- life ---------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until stop(); then wait for what is under way, so that nothing is left unrecorded."""
        try:
            await self._load()
            while not self._stopping and not self._lost:
                self.arrival.clear()
                self._follow_clock()
                if self._parts.steady() >= self._judge_at:
                    self.stop()  # the worker begins again, and what is held is judged then
                await self._refill()
                self._start()
                if not self._tasks and self.moved_on and self._parts.clock() - self._noted >= NOTE_S:
                    await self._parts.record(self)
                await self._rest()
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._lost:
            raise LeaseLostError
        if self.moved_on:
            await self._parts.record(self)

    def lose(self) -> None:
        """Begin nothing more and record nothing: the log that this was read from has lost its end."""
        self._lost = True
        self.arrival.set()

    def stop(self) -> None:
        """Begin nothing more; run() ends when what is under way is recorded."""
        self._stopping = True
        self.arrival.set()

    def pace(self) -> Finding:
        """What has limited it lately; asked once a second."""
        unread = self._read_to.position < self._parts.tail.read_to
        moment = self._scheduler.moment(self._parts.clock(), unread=unread, crowded=self._exceptions >= OPEN_MAX)
        return self._pace.look(limit_of(moment), self._parts.steady())

    @property
    def moved_on(self) -> bool:
        """Whether the place moved past events that are none of this consumer's, which no delivery recorded."""
        return self._place().through > self._reported

    @property
    def holds(self) -> bool:
        """Whether the brake holds something of it."""
        return any(o.exceptional is not None and o.exceptional.state == HELD for o in self._open.values())

    async def _rest(self) -> None:
        """Until something happens: an arrival, a recorded delivery, a time for the next attempt."""
        now = self._parts.clock()
        times = self._scheduler.times(now)
        # Without a time to wait for, an arrival will come: the worker sends one at least every second.
        timeout = max(min(times) - now, 0.001) if times and self._may_send() else None
        if timeout is not None and self.not_before > now:
            timeout = max(timeout, self.not_before - now)
        try:
            async with asyncio.timeout(timeout):
                await self.arrival.wait()
        except TimeoutError:
            return

    # -- loading ------------------------------------------------------------

    async def _load(self) -> None:
        async with self._parts.connection() as conn:
            place = await place_of(conn, self.consumer)
            self._known_to = await self._parts.feed.head(conn, Selection())
            here = await self._parts.feed.anchor_at(conn, place.through)
            if here is None or here.leaf_hash != (place.leaf or here.leaf_hash) or not await self._as_known(conn):
                self._lost = True  # the worker looks after a place that is not in the log
                return
            self._selection = self.consumer.selection(await self._parts.directories.all(conn))
            every = await exceptions(conn, self.consumer)
            for row in every:
                row.read_at(self._parts.clock())
            runs = await self._parts.replays.unended(conn, self._parts.kek, self.consumer.id)
            resting = {run.id for run in runs if run.state == "paused"}
            # What earlier releases held beyond the place is judged when the place comes to it: it must not overtake what is between.
            beyond = {row.position for row in every if row.state == HELD and row.replay is None and row.position > place.through}
            self._report.settled += beyond
            rows = [r for r in every if r.state != PARKED and r.replay not in resting and r.position not in beyond]
            aside = {row.position for row in every if row.state == PARKED}
            found = await (await conn.cursor(binary=True).execute(SQL["places_at"], (int8s(place.open),))).fetchall()
            known = {row.position for row in rows}
            opens = [(d, seq) for position, d, seq in found if position not in known]
            events = await self._events(conn, [*opens, *((row.directory, row.seq) for row in rows)])
            held = await self._held_of(conn, events.values())
            self._through = self._reported = place.through
            self._read_to = here
            self._trail.note_read(here)
            for place_ in opens:
                self._remember(events[place_], None)
            for row in rows:
                self._remember_row(events[row.directory, row.seq], row, held)
            await self._join_runs(conn, [run for run in runs if run.state == "running"], aside)
            untold = await (await conn.execute(SQL["untold"], (self.consumer.id,))).fetchall()
        self._rebuild()
        await self._tell([self._open[position] for (position,) in untold if position in self._open])
        await self._finish_replays()

    async def _tell(self, blocked: Sequence[Open]) -> None:
        """Put on record that these wait for an operator."""
        async with self._parts.connection() as conn:
            places = [(found.item.directory, found.item.seq) for found in blocked]
            events = await self._parts.feed.at(conn, places, bodies=False) if blocked else []
        for event in events:
            with suppress(psycopg.errors.NotNullViolation):  # told already, by who held the lease before, or holds it now
                await self._parts.act(_blocked(self.consumer, self._open[event.position], _event_id(event.json)))

    async def _join_runs(self, conn: Connection, runs: Sequence[Run], aside: set[int]) -> None:
        """Take up the runs of this consumer; what an operator parked, or skipped since, is no part of them any more.

        Nor is a grant that was taken back since the run started: while it was paused that was delivered, and it would come last.
        """
        if runs:
            directories = await self._parts.directories.all(conn)
            self._readings = await readings_of(conn, self._parts.kek, self.consumer, directories)
        skips = await (await conn.cursor(binary=True).execute(SQL["skips_of"], (self.consumer.id,))).fetchall()
        for run in runs:
            gone = aside | {row[0] for row in skips if row[2] >= run.created_at}
            planned = await self._parts.replays.planned(conn, run, max(run.head, self._known_to))
            self._join(run, [p for p in planned if p.position not in gone])

    async def _events(self, conn: Connection, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Event]:
        found: dict[tuple[int, int], Event] = {}
        for start in range(0, len(places), 5_000):
            for event in await self._parts.feed.at(conn, places[start : start + 5_000], rendered=False):
                found[event.directory, event.seq] = event
        return found

    def _remember(self, event: Event, exceptional: Exceptional | None) -> Open:
        found = self._open[event.position] = Open(_item(event), exceptional)
        if exceptional is None and self._held_bytes < HELD_BYTES_MAX:
            self._hold(found, event.json)
        if exceptional is None:
            self._window[event.position] = None
        return found

    def _hold(self, found: Open, json: bytes) -> None:
        """Keep the JSON of an open event in memory; with none, let go of it."""
        self._held_bytes += len(json) - len(found.json)
        found.json = json

    def _remember_row(self, event: Event, row: Exceptional, held: set[tuple[int, int]]) -> None:
        if row.state == HELD and (event.directory, event.commit) not in held:
            row.state = WAITING  # an operator let it go
        found = self._remember(event, row)
        found.alone = row.state in {RETRYING, BLOCKED} or row.tried_at is not None
        found.item.replay, found.again = row.replay, row.replay is not None

    def _join(self, run: Run, planned: Iterable[Planned]) -> None:
        """Take up a run where it stands. What is still open here is not sent twice: it becomes part of the run, and due."""
        done = set(run.ahead)
        stuck = {o.item.position for o in self._open.values() if o.item.replay == run.id}
        replay = Replay(run, {}, stuck, done, run.through, run.done, allowance=1.0, at=self._parts.clock())
        self._replays[run.id] = replay
        for p in planned:
            if p.position <= run.through or p.position in done or p.position in stuck:
                continue
            replay.left[p.position] = None
            known = self._open.get(p.position)
            if known is not None:  # sent once, as part of the run. In memory only: if that is cancelled it stays open
                known.item.replay = run.id
            elif p.position <= self._read_to.position:  # what lies further is taken up when it is read
                item = Item(p.position, p.directory, p.seq, p.kind, p.obj, p.mem, p.at, run.id)
                self._open[p.position] = Open(item, again=True)

    def _follow_clock(self) -> None:
        """Where somebody set the clock back, nothing waits until it says again what it said."""
        ahead = self._parts.clock() - self._parts.steady()
        back, self._ahead = self._ahead - ahead, ahead
        if back > CLOCK_SET_S:
            self._scheduler.set_back(back)
            self._rebuild()

    def _rebuild(self) -> None:
        """Lanes and queues anew, from what is open."""
        under_way = [o.item for o in self._open.values() if o.under_way]
        self._lanes = rebuilt(
            self.consumer.definition.ordering, under_way, (o.item for o in self._open.values() if not o.under_way)
        )
        self._scheduler.reset()
        for found in self._open.values():
            self._scheduler.hurry(found)
            self._scheduler.queue(found)

    # -- reading on ---------------------------------------------------------

    async def _refill(self) -> None:
        """Read on; then let the watermark pass what an operator must decide about, and what waits for that."""
        await self._read_on()
        resting = self._window and not self._tasks and self._scheduler.idle  # asked first: the open ones may be many
        if resting and any(state_of(found) in {BLOCKED, HELD} for found in self._open.values()):
            await self._make_room()

    @property
    def _nobody_there(self) -> bool:
        return self._scheduler.doubt.open and self._scheduler.doubt.away

    @property
    def _exceptions(self) -> int:
        return len(self._open) - len(self._window) - sum(len(replay.left) for replay in self._replays.values())

    async def _read_on(self) -> None:
        """Read while there is room for more. Events at the end of the log come from the tail that all consumers share."""
        while self._exceptions < (OPEN_IN_DOUBT_MAX if self._nobody_there else OPEN_MAX):
            if len(self._window) >= WINDOW_MAX:
                await self._make_room()
                if len(self._window) >= WINDOW_MAX:
                    return
            events = self._parts.tail.since(self._read_to)
            if events is not None:
                if any(self._changed_by(e) for e in events):
                    self.stop()
                else:
                    await self._take([e for e in events if self._selection.takes(e)], self._parts.tail.place)
                return
            # What would not be kept is not unsealed: it is fetched when it goes.
            selection = replace(self._selection, rendered=self._held_bytes < HELD_BYTES_MAX)
            try:
                some, covered_to, head = await self._parts.feed.read(self._parts.connection, selection, self._read_to, PAGE)
            except (CursorAheadError, CursorForkedError):
                self.lose()
                return
            except LOST:
                return  # an arrival comes when the database is back
            async with self._parts.connection() as conn:
                if not await self._as_known(conn):
                    self.stop()
                    return
            await self._take(some, covered_to)
            if covered_to.position >= head:
                return

    def _changed_by(self, event: Event) -> bool:
        """Whether an operator changed the consumer here: what follows in the log is for its new definition, not for this one."""
        return event.kind in acts.CHANGES and event.obj == self.consumer.uuid and event.position > self._known_to

    async def _as_known(self, conn: Connection) -> bool:
        """Whether the consumer is still what this process knows of it: asked after a page was read, all of the page is for it."""
        params = (self.consumer.id, self.consumer.version)
        return await (await conn.execute(SQL["consumer_unchanged"], params)).fetchone() is not None

    async def _take(self, events: Sequence[Event], covered_to: Anchor) -> None:
        if self._replays and any(e.kind == DIRECTORY_CLOSED.number and e.position > self._known_to for e in events):
            self.stop()  # runs are planned anew, without the grants of a directory that is closed now
            return
        held: set[tuple[int, int]] = set()
        if any(limit.action == "hold" for limit in self._parts.limits.values()):
            async with self._parts.connection() as conn:
                held = await self._held_of(conn, events)
        for event in events:
            exceptional = None
            if (event.directory, event.commit) in held:
                exceptional = Exceptional(event.position, event.directory, event.seq, HELD, stored=False)
                self._report.begun.append(exceptional)
                self._through = max(self._through, event.position)
            found = self._remember(event, exceptional)
            found.item.replay = next((run for run, replay in self._replays.items() if event.position in replay.left), None)
            self._lanes.admit(found.item)
            self._scheduler.hurry(found)
            self._scheduler.queue(found)
        self._read_to = max(self._read_to, covered_to, key=lambda place: place.position)
        self._trail.note_read(self._read_to)
        if any(e.state == HELD for e in self._report.begun):
            await self._recorded()

    async def _held_of(self, conn: Connection, events: Iterable[Event]) -> set[tuple[int, int]]:
        """Which commits the brake holds, by the limits as they are now: nobody looks again at what was held by those of before.

        What could not be judged in time is held as well, for a while: everything else goes on, and its lanes stay in order.
        """
        events = list(events)
        while True:
            limits = dict(self._parts.limits)
            held = await held_commits(conn, limits, events)
            if limits == self._parts.limits:
                if not held.judged:
                    self._judge_at = self._parts.steady() + JUDGED_AGAIN_S
                return held.commits

    async def _make_room(self) -> None:
        """Move what waits behind something stuck out of the window, so that a poison event never stops the watermark.

        In doubt also what has not been tried yet: a leaver may be behind it.
        """
        if self._all_stuck() or self._exceptions >= OPEN_MAX:
            return
        if not self._scheduler.doubt.open and (self._tasks or not self._scheduler.idle):
            return
        moved = [found for position in self._window if not (found := self._open[position]).under_way]
        for found in moved:
            item = found.item
            self._hold(found, b"")
            found.exceptional = Exceptional(item.position, item.directory, item.seq, WAITING, stored=False)
            self._report.begun.append(found.exceptional)
            del self._window[item.position]
            self._through = max(self._through, item.position)
        if moved:
            await self._recorded()

    def _all_stuck(self) -> bool:
        """Whether reading on can bring nothing that may go: each directory of an ordered consumer has something stuck."""
        if self.consumer.definition.ordering == "subject":
            return False
        stuck = {o.item.directory for o in self._open.values()}
        some = self._selection.directories
        return some is not None and stuck >= some

    # -- choosing -----------------------------------------------------------

    def _start(self) -> None:
        now = self._parts.clock()
        if now < self.not_before <= now + PAUSE_MAX_S:  # further only where the clock was set back
            return
        while self._may_send():
            if self._tasks and (self._fetching or self._sent_bytes >= HELD_BYTES_MAX):
                return  # the end of a fetch, or of a delivery, comes here again
            batch = self._scheduler.next_batch(now)
            if not batch:
                return
            for found in batch:
                found.under_way = True
            self._fetching = not all(found.json for found in batch)
            size = sum(len(found.json) for found in batch)
            self._sent_bytes += size
            task = asyncio.create_task(self._deliver(batch, size))
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, batch[0]))

    def _finished(self, first: Open, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._scheduler.ended(first)
        self._fetching = self._fetching and bool(self._tasks)  # what failed while it fetched
        self.arrival.set()
        if not task.cancelled() and task.exception() is not None:
            self._lost = True
            if not isinstance(task.exception(), LeaseLostError):
                _log.error("delivery_failed", consumer=self.consumer.name, error=type(task.exception()).__name__)

    def _may_send(self) -> bool:
        return self._leased and not self._stopping and not self._lost

    @property
    def _leased(self) -> bool:
        """A request must end before the lease does: nobody else may have begun meanwhile."""
        return self.lease_until - self._parts.steady() > self._parts.timeout_s + SEND_MARGIN_S

    # -- sending ------------------------------------------------------------

    async def _deliver(self, batch: list[Open], size: int) -> None:
        """Send a batch; `size` is what is counted of it as under way."""
        try:
            if not all(found.json for found in batch):
                await self._fetch(batch)
                self._fetching = False
                self.arrival.set()  # others may begin
                fetched = sum(len(found.json) for found in batch)
                self._sent_bytes, size = self._sent_bytes + fetched - size, fetched
            batch = self._within_budget(batch)
            outgoing = await self._outgoing(batch)
            began = self._parts.steady()
            outcome = await self._transport.send(self._target, outgoing)
            self._pace.answered(self._parts.steady() - began)
        except TooLateError:  # it may still be ours, when the lease is renewed; if not, the next look ends this
            self._not_sent(batch)
            return
        finally:
            self._sent_bytes -= size
        if isinstance(outcome, Accepted) or (isinstance(outcome, Retry) and outcome.may_have_arrived):
            for found, event in zip(batch, outgoing.events, strict=True):
                self._trail.note_sent(found.item.position, event.id)
        match outcome:
            case Accepted():
                await self._accepted(batch)
            case Gone():
                await self._gone(batch)
            case Retry():
                await self._failed(batch, outcome)
            case Rewind():
                if not await self._rewound(batch, outcome):
                    await self._failed(batch, outcome.otherwise)

    async def _failed(self, batch: Sequence[Open], retry: Retry) -> None:
        if len(batch) > 1:
            await self._taken_apart(batch, retry)
        else:
            await self._refused(batch[0], retry)

    def _not_sent(self, batch: Sequence[Open]) -> None:
        for found in batch:
            found.under_way = False
            self._scheduler.queue(found)

    def _within_budget(self, batch: list[Open]) -> list[Open]:
        """The beginning of a batch that may leave together; what is behind it goes back to its queue. Its order allows that."""
        size = end = 0
        while end < len(batch) and batch[end].json and (not end or size + len(batch[end].json) <= BODIES_BYTES_MAX):
            size += len(batch[end].json) if end else 0
            end += 1
        self._not_sent(batch[end:])
        return batch[:end]

    async def _fetch(self, batch: Sequence[Open]) -> None:
        """The JSON of what was not kept in memory, and while there is room of what goes after it.

        The first of a batch always has its JSON afterwards, the others as far as the budget of a delivery goes.
        """
        if all(found.json for found in batch):
            return
        wanted = {o.item.position: o for o in batch if not o.json}
        own = len(wanted)
        ahead = deque(batch)
        while ahead and len(wanted) < PREFETCH:
            for dependant in ahead.popleft().item.dependants[: PREFETCH - len(wanted)]:
                waiting = self._open.get(dependant.position)
                if waiting is not None and not waiting.json and dependant.position not in wanted:
                    wanted[dependant.position] = waiting
                    ahead.append(waiting)
        for found in self._scheduler.upcoming(PREFETCH - len(wanted)):
            if not found.json:
                wanted.setdefault(found.item.position, found)
        places = [(o.item.directory, o.item.seq) for o in wanted.values()]
        async with self._parts.connection() as conn:
            fetched = await self._parts.feed.fetch_at(conn, places, Selection())
        for number, event in enumerate(await self._parts.feed.opened(fetched, budget=BODIES_BYTES_MAX)):
            found = wanted[event.position]
            if event.json and not found.json and (number < own or self._held_bytes < HELD_BYTES_MAX):
                self._hold(found, event.json)

    async def _outgoing(self, batch: Sequence[Open]) -> Batch:
        item, ordered = batch[0].item, self.consumer.definition.ordering == "directory"
        return Batch(
            [Outgoing(_event_id(o.json), BY_NUMBER[o.item.kind].topic, o.item.seq, o.item.at, o.json) for o in batch],
            single=self.consumer.definition.batch_max == 1,
            attempt=max(attempts_of(found) for found in batch) + 1,
            replay=item.replay,
            previous_seq=await self._previous_of(item) if ordered and item.replay is None else None,
            may_leave=lambda: self._leased,
        )

    async def _previous_of(self, item: Item) -> int:
        """The seq that was delivered last in its directory; 0 where none was."""
        if item.directory not in self._previous:
            async with self._parts.connection() as conn:
                params = (item.directory, item.seq, self.consumer.mask, self.consumer.id)
                row = await (await conn.cursor(binary=True).execute(SQL["previous_matching"], params)).fetchone()
                start = await (await conn.execute(SQL["epoch_start"], (self.consumer.id, self._epoch))).fetchone()
            assert start is not None
            self._previous[item.directory] = row[0] if row is not None and row[1] > start[0] else 0
        return self._previous[item.directory]

    # -- what became of it --------------------------------------------------

    async def _accepted(self, batch: Sequence[Open]) -> None:
        for found in batch:
            self._settle(found)
        back, began = self._scheduler.accepted(), self._parts.steady()
        await self._recorded()
        self._pace.recorded(self._parts.steady() - began, len(batch))
        if back:
            self._scheduler.reopen(self._parts.clock())
        for found in batch:
            self._hold(found, b"")
            del self._open[found.item.position]
            if not found.again:
                self._previous[found.item.directory] = max(self._previous.get(found.item.directory, 0), found.item.seq)
            for item in self._lanes.settle(found.item):
                waiting = self._open.get(item.position)
                if waiting is not None:
                    self._scheduler.queue(waiting)
        await self._finish_replays()

    def _settle(self, found: Open) -> None:
        """Note for the next report that it was accepted."""
        item = found.item
        if found.exceptional is not None:
            self._report.settled.append(item.position)
        if found.again and self._readings is not None and self._readings.verdict(item.position, item.directory, item.kind)[0]:
            self._report.replayed.append(item.position)  # a hole until now
        if item.position in self._window:
            del self._window[item.position]
            self._through = max(self._through, item.position)
        if item.kind in REVOCATION_KINDS:
            self._report.revocations.append((item.directory, item.seq, item.at))
        for replay in self._replays.values():  # also one that an event of its range was open for
            if item.position in replay.left or item.position in replay.stuck:
                replay.left.pop(item.position, None)
                replay.stuck.discard(item.position)
                replay.done += 1
                replay.ahead.add(item.position)

    def _pause(self, retry: Retry) -> None:
        """The receiver may speak of all that it gets, but whoever has nothing to do with the failure is tried after a minute."""
        if retry.asks_all and retry.after_s is not None:
            self.not_before = self._parts.clock() + min(retry.after_s, PAUSE_MAX_S)

    async def _taken_apart(self, batch: Sequence[Open], retry: Retry) -> None:
        """One of them may be to blame, so each goes alone: at once, or after as much of what the receiver asked for as holds for all."""
        self._pause(retry)
        now = self._parts.clock()
        if retry.after_s:
            for found in batch:
                patience = replace(retry, after_s=min(retry.after_s, PAUSE_MAX_S))
                self._note(found, patience, now, blamed=False)
            await self._recorded()
        self._scheduler.taken_apart(batch, now)

    async def _refused(self, found: Open, retry: Retry) -> None:
        self._pause(retry)
        now = self._parts.clock()
        blamed = self._scheduler.blamed(found, now, away=retry.away)
        if blamed or retry.after_s:
            self._note(found, retry, now, blamed=blamed)
            await self._recorded()
        self._hold(found, b"")  # the next attempt may be hours away
        found.under_way = False
        self._scheduler.queue(found)
        if blamed and state_of(found) == BLOCKED:
            await self._tell([found])

    def _note(self, found: Open, retry: Retry, now: float, *, blamed: bool) -> None:
        """Note on its row what the receiver answered; the next report stores it."""
        exceptional = self._exception_of(found, now, RETRYING if blamed else WAITING)
        exceptional.error, exceptional.answer = retry.error, self._sealed(retry)
        schedule, asked_s = self.consumer.definition.retry_schedule, retry.after_s
        failed(exceptional, schedule, now, self._parts.random(), blamed=blamed, asked_s=asked_s)

    def _exception_of(self, found: Open, now: float, state: int = RETRYING) -> Exceptional:
        """Its row, made in this state at the first failure: from then on the watermark passes it."""
        if found.exceptional is None:
            item = found.item
            found.exceptional = Exceptional(item.position, item.directory, item.seq, state, stored=False)
            found.exceptional.replay = item.replay if found.again else None
            self._window.pop(item.position, None)
            self._through = max(self._through, 0 if found.again else item.position)
            replay = self._replays.get(item.replay) if item.replay is not None else None
            if replay is not None:
                replay.left.pop(item.position, None)
                replay.stuck.add(item.position)
        if found.exceptional.since is None:
            found.exceptional.since = now
        target = self._report.went_on if found.exceptional.stored else self._report.begun
        if found.exceptional not in target:
            target.append(found.exceptional)
        found.exceptional.stored = True
        return found.exceptional

    def _sealed(self, retry: Retry) -> bytes | None:
        """What the receiver said may name persons."""
        if not retry.answer:
            return None
        return seal_note(self._parts.kek, retry.answer, kind="answer", owner=self.consumer.uuid, random=self._parts.entropy)

    async def _gone(self, batch: Sequence[Open]) -> None:
        for found in batch:
            found.under_way = False
        self._stopping = True
        with suppress(OvertakenError):  # by an operator's act; who delivers next is told of its own 410
            await self._parts.act(acts.disabled(self.consumer, "the receiver answered 410"))

    async def _rewound(self, batch: Sequence[Open], asked: Rewind) -> bool:
        """Send again what a receiver of an ordered directory says it lacks; False where that is not for us to do."""
        item, expected = batch[0].item, asked.seq
        if self.consumer.definition.ordering != "directory" or item.replay is not None or expected >= item.seq:
            return False
        now = self._parts.clock()
        times = self._rewinds[item.directory]
        while times and times[0] <= now - 3_600:
            times.popleft()
        async with self._parts.connection() as conn:
            params = (item.directory, expected, item.seq, self.consumer.mask, REWIND_EVENTS_MAX + 1, self.consumer.id)
            rows = await (await conn.cursor(binary=True).execute(SQL["matching_between"], params)).fetchall()
        missing = [row for row in rows if row[5] not in self._open]
        if len(times) >= REWINDS_MAX or len(rows) > REWIND_EVENTS_MAX:
            await self._block(batch, replace(asked.otherwise, error="rewind_refused"))
            return True
        times.append(now)
        for seq, kind, obj, mem, at, position, _, _ in missing:
            again = Exceptional(position, item.directory, seq, WAITING, stored=False)
            self._report.begun.append(again)
            self._open[position] = Open(Item(position, item.directory, seq, kind, obj, mem, at), again)
        await self._recorded()
        for found in batch:
            found.under_way = False
        self._previous[item.directory] = expected
        self._rebuild()
        return True

    async def _block(self, batch: Sequence[Open], retry: Retry) -> None:
        now = self._parts.clock()
        answer = self._sealed(retry)
        for found in batch:
            exceptional = self._exception_of(found, now)
            exceptional.attempts += 1
            exceptional.state, exceptional.next_at = BLOCKED, None
            exceptional.error, exceptional.answer = retry.error, answer
        await self._recorded()
        for found in batch:
            found.under_way = False
        await self._tell(batch)

    # -- reports ------------------------------------------------------------

    async def _recorded(self) -> None:
        await self._parts.record(self)

    def take_report(self) -> Report:
        """What happened since the last one, with the place as it is now. Whoever takes it stores it."""
        report, self._report = self._report, Report(self.consumer.id, self.fence, Place(self._epoch, 0, 0))
        report.place, report.read_to = self._place(), self._read_to
        self._reported, self._noted = report.place.through, self._parts.clock()
        report.replays = [_progress(replay) for replay in self._replays.values()]
        return report

    def _place(self) -> Place:
        """Everything up to `through` is settled but `open` and what has a row."""
        if not self._window:
            return Place(self._epoch, self._read_to.position, self._read_to.position)
        first = next(iter(self._window))
        through = max(self._through, first - 1)
        still: list[int] = []
        for position in self._window:
            if position > through:
                break
            still.append(position)
        return Place(self._epoch, first - 1, through, tuple(still))

    async def _finish_replays(self) -> None:
        over = [r for r in self._replays.values() if not r.left and not r.stuck]
        if not over:
            return
        open_still = {found.item.replay for found in self._open.values()}  # accepted, but not on record yet
        for replay in [r for r in over if r.run.id not in open_still]:
            del self._replays[replay.run.id]
            with suppress(OvertakenError):  # paused or cancelled just now
                await self._parts.act(self._parts.replays.moved(replace(replay.run, done=replay.done), "finished", ""))


def _item(event: Event) -> Item:
    return Item(event.position, event.directory, event.seq, event.kind, event.obj, event.mem, event.at)


def _event_id(event: bytes) -> str:
    start = len(b'{"object":"event","id":"')
    return event[start : event.index(b'"', start)].decode()


def _progress(replay: Replay) -> tuple[UUID, int, int, tuple[int, ...]]:
    low = next(iter(replay.left), None)
    replay.through = replay.run.range.through if low is None else low - 1
    replay.ahead = {position for position in replay.ahead if position > replay.through}
    return replay.run.id, replay.done, replay.through, tuple(sorted(replay.ahead))


def _blocked(consumer: Consumer, found: Open, event_id: str) -> RecordFacts:
    """The act of telling that a lane waits for an operator."""
    assert found.exceptional is not None, "what is blocked has a row"
    facts = {
        "id": str(consumer.uuid), "name": consumer.name, "event_id": event_id, "attempts": attempts_of(found),
        "last_error": found.exceptional.error,
    }  # fmt: skip
    draft = Draft(DELIVERY_BLOCKED, consumer.uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], consumer.name))
    return RecordFacts((draft,), ((SQL["note_told"], (consumer.id, found.item.position)),))
