"""A page of resources costs the same for each row, however many resources the directory has, with statistics of it and without."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from database.arrays import uuids
from database.connections import Connection
from ledger.state import SQL as STATE_SQL
from projections.history import SQL as HISTORY_SQL
from projections.reads import SQL as READS_SQL
from tests.postgres.ledgers import Ledger, id_of, opened

USERS = 1_200
ROWS = 200  # of a page
BLOCKS_EACH = 20  # of a row that is looked up by indexes: up to five probes of three or four blocks
BYTES_MAX = 2**24


async def blocks_of(conn: Connection, text: str, params: Sequence[Any]) -> int:
    """Blocks that a statement looks at."""
    ((found,),) = await (await conn.execute(f"explain (analyze, buffers, format json) {text}".encode(), params)).fetchall()
    return found[0]["Plan"]["Shared Hit Blocks"] + found[0]["Plan"]["Shared Read Blocks"]


async def filled(ledger: Ledger) -> tuple[list[Any], list[Any]]:
    """Many users and groups."""
    users: list[Any] = []
    groups: list[Any] = []
    for _ in range(0, USERS, 100):
        users += await asyncio.gather(*(ledger.create_user(f"u{len(users) + n}") for n in range(100)))
        groups += await asyncio.gather(*(ledger.create_group(f"g{len(groups) + n}", ()) for n in range(100)))
    return [id_of(user) for user in users], [id_of(group) for group in groups]


def _analyze(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "analyze ledger.users, ledger.groups, ledger.bodies, ledger.subject_keys, ledger.events, ledger.states"
        )


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_rows_of_a_page_are_looked_up_one_by_one(app_url: str, superuser_url: str, *, analyzed: bool) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users, groups = await filled(ledger)
            if analyzed:
                await asyncio.to_thread(_analyze, superuser_url)
            number, some_users, some_groups = ledger.directory.id, uuids(users[:ROWS]), uuids(groups[:ROWS])
            statements = {
                "users_page": (READS_SQL["users_page"], (number, some_users, BYTES_MAX)),
                "groups_page": (READS_SQL["groups_page"], (number, some_groups, BYTES_MAX)),
                "ids_among": (READS_SQL["ids_among"], (number, some_users)),
                "last_of_users": (STATE_SQL["last_of_users"], (number, some_users)),
                "last_of_groups": (STATE_SQL["last_of_groups"], (number, some_groups)),
                "sealed_at": (HISTORY_SQL["sealed_at"], (number, some_users, 2**40, BYTES_MAX)),
            }
            async with ledger.services.ledger.connection() as conn:
                blocks = {name: await blocks_of(conn, *statement) for name, statement in statements.items()}
            assert {name: read for name, read in blocks.items() if read > BLOCKS_EACH * ROWS} == {}

    asyncio.run(run())
