"""What follows the commit of an erasure, until its receipt is complete: recipients, mentions, vacuuming, a new WAL segment.

One process at a time does it, for all erasures that are not complete: a thousand erasures cost one look through the directory and one
VACUUM. What a killed process did not finish, the next one does.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import psycopg
import structlog

from database.arrays import texts, uuids
from database.connections import LOST, Connection
from database.queries import load_queries
from ledger.directories import Directory
from ledger.horizon import NOT_SWITCHED, NOT_VACUUMED
from ledger.ids import DirectoryNumber
from ledger.receipts import ErasureRow, incomplete
from ledger.writer import Link
from operations.mentions import mentions_of
from operations.open_ledger import OpenLedger
from operations.recipients import recipients_of
from scim.errors import Unavailable

SQL: Final = load_queries(__file__)
AT_ONCE: Final = 1_000  # erasures of one round
LOOK_S: Final = 10.0  # without a sign, an unfinished erasure of another process is looked for so often
REST_S: Final = 1.0  # so long without an erasure, and a round begins: those that come one after the other share it
LATEST_S: Final = 60.0  # it begins at the latest after so many seconds of erasures
# What an erasure deletes from; vacuuming frees the space of the deleted rows.
VACUUMED: Final = ("bodies", "subject_keys", "users", "groups", "memberships", "states", "requests", "open_deliveries", "holds")
Connect = Callable[[], Awaitable[Connection]]
_REFUSED: Final = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
_log = structlog.get_logger("operations.aftercare")


@dataclass(frozen=True, slots=True)
class Swept:
    """What the server did and refused."""

    vacuumed: bool
    switched: bool

    @property
    def refused(self) -> str | None:
        words = [word for word, done in ((NOT_VACUUMED, self.vacuumed), (NOT_SWITCHED, self.switched)) if not done]
        return ",".join(words) or None


@dataclass(slots=True)
class Aftercare:
    """Completes receipts while run() runs. `connect`: as the serving role. `as_owner`: None if this process may not vacuum."""

    ledger: OpenLedger
    connect: Connect
    as_owner: Connect | None
    wake: asyncio.Event
    note: Callable[[OpenLedger], Awaitable[None]]  # notes erasures where a restore of the database does not reach

    async def run(self) -> None:
        """Complete what is not complete, at the start and after each erasure, until cancelled."""
        link = Link(self.connect)
        try:
            while True:
                self.wake.clear()
                more = await self._tried(link)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REST_S if more else LOOK_S):
                        await self.wake.wait()
                await self._quiet()
        finally:
            await link.close()

    async def _quiet(self) -> None:
        """Wait until no erasure has come for a while: a round looks through whole directories, beside the requests of everybody."""
        until = time.monotonic() + LATEST_S
        while time.monotonic() < until:
            self.wake.clear()
            try:
                async with asyncio.timeout(REST_S):
                    await self.wake.wait()
            except TimeoutError:
                return

    async def _tried(self, link: Link) -> bool:
        """One round. Whether there may be more to do at once."""
        try:
            await self.note(self.ledger)
            async with self.ledger.connection() as conn:
                waiting = await incomplete(conn, 1)
            return bool(waiting) and await self._round(await link.get())
        except (*LOST, Unavailable):
            await link.close()
        except Exception:  # a defect must not end it: all receipts would stay incomplete
            _log.exception("aftercare_failed")
            await link.close()
        return False

    async def _round(self, conn: Connection) -> bool:
        row = await (await conn.execute(SQL["try_aftercare"])).fetchone()
        if not row or not row[0]:
            return False
        try:
            rows = await incomplete(conn, AT_ONCE)
            await self.complete(rows)
            return len(rows) == AT_ONCE
        finally:
            with contextlib.suppress(psycopg.Error):
                await conn.execute(SQL["end_aftercare"])

    async def complete(self, rows: Sequence[ErasureRow]) -> None:
        """Complete the receipts of erasures."""
        by_directory = dict[DirectoryNumber, list[ErasureRow]]()
        for row in rows:
            by_directory.setdefault(row.directory, []).append(row)
        for number, some in by_directory.items():
            async with self.ledger.connection() as conn:
                directory = await self.ledger.directories.by_id(conn, number)
            await self._look_up(directory, [row for row in some if row.mentions is None])
        swept = await self.sweep()
        async with self.ledger.connection() as conn:
            params = uuids([row.id for row in rows]), swept.vacuumed, swept.switched, swept.refused
            await conn.execute(SQL["complete"], params)
        _log.info("erasures_completed", erasures=len(rows), refused=swept.refused)

    async def _look_up(self, directory: Directory, rows: Sequence[ErasureRow]) -> None:
        if not rows:
            return
        recipients = await recipients_of(self.ledger, [(directory, row.obj) for row in rows])
        mentions = await mentions_of(self.ledger, directory, {row.obj for row in rows}, gently=True)
        found = (
            uuids([row.id for row in rows]),
            texts([orjson.dumps(recipients[row.obj]).decode() for row in rows]),
            texts([orjson.dumps(mentions[row.obj]).decode() for row in rows]),
        )
        async with self.ledger.connection() as conn:
            await conn.execute(SQL["looked_up"], found)

    async def sweep(self) -> Swept:
        """Free the space of deleted rows, and close the WAL segment that has them, where the server allows it."""
        if self.as_owner is None:
            return Swept(vacuumed=False, switched=False)
        async with await self.as_owner() as conn:
            vacuumed = await _vacuumed(conn)
            try:
                await conn.execute(SQL["switch_wal"])
            except _REFUSED:
                return Swept(vacuumed, switched=False)
            return Swept(vacuumed, switched=True)


async def _vacuumed(conn: Connection) -> bool:
    """Vacuum what an erasure deletes from. Without truncating a table, which would need it exclusively."""
    warned: list[str] = []
    conn.add_notice_handler(lambda notice: warned.append(notice.severity_nonlocalized or ""))
    try:
        for table in VACUUMED:
            await conn.execute(f"vacuum (truncate false) ledger.{table}".encode())
    except _REFUSED:
        return False
    return "WARNING" not in warned  # PostgreSQL skips a table of another owner with a warning
