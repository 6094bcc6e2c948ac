"""Settings of the server that the product depends on: set for its sessions, refused with the name, or reported; and the meaning
of its errors.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from api.app import make_app
from api.database_errors import scim_error
from api.problems import problem_of
from database import server
from database.connections import connect, connect_owner
from database.faults import Kind, fault_of
from database.migrate import migrate
from database.server import ServerRefusedError, check_server, condition
from runtime.wiring import open_services
from scim.errors import InvalidValue, Unavailable
from tests.postgres.ledgers import NO_WEBHOOKS, Ledger, opened
from tests.postgres.machine import administration


def altered(superuser_url: str, setting: str) -> None:
    """Set an option for the database, and end every session that was opened before."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("alter database {} ").format(name) + sql.SQL(setting))  # pyright: ignore[reportArgumentType]
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )


async def served(write: Callable[[], "asyncio.Future[object]"]) -> None:
    """Repeat a request while the answer is 503, at most for the time within which the service must be back."""
    async with asyncio.timeout(15):
        while True:
            try:
                await write()
            except Unavailable:
                await asyncio.sleep(0)
            else:
                return


def test_a_database_with_repeatable_read_as_default_takes_every_write(superuser_url: str, app_url: str) -> None:
    """The snapshot of such a transaction would be older than its locks; sessions of the service are read committed whatever the
    default is.
    """
    altered(superuser_url, "set default_transaction_isolation = 'repeatable read'")

    async def run() -> None:
        async with (
            opened(app_url) as one,
            open_services(app_url, one.services.ledger.kek, "http://other", NO_WEBHOOKS) as services,
        ):
            other = Ledger(services, one.directory)
            writes = [ledger.create_user(f"u{n}-{k}") for n in range(60) for k, ledger in enumerate((one, other))]
            assert all(outcome.seq for outcome in await asyncio.gather(*writes))

    asyncio.run(run())


# Settings that a database may have, each of which would change how values are read or written.
ODD = {
    "datestyle": "'SQL, DMY'", "intervalstyle": "'sql_standard'", "bytea_output": "'escape'", "client_encoding": "'LATIN1'",
    "standard_conforming_strings": "off", "array_nulls": "off", "transform_null_equals": "on", "timezone": "'Asia/Kathmandu'",
    "search_path": "'nowhere'", "jit": "on", "client_min_messages": "'error'", "statement_timeout": "'300ms'",
    "idle_in_transaction_session_timeout": "'300ms'", "idle_session_timeout": "'300ms'", "default_transaction_deferrable": "on",
}  # fmt: skip


def test_a_database_with_another_date_style_works_like_any_other(superuser_url: str, app_url: str) -> None:
    for name, value in ODD.items():
        altered(superuser_url, f"set {name} = {value}")
    migrate(make_conninfo(app_url, user="ledger_owner"))  # as each start does

    async def run() -> None:
        async with opened(app_url) as ledger, administration(app_url, ledger.services.ledger.kek) as acts:
            assert (await ledger.create_user("Zoë \\ 'o'")).seq
            text = await acts.issue_token("operator", "t", ("*",), datetime.now(UTC) + timedelta(days=1))
            await acts.issue_token("consumer", "c", ("acme",), datetime.now(UTC) + timedelta(days=1))
            transport = httpx.ASGITransport(make_app(ledger.services))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://ledger.test", headers={"Authorization": f"Bearer {text}"}
            ) as http:
                put = await http.put("/v1/consumers/app", json={"mode": "pull", "start": "beginning"})
                assert put.status_code == 201, put.text
                for path in (
                    "/v1/consumers",
                    "/v1/consumers/app",
                    "/metrics",
                    "/readyz",
                    "/v1/directories",
                ):
                    answer = await http.get(path)
                    assert answer.status_code == 200, (path, answer.text)
            assert any('"Zoë' in event.json.decode() for event in (await ledger.page()).events)

    asyncio.run(run())


