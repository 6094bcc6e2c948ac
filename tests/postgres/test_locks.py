"""Locks of foreign sessions: who may connect, what a writer does if it does not get a lock, and what the probe says."""

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
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "LOCK", Deadline(0.1, "a lock", "503"))


async def broken(ledger: Ledger) -> Broken | None:
    return await ledger.services.readiness.broken_part()


@contextmanager
def holding(url: str, first: int, second: int, **options: str) -> Generator[psycopg.Connection[Any]]:
    """A session that holds an advisory lock, for the session or within a transaction."""
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
def test_if_a_foreign_session_holds_the_lock_of_the_ledger_writes_are_refused_soon(
    app_url: str, superuser_url: str, user: str
) -> None:
    """All writes are refused at once, not one batch after the other.

    The probe says so without a name, the log with the name; then writes go on.
    """

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
def test_a_foreign_table_lock_is_reported_like_a_lock_of_the_ledger(app_url: str, superuser_url: str, mode: str) -> None:
    """An operator runs LOCK TABLE, CREATE INDEX or VACUUM FULL: no write is possible, so probe and log must say why."""

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


def test_a_foreign_lock_of_a_directory_refuses_only_that_directory(app_url: str, superuser_url: str) -> None:
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


def test_a_write_behind_another_writer_of_the_service_waits_on(app_url: str, superuser_url: str) -> None:
    """Another process works on a giant commit: writes to its directory are not refused, however often the lock times out."""

    async def check(ledger: Ledger) -> None:
        with holding(app_url, DIRECTORY.number, ledger.directory.id, application_name=APPLICATION_NAME) as giant:
            with capture_logs() as logs:
                write = ledger.create_user("patient")
                timeouts = "select count(*) from pg_stat_activity where wait_event = 'advisory'"
                with psycopg.connect(superuser_url, autocommit=True) as watcher:
                    seen = set[int]()
                    deadline = asyncio.get_running_loop().time() + 20
                    while len(seen) < 3:  # three waits, each in its own transaction
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


def test_the_wait_for_another_writer_of_the_service_has_an_end(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of that writer may be frozen."""
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


def test_only_the_roles_of_the_ledger_may_connect(admin_url: str, superuser_url: str, owner_url: str, app_url: str) -> None:
    with stranger(admin_url) as name:
        theirs = make_conninfo(superuser_url, user=name)
        psycopg.connect(theirs).close()  # everybody may connect to a fresh database
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


def test_a_login_with_a_grant_by_name_may_still_connect(admin_url: str, superuser_url: str, owner_url: str) -> None:
    """A backup or a monitor gets the grant once from an operator, and every start keeps it."""
    with stranger(admin_url) as name, psycopg.connect(superuser_url, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("grant connect on database {} to stranger").format(database))
        migrate(owner_url)
        psycopg.connect(make_conninfo(superuser_url, user=name)).close()
        conn.execute(sql.SQL("revoke connect on database {} from stranger").format(database))


def test_a_login_that_may_not_revoke_connect_logs_the_statements_to_run(superuser_url: str, owner_url: str) -> None:
    """A managed database may belong to another role: the start goes on with a warning."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("alter database {} owner to postgres").format(database))
        conn.execute(sql.SQL("grant create on database {} to ledger_owner").format(database))
    with capture_logs() as logs:
        assert migrate(owner_url) == []
    (warned,) = logs
    assert warned["event"] == "database_open_to_every_login"
    assert "revoke connect, temporary on database" in warned["run_as_its_owner"]
