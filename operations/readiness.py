"""Whether the service can do its work, and what stands in the way."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from database.connections import Connection
from ledger.clocks import apart
from ledger.obstacles import Obstacle, obstacles
from ledger.tokens import database_clock
from operations.open_ledger import OpenLedger

_log = structlog.get_logger("operations")
Broken = tuple[str, str]  # the part, and why in words that name nobody: whoever asks is a stranger
DATABASE_SILENT: Final[Broken] = "database", "the database does not answer"


class Readiness:
    """Finds the part that keeps the service from its work. `writing`: whether the writer of this process runs."""

    def __init__(self, ledger: OpenLedger, migrated: Callable[[], Awaitable[bool]], writing: Callable[[], bool]) -> None:
        self._ledger, self._migrated, self._writing = ledger, migrated, writing
        self._told = set[int]()  # sessions that were named in the log: whoever polls the probe must not fill it

    async def broken_part(self) -> Broken | None:
        """The part, or None. Raises what the database raises while it is away."""
        async with self._ledger.connection() as conn:
            in_the_way, clocks_apart = await obstacles(conn), await self._clocks_apart(conn)
        if not await self._migrated():
            return "migrations", "the schema of the database is not that of this release: run `scim-ledger migrate`"
        if clocks_apart:
            return "clock", "the clocks of the service and of its database are more than 60 seconds apart (clocks_disagree)"
        self._tell(in_the_way)
        if in_the_way:
            return "writer", "another session of the database holds a lock of the write path; the log of the service says which"
        return None if self._writing() else ("writer", "the writer of this process has ended")

    async def _clocks_apart(self, conn: Connection) -> bool:
        began, database = self._ledger.clock(), await database_clock(conn)
        return apart(began, round(database.timestamp() * 1e6), self._ledger.clock())

    def _tell(self, in_the_way: Sequence[Obstacle]) -> None:
        for obstacle in in_the_way:
            if obstacle.pid not in self._told:
                _log.error("lock_in_the_way", **obstacle.described())
        self._told = {obstacle.pid for obstacle in in_the_way}
