"""Side tables: the read models recomputed from the log beside the live ones, by the writer's own functions."""

from collections.abc import Callable, Sequence
from typing import Final, LiteralString, cast

from psycopg import AsyncConnection, AsyncRawCursor, sql
from psycopg.rows import TupleRow

from database.arrays import int4s, register_arrays, uuids
from database.queries import load_queries
from ledger.directories import Directory
from ledger.sealing import Kek
from projections import core
from replay.fold import StoredEvent, changed, recorded

SQL: Final = load_queries(__file__)
CHUNK_EVENTS: Final = 5_000
TABLES: Final = ("groups", "memberships", "states", "users")
Progress = Callable[[int, int], None]  # (events done, events in all)
Owner = AsyncConnection[TupleRow]


async def connect_owner(url: str) -> Owner:
    """Open a connection of the owner role: making and swapping tables is not a right of the serving role."""
    conn = await AsyncConnection.connect(
        url, autocommit=True, prepare_threshold=0, cursor_factory=AsyncRawCursor, options="-c timezone=UTC -c jit=off"
    )
    register_arrays(conn)
    return conn


async def run(conn: Owner, text: str, *names: str) -> None:
    """Run DDL over names of ours."""
    statement = sql.SQL(cast("LiteralString", text)).format(*(sql.Identifier(name) for name in names))
    await conn.execute(cast("LiteralString", statement.as_string(conn)))


async def make_tables(conn: Owner, *, temporary: bool) -> None:
    """Make the side tables in the first schema of the search path, with just the indexes that filling them needs."""
    kind = "temporary table" if temporary else "table"
    for table in TABLES:
        await run(conn, f"create {kind} {{}} (like ledger.{{}} including defaults including storage)", table, table)
    for table in ("users", "groups"):
        await run(conn, "alter table {} add primary key (directory, id)", table)
        await run(conn, "alter table {} set (fillfactor = 85)", table)
    open_rows = "where to_seq = 9223372036854775807"
    await run(conn, f"create unique index memberships_open on memberships (directory, grp, mem) {open_rows}")
    await run(conn, f"create unique index states_open on states (directory, obj) {open_rows}")


async def heads(conn: Owner) -> dict[int, int]:
    """The last seq of every directory."""
    return dict(await (await conn.execute(SQL["heads"])).fetchall())


class SideTables:
    """Fills the side tables; `done` says per directory up to which seq. `record` keeps that in the table progress."""

    def __init__(self, conn: Owner, kek: Kek, directories: Sequence[Directory], progress: Progress, *, record: bool) -> None:
        self.conn = conn
        self.done: dict[int, int] = {}
        self._kek = kek
        self._directories = {directory.id: directory for directory in directories}
        self._progress = progress
        self._record = record

    async def catch_up(self, until: dict[int, int]) -> int:
        """Apply everything up to these seqs, each chunk in a transaction with its progress; give the number of events."""
        total, applied = sum(until.values()), 0
        for number, head in until.items():
            while self.done.get(number, 0) < head:
                applied += await self._chunk(number, head)
                self._progress(sum(self.done.values()), total)
        return applied

    async def _chunk(self, number: int, head: int) -> int:
        first = self.done.get(number, 0)
        last = min(head, first + CHUNK_EVENTS)
        async with self.conn.transaction():
            count = await self._apply(number, first, last)
            if self._record:
                await self.conn.execute(SQL["record_progress"], (number, last))
        self.done[number] = last
        return count

    async def _apply(self, number: int, first: int, last: int) -> int:
        cursor = self.conn.cursor(binary=True)
        rows = await (await cursor.execute(SQL["events_with_keys"], (number, first, last))).fetchall()
        events = recorded(self._kek, self._directories[number], [StoredEvent(*row) for row in rows])
        touched = changed(events)
        params = (int4s([d for d, _ in touched]), uuids([i for _, i in touched]))
        existing = await (await cursor.execute(SQL["existing_created"], params)).fetchall()
        created = {(d, i): at for d, i, at in existing}
        async with self.conn.pipeline():
            for statement, values in core.statements(core.fold(events), rewrite=True, created_at=created):
                await self.conn.execute(statement, values)
        return len(rows)
