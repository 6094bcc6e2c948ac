"""What a scrape of /metrics reads, for whom: nobody makes the database work more often than every few seconds."""

import contextlib
from collections.abc import Callable
from typing import Final

from psycopg_pool import AsyncConnectionPool

from api.metrics import REVOCATION_SECONDS, ConsumerFigures, exposition, named_exposition, show_consumers, show_surges
from api.problems import DATABASE_AWAY
from api.recent import Recent
from database.connections import Connection
from delivery.brake import Limit
from delivery.consumers import SQL, consumers
from delivery.progress import BLOCKED, STATES
from delivery.replays import runs_of
from delivery.status import lag_of
from delivery.surges import lately, limits
from ledger.directories import SYSTEM, Directories
from ledger.feed import Feed, Selection
from ledger.tokens import Token

RECENT_S: Final = 3.0  # Prometheus asks every 15 s or less often
ROWS: Final = 10_000  # of acknowledgements read at once
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ROLES: Final = frozenset({"operator", "admin"})


def sees_names(token: Token) -> bool:
    """Whether figures may name directories and consumers to its holder: all of them, so a narrowed token sees none."""
    return token.role in _ROLES and "*" in token.directories and token.types == token.consumers == ("*",)


class Scrapes:
    """The text of /metrics. `queued`: commands waiting for the writer."""

    def __init__(
        self, pool: AsyncConnectionPool[Connection], feed: Feed, directories: Directories, queued: Callable[[], int]
    ) -> None:
        self._pool, self._feed, self._directories, self._queued = pool, feed, directories, queued
        self.nameless = Recent(self._nameless, RECENT_S)
        self.whole = Recent(self._whole, RECENT_S)

    async def _nameless(self) -> bytes:
        head = -1  # scrapes go on while the database is away
        with contextlib.suppress(*DATABASE_AWAY):
            async with self._pool.connection() as conn:
                head = await self._feed.head(conn, Selection())
        return exposition(self._queued(), head)

    async def _whole(self) -> bytes:
        nameless = await self.nameless.get()
        with contextlib.suppress(*DATABASE_AWAY):  # the figures are then those of before
            async with self._pool.connection() as conn:
                await _gather(conn, self._feed, self._directories)
        return nameless + named_exposition()


async def _gather(conn: Connection, feed: Feed, known: Directories) -> None:
    """What stands in the database: consumers may be served by other processes, so no process counts them by itself."""
    directories = await known.all(conn)
    figures: list[ConsumerFigures] = []
    for consumer in await consumers(conn):
        lag = await lag_of(conn, feed, consumer, directories)
        runs = await runs_of(conn, consumer.id, open_only=True)
        state = "blocked" if lag.by_state.get(STATES[BLOCKED]) and consumer.state == "active" else consumer.state
        left = sum(run.total - run.done for run in runs)
        figures.append(ConsumerFigures(consumer.name, state, lag.events, lag.seconds, lag.by_state, left))
    show_consumers(figures)
    per_hour, counts = await limits(conn), await lately(conn)
    show_surges(
        (d.slug, counts.get(d.id, 0), counts.get(d.id, 0) > per_hour.get(d.id, Limit()).per_hour)
        for d in directories
        if d.slug != SYSTEM
    )
    while rows := await _acked_since(conn, REVOCATION_SECONDS.seen):
        REVOCATION_SECONDS.count(rows)


async def _acked_since(conn: Connection, seen: int) -> list[tuple[int, str, float]]:
    return await (await conn.cursor(binary=True).execute(SQL["revocations_acked_after"], (seen, ROWS))).fetchall()
