"""Sessions of ours whose process stands still, or whose host vanished, while they hold locks: another process ends them.

A stopped process keeps its sockets alive, and the kernel of a proxy acknowledges for a host that is gone: neither keepalives nor
the server can tell. Whoever is ended so and wakes up later finds its connection gone: its transaction was rolled back.
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
    """A session that has waited for its process since `since`, while it holds an advisory lock of ours."""

    pid: int
    since: datetime
    client: str | None


async def frozen(conn: Connection) -> set[Session]:
    """Those that have waited for longer than FROZEN within a transaction, or than FROZEN_ROLE with the lock of a role."""
    async with conn.transaction():
        await conn.execute("set local role none")  # a session is seen, and ended, by the role that logged in as it did
        params = (APPLICATION_NAME, FROZEN.seconds, FROZEN_ROLE.seconds, [role.number for role in ROLES])
        rows = await (await conn.execute(SQL["frozen_sessions"], params)).fetchall()
    return {Session(*row) for row in rows}


async def end(conn: Connection, session: Session) -> bool:
    """End it, unless it went on meanwhile. False where there was nothing to end any more."""
    async with conn.transaction():
        await conn.execute("set local role none")
        row = await (await conn.execute(SQL["end_session"], (session.pid, session.since))).fetchone()
    return row is not None and bool(row[0])


async def watch(connection: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
    """Until cancelled, end what two looks after each other found waiting since the same moment.

    One look could meet a session between two statements, the first of which took long.
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
