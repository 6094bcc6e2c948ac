"""Whether the service can work, and if not, which part is broken."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from database.connections import Connection, discard
from database.faults import NO_ANSWER, Fault
from database.releases import SchemaRelation
from database.server import Concern, condition
from ledger.clocks import apart
from ledger.obstacles import Obstacle, obstacles
from ledger.tokens import database_clock
from operations.open_ledger import OpenLedger

_log = structlog.get_logger("operations")


class Broken(NamedTuple):
    """The broken part, a reason as a word for programs, and a sentence. Strangers can read it, so it names nobody."""

    part: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Own:
    """What readiness asks its own process: whether the writer runs, its last fault, and whether the disk has room."""

    writing: Callable[[], bool]
    trouble: Callable[[], Fault | None]
    room: Callable[[], Fault | None]  # a fault if the disk has no room


DATABASE_SILENT: Final = Broken("database", NO_ANSWER.reason, "the database does not answer")
_READ_ONLY: Final = Broken("database", "read_only", "the database is read-only; reads go on, writes are answered 503")
_STANDBY_SILENT: Final = Broken(
    "database",
    "standby_silent",
    "no synchronous standby answers (synchronous_standby_names): writes wait for one, and are answered 503",
)
_SCHEMA: Final = {
    SchemaRelation.OLDER: Broken(
        "migrations", "other_schema", "the schema of the database is not that of this release: run `scim-ledger migrate`"
    ),
    SchemaRelation.FOREIGN: Broken(
        "migrations",
        "other_schema",
        "the schema of the database is one that this release cannot go on beside: run the newer release",
    ),
}
_CLOCKS_DISAGREE: Final = Broken(
    "clock", "clocks_disagree", "the clocks of the service and of its database are more than 60 seconds apart (clocks_disagree)"
)
_LOCK_HELD: Final = Broken(
    "writer", "lock_held", "another session of the database holds a lock of the write path; the log of the service says which"
)
_WRITER_ENDED: Final = Broken("writer", "ended", "the writer of this process has ended")


class Readiness:
    """Finds the broken part of the service."""

    def __init__(self, ledger: OpenLedger, schema: Callable[[], Awaitable[SchemaRelation]], own: Own) -> None:
        self._ledger, self._schema, self._own = ledger, schema, own
        self._told = set[int]()  # sessions that were logged already: polling the probe must not fill the log
        self.schema = SchemaRelation.SAME  # at the last check
        self.concerns: Sequence[Concern] = ()  # of the last check: nothing is broken, but an operator should know

    async def broken_part(self) -> Broken | None:
        """The broken part, or None. Raises psycopg errors while the database is away."""
        if (full := self._own.room()) is not None:  # first, because a server with a full disk may not answer
            return Broken("disk", full.reason, full.says)
        async with self._ledger.connection() as conn:
            server = await condition(conn)
            if server.read_only:
                discard(conn)  # a session keeps its settings: the next check must open a new one
                return _READ_ONLY
            if server.standby_silent:
                return _STANDBY_SILENT
            self.concerns = server.concerns
            in_the_way, clocks_apart = await obstacles(conn), await self._clocks_apart(conn)
        self.schema = await self._schema()
        if self.schema in _SCHEMA:
            return _SCHEMA[self.schema]
        if clocks_apart:
            return _CLOCKS_DISAGREE
        self._tell(in_the_way)
        if in_the_way:
            return _LOCK_HELD
        return self._broken_here()

    def _broken_here(self) -> Broken | None:
        if not self._own.writing():
            return _WRITER_ENDED
        trouble = self._own.trouble()
        return Broken("database", trouble.reason, trouble.says) if trouble is not None else None

    async def _clocks_apart(self, conn: Connection) -> bool:
        began, database = self._ledger.clock(), await database_clock(conn)
        return apart(began, round(database.timestamp() * 1e6), self._ledger.clock())

    def _tell(self, in_the_way: Sequence[Obstacle]) -> None:
        for obstacle in in_the_way:
            if obstacle.pid not in self._told:
                _log.error("lock_in_the_way", **obstacle.described())
        self._told = {obstacle.pid for obstacle in in_the_way}
