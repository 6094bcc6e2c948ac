"""The group-commit writer: one per process, with batches from the fair queue and lanes for commands that run alone.

What follows from each kind of error (database/faults.py):
- an invalid value (SQLSTATE class 22 or 23): the commands of the batch one by one, so that only the guilty one fails;
- a conflict (class 40): the batch again;
- a lost connection: reconnect and look the requests up in `commits`. Found: answer from it. Not found: write again. Unknown: 503.
  Never write again without the look-up, because the change could be stored twice;
- the operator's task (read-only, disk full): 503 with the reason;
- a lock that does not come in time: 503 if a foreign session holds it. If another writer holds it for a giant commit, wait on.
The waits in the queue, for a lock and for a database that is away are limited by database/deadlines.py.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from database import patience
from database.arrays import int4s, uuids
from database.connections import LOST, Bounded, Connection, Pulse, bound, refuse_if_warned
from database.deadlines import LOCK, WRITE_SETTLED, WRITES_AT_STOP
from database.faults import NO_ANSWER, Fault, Kind, fault_of, no_fault
from database.queries import load_queries
from ledger.clocks import ClockError
from ledger.commands import RecordFacts
from ledger.ids import DirectoryNumber
from ledger.obstacles import obstacles
from ledger.queue import BATCH_MAX, FairQueue
from ledger.refused import OvertakenError
from ledger.transaction import BatchReport, Outcome, Submission, Transaction, lock_directories
from scim.errors import InvalidValue, TooManyRequests, Unavailable

SQL = load_queries(__file__)
LANES_MAX = 3  # transactions beside the main one, for giant commits and for directories that another process holds
DEFERRALS_MAX = 2
CONFLICT_TRIES_MAX = 5
RECONNECT_PAUSE_S = 0.25  # doubled after each attempt
RECONNECT_PAUSE_MAX_S = 1.0
# A write with less time left is not begun: the server's lock timeout must end before the time for the write does.
BEGIN_S = LOCK.seconds + 0.5
# A batch is taken after so many turns of the event loop without a new command. A request that has arrived needs two turns, and clients
# that were answered together come back within a few.
GATHER_TURNS = 5
GATHER_S = 0.01  # but not later than this, however long a turn takes
SWEEP_S = 0.5  # interval at which overdue commands are removed from the queue
TROUBLE_S = 5.0  # for how long readyz reports an operator's fault after the last write that failed with it
_RETRY_AFTER_S = 1
_RETRY_AFTER_FULL_S = 30
_RETRY_AFTER_BEHIND_S = 5
_HELD = "Another session of the database holds a lock that this change needs; nothing was changed. Send it again."
_BEHIND = "Changes before this one take long; nothing was changed. Send it again in a moment."
_AWAY = "The database does not answer; nothing was changed. Send it again."
_UNSURE = "The database does not answer, so this change may or may not be stored. Send the request again."

Connect = Callable[[], Awaitable[Connection]]
_log = structlog.get_logger("ledger.writer")


@dataclass(slots=True)
class _Attempt:
    """A batch being written: what is left of it, and the event loop time until which it is tried while the database is away."""

    link: "Link"
    left: list[Submission]
    until: float
    wait_for_locks: bool
    tries: int = 0

    @property
    def late(self) -> bool:
        """Whether too little time is left to begin a transaction."""
        return asyncio.get_running_loop().time() > self.until - BEGIN_S

    def take_late(self) -> list[Submission]:
        """Remove and return the submissions that have too little time left."""
        if not self.late:
            return []
        soon = asyncio.get_running_loop().time() + BEGIN_S
        late = [submission for submission in self.left if submission.until <= soon]
        self.left = [submission for submission in self.left if submission.until > soon]
        if self.left:
            self.until = min(submission.until for submission in self.left)
        return late

    def begin_anew(self) -> None:
        """After a lost giant commit, which may have taken minutes: count its time from the last sign of life of the server."""
        conn = self.link.opened
        if isinstance(conn, Bounded) and conn.long_work is not None:
            self.until = max(self.until, conn.heard_at + WRITE_SETTLED.seconds)


class Link:
    """A connection that is opened when needed and replaced when it breaks.

    If a waiting caller is cancelled, opening goes on for the next caller: with several hosts in the URL it can take longer than
    one caller waits.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._opening: asyncio.Future[Connection] | None = None
        self.opened: Connection | None = None  # may be broken

    @property
    def usable(self) -> Connection | None:
        """The connection, if it is open."""
        return self.opened if self.opened is not None and not self.opened.closed else None

    async def get(self) -> Connection:
        """The connection, opened if necessary. Raises psycopg.OperationalError if it cannot be opened."""
        if (conn := self.usable) is not None:
            return conn
        if self._opening is not None and self._opening.done() and self._opening.exception() is not None:
            self._opening = None  # an earlier attempt failed after its caller was cancelled: try again
        self._opening = opening = self._opening or asyncio.ensure_future(self._connect())
        await asyncio.wait([opening])
        self.opened, self._opening = None, None
        self.opened = opening.result()
        return self.opened

    async def close(self) -> None:
        opening, self._opening = self._opening, None
        conn, self.opened = self.opened, None
        if opening is not None:
            opening.cancel()
            await asyncio.wait([opening])
            conn = None if opening.cancelled() or opening.exception() else opening.result()
        if conn is not None:
            with contextlib.suppress(*LOST):
                await conn.close()


