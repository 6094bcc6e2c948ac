"""A value that costs something is made by one at a time, and kept for a moment."""

import asyncio

import pytest

from api.recent import Recent


def test_many_who_ask_at_once_share_one_making() -> None:
    async def story() -> None:
        made, go = 0, asyncio.Event()

        async def make() -> int:
            nonlocal made
            made += 1
            await go.wait()
            return made

        recent = Recent(make, 60.0)
        asking = [asyncio.create_task(recent.get()) for _ in range(50)]
        await asyncio.wait(asking, timeout=0)
        asking[0].cancel()  # one who goes away takes nothing from the others
        go.set()
        assert await asyncio.gather(*asking[1:]) == [1] * 49
        assert await recent.get() == 1

    asyncio.run(story())


def test_it_is_made_anew_once_it_is_old_and_after_a_failure() -> None:
    async def story() -> None:
        values = iter([ValueError("away"), 1, 2])

        async def make() -> int:
            value = next(values)
            if isinstance(value, Exception):
                raise value
            return value

        recent = Recent(make, 0.0)
        with pytest.raises(ValueError, match="away"):
            await recent.get()
        assert [await recent.get(), await recent.get()] == [1, 2]

    asyncio.run(story())
