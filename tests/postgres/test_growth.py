"""Rows that are added and removed: which checkpoints are kept, what a pass of the thinning costs, and how many dead rows are
left.
"""

import asyncio
import re
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from database.connections import connect
from delivery.checkpoints import acknowledge, record
from delivery.reports import Place, Report
from delivery.thinning import DAY, STEPS, Thinning
from ledger.commands import RecordFacts
from ledger.directories import Directory
from ledger.events import OPERATOR, TOKEN, TOKEN_REVOKED, Body, Draft
from runtime.disk import NEARLY_FULL
from scim.errors import Unavailable
from tests.postgres.deliveries import Scene, scene
from tests.postgres.ledgers import Ledger, opened
from tests.postgres.test_upkeep_beside import KEK, rebuilt

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_documented_table_of_growth_names_every_table(owner_url: str) -> None:
    """Whoever adds a table must document how it grows and what prunes it."""
    with psycopg.connect(owner_url) as conn:
        tables = {name for (name,) in conn.execute("select tablename from pg_tables where schemaname = 'ledger'")}
    section = OPERATIONS.read_text().partition("## How the database grows")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    named = [name for cells in rows for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == sorted(tables)
    assert all(cell.strip() for cells in rows for cell in cells)


async def _history(s: Scene, consumer: int) -> None:
    """A checkpoint for each second of the last quarter of an hour, each minute of two days, and each hour of forty days."""
    await s.sql(
        "insert into checkpoints (consumer, epoch, low, through, at) select %s, 1, n, n, at from ("
        "  select row_number() over (order by at) n, at from ("
        "    select generate_series(now() - interval '40 days', now() - interval '2 days', interval '1 hour') at"
        "    union all select generate_series(now() - interval '2 days', now() - interval '15 minutes', interval '1 minute')"
        "    union all select generate_series(now() - interval '15 minutes', now(), interval '1 second')) v) w order by at",
        consumer,
    )


async def _kept(s: Scene, age_s: float, until_s: float, length_s: float) -> tuple[int, int]:
    """For the complete steps of time between two ages: how many checkpoints there are, and how many of the steps have one."""
    rows = await s.sql(
        "select count(*), count(distinct step) from (select date_bin(make_interval(secs => %s), at, '2000-01-01Z') step from checkpoints) v "
        "where step < now() - make_interval(secs => %s) and step > now() - make_interval(secs => %s)",
        length_s, age_s + length_s, until_s - length_s,
    )  # fmt: skip
    return rows[0][0], rows[0][1]


def test_the_last_checkpoint_of_each_step_of_time_is_kept(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make(mode="pull", url=None)
            await _history(s, consumer.id)
            before = await s.place()
            async with s.conn() as conn:
                thinning = Thinning()
                assert await thinning.run(conn, 0) > 1_700
                assert await thinning.run(conn, 1) == 0, "nothing is deleted before another minute is old enough"
                assert await Thinning().run(conn, 0) == 0, "each step of time is thinned once, whichever process does it"
            ages = [*[step.age_s for step in STEPS[1:]], 39 * 86_400.0]
            for step, until in zip(STEPS, ages, strict=True):
                there, steps = await _kept(s, step.age_s, until, step.length_s)
                assert 0 < steps <= there <= steps + 3, "one more where a statement took no more rows"
            each = await s.sql("select count(*) from checkpoints where at > now() - interval '9 minutes'")
            assert each[0][0] >= 539, "all younger checkpoints are kept"
            last = await s.sql(
                "select extract(second from max(at))::int from checkpoints where at < date_bin('1 minute', now() - interval '10 minutes', '2000-01-01Z')"
            )
            assert last[0][0] >= 58, "the last of a step is the one that stays"
            assert await s.place() == before

    asyncio.run(body())


def test_the_newest_checkpoint_of_every_epoch_is_kept_at_any_age(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make(mode="pull", url=None)
            await s.sql(
                "insert into consumer_epochs (consumer, epoch, start, directories, types) values (%s, 2, 0, '{*}', '{*}')",
                consumer.id,
            )
            for epoch in (1, 2):
                await s.sql(
                    "insert into checkpoints (consumer, epoch, low, through, at) "
                    "select %s, %s, n, n, now() - interval '90 days' + n * interval '1 second' from generate_series(1, 300) n",
                    consumer.id, epoch,
                )  # fmt: skip
            async with s.conn() as conn:
                thinning = Thinning()
                for day in range(3):
                    await thinning.run(conn, day * DAY)
            assert [row[1] for row in await s.sql("select epoch, max(through) from checkpoints group by 1 order by 1")] == [
                300,
                300,
            ]
            assert (await s.sql("select count(*) from checkpoints"))[0][0] <= 6

    asyncio.run(body())


def test_recording_updates_a_checkpoint_in_place_and_begins_a_new_one_now_and_then(app_url: str, owner_url: str) -> None:
    """So not every delivery leaves a dead row, and a row has at most fifty versions."""

    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make()
            await s.sql(
                "insert into consumer_leases (consumer, holder, fence, until) values (%s, %s, 7, 'infinity')",
                consumer.id,
                uuid4(),
            )
            conn = await connect(app_url, pinned=True)
            for n in range(1, 501):
                assert await record(conn, [Report(consumer.id, 7, Place(1, n, n, (n,)))]) == {consumer.id}
            await conn.execute("select pg_stat_force_next_flush()")
            await conn.close()
            place = await s.place()
            assert (place.low, place.through, place.open) == (500, 500, (500,))
            rows = await s.sql("select count(*), max(moves) from checkpoints where consumer = %s", consumer.id)
            assert rows[0][1] <= 50
            assert 10 <= rows[0][0] < 60
            updated = await s.sql(
                "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'checkpoints' and schemaname = 'ledger'"
            )
            assert updated[0][0] >= 440
            assert updated[0][1] > 0.9 * updated[0][0], "versions that no index knows go with the page"

    asyncio.run(body())


def test_an_acknowledgement_updates_in_place_and_never_moves_back(app_url: str) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            consumer = await s.make(mode="pull", url=None)
            async with s.conn() as conn:
                for n in range(1, 121):
                    assert await acknowledge(conn, consumer, n, [])
                assert not await acknowledge(conn, consumer, 119, [])
                assert not await acknowledge(conn, consumer, 120, [])
            assert (await s.place()).through == 120
            rows = await s.sql("select count(*), max(moves) from checkpoints where consumer = %s", consumer.id)
            assert 3 <= rows[0][0] < 40
            assert rows[0][1] <= 50

    asyncio.run(body())


def test_a_rebuilt_table_keeps_its_settings(app_url: str, owner_url: str) -> None:
    """The free room on pages and the time of a vacuum are settings of a table: shadow tables need the same settings."""
    settings = "select relname, reloptions from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r' order by 1"

    async def body() -> None:
        async with opened(app_url, kek=KEK) as ledger:
            await ledger.create_user("u")
            with psycopg.connect(owner_url, autocommit=True) as conn:
                before = conn.execute(settings).fetchall()
                await rebuilt(owner_url, lambda _text: None)
                assert conn.execute(settings).fetchall() == before

    asyncio.run(body())


def test_without_room_on_the_disk_writes_of_idps_are_refused_and_acts_of_operators_are_not(app_url: str) -> None:
    """The missing room is simulated here; tests/acceptance/test_full_disk.py fills a real disk, if the account may mount one."""
    full = [NEARLY_FULL]

    async def body() -> None:
        async with opened(app_url, kek=KEK, room=lambda: full[0] if full else None) as ledger:
            with pytest.raises(Unavailable, match=r"Less than 256 MiB are free .* Nothing was changed"):
                await ledger.create_user("u")
            assert await ledger.services.readiness.broken_part() == ("disk", NEARLY_FULL.reason, NEARLY_FULL.says)
            system = await _system(ledger)
            facts = Draft(TOKEN_REVOKED, uuid4(), TOKEN, cause=OPERATOR, body=Body({"id": "x"}, [], "x"))
            assert (await ledger.submit(RecordFacts((facts,), ()), system)).seq
            full.clear()
            assert (await ledger.create_user("u")).seq
            assert await ledger.services.readiness.broken_part() is None

    asyncio.run(body())


async def _system(ledger: Ledger) -> Directory:
    async with ledger.services.ledger.connection() as conn:
        found = await ledger.services.ledger.directories.by_slug(conn, "_system")
    assert found is not None
    return found
