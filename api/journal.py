"""The journal of SCIM requests: kept in memory for a moment, then written in batches outside of the write transaction.

It shows the admin of an IdP which requests came, which were refused and why, and what to do. A crash loses its last second, which is
harmless because the changes themselves are in the log.

Sentences and filters may quote submitted values, so they are sealed before they are stored. A keyed hash of the sentence is stored
beside it, so that equal sentences can be counted.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
import structlog

from api.metrics import count_dropped
from database.arrays import byteas, int2s, int4s, int8s, texts, uuids
from database.connections import Pool
from database.faults import Fault, Kind, fault_of, no_fault
from database.queries import load_queries
from ledger.ids import DirectoryNumber
from ledger.sealing import REFUSAL_MARK, Kek, NoteKind, seal_note
from scim.mistakes import Mistake

SQL: Final = load_queries(__file__)
KEPT_MAX: Final = 50_000  # entries in memory while the database is away; above it the oldest are dropped
BATCH_MAX: Final = 250  # entries: sealing and encoding them blocks the event loop for a millisecond
FLUSH_INTERVAL_S: Final = 1.0
DAYS_KEPT: Final = 30
PRUNE_BATCH: Final = 10_000
PRUNE_INTERVAL_S: Final = 3_600.0
MARK_BYTES: Final = 16  # bytes of the keyed hash, enough to avoid collisions
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_log = structlog.get_logger("api.journal")


class Entry(NamedTuple):
    """One request, without its body. `detail` and `shape` may quote it and are sealed. `at`: µs since the epoch; `duration_us`: µs."""

    directory: DirectoryNumber
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
    mistake: Mistake | None = None  # in the URL or the token of the requests; then `times` counts them
    times: int = 1
    subject: UUID | None = None  # the user or group in the path

    @property
    def about(self) -> UUID | None:
        """Of an entry with a text: the user or group that it is about, so that an erasure deletes it. The path's, or the first in the text."""
        if self.detail is None and self.shape is None:
            return None
        found = _ID.search(self.detail) if self.subject is None and self.detail is not None else None
        return self.subject if found is None else UUID(found[0])


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
        self._room = room  # returns why the disk has no room, or None; entries wait then, as they do while the database is away
        self._kek = kek
        self._random = random
        self._kept_max = kept_max
        self._entries: deque[Entry] = deque()
        self._dropped = 0  # dropped entries that are not logged yet

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Add an entry, which the next flush writes."""
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
        """Write all entries. They wait while the database is away or the disk has no room."""
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
        """Write a batch. False, with the batch put back, if the database accepts nothing; a batch with a bad value is dropped."""
        try:
            async with self._pool.connection() as conn, conn.transaction():
                await conn.execute(SQL["without_standby"])
                await conn.execute(SQL["insert_requests"], self._columns(batch))
        except psycopg.Error as error:
            fault = fault_of(error)
            if fault.kind is not Kind.CLIENT:
                if fault.kind is Kind.OPERATOR:  # lost connections are logged elsewhere
                    _log.warning("journal_waits", reason=fault.reason, sqlstate=error.sqlstate)
                self._put_back(batch)
                return False
            _log.exception("journal_batch_lost", entries=len(batch))
            self._drop(len(batch))
        except asyncio.CancelledError:  # the process ends: the last flush writes the batch
            self._put_back(batch)
            raise
        return True

    def _put_back(self, batch: Sequence[Entry]) -> None:
        """Put back the newest entries of a batch, as many as there is room for beside those that came meanwhile."""
        over = max(0, len(self._entries) + len(batch) - self._kept_max)
        self._drop(over)
        self._entries.extendleft(reversed(batch[over:]))

    def _drop(self, entries: int) -> None:
        self._dropped += entries
        count_dropped(entries)

    async def prune(self) -> None:
        """Delete entries older than DAYS_KEPT, in short statements."""
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
        """A keyed hash of the sentence: equal for sentences of one directory that differ in ids only."""
        if entry.detail is None:
            return None
        said = f"{entry.directory} {_ID.sub('id', entry.detail)}".encode("utf-8", "surrogatepass")
        return self._kek.mac(REFUSAL_MARK, said)[:MARK_BYTES]

    def _columns(self, batch: Sequence[Entry]) -> tuple[Any, ...]:
        return (
            int4s([e.directory for e in batch]), int8s([e.at for e in batch]), texts([e.method for e in batch]),
            texts([e.route for e in batch]), byteas([self._sealed(e.shape, "filter", e) for e in batch]),
            int2s([e.status for e in batch]), texts([e.scim_type for e in batch]),
            byteas([self._sealed(e.detail, "refusal", e) for e in batch]), byteas([self._mark(e) for e in batch]),
            texts([e.profile for e in batch]), texts([",".join(e.tolerances) for e in batch]), int4s([e.events for e in batch]),
            int4s([min(e.duration_us, 2**31 - 1) for e in batch]), uuids([e.request_id for e in batch]),
            uuids([e.token for e in batch]), texts([e.mistake for e in batch]), int4s([min(e.times, 2**31 - 1) for e in batch]),
            uuids([e.about for e in batch]),
        )  # fmt: skip
