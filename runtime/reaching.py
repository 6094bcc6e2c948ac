"""Reach the database at start: wait for it, name it if it does not answer, and check it before anything is written."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from database.connections import LOST, Connection, connect, connect_owner, lends_transactions
from database.deadlines import CONNECT, START
from database.hosts import ConnectedHost, connected_host, found_first
from database.server import Concern, ServerRefusedError, check_server, condition
from runtime.bootstrap import Urls
from runtime.exits import UNREACHABLE, CommandError
from runtime.settings import Settings

PAUSE_S: Final = 0.25  # between two attempts


# By words of the server's message (lc_messages may be another language): what it refuses. The message itself would name user and database.
_FATAL: Final = {
    "password authentication failed": "it refuses the login (role or password is wrong)",
    "role ": "it refuses the login (it has no such role, or the role may not log in)",
    "pg_hba.conf": "its pg_hba.conf lets no such login in from here",
    "database ": "it has no database of that name",
    "connection": "it has no free connection (max_connections)",
    "starting up": "it is starting up",
}
_READ_ONLY: Final = "it is read-only (a standby, or default_transaction_read_only is on)"
_LENT: Final = (
    "The database is reached through a pooler in transaction mode (pgbouncer: pool_mode = transaction). Locks, "
    "notifications and migrations need a session: set LEDGER_DIRECT_URL, and LEDGER_MIGRATE_URL where you use it, to addresses past the "
    "pooler, or set pool_mode = session. LEDGER_DATABASE_URL may stay as it is."
)


def connections_of(settings: Settings) -> int:
    """The most sessions that the processes of this service open."""
    from runtime.deliver import DELIVERY_CONNECTIONS  # imported late, because a command that only reports an error needs neither
    from runtime.wiring import SERVING_CONNECTIONS

    return settings.workers * SERVING_CONNECTIONS + settings.delivery_workers * DELIVERY_CONNECTIONS


def reach(urls: Urls, settings: Settings, given_up: Callable[[], bool]) -> tuple[Urls, Sequence[Concern]]:
    """Wait for the server, then check it as the owner. Returns the URLs, with the reached host first, and concerns for operators.

    `given_up`: whether a signal to stop came. Raises CommandError (UNREACHABLE), which names host and port, and ServerRefusedError.
    """
    return asyncio.run(_reach(urls, settings, given_up))


def reach_as_served(urls: Urls, settings: Settings, given_up: Callable[[], bool]) -> None:
    """Wait for the URLs of the serving role, after that role was created. Raises ServerRefusedError where they lead to another database."""
    for url in dict.fromkeys((urls.serve, urls.pooled or urls.serve)):
        asyncio.run(_reach_as_served(url, settings, given_up, pooled=url == urls.pooled))
    asyncio.run(refuse_two_databases(urls))


async def _reach(urls: Urls, settings: Settings, given_up: Callable[[], bool]) -> tuple[Urls, Sequence[Concern]]:
    setting = (
        "LEDGER_MIGRATE_URL" if settings.migrate_url else "LEDGER_DIRECT_URL" if settings.direct_url else "LEDGER_DATABASE_URL"
    )
    conn = await _connected(urls.migrate, settings.database_wait_s, given_up, setting=setting, to_write=True)
    try:
        urls = _with_first(urls, connected_host(conn.info))
        await _refuse_lent(urls.migrate)
        await refuse_two_databases(urls)
        return urls, await check_server(conn, connections_of(settings))
    finally:
        await conn.close()


def _with_first(urls: Urls, place: ConnectedHost) -> Urls:
    """The URLs with this host first, so that no connection tries a silent host before it. The others stay, for a failover."""
    pooled = found_first(urls.pooled, place) if urls.pooled else None
    return replace(urls, serve=found_first(urls.serve, place), migrate=found_first(urls.migrate, place), pooled=pooled)


async def _reach_as_served(url: str, settings: Settings, given_up: Callable[[], bool], *, pooled: bool) -> None:
    await (await _connected(url, settings.database_wait_s, given_up)).close()
    if not pooled:
        await _refuse_lent(url)


async def refuse_two_databases(urls: Urls) -> None:
    """Raises ServerRefusedError if the two URLs lead to two databases: the schema would be made in one, and looked for in the other.

    A database that cannot be reached is left to whoever uses it next. The serving role may not exist before the first migration.
    """
    if urls.serve == urls.migrate:
        return
    with suppress(psycopg.OperationalError, TimeoutError):
        if await _identity(urls.serve) == await _identity(urls.migrate):
            return
        raise ServerRefusedError(
            f"LEDGER_MIGRATE_URL leads to another database ({places_of(urls.migrate)}) than the one that is served "
            f"({places_of(urls.serve)}). Set both to the same database; only the role differs."
        )


async def _identity(url: str) -> tuple[int, str]:
    """What tells a database from all others: the system identifier of its cluster, and its name."""
    async with asyncio.timeout(START.seconds), await connect_owner(url) as conn:
        row = await (
            await conn.execute("select (select system_identifier from pg_control_system()), current_database()")
        ).fetchone()
    assert row is not None
    return row


async def _refuse_lent(url: str) -> None:
    if await lends_transactions(url):
        raise ServerRefusedError(_LENT)


async def _connected(
    url: str, wait_s: float, given_up: Callable[[], bool], *, setting: str = "LEDGER_DATABASE_URL", to_write: bool = False
) -> Connection:
    until = time.monotonic() + wait_s
    while True:
        try:
            async with asyncio.timeout(START.seconds):
                return await _writable(await connect_owner(url)) if to_write else await connect_owner(url)
        except (psycopg.OperationalError, TimeoutError) as away:
            if time.monotonic() >= until or given_up():
                raise unreachable(url, away, setting) from away
        await asyncio.sleep(PAUSE_S)


async def _writable(conn: Connection) -> Connection:
    """Raises psycopg.OperationalError if the server is read-only: a start must write, so it waits for that too."""
    if (await condition(conn)).read_only:
        await conn.close()
        raise psycopg.OperationalError(_READ_ONLY)
    return conn


@contextmanager
def standby_named(url: str) -> Generator[None]:
    """Explain a failed write of a start: if it waited for a synchronous standby in vain, say so.

    Raises CommandError (UNREACHABLE) then, else the original error. `url`: of the serving role.
    """
    try:
        yield
    except psycopg.OperationalError as away:
        if not asyncio.run(_standby_silent(url)):
            raise
        text = (
            f"The database at {places_of(url)} waits for a synchronous standby that does not answer (standby_silent), and this start writes "
            "what must not get lost. Start again once one answers, or change synchronous_standby_names."
        )
        raise CommandError(text, UNREACHABLE) from away


async def _standby_silent(url: str) -> bool:
    try:
        async with asyncio.timeout(CONNECT.seconds), await connect(url) as conn:
            return (await condition(conn)).standby_silent
    except (*LOST, TimeoutError):
        return False


def unreachable(url: str, away: Exception, setting: str = "LEDGER_DATABASE_URL") -> CommandError:
    """The error that names the host that does not answer, and how; never user or password. `setting`: where the URL comes from."""
    how = _how(away)
    return CommandError(
        f"The database at {places_of(url)} cannot be {'written to' if how == _READ_ONLY else 'reached'}: {how}. Is it running, and is {setting} right? "
        "LEDGER_DATABASE_WAIT_S waits for one that starts beside the service.",
        UNREACHABLE,
    )


def places_of(url: str) -> str:
    """Host and port of each server that the connection string names."""
    parts = conninfo_to_dict(url)
    hosts = str(parts.get("host") or parts.get("hostaddr") or "localhost").split(",")
    ports = str(parts.get("port") or 5432).split(",")
    return ", ".join(f"{host}:{ports[min(n, len(ports) - 1)]}" for n, host in enumerate(hosts))


def _how(away: Exception) -> str:
    """How the server failed: in own words, or in the server's. libpq's text would name the user."""
    text = str(away)
    if text == _READ_ONLY:
        return _READ_ONLY
    if "FATAL" in text:
        return next((says for word, says in _FATAL.items() if word in text), "it refuses the connection (its log says why)")
    return "connection refused" if "refused" in text else "no answer"
