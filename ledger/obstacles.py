"""Sessions that hold the locks of the write path and are none of its writers: whoever may connect can take an advisory lock.

A writer of ours holds a lock for as long as its transaction lasts. Anything else that holds one stands in the way of every
write (the ledger's lock) or of one directory's.
"""

from dataclasses import dataclass
from typing import Final

from database.connections import APPLICATION_NAME, Connection
from database.queries import load_queries

SQL: Final = load_queries(__file__)
HELD_MAX_S: Final = 60  # the largest commit takes less; a writer that holds a lock for longer is frozen or cut off


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Who holds a lock: for the logs of operators, never for a client. `directory` is None for the ledger's lock."""

    pid: int
    user: str
    application: str
    directory: int | None

    def blocks(self, directory: int) -> bool:
        return self.directory is None or self.directory == directory

    def described(self) -> dict[str, object]:
        return {"pid": self.pid, "user": self.user, "application": self.application, "directory": self.directory}


async def obstacles(conn: Connection) -> list[Obstacle]:
    """What stands in the way of writes right now."""
    cursor = await conn.cursor(binary=True).execute(SQL["locks_in_the_way"], (APPLICATION_NAME, HELD_MAX_S))
    return [Obstacle(*row) for row in await cursor.fetchall()]
