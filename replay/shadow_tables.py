"""Shadow tables: the read models recomputed from the log beside the live tables, with the functions that the writer uses."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Final, LiteralString, cast

from psycopg import sql

from database.connections import Connection
from database.queries import load_queries
from ledger.directories import Directories
from ledger.ids import DirectoryNumber, Seq
from ledger.sealing import Kek
from replay.stored_events import Finding, Origin, UnreadableEventError
from replay.stretches import PROCESSES_MAX, Computed, Task, compute

SQL: Final = load_queries(__file__)
CHUNK_EVENTS: Final = 5_000
AHEAD: Final = PROCESSES_MAX + 1  # stretches in memory: being computed, or waiting to be applied
TABLES: Final = ("directory_states", "groups", "memberships", "states", "users")
Progress = Callable[[int, int], None]  # called with (events done, events in all)
Owner = Connection


async def run(conn: Owner, text: str, *names: str) -> None:
    """Run DDL; the names come from the code, never from input."""
    statement = sql.SQL(cast("LiteralString", text)).format(*(sql.Identifier(name) for name in names))
    await conn.execute(cast("LiteralString", statement.as_string(conn)))


async def make_tables(conn: Owner, *, temporary: bool) -> None:
    """Create the shadow tables in the first schema of the search path, with only the indexes that filling them needs."""
    kind = "temporary table" if temporary else "table"
    for table in TABLES:
        await run(conn, f"create {kind} {{}} (like ledger.{{}} including defaults including storage)", table, table)
    for table in ("users", "groups"):
        await run(conn, "alter table {} add primary key (directory, id)", table)
    if not temporary:  # they become the live tables, so they need the same fillfactor and autovacuum settings
        for table, options in await (await conn.execute(SQL["table_settings"], (list(TABLES),))).fetchall():
            await run(conn, f"alter table {{}} set ({', '.join(options)})", table)
    await run(conn, "alter table directory_states add primary key (directory)")
    open_rows = "where to_seq = 9223372036854775807"
    await run(conn, f"create unique index memberships_open on memberships (directory, grp, mem) {open_rows}")
    await run(conn, f"create unique index states_open on states (directory, obj) {open_rows}")


async def heads(conn: Owner) -> dict[DirectoryNumber, Seq]:
    """The last seq of every directory."""
    return dict(await (await conn.execute(SQL["heads"])).fetchall())


class ShadowTables:
    """Fills the shadow tables. `done`: the last applied seq of each directory. `record`: store it in the table progress.

    While the server applies one stretch, `executor` (None: a thread) reads and computes the next ones. With `verifies`, findings are
    collected and nothing is applied after the first one. Without it, an event that cannot be opened raises UnreadableEventError.
    """

    def __init__(
        self,
        conn: Owner,
        url: str,
        kek: Kek,
        progress: Progress,
        executor: Executor | None,
        *,
        record: bool,
        verifies: bool = False,
    ) -> None:
        self.conn = conn
        self.done: dict[DirectoryNumber, Seq] = {}
        self.findings: list[Finding] = []  # findings in the log itself
        self.unreadable: list[Finding] = []
        self.erased = 0  # events whose body an erasure deleted
        self._url, self._kek = url, kek
        self._origins: dict[DirectoryNumber, Origin] = {}
        self._directories = Directories(kek)  # read together with their events, because new ones can be created meanwhile
        self._progress, self._executor = progress, executor
        self._record, self._verifies = record, verifies

    async def catch_up(self, until: dict[DirectoryNumber, Seq]) -> int:
        """Apply all events up to these seqs, each stretch in one transaction with its progress. Returns the number of events."""
        total, applied = sum(until.values()), 0
        for number in until:  # here, because the readers of stretches would wait for directory_states during the swap
            self._origins[number] = Origin.of(await self._directories.by_id(self.conn, number))
        tasks = self._tasks(until)
        ahead = deque(self._begin(task) for task in islice(tasks, AHEAD))
        try:
            while ahead:
                computed = await ahead.popleft()
                ahead.extend(self._begin(task) for task in islice(tasks, 1))
                await self._take(computed)
                applied += computed.events
                self._progress(sum(self.done.values()), total)
        finally:
            for upcoming in ahead:
                upcoming.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        return applied

    def _begin(self, task: Task) -> "asyncio.Future[Computed]":
        return asyncio.get_running_loop().run_in_executor(self._executor, compute, task)

    def _tasks(self, until: dict[DirectoryNumber, Seq]) -> Iterator[Task]:
        """The stretches to come."""
        for number, head in until.items():
            origin = self._origins[number]
            for first in range(self.done.get(number, 0), head, CHUNK_EVENTS):
                yield Task(self._url, self._kek, origin, Seq(first), Seq(min(head, first + CHUNK_EVENTS)), self._verifies)

    async def _take(self, computed: Computed) -> None:
        """Apply a computed stretch. Raises UnreadableEventError, unless findings are collected."""
        self.findings += computed.findings
        self.unreadable += computed.unreadable
        self.erased += computed.erased
        if computed.unreadable and not self._verifies:
            raise UnreadableEventError(computed.unreadable[0])
        if not self.findings:
            await self._apply(computed)
        self.done[computed.directory] = computed.to

    async def _apply(self, computed: Computed) -> None:
        async with self.conn.transaction(), self.conn.pipeline():
            for statement, values in computed.statements:
                await self.conn.execute(statement, values)
            if self._record:
                await self.conn.execute(SQL["record_progress"], (computed.directory, computed.to))
