"""Rebuilding the read models beside the live ones, while writes go on; interruptible and resumable at every chunk.

1. Each directory's log is applied in chunks to side tables in the schema `rebuild`, each chunk with its progress.
2. The indexes are made, then live and rebuilt tables are compared by digest at one point of the log, without locks.
3. The live tables are locked, the short tail is applied beside them, and they change places with the side tables. If the tail has
   grown long, or somebody is in the way, everything is let go and it catches up again.

Who is in the way of 3 is waited for without a lock, or all writes would queue behind us; the locks are waited for a moment only.
Every write reads `directory_states` before any other of these tables, so whoever locks that one first deadlocks with no writer.
A dump takes its snapshot first and locks tables by name later. So the tail is committed before we look whether anybody has
an older snapshot: a younger one finds the same rows in either table, and the old ones stay, aside, until no dump can name them.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, LiteralString, cast

import psycopg

from database.connections import connect_owner
from database.holders import GIVES_UP, Holder, holders, strangers_with_snapshots, waits_for
from database.queries import load_queries
from ledger.sealing import Kek
from replay.shadow_tables import TABLES, Owner, Progress, SideTables, heads, make_tables, run

SQL: Final = load_queries(__file__)
TAIL_MAX: Final = 500  # events applied while writers wait (target: under 200 ms)
ROUNDS_MAX: Final = 50
LOOK_S: Final = 0.5  # who holds a table in two looks stays
_SIDE: Final = "rebuild"
_REPLACED: Final = "replaced"  # the schema of what was live
Tell = Callable[[str], None]
_HELD: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)


class RebuildRefusedError(Exception):
    """The rebuild cannot run; the text says why."""


class _TailTooLongError(Exception):
    """More was written than may be applied while writers wait."""


class _InTheWayError(Exception):
    """Sessions would read the tables as of before the change."""

    def __init__(self, by: set[Holder]) -> None:
        super().__init__()
        self.by = by


@dataclass(frozen=True, slots=True)
class Result:
    """What a rebuild found and did."""

    events: int
    resumed_at: int  # events already applied by an interrupted run
    drifted: tuple[str, ...]  # tables whose live content differed from the log
    locked_ms: float


async def rebuild(
    url: str, kek: Kek, progress: Progress, waits: Tell, *, only: Sequence[str] = TABLES, executor: Executor | None = None
) -> Result:
    """Rebuild the read models (`only` some of TABLES). Interrupted, the next call goes on after the last whole chunk.

    `url` logs in as the owner. `waits` hears, every second or so, for which sessions it waits: whoever reads the tables may
    finish, however long that takes. `executor` computes: see stretches.compute. Raises RebuildRefusedError when another rebuild is running.
    """
    async with await connect_owner(url) as conn, await connect_owner(url) as swapper:
        row = await (await conn.execute(SQL["try_rebuilding"])).fetchone()
        if not row or not row[0]:
            raise RebuildRefusedError("Another rebuild is running on this database. Wait for it, or end its process.")
        side = SideTables(conn, url, kek, progress, executor, record=True)
        resumed = await _prepare(side, waits)
        await side.catch_up(await heads(conn))
        await _index(conn)
        drifted = await _differing_tables(side, only)
        locked_ms = await _swap(side, swapper, only, waits)
        for schema in (_SIDE, _REPLACED):
            await _dropped(conn, schema)  # or else by the next run
        return Result(sum(side.done.values()), resumed, drifted, locked_ms)


async def _prepare(side: SideTables, waits: Tell) -> int:
    conn = side.conn
    await _drop(conn, _REPLACED, waits)
    await conn.execute("create schema if not exists rebuild")
    await conn.execute("set search_path to rebuild, ledger")
    await conn.execute(SQL["make_progress"])
    rows = await (await conn.execute(SQL["tables_in_rebuild"])).fetchall()
    if {row[0] for row in rows} != set(TABLES):
        await _drop(conn, _SIDE, waits)
        async with conn.transaction():
            await conn.execute("create schema rebuild")
            await conn.execute(SQL["make_progress"])
            await make_tables(conn, temporary=False)
    side.done = dict(await (await conn.execute(SQL["progress"])).fetchall())
    current = await heads(conn)
    if any(done > current.get(number, 0) for number, done in side.done.items()):
        await _drop(conn, _SIDE, waits)
        return await _prepare(side, waits)  # the log ends before an old run's progress: it was restored since
    return sum(side.done.values())


async def _drop(conn: Owner, schema: str, waits: Tell) -> None:
    while stay := await _dropped(conn, schema):
        waits(waits_for(stay))
        await asyncio.sleep(LOOK_S)


async def _dropped(conn: Owner, schema: str) -> set[Holder]:
    """Drop a schema of ours, unless somebody reads it or may be about to: a dump lists tables before it locks them. Give who does."""
    tables = [row[0] for row in await (await conn.execute(SQL["tables_in"], (schema,))).fetchall()]
    if stay := await strangers_with_snapshots(conn) | await holders(conn, tables):
        return stay
    try:
        async with conn.transaction():
            await conn.execute(GIVES_UP)
            await run(conn, "drop schema if exists {} cascade", schema)
            if stay := await strangers_with_snapshots(conn):
                raise _InTheWayError(stay)
    except _InTheWayError as late:
        return late.by
    except _HELD:
        return await holders(conn, tables)
    return set()


async def _index(conn: Owner) -> None:
    """Give the side tables the indexes of the live ones that the bulk did without."""
    rows = await (await conn.execute(SQL["live_indexes"], (list(TABLES),))).fetchall()
    have = {row[0] for row in await (await conn.execute(SQL["rebuilt_indexes"])).fetchall()}
    for table, name, definition in rows:
        if name not in have:
            moved = definition.replace(f" ON ledger.{table} ", f" ON rebuild.{table} ")
            await conn.execute(cast("LiteralString", moved))
    for table in TABLES:
        await run(conn, "analyze rebuild.{}", table)


async def _differing_tables(side: SideTables, only: Sequence[str]) -> tuple[str, ...]:
    """One snapshot gives the heads and the digests of the live tables; the rebuilt ones are then brought to just those heads."""
    conn = side.conn
    await side.catch_up(await heads(conn))
    async with conn.transaction():
        await conn.execute("set transaction isolation level repeatable read")
        point = await heads(conn)
        live = [await _digest(conn, "ledger", table) for table in only]
    await side.catch_up(point)
    rebuilt = [await _digest(conn, "rebuild", table) for table in only]
    return tuple(table for table, a, b in zip(only, live, rebuilt, strict=True) if a != b)


async def _digest(conn: Owner, schema: str, table: str) -> tuple[int, str]:
    """An order-independent digest: the number of rows and the sum of a 64-bit hash of each row's text."""
    text = f"select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from {schema}.{table} t"  # noqa: S608  # TABLES
    row = await (await conn.execute(cast("LiteralString", text))).fetchone()
    assert row is not None
    return row[0], row[1]


