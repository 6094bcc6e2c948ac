"""Row 19: counting the users who lost access in the last hour, after all groups of a company were emptied."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from bench.environment import Service, Stage, patch_body
from bench.figures import Figure, Sizes, count, median, ms
from database.connections import Connection, Pool
from delivery import surge_control
from delivery.surge_control import PER_HOUR_MAX
from delivery.surge_policy import REVOKING, Limit
from delivery.worker import WATCH_S
from ledger.rendering import Event

AREAS = 20  # groups of a quarter of all users, all members of one group, which is a member of each outer group
OUTER = 100
EVENTS_PAGE = 500  # events that a delivery process reads together
COUNT_ROUNDS = 5
Work = Callable[[Connection], Awaitable[object]]


def surge(stage: Stage, sizes: Sizes) -> list[Figure]:
    """Remove the inner group from every outer group, then all members from each area. The last hour has only these events."""
    people = sizes.users // 5
    stage.say(f"groups of {people} users in groups in groups, taken apart")
    service = stage.service()
    users = service.make_users(people)
    areas = service.make_groups([users[n % 4 :: 4] for n in range(AREAS)])
    whole = service.make_groups([areas])[0]
    outer = service.make_groups([[whole]] * OUTER)
    _patched(service, outer, patch_body("remove", "members"))
    _patched(service, areas, patch_body("remove", "members"))
    return asyncio.run(_measured(service, people))


def _patched(service: Service, groups: list[str], body: bytes) -> None:
    service.drive([service.request("PATCH", f"Groups/{group}", body) for group in groups], connections=4)


async def _measured(service: Service, people: int) -> list[Figure]:
    with psycopg.connect(service.owner_url()) as conn:
        events = [Event(0, *row, b"", "") for row in psycopg.RawCursor(conn).execute(_ENDED, (REVOKING,)).fetchall()]
    pool = Pool(make_conninfo(service.owner_url(), user="ledger_app"), size=1)
    await pool.open()
    try:
        limit = Limit(PER_HOUR_MAX, "hold")
        every = {events[0].directory: limit}
        few = {events[0].directory: Limit(100, "hold")}
        work: dict[str, Work] = {
            "is it more than 100": lambda conn: surge_control.surging(conn, few, quiet_s=0),
            "how many are they": lambda conn: surge_control.surging(conn, every, quiet_s=0),
            f"which of {EVENTS_PAGE} newest events are held, limit 100": lambda conn: surge_control.held_commits(
                conn, few, events[:EVENTS_PAGE]
            ),
            f"which of {EVENTS_PAGE} oldest events are held, no limit": lambda conn: surge_control.held_commits(
                conn, every, events[-EVENTS_PAGE:]
            ),
        }
        bar = WATCH_S * 1000 / 2
        figures: list[Figure] = []
        for name, act in work.items():
            spent = median([await _spent(pool, act) for _ in range(COUNT_ROUNDS)])
            text = f"who lost access in the last hour, {count(len(events))} events of {count(people)} users: {name}"
            figures.append(Figure(19, text, ms(spent), bar=f"≤ {ms(bar)}", passed=spent <= bar, raw={"ms": spent}))
        return figures
    finally:
        await pool.close()


_ENDED: Final[LiteralString] = """
select e.directory, e.seq, e.type, e.obj, e.mem, c.at, c.seq, c.types from ledger.commits c
join ledger.events e on e.directory = c.directory and e.seq >= c.seq and e.seq < c.seq + c.size and (1::bigint << e.type) & $1 <> 0
where c.at > (extract(epoch from clock_timestamp()) * 1000000)::int8 - 3600000000 order by e.seq desc
"""


async def _spent(pool: Pool, act: Work) -> float:
    """ms."""
    async with pool.connection() as conn:
        began = time.perf_counter()
        await act(conn)
        return (time.perf_counter() - began) * 1e3
