"""The journal of SCIM requests: kept in memory for a moment, written in batches, off the write transaction.

It answers the person who runs an IdP: what came, what was refused, why, and what to do. Losing the last second of it in a crash
loses no fact: the facts are in the log.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from database.arrays import int2s, int4s, int8s, texts, uuids
from database.connections import Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
KEPT_MAX: Final = 50_000  # entries in memory while the database is away; the oldest go first
BATCH_MAX: Final = 2_000
FLUSH_INTERVAL_S: Final = 1.0
DAYS_KEPT: Final = 30
PRUNE_INTERVAL_S: Final = 3_600.0
_log = structlog.get_logger("api.journal")


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, without bodies and values. `at` is µs since the epoch, `duration_us` µs."""

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

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._entries: deque[Entry] = deque(maxlen=KEPT_MAX)

    def add(self, entry: Entry) -> None:
        """Keep an entry until the next flush."""
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
                await self._prune()

    async def flush(self) -> None:
        """Write what is there. While the database is away the entries wait."""
        while self._entries:
            batch = [self._entries.popleft() for _ in range(min(BATCH_MAX, len(self._entries)))]
            try:
                async with self._pool.connection() as conn:
                    await conn.execute(SQL["insert_requests"], _columns(batch))
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout):
                self._entries.extendleft(reversed(batch))
                return
            except psycopg.Error:
                _log.exception("journal_batch_lost", entries=len(batch))

    async def _prune(self) -> None:
        try:
            async with self._pool.connection() as conn:
                while (await conn.execute(SQL["prune_requests"], (DAYS_KEPT,))).rowcount > 0:
                    pass
        except (psycopg.Error, PoolTimeout):
            _log.warning("journal_not_pruned")


def _columns(batch: Sequence[Entry]) -> tuple[Any, ...]:
    return (
        int4s([e.directory for e in batch]), int8s([e.at for e in batch]), texts([e.method for e in batch]), texts([e.route for e in batch]),
        texts([e.shape for e in batch]), int2s([e.status for e in batch]), texts([e.scim_type for e in batch]), texts([e.detail for e in batch]),
        texts([e.profile for e in batch]), texts([",".join(e.tolerances) for e in batch]), int4s([e.events for e in batch]),
        int4s([min(e.duration_us, 2**31 - 1) for e in batch]), uuids([e.request_id for e in batch]), uuids([e.token for e in batch]),
    )  # fmt: skip
