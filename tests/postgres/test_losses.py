"""Counting users who lost access: page by page and only up to the limit, with the same result as an implementation that reads
everything.
"""

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import pytest

from database.connections import Connection
from database.deadlines import COUNT, Deadline
from delivery import dispatcher, losses, surge_control
from delivery.losses import EVER, users_between
from delivery.reports import HELD
from delivery.surge_control import held_commits
from delivery.surge_policy import HOUR_US, Limit, Loss, excess
from ledger.commands import DeleteGroup, DeleteUser
from ledger.rendering import Event
from tests.postgres.deliveries import Scene, in_order, scene
from tests.postgres.ledgers import Ledger, id_of, opened
from tests.postgres.machine import Machine
from tests.postgres.test_delivery import OFF, ON, run

LEVELS = 4


async def history(ledger: Ledger, seed: int) -> None:
    """Users in nested groups, and 40 commands that give and end access in all ways."""
    dice = random.Random(seed)
    users = [id_of(o) for o in await asyncio.gather(*(ledger.create_user(f"u{n}") for n in range(8)))]
    levels: list[list[UUID]] = [users]
    for level in range(LEVELS):
        some = [tuple(dice.sample(levels[-1], 2)) + tuple(dice.sample(users, 1)) for _ in range(3)]
        levels.append([id_of(await ledger.create_group(f"{level}-{n}", members)) for n, members in enumerate(some)])
    groups = [(group, below) for below, of in pairwise(levels) for group in of]
    for _ in range(40):
        group, below = dice.choice(groups)
        user, member = dice.choice(users), dice.choice(below)
        act = dice.choice(["off", "on", "remove", "remove", "add", "empty"] + ["delete"] * (len(groups) > 6))
        if act == "delete":
            await ledger.submit(DeleteGroup(group))
            groups.remove((group, below))
            below_of = next((of for of in levels if group in of), None)
            assert below_of is not None
            below_of.remove(group)
            groups = [(g, b) for g, b in groups if b]
        elif act in {"off", "on"}:
            await ledger.patch_user(user, OFF if act == "off" else ON)
        elif act == "add":
            await ledger.add_member(group, member)
        else:
            path = "members" if act == "empty" else f'members[value eq "{member}"]'
            await ledger.patch_group(group, {"op": "remove", "path": path})


async def every_loss(conn: Connection, directory: int, *, enough: int = 1_000) -> list[Loss]:
    """All losses in order, each commit complete."""
    whole: dict[int, Loss] = {}
    async for loss in losses.losses(conn, directory, 0, EVER, enough=enough):
        before = whole.get(loss.seq, Loss(loss.seq, loss.at, set()))
        whole[loss.seq] = Loss(loss.seq, loss.at, {*before.users, *loss.users})
    return [whole[seq] for seq in sorted(whole)]


def as_events(directory: int, found: list[Loss]) -> list[Event]:
    return [Event(0, directory, loss.seq, 4, uuid4(), None, loss.at, loss.seq, 1 << 4, b"", "acme") for loss in found]


