"""Find the sessions that hold tables.

A statement that changes a table waits for every reader (a dump may take hours), and all other statements queue behind it. So a change
first asks who holds the table, waits only for a moment, gives up, and logs for whom it waits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString, cast

from psycopg import AsyncConnection, Connection, RawCursor
from psycopg.rows import TupleRow

from database.connections import APPLICATION_NAME
from database.deadlines import FROZEN, SCHEMA_LOCK
from database.queries import load_queries

SQL: Final = load_queries(__file__)
# Timeouts for the transaction of a change, because other statements wait behind it. The time for one lock is below PostgreSQL's
# deadlock_timeout: in a deadlock the change gives up, and the other session gets no error. The last one ends the session if its
# process is stopped.
GIVES_UP: Final = cast(
    "LiteralString",
    f"select set_config('lock_timeout', '{SCHEMA_LOCK.ms // 2}', true), set_config('statement_timeout', '{SCHEMA_LOCK.ms}', true), "
    f"set_config('idle_in_transaction_session_timeout', '{FROZEN.ms}', true)",
)


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds tables, as operators see it, and its transaction."""

    pid: int
    user: str
    application: str
    transaction: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} ({', '.join(filter(None, (self.user, self.application)))})"


def waits_for(found: Iterable[Holder]) -> str:
    """A sentence that names the sessions waited for, and how to end them."""
    who = sorted(found, key=lambda holder: holder.pid)
    more = f" and {len(who) - 3} more" if len(who) > 3 else ""
    return f"waiting for {', '.join(map(str, who[:3]))}{more}; `select pg_terminate_backend(PID)` ends a session"


async def holders(conn: AsyncConnection[TupleRow], tables: Sequence[str]) -> set[Holder]:
    """Sessions that hold one of these tables (schema.table) now."""
    rows = await (await conn.execute(SQL["table_holders"], (list(tables),))).fetchall()
    return {Holder(*row) for row in rows}


def holders_at_once(conn: Connection[TupleRow], tables: Sequence[str]) -> list[Holder]:
    """The same for a migration, which has no event loop."""
    return [Holder(*row) for row in RawCursor(conn).execute(SQL["table_holders"], (list(tables),)).fetchall()]


async def strangers_with_snapshots(conn: AsyncConnection[TupleRow]) -> set[Holder]:
    """Foreign sessions whose snapshot is older: they would find a table that is swapped now empty."""
    rows = await (await conn.execute(SQL["strangers_with_snapshots"], (APPLICATION_NAME,))).fetchall()
    return {Holder(*row) for row in rows}
