"""Sessions of the service that hold a lock and wait for their process: which are ended, and which are not."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database import frozen
from database.connections import APPLICATION_NAME, Pool
from database.deadlines import Deadline
from database.locks import CLEANING, DIRECTORY


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FROZEN", "FROZEN_ROLE", "PROBE"):
        monkeypatch.setattr(frozen, name, Deadline(0.05, "a test", "the end"))


@contextmanager
def session(url: str, *statements: str, name: str = APPLICATION_NAME) -> Iterator[psycopg.Connection]:
    with psycopg.connect(make_conninfo(url, application_name=name), autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)  # type: ignore[arg-type]
        yield conn


WITHIN = ("begin", f"select pg_advisory_xact_lock({DIRECTORY.number}, 1)")
ROLE = (f"select pg_advisory_lock({CLEANING.number}, 0)",)


def ended(url: str, conn: psycopg.Connection) -> bool:
    """Whether a watch of one second ends the session."""

    async def run() -> bool:
        pool = Pool(url, size=1)
        await pool.open()
        watching = asyncio.create_task(frozen.watch(pool.connection))
        try:
            for _ in range(40):
                async with pool.connection() as other:
                    asked = await other.execute(
                        "select pg_sleep(0.02), count(*) from pg_stat_activity where pid = $1", (conn.info.backend_pid,)
                    )
                    row = await asked.fetchone()
                    if row is not None and row[1] == 0:
                        return True
            return False
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await pool.close()

    return asyncio.run(run())


@pytest.mark.parametrize("statements", [WITHIN, ROLE], ids=["within a transaction", "with a role"])
def test_a_session_that_holds_a_lock_while_its_process_is_stopped_is_ended(app_url: str, statements: tuple[str, ...]) -> None:
    with session(app_url, *statements) as conn:
        assert ended(app_url, conn)
        with pytest.raises(psycopg.OperationalError):  # when the process continues, its transaction was rolled back
            conn.execute("commit")


def test_sessions_without_a_lock_and_foreign_sessions_are_not_ended(app_url: str, superuser_url: str) -> None:
    for url, statements, name in (
        (app_url, (), APPLICATION_NAME),
        (app_url, ("begin", "select 1"), APPLICATION_NAME),
        (app_url, WITHIN, "psql of an operator"),
        (superuser_url, WITHIN, APPLICATION_NAME),
    ):
        with session(url, *statements, name=name) as conn:
            assert not ended(app_url, conn), (url, statements, name)
            conn.execute("select 1")