@pytest.mark.parametrize("seed", [1, 2])
def test_pages_of_any_size_give_the_same_result_as_reading_everything(
    app_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger, ledger.services.ledger.connection() as conn:
            await history(ledger, seed)
            directory = ledger.directory.id
            found = await every_loss(conn, directory)
            users = {user for loss in found for user in loss.users}
            assert len(users) >= 4
            events = as_events(directory, found)
            for page, edges, groups in ((3, 1, 2), (7, 5, 1)):
                for name, size in (("LOSSES_PAGE", page), ("EDGES", edges), ("GROUPS", groups)):
                    monkeypatch.setattr(losses, name, size)
                assert await every_loss(conn, directory) == found
                for limit in (0, len(users) // 2, len(users) - 1, len(users)):
                    count = await users_between(conn, directory, 0, EVER, limit)
                    assert count == len(users) if len(users) <= limit else count > limit
                    held = await held_commits(conn, {directory: Limit(limit, "hold")}, events[len(events) // 2 :])
                    over = excess(found, Limit(limit))
                    assert held.judged
                    assert held.commits == {(directory, e.commit) for e in events[len(events) // 2 :] if e.commit in over}

    run(body())


def test_commits_far_apart_are_each_counted_in_their_own_hour(app_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that begins with old and new commits reads their hours, not the year in between."""

    async def body() -> None:
        async with opened(app_url) as ledger, ledger.services.ledger.connection() as conn:
            asked: list[tuple[int, int]] = []

            async def between(_: Connection, __: int, after: int, through: int, *___: Any, **____: Any) -> int:
                asked.append((after, through))
                return 0

            monkeypatch.setattr(losses, "users_between", between)
            directory, hour = ledger.directory.id, HOUR_US
            times = (5 * hour, 5 * hour + 1, 6 * hour, 900 * hour)
            events = as_events(directory, [Loss(n, at, ()) for n, at in enumerate(times, 1)])
            await held_commits(conn, {directory: Limit(1, "hold")}, events)
            assert asked == [(4 * hour, 6 * hour), (899 * hour, 900 * hour)]

    run(body())


def test_released_commits_are_delivered_whether_users_can_be_counted_or_not(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with opened(app_url) as ledger, ledger.services.ledger.connection() as conn:
            await history(ledger, 1)
            directory = ledger.directory.id
            *_, before, last = sorted(found.seq for found in await every_loss(conn, directory))
            events = as_events(directory, await every_loss(conn, directory))
            too_many_pages(monkeypatch, 0)
            held = await held_commits(conn, {directory: Limit(1, "hold", released=before)}, events)
            assert (held.commits, held.judged) == ({(directory, last)}, False)
            held = await held_commits(conn, {directory: Limit(1, "hold", released=last)}, events)
            assert (held.commits, held.judged) == (set(), True)
            held = await held_commits(conn, {directory: Limit(1, "hold", closed=True)}, events)
            assert (held.commits, held.judged) == (set(), True)

    run(body())


Late = Callable[[pytest.MonkeyPatch, int], None]


def canceled(patched: pytest.MonkeyPatch, directory: int) -> None:
    """For one directory the server cancels the statement."""
    slow = losses.SQL["losses_between"].replace(
        "order by commit desc", f"having pg_sleep(case when $1 = {directory} then 9 end) is null"
    )
    patched.setattr(losses, "SQL", MappingProxyType({**losses.SQL, "losses_between": slow}))


def too_many_pages(patched: pytest.MonkeyPatch, _: int) -> None:
    patched.setattr(losses, "COUNT", Deadline(-1.0, COUNT.of, COUNT.then))


async def two_directories(s: Scene) -> int:
    """Two directories that lose three users each; returns the second one."""
    other = await Machine(s.ledger.services.ledger).create_directory("other")
    for directory in (s.ledger.directory, other):
        for n in range(3):
            user = id_of(await s.ledger.create_user(f"u{n}", directory))
            await s.ledger.submit(DeleteUser(user), directory)
    return other.id


def test_a_directory_whose_count_takes_too_long_does_not_stop_the_count_of_others(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            other, mine = await two_directories(s), s.ledger.directory.id
            limits = {mine: Limit(1), other: Limit(1)}
            async with s.conn() as conn:
                assert {found[0] for found in await surge_control.surging(conn, limits, quiet_s=0)} == {mine, other}
                await conn.execute("set statement_timeout = 300")
                with monkeypatch.context() as patched:
                    canceled(patched, mine)
                    assert [found[0] for found in await surge_control.surging(conn, limits, quiet_s=0)] == [other]
                    assert await surge_control.lately(conn, limits) == {mine: 0, other: 3}
                with monkeypatch.context() as patched:
                    too_many_pages(patched, mine)
                    assert len(await surge_control.surging(conn, limits, quiet_s=0)) == 2, (
                        "what was found in time is more than the limit"
                    )
                    assert await surge_control.surging(conn, {mine: Limit(9), other: Limit(9)}, quiet_s=0) == []
                await conn.execute("set statement_timeout = 4000")

    run(body())


def test_commits_that_cannot_be_counted_in_time_are_held_and_everything_else_goes_on(
    app_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with scene(app_url) as s:
            await s.act(surge_control.limited(uuid4(), s.ledger.directory, 5, "hold"))
            other = await two_directories(s)
            await s.make()
            wanted = await s.wanted()
            ends = {e["position"] for e in wanted if e["type"] == "user.deleted" and e["directory"] == "acme"}
            assert other
            assert ends
            with monkeypatch.context() as patched:
                too_many_pages(patched, 0)
                async with s.working():
                    await s.until(lambda: len(s.hook.took) == len(wanted) - 3)
                    assert {p for p, state in (await s.states()).items() if state == HELD} == ends
                    assert in_order(s.hook.took)
            monkeypatch.setattr(dispatcher, "JUDGED_AGAIN_S", 0.05)
            with monkeypatch.context() as patched:
                too_many_pages(patched, 0)
                async with s.working():
                    patched.undo()
                    await s.settled()
            assert in_order(s.hook.took)
            assert len(s.hook.took) == len(wanted)

    run(body())
