"""The group-commit writer: one per process, batches from the fair queue, lanes for what runs alone, and the error rules.

Errors (DESIGN §4): SQLSTATE class 22/23 - the batch's commands one by one, so that only the guilty one fails; 40001 and
40P01 - the batch again; connection lost - reconnect, look the requests up in `commits`: found - answer from it, not found -
once more, unknown - 503. Never blind. A lock that does not come within LOCK_TIMEOUT_MS - 503 where it is not a writer of
ours that holds it; behind one of ours, which writes something giant, the batch goes on waiting for LOCK_WAIT_MAX_S.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import psycopg
import structlog

from database.arrays import int4s, uuids
from database.connections import LOST, Connection
from database.queries import load_queries
from ledger.clocks import ClockError
from ledger.obstacles import obstacles
from ledger.queue import FairQueue
from ledger.transaction import Outcome, Report, Submission, Transaction
from scim.errors import InvalidValue, TooManyRequests, Unavailable

SQL = load_queries(__file__)
LANES_MAX = 3  # transactions beside the main one: giant commits, and directories another process holds
DEFERRALS_MAX = 2
CONFLICT_TRIES_MAX = 5
RECONNECT_TRIES = 6
RECONNECT_DELAY_S = 0.25  # grows with each try: about 4 s in all, then 503
LOCK_TIMEOUT_MS = 4_000  # the ledger's lock is held for a COMMIT, a directory's for a batch: what takes longer is looked into
LOCK_WAIT_MAX_S = 60.0
_RETRY_AFTER_S = 1
_HELD = "Another session of the database holds a lock that this change needs; nothing was changed. Send it again."

Connect = Callable[[], Awaitable[Connection]]
_log = structlog.get_logger("ledger.writer")


class Link:
    """A connection that is opened when needed and replaced when it breaks."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._conn: Connection | None = None

    async def get(self) -> Connection:
        """Raises psycopg.OperationalError when the database stays away."""
        if self._conn is None or self._conn.closed or self._conn.broken:
            await self.close()
            self._conn = await self._connect()
        return self._conn

    async def close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(*LOST):
                await conn.close()


