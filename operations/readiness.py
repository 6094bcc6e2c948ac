"""Whether the service can do its work, and what stands in the way."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ledger.obstacles import obstacles
from operations.open_ledger import OpenLedger

_log = structlog.get_logger("operations")
Broken = tuple[str, str]  # the part, and why in words that name nobody: whoever asks is a stranger
DATABASE_SILENT: Final[Broken] = "database", "the database does not answer"


async def broken_part(ledger: OpenLedger, migrated: Callable[[], Awaitable[bool]], *, writing: bool) -> Broken | None:
    """The part that keeps the service from its work, or None. Raises what the database raises while it is away."""
    async with ledger.connection() as conn:
        in_the_way = await obstacles(conn)
    if not await migrated():
        return "migrations", "the schema of the database is not that of this release: run `scim-ledger migrate`"
    for obstacle in in_the_way:
        _log.error("lock_in_the_way", **obstacle.described())
    if in_the_way:
        return "writer", "another session of the database holds a lock of the write path; the log of the service says which"
    return None if writing else ("writer", "the writer of this process has ended")
