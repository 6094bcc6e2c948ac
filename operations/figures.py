"""Figures about consumers and directories for /metrics, read from the database, because any process may serve them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from database.connections import Connection
from database.queries import load_queries
from delivery.consumers import Consumer, consumers
from delivery.forks import everywhere, open_fork
from delivery.status import lag_of, revocations_acked_after, state_shown
from delivery.surge_control import lately, limits
from delivery.surge_policy import Limit
from ledger.directories import SYSTEM, Directory
from ledger.feed import Selection
from ledger.tokens import Token, TokenRow, database_clock, find_all
from operations.open_ledger import OpenLedger
from operations.permissions import allowed
from replay.redeliver import runs_of

SQL: Final = load_queries(__file__)
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
class DirectoryFigures:
    """Revocations of a directory in the last hour, and whether that is more than its limit; seconds since the last request of its IdP."""

    directory: str
    lately: int
    surging: bool
    silent_s: float | None  # None: no request is on record


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """Seconds until a valid token expires; the soonest of those with one role and one name."""

    role: str
    name: str
    left_s: float


def sees_names(token: Token) -> bool:
    """Whether the token may see figures with names of directories and consumers. A narrowed token may not."""
    return allowed(token.role, "metrics.named") and "*" in token.directories and token.types == token.consumers == ("*",)


async def head_of(ledger: OpenLedger) -> int:
    """The last readable position."""
    async with ledger.connection() as conn:
        return await ledger.feed.head(conn, Selection())


async def figures(ledger: OpenLedger) -> tuple[list[ConsumerFigures], list[DirectoryFigures], list[TokenFigures]]:
    """The figures of every consumer, of every directory and of every valid token."""
    async with ledger.connection() as conn:
        directories = await ledger.directories.all(conn)
        of_consumers = [await _of_consumer(ledger, conn, consumer, directories) for consumer in await consumers(conn)]
        per_hour = await limits(conn)
        counts = await lately(conn, per_hour)
        silent: dict[int, float] = dict(await (await conn.execute(SQL["silent_seconds"])).fetchall())
        of_tokens = _of_tokens(await find_all(conn), await database_clock(conn))
    of_directories = [
        DirectoryFigures(
            d.slug, counts.get(d.id, 0), counts.get(d.id, 0) > per_hour.get(d.id, Limit()).per_hour, silent.get(d.id)
        )
        for d in directories
        if d.slug != SYSTEM
    ]
    return of_consumers, of_directories, of_tokens


def _of_tokens(rows: Iterable[TokenRow], now: datetime) -> list[TokenFigures]:
    soonest: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.state(now) in {"active", "overlapping"}:
            key, left = (row.role, row.name), (row.expires_at - now).total_seconds()
            soonest[key] = min(left, soonest.get(key, left))
    return [TokenFigures(role, name, left) for (role, name), left in soonest.items()]


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
