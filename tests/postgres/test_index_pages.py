"""Lists that are read by indexes alone equal those that read every row, for any bounds; and totals are counted again after each
commit.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any
from uuid import UUID

import pytest
from psycopg.conninfo import conninfo_to_dict

from database.connections import Connection, connect_owner
from ledger.events import GROUP, USER
from ledger.sealing import Kek
from projections import index_pages
from projections.index_pages import BEGINNING, SQL, KnownLists, Place, Row, listed
from replay.rebuild import rebuild
from scim.filter_index import Bounds
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.lost_ends import Database, again

Stored = tuple[int, UUID, int, bool]  # created, id, updated, active


async def users_as_stored(conn: Connection, ledger: Ledger) -> list[Stored]:
    text = "select created_at, id, updated_at, active from users where directory = $1 order by 1, 2"
    return await (await conn.execute(text, (ledger.directory.id,))).fetchall()


def drawn_bounds(dice: Random, stored: Sequence[Stored]) -> Iterator[Bounds]:
    """Bounds of every form, at, just before and just after times that occur."""
    times = [time + step for row in stored for time in (row[0], row[2]) for step in (-1, 0, 1)]
    for shape in range(32):
        active, *ends = [bool(shape >> bit & 1) for bit in range(5)]
        for _ in range(8):
            yield Bounds(dice.random() < 0.5 if active else None, *(dice.choice(times) if end else None for end in ends))


def inside(row: Stored, within: Bounds) -> bool:
    created, _, updated, active = row
    ends = (
        (within.created_min, created),
        (created, within.created_max),
        (within.modified_min, updated),
        (updated, within.modified_max),
    )
    return within.active in (None, active) and all(low is None or high is None or low <= high for low, high in ends)


@pytest.mark.parametrize(
    ("few", "hashed_max"), [(1, 100), (100, 100), (100, -1)], ids=["few users", "hashed sets", "from the table"]
)
def test_a_list_equals_its_rows(app_url: str, monkeypatch: pytest.MonkeyPatch, few: int, hashed_max: int) -> None:
    monkeypatch.setattr(index_pages, "FEW", few)
    monkeypatch.setattr(index_pages, "HASHED_MAX", hashed_max)

    async def run() -> None:
        dice = Random(7)
        async with opened(app_url) as ledger:
            users = [id_of(await ledger.create_user(f"u{n}")) for n in range(12)]
            for n in range(30):
                user = users.pop(dice.randrange(len(users))) if n == 20 else dice.choice(users)
                if n == 20:
                    await ledger.delete_user(user)
                else:
                    path, value = dice.choice([("title", f"t{n}"), ("active", bool(n % 2))])
                    await ledger.patch_user(user, {"op": "replace", "path": path, "value": value})
                if n % 10 == 0:
                    users.append(id_of(await ledger.create_user(f"late{n}")))
                    await ledger.create_group(f"g{n}", (users[-1],))
            async with ledger.services.ledger.connection() as conn:
                stored = await users_as_stored(conn, ledger)
                for within in drawn_bounds(dice, stored):
                    found: list[Row] = [row[:2] for row in stored if inside(row, within)]
                    after = dice.choice([BEGINNING, *(row[:2] for row in stored)])
                    offset, limit = dice.randrange(len(stored)), dice.randrange(5)
                    for place in (Place(after), Place(offset=offset)):
                        expected = [row for row in found if row > place.after][place.offset : place.offset + limit]
                        got = await listed(conn, ledger.services.lists, ledger.directory, USER, within, place, limit)
                        assert got == (len(found), expected), (within, place)

    asyncio.run(run())


@pytest.mark.parametrize("within", [Bounds(), Bounds(active=True), Bounds(active=False), Bounds(created_min=1)], ids=str)
def test_a_list_by_creation_or_activity_reads_only_the_index(app_url: str, within: Bounds) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, ledger.services.ledger.connection() as conn:
            found = index_pages._by_creation(ledger.directory, USER, within)
            following = SQL[found.following]
            for text, params in ((SQL[found.total], found.params), (following, (*found.params, *BEGINNING, 0, 200))):
                plan = await (await conn.execute(f"explain {text}".encode(), params)).fetchall()
                assert "Index Only Scan using users_listed" in str(plan)

    asyncio.run(run())


def test_a_total_is_counted_again_after_each_commit_and_only_then(app_url: str, owner_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger, await connect_owner(owner_url) as owner:
            first = id_of(await ledger.create_user("first"))

            async def total(ot: str = USER) -> int:
                async with ledger.services.ledger.connection() as conn:
                    return (await listed(conn, ledger.services.lists, ledger.directory, ot, Bounds(), Place(), 0))[0]

            assert (await total(), await total(GROUP)) == (1, 0)
            await ledger.create_user("second")
            await ledger.create_group("g")
            assert (await total(), await total(GROUP)) == (2, 1)
            await owner.execute("delete from ledger.users where id = $1", (first,))  # by hand, without a commit in the ledger
            assert await total() == 2
            await ledger.create_group("h")
            assert await total() == 1

    asyncio.run(run())


def test_a_total_is_counted_again_after_a_rebuild(app_url: str, owner_url: str) -> None:
    """The rebuild repairs a table that differs from the log, while the end of the log does not change."""
    kek = Kek.of(os.urandom(32))

    async def run() -> None:
        async with opened(app_url, kek=kek) as ledger:
            user = id_of(await ledger.create_user("u"))
            async with await connect_owner(owner_url) as owner:
                await owner.execute("delete from ledger.users where id = $1", (user,))

            async def total() -> int:
                async with ledger.services.ledger.connection() as conn:
                    return (await listed(conn, ledger.services.lists, ledger.directory, USER, Bounds(), Place(), 0))[0]

            assert await total() == 0
            assert (await rebuild(owner_url, kek, lambda *_: None, lambda _: None)).drifted == ("users",)
            assert await total() == 1

    asyncio.run(run())


def test_the_cache_of_totals_is_bounded(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pages, "LISTS_MAX", 2)

    async def run() -> None:
        async with opened(app_url) as ledger:
            await ledger.create_user("u")
            lists = KnownLists()
            async with ledger.services.ledger.connection() as conn:
                for bound in range(5):
                    got = await listed(conn, lists, ledger.directory, USER, Bounds(created_min=bound), Place(), 1)
                    assert got[0] == 1
            assert len(lists._known) == 2

    asyncio.run(run())


def test_the_total_of_a_lost_end_of_the_log_is_forgotten(app_url: str, admin_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes between the reading of the key and the count; then the log loses that commit, and the key is what it
    was.
    """
    database = Database(admin_url, str(conninfo_to_dict(app_url)["dbname"]))
    count = index_pages._count

    async def run() -> None:
        async with opened(app_url) as ledger:

            async def total() -> int:
                async with ledger.services.ledger.connection() as conn:
                    return (await listed(conn, ledger.services.lists, ledger.directory, USER, Bounds(), Place(), 0))[0]

            async def late(*args: Any) -> Any:
                await again(lambda: ledger.create_user("second"))
                return await count(*args)

            await ledger.create_user("first")
            await asyncio.to_thread(database.back_up)
            await again(ledger.page)
            with monkeypatch.context() as patch:
                patch.setattr(index_pages, "_count", late)
                assert await total() == 2
            await asyncio.to_thread(database.restore)
            assert await again(total) == 1

    asyncio.run(run())


