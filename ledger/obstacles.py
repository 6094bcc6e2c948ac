"""Find foreign sessions that hold locks of the write path. Any login that may connect to the database can take an advisory lock.

The service's writers hold a lock as long as their transaction lasts. Another session that holds the ledger's lock blocks every
write; one that holds a directory's lock blocks the writes of that directory.
"""

from dataclasses import dataclass
from typing import Final

from database.connections import APPLICATION_NAME, Connection
from database.queries import load_queries
from ledger.ids import DirectoryNumber

SQL: Final = load_queries(__file__)
# the largest commit takes less, so a writer that holds a lock for longer is frozen or has lost its connection
HELD_MAX_S: Final = 60


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A session that holds a lock. Only for the log that operators read, never for a client. `directory` is None for the ledger's lock."""

    pid: int
    user: str
    application: str
    directory: DirectoryNumber | None

    def blocks(self, directory: DirectoryNumber) -> bool:
        return self.directory is None or self.directory == directory

    def described(self) -> dict[str, object]:
        return {"pid": self.pid, "user": self.user, "application": self.application, "directory": self.directory}


async def obstacles(conn: Connection) -> list[Obstacle]:
    """The sessions that block writes now."""
    cursor = await conn.cursor(binary=True).execute(SQL["locks_in_the_way"], (APPLICATION_NAME, HELD_MAX_S))
    return [Obstacle(*row) for row in await cursor.fetchall()]
