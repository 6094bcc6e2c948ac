"""Directories take turns: a directory that asks for much delays only itself."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from database.deadlines import Deadline
from ledger import turns
from ledger.turns import LARGE_AT_ONCE, THREADS, Line, Turns
from scim.errors import Unavailable


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def a_step() -> None:
    """Let every other task run that is ready."""
    step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(step.set_result, None)
    await step


class Visitors:
    """Tasks that hold a place until the test releases them."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.inside: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def come(self, name: str, key: int) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, key))

    async def _stay(self, name: str, key: int) -> None:
        async with self.line.place(key):
            self.inside.append(name)
            await self.leave[name].wait()
            self.inside.remove(name)

    async def settle(self) -> list[str]:
        for _ in range(10):
            await a_step()
        return sorted(self.inside)

    async def go(self, *names: str) -> list[str]:
        for name in names:
            self.leave[name].set()
        return await self.settle()


def test_one_key_has_its_share_and_another_finds_a_free_place():
    async def test() -> None:
        visitors = Visitors(Line(3, 2, "busy"))
        for n in range(10):
            visitors.come(f"a{n}", 1)
        visitors.come("b", 2)
        assert await visitors.settle() == ["a0", "a1", "b"]
        assert await visitors.go("a0") == ["a1", "a2", "b"]
        assert await visitors.go(*visitors.leave) == []

    run(test)


def test_waiting_tasks_get_their_turn_in_rotation_by_key():
    async def test() -> None:
        visitors = Visitors(Line(1, 1, "busy"))
        for name, key in (("a0", 1), ("a1", 1), ("a2", 1), ("b0", 2), ("b1", 2), ("c0", 3)):
            visitors.come(name, key)
            await visitors.settle()
        came: list[str] = []
        while inside := await visitors.settle():
            came += inside
            await visitors.go(*inside)
        assert came == ["a0", "a1", "b0", "c0", "a2", "b1"]

    run(test)


def test_a_task_that_is_cancelled_while_it_waits_leaves_its_turn_to_the_next():
    async def test() -> None:
        visitors = Visitors(Line(1, 1, "busy"))
        for name in ("first", "gone", "last"):
            visitors.come(name, 1)
        await visitors.settle()
        visitors.tasks["gone"].cancel()
        assert await visitors.go("first") == ["last"]
        assert await visitors.go("last") == []

    run(test)


def test_a_task_that_is_cancelled_at_the_moment_of_its_turn_leaves_it_to_the_next():
    async def test() -> None:
        visitors = Visitors(Line(1, 1, "busy"))
        async with visitors.line.place(1):
            visitors.come("gone", 1)
            visitors.come("last", 1)
            assert await visitors.settle() == []
        visitors.tasks["gone"].cancel()  # it was just given its turn, and has not run since
        assert await visitors.settle() == ["last"]
        assert await visitors.go("last") == []
        visitors.come("again", 2)
        assert await visitors.settle() == ["again"]

    run(test)


def test_a_task_whose_turn_does_not_come_is_refused_and_takes_no_place(monkeypatch: pytest.MonkeyPatch):
    """A request that waits behind its own directory for too long is refused with Retry-After; those after it lose nothing."""
    monkeypatch.setattr(turns, "TURN", Deadline(0.05, "a turn", "503"))

    async def test() -> None:
        line = Line(2, 1, "busy")
        visitors = Visitors(line)
        visitors.come("first", 1)
        assert await visitors.settle() == ["first"]
        with pytest.raises(Unavailable, match="busy") as refused:
            async with line.place(1):
                raise AssertionError("it has no turn")
        assert refused.value.retry_after > 0
        assert await visitors.go("first") == []
        visitors.come("next", 1)
        visitors.come("other", 2)
        assert await visitors.settle() == ["next", "other"]
        await visitors.go("next", "other")

    run(test)


def test_a_refusal_says_whether_other_keys_hold_the_places(monkeypatch: pytest.MonkeyPatch):
    """Large requests of three directories delay a fourth one, which has nothing under way: the refusal of each says what it waits
    for.
    """
    monkeypatch.setattr(turns, "TURN", Deadline(0.05, "a turn", "503"))
    go_on, newcomer = threading.Event(), 9
    none: Any = None

    @asynccontextmanager
    async def connection() -> AsyncGenerator[Any]:
        yield none

    async def test() -> None:
        taken = Turns(connection, 1)
        computing = [asyncio.create_task(taken.compute(key, go_on.wait)) for key in range(THREADS)]
        async with AsyncExitStack() as held:
            for key in range(LARGE_AT_ONCE):
                await held.enter_async_context(taken.in_hand(key))
            await held.enter_async_context(taken.connection(0))
            await a_step()
            try:
                for waiting, for_what in (
                    (taken.compute(newcomer, none), "computed"),
                    (held.enter_async_context(taken.connection(newcomer)), "connections"),
                    (held.enter_async_context(taken.in_hand(newcomer)), "large requests, of this directory or of others,"),
                ):
                    with pytest.raises(Unavailable, match=for_what) as refused:
                        await waiting
                    assert "too much" not in str(refused.value)
            finally:
                go_on.set()
                await asyncio.gather(*computing)

    run(test)
