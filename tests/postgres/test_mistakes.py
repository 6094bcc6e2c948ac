"""Strangers fill neither memory nor journal: mistakes are counted in bounded memory and noted at a bounded rate."""

import asyncio
import os
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api import mistakes
from api.journal import Journal
from api.mistakes import NOTE_INTERVAL_S, Mistakes
from database.connections import Pool
from ledger.sealing import Kek
from runtime import embedded
from scim.mistakes import Mistake
from tests.postgres.proxy import proxied

KEK = Kek.of(bytes(range(32)))


def noted(url: str) -> list[tuple[str, int]]:
    with psycopg.connect(url) as conn:
        return [(row[0], row[1]) for row in conn.execute("select mistake, times from ledger.requests order by id")]


@pytest.fixture
def acme(app_url: str) -> str:
    with psycopg.connect(app_url) as conn:
        conn.execute(
            "insert into ledger.directories (uuid, slug, profile, index_key) values (gen_random_uuid(), 'acme', 'okta@1', '')"
        )
    return app_url


def test_a_directory_gets_one_entry_in_ten_minutes_for_each_mistake(acme: str) -> None:
    async def run() -> None:
        pool = Pool(acme, size=1)
        await pool.open()
        journal = Journal(pool, KEK, os.urandom)
        counted = Mistakes(pool, journal, lambda: 1_000_000)
        for now in (0.0, 1.0, NOTE_INTERVAL_S - 1, NOTE_INTERVAL_S, NOTE_INTERVAL_S + 1):
            for _ in range(100):
                counted.add(Mistake.NO_TOKEN, "acme", None, "GET", uuid4())
                counted.add(Mistake.WRONG_SECRET, "acme", uuid4(), "GET", uuid4())
                counted.add(Mistake.NO_TOKEN, "nowhere", None, "GET", uuid4())
                counted.add(Mistake.NO_TOKEN, "ACME\0", None, "GET", uuid4())
            await counted.write(now)
            await journal.flush()
        await pool.close()

    asyncio.run(run())
    assert noted(acme) == [("no_token", 100), ("not_a_token", 100), ("no_token", 300), ("not_a_token", 300)]


def test_memory_is_bounded_and_unknown_names_do_not_hide_known_ones_soon(acme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "SEEN_MAX", 4)
    monkeypatch.setattr(mistakes, "NOTED_MAX", 1)

    async def run() -> int:
        pool = Pool(acme, size=1)
        await pool.open()
        journal = Journal(pool, KEK, os.urandom)
        counted = Mistakes(pool, journal, lambda: 1_000_000)
        for _ in range(50):
            counted.add(Mistake.WRONG_SECRET, "acme", uuid4(), "GET", UUID(int=1))
            counted.add(Mistake.NO_TOKEN, f"a{uuid4()}", None, "GET", UUID(int=1))
        counted.add(Mistake.NO_TOKEN, "acme", None, "GET", UUID(int=1))
        most = len(counted._seen)
        await counted.write(0.0)
        await counted.write(1.0)
        await journal.flush()
        await pool.close()
        return most

    assert asyncio.run(run()) == 8
    assert noted(acme) == [("not_a_token", 50)]


def test_counts_wait_while_the_database_is_away(cluster: embedded.Cluster, acme: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with proxied(str(cluster.socket_dir), tmp_path) as (proxy, through):
            pool = Pool(make_conninfo(acme, host=through), size=1)
            await pool.open()
            journal = Journal(pool, KEK, os.urandom)
            counted = Mistakes(pool, journal, lambda: 1_000_000)
            counted.add(Mistake.NO_TOKEN, "acme", None, "GET", UUID(int=1))
            await proxy.vanish()
            await counted.write(0.0)
            await proxy.listen()
            counted.add(Mistake.NO_TOKEN, "acme", None, "GET", UUID(int=2))
            await counted.write(1.0)
            await journal.flush()
            await pool.close()

    asyncio.run(run())
    assert noted(acme) == [("no_token", 2)]
