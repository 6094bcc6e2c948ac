"""Connections of the service: the settings of a session, the end of a wait, and the pool when a request is cancelled."""

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from database.connections import Bounded, Pool, Pulse, connect, connect_owner
from database.deadlines import READ, with_deadlines


def test_settings_in_the_url_override_the_deadlines_of_the_service() -> None:
    ours = conninfo_to_dict(with_deadlines("postgresql://h/d?connect_timeout=30"))
    assert (ours["connect_timeout"], ours["keepalives_idle"], ours["tcp_user_timeout"]) == ("30", "4", "6000")
    assert "target_session_attrs" not in ours
    assert conninfo_to_dict(with_deadlines("host=a,b"))["target_session_attrs"] == "read-write"


def test_settings_of_a_session_do_not_depend_on_the_server(app_url: str) -> None:
    async def run() -> dict[str, str]:
        async with await connect(app_url, pinned=True, lock_timeout_ms=70) as conn:
            names = [
                "role",
                "default_transaction_isolation",
                "synchronous_commit",
                "lock_timeout",
                "plan_cache_mode",
                "search_path",
            ]
            return {name: (await (await conn.execute(f"show {name}".encode())).fetchone() or ("",))[0] for name in names}

    assert asyncio.run(run()) == {
        "role": "ledger_app", "default_transaction_isolation": "read committed", "synchronous_commit": "on", "lock_timeout": "70ms",
        "plan_cache_mode": "force_generic_plan", "search_path": "ledger",
    }  # fmt: skip


def test_if_no_answer_comes_the_connection_is_closed(app_url: str) -> None:
    async def run() -> None:
        pulse = Pulse()
        conn = await connect(app_url, patience_s=0.2, pulse=pulse)
        with pytest.raises(psycopg.OperationalError):
            await conn.execute("select pg_sleep(60)")
        assert conn.closed
        assert pulse.failing_since is not None
        async with await connect(app_url, pulse=pulse) as other:
            await other.execute("select 1")
        assert pulse.failing_since is None

    asyncio.run(run())


def test_a_long_statement_may_run_while_the_server_works_on_it(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement takes longer than the interval of the checks; then its session is ended, and so is the wait."""
    from database import connections
    from database.deadlines import Deadline

    monkeypatch.setattr(connections, "LONG_LOOK", Deadline(0.1, "a look", "the end"))
    monkeypatch.setattr(connections, "PROBE", Deadline(0.1, "a look", "the end"))

    async def run() -> None:
        async with await connect_owner(app_url) as conn:
            await conn.execute("select pg_sleep(0.7)")

    asyncio.run(run())


def test_a_cancellation_is_not_lost_in_the_pool(app_url: str) -> None:
    """The cancellation comes at the moment at which the connection is handed over."""

    async def run() -> None:
        pool = Pool(app_url, size=1)
        await pool.open()

        async def work() -> None:
            async with pool.connection():
                raise AssertionError("it was cancelled before")

        for _ in range(50):
            async with AsyncExitStack() as held:
                await held.enter_async_context(pool.connection())
                waiting = asyncio.create_task(work())
                for _ in range(3):
                    await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(READ.seconds), pool.connection() as conn:
            await conn.execute("select 1")
        await pool.close()

    asyncio.run(run())


def test_the_pool_refuses_at_once_while_the_database_is_away(app_url: str) -> None:
    async def run() -> None:
        pulse = Pulse()
        pool = Pool(app_url, size=2, pulse=pulse)
        await pool.open()
        pulse.refused(waited_s=READ.seconds)
        started = asyncio.get_running_loop().time()
        with pytest.raises(psycopg.OperationalError):
            async with pool.connection():
                raise AssertionError
        assert asyncio.get_running_loop().time() - started < 0.5
        await pool.close()

    asyncio.run(run())


def test_psycopg_makes_connections_of_the_bounded_class(app_url: str) -> None:
    async def run() -> None:
        async with await Bounded.connect(app_url) as conn:
            assert conn.patience_s == READ.seconds

    asyncio.run(run())
