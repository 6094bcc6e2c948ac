"""The deliveries of one consumer, while this process holds its lease: read, send, store. What is decided stands in backlog.py."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
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
from delivery.attempts import Observe, attempt, outcome_word
from delivery.audit import Readings, readings_of, skips
from delivery.backlog import REWIND_EVENTS_MAX, Backlog, Budgets
from delivery.checkpoint_writer import LeaseLostError
from delivery.checkpoints import exceptions, place_of
from delivery.consumers import Consumer
from delivery.forks import Trail
from delivery.lanes import Item
from delivery.pace import Finding, Pace, limit_of
from delivery.replays import Replays
from delivery.reports import HELD, PARKED, Exceptional, Place, Report
from delivery.runs import Planned, Run
from delivery.scheduler import Open, Request, attempts_of
from delivery.surge_control import held_commits
from delivery.surge_policy import Limit
from delivery.transport import Accepted, Batch, Gone, Outcome, Outgoing, Retry, Rewind, Target, TooLateError, Transport
from ledger.commands import RecordFacts
from ledger.cursor import Anchor
from ledger.directories import Directories
from ledger.events import BY_NUMBER, CONSUMER, DELIVERY_BLOCKED, DIRECTORY_CLOSED, OPERATOR, Body, Draft
from ledger.feed import CursorAheadError, CursorForkedError, Feed, Selection
from ledger.forgetting import Forgetting
from ledger.ids import Seq
from ledger.refused import OvertakenError
from ledger.rendering import BODIES_BYTES_MAX, Event
from ledger.sealing import Kek, seal_note
from ledger.tail import Tail
from ledger.trace_context import shared_context
from ledger.tracing import UNTRACED, Span, Tracer

SQL: Final = load_queries(__file__)
READ_PAGE: Final = 500
BUDGETS: Final = Budgets(request=BODIES_BYTES_MAX, consumer=BODIES_BYTES_MAX)
SEND_MARGIN_S: Final = 1.0  # a request begins only if the lease lasts this much longer than the request's timeout
JUDGED_AGAIN_S: Final = 15.0  # after the surge policy could not say in time what it holds
CLOCK_SET_S: Final = 1.0  # a clock that went back by more was set; a clock that went back by less is being corrected slowly
NOTE_S: Final = 1.0  # how often a place is recorded that moved only past events of other consumers
_log = structlog.get_logger("delivery.dispatcher")


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
    steady: Callable[[], float]  # a clock that nobody can set; it also counts while the process is stopped
    random: Callable[[], float]
    entropy: Callable[[int], bytes]
    replays: Replays
    trails: Mapping[UUID, Trail]  # by consumer; a missing one is made when it is asked for
    observe: Observe
    erased: Forgetting
    tracer: Tracer = UNTRACED


class Dispatcher:
    """Delivers to one consumer. Raises LeaseLostError out of run()."""

    def __init__(self, parts: Parts, consumer: Consumer, fence: int) -> None:
        self._parts = parts
        self.consumer = consumer
        self.lease_until = 0.0  # of the steady clock; the worker sets it with each renewal
        self.arrival = asyncio.Event()  # something may have come, or changed
        url = consumer.url(parts.kek)
        assert url is not None, "a consumer that is pushed to has a URL"
        self._transport = parts.transports[consumer.definition.mode]
        self._target = Target(url, consumer.secrets(parts.kek))  # once, not for each delivery
        self._backlog = Backlog(consumer.definition, BUDGETS, consumer=consumer.id, fence=fence, epoch=consumer.epoch)
        self._stopping = False
        self._lost = False
        self._judge_at = math.inf  # of the steady clock: when the surge policy is asked again
        self._trail = parts.trails[consumer.uuid]
        self._known_to = 0  # this process knows all changes of the consumer up to this position
        self._pace = Pace()
        self._ahead = parts.clock() - parts.steady()  # of the clock, before the steady one
        self._tasks: set[asyncio.Task[None]] = set()
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
                await self._read_on()
                self._start()
                if not self._tasks and self._backlog.moved_on and self._parts.clock() - self._noted >= NOTE_S:
                    await self._record()
                await self._rest()
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._lost:
            raise LeaseLostError
        if self._backlog.moved_on:
            await self._record()

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
        unread = self._backlog.read_to.position < self._parts.tail.read_to
        return self._pace.look(limit_of(self._backlog.moment(self._parts.clock(), unread=unread)), self._parts.steady())

    @property
    def holds(self) -> bool:
        """Whether the surge policy holds something of it."""
        return self._backlog.holds

    @property
    def not_before(self) -> float:
        """Until when the receiver asked for nothing at all; the worker keeps it with the lease."""
        return self._backlog.not_before

    @not_before.setter
    def not_before(self, at: float) -> None:
        self._backlog.not_before = at

    async def _rest(self) -> None:
        """Wait for an arrival, for a delivery that was recorded, or for the time of the next attempt."""
        now = self._parts.clock()
        at = self._backlog.next_time(now) if self._may_send() else None
        # Without a time to wait for, an arrival will come: the worker sends one at least every second.
        with suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else max(at - now, 0.001)):
                await self.arrival.wait()

    def _follow_clock(self) -> None:
        """If somebody set the clock back, move all waiting times back as well: otherwise deliveries would wait for the old time to come again."""
        ahead = self._parts.clock() - self._parts.steady()
        back, self._ahead = self._ahead - ahead, ahead
        if back > CLOCK_SET_S:
            self._backlog.set_back(back)

    # -- reading ------------------------------------------------------------

    async def _load(self) -> None:
        async with self._parts.connection() as conn:
            place = await place_of(conn, self.consumer)
            self._known_to = await self._parts.feed.head(conn, Selection())
            here = await self._parts.feed.anchor_at(conn, place.through)
            if here is None or here.leaf_hash != (place.leaf or here.leaf_hash) or not await self._as_known(conn):
                self._lost = True  # the worker looks after a place that is not in the log
                return
            self._selection = self.consumer.selection(await self._parts.directories.all(conn))
            await self._restore(conn, place, here)
            untold = [row[0] for row in await (await conn.execute(SQL["untold"], (self.consumer.id,))).fetchall()]
        self._trail.note_read(here)
        await self._tell(self._backlog.at(untold))
        await self._finish_replays()

    async def _restore(self, conn: Connection, place: Place, here: Anchor) -> None:
        now = self._parts.clock()
        every = await exceptions(conn, self.consumer)
        for row in every:
            row.read_at(now)
        unended = await self._parts.replays.unended(conn, self._parts.kek, self.consumer.id)
        resting = {run.id for run in unended if run.state == "paused"}
        # Earlier releases held events that lie after the place. They are judged again when reading reaches them: now they would overtake others.
        beyond = {row.position for row in every if row.state == HELD and row.replay is None and row.position > place.through}
        rows = [r for r in every if r.state != PARKED and r.replay not in resting and r.position not in beyond]
        opens = await self._opens(conn, place, rows)
        held = await self._held_of(conn, [event for event, _ in opens])
        readings, runs = await self._planned(conn, [run for run in unended if run.state == "running"], every)
        self._backlog.restore(
            place, here, [found for _, found in opens], runs, directories=self._selection.directories, dropped=beyond, held=held,
            lacks=partial(_lacks, readings), now=now,
        )  # fmt: skip

    async def _opens(self, conn: Connection, place: Place, rows: Sequence[Exceptional]) -> list[tuple[Event, Open]]:
        """Read the events that the place leaves open, and the events with a row."""
        found = await (await conn.cursor(binary=True).execute(SQL["places_at"], (int8s(place.open),))).fetchall()
        known = {row.position: row for row in rows}
        places = [(d, seq) for position, d, seq in found if position not in known] + [(row.directory, row.seq) for row in rows]
        opens: list[tuple[Event, Open]] = []
        for start in range(0, len(places), 5_000):
            events = await self._parts.feed.at(conn, places[start : start + 5_000], rendered=False)
            opens += [(event, _open(event, known.get(event.position))) for event in events]
        return opens

    async def _planned(
        self, conn: Connection, runs: Sequence[Run], rows: Sequence[Exceptional]
    ) -> tuple[Readings | None, list[tuple[Run, Sequence[Planned]]]]:
        """Give what each run sends. Events that an operator parked, or skipped since the run started, are no part of it any more.

        Nor are grants that were taken back since the run started: while the run was paused the end of the grant was delivered, and the
        grant would come after it.
        """
        if not runs:
            return None, []
        readings = await readings_of(conn, self._parts.kek, self.consumer, await self._parts.directories.all(conn))
        skipped = await skips(conn, self.consumer)
        aside = {row.position for row in rows if row.state == PARKED}
        planned: list[tuple[Run, Sequence[Planned]]] = []
        for run in runs:
            gone = aside | {skip.position for skip in skipped if skip.at >= run.created_at}
            sends = await self._parts.replays.planned(conn, run, max(run.head, self._known_to))
            planned.append((run, [p for p in sends if p.position not in gone]))
        return readings, planned

    async def _read_on(self) -> None:
        """Read on while there is room, and let the watermark pass events that wait for an operator."""
        while self._backlog.reads_on:
            if self._backlog.full and not await self._made_room():
                return
            if await self._read_page():
                break
        await self._made_room()

    async def _made_room(self) -> bool:
        self._backlog.make_room()
        if self._backlog.must_store:
            await self._record()
        return not self._backlog.full

    async def _read_page(self) -> bool:
        """Read a page; give whether that was the end for now. Events at the end of the log come from the tail that all consumers share."""
        events = self._parts.tail.since(self._backlog.read_to)
        if events is not None:
            if any(self._changed_by(e) for e in events):
                self.stop()
            else:
                await self._take([e for e in events if self._selection.takes(e)], self._parts.tail.place)
            return True
        # JSON that would not be kept in memory is not unsealed here: it is fetched when its event goes.
        selection = replace(self._selection, rendered=self._backlog.keeps_json)
        try:
            some, covered_to, head = await self._parts.feed.read(
                self._parts.connection, selection, self._backlog.read_to, READ_PAGE
            )
        except (CursorAheadError, CursorForkedError):
            self.lose()
            return True
        except LOST:
            return True  # an arrival comes when the database is back
        async with self._parts.connection() as conn:
            if not await self._as_known(conn):
                self.stop()
                return True
        await self._take(some, covered_to)
        return covered_to.position >= head

    def _changed_by(self, event: Event) -> bool:
        """Whether this event says that an operator changed the consumer: events after it belong to the new definition."""
        return event.kind in acts.CHANGES and event.obj == self.consumer.uuid and event.position > self._known_to

    async def _as_known(self, conn: Connection) -> bool:
        """Whether the consumer is unchanged. Asked after a page was read: then the whole page belongs to the definition that this process knows."""
        return await (await conn.execute(*acts.unchanged(self.consumer))).fetchone() is not None

    async def _take(self, events: Sequence[Event], covered_to: Anchor) -> None:
        if self._backlog.replays and any(e.kind == DIRECTORY_CLOSED.number and e.position > self._known_to for e in events):
            self.stop()  # runs are planned anew, without the grants of a directory that is closed now
            return
        held: set[tuple[int, int]] = set()
        if any(limit.action == "hold" for limit in self._parts.limits.values()):
            async with self._parts.connection() as conn:
                held = await self._held_of(conn, events)
        self._backlog.admit(map(_open, events), covered_to, held)
        self._trail.note_read(self._backlog.read_to)
        if self._backlog.must_store:
            await self._record()

    async def _held_of(self, conn: Connection, events: Iterable[Event]) -> set[tuple[int, int]]:
        """Give which of these events the surge policy holds, as (directory, seq).

        The limits must be those of now: events that older limits held are not looked at again.

        Events that could not be judged in time are held too, for a while: so everything else goes on, and their lanes stay in order.
        """
        events = list(events)
        while True:
            limits = dict(self._parts.limits)
            held = await held_commits(conn, limits, events)
            if limits == self._parts.limits:
                if not held.judged:
                    self._judge_at = self._parts.steady() + JUDGED_AGAIN_S
                return {(e.directory, e.seq) for e in events if (e.directory, e.commit) in held.commits}

    # -- sending ------------------------------------------------------------

    def _start(self) -> None:
        now = self._parts.clock()
        while self._may_send() and (request := self._backlog.next_request(now)) is not None:
            task = asyncio.create_task(self._deliver(request))
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, request))

    def _finished(self, request: Request, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._backlog.ended(request)
        self.arrival.set()
        if not task.cancelled() and task.exception() is not None:
            self._lost = True
            if not isinstance(task.exception(), LeaseLostError):
                _log.error("delivery_failed", consumer=self.consumer.name, error=type(task.exception()).__name__)

    def _may_send(self) -> bool:
        return self._leased and not self._stopping and not self._lost

    @property
    def _leased(self) -> bool:
        """Whether the lease lasts longer than a request may take: another process may begin as soon as the lease is over."""
        return self.lease_until - self._parts.steady() > self._parts.timeout_s + SEND_MARGIN_S

    async def _deliver(self, request: Request) -> None:
        if not request.complete:
            await self._fetch(request)
            self.arrival.set()  # others may begin
        await self._forget(request)
        if not request.complete:  # something was erased since it was rendered: what goes is its erased form
            await self._fetch(request)
        self._backlog.fit(request)
        span = self._span(request)
        outgoing = await self._outgoing(request, span.context)
        began = self._parts.steady()
        try:
            outcome = await self._transport.send(self._target, outgoing)
        except TooLateError:  # it may still be ours, when the lease is renewed; if not, the next look ends this
            self._backlog.too_late(request)
            span.end("too_late")
            return
        span.end(
            "" if isinstance(outcome, Accepted) else outcome_word(outcome),
            {"ledger.consumer": self.consumer.name, "ledger.events": len(request.events)},
        )
        self._pace.answered(took := self._parts.steady() - began)
        if isinstance(outcome, Accepted) or (isinstance(outcome, Retry) and outcome.may_have_arrived):
            self._trail.note_sent((found.item.position, found.id) for found in request.events if found.id is not None)
        if isinstance(outcome, Rewind) and not self._backlog.may_rewind(request, outcome):
            outcome = outcome.otherwise
        items = [found.item for found in request.events]
        self._parts.observe(attempt(self.consumer.name, items, outcome, took, self._parts.clock()))
        await self._conclude(request, outcome)

    async def _forget(self, request: Request) -> None:
        """Let a request forget what was erased until now: it may have been rendered a while ago."""
        await self._parts.erased.current()
        self._backlog.forget(self._parts.erased, self._parts.erased.stale, request.events)

    def forget(self, subjects: Collection[UUID]) -> None:
        """Forget what was erased just now."""
        self._backlog.forget(subjects, self._parts.erased.stale)

    async def _fetch(self, request: Request) -> None:
        places = [(found.item.directory, found.item.seq) for found in self._backlog.missing(request)]
        async with self._parts.connection() as conn:
            fetched = await self._parts.feed.fetch_at(conn, places, Selection())
        events = await self._parts.feed.opened(fetched, budget=BODIES_BYTES_MAX)
        self._backlog.fetched(request, [(e.position, e.id, e.trace, json) for e in events if (json := e.json)])

    def _span(self, request: Request) -> Span:
        """The span of a request: below the commit of its events where they have one, beside them where they have several."""
        contexts = {found.trace: None for found in request.events}
        parent = shared_context(contexts)
        links = () if parent is not None else [context for context in contexts if context is not None]
        return self._parts.tracer.begin("deliver", "producer", parent, links)

    async def _outgoing(self, request: Request, trace: bytes | None) -> Batch:
        item, ordered = request.events[0].item, self.consumer.definition.ordering == "directory"
        return Batch(
            [Outgoing(str(o.id), BY_NUMBER[o.item.kind].topic, o.item.seq, o.item.at, o.json) for o in request.events],
            single=self.consumer.definition.batch_max == 1,
            attempt=request.attempt,
            replay=item.replay,
            previous_seq=await self._previous_of(item) if ordered and item.replay is None else None,
            trace=trace,
            may_leave=lambda: self._leased,
        )

    async def _previous_of(self, item: Item) -> Seq:
        """Give the seq that was delivered last in the directory of `item`; 0 if none was."""
        known = self._backlog.previous_of(item.directory)
        if known is None:
            async with self._parts.connection() as conn:
                params = (item.directory, item.seq, self.consumer.mask, self.consumer.id)
                row = await (await conn.cursor(binary=True).execute(SQL["previous_matching"], params)).fetchone()
                began = await (await conn.execute(SQL["epoch_start"], (self.consumer.id, self.consumer.epoch))).fetchone()
            assert began is not None
            (start,), (seq, position) = began, row or (0, 0)
            known = Seq(seq if position > start else 0)
            self._backlog.note_previous(item.directory, known)
        return known

    # -- what became of it --------------------------------------------------

    async def _conclude(self, request: Request, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                self._backlog.accepted(request)
                began = self._parts.steady()
                await self._record()
                self._pace.recorded(self._parts.steady() - began, len(request.events))
                await self._finish_replays()
            case Gone():
                self._backlog.gone(request)
                self.stop()
                with suppress(OvertakenError):  # by an operator's act; who delivers next is told of its own 410
                    await self._parts.act(acts.disabled(self.consumer, "the receiver answered 410"))
            case Retry():
                await self._refused(request, outcome)
            case Rewind():
                lacking = await self._between(request.events[0].item, outcome.seq)
                self._backlog.rewound(request, outcome, lacking, self._sealed(outcome.otherwise), self._parts.clock())
                await self._record()
                await self._tell(self._backlog.take_blocked())

    async def _refused(self, request: Request, retry: Retry) -> None:
        first = request.events[0]
        retry = await self._without_erased(request, retry)
        _log.info(
            "delivery_refused", consumer=self.consumer.name, event_id=str(first.id), events=len(request.events), attempt=request.attempt,
            error=retry.error, replay=first.item.replay and str(first.item.replay),
        )  # fmt: skip
        if self._backlog.refused(request, retry, self._sealed(retry), self._parts.clock(), self._parts.random):
            await self._record()
            await self._tell(self._backlog.take_blocked())

    async def _without_erased(self, request: Request, retry: Retry) -> Retry:
        """Without the receiver's words, if they are about somebody who was erased while it answered."""
        await self._forget(request)
        erased = self._parts.erased
        about = any(found.item.obj in erased or found.item.mem in erased for found in request.events)
        return replace(retry, answer="") if about else retry

    def _sealed(self, retry: Retry) -> bytes | None:
        """Seal the receiver's answer: it may name persons."""
        if not retry.answer:
            return None
        return seal_note(self._parts.kek, retry.answer, kind="answer", owner=self.consumer.uuid, random=self._parts.entropy)

    async def _between(self, item: Item, seq: int) -> list[Item]:
        """Read the consumer's events of that directory between `seq` and `item`; one more than REWIND_EVENTS_MAX if there are too many."""
        async with self._parts.connection() as conn:
            params = (item.directory, seq, item.seq, self.consumer.mask, REWIND_EVENTS_MAX + 1, self.consumer.id)
            rows = await (await conn.cursor(binary=True).execute(SQL["matching_between"], params)).fetchall()
        return [Item(position, item.directory, number, kind, obj, mem, at) for number, kind, obj, mem, at, position, _, _ in rows]

    # -- storing ------------------------------------------------------------

    async def _record(self) -> None:
        await self._parts.record(self)

    def take_report(self) -> Report:
        """What happened since the last one. Whoever takes it stores it, and then says stored()."""
        self._noted = self._parts.clock()
        return self._backlog.take_report()

    def stored(self) -> None:
        """The report that was taken last is on record."""
        self._backlog.stored(self._parts.clock())

    async def _tell(self, blocked: Sequence[Open]) -> None:
        """Put on record that these wait for an operator."""
        if not blocked:
            return
        async with self._parts.connection() as conn:
            places = [(found.item.directory, found.item.seq) for found in blocked]
            events = await self._parts.feed.at(conn, places, bodies=False)
        known = {found.item.position: found for found in blocked}
        for event in events:
            found = known[event.position].exceptional
            error = None if found is None else found.error
            _log.warning("delivery_blocked", consumer=self.consumer.name, event_id=str(event.id), error=error)
            with suppress(psycopg.errors.NotNullViolation):  # told already, by who held the lease before, or holds it now
                await self._parts.act(_blocked(self.consumer, known[event.position], str(event.id)))

    async def _finish_replays(self) -> None:
        for run in self._backlog.take_finished():
            with suppress(OvertakenError):  # paused or cancelled just now
                await self._parts.act(self._parts.replays.moved(run, "finished", ""))


def _open(event: Event, row: Exceptional | None = None) -> Open:
    item = Item(event.position, event.directory, event.seq, event.kind, event.obj, event.mem, event.at)
    return Open(item, row, id=event.id, json=event.json, trace=event.trace)


def _lacks(readings: Readings | None, item: Item) -> bool:
    """Whether the event was a hole in the consumer's acknowledgements until a run delivered it."""
    return readings is not None and bool(readings.verdict(item.position, item.directory, item.kind)[0])


def _blocked(consumer: Consumer, found: Open, event_id: str) -> RecordFacts:
    """The act of telling that a lane waits for an operator."""
    assert found.exceptional is not None, "what is blocked has a row"
    facts = {
        "id": str(consumer.uuid), "name": consumer.name, "event_id": event_id, "attempts": attempts_of(found),
        "last_error": found.exceptional.error,
    }  # fmt: skip
    draft = Draft(DELIVERY_BLOCKED, consumer.uuid, CONSUMER, cause=OPERATOR, body=Body(facts, [], consumer.name))
    return RecordFacts((draft,), ((SQL["note_told"], (consumer.id, found.item.position)),))
