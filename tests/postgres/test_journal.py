"""The journal on a real database that goes away: what it holds is bounded, what it cannot hold is counted, age alone prunes."""

import asyncio
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg.conninfo import make_conninfo

from api.journal import BATCH_MAX, DAYS_KEPT, PRUNE_BATCH, Entry, Journal
from api.metrics import exposition
from database.connections import open_pool
from runtime import embedded
from tests.postgres.proxy import proxied

KEPT = BATCH_MAX + 5


def entry(number: int) -> Entry:
    return Entry(
        1, 1_000_000, "POST", "/Users", None, 429, None, "Full.", "generic@1", ("op_case",), 0, 1, UUID(int=number), None
    )


def written(url: str) -> list[int]:
    with psycopg.connect(url) as conn:
        return [row[0].int for row in conn.execute("select request_id from ledger.requests order by id")]


def counted() -> float:
    lines = exposition(0, 0).decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("ledger_journal_dropped_total ")))


def test_while_the_database_is_away_the_newest_are_kept_and_the_others_counted(
    cluster: embedded.Cluster, app_url: str, tmp_path: Path
) -> None:
    """A storm of refusals must not fill the memory, nor go missing unnoticed."""

    async def run() -> None:
        async with proxied(str(cluster.socket_dir), tmp_path) as (proxy, through):
            async with open_pool(make_conninfo(app_url, host=through), size=1) as pool:
                journal = Journal(pool, kept_max=KEPT)
                journal.add(entry(0))
                await journal.flush()
                async with pool.connection():  # the only one: the flush waits for it, with its first batch in hand
                    await proxy.vanish()
                    for number in range(1, KEPT + 1):
                        journal.add(entry(number))
                    flushing = asyncio.create_task(journal.flush())
                    while len(journal) == KEPT:
                        await asyncio.wait([flushing], timeout=0)
                    for number in range(KEPT + 1, KEPT + 8):
                        journal.add(entry(number))
                await flushing
                await proxy.listen()
                await journal.flush()

    before = counted()
    asyncio.run(run())
    assert written(app_url) == [0, *range(8, KEPT + 8)], "the oldest go first"
    assert counted() - before == 7


def test_a_flush_that_is_cancelled_loses_nothing(app_url: str) -> None:
    """At the end of the process the background flush is cancelled, and a last one writes what is there."""

    async def run() -> None:
        async with open_pool(app_url, size=1) as pool:
            journal = Journal(pool)
            for number in range(3):
                journal.add(entry(number))
            async with pool.connection():  # the only one: the flush waits for it
                flushing = asyncio.create_task(journal.flush())
                while len(journal):
                    await asyncio.wait([flushing], timeout=0)
                flushing.cancel()
                await asyncio.wait([flushing])
            await journal.flush()

    asyncio.run(run())
    assert written(app_url) == [0, 1, 2]


def test_pruning_goes_by_age_alone_and_to_the_end(app_url: str) -> None:
    old = PRUNE_BATCH + 1
    with psycopg.connect(app_url) as conn:
        conn.execute(
            "insert into ledger.requests (directory, at, method, route, status, profile, tolerances, events, duration_us, request_id) "
            "select 1, now() - make_interval(days => %s + case when n <= %s then 1 else -1 end), 'GET', '/', 200, 'generic@1', '{}', 0, 1, "
            "lpad(to_hex(n), 32, '0')::uuid from generate_series(1, %s) n",
            (DAYS_KEPT, old, old + 2),
        )

    async def run() -> None:
        async with open_pool(app_url, size=1) as pool:
            await Journal(pool).prune()

    asyncio.run(run())
    assert written(app_url) == [old + 1, old + 2]
