"""Connections to PostgreSQL: the settings of each session, and a deadline for every wait.

Session settings are SET after connecting, because poolers refuse startup options. A pooler in transaction mode
(`pooled_transactions`) gives each transaction another server session, so no setting lasts: there every use of a connection is one
transaction that sets them itself.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncRawCursor, InterfaceError, OperationalError, RawCursor
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic, PipelineAborted
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Wait, wait_async
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from database import patience
from database.arrays import register_arrays
from database.deadlines import (
    AWAY as AWAY_DEADLINE,
)
from database.deadlines import (
    CHECK,
    CONNECT,
    LISTEN,
    LONG_ASK,
    LONG_LOOK,
    POOL,
    PROBE,
    READ,
    SERVER_SIDE,
    STATEMENT,
    with_deadlines,
)
from database.hosts import connected_host, only_at

APPLICATION_NAME = "scim-ledger"  # shown in pg_stat_activity; some queries find the service's own sessions by it

# Settings that the ledger depends on; they override those of the server, the database and the role.
OURS: Final[Mapping[str, str]] = {
    "search_path": "ledger", "jit": "off", "timezone": "UTC", "synchronous_commit": "on",
    "default_transaction_isolation": "read committed", "default_transaction_deferrable": "off", **SERVER_SIDE,
    "client_min_messages": "notice", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0",
    # Formats of values: psycopg reads only ISO dates.
    "datestyle": "ISO, MDY", "intervalstyle": "postgres", "bytea_output": "hex", "client_encoding": "UTF8",
    "standard_conforming_strings": "on", "array_nulls": "on", "transform_null_equals": "off",
}  # fmt: skip
# The session takes the role ledger_app, whoever logs in, because the append-only grants belong to that role.
SERVING: Final[Mapping[str, str]] = {**OURS, "role": "ledger_app"}
# Without these, a generic plan made while a table is empty stays a sequential scan until the next analyse. They leave only index
# plans, which are right for every query of the hot path at every table size.
PINNED_PLANS: Final[Mapping[str, str]] = {
    "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
    "enable_bitmapscan": "off", "enable_material": "off",
}  # fmt: skip
# Other reads: the same, but with bitmap scans, which a GIN index (e-mail addresses) needs.
INDEXED_PLANS: Final[Mapping[str, str]] = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

Connection = AsyncConnection[TupleRow]
RV = TypeVar("RV")
LOST: Final = (OperationalError, InterfaceError)  # errors of a lost connection, from a statement or the pool
_WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"  # recognises the warning by the server function, because its text is translated
_INTERVAL_S: Final = 0.1  # interval at which psycopg checks for an interruption
_log = structlog.get_logger("database")


@dataclass(slots=True)
class Pulse:
    """Whether the database answers this process. Shared, so that not every request has to wait for its own timeout.

    Times are of the monotonic clock. `failing_since`: the start of the first failed wait since the last answer.
    """

    failing_since: float | None = None
    answered_at: float = 0.0
    unreachable: bool = False  # opening a connection has failed since the last answer

    def answered(self) -> None:
        self.failing_since, self.answered_at, self.unreachable = None, time.monotonic(), False

    def failed(self, waited_s: float = 0.0) -> None:
        """A connection broke, or had no answer for so many seconds. That may be one slow statement, so `probe` checks."""
        if self.failing_since is None:
            self.failing_since = max(time.monotonic() - waited_s, self.answered_at)

    def refused(self, waited_s: float = 0.0) -> None:
        """A connection could not be opened. A slow statement cannot be the reason."""
        self.failed(waited_s)
        self.unreachable = True

    @property
    def away(self) -> bool:
        """Whether requests are refused at once: no answer and no new connection for AWAY."""
        return (
            self.unreachable and self.failing_since is not None and time.monotonic() - self.failing_since >= AWAY_DEADLINE.seconds
        )


def sever_all(pulse: Pulse) -> None:
    """Break every connection of a process that ends, so that every wait on one ends now."""
    for conn in list(_OPEN):
        if conn.pulse is pulse and not conn.closed:
            conn.sever()


class Bounded(AsyncConnection[TupleRow]):
    """A connection whose waits have a deadline.

    Without an answer within `patience_s` the connection is closed and OperationalError is raised. With `long_work`, the server is asked
    on another connection whether it still works on the statement; the wait goes on as long as it does.
    """

    patience_s: float = READ.seconds
    patience_at_most_s: float = READ.seconds
    warned: bool = False  # the server sent a warning: see refuse_if_warned
    heard_at: float = 0.0  # monotonic time of the last sign that the server works on the long statement
    server_pid: int = 0  # pid of the server session; behind a pooler it differs from the one at connecting
    stale: bool = False  # the pool must not lend it again
    cursors_prepare: bool = True  # see `connect`
    pulse: Pulse | None = None
    long_work: str | None = None  # the URL on which the server is asked

    async def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None) -> RV:  # noqa: ASYNC109  # psycopg's own signature
        """Raises psycopg.OperationalError, with the connection closed, where no answer comes. With a `timeout`: as psycopg."""
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        if self._pipeline is not None:
            closed = self.closed
            try:
                gen = _resumed(next(gen), gen)
            except StopIteration as done:
                return done.value  # statements were only gathered: the server has not answered, and may be away
            except OperationalError as broken:
                # A pipeline also ends on a connection that a cancelled task has closed: then the database did not fail.
                if not closed:
                    self._end_if_silent(broken, 0.0)
                raise
        if self.long_work is not None:
            return await self._wait_long(gen, interval, self.long_work)
        wait = patience.started()
        seconds = max(min(self.patience_s, wait.left), patience.LEAST_S)
        try:
            answer = await wait_async(gen, self.pgconn.socket, interval, seconds)
        except asyncio.CancelledError:
            self._cut_if_active()
            raise
        except OperationalError as broken:
            patience.charge(wait)
            self._end_if_silent(broken, seconds)
            raise
        if self.pulse is not None:
            self.pulse.answered()
        return answer

    def _cut_if_active(self) -> None:
        """Close the connection of a cancelled task. psycopg would wait until the server has cancelled the statement."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.pgconn.finish()

    def _end_if_silent(self, broken: OperationalError, seconds: float) -> None:
        """After a timeout close the connection: a late answer would be taken for that of the next statement."""
        if not _of_no_server(broken):
            return
        silent = not self.broken
        if silent:
            _log.warning("database_silent", seconds=round(seconds, 3))
            self.pgconn.finish()
        if self.pulse is not None:
            self.pulse.failed(seconds if silent else 0.0)

    async def _wait_long(self, gen: PQGen[RV], interval: float, url: str) -> RV:
        looking = asyncio.create_task(self._look(url, self.server_pid or self.info.backend_pid))
        try:
            answer = await wait_async(gen, self.pgconn.socket, interval)
        except asyncio.CancelledError:
            self._cut_if_active()
            raise
        finally:
            looking.cancel()
        self.heard_at = time.monotonic()
        return answer

    async def _look(self, url: str, pid: int) -> None:
        """Cut the connection if twice in a row the server does not work on the statement, or cannot be asked."""
        pause, idle = LONG_LOOK.seconds, 0
        while idle < 2:  # twice, because the answer may be on its way, or one question may be lost
            await asyncio.sleep(pause)
            at = only_at(url, connected_host(self.info))  # without it a silent host of the URL would use up the time
            if await _at_work(at, pid):
                pause, idle, self.heard_at = LONG_LOOK.seconds, 0, time.monotonic()
            else:
                pause, idle = PROBE.seconds, idle + 1
        _log.warning("database_silent", backend=pid)
        self.sever()

    def sever(self) -> None:
        """Shut the socket down, so that a waiting statement ends with an error."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as ours:  # the socket may be closed already
            ours.shutdown(socket.SHUT_RDWR)


def _resumed(asked: Wait, gen: PQGen[RV]) -> PQGen[RV]:
    """A generator of psycopg whose first question was already taken."""
    while True:
        ready = yield asked
        try:
            asked = gen.send(ready)
        except StopIteration as done:
            return done.value


class BoundedThread(psycopg.Connection[TupleRow]):
    """A connection with deadlines for code in threads: the recorder of the eventsourcing library."""

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None) -> RV:
        """Raises psycopg.OperationalError, with the connection closed, where no answer comes. With a `timeout`: as psycopg."""
        try:
            return super().wait(gen, interval, READ.seconds if timeout is None else timeout)
        except OperationalError as broken:
            if timeout is None and _of_no_server(broken):
                self.pgconn.finish()
            raise


def _of_no_server(broken: OperationalError) -> bool:
    """Whether the error did not come from a server: the connection is lost, or a wait timed out."""
    return broken.sqlstate is None and not isinstance(broken, PipelineAborted)


def set_for_threads(conn: BoundedThread) -> None:
    """Set a session of the serving role, as `connect` does."""
    conn.execute(*_set_config(SERVING, local=False), prepare=False)


def set_for_the_owner(conn: psycopg.Connection[TupleRow], **otherwise: str) -> None:
    """Set up a session of the owner role that changes the schema. `otherwise`: settings that differ."""
    RawCursor(conn).execute(*_set_config({**OURS, **otherwise}, local=False), prepare=False)


async def _at_work(url: str, pid: int) -> bool:
    """Whether a session runs a statement or waits inside the server; False without an answer."""
    question = "select state = 'active' and wait_event_type is distinct from 'Client' from pg_stat_activity where pid = %s"
    try:
        async with asyncio.timeout(LONG_ASK.seconds), await Bounded.connect(with_deadlines(url), autocommit=True) as conn:
            row = await (await conn.execute(question, (pid,))).fetchone()
    except (*LOST, TimeoutError) as away:
        return "FATAL" in str(away)  # a server that refuses one more connection is alive
    return row is not None and bool(row[0])


async def connect(
    url: str,
    *,
    pinned: bool = False,
    lock_timeout_ms: int = 0,
    patience_s: float = READ.seconds,
    long_work: bool = False,
    pulse: Pulse | None = None,
    cursors_prepare: bool = True,
) -> Connection:
    """Open an autocommit connection of the serving role, with binary results, encoded arrays and statements prepared at first use.

    `lock_timeout_ms`: how long a statement waits for a lock; 0 means for ever. `patience_s` and `long_work`: see Bounded.
    `cursors_prepare`: False if the session's statements are prepared without cursors (database/prepared.py). Raises
    psycopg.OperationalError if the server cannot be reached.
    """
    plans = PINNED_PLANS if pinned else {}
    settings = {**SERVING, **plans, "lock_timeout": str(lock_timeout_ms)}
    conn = await _opened(url, settings, patience_s, long_work=long_work, pulse=pulse)
    if not cursors_prepare:
        # If psycopg had prepared a statement, it would answer each ROLLBACK with DEALLOCATE ALL, which ends ours too.
        conn.cursors_prepare, conn.prepare_threshold = False, None
    return conn


async def connect_owner(url: str, *, pinned: bool = False) -> Connection:
    """Open a connection that keeps the role that logs in, to create and swap tables. Its statements may take long.

    `pinned`: only index plans, for statements that read a part of a table however large it is.
    """
    settings = {**OURS, **(PINNED_PLANS if pinned else {})}
    return await _opened(url, settings, READ.seconds, long_work=True, pulse=None)


async def _opened(url: str, settings: Mapping[str, str], patience_s: float, *, long_work: bool, pulse: Pulse | None) -> Bounded:
    began = time.monotonic()
    try:
        conn = await Bounded.connect(
            with_deadlines(url),
            autocommit=True,
            prepare_threshold=0,
            application_name=APPLICATION_NAME,
            cursor_factory=AsyncRawCursor,
        )
        conn.patience_s = conn.patience_at_most_s = patience_s
        _make_ready(conn, pulse)
        await _set_up(conn, settings, url if long_work else None)
    except OperationalError as refused:
        if pulse is not None and _of_no_server(refused):
            pulse.refused(time.monotonic() - began)
        raise
    return conn


async def _set_up(conn: Bounded, settings: Mapping[str, str], long_work: str | None) -> None:
    """Set up a new session; close it if that fails. These first statements must be quick, even if later ones may take long."""
    try:
        await _set(conn, settings, local=False)
        if long_work is not None:
            conn.server_pid = await _server_of(conn)
    except BaseException:
        await conn.close()
        raise
    conn.long_work, conn.heard_at = long_work, time.monotonic()


def _make_ready(conn: Bounded, pulse: Pulse | None) -> None:
    """Set up the client side: array types, prepared statements, the handler of warnings."""
    conn.pulse = pulse
    conn.prepared_max = 300
    register_arrays(conn)
    _OPEN.add(conn)

    def heard(notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            conn.warned = conn.warned or notice.source_function == _WAIT_FOR_STANDBY
            _log.warning("database_warned", sqlstate=notice.sqlstate, message=notice.message_primary)

    conn.add_notice_handler(heard)


def bound(conn: Connection, seconds: float) -> None:
    """Limit each later wait on the connection to so many seconds, at most its own limit. No effect on one for long work."""
    if isinstance(conn, Bounded):
        conn.patience_s = max(min(conn.patience_at_most_s, seconds), patience.LEAST_S)


def discard(conn: Connection) -> None:
    """Make the pool close this connection after use and open another one."""
    if isinstance(conn, Bounded):
        conn.stale = True


def refuse_if_warned(conn: Connection) -> None:
    """Raise psycopg.OperationalError if the server warned about a commit on this connection: the commit may be lost in a failover.

    If the wait of a COMMIT for its synchronous standby is cancelled, the COMMIT succeeds and only a warning is sent.
    """
    if isinstance(conn, Bounded) and conn.warned:
        raise OperationalError("The server warned, so it is not known whether a synchronous standby has this.")


async def _set(conn: Connection, settings: Mapping[str, str], *, local: bool) -> None:
    await conn.execute(*_set_config(settings, local=local), prepare=False)


def _set_config(settings: Mapping[str, str], *, local: bool) -> tuple[bytes, tuple[str, ...]]:
    """One statement for all settings: a round trip for each would double the time to open a connection."""
    places = range(1, 2 * len(settings), 2)
    calls = ", ".join(f"set_config(${n}, ${n + 1}, {'true' if local else 'false'})" for n in places)
    return f"select {calls}".encode(), tuple(word for pair in settings.items() for word in pair)


_OPEN: Final = WeakSet[Bounded]()  # all connections of this process
_checked: WeakKeyDictionary[AsyncConnection[TupleRow], float] = WeakKeyDictionary()
CHECK_INTERVAL_S = 1.0


async def _check_idle(conn: Bounded) -> None:
    """Check a pooled connection before use, at most once a second, because a check is a round trip."""
    now = time.monotonic()
    if now - _checked.get(conn, 0.0) > CHECK_INTERVAL_S:
        conn.patience_s = CHECK.seconds
        try:
            await AsyncConnectionPool.check_connection(conn)
        finally:
            conn.patience_s = READ.seconds
        _checked[conn] = now


class Pool:
    """A pool of serving connections, each lent for a few statements. It must be opened first.

    `pooled_transactions`: the URL leads to a pooler in transaction mode.
    """

    def __init__(self, url: str, *, size: int, pulse: Pulse | None = None, pooled_transactions: bool = False) -> None:
        self.pulse = pulse or Pulse()
        self.max_size = size
        self._by_transaction = pooled_transactions
        self._settings = {**SERVING, **INDEXED_PLANS, "statement_timeout": str(STATEMENT.ms)}
        kwargs: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None if pooled_transactions else 0,
            "application_name": APPLICATION_NAME,
            "cursor_factory": AsyncRawCursor,
        }
        self._pool: AsyncConnectionPool[Bounded] = AsyncConnectionPool(
            with_deadlines(url), kwargs=kwargs, connection_class=Bounded, configure=self._prepare, min_size=1, max_size=size,
            open=False, timeout=POOL.seconds, check=_check_idle,
            reconnect_timeout=CONNECT.seconds,  # then the next request tries at once, without psycopg's growing pauses
        )  # fmt: skip

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(timeout=CHECK.seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """Lend a connection. Raises PoolTimeout: at once if the database is away, else after POOL."""
        if self.pulse.away:
            raise PoolTimeout("The database does not answer.")
        conn = await self._got()
        try:
            async with conn:
                if self._by_transaction:  # the settings for this transaction; without such a pooler the session has them
                    async with conn.transaction():
                        await _set(conn, self._settings, local=True)
                        yield conn
                else:
                    yield conn
            if conn.warned or conn.stale:
                await conn.close()
                refuse_if_warned(conn)
        finally:
            await self._pool.putconn(conn)

    async def _got(self) -> Bounded:
        """Get a connection. The pool swallows a cancellation at the moment of the hand-over, so it is raised here."""
        wait, task = patience.started(), asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            conn = await self._pool.getconn(max(min(POOL.seconds, wait.left), _INTERVAL_S))
        except PoolTimeout:
            patience.charge(wait)
            if self.pulse.answered_at < wait.at:  # otherwise other requests held all connections
                self.pulse.failed(time.monotonic() - wait.at)
            raise
        if task is not None and task.cancelling() > cancelled:
            await self._pool.putconn(conn)
            raise asyncio.CancelledError
        return conn

    async def _prepare(self, conn: Bounded) -> None:
        _make_ready(conn, self.pulse)
        if not self._by_transaction:
            await _set(conn, self._settings, local=False)


async def lends_transactions(url: str) -> bool:
    """Whether the URL leads to a pooler in transaction mode.

    Behind any pooler the backend pid given at connecting differs from pg_backend_pid(). In transaction mode two connections that ask
    in turn can get the same server session.
    """
    async with await connect_owner(url) as first, await connect_owner(url) as second:
        numbers = [await _server_of(conn) for conn in (first, second, first, second)]
        pooled = numbers[0] != first.info.backend_pid
    kept = numbers[0] == numbers[2] != numbers[1] == numbers[3]  # each connection has its own server session
    return pooled and not kept


async def _server_of(conn: Connection) -> int:
    row = await (await conn.execute("select pg_backend_pid()", prepare=False)).fetchone()
    assert row is not None
    return row[0]


async def notices(conn: Connection) -> AsyncGenerator[str | None]:
    """Yield the payload of each notification, and None whenever a check has found the connection alive. Never ends.

    Without the check, a silently broken connection would be listened to for ever. Stop the iteration only at a None, because between
    two payloads psycopg holds the connection. Raises psycopg.Error.
    """
    while True:
        async for notice in conn.notifies(timeout=LISTEN.seconds):
            yield notice.payload
        await conn.execute("")
        yield None


async def probe(url: str, pulse: Pulse) -> None:
    """Until cancelled: while the database fails, check whether it answers again."""
    while True:
        await asyncio.sleep(PROBE.seconds)
        if pulse.failing_since is not None:
            try:
                conn = await connect(url, patience_s=CONNECT.seconds, pulse=pulse)
            except (psycopg.Error, OSError):  # any error: if this task ended, the database would count as away for ever
                continue
            await conn.close()
