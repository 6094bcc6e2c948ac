"""Planning a replay costs the same for each grant, however long the log is that it looks through for its end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from database.arrays import int4s, int8s, uuids
from database.connections import Connection
from delivery.runs import Planned, Range
from ledger.feed import Selection
from ledger.ids import Position
from replay.redeliver import SQL, plan
from tests.postgres.ledgers import Ledger, id_of, opened

USERS = 1_200
BLOCKS_EACH = 30  # of a grant that is looked up by indexes: two probes of three or four blocks, with room


def blocks_in(node: dict[str, Any]) -> int:
    return node["Shared Hit Blocks"] + node["Shared Read Blocks"]


async def explained(conn: Connection, grants: Sequence[Planned], head: int) -> int:
    """Blocks that the statement looks at."""
    params = (
        int4s([g.directory for g in grants]), int8s([g.seq for g in grants]), uuids([g.obj for g in grants]), uuids([g.mem for g in grants]),
        int8s([head] * len(grants)),
    )  # fmt: skip
    text = f"explain (analyze, buffers, format json) {SQL['taken_back']}".encode()
    ((found,),) = await (await conn.execute(text, params)).fetchall()
    return blocks_in(found[0]["Plan"])


async def people(ledger: Ledger) -> None:
    users: list[Any] = []
    for _ in range(0, USERS, 100):
        users += await asyncio.gather(*(ledger.create_user(f"u{len(users) + n}") for n in range(100)))
    await ledger.create_group("everybody", tuple(map(id_of, users)))


def _analyze(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("analyze ledger.events")


@pytest.mark.parametrize("analyzed", [False, True])
def test_what_took_a_grant_back_is_looked_up_by_its_user_or_membership(
    app_url: str, superuser_url: str, *, analyzed: bool
) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            await people(ledger)
            if analyzed:
                await asyncio.to_thread(_analyze, superuser_url)
            async with ledger.services.ledger.connection() as conn:
                head = await ledger.services.ledger.feed.head(conn, Selection())
                span = Range(Position(0), Position(head), -1, (ledger.directory.id,), None, "skip")
                planned = await plan(conn, span, head)
                users = [event for event in planned.events if event.kind == 0]
                members = [event for event in planned.events if event.mem is not None]
                assert (len(users), len(members)) == (USERS, USERS)
                for grants in (users, members):
                    assert await explained(conn, grants, head) < BLOCKS_EACH * USERS

    asyncio.run(run())
