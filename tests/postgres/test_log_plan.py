"""Reading the events of a consumer or of a subject costs what is read, not what lies behind it in the log, with statistics and without."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from database.arrays import int4s, uuids
from database.connections import Connection
from delivery.audit import SQL as AUDIT_SQL
from delivery.log_positions import by_index_alone
from delivery.status import SQL as STATUS_SQL
from ledger.feed import Selection
from tests.postgres.ledgers import Ledger, id_of, opened

USERS = 1_200
WANTED = 40  # events that are counted or read
BLOCKS_EACH = 12  # of an event: one of its commit, four of the index and the table of events, with room
ROWS_EACH = 10  # of an event of the log, when those of a subject are looked for: some nodes of the plan pass it on
SUBJECTS = 300
REMOVED = ("Rows Removed by Filter", "Rows Removed by Join Filter")


def rows_in(node: dict[str, Any]) -> float:
    """Rows that the nodes of a plan passed on or compared."""
    here = node["Actual Loops"] * (node["Actual Rows"] + sum(node.get(removed, 0) for removed in REMOVED))
    return here + sum(map(rows_in, node.get("Plans", [])))


async def plan_of(conn: Connection, text: str, params: Sequence[Any]) -> dict[str, Any]:
    async with by_index_alone(conn):
        found = await (await conn.execute(f"explain (analyze, buffers, format json) {text}".encode(), params)).fetchall()
    return found[0][0][0]["Plan"]


async def people(ledger: Ledger) -> list[Any]:
    """Many users, each in a commit of its own, and a group of them."""
    users: list[Any] = []
    for _ in range(0, USERS, 100):
        users += await asyncio.gather(*(ledger.create_user(f"u{len(users) + n}") for n in range(100)))
    await ledger.create_group("everybody", tuple(map(id_of, users)))
    return [id_of(user) for user in users]


def _analyze(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("analyze ledger.events, ledger.commits")


@pytest.mark.parametrize("analyzed", [False, True])
def test_reading_ends_with_what_is_wanted(app_url: str, superuser_url: str, *, analyzed: bool) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users = await people(ledger)
            if analyzed:
                await asyncio.to_thread(_analyze, superuser_url)
            async with ledger.services.ledger.connection() as conn:
                head = await ledger.services.ledger.feed.head(conn, Selection())
                some = int4s([ledger.directory.id])
                counted = await plan_of(conn, STATUS_SQL["matching_after"], (0, head, some, -1, WANTED))
                page = await plan_of(conn, AUDIT_SQL["positions_matching"], (0, head, some, -1, WANTED, None))
                for plan in (counted, page):
                    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < BLOCKS_EACH * WANTED
                params = (0, head, some, -1, 5_000, uuids(users[:SUBJECTS]))
                of_some = await plan_of(conn, AUDIT_SQL["positions_matching"], params)
                assert of_some["Actual Rows"] == 2 * SUBJECTS
                assert rows_in(of_some) < ROWS_EACH * head

    asyncio.run(run())
