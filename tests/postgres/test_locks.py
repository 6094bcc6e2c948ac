"""Locks of strangers: who may connect, what a writer does about a lock that does not come, what the probe says."""

import asyncio
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from database.connections import APPLICATION_NAME
from database.deadlines import Deadline
from database.locks import DIRECTORY, LEDGER
from database.migrate import migrate
from ledger import writer
from operations.readiness import Broken
from runtime import wiring
from scim.errors import Unavailable
from tests.postgres.ledgers import Ledger, opened
from tests.postgres.machine import administration


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "LOCK", Deadline(0.1, "a lock", "503"))


async def broken(ledger: Ledger) -> Broken | None:
    return await ledger.services.readiness.broken_part()


@contextmanager
def holding(url: str, first: int, second: int, **options: str) -> Generator[psycopg.Connection[Any]]:
    """A session that holds an advisory lock, by itself or within a transaction."""
    with psycopg.connect(make_conninfo(url, **options)) as conn:
        conn.execute("select pg_advisory_xact_lock(%s, %s)", (first, second))
        yield conn
        conn.rollback()


def run(url: str, check: Any) -> None:
    async def all_of_it() -> None:
        async with opened(url) as ledger:
            await check(ledger)

    asyncio.run(all_of_it())


@pytest.mark.parametrize("user", ["postgres", "ledger_owner", "ledger_app"])
def test_a_lock_of_the_ledger_held_by_a_stranger_refuses_writes_soon(app_url: str, superuser_url: str, user: str) -> None:
    """All of them, not one batch after the other; the probe says so without a name, the log with it; then all goes on."""

    async def check(ledger: Ledger) -> None:
        await ledger.create_user("before")
        with (
            holding(superuser_url, LEDGER.number, 0, user=user, application_name="psql of a stranger") as stranger,
            capture_logs() as logs,
        ):
            writes = [ledger.create_user(f"u{n}") for n in range(300)]
            refused = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)
            assert {type(error) for error in refused} == {Unavailable}
            assert all("holds a lock" in str(error) for error in refused)
            assert (found := await broken(ledger)) is not None
            assert (found.part, found.reason) == ("writer", "lock_held")
            assert "holds a lock" in found.detail
            assert not re.search(f"{user}|psql|{stranger.info.backend_pid}", " ".join(found))
            told = [entry for entry in logs if entry["event"] == "lock_in_the_way"]
            expected = {"pid": stranger.info.backend_pid, "user": user, "application": "psql of a stranger", "directory": None}
            assert expected.items() <= told[0].items()
        assert await broken(ledger) is None
        await ledger.create_user("after")

    run(app_url, check)


@pytest.mark.parametrize("mode", ["access exclusive", "share"])
def test_a_lock_of_a_table_is_told_like_one_of_the_ledger(app_url: str, superuser_url: str, mode: str) -> None:
    """An operator at LOCK TABLE, CREATE INDEX or VACUUM FULL: no write goes, so the probe and the log say why."""

    async def check(ledger: Ledger) -> None:
        await ledger.create_user("before")
        with psycopg.connect(superuser_url, application_name="psql of a stranger") as stranger, capture_logs() as logs:
            stranger.execute(f"lock table ledger.users in {mode} mode")  # type: ignore[arg-type]
            with pytest.raises(Unavailable, match="holds a lock"):
                await asyncio.wait_for(ledger.create_user("held"), 10)
            assert (found := await broken(ledger)) is not None
            assert (found.part, found.reason) == ("writer", "lock_held")
            told = [entry for entry in logs if entry["event"] == "lock_in_the_way"]
            assert {"pid": stranger.info.backend_pid, "directory": None}.items() <= told[0].items()
            stranger.rollback()
        assert await broken(ledger) is None
        await ledger.create_user("held")

    run(app_url, check)


def test_a_lock_of_a_directory_refuses_that_directory_alone(app_url: str, superuser_url: str) -> None:
    async def check(ledger: Ledger) -> None:
        async with administration(app_url, ledger.services.ledger.kek) as acts:
            other = await acts.create_directory("other")
        with holding(superuser_url, DIRECTORY.number, ledger.directory.id):
            held = ledger.create_user("held")
            await asyncio.wait_for(ledger.create_user("free", other), 5)
            with pytest.raises(Unavailable, match="holds a lock"):
                await asyncio.wait_for(held, 10)
            await asyncio.wait_for(ledger.create_user("still free", other), 5)
        await ledger.create_user("held")

    run(app_url, check)


