"""How audits and replays read the log: page by page, each at the cost of a page, with every event exactly once."""

import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from database.arrays import int4s, uuids
from database.connections import connect
from delivery import audit
from delivery.audit import SQL
from ledger.ids import DirectoryNumber

EVERY = 2**62
DIRECTORIES = [DirectoryNumber(1), DirectoryNumber(2)]
Row = tuple[int, int, int, UUID]  # position, directory, type, obj


def filled(url: str, seed: int, *, missing: int = 0) -> list[Row]:
    """A log of two directories, with commits of one to five events of four types; one position may be missing."""
    rng, rows, position, seqs = random.Random(seed), list[Row](), 1, {1: 0, 2: 0}
    subjects = [uuid4() for _ in range(5)]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set search_path = ledger")
        for number in range(120):
            directory, size = rng.choice([1, 1, 1, 2]), rng.randint(1, 5)
            kinds, objs = [rng.randint(0, 3) for _ in range(size)], [rng.choice(subjects) for _ in range(size)]
            first = seqs[directory] + 1
            seqs[directory] += size
            if number != missing or not missing:
                mask = 0
                for offset, (kind, obj) in enumerate(zip(kinds, objs, strict=True)):
                    rows.append((position + offset, directory, kind, obj))
                    mask |= 1 << kind
                    values = (directory, first + offset, kind, position + offset, position + offset, obj)
                    conn.execute("insert into events values (%s, %s, %s, %s, %s, %s, null, '', '')", values)
                conn.execute(
                    "insert into commits values (%s, %s, %s, %s, %s, %s, %s, 0)",
                    (position, directory, first, size, mask, number, uuid4()),
                )
            position += size
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_pages_give_every_matching_event_once_and_in_order(superuser_url: str, app_url: str, seed: int) -> None:
    rows = filled(superuser_url, seed)
    rng = random.Random(seed)

    async def pages(
        conn: Any, after: int, through: int, reach: list[int], mask: int, page: int, of: list[UUID] | None
    ) -> list[int]:
        found: list[int] = []
        while True:
            params = (after, through, int4s(reach), mask, page, None if of is None else uuids(of))
            some = [
                row[0] for row in await (await conn.cursor(binary=True).execute(SQL["positions_matching"], params)).fetchall()
            ]
            found += some
            if len(some) < page:
                return found
            after = some[-1]

    async def check() -> None:
        conn = await connect(app_url)
        async with conn:
            for _ in range(60):
                after = rng.randint(0, len(rows))
                through = rng.choice([EVERY, after + rng.randint(0, len(rows))])
                reach, mask = rng.choice([[1], [2], [1, 2]]), rng.choice([1, 2, 6, 15])
                of = rng.choice([None, None, [rng.choice(rows)[3]]])
                expected = [
                    p
                    for p, d, kind, obj in rows
                    if after < p <= through and d in reach and 1 << kind & mask and (of is None or obj in of)
                ]
                assert await pages(conn, after, through, reach, mask, rng.choice([1, 2, 7, 1_000]), of) == expected

    asyncio.run(check())


