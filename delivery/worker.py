"""A delivery process: which consumers it serves (leases), and what it watches on the side (surges, old checkpoints).

A lease is longer than a request may take. Its holder renews it every second and begins nothing that could outlast it; whoever
takes over has seen no renewal for that long (leases.py). So a killed or stalled process delays its consumers, and never lets two
deliver at once; what it reports late is shut out by the fence.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from database.arrays import int2s, int4s
from database.connections import LOST, Connection
from database.deadlines import DELIVERIES_AT_STOP
from database.queries import load_queries
from delivery.checkpoint_writer import LeaseLostError
from delivery.consumers import Consumer, consumers
from delivery.dispatcher import Dispatcher
from delivery.forks import Watch
from delivery.leases import Signs
from delivery.surge_control import detected, limits, surging
from delivery.surge_policy import Limit
from delivery.thinning import Thinning
from ledger.commands import RecordFacts
from ledger.directories import Directories
from ledger.tail import Tail

SQL: Final = load_queries(__file__)
LOOK_S: Final = 1.0
LEASE_MARGIN_S: Final = 5.0  # of a lease beyond the timeout of a request
ALIVE_S: Final = 5.0  # a process that was not seen for so long has no share
FAILED_MAX: Final = (
    30  # failed looks in a row, after which the process ends and is replaced: a fresh one may go on where this one cannot
)
WATCH_S: Final = 5.0
QUIET_S: Final = 3_600  # between two alarms about one directory
THIN_S: Final = 60.0
_log = structlog.get_logger("delivery.worker")


@dataclass(slots=True)
class _Held:
    """A consumer that this process serves."""

    consumer: Consumer
    fence: int
    until: float  # of the steady clock
    dispatcher: Dispatcher
    task: asyncio.Task[None]


@dataclass(eq=False, slots=True)
class Worker:
    """Serves its share of the webhook consumers while run() runs. `make_dispatcher` and `act` are handed in by the wiring."""

    id: UUID
    connection: Callable[[], AbstractAsyncContextManager[Connection]]
    directories: Directories
    make_dispatcher: Callable[[Consumer, int], Dispatcher]
    act: Callable[[RecordFacts], Awaitable[None]]
    tail: Tail
    changes: asyncio.Event  # something about consumers changed
    limits: dict[int, Limit]
    timeout_s: float
    new_id: Callable[[], UUID]
    forks: Watch
    steady: Callable[[], float]
    modes: Collection[str]  # of the consumers that it serves
    _leases: Signs[int] = field(default_factory=Signs[int])
    _workers: Signs[UUID] = field(default_factory=Signs[UUID])
    _held: dict[int, _Held] = field(default_factory=dict[int, _Held])
    _stopping: bool = False

    @property
    def lease_s(self) -> float:
        return self.timeout_s + LEASE_MARGIN_S

    async def run(self) -> None:
        """Serve until stop(); then finish what is under way, record it and give the leases back. Raises what every look fails with."""
        background = [asyncio.create_task(self._announce()), asyncio.create_task(self._watch())]
        try:
            failed = 0
            while not self._stopping:
                self.changes.clear()
                try:
                    await self._look()
                    failed = 0
                except LOST:
                    _log.warning("worker_away")
                except Exception:  # one consumer that cannot be served must not end the others
                    _log.exception("worker_look_failed")
                    failed += 1
                    if failed == FAILED_MAX:
                        raise
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self.changes.wait()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._leave()

    def stop(self) -> None:
        self._stopping = True
        self.changes.set()

    def forget(self, subjects: Collection[UUID]) -> None:
        """Let the deliveries forget users and groups that were erased."""
        for held in self._held.values():
            held.dispatcher.forget(subjects)

    @property
    def served(self) -> list[asyncio.Task[None]]:
        """The deliveries of the consumers that this process serves now."""
        return [held.task for held in self._held.values()]

    # -- leases -------------------------------------------------------------

    async def _look(self) -> None:
        async with self.connection() as conn:
            await self._follow_limits(conn)
            await conn.execute(SQL["beat_worker"], (self.id,))
            await self._renew(conn)
            await self.forks.look(conn, places=True, lose=self._lose)
            wanted = {c.id: c for c in await consumers(conn) if c.definition.mode in self.modes and c.state == "active"}
            await self._let_go(conn, wanted)
            await self._claim(conn, wanted)
        if self._held:
            self.tail.follow(self)
        else:
            self.tail.leave(self)
        for held in self._held.values():
            held.dispatcher.arrival.set()

    async def _follow_limits(self, conn: Connection) -> None:
        found = await limits(conn)
        if found != self.limits:
            self.limits.clear()
            self.limits.update(found)
            for held in self._held.values():
                if held.dispatcher.holds:
                    held.dispatcher.stop()

    async def _renew(self, conn: Connection) -> None:
        asked = self.steady()
        paces = [held.dispatcher.pace() for held in self._held.values()]
        params = (
            self.id, int4s(list(self._held)), self.lease_s, int2s([pace.limit for pace in paces]), [pace.answer_s for pace in paces],
            [pace.record_s for pace in paces], [pace.events_s for pace in paces], [held.dispatcher.not_before for held in self._held.values()],
        )  # fmt: skip
        kept = {row[0] for row in await (await conn.execute(SQL["renew_leases"], params)).fetchall()}
        for number, held in self._held.items():
            if number in kept:
                held.until = held.dispatcher.lease_until = asked + self.lease_s
            else:
                held.dispatcher.stop()

    def _lose(self, number: int) -> None:
        self.tail.doubt()
        if number in self._held:
            self._held[number].dispatcher.lose()

    async def _let_go(self, conn: Connection, wanted: dict[int, Consumer]) -> None:
        """Stop what changed or is not ours to serve; start again what goes on under another definition."""
        share = await self._share(conn, len(wanted))
        for number, held in self._held.items():
            if wanted.get(number) != held.consumer:
                held.dispatcher.stop()
        for held in list(self._held.values())[share:]:
            held.dispatcher.stop()
        for number, held in list(self._held.items()):
            if not held.task.done():
                continue
            lost = isinstance(_told(held), LeaseLostError)
            consumer = wanted.get(number)
            del self._held[number]
            if consumer is not None and len(self._held) < share and self.steady() < held.until and not lost:
                self._serve(consumer, held.fence, held.until, held.dispatcher.not_before)
            else:
                await conn.execute(SQL["release_leases"], (self.id, int4s([number])))

    async def _share(self, conn: Connection, count: int) -> int:
        """How many consumers each process serves, rounded up."""
        signs = dict(await (await conn.execute(SQL["live_workers"])).fetchall())
        self._workers.look(signs, self.steady())
        alive = [worker for worker in signs if self._workers.quiet_s(worker) < ALIVE_S]
        return -(-count // max(len(alive), 1))

    async def _claim(self, conn: Connection, wanted: dict[int, Consumer]) -> None:
        share = await self._share(conn, len(wanted))
        rows = await (await conn.execute(SQL["leases_held"])).fetchall()
        leases = {number: (fence, until, lease_s) for number, fence, until, lease_s in rows}
        self._leases.look({number: (fence, until) for number, (fence, until, _) in leases.items()}, self.steady())
        for number, consumer in wanted.items():
            fence, until, lease_s = leases.get(number, (None, None, None))
            alive = number in leases and self._leases.quiet_s(number) < max(lease_s or 0.0, self.lease_s)
            if number in self._held or alive or len(self._held) >= share or self._stopping:
                continue
            asked = self.steady()
            claimed = await self._claimed(conn, number, (fence, until))
            if claimed is not None:
                fence, not_before = claimed
                self._serve(consumer, fence, asked + self.lease_s, not_before)

    async def _claimed(self, conn: Connection, number: int, seen: tuple[int | None, str | None]) -> tuple[int, float] | None:
        """Claim a free lease; give its fence, and until when the receiver asked for nothing.

        None while the former holder still records: the place would move afterwards.
        """
        async with conn.transaction():
            free = await (await conn.execute(SQL["try_lock_consumer"], (number,))).fetchone()
            if free is None or not free[0]:
                return None
            return await (await conn.execute(SQL["claim_lease"], (number, self.id, self.lease_s, *seen))).fetchone()

    def _serve(self, consumer: Consumer, fence: int, until: float, not_before: float) -> None:
        dispatcher = self.make_dispatcher(consumer, fence)
        dispatcher.lease_until, dispatcher.not_before = until, not_before
        task = asyncio.create_task(dispatcher.run())
        task.add_done_callback(self._ended)
        self._held[consumer.id] = _Held(consumer, fence, until, dispatcher, task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Look for work at once after a dispatcher that ended as it was told to; after a failure the next look is soon enough."""
        if task.cancelled() or task.exception() is None or isinstance(task.exception(), LeaseLostError):
            self.changes.set()

    async def _leave(self) -> None:
        for held in self._held.values():
            held.dispatcher.stop()
        late = set[asyncio.Task[None]]()
        if self._held:
            # What cannot be recorded by then (the receiver is slow, the database away) is delivered again.
            _, late = await asyncio.wait(self.served, timeout=min(self.lease_s, DELIVERIES_AT_STOP.seconds))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        # A receiver may still be at work on what was late: that lease runs out by itself, or the next delivery could overtake.
        given_back = [number for number, held in self._held.items() if held.task not in late]
        with contextlib.suppress(*LOST):
            async with self.connection() as conn:
                await conn.execute(SQL["release_leases"], (self.id, int4s(given_back)))
                await conn.execute(SQL["forget_worker"], (self.id,))

    # -- on the side --------------------------------------------------------

    async def _announce(self) -> None:
        """Wake the consumers when the tail has something new; every second also record how far the idle ones are."""
        while True:
            arrival = self.tail.arrivals.next()
            for held in self._held.values():
                held.dispatcher.arrival.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await arrival.wait()

    async def _watch(self) -> None:
        """Tell of surges, and thin out old checkpoints. One process at a time does it."""
        thin_at, thinning = 0.0, Thinning()
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                async with self.connection() as conn:
                    row = await (await conn.execute(SQL["try_watch"])).fetchone()
                    if row is None or not row[0]:
                        continue
                    try:
                        now = asyncio.get_running_loop().time()
                        if now >= thin_at:  # first: a surge that takes long to count must not keep it from its turn
                            thin_at = now + THIN_S
                            await thinning.run(conn, now)
                        await self._tell_of_surges(conn)
                    finally:
                        # The role goes with the connection; whoever ends this task must not be overheard.
                        with contextlib.suppress(*LOST):
                            await conn.execute(SQL["end_watch"])
            except LOST as lost:
                _log.warning("watch_away", sqlstate=getattr(lost, "sqlstate", None))
            except Exception:  # a defect here must not end deliveries
                _log.exception("watch_failed")

    async def _tell_of_surges(self, conn: Connection) -> None:
        for number, count, seq in await surging(conn, self.limits, quiet_s=QUIET_S):
            directory = await self.directories.by_id(conn, number)
            limit = self.limits.get(number, Limit())
            _log.warning("surge", directory=directory.slug, revocations=count, per_hour=limit.per_hour, action=limit.action)
            try:
                await self.act(detected(self.new_id(), directory, count, seq, limit))
            except LOST:
                raise
            except Exception:  # of one directory: the others are told of
                _log.exception("surge_not_told", directory=directory.slug)


def _told(held: _Held) -> BaseException | None:
    if held.task.cancelled():
        return None
    error = held.task.exception()
    if error is not None and not isinstance(error, LeaseLostError):
        _log.error("push_ended", consumer=held.consumer.name, error=type(error).__name__, exc_info=error)
    return error
