"""Who holds tables.

A change of a table waits for everybody who reads it (a dump, for hours), and everybody else queues behind the change: so whoever
changes one asks first, waits for a moment only, lets go, and says for whom it waits.
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
# Said in the transaction of a change: how long it may wait, and so keep others waiting. For one lock half of it, which is less than
# PostgreSQL's deadlock_timeout: whoever deadlocks with us gets our lock, and no error. A process of ours that is stopped meanwhile loses it.
GIVES_UP: Final = cast(
    "LiteralString",
    f"select set_config('lock_timeout', '{SCHEMA_LOCK.ms // 2}', true), set_config('statement_timeout', '{SCHEMA_LOCK.ms}', true), "
    f"set_config('idle_in_transaction_session_timeout', '{FROZEN.ms}', true)",
)


@dataclass(frozen=True, slots=True)
class Holder:
    """A session, for operators: who it is, and its transaction while it holds something."""

    pid: int
    user: str
    application: str
    transaction: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} ({', '.join(filter(None, (self.user, self.application)))})"


def waits_for(found: Iterable[Holder]) -> str:
    """For whom something waits, and what ends that."""
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
    """Sessions, none of ours, that would not see the rows of a table that is exchanged now."""
    rows = await (await conn.execute(SQL["strangers_with_snapshots"], (APPLICATION_NAME,))).fetchall()
    return {Holder(*row) for row in rows}
