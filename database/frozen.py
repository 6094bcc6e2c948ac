"""End sessions of the service that hold locks while their process is stopped or their host has vanished.

A stopped process keeps its sockets open, and a proxy's kernel acknowledges packets for a vanished host, so neither keepalives nor the
server notice it. If the process wakes up later, its connection is closed and its transaction was rolled back.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg
import structlog

from database.connections import APPLICATION_NAME, Connection
from database.deadlines import FROZEN, FROZEN_ROLE, PROBE
from database.locks import ROLES
from database.queries import load_queries

SQL: Final = load_queries(__file__)
_log = structlog.get_logger("database")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that holds an advisory lock of the ledger and has waited for its process since `since`."""

    pid: int
    since: datetime
    client: str | None


async def frozen(conn: Connection) -> set[Session]:
    """Sessions that have waited longer than FROZEN within a transaction, or than FROZEN_ROLE with the lock of a role."""
    async with conn.transaction():
        await conn.execute("set local role none")  # only the login role of a session may see its state and end it
        params = (APPLICATION_NAME, FROZEN.seconds, FROZEN_ROLE.seconds, [role.number for role in ROLES])
        rows = await (await conn.execute(SQL["frozen_sessions"], params)).fetchall()
    return {Session(*row) for row in rows}


async def end(conn: Connection, session: Session) -> bool:
    """End a session, unless it has gone on. Returns whether it was ended."""
    async with conn.transaction():
        await conn.execute("set local role none")
        row = await (await conn.execute(SQL["end_session"], (session.pid, session.since))).fetchone()
    return row is not None and bool(row[0])


async def watch(connection: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
    """Until cancelled: end sessions that two checks in a row found waiting since the same time.

    A single check could meet a healthy session between two statements, of which the first took long.
    """
    seen = set[Session]()
    while True:
        await asyncio.sleep(PROBE.seconds)
        try:
            async with connection() as conn:
                found = await frozen(conn)
                for session in found & seen:
                    if await end(conn, session):
                        _log.error(
                            "frozen_session_ended", pid=session.pid, client=session.client, since=session.since.isoformat()
                        )
                seen = found
        except psycopg.Error:
            continue
