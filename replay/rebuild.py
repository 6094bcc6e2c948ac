"""Rebuild the read models beside the live ones while writes go on. It can be interrupted, and resumes after the last chunk.

1. Each directory's log is applied in chunks to shadow tables in the schema `rebuild`. Each chunk is committed with its progress.
2. The indexes are made. Then live and rebuilt tables are compared by digest at one point of the log, without locks.
3. The live tables are locked, the short tail of the log is applied, and live and shadow tables are swapped. If the tail has grown
   long, or a session holds a table, the locks are released and step 3 starts again.

While a session blocks step 3, no lock is held: otherwise all writes would queue behind the rebuild. Every write reads
`directory_states` before the other tables, so locking that table first cannot deadlock with a writer. A dump takes its snapshot first
and locks tables by name later. So the tail is committed before the check for older snapshots: a younger snapshot finds the same rows
in both tables. The replaced tables are kept until no dump can name them.
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
from replay.shadow_tables import TABLES, Owner, Progress, ShadowTables, heads, make_tables, run

SQL: Final = load_queries(__file__)
TAIL_MAX: Final = 500  # events that may be applied while writers wait (under 200 ms)
ROUNDS_MAX: Final = 50
LOOK_S: Final = 0.5  # between two checks: a session that holds a table in both is waited for
_SIDE: Final = "rebuild"
_REPLACED: Final = "replaced"  # the schema of the replaced tables
Tell = Callable[[str], None]
_HELD: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)


class RebuildRefusedError(Exception):
    """The rebuild cannot run; the text says why."""


class _TailTooLongError(Exception):
    """The tail is longer than TAIL_MAX."""


class _OtherIndexesError(Exception):
    """A migration changed the indexes of the live tables since the shadow tables got theirs."""


class _InTheWayError(Exception):
    """Sessions have snapshots from before the swap."""

    def __init__(self, by: set[Holder]) -> None:
        super().__init__()
        self.by = by


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a rebuild."""

    events: int
    resumed_at: int  # events that an interrupted run had applied
    drifted: tuple[str, ...]  # tables whose live content differed from the log
    locked_ms: float


async def rebuild(
    url: str, kek: Kek, progress: Progress, waits: Tell, *, only: Sequence[str] = TABLES, executor: Executor | None = None
) -> Result:
    """Rebuild the read models (`only` some of TABLES). After an interruption the next call resumes after the last chunk.

    `url` logs in as the owner. `waits` is called about once a second with the sessions that are waited for; readers may take as long
    as they need. `executor` runs stretches.compute. Raises RebuildRefusedError if another rebuild is running.
    """
    async with await connect_owner(url) as conn, await connect_owner(url) as swapper:
        row = await (await conn.execute(SQL["try_rebuilding"])).fetchone()
        if not row or not row[0]:
            raise RebuildRefusedError("Another rebuild is running on this database. Wait for it, or end its process.")
        shadow = ShadowTables(conn, url, kek, progress, executor, record=True)
        resumed = await _prepare(shadow, waits)
        await shadow.catch_up(await heads(conn))
        await _index(conn)
        drifted = await _differing_tables(shadow, only)
        locked_ms = await _swap(shadow, swapper, only, waits)
        for schema in (_SIDE, _REPLACED):
            await _dropped(conn, schema)  # if a reader prevents it, the next run drops it
        return Result(sum(shadow.done.values()), resumed, drifted, locked_ms)


async def _prepare(shadow: ShadowTables, waits: Tell) -> int:
    conn = shadow.conn
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
    shadow.done = dict(await (await conn.execute(SQL["progress"])).fetchall())
    current = await heads(conn)
    if any(done > current.get(number, 0) for number, done in shadow.done.items()):
        await _drop(conn, _SIDE, waits)
        return await _prepare(shadow, waits)  # the log ends before the old run's progress: it was restored in between
    return sum(shadow.done.values())


async def _drop(conn: Owner, schema: str, waits: Tell) -> None:
    while stay := await _dropped(conn, schema):
        waits(waits_for(stay))
        await asyncio.sleep(LOOK_S)


