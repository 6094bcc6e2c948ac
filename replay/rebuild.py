"""Rebuilding the read models beside the live ones, while writes go on; interruptible and resumable at every chunk.

1. Each directory's log is applied in chunks to side tables in the schema `rebuild`, each chunk with its progress.
2. The indexes are made, then live and rebuilt tables are compared by digest at one point of the log, without locks.
3. In one transaction all directories are locked in id order, the short tail is applied and the tables are swapped by schema.
   If the tail has grown long meanwhile, the locks are let go and it catches up again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString, cast

from ledger.sealing import Kek
from replay.side import SQL, TABLES, Owner, Progress, SideTables, heads, make_tables, run

TAIL_MAX: Final = 500  # events applied while the directories are locked (target: under 200 ms)
ROUNDS_MAX: Final = 50


class RebuildRefusedError(Exception):
    """The rebuild cannot run; the text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a rebuild found and did."""

    events: int
    resumed_at: int  # events already applied by an interrupted run
    drifted: tuple[str, ...]  # tables whose live content differed from the log
    locked_ms: float


async def rebuild(conn: Owner, reader: Owner, kek: Kek, progress: Progress, *, only: Sequence[str] = TABLES) -> Result:
    """Rebuild the read models (`only` some of TABLES). Interrupted, the next call goes on after the last whole chunk.

    Raises RebuildRefusedError when another rebuild is running.
    """
    row = await (await conn.execute("select pg_try_advisory_lock(3, 0)")).fetchone()
    if not row or not row[0]:
        raise RebuildRefusedError("Another rebuild is running on this database. Wait for it, or end its process.")
    try:
        side = SideTables(conn, reader, kek, progress, record=True)
        resumed = await _prepare(side)
        await side.catch_up(await heads(conn))
        await _index(conn)
        drifted = await _compare(side, only)
        locked_ms = await _swap(side, only)
        return Result(sum(side.done.values()), resumed, drifted, locked_ms)
    finally:
        if not conn.closed:
            await conn.execute("select pg_advisory_unlock(3, 0)")


async def discard(conn: Owner) -> None:
    """Drop what an interrupted rebuild left."""
    await conn.execute("drop schema if exists rebuild cascade")


async def _prepare(side: SideTables) -> int:
    conn = side.conn
    await conn.execute("create schema if not exists rebuild")
    await conn.execute("set search_path to rebuild, ledger")
    await conn.execute(SQL["make_progress"])
    rows = await (await conn.execute(SQL["tables_in_rebuild"])).fetchall()
    if {row[0] for row in rows} != set(TABLES):
        async with conn.transaction():
            await conn.execute("drop schema rebuild cascade")
            await conn.execute("create schema rebuild")
            await conn.execute(SQL["make_progress"])
            await make_tables(conn, temporary=False)
    side.done = dict(await (await conn.execute(SQL["progress"])).fetchall())
    current = await heads(conn)
    if any(done > current.get(number, 0) for number, done in side.done.items()):
        await discard(conn)
        return await _prepare(side)  # the log ends before an old run's progress: it was restored since
    return sum(side.done.values())


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


async def _compare(side: SideTables, only: Sequence[str]) -> tuple[str, ...]:
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


async def _swap(side: SideTables, only: Sequence[str]) -> float:
    """Give how many ms the directories were locked."""
    conn = side.conn
    for _ in range(ROUNDS_MAX):
        await side.catch_up(await heads(conn))
        async with conn.transaction():
            await conn.execute(SQL["lock_all_directories"])
            started = await _clock(conn)
            point = await heads(conn)
            if sum(point.values()) - sum(side.done.values()) <= TAIL_MAX:
                await side.catch_up(point)
                await _put_in_place(conn, only)
                return round(await _clock(conn) - started, 1)
    raise RebuildRefusedError(
        "Writes came faster than the rebuild could follow. Run it again in a quieter hour; it goes on here."
    )


async def _clock(conn: Owner) -> float:
    row = await (await conn.execute(SQL["server_clock"])).fetchone()
    assert row is not None
    return row[0]


async def _put_in_place(conn: Owner, only: Sequence[str]) -> None:
    for table in only:
        await run(conn, "drop table ledger.{}", table)
        await run(conn, "alter table rebuild.{} set schema ledger", table)
        await run(conn, "grant select, insert, update, delete on ledger.{} to ledger_app", table)
    await conn.execute("drop schema rebuild cascade")