@pytest.mark.parametrize("stretch", [1, 3])
def test_pages_by_offset_are_the_same_with_and_without_remembered_places(
    app_url: str, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    """A client that pages, then one that asks for pages at random, while users are created and deleted."""
    monkeypatch.setattr(index_pages, "STRETCH_MIN", stretch)

    async def run() -> None:
        dice = Random(11)
        async with opened(app_url) as ledger:
            users = [id_of(await ledger.create_user(f"u{n}")) for n in range(20)]
            async with ledger.services.ledger.connection() as conn:
                for n in range(6):
                    stored = [row[:2] for row in await users_as_stored(conn, ledger)]
                    starts = [*range(0, len(stored), 4), *(dice.randrange(len(stored) + 2) for _ in range(20))]
                    for start in starts:
                        got = await listed(conn, ledger.services.lists, ledger.directory, USER, Bounds(), Place(offset=start), 4)
                        assert got == (len(stored), stored[start : start + 4])
                    await (ledger.delete_user(users.pop(dice.randrange(len(users)))) if n % 2 else ledger.create_user(f"late{n}"))

    asyncio.run(run())


def test_a_page_by_offset_begins_at_the_nearest_place_before_it_and_few_places_are_remembered(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_pages, "STRETCH_MIN", 2)
    monkeypatch.setattr(index_pages, "PLACES_MAX", 4)
    asked: list[Place] = []
    following = index_pages._following

    async def noted(conn: Connection, found: Any, place: Place, limit: int) -> list[Row]:
        asked.append(place)
        return await following(conn, found, place, limit)

    async def run() -> None:
        async with opened(app_url) as ledger:
            for n in range(20):
                await ledger.create_user(f"u{n}")
            lists = KnownLists()
            async with ledger.services.ledger.connection() as conn:
                stored = [row[:2] for row in await users_as_stored(conn, ledger)]
                monkeypatch.setattr(index_pages, "_following", noted)
                for start in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18):
                    await listed(conn, lists, ledger.directory, USER, Bounds(), Place(offset=start), 2)
            (known,) = lists._known.values()
            assert asked[:5] == [
                Place(),
                Place(offset=2),
                Place(stored[3], 0),
                Place(stored[5], 0),
                Place(stored[5], 2),  # in its stretch of 5 resources one place is known already
            ]
            assert [place.offset for place in known.places.values()] == [4, 6, 10, 16, 20]

    asyncio.run(run())


def test_the_end_of_a_page_that_was_read_after_another_commit_is_not_remembered(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover that loses this commit the mark would be what it was."""
    monkeypatch.setattr(index_pages, "STRETCH_MIN", 1)
    following = index_pages._following

    async def run() -> None:
        async with opened(app_url) as ledger:
            first, *_ = [id_of(await ledger.create_user(f"u{n}")) for n in range(4)]

            async def late(*args: Any) -> list[Row]:
                await ledger.delete_user(first)
                return await following(*args)

            lists = KnownLists()
            async with ledger.services.ledger.connection() as conn:
                with monkeypatch.context() as patch:
                    patch.setattr(index_pages, "_following", late)
                    await listed(conn, lists, ledger.directory, USER, Bounds(), Place(offset=2), 1)
            assert [known.places for known in lists._known.values()] == [{}]

    asyncio.run(run())
