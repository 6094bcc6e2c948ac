"""Side tables: the read models recomputed from the log beside the live ones, by the writer's own functions."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, LiteralString, cast
from uuid import UUID

import anyio.to_thread
from psycopg import sql

from database.arrays import int4s, uuids
from database.connections import Connection, connect_owner
from database.queries import load_queries
from ledger.directories import Directories
from ledger.sealing import Kek
from projections import current_state
from replay.stored_events import StoredEvent, UnreadableEventError, changed, recorded

SQL: Final = load_queries(__file__)
CHUNK_EVENTS: Final = 5_000
TABLES: Final = ("directory_states", "groups", "memberships", "states", "users")
Progress = Callable[[int, int], None]  # (events done, events in all)
Owner = Connection


@asynccontextmanager
async def owner_pair(url: str) -> AsyncGenerator[tuple[Owner, Owner]]:
    """The two connections of a rebuild or a verification: one that writes the side tables, one that reads the log ahead."""
    async with await connect_owner(url) as conn, await connect_owner(url) as reader:
        yield conn, reader


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
    if not temporary:  # they will be live: with the room on their pages and the vacuum that live ones have
        for table, options in await (await conn.execute(SQL["table_settings"], (list(TABLES),))).fetchall():
            await run(conn, f"alter table {{}} set ({', '.join(options)})", table)
    await run(conn, "alter table directory_states add primary key (directory)")
    open_rows = "where to_seq = 9223372036854775807"
    await run(conn, f"create unique index memberships_open on memberships (directory, grp, mem) {open_rows}")
    await run(conn, f"create unique index states_open on states (directory, obj) {open_rows}")


async def heads(conn: Owner) -> dict[int, int]:
    """The last seq of every directory."""
    return dict(await (await conn.execute(SQL["heads"])).fetchall())


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A stretch of one directory's log, read and folded."""

    directory: int
    last: int
    events: int
    delta: current_state.Delta
    touched: list[tuple[int, UUID]]


class SideTables:
    """Fills the side tables; `done` says per directory up to which seq. `record` keeps that in the table progress.

    `reader` is a second connection: while the server applies one chunk, the next is read and folded. The log never changes, so
    it does not matter that the two have different snapshots.
    """

    def __init__(self, conn: Owner, reader: Owner, kek: Kek, progress: Progress, *, record: bool) -> None:
        self.conn = conn
        self.done: dict[int, int] = {}
        self.unreadable: list[UnreadableEventError] | None = None  # a list gathers them; otherwise the first is raised
        self._reader = reader
        self._kek = kek
        self._directories = Directories(kek)  # read when their events are: more are made meanwhile
        self._progress = progress
        self._record = record

    async def catch_up(self, until: dict[int, int]) -> int:
        """Apply everything up to these seqs, each chunk in a transaction with its progress; give the number of events."""
        total, applied = sum(until.values()), 0
        for number in until:  # here and not by the reader: it would wait for directory_states while that is being swapped
            await self._directories.by_id(self.conn, number)
        places = self._places(until)
        upcoming = await self._read(places)
        while upcoming is not None:
            chunk, reading = upcoming, asyncio.ensure_future(self._read(places))
            try:
                await self._apply(chunk)
                applied += chunk.events
                self._progress(sum(self.done.values()), total)
                upcoming = await reading
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)  # leaves the reading connection idle
        return applied

    def _places(self, until: dict[int, int]) -> Iterator[tuple[int, int, int]]:
        """(directory, after seq, to seq) of the chunks to come."""
        for number, head in until.items():
            for first in range(self.done.get(number, 0), head, CHUNK_EVENTS):
                yield number, first, min(head, first + CHUNK_EVENTS)

    async def _read(self, places: Iterator[tuple[int, int, int]]) -> _Chunk | None:
        place = next(places, None)
        if place is None:
            return None
        number, _, last = place
        directory = await self._directories.by_id(self.conn, number)
        rows = await (await self._reader.cursor(binary=True).execute(SQL["events_with_keys"], place)).fetchall()

        def prepare() -> _Chunk:
            stored = [StoredEvent(*row) for row in rows]
            events = recorded(self._kek, directory, stored, self.unreadable)
            return _Chunk(number, last, len(rows), current_state.fold(events), changed(events))

        return await anyio.to_thread.run_sync(prepare)

    async def _apply(self, chunk: _Chunk) -> None:
        async with self.conn.transaction():
            params = (int4s([d for d, _ in chunk.touched]), uuids([i for _, i in chunk.touched]))
            existing = await (await self.conn.cursor(binary=True).execute(SQL["existing_created"], params)).fetchall()
            created = {(d, i): at for d, i, at in existing}
            async with self.conn.pipeline():
                for statement, values in current_state.statements(chunk.delta, rewrite=True, created_at=created):
                    await self.conn.execute(statement, values)
                if self._record:
                    await self.conn.execute(SQL["record_progress"], (chunk.directory, chunk.last))
        self.done[chunk.directory] = chunk.last
