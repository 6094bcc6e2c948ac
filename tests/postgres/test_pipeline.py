"""Statements that are sent together: when they reach the server, and what an error does to the connection."""

import asyncio

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from database.connections import Bounded, Connection, Pulse, connect
from database.pipeline import together, transaction

from .test_lifecycle import until

KEY = 7_001


async def _locked(watcher: Connection) -> bool:
    rows = await watcher.execute("select 1 from pg_locks where locktype = 'advisory' and objid = $1", (KEY,))
    return await rows.fetchone() is not None


async def _divide_and_lock(conn: Connection) -> None:
    async with together(conn):
        await conn.execute("begin")
        await conn.execute("select 1 / $1::int4", (0,))
        await conn.execute("select pg_advisory_lock($1)", (KEY,))
        await conn.execute("commit")


def test_statements_are_sent_when_an_answer_is_awaited(app_url: str) -> None:
    """The lock of the first statement shows when the server has it: not before the result of a statement is awaited."""

    async def run() -> None:
        async with await connect(app_url) as conn, await connect(app_url) as watcher:
            await conn.execute("select 1")  # afterwards the session is idle, and pg_stat_activity shows it
            asked = "select query from pg_stat_activity where pid = $1"
            pid = (conn.info.backend_pid,)
            async with together(conn):
                await conn.execute("select pg_advisory_lock($1)", (KEY,))
                assert not await _locked(watcher)
                assert await (await watcher.execute(asked, pid)).fetchone() == ("select 1",)
                answer = await conn.execute("select 2")
                assert await answer.fetchone() == (2,)
                assert await _locked(watcher)

    asyncio.run(run())


def test_a_flush_sends_without_waiting_for_an_answer(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url) as conn, await connect(app_url) as watcher, together(conn) as pipeline:
            await conn.execute("select pg_advisory_lock($1)", (KEY,))
            await pipeline.flush()
            await until(lambda: _locked(watcher))

    asyncio.run(run())


def test_a_flush_raises_the_errors_that_have_arrived(app_url: str) -> None:
    """Otherwise a giant commit would be computed to its end although the disk is full."""

    async def run() -> None:
        async with await connect(app_url) as conn:

            async def refused() -> bool:
                try:
                    await pipeline.flush()
                except psycopg.errors.DivisionByZero:
                    return True
                return False

            async with together(conn) as pipeline:
                await conn.execute("select 1 / $1::int4", (0,))
                await until(refused)

    asyncio.run(run())


def test_a_flush_of_long_work_counts_as_a_sign_of_life(app_url: str) -> None:
    """The time within which a giant commit may be written again, after its connection was lost, counts from the last sign of
    life.
    """

    async def run() -> None:
        async with await connect(app_url, long_work=True) as conn, together(conn) as pipeline:
            assert isinstance(conn, Bounded)
            await pipeline.flush()
            before = conn.heard_at
            await conn.execute("select 1")
            await pipeline.flush()
            assert conn.heard_at > before

    asyncio.run(run())


def test_a_cancelled_transaction_does_not_count_as_a_failure_of_the_database(app_url: str) -> None:
    async def run() -> None:
        pulse = Pulse()
        conn = await connect(app_url, pulse=pulse)

        async def asleep() -> None:
            async with transaction(conn):
                await (await conn.execute("select pg_sleep(60)")).fetchone()

        async with await connect(app_url) as watcher:
            asleep_at = "select 1 from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'"
            task, pid = asyncio.create_task(asleep()), (conn.info.backend_pid,)

            async def sleeps() -> bool:
                return await (await watcher.execute(asleep_at, pid)).fetchone() is not None

            await until(sleeps)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert pulse.failing_since is None

    asyncio.run(run())


def test_the_first_error_is_raised_and_the_connection_can_be_used(app_url: str) -> None:
    """As in a write, the transaction has an explicit `begin`; statements after the error are not executed; after a rollback the
    connection works.
    """

    async def run() -> None:
        async with await connect(app_url) as conn:
            with pytest.raises(psycopg.errors.DivisionByZero):
                await _divide_and_lock(conn)
            await conn.execute("rollback")
            assert not await _locked(conn)
            assert await (await conn.execute("select 3")).fetchone() == (3,)

    asyncio.run(run())


def test_more_bytes_than_socket_and_server_buffer_can_be_sent_at_once(app_url: str) -> None:
    """Twenty megabytes go to the server and as many back: neither side may wait for the other for ever."""

    async def run() -> list[int]:
        large, back = "x" * 2**20, []
        async with asyncio.timeout(60), await connect(app_url) as conn:
            async with together(conn) as pipeline:
                cursors = [await conn.execute("select repeat($1, 1)", (large,)) for _ in range(20)]
                await pipeline.flush()
                back = [len((await cursor.fetchall())[0][0]) for cursor in cursors]
        return back

    assert asyncio.run(run()) == [2**20] * 20


def test_statements_that_were_only_queued_give_no_answer_of_the_server(app_url: str) -> None:
    async def run() -> None:
        pulse = Pulse()
        async with await connect(app_url, pulse=pulse) as conn:
            pulse.failed()
            async with together(conn):
                await conn.execute("select 1")
                assert pulse.failing_since is not None
            assert pulse.failing_since is None

    asyncio.run(run())


async def _add(conn: Connection, key: int, divisor: int) -> None:
    async with transaction(conn):
        await conn.execute("insert into kept values ($1)", (key,))
        answer = await conn.execute("select 6 / $1::int4", (divisor,))
        assert await answer.fetchone() == (6 // divisor,)


async def _kept(conn: Connection) -> list[int]:
    return [key for (key,) in await (await conn.execute("select key from kept order by key")).fetchall()]


def test_a_transaction_is_committed_as_a_whole_or_not_at_all(app_url: str) -> None:
    """This holds for a transaction by itself and as a savepoint within another one."""

    async def run() -> None:
        async with await connect(app_url) as conn:
            await conn.execute("create temporary table kept (key int4)")
            await _add(conn, 1, 3)
            with pytest.raises(psycopg.errors.DivisionByZero):
                await _add(conn, 2, 0)
            assert conn.info.transaction_status == TransactionStatus.IDLE
            async with conn.transaction():
                await _add(conn, 3, 2)
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await _add(conn, 4, 0)
            assert await _kept(conn) == [1, 3]

    asyncio.run(run())


def test_a_transaction_does_not_outlive_an_exception_of_the_block(app_url: str) -> None:
    async def broken(conn: Connection) -> None:
        async with transaction(conn):
            await conn.execute("insert into kept values ($1)", (1,))
            raise LookupError

    async def run() -> None:
        async with await connect(app_url) as conn:
            await conn.execute("create temporary table kept (key int4)")
            with pytest.raises(LookupError):
                await broken(conn)
            assert await _kept(conn) == []

    asyncio.run(run())


def test_a_transaction_on_a_lost_connection_raises_the_loss(app_url: str) -> None:
    async def run() -> None:
        async with await connect(app_url) as conn:
            conn.pgconn.finish()
            with pytest.raises(psycopg.OperationalError):
                await _add(conn, 1, 1)

    asyncio.run(run())
