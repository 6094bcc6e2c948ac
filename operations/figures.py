"""Figures about consumers and directories for /metrics, read from the database, because any process may serve them."""

from dataclasses import dataclass
from typing import Final

from database.connections import Connection
from delivery.consumers import Consumer, consumers
from delivery.forks import everywhere, open_fork
from delivery.status import lag_of, revocations_acked_after, state_shown
from delivery.surge_control import lately, limits
from delivery.surge_policy import Limit
from ledger.directories import SYSTEM, Directory
from ledger.feed import Selection
from ledger.tokens import Token
from operations.open_ledger import OpenLedger
from operations.permissions import allowed
from replay.redeliver import runs_of

ROWS: Final = 10_000  # acknowledgements that one query reads


@dataclass(frozen=True, slots=True)
class ConsumerFigures:
    """The figures of a consumer. `exceptions`: their number by state."""

    name: str
    state: str
    lag_events: int
    lag_seconds: float
    exceptions: dict[str, int]
    replay_remaining: int
    forked: bool


@dataclass(frozen=True, slots=True)
class SurgeFigures:
    """Revocations of a directory in the last hour, and whether that is more than its limit."""

    directory: str
    lately: int
    surging: bool


def sees_names(token: Token) -> bool:
    """Whether the token may see figures with names of directories and consumers. A narrowed token may not."""
    return allowed(token.role, "metrics.named") and "*" in token.directories and token.types == token.consumers == ("*",)


async def head_of(ledger: OpenLedger) -> int:
    """The last readable position."""
    async with ledger.connection() as conn:
        return await ledger.feed.head(conn, Selection())


async def figures(ledger: OpenLedger) -> tuple[list[ConsumerFigures], list[SurgeFigures]]:
    """The figures of every consumer and of every directory."""
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        of_consumers = [await _of_consumer(ledger, conn, consumer, directories) for consumer in await consumers(conn)]
        per_hour = await limits(conn)
        counts = await lately(conn, per_hour)
    of_directories = [
        SurgeFigures(d.slug, counts.get(d.id, 0), counts.get(d.id, 0) > per_hour.get(d.id, Limit()).per_hour)
        for d in directories
        if d.slug != SYSTEM
    ]
    return of_consumers, of_directories


async def _of_consumer(ledger: OpenLedger, conn: Connection, consumer: Consumer, directories: list[Directory]) -> ConsumerFigures:
    lag = await lag_of(conn, ledger.feed, consumer, directories)
    runs = await runs_of(conn, ledger.kek, consumer.id, open_only=True)
    left = sum(run.total - run.done for run in runs)
    forked = await open_fork(conn, consumer.id, everywhere) is not None
    return ConsumerFigures(consumer.name, state_shown(consumer, lag), lag.events, lag.seconds, lag.by_state, left, forked)


async def revocations_acknowledged(ledger: OpenLedger, seen: int) -> list[tuple[int, str, float]]:
    """Rows (id, consumer, seconds) after id `seen`, at most ROWS of them."""
    async with ledger.connection() as conn:
        return await revocations_acked_after(conn, seen, ROWS)