def test_behind_a_writer_of_ours_a_write_goes_on_waiting(app_url: str, superuser_url: str) -> None:
    """Another process at a giant commit: what waits for its directory is not refused, however often the lock times out."""

    async def check(ledger: Ledger) -> None:
        with holding(app_url, DIRECTORY.number, ledger.directory.id, application_name=APPLICATION_NAME) as giant:
            with capture_logs() as logs:
                write = ledger.create_user("patient")
                timeouts = "select count(*) from pg_stat_activity where wait_event = 'advisory'"
                with psycopg.connect(superuser_url, autocommit=True) as watcher:
                    seen = set[int]()
                    deadline = asyncio.get_running_loop().time() + 20
                    while len(seen) < 3:  # three waits, each in a transaction of its own
                        assert asyncio.get_running_loop().time() < deadline
                        rows = watcher.execute(timeouts.replace("count(*)", "extract(epoch from xact_start)::float8")).fetchall()
                        seen |= {row[0] for row in rows}
                        await asyncio.wait([write], timeout=0.02)
                assert not write.done()
                assert await broken(ledger) is None
                assert [entry for entry in logs if entry["event"] == "lock_in_the_way"] == []
            giant.rollback()
            await asyncio.wait_for(write, 10)

    run(app_url, check)


def test_a_write_does_not_wait_for_ever_for_one_of_ours_either(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The neighbour's host may be frozen."""
    monkeypatch.setattr(writer, "WRITE_SETTLED", Deadline(2, "a write", "503"))

    async def check(ledger: Ledger) -> None:
        with holding(app_url, LEDGER.number, 0, application_name=APPLICATION_NAME):
            with pytest.raises(Unavailable, match="before this one take long"):
                await asyncio.wait_for(ledger.create_user("late"), 10)
        await ledger.create_user("late")

    run(app_url, check)


# -- who may connect ------------------------------------------------------------


@contextmanager
def stranger(admin_url: str) -> Generator[str]:
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("create role stranger login")
        try:
            yield "stranger"
        finally:
            conn.execute("drop owned by stranger")
            conn.execute("drop role stranger")


def test_only_the_roles_of_the_ledger_connect(admin_url: str, superuser_url: str, owner_url: str, app_url: str) -> None:
    with stranger(admin_url) as name:
        theirs = make_conninfo(superuser_url, user=name)
        psycopg.connect(theirs).close()  # a fresh database is open to all
        migrate(owner_url)
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(theirs)
        for ours in (owner_url, app_url):
            with psycopg.connect(ours) as conn:
                assert conn.execute("select 1").fetchone() == (1,)
        with psycopg.connect(owner_url) as conn:
            conn.execute("create temporary table of_a_verification (n int)")
        with psycopg.connect(app_url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("create temporary table of_nobody (n int)")


def test_a_login_granted_by_name_keeps_its_way_in(admin_url: str, superuser_url: str, owner_url: str) -> None:
    """A backup or a monitor: granted once by an operator, kept by every start."""
    with stranger(admin_url) as name, psycopg.connect(superuser_url, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("grant connect on database {} to stranger").format(database))
        migrate(owner_url)
        psycopg.connect(make_conninfo(superuser_url, user=name)).close()
        conn.execute(sql.SQL("revoke connect on database {} from stranger").format(database))


def test_a_login_that_may_not_close_the_database_says_what_to_run(superuser_url: str, owner_url: str) -> None:
    """A managed database may belong to another role: the start goes on, with a warning."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("alter database {} owner to postgres").format(database))
        conn.execute(sql.SQL("grant create on database {} to ledger_owner").format(database))
    with capture_logs() as logs:
        assert migrate(owner_url) == []
    (warned,) = logs
    assert warned["event"] == "database_open_to_every_login"
    assert "revoke connect, temporary on database" in warned["run_as_its_owner"]
