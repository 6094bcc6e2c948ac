"""The journal of SCIM requests: kept in memory for a moment, written in batches, off the write transaction.

It answers the person who runs an IdP: what came, what was refused, why, and what to do. Losing the last second of it in a crash
loses no fact: the facts are in the log.

Sentences and filters quote what was submitted, so they are sealed for their request before they are stored; a keyed mark of the
sentence lets equal ones be counted.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog

from api.metrics import count_dropped
from database.arrays import byteas, int2s, int4s, int8s, texts, uuids
from database.connections import Pool
from database.faults import Fault, Kind, fault_of, no_fault
from database.queries import load_queries
from ledger.sealing import Kek, NoteKind, seal_note

SQL: Final = load_queries(__file__)
KEPT_MAX: Final = 50_000  # entries in memory while the database is away; the oldest go first
BATCH_MAX: Final = 250  # sealing and encoding it holds the event loop up for a millisecond
FLUSH_INTERVAL_S: Final = 1.0
DAYS_KEPT: Final = 30
PRUNE_BATCH: Final = 10_000
PRUNE_INTERVAL_S: Final = 3_600.0
MARK_BYTES: Final = 16  # of a keyed hash: enough that no two sentences meet
_REASON: Final = b"scim-ledger/journal-reason/v1\0"
_log = structlog.get_logger("api.journal")


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, without its body. `detail` and `shape` may quote it, and are sealed. `at` is µs since the epoch, `duration_us` µs."""

    directory: int
    at: int
    method: str
    route: str
    shape: str | None
    status: int
    scim_type: str | None
    detail: str | None
    profile: str
    tolerances: tuple[str, ...]
    events: int
    duration_us: int
    request_id: UUID
    token: UUID | None


class Journal:
    """Collects entries; run() writes them."""

    def __init__(
        self,
        pool: Pool,
        kek: Kek,
        random: Callable[[int], bytes],
        room: Callable[[], Fault | None] = no_fault,
        kept_max: int = KEPT_MAX,
    ) -> None:
        self._pool = pool
        self._room = room  # why nothing may be written, or None: entries wait then as they do while the database is away
        self._kek = kek
        self._random = random
        self._kept_max = kept_max
        self._entries: deque[Entry] = deque()
        self._dropped = 0  # not told in the log yet

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Keep an entry until the next flush."""
        if len(self._entries) >= self._kept_max:
            self._entries.popleft()
            self._drop(1)
        self._entries.append(entry)

    async def run(self) -> None:
        """Flush every second, prune every hour, until cancelled."""
        loop = asyncio.get_running_loop()
        prune_at = loop.time()
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()
            if loop.time() >= prune_at:
                prune_at = loop.time() + PRUNE_INTERVAL_S
                await self.prune()

    async def flush(self) -> None:
        """Write what is there. While the database is away, or its disk has no room, the entries wait."""
        try:
            while (
                self._entries
                and self._room() is None
                and await self._write([self._entries.popleft() for _ in range(min(BATCH_MAX, len(self._entries)))])
            ):
                pass
        finally:
            if self._dropped:
                _log.warning("journal_entries_dropped", entries=self._dropped)
                self._dropped = 0

    async def _write(self, batch: Sequence[Entry]) -> bool:
        """Write a batch, or put it back, unless the fault is its own: False while the database takes nothing."""
        try:
            async with self._pool.connection() as conn, conn.transaction():
                await conn.execute(SQL["without_standby"])
                await conn.execute(SQL["insert_requests"], self._columns(batch))
        except psycopg.Error as error:
            fault = fault_of(error)
            if fault.kind is not Kind.CLIENT:
                if fault.kind is Kind.OPERATOR:  # of lost connections others tell
                    _log.warning("journal_waits", reason=fault.reason, sqlstate=error.sqlstate)
                self._put_back(batch)
                return False
            _log.exception("journal_batch_lost", entries=len(batch))
            self._drop(len(batch))
        except asyncio.CancelledError:  # the process ends: the last flush takes it
            self._put_back(batch)
            raise
        return True

    def _put_back(self, batch: Sequence[Entry]) -> None:
        """Return the newest there is room for: others came meanwhile."""
        over = max(0, len(self._entries) + len(batch) - self._kept_max)
        self._drop(over)
        self._entries.extendleft(reversed(batch[over:]))

    def _drop(self, entries: int) -> None:
        self._dropped += entries
        count_dropped(entries)

    async def prune(self) -> None:
        """Delete what is older than DAYS_KEPT, in short statements."""
        try:
            async with self._pool.connection() as conn:
                while (await conn.execute(SQL["prune_requests"], (DAYS_KEPT, PRUNE_BATCH))).rowcount == PRUNE_BATCH:
                    pass
        except psycopg.Error:
            _log.warning("journal_not_pruned")

    def _sealed(self, text: str | None, kind: NoteKind, entry: Entry) -> bytes | None:
        if text is None:
            return None
        return seal_note(self._kek, text, kind=kind, owner=entry.request_id, random=self._random)

    def _mark(self, entry: Entry) -> bytes | None:
        """The same for equal sentences of one directory."""
        if entry.detail is None:
            return None
        said = f"{entry.directory} {entry.detail}".encode("utf-8", "surrogatepass")
        return self._kek.mac(_REASON, said)[:MARK_BYTES]

    def _columns(self, batch: Sequence[Entry]) -> tuple[Any, ...]:
        return (
            int4s([e.directory for e in batch]), int8s([e.at for e in batch]), texts([e.method for e in batch]),
            texts([e.route for e in batch]), byteas([self._sealed(e.shape, "filter", e) for e in batch]),
            int2s([e.status for e in batch]), texts([e.scim_type for e in batch]),
            byteas([self._sealed(e.detail, "refusal", e) for e in batch]), byteas([self._mark(e) for e in batch]),
            texts([e.profile for e in batch]), texts([",".join(e.tolerances) for e in batch]), int4s([e.events for e in batch]),
            int4s([min(e.duration_us, 2**31 - 1) for e in batch]), uuids([e.request_id for e in batch]),
            uuids([e.token for e in batch]),
        )  # fmt: skip