@dataclass(frozen=True, slots=True)
class Links:
    """How the writer connects: `main` for batches, `lane` for transactions that may take long. `pulse` belongs to the process."""

    main: Connect
    lane: Connect
    pulse: Pulse


class Writer:
    """Takes submissions, writes them in batches, and sets the result of each."""

    def __init__(
        self,
        transaction: Transaction,
        links: Links,
        on_batch: Callable[[int, float], None],
        room: Callable[[], Fault | None] = no_fault,
    ) -> None:
        self._transaction = transaction
        self._room = room  # returns why the disk has no room for writes, or None
        self._pulse = links.pulse
        self._main = Link(links.main)
        self._idle_lanes = [Link(links.lane) for _ in range(LANES_MAX)]
        self._queue = FairQueue()
        self._wake = asyncio.Event()
        self._busy: set[DirectoryNumber] = set()
        self._lanes: set[asyncio.Task[None]] = set()
        self._waiting_alone: list[list[Submission]] = []
        self._on_batch = on_batch
        self._stopping = False
        self._until = math.inf  # event loop time at which running writes are given up if the database is away
        self._several = False  # the last batch had several commands
        self._obstructed = False  # a lock did not come, and the holder was not looked up since
        self._trouble: tuple[float, Fault] | None = None
        self._clocks_told: dict[str, str] = {}  # the clock error last logged for each directory
        self.running = False

    @property
    def trouble(self) -> Fault | None:
        """The fault of the last refused writes, until a write is stored, or TROUBLE_S after the last attempt."""
        if self._trouble is None or self._trouble[0] < asyncio.get_running_loop().time() - TROUBLE_S:
            return None
        return self._trouble[1]

    @property
    def queued(self) -> int:
        return len(self._queue)

    def submit(self, submission: Submission) -> "asyncio.Future[Outcome]":
        """Queue a command.

        Raises TooManyRequests if the directory's queue is full, Unavailable while the writer stops, the database is away, or the disk
        has no room. Acts of operators (tokens, directories) are written even if the disk is nearly full.
        """
        if self._stopping:
            raise Unavailable("The service is stopping. Send the request again in a moment.", retry_after=_RETRY_AFTER_S)
        if not isinstance(submission.command, RecordFacts) and (full := self._room()) is not None:
            raise Unavailable(f"{full.says} Nothing was changed. Send the request again later.", retry_after=_RETRY_AFTER_FULL_S)
        if self._pulse.away:
            raise Unavailable(_AWAY, retry_after=_RETRY_AFTER_S)
        submission.until = asyncio.get_running_loop().time() + min(WRITE_SETTLED.seconds, patience.left())
        if not self._queue.put(submission):
            raise TooManyRequests(
                "This directory has too many changes waiting. Send the request again.", retry_after=_RETRY_AFTER_S
            )
        self._wake.set()
        return submission.waiter

    async def run(self) -> None:
        """Write until stop() was called and every queued command is answered."""
        self.running = True
        sweeping = asyncio.create_task(self._sweep())
        while not (self._stopping and not self._queue and not self._lanes):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._gathered()
                batch, alone = self._queue.take(self._busy)
                for submission in alone:
                    self._open_lane([submission])
                if not batch:
                    break
                self._several = len(batch) > 1
                await self._write(self._main, batch, wait_for_locks=False)
        self.running = False
        sweeping.cancel()
        for link in (self._main, *self._idle_lanes):
            await link.close()

    async def _gathered(self) -> None:
        """Let commands join the batch that have arrived, or arrive at once: a batch costs as much as several commands.

        Without this, clients that wait for their answers stay parted in two halves: one comes back while the other is written.
        A single command after a single command does not wait: nothing shows that others will come.
        """
        clock, count, quiet = asyncio.get_running_loop().time, len(self._queue), 0
        if count == 1 and not self._several:
            return
        until = clock() + GATHER_S
        while count < BATCH_MAX and quiet < GATHER_TURNS and clock() < until:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == count else 0
            count = len(self._queue)

    def stop(self) -> None:
        """Refuse new commands. run() ends once the queue is empty; if the database is away, the queue is refused."""
        self._stopping = True
        self._until = asyncio.get_running_loop().time() + WRITES_AT_STOP.seconds
        self._wake.set()

    async def _sweep(self) -> None:
        """Until cancelled, refuse commands that waited too long: for the batch before, for their directory, or for a lane."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time() + BEGIN_S
            overdue = self._queue.overdue(now)
            for submissions in list(self._waiting_alone):
                late = [submission for submission in submissions if submission.until <= now]
                if len(late) == len(submissions):
                    self._waiting_alone.remove(submissions)
                    self._busy.discard(late[0].directory.id)
                submissions[:] = [submission for submission in submissions if submission not in late]
                overdue += late
            if overdue:
                self._refuse_behind(overdue)
                self._wake.set()  # commands that waited behind it may be taken now

    # -- lanes --------------------------------------------------------------

    def _open_lane(self, submissions: list[Submission]) -> None:
        """Run commands of one directory in a transaction beside the main one. Only that directory waits for it."""
        self._busy.add(submissions[0].directory.id)
        if not self._idle_lanes:
            self._waiting_alone.append(submissions)
            return
        task = asyncio.create_task(self._lane(self._idle_lanes.pop(), submissions))
        self._lanes.add(task)
        task.add_done_callback(self._lanes.discard)

    async def _lane(self, link: Link, submissions: list[Submission]) -> None:
        try:
            await self._write(link, submissions, wait_for_locks=True)
        finally:
            self._idle_lanes.append(link)
            self._busy.discard(submissions[0].directory.id)
            if self._waiting_alone:
                self._open_lane(self._waiting_alone.pop(0))
            # The task is still in _lanes at this moment, so take the next commands after it has left.
            asyncio.get_running_loop().call_soon(self._wake.set)

    # -- one batch ----------------------------------------------------------

    async def _write(self, link: Link, batch: list[Submission], *, wait_for_locks: bool) -> None:
        started = asyncio.get_running_loop().time()
        try:
            await self._attempt(link, batch, wait_for_locks=wait_for_locks)
        except Exception as broken:  # an unexpected error must not leave a command without an answer
            _log.exception("write_failed", commands=len(batch))
            for submission in batch:
                submission.settle(broken)
        self._on_batch(len(batch), asyncio.get_running_loop().time() - started)

    async def _attempt(
        self, link: Link, batch: Sequence[Submission], *, wait_for_locks: bool, until: float | None = None
    ) -> None:
        least = asyncio.get_running_loop().time() + BEGIN_S
        attempt = _Attempt(link, list(batch), until or max(least, min(s.until for s in batch)), wait_for_locks)
        while attempt.tries < CONFLICT_TRIES_MAX:
            if await self._tried(attempt):
                return
        self._refuse(attempt.left, "The database could not take this change after several tries. Send the request again.")

    async def _tried(self, attempt: "_Attempt") -> bool:
        """Try to write what is left. Returns whether it is finished; waits here behind other writers that hold a lock."""
        report = BatchReport()
        try:
            conn = await self._reconnected(attempt.link, attempt.until)
            bound(conn, attempt.until - asyncio.get_running_loop().time())
            attempt.left = await self._past_obstacles(conn, attempt.left)
            if attempt.left:
                await self._transaction.run(conn, attempt.left, report, wait_for_locks=attempt.wait_for_locks)
        except psycopg.Error as broken:
            return await self._after(broken, attempt, report)
        except BaseException:
            await self._rolled_back(attempt.link)
            raise
        self._trouble = None
        self._conclude(report)
        return True

    async def _after(self, broken: psycopg.Error, attempt: "_Attempt", report: BatchReport) -> bool:
        fault = fault_of(broken)
        if isinstance(broken, psycopg.errors.LockNotAvailable):
            return await self._locked(attempt)
        attempt.tries += 1
        if fault.kind is Kind.LOST:
            attempt.begin_anew()
            await attempt.link.close()
            await self._resolve_lost(attempt, report, broken)
            self._refuse_behind(attempt.take_late())  # the look-up has shown that none of it is stored
            return not attempt.left
        await self._rolled_back(attempt.link)
        if fault.kind is Kind.CLIENT:
            await self._one_by_one(attempt, fault, broken)
        elif fault.kind is Kind.OPERATOR:
            await self._troubled(attempt, fault, broken)
        return fault.kind is not Kind.AGAIN

    async def _locked(self, attempt: "_Attempt") -> bool:
        """A lock did not come in time: the next attempt looks up who holds it."""
        await self._rolled_back(attempt.link)
        self._obstructed = True
        self._refuse_behind(attempt.take_late())
        return not attempt.left

    async def _troubled(self, attempt: "_Attempt", fault: Fault, broken: psycopg.Error) -> None:
        """Refuse the batch and reconnect: a read-only server may have become a standby, so another host may be the primary now."""
        _log.error("database_refused_write", sqlstate=broken.sqlstate, reason=fault.reason)
        await attempt.link.close()
        self._trouble = asyncio.get_running_loop().time(), fault
        self._refuse(attempt.left, f"{fault.says} Nothing was changed. Send the request again later.")

    async def _past_obstacles(self, conn: Connection, batch: list[Submission]) -> list[Submission]:
        """Refuse commands that a foreign session's lock blocks, and return the others.

        Only after a lock did not come, until no lock blocks any more: otherwise each batch would wait for the lock in vain.
        """
        if not self._obstructed:
            return batch
        found = await obstacles(conn)
        if not found:
            self._obstructed = False
            return batch
        for obstacle in found:
            _log.error("lock_in_the_way", **obstacle.described())
        held = [s for s in batch if any(obstacle.blocks(s.directory.id) for obstacle in found)]
        self._refuse(held, _HELD)
        return [submission for submission in batch if submission not in held]

    def _conclude(self, report: BatchReport) -> None:
        for submission, result in report.settled:
            submission.settle(result)
        self._tell_clocks(report)
        for submission in report.run_alone:
            submission.needs = submission.needs._replace(whole=True)
        for submission in report.heavy:
            submission.needs = submission.needs._replace(heavy=True)
        for submission in report.locked_out:
            submission.deferrals += 1
        again = [s for s in report.locked_out if s.deferrals <= DEFERRALS_MAX]
        self._queue.put_back([*again, *report.run_alone, *report.heavy])
        held: dict[DirectoryNumber, list[Submission]] = {}
        for submission in report.locked_out:
            if submission.deferrals > DEFERRALS_MAX:
                held.setdefault(submission.directory.id, []).append(submission)
        for submissions in held.values():
            self._open_lane(submissions)
        if again or report.run_alone or report.heavy:
            self._wake.set()

    def _tell_clocks(self, report: BatchReport) -> None:
        """Log once for each directory that a clock blocks its writes: IdPs repeat refused requests, which would fill the log."""
        for submission, result in report.settled:
            slug = submission.directory.slug
            if not isinstance(result, ClockError):
                self._clocks_told.pop(slug, None)
            elif self._clocks_told.get(slug) != result.code:
                self._clocks_told[slug] = result.code
                _log.error(result.code, directory=slug)

    async def _one_by_one(self, attempt: "_Attempt", fault: Fault, refused: psycopg.Error) -> None:
        if len(attempt.left) > 1:
            for submission in attempt.left:
                if self._pulse.away:
                    self._refuse([submission], _AWAY)
                else:  # all within the time that the batch had
                    await self._attempt(attempt.link, [submission], wait_for_locks=attempt.wait_for_locks, until=attempt.until)
            return
        (guilty,) = attempt.left
        if isinstance(refused, psycopg.errors.UniqueViolation) and isinstance(guilty.command, RecordFacts):
            guilty.settle(OvertakenError())  # the name was free when it was looked up, and was taken since
            return
        _log.error("database_refused_command", sqlstate=refused.sqlstate, command=type(guilty.command).__name__)
        guilty.settle(InvalidValue(f"{fault.says} Nothing was changed."))

    async def _rolled_back(self, link: Link) -> None:
        try:
            if (conn := link.usable) is not None:  # a closed connection has no transaction
                await conn.execute("rollback")
        except psycopg.Error:
            await link.close()

    # -- a lost connection --------------------------------------------------

    async def _reconnected(self, link: Link, until: float) -> Connection:
        """Connect, and try again until that event loop time. Raises psycopg.OperationalError."""
        if (conn := link.usable) is not None:
            return conn
        clock, pause = asyncio.get_running_loop().time, RECONNECT_PAUSE_S
        while True:
            try:
                async with asyncio.timeout_at(min(until, self._until)):
                    return await link.get()
            except TimeoutError as late:
                raise psycopg.OperationalError("no answer in time") from late
            except psycopg.OperationalError:
                if clock() + pause > min(until, self._until):
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, RECONNECT_PAUSE_MAX_S)

    async def _resolve_lost(self, attempt: "_Attempt", report: BatchReport, lost: psycopg.Error) -> None:
        """Settle the submissions that are stored; the others stay in the attempt, to be written again."""
        _log.warning("database_connection_lost", sqlstate=lost.sqlstate, committing=len(report.committing))
        began = time.monotonic()
        found = await self._looked_up(attempt, max(attempt.until, asyncio.get_running_loop().time() + BEGIN_S))
        if found is None:
            self._refuse_lost(attempt, _UNSURE if report.committing else _AWAY)
            if self._pulse.answered_at < began:
                self._refuse_waiting()
            return
        outcomes = {id(submission): outcome for submission, outcome in report.committing}
        left: list[Submission] = []
        for submission in attempt.left:
            outcome = outcomes.get(id(submission))
            if outcome is not None and (submission.request, submission.op) in found:
                submission.settle(outcome)
            else:
                left.append(submission)
        attempt.left = left

    async def _looked_up(self, attempt: "_Attempt", until: float) -> set[tuple[object, int]] | None:
        """The requests that are stored; None if the database gives no answer until that time."""
        while True:
            try:
                conn = await self._reconnected(attempt.link, until)
                bound(conn, until - asyncio.get_running_loop().time())
                return await self._committed(conn, attempt.left)
            except LOST:  # includes a lock that does not come: the lost transaction may still be running in the server
                await attempt.link.close()
                if asyncio.get_running_loop().time() > min(until, self._until):
                    return None

    async def _committed(self, conn: Connection, batch: Sequence[Submission]) -> set[tuple[object, int]]:
        # The directories' locks first: the lost transaction may still be running in the server, and could commit after the look-up.
        directories = int4s(sorted({submission.directory.id for submission in batch}))
        async with conn.transaction():
            await lock_directories(conn, directories)
            params = (uuids([s.request for s in batch]), int4s([s.op for s in batch]))
            rows = await (await conn.execute(SQL["commits_of_requests"], params)).fetchall()
            if rows:
                # A visible row may not be on the synchronous standby yet: this transaction's own commit waits until it is.
                await conn.execute(SQL["wait_for_standby"])
        refuse_if_warned(conn)
        return {(request, op) for request, op, _, _, _ in rows}

    def _refuse_lost(self, attempt: "_Attempt", why: str) -> None:
        self._trouble = asyncio.get_running_loop().time(), NO_ANSWER
        self._refuse(attempt.left, why)
        attempt.left = []

    def _refuse_waiting(self) -> None:
        """The database answered nobody: refuse the waiting commands too, because each would wait as long again."""
        self._refuse(self._queue.drain(), _AWAY)
        for submissions in self._waiting_alone:
            self._refuse(submissions, _AWAY)
            self._busy.discard(submissions[0].directory.id)
        self._waiting_alone.clear()

    def _refuse_behind(self, batch: Sequence[Submission]) -> None:
        if self._pulse.failing_since is not None:
            self._refuse(batch, _AWAY)
        else:
            self._refuse(batch, _BEHIND, _RETRY_AFTER_BEHIND_S)

    def _refuse(self, batch: Sequence[Submission], why: str, retry_after: int = _RETRY_AFTER_S) -> None:
        for submission in batch:
            submission.settle(Unavailable(why, retry_after=retry_after))