@pytest.mark.parametrize("looked_up_max", [0, 20_000])
def test_subjects_are_read_alike_whether_they_are_looked_up_or_the_log_is_read(
    superuser_url: str, app_url: str, monkeypatch: pytest.MonkeyPatch, looked_up_max: int
) -> None:
    rows, members = filled(superuser_url, 7), list[tuple[int, int, UUID, UUID]]()
    groups, users = [uuid4() for _ in range(3)], sorted({row[3] for row in rows})
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path = ledger")
        position, seq = (
            rows[-1][0] + 1,
            max(seq for (seq,) in conn.execute("select seq from events where directory = 1").fetchall()) + 1,
        )
        for n, (group, user) in enumerate((g, m) for g in groups for m in (*users, groups[0])):
            conn.execute("insert into events values (1, %s, 10, %s, 1, %s, %s, '', '')", (seq + n, n + 1, group, user))
            conn.execute("insert into commits values (%s, 1, %s, 1, %s, %s, %s, 0)", (position + n, seq + n, 1 << 10, n, uuid4()))
            members.append((position + n, 10, group, user))
    monkeypatch.setattr(audit, "LOOKED_UP_MAX", looked_up_max)

    async def check() -> None:
        async with await connect(app_url) as conn:
            for subjects in ([users[0]], [groups[0]], [users[1], groups[1]], [groups[0], groups[2]], [uuid4()]):
                for after, through, mask in (
                    (0, EVERY, -1),
                    (rows[30][0], rows[-10][0], -1),
                    (0, EVERY, 1 << 10),
                    (position, EVERY, -1),
                ):
                    expected = [p for p, _, kind, obj in rows if obj in subjects and after < p <= through and mask & 1 << kind]
                    expected += [
                        p for p, kind, g, m in members if {g, m} & set(subjects) and after < p <= through and mask & 1 << kind
                    ]
                    found = [
                        row[0] async for page in audit.matching(conn, after, through, DIRECTORIES, mask, subjects) for row in page
                    ]
                    assert found == expected

    asyncio.run(check())


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_subject_is_looked_up_whatever_else_is_in_the_log(superuser_url: str, app_url: str, *, analyzed: bool) -> None:
    count, mine = 30_000, uuid4()
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path = ledger")
        conn.execute("insert into commits select n, 1, n, 1, 1, n, gen_random_uuid(), 0 from generate_series(1, %s) n", (count,))
        conn.execute(
            "insert into events select 1, n, 0, n, n, case when n %% 10000 = 5 then %s else gen_random_uuid() end, null, '', '' "
            "from generate_series(1, %s) n",
            (mine, count),
        )
        if analyzed:
            conn.execute("analyze commits, events")

    async def run() -> int:
        async with await connect(app_url) as conn:
            found = [row[0] async for page in audit.matching(conn, 0, EVERY, DIRECTORIES, -1, [mine]) for row in page]
            assert found == [5, 10_005, 20_005]
            await conn.execute("set plan_cache_mode = force_generic_plan")
            blocks = 0
            for name, params in (
                ("few_of_subjects", (int4s([1]), uuids([mine]), 20_001)),
                ("positions_of_subjects", (0, EVERY, int4s([1]), -1, uuids([mine]))),
            ):
                explain: Any = "explain (analyze, buffers, format json) " + SQL[name]
                async with audit.by_index_alone(conn):
                    ((plan,),) = await (await conn.execute(explain, params)).fetchall()
                blocks += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
            return blocks

    assert asyncio.run(run()) < 100


def test_the_cost_of_a_page_does_not_depend_on_the_log_behind_it(superuser_url: str, app_url: str) -> None:
    """Statements have a time limit: with a long log behind it every page would be refused."""
    rows = filled(superuser_url, 1)

    assert asyncio.run(_looked_at(app_url, 3)) <= 4 * 5 < len(rows)


def test_the_cost_of_a_page_does_not_depend_on_the_size_of_its_commits(superuser_url: str, app_url: str) -> None:
    """In a log of replacements of whole groups, as many commits as a page has events would be millions of events."""
    size, commits = 1_000, 60
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set search_path = ledger")
        conn.execute(
            "insert into commits select 1 + n * %(size)s, 1, 1 + n * %(size)s, %(size)s, 1, n, gen_random_uuid(), 0 from generate_series(0, %(last)s) n",
            {"size": size, "last": commits - 1},
        )
        conn.execute(
            "insert into events select 1, n, 0, n, n, gen_random_uuid(), null, '', '' from generate_series(1, %s) n",
            (size * commits,),
        )
        conn.execute("analyze commits, events")
    assert asyncio.run(_looked_at(app_url, 100)) <= 3 * size


async def _looked_at(url: str, page: int) -> int:
    """The number of events that the statement of a page reads, with the plan that a connection of the pool keeps."""
    async with await connect(url) as conn:
        await conn.execute("set plan_cache_mode = force_generic_plan")
        explain: Any = "explain (analyze, format json) " + SQL["positions_matching"]
        row = await (await conn.execute(explain, (0, EVERY, int4s([1, 2]), -1, page, None))).fetchone()
    assert row is not None

    def events(plan: dict[str, Any]) -> float:
        own = plan["Actual Rows"] * plan["Actual Loops"] if plan.get("Alias") == "e" else 0
        return own + sum(events(part) for part in plan.get("Plans", ()))

    return round(events(row[0][0]["Plan"]))


def test_a_missing_position_is_reported_wherever_it_is(superuser_url: str, app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = filled(superuser_url, 2, missing=60)
    positions = [row[0] for row in rows]
    first = next(p for p in range(1, positions[-1]) if p not in positions)
    last = next(p for p in range(first, positions[-1]) if p + 1 in positions)

    async def check() -> None:
        conn = await connect(app_url)
        async with conn:
            for stretch in (3, 50, 100_000):
                monkeypatch.setattr(audit, "STRETCH", stretch)
                found = await audit._broken(conn, 0, positions[-1])
                assert found == [f"positions {first} to {last} are missing in the log"], stretch

    asyncio.run(check())
