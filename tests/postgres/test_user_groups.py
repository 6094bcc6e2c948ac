"""The group names in users: unsealed once while they do not change, new after a change, gone with their key."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from psycopg.conninfo import conninfo_to_dict

from database.connections import connect_owner
from projections import reads, user_groups
from projections.user_groups import GroupOf, as_it_is, groups_of
from scim.work import Work
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.lost_ends import Database, again


async def shown(ledger: Ledger, user: UUID) -> list[str]:
    """Read them by the query of a page; its result must equal that of the query that concurrent requests share."""
    services = ledger.services
    found = await groups_of(services.ledger.turns, services.group_names, ledger.directory, [user], Work(10_000), as_it_is)
    alone = [group.name for group in found.get(user, [])]
    together: Any = await services.reads.groups.get((ledger.directory.id, user))
    assert alone == [group.name for group in together or []]
    return alone


def test_a_name_is_unsealed_once_and_is_the_newest(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_bodies: list[UUID] = []
    readable = reads.readable

    def counted(*args: Any, **kwargs: Any) -> Any:
        opened_bodies.append(args[2][1])
        return readable(*args, **kwargs)

    monkeypatch.setattr(reads, "readable", counted)

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            group = id_of(await ledger.create_group("first", (user,)))
            for _ in range(3):
                assert await shown(ledger, user) == ["first"]
            assert opened_bodies.count(group) == 1
            await ledger.patch_group(group, {"op": "replace", "path": "displayName", "value": "second"})
            for _ in range(3):
                assert await shown(ledger, user) == ["second"]
            assert opened_bodies.count(group) == 2

    asyncio.run(run())


def test_a_name_costs_the_same_number_of_steps_with_and_without_the_cache(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            await ledger.create_group("n" * 200, (user,))
            turns, names = ledger.services.ledger.turns, ledger.services.group_names
            spent: list[int] = []
            for _ in range(2):
                work = Work(10_000)
                await groups_of(turns, names, ledger.directory, [user], work, as_it_is)
                spent.append(work.left)
            assert spent[0] == spent[1] < 10_000

    asyncio.run(run())


def test_without_its_key_a_cached_name_is_not_shown(app_url: str, owner_url: str) -> None:
    """Erasing deletes the key: afterwards nothing of the group may be shown, also by a process that had cached its name."""

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            group = id_of(await ledger.create_group("secret", (user,)))
            await ledger.create_group("other", (user,))
            assert await shown(ledger, user) == ["secret", "other"]
            owner = await connect_owner(owner_url)
            try:
                await owner.execute("alter table ledger.subject_keys disable trigger all")
                await owner.execute("delete from ledger.subject_keys where obj = $1", (group,))
            finally:
                await owner.close()
            assert await shown(ledger, user) == ["other"]

    asyncio.run(run())


def test_the_cache_holds_a_limited_number_of_short_names(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_groups, "NAMES_MAX", 2)
    monkeypatch.setattr(user_groups, "NAME_CHARS_MAX", 3)

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            names = ["a", "long", "b", "c"]
            for name in names:
                await ledger.create_group(name, (user,))
            for _ in range(2):
                assert await shown(ledger, user) == names
            kept = ledger.services.group_names
            async with ledger.services.ledger.connection() as conn:
                found = await user_groups.groups_above(conn, [(ledger.directory, user)], 10)
                assert len(kept.remembered(found.rows)) == 2

    asyncio.run(run())


def test_groups_above_groups_are_indirect_and_circles_are_followed_once(app_url: str) -> None:
    async def run() -> None:
        async with opened(app_url) as ledger:
            users = [id_of(await ledger.create_user(name)) for name in "uv"]
            low = id_of(await ledger.create_group("low", tuple(users)))
            high = id_of(await ledger.create_group("high", (low, users[1])))
            await ledger.add_member(low, high)
            turns, names = ledger.services.ledger.turns, ledger.services.group_names
            found = await groups_of(turns, names, ledger.directory, users, Work(10_000), as_it_is)
            assert found[users[0]] == [GroupOf(str(low), "low", True), GroupOf(str(high), "high", False)]
            assert found[users[1]] == [GroupOf(str(low), "low", True), GroupOf(str(high), "high", True)]

    asyncio.run(run())


def test_a_name_of_a_lost_end_of_the_log_is_forgotten(app_url: str, admin_url: str) -> None:
    """After the restore of a backup the group is renamed again, by an event with the same seq and under the same key."""
    database = Database(admin_url, str(conninfo_to_dict(app_url)["dbname"]))

    async def run() -> None:
        async with opened(app_url) as ledger:
            user = id_of(await ledger.create_user("u"))
            group = id_of(await ledger.create_group("first", (user,)))
            await asyncio.to_thread(database.back_up)

            async def rename(name: str) -> Any:
                return await again(lambda: ledger.patch_group(group, {"op": "replace", "path": "displayName", "value": name}))

            lost = await rename("lost")
            assert await again(lambda: shown(ledger, user)) == ["lost"]
            await asyncio.to_thread(database.restore)
            assert (await rename("new")).seq == lost.seq
            assert await again(lambda: shown(ledger, user)) == ["new"]

    asyncio.run(run())