async def _dropped(conn: Owner, schema: str) -> set[Holder]:
    """Drop a schema of the rebuild, unless a session reads it or may soon: a dump lists tables before it locks them. Returns these."""
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
    """Give the shadow tables the indexes of the live ones: those that the bulk load did not need, and those of a migration meanwhile."""
    live, have = await _indexes(conn, "ledger"), await _indexes(conn, _SIDE)
    for name in have.keys() - live.keys():
        await run(conn, "drop index rebuild.{}", name)
    for name in live.keys() - have.keys():
        table, definition = live[name]
        moved = definition.replace(f" ON ledger.{table} ", f" ON rebuild.{table} ")
        await conn.execute(cast("LiteralString", moved))
    for table in TABLES:
        await run(conn, "analyze rebuild.{}", table)


async def _indexes(conn: Owner, schema: str) -> dict[str, tuple[str, str]]:
    """The indexes of the tables in a schema: by name, the table and the definition."""
    rows = await (await conn.execute(SQL["indexes_of"], (schema, list(TABLES)))).fetchall()
    return {name: (table, definition) for table, name, definition in rows}


async def _differing_tables(shadow: ShadowTables, only: Sequence[str]) -> tuple[str, ...]:
    """The tables that differ. Heads and live digests come from one snapshot; the shadow tables are brought to exactly those heads."""
    conn = shadow.conn
    await shadow.catch_up(await heads(conn))
    async with conn.transaction():
        await conn.execute("set transaction isolation level repeatable read")
        point = await heads(conn)
        live = [await _digest(conn, "ledger", table) for table in only]
    await shadow.catch_up(point)
    rebuilt = [await _digest(conn, "rebuild", table) for table in only]
    return tuple(table for table, a, b in zip(only, live, rebuilt, strict=True) if a != b)


async def _digest(conn: Owner, schema: str, table: str) -> tuple[int, str]:
    """An order-independent digest: the number of rows and the sum of a 64-bit hash of each row's text."""
    text = f"select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from {schema}.{table} t"  # noqa: S608  # TABLES
    row = await (await conn.execute(cast("LiteralString", text))).fetchone()
    assert row is not None
    count, digest = row
    return count, digest


async def _swap(shadow: ShadowTables, swapper: Owner, only: Sequence[str], waits: Tell) -> float:
    """Swap the tables. Returns for how many ms writers waited."""
    rounds = 0
    while rounds < ROUNDS_MAX:
        await shadow.catch_up(await heads(shadow.conn))
        stay = await _who_stays(shadow.conn)
        if not stay:
            try:
                return await _swap_now(shadow, swapper, only)
            except _TailTooLongError:
                rounds += 1
            except _OtherIndexesError:
                rounds += 1
                await _index(shadow.conn)
            except _InTheWayError as late:
                stay = late.by
            except _HELD:
                stay = await _who_stays(shadow.conn)
        if stay:
            waits(waits_for(stay))
            await asyncio.sleep(LOOK_S)
    raise RebuildRefusedError(
        "Writes came faster than the rebuild could follow. Run it again in a quieter hour; it resumes from here."
    )


async def _who_stays(conn: Owner) -> set[Holder]:
    """The sessions that hold a table in two checks with the same transaction; requests of the service are over by then."""
    tables = [f"{schema}.{table}" for schema in ("ledger", _SIDE) for table in TABLES]
    before = await holders(conn, tables)
    if before:
        await asyncio.sleep(LOOK_S)
        before &= await holders(conn, tables)
    return before


async def _swap_now(shadow: ShadowTables, swapper: Owner, only: Sequence[str]) -> float:
    """Try the swap once. Raises _TailTooLongError, _OtherIndexesError, _InTheWayError or one of _HELD; nothing is swapped then, applied events stay."""
    async with swapper.transaction():
        await swapper.execute(GIVES_UP)
        started = await _clock(swapper)
        live = ", ".join(f"ledger.{table}" for table in TABLES)  # directory_states first
        await swapper.execute(f"lock table {live} in access exclusive mode")
        point = await heads(swapper)
        if sum(point.values()) - sum(shadow.done.values()) > TAIL_MAX:
            raise _TailTooLongError
        if (await _indexes(swapper, "ledger")).keys() != (await _indexes(swapper, _SIDE)).keys():
            raise _OtherIndexesError
        await shadow.catch_up(point)
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