async def _swap(side: SideTables, swapper: Owner, only: Sequence[str], waits: Tell) -> float:
    """Give how many ms writers were kept waiting."""
    rounds = 0
    while rounds < ROUNDS_MAX:
        await side.catch_up(await heads(side.conn))
        stay = await _who_stays(side.conn)
        if not stay:
            try:
                return await _swap_now(side, swapper, only)
            except _TailTooLongError:
                rounds += 1
            except _InTheWayError as late:
                stay = late.by
            except _HELD:
                stay = await _who_stays(side.conn)
        if stay:
            waits(waits_for(stay))
            await asyncio.sleep(LOOK_S)
    raise RebuildRefusedError(
        "Writes came faster than the rebuild could follow. Run it again in a quieter hour; it goes on here."
    )


async def _who_stays(conn: Owner) -> set[Holder]:
    """Who holds the tables in two looks, in the same transaction: a request of the service is over by then."""
    tables = [f"{schema}.{table}" for schema in ("ledger", _SIDE) for table in TABLES]
    before = await holders(conn, tables)
    if before:
        await asyncio.sleep(LOOK_S)
        before &= await holders(conn, tables)
    return before


async def _swap_now(side: SideTables, swapper: Owner, only: Sequence[str]) -> float:
    """Raises _TailTooLongError, _InTheWayError, or one of _HELD: then nothing was changed, and what was applied stays applied."""
    async with swapper.transaction():
        await swapper.execute(GIVES_UP)
        started = await _clock(swapper)
        live = ", ".join(f"ledger.{table}" for table in TABLES)  # directory_states first
        await swapper.execute(f"lock table {live} in access exclusive mode")
        point = await heads(swapper)
        if sum(point.values()) - sum(side.done.values()) > TAIL_MAX:
            raise _TailTooLongError
        await side.catch_up(point)
        if strangers := await strangers_with_snapshots(swapper):
            raise _InTheWayError(strangers)
        await _put_in_place(swapper, only)
        return round(await _clock(swapper) - started, 1)


async def _clock(conn: Owner) -> float:
    row = await (await conn.execute(SQL["server_clock"])).fetchone()
    assert row is not None
    return row[0]


async def _put_in_place(conn: Owner, only: Sequence[str]) -> None:
    await run(conn, "create schema {}", _REPLACED)
    for table in only:
        await run(conn, "alter table ledger.{} set schema {}", table, _REPLACED)
        await run(conn, "alter table rebuild.{} set schema ledger", table)
        await run(conn, "grant select, insert, update, delete on ledger.{} to ledger_app", table)