def test_with_a_read_only_database_reads_go_on_the_probe_says_so_and_writes_come_back(superuser_url: str, app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            altered(superuser_url, "set default_transaction_read_only = on")
            await served(lambda: asyncio.ensure_future(refused_as(ledger, "read-only")))
            await said_ready(ledger, "read_only")
            assert len((await ledger.page()).events) >= 2
            with psycopg.connect(superuser_url, autocommit=True, options="-c default_transaction_read_only=off") as conn:
                conn.execute(sql.SQL("alter database {} reset all").format(sql.Identifier(conn.info.dbname)))
            await served(lambda: ledger.create_user("after"))
            await said_ready(ledger, None)

    asyncio.run(run())


async def said_ready(ledger: Ledger, reason: str | None) -> None:
    """The probe says so, once it has a connection that was opened afterwards."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                found = await ledger.services.readiness.broken_part()
                if (found and found.reason) == reason:
                    return
            await asyncio.sleep(0)


async def refused_as(ledger: Ledger, word: str) -> None:
    """A write is refused with this reason; any other answer is returned."""
    try:
        await ledger.create_user("meanwhile")
    except Unavailable as refused:
        if word not in str(refused.detail):
            raise
    else:
        raise AssertionError("written")


@contextmanager
def waiting_for_a_standby(superuser_url: str) -> Iterator[psycopg.Connection]:
    """Commits wait for a synchronous standby that does not exist."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        try:
            conn.execute("alter system set synchronous_standby_names = 'nobody'")
            conn.execute("select pg_reload_conf()")
            yield conn
        finally:
            conn.execute("alter system reset synchronous_standby_names")
            conn.execute("select pg_reload_conf()")


WAITING = "select pid from pg_stat_activity where wait_event = 'SyncRep' and datname = current_database()"


async def waiting(conn: psycopg.Connection) -> int:
    """A session that waits for the standby."""
    async with asyncio.timeout(10):
        while not (row := conn.execute(WAITING).fetchone()):
            await asyncio.sleep(0)
    return row[0]


@pytest.mark.long
def test_a_commit_that_no_standby_has_is_not_acknowledged(superuser_url: str, app_url: str) -> None:
    """Its row is visible, so a look-up alone would call it stored.

    The same holds if somebody cancels the wait: the server then gives a warning and reports success.
    """

    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("before")
            with waiting_for_a_standby(superuser_url) as conn:
                started = asyncio.get_running_loop().time()
                with pytest.raises(Unavailable, match="may or may not"):
                    await written_until_one_waits(ledger)
                assert asyncio.get_running_loop().time() - started < 10
                await said_ready(ledger, "standby_silent")
                conn.execute(f"select pg_terminate_backend(pid) from ({WAITING}) w")  # type: ignore[arg-type]
                cancelled = asyncio.ensure_future(written(ledger, "cancelled"))
                conn.execute("select pg_cancel_backend(%s)", (await waiting(conn),))
                with pytest.raises(Unavailable):
                    await cancelled
            await served(lambda: ledger.create_user("after"))

    with capture_logs() as logs:
        asyncio.run(run())
    assert "database_warned" in {entry["event"] for entry in logs}


async def written_until_one_waits(ledger: Ledger) -> None:
    """Write until a commit hangs: before the server has read the setting, commits are acknowledged."""
    for number in count():
        await ledger.create_user(f"hung{number}")


async def written(ledger: Ledger, name: str) -> None:
    """Repeat a write until it was accepted: while the process considers the database away, it is refused at once."""
    async with asyncio.timeout(15):
        while True:
            try:
                write = ledger.create_user(name)
            except Unavailable:
                await asyncio.sleep(0)
            else:
                await write
                return


# -- refused and reported settings --------------------------------------------


def test_settings_that_weaken_the_promises_are_reported(app_url: str) -> None:
    async def run() -> list[str]:
        conn = await connect(app_url)
        async with conn:
            return [concern.reason for concern in (await condition(conn)).concerns]

    assert asyncio.run(run()) == ["fsync_off", "full_page_writes_off"]  # the cluster of these tests has these settings


def checked(url: str, connections: int) -> str:
    async def run() -> str:
        conn = await connect_owner(url)
        async with conn:
            try:
                await check_server(conn, connections)
            except ServerRefusedError as refused:
                return str(refused)
            return ""

    return asyncio.run(run())


def test_a_server_that_the_ledger_cannot_use_is_refused_with_the_reason(
    superuser_url: str, admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(superuser_url, 10) == ""
    assert "max_connections" in checked(superuser_url, 1_000)
    with psycopg.connect(admin_url, autocommit=True) as conn:
        conn.execute("create database ascii encoding 'SQL_ASCII' template template0 locale 'C'")
        try:
            said = checked(make_conninfo(admin_url, dbname="ascii"), 10)
            assert said.startswith('The database "ascii" has encoding SQL_ASCII; the ledger needs UTF8.')
        finally:
            conn.execute("drop database ascii")
    monkeypatch.setattr(server, "VERSION_MIN", 990_000)
    assert "15 or newer" in checked(superuser_url, 10)


# -- what errors mean --------------------------------------------------------------


@pytest.mark.parametrize(
    "raised", sorted({e for e in vars(errors).values() if isinstance(getattr(e, "sqlstate", None), str)}, key=str)
)
def test_only_errors_that_the_table_assigns_to_the_client_are_400(raised: type[psycopg.Error]) -> None:
    """All errors that PostgreSQL documents, outside SCIM and in SCIM."""
    error = raised("a text that may quote a value")
    ours = fault_of(error).kind is Kind.CLIENT
    assert ours == (raised.sqlstate is not None and (raised.sqlstate[:2] in {"22", "23"} or raised.sqlstate == "54000"))
    problem, scim = problem_of(error), scim_error(error)
    assert (problem.status, scim.status) == ((400, 400) if ours else (503, 503))
    assert isinstance(scim, InvalidValue if ours else Unavailable)
    assert "quote" not in problem.detail + scim.detail


def test_an_error_that_is_not_in_the_table_is_logged_with_its_code() -> None:
    with capture_logs() as logs:
        assert problem_of(errors.FeatureNotSupported("x")).code == "database_unavailable"
    assert [(entry["event"], entry["sqlstate"], entry["log_level"]) for entry in logs] == [("database_refused", "0A000", "error")]