class Writer:
    """Accepts submissions, writes them in batches, settles each one's waiter."""

    def __init__(self, transaction: Transaction, connect: Connect, on_batch: Callable[[int, float], None]) -> None:
        self._transaction = transaction
        self._main = Link(connect)
        self._idle_lanes = [Link(connect) for _ in range(LANES_MAX)]
        self._queue = FairQueue()
        self._wake = asyncio.Event()
        self._busy: set[int] = set()
        self._lanes: set[asyncio.Task[None]] = set()
        self._waiting_alone: list[list[Submission]] = []
        self._on_batch = on_batch
        self._stopping = False
        self._obstructed = False  # a lock did not come, and nobody has looked since whether it is free
        self._clocks_told: dict[str, str] = {}  # by directory, what the log said of clocks
        self.running = False

    @property
    def queued(self) -> int:
        return len(self._queue)

    def submit(self, submission: Submission) -> "asyncio.Future[Outcome]":
        """Queue a command. Raises TooManyRequests when the directory's queue is full, Unavailable while stopping."""
        if self._stopping:
            raise Unavailable("The service is stopping. Send the request again in a moment.", retry_after=_RETRY_AFTER_S)
        if not self._queue.put(submission):
            raise TooManyRequests(
                "This directory has too many changes waiting. Send the request again.", retry_after=_RETRY_AFTER_S
            )
        self._wake.set()
        return submission.waiter

    async def run(self) -> None:
        """Write until stop() was called and everything queued is answered."""
        self.running = True
        while not (self._stopping and not self._queue and not self._lanes):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch, alone = self._queue.take(self._busy)
                for submission in alone:
                    self._open_lane([submission])
                if not batch:
                    break
                await self._write(self._main, batch, wait_for_locks=False)
        self.running = False
        for link in (self._main, *self._idle_lanes):
            await link.close()

    def stop(self) -> None:
        """Refuse new commands; run() ends when the queue is empty."""
        self._stopping = True
        self._wake.set()

    # -- lanes --------------------------------------------------------------

    def _open_lane(self, submissions: list[Submission]) -> None:
        """Run commands of one directory beside the main transaction. Until then the directory waits, the others do not."""
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
            # The task is still in _lanes here: look again once it has left.
            asyncio.get_running_loop().call_soon(self._wake.set)

    # -- one batch ----------------------------------------------------------

    async def _write(self, link: Link, batch: list[Submission], *, wait_for_locks: bool) -> None:
        started = asyncio.get_running_loop().time()
        try:
            await self._attempt(link, batch, wait_for_locks=wait_for_locks)
        except Exception as broken:  # whatever happens, nobody waits for ever
            _log.exception("write_failed", commands=len(batch))
            for submission in batch:
                submission.settle(broken)
        self._on_batch(len(batch), asyncio.get_running_loop().time() - started)

    async def _attempt(self, link: Link, batch: Sequence[Submission], *, wait_for_locks: bool) -> None:
        left, tries, began = list(batch), 0, asyncio.get_running_loop().time()
        while tries < CONFLICT_TRIES_MAX:
            report = Report()
            try:
                conn = await self._reconnected(link)
                left = await self._past_obstacles(conn, left)
                if not left:
                    return
                await self._transaction.run(conn, left, report, wait_for_locks=wait_for_locks)
            except psycopg.errors.LockNotAvailable:  # before LOST: psycopg counts it among the operational errors
                await self._rolled_back(link)
                self._obstructed = True
                if asyncio.get_running_loop().time() - began > LOCK_WAIT_MAX_S:
                    self._refuse(left, _HELD)
                    return
                continue
            except psycopg.errors.TransactionRollback:
                await self._rolled_back(link)
                tries += 1
                continue
            except (psycopg.DataError, psycopg.IntegrityError) as refused:
                await self._rolled_back(link)
                await self._one_by_one(link, left, refused, wait_for_locks=wait_for_locks)
                return
            except LOST as lost:
                await link.close()
                left = await self._resolve_lost(link, left, report, lost)
                if not left:
                    return
                tries += 1
                continue
            except BaseException:
                await self._rolled_back(link)
                raise
            self._conclude(report)
            return
        self._refuse(left, "The database could not take this change after several tries. Send the request again.")

    async def _past_obstacles(self, conn: Connection, batch: list[Submission]) -> list[Submission]:
        """Refuse what a stranger's lock keeps back; give the rest.

        Looked at after a lock did not come, until nothing is in the way: the queue would otherwise wait batch after batch.
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

    def _conclude(self, report: Report) -> None:
        for submission, result in report.settled:
            submission.settle(result)
        self._tell_clocks(report)
        for submission in report.run_alone:
            submission.needs = replace(submission.needs, whole=True)
        for submission in report.heavy:
            submission.needs = replace(submission.needs, heavy=True)
        for submission in report.locked_out:
            submission.deferrals += 1
        again = [s for s in report.locked_out if s.deferrals <= DEFERRALS_MAX]
        self._queue.put_back([*again, *report.run_alone, *report.heavy])
        held: dict[int, list[Submission]] = {}
        for submission in report.locked_out:
            if submission.deferrals > DEFERRALS_MAX:
                held.setdefault(submission.directory.id, []).append(submission)
        for submissions in held.values():
            self._open_lane(submissions)
        if again or report.run_alone or report.heavy:
            self._wake.set()

    def _tell_clocks(self, report: Report) -> None:
        """Say once which directories wait for a clock: an IdP repeats what is refused, which must not fill the log."""
        for submission, result in report.settled:
            slug = submission.directory.slug
            if not isinstance(result, ClockError):
                self._clocks_told.pop(slug, None)
            elif self._clocks_told.get(slug) != result.code:
                self._clocks_told[slug] = result.code
                _log.error(result.code, directory=slug)

    async def _one_by_one(self, link: Link, batch: Sequence[Submission], refused: psycopg.Error, *, wait_for_locks: bool) -> None:
        if len(batch) > 1:
            for submission in batch:
                await self._attempt(link, [submission], wait_for_locks=wait_for_locks)
            return
        _log.error("database_refused_command", sqlstate=refused.sqlstate, command=type(batch[0].command).__name__)
        batch[0].settle(InvalidValue("The database refused a value of this request. Nothing was changed."))

    async def _rolled_back(self, link: Link) -> None:
        try:
            await (await link.get()).execute("rollback")
        except psycopg.Error:
            await link.close()

    # -- a lost connection --------------------------------------------------

    async def _reconnected(self, link: Link) -> Connection:
        for tries in range(1, RECONNECT_TRIES):
            try:
                return await link.get()
            except psycopg.OperationalError:
                await asyncio.sleep(RECONNECT_DELAY_S * tries)
        return await link.get()

    async def _resolve_lost(
        self, link: Link, batch: Sequence[Submission], report: Report, lost: psycopg.Error
    ) -> list[Submission]:
        """Settle what did commit; give what did not and may be tried again."""
        _log.warning("database_connection_lost", sqlstate=lost.sqlstate, committing=len(report.committing))
        try:
            found = await self._committed(await self._reconnected(link), batch)
        except LOST:
            why = "The database does not answer, so this change may or may not be stored. Send the request again."
            self._refuse(batch, why if report.committing else "The database does not answer; nothing was changed. Send it again.")
            return []
        outcomes = {id(submission): outcome for submission, outcome in report.committing}
        left: list[Submission] = []
        for submission in batch:
            outcome = outcomes.get(id(submission))
            if outcome is not None and (submission.request, submission.op) in found:
                submission.settle(outcome)
            else:
                left.append(submission)
        return left

    async def _committed(self, conn: Connection, batch: Sequence[Submission]) -> set[tuple[object, int]]:
        # Taking the directories' locks first: the lost transaction may still be at work in the server.
        directories = int4s(sorted({submission.directory.id for submission in batch}))
        async with conn.transaction():
            await conn.execute(SQL["lock_directories"], (directories,))
            params = (uuids([s.request for s in batch]), int4s([s.op for s in batch]))
            rows = await (await conn.execute(SQL["commits_of_requests"], params)).fetchall()
        return {(row[0], row[1]) for row in rows}

    def _refuse(self, batch: Sequence[Submission], why: str) -> None:
        for submission in batch:
            submission.settle(Unavailable(why, retry_after=_RETRY_AFTER_S))
