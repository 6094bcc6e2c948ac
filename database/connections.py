"""Connections of the serving role."""

import time
from typing import Any, Final
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, AsyncRawCursor, InterfaceError, OperationalError
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from database.arrays import register_arrays

APPLICATION_NAME = "scim-ledger"  # so that an operator knows our sessions in pg_stat_activity

# A generic plan made while a table is empty is a sequential scan until the next analyse; these options leave the planner
# only index plans, which are the right ones for every block of the hot path at every size.
PINNED_PLANS = (
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off "
    "-c enable_bitmapscan=off -c enable_material=off -c jit=off"
)
# Reads that are not on the hot path: the same, but a GIN index (e-mail addresses) needs a bitmap scan.
INDEXED_PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
# Serving always happens as ledger_app, whoever logs in: append-only is a grant to that role.
SERVING = "-c search_path=ledger -c role=ledger_app -c jit=off -c synchronous_commit=on -c timezone=UTC"

Connection = AsyncConnection[TupleRow]
LOST: Final = (OperationalError, InterfaceError)  # what a statement raises whose connection, or server, is gone
AWAY: Final = (*LOST, PoolTimeout)  # the same where connections come from a pool


async def connect(url: str, *, pinned: bool = False, lock_timeout_ms: int = 0) -> Connection:
    """Open an autocommit connection that speaks binary, knows encoded arrays and prepares each statement at first use.

    `lock_timeout_ms`: how long a statement waits for a lock before it is refused; 0 for ever. Raises psycopg.OperationalError when the server is not there.
    """
    options = f"{SERVING} {PINNED_PLANS}" if pinned else SERVING
    options += f" -c lock_timeout={lock_timeout_ms}"
    conn = await AsyncConnection.connect(
        url,
        autocommit=True,
        options=options,
        prepare_threshold=0,
        application_name=APPLICATION_NAME,
        cursor_factory=AsyncRawCursor,
    )
    conn.prepared_max = 300
    register_arrays(conn)
    return conn


async def _prepare(conn: Connection) -> None:
    conn.prepared_max = 300
    register_arrays(conn)


_checked: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
CHECK_INTERVAL_S = 1.0


async def _check_idle(conn: Connection) -> None:
    """Check a pooled connection before it is used, but not more than once a second: each check is a round trip."""
    now = time.monotonic()
    if now - _checked.get(conn, 0.0) > CHECK_INTERVAL_S:
        await AsyncConnectionPool.check_connection(conn)
        _checked[conn] = now


def open_pool(url: str, *, size: int) -> AsyncConnectionPool[Connection]:
    """Make a pool of serving connections (not yet opened)."""
    kwargs: dict[str, Any] = {
        "autocommit": True,
        "options": f"{SERVING} {INDEXED_PLANS}",
        "prepare_threshold": 0,
        "application_name": APPLICATION_NAME,
        "cursor_factory": AsyncRawCursor,
    }
    return AsyncConnectionPool(
        url,
        kwargs=kwargs,
        configure=_prepare,
        min_size=1,
        max_size=size,
        open=False,
        timeout=5,
        check=_check_idle,
    )
