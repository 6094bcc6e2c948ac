"""Row 18: the cost of thinning out checkpoints, minute by minute, after a year of a busy consumer."""

import asyncio
import itertools
import time

import psycopg
from psycopg.conninfo import make_conninfo

from bench.environment import Stage
from bench.figures import Figure, Sizes, count, interleaved, median, ms
from database.connections import connect
from delivery.thinning import Thinning

PER_S = 50  # checkpoints a second of a busy minute
PASS_ROUNDS = 9
MAKE = """
with made as (
    insert into ledger.consumers (uuid, name, mode, ordering, directories, types, batch_max, retry_schedule)
    values (gen_random_uuid(), %s, 'pull', 'directory', '{*}', '{*}', 1, '{0}') returning id)
insert into ledger.consumer_epochs (consumer, epoch, start, directories, types) select id, 1, 0, '{*}', '{*}' from made returning consumer
"""
# One a minute of a year, and one a second of the last two days.
YEAR = """
insert into ledger.checkpoints (consumer, epoch, low, through, at)
select %(consumer)s, 1, n, n, at from (
    select row_number() over (order by at) as n, at from (
        select generate_series(now() - interval '365 days', now() - interval '2 days', interval '1 minute') at
        union all select generate_series(now() - interval '2 days', now() - interval '11 minutes', interval '1 second')) v) w order by at
"""
# The minute that has just become old enough to be thinned out.
MINUTE = """
insert into ledger.checkpoints (consumer, epoch, low, through, at)
select %s, 1, 1e9::int8 + n, 1e9::int8 + n, date_bin('1 minute', now() - interval '10 minutes', '2000-01-01Z') - interval '1 minute' + n * interval '60 seconds' / %s
from generate_series(0, %s - 1) n order by n
"""


def year(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Thin out the same minute for a consumer that is a year old and for a new one, each in its own ledger."""
    stage.say("a year of a busy consumer")
    del sizes
    old, new = stage.service().owner_url(), stage.service().owner_url()
    begun = {url: _consumer(url, f"busy-{number}") for number, url in enumerate((old, new))}
    with psycopg.connect(old, autocommit=True) as conn:
        made = conn.execute(YEAR, {"consumer": begun[old]}).rowcount
        conn.execute("analyze ledger.checkpoints")
    thinning = {url: Thinning() for url in (old, new)}
    began = time.perf_counter()
    while _pass(old, thinning[old], 0)[1]:  # a pass works in pieces; repeat until everything old is thinned out
        pass
    backlog = time.perf_counter() - began
    minutes = itertools.count(1)

    def minute(url: str) -> float:
        return _minute(url, begun[url], thinning[url], next(minutes) * 60)

    with psycopg.connect(old) as conn:
        row = conn.execute("select count(*) from ledger.checkpoints where consumer = %s", (begun[old],)).fetchone()
    assert row is not None
    kept = row[0]
    costs = interleaved(PASS_ROUNDS, {"old": lambda: minute(old), "new": lambda: minute(new)})
    a, b = median(costs["old"]), median(costs["new"])
    return [
        Figure(18, f"thinning a minute of {PER_S} checkpoints/s, after a year", ms(a), f"of a new consumer: {ms(b)}", f"{a / b:.2f} ×", "≤ 1.5 ×",
               a <= 1.5 * b, {"old_ms": a, "new_ms": b}),
        Figure(18, f"   kept of {count(made)} checkpoints of that year", count(kept), f"worked off in {backlog:.1f} s", bar="≤ 10 000",
               passed=kept <= 10_000, raw={"kept": kept, "backlog_s": backlog}),
    ]  # fmt: skip


def _consumer(url: str, name: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(MAKE, (name,)).fetchone()
    assert row is not None
    return row[0]


def _minute(url: str, consumer: int, thinning: Thinning, now: float) -> float:
    """The ms of a pass that removes the checkpoints of one minute."""
    with psycopg.connect(url) as conn:
        conn.execute("delete from ledger.thinned where consumer = %s and step = 1", (consumer,))
        conn.execute(
            "insert into ledger.thinned select %s, 1, 1, coalesce(max(id), 0) from ledger.checkpoints where consumer = %s",
            (consumer, consumer),
        )
        conn.execute(MINUTE, (consumer, PER_S * 60, PER_S * 60))
    spent, removed = _pass(url, thinning, now)
    if removed < PER_S * 60 - 2:
        raise RuntimeError(f"only {removed} checkpoints were removed")
    return spent


def _pass(url: str, thinning: Thinning, now: float) -> tuple[float, int]:
    async def run() -> tuple[float, int]:
        conn = await connect(make_conninfo(url, user="ledger_app"))
        try:
            began = time.perf_counter()
            removed = await thinning.run(conn, now)
            return (time.perf_counter() - began) * 1e3, removed
        finally:
            await conn.close()

    return asyncio.run(run())
